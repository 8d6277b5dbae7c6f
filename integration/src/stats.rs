//! What a process reports about its connections: the JSON of `/stats`, and of the lines in `FLEXTCP_STATS_FILE`.

use std::fs;
use std::io;
use std::path::Path;

use serde_json::Value;

use crate::netns::Namespace;
use crate::programs::Server;

/// Names the file to which a process appends its statistics as one JSON line when it ends.
pub const STATS_FILE: &str = "FLEXTCP_STATS_FILE";

/// A snapshot of one process's counters.
#[derive(Debug, Clone)]
pub struct Stats(Value);

impl Stats {
    /// Reads a snapshot.
    ///
    /// # Errors
    /// `InvalidData` when `text` is not JSON.
    pub fn parse(text: &str) -> io::Result<Self> {
        serde_json::from_str(text).map(Self).map_err(|error| {
            io::Error::new(
                io::ErrorKind::InvalidData,
                format!("statistics {text:?}: {error}"),
            )
        })
    }

    /// Reads all snapshots of a statistics file; none when there is no file.
    ///
    /// # Errors
    /// `InvalidData` for a line that is not JSON, or what reading the file gives.
    pub fn read_lines(path: &Path) -> io::Result<Vec<Self>> {
        match fs::read_to_string(path) {
            Ok(text) => text.lines().map(Self::parse).collect(),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(Vec::new()),
            Err(error) => Err(error),
        }
    }

    /// Fetches `/stats` of an `http` example from inside `namespace`, with curl: the second answer on one connection, since the
    /// first request may arrive before the connection is accepted, and is the slow path's then.
    ///
    /// # Errors
    /// When the server does not answer with JSON within 10 s.
    pub fn fetch(namespace: &Namespace, server: &Server) -> io::Result<Self> {
        let url = server.url("/stats");
        let args = [
            "-ksSf",
            "--globoff",
            "--max-time",
            "10",
            "-o",
            "/dev/null",
            &url,
            &url,
        ];
        Self::parse(&namespace.run("curl", args)?)
    }

    /// The counter at `path`, such as `fast_path.bytes_in`; 0 when there is none.
    pub fn count(&self, path: &str) -> u64 {
        self.at(path).and_then(Value::as_u64).unwrap_or(0)
    }

    /// The counters in the list at `path`, such as `nic.queue_frames_in`; none when there is no list.
    pub fn counts(&self, path: &str) -> Vec<u64> {
        let list = self.at(path).and_then(Value::as_array);
        list.map_or_else(Vec::new, |list| {
            list.iter().filter_map(Value::as_u64).collect()
        })
    }

    /// The text at `path`, such as `nic.kind`; empty when there is none.
    pub fn text(&self, path: &str) -> &str {
        self.at(path).and_then(Value::as_str).unwrap_or_default()
    }

    /// Whether a NIC serves the process.
    pub fn has_nic(&self) -> bool {
        !matches!(self.text("nic.kind"), "" | "none" | "kernel")
    }

    /// How often a connection was handed to the NIC so far.
    pub fn offloaded(&self) -> u64 {
        self.count("offload.installed")
    }

    /// Fails unless the NIC carried connections and their bytes, so that a test of ours cannot pass on kernel sockets.
    /// `FLEXTCP_TEST_KERNEL=1` lets it, to try the harness itself.
    ///
    /// # Panics
    /// When no connection was offloaded, or no byte went over the fast path.
    pub fn assert_offloaded(&self) {
        if std::env::var_os("FLEXTCP_TEST_KERNEL").is_some_and(|value| value == "1") {
            return;
        }
        assert!(self.has_nic(), "no NIC serves the process: {}", self.0);
        assert!(
            self.offloaded() > 0,
            "no connection was offloaded: {}",
            self.0
        );
        let fast = self.count("fast_path.bytes_in") + self.count("fast_path.bytes_out");
        assert!(fast > 0, "no byte went over the fast path: {}", self.0);
    }

    fn at(&self, path: &str) -> Option<&Value> {
        path.split('.')
            .try_fold(&self.0, |value, key| value.get(key))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_reach_into_objects() {
        let stats = Stats::parse(r#"{"nic":{"kind":"soft"},"offload":{"installed":3}}"#).unwrap();
        assert_eq!(stats.offloaded(), 3);
        assert!(stats.has_nic());
        assert_eq!(stats.count("fast_path.bytes_in"), 0);
        assert_eq!(stats.text("nic"), "");
    }

    #[test]
    fn a_process_on_kernel_sockets_has_no_nic() {
        for kind in [
            r#"{"nic":{"kind":"kernel"}}"#,
            r#"{"nic":{"kind":"none"}}"#,
            "{}",
        ] {
            assert!(!Stats::parse(kind).unwrap().has_nic(), "{kind}");
        }
    }
}
