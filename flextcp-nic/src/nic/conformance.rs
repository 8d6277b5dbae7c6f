//! The NIC contract as a suite of tests, for every implementation of [`Nic`].
//!
//! An implementation's tests call [`run`] with a function that makes a fresh NIC and the far end of its wire.

mod notation;
mod rig;

use core::time::Duration;
use std::sync::Arc;

use self::rig::{Event, MSS, OWN, PEER, Rig, TOKEN, WINDOW, state, tuple};
use crate::buffer::Pool;
use crate::flow::{FlowState, flags};
use crate::nic::{Armed, InstallErrorKind, Limits, Nic, Reason, StaleFlow};
use crate::port::{Port, TxFrame, TxOffload};

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
    ("receives in order", receives_in_order),
    ("delays an ACK, but no second one", delays_acks),
    ("a reply carries the ACK", reply_carries_the_ack),
    ("quick ACK mode", quick_acks),
    ("sends and frees", sends_and_frees),
    ("segments what was written", segments),
    ("Nagle", nagle),
    ("keeps to cwnd", keeps_to_cwnd),
    ("keeps to the window", keeps_to_the_window),
    ("returns a stalled flow", returns_a_stalled_flow),
    ("paces", paces),
    ("merges notifications", merges_notifications),
    ("offers the window again", offers_the_window_again),
    ("answers probes", answers_probes),
    ("timestamps", timestamps),
    ("echoes congestion until CWR", echoes_congestion),
    ("echoes congestion exactly", echoes_exactly),
    ("announces a reduced window", announces_reduction),
    ("punts", punts),
    ("keeps to what it offered", keeps_what_was_offered),
    ("notifies before it punts", notifies_before_it_punts),
    ("claims", claims),
    ("ids go stale", ids_go_stale),
    ("refuses duplicates", refuses_duplicates),
    ("installs mid-flight", installs_mid_flight),
    ("progress", progress),
    ("drops bad frames", drops_bad_frames),
    ("raw frames pass", raw_frames_pass),
    ("arms", arms),
    ("listens", listens),
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

fn receives_in_order(make: &mut dyn FnMut() -> Bench) {
    let mut rig = Rig::new(make(), plain);
    rig.peer("P. 0:100 ack 0 win 512");
    rig.peer(". 100:1100 ack 0 win 512");
    let n = rig.notified();
    assert_eq!(
        (n.token, n.received, n.acked, n.snd_wnd, n.in_flight),
        (TOKEN, 1100, 0, 65536, 0)
    );
    rig.read(0, 1100);
    let returned = rig.claim();
    assert_eq!(returned.state.rcv_nxt(), PEER + 1100);
    assert_eq!(returned.state.segments_received, 2);
    let counters = rig.nic().counters();
    assert_eq!((counters.fast.frames_in, counters.fast.bytes_in), (2, 1100));
}

fn delays_acks(make: &mut dyn FnMut() -> Bench) {
    let mut rig = Rig::new(make(), plain);
    rig.peer("P. 0:100 ack 0 win 512");
    rig.poll();
    rig.read(0, 100);
    assert!(rig.sent().is_empty());
    let at = rig.nic().poll_at().expect("a delayed ACK has a deadline");
    assert!(
        at > rig.now && at <= rig.now + Duration::from_millis(200),
        "{at:?}"
    );
    rig.now = at;
    assert_eq!(rig.sent(), [". 0:0 ack 100 win 512"]);
    // Every second full segment at once.
    rig.peer(". 100:1100 ack 0 win 512");
    rig.peer(". 1100:2100 ack 0 win 512");
    rig.poll();
    rig.read(100, 2000);
    assert_eq!(rig.sent(), [". 0:0 ack 2100 win 512"]);
    assert_eq!(rig.nic().counters().fast_acks_out, 2);
}

fn reply_carries_the_ack(make: &mut dyn FnMut() -> Bench) {
    let mut rig = Rig::new(make(), |state| state.set(flags::QUICK_ACK, true));
    rig.peer("P. 0:100 ack 0 win 512");
    rig.poll();
    rig.read(0, 100);
    rig.write(0, 5);
    assert_eq!(rig.sent(), ["P. 0:5 ack 100 win 512"]);
    rig.wait(Duration::from_secs(1));
    assert!(rig.sent().is_empty());
}

fn quick_acks(make: &mut dyn FnMut() -> Bench) {
    let mut rig = Rig::new(make(), |state| state.set(flags::QUICK_ACK, true));
    rig.peer("P. 0:1 ack 0 win 512");
    rig.poll();
    rig.read(0, 1);
    assert_eq!(rig.sent(), [". 0:0 ack 1 win 512"]);
}

fn sends_and_frees(make: &mut dyn FnMut() -> Bench) {
    let mut rig = Rig::new(make(), plain);
    rig.write(0, 500);
    assert_eq!(rig.sent(), ["P. 0:500 ack 0 win 512"]);
    assert_eq!(rig.app.send.len(), 500);
    rig.wait(Duration::from_micros(300));
    rig.peer(". 0:0 ack 200 win 512");
    let n = rig.notified();
    assert_eq!(
        (n.acked, n.in_flight, n.rtt_micros, n.received),
        (200, 300, 0, 0)
    );
    rig.peer(". 0:0 ack 500 win 500");
    let n = rig.notified();
    assert_eq!(
        (n.acked, n.in_flight, n.rtt_micros, n.snd_wnd),
        (300, 0, 300, 64000)
    );
    assert_eq!(rig.app.send.len(), 0);
    assert!(rig.sent().is_empty());
}

fn segments(make: &mut dyn FnMut() -> Bench) {
    let mut rig = Rig::new(make(), plain);
    rig.write(0, 2500);
    let expected = [
        ". 0:1000 ack 0 win 512",
        ". 1000:2000 ack 0 win 512",
        "P. 2000:2500 ack 0 win 512",
    ];
    assert_eq!(rig.sent(), expected);
    assert_eq!(rig.claim().state.segments_sent, 3);
}

fn nagle(make: &mut dyn FnMut() -> Bench) {
    let mut rig = Rig::new(make(), plain);
    rig.write(0, 10);
    assert_eq!(rig.sent().len(), 1);
    rig.write(10, 10);
    assert!(
        rig.sent().is_empty(),
        "a small segment waits for a small one"
    );
    rig.write(20, 1000);
    assert_eq!(
        rig.sent(),
        [". 10:1010 ack 0 win 512"],
        "a full one does not"
    );
    rig.peer(". 0:0 ack 10 win 512");
    rig.poll();
    assert_eq!(rig.sent(), ["P. 1010:1020 ack 0 win 512"]);

    let mut rig = Rig::new(make(), |state| state.set(flags::NO_DELAY, true));
    rig.write(0, 10);
    assert_eq!(rig.sent().len(), 1);
    rig.write(10, 10);
    assert_eq!(rig.sent(), ["P. 10:20 ack 0 win 512"]);
}

fn keeps_to_cwnd(make: &mut dyn FnMut() -> Bench) {
    let mut rig = Rig::new(make(), |state| state.cwnd = 2500);
    rig.write(0, 5000);
    assert_eq!(rig.sent().len(), 2, "a partial segment would be silly");
    rig.peer(". 0:0 ack 1000 win 512");
    assert!(rig.notified().cwnd_limited);
    assert_eq!(rig.sent(), [". 2000:3000 ack 0 win 512"]);
    let id = rig.id;
    rig.nic()
        .set_limits(
            id,
            Limits {
                cwnd: 10_000,
                pacing_rate: 0,
            },
        )
        .expect("the flow is installed");
    assert_eq!(
        rig.sent(),
        [". 3000:4000 ack 0 win 512", "P. 4000:5000 ack 0 win 512"]
    );
}

fn keeps_to_the_window(make: &mut dyn FnMut() -> Bench) {
    let mut rig = Rig::new(make(), |state| state.snd_wnd = 2100);
    rig.write(0, 5000);
    assert_eq!(rig.sent().len(), 2);
    // An ACK that does not move the right edge.
    rig.peer(". 0:0 ack 1000 win 8");
    rig.poll();
    assert!(rig.sent().is_empty());
    // A pure window update is no duplicate ACK.
    rig.peer(". 0:0 ack 1000 win 16");
    assert_eq!(rig.notified().snd_wnd, 2048);
    assert_eq!(rig.sent(), [". 2000:3000 ack 0 win 512"]);
}

fn returns_a_stalled_flow(make: &mut dyn FnMut() -> Bench) {
    let mut rig = Rig::new(make(), plain);
    rig.write(0, 100);
    rig.sent();
    // The window shuts with nothing waiting: common case.
    rig.peer(". 0:0 ack 100 win 0");
    assert_eq!(rig.notified().snd_wnd, 0);
    rig.write(100, 100);
    assert!(rig.sent().is_empty());
    match rig.poll().as_slice() {
        [Event::Returned(returned)] => {
            assert_eq!(returned.state.unsent(), 100);
            assert_eq!(returned.buffers.send.len(), 100);
        }
        other => panic!("the flow comes back, not {other:?}"),
    }
}

fn paces(make: &mut dyn FnMut() -> Bench) {
    // One segment a millisecond.
    let mut rig = Rig::new(make(), |state| state.pacing_rate = MSS);
    rig.write(0, 20_000);
    let start = rig.now;
    let mut sent = rig.sent().len();
    for _ in 0..1000 {
        assert!(
            sent as u64 <= (rig.now - start).as_millis() as u64 + 3,
            "{sent} at {:?}",
            rig.now
        );
        if sent == 20 {
            break;
        }
        let at = rig.nic().poll_at().expect("a paced flow has a deadline");
        rig.now = at.max(rig.now);
        sent += rig.sent().len();
    }
    assert_eq!(sent, 20);
    let took = (rig.now - start).as_millis();
    assert!((17..=20).contains(&took), "{took} ms for 20 segments");
}

fn merges_notifications(make: &mut dyn FnMut() -> Bench) {
    let mut rig = Rig::new(make(), plain);
    rig.write(0, 3000);
    rig.sent();
    for i in 0..3 {
        rig.peer(&format!(
            "P. {}:{} ack {} win 512",
            i * 10,
            i * 10 + 10,
            (i + 1) * 1000
        ));
    }
    let n = rig.notified();
    assert_eq!((n.received, n.acked, n.in_flight), (30, 3000, 0));
}

fn offers_the_window_again(make: &mut dyn FnMut() -> Bench) {
    let mut rig = Rig::new(make(), plain);
    let mut last = String::new();
    for i in 0..WINDOW / 1024 {
        rig.peer(&format!(". {}:{} ack 0 win 512", i * 1024, (i + 1) * 1024));
        rig.poll();
        last = rig.sent().pop().unwrap_or(last);
    }
    assert_eq!(last, ". 0:0 ack 65536 win 0");
    rig.read(0, 500);
    assert!(rig.sent().is_empty(), "a silly window is not offered");
    rig.read(500, 40_000);
    let updates = rig.sent();
    assert!(
        updates.len() == 1 && updates[0].starts_with(". 0:0 ack 65536 win "),
        "{updates:?}"
    );
    let window = Segment::parse(&updates[0]).window;
    assert!(window >= 40_500 / 128, "{window}");
}

fn answers_probes(make: &mut dyn FnMut() -> Bench) {
    let mut rig = Rig::new(make(), plain);
    rig.peer(". -1:-1 ack 0 win 512");
    assert!(rig.poll().is_empty());
    assert_eq!(rig.sent(), [". 0:0 ack 0 win 512"]);
    rig.peer(". -1:0 ack 0 win 512");
    assert!(rig.poll().is_empty());
    assert_eq!(rig.sent(), [". 0:0 ack 0 win 512"]);
    assert!(rig.app.recv.is_empty());
}

fn timestamps(make: &mut dyn FnMut() -> Bench) {
    let mut rig = Rig::new(make(), |state| {
        state.set(flags::TIMESTAMPS, true);
        state.ts_recent = u32::MAX;
        state.ts_offset = 5;
    });
    rig.peer("P. 0:10 ack 0 win 512 ts 3/0");
    rig.notified();
    rig.read(0, 10);
    rig.write(0, 10);
    let millis = rig.now.as_millis();
    assert_eq!(
        rig.sent(),
        [format!("P. 0:10 ack 10 win 512 ts {}/3", millis + 5)]
    );
    // Of segments that one ACK covers, the first one's timestamp is echoed (RFC 7323, section 4.3).
    rig.peer("P. 10:20 ack 10 win 512 ts 7/0");
    rig.peer("P. 20:30 ack 10 win 512 ts 8/0");
    rig.poll();
    rig.read(10, 20);
    rig.write(10, 10);
    assert_eq!(
        rig.sent(),
        [format!("P. 10:20 ack 30 win 512 ts {}/7", millis + 5)]
    );
}

fn echoes_congestion(make: &mut dyn FnMut() -> Bench) {
    let mut rig = Rig::new(make(), |state| state.set(flags::ECN, true));
    rig.peer("P. 0:10 ack 0 win 512 ce");
    assert!(rig.notified().congestion_experienced);
    rig.read(0, 10);
    rig.write(0, 10);
    assert_eq!(rig.sent(), ["PE. 0:10 ack 10 win 512 ect"]);
    rig.peer("P. 10:20 ack 10 win 512 ect");
    rig.poll();
    rig.read(10, 10);
    rig.write(10, 10);
    assert_eq!(
        rig.sent(),
        ["PE. 10:20 ack 20 win 512 ect"],
        "until the peer says CWR"
    );
    rig.peer("PW. 20:30 ack 20 win 512 ect");
    rig.poll();
    rig.read(20, 10);
    rig.write(20, 10);
    assert_eq!(rig.sent(), ["P. 20:30 ack 30 win 512 ect"]);
}

fn echoes_exactly(make: &mut dyn FnMut() -> Bench) {
    let mut rig = Rig::new(make(), |state| {
        state.set(flags::ECN, true);
        state.set(flags::DCTCP, true);
    });
    rig.peer("P. 0:10 ack 0 win 512 ect");
    rig.peer("P. 10:20 ack 0 win 512 ce");
    rig.poll();
    let acks = rig.sent();
    assert_eq!(acks.len(), 2, "{acks:?}");
    assert!(acks[0].starts_with(". 0:0 ack 10 win "), "{acks:?}");
    assert!(acks[1].starts_with("E. 0:0 ack 20 win "), "{acks:?}");
    rig.peer("P. 20:30 ack 0 win 512 ect");
    rig.poll();
    let acks = rig.sent();
    assert!(
        acks.len() == 1 && acks[0].starts_with(". 0:0 ack 30 win "),
        "{acks:?}"
    );
}

fn announces_reduction(make: &mut dyn FnMut() -> Bench) {
    let mut rig = Rig::new(make(), |state| state.set(flags::ECN, true));
    rig.write(0, 2000);
    rig.sent();
    rig.peer("E. 0:0 ack 1000 win 512");
    let n = rig.notified();
    assert_eq!((n.acked, n.acked_ece), (1000, 1000));
    let id = rig.id;
    rig.nic()
        .set_limits(
            id,
            Limits {
                cwnd: 5000,
                pacing_rate: 0,
            },
        )
        .expect("the flow is installed");
    rig.write(2000, 2000);
    assert_eq!(
        rig.sent(),
        [
            "W. 2000:3000 ack 0 win 512 ect",
            "P. 3000:4000 ack 0 win 512 ect"
        ]
    );
}

fn punts(make: &mut dyn FnMut() -> Bench) {
    let timestamps = |state: &mut FlowState| {
        state.set(flags::TIMESTAMPS, true);
        state.ts_recent = 100;
    };
    let plain: fn(&mut FlowState) = plain;
    let cases = [
        (plain, "S 0:0 ack 0 win 512", Reason::Flags),
        (plain, "F. 0:0 ack 0 win 512", Reason::Flags),
        (plain, "R 0:0 ack 0 win 0", Reason::Flags),
        (plain, "U. 0:1 ack 0 win 512", Reason::Flags),
        (plain, "P 0:1 ack 0 win 512", Reason::Flags),
        (plain, "P. 1:2 ack 0 win 512", Reason::OutOfOrder),
        (plain, "P. -10:0 ack 0 win 512", Reason::OutOfOrder),
        (plain, "P. -2:5 ack 0 win 512", Reason::OutOfOrder),
        (plain, ". 5:5 ack 0 win 512", Reason::OutOfOrder),
        (plain, ". 0:0 ack 0 win 512", Reason::DuplicateAck),
        (plain, ". 0:0 ack 500 win 512 sack 600:700", Reason::Sack),
        (plain, ". 0:0 ack 501 win 512", Reason::AckOutOfWindow),
        (plain, ". 0:0 ack -1 win 512", Reason::AckOutOfWindow),
        (plain, "P. 0:10 ack 0 win 512 mss 1000", Reason::Options),
        (plain, ". 0:0 ack 400 win 0", Reason::ZeroWindow),
        (timestamps, "P. 0:10 ack 0 win 512 ts 99/0", Reason::Paws),
        (timestamps, "P. 0:10 ack 0 win 512", Reason::Paws),
    ];
    for (adjust, text, reason) in cases {
        let mut rig = Rig::new(make(), adjust);
        rig.write(0, 500);
        rig.sent();
        let id = rig.id;
        let before = rig.nic().progress(id).expect("the flow is installed").state;
        rig.peer(text);
        rig.peer("P. 0:1 ack 0 win 512");
        let mut events = rig.poll().into_iter();
        match events.next() {
            Some(Event::Exception(got, Some(returned))) => {
                assert_eq!(got, reason, "{text}");
                assert_eq!(returned.state, before, "{text} changed the state");
                assert_eq!((returned.token, returned.buffers.send.len()), (TOKEN, 500));
            }
            other => panic!("{text} punts, not {other:?}"),
        }
        match events.next() {
            Some(Event::Exception(Reason::HostOwned | Reason::NoFlow, None)) => {}
            other => panic!("what follows a punt is an exception, not {other:?}"),
        }
        assert!(rig.app.recv.is_empty());
        let counters = rig.nic().counters();
        assert_eq!(
            (counters.punted, counters.exceptions[reason.index()]),
            (1, 1),
            "{text}"
        );
        assert_eq!(counters.slow.frames_in, 2);
    }
}

fn keeps_what_was_offered(make: &mut dyn FnMut() -> Bench) {
    let mut rig = Rig::new(make(), plain);
    for i in 0..WINDOW / 1024 {
        rig.peer(&format!(". {}:{} ack 0 win 512", i * 1024, (i + 1) * 1024));
        rig.poll();
        rig.sent();
    }
    rig.peer("P. 65536:65546 ack 0 win 512");
    match rig.poll().as_slice() {
        [Event::Exception(Reason::OutOfWindow, Some(returned))] => {
            assert_eq!(returned.state.rcv_nxt(), PEER + WINDOW);
            assert_eq!(returned.state.rcv_wnd(), 0);
        }
        other => panic!("beyond the window, not {other:?}"),
    }
    assert_eq!(rig.app.recv.len(), WINDOW as usize);
}

fn notifies_before_it_punts(make: &mut dyn FnMut() -> Bench) {
    let mut rig = Rig::new(make(), plain);
    rig.peer("P. 0:10 ack 0 win 512");
    rig.peer("F. 10:10 ack 0 win 512");
    match rig.poll().as_slice() {
        [
            Event::Notification(n),
            Event::Exception(Reason::Flags, Some(returned)),
        ] => {
            assert_eq!((n.received, returned.state.rcv_nxt()), (10, PEER + 10));
            assert_eq!(
                returned.state.last_ack_sent(),
                PEER,
                "the ACK is still owed"
            );
        }
        other => panic!("a notification, then the exception, not {other:?}"),
    }
}

fn claims(make: &mut dyn FnMut() -> Bench) {
    let mut rig = Rig::new(make(), plain);
    rig.peer("P. 0:10 ack 0 win 512");
    rig.poll();
    // Written and rung, and written without a doorbell: both are in the state.
    rig.write(0, 100);
    assert_eq!(rig.app.send.write(&rig::bytes(100, 50)), 50);
    let returned = rig.claim();
    assert_eq!(returned.token, TOKEN);
    assert_eq!(returned.state.snd_end(), OWN + 150);
    assert_eq!(returned.buffers.send.len(), 150);
    assert_eq!(returned.buffers.recv.unread(), 10);
    assert_eq!(rig.nic().counters().claimed, 1);
    assert!(rig.sent().is_empty(), "a claimed flow sends nothing");
    // And back: nothing is lost.
    let now = rig.now;
    let id = rig
        .nic()
        .install(now, TOKEN, returned.state, returned.buffers)
        .expect("it was claimed");
    rig.id = id;
    assert_eq!(rig.sent(), ["P. 0:150 ack 10 win 511"]);
    rig.read(0, 10);
}

fn ids_go_stale(make: &mut dyn FnMut() -> Bench) {
    let mut rig = Rig::new(make(), plain);
    let (old, now) = (rig.id, rig.now);
    rig.claim();
    let (new, _app) = rig.install(state(1000)).expect("it was claimed");
    assert_ne!(new, old);
    assert_eq!(rig.nic().doorbell(now, old), Err(StaleFlow));
    assert_eq!(rig.nic().counters().bad_doorbells, 1);
    assert_eq!(
        rig.nic().set_limits(
            old,
            Limits {
                cwnd: 1,
                pacing_rate: 0
            }
        ),
        Err(StaleFlow)
    );
    assert!(rig.nic().progress(old).is_err());
    assert!(rig.nic().claim(now, old).is_err());
    assert!(rig.nic().progress(new).is_ok());
}

fn refuses_duplicates(make: &mut dyn FnMut() -> Bench) {
    let mut rig = Rig::new(make(), plain);
    assert_eq!(
        rig.install(state(1000)).err(),
        Some(InstallErrorKind::Duplicate)
    );
    assert!(rig.install(state(1001)).is_ok());
    assert_eq!(rig.nic().counters().installed, 2);
    rig.peer_on(1001, "P. 0:7 ack 0 win 512", false);
    assert_eq!(rig.notified().received, 7);
    assert!(rig.app.recv.is_empty(), "each flow has its own bytes");
}

fn installs_mid_flight(make: &mut dyn FnMut() -> Bench) {
    let mut rig = Rig::new(make(), plain);
    rig.write(0, 1500);
    rig.sent();
    let returned = rig.claim();
    let now = rig.now;
    rig.id = rig
        .nic()
        .install(now, TOKEN, returned.state, returned.buffers)
        .expect("it was claimed");
    assert!(rig.sent().is_empty(), "nothing is sent twice");
    rig.peer(". 0:0 ack 1500 win 512");
    let n = rig.notified();
    assert_eq!(
        (n.acked, n.rtt_micros),
        (1500, 0),
        "a segment of unknown age gives no sample"
    );
}

fn progress(make: &mut dyn FnMut() -> Bench) {
    let mut rig = Rig::new(make(), plain);
    let id = rig.id;
    let outstanding = |rig: &mut Rig| rig.nic().progress(id).expect("installed").outstanding_since;
    assert_eq!(outstanding(&mut rig), None);
    rig.write(0, 2000);
    rig.sent();
    let sent = rig.now;
    rig.wait(Duration::from_millis(1));
    assert_eq!(outstanding(&mut rig), Some(sent));
    rig.peer(". 0:0 ack 1000 win 512");
    rig.poll();
    assert_eq!(outstanding(&mut rig), Some(rig.now));
    rig.peer(". 0:0 ack 2000 win 512");
    rig.poll();
    assert_eq!(outstanding(&mut rig), None);
}

fn drops_bad_frames(make: &mut dyn FnMut() -> Bench) {
    let mut rig = Rig::new(make(), plain);
    rig.peer_on(1000, "P. 0:10 ack 0 win 512", true);
    assert!(rig.poll().is_empty());
    assert_eq!(rig.nic().counters().bad_checksum, 1);
    let frame = TxFrame {
        header: &[0; 60],
        payload: [&[], &[]],
        offload: TxOffload::default(),
    };
    rig.bench
        .wire
        .transmit(rig.now, frame)
        .expect("the wire has room");
    rig.bench.wire.flush(rig.now).expect("the wire is up");
    assert!(rig.poll().is_empty());
    assert_eq!(rig.nic().counters().malformed, 1);
    rig.peer_on(4242, "S 0:0 ack 0 win 512", false);
    assert!(matches!(
        rig.poll().as_slice(),
        [Event::Exception(Reason::NoFlow, None)]
    ));
}

fn raw_frames_pass(make: &mut dyn FnMut() -> Bench) {
    let mut rig = Rig::new(make(), plain);
    let now = rig.now;
    let frame = TxFrame {
        header: &[7; 60],
        payload: [b"tail", &[]],
        offload: TxOffload::default(),
    };
    rig.nic().transmit(now, frame).expect("the port is empty");
    assert_eq!(rig.sent(), ["not TCP"]);
    let counters = rig.nic().counters();
    assert_eq!((counters.slow.frames_out, counters.slow.bytes_out), (1, 4));
}

fn arms(make: &mut dyn FnMut() -> Bench) {
    let mut rig = Rig::new(make(), plain);
    rig.sent();
    rig.poll();
    assert_eq!(rig.nic().arm().expect("the device is there"), Armed::Armed);
    rig.peer("P. 0:10 ack 0 win 512");
    assert_eq!(
        rig.nic().arm().expect("the device is there"),
        Armed::Pending
    );
    rig.poll();
    rig.sent();
    assert_eq!(rig.nic().arm().expect("the device is there"), Armed::Armed);
}

fn listens(make: &mut dyn FnMut() -> Bench) {
    let mut rig = Rig::new(make(), plain);
    let local = tuple(0).local_addr();
    rig.nic().listen(local).expect("the table is empty");
    rig.nic()
        .listen(local)
        .expect("a second owner of the same address");
    rig.nic().unlisten(local).expect("it was listened on");
    rig.nic().unlisten(local).expect("twice");
    rig.nic().own(local).expect("the table is empty");
    rig.nic().disown(local).expect("it was owned");
    assert!(rig.bench.nic.serves(local.ip()));
    rig.nic().exclude(tuple(7)).expect("the table is empty");
    rig.peer_on(7, "P. 0:10 ack 0 win 512", false);
    assert!(
        rig.poll().is_empty(),
        "an excluded connection is the kernel's"
    );
    rig.nic().include(tuple(7)).expect("it was excluded");
    rig.nic().include(tuple(7)).expect("twice does nothing");
    rig.peer_on(7, "P. 0:10 ack 0 win 512", false);
    assert!(!rig.poll().is_empty(), "an included one is ours again");
}
