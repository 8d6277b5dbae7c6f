//! One connection: its variables, by their RFC names, and the headers of what it sends.

use std::collections::VecDeque;
use std::time::Duration;

use flextcp_nic::buffer::SendGauge;
use flextcp_nic::flow::{FlowId, FlowTuple};
use flextcp_nic::nic::{FlowBuffers, Limits};
use flextcp_nic::pace::Pace;
use flextcp_nic::seq::{Mss, SeqNum, WindowScale};
use flextcp_nic::time::Instant;
use flextcp_nic::wire::{SegmentRepr, TcpFlags, TcpOptions, Timestamps};

use super::challenge::Challenges;
use super::congestion::Congestion;
use super::counters::ConnCounters;
use super::delivery::Delivery;
use super::pmtu::PathMtu;
use super::reassembly::Reassembly;
use super::recovery::Recovery;
use super::rtt::RttEstimator;
use super::scoreboard::Scoreboard;
use super::timer::{Timer, TimerTable};
use super::{ConnError, ConnId, EngineConfig, Event, Link, ListenerId, State};
use crate::offload::Hysteresis;
use crate::options::SocketOptions;

/// What a connection may touch of the engine while it works.
#[derive(Debug)]
pub(super) struct Context<'a> {
    pub(super) now: Instant,
    pub(super) config: &'a EngineConfig,
    pub(super) events: &'a mut VecDeque<Event>,
    /// Connections that may send without their applications: more than before, or an acknowledgment.
    pub(super) opened: &'a mut VecDeque<ConnId>,
    /// Segments without a place in a connection: resets.
    pub(super) raw: &'a mut VecDeque<SegmentRepr>,
    pub(super) challenges: &'a mut Challenges,
    /// Too many orphans, or no memory: orphans that wait for their peer have to go.
    pub(super) scarce: bool,
    /// Memory is short: no buffer grows.
    pub(super) pressed: bool,
}

impl Context<'_> {
    /// Says that there is something to read. Once is enough for the segments of a train.
    pub(super) fn readable(&mut self, conn: ConnId) {
        if !matches!(self.events.back(), Some(Event::Readable(last)) if *last == conn) {
            self.events.push_back(Event::Readable(conn));
        }
    }

    /// Says that there may be something to send before the application runs.
    pub(super) fn opens(&mut self, conn: ConnId) {
        if self.opened.back() != Some(&conn) {
            self.opened.push_back(conn);
        }
    }

    /// Says that there is room to write.
    pub(super) fn writable(&mut self, conn: ConnId) {
        if !matches!(self.events.back(), Some(Event::Writable(last)) if *last == conn) {
            self.events.push_back(Event::Writable(conn));
        }
    }
}

/// Who has the connection.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Owner {
    Host,
    /// Between `poll_install` and its answer.
    Offered,
    Nic(FlowId),
}

/// What both SYNs agreed on (RFC 7323, RFC 2018).
#[derive(Clone, Copy, Debug)]
pub(super) struct Negotiated {
    /// The peer's MSS option, or the default without one.
    pub(super) peer_mss: Mss,
    pub(super) timestamps: bool,
    pub(super) sack: bool,
    /// Explicit congestion notification (RFC 3168).
    pub(super) ecn: bool,
    /// Both SYNs carried a window scale; either may be zero.
    pub(super) window_scaling: bool,
    /// Scale of windows that we receive.
    pub(super) snd_wscale: WindowScale,
    /// Scale of windows that we send.
    pub(super) rcv_wscale: WindowScale,
}

/// Send sequence variables (RFC 9293, section 3.3.1).
#[derive(Debug)]
pub(super) struct SendSequence {
    pub(super) iss: SeqNum,
    /// The SYN is not acknowledged. ISS alone does not tell: after 2 GiB it lies ahead of SND.UNA again.
    pub(super) syn_unacked: bool,
    pub(super) una: SeqNum,
    pub(super) nxt: SeqNum,
    /// After the last byte that the application wrote; the FIN's place.
    pub(super) end: SeqNum,
    pub(super) wnd: u32,
    pub(super) wl1: SeqNum,
    pub(super) wl2: SeqNum,
    /// The largest window seen: the peer's buffer, as far as is known.
    pub(super) max_wnd: u32,
    /// End of the last segment smaller than a full one (Nagle as Minshall mends it).
    pub(super) small_end: SeqNum,
    /// Payload bytes of a full segment, timestamps subtracted.
    pub(super) mss: Mss,
    /// When data was last sent.
    pub(super) last_sent: Instant,
}

impl SendSequence {
    /// Sequence number of the first byte in the send ring.
    pub(super) fn ring_start(&self) -> SeqNum {
        self.una + u32::from(self.syn_unacked)
    }

    /// Whether a small segment is unacknowledged. One of 2 GiB ago is not (as Linux's `tcp_minshall_check`).
    pub(super) fn small_in_flight(&self) -> bool {
        self.small_end.after(self.una) && self.small_end.at_or_before(self.nxt)
    }
}

/// When the next acknowledgment goes out.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct AckSchedule {
    /// At once; several for a peer without SACK, which counts duplicates.
    pub(super) now: u8,
    /// Segments left to be acknowledged at once.
    pub(super) quick: u8,
    /// Data arrived since data was last sent.
    pub(super) heard: bool,
    /// Replies carry the acknowledgments: what the peer pushes may wait for one (Linux's pingpong mode).
    pub(super) conversation: bool,
}

/// Receive sequence variables and what follows from them.
#[derive(Debug)]
pub(super) struct ReceiveSequence {
    pub(super) irs: SeqNum,
    pub(super) nxt: SeqNum,
    /// Right edge of the window last advertised.
    pub(super) adv: SeqNum,
    /// RCV.NXT as last acknowledged (Last.ACK.sent of RFC 7323).
    pub(super) last_ack_sent: SeqNum,
    pub(super) reassembly: Reassembly,
    /// Where the peer's FIN is, once it is known.
    pub(super) fin: Option<SeqNum>,
    pub(super) ts_recent: u32,
    pub(super) ts_recent_at: Instant,
    pub(super) ack: AckSchedule,
    /// Congestion is being echoed.
    pub(super) ece: bool,
    /// Range to report as a duplicate (RFC 2883).
    pub(super) dsack: Option<(SeqNum, SeqNum)>,
    /// Largest payload seen: what "every second full segment" means.
    pub(super) mss: u32,
    /// Size the ring has, or gets when it is attached.
    pub(super) capacity: u32,
    /// Bytes the application read since `tuned_at`.
    pub(super) read: u32,
    /// The same of the round trip before.
    pub(super) read_before: u32,
    pub(super) tuned_at: Instant,
    /// When the peer was last heard.
    pub(super) last_heard: Instant,
}

/// What the application asked for while the NIC had the connection.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Wanted {
    pub(super) shutdown: bool,
    pub(super) abort: bool,
    /// A receive ring of this size.
    pub(super) grow: Option<u32>,
    /// A claim is queued or under way.
    pub(super) claim: bool,
    /// The claim is because nothing was acknowledged for an RTO.
    pub(super) timed_out: bool,
    /// The claim is because a tail loss probe is due.
    pub(super) probe: bool,
    /// The claim is because nothing was heard for the keep-alive time.
    pub(super) keepalive: bool,
    /// The buffers are to be given back.
    pub(super) release: bool,
    /// Ask the NIC for the flow's progress.
    pub(super) progress: bool,
}

/// A connection in any state with two ends but TIME_WAIT.
#[derive(Debug)]
pub(super) struct Conn {
    pub(super) id: ConnId,
    pub(super) tuple: FlowTuple,
    pub(super) link: Link,
    pub(super) options: SocketOptions,
    pub(super) state: State,
    pub(super) owner: Owner,
    /// `Some` exactly while the engine owns the connection.
    pub(super) buffers: Option<FlowBuffers>,
    /// Of the send ring, wherever that is.
    pub(super) send_gauge: SendGauge,
    pub(super) negotiated: Negotiated,
    pub(super) ts_offset: u32,
    pub(super) snd: SendSequence,
    pub(super) rcv: ReceiveSequence,
    pub(super) board: Scoreboard,
    pub(super) recovery: Recovery,
    pub(super) delivery: Delivery,
    pub(super) pace: Pace,
    /// What the NIC was told last.
    pub(super) limits: Limits,
    pub(super) congestion: Congestion,
    pub(super) rtt: RttEstimator,
    pub(super) timers: TimerTable,
    /// Place in the engine's deadline queue.
    pub(super) queued: Option<Instant>,
    /// In the engine's transmit queue.
    pub(super) dirty: bool,
    /// In the engine's install queue.
    pub(super) offered: bool,
    /// Doublings of the retransmission timer.
    pub(super) backoff: u32,
    /// Consecutive timeouts.
    pub(super) retransmits: u32,
    /// When the oldest unanswered transmission began, for the user timeout.
    pub(super) stalled_since: Option<Instant>,
    /// Unanswered probes.
    pub(super) probes: u32,
    /// A probe is to be sent: SND.UNA - 1 without data, as Linux probes.
    pub(super) probe_due: bool,
    /// The persist timer ran out: send what the window allows, however small.
    pub(super) push_small: bool,
    /// The SYN (or SYN-ACK) is to be sent.
    pub(super) syn_due: bool,
    /// When a challenge or an unacceptable segment was last answered.
    pub(super) last_challenge: Option<Instant>,
    /// The application is gone.
    pub(super) orphan: bool,
    /// Waits in this accept queue.
    pub(super) listener: Option<ListenerId>,
    pub(super) soft_error: Option<ConnError>,
    pub(super) path_mtu: PathMtu,
    pub(super) wanted: Wanted,
    /// The buffers had memory when they were handed over.
    pub(super) attached: bool,
    /// SND.UNA when the NIC got the connection, and where the retransmission timer ran from then: until that moves,
    /// a move does not start the timer anew.
    pub(super) handed_over: Option<(SeqNum, Instant)>,
    /// SND.NXT of the flow at the last look.
    pub(super) watched_nxt: SeqNum,
    /// Bytes that the application had written at the last doorbell, while the NIC sends them.
    pub(super) written: u64,
    pub(super) hysteresis: Hysteresis,
    pub(super) counters: ConnCounters,
}

impl Conn {
    /// Payload bytes of a full segment for this link and peer, timestamps subtracted.
    pub(super) fn effective_mss(&self) -> Mss {
        let link = link_mss(&self.tuple, self.link.mtu);
        let mut mss = link.min(self.negotiated.peer_mss.get());
        if let Some(max) = self.options.maxseg {
            mss = mss.min(max);
        }
        if let Some(limit) = self.path_mtu.limit() {
            mss = mss.min(limit);
        }
        let options = if self.negotiated.timestamps { 12 } else { 0 };
        // Below this the headers would be most of the traffic; the path is lying.
        Mss::new(mss.saturating_sub(options))
    }

    /// Takes over a changed MTU or peer MSS.
    pub(super) fn update_mss(&mut self) {
        let mss = self.effective_mss();
        if mss != self.snd.mss {
            self.snd.mss = mss;
            self.congestion.set_mss(mss);
        }
    }

    pub(super) fn timestamps(&self, now: Instant) -> Option<Timestamps> {
        self.negotiated.timestamps.then(|| Timestamps {
            val: self.timestamp_clock(now),
            ecr: self.rcv.ts_recent,
        })
    }

    /// TSval: a millisecond clock with an offset of its own (RFC 7323, section 5.4).
    pub(super) fn timestamp_clock(&self, now: Instant) -> u32 {
        (now.as_millis() as u32).wrapping_add(self.ts_offset)
    }

    /// The headers of a segment, acknowledging what has arrived; does not note it as sent.
    pub(super) fn header(&self, now: Instant, seq: SeqNum, flags: TcpFlags) -> SegmentRepr {
        SegmentRepr {
            src_mac: self.link.local_mac,
            dst_mac: self.link.remote_mac,
            tuple: self.tuple,
            tos: self.options.tos & !3,
            ttl: self.options.ttl.unwrap_or(64),
            seq,
            ack: self.rcv.nxt,
            flags: flags | TcpFlags::ACK,
            window: self
                .negotiated
                .rcv_wscale
                .scale_down(self.rcv.adv.since(self.rcv.nxt)),
            urgent: 0,
            options: TcpOptions {
                timestamps: self.timestamps(now),
                ..TcpOptions::default()
            },
        }
    }

    /// Ends the connection with an error.
    pub(super) fn fail(&mut self, cx: &mut Context<'_>, error: ConnError) {
        if self.state == State::Closed {
            return;
        }
        self.counters.failed |= self.state.is_synchronized();
        if !self.orphan {
            cx.events.push_back(Event::Failed {
                conn: self.id,
                error,
            });
        }
        self.set_closed();
    }

    pub(super) fn set_closed(&mut self) {
        self.state = State::Closed;
        self.timers.stop_all();
        self.board.clear();
    }

    /// Sends RST and ends the connection without an error of its own.
    pub(super) fn reset(&mut self, cx: &mut Context<'_>) {
        if self.state.is_synchronized() || self.state == State::SynReceived {
            // Linux would have sent it by now: without the last ACK of the handshake the peer accepts nothing.
            if self.rcv.ack.now > 0 {
                let ack = self.header(cx.now, self.snd.nxt, TcpFlags::ACK);
                cx.raw.push_back(ack);
            }
            let mut rst = self.header(cx.now, self.snd.nxt, TcpFlags::RST);
            rst.window = 0;
            cx.raw.push_back(rst);
        }
        self.set_closed();
    }

    pub(super) const fn on_host(&self) -> bool {
        matches!(self.owner, Owner::Host)
    }

    /// Whether our FIN is queued and not sent.
    pub(super) fn fin_due(&self) -> bool {
        self.state.fin_queued() && self.snd.nxt.at_or_before(self.snd.end)
    }

    /// Whether our FIN is acknowledged.
    pub(super) fn fin_acked(&self) -> bool {
        self.state.fin_queued() && self.snd.una.after(self.snd.end)
    }

    /// Bytes written and not sent.
    pub(super) fn unsent(&self) -> u32 {
        self.snd.end.since(self.snd.nxt)
    }

    /// Bytes sent and not acknowledged.
    pub(super) fn outstanding(&self) -> u32 {
        self.snd.nxt.since(self.snd.una)
    }

    /// Retransmission timeout with its backoff.
    pub(super) fn rto(&self) -> Duration {
        self.rtt.backed_off(self.backoff)
    }

    /// Starts the keep-alive timer anew if it is on.
    pub(super) fn arm_keepalive(&mut self, from: Instant) {
        match self.options.keepalive {
            Some(keepalive) if self.state.is_synchronized() => {
                self.timers.set(Timer::KeepAlive, from + keepalive.time);
            }
            _ => self.timers.stop(Timer::KeepAlive),
        }
    }
}

/// The MSS an MTU allows: fixed headers subtracted, options not (RFC 6691).
pub(super) fn link_mss(tuple: &FlowTuple, mtu: u32) -> u16 {
    let headers = if tuple.local.0.is_ipv4() { 40 } else { 60 };
    // 65535 bytes is the largest IPv4 packet, and what Linux counts with on a 64 KiB link.
    let bytes = mtu
        .min(65_536)
        .saturating_sub(headers)
        .min(65_535 - 12 - headers);
    u16::try_from(bytes).unwrap_or(u16::MAX).max(Mss::MIN.get())
}
