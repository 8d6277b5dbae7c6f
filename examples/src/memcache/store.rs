//! The cache: shards by key, and every operation that the two protocols need.

use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};

use bytes::Bytes;

use super::clock::{Clock, Expiry};
use super::shard::{Counters, Item, Shard, Slot};

/// The longest key: protocol.txt, "Keys".
pub(super) const MAX_KEY: usize = 250;

/// What the cache may use.
#[derive(Debug, Clone, Copy)]
pub struct Settings {
    /// Memory for items, in bytes.
    pub memory: usize,
    /// The largest value, in bytes.
    pub item_max: usize,
}

/// The cache; shared by all connections.
#[derive(Debug)]
pub struct Store {
    shards: Box<[Mutex<Shard>]>,
    memory: AtomicUsize,
    item_max: usize,
    next_cas: AtomicU64,
    /// Items stored before this second are invalid from this second on; 0 for none.
    flush_at: AtomicU64,
    flushes: AtomicU64,
    pub(super) clock: Clock,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Mode {
    Set,
    Add,
    Replace,
    Append,
    Prepend,
}

#[derive(Debug)]
pub(super) struct Put<'a> {
    pub(super) key: &'a [u8],
    pub(super) value: &'a [u8],
    pub(super) flags: u32,
    pub(super) expiry: Expiry,
    pub(super) mode: Mode,
    /// Only if the item has this one.
    pub(super) cas: Option<u64>,
    /// What the item gets, instead of the next of the server's own.
    pub(super) new_cas: Option<u64>,
    /// Take a `cas` older than the item's, and mark the result stale.
    pub(super) invalidate: bool,
    /// Append and prepend make an absent item.
    pub(super) vivify: Option<Expiry>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum PutOutcome {
    Stored { cas: u64 },
    NotStored,
    Exists,
    NotFound,
    TooLarge,
}

#[derive(Debug, Clone, Copy)]
pub(super) struct Delta {
    pub(super) increment: bool,
    pub(super) by: u64,
    pub(super) cas: Option<u64>,
    pub(super) new_cas: Option<u64>,
    /// Makes an absent item, with this time to live and value.
    pub(super) vivify: Option<(Expiry, u64)>,
    pub(super) touch: Option<Expiry>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum DeltaOutcome {
    Value {
        value: u64,
        cas: u64,
        expiry: Expiry,
    },
    NotFound,
    Exists,
    NotANumber,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum DeleteOutcome {
    Deleted,
    NotFound,
    Exists,
}

#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Delete {
    pub(super) cas: Option<u64>,
    pub(super) new_cas: Option<u64>,
    /// Keep the item, marked as stale.
    pub(super) mark_stale: bool,
    /// The time to live of what is kept.
    pub(super) touch: Option<Expiry>,
    /// Keep the item without its value.
    pub(super) value_only: bool,
}

/// Sums over the shards.
#[derive(Debug, Clone, Default)]
pub(super) struct Totals {
    pub(super) counters: Counters,
    pub(super) items: u64,
    pub(super) bytes: u64,
    pub(super) flushes: u64,
    /// Seconds since the least recently used item was used.
    pub(super) age: u64,
}

impl Store {
    /// An empty cache.
    #[must_use]
    pub fn new(settings: Settings) -> Self {
        // A shard holds several items of the largest size, or the limit would not be usable.
        let shards = (settings.memory / (4 * settings.item_max.max(1))).clamp(1, 64);
        Self {
            shards: (0..shards).map(|_| Mutex::default()).collect(),
            memory: AtomicUsize::new(settings.memory),
            item_max: settings.item_max,
            next_cas: AtomicU64::new(1),
            flush_at: AtomicU64::new(0),
            flushes: AtomicU64::new(0),
            clock: Clock::new(),
        }
    }

    pub(super) fn item_max(&self) -> usize {
        self.item_max
    }

    pub(super) fn memory(&self) -> usize {
        self.memory.load(Ordering::Relaxed)
    }

    pub(super) fn set_memory(&self, bytes: usize) {
        self.memory.store(bytes, Ordering::Relaxed);
    }

    fn next_cas(&self) -> u64 {
        self.next_cas.fetch_add(1, Ordering::Relaxed)
    }

    fn shard(&self, key: &[u8]) -> MutexGuard<'_, Shard> {
        // FNV-1a: only spreads the keys over locks, the maps have hashes of their own.
        let hash = key.iter().fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| {
            (hash ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3)
        });
        let index = (hash >> 32) as usize % self.shards.len();
        // A panic while a shard is locked cannot leave it half changed in a way that matters:
        // at worst an item is missing, which a cache may do.
        self.shards[index]
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }

    /// The valid item of the key; one that is not valid any more is removed.
    fn live(&self, shard: &mut Shard, key: &[u8], now: u64) -> Option<Slot> {
        let slot = shard.find(key)?;
        let item = shard.item(slot);
        if item.expiry.is_past(now) {
            shard.counters.get_expired += 1;
        } else if self.is_flushed(item, now) {
            shard.counters.get_flushed += 1;
        } else {
            return Some(slot);
        }
        shard.remove(slot);
        None
    }

    fn is_flushed(&self, item: &Item, now: u64) -> bool {
        let flush_at = self.flush_at.load(Ordering::Relaxed);
        flush_at != 0 && flush_at <= now && item.stored_at < flush_at
    }

    fn put_item(&self, shard: &mut Shard, key: &[u8], item: Item, now: u64) -> Slot {
        let slot = shard.put(key, item);
        shard.shrink_to(self.memory() / self.shards.len(), Some(slot), now);
        slot
    }

    /// Looks the key up and hands the item to `hit`, which may change all of it but the size of
    /// its value. The caller says whether this counts as a use.
    pub(super) fn get<T>(
        &self,
        key: &[u8],
        now: u64,
        bump: bool,
        hit: impl FnOnce(&mut Item) -> T,
    ) -> Option<T> {
        let mut shard = self.shard(key);
        shard.counters.cmd_get += 1;
        let Some(slot) = self.live(&mut shard, key, now) else {
            shard.counters.get_misses += 1;
            return None;
        };
        shard.counters.get_hits += 1;
        let result = hit(shard.item_mut(slot));
        if bump {
            let item = shard.item_mut(slot);
            item.fetched = true;
            item.last_access = now;
            shard.bump(slot);
        }
        Some(result)
    }

    /// Like [`Store::get`], but makes an empty item where there is none, and says so to `hit`.
    pub(super) fn get_or_vivify<T>(
        &self,
        key: &[u8],
        now: u64,
        expiry: Expiry,
        new_cas: Option<u64>,
        hit: impl FnOnce(&mut Item, bool) -> T,
    ) -> T {
        let mut shard = self.shard(key);
        shard.counters.cmd_get += 1;
        let (slot, made) = match self.live(&mut shard, key, now) {
            Some(slot) => {
                shard.counters.get_hits += 1;
                (slot, false)
            }
            None => {
                shard.counters.get_misses += 1;
                let cas = new_cas.unwrap_or_else(|| self.next_cas());
                let mut item = Item::new(Bytes::new(), cas, now);
                item.expiry = expiry;
                (self.put_item(&mut shard, key, item, now), true)
            }
        };
        let result = hit(shard.item_mut(slot), made);
        if !made {
            let item = shard.item_mut(slot);
            item.fetched = true;
            item.last_access = now;
            shard.bump(slot);
        }
        result
    }

    /// Looks at an item and leaves no trace.
    pub(super) fn peek<T>(&self, key: &[u8], now: u64, hit: impl FnOnce(&Item) -> T) -> Option<T> {
        let mut shard = self.shard(key);
        let slot = self.live(&mut shard, key, now)?;
        Some(hit(shard.item(slot)))
    }

    pub(super) fn touch(&self, key: &[u8], expiry: Expiry, now: u64) -> bool {
        let mut shard = self.shard(key);
        shard.counters.cmd_touch += 1;
        let Some(slot) = self.live(&mut shard, key, now) else {
            shard.counters.touch_misses += 1;
            return false;
        };
        shard.counters.touch_hits += 1;
        shard.item_mut(slot).expiry = expiry;
        shard.bump(slot);
        true
    }

    pub(super) fn put(&self, put: &Put<'_>, now: u64) -> PutOutcome {
        let mut shard = self.shard(put.key);
        let shard = &mut *shard;
        shard.counters.cmd_set += 1;
        let found = self.live(shard, put.key, now);
        let mut stale = false;
        if let Some(expected) = put.cas {
            let Some(slot) = found else {
                shard.counters.cas_misses += 1;
                return match put.mode {
                    Mode::Set | Mode::Replace => PutOutcome::NotFound,
                    Mode::Add | Mode::Append | Mode::Prepend => PutOutcome::NotStored,
                };
            };
            let actual = shard.item(slot).cas;
            stale = put.invalidate && expected < actual;
            if expected != actual && !stale {
                shard.counters.cas_badval += 1;
                return PutOutcome::Exists;
            }
            shard.counters.cas_hits += 1;
        }

        let mut item = match (put.mode, found) {
            (Mode::Add, Some(slot)) => {
                shard.bump(slot);
                return PutOutcome::NotStored;
            }
            (Mode::Replace, None) => return PutOutcome::NotStored,
            (Mode::Append | Mode::Prepend, Some(slot)) => {
                let old = shard.item(slot).clone();
                let (first, second) = match put.mode {
                    Mode::Append => (&old.value[..], put.value),
                    _ => (put.value, &old.value[..]),
                };
                let value = Bytes::from([first, second].concat());
                Item { value, ..old }
            }
            (Mode::Append | Mode::Prepend, None) => {
                let Some(expiry) = put.vivify else {
                    return PutOutcome::NotStored;
                };
                let mut item = Item::new(Bytes::copy_from_slice(put.value), 0, now);
                item.expiry = expiry;
                item.flags = put.flags;
                item
            }
            (Mode::Set | Mode::Add | Mode::Replace, _) => {
                let mut item = Item::new(Bytes::copy_from_slice(put.value), 0, now);
                item.expiry = put.expiry;
                item.flags = put.flags;
                item
            }
        };
        if item.value.len() > self.item_max {
            shard.counters.too_large += 1;
            return PutOutcome::TooLarge;
        }
        item.cas = put.new_cas.unwrap_or_else(|| self.next_cas());
        item.stale = stale;
        item.won = false;
        item.stored_at = now;
        item.last_access = now;
        let cas = item.cas;
        self.put_item(shard, put.key, item, now);
        PutOutcome::Stored { cas }
    }

    /// A value that is larger than any item may be: what the key had is gone, since the client
    /// wanted it replaced.
    pub(super) fn refuse_too_large(&self, key: &[u8]) {
        let mut shard = self.shard(key);
        shard.counters.too_large += 1;
        if let Some(slot) = shard.find(key) {
            shard.remove(slot);
        }
    }

    pub(super) fn delete(&self, key: &[u8], delete: &Delete, now: u64) -> DeleteOutcome {
        let mut shard = self.shard(key);
        let Some(slot) = self.live(&mut shard, key, now) else {
            shard.counters.delete_misses += 1;
            return DeleteOutcome::NotFound;
        };
        if delete.cas.is_some_and(|cas| cas != shard.item(slot).cas) {
            return DeleteOutcome::Exists;
        }
        shard.counters.delete_hits += 1;
        if !delete.mark_stale && !delete.value_only {
            shard.remove(slot);
            return DeleteOutcome::Deleted;
        }
        let mut item = shard.item(slot).clone();
        if delete.mark_stale {
            item.stale = true;
            item.won = false;
            item.expiry = delete.touch.unwrap_or(item.expiry);
        }
        if delete.value_only {
            item.value = Bytes::new();
            item.flags = 0;
        }
        item.cas = delete.new_cas.unwrap_or_else(|| self.next_cas());
        shard.put(key, item);
        DeleteOutcome::Deleted
    }

    pub(super) fn delta(&self, key: &[u8], delta: &Delta, now: u64) -> DeltaOutcome {
        let mut shard = self.shard(key);
        let shard = &mut *shard;
        let new_cas = || delta.new_cas.unwrap_or_else(|| self.next_cas());
        let Some(slot) = self.live(shard, key, now) else {
            match delta.increment {
                true => shard.counters.incr_misses += 1,
                false => shard.counters.decr_misses += 1,
            }
            let Some((expiry, value)) = delta.vivify else {
                return DeltaOutcome::NotFound;
            };
            let cas = new_cas();
            let mut item = Item::new(value.to_string().into(), cas, now);
            item.expiry = expiry;
            self.put_item(shard, key, item, now);
            return DeltaOutcome::Value { value, cas, expiry };
        };
        let old = shard.item(slot);
        if delta.cas.is_some_and(|cas| cas != old.cas) {
            return DeltaOutcome::Exists;
        }
        let Some(number) = parse_number(&old.value) else {
            return DeltaOutcome::NotANumber;
        };
        // Overflow wraps, underflow stops at 0: protocol.txt, "Increment/Decrement".
        let value = match delta.increment {
            true => number.wrapping_add(delta.by),
            false => number.saturating_sub(delta.by),
        };
        let mut item = old.clone();
        match delta.increment {
            true => shard.counters.incr_hits += 1,
            false => shard.counters.decr_hits += 1,
        }
        item.value = value.to_string().into();
        item.cas = new_cas();
        item.expiry = delta.touch.unwrap_or(item.expiry);
        let (cas, expiry) = (item.cas, item.expiry);
        self.put_item(shard, key, item, now);
        DeltaOutcome::Value { value, cas, expiry }
    }

    /// Invalidates all items, now or at a later second.
    pub(super) fn flush(&self, at: Option<u64>) {
        self.flushes.fetch_add(1, Ordering::Relaxed);
        self.flush_at.store(at.unwrap_or(0), Ordering::Relaxed);
        if at.is_none() {
            for shard in &self.shards {
                shard.lock().unwrap_or_else(PoisonError::into_inner).clear();
            }
        }
    }

    pub(super) fn reset_counters(&self) {
        for shard in &self.shards {
            let mut shard = shard.lock().unwrap_or_else(PoisonError::into_inner);
            shard.counters = Counters::default();
        }
    }

    pub(super) fn totals(&self, now: u64) -> Totals {
        let mut totals = Totals {
            flushes: self.flushes.load(Ordering::Relaxed),
            ..Totals::default()
        };
        for shard in &self.shards {
            let shard = shard.lock().unwrap_or_else(PoisonError::into_inner);
            totals.items += shard.len() as u64;
            totals.bytes += shard.bytes() as u64;
            totals.counters += shard.counters;
            if let Some(access) = shard.oldest_access() {
                totals.age = totals.age.max(now.saturating_sub(access));
            }
        }
        totals
    }
}

/// A decimal number of at most 64 bits, with spaces around it as old servers left them.
pub(super) fn parse_number(text: &[u8]) -> Option<u64> {
    let digits = text.trim_ascii();
    if digits.is_empty() || !digits.iter().all(u8::is_ascii_digit) {
        return None;
    }
    std::str::from_utf8(digits).ok()?.parse().ok()
}

#[cfg(test)]
mod tests;
