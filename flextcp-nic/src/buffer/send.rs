//! The send ring: the stream writes, NIC or engine sends from it and releases what was acknowledged.

use std::fmt;
use std::io::IoSlice;
use std::sync::Arc;

use super::memory::Memory;
use super::sync::{AtomicU32, AtomicU64, Mutex, Ordering, lock};
use super::{MAX_BLOCK, OutOfBuffers, Pool};

/// First block of a send ring; it doubles from there as the application writes ahead.
const FIRST_BLOCK: u32 = 16 << 10;

struct Shared {
    head: AtomicU64,
    tail: AtomicU64,
    limit: AtomicU32,
    /// Counts replacements of the memory, stored before the tail that needs the new one.
    epoch: AtomicU64,
    memory: Mutex<Option<Arc<Memory>>>,
}

impl Shared {
    /// Moves the bytes `head..tail` to `new`. Runs under the lock, in the half that allocated.
    fn replace(&self, slot: &mut Option<Arc<Memory>>, new: Memory) {
        let head = self.head.load(Ordering::Acquire);
        let tail = self.tail.load(Ordering::Acquire);
        if let Some(old) = slot {
            // SAFETY: written bytes are changed only by the writer, which needs the lock that is held; the new
            // memory is not shared yet. Those released meanwhile are copied in vain.
            unsafe { new.copy_from(old, head, (tail - head) as usize) };
        }
        *slot = Some(Arc::new(new));
        self.epoch.fetch_add(1, Ordering::Release);
    }
}

/// A detached send ring that holds at most `limit` bytes. Its memory comes from `pool` with the first write.
pub fn send_ring(pool: &Arc<Pool>, limit: u32) -> (SendWriter, SendReader) {
    let shared = Arc::new(Shared {
        head: AtomicU64::new(0),
        tail: AtomicU64::new(0),
        limit: AtomicU32::new(limit.min(MAX_BLOCK)),
        epoch: AtomicU64::new(0),
        memory: Mutex::new(None),
    });
    let reader = SendReader {
        shared: Arc::clone(&shared),
        pool: Arc::clone(pool),
        memory: None,
        epoch: 0,
        head: 0,
        tail: 0,
    };
    (
        SendWriter {
            shared,
            pool: Arc::clone(pool),
        },
        reader,
    )
}

/// A send ring's limit and how far it has come, wherever its halves are.
#[derive(Clone)]
pub struct SendGauge {
    shared: Arc<Shared>,
}

impl SendGauge {
    /// Most bytes that the ring may hold.
    pub fn limit(&self) -> u32 {
        self.shared.limit.load(Ordering::Relaxed)
    }

    /// Sets that. Bytes beyond a lower limit stay.
    pub fn set_limit(&self, limit: u32) {
        let limit = limit.min(MAX_BLOCK);
        self.shared.limit.store(limit, Ordering::Relaxed);
    }

    /// Bytes that the application ever wrote.
    pub fn written(&self) -> u64 {
        self.shared.tail.load(Ordering::Relaxed)
    }

    /// Of these, bytes that were acknowledged.
    pub fn released(&self) -> u64 {
        self.shared.head.load(Ordering::Relaxed)
    }
}

impl fmt::Debug for SendGauge {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SendGauge")
            .field("limit", &self.limit())
            .finish_non_exhaustive()
    }
}

/// The host half of a send ring.
pub struct SendReader {
    shared: Arc<Shared>,
    pool: Arc<Pool>,
    memory: Option<Arc<Memory>>,
    epoch: u64,
    head: u64,
    tail: u64,
}

impl SendReader {
    /// Bytes unacknowledged or unsent, as of the last [`take_written`](Self::take_written).
    pub const fn len(&self) -> u32 {
        (self.tail - self.head) as u32
    }

    /// Whether there are none.
    pub const fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// A handle that stays when this half moves.
    pub fn gauge(&self) -> SendGauge {
        SendGauge {
            shared: Arc::clone(&self.shared),
        }
    }

    /// Bytes of memory attached, 0 when detached, as of the last [`take_written`](Self::take_written).
    pub fn capacity(&self) -> u32 {
        self.memory.as_ref().map_or(0, |memory| memory.capacity())
    }

    /// Takes over what the application wrote since the last call; returns how many bytes.
    pub fn take_written(&mut self) -> u32 {
        let tail = self.shared.tail.load(Ordering::Acquire);
        let written = (tail - self.tail) as u32;
        self.tail = tail;
        // The writer counts the epoch up before it publishes bytes that lie only in the new memory.
        if self.shared.epoch.load(Ordering::Acquire) != self.epoch {
            let memory = lock(&self.shared.memory);
            self.epoch = self.shared.epoch.load(Ordering::Acquire);
            self.memory.clone_from(&memory);
        }
        written
    }

    /// The memory that is attached, as of the last [`take_written`](Self::take_written).
    pub(crate) const fn memory(&self) -> Option<&Arc<Memory>> {
        self.memory.as_ref()
    }

    /// Free-running position of the head.
    pub(crate) const fn position(&self) -> u64 {
        self.head
    }

    /// The bytes from `offset_from_head` on, at most `len` and those that are there, in two parts when they wrap.
    pub fn slices(&self, offset_from_head: u32, len: u32) -> [&[u8]; 2] {
        let offset = offset_from_head.min(self.len());
        let len = len.min(self.len() - offset);
        let Some(memory) = self.memory.as_ref().filter(|_| len > 0) else {
            return [&[], &[]];
        };
        // SAFETY: bytes between head and tail are written by nobody until `release` moves the head, which
        // needs `&mut self`.
        unsafe { memory.slices(self.head + u64::from(offset), len as usize) }
    }

    /// Gives the first `n` bytes' space back to the application, at most what [`len`](Self::len) counts.
    pub fn release(&mut self, n: u32) {
        debug_assert!(n <= self.len(), "released bytes were written");
        self.head += u64::from(n.min(self.len()));
        self.shared.head.store(self.head, Ordering::Release);
    }

    /// Attaches memory, or moves the ring to a block of at least `capacity` bytes, and lifts the limit to it.
    ///
    /// # Errors
    /// [`OutOfBuffers`]: nothing changed.
    pub fn resize(&mut self, capacity: u32) -> Result<(), OutOfBuffers> {
        let shared = &*self.shared;
        let mut slot = lock(&shared.memory);
        let held = (shared.tail.load(Ordering::Acquire) - self.head) as u32;
        let memory = self.pool.take(capacity.max(held))?;
        shared.replace(&mut slot, memory);
        shared
            .limit
            .fetch_max(capacity.min(MAX_BLOCK), Ordering::Relaxed);
        self.memory.clone_from(&slot);
        self.epoch = shared.epoch.load(Ordering::Acquire);
        Ok(())
    }

    /// Gives the memory back to the pool if the ring is empty. Returns whether it is detached now.
    pub fn release_if_empty(&mut self) -> bool {
        let shared = &*self.shared;
        let mut slot = lock(&shared.memory);
        if shared.tail.load(Ordering::Acquire) != self.head {
            return false;
        }
        *slot = None;
        self.memory = None;
        self.epoch = shared.epoch.fetch_add(1, Ordering::AcqRel) + 1;
        true
    }
}

impl fmt::Debug for SendReader {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SendReader")
            .field("capacity", &self.capacity())
            .field("len", &self.len())
            .finish_non_exhaustive()
    }
}

/// The application's half of a send ring. Calls from several threads are safe; each writes in one piece.
pub struct SendWriter {
    shared: Arc<Shared>,
    pool: Arc<Pool>,
}

impl SendWriter {
    /// Bytes that the next write may add under the limit.
    pub fn free(&self) -> usize {
        (self.shared.limit.load(Ordering::Relaxed) as usize).saturating_sub(self.len())
    }

    /// Bytes written and not yet acknowledged.
    pub fn len(&self) -> usize {
        // The head first: the tail is never behind it.
        let head = self.shared.head.load(Ordering::Acquire);
        (self.shared.tail.load(Ordering::Acquire) - head) as usize
    }

    /// Whether everything was acknowledged.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Most bytes that the ring may hold.
    pub fn limit(&self) -> u32 {
        self.shared.limit.load(Ordering::Relaxed)
    }

    /// Sets that. Bytes beyond a lower limit stay.
    pub fn set_limit(&self, limit: u32) {
        self.shared
            .limit
            .store(limit.min(MAX_BLOCK), Ordering::Relaxed);
    }

    /// Appends as many bytes as there is space for; returns how many. Under memory pressure that may be fewer
    /// than [`free`](Self::free), but never none while the ring is empty and `free` is not 0.
    pub fn write(&self, bytes: &[u8]) -> usize {
        self.write_vectored(&[IoSlice::new(bytes)])
    }

    /// Appends the slices in turn; returns how many bytes.
    pub fn write_vectored(&self, slices: &[IoSlice<'_>]) -> usize {
        let mut slot = lock(&self.shared.memory);
        let wanted = slices
            .iter()
            .fold(0_usize, |sum, slice| sum.saturating_add(slice.len()));
        let wanted = wanted.min(self.free());
        if wanted == 0 {
            return 0;
        }
        let room = self.make_room(&mut slot, wanted);
        let Some(memory) = slot.as_ref() else {
            return 0;
        };
        let tail = self.shared.tail.load(Ordering::Relaxed);
        let mut written = 0;
        for slice in slices {
            let n = slice.len().min(room - written);
            // SAFETY: the target lies between the tail and the head one round later, which the reader does not
            // touch, and the lock makes this the only writer.
            unsafe { memory.write(tail + written as u64, &slice[..n]) };
            written += n;
        }
        self.shared
            .tail
            .store(tail + written as u64, Ordering::Release);
        written
    }

    /// Grows the memory to take `wanted` more bytes if it can; returns how many of them fit.
    fn make_room(&self, slot: &mut Option<Arc<Memory>>, wanted: usize) -> usize {
        let held = self.len();
        let capacity = slot.as_ref().map_or(0, |memory| memory.capacity() as usize);
        if held + wanted <= capacity {
            return wanted;
        }
        // Both are bounded by the limit, so the sum fits.
        let needed = (held + wanted) as u32;
        let doubled = needed
            .max(FIRST_BLOCK.min(self.limit()))
            .next_power_of_two();
        let grown = self.pool.take(doubled).or_else(|_| {
            if capacity == 0 {
                self.pool.take(super::MIN_BLOCK)
            } else {
                Err(OutOfBuffers)
            }
        });
        match grown {
            Ok(memory) if memory.capacity() as usize > capacity => {
                let capacity = memory.capacity() as usize;
                self.shared.replace(slot, memory);
                wanted.min(capacity - held)
            }
            _ => capacity - held,
        }
    }
}

impl fmt::Debug for SendWriter {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SendWriter")
            .field("len", &self.len())
            .field("limit", &self.limit())
            .finish_non_exhaustive()
    }
}

#[cfg(all(test, not(flextcp_loom)))]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn bytes(reader: &SendReader, offset: u32, len: u32) -> Vec<u8> {
        reader.slices(offset, len).concat()
    }

    #[test]
    fn attaches_with_the_first_write_and_honours_the_limit() {
        let pool = Pool::new(1 << 20);
        let (writer, mut reader) = send_ring(&pool, 10);
        assert_eq!((writer.free(), pool.used()), (10, 0));
        assert_eq!(writer.write(b"hello"), 5);
        assert_eq!(writer.write(b", world"), 5);
        assert_eq!((writer.free(), reader.len()), (0, 0));
        assert_eq!(reader.take_written(), 10);
        assert_eq!(bytes(&reader, 2, 100), b"llo, wor");
        reader.release(4);
        assert_eq!((writer.free(), bytes(&reader, 0, 2)), (4, b"o,".to_vec()));
        assert!(!reader.release_if_empty());
        reader.release(6);
        assert!(reader.release_if_empty());
        assert_eq!(pool.used(), 0);
        let gauge = reader.gauge();
        gauge.set_limit(100);
        assert_eq!((gauge.limit(), writer.limit()), (100, 100));
        assert_eq!((gauge.written(), gauge.released()), (10, 10));
        assert_eq!(writer.write(&[7; 200]), 100);
        assert_eq!(reader.take_written(), 100);
        assert_eq!(bytes(&reader, 0, 100), [7; 100]);
    }

    #[test]
    fn grows_while_the_host_half_reads() {
        let pool = Pool::new(1 << 24);
        let (writer, mut reader) = send_ring(&pool, 1 << 20);
        writer.write(&[1; 16384]);
        reader.take_written();
        let first = reader.slices(0, 16384);
        writer.write(&[2; 100_000]);
        assert!(first.concat().iter().all(|&byte| byte == 1));
        assert_eq!(reader.take_written(), 100_000);
        assert_eq!(bytes(&reader, 16383, 2), [1, 2]);
        assert_eq!(reader.capacity(), 1 << 17);
    }

    #[test]
    fn a_full_pool_still_gives_one_page() {
        let pool = Pool::new(0);
        let (writer, mut reader) = send_ring(&pool, 1 << 20);
        assert_eq!(writer.write(&[1; 100_000]), 4096);
        assert_eq!(writer.write(&[1; 10]), 0);
        assert_eq!(reader.take_written(), 4096);
        reader.release(96);
        assert_eq!(writer.write(&[1; 1000]), 96);
    }

    proptest! {
        /// Against positions: every byte written comes out once, in order, across growth, resize and release.
        #[test]
        fn behaves_as_a_queue(steps in prop::collection::vec((0..6_u8, 0..40_000_usize), 1..60)) {
            let pool = Pool::new(1 << 24);
            let (writer, mut reader) = send_ring(&pool, 100_000);
            let (mut next_in, mut next_out) = (0_u64, 0_u64);
            for (step, n) in steps {
                match step {
                    0 | 1 => {
                        let data: Vec<u8> = (0..n as u64).map(|i| (next_in + i) as u8).collect();
                        let written = writer.write(&data);
                        prop_assert_eq!(written, n.min(100_000 - (next_in - next_out) as usize));
                        next_in += written as u64;
                    }
                    2 => {
                        reader.take_written();
                        prop_assert_eq!(u64::from(reader.len()), next_in - next_out);
                    }
                    3 => {
                        let n = (n as u32).min(reader.len());
                        let data = bytes(&reader, 0, n);
                        prop_assert!(data.iter().enumerate().all(|(i, &b)| b == (next_out + i as u64) as u8));
                        reader.release(n);
                        next_out += u64::from(n);
                    }
                    4 => reader.resize(n as u32).unwrap(),
                    _ => {
                        reader.release_if_empty();
                    }
                }
                prop_assert_eq!(writer.len() as u64, next_in - next_out);
            }
        }
    }

    #[test]
    fn two_threads_pass_a_stream() {
        let pool = Pool::new(1 << 24);
        let (writer, mut reader) = send_ring(&pool, 100_000);
        const TOTAL: u32 = 1 << 20;
        std::thread::scope(|scope| {
            scope.spawn(|| {
                let mut next = 0;
                while next < TOTAL {
                    let data: Vec<u8> = (next..TOTAL.min(next + 3000))
                        .map(|i| (i % 251) as u8)
                        .collect();
                    let n = writer.write(&data) as u32;
                    next += n;
                    if n == 0 {
                        std::thread::yield_now();
                    }
                }
            });
            let mut next = 0_u32;
            while next < TOTAL {
                reader.take_written();
                let n = reader.len().min(999);
                for &byte in reader.slices(0, n).concat().iter() {
                    assert_eq!(byte, (next % 251) as u8);
                    next += 1;
                }
                reader.release(n);
                if n == 0 {
                    reader.release_if_empty();
                    std::thread::yield_now();
                }
            }
        });
    }
}
