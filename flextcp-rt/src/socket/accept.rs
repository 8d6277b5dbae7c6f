//! The accept queue of a listener: filled by the cores, emptied by the application.

use std::collections::VecDeque;
use std::fmt;
use std::future::poll_fn;
use std::io;
use std::net::SocketAddr;
use std::panic::{RefUnwindSafe, UnwindSafe};
use std::sync::{Arc, PoisonError};
use std::task::{Context, Poll, ready};

use tokio::task::coop::poll_proceed;

use super::readiness::{Direction, READABLE, Readiness, Wakers};
use super::runtime::{Dependent, Registration, RuntimeHandle, gone};
use super::sync::{Mutex, MutexGuard};
use super::{Command, Stream};
use crate::tcp::ListenerId;

/// Connections that wait for `accept`, of one listening address, from all cores. Its bound is the engines'
/// backlog.
pub struct AcceptQueue {
    state: Mutex<State>,
    readiness: Readiness,
}

#[derive(Default)]
struct State {
    closed: bool,
    pending: VecDeque<Pending>,
}

struct Pending {
    stream: Stream,
    listener: ListenerId,
}

impl AcceptQueue {
    /// An empty queue.
    pub fn new() -> Arc<Self> {
        Arc::new(Self {
            state: Mutex::default(),
            readiness: Readiness::default(),
        })
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Appends an established connection of `listener`, an engine's listener on the stream's core. A closed
    /// queue resets it.
    pub fn push(&self, stream: Stream, listener: ListenerId, wakers: &mut Wakers) {
        let mut state = self.lock();
        if state.closed {
            drop(state);
            reset(stream);
            return;
        }
        state.pending.push_back(Pending { stream, listener });
        drop(state);
        self.readiness.set(READABLE, wakers);
    }

    /// How many wait.
    pub fn len(&self) -> usize {
        self.lock().pending.len()
    }

    /// Whether none waits.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    fn pop(&self) -> io::Result<Pending> {
        self.lock()
            .pending
            .pop_front()
            .ok_or_else(|| io::ErrorKind::WouldBlock.into())
    }

    /// Resets what waits and what comes.
    pub fn close(&self) {
        let mut state = self.lock();
        state.closed = true;
        let pending = std::mem::take(&mut state.pending);
        drop(state);
        for Pending { stream, .. } in pending {
            reset(stream);
        }
    }
}

/// `inet_csk_listen_stop`: a connection that nobody accepted is reset.
fn reset(stream: Stream) {
    let (core, conn) = stream.detach();
    core.command(conn, Command::Abort);
}

impl Dependent for AcceptQueue {
    fn runtime_gone(&self, wakers: &mut Wakers) {
        self.readiness.shutdown(wakers);
    }
}

impl fmt::Debug for AcceptQueue {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("AcceptQueue")
            .field("len", &self.len())
            .field("readiness", &self.readiness)
            .finish()
    }
}

/// The accelerated half of a listener. Dropping it ends listening.
pub struct FlexListener {
    queue: Arc<AcceptQueue>,
    runtime: RuntimeHandle,
    _registration: Registration,
    on_close: Option<Box<dyn FnOnce() + Send + Sync>>,
}

impl FlexListener {
    /// Takes connections from `queue` for tasks of `runtime`; `on_close` ends the engines' listeners.
    pub fn new(
        queue: Arc<AcceptQueue>,
        runtime: RuntimeHandle,
        on_close: impl FnOnce() + Send + Sync + 'static,
    ) -> Self {
        let dependent: Arc<dyn Dependent> = Arc::<AcceptQueue>::clone(&queue);
        let registration = runtime.register(Arc::downgrade(&dependent));
        Self {
            queue,
            runtime,
            _registration: registration,
            on_close: Some(Box::new(on_close)),
        }
    }

    /// The queue.
    pub fn queue(&self) -> &Arc<AcceptQueue> {
        &self.queue
    }

    fn hand_out(&self, Pending { stream, listener }: Pending) -> (Stream, SocketAddr) {
        stream.core().accepted(listener);
        // A stream belongs to the runtime that accepts it, as tokio's.
        stream.attach(&RuntimeHandle::try_current().unwrap_or_else(|| self.runtime.clone()));
        stream.assume_accepted();
        let peer = stream.accepted_from();
        (stream, peer)
    }

    /// Takes the oldest connection; the last caller is woken.
    pub fn poll_accept(&self, cx: &mut Context<'_>) -> Poll<io::Result<(Stream, SocketAddr)>> {
        loop {
            let coop = ready!(poll_proceed(cx));
            let event = ready!(self.queue.readiness.poll(cx, Direction::Read));
            if event.is_shutdown {
                return Poll::Ready(Err(gone()));
            }
            coop.made_progress();
            match self.queue.pop() {
                Ok(pending) => return Poll::Ready(Ok(self.hand_out(pending))),
                Err(_) => self.queue.readiness.clear(event),
            }
        }
    }

    /// Takes the oldest connection without waiting, for the listener's own runtime.
    #[cfg(feature = "lab")]
    pub(crate) fn try_accept(&self) -> io::Result<(Stream, SocketAddr)> {
        let event = self.queue.readiness.event(READABLE);
        if event.is_empty() {
            return Err(io::ErrorKind::WouldBlock.into());
        }
        let Pending { stream, listener } = self
            .queue
            .pop()
            .inspect_err(|_| self.queue.readiness.clear(event))?;
        stream.core().accepted(listener);
        stream.attach(&self.runtime);
        stream.assume_accepted();
        let peer = stream.accepted_from();
        Ok((stream, peer))
    }

    /// Takes the oldest connection. Any number of tasks may wait, and each is woken by the next connection.
    /// Cancel safe.
    ///
    /// # Errors
    /// The runtime is shut down.
    pub async fn accept(&self) -> io::Result<(Stream, SocketAddr)> {
        loop {
            let event = self.queue.readiness.wait(READABLE).await;
            if event.is_shutdown {
                return Err(gone());
            }
            let coop = poll_fn(poll_proceed).await;
            match self.queue.pop() {
                Ok(pending) => {
                    coop.made_progress();
                    return Ok(self.hand_out(pending));
                }
                Err(_) => self.queue.readiness.clear(event),
            }
        }
    }
}

// As tokio's types: what a panic can leave behind in the queue is a connection more or less.
impl UnwindSafe for FlexListener {}
impl RefUnwindSafe for FlexListener {}

impl Drop for FlexListener {
    fn drop(&mut self) {
        self.queue.readiness.clear_wakers();
        if let Some(on_close) = self.on_close.take() {
            on_close();
        }
        self.queue.close();
    }
}

impl fmt::Debug for FlexListener {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("FlexListener")
            .field("queue", &self.queue)
            .finish_non_exhaustive()
    }
}
