//! What a stream received, shown by a kernel socket, for code that reads by descriptor.
//!
//! The socket is joined over the loopback interface to a second one of ours, into which a copy of the unread bytes
//! goes while the descriptor is lent. What was read from it is then consumed from the stream, which remains the one
//! owner of the bytes: what is shown and was not read is thrown away when the stream itself is used again.

use std::fmt;
use std::io;
use std::mem::MaybeUninit;
use std::net::{Ipv4Addr, Ipv6Addr, Shutdown, TcpListener};
use std::os::fd::AsFd;
use std::panic::{RefUnwindSafe, UnwindSafe};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::task::Wake;
use std::thread::yield_now;
use std::time::{Duration, Instant};

use socket2::{Domain, Socket};

use super::handle::Shared;
use super::readiness::{READABLE, Wakers};
use super::stream::Stream;
use crate::host::sockopt;

/// Most bytes shown at once.
const SHOWN_MAX: usize = 64 << 10;
/// How long to wait for the loopback interface, which delivers within the sending call unless the machine is busy.
const PATIENCE: Duration = Duration::from_millis(100);
/// The same where waiting is only for the reader's convenience.
const ARRIVAL: Duration = Duration::from_millis(2);

/// A kernel socket that shows what a stream received.
pub struct Mirror {
    near: Socket,
    stream: Weak<Shared>,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    /// Between [`Mirror::lend`] and [`Mirror::settle`].
    lent: bool,
    /// The end into which bytes go.
    far: Option<Socket>,
    /// No loopback connection can be made here.
    unavailable: bool,
    /// Bytes ever sent into `far`.
    sent: u64,
    /// Bytes that left `near`, read by the program or thrown away.
    taken: u64,
}

impl Stream {
    /// Makes `near`, an unconnected TCP socket in non-blocking mode, the mirror of this stream.
    pub fn mirror(&self, near: Socket) -> Arc<Mirror> {
        Arc::new(Mirror {
            near,
            stream: Arc::downgrade(self.shared()),
            state: Mutex::default(),
        })
    }
}

impl Mirror {
    /// The socket.
    pub fn socket(&self) -> &Socket {
        &self.near
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Shows the unread bytes, and those that arrive, until [`settle`](Self::settle). The socket is connected, for
    /// good, by the first byte there is to show; for `reading` at once, so that it says `WouldBlock` until then.
    pub fn lend(self: &Arc<Self>, reading: bool) {
        let Some(shared) = self.stream.upgrade() else {
            return;
        };
        let mut state = self.lock();
        state.lent = true;
        shared.observe(Arc::clone(self).into());
        self.show(&mut state, &shared, reading);
    }

    /// Takes what was read from the socket out of the stream, and shows nothing any more.
    pub fn settle(&self) {
        let Some(shared) = self.stream.upgrade() else {
            return;
        };
        let mut state = self.lock();
        if !std::mem::take(&mut state.lent) {
            return;
        }
        shared.stop_observing();
        self.account(&mut state, &shared);
        self.discard(&mut state);
    }

    /// Call after a read from the socket said `WouldBlock`: the stream stays readable when it holds more than the
    /// socket showed.
    pub fn read_all_shown(&self) {
        let Some(shared) = self.stream.upgrade() else {
            return;
        };
        let progressed = self.account(&mut self.lock(), &shared) > 0;
        if progressed && !shared.app.recv.is_empty() {
            shared.readiness.set(READABLE, &mut Wakers::new());
        }
    }

    fn show(&self, state: &mut State, shared: &Shared, reading: bool) {
        // The flag before the ring: bytes published before the end must not be passed over.
        let ended = shared.is_read_closed();
        if state.far.is_none() {
            let wanted = reading || ended || !shared.app.recv.is_empty();
            if state.unavailable || !wanted {
                return;
            }
            match join(&self.near) {
                Ok(far) => state.far = Some(far),
                Err(error) => {
                    tracing::debug!(%error, "reads by descriptor fail: no connection over the loopback interface");
                    state.unavailable = true;
                }
            }
        }
        self.account(state, shared);
        let Some(far) = &state.far else {
            return;
        };
        let shown = usize::try_from(state.sent - state.taken).unwrap_or(usize::MAX);
        let mut bytes = vec![0; shared.app.recv.len().min(SHOWN_MAX)];
        let unread = shared.app.recv.peek(&mut bytes);
        if let Some(news) = bytes[..unread].get(shown..).filter(|news| !news.is_empty()) {
            // What does not fit is shown when there is room.
            let sent = far.send(news).unwrap_or(0);
            state.sent += sent as u64;
            self.wait_for_arrival(state.sent);
        }
        let shown = state.sent - state.taken;
        if ended && shown == shared.app.recv.len() as u64 {
            // Fails when it was done before.
            let _ = far.shutdown(Shutdown::Write);
        }
    }

    /// Consumes what the program read from the socket; returns how many bytes.
    fn account(&self, state: &mut State, shared: &Shared) -> u64 {
        if state.far.is_none() {
            return 0;
        }
        // In this order, bytes that arrive in between are not taken for read.
        let received = self.received().min(state.sent);
        let Ok(unread) = sockopt::count(self.near.as_fd(), libc::FIONREAD) else {
            return 0;
        };
        let taken = received.saturating_sub(unread as u64).max(state.taken);
        let read = taken - state.taken;
        state.taken = taken;
        shared.note_freed(
            shared
                .app
                .recv
                .consume(usize::try_from(read).unwrap_or(usize::MAX)),
        );
        read
    }

    fn discard(&self, state: &mut State) {
        let until = Instant::now() + PATIENCE;
        let mut scratch = [MaybeUninit::<u8>::uninit(); 4096];
        while state.taken < state.sent {
            match self.near.recv(&mut scratch) {
                Ok(n) if n > 0 => state.taken += n as u64,
                Err(error)
                    if error.kind() == io::ErrorKind::WouldBlock && Instant::now() < until =>
                {
                    yield_now();
                }
                _ => {
                    tracing::warn!(
                        "reads by descriptor fail from now on: the loopback interface lost bytes"
                    );
                    state.far = None;
                    state.unavailable = true;
                    return;
                }
            }
        }
    }

    fn received(&self) -> u64 {
        sockopt::bytes_received(self.near.as_fd()).unwrap_or(0)
    }

    /// What is late is accounted for all the same.
    fn wait_for_arrival(&self, sent: u64) {
        let until = Instant::now() + ARRIVAL;
        while self.received() < sent && Instant::now() < until {
            yield_now();
        }
    }
}

// As the stream: accounts are whole at every step.
impl UnwindSafe for Mirror {}
impl RefUnwindSafe for Mirror {}

/// Bytes arrived while the descriptor is lent.
impl Wake for Mirror {
    fn wake(self: Arc<Self>) {
        let Some(shared) = self.stream.upgrade() else {
            return;
        };
        let mut state = self.lock();
        if state.lent {
            self.show(&mut state, &shared, false);
        }
    }
}

impl fmt::Debug for Mirror {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Mirror")
            .field("socket", &self.near)
            .finish_non_exhaustive()
    }
}

/// Connects `near` over the loopback interface to a socket of ours, for one direction: writes to `near` fail.
fn join(near: &Socket) -> io::Result<Socket> {
    let listener = if near.domain()? == Domain::IPV6 {
        TcpListener::bind((Ipv6Addr::LOCALHOST, 0))
    } else {
        TcpListener::bind((Ipv4Addr::LOCALHOST, 0))
    }?;
    listener.set_nonblocking(true)?;
    match near.connect(&listener.local_addr()?.into()) {
        Err(error) if error.raw_os_error() != Some(libc::EINPROGRESS) => return Err(error),
        _ => {}
    }
    let until = Instant::now() + PATIENCE;
    loop {
        match listener.accept() {
            Ok((far, from)) if near.local_addr()?.as_socket() == Some(from) => {
                let far = Socket::from(far);
                far.set_nonblocking(true)?;
                far.set_tcp_nodelay(true)?;
                // Its end leaves nothing behind.
                far.set_linger(Some(Duration::ZERO))?;
                near.shutdown(Shutdown::Write)?;
                return Ok(far);
            }
            Ok(_stranger) => {}
            Err(error) if error.kind() != io::ErrorKind::WouldBlock => return Err(error),
            Err(_) if Instant::now() >= until => return Err(io::ErrorKind::TimedOut.into()),
            Err(_) => yield_now(),
        }
    }
}
