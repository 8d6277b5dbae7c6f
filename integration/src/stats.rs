//! What a process reports about its connections: the JSON of `/stats`, and of the lines in `FLEXTCP_STATS_FILE`.

use std::fs;
use std::io::{self, Read as _, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::path::Path;
use std::time::Duration;

use serde_json::Value;

use crate::netns::Namespace;

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

    /// Fetches `/stats` of an `http` example from inside `namespace`.
    ///
    /// # Errors
    /// When the server does not answer with JSON within 10 s.
    pub fn fetch(namespace: &Namespace, server: SocketAddr) -> io::Result<Self> {
        let answer = namespace.within(|| http_get(server, "/stats"))??;
        Self::parse(&answer)
    }

    /// The counter at `path`, such as `fast_path.bytes_in`; 0 when there is none.
    pub fn count(&self, path: &str) -> u64 {
        self.at(path).and_then(Value::as_u64).unwrap_or(0)
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

    fn at(&self, path: &str) -> Option<&Value> {
        path.split('.')
            .try_fold(&self.0, |value, key| value.get(key))
    }
}

fn http_get(server: SocketAddr, path: &str) -> io::Result<String> {
    let limit = Duration::from_secs(10);
    let mut stream = TcpStream::connect_timeout(&server, limit)?;
    stream.set_read_timeout(Some(limit))?;
    write!(
        stream,
        "GET {path} HTTP/1.1\r\nHost: {server}\r\nConnection: close\r\n\r\n"
    )?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer)?;
    let (head, body) = answer
        .split_once("\r\n\r\n")
        .ok_or_else(|| io::Error::new(io::ErrorKind::InvalidData, answer.clone()))?;
    if !head.starts_with("HTTP/1.1 200") {
        return Err(io::Error::new(io::ErrorKind::InvalidData, head.to_owned()));
    }
    Ok(body.to_owned())
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
