//! The Netronome card: its driver, and a card emulated in the process.
//!
//! The driver speaks the [host-NIC interface](crate::queue) over a [`Bus`]. The card's firmware moves payload straight
//! into and out of the app buffers, which therefore must lie in memory that the card reaches: those of a
//! [`Pool::in_region`](crate::buffer::Pool::in_region).
//!
//! | module | concern |
//! |---|---|
//! | [`bus`] | what the driver needs of the way to a card |
//! | `emulator` | the firmware, compiled for the host, over any port (feature `firmware`) |
//! | [`process`] | the emulated card as a process of its own |
//! | [`pcie`] | a card on PCIe, **never run on hardware** |
//! | `memory`, `regions` | the host memory of a queue; at which bus addresses memory is |
//! | `setup` | bringing a card up, and again after a reset |
//! | `flows` | who is installed, and what is to be told of it |
//! | `idle` | rings of idle flows |
//! | `requests` | descriptors out |
//! | `events` | events in |

pub mod bus;
#[cfg(feature = "firmware")]
pub mod emulator;
mod events;
mod flows;
mod idle;
mod memory;
pub mod pcie;
pub mod process;
mod regions;
mod requests;
mod setup;
#[cfg(all(test, feature = "firmware"))]
mod tests;

use core::time::Duration;
use std::collections::{HashMap, VecDeque};
use std::fmt;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::os::fd::BorrowedFd;
use std::sync::Arc;

use self::bus::Bus;
use self::flows::Flows;
use self::memory::{QueueMemory, Words};
use self::setup::Mapped;
use crate::buffer::DmaRegion;
use crate::fast::rx::RecvSizes;
use crate::flow::{FlowId, FlowState, FlowTuple, Token};
use crate::nic::{
    Armed, Capabilities, Claim, FlowBuffers, FlowProgress, InstallError, Limits, Nic, NicCounters,
    Returned, Sink, StaleFlow,
};
use crate::port::{PortFull, TxFrame};
use crate::queue::abi::{capability, control, counter, queue_register, register};
use crate::queue::ring::{Descriptor, DescriptorProducer, EventConsumer};
use crate::soft::filter::Filter;
use crate::soft::owners::Owned;
use crate::steer::Steering;
use crate::time::Instant;

/// What the driver is set up with.
#[derive(Clone, Debug)]
pub struct NfpConfig {
    /// What statistics show: `nfp` or `nfp-emu`.
    pub kind: &'static str,
    /// Key of the card's flow table: random, and nobody else's.
    pub secret: [u8; 16],
    /// Sizes of receive rings.
    pub recv_sizes: RecvSizes,
    /// Whose frames the card refuses: at most 512 rules.
    pub filter: Filter,
    /// Every frame on the wire is ours, or the netdev's unless we listen there.
    pub own_all: bool,
    /// Longest exception or raw frame, in bytes; a multiple of 64.
    pub frame_size: u32,
    /// How long an ACK may wait for company.
    pub delayed_ack: Duration,
    /// How long a flow's rings lie idle before their memory goes back to the pool.
    pub idle_release: Duration,
}

impl NfpConfig {
    /// The defaults, with a secret.
    pub fn new(kind: &'static str, secret: [u8; 16]) -> Self {
        Self {
            kind,
            secret,
            recv_sizes: RecvSizes {
                first: 64 << 10,
                max: 4 << 20,
            },
            filter: Filter::default(),
            own_all: true,
            frame_size: 68 << 10,
            delayed_ack: Duration::from_millis(40),
            idle_release: Duration::from_secs(1),
        }
    }
}

/// One queue of a card.
pub struct NfpNic {
    bus: Box<dyn Bus>,
    steering: Box<dyn Steering>,
    capabilities: Capabilities,
    config: NfpConfig,
    memory: QueueMemory,
    /// The regions that the card reaches, the queue's own first.
    mapped: Vec<Mapped>,
    /// Of the card's registers, those that do not change.
    card: setup::Card,
    descriptors: DescriptorProducer<Words>,
    events: EventConsumer<Words>,
    /// Descriptors that found no room, and those of this turn, in order.
    backlog: VecDeque<Descriptor>,
    doorbell: u32,
    flows: Flows,
    /// Flows whose rings are to be looked at, and when, in that order.
    idle: VecDeque<(Instant, FlowId)>,
    owned: Owned,
    /// Connections of the kernel, and their flow index.
    excluded: HashMap<FlowTuple, u32>,
    /// Flows that come back although no event says so.
    ready: Vec<Returned>,
    counters: NicCounters,
    /// Of the card, before its last reset.
    before_reset: CardCounters,
    /// Latest time seen, by which the card's 32-bit milliseconds are read.
    now: Instant,
    clock_set: bool,
    resets: u64,
}

/// The card's own counters.
#[derive(Clone, Copy, Debug, Default)]
struct CardCounters {
    fast_frames_in: u64,
    fast_frames_out: u64,
    fast_bytes_in: u64,
    fast_bytes_out: u64,
    fast_acks_out: u64,
    malformed: u64,
    bad_checksum: u64,
    filtered: u64,
    no_slot: u64,
    bad_descriptors: u64,
}

impl NfpNic {
    /// Brings the card behind `bus` up. App buffers will be in `buffers`
    /// ([`Pool::region`](crate::buffer::Pool::region)).
    ///
    /// # Errors
    /// There is no card, its firmware is another one, or it does not come up; the text says what to do.
    pub fn new(
        bus: Box<dyn Bus>,
        steering: Box<dyn Steering>,
        buffers: &Arc<DmaRegion>,
        config: NfpConfig,
    ) -> io::Result<Self> {
        setup::open(bus, steering, buffers, config)
    }

    /// The bus below.
    pub fn bus(&self) -> &dyn Bus {
        &*self.bus
    }

    /// The bus below, past the driver: for tests of what goes wrong.
    pub fn bus_mut(&mut self) -> &mut dyn Bus {
        &mut *self.bus
    }

    /// How often the card was reset after it had failed.
    pub const fn resets(&self) -> u64 {
        self.resets
    }

    fn read_queue(&self, word: u32) -> u32 {
        self.bus.read(register::QUEUE_BASE + word)
    }

    fn write_queue(&mut self, word: u32, value: u32) {
        self.bus.write(register::QUEUE_BASE + word, value);
    }

    fn read_control(&self, word: u32) -> u32 {
        let word = &self.memory.control[word as usize];
        u32::from_le(word.load(std::sync::atomic::Ordering::Acquire))
    }

    /// The time that the card writes as milliseconds and nanoseconds within them: the one closest to now.
    fn instant(&self, ms: u32, ns: u32) -> Instant {
        let now = self.now.as_millis();
        let distance = i64::from(ms.wrapping_sub(now as u32).cast_signed());
        let ms = now.saturating_add_signed(distance);
        Instant::from_nanos(ms.saturating_mul(1_000_000) + u64::from(ns.min(999_999)))
    }

    /// What a call brings along: the time.
    fn at(&mut self, now: Instant) -> io::Result<()> {
        self.now = self.now.max(now);
        if self.clock_set {
            return Ok(());
        }
        self.clock_set = true;
        setup::set_clock(&mut *self.bus, now)
    }

    fn card_counters(&self) -> CardCounters {
        let read = |which: u32| {
            let at = register::COUNTERS + which * 2;
            loop {
                let high = self.bus.read(at + 1);
                let low = self.bus.read(at);
                if self.bus.read(at + 1) == high {
                    return u64::from(high) << 32 | u64::from(low);
                }
            }
        };
        CardCounters {
            fast_frames_in: read(counter::FAST_FRAMES_IN),
            fast_frames_out: read(counter::FAST_FRAMES_OUT),
            fast_bytes_in: read(counter::FAST_BYTES_IN),
            fast_bytes_out: read(counter::FAST_BYTES_OUT),
            fast_acks_out: read(counter::FAST_ACKS_OUT),
            malformed: read(counter::MALFORMED),
            bad_checksum: read(counter::BAD_CHECKSUM),
            filtered: read(counter::FILTERED),
            no_slot: read(counter::NO_SLOT),
            bad_descriptors: read(counter::BAD_DESCRIPTORS),
        }
    }

    /// Whether the card is told which addresses and ports are ours.
    fn tells_owned(&self) -> bool {
        !self.config.own_all || !self.config.filter.rules().is_empty()
    }
}

impl CardCounters {
    const fn plus(self, other: Self) -> Self {
        Self {
            fast_frames_in: self.fast_frames_in + other.fast_frames_in,
            fast_frames_out: self.fast_frames_out + other.fast_frames_out,
            fast_bytes_in: self.fast_bytes_in + other.fast_bytes_in,
            fast_bytes_out: self.fast_bytes_out + other.fast_bytes_out,
            fast_acks_out: self.fast_acks_out + other.fast_acks_out,
            malformed: self.malformed + other.malformed,
            bad_checksum: self.bad_checksum + other.bad_checksum,
            filtered: self.filtered + other.filtered,
            no_slot: self.no_slot + other.no_slot,
            bad_descriptors: self.bad_descriptors + other.bad_descriptors,
        }
    }
}

impl Nic for NfpNic {
    fn capabilities(&self) -> &Capabilities {
        &self.capabilities
    }

    fn poll(&mut self, now: Instant, budget: usize, sink: &mut dyn Sink) -> io::Result<usize> {
        self.at(now)?;
        if let Some(cause) = self.illness() {
            // What is in host memory was told: it counts.
            self.take_events(usize::MAX, sink);
            self.notify_all(sink);
            self.recover(cause, now)?;
        }
        for returned in std::mem::take(&mut self.ready) {
            sink.returned(returned);
        }
        self.release_idle();
        if self.submit() {
            // What the card was asked comes before what the wire brings.
            self.bus.run(now, 0)?;
        }
        self.bus.run(now, budget)?;
        let mut done = 0;
        loop {
            let taken = self.take_events(budget, sink);
            done += taken;
            if taken == 0 || done >= budget {
                break;
            }
            // With room for events again, the card may have more to say.
            self.submit();
            self.bus.run(now, 0)?;
        }
        self.notify_all(sink);
        Ok(done)
    }

    fn doorbell(&mut self, now: Instant, flow: FlowId) -> Result<(), StaleFlow> {
        self.now = self.now.max(now);
        self.ring(flow).inspect_err(|_| {
            self.counters.bad_doorbells += 1;
        })
    }

    fn transmit(&mut self, now: Instant, frame: TxFrame<'_>) -> Result<(), PortFull> {
        self.now = self.now.max(now);
        self.send_raw(frame)
    }

    fn flush(&mut self, now: Instant) -> io::Result<()> {
        self.at(now)?;
        self.tell_flows();
        self.bus.run(now, 0)?;
        // What found no room may have some now.
        if self.has_to_tell() {
            self.tell_flows();
            self.bus.run(now, 0)?;
        }
        Ok(())
    }

    fn poll_at(&self) -> Option<Instant> {
        let due = self.has_to_tell() || !self.ready.is_empty();
        let timer = self.card.has(capability::TIMER) && self.bus.read(register::TIMER_VALID) != 0;
        let timer = timer.then(|| {
            self.instant(
                self.bus.read(register::TIMER_MS),
                self.bus.read(register::TIMER_NS),
            )
        });
        [
            due.then_some(Instant::ZERO),
            timer,
            self.bus.poll_at(),
            self.idle_at(),
        ]
        .into_iter()
        .flatten()
        .min()
    }

    fn install(
        &mut self,
        now: Instant,
        token: Token,
        state: FlowState,
        buffers: FlowBuffers,
    ) -> Result<FlowId, InstallError> {
        self.now = self.now.max(now);
        self.request_install(now, token, state, buffers)
    }

    fn claim(&mut self, now: Instant, flow: FlowId) -> Result<Claim, StaleFlow> {
        self.now = self.now.max(now);
        self.request_claim(flow)?;
        Ok(Claim::Pending)
    }

    fn set_limits(&mut self, flow: FlowId, limits: Limits) -> Result<(), StaleFlow> {
        self.flows.get_mut(flow).ok_or(StaleFlow)?.limits = Some(limits);
        self.flows.want_to_tell(flow.index);
        Ok(())
    }

    fn progress(&self, flow: FlowId) -> Result<FlowProgress, StaleFlow> {
        self.read_progress(flow)
    }

    fn listen(&mut self, local: SocketAddr) -> io::Result<()> {
        self.take(local, |owners| &mut owners.listeners)
    }

    fn unlisten(&mut self, local: SocketAddr) -> io::Result<()> {
        self.give_back(local, |owners| &mut owners.listeners)
    }

    fn own(&mut self, local: SocketAddr) -> io::Result<()> {
        self.take(local, |owners| &mut owners.connections)
    }

    fn disown(&mut self, local: SocketAddr) -> io::Result<()> {
        self.give_back(local, |owners| &mut owners.connections)
    }

    fn exclude(&mut self, tuple: FlowTuple) -> io::Result<()> {
        self.request_exclude(tuple)
    }

    fn include(&mut self, tuple: FlowTuple) -> io::Result<()> {
        self.request_include(tuple)
    }

    fn serves(&self, address: IpAddr) -> bool {
        self.steering.serves(address)
    }

    fn arm(&mut self) -> io::Result<Armed> {
        if !self.ready.is_empty() || self.has_to_tell() || !self.events.is_empty() {
            return Ok(Armed::Pending);
        }
        self.write_queue(queue_register::ARM, self.events.head());
        let count = self.read_queue(queue_register::ARM_COUNT);
        self.write_queue(queue_register::ARM_COUNT, count.wrapping_add(1));
        Ok(if self.bus.arm()? && self.events.is_empty() {
            Armed::Armed
        } else {
            Armed::Pending
        })
    }

    fn wake_fd(&self) -> Option<BorrowedFd<'_>> {
        self.bus.wake_fd()
    }

    fn counters(&self) -> NicCounters {
        let card = self.before_reset.plus(self.card_counters());
        let mut counters = self.counters;
        counters.fast.frames_in = card.fast_frames_in;
        counters.fast.frames_out = card.fast_frames_out;
        counters.fast.bytes_in = card.fast_bytes_in;
        counters.fast.bytes_out = card.fast_bytes_out;
        counters.fast_acks_out = card.fast_acks_out;
        counters.malformed += card.malformed;
        counters.bad_checksum += card.bad_checksum;
        counters.filtered += card.filtered;
        counters.bad_doorbells += card.bad_descriptors;
        counters.port = self.bus.counters();
        counters.port.rx_dropped += card.no_slot;
        counters
    }
}

impl fmt::Debug for NfpNic {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("NfpNic")
            .field("bus", &self.bus)
            .field("flows", &self.flows.len())
            .field("taken", &self.read_control(control::DESCRIPTORS_TAKEN))
            .finish_non_exhaustive()
    }
}
