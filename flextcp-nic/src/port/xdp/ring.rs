//! The four rings of an AF_XDP socket: single producer, single consumer, one side is the kernel.
//!
//! Positions run freely over `u32` and are masked on access. Each side caches the other's position and
//! reads the shared one only when the cache says full or empty.

use std::io;
use std::marker::PhantomData;
use std::ptr::NonNull;
use std::sync::atomic::{AtomicU32, Ordering};

use rustix::net::xdp::{XdpRingFlags, XdpRingOffset};

use super::mapping::Mapping;

/// What both ends share.
#[derive(Debug)]
struct Shared<T> {
    producer: NonNull<AtomicU32>,
    consumer: NonNull<AtomicU32>,
    flags: Option<NonNull<AtomicU32>>,
    entries: NonNull<T>,
    mask: u32,
    _mapping: Mapping,
    _entries: PhantomData<T>,
}

// SAFETY: the pointers go into `_mapping`, which moves along; entries are plain descriptors.
unsafe impl<T: Copy + Send> Send for Shared<T> {}

impl<T: Copy> Shared<T> {
    fn new(mapping: Mapping, offsets: &XdpRingOffset, size: u32) -> io::Result<Self> {
        assert!(
            size.is_power_of_two(),
            "the size of a ring is a power of two"
        );
        let outside = || io::Error::other("the kernel describes a ring outside of its mapping");
        let offset = |value: u64| usize::try_from(value).map_err(|_| outside());
        Ok(Self {
            producer: mapping
                .at(offset(offsets.producer)?, 1)
                .ok_or_else(outside)?,
            consumer: mapping
                .at(offset(offsets.consumer)?, 1)
                .ok_or_else(outside)?,
            flags: match offsets.flags {
                Some(flags) => Some(mapping.at(offset(flags)?, 1).ok_or_else(outside)?),
                None => None,
            },
            entries: mapping
                .at(offset(offsets.desc)?, size as usize)
                .ok_or_else(outside)?,
            mask: size - 1,
            _mapping: mapping,
            _entries: PhantomData,
        })
    }

    fn producer(&self) -> &AtomicU32 {
        // SAFETY: checked at construction to lie aligned in the mapping, and only ever accessed as an atomic.
        unsafe { self.producer.as_ref() }
    }

    fn consumer(&self) -> &AtomicU32 {
        // SAFETY: as for `producer`.
        unsafe { self.consumer.as_ref() }
    }

    fn needs_wakeup(&self) -> bool {
        self.flags.is_some_and(|flags| {
            // SAFETY: as for `producer`.
            let flags = unsafe { flags.as_ref() };
            flags.load(Ordering::Relaxed) & XdpRingFlags::XDP_RING_NEED_WAKEUP.bits() != 0
        })
    }

    fn entry(&self, position: u32) -> *mut T {
        // SAFETY: the masked position is below the number of entries, which lie in the mapping.
        unsafe { self.entries.as_ptr().add((position & self.mask) as usize) }
    }

    const fn size(&self) -> u32 {
        self.mask + 1
    }
}

/// Our end of the fill and transmit rings.
#[derive(Debug)]
pub(super) struct Producer<T> {
    shared: Shared<T>,
    /// Next entry to write; what is submitted lags behind.
    head: u32,
    submitted: u32,
    /// The consumer's position when last looked at.
    tail: u32,
}

impl<T: Copy> Producer<T> {
    /// # Errors
    /// `offsets` do not fit `mapping`.
    ///
    /// # Panics
    /// `size` is no power of two.
    pub(super) fn new(mapping: Mapping, offsets: &XdpRingOffset, size: u32) -> io::Result<Self> {
        let shared = Shared::new(mapping, offsets, size)?;
        let head = shared.producer().load(Ordering::Relaxed);
        let tail = shared.consumer().load(Ordering::Acquire);
        Ok(Self {
            shared,
            head,
            submitted: head,
            tail,
        })
    }

    /// Free entries; looks at the consumer only when fewer than `wanted` are known.
    pub(super) fn free(&mut self, wanted: u32) -> u32 {
        let size = self.shared.size();
        if size - self.head.wrapping_sub(self.tail) < wanted {
            // Acquire: the consumer has read the entries that are overwritten next.
            self.tail = self.shared.consumer().load(Ordering::Acquire);
        }
        size - self.head.wrapping_sub(self.tail)
    }

    /// Writes one entry, not yet visible; `false` when the ring is full.
    pub(super) fn push(&mut self, entry: T) -> bool {
        if self.free(1) == 0 {
            return false;
        }
        // SAFETY: the entry lies between head and the consumer's tail plus size: it is ours to write until submitted.
        unsafe { self.shared.entry(self.head).write(entry) };
        self.head = self.head.wrapping_add(1);
        true
    }

    /// Makes the pushed entries visible; returns whether there were any.
    pub(super) fn submit(&mut self) -> bool {
        let any = self.submitted != self.head;
        // Release: the entries are written before the position that covers them.
        self.shared.producer().store(self.head, Ordering::Release);
        self.submitted = self.head;
        any
    }

    /// Submitted entries the consumer has not taken yet.
    pub(super) fn outstanding(&mut self) -> u32 {
        self.tail = self.shared.consumer().load(Ordering::Acquire);
        self.submitted.wrapping_sub(self.tail)
    }

    /// Whether the kernel asked for a system call.
    pub(super) fn needs_wakeup(&self) -> bool {
        self.shared.needs_wakeup()
    }
}

/// Our end of the completion and receive rings.
#[derive(Debug)]
pub(super) struct Consumer<T> {
    shared: Shared<T>,
    tail: u32,
    /// The producer's position when last looked at.
    head: u32,
}

impl<T: Copy> Consumer<T> {
    /// # Errors
    /// `offsets` do not fit `mapping`.
    ///
    /// # Panics
    /// `size` is no power of two.
    pub(super) fn new(mapping: Mapping, offsets: &XdpRingOffset, size: u32) -> io::Result<Self> {
        let shared = Shared::new(mapping, offsets, size)?;
        let tail = shared.consumer().load(Ordering::Relaxed);
        let head = shared.producer().load(Ordering::Acquire);
        Ok(Self { shared, tail, head })
    }

    /// Looks for new entries; returns how many are readable.
    pub(super) fn refresh(&mut self) -> u32 {
        // Acquire: the entries that the position covers are readable.
        self.head = self.shared.producer().load(Ordering::Acquire);
        self.available()
    }

    /// Readable entries as of the last [`refresh`](Self::refresh).
    pub(super) const fn available(&self) -> u32 {
        self.head.wrapping_sub(self.tail)
    }

    /// The `index`th readable entry.
    pub(super) fn peek(&self, index: u32) -> Option<T> {
        // SAFETY: entries between tail and head were written before head was released, and stay until `release`.
        (index < self.available())
            .then(|| unsafe { self.shared.entry(self.tail.wrapping_add(index)).read() })
    }

    /// Gives the first `count` readable entries back to the producer.
    pub(super) fn release(&mut self, count: u32) {
        self.tail = self.tail.wrapping_add(count.min(self.available()));
        // Release: the entries were read before the producer may overwrite them.
        self.shared.consumer().store(self.tail, Ordering::Release);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::collections::VecDeque;

    const OFFSETS: XdpRingOffset = XdpRingOffset {
        producer: 0,
        consumer: 64,
        desc: 192,
        flags: Some(128),
    };

    /// Two mappings of the same memory, one for each side, with both positions at `start`.
    fn ring(size: u32, start: u32) -> (Producer<u64>, Consumer<u64>) {
        let len = OFFSETS.desc as usize + size as usize * size_of::<u64>();
        let file = tempfile::tempfile().unwrap();
        file.set_len(len as u64).unwrap();
        let map = || Mapping::shared(std::os::fd::AsFd::as_fd(&file), 0, len).unwrap();
        let probe = map();
        for offset in [OFFSETS.producer, OFFSETS.consumer] {
            // SAFETY: inside the mapping and aligned, as `at` checked.
            unsafe {
                probe
                    .at::<u32>(offset as usize, 1)
                    .unwrap()
                    .as_ptr()
                    .write(start)
            };
        }
        (
            Producer::new(map(), &OFFSETS, size).unwrap(),
            Consumer::new(map(), &OFFSETS, size).unwrap(),
        )
    }

    #[derive(Clone, Debug)]
    enum Step {
        Push(u32),
        Submit,
        Refresh,
        Release(u32),
    }

    fn step() -> impl Strategy<Value = Step> {
        prop_oneof![
            (1..12u32).prop_map(Step::Push),
            Just(Step::Submit),
            Just(Step::Refresh),
            (0..12u32).prop_map(Step::Release),
        ]
    }

    proptest! {
        #[test]
        fn entries_arrive_once_in_order_and_only_when_submitted(
            order in 0..5u32,
            before_wrap in 0..40u32,
            steps in prop::collection::vec(step(), 1..200),
        ) {
            let size = 1 << order;
            let (mut producer, mut consumer) = ring(size, 0u32.wrapping_sub(before_wrap));
            let (mut pushed, mut submitted, mut visible) =
                (VecDeque::new(), VecDeque::new(), VecDeque::new());
            let mut next = 0u64;
            for step in steps {
                match step {
                    Step::Push(count) => for _ in 0..count {
                        let occupied = pushed.len() + submitted.len() + visible.len();
                        prop_assert_eq!(producer.push(next), occupied < size as usize);
                        if occupied < size as usize {
                            pushed.push_back(next);
                            next += 1;
                        }
                    },
                    Step::Submit => {
                        prop_assert_eq!(producer.submit(), !pushed.is_empty());
                        submitted.append(&mut pushed);
                    }
                    Step::Refresh => {
                        visible.append(&mut submitted);
                        prop_assert_eq!(consumer.refresh() as usize, visible.len());
                    }
                    Step::Release(count) => {
                        for (index, expected) in visible.iter().enumerate() {
                            prop_assert_eq!(consumer.peek(index as u32), Some(*expected));
                        }
                        prop_assert_eq!(consumer.peek(visible.len() as u32), None);
                        consumer.release(count);
                        visible.drain(..visible.len().min(count as usize));
                    }
                }
                prop_assert_eq!(
                    producer.outstanding() as usize,
                    submitted.len() + visible.len()
                );
            }
        }
    }

    #[test]
    fn descriptions_outside_of_the_mapping_are_refused() {
        for offsets in [
            XdpRingOffset {
                desc: 4096,
                ..OFFSETS
            },
            XdpRingOffset {
                producer: u64::MAX,
                ..OFFSETS
            },
            XdpRingOffset {
                consumer: 61,
                ..OFFSETS
            },
        ] {
            let mapping = Mapping::anonymous(4096, false).unwrap();
            assert!(
                Producer::<u64>::new(mapping, &offsets, 8).is_err(),
                "{offsets:?}"
            );
        }
    }
}
