//! Memory that a device can reach: one mapping of pages, and a buddy allocator over it.

use std::collections::BTreeSet;
use std::fmt;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::ptr::NonNull;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use rustix::fs::{
    MemfdFlags, SealFlags, fcntl_add_seals, fcntl_get_seals, fstat, ftruncate, memfd_create,
};
use rustix::mm::{Advice, MapFlags, ProtFlags, madvise, mmap, mmap_anonymous, munmap};

use super::pool::MIN_BLOCK;

/// Blocks from this size on give their pages back to the system when they are freed.
const RETURNED: u32 = 18;

/// Pages that a device reads and writes while they are mapped here: zeroed at first, in use only as far as they are
/// touched.
pub struct DmaRegion {
    base: NonNull<u8>,
    len: usize,
    /// What another process maps to share them.
    fd: Option<OwnedFd>,
    /// A device knows where the pages are.
    pinned: AtomicBool,
}

// SAFETY: the region is plain memory; whoever hands out parts of it excludes data races.
unsafe impl Send for DmaRegion {}
// SAFETY: as above.
unsafe impl Sync for DmaRegion {}

impl DmaRegion {
    /// A region of this process alone, of `len` bytes rounded up to a power of two of pages.
    ///
    /// # Errors
    /// The system has no address space left.
    pub fn private(len: usize) -> io::Result<Arc<Self>> {
        let len = Self::size(len);
        let flags = MapFlags::PRIVATE | MapFlags::NORESERVE;
        // SAFETY: a new mapping at an address that the kernel chooses touches no other memory.
        let base = unsafe {
            mmap_anonymous(
                std::ptr::null_mut(),
                len,
                ProtFlags::READ | ProtFlags::WRITE,
                flags,
            )
        }?;
        Self::from_mapping(base.cast(), len, None)
    }

    /// A region that another process may map, by [`fd`](Self::fd).
    ///
    /// # Errors
    /// The system has no address space or memory left.
    pub fn shared(name: &str, len: usize) -> io::Result<Arc<Self>> {
        let len = Self::size(len);
        let fd = memfd_create(name, MemfdFlags::CLOEXEC | MemfdFlags::ALLOW_SEALING)?;
        ftruncate(&fd, len as u64)?;
        // Whoever maps it is never without memory where there was some.
        fcntl_add_seals(&fd, SealFlags::SHRINK)?;
        Self::of_fd(fd, len)
    }

    /// The region that another process made, of `len` bytes.
    ///
    /// # Errors
    /// The descriptor cannot be mapped.
    pub fn of_fd(fd: OwnedFd, len: usize) -> io::Result<Arc<Self>> {
        let flags = MapFlags::SHARED | MapFlags::NORESERVE;
        // SAFETY: as in `private`.
        let base = unsafe {
            mmap(
                std::ptr::null_mut(),
                len,
                ProtFlags::READ | ProtFlags::WRITE,
                flags,
                &fd,
                0,
            )
        }?;
        Self::from_mapping(base.cast(), len, Some(fd))
    }

    /// The region that a process shares which is not trusted: one that can neither be shorter than it says, nor become so.
    ///
    /// # Errors
    /// It is, or the descriptor cannot be mapped.
    pub fn of_other(fd: OwnedFd, len: usize) -> io::Result<Arc<Self>> {
        let sealed = fcntl_get_seals(&fd)?.contains(SealFlags::SHRINK);
        let there = u64::try_from(fstat(&fd)?.st_size).unwrap_or(0);
        if !sealed || len == 0 || there < len as u64 {
            return Err(io::Error::new(
                io::ErrorKind::InvalidInput,
                "shared memory must be as long as it is said to be, and sealed against shrinking (F_SEAL_SHRINK)",
            ));
        }
        Self::of_fd(fd, len)
    }

    fn from_mapping(base: *mut u8, len: usize, fd: Option<OwnedFd>) -> io::Result<Arc<Self>> {
        let base = NonNull::new(base).ok_or(io::ErrorKind::OutOfMemory)?;
        Ok(Arc::new(Self {
            base,
            len,
            fd,
            pinned: AtomicBool::new(false),
        }))
    }

    fn size(len: usize) -> usize {
        len.max(MIN_BLOCK as usize).next_power_of_two()
    }

    /// Bytes.
    pub const fn len(&self) -> usize {
        self.len
    }

    /// Whether it has no byte, which never happens.
    pub const fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Its first byte.
    pub const fn base(&self) -> NonNull<u8> {
        self.base
    }

    /// What another process maps, unless the region is [`private`](Self::private).
    pub fn fd(&self) -> Option<BorrowedFd<'_>> {
        self.fd.as_ref().map(AsFd::as_fd)
    }

    /// Where `at` lies in it, if `len` bytes from there do.
    pub fn offset_of(&self, at: NonNull<u8>, len: usize) -> Option<usize> {
        let offset = (at.as_ptr() as usize).checked_sub(self.base.as_ptr() as usize)?;
        (offset.checked_add(len)? <= self.len).then_some(offset)
    }

    /// Keeps the pages of freed blocks: a device reaches them where they are.
    pub(crate) fn pin(&self) {
        self.pinned.store(true, Ordering::Release);
    }

    /// Gives the pages of a freed block back; they are zero when they are next touched.
    fn forget(&self, offset: usize, len: usize) {
        if self.pinned.load(Ordering::Acquire) {
            return;
        }
        let advice = if self.fd.is_some() {
            Advice::LinuxRemove
        } else {
            Advice::LinuxDontNeed
        };
        // SAFETY: the range is whole pages of this mapping, which nobody uses.
        let result = unsafe { madvise(self.base.as_ptr().add(offset).cast(), len, advice) };
        // Without it the pages stay, nothing worse.
        let _ = result;
    }
}

impl Drop for DmaRegion {
    fn drop(&mut self) {
        // SAFETY: the mapping is this region's alone, and its last user is gone.
        let result = unsafe { munmap(self.base.as_ptr().cast(), self.len) };
        debug_assert!(result.is_ok(), "a whole mapping can be unmapped");
    }
}

impl fmt::Debug for DmaRegion {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("DmaRegion")
            .field("len", &self.len)
            .field("shared", &self.fd.is_some())
            .finish_non_exhaustive()
    }
}

/// Hands out power-of-two blocks of a region.
pub(super) struct Arena {
    region: Arc<DmaRegion>,
    /// Offsets of free blocks, by the logarithm of their size.
    free: Mutex<Vec<BTreeSet<usize>>>,
}

impl Arena {
    pub(super) fn new(region: Arc<DmaRegion>) -> Self {
        let top = region.len().trailing_zeros() as usize;
        let mut free = vec![BTreeSet::new(); top + 1];
        free[top].insert(0);
        Self {
            region,
            free: Mutex::new(free),
        }
    }

    pub(super) const fn region(&self) -> &Arc<DmaRegion> {
        &self.region
    }

    /// A block of `1 << shift` bytes.
    pub(super) fn take(&self, shift: u32) -> Option<NonNull<u8>> {
        let shift = shift as usize;
        let mut free = self.free.lock().unwrap_or_else(PoisonError::into_inner);
        let mut have = (shift..free.len()).find(|&class| !free[class].is_empty())?;
        let offset = free[have].pop_first()?;
        while have > shift {
            have -= 1;
            free[have].insert(offset + (1 << have));
        }
        // SAFETY: the offset lies in the mapping.
        Some(unsafe { self.region.base.add(offset) })
    }

    /// Takes a block back, which [`take`](Self::take) gave out.
    pub(super) fn give_back(&self, base: NonNull<u8>, shift: u32) {
        let Some(mut offset) = self.region.offset_of(base, 1 << shift) else {
            debug_assert!(false, "a block of another arena");
            return;
        };
        if shift >= RETURNED {
            self.region.forget(offset, 1 << shift);
        }
        let mut shift = shift as usize;
        let mut free = self.free.lock().unwrap_or_else(PoisonError::into_inner);
        while shift + 1 < free.len() && free[shift].remove(&(offset ^ (1 << shift))) {
            offset &= !(1 << shift);
            shift += 1;
        }
        free[shift].insert(offset);
    }
}

#[cfg(test)]
mod tests {
    use super::super::Pool;
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn blocks_are_in_the_region_and_come_together_again() {
        for region in [
            DmaRegion::private(1 << 20).unwrap(),
            DmaRegion::shared("arena", 1 << 20).unwrap(),
        ] {
            let pool = Pool::in_region(Arc::clone(&region), 1 << 30);
            assert_eq!(pool.limit(), 1 << 19);
            let blocks: Vec<_> = (0..8).map(|_| pool.take(40_000).unwrap()).collect();
            for block in &blocks {
                assert!(region.offset_of(block.base(), 65536).is_some());
            }
            assert!(pool.take(8192).is_err(), "the limit");
            assert!(pool.take(100).is_ok(), "never refused");
            drop(blocks);
            assert_eq!(pool.take(1 << 19).unwrap().capacity(), 1 << 19);
        }
    }

    proptest! {
        /// Blocks never overlap, and when all are back the region is whole.
        #[test]
        fn blocks_do_not_overlap(steps in prop::collection::vec((12_u32..17, any::<prop::sample::Index>()), 1..100)) {
            let arena = Arena::new(DmaRegion::private(1 << 18).unwrap());
            let mut taken: Vec<(usize, u32)> = Vec::new();
            for (shift, which) in steps {
                if let Some(base) = arena.take(shift) {
                    let offset = arena.region.offset_of(base, 1 << shift).expect("in the region");
                    prop_assert!(taken.iter().all(|&(at, size)| offset + (1 << shift) <= at || at + (1 << size) <= offset));
                    taken.push((offset, shift));
                } else {
                    let (offset, shift) = taken.swap_remove(which.index(taken.len()));
                    // SAFETY: within the region.
                    arena.give_back(unsafe { arena.region.base.add(offset) }, shift);
                }
            }
            for (offset, shift) in taken {
                // SAFETY: within the region.
                arena.give_back(unsafe { arena.region.base.add(offset) }, shift);
            }
            prop_assert!(arena.take(18).is_some());
        }
    }
}
