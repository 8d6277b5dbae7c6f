//! A snapshot of a connection, after Linux's `struct tcp_info`.

use std::time::Duration;

use super::conn::Conn;
use super::handshake::advertised_mss;
use super::state::State;

/// What `TCP_INFO` shows. Of a connection on the NIC, as of the last notification or progress report.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct TcpInfo {
    /// RFC 9293 state.
    pub state: State,
    /// Whether the NIC carries it now.
    pub offloaded: bool,
    /// Consecutive timeouts of the retransmission timer.
    pub retransmits: u32,
    /// Unanswered zero-window or keep-alive probes.
    pub probes: u32,
    /// Exponent of the timer's backoff.
    pub backoff: u32,
    /// Timestamps were negotiated.
    pub timestamps: bool,
    /// SACK was negotiated.
    pub sack: bool,
    /// Window scale the peer announced.
    pub snd_wscale: u8,
    /// Window scale we announced.
    pub rcv_wscale: u8,
    /// Retransmission timeout.
    pub rto: Duration,
    /// Payload bytes of a full segment we send.
    pub snd_mss: u32,
    /// Payload bytes of the largest segment received lately.
    pub rcv_mss: u32,
    /// MSS we announced.
    pub advmss: u32,
    /// Path MTU.
    pub pmtu: u32,
    /// Bytes sent and not acknowledged.
    pub unacked: u32,
    /// Of these, bytes the peer holds out of order.
    pub sacked: u32,
    /// Of these, bytes taken as lost and not sent again yet.
    pub lost: u32,
    /// Bytes written and not sent.
    pub notsent: u32,
    /// Smoothed round-trip time.
    pub rtt: Duration,
    /// Its mean deviation.
    pub rttvar: Duration,
    /// Least round-trip time seen.
    pub min_rtt: Duration,
    /// Slow-start threshold in bytes.
    pub snd_ssthresh: u32,
    /// Congestion window in bytes.
    pub snd_cwnd: u32,
    /// The peer's window in bytes.
    pub snd_wnd: u32,
    /// Window we grant in bytes.
    pub rcv_wnd: u32,
    /// Size of the receive buffer in bytes, as tuned.
    pub rcv_space: u32,
    /// Rate at which it is paced, bytes per second; 0 for none.
    pub pacing_rate: u64,
    /// Segments retransmitted.
    pub total_retrans: u64,
    /// Bytes the peer acknowledged.
    pub bytes_acked: u64,
    /// Bytes received in order.
    pub bytes_received: u64,
    /// Segments sent by the engine.
    pub segs_out: u64,
    /// Segments received by the engine.
    pub segs_in: u64,
    /// Name of the congestion control.
    pub congestion: &'static str,
}

impl Conn {
    pub(super) fn info(&self) -> TcpInfo {
        TcpInfo {
            state: self.state,
            offloaded: !self.on_host(),
            retransmits: self.retransmits,
            probes: self.probes,
            backoff: self.backoff,
            timestamps: self.negotiated.timestamps,
            sack: self.negotiated.sack,
            snd_wscale: self.negotiated.snd_wscale.get(),
            rcv_wscale: self.negotiated.rcv_wscale.get(),
            rto: self.rto(),
            snd_mss: self.snd.mss.bytes(),
            rcv_mss: self.rcv.mss,
            advmss: advertised_mss(&self.tuple, self.link.mtu, &self.options).into(),
            pmtu: self.link.mtu,
            unacked: self.outstanding(),
            sacked: self.board.sacked_bytes(),
            lost: self.board.lost_bytes(),
            notsent: self.unsent(),
            rtt: self.rtt.srtt().unwrap_or_default(),
            rttvar: self.rtt.rttvar(),
            min_rtt: self.rtt.min().unwrap_or_default(),
            snd_ssthresh: self.congestion.window.ssthresh,
            snd_cwnd: self.congestion.window.cwnd,
            snd_wnd: self.snd.wnd,
            rcv_wnd: self.rcv.adv.since(self.rcv.nxt),
            rcv_space: self.rcv.capacity,
            pacing_rate: u64::from(self.congestion.pacing_rate) * 1000,
            total_retrans: self.counters.total_retrans,
            bytes_acked: self.counters.bytes_acked,
            bytes_received: self.counters.bytes_received,
            segs_out: self.counters.segs_out,
            segs_in: self.counters.segs_in,
            congestion: self.congestion.name(),
        }
    }
}
