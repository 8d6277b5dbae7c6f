//! Bytes that stay where they are while somebody looks at them.

use std::fmt;
use std::ops::Deref;
use std::sync::Arc;

use super::Shared;
use crate::buffer::memory::Memory;
use crate::buffer::sync::lock;

/// Received bytes where the NIC placed them. While it lives its bytes stay, and their space is not reused.
pub struct Chunk {
    shared: Arc<Shared>,
    memory: Arc<Memory>,
    epoch: u64,
    start: u64,
    len: usize,
}

impl Chunk {
    /// `len` bytes from `start`, which lie before the ring's wrap and are pinned.
    pub(super) fn new(
        shared: &Arc<Shared>,
        memory: Arc<Memory>,
        epoch: u64,
        start: u64,
        len: usize,
    ) -> Self {
        Self {
            shared: Arc::clone(shared),
            memory,
            epoch,
            start,
            len,
        }
    }
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
