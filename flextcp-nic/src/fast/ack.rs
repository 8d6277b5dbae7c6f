//! When to acknowledge, and what window to offer.

use super::Local;
use crate::flow::{FlowState, flags};
use crate::seq::SeqNum;

/// How many ACKs quick ACK mode sends at once before it ends, as Linux's `TCP_MAX_QUICKACKS`.
pub const QUICK_ACKS: u8 = 16;

/// What arrived in such amounts is acknowledged before its reader runs: the sender may wait for it, and no reply comes as often.
pub const BULK: u32 = 16 << 10;

/// What [`due`] answers.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Due {
    /// Nothing to acknowledge.
    Nothing,
    /// The ACK may wait for the delayed-ACK timer.
    Delayed,
    /// It may not.
    Now,
}

/// Whether an ACK is due (RFC 9293, section 3.8.6.3; RFC 5681, section 4.2). As Linux: at once when more
/// than one segment of the peer's size waits, so that every second one is acknowledged.
pub fn due(state: &FlowState, local: &Local) -> Due {
    let owed = state.rcv_nxt().since(state.last_ack_sent());
    if local.ack_now || owed > local.rcv_mss {
        Due::Now
    } else if owed == 0 {
        Due::Nothing
    } else if state.has(flags::QUICK_ACK) {
        Due::Now
    } else {
        Due::Delayed
    }
}

/// Whether the application freed so much that the peer should hear of it without having sent anything.
/// As Linux's `tcp_cleanup_rbuf`: when at most half of the buffer is still on offer and the offer would at
/// least double. This is within RFC 9293, section 3.8.6.2.2, and costs bulk transfers no extra ACKs.
pub fn window_update_due(state: &FlowState, capacity: u32) -> bool {
    let offered = state.rcv_wnd();
    let possible = state.rcv_scale().round(state.rcv_free);
    let worth = state.mss().bytes().min(capacity / 2).max(1);
    offered <= capacity / 2
        && possible >= offered.saturating_mul(2)
        && possible - offered.min(possible) >= worth
}

/// The window field to send now, for a ring of `capacity` bytes. Moves RCV's right edge in `state`, only ever to the right.
///
/// Receiver's silly window avoidance (RFC 9293, section 3.8.6.2.2): the edge moves when it moves by a segment
/// or half of the buffer.
pub fn advertise(state: &mut FlowState, capacity: u32) -> u16 {
    let scale = state.rcv_scale();
    let free = state.rcv_free;
    let offered = state.rcv_wnd();
    let possible = scale.round(free);
    let worth = state.mss().bytes().min(capacity / 2).max(1);
    let field = if possible >= offered.saturating_add(worth) {
        scale.scale_down(possible)
    } else {
        // The edge stays. The field cannot say so when the offer is no multiple of the scale: round up if
        // there is room for it; else the peer sees less than one unit less, which RFC 7323, section 2.4 allows.
        let unit = 1_u32 << scale.get();
        let up = offered.div_ceil(unit).saturating_mul(unit);
        scale.scale_down(if up <= free { up } else { offered })
    };
    let edge = state.rcv_nxt() + scale.scale_up(field);
    state.set_rcv_adv(state.rcv_adv().latest(edge));
    field
}

/// Accounts for data that arrived. What the peer pushes may be the end of what its window lets it send: without a reply to
/// carry the ACK it would wait for the delayed-ACK timer, and the peer's window be a segment smaller (Linux acknowledges
/// it when the application has read it, `tcp_cleanup_rbuf` with `ICSK_ACK_PUSHED`).
pub fn heard(state: &FlowState, local: &mut Local, pushed: bool) {
    local.heard = true;
    local.ack_now |= pushed && !state.has(flags::CONVERSATION);
}

/// The delayed-ACK timer ran out: no reply came in time to carry the ACK.
pub fn overdue(state: &mut FlowState, local: &mut Local) {
    local.ack_now = true;
    state.set(flags::CONVERSATION, false);
}

/// Accounts for a segment with an ACK that goes out.
pub fn sent(state: &mut FlowState, local: &mut Local, with_data: bool) {
    let acknowledged = state.rcv_nxt() != state.last_ack_sent();
    state.set_last_ack_sent(state.rcv_nxt());
    local.ack_now = false;
    if with_data && local.heard {
        local.heard = false;
        state.set(flags::CONVERSATION, true);
    }
    if state.has(flags::QUICK_ACK) && acknowledged {
        local.quick_acks = local.quick_acks.saturating_sub(1);
        // A reply that carries the ACK makes this a conversation, where delaying pays (Linux's pingpong mode).
        if with_data || local.quick_acks == 0 {
            state.set(flags::QUICK_ACK, false);
        }
    }
}

/// An ACK for what arrived before the congestion mark changed (RFC 8257, section 3.2).
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct EarlyAck {
    /// SEG.ACK.
    pub ack: SeqNum,
    /// ECE.
    pub ece: bool,
    /// The window field.
    pub window: u16,
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::seq::{Mss, WindowScale};
    use crate::time::Instant;
    use proptest::prelude::*;

    const CAPACITY: u32 = 4096;

    fn state(scale: u8, mss: u16, free: u32) -> FlowState {
        let mut state = FlowState {
            rcv_free: free,
            ..FlowState::default()
        };
        state.set_mss_scales(Mss::new(mss), WindowScale::new(scale), WindowScale::ZERO);
        state
    }

    #[test]
    fn every_second_segment() {
        let mut state = state(0, 1000, 10_000);
        let mut local = Local::new(&mut state, Instant::ZERO);
        local.rcv_mss = 1000;
        assert_eq!(due(&state, &local), Due::Nothing);
        state.set_rcv_nxt(SeqNum(1000));
        assert_eq!(due(&state, &local), Due::Delayed);
        state.set_rcv_nxt(SeqNum(1001));
        assert_eq!(due(&state, &local), Due::Now);
        sent(&mut state, &mut local, false);
        assert_eq!(due(&state, &local), Due::Nothing);
    }

    #[test]
    fn quick_ack_mode_ends_with_a_reply() {
        let mut state = state(0, 1000, 10_000);
        state.set(flags::QUICK_ACK, true);
        let mut local = Local::new(&mut state, Instant::ZERO);
        state.set_rcv_nxt(SeqNum(1));
        assert_eq!(due(&state, &local), Due::Now);
        sent(&mut state, &mut local, true);
        state.set_rcv_nxt(SeqNum(2));
        assert_eq!(due(&state, &local), Due::Delayed);
    }

    #[test]
    fn what_is_pushed_waits_only_in_a_conversation() {
        let mut state = state(0, 1000, 10_000);
        let mut local = Local::new(&mut state, Instant::ZERO);
        local.rcv_mss = 1000;
        let hear = |state: &mut FlowState, local: &mut Local, pushed| {
            state.set_rcv_nxt(state.rcv_nxt() + 1000);
            heard(state, local, pushed);
            due(state, local)
        };
        // A request was sent: that is not a conversation yet.
        sent(&mut state, &mut local, true);
        assert_eq!(hear(&mut state, &mut local, false), Due::Delayed);
        sent(&mut state, &mut local, false);
        assert_eq!(hear(&mut state, &mut local, true), Due::Now);
        sent(&mut state, &mut local, false);
        sent(&mut state, &mut local, true);
        assert_eq!(hear(&mut state, &mut local, true), Due::Delayed);
        overdue(&mut state, &mut local);
        assert_eq!(due(&state, &local), Due::Now);
        sent(&mut state, &mut local, false);
        assert_eq!(hear(&mut state, &mut local, true), Due::Now);
    }

    #[test]
    fn small_frees_are_not_offered() {
        let mut state = state(0, 1000, 4096);
        assert_eq!(advertise(&mut state, CAPACITY), 4096);
        state.set_rcv_nxt(SeqNum(4096));
        state.rcv_free = 999;
        assert!(!window_update_due(&state, CAPACITY));
        assert_eq!(advertise(&mut state, CAPACITY), 0);
        state.rcv_free = 1000;
        assert!(window_update_due(&state, CAPACITY));
        assert_eq!(advertise(&mut state, CAPACITY), 1000);
        assert!(!window_update_due(&state, CAPACITY));
    }

    proptest! {
        /// The right edge never moves left and never goes beyond the free space.
        #[test]
        fn the_edge_only_moves_right(
            scale in 0_u8..15, mss in 48_u16..9000,
            steps in prop::collection::vec((0_u32..100_000, 0_u32..100_000), 1..50),
        ) {
            let mut state = state(scale, mss, 1 << 20);
            advertise(&mut state, CAPACITY);
            for (arrives, frees) in steps {
                let arrives = arrives.min(state.rcv_wnd());
                let (nxt, adv) = (state.rcv_nxt() + arrives, state.rcv_adv());
                state.set_rcv_nxt(nxt);
                state.rcv_free = (state.rcv_free - arrives + frees).min(1 << 20);
                let wanted = state.rcv_scale().scale_up(advertise(&mut state, CAPACITY));
                prop_assert!(state.rcv_adv().at_or_after(adv));
                prop_assert!((nxt + wanted).at_or_before(state.rcv_adv()));
                prop_assert!(state.rcv_wnd() <= state.rcv_free);
                // What the peer sees falls short of the edge by less than one unit of the scale.
                prop_assert!(state.rcv_wnd() - wanted < 1 << scale || wanted == 65535 << scale);
            }
        }
    }
}
