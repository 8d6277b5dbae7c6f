//! Memory shared with the kernel.

use std::io;
use std::os::fd::BorrowedFd;
use std::ptr::{self, NonNull};
use std::sync::atomic::AtomicU64;

use rustix::mm::{self, Advice, MapFlags, ProtFlags};

/// A mapping, unmapped on drop.
#[derive(Debug)]
pub(super) struct Mapping {
    base: NonNull<u8>,
    len: usize,
}

// SAFETY: the mapping is plain memory owned by this value; nothing about it is tied to a thread.
unsafe impl Send for Mapping {}

impl Mapping {
    /// Zeroed private memory, of huge pages when `huge` and the system has them reserved.
    pub(super) fn anonymous(len: usize, huge: bool) -> io::Result<Self> {
        let map = |flags| {
            // SAFETY: a new mapping at an address of the kernel's choice overlaps nothing.
            unsafe {
                mm::mmap_anonymous(
                    ptr::null_mut(),
                    len,
                    ProtFlags::READ | ProtFlags::WRITE,
                    flags,
                )
            }
        };
        let flags = MapFlags::PRIVATE;
        let base = if huge {
            map(flags | MapFlags::HUGETLB).or_else(|_| map(flags))
        } else {
            map(flags)
        }?;
        // Thousands of frames in pages of 4 KiB are more than a TLB holds. Both are wishes: without them the pages
        // come small, and one by one.
        // SAFETY: the range is the mapping just made; neither advice changes what it holds.
        unsafe {
            let _ = mm::madvise(base, len, Advice::LinuxHugepage);
            let _ = mm::madvise(base, len, Advice::LinuxPopulateWrite);
        }
        Ok(Self {
            base: NonNull::new(base.cast()).expect("mmap never returns null"),
            len,
        })
    }

    /// `len` bytes of what `fd` exposes at `offset`, shared with the kernel.
    pub(super) fn shared(fd: BorrowedFd<'_>, offset: u64, len: usize) -> io::Result<Self> {
        let flags = MapFlags::SHARED | MapFlags::POPULATE;
        // SAFETY: a new mapping at an address of the kernel's choice overlaps nothing.
        let base = unsafe {
            mm::mmap(
                ptr::null_mut(),
                len,
                ProtFlags::READ | ProtFlags::WRITE,
                flags,
                fd,
                offset,
            )
        }?;
        Ok(Self {
            base: NonNull::new(base.cast()).expect("mmap never returns null"),
            len,
        })
    }

    /// Its length in bytes.
    pub(super) const fn len(&self) -> usize {
        self.len
    }

    /// Its first byte.
    pub(super) const fn as_ptr(&self) -> *mut u8 {
        self.base.as_ptr()
    }

    /// The word with number `index`, shared with whoever else maps it.
    pub(super) fn word(&self, index: usize) -> Option<&AtomicU64> {
        let place = self.at::<AtomicU64>(index.checked_mul(size_of::<u64>())?, 1)?;
        // SAFETY: inside the mapping, aligned, and atomics may be shared with the kernel, which reads whole words.
        Some(unsafe { place.as_ref() })
    }

    /// Where a value of type `T` starts at `offset`, when all `count` of them lie inside and are aligned.
    pub(super) fn at<T>(&self, offset: usize, count: usize) -> Option<NonNull<T>> {
        let end = size_of::<T>().checked_mul(count)?.checked_add(offset)?;
        if end > self.len {
            return None;
        }
        // SAFETY: `offset <= end <= len`, so the pointer stays inside the mapping.
        let place = unsafe { self.base.add(offset) }.cast::<T>();
        place.is_aligned().then_some(place)
    }
}

impl Drop for Mapping {
    fn drop(&mut self) {
        // SAFETY: `base` and `len` are of the mapping made at construction, and its users hold this value.
        let _ = unsafe { mm::munmap(self.base.as_ptr().cast(), self.len) };
    }
}
