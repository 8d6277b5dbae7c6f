//! Steering on a Netronome card with its stock BPF firmware: the tables of `bpf/steer_hw.c`, filled as addresses and connections
//! come and go. **Never run on hardware**: the program's twin, with the same tables, runs in the tests.
//!
//! Whoever loads the program pins its maps (`docs/netronome-p4.md`); an interface that finds them fills them. They only choose
//! queues: a frame on another queue than its connection's is handed over in software, so nothing here is an error.

use std::collections::HashSet;
use std::fmt;
use std::io;
use std::net::IpAddr;
use std::path::{Path, PathBuf};

use aya::maps::{Array, HashMap, Map, MapData};

use super::program::from_map;
use super::steering::{Maps, OwnedKey, SteeringCounters, TupleKey};
use crate::flow::FlowTuple;
use crate::steer::spread;

/// Where the maps of an interface's card are pinned: a directory of its name.
const PINS: &str = "/sys/fs/bpf/flextcp";
const QUEUE_OF_KERNEL: u32 = u32::MAX;
/// The card replaces larger ones.
const QUEUE_MAX: u32 = 255;

/// Buckets of the hash by which the card's program spreads connections over queues.
pub(super) const HARDWARE_BUCKETS: u32 = 64;

/// `struct ipv4_flow` of `bpf/steer_hw.c`.
#[derive(Clone, Copy)]
#[repr(C)]
struct Ipv4Flow {
    local: [u8; 4],
    remote: [u8; 4],
    local_port: [u8; 2],
    remote_port: [u8; 2],
}

/// `struct ipv6_flow`.
#[derive(Clone, Copy)]
#[repr(C)]
struct Ipv6Flow {
    local: [u8; 16],
    remote: [u8; 16],
    local_port: [u8; 2],
    remote_port: [u8; 2],
}

const _: () = assert!(size_of::<Ipv4Flow>() == 12 && size_of::<Ipv6Flow>() == 36);

// SAFETY: all fields are integers, the layout is C's and has no padding (asserted above).
unsafe impl aya::Pod for Ipv4Flow {}
// SAFETY: as above.
unsafe impl aya::Pod for Ipv6Flow {}

enum Key {
    V4(Ipv4Flow),
    V6(Ipv6Flow),
}

impl Key {
    fn of(tuple: &FlowTuple) -> Option<Self> {
        let (local_port, remote_port) = (tuple.local.1.to_be_bytes(), tuple.remote.1.to_be_bytes());
        match (tuple.local.0.to_canonical(), tuple.remote.0.to_canonical()) {
            (IpAddr::V4(local), IpAddr::V4(remote)) => Some(Self::V4(Ipv4Flow {
                local: local.octets(),
                remote: remote.octets(),
                local_port,
                remote_port,
            })),
            (IpAddr::V6(local), IpAddr::V6(remote)) => Some(Self::V6(Ipv6Flow {
                local: local.octets(),
                remote: remote.octets(),
                local_port,
                remote_port,
            })),
            _ => None,
        }
    }
}

/// The card's tables.
pub(super) struct CardMaps {
    flows_ipv4: HashMap<MapData, Ipv4Flow, u32>,
    flows_ipv6: HashMap<MapData, Ipv6Flow, u32>,
    owned: HashMap<MapData, OwnedKey, u32>,
    queues: Array<MapData, u32>,
}

impl CardMaps {
    /// Those that `map` gives by their names.
    pub(super) fn new(mut map: impl FnMut(&str) -> io::Result<Map>) -> io::Result<Self> {
        Ok(Self {
            flows_ipv4: map("FLOWS_IPV4")?.try_into().map_err(from_map)?,
            flows_ipv6: map("FLOWS_IPV6")?.try_into().map_err(from_map)?,
            owned: map("OWNED")?.try_into().map_err(from_map)?,
            queues: map("QUEUES")?.try_into().map_err(from_map)?,
        })
    }

    /// Those pinned in `folder`, empty.
    fn pinned(folder: &Path) -> io::Result<Self> {
        let data = |name: &str| MapData::from_pin(folder.join(name)).map_err(from_map);
        let mut maps = Self::new(|name| {
            let data = data(name)?;
            Ok(if name == "QUEUES" {
                Map::Array(data)
            } else {
                Map::HashMap(data)
            })
        })?;
        maps.clear()?;
        Ok(maps)
    }

    /// Forgets what a process before this one entered.
    fn clear(&mut self) -> io::Result<()> {
        fn empty<K: aya::Pod>(map: &mut HashMap<MapData, K, u32>) -> io::Result<()> {
            let keys: Result<Vec<K>, _> = map.keys().collect();
            for key in keys.map_err(from_map)? {
                map.remove(&key).map_err(from_map)?;
            }
            Ok(())
        }
        empty(&mut self.flows_ipv4)?;
        empty(&mut self.flows_ipv6)?;
        empty(&mut self.owned)
    }

    /// Frames of this connection go to `queue`; `None` leaves them to the kernel.
    pub(super) fn steer(&mut self, tuple: &FlowTuple, queue: Option<u8>) -> io::Result<()> {
        let queue = queue.map_or(QUEUE_OF_KERNEL, u32::from);
        match Key::of(tuple).ok_or(io::ErrorKind::InvalidInput)? {
            Key::V4(key) => self.flows_ipv4.insert(key, queue, 0),
            Key::V6(key) => self.flows_ipv6.insert(key, queue, 0),
        }
        .map_err(from_map)
    }

    /// They go where their hash says again.
    fn forget(&mut self, tuple: &FlowTuple) -> io::Result<()> {
        match Key::of(tuple).ok_or(io::ErrorKind::InvalidInput)? {
            Key::V4(key) => self.flows_ipv4.remove(&key),
            Key::V6(key) => self.flows_ipv6.remove(&key),
        }
        .map_err(from_map)
    }

    pub(super) fn own(&mut self, key: OwnedKey) -> io::Result<()> {
        self.owned.insert(key, 0, 0).map_err(from_map)
    }

    fn disown(&mut self, key: OwnedKey) -> io::Result<()> {
        self.owned.remove(&key).map_err(from_map)
    }

    /// The queue of a bucket of connections.
    pub(super) fn set_queue(&mut self, bucket: u32, queue: u8) -> io::Result<()> {
        let queue = u32::from(queue);
        self.queues.set(bucket, queue, 0).map_err(from_map)
    }
}

impl fmt::Debug for CardMaps {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("CardMaps").finish_non_exhaustive()
    }
}

/// The tables of the program in the driver, and those of the card below it.
pub(super) struct WithCard {
    driver: Box<dyn Maps>,
    card: CardMaps,
    /// Connections spread by their hash go to `bucket % queues`.
    queues: u32,
    /// Installed connections that are not where their hash would send them.
    steered: HashSet<FlowTuple>,
}

impl WithCard {
    /// `driver`, and the card's tables if those of this interface are pinned here.
    pub(super) fn if_pinned(driver: Box<dyn Maps>, interface: &str, queues: u32) -> Box<dyn Maps> {
        let folder = PathBuf::from(PINS).join(interface);
        if !folder.is_dir() {
            return driver;
        }
        let card = CardMaps::pinned(&folder).inspect_err(|error| {
            let folder = folder.display();
            tracing::warn!(%error, "the card's tables in {folder} cannot be filled, its own RSS spreads the connections");
        });
        let Ok(card) = card else { return driver };
        tracing::info!(interface, "the card steers connections to their queues");
        Box::new(Self::new(driver, card, queues))
    }

    pub(super) fn new(driver: Box<dyn Maps>, mut card: CardMaps, queues: u32) -> Self {
        let queues = queues.clamp(1, QUEUE_MAX);
        for bucket in 0..HARDWARE_BUCKETS {
            note(card.set_queue(bucket, (bucket % queues) as u8));
        }
        Self {
            driver,
            card,
            queues,
            steered: HashSet::new(),
        }
    }
}

/// A table of the card's is full, say: its frames take another queue, and are handed over.
fn note(result: io::Result<()>) {
    if let Err(error) = result {
        tracing::debug!(%error, "the card does not steer this");
    }
}

impl Maps for WithCard {
    fn set_owned(&mut self, key: OwnedKey, flags: u32) -> io::Result<()> {
        self.driver.set_owned(key, flags)?;
        note(self.card.own(key));
        Ok(())
    }

    fn remove_owned(&mut self, key: OwnedKey) -> io::Result<()> {
        note(self.card.disown(key));
        self.driver.remove_owned(key)
    }

    fn set_ports(&mut self, word: u32, bits: u64) -> io::Result<()> {
        self.driver.set_ports(word, bits)
    }

    fn set_excluded(&mut self, key: TupleKey) -> io::Result<()> {
        self.driver.set_excluded(key)?;
        note(self.card.steer(&key.tuple(), None));
        Ok(())
    }

    fn remove_excluded(&mut self, key: TupleKey) -> io::Result<()> {
        note(self.card.forget(&key.tuple()));
        self.driver.remove_excluded(key)
    }

    // The card may take what is another's to a queue: the program in the driver passes it on.
    fn set_connection(&mut self, key: TupleKey) -> io::Result<()> {
        self.driver.set_connection(key)
    }

    fn remove_connection(&mut self, key: TupleKey) -> io::Result<()> {
        self.driver.remove_connection(key)
    }

    fn counts(&self) -> io::Result<SteeringCounters> {
        self.driver.counts()
    }

    fn steers(&self) -> bool {
        true
    }

    fn set_queue(&mut self, tuple: &FlowTuple, queue: u32) {
        let by_hash = spread(tuple) % HARDWARE_BUCKETS % self.queues;
        if let Ok(own) = u8::try_from(queue)
            && by_hash != queue
            && self.steered.insert(*tuple)
        {
            note(self.card.steer(tuple, Some(own)));
        }
    }

    fn forget_queue(&mut self, tuple: &FlowTuple) {
        if self.steered.remove(tuple) {
            note(self.card.forget(tuple));
        }
    }
}

#[cfg(test)]
mod tests;
