//! Who owns a flow: installs, punts, claims, ids.

use super::rig::{self, Event, OWN, PEER, Rig, TOKEN, WINDOW, state};
use super::{Bench, plain};
use crate::flow::{FlowState, flags};
use crate::nic::{InstallErrorKind, Limits, Reason, StaleFlow};

pub(super) fn punts(make: &mut dyn FnMut() -> Bench) {
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
        // A byte that is new with one that is not: no probe.
        (plain, "P. -1:1 ack 0 win 512", Reason::OutOfOrder),
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

pub(super) fn keeps_what_was_offered(make: &mut dyn FnMut() -> Bench) {
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

pub(super) fn notifies_before_it_punts(make: &mut dyn FnMut() -> Bench) {
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

pub(super) fn claims(make: &mut dyn FnMut() -> Bench) {
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

pub(super) fn ids_go_stale(make: &mut dyn FnMut() -> Bench) {
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

pub(super) fn refuses_duplicates(make: &mut dyn FnMut() -> Bench) {
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

pub(super) fn refuses_what_is_not_in_the_buffers(make: &mut dyn FnMut() -> Bench) {
    let mut rig = Rig::new(make(), plain);
    let mut in_flight = state(1001);
    in_flight.set_snd_nxt(OWN + 1);
    in_flight.set_snd_end(OWN + 1);
    assert_eq!(
        rig.install(in_flight).err(),
        Some(InstallErrorKind::Unsupported),
        "a byte in flight that the send buffer does not hold"
    );
    assert!(rig.install(state(1001)).is_ok());
}

pub(super) fn installs_mid_flight(make: &mut dyn FnMut() -> Bench) {
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
