//! The emulated card's DMA engine: checks every address, and carries transfers out when its schedule says.

use std::ptr::NonNull;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering, fence};

use super::ffi::Transfer;
use super::{Random, Schedule};
use crate::buffer::DmaRegion;

/// Bus address of the first region: nothing that a host pointer could be mistaken for, with both words in use.
const FIRST: u64 = 0x7f_ffff_0000_0000;
/// Between regions lies memory that nobody has.
const GAP: u64 = 1 << 20;

/// The engine, and what it reaches.
pub(super) struct Dma {
    schedule: Schedule,
    random: Random,
    regions: Vec<(u64, Arc<DmaRegion>)>,
    pending: Vec<Transfer>,
    refused: u64,
}

impl Dma {
    pub(super) const fn new(schedule: Schedule, random: Random) -> Self {
        Self {
            schedule,
            random,
            regions: Vec::new(),
            pending: Vec::new(),
            refused: 0,
        }
    }

    pub(super) const fn refused(&self) -> u64 {
        self.refused
    }

    pub(super) fn map(&mut self, region: &Arc<DmaRegion>) -> u64 {
        if let Some((address, _)) = self.regions.iter().find(|(_, of)| Arc::ptr_eq(of, region)) {
            return *address;
        }
        let address = self.regions.last().map_or(FIRST, |(address, last)| {
            (address + last.len() as u64 + GAP).next_multiple_of(GAP)
        });
        self.regions.push((address, Arc::clone(region)));
        address
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
        let Some(host) = self.reach(transfer.address(), len) else {
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

    fn reach(&self, address: u64, len: usize) -> Option<NonNull<u8>> {
        let (base, region) = self
            .regions
            .iter()
            .find(|(base, region)| (*base..*base + region.len() as u64).contains(&address))?;
        let offset = usize::try_from(address - base).ok()?;
        if offset.checked_add(len)? > region.len() {
            return None;
        }
        // SAFETY: within the region, as was just seen.
        Some(unsafe { region.base().add(offset) })
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
