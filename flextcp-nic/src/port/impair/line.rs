//! One direction of an impaired wire.

use std::collections::{BTreeMap, VecDeque};
use std::time::Duration;

use super::Impairment;
use crate::port::RxChecksum;
use crate::time::Instant;
use crate::wire::mark_congestion;

/// `SplitMix64` (Steele, Lea, Flood 2014): small, and the same everywhere for the same seed.
#[derive(Clone, Debug)]
pub(super) struct Rng(u64);

impl Rng {
    pub(super) const fn new(seed: u64) -> Self {
        Self(seed)
    }

    pub(super) const fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// A number in `0..=most`.
    fn up_to(&mut self, most: u64) -> u64 {
        // Multiplying is even enough for delays, and draws one number whatever the range.
        ((u128::from(self.next()) * (u128::from(most) + 1)) >> 64) as u64
    }

    fn chance(&mut self, probability: f64) -> bool {
        // 53 bits: every value below one that a double can hold evenly.
        ((self.next() >> 11) as f64) < probability * (1u64 << 53) as f64
    }
}

/// What was done to frames; counters only grow.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct ImpairCounters {
    /// Frames that came in.
    pub frames: u64,
    /// Frames dropped by chance, alone or in a burst.
    pub lost: u64,
    /// Frames held back.
    pub reordered: u64,
    /// Frames that came twice.
    pub duplicated: u64,
    /// Frames with a flipped bit.
    pub corrupted: u64,
    /// Packets marked congestion experienced.
    pub marked: u64,
    /// Frames dropped because the queue was full.
    pub overflowed: u64,
}

/// A frame under way.
#[derive(Debug)]
pub struct Waiting {
    /// From the Ethernet header on.
    pub bytes: Vec<u8>,
    /// What the sender said of its checksum.
    pub checksum: RxChecksum,
}

/// When a frame comes out; the number keeps those of one moment in order.
type Place = (Instant, u64);

/// Frames under way at most, however long the delay.
const MAX_WAITING: usize = 65536;
const SPARE_BUFFERS: usize = 128;
/// A line that was silent for so long is out of its burst of loss.
const BURST_PAUSE: Duration = Duration::from_millis(100);
const ETHERNET_BITS: u64 = 14 * 8;

/// One direction of a bad wire, without a port: frames go in at one time and come out at another, or not.
#[derive(Debug)]
pub struct Line {
    config: Impairment,
    rng: Rng,
    /// For bursts and jitter.
    second_rng: Rng,
    in_burst: bool,
    last_entered: Instant,
    /// When the last frame that was not held back comes out.
    last_due: Instant,
    waiting: BTreeMap<Place, Waiting>,
    /// Held back frames, and how many more must pass.
    held: Vec<(Place, u32)>,
    /// When each frame that waits for the link leaves it, and its length.
    departures: VecDeque<(Instant, u64)>,
    queued_bytes: u64,
    entered: u64,
    spare: Vec<Vec<u8>>,
    counters: ImpairCounters,
}

impl Line {
    /// A line whose every random decision comes from `seed`.
    pub fn new(config: Impairment, seed: u64) -> Self {
        Self::with_rng(config, Rng::new(seed))
    }

    pub(super) fn with_rng(config: Impairment, rng: Rng) -> Self {
        let second_rng = Rng::new(rng.clone().next());
        Self {
            config,
            rng,
            second_rng,
            in_burst: false,
            last_entered: Instant::ZERO,
            last_due: Instant::ZERO,
            waiting: BTreeMap::new(),
            held: Vec::new(),
            departures: VecDeque::new(),
            queued_bytes: 0,
            entered: 0,
            spare: Vec::new(),
            counters: ImpairCounters::default(),
        }
    }

    /// Changes what happens to frames from now on; those under way keep their time.
    pub fn set(&mut self, config: Impairment) {
        self.config = config;
    }

    /// What happens to frames now.
    pub const fn config(&self) -> &Impairment {
        &self.config
    }

    /// What was done to frames so far.
    pub const fn counters(&self) -> ImpairCounters {
        self.counters
    }

    /// Frames under way.
    pub fn len(&self) -> usize {
        self.waiting.len()
    }

    /// Whether no frame is under way.
    pub fn is_empty(&self) -> bool {
        self.waiting.is_empty()
    }

    /// Frames that wait for a link with a rate.
    pub fn queued(&self, now: Instant) -> usize {
        let gone = self.departures.partition_point(|&(at, _)| at <= now);
        self.departures.len() - gone
    }

    pub(super) fn is_full(&self) -> bool {
        self.waiting.len() >= MAX_WAITING
    }

    /// Whether a burst swallows the next frame.
    fn bursts(&mut self, now: Instant) -> bool {
        // A burst is of frames that come close together; one that took slow ones would take minutes of them.
        self.in_burst &= self.last_entered + BURST_PAUSE > now;
        self.last_entered = now;
        let ends = 1.0 / f64::from(self.config.burst_len.max(1));
        if self.in_burst {
            self.in_burst = !self.second_rng.chance(ends);
        } else {
            self.in_burst = self.second_rng.chance(self.config.burst);
        }
        self.in_burst
    }

    /// Takes a frame in. All chances are drawn for every frame, so that one setting does not shift the others.
    pub fn enter<'a>(
        &mut self,
        now: Instant,
        pieces: impl Iterator<Item = &'a [u8]>,
        checksum: RxChecksum,
    ) {
        self.counters.frames += 1;
        let burst = self.bursts(now);
        let jitter = self
            .second_rng
            .up_to(u64::try_from(self.config.jitter.as_nanos()).unwrap_or(u64::MAX));
        let lost = self.rng.chance(self.config.loss) | burst;
        let held = self.rng.chance(self.config.reorder);
        let duplicated = self.rng.chance(self.config.duplicate);
        let corrupted = self.rng.chance(self.config.corrupt);
        let bit = self.rng.next();
        if lost {
            self.counters.lost += 1;
            return;
        }
        let mut bytes = self.spare.pop().unwrap_or_default();
        bytes.clear();
        pieces.for_each(|piece| bytes.extend_from_slice(piece));
        let Some(departure) = self.depart(now, &mut bytes) else {
            self.counters.overflowed += 1;
            self.recycle(bytes);
            return;
        };
        let mut due = departure + self.config.delay;
        if !self.config.jitter.is_zero() {
            due = (due + Duration::from_nanos(jitter)).max(self.last_due);
            self.last_due = due;
        }
        let copy = duplicated.then(|| bytes.clone());
        let mut frame = Waiting { bytes, checksum };
        if corrupted {
            self.corrupt(&mut frame, bit);
        }
        if held {
            self.counters.reordered += 1;
            let place = self.place(due + self.config.hold);
            self.waiting.insert(place, frame);
            self.held.push((place, self.config.gap));
        } else {
            self.insert(due, frame);
        }
        if let Some(bytes) = copy {
            self.counters.duplicated += 1;
            self.insert(due, Waiting { bytes, checksum });
        }
    }

    /// Queues for the link: when its last bit has left, or `None` when the queue is full.
    fn depart(&mut self, now: Instant, bytes: &mut [u8]) -> Option<Instant> {
        if self.is_full() {
            return None;
        }
        let Some(rate) = self.config.rate else {
            return Some(now);
        };
        while let Some(&(at, len)) = self.departures.front()
            && at <= now
        {
            self.departures.pop_front();
            self.queued_bytes -= len;
        }
        let queued = self.departures.len();
        let len = bytes.len() as u64;
        let over = |limit| self.queued_bytes + len > limit;
        if queued >= self.config.queue || self.config.queue_bytes.is_some_and(over) {
            return None;
        }
        if self.config.ecn.is_some_and(|threshold| queued >= threshold) && mark_congestion(bytes) {
            self.counters.marked += 1;
        }
        let free = self
            .departures
            .back()
            .map_or(now, |&(last, _)| last.max(now));
        let nanos = u128::from(len) * 8_000_000_000 / u128::from(rate);
        let departure = free + Duration::from_nanos(u64::try_from(nanos).unwrap_or(u64::MAX));
        self.departures.push_back((departure, len));
        self.queued_bytes += len;
        Some(departure)
    }

    fn corrupt(&mut self, frame: &mut Waiting, random: u64) {
        let bits = frame.bytes.len() as u64 * 8;
        if bits > ETHERNET_BITS {
            let bit = ETHERNET_BITS + random % (bits - ETHERNET_BITS);
            frame.bytes[(bit / 8) as usize] ^= 1 << (bit % 8);
            // Whoever vouched for it has not seen this.
            frame.checksum = RxChecksum::Unverified;
            self.counters.corrupted += 1;
        }
    }

    const fn place(&mut self, due: Instant) -> Place {
        self.entered += 1;
        (due, self.entered)
    }

    fn insert(&mut self, due: Instant, frame: Waiting) {
        let place = self.place(due);
        self.waiting.insert(place, frame);
        let mut released = Vec::new();
        self.held.retain_mut(|(place, left)| {
            *left = left.saturating_sub(1);
            if *left == 0 {
                released.push(*place);
            }
            *left > 0
        });
        for place in released {
            // It may have gone already, its time being over, or be about to.
            if place.0 > due
                && let Some(frame) = self.waiting.remove(&place)
            {
                let place = self.place(due);
                self.waiting.insert(place, frame);
            }
        }
    }

    /// The next frame that is due.
    pub fn peek(&self, now: Instant) -> Option<&Waiting> {
        let (&(due, _), frame) = self.waiting.first_key_value()?;
        (due <= now).then_some(frame)
    }

    /// Ends a frame that was peeked at.
    pub(super) fn pop(&mut self) {
        if let Some(frame) = self.remove_first() {
            self.recycle(frame.bytes);
        }
    }

    /// Takes the next frame that is due.
    pub fn take(&mut self, now: Instant) -> Option<Waiting> {
        self.peek(now)?;
        self.remove_first()
    }

    /// Gives the buffer of a frame back, for others to come.
    pub fn give_back(&mut self, frame: Vec<u8>) {
        self.recycle(frame);
    }

    fn remove_first(&mut self) -> Option<Waiting> {
        let (place, frame) = self.waiting.pop_first()?;
        self.held.retain(|(held, _)| *held != place);
        Some(frame)
    }

    /// When the next frame comes out.
    pub fn next_due(&self) -> Option<Instant> {
        self.waiting.first_key_value().map(|(&(due, _), _)| due)
    }

    fn recycle(&mut self, buffer: Vec<u8>) {
        if self.spare.len() < SPARE_BUFFERS {
            self.spare.push(buffer);
        }
    }
}
