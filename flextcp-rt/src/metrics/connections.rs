//! The connections of a process, one by one: what `ss` shows of the kernel's.

use std::fmt;
use std::net::SocketAddr;
use std::time::Duration;

use serde::Serialize;

use crate::tcp::TcpInfo;

/// One connection that FlexTCP carries, at one moment. Of a connection on the NIC the byte counts are as of its last
/// notification.
#[derive(Clone, Debug, Eq, PartialEq, Serialize)]
pub struct ConnectionReport {
    /// Our end.
    pub local: SocketAddr,
    /// The other.
    pub peer: SocketAddr,
    /// The queue that it lives on.
    pub core: String,
    /// State, as RFC 9293 names it.
    pub state: &'static str,
    /// Whether the NIC carries it.
    pub offloaded: bool,
    /// Smoothed round-trip time, microseconds.
    pub rtt_us: u64,
    /// Congestion window, bytes.
    pub cwnd: u32,
    /// The peer's window, bytes.
    pub snd_wnd: u32,
    /// The window we grant, bytes.
    pub rcv_wnd: u32,
    /// Bytes sent and not acknowledged.
    pub unacked: u32,
    /// Bytes written and not sent.
    pub notsent: u32,
    /// Bytes the peer acknowledged.
    pub bytes_acked: u64,
    /// Bytes received in order.
    pub bytes_received: u64,
    /// Segments sent again.
    pub retransmitted: u64,
    /// Name of the congestion control.
    pub congestion: &'static str,
}

impl ConnectionReport {
    pub(crate) fn new(local: SocketAddr, peer: SocketAddr, core: &str, info: &TcpInfo) -> Self {
        Self {
            local,
            peer,
            core: core.to_owned(),
            state: info.state.name(),
            offloaded: info.offloaded,
            rtt_us: micros(info.rtt),
            cwnd: info.snd_cwnd,
            snd_wnd: info.snd_wnd,
            rcv_wnd: info.rcv_wnd,
            unacked: info.unacked,
            notsent: info.notsent,
            bytes_acked: info.bytes_acked,
            bytes_received: info.bytes_received,
            retransmitted: info.total_retrans,
            congestion: info.congestion,
        }
    }
}

fn micros(time: Duration) -> u64 {
    u64::try_from(time.as_micros()).unwrap_or(u64::MAX)
}

/// Listeners and connections, as a table for people.
#[derive(Clone, Debug, Default, Eq, PartialEq, Serialize)]
pub struct ConnectionTable {
    /// What is listened at over a NIC.
    pub listeners: Vec<SocketAddr>,
    /// Connections, those of one queue together.
    pub connections: Vec<ConnectionReport>,
}

impl fmt::Display for ConnectionTable {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(
            f,
            "{:<12} {:<4} {:>24} {:>24} {:>9} {:>9} {:>12} {:>12} {:>8} {:>7}  QUEUE",
            "STATE", "ON", "LOCAL", "PEER", "RTT", "CWND", "ACKED", "RECEIVED", "UNSENT", "RETRANS"
        )?;
        for local in &self.listeners {
            writeln!(
                f,
                "{:<12} {:<4} {:>24} {:>24}",
                "LISTEN",
                "",
                local.to_string(),
                "*"
            )?;
        }
        for it in &self.connections {
            writeln!(
                f,
                "{:<12} {:<4} {:>24} {:>24} {:>7}us {:>9} {:>12} {:>12} {:>8} {:>7}  {}",
                it.state,
                if it.offloaded { "nic" } else { "host" },
                it.local.to_string(),
                it.peer.to_string(),
                it.rtt_us,
                it.cwnd,
                it.bytes_acked,
                it.bytes_received,
                it.notsent,
                it.retransmitted,
                it.core,
            )?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_table_has_a_line_for_each() {
        let report = ConnectionReport {
            local: ([10, 0, 0, 1], 80).into(),
            peer: ([10, 0, 0, 2], 40000).into(),
            core: "xdp:eth1/0".into(),
            state: "ESTABLISHED",
            offloaded: true,
            rtt_us: 17,
            cwnd: 14600,
            snd_wnd: 65535,
            rcv_wnd: 65535,
            unacked: 0,
            notsent: 0,
            bytes_acked: 5,
            bytes_received: 6,
            retransmitted: 0,
            congestion: "cubic",
        };
        let table = ConnectionTable {
            listeners: vec![([0; 4], 80).into()],
            connections: vec![report],
        };
        let text = table.to_string();
        let lines: Vec<&str> = text.lines().collect();
        assert_eq!(lines.len(), 3);
        assert!(lines[1].starts_with("LISTEN") && lines[1].contains("0.0.0.0:80"));
        assert!(lines[2].starts_with("ESTABLISHED  nic") && lines[2].contains("10.0.0.2:40000"));
        assert!(lines[2].contains("17us") && lines[2].ends_with("xdp:eth1/0"));
    }
}
