//! The pool that all rings take their memory from: one limit, power-of-two blocks, bounded recycling.

use std::alloc::{Layout, alloc_zeroed, dealloc};
use std::fmt;
use std::ptr::NonNull;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use super::OutOfBuffers;
#[cfg(target_os = "linux")]
use super::arena::{Arena, DmaRegion};
use super::memory::Memory;

/// Smallest block: one page. Always granted, so that a full pool slows connections down but stops none.
pub const MIN_BLOCK: u32 = 1 << MIN_SHIFT;
/// Largest block: the largest window TCP can advertise (RFC 7323, section 2.3).
pub const MAX_BLOCK: u32 = 1 << MAX_SHIFT;

#[cfg(not(all(flextcp_loom, test)))]
const MIN_SHIFT: u32 = 12;
/// Models run over rings of four bytes.
#[cfg(all(flextcp_loom, test))]
const MIN_SHIFT: u32 = 2;
const MAX_SHIFT: u32 = 30;
const CLASSES: usize = (MAX_SHIFT - MIN_SHIFT + 1) as usize;
/// The allocator's own alignment: with it a zeroed large block is fresh pages, not a `memset`.
const ALIGN: usize = 16;
/// At most this much freed memory is kept for reuse.
const CACHE_MAX: u64 = 32 << 20;

/// A ring's first block while memory is short: a few segments.
const FIRST_UNDER_PRESSURE: u32 = 4 * MIN_BLOCK;

/// How much of a [`Pool`] is in use: Linux's three values of `tcp_mem`.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Pressure {
    /// Buffers grow as connections can use it.
    Low,
    /// None grows, and new ones are small.
    Pressed,
    /// The limit is reached, and only blocks of [`MIN_BLOCK`] are given: nobody new comes in.
    High,
}

/// Memory of the app buffers of all connections, under one limit.
pub struct Pool {
    limit: u64,
    used: AtomicU64,
    pressed: AtomicBool,
    cache_limit: u64,
    cache: Mutex<Cache>,
    #[cfg(target_os = "linux")]
    arena: Option<Arena>,
}

struct Cache {
    bytes: u64,
    free: [Vec<Block>; CLASSES],
}

/// One allocation of `1 << shift` initialized bytes; owns them.
struct Block {
    base: NonNull<u8>,
    shift: u32,
}

// SAFETY: a block is plain memory with one owner.
unsafe impl Send for Block {}

impl Block {
    const fn layout(shift: u32) -> Layout {
        match Layout::from_size_align(1 << shift, ALIGN) {
            Ok(layout) => layout,
            Err(_) => panic!("a block is at most 1 GiB"),
        }
    }

    fn allocate(shift: u32) -> Option<Self> {
        // SAFETY: the layout has a non-zero size.
        let base = NonNull::new(unsafe { alloc_zeroed(Self::layout(shift)) })?;
        Some(Self { base, shift })
    }
}

impl Drop for Block {
    fn drop(&mut self) {
        // SAFETY: `base` came from `alloc_zeroed` with this layout, and the block is its only owner.
        unsafe { dealloc(self.base.as_ptr(), Self::layout(self.shift)) };
    }
}

impl Pool {
    /// A pool that hands out at most `limit` bytes, apart from blocks of [`MIN_BLOCK`], which it never refuses.
    pub fn new(limit: u64) -> Arc<Self> {
        Arc::new(Self {
            limit,
            used: AtomicU64::new(0),
            pressed: AtomicBool::new(false),
            cache_limit: (limit / 8).min(CACHE_MAX),
            cache: Mutex::new(Cache {
                bytes: 0,
                free: std::array::from_fn(|_| Vec::new()),
            }),
            #[cfg(target_os = "linux")]
            arena: None,
        })
    }

    /// A pool in memory that a device can reach, of at most half of the region, so that it has room for blocks of
    /// [`MIN_BLOCK`] then, too.
    #[cfg(target_os = "linux")]
    pub fn in_region(region: Arc<DmaRegion>, limit: u64) -> Arc<Self> {
        let limit = limit.min(region.len() as u64 / 2);
        Arc::new(Self {
            limit,
            used: AtomicU64::new(0),
            pressed: AtomicBool::new(false),
            cache_limit: 0,
            cache: Mutex::new(Cache {
                bytes: 0,
                free: std::array::from_fn(|_| Vec::new()),
            }),
            arena: Some(Arena::new(region)),
        })
    }

    /// The region that all of its blocks are in, if a device can reach them.
    #[cfg(target_os = "linux")]
    pub fn region(&self) -> Option<&Arc<DmaRegion>> {
        self.arena.as_ref().map(Arena::region)
    }

    /// Bytes in use by rings.
    pub fn used(&self) -> u64 {
        self.used.load(Ordering::Relaxed)
    }

    /// The limit in bytes.
    pub const fn limit(&self) -> u64 {
        self.limit
    }

    /// How much of the limit is in use (`tcp_mem`).
    pub fn pressure(&self) -> Pressure {
        if self.used() > self.limit {
            Pressure::High
        } else if self.under_pressure() {
            Pressure::Pressed
        } else {
            Pressure::Low
        }
    }

    /// Whether memory is short: time to let no buffer grow and windows shrink. It begins at three quarters of the limit
    /// and is over at a half, so that it does not come and go with each block.
    pub fn under_pressure(&self) -> bool {
        self.pressed.load(Ordering::Relaxed)
    }

    /// What a ring that wants `bytes` at first gets: little while memory is short.
    pub fn first_block(&self, bytes: u32) -> u32 {
        if self.under_pressure() {
            bytes.min(FIRST_UNDER_PRESSURE)
        } else {
            bytes
        }
    }

    fn uncharge(&self, size: u64) {
        let used = self.used.fetch_sub(size, Ordering::Relaxed) - size;
        if used <= self.limit / 2 && self.under_pressure() {
            self.pressed.store(false, Ordering::Relaxed);
        }
    }

    /// The block size that holds `bytes`.
    pub(crate) fn block_size(bytes: u32) -> u32 {
        bytes.clamp(MIN_BLOCK, MAX_BLOCK).next_power_of_two()
    }

    /// A block of at least `bytes`, a power of two, with unspecified but initialized content.
    pub(crate) fn take(self: &Arc<Self>, bytes: u32) -> Result<Memory, OutOfBuffers> {
        let size = Self::block_size(bytes);
        self.charge(size)?;
        let shift = size.trailing_zeros();
        #[cfg(target_os = "linux")]
        if let Some(arena) = &self.arena {
            let Some(base) = arena.take(shift) else {
                self.uncharge(u64::from(size));
                return Err(OutOfBuffers);
            };
            // SAFETY: the arena's bytes are initialized, and it has just given these out.
            return Ok(unsafe { Memory::from_raw(base, shift, Arc::clone(self)) });
        }
        let cached = {
            let mut cache = self.cache();
            let block = cache.free[(shift - MIN_SHIFT) as usize].pop();
            if block.is_some() {
                cache.bytes -= u64::from(size);
            }
            block
        };
        let Some(block) = cached.or_else(|| Block::allocate(shift)) else {
            self.uncharge(u64::from(size));
            return Err(OutOfBuffers);
        };
        let base = block.base;
        std::mem::forget(block);
        // SAFETY: the block's `1 << shift` bytes are initialized, and forgetting it passes its ownership on.
        Ok(unsafe { Memory::from_raw(base, shift, Arc::clone(self)) })
    }

    fn charge(&self, size: u32) -> Result<(), OutOfBuffers> {
        let size = u64::from(size);
        let charged = self
            .used
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, |used| {
                let used = used + size;
                (used <= self.limit || size == u64::from(MIN_BLOCK)).then_some(used)
            });
        let before = charged.map_err(|_| OutOfBuffers)?;
        if before + size > self.limit / 4 * 3 && !self.under_pressure() {
            self.pressed.store(true, Ordering::Relaxed);
        }
        Ok(())
    }

    /// Takes a block back.
    ///
    /// # Safety
    /// `base` and `shift` come from one [`take`](Self::take) of this pool, and nobody uses the memory any more.
    pub(super) unsafe fn give_back(&self, base: NonNull<u8>, shift: u32) {
        let size = 1_u64 << shift;
        self.uncharge(size);
        #[cfg(target_os = "linux")]
        if let Some(arena) = &self.arena {
            arena.give_back(base, shift);
            return;
        }
        let block = Block { base, shift };
        let mut cache = self.cache();
        if cache.bytes + size <= self.cache_limit {
            cache.bytes += size;
            cache.free[(shift - MIN_SHIFT) as usize].push(block);
        }
    }

    fn cache(&self) -> std::sync::MutexGuard<'_, Cache> {
        self.cache.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl fmt::Debug for Pool {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Pool")
            .field("used", &self.used())
            .field("limit", &self.limit)
            .finish_non_exhaustive()
    }
}

#[cfg(all(test, not(flextcp_loom)))]
mod tests {
    use super::*;

    #[test]
    fn accounts_and_recycles() {
        let pool = Pool::new(1 << 20);
        let block = pool.take(5000).unwrap();
        assert_eq!(block.capacity(), 8192);
        assert_eq!(pool.used(), 8192);
        drop(block);
        assert_eq!(pool.used(), 0);
        assert_eq!(pool.cache().bytes, 8192);
        let _again = pool.take(8192).unwrap();
        assert_eq!(pool.cache().bytes, 0);
    }

    #[test]
    fn refuses_beyond_the_limit_but_never_the_least_block() {
        let pool = Pool::new(64 << 10);
        let all = pool.take(64 << 10).unwrap();
        assert!(pool.under_pressure());
        assert!(matches!(pool.take(8192), Err(OutOfBuffers)));
        assert_eq!(pool.take(1).unwrap().capacity(), MIN_BLOCK);
        drop(all);
        assert!(pool.take(8192).is_ok());
    }

    #[test]
    fn pressure_begins_at_three_quarters_and_is_over_at_a_half() {
        let pool = Pool::new(64 << 10);
        let mut blocks: Vec<_> = (0..12).map(|_| pool.take(4096).unwrap()).collect();
        assert_eq!(pool.pressure(), Pressure::Low);
        assert_eq!(pool.first_block(1 << 20), 1 << 20);
        blocks.push(pool.take(4096).unwrap());
        assert_eq!(pool.pressure(), Pressure::Pressed);
        assert_eq!(pool.first_block(1 << 20), 16 << 10);
        blocks.truncate(9);
        assert_eq!(pool.pressure(), Pressure::Pressed);
        blocks.truncate(8);
        assert_eq!(pool.pressure(), Pressure::Low);
        blocks.extend((0..9).map(|_| pool.take(4096).unwrap()));
        assert_eq!(pool.pressure(), Pressure::High);
        drop(blocks);
        assert_eq!(pool.pressure(), Pressure::Low);
    }

    #[test]
    fn cache_is_bounded() {
        let pool = Pool::new(1 << 20);
        let blocks: Vec<_> = (0..16).map(|_| pool.take(64 << 10).unwrap()).collect();
        drop(blocks);
        assert_eq!(pool.cache().bytes, 128 << 10);
    }
}
