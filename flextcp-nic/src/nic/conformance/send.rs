//! Sending: segments, and what holds them back.

use core::time::Duration;

use super::rig::{Event, MSS, Rig};
use super::{Bench, plain};
use crate::flow::flags;
use crate::nic::Limits;

pub(super) fn sends_and_frees(make: &mut dyn FnMut() -> Bench) {
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

pub(super) fn segments(make: &mut dyn FnMut() -> Bench) {
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

pub(super) fn nagle(make: &mut dyn FnMut() -> Bench) {
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

pub(super) fn keeps_to_cwnd(make: &mut dyn FnMut() -> Bench) {
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

pub(super) fn keeps_to_the_window(make: &mut dyn FnMut() -> Bench) {
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

/// SND.UNA + SND.WND is the first number not allowed (RFC 9293, section 3.3.1): a window is used to its last byte.
pub(super) fn fills_the_window(make: &mut dyn FnMut() -> Bench) {
    let mut rig = Rig::new(make(), |state| state.snd_wnd = 2000);
    rig.write(0, 5000);
    assert_eq!(
        rig.sent(),
        [". 0:1000 ack 0 win 512", ". 1000:2000 ack 0 win 512"]
    );
}

pub(super) fn returns_a_stalled_flow(make: &mut dyn FnMut() -> Bench) {
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

pub(super) fn paces(make: &mut dyn FnMut() -> Bench) {
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

pub(super) fn progress(make: &mut dyn FnMut() -> Bench) {
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
