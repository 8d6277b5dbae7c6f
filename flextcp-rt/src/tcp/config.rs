//! What can be tuned in the engine; the defaults are Linux's.

use std::time::Duration;

use crate::offload::OffloadPolicy;

/// When explicit congestion notification is negotiated (Linux's `tcp_ecn`).
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub enum Ecn {
    /// Never (0).
    Off,
    /// When the peer asks (2).
    #[default]
    Accept,
    /// We ask as well (1).
    Request,
}

/// Limits and times of one engine. [`Default`] behaves as Linux does.
#[derive(Clone, Debug)]
pub struct EngineConfig {
    /// When established connections go to the NIC.
    pub offload: OffloadPolicy,
    /// Negotiate window scale and timestamps (RFC 7323).
    pub window_scaling: bool,
    /// Negotiate timestamps (RFC 7323).
    pub timestamps: bool,
    /// Negotiate selective acknowledgments (RFC 2018).
    pub sack: bool,
    /// Explicit congestion notification (RFC 3168; `tcp_ecn`). DCTCP asks for it whatever this says, unless it is off.
    pub ecn: Ecn,
    /// Receive buffer a connection starts with, bytes.
    pub recv_buffer_initial: u32,
    /// Largest receive buffer that tuning reaches, bytes (`tcp_rmem[2]`).
    pub recv_buffer_max: u32,
    /// How far an application may write ahead of the peer at first, bytes. More than Linux's `tcp_wmem[1]`, which is
    /// doubled before the first write: a ring's memory is attached as it is written.
    pub send_buffer_initial: u32,
    /// Largest send buffer that tuning reaches, bytes (`tcp_wmem[2]`): a gigabit over 100 ms.
    pub send_buffer_max: u32,
    /// Congestion control by name: `cubic`, `reno`, `dctcp` or `bbr`.
    pub congestion: &'static str,
    /// Initial congestion window in segments (RFC 6928).
    pub initial_window: u32,
    /// TTL or hop limit of our packets.
    pub ttl: u8,
    /// RTO before the first sample (RFC 6298, 2.1).
    pub rto_initial: Duration,
    /// Least RTO.
    pub rto_min: Duration,
    /// Largest RTO.
    pub rto_max: Duration,
    /// Retransmissions of a SYN at the first timeout's distance, before the timeout doubles and `syn_retries` counts
    /// (`tcp_syn_linear_timeouts`).
    pub syn_linear_timeouts: u8,
    /// Retransmissions of a SYN (`tcp_syn_retries`).
    pub syn_retries: u8,
    /// Retransmissions of a SYN-ACK (`tcp_synack_retries`).
    pub synack_retries: u8,
    /// Retransmissions of data before the connection is dead (`tcp_retries2`).
    pub retries: u8,
    /// The same for a connection whose application is gone (what Linux does with `tcp_orphan_retries` at zero); it also
    /// ends when its backed-off timer reaches the largest RTO, although the peer keeps answering its probes.
    pub orphan_retries: u8,
    /// Delayed-ACK time.
    pub delayed_ack: Duration,
    /// Segments acknowledged at once when a connection starts.
    pub quick_acks: u8,
    /// How long an orphan stays in FIN_WAIT_2 (`tcp_fin_timeout`).
    pub fin_timeout: Duration,
    /// How long TIME_WAIT lasts.
    pub time_wait: Duration,
    /// Most TIME_WAIT entries (`tcp_max_tw_buckets`); the oldest goes.
    pub max_time_wait: usize,
    /// Most orphans (`tcp_max_orphans`); beyond, closing resets.
    pub max_orphans: usize,
    /// Upper bound of a listener's backlog (`somaxconn`).
    pub max_backlog: u32,
    /// Upper bound of half-open connections of one listener (`tcp_max_syn_backlog`).
    pub max_syn_backlog: u32,
    /// Answer SYNs with cookies when a listener's SYN queue is full, instead of dropping them (`tcp_syncookies`).
    pub syn_cookies: bool,
    /// Most connections of this engine, of any state but TIME_WAIT.
    pub max_connections: usize,
    /// Least time between two challenge ACKs of a connection (RFC 5961; `tcp_invalid_ratelimit`).
    pub challenge_interval: Duration,
    /// Challenge ACKs of all connections in a second, about (RFC 5961, section 7; `tcp_challenge_ack_limit`). No limit
    /// as in Linux, whose documentation warns that a shared one can be measured from outside.
    pub challenge_limit: u32,
    /// Find the path's MTU by smaller and larger segments where ICMP is filtered (RFC 8899; `tcp_mtu_probing` at 1).
    pub mtu_probing: bool,
    /// How long a connection on the NIC may be quiet before its empty buffers are given back.
    pub buffer_idle: Duration,
}

impl EngineConfig {
    /// The limit that a send ring has at first, for the size that the application asked for, if any.
    pub(super) fn first_send_limit(&self, asked: Option<u32>) -> u32 {
        asked.unwrap_or_else(|| self.send_buffer_initial.min(self.send_buffer_max))
    }
}

impl Default for EngineConfig {
    fn default() -> Self {
        Self {
            offload: OffloadPolicy::Always,
            window_scaling: true,
            timestamps: true,
            sack: true,
            ecn: Ecn::Accept,
            recv_buffer_initial: 64 << 10,
            recv_buffer_max: 6 << 20,
            send_buffer_initial: 256 << 10,
            send_buffer_max: 16 << 20,
            congestion: "cubic",
            initial_window: 10,
            ttl: 64,
            rto_initial: Duration::from_secs(1),
            rto_min: Duration::from_millis(200),
            rto_max: Duration::from_secs(120),
            syn_linear_timeouts: 4,
            syn_retries: 6,
            synack_retries: 5,
            retries: 15,
            orphan_retries: 8,
            delayed_ack: Duration::from_millis(40),
            quick_acks: 16,
            fin_timeout: Duration::from_secs(60),
            time_wait: Duration::from_secs(60),
            max_time_wait: 65_536,
            max_orphans: 65_536,
            max_backlog: 4096,
            max_syn_backlog: 4096,
            syn_cookies: true,
            max_connections: 1 << 20,
            challenge_interval: Duration::from_millis(500),
            challenge_limit: u32::MAX,
            mtu_probing: true,
            buffer_idle: Duration::from_secs(10),
        }
    }
}
