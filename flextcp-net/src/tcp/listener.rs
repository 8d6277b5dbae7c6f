//! [`TcpListener`].

use std::fmt;
use std::future::{Future, poll_fn};
use std::io;
use std::net::SocketAddr;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, RawFd};
use std::pin::pin;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::sync::{Mutex, OnceLock, PoisonError};
use std::task::{Context, Poll};

use flextcp_rt::Listener;
use flextcp_rt::host::ports::backlog_of;
use flextcp_rt::options::{SocketOption, SocketOptions};
use flextcp_rt::socket::Stream;
use socket2::{Domain, Protocol, SockRef, Socket, Type};
use tokio::net::{ToSocketAddrs, lookup_host};

use super::shadow::{changes, options_of};
use super::stream::TcpStream;
use crate::host;

/// The backlog of [`TcpListener::bind`]; the kernel caps its own half at `net.core.somaxconn`.
const BACKLOG: u32 = 4096;

/// One accept in this many asks the kernel's half first, so that a busy NIC does not starve it.
const KERNEL_FIRST: u32 = 32;

/// A TCP socket server, listening for connections: `tokio::net::TcpListener`, on the NIC and on the kernel at once.
///
/// The kernel's half holds the port, and accepts what arrives over interfaces that are not accelerated.
pub struct TcpListener {
    listener: Listener,
    accepts: AtomicU32,
    /// Set by `set_ttl`, 0 before: accepted connections inherit it.
    ttl: AtomicU32,
    /// From when the descriptor is first lent.
    late: OnceLock<Box<LateOptions>>,
}

/// Options set through the listener's descriptor, which connections accepted from then on inherit.
struct LateOptions {
    /// As they were before the descriptor was first lent.
    before: SocketOptions,
    /// The descriptor was lent since they were last read.
    lent: AtomicBool,
    changes: Mutex<Vec<SocketOption>>,
}

impl LateOptions {
    fn new(socket: &SockRef<'_>) -> Box<Self> {
        Box::new(Self {
            before: options_of(socket),
            lent: AtomicBool::new(false),
            changes: Mutex::default(),
        })
    }

    /// Sets them on an accepted connection.
    fn apply(&self, socket: &SockRef<'_>, stream: &Stream) {
        let mut late = self.changes.lock().unwrap_or_else(PoisonError::into_inner);
        if self.lent.swap(false, Ordering::AcqRel) {
            *late = changes(&self.before, &options_of(socket));
        }
        for option in late.iter() {
            stream.set_option(*option);
        }
    }
}

impl TcpListener {
    fn new(listener: Listener) -> Self {
        Self {
            listener,
            accepts: AtomicU32::new(0),
            ttl: AtomicU32::new(0),
            late: OnceLock::new(),
        }
    }

    #[track_caller]
    pub(super) fn listen(socket: Socket, backlog: u32, options: SocketOptions) -> io::Result<Self> {
        host::listen(socket, backlog, options).map(Self::new)
    }

    /// Binds to `addr` with `SO_REUSEADDR` and listens, on the first of the addresses it resolves to that works.
    /// Port 0 has the system pick one.
    ///
    /// # Errors
    /// That of the last address tried; `InvalidInput` when there is none.
    ///
    /// # Panics
    /// Outside of a tokio runtime with IO.
    ///
    /// # Examples
    /// ```no_run
    /// # async fn example() -> std::io::Result<()> {
    /// use flextcp_net::TcpListener;
    ///
    /// let listener = TcpListener::bind("127.0.0.1:0").await?;
    /// println!("listening on {}", listener.local_addr()?);
    /// # Ok(())
    /// # }
    /// ```
    pub async fn bind<A: ToSocketAddrs>(addr: A) -> io::Result<Self> {
        let addrs = lookup_host(addr).await?;
        let mut last = None;
        for addr in addrs {
            match Self::bind_addr(addr) {
                Ok(listener) => return Ok(listener),
                Err(error) => last = Some(error),
            }
        }
        Err(last.unwrap_or_else(super::unresolved))
    }

    fn bind_addr(addr: SocketAddr) -> io::Result<Self> {
        let kind = Type::STREAM.nonblocking();
        let socket = Socket::new(Domain::for_address(addr), kind, Some(Protocol::TCP))?;
        socket.set_reuse_address(true)?;
        host::bind(&socket, addr)?;
        let v6only = addr.is_ipv6() && socket.only_v6()?;
        Self::listen(
            socket,
            BACKLOG,
            SocketOptions {
                v6only,
                ..SocketOptions::default()
            },
        )
    }

    fn accepted(&self, (stream, peer): (Stream, SocketAddr)) -> (TcpStream, SocketAddr) {
        if let Some(late) = self.late.get() {
            late.apply(&SockRef::from(&self.listener.kernel), &stream);
        }
        if let Ok(ttl @ 1..) = u8::try_from(self.ttl.load(Ordering::Relaxed)) {
            stream.set_option(SocketOption::Ttl(ttl));
        }
        (TcpStream::flex(stream), peer)
    }

    fn kernel_first(&self) -> bool {
        self.accepts.fetch_add(1, Ordering::Relaxed) % KERNEL_FIRST == KERNEL_FIRST - 1
    }

    /// Accepts a connection. Any number of tasks may wait at once.
    ///
    /// # Errors
    /// Those of `accept`; the runtime is being shut down.
    ///
    /// # Cancel safety
    /// Safe: a dropped future has taken no connection.
    ///
    /// # Examples
    /// ```no_run
    /// # async fn example() -> std::io::Result<()> {
    /// use flextcp_net::TcpListener;
    /// use tokio::io::AsyncWriteExt;
    ///
    /// let listener = TcpListener::bind("0.0.0.0:7777").await?;
    /// loop {
    ///     let (mut stream, peer) = listener.accept().await?;
    ///     tokio::spawn(async move {
    ///         println!("{peer} came");
    ///         stream.write_all(b"hello").await
    ///     });
    /// }
    /// # Ok(())
    /// # }
    /// ```
    pub async fn accept(&self) -> io::Result<(TcpStream, SocketAddr)> {
        let Some(flex) = &self.listener.flex else {
            let accepted = self.listener.kernel.accept().await?;
            return Ok(host::kernel_accepted(accepted));
        };
        let kernel_first = self.kernel_first();
        let mut kernel = pin!(self.listener.kernel.accept());
        let mut flex = pin!(flex.accept());
        poll_fn(|cx| {
            either_first(
                kernel_first,
                cx,
                |cx| kernel.as_mut().poll(cx).map_ok(host::kernel_accepted),
                |cx| {
                    flex.as_mut()
                        .poll(cx)
                        .map_ok(|accepted| self.accepted(accepted))
                },
            )
        })
        .await
    }

    /// Polls for a connection. Only the last caller is woken.
    pub fn poll_accept(&self, cx: &mut Context<'_>) -> Poll<io::Result<(TcpStream, SocketAddr)>> {
        either_first(
            self.kernel_first(),
            cx,
            |cx| {
                let accepted = self.listener.kernel.poll_accept(cx);
                accepted.map_ok(host::kernel_accepted)
            },
            |cx| match &self.listener.flex {
                Some(flex) => flex
                    .poll_accept(cx)
                    .map_ok(|accepted| self.accepted(accepted)),
                None => Poll::Pending,
            },
        )
    }

    /// Takes over a `std::net::TcpListener`, which has to be in non-blocking mode, and accelerates it where it can.
    ///
    /// # Errors
    /// The socket could not be registered.
    ///
    /// # Panics
    /// Outside of a tokio runtime with IO.
    ///
    /// # Examples
    /// ```no_run
    /// # async fn example() -> std::io::Result<()> {
    /// use flextcp_net::TcpListener;
    ///
    /// // From systemd, say.
    /// let listener = std::net::TcpListener::bind("127.0.0.1:0")?;
    /// listener.set_nonblocking(true)?;
    /// let listener = TcpListener::from_std(listener)?;
    /// # Ok(())
    /// # }
    /// ```
    #[track_caller]
    pub fn from_std(listener: std::net::TcpListener) -> io::Result<Self> {
        let socket = Socket::from(listener);
        let options = options_of(&SockRef::from(&socket));
        let backlog = backlog_of(&socket).unwrap_or(BACKLOG);
        Self::listen(socket, backlog, options)
    }

    /// Turns the listener into a `std::net::TcpListener`, in non-blocking mode. It goes on listening on the kernel
    /// only; connections that wait on the NIC's half are reset.
    ///
    /// # Errors
    /// The socket could not be deregistered.
    ///
    /// # Examples
    /// ```no_run
    /// # async fn example() -> std::io::Result<()> {
    /// use flextcp_net::TcpListener;
    ///
    /// let listener = TcpListener::bind("127.0.0.1:0").await?;
    /// let listener = listener.into_std()?;
    /// listener.set_nonblocking(false)?;
    /// # Ok(())
    /// # }
    /// ```
    pub fn into_std(self) -> io::Result<std::net::TcpListener> {
        drop(self.listener.flex);
        self.listener.kernel.into_std()
    }

    /// The local address: the port, when it was bound to port 0.
    ///
    /// # Errors
    /// Those of `getsockname`.
    pub fn local_addr(&self) -> io::Result<SocketAddr> {
        self.listener.kernel.local_addr()
    }

    /// `IP_TTL`.
    ///
    /// # Errors
    /// The option could not be read.
    pub fn ttl(&self) -> io::Result<u32> {
        self.listener.kernel.ttl()
    }

    /// Sets `IP_TTL` of the connections accepted from now on.
    ///
    /// # Errors
    /// `InvalidInput` outside of 1 to 255.
    ///
    /// # Examples
    /// ```no_run
    /// # async fn example() -> std::io::Result<()> {
    /// use flextcp_net::TcpListener;
    ///
    /// let listener = TcpListener::bind("127.0.0.1:0").await?;
    /// listener.set_ttl(1)?;
    /// # Ok(())
    /// # }
    /// ```
    pub fn set_ttl(&self, ttl: u32) -> io::Result<()> {
        self.listener.kernel.set_ttl(ttl)?;
        self.ttl.store(ttl, Ordering::Relaxed);
        Ok(())
    }
}

/// Polls both halves; both keep the waker when neither is ready.
fn either_first<T>(
    kernel_first: bool,
    cx: &mut Context<'_>,
    mut kernel: impl FnMut(&mut Context<'_>) -> Poll<T>,
    mut flex: impl FnMut(&mut Context<'_>) -> Poll<T>,
) -> Poll<T> {
    if kernel_first {
        match kernel(cx) {
            Poll::Pending => flex(cx),
            ready => ready,
        }
    } else {
        match flex(cx) {
            Poll::Pending => kernel(cx),
            ready => ready,
        }
    }
}

impl TryFrom<std::net::TcpListener> for TcpListener {
    type Error = io::Error;

    /// [`TcpListener::from_std`].
    fn try_from(listener: std::net::TcpListener) -> Result<Self, Self::Error> {
        Self::from_std(listener)
    }
}

impl fmt::Debug for TcpListener {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.listener.kernel.fmt(f)
    }
}

/// The kernel's half. Options set through it are those of the connections accepted from then on.
impl AsFd for TcpListener {
    fn as_fd(&self) -> BorrowedFd<'_> {
        let socket = SockRef::from(&self.listener.kernel);
        let late = self.late.get_or_init(|| LateOptions::new(&socket));
        late.lent.store(true, Ordering::Release);
        self.listener.kernel.as_fd()
    }
}

/// As [`AsFd`].
impl AsRawFd for TcpListener {
    fn as_raw_fd(&self) -> RawFd {
        self.as_fd().as_raw_fd()
    }
}
