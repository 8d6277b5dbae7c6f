//! The firmware's engines as a whole, on a card whose DMA is late and out of order and whose engines take turns at random.

mod card;
mod world;

use self::card::{Host, MSS, OWN, PEER, byte};
use super::abi::{
    cause, completion, constant, counter, descriptor, event, event_flag, flow_state, operation,
    queue_register, queue_status, reason, register, status,
};
use super::ring::Descriptor;
use crate::seq::SeqNum;
use crate::wire::TcpFlags;

fn seeds() -> impl Iterator<Item = u64> {
    let count = if std::env::var_os("FLEXTCP_FULL").is_some() {
        2000
    } else {
        60
    };
    let first = std::env::var("FLEXTCP_TEST_SEED")
        .ok()
        .and_then(|seed| seed.parse().ok());
    let (first, count) = first.map_or((1, count), |seed| (seed, 1));
    first..first + count
}

#[test]
fn a_card_comes_up_and_says_what_it_is() {
    let host = Host::new(1);
    assert_eq!(host.register(register::MAGIC), constant::MAGIC);
    assert_eq!(host.register(register::ABI_VERSION), constant::ABI_VERSION);
    assert_eq!(host.register(register::STATUS), status::READY);
    assert_eq!(
        host.queue_register(queue_register::STATUS),
        queue_status::RUNNING
    );
}

#[test]
fn data_arrives_is_told_and_then_acknowledged() {
    let mut host = Host::new(2);
    host.install(|_| {});
    host.peer(TcpFlags::ACK, 0, 0, MSS);
    host.peer(TcpFlags::ACK, MSS, 0, MSS);
    host.settle();
    assert_eq!(host.received, 2 * MSS);
    let acks = host.take_sent();
    assert_eq!(acks.len(), 1, "{acks:?}");
    assert_eq!(acks[0].tcp.ack, PEER + 2 * MSS);
    assert_eq!(host.counter(counter::FAST_BYTES_IN), u64::from(2 * MSS));
    assert_eq!(host.counter(counter::FAST_ACKS_OUT), 1);
}

#[test]
fn what_is_written_goes_out_and_comes_back_acknowledged() {
    let mut host = Host::new(3);
    host.install(|_| {});
    host.write(2 * MSS + 10);
    host.settle();
    let sent = host.take_sent();
    assert_eq!(
        sent.iter().map(|p| p.payload_len).collect::<Vec<_>>(),
        [MSS as usize, MSS as usize, 10]
    );
    host.peer(TcpFlags::ACK, 0, 2 * MSS + 10, 0);
    host.settle();
    assert_eq!(host.acked, 2 * MSS + 10);
}

#[test]
fn an_exception_brings_the_flow_back() {
    let mut host = Host::new(4);
    host.install(|_| {});
    host.peer(TcpFlags::ACK, 0, 0, 100);
    host.peer(TcpFlags::ACK, 500, 0, 100);
    host.peer(TcpFlags::ACK, 100, 0, 100);
    host.settle();
    assert_eq!(host.received, 100);
    let [first, second] = host.exceptions.as_slice() else {
        panic!("two exceptions, not {:?}", host.exceptions);
    };
    assert_eq!(
        (
            first.0.word(event::REASON),
            first.0.has(event_flag::RETURNED)
        ),
        (reason::OUT_OF_ORDER, true)
    );
    assert_eq!(
        (
            second.0.word(event::REASON),
            second.0.has(event_flag::RETURNED)
        ),
        (reason::HOST_OWNED, false)
    );
    let state = host.returned.expect("the state is in the block");
    assert_eq!(state.rcv_nxt(), PEER + 100);
    host.push(Descriptor::new(operation::REMOVE).with(descriptor::TAG, 7));
    host.settle();
    assert_eq!(host.completions.last(), Some(&(7, completion::OK)));
    host.peer(TcpFlags::ACK, 100, 0, 100);
    host.settle();
    let last = host.exceptions.last().expect("a stray");
    assert_eq!(
        (last.0.word(event::REASON), last.0.word(event::FLOW)),
        (reason::NO_FLOW, event::NO_FLOW)
    );
}

#[test]
fn a_claim_returns_the_flow_and_stale_requests_do_nothing() {
    let mut host = Host::new(5);
    host.install(|_| {});
    host.push(Descriptor::new(operation::CLAIM).with(descriptor::TAG, 1));
    host.push(Descriptor::new(operation::CLAIM).with(descriptor::TAG, 2));
    host.push(Descriptor::new(operation::INSTALL).with(descriptor::TAG, 3));
    host.push(
        Descriptor::new(operation::REMOVE)
            .with(descriptor::GENERATION, 99)
            .with(descriptor::TAG, 4),
    );
    host.push(Descriptor::new(200).with(descriptor::TAG, 5));
    host.settle();
    assert_eq!(host.cause, Some(cause::CLAIMED));
    let expected = [
        (2, completion::STALE),
        (3, completion::IN_USE),
        (4, completion::STALE),
        (5, completion::BAD_OPERATION),
    ];
    let mut completions = host.completions.clone();
    completions.sort_unstable();
    assert_eq!(completions[1..], expected);
}

#[test]
fn another_queues_flow_and_broken_blocks_are_refused() {
    let mut host = Host::new(6);
    let beyond = Descriptor::new(operation::INSTALL).with(descriptor::FLOW, card::FLOWS);
    host.push(beyond.with(descriptor::TAG, 1));
    host.settle();
    assert_eq!(host.completions, [(1, completion::NOT_YOURS)]);
    for (word, value, result) in [
        (flow_state::FLAGS, 1 << 20, completion::UNSUPPORTED),
        (flow_state::SND_NXT, OWN.0 + 1, completion::BAD_STATE),
        (
            super::abi::flow_block::RECV_LOW,
            0x8000_0040,
            completion::BAD_RING,
        ),
        (super::abi::flow_block::RECV_SHIFT, 3, completion::BAD_RING),
    ] {
        host.completions.clear();
        host.try_install(|block| block[word as usize] = value);
        assert_eq!(host.completions, [(0, result)], "word {word}");
    }
    host.completions.clear();
    host.install(|_| {});
}

#[test]
fn bumps_out_of_sequence_and_beyond_the_ring_return_the_flow() {
    for (sequence, sent) in [(2, 10), (1, 1 << 20)] {
        let mut host = Host::new(7);
        host.install(|_| {});
        let bump = Descriptor::new(operation::BUMP).with(descriptor::BUMP_SEQUENCE, sequence);
        host.push(bump.with(descriptor::BUMP_SENT, sent));
        host.settle();
        assert_eq!(host.cause, Some(cause::BAD_BUMP));
        assert_eq!(host.returned.map(|state| state.snd_end()), Some(OWN));
        assert!(host.take_sent().is_empty());
        assert_eq!(host.counter(counter::BAD_DESCRIPTORS), 1);
    }
}

#[test]
fn a_descriptor_out_of_sequence_stops_the_queue() {
    let mut host = Host::new(8);
    host.ring_doorbell(3);
    host.settle();
    assert_eq!(
        host.queue_register(queue_register::STATUS),
        queue_status::BAD_SEQUENCE
    );
}

#[test]
fn a_lost_doorbell_is_made_good_by_the_next() {
    let mut host = Host::new(9);
    host.install(|_| {});
    host.lose_doorbells = true;
    host.write(100);
    host.settle();
    assert!(host.take_sent().is_empty());
    host.lose_doorbells = false;
    host.write(100);
    host.settle();
    let bytes: usize = host.take_sent().iter().map(|p| p.payload_len).sum();
    assert!(bytes >= 100);
}

#[test]
fn a_full_event_ring_holds_acks_back_and_loses_nothing() {
    let mut host = Host::new(10);
    host.install(|_| {});
    host.deaf = true;
    let mut sent = 0;
    for _ in 0..16 {
        host.peer(TcpFlags::ACK, sent, 0, MSS);
        sent += MSS;
        host.settle();
    }
    let told = card::EVENTS * MSS;
    for packet in host.take_sent() {
        assert!(
            packet.tcp.ack.at_or_before(PEER + told),
            "acknowledged and not told"
        );
    }
    host.deaf = false;
    host.settle();
    assert_eq!(host.received, sent);
    let acks = host.take_sent();
    assert_eq!(acks.last().map(|p| p.tcp.ack), Some(PEER + sent));
}

#[test]
fn a_reset_under_load_forgets_the_flows_and_starts_anew() {
    for seed in 0..20 {
        let mut host = Host::new(seed);
        host.install(|_| {});
        host.write(10 * MSS);
        for n in 0..10 {
            host.peer(TcpFlags::ACK, n * MSS, 0, MSS);
        }
        host.some_steps(seed as u32 * 3);
        let epoch = host.register(register::EPOCH);
        host.bring_up();
        assert_eq!(host.register(register::EPOCH), epoch + 1);
        host.peer(TcpFlags::ACK, 0, 0, 10);
        host.settle();
        assert_eq!(
            host.exceptions.last().map(|e| e.0.word(event::REASON)),
            Some(reason::NO_FLOW)
        );
        host.install(|_| {});
        host.peer(TcpFlags::ACK, 0, 0, 10);
        host.settle();
        assert_eq!(host.received, 10);
    }
}

#[test]
fn the_flow_survives_another_receive_ring() {
    let mut host = Host::new(11);
    host.install(|_| {});
    host.peer(TcpFlags::ACK, 0, 0, MSS);
    host.settle();
    let position = host.move_recv_ring();
    host.settle();
    assert_eq!(host.positions.last(), Some(&position));
    host.peer(TcpFlags::ACK, MSS, 0, MSS);
    host.settle();
    host.read_all();
    assert_eq!(host.read, 2 * MSS);
}

/// Both directions at once, anything late and out of order: every byte arrives, in order, whole, and no ACK covers a byte that
/// the host was not told of (`Host` checks that with every frame).
#[test]
fn streams_are_whole() {
    for seed in seeds() {
        let mut host = Host::new(seed);
        host.install(|_| {});
        let (mut sent, mut peer_acked) = (0, 0);
        let total = 40_000;
        let mut rounds = 0;
        while host.read < total || host.acked < total {
            rounds += 1;
            assert!(
                rounds < 20_000,
                "FLEXTCP_TEST_SEED={seed}: no progress: {host:?}"
            );
            let room = host.peer_window(sent);
            let len = host.below(MSS + 1).min(total - sent).min(room);
            if len > 0 {
                host.peer(TcpFlags::ACK, sent, peer_acked, len);
                sent += len;
            }
            if host.written < total {
                let len = host
                    .below(3 * MSS)
                    .min(total - host.written)
                    .min(host.write_room());
                host.write(len);
            }
            host.some_steps(30);
            if host.below(3) == 0 {
                host.read_all();
            }
            let reached = host.reached();
            if SeqNum(peer_acked).before(SeqNum(reached)) {
                peer_acked = reached;
                host.peer(TcpFlags::ACK, sent, peer_acked, 0);
            }
            host.wait_micros(50);
        }
        assert!(
            host.exceptions.is_empty(),
            "FLEXTCP_TEST_SEED={seed}: {:?}",
            host.exceptions
        );
        assert_eq!((host.read, host.acked), (total, total));
        assert_eq!(byte(0), byte(251), "the streams' pattern");
    }
}

#[test]
fn raw_frames_pass_and_are_counted() {
    let mut host = Host::new(12);
    for _ in 0..5 {
        host.send_frame();
    }
    host.settle();
    assert_eq!(host.take_sent().len(), 5);
    assert_eq!(host.frames_sent(), 5);
    assert_eq!(host.counter(counter::SLOW_FRAMES_OUT), 5);
    let bad = Descriptor::new(operation::SEND_FRAME).with(descriptor::FRAME_LENGTH, 100);
    host.push(bad.with(descriptor::TAG, 1));
    host.settle();
    assert_eq!(host.completions, [(1, completion::BAD_FRAME)]);
}

#[test]
fn an_armed_queue_interrupts_once() {
    let mut host = Host::new(13);
    host.install(|_| {});
    host.arm();
    host.settle();
    assert_eq!(host.interrupts(), 0);
    host.peer(TcpFlags::ACK, 0, 0, 100);
    host.peer(TcpFlags::ACK, 100, 0, 100);
    host.settle();
    assert_eq!(host.interrupts(), 1);
    host.arm_at(0);
    host.settle();
    assert_eq!(
        host.interrupts(),
        2,
        "events beyond that position are there already"
    );
}
