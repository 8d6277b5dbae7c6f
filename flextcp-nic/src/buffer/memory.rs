//! The memory of one ring, addressed by free-running positions.

use std::fmt;
use std::ptr::NonNull;
use std::slice;
use std::sync::Arc;

use super::pool::Pool;

/// A power of two of initialized bytes. Shared by the two halves of a ring, which see to it that no byte
/// is written while another thread reads or writes it.
pub(crate) struct Memory {
    base: NonNull<u8>,
    shift: u32,
    pool: Arc<Pool>,
    /// One for each byte: loom reports a race on it as one on the byte.
    #[cfg(all(flextcp_loom, test))]
    watch: Vec<loom::cell::UnsafeCell<()>>,
}

// SAFETY: all access to the bytes is through the unsafe methods below, whose callers exclude data races.
unsafe impl Send for Memory {}
// SAFETY: as above.
unsafe impl Sync for Memory {}

impl Memory {
    /// Takes over a block of the pool.
    ///
    /// # Safety
    /// `base` points to `1 << shift` initialized bytes that the pool passes on with their ownership.
    pub(super) unsafe fn from_raw(base: NonNull<u8>, shift: u32, pool: Arc<Pool>) -> Self {
        Self {
            base,
            shift,
            pool,
            #[cfg(all(flextcp_loom, test))]
            watch: (0..1 << shift).map(|_| Default::default()).collect(),
        }
    }

    /// Bytes.
    pub(crate) const fn capacity(&self) -> u32 {
        1 << self.shift
    }

    /// Where it starts.
    pub(crate) const fn base(&self) -> NonNull<u8> {
        self.base
    }

    /// Where `len` bytes from `position` lie: offset and length of the part before the wrap, length of the
    /// part after it (from offset 0).
    fn span(&self, position: u64, len: usize) -> (usize, usize, usize) {
        let capacity = self.capacity() as usize;
        assert!(len <= capacity, "a span fits its ring");
        let offset = (position & (capacity as u64 - 1)) as usize;
        let first = len.min(capacity - offset);
        (offset, first, len - first)
    }

    #[cfg(all(flextcp_loom, test))]
    fn touch(&self, position: u64, len: usize, touch: impl Fn(&loom::cell::UnsafeCell<()>)) {
        let (offset, first, second) = self.span(position, len);
        let parts = [&self.watch[offset..offset + first], &self.watch[..second]];
        parts.into_iter().flatten().for_each(touch);
    }

    /// Copies `bytes` to `position`.
    ///
    /// # Safety
    /// Nobody else reads or writes the bytes at `position..position + bytes.len()` meanwhile.
    pub(crate) unsafe fn write(&self, position: u64, bytes: &[u8]) {
        #[cfg(all(flextcp_loom, test))]
        self.touch(position, bytes.len(), |byte| byte.with_mut(|_| ()));
        let (offset, first, second) = self.span(position, bytes.len());
        // SAFETY: `span` keeps both parts within the block, `bytes` does not overlap it as the caller has
        // exclusive use of the target, and `first + second == bytes.len()`.
        unsafe {
            self.base
                .add(offset)
                .copy_from_nonoverlapping(NonNull::from(bytes).cast(), first);
            if second > 0 {
                let rest = NonNull::from(&bytes[first..]).cast();
                self.base.copy_from_nonoverlapping(rest, second);
            }
        }
    }

    /// Copies the bytes at `position` to `out`.
    ///
    /// # Safety
    /// Nobody writes the bytes at `position..position + out.len()` meanwhile.
    pub(crate) unsafe fn read(&self, position: u64, out: &mut [u8]) {
        // SAFETY: as the caller promises.
        let [first, second] = unsafe { self.slices(position, out.len()) };
        let (head, tail) = out.split_at_mut(first.len());
        head.copy_from_slice(first);
        tail.copy_from_slice(second);
    }

    /// The bytes at `position..position + len`, in two parts when they wrap.
    ///
    /// # Safety
    /// Nobody writes these bytes while the slices live.
    pub(crate) unsafe fn slices(&self, position: u64, len: usize) -> [&[u8]; 2] {
        #[cfg(all(flextcp_loom, test))]
        self.touch(position, len, |byte| byte.with(|_| ()));
        let (offset, first, second) = self.span(position, len);
        // SAFETY: `span` keeps both parts within the block, all of which is initialized; nobody writes them.
        unsafe {
            [
                slice::from_raw_parts(self.base.add(offset).as_ptr(), first),
                slice::from_raw_parts(self.base.as_ptr(), second),
            ]
        }
    }

    /// Copies `len` bytes at `position` from `other`, to the same position here.
    ///
    /// # Safety
    /// Nobody writes these bytes of `other`, and nobody reads or writes them here, meanwhile.
    pub(crate) unsafe fn copy_from(&self, other: &Self, position: u64, len: usize) {
        // SAFETY: as the caller promises.
        unsafe {
            let [first, second] = other.slices(position, len);
            self.write(position, first);
            self.write(position + first.len() as u64, second);
        }
    }
}

impl Drop for Memory {
    fn drop(&mut self) {
        // SAFETY: `base` and `shift` came from `Pool::take`, and the last user is gone.
        unsafe { self.pool.give_back(self.base, self.shift) };
    }
}

impl fmt::Debug for Memory {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Memory")
            .field("capacity", &self.capacity())
            .finish_non_exhaustive()
    }
}
