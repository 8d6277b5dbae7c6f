//! Receiving: what arrives in order, and what is said about it.

use core::time::Duration;

use super::rig::{Event, PEER, Rig, TOKEN, WINDOW};
use super::{Bench, Segment, plain};
use crate::flow::flags;
use crate::nic::Reason;
use crate::port::{TxFrame, TxOffload};

pub(super) fn receives_in_order(make: &mut dyn FnMut() -> Bench) {
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

pub(super) fn delays_acks(make: &mut dyn FnMut() -> Bench) {
    let mut rig = Rig::new(make(), plain);
    rig.peer(". 0:100 ack 0 win 512");
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

pub(super) fn reply_carries_the_ack(make: &mut dyn FnMut() -> Bench) {
    let mut rig = Rig::new(make(), |state| state.set(flags::QUICK_ACK, true));
    rig.peer("P. 0:100 ack 0 win 512");
    rig.poll();
    rig.read(0, 100);
    rig.write(0, 5);
    assert_eq!(rig.sent(), ["P. 0:5 ack 100 win 512"]);
    rig.wait(Duration::from_secs(1));
    assert!(rig.sent().is_empty());
    // An ACK that has begun to wait is carried as well, and its timer stops.
    rig.peer(". 100:200 ack 5 win 512");
    rig.poll();
    rig.read(100, 100);
    assert!(rig.sent().is_empty());
    rig.write(5, 5);
    assert_eq!(rig.sent(), ["P. 5:10 ack 200 win 512"]);
    rig.wait(Duration::from_secs(1));
    assert!(rig.sent().is_empty());
}

pub(super) fn pushed_data_waits_for_replies_alone(make: &mut dyn FnMut() -> Bench) {
    let mut rig = Rig::new(make(), plain);
    rig.peer("P. 0:100 ack 0 win 512");
    rig.poll();
    rig.read(0, 100);
    assert_eq!(rig.sent(), [". 0:0 ack 100 win 512"]);
    rig.write(0, 5);
    assert_eq!(rig.sent(), ["P. 0:5 ack 100 win 512"]);
    // Who answered once will do so again, until it takes too long.
    rig.peer("P. 100:200 ack 5 win 512");
    rig.poll();
    rig.read(100, 100);
    assert!(rig.sent().is_empty());
    rig.now = rig.nic().poll_at().expect("a delayed ACK has a deadline");
    assert_eq!(rig.sent(), [". 5:5 ack 200 win 512"]);
    rig.peer("P. 200:300 ack 5 win 512");
    rig.poll();
    rig.read(200, 100);
    assert_eq!(rig.sent(), [". 5:5 ack 300 win 512"]);
}

pub(super) fn quick_acks(make: &mut dyn FnMut() -> Bench) {
    let mut rig = Rig::new(make(), |state| state.set(flags::QUICK_ACK, true));
    rig.peer("P. 0:1 ack 0 win 512");
    rig.poll();
    rig.read(0, 1);
    assert_eq!(rig.sent(), [". 0:0 ack 1 win 512"]);
}

pub(super) fn merges_notifications(make: &mut dyn FnMut() -> Bench) {
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

pub(super) fn offers_the_window_again(make: &mut dyn FnMut() -> Bench) {
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

pub(super) fn answers_probes(make: &mut dyn FnMut() -> Bench) {
    let mut rig = Rig::new(make(), plain);
    rig.peer(". -1:-1 ack 0 win 512");
    assert!(rig.poll().is_empty());
    assert_eq!(rig.sent(), [". 0:0 ack 0 win 512"]);
    rig.peer(". -1:0 ack 0 win 512");
    assert!(rig.poll().is_empty());
    assert_eq!(rig.sent(), [". 0:0 ack 0 win 512"]);
    assert!(rig.app.recv.is_empty());
}

/// What a probe repeats that is acknowledged already is answered and says nothing else (RFC 9293, section 3.10.7.4,
/// first; Linux's `tcp_sequence`).
pub(super) fn believes_no_probe_of_old_bytes(make: &mut dyn FnMut() -> Bench) {
    let mut rig = Rig::new(make(), |state| {
        state.set(flags::TIMESTAMPS, true);
        state.ts_recent = 100;
    });
    rig.write(0, 500);
    rig.sent();
    let (id, una) = (rig.id, rig.app.send.len());
    rig.peer(". -1:-1 ack 500 win 512 ts 200/0");
    assert!(rig.poll().is_empty());
    assert_eq!(rig.app.send.len(), una, "its ACK counts for nothing");
    let state = rig.nic().progress(id).expect("installed").state;
    assert_eq!(state.ts_recent, 100, "nor does its timestamp");
    assert_eq!(rig.sent().len(), 1, "it is answered");
    // With the byte before RCV.NXT it reaches what is not acknowledged.
    rig.peer(". -1:0 ack 500 win 512 ts 200/0");
    assert_eq!(rig.notified().acked, 500);
    let state = rig.nic().progress(id).expect("installed").state;
    assert_eq!(state.ts_recent, 200);
}

/// Without anything outstanding an ACK that repeats the last one is no duplicate (RFC 5681, section 2, condition a).
pub(super) fn repeated_acks_of_nothing(make: &mut dyn FnMut() -> Bench) {
    let mut rig = Rig::new(make(), plain);
    for _ in 0..4 {
        rig.peer(". 0:0 ack 0 win 512");
    }
    assert!(rig.poll().is_empty());
    assert!(rig.sent().is_empty());
}

pub(super) fn timestamps(make: &mut dyn FnMut() -> Bench) {
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

pub(super) fn drops_bad_frames(make: &mut dyn FnMut() -> Bench) {
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
