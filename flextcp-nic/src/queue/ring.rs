//! Producers and consumers of the two rings, over words that both sides see.
//!
//! The host produces [`Descriptor`]s and consumes [`Event`]s; the other two ends are for NICs written in Rust and for
//! tests. A word in memory is little-endian whatever the host is.

use core::fmt;
use core::ops::Deref;
use core::sync::atomic::{AtomicU32, Ordering, fence};

use super::abi::{self, constant};

/// Words of a descriptor.
pub const DESCRIPTOR_WORDS: usize = constant::DESCRIPTOR_WORDS as usize;
/// Words of an event.
pub const EVENT_WORDS: usize = constant::EVENT_WORDS as usize;

/// A descriptor without its sequence, which the ring adds.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct Descriptor(pub [u32; DESCRIPTOR_WORDS - 1]);

impl Descriptor {
    /// A descriptor of `operation` ([`abi::operation`]), its other words 0.
    pub const fn new(operation: u32) -> Self {
        let mut words = [0; DESCRIPTOR_WORDS - 1];
        words[abi::descriptor::OPERATION as usize] = operation;
        Self(words)
    }

    /// With `word` ([`abi::descriptor`]) set.
    #[must_use]
    pub const fn with(mut self, word: u32, value: u32) -> Self {
        self.0[word as usize] = value;
        self
    }

    /// The word at index `word` ([`abi::descriptor`]).
    pub const fn word(&self, word: u32) -> u32 {
        self.0[word as usize]
    }

    /// What it asks for: [`abi::operation`].
    pub const fn operation(&self) -> u32 {
        self.word(abi::descriptor::OPERATION) & 0xff
    }
}

/// An event without its sequence.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct Event(pub [u32; EVENT_WORDS - 1]);

impl Event {
    /// The word at index `word` ([`abi::event`]).
    pub const fn word(&self, word: u32) -> u32 {
        self.0[word as usize]
    }

    /// What it reports: [`abi::event_kind`].
    pub const fn kind(&self) -> u32 {
        self.word(abi::event::KIND) & 0xff
    }

    /// Whether `flag` ([`abi::event_flag`]) is set.
    pub const fn has(&self, flag: u32) -> bool {
        self.word(abi::event::KIND) & flag != 0
    }
}

/// The ring has no free slot.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct RingFull;

impl fmt::Display for RingFull {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("the ring is full; retry when the other side has taken some")
    }
}

impl std::error::Error for RingFull {}

/// The other side broke the ring's protocol: positions beyond the ring, or a sequence that is not the next one.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct BrokenRing;

impl fmt::Display for BrokenRing {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("the other side of the ring is out of step; reset the device")
    }
}

impl std::error::Error for BrokenRing {}

/// The words of a ring of `N`-word entries, and how to address them.
#[derive(Debug)]
struct Ring<W, const N: usize> {
    words: W,
    mask: u32,
}

impl<W: Deref<Target = [AtomicU32]>, const N: usize> Ring<W, N> {
    fn new(words: W) -> Self {
        let entries = words.len() / N;
        assert!(
            entries.is_power_of_two() && entries * N == words.len(),
            "a ring has a power of two of entries"
        );
        let mask = u32::try_from(entries - 1).expect("a ring has at most 2^16 entries");
        Self { words, mask }
    }

    const fn entries(&self) -> u32 {
        self.mask + 1
    }

    fn entry(&self, position: u32) -> &[AtomicU32] {
        let start = (position & self.mask) as usize * N;
        &self.words[start..start + N]
    }

    /// Writes an entry, its sequence last.
    fn put(&self, position: u32, words: &[u32]) {
        let entry = self.entry(position);
        for (to, from) in entry.iter().zip(words) {
            to.store(from.to_le(), Ordering::Relaxed);
        }
        let sequence = position.wrapping_add(1);
        entry[N - 1].store(sequence.to_le(), Ordering::Release);
    }

    /// Reads the entry into `words` if it is there.
    fn get(&self, position: u32, words: &mut [u32]) -> bool {
        let entry = self.entry(position);
        let sequence = u32::from_le(entry[N - 1].load(Ordering::Acquire));
        if sequence != position.wrapping_add(1) {
            return false;
        }
        for (to, from) in words.iter_mut().zip(entry) {
            *to = u32::from_le(from.load(Ordering::Relaxed));
        }
        true
    }
}

/// The host's end of a descriptor ring.
#[derive(Debug)]
pub struct DescriptorProducer<W> {
    ring: Ring<W, DESCRIPTOR_WORDS>,
    tail: u32,
}

impl<W: Deref<Target = [AtomicU32]>> DescriptorProducer<W> {
    /// The producer of an empty ring.
    ///
    /// # Panics
    /// The words are no power of two of descriptors.
    pub fn new(words: W) -> Self {
        Self {
            ring: Ring::new(words),
            tail: 0,
        }
    }

    /// Slots free when the NIC has taken `taken` descriptors ([`DESCRIPTORS_TAKEN`](abi::control::DESCRIPTORS_TAKEN)).
    ///
    /// # Errors
    /// [`BrokenRing`]: the NIC claims to have taken more than were written, or gave some back.
    pub const fn room(&self, taken: u32) -> Result<u32, BrokenRing> {
        let used = self.tail.wrapping_sub(taken);
        if used > self.ring.entries() {
            return Err(BrokenRing);
        }
        Ok(self.ring.entries() - used)
    }

    /// Writes a descriptor. The NIC learns of it by the doorbell: write [`tail`](Self::tail) to
    /// [`DESCRIPTOR_TAIL`](abi::queue_register::DESCRIPTOR_TAIL), once for many.
    ///
    /// # Errors
    /// [`RingFull`], when `room` is used up; nothing was written.
    pub fn push(&mut self, taken: u32, descriptor: &Descriptor) -> Result<(), RingFull> {
        if self.room(taken).unwrap_or(0) == 0 {
            return Err(RingFull);
        }
        self.ring.put(self.tail, &descriptor.0);
        self.tail = self.tail.wrapping_add(1);
        Ok(())
    }

    /// Descriptors written, free-running. Fences, so that whoever sees this number sees the descriptors.
    pub fn tail(&self) -> u32 {
        fence(Ordering::Release);
        self.tail
    }
}

/// The NIC's end of a descriptor ring, for NICs in Rust.
#[derive(Debug)]
pub struct DescriptorConsumer<W> {
    ring: Ring<W, DESCRIPTOR_WORDS>,
    head: u32,
}

impl<W: Deref<Target = [AtomicU32]>> DescriptorConsumer<W> {
    /// The consumer of an empty ring.
    ///
    /// # Panics
    /// The words are no power of two of descriptors.
    pub fn new(words: W) -> Self {
        Self {
            ring: Ring::new(words),
            head: 0,
        }
    }

    /// Takes the next descriptor of those before the doorbell's `tail`.
    ///
    /// # Errors
    /// [`BrokenRing`].
    pub fn pop(&mut self, tail: u32) -> Result<Option<Descriptor>, BrokenRing> {
        let waiting = tail.wrapping_sub(self.head);
        if waiting == 0 {
            return Ok(None);
        }
        let mut descriptor = Descriptor::default();
        if waiting > self.ring.entries() || !self.ring.get(self.head, &mut descriptor.0) {
            return Err(BrokenRing);
        }
        self.head = self.head.wrapping_add(1);
        Ok(Some(descriptor))
    }

    /// Descriptors taken, free-running.
    pub const fn taken(&self) -> u32 {
        self.head
    }
}

/// The NIC's end of an event ring, for NICs in Rust.
#[derive(Debug)]
pub struct EventProducer<W> {
    ring: Ring<W, EVENT_WORDS>,
    tail: u32,
}

impl<W: Deref<Target = [AtomicU32]>> EventProducer<W> {
    /// The producer of an empty ring.
    ///
    /// # Panics
    /// The words are no power of two of events.
    pub fn new(words: W) -> Self {
        Self {
            ring: Ring::new(words),
            tail: 0,
        }
    }

    /// Posts an event; `head` is what the host has consumed ([`EVENT_HEAD`](abi::queue_register::EVENT_HEAD)).
    ///
    /// # Errors
    /// [`RingFull`].
    pub fn push(&mut self, head: u32, event: &Event) -> Result<(), RingFull> {
        if self.tail.wrapping_sub(head) >= self.ring.entries() {
            return Err(RingFull);
        }
        self.ring.put(self.tail, &event.0);
        self.tail = self.tail.wrapping_add(1);
        Ok(())
    }

    /// Events posted, free-running.
    pub const fn tail(&self) -> u32 {
        self.tail
    }
}

/// The host's end of an event ring.
#[derive(Debug)]
pub struct EventConsumer<W> {
    ring: Ring<W, EVENT_WORDS>,
    head: u32,
}

impl<W: Deref<Target = [AtomicU32]>> EventConsumer<W> {
    /// The consumer of an empty ring.
    ///
    /// # Panics
    /// The words are no power of two of events.
    pub fn new(words: W) -> Self {
        Self {
            ring: Ring::new(words),
            head: 0,
        }
    }

    /// Takes the next event, if it is there.
    pub fn pop(&mut self) -> Option<Event> {
        let mut event = Event::default();
        if !self.ring.get(self.head, &mut event.0) {
            return None;
        }
        self.head = self.head.wrapping_add(1);
        Some(event)
    }

    /// Whether an event waits.
    pub fn is_empty(&self) -> bool {
        !self.ring.get(self.head, &mut [])
    }

    /// Events consumed, free-running: for [`EVENT_HEAD`](abi::queue_register::EVENT_HEAD) and
    /// [`ARM`](abi::queue_register::ARM).
    pub const fn head(&self) -> u32 {
        self.head
    }

    /// Entries of the ring.
    pub const fn entries(&self) -> u32 {
        self.ring.entries()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::sync::Arc;

    fn words(len: usize) -> Arc<[AtomicU32]> {
        (0..len).map(|_| AtomicU32::new(0)).collect()
    }

    #[test]
    fn a_full_ring_refuses() {
        let memory = words(8 * DESCRIPTOR_WORDS);
        let mut producer = DescriptorProducer::new(Arc::clone(&memory));
        let mut consumer = DescriptorConsumer::new(memory);
        let bump = Descriptor::new(abi::operation::BUMP).with(abi::descriptor::BUMP_SENT, 5);
        for _ in 0..8 {
            producer.push(0, &bump).unwrap();
        }
        assert_eq!(producer.push(0, &bump), Err(RingFull));
        assert_eq!(producer.room(9), Err(BrokenRing));
        assert_eq!(consumer.pop(producer.tail()), Ok(Some(bump)));
        producer.push(consumer.taken(), &bump).unwrap();
        assert_eq!(consumer.pop(consumer.taken()), Ok(None));
    }

    #[test]
    fn a_broken_producer_is_noticed() {
        let memory = words(8 * DESCRIPTOR_WORDS);
        let mut consumer = DescriptorConsumer::new(Arc::clone(&memory));
        assert_eq!(consumer.pop(1), Err(BrokenRing), "nothing was written");
        assert_eq!(consumer.pop(9), Err(BrokenRing), "beyond the ring");
        let mut producer = DescriptorProducer::new(Arc::clone(&memory));
        producer.push(0, &Descriptor::new(0)).unwrap();
        memory[DESCRIPTOR_WORDS - 1].store(7_u32.to_le(), Ordering::Relaxed);
        assert_eq!(consumer.pop(producer.tail()), Err(BrokenRing));
    }

    /// A thread at each end: every event arrives once, whole and in order.
    #[test]
    fn threads_pass_events() {
        const EVENTS: u32 = 20_000;
        let memory = words(16 * EVENT_WORDS);
        let consumed = AtomicU32::new(0);
        let mut producer = EventProducer::new(Arc::clone(&memory));
        let mut consumer = EventConsumer::new(memory);
        std::thread::scope(|scope| {
            scope.spawn(|| {
                while producer.tail() != EVENTS {
                    let event = Event([producer.tail(); EVENT_WORDS - 1]);
                    if producer
                        .push(consumed.load(Ordering::Acquire), &event)
                        .is_err()
                    {
                        std::thread::yield_now();
                    }
                }
            });
            while consumer.head() != EVENTS {
                let expected = consumer.head();
                if let Some(event) = consumer.pop() {
                    assert_eq!(event, Event([expected; EVENT_WORDS - 1]));
                    consumed.store(consumer.head(), Ordering::Release);
                } else {
                    std::thread::yield_now();
                }
            }
            assert!(consumer.is_empty());
        });
    }

    proptest! {
        /// Any interleaving, across the wrap of the free-running positions.
        #[test]
        fn first_in_first_out(start in any::<u32>(), steps in prop::collection::vec(any::<bool>(), 1..200)) {
            let memory = words(8 * EVENT_WORDS);
            // What a ring that came round holds: an earlier sequence.
            memory.iter().for_each(|word| word.store(start.to_le(), Ordering::Relaxed));
            let mut producer = EventProducer::new(Arc::clone(&memory));
            let mut consumer = EventConsumer::new(memory);
            (producer.tail, consumer.head) = (start, start);
            let mut waiting = std::collections::VecDeque::new();
            for (n, push) in steps.into_iter().enumerate() {
                if push {
                    let event = Event([n as u32; EVENT_WORDS - 1]);
                    let pushed = producer.push(consumer.head(), &event);
                    prop_assert_eq!(pushed.is_ok(), waiting.len() < 8);
                    if pushed.is_ok() {
                        waiting.push_back(event);
                    }
                } else {
                    prop_assert_eq!(consumer.pop(), waiting.pop_front());
                }
            }
        }
    }
}
