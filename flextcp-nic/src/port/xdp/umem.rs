//! UMEM: the memory frames live in, cut into chunks that either we or the kernel own.

use std::io;

use super::mapping::Mapping;

/// Bytes of a chunk: the largest the kernel takes, one page.
pub(super) const CHUNK: u32 = 4096;

/// Bytes at the start of a transmit chunk that stay free for the frame's metadata (`struct xsk_tx_metadata`): the
/// kernel asks for them in every chunk once it was told of them.
pub(super) const METADATA: u32 = 32;
/// Bytes of a frame that one transmit chunk holds.
pub(super) const ROOM: u32 = CHUNK - METADATA;
/// `XDP_TXMD_FLAGS_CHECKSUM`.
const CHECKSUM: u64 = 1 << 1;

/// The memory of one queue: `rx` chunks that circulate through the fill and receive rings, then `tx`
/// chunks that circulate through the transmit and completion rings.
#[derive(Debug)]
pub(super) struct Umem {
    memory: Mapping,
    rx_chunks: u32,
    /// Transmit chunks we own; a stack, so that the one used next is warm in the cache.
    free: Vec<u64>,
}

impl Umem {
    /// # Errors
    /// Out of memory.
    pub(super) fn new(rx_chunks: u32, tx_chunks: u32, huge: bool) -> io::Result<Self> {
        let chunk = u64::from(CHUNK);
        let chunks = u64::from(rx_chunks) + u64::from(tx_chunks);
        let len = usize::try_from(chunks * chunk).map_err(|_| io::ErrorKind::InvalidInput)?;
        // A huge mapping must be whole huge pages.
        let len = if huge {
            len.next_multiple_of(2 << 20)
        } else {
            len
        };
        let memory = Mapping::anonymous(len, huge)?;
        let free = (u64::from(rx_chunks)..chunks)
            .rev()
            .map(|index| index * chunk)
            .collect();
        Ok(Self {
            memory,
            rx_chunks,
            free,
        })
    }

    /// Address of the first byte and length, as registered with the kernel.
    pub(super) fn region(&self) -> (u64, u64) {
        (self.memory.as_ptr() as u64, self.memory.len() as u64)
    }

    /// The receive chunks, for the fill ring's first filling.
    pub(super) fn rx_chunks(&self) -> impl Iterator<Item = u64> + use<> {
        (0..u64::from(self.rx_chunks)).map(|index| index * u64::from(CHUNK))
    }

    /// Transmit chunks we own.
    pub(super) fn free_chunks(&self) -> usize {
        self.free.len()
    }

    /// Takes a transmit chunk.
    pub(super) fn take(&mut self) -> Option<u64> {
        self.free.pop()
    }

    /// Takes back a transmit chunk that the kernel completed.
    pub(super) fn give_back(&mut self, address: u64) {
        debug_assert!(
            self.free.len() < self.free.capacity(),
            "a chunk was completed twice"
        );
        self.free.push(address & !u64::from(CHUNK - 1));
    }

    /// The received bytes that a descriptor names; `None` when it points outside.
    pub(super) fn received(&self, address: u64, len: u32) -> Option<&[u8]> {
        let start = usize::try_from(address).ok()?;
        let place = self.memory.at::<u8>(start, len as usize)?;
        // SAFETY: inside the mapping, and the chunk is ours from the receive ring until it goes into the fill
        // ring, which takes `&mut` of the queue that lends this slice out.
        Some(unsafe { std::slice::from_raw_parts(place.as_ptr(), len as usize) })
    }

    /// A transmit chunk's bytes after the metadata, to write a frame into.
    ///
    /// # Panics
    /// `address` is not from [`take`](Self::take).
    pub(super) fn frame_mut(&mut self, address: u64) -> &mut [u8] {
        &mut self.chunk_mut(address)[METADATA as usize..]
    }

    /// Asks the kernel to complete the checksum at `offset` from `start`, both in bytes of the frame in this chunk.
    ///
    /// # Panics
    /// As [`frame_mut`](Self::frame_mut).
    pub(super) fn request_checksum(&mut self, address: u64, start: u16, offset: u16) {
        let metadata = &mut self.chunk_mut(address)[..METADATA as usize];
        metadata[..8].copy_from_slice(&CHECKSUM.to_ne_bytes());
        metadata[8..10].copy_from_slice(&start.to_ne_bytes());
        metadata[10..12].copy_from_slice(&offset.to_ne_bytes());
    }

    fn chunk_mut(&mut self, address: u64) -> &mut [u8] {
        let place = usize::try_from(address)
            .ok()
            .and_then(|start| self.memory.at::<u8>(start, CHUNK as usize))
            .expect("chunks that were taken lie inside");
        // SAFETY: inside the mapping; a taken transmit chunk is in no ring, and `&mut self` makes this slice unique.
        unsafe { std::slice::from_raw_parts_mut(place.as_ptr(), CHUNK as usize) }
    }
}
/// Asks for the headers of a frame ahead of their use.
pub(super) fn prefetch(frame: &[u8]) {
    #[cfg(target_arch = "x86_64")]
    for line in frame.chunks(64).take(2) {
        use std::arch::x86_64::{_MM_HINT_T0, _mm_prefetch};
        // SAFETY: a prefetch reads nothing, faults never, and x86-64 always has it.
        unsafe { _mm_prefetch::<_MM_HINT_T0>(line.as_ptr().cast()) };
    }
    #[cfg(not(target_arch = "x86_64"))]
    let _ = frame;
}
