//! Which frames are ours: the program's maps, and the counting of who asked for what.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::fmt;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use crate::flow::FlowTuple;

const FAMILY_IPV4: u16 = 4;
const FAMILY_IPV6: u16 = 6;
const OWNED_HAS_EXCLUSIONS: u32 = 1;

/// `struct owned_key` of `bpf/steer.c`.
#[derive(Clone, Copy, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
#[repr(C)]
pub(super) struct OwnedKey {
    address: [u8; 16],
    port: [u8; 2],
    family: u16,
}

/// `struct tuple_key` of `bpf/steer.c`.
#[derive(Clone, Copy, Debug, Eq, Ord, PartialEq, PartialOrd)]
#[repr(C)]
pub(super) struct TupleKey {
    local: [u8; 16],
    remote: [u8; 16],
    local_port: [u8; 2],
    remote_port: [u8; 2],
    family: u32,
}

const _: () = assert!(size_of::<OwnedKey>() == 20 && size_of::<TupleKey>() == 40);

// SAFETY: all fields are integers, the layout is C's and has no padding (asserted above).
unsafe impl aya::Pod for OwnedKey {}
// SAFETY: as above.
unsafe impl aya::Pod for TupleKey {}

fn words(ip: IpAddr) -> ([u8; 16], u16) {
    match ip {
        IpAddr::V4(ip) => {
            let mut bytes = [0; 16];
            bytes[..4].copy_from_slice(&ip.octets());
            (bytes, FAMILY_IPV4)
        }
        IpAddr::V6(ip) => (ip.octets(), FAMILY_IPV6),
    }
}

impl OwnedKey {
    pub(super) fn new(ip: IpAddr, port: u16) -> Self {
        let (address, family) = words(ip);
        Self {
            address,
            port: port.to_be_bytes(),
            family,
        }
    }

    pub(super) const fn port(&self) -> u16 {
        u16::from_be_bytes(self.port)
    }

    /// Every address of its family.
    pub(super) fn is_wildcard(&self) -> bool {
        self.address == [0; 16]
    }

    /// `struct single` of `bpf/steer.c` as words: the address, and last the family.
    pub(super) fn single(&self) -> [u64; 3] {
        let (low, high) = self.address.split_at(8);
        let word = |bytes: &[u8]| bytes.try_into().map_or(0, u64::from_ne_bytes);
        let [first, second] = self.family.to_ne_bytes();
        [
            word(low),
            word(high),
            u64::from_ne_bytes([first, second, 0, 0, 0, 0, 0, 0]),
        ]
    }
}

impl TupleKey {
    pub(super) fn tuple(&self) -> FlowTuple {
        let address = |bytes: [u8; 16]| -> IpAddr {
            let [a, b, c, d, ..] = bytes;
            if self.family == u32::from(FAMILY_IPV4) {
                [a, b, c, d].into()
            } else {
                bytes.into()
            }
        };
        FlowTuple {
            local: (address(self.local), u16::from_be_bytes(self.local_port)),
            remote: (address(self.remote), u16::from_be_bytes(self.remote_port)),
        }
    }

    fn new(tuple: FlowTuple) -> Self {
        let (local, family) = words(tuple.local.0.to_canonical());
        let (remote, _) = words(tuple.remote.0.to_canonical());
        Self {
            local,
            remote,
            local_port: tuple.local.1.to_be_bytes(),
            remote_port: tuple.remote.1.to_be_bytes(),
            family: family.into(),
        }
    }
}

/// The kernel's side of the tables.
pub(super) trait Maps: Send {
    fn set_owned(&mut self, key: OwnedKey, flags: u32) -> io::Result<()>;
    fn remove_owned(&mut self, key: OwnedKey) -> io::Result<()>;
    fn set_ports(&mut self, word: u32, bits: u64) -> io::Result<()>;
    fn set_excluded(&mut self, key: TupleKey) -> io::Result<()>;
    fn remove_excluded(&mut self, key: TupleKey) -> io::Result<()>;
    fn counts(&self) -> io::Result<SteeringCounters>;

    /// Whether the device can be told the queues of connections.
    fn steers(&self) -> bool {
        false
    }

    /// Frames of an installed connection are best received on `queue`.
    fn set_queue(&mut self, _tuple: &FlowTuple, _queue: u32) {}

    /// It is not installed any more.
    fn forget_queue(&mut self, _tuple: &FlowTuple) {}
}

/// What the program did with the frames of the interface; sums over all CPUs.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct SteeringCounters {
    /// Ours, given to a queue's socket (or to the kernel where the queue has none).
    pub redirected: u64,
    /// Not ours.
    pub passed: u64,
    /// For an address and port of ours, of a connection that the kernel has.
    pub excluded: u64,
}

/// The addresses and ports that an interface's frames are ours for. Clones share the tables; requests are
/// counted, so that a port asked for twice stays until it was given up twice.
///
/// An unspecified IP address means every address of this host, of its family: those set by
/// [`set_addresses`](Self::set_addresses), so that frames to be forwarded are left alone, and without limit on
/// `lo`. `[::]` does not include IPv4.
#[derive(Clone)]
pub struct Steering {
    tables: Arc<Mutex<Tables>>,
    /// The queue of whoever has this handle, where the device can be told it.
    queue: Option<u32>,
}

impl fmt::Debug for Steering {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let tables = self.lock();
        f.debug_struct("Steering")
            .field("requested", &tables.requested)
            .field("excluded", &tables.excluded.len())
            .finish_non_exhaustive()
    }
}

impl Steering {
    pub(super) fn new(maps: Box<dyn Maps>, addresses: Option<BTreeSet<IpAddr>>) -> Self {
        let tables = Tables {
            maps,
            addresses,
            requested: BTreeMap::new(),
            entries: BTreeMap::new(),
            ports: HashMap::new(),
            bits: vec![0; 1024],
            excluded: BTreeMap::new(),
            excluded_ports: HashMap::new(),
        };
        Self {
            tables: Arc::new(Mutex::new(tables)),
            queue: None,
        }
    }

    /// The same tables for the owner of a queue: its connections are best received there.
    pub(super) fn of_queue(&self, queue: u32) -> Self {
        Self {
            tables: Arc::clone(&self.tables),
            queue: self.lock().maps.steers().then_some(queue),
        }
    }

    fn lock(&self) -> MutexGuard<'_, Tables> {
        // Every step leaves the tables usable, so a panic elsewhere does not take them down.
        self.tables.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Frames for `local` are ours from now on.
    ///
    /// # Errors
    /// The table (65,536 entries) is full, or the kernel refused; then nothing has changed.
    pub fn own(&self, local: SocketAddr) -> io::Result<()> {
        self.lock().own(local)
    }

    /// Undoes one [`own`](Self::own); without one it does nothing.
    ///
    /// # Errors
    /// The kernel refused.
    pub fn disown(&self, local: SocketAddr) -> io::Result<()> {
        self.lock().disown(local)
    }

    /// Frames of this connection stay with the kernel although its port is ours.
    ///
    /// # Errors
    /// As [`own`](Self::own).
    pub fn exclude(&self, tuple: FlowTuple) -> io::Result<()> {
        self.lock().exclude(tuple)
    }

    /// Undoes one [`exclude`](Self::exclude); without one it does nothing.
    ///
    /// # Errors
    /// The kernel refused.
    pub fn include(&self, tuple: FlowTuple) -> io::Result<()> {
        self.lock().include(tuple)
    }

    /// The addresses of this host, for wildcards; call it whenever they change. Without effect on `lo`.
    ///
    /// # Errors
    /// As [`own`](Self::own); addresses that could not be entered stay with the kernel.
    pub fn set_addresses(&self, addresses: impl IntoIterator<Item = IpAddr>) -> io::Result<()> {
        self.lock().set_addresses(addresses.into_iter().collect())
    }

    /// Whether a frame for `local` is ours now.
    pub fn owns(&self, local: SocketAddr) -> bool {
        let tables = self.lock();
        let ip = local.ip().to_canonical();
        let any = unspecified_like(ip);
        [ip, any].into_iter().any(|ip| {
            tables
                .entries
                .contains_key(&OwnedKey::new(ip, local.port()))
        })
    }

    /// The program's counters.
    ///
    /// # Errors
    /// The kernel refused.
    pub fn counters(&self) -> io::Result<SteeringCounters> {
        self.lock().maps.counts()
    }
}

impl crate::steer::Steering for Steering {
    fn own(&mut self, local: SocketAddr) -> io::Result<()> {
        Self::own(self, local)
    }

    fn disown(&mut self, local: SocketAddr) -> io::Result<()> {
        Self::disown(self, local)
    }

    fn exclude(&mut self, tuple: FlowTuple) -> io::Result<()> {
        Self::exclude(self, tuple)
    }

    fn include(&mut self, tuple: FlowTuple) -> io::Result<()> {
        Self::include(self, tuple)
    }

    fn installed(&mut self, tuple: &FlowTuple) {
        if let Some(queue) = self.queue {
            self.lock().maps.set_queue(tuple, queue);
        }
    }

    fn removed(&mut self, tuple: &FlowTuple) {
        if self.queue.is_some() {
            self.lock().maps.forget_queue(tuple);
        }
    }

    fn serves(&self, address: IpAddr) -> bool {
        let address = address.to_canonical();
        match &self.lock().addresses {
            // Frames for them arrive on `lo` only.
            Some(addresses) => addresses.contains(&address) && !address.is_loopback(),
            None => true,
        }
    }
}

fn unspecified_like(ip: IpAddr) -> IpAddr {
    match ip {
        IpAddr::V4(_) => IpAddr::from([0; 4]),
        IpAddr::V6(_) => IpAddr::from([0; 16]),
    }
}

struct Tables {
    maps: Box<dyn Maps>,
    /// What a wildcard stands for; `None`: for itself.
    addresses: Option<BTreeSet<IpAddr>>,
    requested: BTreeMap<(IpAddr, u16), u32>,
    /// Entries in the kernel, by how many requests need them.
    entries: BTreeMap<OwnedKey, u32>,
    /// Entries of each port.
    ports: HashMap<u16, u32>,
    bits: Vec<u64>,
    excluded: BTreeMap<TupleKey, u32>,
    /// Exclusions of each local port.
    excluded_ports: HashMap<u16, u32>,
}

impl Tables {
    fn own(&mut self, local: SocketAddr) -> io::Result<()> {
        let request = (local.ip().to_canonical(), local.port());
        if let Some(count) = self.requested.get_mut(&request) {
            *count += 1;
            return Ok(());
        }
        let keys = self.expand(request);
        for (index, key) in keys.iter().enumerate() {
            if let Err(error) = self.enter(*key) {
                for key in &keys[..index] {
                    self.leave(*key)?;
                }
                return Err(error);
            }
        }
        self.requested.insert(request, 1);
        Ok(())
    }

    fn disown(&mut self, local: SocketAddr) -> io::Result<()> {
        let request = (local.ip().to_canonical(), local.port());
        let Some(count) = self.requested.get_mut(&request) else {
            return Ok(());
        };
        *count -= 1;
        if *count > 0 {
            return Ok(());
        }
        self.requested.remove(&request);
        self.expand(request)
            .into_iter()
            .try_for_each(|key| self.leave(key))
    }

    fn expand(&self, (ip, port): (IpAddr, u16)) -> Vec<OwnedKey> {
        match &self.addresses {
            Some(addresses) if ip.is_unspecified() => addresses
                .iter()
                .filter(|address| address.is_ipv4() == ip.is_ipv4())
                .map(|address| OwnedKey::new(*address, port))
                .collect(),
            _ => vec![OwnedKey::new(ip, port)],
        }
    }

    fn set_addresses(&mut self, addresses: BTreeSet<IpAddr>) -> io::Result<()> {
        let Some(before) = self.addresses.replace(addresses.clone()) else {
            self.addresses = None;
            return Ok(());
        };
        let wildcards: Vec<_> = self
            .requested
            .keys()
            .filter(|(ip, _)| ip.is_unspecified())
            .copied()
            .collect();
        let mut result = Ok(());
        for (any, port) in wildcards {
            let same_family = |ip: &&IpAddr| ip.is_ipv4() == any.is_ipv4();
            for gone in before.difference(&addresses).filter(same_family) {
                let left = self.leave(OwnedKey::new(*gone, port));
                result = result.and(left);
            }
            for new in addresses.difference(&before).filter(same_family) {
                let entered = self.enter(OwnedKey::new(*new, port));
                result = result.and(entered);
            }
        }
        result
    }

    /// The entry first, then the port's bit: the program sees either none or the whole.
    fn enter(&mut self, key: OwnedKey) -> io::Result<()> {
        if let Some(count) = self.entries.get_mut(&key) {
            *count += 1;
            return Ok(());
        }
        let port = key.port();
        self.maps.set_owned(key, self.flags(port))?;
        if !self.ports.contains_key(&port)
            && let Err(error) = self.set_bit(port, true)
        {
            self.maps.remove_owned(key)?;
            return Err(error);
        }
        *self.ports.entry(port).or_insert(0) += 1;
        self.entries.insert(key, 1);
        Ok(())
    }

    fn leave(&mut self, key: OwnedKey) -> io::Result<()> {
        let Some(count) = self.entries.get_mut(&key) else {
            return Ok(());
        };
        *count -= 1;
        if *count > 0 {
            return Ok(());
        }
        self.entries.remove(&key);
        let port = key.port();
        let entries = self.ports.entry(port).or_insert(1);
        *entries -= 1;
        if *entries == 0 {
            self.ports.remove(&port);
            self.set_bit(port, false)?;
        }
        self.maps.remove_owned(key)
    }

    fn set_bit(&mut self, port: u16, owned: bool) -> io::Result<()> {
        let word = usize::from(port >> 6);
        let bit = 1 << (port & 63);
        let bits = if owned {
            self.bits[word] | bit
        } else {
            self.bits[word] & !bit
        };
        self.maps.set_ports(word as u32, bits)?;
        self.bits[word] = bits;
        Ok(())
    }

    fn flags(&self, port: u16) -> u32 {
        if self.excluded_ports.contains_key(&port) {
            OWNED_HAS_EXCLUSIONS
        } else {
            0
        }
    }

    fn exclude(&mut self, tuple: FlowTuple) -> io::Result<()> {
        let key = TupleKey::new(tuple);
        if let Some(count) = self.excluded.get_mut(&key) {
            *count += 1;
            return Ok(());
        }
        self.maps.set_excluded(key)?;
        self.excluded.insert(key, 1);
        let port = tuple.local.1;
        let exclusions = self.excluded_ports.entry(port).or_insert(0);
        *exclusions += 1;
        if *exclusions == 1 {
            self.refresh_flags(port)
        } else {
            Ok(())
        }
    }

    fn include(&mut self, tuple: FlowTuple) -> io::Result<()> {
        let key = TupleKey::new(tuple);
        let Some(count) = self.excluded.get_mut(&key) else {
            return Ok(());
        };
        *count -= 1;
        if *count > 0 {
            return Ok(());
        }
        self.excluded.remove(&key);
        let port = tuple.local.1;
        let exclusions = self.excluded_ports.entry(port).or_insert(1);
        *exclusions -= 1;
        if *exclusions == 0 {
            self.excluded_ports.remove(&port);
            self.refresh_flags(port)?;
        }
        self.maps.remove_excluded(key)
    }

    fn refresh_flags(&mut self, port: u16) -> io::Result<()> {
        let flags = self.flags(port);
        let of_port = |key: &&OwnedKey| key.port() == port;
        self.entries
            .keys()
            .filter(of_port)
            .try_for_each(|key| self.maps.set_owned(*key, flags))
    }
}

#[cfg(test)]
mod tests;
