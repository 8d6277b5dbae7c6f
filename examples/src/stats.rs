//! The counters that `/stats` and memcached's `stats` show, for the whole process.
//!
//! The only place that knows where they come from.

use serde_json::Value;

use crate::listener::Transport;
use crate::stop::Stop;

/// The process's counters as JSON: `nic.kind`, `fast_path.bytes_in`, `connections.offloaded` ...
///
/// With `--kernel` the sockets are tokio's own, which nobody counts below this program:
/// `connections.kernel` is then the number of connections that `stop` knows of.
#[must_use]
pub fn snapshot(transport: Transport, stop: &Stop) -> Value {
    let mut stats = process();
    if transport == Transport::Kernel {
        stats["connections"]["kernel"] = stop.open().into();
    }
    stats
}

fn process() -> Value {
    serde_json::to_value(flextcp_rt::metrics::Stats::default()).unwrap_or_default()
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

/// True if the NIC carries `stream` right now.
#[must_use]
pub fn is_offloaded(_stream: &flextcp_net::TcpStream) -> bool {
    false
}

/// What carries the connections, for people.
#[must_use]
pub fn describe(transport: Transport) -> String {
    match transport {
        Transport::FlexTcp => "FlexTCP".to_owned(),
        Transport::Kernel => "kernel sockets".to_owned(),
    }
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
        let _open = stop.connection();
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
