//! One shard: a hash map over a slab of items that are linked in the order of their last use.

use std::collections::HashMap;

use bytes::Bytes;

use super::clock::Expiry;

/// What an item costs besides its key and value: slab entry, map entry, two allocations.
const OVERHEAD: usize = 200;

const NONE: u32 = u32::MAX;

/// An item as its users see it.
#[derive(Debug, Clone)]
pub(super) struct Item {
    pub(super) value: Bytes,
    pub(super) flags: u32,
    pub(super) cas: u64,
    pub(super) expiry: Expiry,
    pub(super) stored_at: u64,
    pub(super) last_access: u64,
    pub(super) fetched: bool,
    /// Marked by a client as to be renewed; served meanwhile.
    pub(super) stale: bool,
    /// A client was told that it is the one to renew the item.
    pub(super) won: bool,
}

impl Item {
    pub(super) fn new(value: Bytes, cas: u64, now: u64) -> Self {
        Self {
            value,
            flags: 0,
            cas,
            expiry: Expiry::Never,
            stored_at: now,
            last_access: now,
            fetched: false,
            stale: false,
            won: false,
        }
    }

    /// As the memory limit counts it.
    pub(super) fn cost(key_len: usize, value_len: usize) -> usize {
        OVERHEAD + key_len + value_len
    }
}

#[derive(Debug)]
struct Entry {
    key: Bytes,
    item: Item,
    /// Towards the most recently used.
    newer: u32,
    /// Towards the least recently used.
    older: u32,
}

/// What `stats` sums over the shards.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Counters {
    pub(super) cmd_get: u64,
    pub(super) cmd_set: u64,
    pub(super) cmd_touch: u64,
    pub(super) cmd_meta: u64,
    pub(super) get_hits: u64,
    pub(super) get_misses: u64,
    pub(super) get_expired: u64,
    pub(super) get_flushed: u64,
    pub(super) delete_hits: u64,
    pub(super) delete_misses: u64,
    pub(super) incr_hits: u64,
    pub(super) incr_misses: u64,
    pub(super) decr_hits: u64,
    pub(super) decr_misses: u64,
    pub(super) cas_hits: u64,
    pub(super) cas_misses: u64,
    pub(super) cas_badval: u64,
    pub(super) touch_hits: u64,
    pub(super) touch_misses: u64,
    pub(super) total_items: u64,
    pub(super) evictions: u64,
    pub(super) evicted_unfetched: u64,
    pub(super) reclaimed: u64,
    pub(super) expired_unfetched: u64,
    pub(super) too_large: u64,
}

impl std::ops::AddAssign for Counters {
    fn add_assign(&mut self, other: Self) {
        self.cmd_get += other.cmd_get;
        self.cmd_set += other.cmd_set;
        self.cmd_touch += other.cmd_touch;
        self.cmd_meta += other.cmd_meta;
        self.get_hits += other.get_hits;
        self.get_misses += other.get_misses;
        self.get_expired += other.get_expired;
        self.get_flushed += other.get_flushed;
        self.delete_hits += other.delete_hits;
        self.delete_misses += other.delete_misses;
        self.incr_hits += other.incr_hits;
        self.incr_misses += other.incr_misses;
        self.decr_hits += other.decr_hits;
        self.decr_misses += other.decr_misses;
        self.cas_hits += other.cas_hits;
        self.cas_misses += other.cas_misses;
        self.cas_badval += other.cas_badval;
        self.touch_hits += other.touch_hits;
        self.touch_misses += other.touch_misses;
        self.total_items += other.total_items;
        self.evictions += other.evictions;
        self.evicted_unfetched += other.evicted_unfetched;
        self.reclaimed += other.reclaimed;
        self.expired_unfetched += other.expired_unfetched;
        self.too_large += other.too_large;
    }
}

/// Where an item is, until the shard changes.
#[derive(Debug, Clone, Copy)]
pub(super) struct Slot(u32);

#[derive(Debug)]
pub(super) struct Shard {
    map: HashMap<Bytes, u32>,
    entries: Vec<Option<Entry>>,
    free: Vec<u32>,
    newest: u32,
    oldest: u32,
    bytes: usize,
    pub(super) counters: Counters,
}

impl Default for Shard {
    fn default() -> Self {
        Self {
            map: HashMap::new(),
            entries: Vec::new(),
            free: Vec::new(),
            newest: NONE,
            oldest: NONE,
            bytes: 0,
            counters: Counters::default(),
        }
    }
}

impl Shard {
    pub(super) fn len(&self) -> usize {
        self.map.len()
    }

    pub(super) fn bytes(&self) -> usize {
        self.bytes
    }

    pub(super) fn find(&self, key: &[u8]) -> Option<Slot> {
        self.map.get(key).copied().map(Slot)
    }

    pub(super) fn item(&self, slot: Slot) -> &Item {
        &self.entry(slot.0).item
    }

    pub(super) fn item_mut(&mut self, slot: Slot) -> &mut Item {
        &mut self.entry_mut(slot.0).item
    }

    /// Makes the item the most recently used.
    pub(super) fn bump(&mut self, slot: Slot) {
        if self.newest != slot.0 {
            self.unlink(slot.0);
            self.link(slot.0);
        }
    }

    /// Puts the item in, in the place of what the key had.
    pub(super) fn put(&mut self, key: &[u8], item: Item) -> Slot {
        let cost = Item::cost(key.len(), item.value.len());
        self.counters.total_items += 1;
        if let Some(slot) = self.find(key) {
            let entry = self.entry_mut(slot.0);
            let before = Item::cost(entry.key.len(), entry.item.value.len());
            entry.item = item;
            self.bytes = self.bytes - before + cost;
            self.bump(slot);
            return slot;
        }
        let key = Bytes::copy_from_slice(key);
        let entry = Entry {
            key: key.clone(),
            item,
            newer: NONE,
            older: NONE,
        };
        let index = match self.free.pop() {
            Some(index) => {
                self.entries[index as usize] = Some(entry);
                index
            }
            None => {
                self.entries.push(Some(entry));
                u32::try_from(self.entries.len() - 1).expect("the memory limit bounds the items")
            }
        };
        self.map.insert(key, index);
        self.link(index);
        self.bytes += cost;
        Slot(index)
    }

    pub(super) fn remove(&mut self, slot: Slot) -> Item {
        self.unlink(slot.0);
        let entry = self.entries[slot.0 as usize].take();
        let entry = entry.expect("a slot refers to an item");
        self.map.remove(&entry.key);
        self.free.push(slot.0);
        self.bytes -= Item::cost(entry.key.len(), entry.item.value.len());
        entry.item
    }

    /// Takes the least recently used items out until at most `limit` bytes are used; `spare` stays.
    pub(super) fn shrink_to(&mut self, limit: usize, spare: Option<Slot>, now: u64) {
        while self.bytes > limit && self.oldest != NONE {
            if spare.is_some_and(|spare| spare.0 == self.oldest) {
                break;
            }
            let item = self.remove(Slot(self.oldest));
            if item.expiry.is_past(now) {
                self.counters.reclaimed += 1;
                self.counters.expired_unfetched += u64::from(!item.fetched);
            } else {
                self.counters.evictions += 1;
                self.counters.evicted_unfetched += u64::from(!item.fetched);
            }
        }
    }

    pub(super) fn clear(&mut self) {
        *self = Self {
            counters: self.counters,
            ..Self::default()
        };
    }

    /// When the least recently used item was last used.
    pub(super) fn oldest_access(&self) -> Option<u64> {
        (self.oldest != NONE).then(|| self.entry(self.oldest).item.last_access)
    }

    fn entry(&self, index: u32) -> &Entry {
        let entry = self.entries[index as usize].as_ref();
        entry.expect("an index in use refers to an item")
    }

    fn entry_mut(&mut self, index: u32) -> &mut Entry {
        let entry = self.entries[index as usize].as_mut();
        entry.expect("an index in use refers to an item")
    }

    fn link(&mut self, index: u32) {
        let older = self.newest;
        let entry = self.entry_mut(index);
        entry.newer = NONE;
        entry.older = older;
        if older == NONE {
            self.oldest = index;
        } else {
            self.entry_mut(older).newer = index;
        }
        self.newest = index;
    }

    fn unlink(&mut self, index: u32) {
        let Entry { newer, older, .. } = *self.entry(index);
        if newer == NONE {
            self.newest = older;
        } else {
            self.entry_mut(newer).older = older;
        }
        if older == NONE {
            self.oldest = newer;
        } else {
            self.entry_mut(older).newer = newer;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn item(len: usize) -> Item {
        Item::new(vec![0; len].into(), 1, 0)
    }

    fn keys(shard: &Shard) -> Vec<String> {
        let mut keys = Vec::new();
        let mut index = shard.newest;
        while index != NONE {
            let entry = shard.entry(index);
            keys.push(String::from_utf8_lossy(&entry.key).into_owned());
            index = entry.older;
        }
        keys
    }

    #[test]
    fn the_least_recently_used_goes_first() {
        let mut shard = Shard::default();
        for key in ["a", "b", "c", "d"] {
            shard.put(key.as_bytes(), item(100));
        }
        shard.bump(shard.find(b"a").unwrap());
        assert_eq!(keys(&shard), ["a", "d", "c", "b"]);
        let newest = shard.put(b"c", item(50));
        assert_eq!(keys(&shard), ["c", "a", "d", "b"]);
        assert_eq!(shard.bytes(), 3 * Item::cost(1, 100) + Item::cost(1, 50));

        shard.shrink_to(2 * Item::cost(1, 100), Some(newest), 0);
        assert_eq!(keys(&shard), ["c", "a"]);
        assert_eq!(shard.counters.evictions, 2);
        shard.shrink_to(0, Some(newest), 0);
        assert_eq!(keys(&shard), ["c"]);
        shard.remove(newest);
        assert_eq!((shard.len(), shard.bytes()), (0, 0));
        // Places are used again.
        shard.put(b"x", item(1));
        assert_eq!(shard.entries.len(), 4);
    }

    #[test]
    fn removal_from_any_place_keeps_the_order() {
        for gone in ["a", "b", "c"] {
            let mut shard = Shard::default();
            for key in ["a", "b", "c"] {
                shard.put(key.as_bytes(), item(0));
            }
            shard.remove(shard.find(gone.as_bytes()).unwrap());
            let left: Vec<_> = ["c", "b", "a"].into_iter().filter(|k| *k != gone).collect();
            assert_eq!(keys(&shard), left);
        }
    }
}
