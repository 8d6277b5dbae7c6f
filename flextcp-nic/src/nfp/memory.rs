//! The host memory of one queue: its rings, control block, flow blocks, frame slots, and frames to be sent.

use core::ops::Deref;
use std::io;
use std::ptr::NonNull;
use std::slice;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

use crate::buffer::DmaRegion;
use crate::queue::abi::{constant, flow_block};
use crate::queue::ring::{DESCRIPTOR_WORDS, EVENT_WORDS};

/// Words of a region that host and card share.
#[derive(Debug)]
pub(super) struct Words {
    at: NonNull<AtomicU32>,
    len: usize,
    /// Keeps them mapped.
    _region: Arc<DmaRegion>,
}

// SAFETY: they are atomics in memory that the region keeps.
unsafe impl Send for Words {}
// SAFETY: as above.
unsafe impl Sync for Words {}

impl Words {
    /// The `len` words at byte `at` of a region.
    pub(super) fn of(region: &Arc<DmaRegion>, at: usize, len: usize) -> Self {
        assert!(
            at.is_multiple_of(4) && at + len * 4 <= region.len(),
            "the words lie within the region"
        );
        // SAFETY: within the region, as was just seen.
        let at = unsafe { region.base().add(at) };
        Self {
            at: at.cast(),
            len,
            _region: Arc::clone(region),
        }
    }
}

impl Words {
    /// Reads a word as a bus does: all ones where there is none.
    pub(super) fn read(&self, at: u32) -> u32 {
        self.get(at as usize)
            .map_or(u32::MAX, |word| word.load(Ordering::Acquire))
    }

    /// Writes it.
    pub(super) fn write(&self, at: u32, value: u32) {
        if let Some(word) = self.get(at as usize) {
            word.store(value, Ordering::Release);
        }
    }
}

impl Deref for Words {
    type Target = [AtomicU32];

    fn deref(&self) -> &[AtomicU32] {
        // SAFETY: `at` points to `len` words within the region, which only atomics and the card access.
        unsafe { slice::from_raw_parts(self.at.as_ptr(), self.len) }
    }
}

/// How much of everything a queue has.
#[derive(Clone, Copy, Debug)]
pub(super) struct Sizes {
    pub(super) descriptors_shift: u32,
    pub(super) events_shift: u32,
    pub(super) blocks: u32,
    pub(super) frame_size: u32,
    pub(super) raw_frames: u32,
}

/// Offsets into the region.
#[derive(Clone, Copy, Debug)]
pub(super) struct Layout {
    pub(super) descriptors: usize,
    pub(super) events: usize,
    pub(super) control: usize,
    pub(super) blocks: usize,
    pub(super) frames: usize,
    raw: usize,
    end: usize,
}

/// A queue's region.
#[derive(Debug)]
pub(super) struct QueueMemory {
    region: Arc<DmaRegion>,
    pub(super) sizes: Sizes,
    pub(super) layout: Layout,
    pub(super) control: Words,
    blocks: Words,
    /// Raw frames written, free-running: slot `n % raw_frames`.
    raw_tail: u32,
}

impl Layout {
    fn new(sizes: Sizes) -> Self {
        let mut end = 0;
        let mut take = |bytes: usize| {
            let at = end;
            end += bytes.next_multiple_of(4096);
            at
        };
        let frame = sizes.frame_size as usize;
        Self {
            descriptors: take((DESCRIPTOR_WORDS * 4) << sizes.descriptors_shift),
            events: take((EVENT_WORDS * 4) << sizes.events_shift),
            control: take(constant::CONTROL_WORDS as usize * 4),
            blocks: take(constant::FLOW_BLOCK_WORDS as usize * 4 * sizes.blocks as usize),
            frames: take(frame << sizes.events_shift),
            raw: take(frame * sizes.raw_frames as usize),
            end: take(0),
        }
    }
}

impl QueueMemory {
    pub(super) fn new(sizes: Sizes) -> io::Result<Self> {
        let layout = Layout::new(sizes);
        let region = DmaRegion::shared("flextcp-queue", layout.end)?;
        let words = |at, len| Words::of(&region, at, len);
        let blocks = constant::FLOW_BLOCK_WORDS as usize * sizes.blocks as usize;
        Ok(Self {
            control: words(layout.control, constant::CONTROL_WORDS as usize),
            blocks: words(layout.blocks, blocks),
            sizes,
            layout,
            raw_tail: 0,
            region,
        })
    }

    pub(super) const fn region(&self) -> &Arc<DmaRegion> {
        &self.region
    }

    /// The `len` words at byte `at` of the region.
    pub(super) fn words(&self, at: usize, len: usize) -> Words {
        Words::of(&self.region, at, len)
    }

    /// Everything as it was at first.
    pub(super) fn clear(&mut self) {
        let words = self.words(0, self.layout.frames / 4);
        words
            .iter()
            .for_each(|word| word.store(0, Ordering::Relaxed));
        self.raw_tail = 0;
    }

    /// The block of a flow.
    pub(super) fn block(&self, index: u32) -> &[AtomicU32] {
        let len = constant::FLOW_BLOCK_WORDS as usize;
        &self.blocks[index as usize * len..][..len]
    }

    /// Fills a flow's block: state, then what belongs to its buffers.
    pub(super) fn write_block(&self, index: u32, state: &[u32], rest: &[(u32, u32)]) {
        let block = self.block(index);
        for (to, from) in block.iter().zip(state) {
            to.store(from.to_le(), Ordering::Relaxed);
        }
        for &(word, value) in rest {
            block[word as usize].store(value.to_le(), Ordering::Relaxed);
        }
    }

    /// The state that the card left in a flow's block.
    pub(super) fn read_block<const N: usize>(&self, index: u32) -> [u32; N] {
        let block = self.block(index);
        debug_assert!(N <= flow_block::RECV_LOW as usize, "the state comes first");
        std::array::from_fn(|word| u32::from_le(block[word].load(Ordering::Relaxed)))
    }

    /// Where the retransmission timer of a returned flow runs from: milliseconds, and nanoseconds within them.
    pub(super) fn outstanding_since(&self, index: u32) -> Option<(u32, u32)> {
        let block = self.block(index);
        let read = |word: u32| u32::from_le(block[word as usize].load(Ordering::Relaxed));
        (read(flow_block::OUTSTANDING) != 0).then(|| {
            (
                read(flow_block::OUTSTANDING_MS),
                read(flow_block::OUTSTANDING_NS),
            )
        })
    }

    /// The frame of the event at `position`, at most as long as its slot.
    pub(super) fn frame(&self, position: u32, len: u32) -> &[u8] {
        let slot = position & ((1 << self.sizes.events_shift) - 1);
        let at = self.layout.frames + slot as usize * self.sizes.frame_size as usize;
        let len = len.min(self.sizes.frame_size) as usize;
        // SAFETY: within the region; the card leaves the slot alone until the event is given back, which needs
        // `&mut` of what owns this.
        unsafe { slice::from_raw_parts(self.region.base().add(at).as_ptr(), len) }
    }

    /// Writes a frame that is to be sent, in pieces; returns where it is, or `None` when `sent` shows no free slot or
    /// it does not fit one.
    pub(super) fn put_raw(&mut self, sent: u32, pieces: [&[u8]; 3]) -> Option<usize> {
        let len: usize = pieces.iter().map(|piece| piece.len()).sum();
        let waiting = self.raw_tail.wrapping_sub(sent);
        if waiting >= self.sizes.raw_frames || len > self.sizes.frame_size as usize {
            return None;
        }
        let slot = self.raw_tail % self.sizes.raw_frames;
        let start = self.layout.raw + slot as usize * self.sizes.frame_size as usize;
        let mut at = start;
        for piece in pieces {
            // SAFETY: within the region, in a slot that the card has read.
            unsafe {
                self.region
                    .base()
                    .add(at)
                    .copy_from_nonoverlapping(NonNull::from(piece).cast(), piece.len());
            }
            at += piece.len();
        }
        self.raw_tail = self.raw_tail.wrapping_add(1);
        Some(start)
    }

    pub(super) fn raw_is_full(&self, sent: u32) -> bool {
        self.raw_tail.wrapping_sub(sent) >= self.sizes.raw_frames
    }
}
