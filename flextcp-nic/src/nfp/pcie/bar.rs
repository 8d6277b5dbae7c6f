//! The firmware's words in a mapped BAR.

use std::io;
use std::os::fd::BorrowedFd;
use std::sync::atomic::{Ordering, fence};

use rustix::mm::{MapFlags, ProtFlags, mmap, munmap};

use crate::queue::abi::constant;

const PAGE: usize = 4096;

/// The firmware's words, within a mapped BAR.
#[derive(Debug)]
pub(super) struct BarWindow {
    base: *mut u32,
    len: usize,
    /// Where the firmware's first word is.
    first: usize,
}

// SAFETY: the mapping is this window's alone; device memory is bound to no thread.
unsafe impl Send for BarWindow {}

impl BarWindow {
    /// Maps the `len` bytes that `device` shows at `offset`, and finds the firmware in them: it begins with
    /// [`MAGIC`](constant::MAGIC), on a page.
    ///
    /// # Errors
    /// They cannot be mapped, or no FlexTCP firmware is there.
    pub(super) fn map(device: BorrowedFd<'_>, offset: u64, len: usize) -> io::Result<Self> {
        if len < PAGE {
            return Err(io::Error::new(
                io::ErrorKind::InvalidData,
                "the BAR is no memory; is another one the card's?",
            ));
        }
        // SAFETY: a new mapping at an address that the kernel chooses touches no other memory.
        let base = unsafe {
            mmap(
                std::ptr::null_mut(),
                len,
                ProtFlags::READ | ProtFlags::WRITE,
                MapFlags::SHARED,
                device,
                offset,
            )
        }?;
        let mut window = Self {
            base: base.cast(),
            len,
            first: 0,
        };
        let first = (0..len / PAGE)
            .map(|page| page * PAGE / 4)
            .find(|&at| window.word(at) == constant::MAGIC);
        window.first = first.ok_or_else(|| {
            io::Error::new(
                io::ErrorKind::NotFound,
                "no FlexTCP firmware runs there: load flextcp.nffw (docs/netronome.md)",
            )
        })?;
        Ok(window)
    }

    fn word(&self, at: usize) -> u32 {
        assert!(at < self.len / 4, "within the BAR");
        // SAFETY: within the mapping, and aligned.
        u32::from_le(unsafe { self.base.add(at).read_volatile() })
    }

    /// Words from the firmware's first one on.
    #[cfg(test)]
    const fn words(&self) -> usize {
        self.len / 4 - self.first
    }

    /// Reads the word `at` ([`register`](crate::queue::abi::register)); all ones outside, as from a card that is gone.
    /// What the card wrote to host memory before is seen by what follows.
    pub(super) fn read(&self, at: u32) -> u32 {
        let at = self.first + at as usize;
        if at >= self.len / 4 {
            return u32::MAX;
        }
        let value = self.word(at);
        fence(Ordering::Acquire);
        value
    }

    /// Writes it; outside, nothing. What was stored to host memory before is there when the card sees the word.
    pub(super) fn write(&mut self, at: u32, value: u32) {
        let at = self.first + at as usize;
        if at < self.len / 4 {
            fence(Ordering::Release);
            // SAFETY: as in `word`.
            unsafe { self.base.add(at).write_volatile(value.to_le()) };
        }
    }
}

impl Drop for BarWindow {
    fn drop(&mut self) {
        // SAFETY: the mapping is this window's alone.
        let result = unsafe { munmap(self.base.cast(), self.len) };
        debug_assert!(result.is_ok(), "a whole mapping can be unmapped");
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::queue::abi::register;
    use std::fs::File;
    use std::io::Write as _;
    use std::os::fd::AsFd as _;

    fn device(bar: &[u32]) -> File {
        let mut file = tempfile::tempfile().unwrap();
        for word in bar {
            file.write_all(&word.to_le_bytes()).unwrap();
        }
        file
    }

    #[test]
    fn the_firmware_is_found_by_its_first_word() {
        let mut bar = vec![0_u32; 4096];
        let error = BarWindow::map(device(&bar).as_fd(), 0, 16384).unwrap_err();
        assert!(error.to_string().contains("load flextcp.nffw"), "{error}");
        bar[2048] = constant::MAGIC;
        bar[2049] = constant::ABI_VERSION;
        let file = device(&bar);
        // The device shows the BAR from a page on.
        let mut window = BarWindow::map(file.as_fd(), 4096, 12288).unwrap();
        assert_eq!(window.words(), 2048);
        assert_eq!(window.read(register::ABI_VERSION), constant::ABI_VERSION);
        window.write(register::RESET, 7);
        assert_eq!(window.read(register::RESET), 7);
        assert_eq!(window.read(2048), u32::MAX);
        window.write(2048, 1);
        assert!(BarWindow::map(file.as_fd(), 0, 0).is_err(), "no memory");
    }
}
