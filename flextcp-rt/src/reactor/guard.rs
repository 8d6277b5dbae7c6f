//! The guard thread: it turns a core whose runtimes are gone or blocked, so that ACKs, retransmissions and
//! orphaned data go on.
//!
//! It watches, every few milliseconds, while a core is busy; otherwise it sleeps on the NICs' descriptors and
//! the earliest deadline. A core that nobody turned although it had to be is turned here.

use std::io;
use std::os::fd::{AsRawFd, OwnedFd};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering, fence};
use std::sync::{Arc, Mutex, OnceLock, PoisonError, Weak};
use std::time::Duration;

use mio::unix::SourceFd;
use mio::{Events, Interest, Poll, Token, Waker};

use super::clock::Clock;
use super::core::Core;
use flextcp_nic::nic::Armed;
use flextcp_nic::time::Instant;

/// How long a busy core may go without a turn before the guard steps in.
const GRACE: Duration = Duration::from_millis(5);
const WAKER: Token = Token(usize::MAX);
/// Turns in a row for one core before the others get a look.
const TURN_BOUND: usize = 64;

/// The handle that everyone else holds.
#[derive(Debug)]
pub(crate) struct Guard {
    clock: Clock,
    waker: OnceLock<Waker>,
    cores: Mutex<Vec<Weak<Core>>>,
    cores_changed: AtomicBool,
    sleeping: AtomicBool,
    sleeping_until: AtomicU64,
}

impl Guard {
    /// A guard with no thread yet: it starts with the first core.
    pub(crate) fn new(clock: Clock) -> Arc<Self> {
        Arc::new(Self {
            clock,
            waker: OnceLock::new(),
            cores: Mutex::new(Vec::new()),
            cores_changed: AtomicBool::new(false),
            sleeping: AtomicBool::new(false),
            sleeping_until: AtomicU64::new(0),
        })
    }

    /// Puts a core under guard.
    pub(crate) fn add(self: &Arc<Self>, core: &Arc<Core>) -> io::Result<()> {
        self.cores
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .push(Arc::downgrade(core));
        self.cores_changed.store(true, Ordering::SeqCst);
        if self.waker.get().is_none() {
            let poll = Poll::new()?;
            let waker = Waker::new(poll.registry(), WAKER)?;
            if self.waker.set(waker).is_ok() {
                let guard = self.clone();
                std::thread::Builder::new()
                    .name("flextcp-guard".into())
                    .spawn(move || guard.run(poll))?;
            }
        }
        self.kick();
        Ok(())
    }

    /// Something was queued for a core, or a core woke up: see to it that it is turned.
    pub(crate) fn watch(&self) {
        fence(Ordering::SeqCst);
        if self.sleeping.load(Ordering::Relaxed) {
            self.kick();
        }
    }

    /// A parked core is due earlier than before.
    pub(crate) fn deadline_moved(&self, nanos: u64) {
        let grace = u64::try_from(GRACE.as_nanos()).unwrap_or(u64::MAX);
        if nanos.saturating_add(grace) < self.sleeping_until.load(Ordering::Relaxed) {
            self.watch();
        }
    }

    fn kick(&self) {
        if let Some(waker) = self.waker.get()
            && let Err(error) = waker.wake()
        {
            tracing::warn!(%error, "the guard thread could not be woken");
        }
    }

    fn run(self: Arc<Self>, mut poll: Poll) {
        let mut guarded: Vec<Guarded> = Vec::new();
        let mut events = Events::with_capacity(64);
        loop {
            if self.cores_changed.swap(false, Ordering::SeqCst) {
                self.register(&poll, &mut guarded);
            }
            let mut busy = false;
            let mut earliest: Option<Instant> = None;
            for entry in &mut guarded {
                let Some(core) = entry.core.upgrade() else {
                    continue;
                };
                let state = entry.inspect(&core, self.clock.now());
                busy |= state.busy;
                if let Some(due) = state.next {
                    earliest = Some(earliest.map_or(due, |at| at.min(due)));
                }
            }
            // `None`: watch. Else sleep, for as long as the earliest deadline allows.
            let timeout = if busy {
                None
            } else {
                let until = earliest.map(|due| due + GRACE);
                self.sleeping_until
                    .store(until.map_or(u64::MAX, Instant::as_nanos), Ordering::Relaxed);
                self.sleeping.store(true, Ordering::Relaxed);
                // Pairs with the fence in `watch`: whoever queued before it sees `sleeping`, or is seen here.
                fence(Ordering::SeqCst);
                if guarded.iter().any(Guarded::is_busy)
                    || self.cores_changed.load(Ordering::Relaxed)
                {
                    self.sleeping.store(false, Ordering::Relaxed);
                    None
                } else {
                    Some(until.map(|at| at.saturating_since(self.clock.now())))
                }
            };
            let Some(timeout) = timeout else {
                // Not on the descriptors: while a core is busy each of its frames would wake this thread too.
                std::thread::sleep(GRACE);
                continue;
            };
            if let Err(error) = poll.poll(&mut events, timeout)
                && error.kind() != io::ErrorKind::Interrupted
            {
                tracing::error!(%error, "the guard thread stops: connections of blocked runtimes will stall");
                return;
            }
            self.sleeping.store(false, Ordering::Relaxed);
            for event in &events {
                if let Some(entry) = guarded
                    .iter_mut()
                    .find(|entry| entry.token == event.token())
                {
                    entry.signalled = true;
                }
            }
        }
    }

    fn register(&self, poll: &Poll, guarded: &mut Vec<Guarded>) {
        let cores = self.cores.lock().unwrap_or_else(PoisonError::into_inner);
        for (index, core) in cores.iter().enumerate().skip(guarded.len()) {
            let token = Token(index);
            let fd = core.upgrade().and_then(|core| match core.wake_fd() {
                Ok(fd) => fd,
                Err(error) => {
                    tracing::warn!(core = core.name(), %error, "the guard thread cannot wait on the NIC's descriptor");
                    None
                }
            });
            if let Some(fd) = &fd
                && let Err(error) = poll.registry().register(
                    &mut SourceFd(&fd.as_raw_fd()),
                    token,
                    Interest::READABLE,
                )
            {
                tracing::warn!(%error, "the guard thread cannot wait on the NIC's descriptor");
            }
            guarded.push(Guarded {
                core: core.clone(),
                token,
                fd,
                waiting: None,
                signalled: false,
            });
        }
    }
}

/// What the thread knows of one core.
struct Guarded {
    core: Weak<Core>,
    token: Token,
    #[expect(dead_code, reason = "keeps the descriptor that the poll waits on open")]
    fd: Option<OwnedFd>,
    /// Since when, and at which turn, it has wanted a turn.
    waiting: Option<(Instant, u64)>,
    signalled: bool,
}

struct State {
    busy: bool,
    next: Option<Instant>,
}

impl Guarded {
    fn is_busy(&self) -> bool {
        self.core
            .upgrade()
            .is_some_and(|core| core.has_queued() || core.driver_state().0)
    }

    /// Looks whether the core is driven, and drives it when it is not.
    fn inspect(&mut self, core: &Arc<Core>, now: Instant) -> State {
        if core.has_failed() {
            return State {
                busy: false,
                next: None,
            };
        }
        let (running, live) = core.driver_state();
        let overdue = core.deadline().is_some_and(|due| due + GRACE <= now);
        let signalled = std::mem::take(&mut self.signalled);
        let wanted = signalled || running || overdue || core.has_queued();
        if !live {
            return self.drive(core, live);
        }
        let turns = core.turns();
        match self.waiting {
            // Nobody turned it since it was first seen to want a turn.
            Some((since, seen)) if seen == turns => {
                if now.saturating_since(since) >= GRACE {
                    return self.drive(core, live);
                }
            }
            _ => self.waiting = wanted.then_some((now, turns)),
        }
        State {
            busy: self.waiting.is_some(),
            next: core.deadline(),
        }
    }

    fn drive(&mut self, core: &Arc<Core>, live: bool) -> State {
        self.waiting = None;
        let mut idle = false;
        let mut next = None;
        for _ in 0..TURN_BOUND {
            match core.turn(core.now()) {
                Ok(turn) => {
                    next = turn.next;
                    idle = turn.work == 0;
                    if !idle {
                        core.note_guard_turn();
                    }
                }
                Err(error) => {
                    core.fail(&error);
                    return State {
                        busy: false,
                        next: None,
                    };
                }
            }
            if idle {
                break;
            }
        }
        let armed = matches!(core.arm(), Ok(Armed::Armed));
        if !live {
            // Nobody else publishes it. The guard adds its grace to deadlines, which delays an orphan's timers by
            // as much: harmless.
            core.publish_deadline(next);
        }
        // A live but blocked runtime stays under watch until its driver comes back.
        State {
            busy: !idle || !armed || live,
            next: core.deadline(),
        }
    }
}
