//! The application's side of a socket.

mod read;
mod write;

use std::fmt;
use std::future::poll_fn;
use std::io;
use std::net::SocketAddr;
use std::panic::{RefUnwindSafe, UnwindSafe};
use std::sync::{Arc, OnceLock};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use tokio::io::{Interest, Ready};
use tokio::task::coop::poll_proceed;

use super::handle::Shared;
use super::readiness::{Direction, ReadyEvent, mask};
use super::runtime::{Dependent, Registration, RuntimeHandle, gone};
use super::{Command, Core, Token};
use crate::options::{KeepAlive, SocketOption, SocketOptions};
use crate::tcp::TcpInfo;

pub use read::RecvBytes;

/// Linux's `IPDEFTTL`.
const DEFAULT_TTL: u8 = 64;

/// An accelerated connection. All methods take `&self` and may be called from any thread; the semantics are those
/// of a tokio `TcpStream` on Linux. Dropping it closes the connection: FIN after what was written, RST when
/// received bytes were left unread or linger is zero.
pub struct Stream {
    shared: Arc<Shared>,
    runtime: OnceLock<Registration>,
    detached: bool,
}

impl Stream {
    pub(super) fn new(shared: Arc<Shared>, runtime: Option<&RuntimeHandle>) -> Self {
        let stream = Self {
            shared,
            runtime: OnceLock::new(),
            detached: false,
        };
        if let Some(runtime) = runtime {
            stream.attach(runtime);
        }
        stream
    }

    /// Makes the stream depend on `runtime`, unless it depends on one already.
    pub(super) fn attach(&self, runtime: &RuntimeHandle) {
        self.runtime.get_or_init(|| {
            let dependent: Arc<dyn Dependent> = Arc::<Shared>::clone(&self.shared);
            runtime.register(Arc::downgrade(&dependent))
        });
    }

    #[cfg(all(flextcp_loom, test))]
    pub(super) fn ring(&self) {
        self.shared.ring_doorbell();
    }

    /// An accepted connection's first bytes are usually there already (tokio 1.54 assumes the same).
    pub(crate) fn assume_accepted(&self) {
        self.shared.assume_accepted();
    }

    /// Who the connection was accepted from, also when it is over already.
    pub(super) fn accepted_from(&self) -> SocketAddr {
        self.shared.addresses.peer
    }

    pub(super) fn shared(&self) -> &Arc<Shared> {
        &self.shared
    }

    /// The core that owns the connection.
    pub fn core(&self) -> &Arc<dyn Core> {
        &self.shared.core
    }

    /// What that core calls it.
    pub fn conn(&self) -> Token {
        self.shared.conn
    }

    /// Our end.
    pub fn local_addr(&self) -> SocketAddr {
        self.shared.addresses.local
    }

    /// The peer's end.
    ///
    /// # Errors
    /// `NotConnected` when the connection is over, as `getpeername` on Linux.
    pub fn peer_addr(&self) -> io::Result<SocketAddr> {
        if self.shared.is_failed() {
            return Err(io::Error::from_raw_os_error(libc::ENOTCONN));
        }
        Ok(self.shared.addresses.peer)
    }

    /// The pending error, once (`SO_ERROR`).
    pub fn take_error(&self) -> Option<io::Error> {
        self.shared.take_error()
    }

    /// Whether the NIC carries the connection at this moment, rather than the engine. Cheap: takes no lock.
    pub fn is_offloaded(&self) -> bool {
        self.shared.is_offloaded()
    }

    /// A snapshot for diagnosis; `None` when the core forgot the connection.
    pub fn info(&self) -> Option<TcpInfo> {
        self.shared.core.info(self.shared.conn)
    }

    /// Waits for the end of the handshake. Cancel safe; dropping the stream gives the attempt up.
    ///
    /// # Errors
    /// Why it failed.
    pub async fn connected(&self) -> io::Result<()> {
        poll_fn(|cx| self.poll_write_ready(cx)).await?;
        self.take_error().map_or(Ok(()), Err)
    }

    /// Takes the connection away from this stream, which does not close it.
    pub(super) fn detach(mut self) -> (Arc<dyn Core>, Token) {
        self.detached = true;
        (Arc::clone(&self.shared.core), self.shared.conn)
    }

    /// Moves the connection into a kernel socket, in non-blocking mode and without its options.
    ///
    /// # Errors
    /// The kernel cannot carry it on; the stream is returned as it was.
    pub(crate) fn export(mut self) -> Result<std::net::TcpStream, (Self, io::Error)> {
        let recv = &self.shared.app.recv;
        let mut unread = || {
            let mut bytes = vec![0; recv.len()];
            let copied = recv.peek(&mut bytes);
            bytes.truncate(copied);
            bytes
        };
        match self
            .shared
            .core
            .export(self.shared.conn, self.shared.addresses, &mut unread)
        {
            Ok(stream) => {
                self.detached = true;
                Ok(stream)
            }
            Err(error) => Err((self, error)),
        }
    }

    /// Bytes received and not read, and bytes written and not acknowledged.
    #[cfg(feature = "lab")]
    pub(crate) fn queued(&self) -> (usize, usize) {
        (self.shared.app.recv.len(), self.shared.app.send.len())
    }

    /// Makes the stream depend on another runtime than so far.
    pub(crate) fn rehome(&mut self, runtime: &RuntimeHandle) {
        self.runtime = OnceLock::new();
        self.attach(runtime);
    }
}

/// Readiness.
impl Stream {
    fn poll_ready(
        &self,
        cx: &mut Context<'_>,
        direction: Direction,
    ) -> Poll<io::Result<ReadyEvent>> {
        let coop = ready!(poll_proceed(cx));
        let event = ready!(self.shared.readiness.poll(cx, direction));
        if event.is_shutdown {
            return Poll::Ready(Err(gone()));
        }
        coop.made_progress();
        Poll::Ready(Ok(event))
    }

    fn poll_io<R>(
        &self,
        cx: &mut Context<'_>,
        direction: Direction,
        mut operation: impl FnMut(ReadyEvent) -> io::Result<R>,
    ) -> Poll<io::Result<R>> {
        loop {
            let event = ready!(self.poll_ready(cx, direction))?;
            match operation(event) {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    self.shared.readiness.clear(event);
                }
                result => return Poll::Ready(result),
            }
        }
    }

    /// Polls for read readiness; the last caller is woken.
    pub fn poll_read_ready(&self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.poll_ready(cx, Direction::Read).map_ok(drop)
    }

    /// Polls for write readiness; the last caller is woken.
    pub fn poll_write_ready(&self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.poll_ready(cx, Direction::Write).map_ok(drop)
    }

    /// Waits until one of `interest` may work. Any number of tasks may wait. Cancel safe.
    ///
    /// # Errors
    /// The runtime is shut down.
    pub async fn ready(&self, interest: Interest) -> io::Result<Ready> {
        let event = self.shared.readiness.wait(mask(interest)).await;
        if event.is_shutdown {
            Err(gone())
        } else {
            Ok(event.ready())
        }
    }

    /// Runs `operation` if ready, and forgets the readiness when it says `WouldBlock`.
    ///
    /// # Errors
    /// `WouldBlock` when not ready, else the operation's.
    pub fn try_io<R>(
        &self,
        interest: Interest,
        operation: impl FnOnce() -> io::Result<R>,
    ) -> io::Result<R> {
        let event = self.shared.readiness.event(mask(interest));
        if event.is_empty() {
            return Err(io::ErrorKind::WouldBlock.into());
        }
        let result = operation();
        if let Err(error) = &result
            && error.kind() == io::ErrorKind::WouldBlock
        {
            self.shared.readiness.clear(event);
        }
        result
    }

    /// Runs `operation` when ready, again after each `WouldBlock`. Cancel safe if `operation` is.
    ///
    /// # Errors
    /// The operation's, or the runtime is shut down.
    pub async fn async_io<R>(
        &self,
        interest: Interest,
        mut operation: impl FnMut() -> io::Result<R>,
    ) -> io::Result<R> {
        loop {
            let event = self.shared.readiness.wait(mask(interest)).await;
            if event.is_shutdown {
                return Err(gone());
            }
            let coop = poll_fn(poll_proceed).await;
            match operation() {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    self.shared.readiness.clear(event);
                }
                result => {
                    coop.made_progress();
                    return result;
                }
            }
        }
    }
}

/// Options: getters answer from what was last set.
impl Stream {
    /// All of them.
    pub fn options(&self) -> SocketOptions {
        self.shared.options().clone()
    }

    /// Changes one.
    pub fn set_option(&self, option: SocketOption) {
        self.shared.options().apply(option);
        if let SocketOption::SendBuffer(bytes) = option {
            self.shared.app.send.set_limit(bytes);
        }
        self.shared
            .core
            .command(self.shared.conn, Command::SetOption(option));
    }

    /// `TCP_NODELAY`.
    pub fn nodelay(&self) -> bool {
        self.shared.options().nodelay
    }

    /// `TCP_QUICKACK`.
    pub fn quickack(&self) -> bool {
        self.shared.options().quickack
    }

    /// `SO_LINGER`.
    pub fn linger(&self) -> Option<Duration> {
        self.shared.options().linger
    }

    /// `SO_KEEPALIVE` with its times.
    pub fn keepalive(&self) -> Option<KeepAlive> {
        self.shared.options().keepalive
    }

    /// `IP_TTL`.
    pub fn ttl(&self) -> u32 {
        self.shared.options().ttl.unwrap_or(DEFAULT_TTL).into()
    }
}

// As tokio's type: rings and readiness are whole at every step, and the core is told, never entered.
impl UnwindSafe for Stream {}
impl RefUnwindSafe for Stream {}

impl fmt::Debug for Stream {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("TcpStream")
            .field("addr", &self.shared.addresses.local)
            .field("peer", &self.shared.addresses.peer)
            .field("conn", &self.shared.conn.0)
            .finish()
    }
}

impl Drop for Stream {
    fn drop(&mut self) {
        self.shared.readiness.clear_wakers();
        if self.detached || !self.shared.orphan() {
            return;
        }
        let reset = self.shared.options().linger == Some(Duration::ZERO);
        let command = if reset || !self.shared.app.recv.is_empty() {
            Command::Abort
        } else {
            Command::Close
        };
        self.shared.core.command(self.shared.conn, command);
    }
}
