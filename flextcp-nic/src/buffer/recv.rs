//! The receive ring: NIC or engine places payload, the stream reads it.
//!
//! Four positions, in order: `head` (space before it belongs to the writer), `read` (the application has
//! taken everything before it; it runs ahead of `head` only while a [`Chunk`] pins bytes), `tail`
//! (published), and the end of what was placed beyond the tail.

mod chunk;
mod reader;
#[cfg(all(test, not(flextcp_loom)))]
mod tests;
mod writer;

use std::collections::VecDeque;
use std::sync::Arc;

use super::Pool;
use super::memory::Memory;
use super::sync::{AtomicU32, AtomicU64, Mutex, Ordering};

pub use chunk::Chunk;
pub use reader::RecvReader;
pub use writer::RecvWriter;

struct Shared {
    head: AtomicU64,
    read: AtomicU64,
    tail: AtomicU64,
    /// Bytes of memory, for the reader to know without the lock.
    capacity: AtomicU32,
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
        state: Mutex::new(State {
            memory: None,
            epoch: 0,
            pinned: VecDeque::new(),
        }),
    });
    let writer = RecvWriter::new(Arc::clone(&shared), Arc::clone(pool));
    (writer, RecvReader::new(shared))
}
