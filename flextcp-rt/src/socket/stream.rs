//! The application's side of a socket.

use std::fmt;
use std::future::poll_fn;
use std::io::{self, IoSlice, IoSliceMut};
use std::net::SocketAddr;
use std::ops::Deref;
use std::panic::{RefUnwindSafe, UnwindSafe};
use std::sync::{Arc, OnceLock};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::{BufMut, Bytes};
use flextcp_nic::buffer::Chunk;
use tokio::io::{Interest, ReadBuf, Ready};
use tokio::task::coop::poll_proceed;

use super::handle::Shared;
use super::readiness::{Direction, ReadyEvent, mask};
use super::runtime::{Dependent, Registration, RuntimeHandle, gone};
use super::{Command, Core, Token};
use crate::options::{KeepAlive, SocketOption, SocketOptions};
use crate::tcp::TcpInfo;

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

/// Reading.
impl Stream {
    /// What a read says once the ring is empty for good. Linux's order: the peer's end of the stream, the pending
    /// error once, the end.
    fn end_of_stream(&self) -> io::Result<usize> {
        if !self.shared.is_peer_closed()
            && let Some(error) = self.shared.take_error()
        {
            return Err(error);
        }
        Ok(0)
    }

    /// Runs `take` on the receive ring for at most `wanted` bytes; it returns 0 where nothing was there.
    fn receive(&self, wanted: usize, mut take: impl FnMut() -> usize) -> io::Result<usize> {
        loop {
            // The flag before the ring: bytes published before the end of the stream must not be passed over.
            let closed = self.shared.is_read_closed();
            if self.shared.app.recv.is_empty() {
                return if closed {
                    self.end_of_stream()
                } else {
                    Err(io::ErrorKind::WouldBlock.into())
                };
            }
            // Another task may have been faster: 0 would read as the end of the stream.
            match take() {
                0 if wanted > 0 => {}
                n => return Ok(n),
            }
        }
    }

    fn receive_freeing(&self, wanted: usize, take: impl FnMut() -> usize) -> io::Result<usize> {
        let n = self.receive(wanted, take)?;
        self.shared.note_freed(n);
        Ok(n)
    }

    fn peek_now(&self, buf: &mut [u8]) -> io::Result<usize> {
        self.receive(buf.len(), || self.shared.app.recv.peek(buf))
    }

    /// Reads without waiting.
    ///
    /// # Errors
    /// `WouldBlock` when there is nothing yet; the connection's error, once.
    pub fn try_read(&self, buf: &mut [u8]) -> io::Result<usize> {
        self.try_io(Interest::READABLE, || {
            self.receive_freeing(buf.len(), || self.shared.app.recv.read(buf))
        })
    }

    /// Copies bytes without taking them and without waiting.
    #[cfg(feature = "lab")]
    pub(crate) fn try_peek(&self, buf: &mut [u8]) -> io::Result<usize> {
        self.try_io(Interest::READABLE, || self.peek_now(buf))
    }

    /// [`try_read`](Self::try_read) into several slices.
    ///
    /// # Errors
    /// As [`try_read`](Self::try_read).
    pub fn try_read_vectored(&self, bufs: &mut [IoSliceMut<'_>]) -> io::Result<usize> {
        self.try_io(Interest::READABLE, || {
            let wanted = usize::from(bufs.iter().any(|buf| !buf.is_empty()));
            self.receive_freeing(wanted, || self.shared.app.recv.read_vectored(bufs))
        })
    }

    /// [`try_read`](Self::try_read) into the spare room of `buf`.
    ///
    /// # Errors
    /// As [`try_read`](Self::try_read).
    pub fn try_read_buf<B: BufMut + ?Sized>(&self, buf: &mut B) -> io::Result<usize> {
        self.try_io(Interest::READABLE, || {
            let room = buf.chunk_mut().len();
            self.receive_freeing(room, || {
                self.shared
                    .app
                    .recv
                    .read_with(room, |bytes| buf.put_slice(bytes))
            })
        })
    }

    /// Reads; the last caller is woken.
    pub fn poll_read(&self, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        self.poll_io(cx, Direction::Read, |event| {
            let room = buf.remaining();
            let n = self.receive_freeing(room, || {
                self.shared
                    .app
                    .recv
                    .read_with(room, |bytes| buf.put_slice(bytes))
            })?;
            // A short read emptied the ring: the next poll need not find that out.
            if 0 < n && n < room {
                self.shared.readiness.clear(event);
            }
            Ok(())
        })
    }

    /// Copies bytes without taking them; the last caller is woken.
    pub fn poll_peek(
        &self,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<usize>> {
        self.poll_io(cx, Direction::Read, |_| {
            let room = buf.remaining();
            self.receive(room, || {
                let available = self.shared.app.recv.len().min(room);
                let n = self
                    .shared
                    .app
                    .recv
                    .peek(buf.initialize_unfilled_to(available));
                buf.advance(n);
                n
            })
        })
    }

    /// Copies bytes without taking them. Cancel safe.
    ///
    /// # Errors
    /// The connection's error, once.
    pub async fn peek(&self, buf: &mut [u8]) -> io::Result<usize> {
        self.async_io(Interest::READABLE, || self.peek_now(buf))
            .await
    }

    /// Takes at most `max` received bytes where the NIC placed them, without a copy; empty at the end of the
    /// stream. The bytes hold their space of the receive window until they are dropped.
    ///
    /// # Errors
    /// `WouldBlock` when there is nothing yet; the connection's error, once.
    pub fn try_read_chunk(&self, max: usize) -> io::Result<Bytes> {
        let mut chunk = None;
        self.try_io(Interest::READABLE, || {
            self.receive(max, || {
                chunk = self.shared.app.recv.take_chunk(max);
                chunk.as_ref().map_or(0, |chunk| chunk.len())
            })
        })?;
        Ok(chunk.map_or_else(Bytes::new, |chunk| {
            let freed = chunk.len();
            Bytes::from_owner(RecvBytes {
                chunk: Some(chunk),
                freed,
                shared: Arc::clone(&self.shared),
            })
        }))
    }

    /// The next received bytes where the NIC placed them, not taken: [`consume`](Self::consume) takes them.
    /// Empty at the end of the stream. The last caller is woken.
    pub fn poll_fill(&self, cx: &mut Context<'_>) -> Poll<io::Result<RecvBytes>> {
        self.poll_io(cx, Direction::Read, |_| {
            let mut chunk = None;
            self.receive(usize::MAX, || {
                chunk = self.shared.app.recv.fill();
                chunk.as_ref().map_or(0, |chunk| chunk.len())
            })?;
            Ok(RecvBytes {
                chunk,
                freed: 0,
                shared: Arc::clone(&self.shared),
            })
        })
    }

    /// Takes `n` bytes unread, at most those that are there.
    pub fn consume(&self, n: usize) {
        self.shared.note_freed(self.shared.app.recv.consume(n));
    }
}

/// Writing.
impl Stream {
    /// Appends with `append`, which returns how many of the `wanted` bytes fitted.
    fn send(&self, wanted: usize, append: impl FnOnce() -> usize) -> io::Result<usize> {
        if self.shared.is_write_closed() {
            // `sk_stream_error`: the pending error first, then EPIPE for good.
            return Err(self
                .shared
                .take_error()
                .unwrap_or_else(|| io::Error::from_raw_os_error(libc::EPIPE)));
        }
        if wanted == 0 {
            return Ok(0);
        }
        match append() {
            0 => Err(io::ErrorKind::WouldBlock.into()),
            n => {
                self.shared.ring_doorbell();
                Ok(n)
            }
        }
    }

    fn write_now(&self, buf: &[u8]) -> io::Result<usize> {
        self.send(buf.len(), || self.shared.app.send.write(buf))
    }

    fn write_vectored_now(&self, bufs: &[IoSlice<'_>]) -> io::Result<usize> {
        let wanted = usize::from(bufs.iter().any(|buf| !buf.is_empty()));
        self.send(wanted, || self.shared.app.send.write_vectored(bufs))
    }

    /// Writes as much as fits, without waiting.
    ///
    /// # Errors
    /// `WouldBlock` when nothing fits; the connection's error, once, then `BrokenPipe`.
    pub fn try_write(&self, buf: &[u8]) -> io::Result<usize> {
        self.try_io(Interest::WRITABLE, || self.write_now(buf))
    }

    /// [`try_write`](Self::try_write) of several slices.
    ///
    /// # Errors
    /// As [`try_write`](Self::try_write).
    pub fn try_write_vectored(&self, bufs: &[IoSlice<'_>]) -> io::Result<usize> {
        self.try_io(Interest::WRITABLE, || self.write_vectored_now(bufs))
    }

    /// Writes as much as fits; the last caller is woken.
    pub fn poll_write(&self, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        self.poll_io(cx, Direction::Write, |event| {
            let n = self.write_now(buf)?;
            // A short write filled the ring.
            if 0 < n && n < buf.len() {
                self.shared.readiness.clear(event);
            }
            Ok(n)
        })
    }

    /// [`poll_write`](Self::poll_write) of several slices.
    pub fn poll_write_vectored(
        &self,
        cx: &mut Context<'_>,
        bufs: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        self.poll_io(cx, Direction::Write, |_| self.write_vectored_now(bufs))
    }

    /// Ends our direction: FIN after what was written. Returns at once; repeatable; `Ok` after a reset too.
    pub fn shutdown_write(&self) {
        if self.shared.shut_write() {
            self.shared
                .core
                .command(self.shared.conn, Command::ShutdownWrite);
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

/// Received bytes where the NIC placed them. They hold their space of the receive window while this lives.
pub struct RecvBytes {
    chunk: Option<Chunk>,
    /// Bytes that become free with the chunk.
    freed: usize,
    shared: Arc<Shared>,
}

impl Deref for RecvBytes {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        self.chunk.as_deref().unwrap_or_default()
    }
}

impl AsRef<[u8]> for RecvBytes {
    fn as_ref(&self) -> &[u8] {
        self
    }
}

impl Drop for RecvBytes {
    fn drop(&mut self) {
        // The space first, then the doorbell that tells of it.
        self.chunk = None;
        self.shared.note_freed(self.freed);
    }
}

impl fmt::Debug for RecvBytes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("RecvBytes").field(&self.len()).finish()
    }
}
