//! The receive ring: NIC or engine places payload, the stream reads it.
//!
//! Four positions, in order: `head` (space before it belongs to the writer), `read` (the application has
//! taken everything before it; it runs ahead of `head` only while a [`Chunk`] pins bytes), `tail`
//! (published), and the end of what was placed beyond the tail.

use std::collections::VecDeque;
use std::fmt;
use std::io::IoSliceMut;
use std::ops::Deref;
use std::sync::Arc;

use super::memory::Memory;
use super::sync::{AtomicBool, AtomicU32, AtomicU64, Mutex, Ordering, lock};
use super::{OutOfBuffers, Pool};

struct Shared {
    head: AtomicU64,
    read: AtomicU64,
    tail: AtomicU64,
    /// Bytes of memory, for the reader to know without the lock.
    capacity: AtomicU32,
    reader_gone: AtomicBool,
    state: Mutex<State>,
}

struct State {
    memory: Option<Arc<Memory>>,
    /// Counts replacements of the memory: chunks of an earlier one pin nothing.
    epoch: u64,
    /// Start and count of living chunks of this memory, in order of start.
    pinned: VecDeque<(u64, u32)>,
}

impl Shared {
    /// Gives the writer the space before the first byte that the application still holds.
    fn settle(&self, state: &State) {
        let read = self.read.load(Ordering::Relaxed);
        let head = state.pinned.front().map_or(read, |&(start, _)| start);
        self.head.store(head, Ordering::Release);
    }

    fn replace(&self, state: &mut State, memory: Option<Arc<Memory>>) {
        let capacity = memory.as_ref().map_or(0, |memory| memory.capacity());
        self.capacity.store(capacity, Ordering::Relaxed);
        state.memory = memory;
        state.epoch += 1;
        state.pinned.clear();
        self.settle(state);
    }
}

/// A detached receive ring: its memory comes from `pool` with [`RecvWriter::resize`].
pub fn recv_ring(pool: &Arc<Pool>) -> (RecvWriter, RecvReader) {
    let shared = Arc::new(Shared {
        head: AtomicU64::new(0),
        read: AtomicU64::new(0),
        tail: AtomicU64::new(0),
        capacity: AtomicU32::new(0),
        reader_gone: AtomicBool::new(false),
        state: Mutex::new(State {
            memory: None,
            epoch: 0,
            pinned: VecDeque::new(),
        }),
    });
    let writer = RecvWriter {
        shared: Arc::clone(&shared),
        pool: Arc::clone(pool),
        memory: None,
        tail: 0,
        placed_end: 0,
        freed_seen: 0,
    };
    (writer, RecvReader { shared })
}

/// The host half of a receive ring.
pub struct RecvWriter {
    shared: Arc<Shared>,
    pool: Arc<Pool>,
    memory: Option<Arc<Memory>>,
    tail: u64,
    placed_end: u64,
    freed_seen: u64,
}

impl RecvWriter {
    /// Bytes of memory attached, 0 when detached.
    pub fn capacity(&self) -> u32 {
        self.memory.as_ref().map_or(0, |memory| memory.capacity())
    }

    /// The pool that the memory comes from.
    pub const fn pool(&self) -> &Arc<Pool> {
        &self.pool
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

    /// Gives the memory back to the pool if no byte is unread, none is held by a [`Chunk`] and none was placed
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

    /// Bytes that the application has read but still holds in [`Chunk`]s: their space is not free.
    pub fn pinned(&self) -> u32 {
        let head = self.shared.head.load(Ordering::Acquire);
        self.shared
            .read
            .load(Ordering::Acquire)
            .saturating_sub(head) as u32
    }

    /// Whether the application's half is gone.
    pub fn reader_gone(&self) -> bool {
        self.shared.reader_gone.load(Ordering::Acquire)
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

/// The application's half of a receive ring. Calls from several threads are safe; each takes its own bytes.
pub struct RecvReader {
    shared: Arc<Shared>,
}

impl RecvReader {
    /// Bytes to read.
    pub fn len(&self) -> usize {
        let read = self.shared.read.load(Ordering::Acquire);
        // Another thread may take bytes between the loads.
        self.shared
            .tail
            .load(Ordering::Acquire)
            .saturating_sub(read) as usize
    }

    /// Bytes of memory attached, 0 when detached.
    pub fn capacity(&self) -> u32 {
        self.shared.capacity.load(Ordering::Relaxed)
    }

    /// Whether there is nothing to read.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Takes up to `out.len()` bytes; returns how many.
    pub fn read(&self, out: &mut [u8]) -> usize {
        self.read_vectored(&mut [IoSliceMut::new(out)])
    }

    /// Copies up to `out.len()` bytes without taking them; returns how many.
    pub fn peek(&self, out: &mut [u8]) -> usize {
        let state = lock(&self.shared.state);
        self.copy(&state, 0, out)
    }

    /// Takes bytes into the slices in turn; returns how many.
    pub fn read_vectored(&self, out: &mut [IoSliceMut<'_>]) -> usize {
        let state = lock(&self.shared.state);
        let mut taken = 0;
        for slice in out {
            let n = self.copy(&state, taken as u64, slice);
            taken += n;
            if n < slice.len() {
                break;
            }
        }
        self.advance(&state, taken as u64);
        taken
    }

    /// Hands up to `max` bytes to `sink`, in one piece or two, and takes them; returns how many. `sink` must not
    /// use this ring: it would wait for itself.
    pub fn read_with(&self, max: usize, mut sink: impl FnMut(&[u8])) -> usize {
        let state = lock(&self.shared.state);
        let n = max.min(self.len());
        let Some(memory) = state.memory.as_ref().filter(|_| n > 0) else {
            return 0;
        };
        // SAFETY: as in `copy`.
        let parts = unsafe { memory.slices(self.shared.read.load(Ordering::Relaxed), n) };
        for part in parts.into_iter().filter(|part| !part.is_empty()) {
            sink(part);
        }
        self.advance(&state, n as u64);
        n
    }

    /// Takes `n` bytes unread, at most those that are there; returns how many. Space under a living [`Chunk`]
    /// becomes free when the chunk is dropped.
    pub fn consume(&self, n: usize) -> usize {
        let state = lock(&self.shared.state);
        let n = n.min(self.len());
        self.advance(&state, n as u64);
        n
    }

    /// The next unread bytes in one piece (up to the ring's wrap), where they lie, without taking them;
    /// `None` when there are none.
    pub fn fill(&self) -> Option<Chunk> {
        let mut state = lock(&self.shared.state);
        self.pin(&mut state, usize::MAX)
    }

    /// [`fill`](Self::fill) and [`consume`](Self::consume) of at most `max` bytes in one step: the bytes are the
    /// caller's alone.
    pub fn take_chunk(&self, max: usize) -> Option<Chunk> {
        let mut state = lock(&self.shared.state);
        let chunk = self.pin(&mut state, max)?;
        self.advance(&state, chunk.len() as u64);
        Some(chunk)
    }

    fn pin(&self, state: &mut State, max: usize) -> Option<Chunk> {
        let read = self.shared.read.load(Ordering::Relaxed);
        let memory = Arc::clone(state.memory.as_ref()?);
        let to_wrap = u64::from(memory.capacity()) - (read & (u64::from(memory.capacity()) - 1));
        let len = (to_wrap as usize).min(self.len()).min(max);
        if len == 0 {
            return None;
        }
        match state.pinned.back_mut() {
            Some((start, count)) if *start == read => *count += 1,
            _ => state.pinned.push_back((read, 1)),
        }
        let (shared, epoch) = (Arc::clone(&self.shared), state.epoch);
        Some(Chunk {
            shared,
            memory,
            epoch,
            start: read,
            len,
        })
    }

    fn copy(&self, state: &State, skip: u64, out: &mut [u8]) -> usize {
        let read = self.shared.read.load(Ordering::Relaxed) + skip;
        let n = out
            .len()
            .min((self.shared.tail.load(Ordering::Acquire) - read) as usize);
        let Some(memory) = state.memory.as_ref().filter(|_| n > 0) else {
            return 0;
        };
        // SAFETY: bytes between head and tail are published, and the writer leaves them alone until the head
        // passes them, which only happens under the lock that is held.
        unsafe { memory.read(read, &mut out[..n]) };
        n
    }

    fn advance(&self, state: &State, n: u64) {
        if n > 0 {
            let read = self.shared.read.load(Ordering::Relaxed);
            self.shared.read.store(read + n, Ordering::Release);
            self.shared.settle(state);
        }
    }
}

impl Drop for RecvReader {
    fn drop(&mut self) {
        self.shared.reader_gone.store(true, Ordering::Release);
    }
}

impl fmt::Debug for RecvReader {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RecvReader")
            .field("len", &self.len())
            .finish_non_exhaustive()
    }
}

/// Received bytes where the NIC placed them. While it lives its bytes stay, and their space is not reused.
pub struct Chunk {
    shared: Arc<Shared>,
    memory: Arc<Memory>,
    epoch: u64,
    start: u64,
    len: usize,
}

impl Deref for Chunk {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        // SAFETY: the chunk's start is in `pinned`, so the head does not pass it and the writer leaves the
        // bytes alone; if the memory was replaced, nobody writes the old block any more. The bytes lie before
        // the wrap.
        unsafe { self.memory.slices(self.start, self.len)[0] }
    }
}

impl AsRef<[u8]> for Chunk {
    fn as_ref(&self) -> &[u8] {
        self
    }
}

impl Drop for Chunk {
    fn drop(&mut self) {
        let mut state = lock(&self.shared.state);
        if state.epoch != self.epoch {
            return;
        }
        if let Ok(at) = state
            .pinned
            .binary_search_by_key(&self.start, |&(start, _)| start)
        {
            state.pinned[at].1 -= 1;
        }
        while state.pinned.front().is_some_and(|&(_, count)| count == 0) {
            state.pinned.pop_front();
        }
        self.shared.settle(&state);
    }
}

impl fmt::Debug for Chunk {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Chunk")
            .field("len", &self.len)
            .finish_non_exhaustive()
    }
}

#[cfg(all(test, not(flextcp_loom)))]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn ring() -> (RecvWriter, RecvReader) {
        recv_ring(&Pool::new(1 << 20))
    }

    #[test]
    fn detached_until_resized() {
        let (mut writer, reader) = ring();
        assert_eq!((writer.capacity(), writer.free()), (0, 0));
        assert_eq!(writer.place(0, b"abc"), 0);
        assert!(reader.is_empty() && reader.fill().is_none());
        writer.resize(1, 0).unwrap();
        assert_eq!(writer.place(0, b"abc"), 3);
        writer.publish(3);
        assert!(!writer.release_if_empty());
        let mut out = [0; 8];
        assert_eq!(reader.peek(&mut out), 3);
        assert_eq!(reader.read(&mut out), 3);
        assert_eq!(&out[..3], b"abc");
        assert_eq!(writer.take_freed(), 3);
        assert!(writer.release_if_empty());
        assert_eq!(writer.pool().used(), 0);
    }

    #[test]
    fn out_of_order_bytes_survive_a_resize() {
        let (mut writer, reader) = ring();
        writer.resize(4096, 0).unwrap();
        writer.place(0, b"ab");
        writer.place(4, b"ef");
        writer.resize(8192, 6).unwrap();
        assert!(!writer.release_if_empty());
        writer.place(2, b"cd");
        writer.publish(6);
        let mut out = [0; 8];
        assert_eq!(reader.read(&mut out), 6);
        assert_eq!(&out[..6], b"abcdef");
    }

    #[test]
    fn a_chunk_holds_its_space() {
        let (mut writer, reader) = ring();
        writer.resize(4096, 0).unwrap();
        writer.place(0, &[1; 4096]);
        writer.publish(4096);
        let first = reader.fill().unwrap();
        assert_eq!(reader.consume(10), 10);
        let second = reader.take_chunk(100).unwrap();
        assert_eq!((first.len(), second.len()), (4096, 100));
        assert_eq!((writer.free(), writer.pinned()), (0, 110));
        drop(first);
        assert_eq!((writer.free(), writer.pinned()), (10, 100));
        writer.place(0, &[2; 10]);
        assert!(second.iter().all(|&byte| byte == 1));
        drop(second);
        assert_eq!(writer.free(), 110);
    }

    #[test]
    fn a_chunk_outlives_ring_and_memory() {
        let (mut writer, reader) = ring();
        writer.resize(4096, 0).unwrap();
        writer.place(0, b"keep");
        writer.publish(4);
        let chunk = reader.take_chunk(4).unwrap();
        writer.resize(4096, 0).unwrap();
        assert_eq!(writer.free(), 4096);
        let pool = Arc::clone(writer.pool());
        drop((writer, reader));
        assert_eq!(&*chunk, b"keep");
        drop(chunk);
        assert_eq!(pool.used(), 0);
    }

    proptest! {
        /// Against a plain vector: what is placed, published, read, pinned and resized comes out once, in order.
        #[test]
        fn behaves_as_a_queue(steps in prop::collection::vec((0..6_u8, 0..6000_usize), 1..80)) {
            let (mut writer, reader) = ring();
            let (mut next_in, mut next_out) = (0_u64, 0_u64);
            let mut chunks = Vec::new();
            for (step, n) in steps {
                match step {
                    0 | 1 => {
                        let bytes: Vec<u8> = (0..n as u64).map(|i| (next_in + i) as u8).collect();
                        let placed = writer.place(0, &bytes);
                        prop_assert_eq!(placed, n.min(writer.free() as usize));
                        writer.publish(placed as u32);
                        next_in += placed as u64;
                    }
                    2 => {
                        let mut out = vec![0; n];
                        let taken = reader.read(&mut out);
                        let (expected, was) = (next_in - next_out, next_out);
                        prop_assert_eq!(taken, n.min(expected as usize));
                        prop_assert!(out[..taken].iter().enumerate().all(|(i, &b)| b == (was + i as u64) as u8));
                        next_out += taken as u64;
                    }
                    3 => if let Some(chunk) = reader.take_chunk(n) {
                        chunks.push((next_out, chunk));
                        next_out += chunks.last().unwrap().1.len() as u64;
                    },
                    4 if !chunks.is_empty() => drop(chunks.swap_remove(n % chunks.len())),
                    _ => {
                        writer.resize(n as u32, 0).unwrap();
                        writer.release_if_empty();
                    }
                }
                for (start, chunk) in &chunks {
                    prop_assert!(chunk.iter().enumerate().all(|(i, &b)| b == (start + i as u64) as u8));
                }
                prop_assert_eq!(writer.unread() as usize, reader.len());
                prop_assert!(writer.free() + writer.unread() + writer.pinned() <= writer.capacity());
            }
        }
    }

    #[test]
    fn two_threads_pass_a_stream() {
        let (mut writer, reader) = ring();
        writer.resize(4096, 0).unwrap();
        const TOTAL: u32 = 1 << 20;
        std::thread::scope(|scope| {
            scope.spawn(|| {
                let (mut next, mut out) = (0_u32, [0; 777]);
                while next < TOTAL {
                    let n = reader.read(&mut out);
                    for &byte in &out[..n] {
                        assert_eq!(byte, (next % 251) as u8);
                        next += 1;
                    }
                    if n == 0 {
                        std::thread::yield_now();
                    }
                }
            });
            let mut next = 0;
            while next < TOTAL {
                let bytes: Vec<u8> = (next..TOTAL.min(next + 1000))
                    .map(|i| (i % 251) as u8)
                    .collect();
                let n = writer.place(0, &bytes) as u32;
                writer.publish(n);
                next += n;
                if next % 7 == 0 {
                    writer.resize(4096 << (next % 3), 0).unwrap();
                }
                if n == 0 {
                    std::thread::yield_now();
                }
            }
        });
    }
}
