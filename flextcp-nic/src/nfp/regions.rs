//! Which host memory a card reaches, and at which bus addresses.

use std::ptr::NonNull;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

use crate::buffer::DmaRegion;
use crate::queue::abi::{control, queue_register, queue_status, register};

/// Bus address of an emulated card's first region: nothing that a host pointer could be mistaken for, with both words in use.
pub(super) const EMULATED: u64 = 0x7f_ffff_0000_0000;
/// Between regions lies memory that nobody has.
const GAP: u64 = 1 << 20;

/// Regions and their addresses.
#[derive(Debug)]
pub(super) struct Regions {
    of: Vec<(u64, Arc<DmaRegion>)>,
    /// Where the next one goes: no address is used twice, so that a stale one is nobody's.
    next: u64,
}

impl Regions {
    /// None yet; those that are given an address here begin at `first`.
    pub(super) const fn new(first: u64) -> Self {
        Self {
            of: Vec::new(),
            next: first,
        }
    }

    /// Gives a region its address, or says the one it has.
    pub(super) fn map(&mut self, region: &Arc<DmaRegion>) -> u64 {
        if let Some((address, _)) = self.of.iter().find(|(_, of)| Arc::ptr_eq(of, region)) {
            return *address;
        }
        let address = self.next;
        self.next = (address + region.len() as u64 + GAP).next_multiple_of(GAP);
        self.of.push((address, Arc::clone(region)));
        address
    }

    /// A region at the address that the card gave it.
    pub(super) fn insert(&mut self, address: u64, region: &Arc<DmaRegion>) {
        self.of.push((address, Arc::clone(region)));
    }

    /// Puts all of them out of reach.
    #[cfg(feature = "firmware")]
    pub(super) fn clear(&mut self) {
        self.of.clear();
    }

    /// `len` bytes at a bus address, if they lie within one region.
    pub(super) fn reach(&self, address: u64, len: usize) -> Option<NonNull<u8>> {
        let (base, region) = self
            .of
            .iter()
            .find(|(base, region)| (*base..*base + region.len() as u64).contains(&address))?;
        let offset = usize::try_from(address - base).ok()?;
        if offset.checked_add(len)? > region.len() {
            return None;
        }
        // SAFETY: within the region, as was just seen.
        Some(unsafe { region.base().add(offset) })
    }

    /// [`NEED_WAKEUP`](control::NEED_WAKEUP) of the one queue, while it runs.
    pub(super) fn need_wakeup(&self, bar: &[AtomicU32]) -> Option<&AtomicU32> {
        let read = |word: u32| {
            bar.get((register::QUEUE_BASE + word) as usize)
                .map(|word| word.load(Ordering::Acquire))
        };
        if read(queue_register::STATUS)? != queue_status::RUNNING {
            return None;
        }
        let low = read(queue_register::CONTROL_LOW)?;
        let high = read(queue_register::CONTROL_HIGH)?;
        let block = u64::from(high) << 32 | u64::from(low);
        let word = block.checked_add(u64::from(control::NEED_WAKEUP) * 4)?;
        if !word.is_multiple_of(4) {
            return None;
        }
        let at = self.reach(word, 4)?;
        // SAFETY: an aligned word of a region, which lives as long as this; both sides access it atomically.
        Some(unsafe { at.cast().as_ref() })
    }
}
