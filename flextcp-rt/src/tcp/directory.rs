//! Whose a connection is, where an interface has several queues: each has an engine of its own, and the directory that
//! they share tells on which queue a connection lives whose frames arrive on another.

use std::collections::HashMap;
use std::hash::{BuildHasher, RandomState};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use flextcp_nic::flow::FlowTuple;

use super::demux::Entry;

/// Locks that the connections of an interface are spread over.
const SHARDS: usize = 64;

/// The connections and listeners of all engines of an interface.
#[derive(Debug)]
pub struct Directory {
    hasher: RandomState,
    homes: [Mutex<HashMap<FlowTuple, u32>>; SHARDS],
    listeners: Mutex<Vec<Listening>>,
}

#[derive(Clone, Copy, Debug, Eq, PartialEq)]
struct Listening {
    local: SocketAddr,
    v6only: bool,
    queue: u32,
}

impl Default for Directory {
    fn default() -> Self {
        Self {
            hasher: RandomState::new(),
            homes: std::array::from_fn(|_| Mutex::default()),
            listeners: Mutex::default(),
        }
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    // Plain data, whole at every step.
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Directory {
    fn shard(&self, tuple: &FlowTuple) -> MutexGuard<'_, HashMap<FlowTuple, u32>> {
        let hash = self.hasher.hash_one(tuple);
        lock(&self.homes[hash as usize % SHARDS])
    }

    /// The queue of a connection, half-open and TIME_WAIT ones among them.
    pub fn home(&self, tuple: &FlowTuple) -> Option<u32> {
        self.shard(tuple).get(tuple).copied()
    }

    /// A queue on which somebody listens at `local`, one of our addresses.
    pub fn listener(&self, local: SocketAddr) -> Option<u32> {
        let listeners = lock(&self.listeners);
        let found = listeners.iter().find(|listening| listening.takes(local));
        found.map(|listening| listening.queue)
    }
}

impl Listening {
    fn takes(&self, local: SocketAddr) -> bool {
        let any = match local.ip() {
            IpAddr::V4(_) => {
                self.local.ip() == Ipv4Addr::UNSPECIFIED
                    || (self.local.ip() == Ipv6Addr::UNSPECIFIED && !self.v6only)
            }
            IpAddr::V6(_) => self.local.ip() == Ipv6Addr::UNSPECIFIED,
        };
        self.local.port() == local.port()
            && (any || self.local.ip().to_canonical() == local.ip().to_canonical())
    }
}

/// The connections of one engine by their ends, in the directory too where there is one.
#[derive(Debug, Default)]
pub(super) struct Tuples {
    entries: HashMap<FlowTuple, Entry>,
    /// What was asked for last: segments come in trains.
    last: Option<(FlowTuple, Entry)>,
    shared: Option<(Arc<Directory>, u32)>,
}

impl Tuples {
    /// Shares what is in here from now on; nothing is yet.
    pub(super) fn join(&mut self, directory: Arc<Directory>, queue: u32) {
        debug_assert!(self.entries.is_empty(), "an engine joins before it serves");
        self.shared = Some((directory, queue));
    }

    pub(super) fn get(&self, tuple: &FlowTuple) -> Option<&Entry> {
        self.entries.get(tuple)
    }

    /// [`get`](Self::get) for a segment, which is likely to be of the same connection as the one before it.
    pub(super) fn of_segment(&mut self, tuple: &FlowTuple) -> Option<Entry> {
        if let Some((last, entry)) = &self.last
            && last == tuple
        {
            return Some(*entry);
        }
        let entry = *self.entries.get(tuple)?;
        self.last = Some((*tuple, entry));
        Some(entry)
    }

    /// Whether the connection lives on another queue.
    pub(super) fn is_elsewhere(&self, tuple: &FlowTuple) -> bool {
        let Some((directory, queue)) = &self.shared else {
            return false;
        };
        directory.home(tuple).is_some_and(|home| home != *queue)
    }

    pub(super) fn insert(&mut self, tuple: FlowTuple, entry: Entry) {
        self.last = None;
        let known = self.entries.insert(tuple, entry).is_some();
        if let (false, Some((directory, queue))) = (known, &self.shared) {
            directory.shard(&tuple).insert(tuple, *queue);
        }
    }

    pub(super) fn remove(&mut self, tuple: &FlowTuple) {
        self.last = None;
        let known = self.entries.remove(tuple).is_some();
        if let (true, Some((directory, queue))) = (known, &self.shared) {
            let mut shard = directory.shard(tuple);
            if shard.get(tuple) == Some(queue) {
                shard.remove(tuple);
            }
        }
    }

    pub(super) fn listens(&self, local: SocketAddr, v6only: bool) {
        if let Some((directory, queue)) = &self.shared {
            lock(&directory.listeners).push(Listening {
                local,
                v6only,
                queue: *queue,
            });
        }
    }

    pub(super) fn listens_no_more(&self, local: SocketAddr) {
        let Some((directory, queue)) = &self.shared else {
            return;
        };
        let mut listeners = lock(&directory.listeners);
        let ended = |other: &Listening| (other.local, other.queue) == (local, *queue);
        if let Some(at) = listeners.iter().position(ended) {
            listeners.swap_remove(at);
        }
    }

    #[cfg(any(test, feature = "lab"))]
    pub(super) fn len(&self) -> usize {
        self.entries.len()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tuple(port: u16) -> FlowTuple {
        FlowTuple::new(
            SocketAddr::from(([10, 0, 0, 1], 80)),
            SocketAddr::from(([10, 0, 0, 2], port)),
        )
    }

    #[test]
    fn a_connection_is_where_it_was_put_last() {
        let directory = Arc::new(Directory::default());
        let [mut first, mut second] = [0, 1].map(|queue| {
            let mut tuples = Tuples::default();
            tuples.join(directory.clone(), queue);
            tuples
        });
        first.insert(tuple(1), Entry::HalfOpen(0));
        first.insert(tuple(1), Entry::HalfOpen(1));
        assert_eq!(directory.home(&tuple(1)), Some(0));
        assert!(second.is_elsewhere(&tuple(1)));
        assert!(!first.is_elsewhere(&tuple(1)));
        // It moved: its former queue forgets it without harm.
        second.insert(tuple(1), Entry::HalfOpen(7));
        first.remove(&tuple(1));
        assert_eq!(directory.home(&tuple(1)), Some(1));
        second.remove(&tuple(1));
        second.remove(&tuple(1));
        assert_eq!(directory.home(&tuple(1)), None);
    }

    #[test]
    fn listeners_are_found_by_what_they_take() {
        let directory = Arc::new(Directory::default());
        let mut tuples = Tuples::default();
        tuples.join(directory.clone(), 3);
        let takes = |local: &str, v6only, at: &str| {
            let local = local.parse().unwrap();
            tuples.listens(local, v6only);
            let found = directory.listener(at.parse().unwrap());
            tuples.listens_no_more(local);
            found == Some(3)
        };
        assert!(takes("10.0.0.1:80", false, "10.0.0.1:80"));
        assert!(!takes("10.0.0.1:80", false, "10.0.0.2:80"));
        assert!(!takes("10.0.0.1:80", false, "10.0.0.1:81"));
        assert!(takes("0.0.0.0:80", false, "10.0.0.2:80"));
        assert!(!takes("0.0.0.0:80", false, "[fd00::1]:80"));
        assert!(takes("[::]:80", false, "10.0.0.2:80"));
        assert!(!takes("[::]:80", true, "10.0.0.2:80"));
        assert!(takes("[::]:80", true, "[fd00::1]:80"));
        assert!(takes("[::ffff:10.0.0.1]:80", false, "10.0.0.1:80"));
        assert_eq!(directory.listener("10.0.0.1:80".parse().unwrap()), None);
    }
}
