//! The half that takes published bytes.

use std::fmt;
use std::io::IoSliceMut;
use std::sync::Arc;

use super::{Chunk, Shared, State};
use crate::buffer::sync::{Ordering, lock};

/// The application's half of a receive ring. Calls from several threads are safe; each takes its own bytes.
pub struct RecvReader {
    shared: Arc<Shared>,
}

impl RecvReader {
    pub(super) const fn new(shared: Arc<Shared>) -> Self {
        Self { shared }
    }

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
        Some(Chunk::new(&self.shared, memory, state.epoch, read, len))
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

impl fmt::Debug for RecvReader {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RecvReader")
            .field("len", &self.len())
            .finish_non_exhaustive()
    }
}
