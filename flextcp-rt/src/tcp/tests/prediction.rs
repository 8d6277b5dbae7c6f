//! Header prediction: what it takes, and that it leaves the connection as the whole way does.

use flextcp_nic::port::{RxChecksum, RxFrame};
use flextcp_nic::seq::SeqNum;
use flextcp_nic::time::Instant;
use flextcp_nic::wire::{MAX_HEADER_LEN, Packet, SegmentRepr, Timestamps, parse};

use super::*;

const LEN: usize = 1000;

type Change = fn(&mut SegmentRepr);

/// A server that waits for the peer to acknowledge something, and the headers of what that peer sends next.
fn receiver() -> (Sim, ConnId, SegmentRepr) {
    let mut sim = Sim::new(
        EngineConfig {
            offload: OffloadPolicy::Never,
            ..EngineConfig::default()
        },
        1,
    );
    let (client, server) = sim.pair();
    sim.write(0, client, &pattern(0, LEN));
    sim.settle();
    assert_eq!(sim.read(1, server, LEN), pattern(0, LEN));
    sim.cut = [true; 2];
    sim.write(1, server, &pattern(0, LEN));
    sim.drive_all();
    let conn = sim.hosts[0].engine.conns.get(client).unwrap();
    let header = conn.header(sim.now, conn.snd.nxt, TcpFlags::ACK);
    (sim, server, header)
}

fn frame(header: &SegmentRepr, payload: &[u8]) -> Vec<u8> {
    let mut bytes = [0; MAX_HEADER_LEN];
    let len = header.emit([payload, &[]], false, &mut bytes);
    [&bytes[..len], payload].concat()
}

fn predicts(sim: &Sim, id: ConnId, now: Instant, header: &SegmentRepr, len: usize) -> bool {
    let bytes = frame(header, &pattern(0, len));
    let frame = RxFrame::contiguous(&bytes, RxChecksum::Unverified);
    let Ok(Packet::Tcp(packet)) = parse(&frame) else {
        panic!("a segment of the test is not one");
    };
    sim.hosts[1]
        .engine
        .conns
        .get(id)
        .unwrap()
        .predicts(now, &packet)
}

#[test]
fn what_follows_behind_a_hole_and_says_nothing_else_is_predicted() {
    let (mut sim, server, mut header) = receiver();
    header.seq += 5 * LEN as u32;
    assert!(
        !predicts(&sim, server, sim.now, &header, LEN),
        "nothing lies before it"
    );
    sim.deliver(1, &frame(&header, &pattern(0, LEN)));
    assert!(
        !predicts(&sim, server, sim.now, &header, LEN),
        "it is there already"
    );
    header.seq += LEN as u32;
    assert!(predicts(&sim, server, sim.now, &header, LEN));
    header.flags |= TcpFlags::PSH;
    assert!(predicts(&sim, server, sim.now, &header, LEN));

    let later = sim.now + Duration::from_nanos(1);
    assert!(
        !predicts(&sim, server, later, &header, LEN),
        "a timer may be due"
    );
    assert!(
        !predicts(&sim, server, sim.now, &header, 0),
        "an acknowledgment"
    );
    let edge = sim.hosts[1].engine.conns.get(server).unwrap().rcv.adv;
    let differing: [(&str, Change); 9] = [
        ("a hole before it", |h| h.seq += 1),
        ("known bytes", |h| h.seq += u32::MAX),
        ("an acknowledgment", |h| h.ack += 1),
        ("another window", |h| h.window -= 1),
        ("FIN", |h| h.flags |= TcpFlags::FIN),
        ("URG", |h| h.flags |= TcpFlags::URG),
        ("an old timestamp", |h| {
            let Timestamps { val, ecr } = h.options.timestamps.unwrap();
            let val = val.wrapping_sub(1000);
            h.options.timestamps = Some(Timestamps { val, ecr });
        }),
        ("no timestamp", |h| h.options.timestamps = None),
        ("a SACK block", |h| {
            h.options.sack.push(SeqNum(1), SeqNum(2));
        }),
    ];
    for (name, change) in differing {
        let mut changed = header;
        change(&mut changed);
        assert!(!predicts(&sim, server, sim.now, &changed, LEN), "{name}");
    }
    // Up to the edge of the window, and beyond it.
    while header.seq.before(edge) {
        let len = LEN.min(edge.since(header.seq) as usize);
        assert_eq!(
            predicts(&sim, server, sim.now, &header, len + 1),
            len == LEN
        );
        sim.deliver(1, &frame(&header, &pattern(0, len)));
        header.seq += len as u32;
    }
    let conn = sim.hosts[1].engine.conns.get(server).unwrap();
    assert_eq!(conn.rcv.reassembly.right_edge(), Some(edge));
    sim.drive_all();
    assert!(
        !predicts(&sim, server, sim.now, &header, LEN),
        "acknowledged since"
    );
}

/// Batches of segments as a lossy path delivers them, some of them ill; says what the server sent, and what it is then.
fn batches(seed: u64, predicting: bool) -> (String, Vec<u8>, usize) {
    let (mut sim, server, mut peer) = receiver();
    let first = peer.seq;
    let mut rng = Rng(seed);
    let (mut next, mut predicted) = (0, 0);
    let stream = pattern(seed, 4 << 20);
    let mut got = Vec::new();
    sim.log.clear();
    for _ in 0..60 {
        sim.now += Duration::from_micros(10);
        for _ in 0..rng.below(40) {
            let mut header = peer;
            header.seq = first;
            let len = if rng.chance(900) {
                LEN
            } else {
                rng.below(LEN as u64) as usize
            };
            let at = match rng.below(100) {
                0..4 => next + LEN as u64,
                4..8 => got.len() as u64,
                8..10 => rng.below(next + 1),
                _ => next,
            };
            next = at + len as u64;
            header.seq += at as u32;
            if rng.chance(100) {
                header.flags |= TcpFlags::PSH;
            }
            // Late ones say what was so before.
            let say = if rng.chance(300) {
                &mut header
            } else {
                &mut peer
            };
            if rng.chance(20) {
                say.window += rng.below(3) as u16;
            }
            if rng.chance(20) {
                say.ack += rng.below(LEN as u64 / 8) as u32;
            }
            if let Some(timestamps) = &mut say.options.timestamps {
                timestamps.val += rng.below(2) as u32;
            }
            if !predicting {
                sim.hosts[1].engine.latest = None;
            } else {
                predicted += usize::from(predicts(&sim, server, sim.now, &header, len.max(1)));
            }
            sim.deliver(1, &frame(&header, &stream[at as usize..][..len]));
        }
        if rng.chance(500) {
            sim.drive_all();
            got.extend(sim.read(1, server, 1 << 20));
        }
    }
    assert!(stream.starts_with(&got), "seed {seed}");
    let conn = sim.hosts[1].engine.conns.get(server).unwrap();
    let Conn {
        rcv,
        snd,
        timers,
        counters,
        ..
    } = conn;
    let end = format!("{:?} {rcv:?} {snd:?} {timers:?} {counters:?}", sim.log);
    (end, got, predicted)
}

#[test]
fn a_predicted_segment_leaves_what_it_would_have_left_unpredicted() {
    let mut predicted = 0;
    for seed in 0..60 {
        let (end, got, count) = batches(seed, true);
        let (expected, expected_got, _) = batches(seed, false);
        assert!(got == expected_got, "seed {seed}");
        assert_eq!(end, expected, "seed {seed}");
        predicted += count;
    }
    println!("{predicted} segments were predicted");
    assert!(predicted > 3_000, "{predicted}");
}
