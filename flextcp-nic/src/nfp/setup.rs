//! Bringing a card up, and again after it failed.

use std::io;
use std::net::IpAddr;
use std::ptr::NonNull;
use std::sync::Arc;
use std::thread;
use std::time::{self, Duration};

use super::bus::Bus;
use super::flows::Flows;
use super::memory::{QueueMemory, Sizes};
use super::{CardCounters, NfpConfig, NfpNic};
use crate::buffer::DmaRegion;
use crate::flow::fields::ip_words;
use crate::nic::{Capabilities, NicCounters};
use crate::port::PortInfo;
use crate::queue::abi::{
    capability, completion, config, constant, failure, filter_rule, queue_register, queue_status,
    region, register, rule_flag, status,
};
use crate::queue::ring::{DESCRIPTOR_WORDS, DescriptorProducer, EVENT_WORDS, EventConsumer};
use crate::soft::filter::{Filter, Verdict};
use crate::soft::owners::Owned;
use crate::steer::Steering;
use crate::time::Instant;

/// How long a card may take for a reset or a start.
const PATIENCE: Duration = Duration::from_secs(2);
const DESCRIPTORS_SHIFT: u32 = 10;
const EVENTS_SHIFT: u32 = 9;
const RAW_FRAMES: u32 = 256;

/// A region that the card reaches.
#[derive(Debug)]
pub(super) struct Mapped {
    pub(super) region: Arc<DmaRegion>,
    pub(super) address: u64,
}

/// What does not change while the card runs.
#[derive(Clone, Copy, Debug)]
pub(super) struct Card {
    capabilities: u32,
    epoch: u32,
    pub(super) flow_table: u32,
}

impl Card {
    pub(super) const fn has(&self, capability: u32) -> bool {
        self.capabilities & capability != 0
    }
}

fn refused(text: String) -> io::Error {
    io::Error::other(text)
}

/// Lets the card work until `done`.
fn wait(
    bus: &mut dyn Bus,
    now: Instant,
    what: &str,
    mut done: impl FnMut(&dyn Bus) -> bool,
) -> io::Result<()> {
    let start = time::Instant::now();
    loop {
        bus.run(now, 0)?;
        if done(bus) {
            return Ok(());
        }
        if start.elapsed() > PATIENCE {
            return Err(io::Error::new(
                io::ErrorKind::TimedOut,
                format!("the card does not answer: {what}; load its firmware again"),
            ));
        }
        thread::sleep(Duration::from_micros(50));
    }
}

/// Whether there is a firmware that this driver knows.
fn identify(bus: &dyn Bus) -> io::Result<()> {
    let magic = bus.read(register::MAGIC);
    if magic != constant::MAGIC {
        return Err(refused(format!(
            "no FlexTCP firmware runs on the card (the first word of its BAR is {magic:#010x}); load flextcp.nffw"
        )));
    }
    let version = bus.read(register::ABI_VERSION);
    if version >> 16 != constant::ABI_VERSION >> 16 {
        return Err(refused(format!(
            "the card's firmware speaks version {}.{} of the interface and this driver {}.{}; load the firmware of this release",
            version >> 16,
            version & 0xffff,
            constant::ABI_VERSION >> 16,
            constant::ABI_VERSION & 0xffff
        )));
    }
    Ok(())
}

/// Whether the card can apply the filter: nobody does in its place.
fn filter_fits(bus: &dyn Bus, filter: &Filter) -> io::Result<()> {
    let rules = filter.rules().len();
    let most = match bus.read(register::CAPABILITIES) & capability::FILTER {
        0 => 0,
        _ => constant::FILTER_MAX as usize,
    };
    if rules <= most {
        return Ok(());
    }
    Err(io::Error::new(
        io::ErrorKind::InvalidInput,
        format!(
            "the card's firmware holds {most} filter rules, and there are {rules}: join some of filter (FLEXTCP_FILTER), or set nic (FLEXTCP_NIC) to soft"
        ),
    ))
}

/// Has the card forget everything.
fn reset(bus: &mut dyn Bus, now: Instant) -> io::Result<()> {
    let mut ticket = bus.read(register::RESET_DONE).wrapping_add(1);
    if ticket == 0 {
        ticket = 1;
    }
    bus.write(register::RESET, ticket);
    wait(bus, now, "reset", |bus| {
        bus.read(register::RESET_DONE) == ticket && bus.read(register::STATUS) == status::READY
    })
}

/// Sets the card's clock.
pub(super) fn set_clock(bus: &mut dyn Bus, now: Instant) -> io::Result<()> {
    let ms = now.as_millis();
    bus.write(register::CLOCK_MS, ms as u32);
    bus.write(register::CLOCK_NS, (now.as_nanos() - ms * 1_000_000) as u32);
    bus.write(register::CLOCK_SET, 1);
    wait(bus, now, "clock", |bus| bus.read(register::CLOCK_SET) == 0)
}

const fn low(address: u64) -> u32 {
    address as u32
}

const fn high(address: u64) -> u32 {
    (address >> 32) as u32
}

/// The filter, as the card reads it.
fn write_filter(bus: &mut dyn Bus, filter: &Filter) {
    let mut at = register::FILTER_RULES;
    for rule in filter.rules() {
        let mut word = match rule.remote.map(|prefix| prefix.address()) {
            None => rule_flag::IPV4 | rule_flag::IPV6,
            Some(IpAddr::V4(_)) => rule_flag::IPV4,
            Some(IpAddr::V6(_)) => rule_flag::IPV6,
        };
        if let Some(prefix) = rule.remote {
            word |= u32::from(prefix.bits());
            for (to, value) in (at + filter_rule::REMOTE_IP..).zip(ip_words(prefix.address())) {
                bus.write(to, value);
            }
        }
        if let Some(port) = rule.local_port {
            word |= rule_flag::PORT | u32::from(port) << 16;
        }
        if rule.verdict == Verdict::Deny {
            word |= rule_flag::DENY;
        }
        bus.write(at + filter_rule::MATCH, word);
        at += filter_rule::STRIDE;
    }
    // `open` saw that they are few enough.
    bus.write(register::FILTER, filter.rules().len() as u32);
}

fn configure(
    bus: &mut dyn Bus,
    nic_config: &NfpConfig,
    memory: &QueueMemory,
    mapped: &[Mapped],
) -> io::Result<()> {
    for (at, mapped) in (0..).zip(mapped) {
        let at = register::REGIONS + at * region::STRIDE;
        let len = u32::try_from(mapped.region.len()).map_err(|_| {
            refused(
                "a region for the card is at most 2 GiB; lower memory (FLEXTCP_MEMORY)".to_owned(),
            )
        })?;
        bus.write(at + region::ADDRESS_LOW, low(mapped.address));
        bus.write(at + region::ADDRESS_HIGH, high(mapped.address));
        bus.write(at + region::LENGTH, len);
    }
    let port = bus.port().clone();
    let mut bits = config::HOLD_ACKS;
    if nic_config.own_all {
        bits |= config::OWN_ALL;
    }
    if port.tx_checksum {
        bits |= config::TX_CHECKSUM;
        let headers = 40 + 20 + 12;
        let most = port.tx_segment_max.unwrap_or(0).min(u32::from(u16::MAX));
        bus.write(register::SUPER_FRAME, most.saturating_sub(headers));
    }
    bus.write(register::CONFIG, bits);
    write_filter(bus, &nic_config.filter);
    let secret = u128::from_le_bytes(nic_config.secret);
    bus.write(register::HASH_KEY_LOW, secret as u32);
    bus.write(register::HASH_KEY_HIGH, (secret >> 32) as u32);
    let delay = nic_config.delayed_ack.as_micros();
    bus.write(
        register::DELAYED_ACK,
        u32::try_from(delay).unwrap_or(u32::MAX),
    );

    let base = mapped[0].address;
    let (layout, sizes) = (memory.layout, memory.sizes);
    for (word, at) in [
        (queue_register::DESCRIPTORS_LOW, layout.descriptors),
        (queue_register::EVENTS_LOW, layout.events),
        (queue_register::CONTROL_LOW, layout.control),
        (queue_register::BLOCKS_LOW, layout.blocks),
        (queue_register::FRAMES_LOW, layout.frames),
    ] {
        let address = base + at as u64;
        bus.write(register::QUEUE_BASE + word, low(address));
        bus.write(register::QUEUE_BASE + word + 1, high(address));
    }
    for (word, value) in [
        (queue_register::DESCRIPTORS_SHIFT, sizes.descriptors_shift),
        (queue_register::EVENTS_SHIFT, sizes.events_shift),
        (queue_register::BLOCKS, sizes.blocks),
        (queue_register::FRAME_SIZE, sizes.frame_size),
        (queue_register::ENABLE, 1),
    ] {
        bus.write(register::QUEUE_BASE + word, value);
    }
    let status_at = register::QUEUE_BASE + queue_register::STATUS;
    wait(bus, Instant::ZERO, "queue", |bus| {
        bus.read(status_at) != queue_status::STOPPED
    })?;
    match bus.read(status_at) {
        queue_status::RUNNING => Ok(()),
        other => Err(refused(format!(
            "the card refuses the queue: {}",
            queue_text(other)
        ))),
    }
}

/// What a queue's status means, and what to do.
pub(super) const fn queue_text(status: u32) -> &'static str {
    match status {
        queue_status::BAD_SIZE => "a ring's size is out of range",
        queue_status::BAD_ADDRESS => "a ring lies outside of the memory that it may reach",
        queue_status::BAD_SEQUENCE => "the rings are out of step",
        _ => "it stopped",
    }
}

/// What a card's failure means.
pub(super) const fn failure_text(failure: u32) -> &'static str {
    match failure {
        failure::DMA => "a DMA failed on the bus",
        failure::INTERNAL => "an engine found its own state impossible",
        _ => "no reason is given",
    }
}

/// What a refused descriptor's result means.
pub(super) const fn result_text(result: u32) -> &'static str {
    match result {
        completion::STALE => "no such flow",
        completion::NOT_YOURS => "the flow is another queue's",
        completion::IN_USE => "the index or the ring is in use",
        completion::TABLE_FULL => "the flow table is full",
        completion::DUPLICATE => "the tuple is installed already",
        completion::UNSUPPORTED => "the card cannot carry it",
        completion::BAD_RING => "a ring is impossible or out of reach",
        completion::BAD_STATE => "the state contradicts itself",
        completion::BAD_OPERATION => "no such operation",
        completion::BAD_FRAME => "the frame's length or address is impossible",
        _ => "an unknown result",
    }
}

pub(super) fn open(
    mut bus: Box<dyn Bus>,
    steering: Box<dyn Steering>,
    buffers: &Arc<DmaRegion>,
    config: NfpConfig,
) -> io::Result<NfpNic> {
    identify(&*bus)?;
    filter_fits(&*bus, &config.filter)?;
    let flows = bus.read(register::FLOWS_PER_QUEUE);
    let memory = QueueMemory::new(Sizes {
        descriptors_shift: DESCRIPTORS_SHIFT,
        events_shift: EVENTS_SHIFT,
        blocks: flows,
        frame_size: config.frame_size.next_multiple_of(constant::ALIGNMENT),
        raw_frames: RAW_FRAMES,
    })?;
    let mapped = [memory.region(), buffers]
        .into_iter()
        .map(|region| {
            let address = bus.map(region)?;
            Ok(Mapped {
                region: Arc::clone(region),
                address,
            })
        })
        .collect::<io::Result<Vec<_>>>()?;
    let capabilities = Capabilities {
        kind: config.kind,
        // What the card sends by itself is cut, but no frame that it is given is: its descriptor has no word for that.
        port: PortInfo {
            tx_segment_max: None,
            ..bus.port().clone()
        },
        max_flows: flows,
    };
    let (descriptors, events) = rings(&memory);
    let mut nic = NfpNic {
        card: Card {
            capabilities: bus.read(register::CAPABILITIES),
            epoch: 0,
            flow_table: bus.read(register::FLOW_TABLE),
        },
        bus,
        steering,
        capabilities,
        config,
        memory,
        mapped,
        descriptors,
        events,
        backlog: Default::default(),
        doorbell: 0,
        flows: Flows::new(flows),
        idle: Default::default(),
        owned: Owned::default(),
        excluded: Default::default(),
        ready: Vec::new(),
        counters: NicCounters::default(),
        before_reset: CardCounters::default(),
        now: Instant::ZERO,
        clock_set: false,
        resets: 0,
    };
    if nic.card.flow_table == 0 {
        return Err(refused(
            "the card's BAR does not show its flow table, which this driver reads; map a larger BAR".to_owned(),
        ));
    }
    nic.start()?;
    Ok(nic)
}

type Rings = (
    DescriptorProducer<super::Words>,
    EventConsumer<super::Words>,
);

fn rings(memory: &QueueMemory) -> Rings {
    let (layout, sizes) = (memory.layout, memory.sizes);
    let descriptors = memory.words(
        layout.descriptors,
        DESCRIPTOR_WORDS << sizes.descriptors_shift,
    );
    let events = memory.words(layout.events, EVENT_WORDS << sizes.events_shift);
    (
        DescriptorProducer::new(descriptors),
        EventConsumer::new(events),
    )
}

impl NfpNic {
    /// Resets the card and starts the queue.
    fn start(&mut self) -> io::Result<()> {
        reset(&mut *self.bus, self.now)?;
        self.memory.clear();
        (self.descriptors, self.events) = rings(&self.memory);
        self.doorbell = 0;
        self.backlog.clear();
        configure(&mut *self.bus, &self.config, &self.memory, &self.mapped)?;
        self.card.epoch = self.bus.read(register::EPOCH);
        Ok(())
    }

    /// Why the card has to be started again, if it has.
    pub(super) fn illness(&self) -> Option<&'static str> {
        let status = self.bus.read(register::STATUS);
        let queue = self.read_queue(queue_register::STATUS);
        if self.bus.read(register::EPOCH) != self.card.epoch {
            Some("somebody reset it")
        } else if status == status::FAILED {
            Some(failure_text(self.bus.read(register::FAILURE)))
        } else if status != status::READY {
            Some("it is being reset")
        } else if queue != queue_status::RUNNING {
            Some(queue_text(queue))
        } else {
            None
        }
    }

    /// Starts a card again that failed or was reset: its flows come back, with what its events told of them.
    ///
    /// # Errors
    /// It does not come up.
    pub(super) fn recover(&mut self, cause: &str, now: Instant) -> io::Result<()> {
        tracing::warn!(
            cause,
            detail = self.bus.read(register::FAILURE_DETAIL),
            flows = self.flows.len(),
            "the card lost its flows, which go on in the slow path; it is started again"
        );
        identify(&*self.bus)?;
        if self.bus.read(register::EPOCH) == self.card.epoch {
            self.before_reset = self.before_reset.plus(self.card_counters());
        }
        self.resets += 1;
        self.start()?;
        set_clock(&mut *self.bus, now)?;
        for flow in self.flows.drain() {
            let state = flow.state_after_loss();
            self.ready.push(flow.into_returned(state, None));
            self.counters.punted += 1;
        }
        self.ask_again();
        Ok(())
    }

    /// The bus address of `len` bytes at `at`, if the card reaches them.
    pub(super) fn address(&self, at: NonNull<u8>, len: usize) -> Option<u64> {
        self.mapped.iter().find_map(|mapped| {
            let offset = mapped.region.offset_of(at, len)?;
            Some(mapped.address + offset as u64)
        })
    }
}
