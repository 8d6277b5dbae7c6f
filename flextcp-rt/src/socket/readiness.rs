//! What a stream or an accept queue is ready for, and who waits: tokio's cached readiness, without its driver.
//!
//! Readiness is sticky: an event sets bits, and only an operation that found nothing clears them. Each event
//! counts a tick up, and a clear names the tick of the readiness it saw, so an event between the failed
//! operation and the clear is not lost. One word holds bits, tick and "somebody waits", so that an event
//! without a waiter takes no lock: a waiter sets its bit and re-reads the readiness in the same step.

use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::sync::PoisonError;
use std::sync::atomic::Ordering;
use std::task::{Context, Poll, Waker};

use slab::Slab;
use tokio::io::{Interest, Ready};

use super::sync::{AtomicU64, Mutex, MutexGuard};

pub(crate) const READABLE: u64 = 1 << 0;
pub(crate) const WRITABLE: u64 = 1 << 1;
pub(crate) const READ_CLOSED: u64 = 1 << 2;
pub(crate) const WRITE_CLOSED: u64 = 1 << 3;
pub(crate) const PRIORITY: u64 = 1 << 4;
pub(crate) const ERROR: u64 = 1 << 5;
const READY: u64 = 0x3f;

const READ_WAITING: u64 = 1 << 8;
const WRITE_WAITING: u64 = 1 << 9;
const SHUTDOWN: u64 = 1 << 10;
const TICK: u64 = 1 << 32;

const READ_GROUP: u64 = READABLE | READ_CLOSED | PRIORITY | ERROR;
const WRITE_GROUP: u64 = WRITABLE | WRITE_CLOSED | ERROR;

/// The waiting bits that concern readiness `bits`.
const fn waiting(bits: u64) -> u64 {
    let mut waiting = 0;
    if bits & READ_GROUP != 0 {
        waiting |= READ_WAITING;
    }
    if bits & WRITE_GROUP != 0 {
        waiting |= WRITE_WAITING;
    }
    waiting
}

/// One side of a stream, with its reserved waker slot.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Direction {
    Read,
    Write,
}

impl Direction {
    const fn mask(self) -> u64 {
        match self {
            Self::Read => READABLE | READ_CLOSED,
            Self::Write => WRITABLE | WRITE_CLOSED,
        }
    }
}

/// The readiness bits that answer `interest`.
pub(crate) fn mask(interest: Interest) -> u64 {
    let mut mask = 0;
    if interest.is_readable() {
        mask |= READABLE | READ_CLOSED;
    }
    if interest.is_writable() {
        mask |= WRITABLE | WRITE_CLOSED;
    }
    if interest.is_priority() {
        mask |= PRIORITY | READ_CLOSED;
    }
    if interest.is_error() {
        mask |= ERROR;
    }
    mask
}

/// Wakers to be woken once the caller holds no lock. Dropping it wakes them, so none is lost; keep one per
/// turn and no event allocates.
#[derive(Default)]
pub struct Wakers(Vec<Waker>);

impl Wakers {
    /// An empty list.
    pub const fn new() -> Self {
        Self(Vec::new())
    }

    /// Whether nobody is to be woken.
    pub const fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// How many are to be woken.
    pub const fn len(&self) -> usize {
        self.0.len()
    }

    /// Wakes all and empties the list.
    pub fn wake_all(&mut self) {
        for waker in self.0.drain(..) {
            waker.wake();
        }
    }

    pub(super) fn push(&mut self, waker: Waker) {
        self.0.push(waker);
    }
}

impl Drop for Wakers {
    fn drop(&mut self) {
        self.wake_all();
    }
}

impl fmt::Debug for Wakers {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Wakers").field(&self.0.len()).finish()
    }
}

/// Readiness as seen at one moment.
#[derive(Clone, Copy, Debug)]
pub(crate) struct ReadyEvent {
    bits: u64,
    tick: u32,
    pub(crate) is_shutdown: bool,
}

impl ReadyEvent {
    const fn new(word: u64, mask: u64) -> Self {
        Self {
            bits: word & mask & READY,
            tick: (word >> 32) as u32,
            is_shutdown: word & SHUTDOWN != 0,
        }
    }

    pub(crate) const fn is_empty(&self) -> bool {
        self.bits == 0
    }

    const fn is_settled(&self) -> bool {
        !self.is_empty() || self.is_shutdown
    }

    /// As tokio's type.
    pub(crate) fn ready(&self) -> Ready {
        [
            (READABLE, Ready::READABLE),
            (WRITABLE, Ready::WRITABLE),
            (READ_CLOSED, Ready::READ_CLOSED),
            (WRITE_CLOSED, Ready::WRITE_CLOSED),
            (PRIORITY, Ready::PRIORITY),
            (ERROR, Ready::ERROR),
        ]
        .into_iter()
        .filter(|(bit, _)| self.bits & bit != 0)
        .fold(Ready::EMPTY, |ready, (_, part)| ready | part)
    }
}

#[derive(Default)]
struct Waiters {
    reader: Option<Waker>,
    writer: Option<Waker>,
    futures: Slab<Waiter>,
}

struct Waiter {
    mask: u64,
    /// `None` once an event came.
    waker: Option<Waker>,
}

/// Cached readiness and its waiters.
#[derive(Default)]
pub(crate) struct Readiness {
    word: AtomicU64,
    waiters: Mutex<Waiters>,
}

impl Readiness {
    fn lock(&self) -> MutexGuard<'_, Waiters> {
        // Nothing under this lock panics but a foreign `Waker::clone`, after which the lists are still whole.
        self.waiters.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// An event: sets `bits` and collects who waits for one of them.
    pub(crate) fn set(&self, bits: u64, wakers: &mut Wakers) {
        let updated = self
            .word
            .fetch_update(Ordering::AcqRel, Ordering::Acquire, |word| {
                (word & SHUTDOWN == 0).then(|| (word | bits).wrapping_add(TICK))
            });
        if updated.is_ok_and(|word| word & waiting(bits) != 0) {
            self.wake(bits, wakers);
        }
    }

    /// Marks as ready without an event; a wrong guess costs one `WouldBlock`.
    pub(crate) fn assume(&self, bits: u64) {
        self.word.fetch_or(bits, Ordering::AcqRel);
    }

    /// The runtime is gone, for good: every wait ends, with [`ReadyEvent::is_shutdown`].
    pub(crate) fn shutdown(&self, wakers: &mut Wakers) {
        self.word.fetch_or(SHUTDOWN, Ordering::AcqRel);
        self.wake(READY, wakers);
    }

    fn wake(&self, bits: u64, wakers: &mut Wakers) {
        let mut waiters = self.lock();
        let waiters = &mut *waiters;
        if bits & Direction::Read.mask() != 0
            && let Some(waker) = waiters.reader.take()
        {
            wakers.push(waker);
        }
        if bits & Direction::Write.mask() != 0
            && let Some(waker) = waiters.writer.take()
        {
            wakers.push(waker);
        }
        let mut still = 0;
        if waiters.reader.is_some() {
            still |= READ_WAITING;
        }
        if waiters.writer.is_some() {
            still |= WRITE_WAITING;
        }
        for (_, waiter) in &mut waiters.futures {
            if waiter.mask & bits == 0 {
                still |= if waiter.waker.is_some() {
                    waiting(waiter.mask)
                } else {
                    0
                };
            } else if let Some(waker) = waiter.waker.take() {
                wakers.push(waker);
            }
        }
        self.word
            .fetch_and(!(READ_WAITING | WRITE_WAITING) | still, Ordering::AcqRel);
    }

    /// Readiness now.
    pub(crate) fn event(&self, mask: u64) -> ReadyEvent {
        ReadyEvent::new(self.word.load(Ordering::Acquire), mask)
    }

    /// Forgets the readiness of `event`, unless another event came since. Closed states are final.
    pub(crate) fn clear(&self, event: ReadyEvent) {
        let bits = event.bits & !(READ_CLOSED | WRITE_CLOSED);
        let _ = self
            .word
            .fetch_update(Ordering::AcqRel, Ordering::Acquire, |word| {
                ((word >> 32) as u32 == event.tick).then_some(word & !bits)
            });
    }

    /// Waits with the reserved slot of `direction`: the last caller is woken.
    pub(crate) fn poll(&self, cx: &mut Context<'_>, direction: Direction) -> Poll<ReadyEvent> {
        let event = self.event(direction.mask());
        if event.is_settled() {
            return Poll::Ready(event);
        }
        let mut waiters = self.lock();
        let slot = match direction {
            Direction::Read => &mut waiters.reader,
            Direction::Write => &mut waiters.writer,
        };
        let replaced = match slot {
            Some(waker) if waker.will_wake(cx.waker()) => None,
            slot => slot.replace(cx.waker().clone()),
        };
        let word = self
            .word
            .fetch_or(waiting(direction.mask()), Ordering::AcqRel);
        drop(waiters);
        // Foreign code, so not under the lock.
        drop(replaced);
        let event = ReadyEvent::new(word, direction.mask());
        if event.is_settled() {
            Poll::Ready(event)
        } else {
            Poll::Pending
        }
    }

    /// Waits for `interest`, along with any number of others.
    pub(crate) const fn wait(&self, mask: u64) -> Wait<'_> {
        Wait {
            readiness: self,
            mask,
            key: None,
        }
    }

    /// Drops the reserved slots' wakers: they may hold what holds this.
    pub(crate) fn clear_wakers(&self) {
        let mut waiters = self.lock();
        let slots = (waiters.reader.take(), waiters.writer.take());
        drop(waiters);
        drop(slots);
    }
}

impl fmt::Debug for Readiness {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let event = self.event(READY);
        f.debug_struct("Readiness")
            .field("ready", &event.ready())
            .field("tick", &event.tick)
            .finish()
    }
}

/// Future of [`Readiness::wait`]. The event may be empty: somebody else was faster.
#[derive(Debug)]
#[must_use = "futures do nothing unless polled"]
pub(crate) struct Wait<'a> {
    readiness: &'a Readiness,
    mask: u64,
    key: Option<usize>,
}

impl Future for Wait<'_> {
    type Output = ReadyEvent;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<ReadyEvent> {
        let readiness = self.readiness;
        let mask = self.mask;
        let Some(key) = self.key else {
            let event = readiness.event(mask);
            if event.is_settled() {
                return Poll::Ready(event);
            }
            let waker = cx.waker().clone();
            let mut waiters = readiness.lock();
            let word = readiness.word.fetch_or(waiting(mask), Ordering::AcqRel);
            let event = ReadyEvent::new(word, mask);
            if event.is_settled() {
                drop(waiters);
                return Poll::Ready(event);
            }
            self.key = Some(waiters.futures.insert(Waiter {
                mask,
                waker: Some(waker),
            }));
            return Poll::Pending;
        };
        let mut waiters = readiness.lock();
        if let Some(waker) = &mut waiters.futures[key].waker {
            let replaced = if waker.will_wake(cx.waker()) {
                None
            } else {
                Some(std::mem::replace(waker, cx.waker().clone()))
            };
            drop(waiters);
            drop(replaced);
            return Poll::Pending;
        }
        waiters.futures.remove(key);
        drop(waiters);
        self.key = None;
        Poll::Ready(readiness.event(mask))
    }
}

impl Drop for Wait<'_> {
    fn drop(&mut self) {
        if let Some(key) = self.key {
            let mut waiters = self.readiness.lock();
            let waiter = waiters.futures.remove(key);
            drop(waiters);
            drop(waiter);
        }
    }
}
