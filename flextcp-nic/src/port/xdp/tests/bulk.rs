//! The queue of large frames, filled by hand instead of by the program.

use std::fs::File;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant as Clock};

use super::frames::{ethernet, ipv4, tcp};
use crate::port::testing::in_namespace;
use crate::port::xdp::bulk::Bulk;
use crate::port::xdp::mapping::Mapping;
use crate::port::xdp::packet::PacketSocket;
use crate::port::{TxFrame, TxOffload};
use crate::time::Instant;

const LIMIT: Duration = Duration::from_secs(5);
/// `struct bulk` of `bpf/steer.c`.
const IFINDEX: usize = 0;
const SENT: usize = 1;

/// A queue of which the test plays the program.
struct Stage {
    bulk: Bulk,
    /// The program's view of the map: a second mapping of the same memory.
    map: Mapping,
    wire: PacketSocket,
}

impl Stage {
    fn new() -> Self {
        let memory = rustix::fs::memfd_create("map", rustix::fs::MemfdFlags::CLOEXEC).unwrap();
        rustix::fs::ftruncate(&memory, 4096).unwrap();
        let view = || Mapping::shared(std::os::fd::AsFd::as_fd(&memory), 0, 16).unwrap();
        let map = view();
        let bulk = Bulk::new(view(), File::open("/dev/null").unwrap().into()).unwrap();
        assert_eq!(map.word(IFINDEX).unwrap().load(Ordering::Acquire), 0);
        bulk.open();
        let ifindex = map.word(IFINDEX).unwrap().load(Ordering::Acquire);
        let wire = PacketSocket::open(ifindex as u32).unwrap();
        Self { bulk, map, wire }
    }

    fn count(&self, frames: u64) {
        self.map
            .word(SENT)
            .unwrap()
            .fetch_add(frames, Ordering::AcqRel);
    }

    fn send(&self, frame: &[u8]) {
        let frame = TxFrame {
            header: frame,
            payload: [&[], &[]],
            offload: TxOffload::default(),
        };
        self.wire.send(&frame).unwrap();
    }

    /// What is received at `now`, once it has come.
    fn receive(&mut self, now: Instant) -> Vec<u8> {
        let start = Clock::now();
        loop {
            if let Some(frame) = self.bulk.receive(now) {
                return frame.head.to_vec();
            }
            assert!(start.elapsed() < LIMIT, "no frame came");
        }
    }
}

fn frame(len: usize) -> Vec<u8> {
    let segment = tcp(1, 2, &vec![0x5a; len]);
    ethernet(
        [0; 6],
        0x0800,
        &ipv4([127, 0, 0, 1], [127, 0, 0, 1], 6, &[], 0, &segment),
    )
}

#[test]
fn counted_frames_come_whole_and_in_order() {
    in_namespace(|| {
        let mut stage = Stage::new();
        let now = Instant::from_millis(100);
        assert!(!stage.bulk.waits());
        let frames = [frame(1400), frame(0), frame(9), frame(700)];
        stage.count(frames.len() as u64);
        assert!(stage.bulk.waits());
        for frame in &frames {
            stage.send(frame);
        }
        for frame in &frames {
            assert_eq!(stage.receive(now), *frame);
        }
        assert!(stage.bulk.receive(now).is_none());
        assert!(!stage.bulk.waits());
        stage.bulk.close();
        assert_eq!(stage.map.word(IFINDEX).unwrap().load(Ordering::Acquire), 0);
    });
}

#[test]
fn a_counted_frame_is_waited_for_until_it_must_be_lost() {
    in_namespace(|| {
        let mut stage = Stage::new();
        stage.count(1);
        for millis in [100, 101, 109] {
            assert!(stage.bulk.receive(Instant::from_millis(millis)).is_none());
            assert!(stage.bulk.waits(), "after {millis} ms");
        }
        assert!(stage.bulk.receive(Instant::from_millis(110)).is_none());
        assert!(!stage.bulk.waits());
        // Late all the same: nobody waits, but it is found, and the next one is not taken for it.
        stage.send(&frame(1));
        assert_eq!(stage.receive(Instant::from_millis(111)), frame(1));
        stage.count(1);
        stage.send(&frame(2));
        assert_eq!(stage.receive(Instant::from_millis(112)), frame(2));
    });
}

#[test]
fn a_frame_that_was_not_counted_is_found_soon() {
    in_namespace(|| {
        let mut stage = Stage::new();
        // The kernel cut one in two.
        stage.count(1);
        stage.send(&frame(1));
        stage.send(&frame(2));
        let now = Instant::from_millis(100);
        assert_eq!(stage.receive(now), frame(1));
        assert_eq!(stage.receive(now), frame(2));
        assert!(stage.bulk.receive(now).is_none());
        assert!(!stage.bulk.waits());
        stage.send(&frame(3));
        assert!(stage.bulk.receive(now).is_none(), "no system call for it");
        assert_eq!(stage.receive(Instant::from_millis(101)), frame(3));
    });
}

#[test]
fn what_the_kernel_says_on_the_interface_itself_is_nobodys() {
    in_namespace(|| {
        let mut stage = Stage::new();
        let mut chatter = frame(8);
        chatter[6..12].copy_from_slice(&[2, 0, 0, 0, 0, 1]);
        stage.count(1);
        stage.send(&chatter);
        stage.send(&frame(8));
        assert_eq!(stage.receive(Instant::from_millis(100)), frame(8));
    });
}
