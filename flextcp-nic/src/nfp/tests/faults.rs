//! What goes wrong between host and card: two cards at one wire, a flow between them.

use core::time::Duration;
use std::net::Ipv4Addr;
use std::sync::Arc;

use super::super::emulator::{Emulator, EmulatorConfig, Schedule};
use super::super::{NfpConfig, NfpNic};
use crate::buffer::{DmaRegion, Pool, RecvReader, SendWriter, recv_ring, send_ring};
use crate::flow::{FlowId, FlowState, FlowTuple, Token};
use crate::nic::{Exception, FlowBuffers, Nic, Notification, Returned, Sink};
use crate::port::Port;
use crate::port::memory::{MemoryConfig, MemoryPort};
use crate::queue::abi::{counter, descriptor, operation, queue_register, region, register};
use crate::queue::ring::Descriptor;
use crate::seq::{Mss, SeqNum, WindowScale};
use crate::steer::SteerAll;
use crate::time::Instant;
use crate::wire::MacAddr;

const START: [SeqNum; 2] = [SeqNum(u32::MAX - 5000), SeqNum(77)];

#[derive(Default)]
struct Told {
    returned: Vec<Returned>,
}

impl Sink for Told {
    fn notification(&mut self, _: Notification) {}

    fn exception(&mut self, exception: Exception<'_>) {
        self.returned
            .extend(exception.returned.map(|returned| *returned));
    }

    fn returned(&mut self, returned: Returned) {
        self.returned.push(returned);
    }
}

struct Side {
    nic: NfpNic,
    id: FlowId,
    recv: RecvReader,
    send: SendWriter,
    pool: Arc<Pool>,
    told: Told,
}

fn side(port: MemoryPort, which: usize, seed: u64) -> Side {
    let mac = MacAddr([2, 0, 0, 0, 0, 1]);
    let config = EmulatorConfig::small(seed, Schedule::Hostile);
    let bus = Emulator::new(Box::new(port) as Box<dyn Port>, config).unwrap();
    let memory = DmaRegion::private(16 << 20).unwrap();
    let pool = Pool::in_region(Arc::clone(&memory), 8 << 20);
    let nic_config = NfpConfig {
        frame_size: 2048,
        ..NfpConfig::new("nfp-emu", [3; 16])
    };
    let mut nic = NfpNic::new(
        Box::new(bus),
        Box::new(SteerAll::new()),
        &memory,
        nic_config,
    )
    .unwrap();
    let ends = [
        (Ipv4Addr::new(10, 0, 0, 1).into(), 80),
        (Ipv4Addr::new(10, 0, 0, 2).into(), 4000),
    ];
    let (own, peer) = (START[which], START[1 - which]);
    let mut state = FlowState {
        cwnd: 1 << 20,
        snd_wnd: 1 << 16,
        rcv_free: 1 << 16,
        ..FlowState::default()
    };
    state.set_tuple(&FlowTuple {
        local: ends[which],
        remote: ends[1 - which],
    });
    state.set_remote_mac(mac);
    state.set_ttl_tos(64, 0);
    state.set_mss_scales(Mss::new(1000), WindowScale::new(7), WindowScale::new(7));
    state.set_rcv_nxt(peer);
    state.set_rcv_adv(peer + (1 << 16));
    state.set_last_ack_sent(peer);
    state.set_snd_una(own);
    state.set_snd_nxt(own);
    state.set_snd_end(own);
    let (writer, recv) = recv_ring(&pool);
    let (send, reader) = send_ring(&pool, 1 << 20);
    let buffers = FlowBuffers {
        recv: writer,
        send: reader,
    };
    let id = nic
        .install(Instant::from_millis(1), Token(which as u64), state, buffers)
        .expect("the table is empty");
    Side {
        nic,
        id,
        recv,
        send,
        pool,
        told: Told::default(),
    }
}

struct Pair {
    sides: [Side; 2],
    now: Instant,
}

impl Pair {
    fn new(seed: u64) -> Self {
        let (a, b) = MemoryPort::pair(MemoryConfig::default(), MemoryConfig::default()).unwrap();
        let mut pair = Self {
            sides: [side(a, 0, seed), side(b, 1, seed + 1)],
            now: Instant::from_millis(1),
        };
        pair.turns(2);
        pair
    }

    fn turns(&mut self, count: usize) {
        for _ in 0..count {
            self.now += Duration::from_millis(1);
            for side in &mut self.sides {
                // Stale once the flow came back.
                let _ = side.nic.doorbell(self.now, side.id);
                side.nic.flush(self.now).expect("the card is there");
                side.nic
                    .poll(self.now, 64, &mut side.told)
                    .expect("the card is there");
            }
        }
    }

    fn write(&self, which: usize, from: usize, len: usize) -> usize {
        let bytes: Vec<u8> = (from..from + len).map(|i| (i % 251) as u8).collect();
        self.sides[which].send.write(&bytes)
    }

    /// Reads all that is there, which must continue at `from`.
    fn read(&self, which: usize, from: usize) -> usize {
        let mut out = vec![0; 1 << 16];
        let n = self.sides[which].recv.read(&mut out);
        for (at, byte) in (from..).zip(&out[..n]) {
            assert_eq!(*byte, (at % 251) as u8, "byte {at}");
        }
        n
    }
}

#[test]
fn streams_cross_two_cards_and_grow_their_rings() {
    for seed in 1..5 {
        let mut pair = Pair::new(seed);
        let total = 400_000;
        let (mut written, mut read) = ([0; 2], [0; 2]);
        for _ in 0..20_000 {
            for which in 0..2 {
                let len = (total - written[which]).min(30_000);
                written[which] += pair.write(which, written[which], len);
                read[which] += pair.read(which, read[which]);
            }
            if read == [total; 2] {
                break;
            }
            pair.turns(1);
        }
        assert_eq!(read, [total; 2], "seed {seed}");
        for side in &pair.sides {
            assert!(side.told.returned.is_empty(), "seed {seed}");
            assert!(side.nic.counters().fast.bytes_in >= total as u64);
        }
    }
}

/// Bytes of a stream that were acknowledged, and the connection's end at the receiver if it came back.
fn acknowledged(pair: &Pair) -> u32 {
    let sender = &pair.sides[0];
    let progress = sender
        .nic
        .progress(sender.id)
        .expect("the sender's flow stays");
    progress.state.snd_una().since(START[0])
}

#[test]
fn idle_rings_give_their_memory_back_and_come_again() {
    for seed in 1..10 {
        let mut pair = Pair::new(seed);
        assert_eq!(
            (pair.write(0, 0, 10_000), pair.write(1, 0, 10_000)),
            (10_000, 10_000)
        );
        pair.turns(60);
        assert_eq!(
            (pair.read(0, 0), pair.read(1, 0)),
            (10_000, 10_000),
            "seed {seed}"
        );
        pair.turns(10);
        assert!(pair.sides.iter().all(|side| side.pool.used() > 0));
        pair.now += Duration::from_secs(3);
        pair.turns(20);
        for side in &pair.sides {
            assert_eq!(side.pool.used(), 0, "seed {seed}");
            assert!(side.told.returned.is_empty(), "the flow stays, seed {seed}");
            assert_eq!(side.nic.counters().bad_doorbells, 0, "seed {seed}");
        }

        // What is written brings a send ring again; what arrives, the flow, to be installed with a receive ring.
        assert_eq!(pair.write(0, 10_000, 500), 500);
        pair.turns(10);
        assert_eq!(
            acknowledged(&pair),
            10_000,
            "what was not taken is not acknowledged, seed {seed}"
        );
        let now = pair.now;
        let side = &mut pair.sides[1];
        let returned = side.told.returned.pop().expect("the flow comes back");
        assert_eq!(returned.buffers.recv.capacity(), 0);
        assert!(returned.state.rcv_free >= 1 << 16, "what was offered holds");
        let again = side
            .nic
            .install(now, returned.token, returned.state, returned.buffers);
        side.id = again.expect("the card takes it again");
        assert!(side.pool.used() >= 1 << 16);
    }
}

/// Data that arrives while the receive ring is being let go is either taken, or comes with the flow.
#[test]
fn a_ring_that_is_let_go_loses_nothing() {
    for seed in 1..40 {
        let mut pair = Pair::new(seed);
        assert_eq!(pair.write(0, 0, 1000), 1000);
        pair.turns(20);
        assert_eq!(pair.read(1, 0), 1000, "seed {seed}");
        pair.turns(5);
        pair.now += Duration::from_secs(1);
        assert_eq!(pair.write(0, 1000, 1000), 1000);
        if seed % 2 == 0 {
            // The card has it when the host, which does not know, asks for the ring.
            let (now, [sender, receiver]) = (pair.now, &mut pair.sides);
            sender.nic.doorbell(now, sender.id).unwrap();
            sender.nic.flush(now).unwrap();
            assert_eq!(receiver.nic.bus_mut().run(now, 64).unwrap(), 1);
        }
        pair.turns(30);
        let read = pair.read(1, 1000) as u32;
        pair.turns(50);
        assert_eq!(acknowledged(&pair), 1000 + read, "seed {seed}");
        let back = pair.sides[1].told.returned.pop();
        let expected = if seed % 2 == 0 { (1000, 0) } else { (0, 1) };
        assert_eq!((read, back.iter().count()), expected, "seed {seed}");
    }
}

#[test]
fn a_reset_under_load_loses_nothing_that_was_acknowledged() {
    for seed in 1..20 {
        let mut pair = Pair::new(seed);
        pair.write(0, 0, 100_000);
        pair.turns(seed as usize % 4 + 1);
        // Somebody resets the receiver's card.
        let bus = pair.sides[1].nic.bus_mut();
        let ticket = bus.read(register::RESET_DONE) + 1;
        bus.write(register::RESET, ticket);
        pair.turns(2);
        let acknowledged = pair.sides[0]
            .nic
            .progress(pair.sides[0].id)
            .map(|progress| progress.state.snd_una());
        let returned = pair.sides[1]
            .told
            .returned
            .pop()
            .expect("the flow comes back");
        let reached = returned.state.rcv_nxt();
        if let Ok(acknowledged) = acknowledged {
            assert!(
                acknowledged.at_or_before(reached),
                "seed {seed}: {acknowledged:?} {reached:?}"
            );
        }
        assert_eq!(
            pair.read(1, 0),
            reached.since(START[0]) as usize,
            "seed {seed}"
        );
        assert_eq!(pair.sides[1].nic.resets(), 1);
        // And the card takes it again.
        let now = pair.now;
        let again =
            pair.sides[1]
                .nic
                .install(now, returned.token, returned.state, returned.buffers);
        assert!(again.is_ok());
        pair.turns(1);
        assert_eq!(pair.sides[1].nic.resets(), 1);
    }
}

#[test]
fn a_lost_doorbell_is_made_good() {
    let mut pair = Pair::new(3);
    pair.write(0, 0, 100);
    let (now, id) = (pair.now, pair.sides[0].id);
    let nic = &mut pair.sides[0].nic;
    nic.doorbell(now, id).expect("the flow is installed");
    let before = nic
        .bus()
        .read(register::QUEUE_BASE + queue_register::DESCRIPTOR_TAIL);
    nic.tell_flows();
    nic.bus_mut().write(
        register::QUEUE_BASE + queue_register::DESCRIPTOR_TAIL,
        before,
    );
    pair.turns(4);
    assert_eq!(pair.read(1, 0), 100);
}

#[test]
fn a_broken_ring_starts_the_card_again() {
    let mut pair = Pair::new(4);
    let tail = register::QUEUE_BASE + queue_register::DESCRIPTOR_TAIL;
    let bus = pair.sides[0].nic.bus_mut();
    let beyond = bus.read(tail) + 3;
    bus.write(tail, beyond);
    pair.turns(3);
    assert_eq!(pair.sides[0].nic.resets(), 1);
    assert_eq!(pair.sides[0].told.returned.len(), 1);
}

#[test]
fn full_rings_hold_back_and_lose_nothing() {
    // More than the descriptor ring takes, and an answer to each: more than the event ring takes.
    const REQUESTS: u64 = 3000;
    let unknown = Descriptor::new(200);
    for seed in 10..13 {
        let mut pair = Pair::new(seed);
        let id = pair.sides[0].id;
        for _ in 0..REQUESTS {
            pair.sides[0].nic.push(unknown);
        }
        pair.write(0, 0, 10_000);
        pair.write(1, 0, 10_000);
        let now = pair.now;
        let nic = &mut pair.sides[0].nic;
        nic.doorbell(now, id).expect("the flow is installed");
        nic.submit();
        assert!(nic.has_to_tell(), "the ring took all {REQUESTS}");
        let mut read = [0; 2];
        for _ in 0..200 {
            pair.turns(1);
            for (which, read) in read.iter_mut().enumerate() {
                *read += pair.read(which, *read);
            }
        }
        assert_eq!(read, [10_000; 2], "seed {seed}");
        let nic = &pair.sides[0].nic;
        assert_eq!(nic.counters().bad_doorbells, REQUESTS, "seed {seed}");
        assert_eq!(nic.resets(), 0);
        assert!(pair.sides[0].told.returned.is_empty());
    }
}

#[test]
fn a_bump_beyond_the_buffer_returns_the_flow_and_sends_nothing() {
    // Bytes that were not written, and bytes that were not received.
    for word in [descriptor::BUMP_SENT, descriptor::BUMP_FREED] {
        let mut pair = Pair::new(7);
        let id = pair.sides[0].id;
        pair.sides[0].nic.push(
            Descriptor::new(operation::BUMP)
                .with(descriptor::FLOW, id.index)
                .with(descriptor::GENERATION, id.generation)
                .with(descriptor::BUMP_SEQUENCE, 1)
                .with(word, 1 << 21),
        );
        pair.turns(4);
        let refused = register::COUNTERS + counter::BAD_DESCRIPTORS * 2;
        assert_eq!(pair.sides[0].nic.bus().read(refused), 1);
        assert_eq!(pair.read(1, 0), 0, "bytes that nobody wrote");
        let returned = pair.sides[0].told.returned.pop().expect("it comes back");
        assert_eq!(returned.state.snd_nxt(), START[0]);
        assert_eq!(returned.state.snd_end(), START[0]);
        assert_eq!(
            pair.sides[0].nic.resets(),
            0,
            "the others are not disturbed"
        );
        // And goes on.
        let (now, nic) = (pair.now, &mut pair.sides[0].nic);
        let again = nic.install(now, returned.token, returned.state, returned.buffers);
        pair.sides[0].id = again.expect("it is free");
        pair.write(0, 0, 100);
        pair.turns(4);
        assert_eq!(pair.read(1, 0), 100);
    }
}

#[test]
fn descriptors_of_strangers_and_wild_addresses_do_no_harm() {
    let mut pair = Pair::new(5);
    let nic = &mut pair.sides[0].nic;
    let bump = Descriptor::new(operation::BUMP).with(descriptor::BUMP_SEQUENCE, 1);
    // Another queue's flow, a dead generation, a frame that is nowhere.
    nic.push(bump.with(descriptor::FLOW, 64));
    nic.push(
        bump.with(descriptor::FLOW, pair.sides[0].id.index)
            .with(descriptor::GENERATION, 99),
    );
    let nic = &mut pair.sides[0].nic;
    nic.push(
        Descriptor::new(operation::SEND_FRAME)
            .with(descriptor::FRAME_LENGTH, 100)
            .with(descriptor::FRAME_LOW, 0x1000),
    );
    pair.turns(3);
    let counters = pair.sides[0].nic.counters();
    assert_eq!(counters.bad_doorbells, 3);
    pair.write(0, 0, 100);
    pair.turns(4);
    assert_eq!(pair.read(1, 0), 100, "the flow goes on");
}

#[test]
fn a_region_that_the_bus_does_not_have_fails_the_card_and_touches_nothing() {
    let mut pair = Pair::new(6);
    let nic = &mut pair.sides[0].nic;
    // A host that registers more than it mapped.
    let length = register::REGIONS + region::LENGTH;
    nic.bus_mut().write(length, u32::MAX);
    let low = nic.bus().read(register::REGIONS + region::ADDRESS_LOW);
    let high = nic.bus().read(register::REGIONS + region::ADDRESS_HIGH);
    nic.push(
        Descriptor::new(operation::SEND_FRAME)
            .with(descriptor::FRAME_LENGTH, 100)
            .with(descriptor::FRAME_LOW, low.wrapping_add(0x8000_0000))
            .with(descriptor::FRAME_HIGH, high),
    );
    pair.turns(3);
    assert_eq!(pair.sides[0].nic.resets(), 1);
    assert_eq!(pair.sides[0].told.returned.len(), 1);
}
