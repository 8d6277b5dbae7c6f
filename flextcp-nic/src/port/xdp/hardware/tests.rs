//! The tables as an interface fills them, and where the card's program, whose twin runs in the kernel, then sends frames.

use std::io::Write as _;
use std::net::SocketAddr;

use super::*;
use crate::port::xdp::steering::Steering;
use crate::port::xdp::tests::frames::segment;
use crate::port::xdp::trial::HardwareTrial;
use crate::steer::Steering as _;

/// A program in the driver that nobody looks at.
struct Driver;

impl Maps for Driver {
    fn set_owned(&mut self, _: OwnedKey, _: u32) -> io::Result<()> {
        Ok(())
    }

    fn remove_owned(&mut self, _: OwnedKey) -> io::Result<()> {
        Ok(())
    }

    fn set_ports(&mut self, _: u32, _: u64) -> io::Result<()> {
        Ok(())
    }

    fn set_excluded(&mut self, _: TupleKey) -> io::Result<()> {
        Ok(())
    }

    fn remove_excluded(&mut self, _: TupleKey) -> io::Result<()> {
        Ok(())
    }

    fn set_connection(&mut self, _: TupleKey) -> io::Result<()> {
        Ok(())
    }

    fn remove_connection(&mut self, _: TupleKey) -> io::Result<()> {
        Ok(())
    }

    fn counts(&self) -> io::Result<SteeringCounters> {
        Ok(SteeringCounters::default())
    }
}

const QUEUES: u32 = 4;

/// The card, and the steering that fills its tables; `None`, said loudly, without privileges.
fn card() -> Option<(HardwareTrial, Steering)> {
    let mut trial = match HardwareTrial::new() {
        Ok(trial) => trial,
        Err(error) if error.kind() == io::ErrorKind::PermissionDenied => {
            let required = std::env::var_os("FLEXTCP_REQUIRE_PRIVILEGED").is_some_and(|v| v == "1");
            assert!(!required, "loading BPF programs: {error}");
            let _ = writeln!(io::stderr(), "SKIPPED: loading BPF programs: {error}");
            return None;
        }
        Err(error) => panic!("{error}"),
    };
    let maps = WithCard::new(Box::new(Driver), trial.take_maps().unwrap(), QUEUES);
    Some((trial, Steering::new(Box::new(maps), None)))
}

/// What we receive on a connection.
fn frame(tuple: &FlowTuple) -> Vec<u8> {
    segment(tuple.remote_addr(), tuple.local_addr(), b"data")
}

fn tuples() -> impl Iterator<Item = FlowTuple> {
    let ends = [
        ("10.0.0.1:80", "10.0.0.2:1000"),
        ("[fd00::1]:80", "[fd00::2]:1000"),
    ];
    ends.into_iter().flat_map(|(local, remote)| {
        let local: SocketAddr = local.parse().unwrap();
        let remote: SocketAddr = remote.parse().unwrap();
        (0..32).map(move |more| {
            let mut remote = remote;
            remote.set_port(remote.port() + more);
            FlowTuple::new(local, remote)
        })
    })
}

fn by_hash(tuple: &FlowTuple) -> u8 {
    (spread(tuple) % HARDWARE_BUCKETS % QUEUES) as u8
}

#[test]
fn connections_come_to_the_queue_that_they_are_installed_on() {
    let Some((mut card, steering)) = card() else {
        return;
    };
    let mut seen = [0; QUEUES as usize];
    for tuple in tuples() {
        let frame = frame(&tuple);
        let mut queue = |what: &str, expected| {
            assert_eq!(card.run(&frame).unwrap(), expected, "{what}: {tuple:?}");
        };
        queue("nobody's", None);
        steering.own(tuple.local_addr()).unwrap();
        queue("new", Some(by_hash(&tuple)));
        seen[usize::from(by_hash(&tuple))] += 1;
        for own in 0..QUEUES {
            let mut handle = steering.of_queue(own);
            handle.installed(&tuple);
            queue("installed", Some(own as u8));
            // A connection that is installed again, as after a loss.
            handle.installed(&tuple);
            handle.removed(&tuple);
            queue("removed", Some(by_hash(&tuple)));
        }
        steering.exclude(tuple).unwrap();
        queue("the kernel's", None);
        steering.include(tuple).unwrap();
        queue("ours again", Some(by_hash(&tuple)));
        steering.disown(tuple.local_addr()).unwrap();
        queue("given up", None);
    }
    assert!(seen.iter().all(|count| *count > 0), "{seen:?}");
}

/// Steering that is not of a queue, and an interface without a card, tell nobody of connections.
#[test]
fn without_a_card_nothing_is_told() {
    let steering = Steering::new(Box::new(Driver), None);
    let mut handle = steering.of_queue(1);
    for tuple in tuples() {
        handle.installed(&tuple);
        handle.removed(&tuple);
    }
    let driver = WithCard::if_pinned(Box::new(Driver), "no-such-interface", 2);
    assert!(!driver.steers());
}

/// What `bpftool prog load ... pinmaps` leaves is found, and what an earlier process entered is forgotten.
#[test]
fn pinned_tables_are_found_and_emptied() {
    let Some((mut card, _)) = card() else {
        return;
    };
    let folder = tempfile::tempdir().unwrap();
    let mount = |args: &[&str]| {
        let status = std::process::Command::new("mount").args(args).status();
        status.is_ok_and(|status| status.success())
    };
    let path = folder.path().to_str().unwrap();
    if !mount(&["-t", "bpf", "bpf", path]) {
        let required = std::env::var_os("FLEXTCP_REQUIRE_PRIVILEGED").is_some_and(|v| v == "1");
        assert!(!required, "mounting a bpf file system");
        let _ = writeln!(io::stderr(), "SKIPPED: mounting a bpf file system");
        return;
    }
    let result = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
        let tuple = tuples().next().unwrap();
        card = HardwareTrial::new().unwrap();
        card.pin_maps(folder.path()).unwrap();
        card.own(tuple.local_addr()).unwrap();
        card.steer(&tuple, Some(3)).unwrap();
        assert_eq!(card.run(&frame(&tuple)).unwrap(), Some(3));
        let maps = CardMaps::pinned(folder.path()).unwrap();
        assert_eq!(card.run(&frame(&tuple)).unwrap(), None, "emptied");
        let maps = WithCard::new(Box::new(Driver), maps, QUEUES);
        let steering = Steering::new(Box::new(maps), None);
        steering.own(tuple.local_addr()).unwrap();
        assert_eq!(card.run(&frame(&tuple)).unwrap(), Some(by_hash(&tuple)));
    }));
    let unmounted = std::process::Command::new("umount").arg(path).status();
    assert!(unmounted.is_ok_and(|status| status.success()));
    if let Err(panic) = result {
        std::panic::resume_unwind(panic);
    }
}
