//! One turn: requests, timers, transmission and the moves between engine and NIC, then what arrived.

use std::io;
use std::sync::atomic::{AtomicU64, Ordering};

use flextcp_nic::flow::Token;
use flextcp_nic::nic::{Claim, Exception, Notification, Returned, Sink};
use flextcp_nic::time::{Instant, earlier};

use super::frames::FrameSender;
use super::{Core, Inner, StreamEntry, Streams, trace};
use crate::reactor::siblings::Siblings;
use crate::socket::Wakers;
use crate::tcp::{Engine, Transmit};

/// Frames taken in per turn before the woken tasks get to run.
const POLL_BUDGET: usize = 64;
/// Polls before a timer acts, at most.
const CATCH_UP_POLLS: usize = 16;
/// Segments the engine may emit per turn.
const TRANSMIT_BUDGET: usize = 256;

/// What one turn did.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Turn {
    /// Frames, doorbells, commands and events handled; zero when idle.
    pub(crate) work: usize,
    /// When the core next has something to do by the clock.
    pub(crate) next: Option<Instant>,
    /// Whether connections were handed to accept queues.
    pub(crate) accepted: bool,
}

impl Core {
    /// One turn: what the application did, timers, transmission; then what arrived.
    ///
    /// # Errors
    /// The device is gone.
    pub(crate) fn turn(&self, now: Instant) -> io::Result<Turn> {
        // Woken when it is dropped, after the lock.
        let mut wakers = Wakers::new();
        self.turn_collecting(now, &mut wakers)
    }

    fn turn_collecting(&self, now: Instant, wakers: &mut Wakers) -> io::Result<Turn> {
        let mut inner = self.lock();
        count(&self.turns);
        if self.has_failed() {
            return Ok(Turn {
                work: 0,
                next: None,
                accepted: false,
            });
        }
        let mut work = self.take_requests(&mut inner, now);
        if inner.engine.poll_timeout().is_some_and(|due| due <= now) {
            work += inner.catch_up(now, self.siblings.get())?;
        }
        work += inner.run_engine(now);
        inner.nic.flush(now)?;
        // What it had to leave for the next turn.
        work += usize::from(inner.nic.poll_at().is_some_and(|at| at <= now));
        // What was sent took its time, and may be answered already: a round trip is not measured by one clock reading.
        let arrival = if work > 0 { self.now() } else { now };
        let taken = inner.poll_nic(arrival, self.siblings.get())?;
        if taken > 0 {
            inner.resume(arrival)?;
            work += taken;
        }
        let delivered = inner.deliver_events(wakers);
        work += delivered.events;
        if work > 0 {
            count(&self.busy_turns);
        }
        let next = earlier(inner.engine.poll_timeout(), inner.nic.poll_at());
        Ok(Turn {
            work,
            next,
            accepted: delivered.accepted,
        })
    }
}

/// Counts under the core's lock, where nobody else does: without a locked instruction.
fn count(counter: &AtomicU64) {
    counter.store(counter.load(Ordering::Relaxed) + 1, Ordering::Relaxed);
}

impl Inner {
    /// Timers, transmission and the moves between engine and NIC.
    pub(super) fn run_engine(&mut self, now: Instant) -> usize {
        let mut work = 0;
        if self.engine.poll_timeout().is_some_and(|due| due <= now) {
            self.engine.handle_timeout(now);
            work += 1;
        }
        while let Some((conn, flow)) = self.engine.poll_progress_request(now) {
            // Stale: a punt is on its way through the same poll loop.
            if let Ok(progress) = self.nic.progress(flow) {
                self.engine.handle_progress(now, conn, progress);
            }
        }
        while let Some((_, flow)) = self.engine.poll_claim() {
            work += 1;
            if let Ok(Claim::Done(returned)) = self.nic.claim(now, flow) {
                self.take_back(now, returned);
            }
        }
        work += self.transmit(now, Engine::poll_train);
        while let Some((conn, state, buffers)) = self.engine.poll_install(now) {
            work += 1;
            match self.nic.install(now, conn.into(), state, buffers) {
                Ok(flow) => {
                    self.engine.installed(now, conn, flow);
                    self.moved(conn.into(), true);
                }
                Err(refused) => self.engine.install_refused(now, conn, refused),
            }
        }
        self.set_limits();
        work
    }

    /// Tells the NIC what its flows may send.
    pub(super) fn set_limits(&mut self) {
        while let Some((flow, limits)) = self.engine.poll_limits() {
            // Stale: the limits travel back with the flow and the engine applies its own.
            let _ = self.nic.set_limits(flow, limits);
        }
    }

    pub(super) fn take_back(&mut self, now: Instant, returned: Returned) {
        self.moved(returned.token, false);
        self.engine.handle_returned(now, returned);
    }

    fn moved(&self, token: Token, to_nic: bool) {
        if let Some(entry) = self.streams.get(&token) {
            entry.moved(to_nic);
        }
    }

    /// Sends what takes nothing of the application: full segments for which acknowledgments made room, acknowledgments of holes and
    /// of bulk. All else may be joined by what the tasks write that this turn wakes.
    fn resume(&mut self, now: Instant) -> io::Result<()> {
        self.transmit(now, Engine::poll_opened);
        self.set_limits();
        self.nic.resume(now)
    }

    fn transmit(
        &mut self,
        now: Instant,
        poll: impl for<'a> Fn(&'a mut Engine, Instant, u32) -> Option<Transmit<'a>>,
    ) -> usize {
        let Self { nic, engine, .. } = self;
        let mut sender = FrameSender::new(&mut **nic);
        let mut sent = 0;
        while sent < TRANSMIT_BUDGET {
            let Some(transmit) = poll(engine, now, sender.most()) else {
                break;
            };
            let segments = transmit.segments();
            if !sender.send(now, transmit) {
                break;
            }
            sent += segments;
        }
        sent
    }

    /// Takes in what waits at the NIC before a timer acts: after a long turn, or a long time without one, the
    /// acknowledgment that stops the timer is often there already.
    fn catch_up(&mut self, now: Instant, siblings: Option<&Siblings>) -> io::Result<usize> {
        let mut taken = 0;
        for _ in 0..CATCH_UP_POLLS {
            let frames = self.poll_nic(now, siblings)?;
            taken += frames;
            if frames < POLL_BUDGET {
                break;
            }
        }
        Ok(taken)
    }

    pub(super) fn poll_nic(
        &mut self,
        now: Instant,
        siblings: Option<&Siblings>,
    ) -> io::Result<usize> {
        let Self {
            nic,
            engine,
            streams,
            ..
        } = self;
        let mut sink = CoreSink {
            engine,
            streams,
            siblings,
            now,
        };
        nic.poll(now, POLL_BUDGET, &mut sink)
    }
}

/// Where the NIC delivers during a turn.
struct CoreSink<'a> {
    engine: &'a mut Engine,
    streams: &'a Streams,
    siblings: Option<&'a Siblings>,
    now: Instant,
}

impl CoreSink<'_> {
    fn note_returned(&self, returned: &Returned) {
        if let Some(entry) = self.streams.get(&returned.token) {
            entry.moved(false);
        }
    }
}

impl StreamEntry {
    fn moved(&self, to_nic: bool) {
        trace::moved(&self.span, to_nic);
        self.handle.on_moved(to_nic);
    }
}

impl Sink for CoreSink<'_> {
    fn notification(&mut self, notification: Notification) {
        self.engine.handle_notification(self.now, notification);
    }

    fn exception(&mut self, exception: Exception<'_>) {
        if let Some(siblings) = self.siblings
            && siblings.take(self.engine, &exception)
        {
            return;
        }
        if let Some(returned) = &exception.returned {
            self.note_returned(returned);
        }
        self.engine.handle_exception(self.now, exception);
    }

    fn returned(&mut self, returned: Returned) {
        self.note_returned(&returned);
        self.engine.handle_returned(self.now, returned);
    }
}
