//! The common case of TCP, receive and transmit: pure functions over a flow's state and its app buffers.
//!
//! No I/O, no clock, no allocation. [`rx`] either handles a segment whole or leaves everything as it was and
//! says why it is an exception; [`tx`] decides what to send next; [`ack`] decides when to acknowledge and what
//! window to offer.

pub mod ack;
pub mod rx;
#[cfg(test)]
mod tests;
pub mod tx;

use crate::flow::FlowState;
use crate::pace::Pace;
use crate::seq::SeqNum;
use crate::time::Instant;

/// What the software NIC keeps of a flow besides [`FlowState`]. It is not handed over: a claimed and
/// re-installed flow starts it anew.
#[derive(Clone, Debug)]
pub struct Local {
    /// The peer's segment size as far as seen, for "every second segment".
    pub rcv_mss: u32,
    /// The segment timed for a round-trip sample: its end and when it was sent.
    pub timed: Option<(SeqNum, Instant)>,
    /// Where RFC 6298's retransmission timer runs from: the oldest outstanding segment was sent, or SND.UNA
    /// last moved.
    pub outstanding_since: Option<Instant>,
    /// An ACK must not wait.
    pub ack_now: bool,
    /// ACKs left in quick ACK mode.
    pub quick_acks: u8,
    /// Data arrived since data was last sent.
    pub heard: bool,
    /// The peer reported congestion since the last CWR of ours.
    pub ece_seen: bool,
    /// Pacing.
    pub pace: Pace,
    /// Receive buffer autotuning.
    pub tuning: rx::Tuning,
}

impl Local {
    /// For a flow that is being installed. What the host did not say, or said against sense, is put right in `state`.
    pub fn new(state: &mut FlowState, now: Instant) -> Self {
        state.max_snd_wnd = state.max_snd_wnd.max(state.snd_wnd);
        let small = state.snd_sml();
        if small.before(state.snd_una()) || small.after(state.snd_nxt()) {
            state.set_snd_sml(state.snd_una());
        }
        Self {
            rcv_mss: state.mss().bytes().min(rx::RCV_MSS_AT_FIRST),
            timed: None,
            outstanding_since: (state.in_flight() > 0).then_some(now),
            ack_now: false,
            quick_acks: ack::QUICK_ACKS,
            heard: false,
            ece_seen: false,
            pace: Pace::default(),
            tuning: rx::Tuning::new(now),
        }
    }
}
