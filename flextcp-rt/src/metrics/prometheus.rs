//! The counters as Prometheus reads them: its text exposition format, version 0.0.4.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use serde_json::Value;

use super::Stats;

/// What is not a counter: `group.field`.
const GAUGES: [&str; 3] = ["nic.queues", "memory.used", "memory.limit"];

/// Connections by their owner now, as one gauge with a label.
const OWNERS: [(&str, &str); 3] = [
    ("offloaded", "nic"),
    ("host", "host"),
    ("time_wait", "time_wait"),
];

/// The samples of one metric, which have to stand together.
#[derive(Default)]
struct Family {
    gauge: bool,
    samples: Vec<(String, u64)>,
}

impl Stats {
    /// The counters in Prometheus's text format. Names are `flextcp_GROUP_FIELD_total` (without `_total` for gauges);
    /// fast and slow path, reasons, owners and queues are labels. Kernel sockets that are open now are not among them:
    /// nobody counts these.
    pub fn to_prometheus(&self) -> String {
        let mut families: BTreeMap<String, Family> = BTreeMap::new();
        let mut add = |name: String, gauge: bool, labels: String, value: u64| {
            let family = families.entry(name).or_default();
            family.gauge = gauge;
            family.samples.push((labels, value));
        };
        let groups = serde_json::to_value(self).unwrap_or_default();
        for (group, fields) in groups.as_object().into_iter().flatten() {
            for (field, value) in fields.as_object().into_iter().flatten() {
                let owner = OWNERS.iter().find(|(name, _)| name == field);
                let Some(value) = value.as_u64() else {
                    continue;
                };
                match (group.as_str(), owner) {
                    ("fast_path" | "slow_path", _) => {
                        let path = label("path", group.trim_end_matches("_path"));
                        add(format!("flextcp_{field}_total"), false, path, value);
                    }
                    ("exceptions", _) => {
                        let reason = label("reason", field);
                        add("flextcp_exceptions_total".into(), false, reason, value);
                    }
                    ("connections", Some((_, owner))) => {
                        let owner = label("owner", owner);
                        add("flextcp_connections".into(), true, owner, value);
                    }
                    ("connections", None) if field == "kernel" => {}
                    _ if GAUGES.contains(&format!("{group}.{field}").as_str()) => {
                        add(
                            format!("flextcp_{group}_{field}"),
                            true,
                            String::new(),
                            value,
                        );
                    }
                    _ => {
                        let name = format!("flextcp_{group}_{field}_total");
                        add(name, false, String::new(), value);
                    }
                }
            }
        }
        for (queue, frames) in self.nic.queue_frames_in.iter().enumerate() {
            let queue = label("queue", &queue.to_string());
            let name = "flextcp_nic_queue_frames_in_total".into();
            add(name, false, queue, *frames);
        }
        let kind = label("kind", &self.nic.kind);
        add("flextcp_nic_info".into(), true, kind, 1);
        write(&families)
    }
}

fn label(name: &str, value: &str) -> String {
    // A JSON string escapes what the format wants escaped, and no value of ours holds more.
    format!("{{{name}={}}}", Value::from(value))
}

fn write(families: &BTreeMap<String, Family>) -> String {
    let mut text = String::new();
    for (name, Family { gauge, samples }) in families {
        let kind = if *gauge { "gauge" } else { "counter" };
        // Writing to a string does not fail.
        let _ = writeln!(text, "# TYPE {name} {kind}");
        for (labels, value) in samples {
            let _ = writeln!(text, "{name}{labels} {value}");
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_number_is_a_sample_of_one_family() {
        let mut stats = Stats::new();
        stats.fast_path.bytes_in = 5;
        stats.connections.offloaded = 3;
        stats.connections.accepted = 7;
        stats.nic.queue_frames_in = vec![1, 2];
        let text = stats.to_prometheus();
        for expected in [
            "# TYPE flextcp_bytes_in_total counter\nflextcp_bytes_in_total{path=\"fast\"} 5\n\
             flextcp_bytes_in_total{path=\"slow\"} 0\n",
            "# TYPE flextcp_connections gauge\n",
            "flextcp_connections{owner=\"nic\"} 3\n",
            "flextcp_connections_accepted_total 7\n",
            "flextcp_exceptions_total{reason=\"no_flow\"} 0\n",
            "flextcp_memory_limit 0\n",
            "flextcp_nic_info{kind=\"kernel\"} 1\n",
            "flextcp_nic_queue_frames_in_total{queue=\"1\"} 2\n",
            "flextcp_recovery_retransmitted_total 0\n",
        ] {
            assert!(text.contains(expected), "{expected:?} not in\n{text}");
        }
        let mut seen = std::collections::HashSet::new();
        for line in text.lines() {
            let name = line.rsplit_once(' ').unwrap().0;
            assert!(seen.insert(name), "{name} twice");
            assert!(
                line.starts_with("# TYPE ")
                    || line.rsplit(' ').next().unwrap().parse::<u64>().is_ok()
            );
        }
    }
}
