use std::collections::BTreeMap;

use super::*;
use crate::steer::Steering as _;

/// The kernel's tables in memory, with room for a few entries.
#[derive(Clone, Default)]
struct Fake(Arc<Mutex<FakeTables>>);

#[derive(Default)]
struct FakeTables {
    owned: BTreeMap<OwnedKey, u32>,
    ports: BTreeMap<u32, u64>,
    excluded: BTreeSet<TupleKey>,
    connections: BTreeSet<TupleKey>,
}

const ROOM: usize = 4;

impl Fake {
    fn owned(&self) -> Vec<(IpAddr, u16, u32)> {
        let tables = self.0.lock().unwrap();
        let entry = |(key, flags): (&OwnedKey, &u32)| {
            let ip = match key.family {
                FAMILY_IPV4 => IpAddr::from(*key.address.first_chunk::<4>().unwrap()),
                _ => IpAddr::from(key.address),
            };
            (ip, key.port(), *flags)
        };
        tables.owned.iter().map(entry).collect()
    }

    fn has_bit(&self, port: u16) -> bool {
        let tables = self.0.lock().unwrap();
        let word = tables.ports.get(&u32::from(port / 64)).copied();
        word.unwrap_or(0) >> (port % 64) & 1 == 1
    }
}

impl Maps for Fake {
    fn set_owned(&mut self, key: OwnedKey, flags: u32) -> io::Result<()> {
        let mut tables = self.0.lock().unwrap();
        if tables.owned.len() == ROOM && !tables.owned.contains_key(&key) {
            return Err(io::ErrorKind::StorageFull.into());
        }
        tables.owned.insert(key, flags);
        Ok(())
    }

    fn remove_owned(&mut self, key: OwnedKey) -> io::Result<()> {
        let removed = self.0.lock().unwrap().owned.remove(&key);
        removed
            .map(drop)
            .ok_or_else(|| io::ErrorKind::NotFound.into())
    }

    fn set_ports(&mut self, word: u32, bits: u64) -> io::Result<()> {
        self.0.lock().unwrap().ports.insert(word, bits);
        Ok(())
    }

    fn set_excluded(&mut self, key: TupleKey) -> io::Result<()> {
        self.0.lock().unwrap().excluded.insert(key);
        Ok(())
    }

    fn remove_excluded(&mut self, key: TupleKey) -> io::Result<()> {
        self.0.lock().unwrap().excluded.remove(&key);
        Ok(())
    }

    fn set_connection(&mut self, key: TupleKey) -> io::Result<()> {
        let mut tables = self.0.lock().unwrap();
        if tables.connections.len() == ROOM {
            return Err(io::ErrorKind::StorageFull.into());
        }
        tables.connections.insert(key);
        Ok(())
    }

    fn remove_connection(&mut self, key: TupleKey) -> io::Result<()> {
        let removed = self.0.lock().unwrap().connections.remove(&key);
        if removed {
            Ok(())
        } else {
            Err(io::ErrorKind::NotFound.into())
        }
    }

    fn counts(&self) -> io::Result<SteeringCounters> {
        Ok(SteeringCounters::default())
    }
}

fn ip(text: &str) -> IpAddr {
    text.parse().unwrap()
}

fn at(text: &str) -> SocketAddr {
    text.parse().unwrap()
}

fn steering(addresses: Option<&[&str]>) -> (Steering, Fake) {
    let fake = Fake::default();
    let addresses = addresses.map(|list| list.iter().map(|address| ip(address)).collect());
    (Steering::new(Box::new(fake.clone()), addresses), fake)
}

#[test]
fn requests_are_counted() {
    let (steering, fake) = steering(None);
    steering.own(at("10.0.0.1:80")).unwrap();
    steering.own(at("10.0.0.1:80")).unwrap();
    steering.own(at("[::ffff:10.0.0.1]:80")).unwrap();
    assert_eq!(fake.owned(), [(ip("10.0.0.1"), 80, 0)]);
    for _ in 0..2 {
        steering.disown(at("10.0.0.1:80")).unwrap();
        assert!(fake.has_bit(80) && steering.owns(at("10.0.0.1:80")));
    }
    steering.disown(at("10.0.0.1:80")).unwrap();
    assert!(!fake.has_bit(80) && !steering.owns(at("10.0.0.1:80")));
    assert_eq!(fake.owned(), []);
    steering.disown(at("10.0.0.1:80")).unwrap();
}

#[test]
fn neighbouring_ports_keep_their_bits() {
    let (steering, fake) = steering(None);
    for port in [64, 65, 65535] {
        steering
            .own(SocketAddr::from(([10, 0, 0, 1], port)))
            .unwrap();
    }
    steering.disown(at("10.0.0.1:64")).unwrap();
    assert_eq!(
        [63, 64, 65, 66, 65535].map(|port| fake.has_bit(port)),
        [false, false, true, false, true]
    );
}

#[test]
fn a_wildcard_stands_for_the_hosts_addresses_and_follows_them() {
    let (steering, fake) = steering(Some(&["10.0.0.1", "fd00::1"]));
    steering.own(at("0.0.0.0:80")).unwrap();
    steering.own(at("10.0.0.1:80")).unwrap();
    assert_eq!(fake.owned(), [(ip("10.0.0.1"), 80, 0)]);
    assert!(
        !steering.owns(at("10.0.0.2:80")),
        "another host's frames are forwarded"
    );
    steering
        .set_addresses([ip("10.0.0.2"), ip("fd00::1")])
        .unwrap();
    assert_eq!(
        fake.owned(),
        [(ip("10.0.0.1"), 80, 0), (ip("10.0.0.2"), 80, 0)]
    );
    steering.disown(at("10.0.0.1:80")).unwrap();
    assert_eq!(fake.owned(), [(ip("10.0.0.2"), 80, 0)]);
    steering.disown(at("0.0.0.0:80")).unwrap();
    assert_eq!(fake.owned(), []);
    assert!(steering.serves(ip("10.0.0.2")) && !steering.serves(ip("10.0.0.1")));
}

#[test]
fn a_wildcard_on_lo_is_one_entry() {
    let (steering, fake) = steering(None);
    steering.own(at("0.0.0.0:80")).unwrap();
    steering.set_addresses([ip("10.0.0.2")]).unwrap();
    assert_eq!(fake.owned(), [(ip("0.0.0.0"), 80, 0)]);
    assert!(steering.owns(at("127.8.9.10:80")) && !steering.owns(at("[::1]:80")));
    assert!(steering.serves(ip("127.8.9.10")));
}

#[test]
fn a_full_table_changes_nothing() {
    let (steering, fake) = steering(Some(&["10.0.0.1", "10.0.0.2", "10.0.0.3"]));
    steering.own(at("0.0.0.0:80")).unwrap();
    let before = fake.owned();
    assert_eq!(
        steering.own(at("0.0.0.0:81")).unwrap_err().kind(),
        io::ErrorKind::StorageFull
    );
    assert_eq!(fake.owned(), before);
    assert!(!fake.has_bit(81));
    steering.own(at("10.0.0.1:81")).unwrap();
}

#[test]
fn only_ports_with_exclusions_pay_for_looking_them_up() {
    let (steering, fake) = steering(None);
    let tuple = FlowTuple::new(at("10.0.0.1:80"), at("10.0.0.9:999"));
    steering.own(at("10.0.0.1:80")).unwrap();
    steering.own(at("10.0.0.1:81")).unwrap();
    steering.exclude(tuple).unwrap();
    steering.exclude(tuple).unwrap();
    let flags = OWNED_HAS_EXCLUSIONS;
    assert_eq!(
        fake.owned(),
        [(ip("10.0.0.1"), 80, flags), (ip("10.0.0.1"), 81, 0)]
    );
    steering.own(at("0.0.0.0:80")).unwrap();
    assert_eq!(
        fake.owned()[0],
        (ip("0.0.0.0"), 80, flags),
        "also entries made later"
    );
    steering.include(tuple).unwrap();
    assert_eq!(fake.owned()[0].2, flags);
    steering.include(tuple).unwrap();
    assert!(fake.owned().iter().all(|entry| entry.2 == 0));
    assert!(fake.0.lock().unwrap().excluded.is_empty());
}

fn flow(local: &str, remote: u16) -> FlowTuple {
    FlowTuple::new(at(local), SocketAddr::from(([10, 0, 0, 9], remote)))
}

impl Fake {
    fn connections(&self) -> Vec<FlowTuple> {
        let tables = self.0.lock().unwrap();
        tables.connections.iter().map(TupleKey::tuple).collect()
    }
}

const ONLY: u32 = OWNED_CONNECTIONS_ONLY;

#[test]
fn connections_outlive_their_listener_one_by_one() {
    let (steering, fake) = steering(Some(&["10.0.0.1"]));
    let local = "10.0.0.1:80";
    steering.own(at(local)).unwrap();
    for remote in [1, 2, 2] {
        steering.own_flow(flow(local, remote)).unwrap();
    }
    assert_eq!(
        fake.connections(),
        [],
        "no system call as long as somebody listens"
    );
    steering.disown(at(local)).unwrap();
    assert_eq!(fake.owned(), [(ip("10.0.0.1"), 80, ONLY)]);
    assert_eq!(fake.connections(), [flow(local, 1), flow(local, 2)]);
    assert!(fake.has_bit(80) && !steering.owns(at(local)));

    // Twice in use: in TIME_WAIT, and again.
    steering.disown_flow(flow(local, 2)).unwrap();
    steering.disown_flow(flow(local, 1)).unwrap();
    assert_eq!(fake.connections(), [flow(local, 2)]);
    steering.own_flow(flow(local, 3)).unwrap();
    assert_eq!(fake.connections(), [flow(local, 2), flow(local, 3)]);

    // A listener again, and its end.
    steering.own(at(local)).unwrap();
    assert_eq!(fake.owned(), [(ip("10.0.0.1"), 80, 0)]);
    assert_eq!(fake.connections(), []);
    steering.disown_flow(flow(local, 3)).unwrap();
    steering.own_flow(flow(local, 4)).unwrap();
    steering.disown(at(local)).unwrap();
    assert_eq!(fake.connections(), [flow(local, 2), flow(local, 4)]);
    for remote in [2, 4, 4] {
        steering.disown_flow(flow(local, remote)).unwrap();
    }
    assert_eq!((fake.owned(), fake.connections()), (vec![], vec![]));
    assert!(!fake.has_bit(80));
}

#[test]
fn a_connection_needs_no_listener() {
    let (steering, fake) = steering(None);
    let local = "10.0.0.1:80";
    steering.own_flow(flow(local, 1)).unwrap();
    assert_eq!(fake.owned(), [(ip("10.0.0.1"), 80, ONLY)]);
    assert_eq!(fake.connections(), [flow(local, 1)]);
    steering.exclude(flow(local, 7)).unwrap();
    assert_eq!(
        fake.owned(),
        [(ip("10.0.0.1"), 80, ONLY | OWNED_HAS_EXCLUSIONS)]
    );
    steering.include(flow(local, 7)).unwrap();
    assert_eq!(fake.owned(), [(ip("10.0.0.1"), 80, ONLY)]);
    steering.disown_flow(flow(local, 1)).unwrap();
    assert_eq!((fake.owned(), fake.connections()), (vec![], vec![]));
}

#[test]
fn a_wildcard_on_lo_covers_its_connections() {
    let (steering, fake) = steering(None);
    let (v4, v6) = ("127.0.0.1:80", "[::1]:80");
    steering.own(at("0.0.0.0:80")).unwrap();
    steering.own(at("[::]:80")).unwrap();
    for local in [v4, "127.0.0.2:80", v6] {
        steering.own_flow(flow(local, 1)).unwrap();
    }
    assert_eq!(fake.owned(), [(ip("0.0.0.0"), 80, 0), (ip("::"), 80, 0)]);
    steering.disown(at("0.0.0.0:80")).unwrap();
    assert_eq!(
        fake.owned(),
        [
            (ip("::"), 80, 0),
            (ip("127.0.0.1"), 80, ONLY),
            (ip("127.0.0.2"), 80, ONLY)
        ]
    );
    assert_eq!(fake.connections().len(), 2);
    steering.own(at("0.0.0.0:80")).unwrap();
    assert_eq!((fake.owned().len(), fake.connections()), (2, vec![]));
    for local in [v4, "127.0.0.2:80", v6] {
        steering.disown_flow(flow(local, 1)).unwrap();
    }
    steering.disown(at("0.0.0.0:80")).unwrap();
    steering.disown(at("[::]:80")).unwrap();
    assert_eq!((fake.owned(), fake.connections()), (vec![], vec![]));
}

#[test]
fn without_room_for_its_connections_a_port_stays_ours_whole() {
    let (steering, fake) = steering(None);
    let local = "10.0.0.1:80";
    let remotes = 1..=ROOM as u16 + 1;
    steering.own(at(local)).unwrap();
    for remote in remotes.clone() {
        steering.own_flow(flow(local, remote)).unwrap();
    }
    let error = steering.disown(at(local)).unwrap_err();
    assert_eq!(error.kind(), io::ErrorKind::StorageFull);
    assert!(steering.owns(at(local)) && fake.connections().is_empty());
    // Another port has room, up to the last entry; one more is refused, and does not take its port.
    let other = "10.0.0.1:81";
    for remote in 1..=ROOM as u16 {
        steering.own_flow(flow(other, remote)).unwrap();
    }
    let one_more = flow("10.0.0.1:82", 1);
    assert!(steering.own_flow(one_more).is_err());
    assert!(steering.own_flow(flow(other, 99)).is_err());
    assert!(!fake.has_bit(82));
    for remote in 1..=ROOM as u16 {
        steering.disown_flow(flow(other, remote)).unwrap();
    }
    // It is left to others as soon as its connections fit: one has to go.
    assert!(steering.owns(at(local)));
    steering.disown_flow(flow(local, 1)).unwrap();
    assert_eq!(fake.owned(), [(ip("10.0.0.1"), 80, ONLY)]);
    assert_eq!(fake.connections().len(), ROOM);
    for remote in remotes.skip(1) {
        steering.disown_flow(flow(local, remote)).unwrap();
    }
    assert_eq!((fake.owned(), fake.connections()), (vec![], vec![]));
}

#[test]
fn room_that_another_port_leaves_is_taken() {
    let (steering, fake) = steering(None);
    let (first, second) = ("10.0.0.1:80", "10.0.0.1:81");
    for (local, count) in [(first, ROOM as u16), (second, 2)] {
        steering.own(at(local)).unwrap();
        for remote in 1..=count {
            steering.own_flow(flow(local, remote)).unwrap();
        }
    }
    steering.disown(at(first)).unwrap();
    steering.disown(at(second)).unwrap_err();
    steering.disown_flow(flow(first, 1)).unwrap();
    assert!(steering.owns(at(second)), "room for one of two");
    steering.disown_flow(flow(first, 2)).unwrap();
    assert!(!steering.owns(at(second)));
    assert_eq!(fake.connections().len(), ROOM);
    // The port is listened at again, and its connections want no room.
    steering.own(at(second)).unwrap();
    assert_eq!(fake.connections().len(), ROOM - 2);
    steering.disown(at(second)).unwrap();
    assert_eq!(fake.connections().len(), ROOM);
}
