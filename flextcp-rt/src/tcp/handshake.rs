//! Opening a connection actively: SYN_SENT, and SYN_RECEIVED of a simultaneous open
//! (RFC 9293, sections 3.5 and 3.10.7.3). Passive opens start in [`listener`](super::listener).

use flextcp_nic::flow::FlowTuple;
use flextcp_nic::nic::{FlowBuffers, Limits};
use flextcp_nic::pace::Pace;
use flextcp_nic::seq::{Mss, SeqNum, WindowScale};
use flextcp_nic::time::Instant;
use flextcp_nic::wire::{SegmentRepr, TcpFlags, TcpOptions, TcpPacket, Timestamps};

use super::config::Ecn;
use super::congestion::Congestion;
use super::conn::{
    AckSchedule, Conn, Context, Negotiated, Owner, ReceiveSequence, SendSequence, Wanted, link_mss,
};
use super::counters::ConnCounters;
use super::delivery::Delivery;
use super::pmtu::PathMtu;
use super::reassembly::Reassembly;
use super::recovery::Recovery;
use super::rtt::RttEstimator;
use super::scoreboard::Scoreboard;
use super::send::{Kind, Plan};
use super::timer::{Timer, TimerTable};
use super::{ConnError, ConnId, EngineConfig, Event, Link, State, syn_cookie};
use crate::offload::Hysteresis;
use crate::options::SocketOptions;

/// The largest receive buffer that these options may lead to: what the window scale must cover.
pub(super) fn largest_buffer(options: &SocketOptions, config: &EngineConfig) -> u32 {
    options
        .recv_buffer
        .unwrap_or(config.recv_buffer_max)
        .clamp(2048, 1 << 30)
}

/// The receive buffer that a connection starts with.
pub(super) fn initial_buffer(options: &SocketOptions, config: &EngineConfig) -> u32 {
    let bytes = options.recv_buffer.unwrap_or(config.recv_buffer_initial);
    bytes.clamp(2048, 1 << 30).next_power_of_two()
}

/// What we would agree to at most.
pub(super) fn offer(
    tuple: &FlowTuple,
    options: &SocketOptions,
    config: &EngineConfig,
) -> Negotiated {
    Negotiated {
        peer_mss: default_mss(tuple),
        timestamps: config.timestamps,
        sack: config.sack,
        ecn: config.ecn != Ecn::Off,
        window_scaling: config.window_scaling,
        snd_wscale: WindowScale::ZERO,
        rcv_wscale: if config.window_scaling {
            WindowScale::for_buffer(largest_buffer(options, config))
        } else {
            WindowScale::ZERO
        },
    }
}

fn default_mss(tuple: &FlowTuple) -> Mss {
    if tuple.local.0.is_ipv4() {
        Mss::DEFAULT_V4
    } else {
        Mss::DEFAULT_V6
    }
}

impl Negotiated {
    /// What both sides want: the peer's SYN options against our offer. Scaling needs both (RFC 7323, 2.2).
    pub(super) fn agree(self, tuple: &FlowTuple, peer: &TcpOptions, config: &EngineConfig) -> Self {
        let scale = peer.window_scale.filter(|_| config.window_scaling);
        Self {
            peer_mss: peer.mss.map_or_else(|| default_mss(tuple), Mss::new),
            timestamps: self.timestamps && peer.timestamps.is_some(),
            sack: self.sack && peer.sack_permitted,
            ecn: self.ecn,
            window_scaling: scale.is_some(),
            snd_wscale: scale.unwrap_or(WindowScale::ZERO),
            rcv_wscale: if scale.is_some() {
                self.rcv_wscale
            } else {
                WindowScale::ZERO
            },
        }
    }
}

impl Negotiated {
    /// What the ACK of a cookie says was agreed: its timestamp carries the options. `None` when it asks for what is
    /// not on offer, so that it cannot come from us.
    pub(super) fn of_cookie(
        self,
        peer_mss: Mss,
        options: &TcpOptions,
        ts_offset: u32,
        config: &EngineConfig,
    ) -> Option<Self> {
        let agreed = Self { peer_mss, ..self };
        let Some(ts) = options.timestamps else {
            return Some(syn_cookie::restrict(Self {
                timestamps: false,
                ..agreed
            }));
        };
        let stamp = syn_cookie::read_stamp(ts.ecr.wrapping_sub(ts_offset));
        let unasked =
            (stamp.sack && !self.sack) || (stamp.window_scale.is_some() && !config.window_scaling);
        if !self.timestamps || unasked {
            return None;
        }
        Some(Self {
            sack: stamp.sack,
            ecn: stamp.ecn && self.ecn,
            window_scaling: stamp.window_scale.is_some(),
            snd_wscale: stamp.window_scale.unwrap_or(WindowScale::ZERO),
            rcv_wscale: match stamp.window_scale {
                Some(_) => self.rcv_wscale,
                None => WindowScale::ZERO,
            },
            ..agreed
        })
    }
}

/// The MSS that our SYN announces.
pub(super) fn advertised_mss(tuple: &FlowTuple, mtu: u32, options: &SocketOptions) -> u16 {
    let mss = link_mss(tuple, mtu);
    options.maxseg.map_or(mss, |max| mss.min(max))
}

/// Options of a SYN or SYN-ACK; `scale` says whether the window scale is offered.
pub(super) fn syn_options(
    mss: u16,
    negotiated: &Negotiated,
    scale: bool,
    timestamps: Option<Timestamps>,
) -> TcpOptions {
    TcpOptions {
        mss: Some(mss),
        window_scale: scale.then_some(negotiated.rcv_wscale),
        sack_permitted: negotiated.sack,
        timestamps,
        ..TcpOptions::default()
    }
}

/// The window of a SYN is never scaled (RFC 7323, section 2.2).
pub(super) fn syn_window(capacity: u32) -> u16 {
    u16::try_from(capacity).unwrap_or(u16::MAX)
}

/// What a new connection is made of.
#[derive(Debug)]
pub(super) struct Birth {
    pub(super) id: ConnId,
    pub(super) tuple: FlowTuple,
    pub(super) link: Link,
    pub(super) options: SocketOptions,
    pub(super) buffers: FlowBuffers,
    pub(super) negotiated: Negotiated,
    pub(super) iss: SeqNum,
    pub(super) ts_offset: u32,
}

impl Conn {
    /// A connection about to send its SYN.
    pub(super) fn new(birth: Birth, now: Instant, config: &EngineConfig) -> Self {
        let Birth {
            id,
            tuple,
            link,
            options,
            buffers,
            negotiated,
            iss,
            ts_offset,
        } = birth;
        let capacity = initial_buffer(&options, config);
        let mut buffers = buffers;
        if options.recv_buffer.is_some() {
            buffers.recv.set_limit(capacity);
        }
        let mss = Mss::DEFAULT_V4;
        let congestion = options.congestion.unwrap_or(config.congestion);
        let mut options = options;
        options.ttl.get_or_insert(config.ttl);
        Self {
            id,
            tuple,
            link,
            state: State::SynSent,
            owner: Owner::Host,
            send_gauge: buffers.send.gauge(),
            buffers: Some(buffers),
            negotiated,
            ts_offset,
            snd: SendSequence {
                iss,
                syn_unacked: true,
                una: iss,
                nxt: iss,
                end: iss + 1,
                wnd: 0,
                wl1: SeqNum(0),
                wl2: iss,
                max_wnd: 0,
                small_end: iss,
                mss,
                last_sent: now,
            },
            rcv: ReceiveSequence {
                irs: SeqNum(0),
                nxt: SeqNum(0),
                adv: SeqNum(0),
                last_ack_sent: SeqNum(0),
                reassembly: Reassembly::default(),
                fin: None,
                ts_recent: 0,
                ts_recent_at: now,
                ece: false,
                ack: AckSchedule {
                    quick: config.quick_acks,
                    ..AckSchedule::default()
                },
                dsack: None,
                mss: 536,
                capacity,
                read: 0,
                read_before: 0,
                tuned_at: now,
                last_heard: now,
            },
            board: Scoreboard::default(),
            recovery: Recovery::new(),
            delivery: Delivery::default(),
            pace: Pace::default(),
            limits: Limits {
                cwnd: 0,
                pacing_rate: 0,
            },
            congestion: Congestion::new(congestion, config.initial_window, mss, iss.0),
            rtt: RttEstimator::new(config.rto_initial, config.rto_min, config.rto_max),
            timers: TimerTable::default(),
            queued: None,
            dirty: false,
            offered: false,
            backoff: 0,
            retransmits: 0,
            stalled_since: None,
            probes: 0,
            probe_due: false,
            push_small: false,
            syn_due: true,
            last_challenge: None,
            orphan: false,
            listener: None,
            soft_error: None,
            path_mtu: PathMtu::default(),
            wanted: Wanted::default(),
            attached: false,
            handed_over: None,
            watched_nxt: iss,
            written: 0,
            hysteresis: Hysteresis::default(),
            counters: ConnCounters::default(),
            options,
        }
    }

    /// The SYN, or SYN-ACK of a simultaneous open.
    pub(super) fn poll_syn(&mut self, now: Instant) -> Option<Plan> {
        if !std::mem::take(&mut self.syn_due) {
            return None;
        }
        let iss = self.snd.iss;
        if self.snd.nxt == iss {
            self.snd.nxt = iss + 1;
            let stamp = self.delivery.stamp(now, true, 1);
            self.board.push(iss, iss + 1, now, stamp);
            self.stalled_since = Some(now);
        } else {
            let stamp = self.delivery.stamp(now, false, 1);
            self.board.retransmitted(iss, iss + 1, now, stamp);
        }
        self.timers.set(Timer::Retransmit, now + self.rto());
        Some(Plan::bare(Kind::Syn, iss, TcpFlags::SYN))
    }

    /// Its headers.
    pub(super) fn syn_headers(&self, now: Instant, config: &EngineConfig) -> SegmentRepr {
        let mss = advertised_mss(&self.tuple, self.link.mtu, &self.options);
        let answer = self.state == State::SynReceived;
        // An answer carries the scale only if the peer's SYN did.
        let scale = if answer {
            self.negotiated.window_scaling
        } else {
            config.window_scaling
        };
        let mut segment = self.header(now, self.snd.iss, TcpFlags::SYN);
        if !answer {
            segment.flags = TcpFlags::SYN | self.ecn_request(config);
            segment.ack = SeqNum(0);
        }
        segment.window = syn_window(self.rcv.capacity);
        segment.options = syn_options(mss, &self.negotiated, scale, segment.options.timestamps);
        segment
    }

    pub(super) fn on_syn_timeout(&mut self, cx: &mut Context<'_>) {
        // As Linux since 6.5, and not RFC 6298, 5.5: whoever waits for a connection notices every doubling, and an attempt
        // is one small segment. Once the peer's SYN crossed ours, timeouts double.
        let linear = if self.state == State::SynSent {
            u32::from(cx.config.syn_linear_timeouts)
        } else {
            0
        };
        let doubling = u32::from(cx.config.syn_retries);
        if self.retransmits >= linear + doubling || self.user_timeout_over(cx) {
            let error = self.soft_error.unwrap_or(ConnError::TimedOut);
            return self.fail(cx, error);
        }
        self.retransmits += 1;
        if self.retransmits > linear {
            self.backoff += 1;
        }
        self.syn_due = true;
        self.counters.timeouts += 1;
        self.counters.total_retrans += 1;
    }

    /// RFC 9293, section 3.10.7.3.
    pub(super) fn on_segment_syn_sent(&mut self, cx: &mut Context<'_>, packet: &TcpPacket) {
        let tcp = &packet.tcp;
        let has_ack = tcp.flags.contains(TcpFlags::ACK);
        if has_ack && (tcp.ack != self.snd.nxt || self.snd.nxt == self.snd.iss) {
            if !tcp.flags.contains(TcpFlags::RST) {
                cx.raw.push_back(reset_for(packet));
            }
            return;
        }
        if tcp.flags.contains(TcpFlags::RST) {
            if has_ack {
                self.fail(cx, ConnError::Refused);
            }
            return;
        }
        if !tcp.flags.contains(TcpFlags::SYN) || tcp.flags.contains(TcpFlags::FIN) {
            return;
        }
        self.on_peer_syn(cx, packet);
        if has_ack {
            self.establish(cx, packet);
            self.rcv.ack.now = 1;
        } else {
            self.state = State::SynReceived;
            self.syn_due = true;
        }
    }

    /// Takes over the peer's SYN: sequence numbers and options.
    fn on_peer_syn(&mut self, cx: &Context<'_>, packet: &TcpPacket) {
        let tcp = &packet.tcp;
        self.rcv.irs = tcp.seq;
        self.rcv.nxt = tcp.seq + 1;
        self.rcv.last_ack_sent = self.rcv.nxt;
        self.rcv.adv = self.rcv.nxt + u32::from(syn_window(self.rcv.capacity));
        self.rcv.last_heard = cx.now;
        self.negotiated = self.negotiated.agree(&self.tuple, &tcp.options, cx.config);
        self.negotiated.ecn = self.ecn_agreed(cx.config, tcp.flags);
        if let Some(ts) = tcp.options.timestamps {
            self.rcv.ts_recent = ts.val;
            self.rcv.ts_recent_at = cx.now;
        }
        self.snd.wl1 = tcp.seq;
        self.snd.wnd = u32::from(tcp.window);
        self.snd.max_wnd = self.snd.wnd;
        self.start_sender(cx.config);
    }

    /// The segment size is known: size the congestion window.
    pub(super) fn start_sender(&mut self, config: &EngineConfig) {
        self.snd.mss = self.effective_mss();
        let congestion = self.options.congestion.unwrap_or(config.congestion);
        self.congestion = Congestion::new(
            congestion,
            config.initial_window,
            self.snd.mss,
            self.snd.iss.0,
        );
        if self.retransmits > 1 {
            self.congestion.restart_from_one();
        }
        // The first segments tell better; this keeps the first window update from waiting for more.
        self.rcv.mss = self.snd.mss.bytes().min(self.rcv.capacity / 2);
    }

    /// Our SYN is acknowledged.
    fn establish(&mut self, cx: &mut Context<'_>, packet: &TcpPacket) {
        if self.retransmits > 0 {
            self.rtt.handshake_timed_out();
        }
        self.state = State::Established;
        self.on_ack(cx, packet);
        self.retransmits = 0;
        self.backoff = 0;
        self.soft_error = None;
        self.arm_keepalive(cx.now);
        self.counters.connected = true;
        cx.events.push_back(Event::Connected(self.id));
        if std::mem::take(&mut self.wanted.shutdown) {
            self.shutdown_write();
        }
    }

    /// An ACK in SYN_RECEIVED (RFC 9293, section 3.10.7.4, fifth); `false` ends the segment.
    pub(super) fn on_handshake_ack(&mut self, cx: &mut Context<'_>, packet: &TcpPacket) -> bool {
        if packet.tcp.ack != self.snd.nxt {
            cx.raw.push_back(reset_for(packet));
            return false;
        }
        self.establish(cx, packet);
        true
    }
}

/// The RST that answers a segment which belongs to no connection (RFC 9293, section 3.10.7.1).
pub(super) fn reset_for(packet: &TcpPacket) -> SegmentRepr {
    let tcp = &packet.tcp;
    let (seq, ack, flags) = if tcp.flags.contains(TcpFlags::ACK) {
        (tcp.ack, SeqNum(0), TcpFlags::RST)
    } else {
        (SeqNum(0), packet.seq_end(), TcpFlags::RST | TcpFlags::ACK)
    };
    SegmentRepr {
        src_mac: packet.dst_mac,
        dst_mac: packet.src_mac,
        tuple: packet.tuple,
        tos: 0,
        ttl: 64,
        seq,
        ack,
        flags,
        window: 0,
        urgent: 0,
        options: TcpOptions::default(),
    }
}
