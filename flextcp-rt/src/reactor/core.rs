//! A core: the host-side owner of one NIC queue. It holds the NIC, the engine and the streams' handles, and
//! [`Core::turn`] moves things between the three. Whoever turns it holds its lock: the drivers of the runtimes
//! that use it, or the guard thread when those cannot.

use std::collections::HashMap;
use std::fmt;
use std::io;
use std::net::{IpAddr, Ipv4Addr, SocketAddr, TcpStream};
use std::os::fd::OwnedFd;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use crossbeam_queue::SegQueue;
use flextcp_nic::flow::{FlowTuple, Token};
use flextcp_nic::nic::{
    Armed, Capabilities, Claim, Exception, Nic, NicCounters, Notification, Returned, Sink,
    StaleFlow,
};
use flextcp_nic::port::TxFrame;
use flextcp_nic::time::Instant;
use flextcp_nic::wire::{MAX_HEADER_LEN, MacAddr};

use super::clock::Clock;
use super::driver::DriverShared;
use super::guard::Guard;
use crate::host::ports::Reservation;
use crate::host::repair::{self, RepairState, RepairWindow};
use crate::metrics::{EngineCounters, ReactorCounters};
use crate::options::SocketOptions;
use crate::socket::{
    self, AcceptQueue, Addresses, Command, Core as _, RuntimeHandle, Stream, StreamHandle, Wakers,
};
use crate::tcp::{
    AppBuffers, CommandError, ConnError, ConnId, Engine, Event, Exported, Link, ListenerId, TcpInfo,
};

/// Frames taken in per turn before the woken tasks get to run.
const POLL_BUDGET: usize = 64;
/// Segments the engine may emit per turn.
const TRANSMIT_BUDGET: usize = 256;
/// Polls that a NIC may take to give a claimed connection back.
const CLAIM_POLLS: usize = 1000;
const NO_DEADLINE: u64 = u64::MAX;

/// What one turn did.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Turn {
    /// Frames, doorbells, commands and events handled; zero when idle.
    pub(crate) work: usize,
    /// When the core next has something to do by the clock.
    pub(crate) next: Option<Instant>,
}

/// What streams and listeners ask, in order.
#[derive(Debug)]
enum Request {
    /// The application wrote or read, or a connect has a SYN to send.
    Doorbell(Token),
    Command(Token, Command),
    /// The application took a connection off the accept queue.
    Accepted(ListenerId),
    /// The engine has something to say: nothing but a turn.
    Turn,
}

/// One core.
pub(crate) struct Core {
    name: String,
    clock: Clock,
    guard: Arc<Guard>,
    inner: Mutex<Inner>,
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
    drivers: Vec<(tokio::runtime::Id, Arc<DriverShared>)>,
}

/// A stream of this core and what must live as long as it.
struct StreamEntry {
    handle: StreamHandle,
    /// Its local address, whose frames stay ours as long as the connection lives: an accepted one survives its
    /// listener.
    owned: Option<SocketAddr>,
    /// Holds the local port of an outgoing connection in the kernel.
    reservation: Option<Reservation>,
}

/// An outgoing connection whose handshake is on the way.
struct Connecting {
    tuple: FlowTuple,
    app: AppBuffers,
    driver: Arc<DriverShared>,
    reservation: Reservation,
    options: SocketOptions,
    done: tokio::sync::oneshot::Sender<io::Result<Stream>>,
}

struct ListenerEntry {
    queue: Arc<AcceptQueue>,
    driver: Arc<DriverShared>,
    local: SocketAddr,
    options: SocketOptions,
}

/// Tokens are table indices with a generation: spreading them needs one multiplication, not SipHash.
#[derive(Clone, Copy, Debug, Default)]
struct TokenHash;

#[derive(Debug, Default)]
struct TokenHasher(u64);

impl std::hash::BuildHasher for TokenHash {
    type Hasher = TokenHasher;
    fn build_hasher(&self) -> TokenHasher {
        TokenHasher(0)
    }
}

impl std::hash::Hasher for TokenHasher {
    fn finish(&self) -> u64 {
        self.0
    }
    fn write(&mut self, bytes: &[u8]) {
        for byte in bytes {
            self.0 = (self.0 << 8) | u64::from(*byte);
        }
    }
    fn write_u64(&mut self, token: u64) {
        self.0 = token.wrapping_mul(0x9e37_79b9_7f4a_7c15);
    }
}

/// An outgoing connection as [`Core::connect`] wants it.
pub(crate) struct ConnectRequest {
    pub(crate) tuple: FlowTuple,
    pub(crate) link: Link,
    pub(crate) options: SocketOptions,
    pub(crate) reservation: Reservation,
    pub(crate) driver: Arc<DriverShared>,
}

/// The answer to a [`ConnectRequest`]; dropping it aborts the handshake.
pub(crate) struct ConnectFuture {
    done: tokio::sync::oneshot::Receiver<io::Result<Stream>>,
    abort: Option<(Arc<DriverShared>, Token)>,
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
                drivers: Vec::new(),
            }),
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

    /// What the drivers and the guard did.
    pub(crate) fn reactor_counters(&self) -> ReactorCounters {
        let busy_turns = self.busy_turns.load(Ordering::Relaxed);
        ReactorCounters {
            busy_turns,
            idle_turns: self.turns().saturating_sub(busy_turns),
            sleeps: self.sleeps.load(Ordering::Relaxed),
            guard_turns: self.guard_turns.load(Ordering::Relaxed),
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
        let inner = self.lock();
        let running = inner.drivers.iter().any(|(_, driver)| driver.is_running());
        let live = inner.drivers.iter().any(|(_, driver)| !driver.is_gone());
        (running, live)
    }

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
        self.turns.fetch_add(1, Ordering::Relaxed);
        if self.has_failed() {
            return Ok(Turn {
                work: 0,
                next: None,
            });
        }
        let mut work = self.take_requests(&mut inner, now);
        work += inner.run_engine(now);
        inner.nic.flush(now)?;
        work += inner.poll_nic(now)?;
        work += inner.deliver_events(wakers);
        if work > 0 {
            self.busy_turns.fetch_add(1, Ordering::Relaxed);
        }
        let next = match (inner.engine.poll_timeout(), inner.nic.poll_at()) {
            (Some(engine), Some(nic)) => Some(engine.min(nic)),
            (engine, nic) => engine.or(nic),
        };
        Ok(Turn { work, next })
    }

    fn take_requests(&self, inner: &mut Inner, now: Instant) -> usize {
        let mut taken = 0;
        while let Some(request) = self.requests.pop() {
            taken += 1;
            match request {
                Request::Doorbell(token) => inner.doorbell(now, token),
                Request::Command(token, command) => inner.command(now, token, command),
                Request::Accepted(listener) => inner.engine.accepted(listener),
                Request::Turn => {}
            }
        }
        taken
    }

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
            .lock()
            .drivers
            .iter()
            .find(|(of, driver)| *of == id && !driver.is_gone())
        {
            return Ok(driver.clone());
        }
        let shared = DriverShared::new(self.clone(), RuntimeHandle::of(&runtime));
        let task = super::driver::Driver::new(shared.clone(), spin_max)?;
        let mut inner = self.lock();
        if let Some((_, driver)) = inner
            .drivers
            .iter()
            .find(|(of, driver)| *of == id && !driver.is_gone())
        {
            let driver = driver.clone();
            drop(inner);
            return Ok(driver);
        }
        inner.drivers.retain(|(_, driver)| !driver.is_gone());
        inner.drivers.push((id, shared.clone()));
        drop(inner);
        runtime.spawn(tokio::task::unconstrained(task));
        Ok(shared)
    }

    /// The runtime of `driver` is shut down: another's driver, or the guard, turns the core from now on.
    pub(crate) fn driver_gone(driver: &Arc<DriverShared>) {
        let core = driver.core();
        let mut inner = core.lock();
        inner
            .drivers
            .retain(|(_, other)| !Arc::ptr_eq(other, driver));
        drop(inner);
        core.guard.watch();
    }

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

    /// Listens on this core; connections are pushed to `queue`.
    pub(crate) fn listen(
        &self,
        local: SocketAddr,
        backlog: u32,
        options: &SocketOptions,
        queue: &Arc<AcceptQueue>,
        driver: &Arc<DriverShared>,
    ) -> io::Result<ListenerId> {
        let mut inner = self.lock();
        let mtu = inner.nic.capabilities().port.mtu;
        let id = inner
            .engine
            .listen(local, backlog, mtu, options.clone())
            .map_err(listen_error)?;
        for address in addresses(local, options) {
            if let Err(error) = inner.nic.listen(address) {
                let now = self.now();
                inner.engine.close_listener(now, id);
                return Err(error);
            }
        }
        inner.listeners.insert(
            id,
            ListenerEntry {
                queue: queue.clone(),
                driver: driver.clone(),
                local,
                options: options.clone(),
            },
        );
        Ok(id)
    }

    /// Ends [`listen`](Self::listen): connections not yet accepted are reset, as Linux does.
    pub(crate) fn unlisten(&self, id: ListenerId) {
        let mut inner = self.lock();
        let now = self.now();
        // What was accepted just now is not to be reset.
        self.take_requests(&mut inner, now);
        inner.engine.close_listener(now, id);
        if let Some(entry) = inner.listeners.remove(&id) {
            for address in addresses(entry.local, &entry.options) {
                inner.disown(address);
            }
        }
        drop(inner);
        self.guard.watch();
    }

    /// Starts a handshake.
    ///
    /// # Errors
    /// Gives the reservation back: `AddrNotAvailable` may be over at another port.
    pub(crate) fn connect(
        self: &Arc<Self>,
        request: ConnectRequest,
    ) -> Result<ConnectFuture, (io::Error, Reservation)> {
        let ConnectRequest {
            tuple,
            link,
            options,
            reservation,
            driver,
        } = request;
        let now = self.now();
        let mut inner = self.lock();
        // A former connection with these ends may have left for the kernel.
        let steered = inner
            .nic
            .listen(tuple.local_addr())
            .and_then(|()| inner.nic.include(tuple));
        if let Err(error) = steered {
            return Err((error, reservation));
        }
        let (conn, app) = match inner.engine.connect(now, tuple, link, options.clone()) {
            Ok(started) => started,
            Err(error) => {
                inner.disown(tuple.local_addr());
                return Err((connect_error(error), reservation));
            }
        };
        let (done, waiting) = tokio::sync::oneshot::channel();
        let token = Token::from(conn);
        inner.connecting.insert(
            token,
            Connecting {
                tuple,
                app,
                driver: driver.clone(),
                reservation,
                options,
                done,
            },
        );
        drop(inner);
        self.requests.push(Request::Doorbell(token));
        driver.wake();
        Ok(ConnectFuture {
            done: waiting,
            abort: Some((driver, token)),
        })
    }
}

/// Changes around the host.
impl Core {
    /// [`Engine::relink`]; connections on the NIC come back and go there again.
    pub(crate) fn relink(&self, next_hop: impl Fn(IpAddr) -> Option<MacAddr>) {
        let now = self.now();
        let mut inner = self.lock();
        inner.engine.relink(now, next_hop);
        let driver = inner.drivers.first().map(|(_, driver)| driver.clone());
        drop(inner);
        self.requests.push(Request::Turn);
        match driver {
            Some(driver) => driver.wake(),
            None => self.guard.watch(),
        }
    }
}

/// Connections that leave for the kernel.
impl Core {
    /// Leaves frames of `tuple` to the kernel.
    pub(crate) fn exclude(&self, tuple: FlowTuple) -> io::Result<()> {
        self.lock().nic.exclude(tuple)
    }

    /// [`socket::Core::export`].
    fn export(
        &self,
        token: Token,
        addresses: Addresses,
        unread: &mut dyn FnMut() -> Vec<u8>,
    ) -> io::Result<TcpStream> {
        let now = self.now();
        let conn = ConnId::from(token);
        // No turn comes between, so nothing moves while the kernel's connection is built.
        let mut inner = self.lock();
        if inner.is_hairpin() {
            return Err(not_exported(
                "both its ends are in this process, and the kernel has never seen it",
            ));
        }
        self.take_requests(&mut inner, now);
        inner.claim(now, conn)?;
        let exported = inner
            .engine
            .export(now, conn)
            .ok_or_else(|| not_exported("it is not established any more"))?;
        let tuple = exported.tuple;
        let stream = repair::export(&repair_state(exported, addresses, unread()))?;
        // From here on the kernel answers. What is on its way to us already is dropped, and comes again.
        if let Err(error) = inner.nic.exclude(tuple) {
            repair::discard(&stream)?;
            return Err(error);
        }
        inner.engine.release(conn);
        if let Some(entry) = inner.streams.remove(&token)
            && let Some(local) = entry.owned
        {
            inner.disown(local);
        }
        Ok(stream)
    }

    /// Whether no kernel interface is below: its connections are within this process.
    pub(crate) fn is_hairpin(&self) -> bool {
        self.lock().is_hairpin()
    }
}

fn not_exported(reason: &str) -> io::Error {
    io::Error::new(
        io::ErrorKind::Unsupported,
        format!("the kernel cannot carry the connection on: {reason}"),
    )
}

fn repair_state(exported: Exported, addresses: Addresses, recv_queue: Vec<u8>) -> RepairState {
    RepairState {
        local: addresses.local,
        remote: addresses.peer,
        snd_una: exported.snd_una,
        rcv_nxt: exported.rcv_nxt,
        recv_queue,
        unacked: exported.unacked,
        unsent: exported.unsent,
        mss: exported.peer_mss,
        window_scales: exported.window_scales,
        sack_permitted: exported.sack,
        timestamp: exported.timestamp,
        window: RepairWindow {
            snd_wl1: exported.snd_wl1,
            snd_wnd: exported.snd_wnd,
            max_window: exported.max_window,
            rcv_wnd: exported.rcv_wnd,
            rcv_wup: exported.rcv_wup,
        },
    }
}

impl Inner {
    /// Timers, transmission and the moves between engine and NIC.
    fn run_engine(&mut self, now: Instant) -> usize {
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
        work += self.transmit(now);
        while let Some((conn, state, buffers)) = self.engine.poll_install(now) {
            work += 1;
            match self.nic.install(now, conn.into(), state, buffers) {
                Ok(flow) => {
                    self.engine.installed(now, conn, flow);
                    self.with_stream(conn, |handle| handle.on_moved(true));
                }
                Err(refused) => self.engine.install_refused(now, conn, refused),
            }
        }
        while let Some((flow, limits)) = self.engine.poll_limits() {
            // Stale: the limits travel back with the flow and the engine applies its own.
            let _ = self.nic.set_limits(flow, limits);
        }
        work
    }

    fn take_back(&mut self, now: Instant, returned: Returned) {
        self.with_stream(returned.token.into(), |handle| handle.on_moved(false));
        self.engine.handle_returned(now, returned);
    }

    fn transmit(&mut self, now: Instant) -> usize {
        let Self { nic, engine, .. } = self;
        let capabilities = nic.capabilities();
        let partial_checksum = capabilities.port.tx_checksum;
        let mut header = [0_u8; MAX_HEADER_LEN];
        let mut sent = 0;
        while sent < TRANSMIT_BUDGET {
            let Some(transmit) = engine.poll_transmit(now) else {
                break;
            };
            let len = transmit
                .segment
                .emit(transmit.payload, partial_checksum, &mut header);
            let frame = TxFrame {
                header: &header[..len],
                payload: transmit.payload,
                offload: flextcp_nic::port::TxOffload {
                    checksum: partial_checksum,
                    segment: None,
                },
            };
            if nic.transmit(now, frame).is_err() {
                // The ring is full: hand the batch over and retry once; a frame lost here is lost on a full
                // queue, and recovery treats it as such.
                if nic.flush(now).is_err() || nic.transmit(now, frame).is_err() {
                    break;
                }
            }
            sent += 1;
        }
        sent
    }

    fn doorbell(&mut self, now: Instant, token: Token) {
        if let Some(entry) = self.streams.get(&token) {
            entry.handle.take_doorbell();
        }
        if let Some(flow) = self.engine.doorbell(now, ConnId::from(token)) {
            // Stale: the flow comes back within this turn and the engine looks at the rings itself.
            let _ = self.nic.doorbell(now, flow);
        }
    }

    fn deliver_events(&mut self, wakers: &mut Wakers) -> usize {
        let mut delivered = 0;
        while let Some(event) = self.engine.poll_event() {
            delivered += 1;
            match event {
                Event::Readable(conn) => {
                    self.with_stream(conn, |handle| handle.on_readable(wakers))
                }
                Event::Writable(conn) => {
                    self.with_stream(conn, |handle| handle.on_writable(wakers))
                }
                Event::PeerClosed(conn) => {
                    self.with_stream(conn, |handle| handle.on_peer_closed(wakers));
                }
                Event::Connected(conn) => self.connected(conn, wakers),
                Event::Accepted {
                    listener,
                    conn,
                    tuple,
                    app,
                } => {
                    self.accepted(listener, conn, tuple, app, wakers);
                }
                Event::Failed { conn, error } => self.failed(conn, error, wakers),
                Event::Closed(conn) => self.closed(conn, wakers),
            }
        }
        delivered
    }

    fn with_stream(&self, conn: ConnId, notify: impl FnOnce(&StreamHandle)) {
        if let Some(entry) = self.streams.get(&conn.into()) {
            notify(&entry.handle);
        }
    }

    fn connected(&mut self, conn: ConnId, wakers: &mut Wakers) {
        let token = Token::from(conn);
        let Some(connecting) = self.connecting.remove(&token) else {
            return;
        };
        let Connecting {
            tuple,
            app,
            driver,
            reservation,
            options,
            done,
        } = connecting;
        let addresses = Addresses {
            local: tuple.local_addr(),
            peer: tuple.remote_addr(),
        };
        let runtime = driver.runtime().clone();
        let (stream, handle) = socket::pair(driver, token, app, addresses, options, Some(&runtime));
        handle.on_connected(wakers);
        self.streams.insert(
            token,
            StreamEntry {
                handle,
                owned: Some(tuple.local_addr()),
                reservation: Some(reservation),
            },
        );
        // When the caller gave up, the stream comes back here and its drop closes the connection.
        drop(done.send(Ok(stream)));
    }

    fn accepted(
        &mut self,
        listener: ListenerId,
        conn: ConnId,
        tuple: FlowTuple,
        app: AppBuffers,
        wakers: &mut Wakers,
    ) {
        let Some(entry) = self.listeners.get(&listener) else {
            return;
        };
        let token = Token::from(conn);
        let (local, peer) = (tuple.local_addr(), tuple.remote_addr());
        // An IPv6 socket names an IPv4 peer by its mapped address, as the kernel's does.
        let addresses = if entry.local.is_ipv6() {
            Addresses {
                local: mapped(local),
                peer: mapped(peer),
            }
        } else {
            Addresses { local, peer }
        };
        let core = entry.driver.clone();
        let (stream, handle) =
            socket::pair(core, token, app, addresses, entry.options.clone(), None);
        let owned = match self.nic.listen(local) {
            Ok(()) => Some(local),
            Err(error) => {
                tracing::warn!(%local, %error, "this connection will not outlive its listener");
                None
            }
        };
        self.streams.insert(
            token,
            StreamEntry {
                handle,
                owned,
                reservation: None,
            },
        );
        entry.queue.push(stream, listener, wakers);
    }

    fn failed(&mut self, conn: ConnId, error: ConnError, wakers: &mut Wakers) {
        if let Some(connecting) = self.connecting.remove(&conn.into()) {
            self.disown(connecting.tuple.local_addr());
            // Nobody wants the error of a connect that was given up.
            drop(connecting.done.send(Err(error.into())));
            return;
        }
        let errno = error.raw_os_error();
        let kind = io::Error::from(error).kind();
        self.with_stream(conn, |handle| handle.on_failed(kind, Some(errno), wakers));
    }

    fn closed(&mut self, conn: ConnId, wakers: &mut Wakers) {
        let token = Token::from(conn);
        if let Some(connecting) = self.connecting.remove(&token) {
            self.disown(connecting.tuple.local_addr());
        }
        if let Some(entry) = self.streams.remove(&token) {
            entry.handle.on_closed(wakers);
            if let Some(local) = entry.owned {
                self.disown(local);
            }
            drop(entry.reservation);
        }
    }

    fn disown(&mut self, local: SocketAddr) {
        if let Err(error) = self.nic.unlisten(local) {
            tracing::warn!(%local, %error, "could not give the address back to the kernel");
        }
    }

    fn is_hairpin(&self) -> bool {
        self.nic.capabilities().port.ifindex == 0
    }

    /// Has the engine own the connection.
    fn claim(&mut self, now: Instant, conn: ConnId) -> io::Result<()> {
        let Some(flow) = self.engine.flow(conn) else {
            return Ok(());
        };
        match self.nic.claim(now, flow) {
            Ok(Claim::Done(returned)) => self.take_back(now, returned),
            Ok(Claim::Pending) | Err(StaleFlow) => {}
        }
        for _ in 0..CLAIM_POLLS {
            if self.engine.flow(conn).is_none() {
                return Ok(());
            }
            self.poll_nic(now)?;
        }
        Err(io::Error::new(
            io::ErrorKind::ResourceBusy,
            "the NIC does not give the connection back",
        ))
    }

    fn poll_nic(&mut self, now: Instant) -> io::Result<usize> {
        let Self {
            nic,
            engine,
            streams,
            ..
        } = self;
        let mut sink = CoreSink {
            engine,
            streams,
            now,
        };
        nic.poll(now, POLL_BUDGET, &mut sink)
    }

    fn command(&mut self, now: Instant, token: Token, command: Command) {
        let conn = ConnId::from(token);
        match command {
            Command::ShutdownWrite => self.engine.shutdown_write(now, conn),
            Command::Close => self.engine.close(now, conn),
            Command::Abort => {
                if let Some(connecting) = self.connecting.remove(&token) {
                    self.disown(connecting.tuple.local_addr());
                }
                self.engine.abort(now, conn);
            }
            Command::SetOption(option) => self.engine.set_option(now, conn, option),
        }
    }
}

/// The addresses a listener takes: `[::]` takes IPv4 too, unless it is IPv6 only.
fn addresses(
    local: SocketAddr,
    options: &SocketOptions,
) -> impl Iterator<Item = SocketAddr> + use<> {
    let dual = local.is_ipv6() && local.ip().is_unspecified() && !options.v6only;
    let v4 = dual.then(|| SocketAddr::new(Ipv4Addr::UNSPECIFIED.into(), local.port()));
    std::iter::once(local).chain(v4)
}

/// An IPv4 address as an IPv6 socket shows it.
fn mapped(address: SocketAddr) -> SocketAddr {
    match address.ip() {
        IpAddr::V4(ip) => SocketAddr::new(ip.to_ipv6_mapped().into(), address.port()),
        IpAddr::V6(_) => address,
    }
}

/// `bind(2)`'s errno.
fn listen_error(error: CommandError) -> io::Error {
    match error {
        CommandError::NoBuffers => io::Error::from_raw_os_error(libc::ENOBUFS),
        _ => io::Error::from_raw_os_error(libc::EADDRINUSE),
    }
}

/// `connect(2)`'s errno.
fn connect_error(error: CommandError) -> io::Error {
    match error {
        CommandError::NoBuffers => io::Error::from_raw_os_error(libc::ENOBUFS),
        _ => io::Error::from_raw_os_error(libc::EADDRNOTAVAIL),
    }
}

/// Where the NIC delivers during a turn.
struct CoreSink<'a> {
    engine: &'a mut Engine,
    streams: &'a Streams,
    now: Instant,
}

impl CoreSink<'_> {
    fn note_returned(&self, returned: &Returned) {
        if let Some(entry) = self.streams.get(&returned.token) {
            entry.handle.on_moved(false);
        }
    }
}

impl Sink for CoreSink<'_> {
    fn notification(&mut self, notification: Notification) {
        self.engine.handle_notification(self.now, notification);
    }

    fn exception(&mut self, exception: Exception<'_>) {
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

/// What a stream calls: it lands in the core's queue and wakes the driver of the stream's runtime.
impl socket::Core for DriverShared {
    fn doorbell(&self, conn: Token) {
        self.core().requests.push(Request::Doorbell(conn));
        self.wake();
    }

    fn command(&self, conn: Token, command: Command) {
        self.core().requests.push(Request::Command(conn, command));
        self.wake();
    }

    fn accepted(&self, listener: ListenerId) {
        self.core().requests.push(Request::Accepted(listener));
        self.wake();
    }

    fn export(
        &self,
        conn: Token,
        addresses: Addresses,
        unread: &mut dyn FnMut() -> Vec<u8>,
    ) -> io::Result<TcpStream> {
        self.core().export(conn, addresses, unread)
    }

    fn info(&self, conn: Token) -> Option<TcpInfo> {
        let now = self.core().now();
        self.core().lock().engine.info(now, ConnId::from(conn))
    }
}

impl Future for ConnectFuture {
    type Output = io::Result<Stream>;

    fn poll(
        mut self: std::pin::Pin<&mut Self>,
        cx: &mut std::task::Context<'_>,
    ) -> std::task::Poll<Self::Output> {
        std::pin::Pin::new(&mut self.done).poll(cx).map(|answer| {
            self.abort = None;
            answer.unwrap_or_else(|_| Err(socket::runtime_shutdown_error()))
        })
    }
}

impl Drop for ConnectFuture {
    fn drop(&mut self) {
        if let Some((driver, token)) = self.abort.take() {
            driver.command(token, Command::Abort);
        }
    }
}

impl fmt::Debug for Core {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Core")
            .field("name", &self.name)
            .finish_non_exhaustive()
    }
}
