//! The flow table: from a packet's addresses and ports to a slot, and from a [`FlowId`] to the same slot.

use core::hash::Hasher;
use std::fmt;

use siphasher::sip::SipHasher13;

use crate::flow::fields::ip_words;
use crate::flow::{FlowId, FlowState, FlowTuple, flags};

/// A flow's identity in the words of [`FlowState`]: compared word by word, hashed as bytes.
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
pub struct FlowKey {
    words: [u32; 9],
    ipv6: bool,
}

impl FlowKey {
    /// The key of a tuple.
    pub fn new(tuple: &FlowTuple) -> Self {
        let ports = u32::from(tuple.local.1) << 16 | u32::from(tuple.remote.1);
        let (local, remote) = (ip_words(tuple.local.0), ip_words(tuple.remote.0));
        Self::from_words(local, remote, ports, tuple.local.0.is_ipv6())
    }

    /// The key of a flow.
    pub fn of(state: &FlowState) -> Self {
        Self::from_words(
            state.local_ip,
            state.remote_ip,
            state.ports,
            state.has(flags::IPV6),
        )
    }

    fn from_words(local: [u32; 4], remote: [u32; 4], ports: u32, ipv6: bool) -> Self {
        let mut words = [0; 9];
        words[..4].copy_from_slice(&local);
        words[4..8].copy_from_slice(&remote);
        words[8] = ports;
        Self { words, ipv6 }
    }

    fn hash(&self, secret: (u64, u64)) -> u32 {
        let mut hasher = SipHasher13::new_with_keys(secret.0, secret.1);
        if self.ipv6 {
            self.words.iter().for_each(|&word| hasher.write_u32(word));
        } else {
            hasher.write_u64(u64::from(self.words[0]) << 32 | u64::from(self.words[4]));
            hasher.write_u32(self.words[8]);
        }
        hasher.finish() as u32
    }
}

impl From<&FlowTuple> for FlowKey {
    fn from(tuple: &FlowTuple) -> Self {
        Self::new(tuple)
    }
}

/// Slots per segment: the table grows a segment at a time and never moves a flow.
const SEGMENT: usize = 256;
/// Index of an empty bucket.
const EMPTY: u32 = u32::MAX;

#[derive(Clone, Copy)]
struct Bucket {
    hash: u32,
    index: u32,
}

struct Slot<T> {
    generation: u32,
    entry: Option<(FlowKey, T)>,
}

/// Flows by key and by id, both in constant time.
///
/// The index is a linear-probing hash table over a secret-keyed hash, so that no peer can choose addresses
/// and ports that collide; removal shifts entries back, there are no tombstones. It doubles at three
/// quarters. A slot's generation counts up when its flow is removed.
pub struct FlowTable<T> {
    secret: (u64, u64),
    buckets: Box<[Bucket]>,
    segments: Vec<Box<[Slot<T>]>>,
    free: Vec<u32>,
    len: u32,
    max: u32,
}

impl<T> FlowTable<T> {
    /// An empty table for at most `max` flows.
    pub fn new(secret: [u8; 16], max: u32) -> Self {
        let secret = u128::from_le_bytes(secret);
        Self {
            secret: (secret as u64, (secret >> 64) as u64),
            buckets: empty_buckets(64),
            segments: Vec::new(),
            free: Vec::new(),
            len: 0,
            max: max.min(EMPTY / 2),
        }
    }

    /// Flows in the table.
    pub const fn len(&self) -> u32 {
        self.len
    }

    /// Whether there are none.
    pub const fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Whether no further flow fits.
    pub const fn is_full(&self) -> bool {
        self.len >= self.max
    }

    /// Finds a flow by key.
    pub fn find(&self, key: &FlowKey) -> Option<FlowId> {
        let mask = self.buckets.len() - 1;
        let hash = key.hash(self.secret);
        let mut at = hash as usize & mask;
        loop {
            let bucket = self.buckets[at];
            if bucket.index == EMPTY {
                return None;
            }
            if bucket.hash == hash {
                let slot = self.slot(bucket.index);
                if slot.entry.as_ref().is_some_and(|(other, _)| other == key) {
                    return Some(FlowId {
                        index: bucket.index,
                        generation: slot.generation,
                    });
                }
            }
            at = (at + 1) & mask;
        }
    }

    /// Adds a flow. Gives the value back when the table is full or has the key.
    ///
    /// # Errors
    /// The value.
    pub fn insert(&mut self, key: FlowKey, value: T) -> Result<FlowId, T> {
        if self.is_full() || self.find(&key).is_some() {
            return Err(value);
        }
        if (self.len as usize + 1) * 4 > self.buckets.len() * 3 {
            self.grow();
        }
        if self.free.is_empty() {
            let base = (self.segments.len() * SEGMENT) as u32;
            self.segments.push(
                (0..SEGMENT)
                    .map(|_| Slot {
                        generation: 1,
                        entry: None,
                    })
                    .collect(),
            );
            self.free.extend((base..base + SEGMENT as u32).rev());
        }
        let Some(index) = self.free.pop() else {
            return Err(value);
        };
        place(
            &mut self.buckets,
            Bucket {
                hash: key.hash(self.secret),
                index,
            },
        );
        self.len += 1;
        let slot = self.slot_mut(index);
        slot.entry = Some((key, value));
        Ok(FlowId {
            index,
            generation: slot.generation,
        })
    }

    /// Takes a flow out; its id is stale from now on.
    pub fn remove(&mut self, id: FlowId) -> Option<T> {
        self.get(id)?;
        let slot = self.slot_mut(id.index);
        let (key, value) = slot.entry.take()?;
        slot.generation = slot.generation.wrapping_add(1);
        self.free.push(id.index);
        self.len -= 1;
        self.unlink(key.hash(self.secret), id.index);
        Some(value)
    }

    /// A flow by id, unless its generation is over.
    pub fn get(&self, id: FlowId) -> Option<&T> {
        let slot = self
            .segments
            .get(id.index as usize / SEGMENT)?
            .get(id.index as usize % SEGMENT)?;
        let (_, value) = slot.entry.as_ref()?;
        (slot.generation == id.generation).then_some(value)
    }

    /// As [`get`](Self::get), to change it.
    pub fn get_mut(&mut self, id: FlowId) -> Option<&mut T> {
        let slot = self
            .segments
            .get_mut(id.index as usize / SEGMENT)?
            .get_mut(id.index as usize % SEGMENT)?;
        let (_, value) = slot.entry.as_mut()?;
        (slot.generation == id.generation).then_some(value)
    }

    /// All ids, in no particular order.
    pub fn ids(&self) -> impl Iterator<Item = FlowId> + '_ {
        self.segments
            .iter()
            .flatten()
            .enumerate()
            .filter_map(|(index, slot)| {
                slot.entry.as_ref().map(|_| FlowId {
                    index: index as u32,
                    generation: slot.generation,
                })
            })
    }

    fn slot(&self, index: u32) -> &Slot<T> {
        &self.segments[index as usize / SEGMENT][index as usize % SEGMENT]
    }

    fn slot_mut(&mut self, index: u32) -> &mut Slot<T> {
        &mut self.segments[index as usize / SEGMENT][index as usize % SEGMENT]
    }

    fn grow(&mut self) {
        let mut buckets = empty_buckets(self.buckets.len() * 2);
        self.buckets
            .iter()
            .filter(|bucket| bucket.index != EMPTY)
            .for_each(|&b| place(&mut buckets, b));
        self.buckets = buckets;
    }

    /// Empties the bucket of `index` and closes the gap: every later entry of the run that may sit in the gap
    /// moves there.
    fn unlink(&mut self, hash: u32, index: u32) {
        let mask = self.buckets.len() - 1;
        let mut gap = hash as usize & mask;
        while self.buckets[gap].index != index {
            gap = (gap + 1) & mask;
        }
        let mut at = gap;
        loop {
            at = (at + 1) & mask;
            let bucket = self.buckets[at];
            if bucket.index == EMPTY {
                break;
            }
            let from_home = at.wrapping_sub(bucket.hash as usize) & mask;
            if from_home >= (at.wrapping_sub(gap) & mask) {
                self.buckets[gap] = bucket;
                gap = at;
            }
        }
        self.buckets[gap].index = EMPTY;
    }
}

fn empty_buckets(len: usize) -> Box<[Bucket]> {
    vec![
        Bucket {
            hash: 0,
            index: EMPTY
        };
        len
    ]
    .into_boxed_slice()
}

fn place(buckets: &mut [Bucket], bucket: Bucket) {
    let mask = buckets.len() - 1;
    let mut at = bucket.hash as usize & mask;
    while buckets[at].index != EMPTY {
        at = (at + 1) & mask;
    }
    buckets[at] = bucket;
}

impl<T> fmt::Debug for FlowTable<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("FlowTable")
            .field("len", &self.len)
            .field("max", &self.max)
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::collections::HashMap;
    use std::net::Ipv4Addr;

    fn key(n: u32) -> FlowKey {
        let remote = Ipv4Addr::from_bits(0x0a00_0000 + n / 1000).into();
        FlowKey::new(&FlowTuple {
            local: (Ipv4Addr::LOCALHOST.into(), 80),
            remote: (remote, (n % 1000) as u16),
        })
    }

    #[test]
    fn stale_ids_name_nothing() {
        let mut table = FlowTable::new([7; 16], 10);
        let first = table.insert(key(1), 'a').unwrap();
        assert_eq!(table.insert(key(1), 'b'), Err('b'));
        assert_eq!(table.remove(first), Some('a'));
        let second = table.insert(key(1), 'c').unwrap();
        assert_eq!(second.index, first.index);
        assert_eq!(table.get(first), None);
        assert_eq!(table.remove(first), None);
        assert_eq!(table.get(second), Some(&'c'));
        assert_eq!(
            table.get(FlowId {
                index: 1 << 30,
                generation: 1
            }),
            None
        );
    }

    #[test]
    fn a_tuple_and_its_state_have_one_key() {
        for (local, remote) in [
            ("10.0.0.1:80", "10.0.0.2:1"),
            ("[fd00::1]:80", "[fe80::2]:1"),
        ] {
            let tuple = FlowTuple::new(local.parse().unwrap(), remote.parse().unwrap());
            let mut state = FlowState::default();
            state.set_tuple(&tuple);
            assert_eq!(FlowKey::new(&tuple), FlowKey::of(&state));
            assert_ne!(FlowKey::new(&tuple), FlowKey::new(&tuple.reversed()));
        }
    }

    #[test]
    fn full_table_refuses() {
        let mut table = FlowTable::new([7; 16], 2);
        table.insert(key(1), 1).unwrap();
        table.insert(key(2), 2).unwrap();
        assert_eq!(table.insert(key(3), 3), Err(3));
    }

    #[test]
    fn a_hundred_thousand_flows() {
        let mut table = FlowTable::new([3; 16], u32::MAX);
        let ids: Vec<_> = (0..100_000)
            .map(|n| table.insert(key(n), n).unwrap())
            .collect();
        for n in 0..100_000 {
            assert_eq!(table.find(&key(n)), Some(ids[n as usize]));
        }
        ids.iter()
            .step_by(2)
            .for_each(|&id| assert!(table.remove(id).is_some()));
        for n in 0..100_000 {
            assert_eq!(table.find(&key(n)).is_some(), n % 2 == 1);
        }
        assert_eq!(table.ids().count(), 50_000);
    }

    proptest! {
        #[test]
        fn behaves_as_a_map(steps in prop::collection::vec((any::<bool>(), 0..60_u32), 1..400)) {
            let mut table = FlowTable::new([9; 16], 50);
            let mut model = HashMap::new();
            for (insert, n) in steps {
                if insert {
                    let accepted = !model.contains_key(&n) && model.len() < 50;
                    let id = table.insert(key(n), n).ok();
                    prop_assert_eq!(id.is_some(), accepted);
                    if let Some(id) = id {
                        model.insert(n, id);
                    }
                } else if let Some(id) = model.remove(&n) {
                    prop_assert_eq!(table.remove(id), Some(n));
                }
                for n in 0..60 {
                    prop_assert_eq!(table.find(&key(n)), model.get(&n).copied());
                }
            }
        }
    }
}
