//! The device: raw frames, the wake-up, addresses.

use super::rig::{Rig, tuple};
use super::{Bench, plain};
use crate::nic::Armed;
use crate::port::{TxFrame, TxOffload};

pub(super) fn raw_frames_pass(make: &mut dyn FnMut() -> Bench) {
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

pub(super) fn arms(make: &mut dyn FnMut() -> Bench) {
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

pub(super) fn listens(make: &mut dyn FnMut() -> Bench) {
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
