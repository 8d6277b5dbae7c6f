//! A core: the host-side owner of one NIC queue. It holds the NIC, the engine and the streams' handles, and
//! [`Core::turn`] moves things between the three. Whoever turns it holds its lock: the drivers of the runtimes
//! that use it, or the guard thread when those cannot.
//!
//! | file | concern |
//! |---|---|
//! | `turn` | one turn, and the moves between engine and NIC |
//! | `request` | what streams and listeners ask |
//! | `event` | what the engine tells them |
//! | `listen`, `connect` | listeners and outgoing connections |
//! | `export`, `import` | connections that leave for the kernel, and that come from it |
//! | `trace` | what a connection lives through, for `tracing` |
//! | `lab` | what only a lab asks |

mod connect;
mod event;
mod export;
mod frames;
mod hash;
mod import;
#[cfg(feature = "lab")]
mod lab;
mod listen;
mod request;
mod time_wait;
mod trace;
mod turn;

use std::collections::HashMap;
use std::fmt;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::os::fd::OwnedFd;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};

use crossbeam_queue::SegQueue;
use flextcp_nic::flow::{FlowTuple, Token};
use flextcp_nic::nic::{Armed, Capabilities, Nic, NicCounters};
use flextcp_nic::time::Instant;
use flextcp_nic::wire::MacAddr;

#[cfg(feature = "lab")]
pub(crate) use connect::ConnectFuture;
pub(crate) use connect::{ConnectRequest, PortHold};
pub(crate) use import::ImportRequest;

use connect::Connecting;
use hash::TokenHash;
use listen::ListenerEntry;
use request::Request;
use time_wait::TimeWaits;

use super::clock::Clock;
use super::driver::DriverShared;
use super::guard::Guard;
use super::siblings::Siblings;
use crate::metrics::{ConnectionReport, EngineCounters, ReactorCounters};
use crate::socket::{RuntimeHandle, StreamHandle, Wakers};
use crate::tcp::{ConnId, Engine, ListenerId};

const NO_DEADLINE: u64 = u64::MAX;

/// One core.
pub(crate) struct Core {
    name: String,
    clock: Clock,
    guard: Arc<Guard>,
    inner: Mutex<Inner>,
    /// The runtimes that use it; never held while `inner` is waited for, so that any core may wake any other.
    drivers: Mutex<Vec<(tokio::runtime::Id, Arc<DriverShared>)>>,
    siblings: OnceLock<Siblings>,
    requests: SegQueue<Request>,
    turns: AtomicU64,
    busy_turns: AtomicU64,
    sleeps: AtomicU64,
    guard_turns: AtomicU64,
    deadline: AtomicU64,
    failed: AtomicBool,
}

type Streams = HashMap<Token, StreamEntry, TokenHash>;

/// Everything a turn touches.
struct Inner {
    nic: Box<dyn Nic>,
    engine: Engine,
    streams: Streams,
    connecting: HashMap<Token, Connecting, TokenHash>,
    listeners: HashMap<ListenerId, ListenerEntry>,
    time_waits: TimeWaits,
}

/// A stream of this core and what must live as long as it.
struct StreamEntry {
    handle: StreamHandle,
    /// Whose frames stay ours as long as the connection lives: an accepted one survives its listener.
    owned: Option<Owned>,
    /// Holds the local port of an outgoing connection.
    reservation: Option<PortHold>,
    /// Holds the local port of an accepted one whose listener is gone.
    inherited: Option<PortHold>,
    span: tracing::Span,
}

/// What a connection has the NIC own.
#[derive(Clone, Copy, Debug)]
enum Owned {
    /// Its local address and port: an outgoing one's port is nobody else's.
    Port(SocketAddr),
    /// Itself alone: somebody else may listen at its port by and by.
    Flow(FlowTuple),
}

impl Owned {
    fn local(&self) -> SocketAddr {
        match self {
            Self::Port(local) => *local,
            Self::Flow(tuple) => tuple.local_addr(),
        }
    }
}

impl Core {
    pub(crate) fn new(
        name: String,
        clock: Clock,
        guard: Arc<Guard>,
        nic: Box<dyn Nic>,
        engine: Engine,
    ) -> Arc<Self> {
        Arc::new(Self {
            name,
            clock,
            guard,
            inner: Mutex::new(Inner {
                nic,
                engine,
                streams: Streams::default(),
                connecting: HashMap::default(),
                listeners: HashMap::new(),
                time_waits: TimeWaits::new(),
            }),
            drivers: Mutex::default(),
            siblings: OnceLock::new(),
            requests: SegQueue::new(),
            turns: AtomicU64::new(0),
            busy_turns: AtomicU64::new(0),
            sleeps: AtomicU64::new(0),
            guard_turns: AtomicU64::new(0),
            deadline: AtomicU64::new(NO_DEADLINE),
            failed: AtomicBool::new(false),
        })
    }

    /// For logs.
    pub(crate) fn name(&self) -> &str {
        &self.name
    }

    /// The host's clock.
    pub(crate) fn now(&self) -> Instant {
        self.clock.now()
    }

    /// The thread that stands in for runtimes that cannot drive.
    pub(crate) fn guard(&self) -> &Guard {
        &self.guard
    }

    /// Whether the device is gone.
    pub(crate) fn has_failed(&self) -> bool {
        self.failed.load(Ordering::Acquire)
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        // A panic inside a turn is a bug, but one connection's bug must not take all others down with it.
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What the NIC is.
    pub(crate) fn capabilities(&self) -> Capabilities {
        self.lock().nic.capabilities().clone()
    }

    /// NIC and engine counters, and the number of connections on the NIC and with the engine.
    pub(crate) fn counters(&self) -> (NicCounters, EngineCounters) {
        let inner = self.lock();
        (inner.nic.counters(), inner.engine.counters())
    }

    /// Every connection of this core. Nothing else is done on it meanwhile: about a millisecond for 10,000.
    pub(crate) fn connections(&self) -> Vec<ConnectionReport> {
        let inner = self.lock();
        let infos = inner.engine.infos();
        infos
            .map(|(tuple, info)| {
                ConnectionReport::new(tuple.local_addr(), tuple.remote_addr(), &self.name, &info)
            })
            .collect()
    }

    /// What the drivers and the guard did.
    pub(crate) fn reactor_counters(&self) -> ReactorCounters {
        let busy_turns = self.busy_turns.load(Ordering::Relaxed);
        ReactorCounters {
            busy_turns,
            idle_turns: self.turns().saturating_sub(busy_turns),
            sleeps: self.sleeps.load(Ordering::Relaxed),
            guard_turns: self.guard_turns.load(Ordering::Relaxed),
            handed_over: self.siblings.get().map_or(0, Siblings::handed_over),
        }
    }

    /// Counts a driver's sleep.
    pub(crate) fn note_sleep(&self) {
        self.sleeps.fetch_add(1, Ordering::Relaxed);
    }

    /// Counts a turn of the guard that found work.
    pub(crate) fn note_guard_turn(&self) {
        self.guard_turns.fetch_add(1, Ordering::Relaxed);
    }

    /// A descriptor to wait on, for whoever sleeps.
    pub(crate) fn wake_fd(&self) -> io::Result<Option<OwnedFd>> {
        self.lock()
            .nic
            .wake_fd()
            .map(|fd| fd.try_clone_to_owned())
            .transpose()
    }

    /// Whether a queue from the streams has an entry.
    pub(crate) fn has_queued(&self) -> bool {
        !self.requests.is_empty()
    }

    /// Arms the NIC's wake-up.
    pub(crate) fn arm(&self) -> io::Result<Armed> {
        self.lock().nic.arm()
    }

    /// Number of turns so far: whether somebody drives.
    pub(crate) fn turns(&self) -> u64 {
        self.turns.load(Ordering::Relaxed)
    }

    /// Tells the guard when a parked core is next due.
    pub(crate) fn publish_deadline(&self, next: Option<Instant>) {
        let nanos = next.map_or(NO_DEADLINE, Instant::as_nanos);
        let before = self.deadline.swap(nanos, Ordering::Relaxed);
        if nanos < before {
            self.guard.deadline_moved(nanos);
        }
    }

    /// The deadline last published.
    pub(crate) fn deadline(&self) -> Option<Instant> {
        let nanos = self.deadline.load(Ordering::Relaxed);
        (nanos != NO_DEADLINE).then(|| Instant::from_nanos(nanos))
    }

    /// Whether a live driver is awake, and whether there is one at all.
    pub(crate) fn driver_state(&self) -> (bool, bool) {
        let drivers = self.drivers();
        let running = drivers.iter().any(|(_, driver)| driver.is_running());
        let live = drivers.iter().any(|(_, driver)| !driver.is_gone());
        (running, live)
    }

    fn drivers(&self) -> MutexGuard<'_, Vec<(tokio::runtime::Id, Arc<DriverShared>)>> {
        self.drivers.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Has somebody turn it soon. Takes no lock that a turn holds.
    pub(crate) fn poke(&self) {
        self.requests.push(Request::Turn);
        match self.live_driver() {
            Some(driver) => driver.wake(),
            None => self.guard.watch(),
        }
    }

    /// The driver of a runtime that is not gone.
    pub(crate) fn live_driver(&self) -> Option<Arc<DriverShared>> {
        let drivers = self.drivers();
        let mut drivers = drivers.iter().map(|(_, driver)| driver);
        drivers.find(|driver| !driver.is_gone()).cloned()
    }

    /// Makes it one of several cores of an interface, before it serves.
    pub(crate) fn join(&self, siblings: Siblings) {
        let (directory, queue) = siblings.directory();
        self.lock().engine.join(directory, queue);
        let first = self.siblings.set(siblings).is_ok();
        debug_assert!(first, "a core joins once");
    }
}

/// The runtimes that drive it.
impl Core {
    /// The driver of the current runtime, started on first use.
    ///
    /// # Panics
    /// Outside of a runtime, or one without IO, as tokio's sockets do.
    pub(crate) fn driver(
        self: &Arc<Self>,
        spin_max: std::time::Duration,
    ) -> io::Result<Arc<DriverShared>> {
        let runtime = tokio::runtime::Handle::current();
        let id = runtime.id();
        if let Some((_, driver)) = self
            .drivers()
            .iter()
            .find(|(of, driver)| *of == id && !driver.is_gone())
        {
            return Ok(driver.clone());
        }
        let shared = DriverShared::new(self.clone(), RuntimeHandle::of(&runtime));
        let task = super::driver::Driver::new(shared.clone(), spin_max)?;
        let mut drivers = self.drivers();
        if let Some((_, driver)) = drivers
            .iter()
            .find(|(of, driver)| *of == id && !driver.is_gone())
        {
            let driver = driver.clone();
            // Before the task, whose end takes this lock.
            drop(drivers);
            return Ok(driver);
        }
        drivers.retain(|(_, driver)| !driver.is_gone());
        drivers.push((id, shared.clone()));
        drop(drivers);
        runtime.spawn(tokio::task::unconstrained(task));
        // It counts as running from the start, and may be blocked before it ever parks.
        self.guard.watch();
        Ok(shared)
    }

    /// The runtime of `driver` is shut down: another's driver, or the guard, turns the core from now on.
    pub(crate) fn driver_gone(driver: &Arc<DriverShared>) {
        let core = driver.core();
        core.drivers()
            .retain(|(_, other)| !Arc::ptr_eq(other, driver));
        core.guard.watch();
    }
}

/// Its end, and changes around the host.
impl Core {
    /// The device is gone: every stream fails, and nothing new is taken.
    pub(crate) fn fail(&self, error: &io::Error) {
        if self.failed.swap(true, Ordering::AcqRel) {
            return;
        }
        tracing::error!(core = %self.name, %error, "the NIC queue is gone; its connections are lost and new ones use kernel sockets");
        let mut wakers = Wakers::new();
        let mut inner = self.lock();
        for entry in inner.streams.values() {
            entry.handle.on_failed(
                io::ErrorKind::NetworkDown,
                Some(libc::ENETDOWN),
                &mut wakers,
            );
        }
        for (_, connecting) in inner.connecting.drain() {
            drop(
                connecting
                    .done
                    .send(Err(io::Error::from_raw_os_error(libc::ENETDOWN))),
            );
        }
    }

    /// Closes every connection, as the end of a process does.
    pub(crate) fn close_all(&self) {
        let now = self.now();
        let mut inner = self.lock();
        let conns: Vec<Token> = inner.streams.keys().copied().collect();
        for token in conns {
            inner.engine.close(now, ConnId::from(token));
        }
    }

    /// Whether bytes or a FIN are still on their way to a peer.
    pub(crate) fn has_unfinished(&self) -> bool {
        self.lock().engine.has_unfinished()
    }

    /// [`Engine::relink`]; connections on the NIC come back and go there again.
    pub(crate) fn relink(&self, next_hop: impl Fn(IpAddr) -> Option<MacAddr>) {
        let now = self.now();
        self.lock().engine.relink(now, next_hop);
        self.poke();
    }

    /// Whether no kernel interface is below: its connections are within this process.
    pub(crate) fn is_hairpin(&self) -> bool {
        self.lock().is_hairpin()
    }
}

impl Inner {
    fn disown(&mut self, local: SocketAddr) {
        self.give_up(Owned::Port(local));
    }

    fn give_up(&mut self, owned: Owned) {
        let given_up = match owned {
            Owned::Port(local) => self.nic.disown(local),
            Owned::Flow(tuple) => self.nic.disown_flow(tuple),
        };
        if let Err(error) = given_up {
            let local = owned.local();
            tracing::warn!(%local, %error, "could not give the address back to the kernel");
        }
    }

    fn is_hairpin(&self) -> bool {
        self.nic.capabilities().port.ifindex == 0
    }
}

impl fmt::Debug for Core {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Core")
            .field("name", &self.name)
            .finish_non_exhaustive()
    }
}
