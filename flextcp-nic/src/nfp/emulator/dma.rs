//! The emulated card's DMA engine: checks every address, and carries transfers out when its schedule says.

use std::ptr::NonNull;
use std::sync::atomic::{AtomicU32, Ordering, fence};

use super::ffi::Transfer;
use super::{Random, Schedule};
use crate::nfp::regions::{EMULATED, Regions};

/// The engine, and what it reaches.
pub(super) struct Dma {
    schedule: Schedule,
    random: Random,
    pub(super) regions: Regions,
    pending: Vec<Transfer>,
    refused: u64,
}

impl Dma {
    pub(super) const fn new(schedule: Schedule, random: Random) -> Self {
        Self {
            schedule,
            random,
            regions: Regions::new(EMULATED),
            pending: Vec::new(),
            refused: 0,
        }
    }

    pub(super) const fn refused(&self) -> u64 {
        self.refused
    }

    /// Takes a transfer; `false`: not now.
    pub(super) fn start(&mut self, transfer: Transfer) -> bool {
        if self.schedule == Schedule::Hostile
            && !self.pending.is_empty()
            && self.random.below(8) == 0
        {
            return false;
        }
        self.pending.push(transfer);
        true
    }

    /// Carries some out, at least one if there is any and `pressed`; returns which, and whether they failed.
    pub(super) fn carry_out(&mut self, pressed: bool) -> Vec<(u32, bool)> {
        let mut done = Vec::new();
        match self.schedule {
            Schedule::Prompt => {
                for transfer in std::mem::take(&mut self.pending) {
                    done.push((transfer.id, !self.transfer(&transfer)));
                }
            }
            Schedule::Hostile => {
                let mut count = self.random.below(self.pending.len() + 1);
                if pressed {
                    count = count.max(1);
                }
                for _ in 0..count.min(self.pending.len()) {
                    let which = self.random.below(self.pending.len());
                    let transfer = self.pending.swap_remove(which);
                    done.push((transfer.id, !self.transfer(&transfer)));
                }
            }
        }
        done
    }

    fn transfer(&mut self, transfer: &Transfer) -> bool {
        let len = transfer.length as usize;
        let Some(host) = self.regions.reach(transfer.address(), len) else {
            self.refused += 1;
            return false;
        };
        // SAFETY: `host` is `len` bytes of a mapped region, which the ABI gives to the card for this time; `local` is
        // `len` bytes of the card, which are the transfer's until the card is told that it is done.
        unsafe {
            if transfer.to_host != 0 {
                write_host(host, transfer.local, len);
            } else {
                fence(Ordering::Acquire);
                std::ptr::copy_nonoverlapping(host.as_ptr(), transfer.local, len);
            }
        }
        true
    }
}

/// Ascending, the last word with release: whoever sees it sees all before it.
///
/// # Safety
/// `len` bytes at `host` may be written, and at `local` read.
unsafe fn write_host(host: NonNull<u8>, local: *const u8, len: usize) {
    // SAFETY: as the caller promises; the last four bytes are an aligned word where they are written as one.
    unsafe {
        if len < 4 || !(host.as_ptr() as usize + len).is_multiple_of(4) {
            host.as_ptr().copy_from_nonoverlapping(local, len);
            fence(Ordering::Release);
            return;
        }
        host.as_ptr().copy_from_nonoverlapping(local, len - 4);
        let last = local.add(len - 4).cast::<u32>().read_unaligned();
        let word = host.as_ptr().add(len - 4).cast::<AtomicU32>();
        (*word).store(last, Ordering::Release);
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::buffer::DmaRegion;

    const LEN: usize = 8192;

    fn bytes_of(region: &DmaRegion) -> Vec<u8> {
        let mut bytes = vec![0; region.len()];
        rustix::io::pread(region.fd().expect("it is shared"), &mut bytes, 0).unwrap();
        bytes
    }

    #[test]
    fn no_byte_outside_of_a_region_is_reached() {
        let regions = ["one", "two"].map(|name| DmaRegion::shared(name, LEN).unwrap());
        let mut dma = Dma::new(Schedule::Prompt, Random(1));
        let [first, second] = regions.each_ref().map(|region| dma.regions.map(region));
        let len = LEN as u64;
        let mut local = [0xa5_u8; 256];
        let mut write = |dma: &mut Dma, address: u64, length: u32| {
            assert!(dma.start(Transfer {
                id: 1,
                to_host: 1,
                address_low: address as u32,
                address_high: (address >> 32) as u32,
                local: local.as_mut_ptr(),
                length,
            }));
            dma.carry_out(true)
        };
        let wrong = [
            (0, 4),
            (u64::MAX - 3, 8),
            (first - 1, 1),
            (first - 64, 128),
            (first + len - 1, 2),
            (first + len, 1),
            (second - 1, 2),
            (second + len - 255, 256),
            (second + len + (1 << 32), 16),
        ];
        for (address, length) in wrong {
            assert_eq!(
                write(&mut dma, address, length),
                [(1, true)],
                "{address:#x}"
            );
        }
        assert_eq!(dma.refused(), wrong.len() as u64);
        for region in &regions {
            assert!(bytes_of(region).iter().all(|byte| *byte == 0));
        }
        // The first and the last byte are.
        assert_eq!(write(&mut dma, first, 1), [(1, false)]);
        assert_eq!(write(&mut dma, second + len - 256, 256), [(1, false)]);
        assert_eq!(bytes_of(&regions[0])[..2], [0xa5, 0]);
        assert_eq!(bytes_of(&regions[1])[LEN - 257..LEN - 255], [0, 0xa5]);
        // Nor one of a host that is gone.
        dma.regions.clear();
        assert_eq!(write(&mut dma, first, 1), [(1, true)]);
        assert_eq!(
            Arc::strong_count(&regions[0]),
            1,
            "and the memory is let go"
        );
    }
}
