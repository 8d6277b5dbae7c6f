//! One direction of a path: pure, in virtual time, reproducible from its seed.

use std::collections::{BTreeMap, VecDeque};
use std::time::Duration;

use flextcp_nic::time::Instant;
use flextcp_nic::wire::mark_congestion;

use super::record::Counters;
use super::shape::Shape;

/// `SplitMix64` (Steele, Lea, Flood 2014).
#[derive(Debug, Clone)]
struct Rng(u64);

impl Rng {
    const fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// Evenly from 0 to below 1.
    fn unit(&mut self) -> f64 {
        (self.next() >> 11) as f64 / (1u64 << 53) as f64
    }
}

/// Frames under way at most, however long the delay.
const MAX_WAITING: usize = 1 << 17;
const SPARE_BUFFERS: usize = 1024;

/// A frame on the link or waiting for it.
#[derive(Debug, Clone, Copy)]
struct Departure {
    at: Instant,
    bytes: u64,
}

/// Frames that went in and when they come out.
#[derive(Debug)]
pub struct Line {
    shape: Shape,
    rng: Rng,
    in_burst: bool,
    /// By time of arrival; the number keeps those of one moment in order.
    under_way: BTreeMap<(Instant, u64), Vec<u8>>,
    entered: u64,
    /// The latest arrival of a frame that was not held back: none of its successors comes before.
    last_due: Instant,
    departures: VecDeque<Departure>,
    queued_bytes: u64,
    spare: Vec<Vec<u8>>,
    counters: Counters,
}

impl Line {
    /// An idle line.
    pub fn new(shape: Shape, seed: u64) -> Self {
        Self {
            shape,
            rng: Rng(seed),
            in_burst: false,
            under_way: BTreeMap::new(),
            entered: 0,
            last_due: Instant::ZERO,
            departures: VecDeque::new(),
            queued_bytes: 0,
            spare: Vec::new(),
            counters: Counters::default(),
        }
    }

    /// Changes what happens to frames from now on; those under way arrive as they would have.
    pub fn reshape(&mut self, shape: Shape) {
        // A shorter path overtakes, as a route change does.
        self.last_due = Instant::ZERO;
        self.shape = shape;
    }

    /// What happened so far.
    pub fn counters(&self) -> Counters {
        self.counters
    }

    /// Whether frames wait for the link.
    pub(super) fn has_queue(&self) -> bool {
        self.shape.rate.is_some()
    }

    /// Counts a frame that the link cannot carry.
    pub(super) fn count_oversized(&mut self) {
        self.counters.oversized += 1;
    }

    /// Bytes on the link and waiting for it.
    pub fn queued(&mut self, now: Instant) -> u64 {
        while let Some(first) = self.departures.front()
            && first.at <= now
        {
            self.queued_bytes -= first.bytes;
            self.departures.pop_front();
        }
        self.queued_bytes
    }

    /// Takes a frame in. All chances are drawn for every frame, so that one setting does not shift the others.
    pub fn enter(&mut self, now: Instant, frame: &[u8]) {
        self.counters.frames += 1;
        self.counters.bytes += frame.len() as u64;
        let [loss, burst, reorder, duplicate, jitter] = std::array::from_fn(|_| self.rng.unit());
        if let Some(chances) = self.shape.burst {
            self.in_burst = if self.in_burst {
                burst >= chances.leave
            } else {
                burst < chances.enter
            };
            if self.in_burst {
                self.counters.burst_lost += 1;
                return;
            }
        }
        if loss < self.shape.loss {
            self.counters.lost += 1;
            return;
        }
        let Some((departure, mark)) = self.depart(now, frame.len() as u64) else {
            self.counters.overflowed += 1;
            return;
        };
        let mut bytes = self.spare.pop().unwrap_or_default();
        bytes.clear();
        bytes.extend_from_slice(frame);
        if mark && mark_congestion(&mut bytes) {
            self.counters.marked += 1;
        }
        let deviation = self.shape.jitter.mul_f64(2.0 * jitter);
        let delay = (self.shape.delay + deviation).saturating_sub(self.shape.jitter);
        let mut due = departure + delay;
        if reorder < self.shape.reorder {
            self.counters.reordered += 1;
            due += self.shape.hold;
        } else {
            due = due.max(self.last_due);
            self.last_due = due;
        }
        if duplicate < self.shape.duplicate {
            self.counters.duplicated += 1;
            self.insert(due, bytes.clone());
        }
        self.insert(due, bytes);
    }

    /// Queues for the link: when the last bit leaves it, and whether the queue calls for a mark; `None` when it is full.
    fn depart(&mut self, now: Instant, len: u64) -> Option<(Instant, bool)> {
        if self.under_way.len() >= MAX_WAITING {
            return None;
        }
        let Some(rate) = self.shape.rate else {
            return Some((now, false));
        };
        let (bytes, packets) = (self.queued(now), self.departures.len() as u64);
        if self.shape.queue.is_exceeded(bytes + len, packets + 1) {
            return None;
        }
        let mark = self
            .shape
            .ecn
            .is_some_and(|threshold| threshold.is_exceeded(bytes + len, packets + 1));
        let free = self.departures.back().map_or(now, |last| last.at.max(now));
        let nanos = u128::from(len) * 8_000_000_000 / u128::from(rate);
        let at = free + Duration::from_nanos(u64::try_from(nanos).unwrap_or(u64::MAX));
        self.departures.push_back(Departure { at, bytes: len });
        self.queued_bytes += len;
        Some((at, mark))
    }

    fn insert(&mut self, due: Instant, frame: Vec<u8>) {
        self.entered += 1;
        self.under_way.insert((due, self.entered), frame);
    }

    /// When the next frame comes out.
    pub fn next_due(&self) -> Option<Instant> {
        self.under_way.first_key_value().map(|(&(due, _), _)| due)
    }

    /// Passes every frame that is due to `sink`, with the time it was due, in order.
    pub fn leave(&mut self, now: Instant, mut sink: impl FnMut(Instant, &[u8])) {
        while let Some(entry) = self.under_way.first_entry()
            && entry.key().0 <= now
        {
            let ((due, _), frame) = entry.remove_entry();
            self.counters.delivered += 1;
            self.counters.delivered_bytes += frame.len() as u64;
            sink(due, &frame);
            if self.spare.len() < SPARE_BUFFERS {
                self.spare.push(frame);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::path::shape::Amount;

    const LEN: usize = 1250;

    /// Frames numbered in their first bytes.
    fn frame(number: u32, len: usize) -> Vec<u8> {
        let mut frame = vec![0; len];
        frame[..4].copy_from_slice(&number.to_be_bytes());
        frame
    }

    fn line(shape: &str) -> Line {
        Line::new(shape.parse().unwrap(), 1)
    }

    /// Sends `count` frames, one each `gap`, and returns number and time of what comes out.
    fn run(line: &mut Line, count: u32, gap: Duration) -> Vec<(u32, Instant)> {
        let mut now = Instant::ZERO;
        for number in 0..count {
            line.enter(now, &frame(number, LEN));
            now += gap;
        }
        let mut out = Vec::new();
        line.leave(now + Duration::from_secs(3600), |due, frame| {
            out.push((u32::from_be_bytes(frame[..4].try_into().unwrap()), due));
        });
        out
    }

    #[test]
    fn a_wire_passes_everything_at_once() {
        let mut line = line("");
        line.enter(Instant::from_micros(5), &frame(0, LEN));
        assert_eq!(line.next_due(), Some(Instant::from_micros(5)));
        let mut count = 0;
        line.leave(Instant::from_micros(5), |_, _| count += 1);
        assert_eq!((count, line.next_due()), (1, None));
    }

    #[test]
    fn the_rate_spaces_frames_by_their_length() {
        // 1250 bytes at 10 Mbit/s: 1 ms.
        let out = run(&mut line("rate=10mbit,delay=5ms"), 100, Duration::ZERO);
        for (number, (_, due)) in (1..).zip(&out) {
            assert_eq!(*due, Instant::from_millis(5 + number));
        }
        assert_eq!(out.len(), 100);
    }

    #[test]
    fn a_full_queue_drops_the_newest() {
        for shape in ["rate=10mbit,queue=20p", "rate=10mbit,queue=25000B"] {
            let mut line = line(shape);
            let out = run(&mut line, 50, Duration::ZERO);
            let numbers: Vec<_> = out.iter().map(|(number, _)| *number).collect();
            assert_eq!(numbers, (0..20).collect::<Vec<_>>(), "{shape}");
            assert_eq!(line.counters().overflowed, 30);
        }
    }

    #[test]
    fn the_queue_drains_at_the_rate() {
        let mut line = line("rate=10mbit");
        for number in 0..10 {
            line.enter(Instant::ZERO, &frame(number, LEN));
        }
        assert_eq!(line.queued(Instant::ZERO), 12_500);
        assert_eq!(line.queued(Instant::from_millis(4)), 7_500);
        assert_eq!(line.queued(Instant::from_millis(10)), 0);
    }

    #[test]
    fn losses_are_as_many_as_asked_for() {
        let mut line = line("loss=1%");
        let out = run(&mut line, 100_000, Duration::ZERO);
        // 1000 expected, 32 standard deviation.
        assert!((870..1130).contains(&line.counters().lost));
        assert_eq!(out.len() as u64 + line.counters().lost, 100_000);
    }

    #[test]
    fn bursts_have_the_length_asked_for() {
        let mut line = line("burst=1%:25%");
        let out = run(&mut line, 100_000, Duration::ZERO);
        let runs = out
            .windows(2)
            .filter(|pair| pair[1].0 > pair[0].0 + 1)
            .count() as f64;
        let mean = line.counters().burst_lost as f64 / runs;
        assert!((3.6..4.4).contains(&mean), "{mean}");
        // Of the time: enter / (enter + leave).
        let share = line.counters().burst_lost as f64 / 100_000.0;
        assert!((0.033..0.044).contains(&share), "{share}");
    }

    #[test]
    fn jitter_keeps_order() {
        let shape = "delay=10ms,jitter=5ms";
        let out = run(&mut line(shape), 10_000, Duration::from_millis(1));
        assert!(out.windows(2).all(|pair| pair[0].0 + 1 == pair[1].0));
        // Far enough apart not to wait for each other.
        let out = run(&mut line(shape), 10_000, Duration::from_millis(20));
        let delays = out
            .iter()
            .map(|(number, due)| due.as_nanos() - u64::from(*number) * 20_000_000);
        let (least, most) = (delays.clone().min().unwrap(), delays.max().unwrap());
        assert!((5_000_000..5_100_000).contains(&least), "{least}");
        assert!((14_900_000..=15_000_000).contains(&most), "{most}");
    }

    #[test]
    fn a_frame_that_is_held_back_is_overtaken() {
        let mut line = line("reorder=5%,hold=2500us");
        let out = run(&mut line, 10_000, Duration::from_millis(1));
        assert!((400..600).contains(&line.counters().reordered));
        let late = out
            .iter()
            .filter(|(number, due)| due.as_nanos() > u64::from(*number) * 1_000_000)
            .count() as u64;
        assert_eq!(late, line.counters().reordered);
        assert!(out.windows(2).any(|pair| pair[0].0 > pair[1].0));
    }

    #[test]
    fn a_copy_follows_its_frame() {
        let mut line = line("dup=100%");
        let out = run(&mut line, 3, Duration::from_millis(1));
        let numbers: Vec<_> = out.iter().map(|(number, _)| *number).collect();
        assert_eq!(numbers, [0, 0, 1, 1, 2, 2]);
    }

    #[test]
    fn capable_packets_are_marked_from_the_threshold_on() {
        // Ethernet and IPv4 headers, ECT(0).
        let mut packet = frame(0, LEN);
        packet[12..14].copy_from_slice(&[8, 0]);
        packet[14] = 0x45;
        packet[15] = 2;
        let mut line = line("rate=10mbit,ecn=5p");
        for _ in 0..10 {
            line.enter(Instant::ZERO, &packet);
        }
        assert_eq!(line.counters().marked, 5);
        let mut marks = Vec::new();
        line.leave(Instant::from_millis(100), |_, frame| {
            marks.push(frame[15] & 3);
        });
        assert_eq!(marks, [2, 2, 2, 2, 2, 3, 3, 3, 3, 3]);
    }

    #[test]
    fn the_same_seed_does_the_same() {
        let shape = "delay=10ms,jitter=3ms,loss=2%,reorder=3%,dup=1%,rate=50mbit,queue=30p";
        let gap = Duration::from_micros(150);
        assert_eq!(
            run(&mut line(shape), 5000, gap),
            run(&mut line(shape), 5000, gap)
        );
        let other = run(&mut Line::new(shape.parse().unwrap(), 2), 5000, gap);
        assert_ne!(run(&mut line(shape), 5000, gap), other);
    }

    #[test]
    fn a_new_shape_holds_for_later_frames() {
        let mut line = line("delay=50ms");
        line.enter(Instant::ZERO, &frame(0, LEN));
        line.reshape(Shape {
            delay: Duration::from_millis(1),
            queue: Amount::packets(1),
            ..Shape::default()
        });
        line.enter(Instant::ZERO, &frame(1, LEN));
        let mut numbers = Vec::new();
        line.leave(Instant::from_millis(60), |_, frame| numbers.push(frame[3]));
        assert_eq!(numbers, [1, 0]);
    }
}
