//! The core's side of a socket, and what both sides share.

use std::fmt;
use std::io;
use std::sync::atomic::Ordering;
use std::sync::{Arc, PoisonError};
use std::task::Waker;

use super::readiness::{ERROR, READ_CLOSED, READABLE, Readiness, WRITABLE, WRITE_CLOSED, Wakers};
use super::runtime::Dependent;
use super::sync::{AtomicBool, AtomicU32, Mutex, MutexGuard};
use super::{Addresses, Core, Token};
use crate::options::SocketOptions;
use crate::tcp::AppBuffers;

/// The peer's FIN: after the bytes in the ring comes the end of the stream.
const PEER_CLOSED: u32 = 1 << 0;
/// The application shut its direction down.
const WRITE_SHUT: u32 = 1 << 1;
/// The connection is over.
const FAILED: u32 = 1 << 2;
/// The stream is dropped.
const ORPHANED: u32 = 1 << 3;
/// Somebody is to be told of arrivals, besides the tasks that wait.
const OBSERVED: u32 = 1 << 4;

/// Freed bytes worth a doorbell when nothing is left to read and the application may wait for the peer, which may wait
/// for the window: one full segment, and less than the smallest receive ring.
const FREED_SEGMENT: u32 = 1448;
/// While there is more to read, freed bytes are worth one by this part of the ring.
const FREED_PART: u32 = 4;

/// An error as it will be returned, once.
#[derive(Clone, Copy, Debug)]
enum PendingError {
    Os(i32),
    Kind(io::ErrorKind),
}

impl From<PendingError> for io::Error {
    fn from(error: PendingError) -> Self {
        match error {
            PendingError::Os(errno) => Self::from_raw_os_error(errno),
            PendingError::Kind(kind) => kind.into(),
        }
    }
}

pub(super) struct Shared {
    pub(super) core: Arc<dyn Core>,
    pub(super) conn: Token,
    pub(super) app: AppBuffers,
    pub(super) addresses: Addresses,
    pub(super) readiness: Readiness,
    state: AtomicU32,
    doorbell_pending: AtomicBool,
    offloaded: AtomicBool,
    freed: AtomicU32,
    error: Mutex<Option<PendingError>>,
    options: Mutex<SocketOptions>,
    observer: Mutex<Option<Waker>>,
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    // What these guard is plain data, whole at every step.
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Shared {
    pub(super) fn new(
        core: Arc<dyn Core>,
        conn: Token,
        app: AppBuffers,
        addresses: Addresses,
        options: SocketOptions,
    ) -> Arc<Self> {
        Arc::new(Self {
            core,
            conn,
            app,
            addresses,
            readiness: Readiness::default(),
            state: AtomicU32::new(0),
            doorbell_pending: AtomicBool::new(false),
            offloaded: AtomicBool::new(false),
            freed: AtomicU32::new(0),
            error: Mutex::new(None),
            options: Mutex::new(options),
            observer: Mutex::new(None),
        })
    }

    fn state(&self, flag: u32) -> bool {
        self.state.load(Ordering::Acquire) & flag != 0
    }

    /// Whether the NIC has the connection.
    pub(super) fn is_offloaded(&self) -> bool {
        self.offloaded.load(Ordering::Relaxed)
    }

    /// Sets `flag`; returns whether it was clear.
    fn raise(&self, flag: u32) -> bool {
        self.state.fetch_or(flag, Ordering::AcqRel) & flag == 0
    }

    /// No more bytes will be published.
    pub(super) fn is_read_closed(&self) -> bool {
        self.state(PEER_CLOSED | FAILED)
    }

    /// Whether writing fails.
    pub(super) fn is_write_closed(&self) -> bool {
        self.state(WRITE_SHUT | FAILED)
    }

    /// Whether the connection is over.
    pub(super) fn is_failed(&self) -> bool {
        self.state(FAILED)
    }

    /// Whether the peer's end of the stream came before any failure: reading then ends, and the error is for writes
    /// (Linux's `SOCK_DONE`).
    pub(super) fn is_peer_closed(&self) -> bool {
        self.state(PEER_CLOSED)
    }

    /// Whether there is a pending error.
    pub(super) fn take_error(&self) -> Option<io::Error> {
        // The flag first: a healthy connection takes no lock.
        if !self.is_failed() {
            return None;
        }
        lock(&self.error).take().map(io::Error::from)
    }

    pub(super) fn options(&self) -> MutexGuard<'_, SocketOptions> {
        lock(&self.options)
    }

    /// Tells the core to look at the rings, unless it was told and did not look yet.
    pub(super) fn ring_doorbell(&self) {
        if !self.doorbell_pending.swap(true, Ordering::AcqRel) {
            self.core.doorbell(self.conn);
        }
    }

    /// The application freed `n` bytes of the receive ring.
    pub(super) fn note_freed(&self, n: usize) {
        if n == 0 || self.is_read_closed() {
            return;
        }
        let n = u32::try_from(n).unwrap_or(u32::MAX);
        let freed = self.freed.fetch_add(n, Ordering::AcqRel).saturating_add(n);
        let part = self.app.recv.capacity() / FREED_PART;
        // The application that stops reading with bytes left does not wait for the peer. When it has read all, what the
        // core does not know of is less than a segment.
        if freed >= part.max(FREED_SEGMENT) || (freed >= FREED_SEGMENT && self.app.recv.is_empty())
        {
            self.ring_doorbell();
        }
    }

    /// Marks the application's direction as shut; returns whether the core has to be told.
    pub(super) fn shut_write(&self) -> bool {
        let news = self.raise(WRITE_SHUT) && !self.is_failed();
        if news {
            // Linux's poll calls a socket writable once its sending side is shut: writes fail at once.
            let mut wakers = Wakers::new();
            let closed = if self.is_peer_closed() {
                WRITE_CLOSED
            } else {
                0
            };
            self.readiness.set(WRITABLE | closed, &mut wakers);
        }
        news
    }

    /// Has `observer` woken by every arrival, before the tasks.
    pub(super) fn observe(&self, observer: Waker) {
        let replaced = lock(&self.observer).replace(observer);
        self.raise(OBSERVED);
        drop(replaced);
    }

    pub(super) fn stop_observing(&self) {
        self.state.fetch_and(!OBSERVED, Ordering::AcqRel);
        let observer = lock(&self.observer).take();
        drop(observer);
    }

    fn tell_observer(&self, wakers: &mut Wakers) {
        if self.state(OBSERVED)
            && let Some(observer) = &*lock(&self.observer)
        {
            wakers.push(observer.clone());
        }
    }

    pub(super) fn orphan(&self) -> bool {
        self.raise(ORPHANED)
    }

    pub(super) fn assume_accepted(&self) {
        self.readiness.assume(READABLE | WRITABLE);
    }
}

impl Dependent for Shared {
    fn runtime_gone(&self, wakers: &mut Wakers) {
        self.readiness.shutdown(wakers);
    }
}

impl fmt::Debug for Shared {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Shared")
            .field("conn", &self.conn)
            .field("addresses", &self.addresses)
            .field("readiness", &self.readiness)
            .field("state", &self.state)
            .finish_non_exhaustive()
    }
}

/// What the core keeps of a connection's socket. No method blocks or takes a lock of the core; each adds to
/// `wakers` exactly who waited for what it tells.
#[derive(Debug)]
pub struct StreamHandle {
    shared: Arc<Shared>,
}

impl StreamHandle {
    pub(super) const fn new(shared: Arc<Shared>) -> Self {
        Self { shared }
    }

    /// The connection.
    pub fn conn(&self) -> Token {
        self.shared.conn
    }

    /// The connection moved to the NIC (`true`), or back to the engine.
    pub fn on_moved(&self, offloaded: bool) {
        self.shared.offloaded.store(offloaded, Ordering::Relaxed);
    }

    /// The handshake is done: the stream is writable.
    pub fn on_connected(&self, wakers: &mut Wakers) {
        self.shared.readiness.set(WRITABLE, wakers);
    }

    /// Bytes were published in the receive ring.
    pub fn on_readable(&self, wakers: &mut Wakers) {
        self.shared.tell_observer(wakers);
        self.shared.readiness.set(READABLE, wakers);
    }

    /// Space became free in the send ring.
    pub fn on_writable(&self, wakers: &mut Wakers) {
        self.shared.readiness.set(WRITABLE, wakers);
    }

    /// The peer's FIN arrived. Call it after its last byte was published.
    pub fn on_peer_closed(&self, wakers: &mut Wakers) {
        self.shared.raise(PEER_CLOSED);
        self.shared.tell_observer(wakers);
        let closed = if self.shared.is_write_closed() {
            WRITE_CLOSED | WRITABLE
        } else {
            0
        };
        self.shared
            .readiness
            .set(READABLE | READ_CLOSED | closed, wakers);
    }

    /// The connection is over, with an error that the application sees once; `raw_os_error` where there is one,
    /// else `kind`. Bytes in the receive ring stay readable, before the error.
    pub fn on_failed(&self, kind: io::ErrorKind, raw_os_error: Option<i32>, wakers: &mut Wakers) {
        let error = raw_os_error.map_or(PendingError::Kind(kind), PendingError::Os);
        lock(&self.shared.error).get_or_insert(error);
        self.over(ERROR, wakers);
    }

    /// The engine forgot the connection (both directions closed, or after [`on_failed`](Self::on_failed)): no
    /// more events come.
    pub fn on_closed(&self, wakers: &mut Wakers) {
        self.over(0, wakers);
    }

    fn over(&self, error: u64, wakers: &mut Wakers) {
        if self.shared.raise(FAILED) || error != 0 {
            self.shared.tell_observer(wakers);
            let bits = READABLE | WRITABLE | READ_CLOSED | WRITE_CLOSED | error;
            self.shared.readiness.set(bits, wakers);
        }
    }

    /// The runtime of the stream is gone: waiting operations fail. The connection itself goes on.
    pub fn on_runtime_shutdown(&self, wakers: &mut Wakers) {
        self.shared.readiness.shutdown(wakers);
    }

    /// Whether the doorbell was rung. Call it before looking at the rings: what the application does
    /// after this call rings again.
    pub fn take_doorbell(&self) -> bool {
        self.shared.freed.store(0, Ordering::Release);
        self.shared.doorbell_pending.swap(false, Ordering::AcqRel)
    }

    /// Whether the application dropped its stream: nobody reads or waits any more.
    pub fn is_orphaned(&self) -> bool {
        self.shared.state(ORPHANED)
    }
}
