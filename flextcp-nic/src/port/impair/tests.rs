use std::collections::HashMap;
use std::time::Duration;

use proptest::prelude::*;

use super::*;
use crate::flow::FlowTuple;
use crate::port::memory::{LoopbackPort, MemoryConfig, MemoryPort};
use crate::seq::SeqNum;
use crate::wire::{MAX_HEADER_LEN, MacAddr, Packet, SegmentRepr, TcpFlags, TcpOptions, parse};

/// A segment that carries its number as sequence number.
fn segment(number: u32, tos: u8) -> Vec<u8> {
    let repr = SegmentRepr {
        src_mac: MacAddr::ZERO,
        dst_mac: MacAddr::ZERO,
        tuple: FlowTuple {
            local: ([10, 0, 0, 1].into(), 4242),
            remote: ([10, 0, 0, 2].into(), 80),
        },
        tos,
        ttl: 64,
        seq: SeqNum(number),
        ack: SeqNum(0),
        flags: TcpFlags::ACK,
        window: 100,
        urgent: 0,
        options: TcpOptions::default(),
    };
    let payload = [number as u8; 46];
    let mut header = [0; MAX_HEADER_LEN];
    let len = repr.emit([&payload, &[]], false, &mut header);
    [&header[..len], &payload[..]].concat()
}

fn send(port: &mut dyn Port, now: Instant, bytes: &[u8]) {
    let frame = TxFrame {
        header: bytes,
        payload: [&[], &[]],
        offload: TxOffload::default(),
    };
    port.transmit(now, frame).unwrap();
    port.flush(now).unwrap();
}

#[derive(Debug, Default)]
struct Seen {
    /// Sequence numbers, in order of arrival.
    numbers: Vec<u32>,
    bad: usize,
    marked: usize,
}

impl Seen {
    fn look(&mut self, port: &mut dyn Port, now: Instant) {
        port.receive(now, usize::MAX, &mut |frame| match parse(&frame) {
            Ok(Packet::Tcp(packet)) => {
                self.numbers.push(packet.tcp.seq.0);
                self.marked += usize::from(packet.ecn_ce());
            }
            _ => self.bad += 1,
        })
        .unwrap();
    }
}

/// Follows `poll_at` until nothing is under way.
fn drain(
    sender: &mut dyn Port,
    receiver: &mut dyn Port,
    mut now: Instant,
    seen: &mut Seen,
) -> Instant {
    seen.look(receiver, now);
    while let Some(next) = [sender.poll_at(), receiver.poll_at()]
        .into_iter()
        .flatten()
        .min()
    {
        now = now.max(next);
        sender.flush(now).unwrap();
        seen.look(receiver, now);
    }
    now
}

/// Sends `count` segments a microsecond apart over a wire impaired on the sending or the receiving side.
fn run(text: &str, count: u32, on_tx: bool) -> (Seen, ImpairCounters) {
    let (a, b) = MemoryPort::pair(MemoryConfig::default(), MemoryConfig::default()).unwrap();
    let none = ImpairConfig::default();
    let config: ImpairConfig = text.parse().unwrap();
    let (tx, rx) = if on_tx {
        (config, none)
    } else {
        (none, config)
    };
    let (mut a, mut b) = (Impair::new(a, tx), Impair::new(b, rx));
    let mut seen = Seen::default();
    let mut now = Instant::ZERO;
    for number in 0..count {
        send(&mut a, now, &segment(number, 2));
        seen.look(&mut b, now);
        now += Duration::from_micros(1);
    }
    drain(&mut a, &mut b, now, &mut seen);
    (
        seen,
        if on_tx {
            a.tx_counters()
        } else {
            b.rx_counters()
        },
    )
}

/// Whether `n` of `count` is what a probability gives, within five standard deviations.
fn assert_near(n: u64, count: u32, probability: f64, what: &str) {
    let mean = f64::from(count) * probability;
    let tolerance = 5.0 * (mean * (1.0 - probability)).sqrt();
    assert!(
        (n as f64 - mean).abs() <= tolerance,
        "{what}: {n} of {count} at {probability}"
    );
}

#[test]
fn chances_are_met_and_damage_is_noticed() {
    const COUNT: u32 = 20_000;
    let text = "loss=1%,reorder=0.02,dup=0.5%,corrupt=0.03,seed=7";
    for on_tx in [true, false] {
        let (seen, counters) = run(text, COUNT, on_tx);
        assert_near(counters.lost, COUNT, 0.01, "lost");
        assert_near(counters.reordered, COUNT, 0.02, "reordered");
        assert_near(counters.duplicated, COUNT, 0.005, "duplicated");
        assert_near(counters.corrupted, COUNT, 0.03, "corrupted");
        let delivered = counters.frames - counters.lost + counters.duplicated;
        assert_eq!((seen.numbers.len() + seen.bad) as u64, delivered);
        assert_eq!(seen.bad as u64, counters.corrupted);
        let late = seen
            .numbers
            .windows(2)
            .filter(|pair| pair[1] < pair[0])
            .count();
        assert!(late > 0 && late as u64 <= counters.reordered);
    }
}

#[test]
fn bursts_have_their_length() {
    let (seen, counters) = run("burst=1%,burst-len=5,seed=11", 100_000, true);
    let mut bursts = 0;
    let mut before = u32::MAX;
    for number in seen.numbers {
        bursts += u32::from(number != before.wrapping_add(1));
        before = number;
    }
    let mean = counters.lost as f64 / f64::from(bursts);
    assert!((4.5..5.5).contains(&mean), "{mean} frames a burst");
    // A burst begins with one of a hundred frames that are not in one.
    let outside = 100_000 - counters.lost as u32;
    assert_near(bursts.into(), outside, 0.01, "bursts");
}

#[test]
fn jitter_delays_and_keeps_the_order() {
    let (seen, _) = run("delay=10us,jitter=50us", 2_000, true);
    assert!(seen.numbers.iter().copied().eq(0..2_000));
    let mut line = Line::new(
        Impairment {
            delay: Duration::from_micros(10),
            jitter: Duration::from_micros(50),
            ..Impairment::default()
        },
        5,
    );
    let mut longest = Duration::ZERO;
    for n in 0..1_000 {
        let now = Instant::from_millis(n);
        line.enter(now, [&segment(0, 0)[..]].into_iter(), RxChecksum::Trusted);
        let due = line.next_due().unwrap();
        assert!((10_000..=60_000).contains(&(due - now).as_nanos()));
        longest = longest.max(due - now);
        assert!(line.take(now).is_none());
        let frame = line.take(due).unwrap();
        line.give_back(frame.bytes);
    }
    assert!(longest > Duration::from_micros(58));
}

#[test]
fn a_line_can_change_on_the_way() {
    let slow = Impairment {
        rate: Some(8_000_000),
        ..Impairment::default()
    };
    let mut line = Line::new(slow, 1);
    let frame = [0; 1_000];
    for _ in 0..3 {
        line.enter(Instant::ZERO, [&frame[..]].into_iter(), RxChecksum::Trusted);
    }
    assert_eq!(line.queued(Instant::ZERO), 3);
    assert_eq!(line.queued(Instant::from_millis(2)), 1);
    line.set(Impairment::default());
    line.enter(Instant::ZERO, [&frame[..]].into_iter(), RxChecksum::Trusted);
    assert_eq!(line.next_due(), Some(Instant::ZERO));
    assert_eq!((line.len(), line.counters().frames), (4, 4));
}

#[test]
fn one_seed_is_one_history() {
    let text = "loss=0.1,reorder=0.1,dup=0.1,corrupt=0.1,delay=5us,rate=1gbit";
    let history = |seed: u32| run(&format!("{text},seed={seed}"), 2000, true);
    let (first, counters) = history(1);
    let (again, same) = history(1);
    assert_eq!((&first.numbers, counters), (&again.numbers, same));
    assert_ne!(first.numbers, history(2).0.numbers);
}

#[test]
fn more_loss_does_not_move_the_duplicates() {
    let duplicates = |text: &str| {
        let mut counts = HashMap::new();
        run(text, 2000, true)
            .0
            .numbers
            .into_iter()
            .for_each(|n| *counts.entry(n).or_insert(0) += 1);
        counts.retain(|_, count| *count == 2);
        counts
    };
    let without = duplicates("dup=0.05,seed=3");
    let with = duplicates("dup=0.05,loss=0.2,seed=3");
    assert!(!with.is_empty() && with.len() < without.len());
    assert!(with.keys().all(|number| without.contains_key(number)));
}

#[test]
fn a_held_frame_goes_after_the_gap_or_after_the_hold() {
    let text = "rx.reorder=1,rx.gap=2,rx.hold=1ms";
    let mut port = Impair::new(LoopbackPort::new(), text.parse().unwrap());
    let mut seen = Seen::default();
    send(&mut port, Instant::ZERO, &segment(0, 0));
    seen.look(&mut port, Instant::ZERO);
    assert!(seen.numbers.is_empty());
    assert_eq!(port.poll_at(), Some(Instant::from_millis(1)));
    seen.look(&mut port, Instant::from_millis(1));
    assert_eq!(seen.numbers, [0]);

    // Seeded so that only the first of a few is held back: found by looking, checked by the counter.
    let config = |seed: u64| ImpairConfig {
        rx: Impairment {
            reorder: 0.3,
            gap: 2,
            ..Impairment::default()
        },
        seed,
        ..ImpairConfig::default()
    };
    let order = |seed| {
        let mut port = Impair::new(LoopbackPort::new(), config(seed));
        for number in 0..4 {
            send(&mut port, Instant::ZERO, &segment(number, 0));
        }
        let mut seen = Seen::default();
        seen.look(&mut port, Instant::ZERO);
        (port.rx_counters().reordered, seen.numbers)
    };
    let orders: Vec<_> = (0..200).map(order).collect();
    assert!(
        orders.contains(&(1, vec![1, 2, 0, 3])),
        "two frames pass, then the one held back"
    );
}

#[test]
fn delay_and_rate_take_their_time() {
    // 100 bytes a frame: 1 µs each at 800 Mbit/s.
    let text = "tx.delay=1ms,tx.rate=800mbit";
    let (a, mut b) = MemoryPort::pair(MemoryConfig::default(), MemoryConfig::default()).unwrap();
    let mut a = Impair::new(a, text.parse().unwrap());
    for number in 0..3 {
        let frame = segment(number, 0);
        assert_eq!(frame.len(), 100);
        send(&mut a, Instant::ZERO, &frame);
    }
    let mut seen = Seen::default();
    for arrived in 0..=3 {
        assert_eq!(seen.numbers.len(), arrived);
        let due = (arrived < 3).then(|| Instant::from_micros(1001 + arrived as u64));
        assert_eq!(a.poll_at(), due);
        if let Some(due) = due {
            a.flush(Instant::from_nanos(due.as_nanos() - 1)).unwrap();
            seen.look(&mut b, due);
            assert_eq!(seen.numbers.len(), arrived, "not before it is due");
            // Receiving drives what is due to be sent, too.
            a.receive(due, 1, &mut |_| ()).unwrap();
            seen.look(&mut b, due);
        }
    }
    assert_eq!(seen.numbers, [0, 1, 2]);
}

#[test]
fn a_queue_may_be_bounded_in_bytes() {
    // 100 bytes take a millisecond.
    let text = "tx.rate=800kbit,tx.queue-bytes=250";
    let mut line = Line::new(text.parse::<ImpairConfig>().unwrap().tx, 1);
    let mut send = |now| {
        line.enter(now, [&[0; 100][..]].into_iter(), RxChecksum::Trusted);
        line.counters().overflowed
    };
    assert_eq!(send(Instant::ZERO), 0);
    assert_eq!(send(Instant::ZERO), 0);
    assert_eq!(send(Instant::ZERO), 1);
    assert_eq!(send(Instant::from_millis(1)), 1);
    assert_eq!(send(Instant::from_millis(1)), 2);
}

#[test]
fn a_full_queue_drops_its_tail_and_marks_before() {
    let text = "tx.rate=800mbit,tx.queue=10,tx.ecn=4";
    for (tos, marked) in [(2, 6), (0, 0)] {
        let (a, mut b) =
            MemoryPort::pair(MemoryConfig::default(), MemoryConfig::default()).unwrap();
        let mut a = Impair::new(a, text.parse().unwrap());
        for number in 0..15 {
            send(&mut a, Instant::ZERO, &segment(number, tos));
        }
        let mut seen = Seen::default();
        drain(&mut a, &mut b, Instant::ZERO, &mut seen);
        assert_eq!(seen.numbers, (0..10).collect::<Vec<_>>());
        assert_eq!(
            (a.tx_counters().overflowed, seen.marked, seen.bad),
            (5, marked, 0)
        );
    }
}

#[test]
fn a_clean_direction_passes_offloads_and_a_bad_one_does_not() {
    let offloading = || {
        let config = MemoryConfig {
            tx_checksum: true,
            tx_segment_max: Some(65535),
            ..Default::default()
        };
        MemoryPort::pair(config.clone(), config).unwrap().0
    };
    let rx_only = Impair::new(offloading(), "rx.loss=0.1".parse().unwrap());
    assert!(rx_only.info().tx_checksum && rx_only.info().tx_segment_max.is_some());
    let both = Impair::new(offloading(), "loss=0.1".parse().unwrap());
    assert!(!both.info().tx_checksum && both.info().tx_segment_max.is_none());
}

#[test]
fn damage_to_a_trusted_frame_is_not_trusted() {
    let mut port = Impair::new(LoopbackPort::new(), "rx.corrupt=0.5".parse().unwrap());
    let mut seen = Seen::default();
    for number in 0..500 {
        // Left to the port: the hairpin hands it out as trusted.
        let bytes = segment(number, 0);
        let offload = TxOffload {
            checksum: true,
            segment: None,
        };
        let frame = TxFrame {
            header: &bytes,
            payload: [&[], &[]],
            offload,
        };
        port.transmit(Instant::ZERO, frame).unwrap();
        port.flush(Instant::ZERO).unwrap();
        port.receive(Instant::ZERO, 1, &mut |frame| {
            let intact = frame.to_vec() == bytes;
            assert_eq!(frame.checksum == RxChecksum::Trusted, intact);
            seen.bad += usize::from(parse(&frame).is_err());
        })
        .unwrap();
    }
    assert_eq!(seen.bad as u64, port.rx_counters().corrupted);
    assert!(seen.bad > 0);
}

#[test]
fn damage_on_the_way_to_the_hairpin_is_noticed() {
    let mut port = Impair::new(LoopbackPort::new(), "tx.corrupt=1".parse().unwrap());
    let mut seen = Seen::default();
    for number in 0..500 {
        send(&mut port, Instant::ZERO, &segment(number, 0));
        seen.look(&mut port, Instant::ZERO);
    }
    assert_eq!((seen.bad, seen.numbers.len()), (500, 0));
}

#[test]
fn nothing_sleeps_while_a_frame_is_due() {
    let (a, b) = MemoryPort::pair(MemoryConfig::default(), MemoryConfig::default()).unwrap();
    let mut a = Impair::new(a, ImpairConfig::default());
    let mut b: Box<dyn Port> = Box::new(Impair::new(b, "rx.dup=1".parse().unwrap()));
    send(&mut a, Instant::ZERO, &segment(0, 0));
    assert_eq!(b.receive(Instant::ZERO, 1, &mut |_| ()).unwrap(), 1);
    assert!(!b.arm().unwrap(), "the duplicate waits");
    assert_eq!(b.receive(Instant::ZERO, 1, &mut |_| ()).unwrap(), 1);
    assert!(b.arm().unwrap());
    assert_eq!(b.poll_at(), None);
}

#[test]
fn frames_that_the_port_below_cannot_take_yet_stay() {
    let mut port = Impair::new(LoopbackPort::new(), "tx.delay=1us".parse().unwrap());
    let payload = vec![0; 65_000];
    let count = 400;
    for _ in 0..count {
        let frame = TxFrame {
            header: &[0; 54],
            payload: [&payload, &[]],
            offload: TxOffload::default(),
        };
        port.transmit(Instant::ZERO, frame).unwrap();
    }
    let now = Instant::from_micros(1);
    let mut received = 0;
    port.flush(now).unwrap();
    assert!(
        port.poll_at().is_some(),
        "more than the hairpin takes at once"
    );
    for _ in 0..count {
        received += port.receive(now, usize::MAX, &mut |_| ()).unwrap();
    }
    assert_eq!((received, port.poll_at()), (count, None));
}

#[test]
fn settings_are_read() {
    let config: ImpairConfig =
        "loss=0.01, reorder=2%,dup=0.005,tx.corrupt=0.25,delay=1.5ms,rx.delay=20us,rate=10mbit,queue=50,queue-bytes=9000,ecn=20,gap=5,hold=1s,burst=0.5%,burst-len=3,jitter=2ms,seed=7"
            .parse()
            .unwrap();
    let both = Impairment {
        loss: 0.01,
        burst: 0.005,
        burst_len: 3,
        reorder: 0.02,
        gap: 5,
        hold: Duration::from_secs(1),
        duplicate: 0.005,
        corrupt: 0.0,
        delay: Duration::from_micros(1500),
        jitter: Duration::from_millis(2),
        rate: Some(10_000_000),
        queue: 50,
        queue_bytes: Some(9000),
        ecn: Some(20),
    };
    let tx = Impairment {
        corrupt: 0.25,
        ..both.clone()
    };
    let rx = Impairment {
        delay: Duration::from_micros(20),
        ..both
    };
    assert_eq!(config, ImpairConfig { tx, rx, seed: 7 });
    assert_eq!("".parse(), Ok(ImpairConfig::default()));
}

#[test]
fn wrong_settings_name_key_value_and_fix() {
    let cases = [
        ("loss=2", "`loss`", "\"2\"", "probability"),
        ("dup=NaN", "`dup`", "\"NaN\"", "probability"),
        ("corrupt=-1%", "`corrupt`", "\"-1%\"", "probability"),
        ("delay=5", "`delay`", "\"5\"", "delay=1ms"),
        ("hold=xs", "`hold`", "\"xs\"", "unit"),
        ("rate=0", "`rate`", "\"0\"", "rate=100mbit"),
        (
            "queue-bytes=9kB",
            "`queue-bytes`",
            "\"9kB\"",
            "queue-bytes=250000",
        ),
        ("queue=many", "`queue`", "\"many\"", "queue=1000"),
        ("burst-len=0", "`burst-len`", "\"0\"", "at least 1"),
        ("seed=x", "`seed`", "\"x\"", "seed=7"),
        ("los=1", "`los`", "\"1\"", "the keys are loss"),
        ("rx.seed=1", "`rx.seed`", "\"1\"", "the keys are"),
        ("loss", "`loss`", "\"\"", "key=value"),
        ("ecn=5", "`ecn`", "\"5\"", "set rate too"),
    ];
    for (text, key, value, fix) in cases {
        let error = text.parse::<ImpairConfig>().unwrap_err().to_string();
        for part in [key, value, fix] {
            assert!(error.contains(part), "{text}: {error}");
        }
    }
}

proptest! {
    #[test]
    fn no_setting_panics(text in "[a-z.=,0-9%]{0,40}") {
        let _ = text.parse::<ImpairConfig>();
    }

    #[test]
    fn every_frame_is_accounted_for(
        seed in any::<u64>(),
        chances in proptest::array::uniform4(0.0..=1.0),
        queue in 1usize..20,
        rate in proptest::option::of(1_000_000u64..1_000_000_000),
        delay in 0u64..1000,
    ) {
        let [loss, reorder, duplicate, corrupt] = chances;
        let delay = Duration::from_micros(delay);
        let tx = Impairment { loss, reorder, duplicate, corrupt, queue, rate, delay, ..Impairment::default() };
        let config = ImpairConfig { tx, seed, ..ImpairConfig::default() };
        let (a, mut b) = MemoryPort::pair(MemoryConfig::default(), MemoryConfig::default()).unwrap();
        let mut a = Impair::new(a, config);
        let mut seen = Seen::default();
        for number in 0..100 {
            send(&mut a, Instant::from_micros(u64::from(number)), &segment(number, 0));
        }
        drain(&mut a, &mut b, Instant::from_micros(100), &mut seen);
        let counters = a.tx_counters();
        let arrived = counters.frames + counters.duplicated - counters.lost - counters.overflowed;
        prop_assert_eq!(counters.frames, 100);
        prop_assert_eq!((seen.numbers.len() + seen.bad) as u64, arrived);
        prop_assert_eq!(seen.bad as u64, counters.corrupted);
    }
}
