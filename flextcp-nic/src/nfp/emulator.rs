//! A card in the process: its firmware, compiled for the host, over any [`Port`].
//!
//! It works when [`Bus::run`] says so, on the caller's thread: engines take steps in random order, and DMA is carried out at
//! once, or, on a hostile schedule, late and out of order; all of it from a seed. Every DMA must lie in a mapped region. One that
//! does not is refused, and the card fails.

mod dma;
mod ffi;
pub(crate) mod raw;

use std::fmt;
use std::io;
use std::os::fd::BorrowedFd;
use std::ptr::NonNull;
use std::sync::Arc;
use std::sync::atomic::{Ordering, fence};
use std::time::Duration;

use self::dma::Dma;
use super::bus::Bus;
use super::memory::Words;
use crate::buffer::DmaRegion;
use crate::port::{Port, PortCounters, PortInfo, RxChecksum, RxFrame};
use crate::queue::abi::register;
use crate::time::Instant;

/// Rounds without coming to rest after which the firmware is taken for broken.
const ROUNDS_MAX: u32 = 10_000_000;

/// When DMA is carried out.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub enum Schedule {
    /// As soon as it was asked for, in order.
    #[default]
    Prompt,
    /// Late, and in any order.
    Hostile,
}

/// What an emulated card is built with.
#[derive(Clone, Copy, Debug)]
pub struct EmulatorConfig {
    /// Of the engines' order and the DMA's.
    pub seed: u64,
    /// When DMA is carried out.
    pub schedule: Schedule,
    /// Flows of the one queue: a power of two, at most 2^20.
    pub flows: u32,
    /// Flow groups, each with an engine: a power of two, at most 16.
    pub groups: u32,
    /// Packet buffers.
    pub packets: u32,
    /// Bytes of each: the longest frame.
    pub packet_bytes: u32,
}

impl Default for EmulatorConfig {
    fn default() -> Self {
        Self {
            seed: 1,
            schedule: Schedule::default(),
            flows: 1 << 14,
            groups: 4,
            packets: 512,
            // A super-frame of 64 KiB and its headers, in whole words.
            packet_bytes: 68 << 10,
        }
    }
}

#[cfg(test)]
impl EmulatorConfig {
    /// A card that little fills.
    pub(super) fn small(seed: u64, schedule: Schedule) -> Self {
        Self {
            seed,
            schedule,
            flows: 64,
            packets: 256,
            packet_bytes: 2048,
            ..Self::default()
        }
    }
}

/// A card in the process.
pub struct Emulator {
    card: NonNull<ffi::Card>,
    engines: Vec<u32>,
    /// What the card calls; its address is the card's context.
    hooks: NonNull<Hooks>,
    bar: Words,
    /// The BAR as what another process maps.
    bar_memory: Arc<DmaRegion>,
    info: PortInfo,
    random: Random,
}

// SAFETY: the card, its BAR and its hooks have this one owner, and nothing in them is bound to a thread.
unsafe impl Send for Emulator {}

/// What a turn came to.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Work {
    /// Frames received.
    pub(super) frames: usize,
    /// An engine did something.
    pub(super) did: bool,
    /// The port took no more, and frames wait.
    pub(super) full: bool,
}

/// The card's surroundings.
struct Hooks {
    port: Box<dyn Port>,
    now: Instant,
    dma: Dma,
    /// Frames were handed to the port and not flushed.
    sent: bool,
    /// The port took no more.
    full: bool,
    lost: u64,
    not_ours: u64,
    interrupts: u64,
}

/// SplitMix64.
#[derive(Clone, Debug)]
struct Random(u64);

impl Random {
    const fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    const fn below(&mut self, n: usize) -> usize {
        (self.next() % n as u64) as usize
    }
}

impl Emulator {
    /// A card with one queue, whose wire is `port`.
    ///
    /// # Errors
    /// The configuration is impossible, or there is no memory.
    pub fn new(port: Box<dyn Port>, config: EmulatorConfig) -> io::Result<Self> {
        let info = port.info().clone();
        let [a, b, c, d, e, f] = info.mac.0;
        let card_config = ffi::CardConfig {
            queues: 1,
            flows_per_queue: config.flows,
            groups: config.groups,
            mtu: info.mtu,
            mac_high: u32::from_be_bytes([a, b, c, d]),
            mac_low: u32::from_be_bytes([e, f, 0, 0]),
            packets: config.packets,
            packet_bytes: config.packet_bytes.next_multiple_of(4),
        };
        let words = ffi::bar_words(&card_config) as usize;
        let bar_memory = DmaRegion::shared("flextcp-bar", words * 4)?;
        let bar = Words::of(&bar_memory, 0, words);
        let hooks = Box::new(Hooks {
            port,
            now: Instant::ZERO,
            dma: Dma::new(config.schedule, Random(!config.seed)),
            sent: false,
            full: false,
            lost: 0,
            not_ours: 0,
            interrupts: 0,
        });
        let hooks = NonNull::from(Box::leak(hooks));
        let Some(card) = ffi::new_card(&bar, &card_config, hooks) else {
            // SAFETY: it was leaked above, and nobody else has it.
            drop(unsafe { Box::from_raw(hooks.as_ptr()) });
            return Err(io::Error::new(
                io::ErrorKind::InvalidInput,
                "the card refuses its configuration: flows and groups must be powers of two, at most 2^20 and 16",
            ));
        };
        Ok(Self {
            engines: (0..ffi::engines(card)).collect(),
            card,
            hooks,
            bar,
            bar_memory,
            info,
            random: Random(config.seed),
        })
    }

    const fn hooks(&self) -> &Hooks {
        // SAFETY: the hooks live as long as this; the card uses them only in calls that need `&mut self`.
        unsafe { self.hooks.as_ref() }
    }

    const fn hooks_mut(&mut self) -> &mut Hooks {
        // SAFETY: as above.
        unsafe { self.hooks.as_mut() }
    }

    /// DMA refused because it was not within a mapped region.
    pub fn refused_dma(&self) -> u64 {
        self.hooks().dma.refused()
    }

    /// Interrupts raised.
    pub fn interrupts(&self) -> u64 {
        self.hooks().interrupts
    }

    /// Makes a region reachable at an address that the host chose.
    #[cfg(test)]
    pub(super) fn map_at(&mut self, address: u64, region: &Arc<DmaRegion>) {
        self.hooks_mut().dma.regions.insert(address, region);
    }

    /// The BAR, for another process to map.
    pub(super) const fn bar(&self) -> &Arc<DmaRegion> {
        &self.bar_memory
    }

    /// Notes for the host whether the card sleeps (`NEED_WAKEUP`), and fences. While no queue runs,
    /// the host takes it for asleep.
    pub(super) fn set_asleep(&self, asleep: bool) {
        if let Some(word) = self.hooks().dma.regions.need_wakeup(&self.bar) {
            word.store(u32::from(asleep), Ordering::SeqCst);
        }
        fence(Ordering::SeqCst);
    }

    /// How long until the card has work by its own clock, which reads `now`.
    pub(super) fn timer_in(&self, now: Instant) -> Option<Duration> {
        if self.read(register::TIMER_VALID) == 0 {
            return None;
        }
        // The timer is in the host's time.
        let own_ms = now.as_millis();
        let ms = self
            .read(register::TIMER_MS)
            .wrapping_sub(self.read(register::CLOCK_OFFSET_MS))
            .wrapping_sub(own_ms as u32);
        let own_ns = now.as_nanos() - own_ms * 1_000_000;
        let nanos = i64::from(ms.cast_signed()) * 1_000_000
            + i64::from(self.read(register::TIMER_NS))
            - i64::from(self.read(register::CLOCK_OFFSET_NS))
            - own_ns.cast_signed();
        Some(Duration::from_nanos(u64::try_from(nanos).unwrap_or(0)))
    }

    /// The host is gone: puts its memory out of reach, DMA that is under way included, and resets the card. What waits on
    /// the wire is lost.
    pub(super) fn forget_host(&mut self, now: Instant) -> io::Result<()> {
        self.hooks_mut().dma.regions.clear();
        let ticket = self.read(register::RESET_DONE).wrapping_add(1).max(1);
        self.write(register::RESET, ticket);
        self.work(now, 0)?;
        if self.read(register::RESET_DONE) != ticket {
            return Err(io::Error::other("the card does not reset; report this"));
        }
        while self.work(now, usize::from(u16::MAX))?.frames > 0 {}
        Ok(())
    }

    /// Takes in up to `frames` frames and comes to rest.
    pub(super) fn work(&mut self, now: Instant, frames: usize) -> io::Result<Work> {
        self.hooks_mut().now = now;
        ffi::set_clock(self.card, now);
        let mut work = Work::default();
        if frames > 0 {
            work.frames = self.receive(frames)?;
        }
        loop {
            work.did |= self.come_to_rest()?;
            let hooks = self.hooks_mut();
            work.full = std::mem::take(&mut hooks.full);
            // Full with nothing of ours in it: no use in trying again now.
            if !std::mem::take(&mut hooks.sent) {
                break;
            }
            hooks.port.flush(now)?;
            if !work.full {
                break;
            }
        }
        Ok(work)
    }

    /// Frames that had no packet buffer.
    pub fn lost_frames(&self) -> u64 {
        self.hooks().lost
    }

    fn receive(&mut self, frames: usize) -> io::Result<usize> {
        let card = self.card;
        let Hooks {
            port, now, lost, ..
        } = self.hooks_mut();
        let mut whole = Vec::new();
        port.receive(*now, frames, &mut |frame: RxFrame<'_>| {
            let bytes = if frame.tail.is_empty() {
                frame.head
            } else {
                whole.clear();
                frame
                    .slices(0, usize::MAX)
                    .for_each(|slice| whole.extend_from_slice(slice));
                &whole
            };
            let checksum = match frame.checksum {
                RxChecksum::Trusted => 0,
                RxChecksum::MaybePartial => 1,
                RxChecksum::Unverified => 2,
            };
            if !ffi::receive(card, bytes, checksum) {
                *lost += 1;
            }
        })
    }

    /// Steps until no engine has anything to do and no DMA is under way; returns whether anything was done.
    fn come_to_rest(&mut self) -> io::Result<bool> {
        for round in 0..ROUNDS_MAX {
            for last in (1..self.engines.len()).rev() {
                let other = self.random.below(last + 1);
                self.engines.swap(last, other);
            }
            let mut did = false;
            for &engine in &self.engines {
                did |= ffi::step(self.card, engine);
            }
            let card = self.card;
            // Carried out, then told: the card is not called while the hooks are borrowed.
            let done = self.hooks_mut().dma.carry_out(!did);
            did |= !done.is_empty();
            for (id, failed) in done {
                ffi::dma_done(card, id, failed);
            }
            if !did {
                ffi::update_timer(self.card);
                return Ok(round > 0);
            }
        }
        Err(io::Error::other(
            "the card's engines do not come to rest; reset it, and report this",
        ))
    }
}

impl Bus for Emulator {
    fn port(&self) -> &PortInfo {
        &self.info
    }

    fn read(&self, at: u32) -> u32 {
        self.bar.read(at)
    }

    fn write(&mut self, at: u32, value: u32) {
        self.bar.write(at, value);
    }

    fn map(&mut self, region: &Arc<DmaRegion>) -> io::Result<u64> {
        Ok(self.hooks_mut().dma.regions.map(region))
    }

    fn run(&mut self, now: Instant, frames: usize) -> io::Result<usize> {
        self.work(now, frames).map(|work| work.frames)
    }

    fn is_asynchronous(&self) -> bool {
        false
    }

    fn arm(&mut self) -> io::Result<bool> {
        self.hooks_mut().port.arm()
    }

    fn wake_fd(&self) -> Option<BorrowedFd<'_>> {
        self.hooks().port.wake_fd()
    }

    fn poll_at(&self) -> Option<Instant> {
        self.hooks().port.poll_at()
    }

    fn counters(&self) -> PortCounters {
        let mut counters = self.hooks().port.counters();
        counters.rx_dropped += self.hooks().lost;
        counters
    }
}

impl Drop for Emulator {
    fn drop(&mut self) {
        ffi::free(self.card);
        // SAFETY: it was leaked in `new`, and the card that used it is gone.
        drop(unsafe { Box::from_raw(self.hooks.as_ptr()) });
    }
}

impl fmt::Debug for Emulator {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Emulator")
            .field("port", &self.hooks().port)
            .field("lost", &self.hooks().lost)
            .field("not_ours", &self.hooks().not_ours)
            .finish_non_exhaustive()
    }
}
