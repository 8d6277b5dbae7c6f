//! The background task: one per tokio runtime and core, it turns the core while that runtime runs.
//!
//! One turn hands out what arrived and yields, so that the woken tasks run before the next turn sends
//! what they wrote, replies carrying the ACKs. Without work it spins for an adaptive, bounded time, then
//! arms the NIC's wake-up and waits on its descriptor, the next deadline and doorbells.

use std::fmt;
use std::future::Future;
use std::os::fd::OwnedFd;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU8, Ordering, fence};
use std::task::{Context, Poll};
use std::time::Duration;

use futures::task::AtomicWaker;
use rustix::time::{Itimerspec, TimerfdClockId, TimerfdFlags, TimerfdTimerFlags, Timespec};
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;

use super::core::Core;
use crate::socket::RuntimeHandle;
use flextcp_nic::nic::Armed;
use flextcp_nic::time::Instant;

/// How long one poll of the task may spin before it lets the scheduler look around.
const SPIN_SLICE: Duration = Duration::from_micros(3);
/// Pauses between two idle turns, together half a microsecond: whoever fills the receive ring has to take its index
/// from the core that reads it, and without them did so for every frame (an eighth of bulk throughput over veth).
const IDLE_PAUSES: usize = 8;
/// First step of the adaptive spin.
const SPIN_GROW_START: Duration = Duration::from_micros(10);

const RUNNING: u8 = 0;
const PARKED: u8 = 1;
const GONE: u8 = 2;

/// What streams know of the driver of their runtime.
pub(crate) struct DriverShared {
    core: Arc<Core>,
    runtime: RuntimeHandle,
    state: AtomicU8,
    waker: AtomicWaker,
}

impl DriverShared {
    pub(crate) fn new(core: Arc<Core>, runtime: RuntimeHandle) -> Arc<Self> {
        Arc::new(Self {
            core,
            runtime,
            state: AtomicU8::new(RUNNING),
            waker: AtomicWaker::new(),
        })
    }

    /// The core it drives.
    pub(crate) fn core(&self) -> &Arc<Core> {
        &self.core
    }

    /// The runtime it runs in.
    pub(crate) fn runtime(&self) -> &RuntimeHandle {
        &self.runtime
    }

    /// Whether its runtime is shut down.
    pub(crate) fn is_gone(&self) -> bool {
        self.state.load(Ordering::Acquire) == GONE
    }

    /// Whether it is awake and will look at the queues by itself.
    pub(crate) fn is_running(&self) -> bool {
        self.state.load(Ordering::Acquire) == RUNNING
    }

    /// Makes somebody look at the core's queues. Call after pushing to them.
    pub(crate) fn wake(&self) {
        // Pairs with the fence in `Driver::park`: either the driver sees the pushed entry, or this sees it parked.
        fence(Ordering::SeqCst);
        match self.state.load(Ordering::Relaxed) {
            RUNNING => {}
            PARKED => {
                self.waker.wake();
                self.core.guard().watch();
            }
            // Its runtime is gone; another's may turn the core. The guard is slower.
            _ => {
                if let Some(driver) = self.core.live_driver() {
                    driver.unpark();
                }
                self.core.guard().watch();
            }
        }
    }

    fn unpark(&self) {
        // As in `wake`.
        fence(Ordering::SeqCst);
        if self.state.load(Ordering::Relaxed) == PARKED {
            self.waker.wake();
        }
    }
}

impl fmt::Debug for DriverShared {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("DriverShared")
            .field("state", &self.state)
            .finish_non_exhaustive()
    }
}

/// Registers a descriptor with the current runtime.
pub(crate) fn watch(fd: OwnedFd) -> std::io::Result<AsyncFd<OwnedFd>> {
    // SAFETY: an `OwnedFd` is the one owner of an open descriptor and names the same one for as long as the
    // `AsyncFd` holds it.
    Ok(unsafe { AsyncFd::register_with_interest(fd, Interest::READABLE) }?)
}

/// Has the task polled again when the runtime has looked at everything else: not only at the other tasks, as after a wake-up
/// by itself, but at its IO, its timers and the future of `block_on`, which come once in 61 tasks otherwise.
fn let_others_run(cx: &mut Context<'_>) {
    let yielded = std::pin::pin!(tokio::task::yield_now());
    // Pending, with the waker kept for later.
    let _ = yielded.poll(cx);
}

/// The task.
pub(crate) struct Driver {
    shared: Arc<DriverShared>,
    wake_fd: Option<AsyncFd<OwnedFd>>,
    timer: AsyncFd<OwnedFd>,
    timer_set: Option<Instant>,
    idle_since: Option<Instant>,
    parked_at: Option<Instant>,
    spin: Duration,
    spin_max: Duration,
    /// The next poll only lets the others run.
    yields: bool,
}

impl Driver {
    /// Builds the task; must run within a runtime with IO enabled (it panics with tokio's own words otherwise,
    /// as tokio's sockets do).
    pub(crate) fn new(shared: Arc<DriverShared>, spin_max: Duration) -> std::io::Result<Self> {
        let timer = rustix::time::timerfd_create(
            TimerfdClockId::Monotonic,
            TimerfdFlags::NONBLOCK | TimerfdFlags::CLOEXEC,
        )?;
        let wake_fd = match shared.core.wake_fd()? {
            Some(fd) => Some(watch(fd)?),
            None => None,
        };
        Ok(Self {
            timer: watch(timer)?,
            wake_fd,
            timer_set: None,
            idle_since: None,
            parked_at: None,
            spin: spin_max,
            spin_max,
            yields: false,
            shared,
        })
    }

    /// Grows the spin when sleeping was a mistake, shrinks it when spinning was (KVM's halt polling does the same).
    fn adapt_spin(&mut self, slept: Duration) {
        if slept <= self.spin_max {
            self.spin = (self.spin * 2).clamp(SPIN_GROW_START.min(self.spin_max), self.spin_max);
        } else if slept > self.spin_max * 20 {
            self.spin /= 2;
            if self.spin < SPIN_GROW_START {
                self.spin = Duration::ZERO;
            }
        }
    }

    fn set_timer(&mut self, deadline: Option<Instant>, now: Instant) -> std::io::Result<()> {
        if self.timer_set == deadline {
            return Ok(());
        }
        // A zero timerfd value disarms, so "now" is the smallest positive one.
        let delay = deadline.map_or(Duration::ZERO, |at| {
            at.saturating_since(now).max(Duration::from_nanos(1))
        });
        let spec = Itimerspec {
            it_interval: Timespec {
                tv_sec: 0,
                tv_nsec: 0,
            },
            it_value: Timespec {
                tv_sec: i64::try_from(delay.as_secs()).unwrap_or(i64::MAX),
                tv_nsec: i64::from(delay.subsec_nanos()),
            },
        };
        rustix::time::timerfd_settime(self.timer.get_ref(), TimerfdTimerFlags::empty(), &spec)?;
        self.timer_set = deadline;
        Ok(())
    }

    /// Goes to sleep unless something turned up meanwhile. `true`: parked.
    fn park(
        &mut self,
        cx: &mut Context<'_>,
        now: Instant,
        next: Option<Instant>,
    ) -> std::io::Result<bool> {
        self.shared.state.store(PARKED, Ordering::Relaxed);
        // Pairs with the fence in `DriverShared::wake`.
        fence(Ordering::SeqCst);
        if self.shared.core.has_queued() || self.shared.core.arm()? == Armed::Pending {
            return Ok(false);
        }
        self.set_timer(next, now)?;
        if let Some(fd) = &self.wake_fd {
            // An edge that was cached before the NIC was armed tells nothing: clear and look again once.
            while let Poll::Ready(ready) = fd.poll_read_ready(cx) {
                ready?.clear_ready();
                if self.shared.core.arm()? == Armed::Pending {
                    return Ok(false);
                }
            }
        }
        while let Poll::Ready(ready) = self.timer.poll_read_ready(cx) {
            let mut expirations = [0_u8; 8];
            let fired = rustix::io::read(self.timer.get_ref(), &mut expirations).is_ok();
            ready?.clear_ready();
            if fired {
                self.timer_set = None;
                return Ok(false);
            }
        }
        self.shared.core.publish_deadline(next);
        self.shared.core.note_sleep();
        Ok(true)
    }

    fn drive(&mut self, cx: &mut Context<'_>) -> std::io::Result<()> {
        if std::mem::take(&mut self.yields) {
            cx.waker().wake_by_ref();
            return Ok(());
        }
        self.shared.waker.register(cx.waker());
        self.shared.state.store(RUNNING, Ordering::Relaxed);
        let started = self.shared.core.now();
        if let Some(parked_at) = self.parked_at.take() {
            self.adapt_spin(started.saturating_since(parked_at));
            self.shared.core.guard().watch();
        }
        loop {
            let now = self.shared.core.now();
            let turn = self.shared.core.turn(now)?;
            if turn.work > 0 {
                self.idle_since = None;
                // The task that accepts a connection spawns another, which runs after this one's next poll: it
                // answers first, so that its answer carries the ACK.
                self.yields = turn.accepted;
                if turn.accepted {
                    let_others_run(cx);
                } else {
                    cx.waker().wake_by_ref();
                }
                return Ok(());
            }
            let worked = self.idle_since.is_none();
            let idle_since = *self.idle_since.get_or_insert(now);
            if now.saturating_since(idle_since) >= self.spin {
                if self.park(cx, now, turn.next)? {
                    self.parked_at = Some(now);
                } else {
                    self.shared.state.store(RUNNING, Ordering::Relaxed);
                    // The guard may have seen it parked meanwhile.
                    self.shared.core.guard().watch();
                    cx.waker().wake_by_ref();
                }
                return Ok(());
            }
            if worked || now.saturating_since(started) >= SPIN_SLICE {
                let_others_run(cx);
                return Ok(());
            }
            for _ in 0..IDLE_PAUSES {
                std::hint::spin_loop();
            }
        }
    }
}

impl Future for Driver {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        match self.drive(cx) {
            Ok(()) => Poll::Pending,
            Err(error) => {
                self.shared.core.fail(&error);
                Poll::Ready(())
            }
        }
    }
}

impl Drop for Driver {
    fn drop(&mut self) {
        self.shared.state.store(GONE, Ordering::SeqCst);
        Core::driver_gone(&self.shared);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_future_of_block_on_comes_before_the_next_poll() {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .unwrap();
        let (event, waits) = tokio::sync::oneshot::channel();
        let polls = Arc::new(std::sync::atomic::AtomicU32::new(0));
        let counted = Arc::clone(&polls);
        let heard_at = runtime.block_on(async move {
            let mut event = Some(event);
            tokio::spawn(std::future::poll_fn(move |cx| {
                let poll = counted.fetch_add(1, Ordering::Relaxed) + 1;
                if poll == 200 {
                    event.take().unwrap().send(poll).unwrap();
                }
                let_others_run(cx);
                if poll < 1000 {
                    Poll::Pending
                } else {
                    Poll::Ready(())
                }
            }));
            let sent_at = waits.await.unwrap();
            polls.load(Ordering::Relaxed) - sent_at
        });
        assert!(heard_at <= 1, "after {heard_at} more polls");
    }
}
