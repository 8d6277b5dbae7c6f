//! The counters that `/stats` and memcached's `stats` show, for the whole process.
//!
//! The only place that knows where they come from.

use flextcp_rt::Host;
use flextcp_rt::metrics::Stats;
use serde_json::Value;

use crate::listener::Transport;
use crate::stop::Stop;

/// The process's counters as JSON: `nic.kind`, `fast_path.bytes_in`, `connections.offloaded` ...
///
/// Nobody below this program counts the kernel sockets: `connections.kernel` is what `stop` knows.
#[must_use]
pub fn snapshot(transport: Transport, stop: &Stop) -> Value {
    let stats = process(transport);
    let mut stats = serde_json::to_value(stats).unwrap_or_default();
    stats["connections"]["kernel"] = stop.open_on_kernel().into();
    stats
}

fn process(transport: Transport) -> Stats {
    match transport {
        // Asking for the process's FlexTCP would start it.
        Transport::Kernel => Stats::new(),
        Transport::FlexTcp => Host::current().map_or_else(|_| Stats::new(), |host| host.stats()),
    }
}

/// The process's counters in Prometheus's format.
#[must_use]
pub fn prometheus(transport: Transport) -> String {
    process(transport).to_prometheus()
}

/// The listeners and connections that FlexTCP carries, a line each.
#[must_use]
pub fn connections(transport: Transport) -> String {
    match transport {
        Transport::Kernel => "FlexTCP carries none: --kernel asks for kernel sockets\n".to_owned(),
        Transport::FlexTcp => flextcp_net::observe::connections(),
    }
}

/// `value` as lines of dotted names and plain values, without empty collections.
#[must_use]
pub fn flatten(value: &Value) -> Vec<(String, String)> {
    let mut lines = Vec::new();
    flatten_into(String::new(), value, &mut lines);
    lines
}

fn flatten_into(name: String, value: &Value, lines: &mut Vec<(String, String)>) {
    let join = |part: &str| match name.as_str() {
        "" => part.to_owned(),
        name => format!("{name}.{part}"),
    };
    match value {
        Value::Object(fields) => {
            for (field, value) in fields {
                flatten_into(join(field), value, lines);
            }
        }
        Value::Array(elements) => {
            for (index, value) in elements.iter().enumerate() {
                flatten_into(join(&index.to_string()), value, lines);
            }
        }
        Value::String(text) => lines.push((name, text.clone())),
        plain => lines.push((name, plain.to_string())),
    }
}

/// What carries the connections, for people.
#[must_use]
pub fn describe(transport: Transport) -> String {
    if transport == Transport::Kernel {
        return "kernel sockets".to_owned();
    }
    let nic = process(transport).nic;
    if nic.kind == "kernel" {
        return "FlexTCP (no NIC: kernel sockets)".to_owned();
    }
    format!(
        "FlexTCP ({} NIC on {})",
        nic.kind,
        nic.interfaces.join(", ")
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn flattens_to_dotted_names() {
        let value = json!({"a": {"b": 1, "c": [true, "x"]}, "d": {}, "e": null});
        let lines = flatten(&value);
        let expected = [
            ("a.b", "1"),
            ("a.c.0", "true"),
            ("a.c.1", "x"),
            ("e", "null"),
        ];
        let expected: Vec<_> = expected.map(|(n, v)| (n.into(), v.into())).into();
        assert_eq!(lines, expected);
    }

    #[test]
    fn has_the_documented_keys() {
        let stop = Stop::new();
        let _open = stop.connection(true);
        let stats = snapshot(Transport::Kernel, &stop);
        assert!(stats["nic"]["kind"].is_string());
        for path in ["fast_path", "slow_path"] {
            assert!(stats[path]["bytes_in"].is_u64() && stats[path]["bytes_out"].is_u64());
        }
        assert!(stats["exceptions"].is_object());
        assert_eq!(stats["connections"]["kernel"], 1);
        assert_eq!(stats["connections"]["offloaded"], 0);
        assert_eq!(stats["connections"]["host"], 0);
    }
}
