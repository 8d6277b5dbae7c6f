//! The counters that `/stats` and memcached's `stats` show, for the whole process.
//!
//! The only place that knows where they come from.

use std::collections::BTreeMap;

use serde::Serialize;

use crate::listener::Transport;
use crate::stop::Stop;

/// The counters of this process.
#[derive(Debug, Clone, Default, Serialize)]
pub struct Stats {
    /// The NIC that carries offloaded connections.
    pub nic: NicStats,
    /// What the NIC carried by itself.
    pub fast_path: PathStats,
    /// What the engine carried.
    pub slow_path: PathStats,
    /// Frames that the fast path passed to the slow path, by reason.
    pub exceptions: BTreeMap<String, u64>,
    /// Open connections, by who carries them.
    pub connections: ConnectionStats,
}

/// The NIC in use.
#[derive(Debug, Clone, Serialize)]
pub struct NicStats {
    /// Its kind; `none` when all connections are on kernel sockets.
    pub kind: String,
}

impl Default for NicStats {
    fn default() -> Self {
        Self {
            kind: "none".to_owned(),
        }
    }
}

/// What went over one of the two paths.
#[derive(Debug, Clone, Default, Serialize)]
pub struct PathStats {
    /// Payload bytes received.
    pub bytes_in: u64,
    /// Payload bytes sent.
    pub bytes_out: u64,
}

/// Open connections by who carries them.
#[derive(Debug, Clone, Default, Serialize)]
pub struct ConnectionStats {
    /// On the NIC.
    pub offloaded: u64,
    /// In the engine.
    pub host: u64,
    /// On kernel sockets.
    pub kernel: u64,
}

/// The counters now; `stop` counts the open connections of this server.
#[must_use]
pub fn snapshot(stop: &Stop) -> Stats {
    Stats {
        connections: ConnectionStats {
            kernel: stop.open() as u64,
            ..ConnectionStats::default()
        },
        ..Stats::default()
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
