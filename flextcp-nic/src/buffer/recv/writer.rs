//! The half that places bytes and publishes them.

use std::fmt;
use std::sync::Arc;

use super::Shared;
use crate::buffer::memory::Memory;
use crate::buffer::pool::MAX_BLOCK;
use crate::buffer::sync::{Ordering, lock};
use crate::buffer::{OutOfBuffers, Pool};

/// The host half of a receive ring.
pub struct RecvWriter {
    shared: Arc<Shared>,
    pool: Arc<Pool>,
    memory: Option<Arc<Memory>>,
    tail: u64,
    placed_end: u64,
    freed_seen: u64,
    limit: u32,
}

impl RecvWriter {
    pub(super) const fn new(shared: Arc<Shared>, pool: Arc<Pool>) -> Self {
        Self {
            shared,
            pool,
            memory: None,
            tail: 0,
            placed_end: 0,
            freed_seen: 0,
            limit: MAX_BLOCK,
        }
    }

    /// Bytes of memory attached, 0 when detached.
    pub fn capacity(&self) -> u32 {
        self.memory.as_ref().map_or(0, |memory| memory.capacity())
    }

    /// The pool that the memory comes from.
    pub const fn pool(&self) -> &Arc<Pool> {
        &self.pool
    }

    /// How far whoever holds this half lets the ring grow, bytes (`SO_RCVBUF`).
    pub const fn limit(&self) -> u32 {
        self.limit
    }

    /// Sets [`limit`](Self::limit). A ring that is larger stays as it is, since it was offered to the peer, but is not
    /// offered again.
    pub const fn set_limit(&mut self, bytes: u32) {
        self.limit = bytes;
    }

    /// Attaches memory, or moves the ring to a block of at least `capacity` bytes (rounded up to a power of
    /// two). Keeps the unread bytes and the `placed_beyond_tail` bytes behind the tail; never makes the ring
    /// smaller than these.
    ///
    /// # Errors
    /// [`OutOfBuffers`]: nothing changed.
    pub fn resize(&mut self, capacity: u32, placed_beyond_tail: u32) -> Result<(), OutOfBuffers> {
        let capacity_now = u64::from(self.capacity());
        let shared = &*self.shared;
        let mut state = lock(&shared.state);
        let read = shared.read.load(Ordering::Relaxed);
        let keep = (self.tail - read + u64::from(placed_beyond_tail)).min(capacity_now) as u32;
        let memory = self.pool.take(capacity.max(keep))?;
        if let Some(old) = &self.memory {
            // SAFETY: `read..read + keep` is this writer's to read: the published part is written by nobody,
            // the rest by this half alone. The new memory is not shared yet.
            unsafe { memory.copy_from(old, read, keep as usize) };
        }
        let memory = Arc::new(memory);
        self.memory = Some(Arc::clone(&memory));
        shared.replace(&mut state, Some(memory));
        self.placed_end = self.tail.max(read + u64::from(keep));
        Ok(())
    }

    /// Space beyond the tail, 0 when detached.
    pub fn free(&self) -> u32 {
        let used = self.tail - self.shared.head.load(Ordering::Acquire);
        // The ring never holds more than its capacity, so the difference fits.
        u64::from(self.capacity()).saturating_sub(used) as u32
    }

    /// Of the free space, what the peer may be offered: no more than a ring of [`limit`](Self::limit) has.
    pub fn offerable(&self) -> u32 {
        let used = self.tail - self.shared.head.load(Ordering::Acquire);
        u64::from(self.capacity().min(self.limit)).saturating_sub(used) as u32
    }

    /// Published bytes that the application has not taken.
    pub fn unread(&self) -> u32 {
        (self.tail - self.shared.read.load(Ordering::Acquire)) as u32
    }

    /// Writes `bytes` at `offset_from_tail`, as many as the free space holds; returns how many. They are not
    /// visible before [`publish`](Self::publish).
    pub fn place(&mut self, offset_from_tail: u32, bytes: &[u8]) -> usize {
        let room = self.free().saturating_sub(offset_from_tail) as usize;
        let n = bytes.len().min(room);
        let Some(memory) = self.memory.as_ref().filter(|_| n > 0) else {
            return 0;
        };
        let position = self.tail + u64::from(offset_from_tail);
        // SAFETY: the target lies between the tail and the head one round later: the reader does not touch
        // unpublished bytes, and `&mut self` makes this the only writer.
        unsafe { memory.write(position, &bytes[..n]) };
        self.placed_end = self.placed_end.max(position + n as u64);
        n
    }

    /// Makes the next `n` placed bytes readable, at most those that were placed.
    pub fn publish(&mut self, n: u32) {
        debug_assert!(
            self.tail + u64::from(n) <= self.placed_end,
            "published bytes were placed"
        );
        self.tail = (self.tail + u64::from(n)).min(self.placed_end.max(self.tail));
        self.shared.tail.store(self.tail, Ordering::Release);
    }

    /// The next `n` bytes were placed by a device, where [`memory`](Self::memory) lies: makes them readable. At most
    /// the free space.
    pub(crate) fn publish_placed(&mut self, n: u32) {
        let n = n.min(self.free());
        self.placed_end = self.placed_end.max(self.tail + u64::from(n));
        self.publish(n);
    }

    /// The memory that is attached.
    pub(crate) const fn memory(&self) -> Option<&Arc<Memory>> {
        self.memory.as_ref()
    }

    /// Free-running position of the tail.
    pub(crate) const fn position(&self) -> u64 {
        self.tail
    }

    /// Bytes before the tail that were not given back as of the last [`take_freed`](Self::take_freed).
    pub(crate) const fn held(&self) -> u32 {
        (self.tail - self.freed_seen) as u32
    }

    /// Takes another block, into which a device places what follows the tail: the unread bytes go there too.
    /// Returns whether they fit; if not, nothing changed.
    pub(crate) fn adopt(&mut self, memory: Memory) -> bool {
        let shared = &*self.shared;
        let mut state = lock(&shared.state);
        let read = shared.read.load(Ordering::Relaxed);
        let unread = (self.tail - read) as u32;
        if unread > memory.capacity() {
            return false;
        }
        if let Some(old) = &self.memory {
            // SAFETY: published bytes are written by nobody. In the new memory only the device writes, behind the
            // tail and within the space that is free beside these bytes.
            unsafe { memory.copy_from(old, read, unread as usize) };
        }
        let memory = Arc::new(memory);
        self.memory = Some(Arc::clone(&memory));
        shared.replace(&mut state, Some(memory));
        self.placed_end = self.tail;
        true
    }

    /// Bytes of space given back by the reader since the last call.
    pub fn take_freed(&mut self) -> u32 {
        let head = self.shared.head.load(Ordering::Acquire);
        let freed = head - self.freed_seen;
        self.freed_seen = head;
        freed as u32
    }

    /// Gives the memory back to the pool if no byte is unread, none is held by a [`Chunk`](super::Chunk) and none was placed
    /// beyond the tail. Returns whether the ring is detached now.
    pub fn release_if_empty(&mut self) -> bool {
        if self.memory.is_none() {
            return true;
        }
        let shared = &*self.shared;
        let mut state = lock(&shared.state);
        let read = shared.read.load(Ordering::Relaxed);
        if read != self.tail || self.placed_end > self.tail || !state.pinned.is_empty() {
            return false;
        }
        self.memory = None;
        shared.replace(&mut state, None);
        true
    }

    /// Bytes that the application has read but still holds in [`Chunk`](super::Chunk)s: their space is not free.
    pub fn pinned(&self) -> u32 {
        let head = self.shared.head.load(Ordering::Acquire);
        self.shared
            .read
            .load(Ordering::Acquire)
            .saturating_sub(head) as u32
    }
}

impl fmt::Debug for RecvWriter {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RecvWriter")
            .field("capacity", &self.capacity())
            .field("unread", &self.unread())
            .finish_non_exhaustive()
    }
}
