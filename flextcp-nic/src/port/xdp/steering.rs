//! Which frames are ours: the program's maps, and the counting of who asked for what.

mod tables;

use std::collections::BTreeSet;
use std::fmt;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use crate::flow::FlowTuple;

use tables::Tables;

const FAMILY_IPV4: u16 = 4;
const FAMILY_IPV6: u16 = 6;
const OWNED_HAS_EXCLUSIONS: u32 = 1;
const OWNED_CONNECTIONS_ONLY: u32 = 2;

/// `struct owned_key` of `bpf/steer.c`.
#[derive(Clone, Copy, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
#[repr(C)]
pub(super) struct OwnedKey {
    address: [u8; 16],
    port: [u8; 2],
    family: u16,
}

/// `struct tuple_key` of `bpf/steer.c`.
#[derive(Clone, Copy, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
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

    /// The same port at every address of its family.
    fn wildcard(&self) -> Self {
        Self {
            address: [0; 16],
            ..*self
        }
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

    /// The address and port that it is at.
    fn owned(&self) -> OwnedKey {
        OwnedKey {
            address: self.local,
            port: self.local_port,
            family: self.family as u16,
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
    fn set_connection(&mut self, key: TupleKey) -> io::Result<()>;
    fn remove_connection(&mut self, key: TupleKey) -> io::Result<()>;
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
            .field("tables", &*tables)
            .finish_non_exhaustive()
    }
}

impl Steering {
    pub(super) fn new(maps: Box<dyn Maps>, addresses: Option<BTreeSet<IpAddr>>) -> Self {
        Self {
            tables: Arc::new(Mutex::new(Tables::new(maps, addresses))),
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

    /// Undoes one [`own`](Self::own); without one it does nothing. Of connections that are
    /// [owned themselves](Self::own_flow) no frame goes astray.
    ///
    /// # Errors
    /// The kernel refused. There are more such connections than the table holds (131,072): all of the port stays ours
    /// until there are fewer.
    pub fn disown(&self, local: SocketAddr) -> io::Result<()> {
        self.lock().disown(local)
    }

    /// Frames of this connection are ours, whoever owns its local address and port. It costs no system call while that is
    /// ours too; when that ends, its connections are entered one by one.
    ///
    /// # Errors
    /// As [`own`](Self::own).
    pub fn own_flow(&self, tuple: FlowTuple) -> io::Result<()> {
        self.lock().own_flow(tuple)
    }

    /// Undoes one [`own_flow`](Self::own_flow); without one it does nothing.
    ///
    /// # Errors
    /// The kernel refused.
    pub fn disown_flow(&self, tuple: FlowTuple) -> io::Result<()> {
        self.lock().disown_flow(tuple)
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

    /// Whether every frame for `local` is ours now.
    pub fn owns(&self, local: SocketAddr) -> bool {
        self.lock().owns(local)
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

    fn own_flow(&mut self, tuple: FlowTuple) -> io::Result<()> {
        Self::own_flow(self, tuple)
    }

    fn disown_flow(&mut self, tuple: FlowTuple) -> io::Result<()> {
        Self::disown_flow(self, tuple)
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
        match self.lock().addresses() {
            // Frames for them arrive on `lo` only.
            Some(addresses) => addresses.contains(&address) && !address.is_loopback(),
            None => true,
        }
    }
}

#[cfg(test)]
mod tests;
