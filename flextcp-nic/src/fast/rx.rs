//! Receive: an in-order segment of an established flow, taken whole or refused with a reason.

use core::time::Duration;

use super::Local;
use super::ack::EarlyAck;
use crate::buffer::RecvWriter;
use crate::flow::{FlowState, flags};
use crate::nic::{FlowBuffers, Reason};
use crate::port::RxFrame;
use crate::seq::SeqNum;
use crate::time::Instant;
use crate::wire::{TcpFlags, TcpPacket};

/// Until segments were seen the peer's size is taken for this, as Linux's `tcp_initialize_rcv_mss`.
pub const RCV_MSS_AT_FIRST: u32 = 536;

/// Sizes of receive rings.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct RecvSizes {
    /// When the first byte arrives.
    pub first: u32,
    /// How far autotuning grows them.
    pub max: u32,
}

/// What a segment brought.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct Received {
    /// New bytes in the receive ring.
    pub payload: u32,
    /// Bytes of ours acknowledged.
    pub acked: u32,
    /// The segment carried ECE.
    pub ece: bool,
    /// The segment carried CE and data.
    pub ce: bool,
    /// The send window changed.
    pub window_changed: bool,
    /// A round-trip sample in microseconds, 0 for none.
    pub rtt_micros: u32,
    /// An ACK to send before any other of this flow.
    pub early_ack: Option<EarlyAck>,
}

enum Kind {
    /// Starts at RCV.NXT.
    InOrder,
    /// One byte before it: a keep-alive or zero-window probe (RFC 9293, section 3.8.4; Linux's `tcp_xmit_probe_skb`).
    Probe,
}

/// Whether the segment is common case; looks at nothing but the two.
fn classify(state: &FlowState, packet: &TcpPacket) -> Result<Kind, Reason> {
    let tcp = &packet.tcp;
    if packet.ip_options {
        return Err(Reason::IpOptions);
    }
    let common = TcpFlags::ACK | TcpFlags::PSH | TcpFlags::ECE | TcpFlags::CWR;
    if !tcp.flags.contains(TcpFlags::ACK) || !tcp.flags.without(common).is_empty() {
        return Err(Reason::Flags);
    }
    let options = &tcp.options;
    if !options.sack.is_empty() {
        return Err(Reason::Sack);
    }
    if options.other
        || options.mss.is_some()
        || options.window_scale.is_some()
        || options.sack_permitted
    {
        return Err(Reason::Options);
    }
    // RFC 7323, section 3.2: once negotiated, every segment carries timestamps; otherwise they are ignored.
    if state.has(flags::TIMESTAMPS) {
        let old = |val| SeqNum(val).before(SeqNum(state.ts_recent));
        if options
            .timestamps
            .is_none_or(|timestamps| old(timestamps.val))
        {
            return Err(Reason::Paws);
        }
    }
    let kind = if tcp.seq == state.rcv_nxt() {
        Kind::InOrder
    } else if tcp.seq + 1 == state.rcv_nxt() && packet.payload_len <= 1 {
        Kind::Probe
    } else {
        return Err(Reason::OutOfOrder);
    };
    let in_order = matches!(kind, Kind::InOrder);
    if in_order && packet.payload_len > state.rcv_wnd() as usize {
        return Err(Reason::OutOfWindow);
    }
    if tcp.ack.before(state.snd_una()) || tcp.ack.after(state.snd_nxt()) {
        return Err(Reason::AckOutOfWindow);
    }
    if in_order {
        let window = state.snd_scale().scale_up(tcp.window);
        // RFC 5681, section 2: no data, the same window, the same ACK, and something outstanding.
        let repeats = tcp.ack == state.snd_una() && window == state.snd_wnd;
        if repeats && packet.payload_len == 0 && state.in_flight() > 0 {
            return Err(Reason::DuplicateAck);
        }
        if window == 0 && state.snd_end().after(tcp.ack) {
            return Err(Reason::ZeroWindow);
        }
    }
    Ok(kind)
}

/// Why the segment is an exception, the receive ring aside.
#[cfg(all(test, feature = "firmware"))]
pub(crate) fn exception(state: &FlowState, packet: &TcpPacket) -> Option<Reason> {
    classify(state, packet).err()
}

/// Handles a segment, or changes nothing.
///
/// # Errors
/// The reason why the slow path must see it.
pub fn receive(
    state: &mut FlowState,
    local: &mut Local,
    buffers: &mut FlowBuffers,
    packet: &TcpPacket,
    frame: &RxFrame<'_>,
    now: Instant,
    sizes: RecvSizes,
) -> Result<Received, Reason> {
    let kind = classify(state, packet)?;
    let tcp = &packet.tcp;
    let mut received = Received {
        ece: tcp.flags.contains(TcpFlags::ECE),
        ..Received::default()
    };
    match kind {
        Kind::InOrder if packet.payload_len > 0 => {
            let len = packet.payload_len as u32;
            make_room(&mut buffers.recv, state, len, sizes)?;
            congestion_mark(state, local, packet, &mut received);
            place(&mut buffers.recv, packet, frame);
            received.payload = len;
            note_data(state, local, &buffers.recv, len);
            super::ack::heard(state, local, tcp.flags.contains(TcpFlags::PSH));
        }
        Kind::InOrder => {}
        Kind::Probe => {
            local.ack_now = true;
            // RFC 9293, section 3.10.7.4, first: what is not acceptable is answered and says nothing. As in Linux, a
            // segment is acceptable as long as what it repeats is not acknowledged.
            if packet.seq_end().before(state.last_ack_sent()) {
                return Ok(received);
            }
        }
    }
    // RFC 7323, section 4.3, with the segment's own SEG.SEQ, before this segment is acknowledged.
    if let Some(timestamps) = tcp
        .options
        .timestamps
        .filter(|_| state.has(flags::TIMESTAMPS))
        && tcp.seq.at_or_before(state.last_ack_sent())
    {
        state.ts_recent = timestamps.val;
    }
    acknowledge(state, local, buffers, tcp.ack, now, &mut received);
    if matches!(kind, Kind::InOrder) {
        // RFC 9293, section 3.10.7.4: SND.WL1 < SEG.SEQ, or equal with SND.WL2 =< SEG.ACK. Both hold for
        // every segment that starts at RCV.NXT with an ACK not before SND.UNA, so they need no words.
        let window = state.snd_scale().scale_up(tcp.window);
        received.window_changed = window != state.snd_wnd;
        state.snd_wnd = window;
        state.max_snd_wnd = state.max_snd_wnd.max(window);
    }
    Ok(received)
}

/// Takes an acceptable ACK in.
fn acknowledge(
    state: &mut FlowState,
    local: &mut Local,
    buffers: &mut FlowBuffers,
    ack: SeqNum,
    now: Instant,
    received: &mut Received,
) {
    if received.ece && state.has(flags::ECN) {
        local.ece_seen = true;
    }
    let acked = ack.since(state.snd_una());
    if acked == 0 {
        return;
    }
    received.acked = acked;
    buffers.send.release(acked);
    state.set_snd_una(ack);
    state.acked_bytes = state.acked_bytes.wrapping_add(acked);
    if received.ece {
        state.ece_bytes = state.ece_bytes.wrapping_add(acked);
    }
    // RFC 6298, rules 5.2 and 5.3.
    local.outstanding_since = (state.in_flight() > 0).then_some(now);
    if let Some((end, sent)) = local.timed
        && ack.at_or_after(end)
    {
        local.timed = None;
        let micros = u32::try_from((now - sent).as_micros())
            .unwrap_or(u32::MAX)
            .max(1);
        state.rtt_micros = micros;
        received.rtt_micros = micros;
    }
}

/// CE and CWR on a data segment: what our ACKs echo.
fn congestion_mark(
    state: &mut FlowState,
    local: &mut Local,
    packet: &TcpPacket,
    received: &mut Received,
) {
    if !state.has(flags::ECN) {
        return;
    }
    received.ce = packet.ecn_ce();
    let echo = state.has(flags::ECE);
    if !state.has(flags::DCTCP) {
        // RFC 3168, section 6.1.3: from the first CE on, until the sender says that it slowed down.
        let cleared = packet.tcp.flags.contains(TcpFlags::CWR);
        state.set(flags::ECE, received.ce || (echo && !cleared));
        // As Linux, a newly marked segment is acknowledged at once: the sender should slow down now.
        local.ack_now |= received.ce && !echo;
        return;
    }
    if received.ce == echo {
        return;
    }
    // RFC 8257, section 3.2: on a change, what was received before it is acknowledged with the old state.
    if state.rcv_nxt() != state.last_ack_sent() {
        let window = state.rcv_scale().scale_down(state.rcv_wnd());
        received.early_ack = Some(EarlyAck {
            ack: state.rcv_nxt(),
            ece: echo,
            window,
        });
        state.set_last_ack_sent(state.rcv_nxt());
    }
    state.set(flags::ECE, received.ce);
    local.ack_now = true;
}

fn place(recv: &mut RecvWriter, packet: &TcpPacket, frame: &RxFrame<'_>) {
    let mut placed = 0;
    for slice in packet.payload(frame) {
        placed += recv.place(placed, slice) as u32;
    }
    recv.publish(placed);
}

fn note_data(state: &mut FlowState, local: &mut Local, recv: &RecvWriter, len: u32) {
    let mss = state.mss().bytes();
    state.set_rcv_nxt(state.rcv_nxt() + len);
    state.rcv_free = recv.offerable();
    state.segments_received = state.segments_received.wrapping_add(len.div_ceil(mss));
    // A super-frame of the port stands for several segments: it must not raise the size they are taken for.
    local.rcv_mss = local.rcv_mss.max(len.min(mss));
}

/// Sees to it that `len` bytes fit, attaching or growing the ring.
fn make_room(
    recv: &mut RecvWriter,
    state: &FlowState,
    len: u32,
    sizes: RecvSizes,
) -> Result<(), Reason> {
    if recv.free() >= len {
        return Ok(());
    }
    let promised = recv.unread() + state.rcv_wnd().max(state.rcv_free).max(len);
    let first = recv.pool().first_block(sizes.first.min(recv.limit()));
    recv.resize(promised.max(first), 0)
        .or_else(|_| recv.resize(recv.unread() + len, 0))
        .map_err(|_| Reason::NoBuffer)?;
    if recv.free() >= len {
        Ok(())
    } else {
        Err(Reason::NoBuffer)
    }
}

/// Receive buffer autotuning: the ring doubles while the application keeps up and the time it takes for one
/// ring of bytes to pass stays the same, which shows that the window is what limits the sender. When the
/// time grows with the ring, something else does.
#[derive(Clone, Copy, Debug)]
pub struct Tuning {
    passed: u32,
    since: Instant,
    least: Duration,
}

impl Tuning {
    pub(crate) const fn new(now: Instant) -> Self {
        Self {
            passed: 0,
            since: now,
            least: Duration::MAX,
        }
    }

    /// Counts bytes that the application took; returns whether the ring of `capacity` should double.
    pub(crate) fn passed(&mut self, bytes: u32, capacity: u32, now: Instant) -> bool {
        self.passed = self.passed.saturating_add(bytes);
        if self.passed < capacity {
            return false;
        }
        let took = now - self.since;
        let grow = took / 3 <= self.least / 2;
        self.least = self.least.min(took);
        self.passed = 0;
        self.since = now;
        grow
    }
}

/// Takes over what the application read: returns whether any.
pub fn freed(
    state: &mut FlowState,
    local: &mut Local,
    recv: &mut RecvWriter,
    now: Instant,
    sizes: RecvSizes,
) -> bool {
    let freed = recv.take_freed();
    if freed == 0 || recv.capacity() == 0 {
        return freed > 0;
    }
    let capacity = recv.capacity();
    let doubled = capacity.saturating_mul(2);
    if local.tuning.passed(freed, capacity, now)
        && doubled <= sizes.max.min(recv.limit())
        && doubled <= state.rcv_scale().scale_up(u16::MAX).next_power_of_two()
        && !recv.pool().under_pressure()
    {
        // Without memory the ring stays as it is.
        let _ = recv.resize(doubled, 0);
    }
    state.rcv_free = recv.offerable();
    true
}
