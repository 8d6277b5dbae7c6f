//! Transmit: what to send next, and its headers.

use super::Local;
use super::ack;
use crate::flow::{FlowState, flags};
use crate::pace::Pace;
use crate::time::Instant;
use crate::wire::{MacAddr, SegmentRepr, TcpFlags, TcpOptions};

/// ECT(0) (RFC 3168, section 5).
const ECT_0: u8 = 0b10;

/// A data segment (or super-frame) to send, at SND.NXT.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Segment {
    /// Where its payload starts in the send ring, from SND.UNA.
    pub offset: u32,
    /// Bytes of payload.
    pub len: u32,
    /// What the port cuts it into when it is longer.
    pub mss: u32,
    /// It ends what the application wrote.
    pub push: bool,
}

/// Why nothing is sent.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Wait {
    /// Nothing to send.
    Idle,
    /// Nagle's algorithm holds a small segment.
    Nagle,
    /// The congestion window is full.
    Cwnd,
    /// The peer's window is full.
    Window,
    /// It is full and nothing is in flight whose ACK could open it: somebody must probe.
    Stalled,
}

/// The segment size in use: half of the largest window at most, so that a small window is not filled by one
/// segment (Linux's `tcp_bound_to_half_wnd`).
fn effective_mss(state: &FlowState) -> u32 {
    let window = state.max_snd_wnd;
    let half = if window > 536 { window / 2 } else { window };
    state.mss().bytes().min(half.max(48))
}

/// What to send next; at most `super_frame` bytes, or one segment if that is more.
///
/// # Errors
/// What it waits for.
pub fn next(state: &FlowState, super_frame: u32) -> Result<Segment, Wait> {
    let unsent = state.unsent();
    if unsent == 0 {
        return Err(Wait::Idle);
    }
    let mss = effective_mss(state);
    let in_flight = state.in_flight();
    let usable = (state.snd_una() + state.snd_wnd).since(state.snd_nxt());
    let one = mss.min(unsent);
    // Sender's silly window avoidance: a window that does not hold the segment is not used (as Linux; RFC 9293,
    // section 3.8.6.2.1 would send half a window too, which `effective_mss` covers).
    if one > usable {
        return Err(if in_flight == 0 {
            Wait::Stalled
        } else {
            Wait::Window
        });
    }
    let room = state.cwnd.saturating_sub(in_flight);
    if one > room && in_flight > 0 {
        return Err(Wait::Cwnd);
    }
    // Minshall's variant of Nagle's algorithm (RFC 9293, section 3.7.4), as Linux: a small segment waits only
    // while an earlier small one is unacknowledged.
    // One of 2 GiB ago is not in flight (as Linux's tcp_minshall_check).
    let small = state.snd_sml();
    let small_in_flight = small.after(state.snd_una()) && small.at_or_before(state.snd_nxt());
    let hold_small = !state.has(flags::NO_DELAY) && small_in_flight;
    if one < mss && hold_small {
        return Err(Wait::Nagle);
    }
    let burst = Pace::burst(state.pacing_rate).max(mss * 2);
    let mut len = unsent
        .min(usable)
        .min(room.max(one))
        .min(super_frame.max(mss))
        .min(burst);
    let small = len % mss;
    if len > mss && small > 0 && (len < unsent || hold_small) {
        len -= small;
    }
    let push = len == unsent;
    Ok(Segment {
        offset: in_flight,
        len,
        mss,
        push,
    })
}

/// The headers of the next data segment. Takes the pending CWR and offers the window.
pub fn data_header(
    state: &mut FlowState,
    segment: &Segment,
    own_mac: MacAddr,
    now: Instant,
    recv_capacity: u32,
) -> SegmentRepr {
    let mut control = TcpFlags::ACK;
    if segment.push {
        control |= TcpFlags::PSH;
    }
    let mut header = header(state, own_mac, now, recv_capacity, control);
    header.seq = state.snd_nxt();
    if state.has(flags::ECN) {
        header.tos |= ECT_0;
        if state.has(flags::CWR) {
            header.flags |= TcpFlags::CWR;
        }
    }
    header
}

/// Accounts for a data segment that went out.
pub fn sent(state: &mut FlowState, local: &mut Local, segment: &Segment, now: Instant) {
    if state.in_flight() == 0 {
        local.outstanding_since = Some(now);
    }
    let end = state.snd_nxt() + segment.len;
    state.set_snd_nxt(end);
    if !segment.len.is_multiple_of(segment.mss) {
        state.set_snd_sml(end);
    }
    if local.timed.is_none() {
        local.timed = Some((end, now));
    }
    state.segments_sent = state
        .segments_sent
        .wrapping_add(segment.len.div_ceil(segment.mss));
    state.set(flags::CWR, false);
    local.pace.sent(now, state.pacing_rate, segment.len);
    ack::sent(state, local, true);
}

/// The headers of a pure ACK. Offers the window.
pub fn ack_header(
    state: &mut FlowState,
    own_mac: MacAddr,
    now: Instant,
    recv_capacity: u32,
) -> SegmentRepr {
    header(state, own_mac, now, recv_capacity, TcpFlags::ACK)
}

/// The headers of an [`EarlyAck`](ack::EarlyAck).
pub fn early_ack_header(
    state: &FlowState,
    early: &ack::EarlyAck,
    own_mac: MacAddr,
    now: Instant,
) -> SegmentRepr {
    let mut header = plain(state, own_mac, now, TcpFlags::ACK);
    header.ack = early.ack;
    header.window = early.window;
    if early.ece {
        header.flags |= TcpFlags::ECE;
    }
    header
}

fn header(
    state: &mut FlowState,
    own_mac: MacAddr,
    now: Instant,
    recv_capacity: u32,
    control: TcpFlags,
) -> SegmentRepr {
    let window = ack::advertise(state, recv_capacity);
    let mut header = plain(state, own_mac, now, control);
    header.window = window;
    if state.has(flags::ECE) {
        header.flags |= TcpFlags::ECE;
    }
    header
}

fn plain(state: &FlowState, own_mac: MacAddr, now: Instant, control: TcpFlags) -> SegmentRepr {
    let options = if state.has(flags::TIMESTAMPS) {
        TcpOptions::with_timestamps(ts_val(state, now), state.ts_recent)
    } else {
        TcpOptions::default()
    };
    SegmentRepr {
        src_mac: own_mac,
        dst_mac: state.remote_mac(),
        tuple: state.tuple(),
        tos: state.tos(),
        ttl: state.ttl(),
        seq: state.snd_nxt(),
        ack: state.rcv_nxt(),
        flags: control,
        window: 0,
        urgent: 0,
        options,
    }
}

/// TSval: the millisecond clock, offset per connection (RFC 7323, section 5.4).
pub fn ts_val(state: &FlowState, now: Instant) -> u32 {
    (now.as_millis() as u32).wrapping_add(state.ts_offset)
}
