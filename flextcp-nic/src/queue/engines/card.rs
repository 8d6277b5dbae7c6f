//! An emulated card under test: its host memory, its DMA, its wire, and a host that keeps to the contract.

mod wire;

use std::cell::RefCell;
use std::fmt;
use std::net::Ipv4Addr;

use super::world::{World, dma, interrupt, netdev, transmit};
use crate::flow::{FlowState, FlowTuple};
use crate::nfp::emulator::raw::{
    Card, CardConfig, Ops, fx_host_bar_words, fx_host_clock, fx_host_dma_done, fx_host_engines,
    fx_host_free, fx_host_new, fx_host_receive, fx_host_step, fx_host_timer,
};
use crate::port::{RxChecksum, RxFrame};
use crate::queue::abi::{
    constant, control, descriptor, event, event_flag, event_kind, flow_block, flow_entry,
    flow_state, operation, queue_register, region, register, status,
};
use crate::queue::ring::{Descriptor, Event};
use crate::seq::{Mss, SeqNum, WindowScale};
use crate::wire::{
    MAX_HEADER_LEN, MacAddr, Packet, SegmentRepr, TcpFlags, TcpOptions, TcpPacket, parse,
};

pub(super) const MSS: u32 = 1000;
pub(super) const OWN: SeqNum = SeqNum(0xffff_ff00);
pub(super) const PEER: SeqNum = SeqNum(0x7fff_fff0);
pub(super) const FLOWS: u32 = 16;
pub(super) const EVENTS: u32 = 8;
const DESCRIPTORS: u32 = 16;
const RING_SHIFT: u32 = 14;
const RING: u32 = 1 << RING_SHIFT;
const FRAME: u32 = 2048;
const GENERATION: u32 = 41;

/// Where things lie in host memory, from `BASE` on.
const BASE: u64 = 0x12_ffff_0000;
const DESCRIPTORS_AT: u32 = 0;
const EVENTS_AT: u32 = 0x1000;
const CONTROL_AT: u32 = 0x2000;
const BLOCKS_AT: u32 = 0x3000;
const FRAMES_AT: u32 = 0x8000;
const RAW_AT: u32 = 0x1_8000;
const RECV_AT: u32 = 0x2_0000;
const SEND_AT: u32 = 0x3_0000;
const RECV_2_AT: u32 = 0x4_0000;
const MEMORY: u32 = 0x5_0000;

/// Byte `position` of either stream.
pub(super) fn byte(position: u32) -> u8 {
    (position % 251) as u8
}

/// The host's side, with one flow, at index 0.
pub(super) struct Host {
    nic: *mut Card,
    world: Box<RefCell<World>>,
    bar: Box<[u32]>,
    memory: Vec<u8>,
    random: u64,
    now_micros: u64,
    tail: u32,
    head: u32,
    arms: u32,
    bumps: u32,
    recv_at: u32,
    to_free: u32,
    raw: u32,
    send_room: u32,
    /// What the events said.
    pub(super) received: u32,
    pub(super) acked: u32,
    pub(super) exceptions: Vec<(Event, Vec<u8>)>,
    pub(super) completions: Vec<(u32, u32)>,
    pub(super) positions: Vec<u32>,
    pub(super) returned: Option<FlowState>,
    pub(super) cause: Option<u32>,
    /// What the application did.
    pub(super) read: u32,
    pub(super) written: u32,
    /// Does not look at events.
    pub(super) deaf: bool,
    pub(super) lose_doorbells: bool,
    sent: Vec<TcpPacket>,
    /// Right edge of what the card offered the peer, and of what it sent, in stream positions.
    offered: u32,
    seen: u32,
}

impl Host {
    pub(super) fn new(seed: u64) -> Self {
        let config = CardConfig {
            queues: 1,
            flows_per_queue: FLOWS,
            groups: 2,
            mtu: 1500,
            mac_high: 0x0200_0000,
            mac_low: 0x0001_0000,
            packets: 64,
            packet_bytes: FRAME,
        };
        // SAFETY: `config` is valid.
        let words = unsafe { fx_host_bar_words(&config) };
        let mut bar = vec![0; words as usize].into_boxed_slice();
        let world = Box::<RefCell<World>>::default();
        let ops = Ops {
            context: (&raw const *world).cast_mut().cast(),
            dma,
            transmit,
            interrupt,
            netdev,
        };
        // SAFETY: the BAR and the context live as long as the card: both are freed after it.
        let nic = unsafe { fx_host_new(bar.as_mut_ptr(), &config, &ops) };
        assert!(!nic.is_null());
        let mut host = Self {
            nic,
            world,
            bar,
            memory: vec![0; MEMORY as usize],
            random: seed,
            now_micros: 1_000_000,
            tail: 0,
            head: 0,
            arms: 0,
            bumps: 0,
            recv_at: RECV_AT,
            to_free: 0,
            raw: 0,
            send_room: RING,
            received: 0,
            acked: 0,
            exceptions: Vec::new(),
            completions: Vec::new(),
            positions: Vec::new(),
            returned: None,
            cause: None,
            read: 0,
            written: 0,
            deaf: false,
            lose_doorbells: false,
            sent: Vec::new(),
            offered: RING,
            seen: 0,
        };
        host.bring_up();
        host
    }

    pub(super) fn below(&mut self, n: u32) -> u32 {
        self.random = self
            .random
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1_442_695_040_888_963_407);
        ((self.random >> 33) % u64::from(n.max(1))) as u32
    }

    pub(super) fn register(&self, at: u32) -> u32 {
        // SAFETY: the index is checked; the card writes the BAR through its own pointer, so it is read volatile.
        unsafe { (&raw const self.bar[at as usize]).read_volatile() }
    }

    fn set_register(&mut self, at: u32, value: u32) {
        // SAFETY: as above.
        unsafe { (&raw mut self.bar[at as usize]).write_volatile(value) }
    }

    pub(super) fn queue_register(&self, word: u32) -> u32 {
        self.register(register::QUEUE_BASE + word)
    }

    fn set_queue_register(&mut self, word: u32, value: u32) {
        self.set_register(register::QUEUE_BASE + word, value);
    }

    pub(super) fn counter(&self, counter: u32) -> u64 {
        let at = register::COUNTERS + counter * 2;
        u64::from(self.register(at)) | u64::from(self.register(at + 1)) << 32
    }

    fn put(&mut self, at: u32, word: u32) {
        self.memory[at as usize..at as usize + 4].copy_from_slice(&word.to_le_bytes());
    }

    fn get(&self, at: u32) -> u32 {
        let at = at as usize;
        u32::from_le_bytes(self.memory[at..at + 4].try_into().expect("four bytes"))
    }

    /// Resets the card and sets it up, all of the host's own state anew.
    pub(super) fn bring_up(&mut self) {
        (self.tail, self.head, self.bumps, self.received, self.acked) = (0, 0, 0, 0, 0);
        (self.read, self.written, self.to_free, self.send_room) = (0, 0, 0, RING);
        (self.offered, self.seen, self.recv_at) = (RING, 0, RECV_AT);
        self.returned = None;
        self.exceptions.clear();
        self.completions.clear();
        let wanted = self.register(register::RESET_DONE) + 1;
        self.set_register(register::RESET, wanted);
        let deaf = std::mem::replace(&mut self.deaf, true);
        self.settle();
        self.deaf = deaf;
        // Until now events of the time before could arrive.
        self.memory.fill(0);
        assert_eq!(self.register(register::RESET_DONE), wanted);
        assert_eq!(self.register(register::STATUS), status::READY);
        self.take_sent();
        let address = |at: u32| BASE + u64::from(at);
        let low_high = [
            (register::REGIONS + region::ADDRESS_LOW, 0),
            (
                register::QUEUE_BASE + queue_register::DESCRIPTORS_LOW,
                DESCRIPTORS_AT,
            ),
            (register::QUEUE_BASE + queue_register::EVENTS_LOW, EVENTS_AT),
            (
                register::QUEUE_BASE + queue_register::CONTROL_LOW,
                CONTROL_AT,
            ),
            (register::QUEUE_BASE + queue_register::BLOCKS_LOW, BLOCKS_AT),
            (register::QUEUE_BASE + queue_register::FRAMES_LOW, FRAMES_AT),
        ];
        for (at, offset) in low_high {
            self.set_register(at, address(offset) as u32);
            self.set_register(at + 1, (address(offset) >> 32) as u32);
        }
        self.set_register(register::REGIONS + region::LENGTH, MEMORY);
        self.set_register(register::CONFIG, crate::queue::abi::config::OWN_ALL);
        self.set_queue_register(
            queue_register::DESCRIPTORS_SHIFT,
            DESCRIPTORS.trailing_zeros(),
        );
        self.set_queue_register(queue_register::EVENTS_SHIFT, EVENTS.trailing_zeros());
        self.set_queue_register(queue_register::BLOCKS, FLOWS);
        self.set_queue_register(queue_register::FRAME_SIZE, FRAME);
        self.set_queue_register(queue_register::ENABLE, 1);
        self.settle();
    }

    /// Lets the engines step, carries out DMA at random times in random order, and looks at events.
    pub(super) fn some_steps(&mut self, count: u32) -> bool {
        let mut did = false;
        for _ in 0..count {
            // SAFETY: the card lives.
            let engines = unsafe { fx_host_engines(self.nic) };
            let engine = self.below(engines);
            // SAFETY: the card lives; nothing of this host is borrowed while it steps.
            did |= unsafe { fx_host_step(self.nic, engine) } != 0;
            if self.below(20) == 0 {
                self.world.borrow_mut().busy = 2;
            }
            while self.below(3) == 0 && self.carry_out() {
                did = true;
            }
            did |= self.look();
            self.frames_out();
        }
        did
    }

    /// One DMA, any of those that wait.
    fn carry_out(&mut self) -> bool {
        let waiting = self.world.borrow().dma.len();
        if waiting == 0 {
            return false;
        }
        let which = self.below(waiting as u32) as usize;
        let dma = self.world.borrow_mut().dma.swap_remove(which);
        let address = u64::from(dma.address_high) << 32 | u64::from(dma.address_low);
        let at = address.checked_sub(BASE).expect("above the region's start") as usize;
        let host = &mut self.memory[at..at + dma.length as usize];
        // SAFETY: the card's memory is valid for `length` bytes until the DMA is done.
        let local = unsafe { std::slice::from_raw_parts_mut(dma.local, dma.length as usize) };
        if dma.to_host != 0 {
            host.copy_from_slice(local);
        } else {
            local.copy_from_slice(host);
        }
        // SAFETY: the card lives.
        unsafe { fx_host_dma_done(self.nic, dma.id, 0) };
        true
    }

    /// Until nothing happens any more and the delayed ACKs went out.
    pub(super) fn settle(&mut self) {
        for _ in 0..10_000 {
            let mut idle = 0;
            while idle < 30 {
                idle = if self.some_steps(8) { 0 } else { idle + 1 };
            }
            // SAFETY: the card lives.
            if unsafe { fx_host_timer(self.nic) } == 0 {
                return;
            }
            let at = u64::from(self.register(register::TIMER_MS)) * 1000
                + u64::from(self.register(register::TIMER_NS).div_ceil(1000));
            if at > self.now_micros + 50_000 {
                return;
            }
            let wait = at.saturating_sub(self.now_micros);
            self.wait_micros(wait as u32);
        }
        panic!("the card never settles");
    }

    pub(super) fn wait_micros(&mut self, micros: u32) {
        self.now_micros += u64::from(micros);
        let (ms, ns) = (self.now_micros / 1000, self.now_micros % 1000 * 1000);
        // SAFETY: the card lives.
        unsafe { fx_host_clock(self.nic, ms as u32, ns as u32) };
    }

    pub(super) fn push(&mut self, descriptor: Descriptor) {
        let descriptor = match descriptor.word(descriptor::GENERATION) {
            0 => descriptor.with(descriptor::GENERATION, GENERATION),
            _ => descriptor,
        };
        while self
            .tail
            .wrapping_sub(self.get(CONTROL_AT + 4 * control::DESCRIPTORS_TAKEN))
            >= DESCRIPTORS
        {
            self.some_steps(10);
        }
        let at = DESCRIPTORS_AT + (self.tail % DESCRIPTORS) * 32;
        for (word, &value) in (0..).zip(&descriptor.0) {
            self.put(at + 4 * word, value);
        }
        self.put(at + 28, self.tail + 1);
        self.tail += 1;
        if !self.lose_doorbells {
            self.set_queue_register(queue_register::DESCRIPTOR_TAIL, self.tail);
        }
    }

    pub(super) fn ring_doorbell(&mut self, tail: u32) {
        self.set_queue_register(queue_register::DESCRIPTOR_TAIL, tail);
    }

    /// Installs flow 0.
    pub(super) fn install(&mut self, adjust: impl FnOnce(&mut [u32; 64])) {
        self.try_install(adjust);
        assert_eq!(self.completions, [(0, 0)], "installed");
    }

    pub(super) fn try_install(&mut self, adjust: impl FnOnce(&mut [u32; 64])) {
        let mut state = FlowState {
            cwnd: 1 << 20,
            snd_wnd: 1 << 16,
            rcv_free: RING,
            ..FlowState::default()
        };
        state.set_tuple(&tuple());
        state.set_remote_mac(MacAddr([2, 0, 0, 0, 0, 2]));
        state.set_ttl_tos(64, 0);
        state.set_mss_scales(
            Mss::new(MSS as u16),
            WindowScale::new(7),
            WindowScale::new(7),
        );
        state.set_rcv_nxt(PEER);
        state.set_rcv_adv(PEER + RING);
        state.set_last_ack_sent(PEER);
        state.set_snd_una(OWN);
        state.set_snd_nxt(OWN);
        state.set_snd_end(OWN);
        let mut block = [0; 64];
        block[..flow_state::WORDS as usize].copy_from_slice(&state.to_words());
        let mut set = |word: u32, value: u32| block[word as usize] = value;
        for (low, at) in [
            (flow_block::RECV_LOW, RECV_AT),
            (flow_block::SEND_LOW, SEND_AT),
        ] {
            let address = BASE + u64::from(at);
            set(low, address as u32);
            set(low + 1, (address >> 32) as u32);
            set(low + 2, RING_SHIFT);
        }
        adjust(&mut block);
        for (word, value) in (0..).zip(block) {
            self.put(BLOCKS_AT + 4 * word, value);
        }
        self.push(Descriptor::new(operation::INSTALL));
        self.settle();
    }

    /// Looks at events.
    fn look(&mut self) -> bool {
        let mut did = false;
        while !self.deaf {
            let slot = self.head % EVENTS;
            let at = EVENTS_AT + slot * 64;
            if self.get(at + 60) != self.head + 1 {
                break;
            }
            let mut words = [0; 15];
            for (word, value) in (0..).zip(&mut words) {
                *value = self.get(at + 4 * word);
            }
            self.event(Event(words), slot);
            self.head += 1;
            self.set_queue_register(queue_register::EVENT_HEAD, self.head);
            did = true;
        }
        did
    }

    fn event(&mut self, event: Event, slot: u32) {
        match event.kind() {
            event_kind::NOTIFICATION => {
                let bytes = event.word(event::RECEIVED);
                for position in self.received..self.received + bytes {
                    let at = self.recv_at + position % RING;
                    assert_eq!(
                        self.memory[at as usize],
                        byte(position),
                        "received byte {position}"
                    );
                }
                self.received += bytes;
                self.acked += event.word(event::ACKED);
                self.send_room += event.word(event::ACKED);
            }
            event_kind::EXCEPTION => {
                let at = (FRAMES_AT + slot * FRAME) as usize;
                let frame = self.memory[at..at + event.word(event::FRAME_LENGTH) as usize].to_vec();
                parse(&RxFrame::contiguous(&frame, RxChecksum::Unverified))
                    .expect("the frame is whole");
                self.exceptions.push((event, frame));
            }
            event_kind::RETURNED => self.cause = Some(event.word(event::REASON)),
            event_kind::COMPLETION => {
                self.completions
                    .push((event.word(event::TAG), event.word(event::RESULT)));
                self.positions.push(event.word(event::POSITION));
            }
            kind => panic!("no such event: {kind}"),
        }
        if event.kind() == event_kind::RETURNED || event.has(event_flag::RETURNED) {
            let mut words = [0; flow_state::WORDS as usize];
            for (word, value) in (0..).zip(&mut words) {
                *value = self.get(BLOCKS_AT + 4 * word);
            }
            assert_eq!(self.get(BLOCKS_AT + 4 * flow_block::GENERATION), GENERATION);
            assert_eq!(
                self.get(BLOCKS_AT + 4 * flow_block::BUMPS),
                event.word(event::BUMPS)
            );
            self.returned = Some(FlowState::from_words(words));
        }
    }

    fn bump(&mut self, sent: u32, freed: u32) {
        self.bumps += 1;
        self.push(
            Descriptor::new(operation::BUMP)
                .with(descriptor::BUMP_SEQUENCE, self.bumps)
                .with(descriptor::BUMP_SENT, sent)
                .with(descriptor::BUMP_FREED, freed),
        );
    }

    /// The application writes.
    pub(super) fn write(&mut self, len: u32) {
        for position in self.written..self.written + len {
            self.memory[(SEND_AT + position % RING) as usize] = byte(position);
        }
        self.written += len;
        self.send_room -= len;
        self.bump(len, 0);
    }

    pub(super) const fn write_room(&self) -> u32 {
        self.send_room
    }

    /// The application reads all there is.
    pub(super) fn read_all(&mut self) {
        let len = self.received - self.read;
        if len > 0 {
            for position in self.read..self.received {
                let at = (self.recv_at + position % RING) as usize;
                assert_eq!(self.memory[at], byte(position), "read byte {position}");
                // Whatever is freed may be overwritten.
                self.memory[at] = 0xee;
            }
            self.read += len;
            self.bump(0, len);
        }
    }

    /// Moves the receive ring; returns the position from which on bytes are in the new one.
    pub(super) fn move_recv_ring(&mut self) -> u32 {
        let address = BASE + u64::from(RECV_2_AT);
        let (from, to) = (RECV_AT as usize, RECV_2_AT as usize);
        self.memory.copy_within(from..from + RING as usize, to);
        self.recv_at = RECV_2_AT;
        self.push(
            Descriptor::new(operation::RECV_RING)
                .with(descriptor::RING_LOW, address as u32)
                .with(descriptor::RING_HIGH, (address >> 32) as u32)
                .with(descriptor::RING_SHIFT, RING_SHIFT),
        );
        self.received
    }

    pub(super) fn arm(&mut self) {
        self.arm_at(self.head);
    }

    pub(super) fn arm_at(&mut self, position: u32) {
        self.arms += 1;
        self.set_queue_register(queue_register::ARM, position);
        self.set_queue_register(queue_register::ARM_COUNT, self.arms);
    }

    pub(super) fn interrupts(&self) -> u32 {
        self.world.borrow().interrupts
    }
}

impl Drop for Host {
    fn drop(&mut self) {
        // SAFETY: made by `fx_host_new`, and not used after this.
        unsafe { fx_host_free(self.nic) };
    }
}

impl fmt::Debug for Host {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let entry = self.register(register::FLOW_TABLE);
        let words: Vec<u32> = (0..constant::FLOW_ENTRY_WORDS)
            .map(|word| self.register(entry + word))
            .collect();
        f.debug_struct("Host")
            .field("received", &self.received)
            .field("read", &self.read)
            .field("written", &self.written)
            .field("acked", &self.acked)
            .field("offered", &self.offered)
            .field("seen", &self.seen)
            .field("dma", &self.world.borrow().dma.len())
            .field("private", &&words[flow_entry::PRIVATE as usize..])
            .finish_non_exhaustive()
    }
}

fn tuple() -> FlowTuple {
    FlowTuple {
        local: (Ipv4Addr::new(10, 0, 0, 1).into(), 80),
        remote: (Ipv4Addr::new(10, 0, 0, 2).into(), 1000),
    }
}
