//! ECN marks, both ways.

use super::Bench;
use super::rig::Rig;
use crate::flow::flags;
use crate::nic::Limits;

pub(super) fn echoes_congestion(make: &mut dyn FnMut() -> Bench) {
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

pub(super) fn echoes_exactly(make: &mut dyn FnMut() -> Bench) {
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

pub(super) fn announces_reduction(make: &mut dyn FnMut() -> Bench) {
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

/// Linux's `__tcp_ecn_check_ce`: the first mark is acknowledged at once, as the sender should slow down now; while ECE is being
/// echoed another one changes nothing.
pub(super) fn acks_the_first_mark_at_once(make: &mut dyn FnMut() -> Bench) {
    let mut rig = Rig::new(make(), |state| state.set(flags::ECN, true));
    rig.peer(". 0:10 ack 0 win 512 ce");
    rig.poll();
    rig.read(0, 10);
    assert_eq!(rig.sent(), ["E. 0:0 ack 10 win 512"]);
    rig.peer(". 10:20 ack 0 win 512 ce");
    rig.poll();
    rig.read(10, 10);
    assert!(rig.sent().is_empty());
}

/// RFC 3168, section 6.1.2: CWR answers an ECE by a smaller window; a larger one is no answer, and where ECN was not
/// negotiated the bit means nothing.
pub(super) fn announces_nothing_else(make: &mut dyn FnMut() -> Bench) {
    let limits = |cwnd| Limits {
        cwnd,
        pacing_rate: 0,
    };
    for (ecn, cwnd) in [(true, 5000), (true, 6000), (false, 2000)] {
        let mut rig = Rig::new(make(), |state| {
            state.set(flags::ECN, ecn);
            state.cwnd = 5000;
        });
        rig.write(0, 2000);
        rig.sent();
        rig.peer("E. 0:0 ack 1000 win 512");
        assert_eq!(rig.notified().acked_ece, if ecn { 1000 } else { 0 });
        let id = rig.id;
        rig.nic().set_limits(id, limits(cwnd)).expect("installed");
        assert!(
            !rig.claim().state.has(flags::CWR),
            "ECN {ecn}, {cwnd} bytes"
        );
    }
}
