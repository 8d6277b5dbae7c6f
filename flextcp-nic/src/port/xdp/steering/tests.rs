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
