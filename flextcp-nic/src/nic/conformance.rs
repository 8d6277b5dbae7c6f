//! The NIC contract as a suite of tests, for every implementation of [`Nic`].
//!
//! An implementation's tests call [`run`] with a function that makes a fresh NIC and the far end of its wire.

mod congestion;
mod device;
mod notation;
mod owners;
mod receive;
mod rig;
mod send;

use std::sync::Arc;

use crate::buffer::Pool;
use crate::flow::FlowState;
use crate::nic::Nic;
use crate::port::Port;

pub use notation::Segment;

/// A NIC under test and the far end of its wire, with an MTU of at least 1500 and no segmentation offload.
#[derive(Debug)]
pub struct Bench {
    /// The NIC.
    pub nic: Box<dyn Nic>,
    /// What it sends arrives here, and what is sent here arrives at it.
    pub wire: Box<dyn Port>,
    /// Where the NIC wants the app buffers to be.
    pub pool: Arc<Pool>,
}

type Case = (&'static str, fn(&mut dyn FnMut() -> Bench));

const CASES: &[Case] = &[
    ("receives in order", receive::receives_in_order),
    ("delays an ACK, but no second one", receive::delays_acks),
    ("a reply carries the ACK", receive::reply_carries_the_ack),
    (
        "pushed data waits only where replies carry the ACKs",
        receive::pushed_data_waits_for_replies_alone,
    ),
    ("quick ACK mode", receive::quick_acks),
    ("sends and frees", send::sends_and_frees),
    ("segments what was written", send::segments),
    ("Nagle", send::nagle),
    ("keeps to cwnd", send::keeps_to_cwnd),
    ("keeps to the window", send::keeps_to_the_window),
    ("fills the window", send::fills_the_window),
    ("returns a stalled flow", send::returns_a_stalled_flow),
    ("paces", send::paces),
    ("merges notifications", receive::merges_notifications),
    ("offers the window again", receive::offers_the_window_again),
    ("answers probes", receive::answers_probes),
    (
        "believes no probe of old bytes",
        receive::believes_no_probe_of_old_bytes,
    ),
    (
        "ACKs that repeat nothing",
        receive::repeated_acks_of_nothing,
    ),
    ("timestamps", receive::timestamps),
    ("echoes congestion until CWR", congestion::echoes_congestion),
    ("echoes congestion exactly", congestion::echoes_exactly),
    (
        "acknowledges the first mark at once",
        congestion::acks_the_first_mark_at_once,
    ),
    (
        "announces a reduced window",
        congestion::announces_reduction,
    ),
    ("announces nothing else", congestion::announces_nothing_else),
    ("punts", owners::punts),
    ("keeps to what it offered", owners::keeps_what_was_offered),
    ("notifies before it punts", owners::notifies_before_it_punts),
    ("claims", owners::claims),
    ("ids go stale", owners::ids_go_stale),
    ("refuses duplicates", owners::refuses_duplicates),
    (
        "refuses what is not in the buffers",
        owners::refuses_what_is_not_in_the_buffers,
    ),
    ("installs mid-flight", owners::installs_mid_flight),
    ("progress", send::progress),
    ("drops bad frames", receive::drops_bad_frames),
    ("raw frames pass", device::raw_frames_pass),
    ("arms", device::arms),
    ("listens", device::listens),
];

/// Runs the suite.
///
/// # Panics
/// The NIC breaks the contract.
pub fn run(mut make: impl FnMut() -> Bench) {
    let mut failed = Vec::new();
    for (name, case) in CASES {
        let outcome = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| case(&mut make)));
        if outcome.is_err() {
            failed.push(*name);
        }
    }
    assert!(failed.is_empty(), "conformance cases failed: {failed:?}");
}

fn plain(_: &mut FlowState) {}
