//! [`TcpSocket`].

use std::fmt;
use std::io;
use std::net::SocketAddr;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, IntoRawFd, RawFd};
use std::time::Duration;

use socket2::{Domain, Protocol, SockRef, Socket, Type};

use super::listener::TcpListener;
use super::shadow::options_of;
use super::stream::TcpStream;
use crate::host;

/// A TCP socket that is not yet a stream or a listener: `tokio::net::TcpSocket`.
///
/// It is a kernel socket, and its options and its bound address go over to what becomes of it: for a connection on
/// the NIC it holds the port, for a listener it is the kernel's half.
pub struct TcpSocket {
    inner: Socket,
}

impl TcpSocket {
    /// A socket for IPv4.
    ///
    /// # Errors
    /// Those of `socket`.
    ///
    /// # Examples
    /// ```no_run
    /// # async fn example() -> std::io::Result<()> {
    /// use flextcp_net::TcpSocket;
    ///
    /// let socket = TcpSocket::new_v4()?;
    /// let stream = socket.connect("192.0.2.1:80".parse().unwrap()).await?;
    /// # Ok(())
    /// # }
    /// ```
    pub fn new_v4() -> io::Result<Self> {
        Self::new(Domain::IPV4)
    }

    /// A socket for IPv6.
    ///
    /// # Errors
    /// Those of `socket`.
    ///
    /// # Examples
    /// ```no_run
    /// # async fn example() -> std::io::Result<()> {
    /// use flextcp_net::TcpSocket;
    ///
    /// let socket = TcpSocket::new_v6()?;
    /// socket.bind("[::1]:0".parse().unwrap())?;
    /// let listener = socket.listen(1024)?;
    /// # Ok(())
    /// # }
    /// ```
    pub fn new_v6() -> io::Result<Self> {
        Self::new(Domain::IPV6)
    }

    fn new(domain: Domain) -> io::Result<Self> {
        let inner = Socket::new(domain, Type::STREAM.nonblocking(), Some(Protocol::TCP))?;
        Ok(Self { inner })
    }

    /// `SO_KEEPALIVE`: whether an idle connection is probed.
    ///
    /// # Errors
    /// The option could not be read.
    pub fn keepalive(&self) -> io::Result<bool> {
        self.inner.keepalive()
    }

    /// Sets `SO_KEEPALIVE`: whether an idle connection is probed.
    ///
    /// # Errors
    /// The option could not be set.
    pub fn set_keepalive(&self, keepalive: bool) -> io::Result<()> {
        self.inner.set_keepalive(keepalive)
    }

    /// `SO_REUSEADDR`: whether an address in `TIME_WAIT` can be bound.
    ///
    /// # Errors
    /// The option could not be read.
    pub fn reuseaddr(&self) -> io::Result<bool> {
        self.inner.reuse_address()
    }

    /// Sets `SO_REUSEADDR`: whether an address in `TIME_WAIT` can be bound.
    ///
    /// # Errors
    /// The option could not be set.
    ///
    /// # Examples
    /// ```no_run
    /// # async fn example() -> std::io::Result<()> {
    /// use flextcp_net::TcpSocket;
    ///
    /// let socket = TcpSocket::new_v4()?;
    /// socket.set_reuseaddr(true)?;
    /// socket.bind("127.0.0.1:8080".parse().unwrap())?;
    /// let listener = socket.listen(1024)?;
    /// # Ok(())
    /// # }
    /// ```
    pub fn set_reuseaddr(&self, reuseaddr: bool) -> io::Result<()> {
        self.inner.set_reuse_address(reuseaddr)
    }

    /// `SO_REUSEPORT`: whether several listeners may share an address.
    ///
    /// # Errors
    /// The option could not be read.
    pub fn reuseport(&self) -> io::Result<bool> {
        self.inner.reuse_port()
    }

    /// Sets `SO_REUSEPORT`: whether several listeners may share an address.
    ///
    /// # Errors
    /// The option could not be set.
    ///
    /// # Examples
    /// ```no_run
    /// # async fn example() -> std::io::Result<()> {
    /// use flextcp_net::TcpSocket;
    ///
    /// // Once in every thread; `PerCore` does it too.
    /// let socket = TcpSocket::new_v4()?;
    /// socket.set_reuseport(true)?;
    /// socket.bind("127.0.0.1:8080".parse().unwrap())?;
    /// let listener = socket.listen(1024)?;
    /// # Ok(())
    /// # }
    /// ```
    pub fn set_reuseport(&self, reuseport: bool) -> io::Result<()> {
        self.inner.set_reuse_port(reuseport)
    }

    /// `TCP_NODELAY`: whether Nagle's algorithm is off.
    ///
    /// # Errors
    /// The option could not be read.
    pub fn nodelay(&self) -> io::Result<bool> {
        self.inner.tcp_nodelay()
    }

    /// Sets `TCP_NODELAY`: whether Nagle's algorithm is off.
    ///
    /// # Errors
    /// The option could not be set.
    pub fn set_nodelay(&self, nodelay: bool) -> io::Result<()> {
        self.inner.set_tcp_nodelay(nodelay)
    }

    /// `IPV6_TCLASS`: the traffic class of IPv6 packets.
    ///
    /// # Errors
    /// The option could not be read.
    pub fn tclass_v6(&self) -> io::Result<u32> {
        self.inner.tclass_v6()
    }

    /// Sets `IPV6_TCLASS`: the traffic class of IPv6 packets.
    ///
    /// # Errors
    /// The option could not be set.
    pub fn set_tclass_v6(&self, tclass_v6: u32) -> io::Result<()> {
        self.inner.set_tclass_v6(tclass_v6)
    }

    /// `IP_TOS`: the type of service of IPv4 packets.
    ///
    /// # Errors
    /// The option could not be read.
    pub fn tos_v4(&self) -> io::Result<u32> {
        self.inner.tos_v4()
    }

    /// Sets `IP_TOS`: the type of service of IPv4 packets.
    ///
    /// # Errors
    /// The option could not be set.
    pub fn set_tos_v4(&self, tos_v4: u32) -> io::Result<()> {
        self.inner.set_tos_v4(tos_v4)
    }

    /// `SO_SNDBUF`, as the kernel counts it: twice what was set.
    ///
    /// # Errors
    /// The option could not be read.
    pub fn send_buffer_size(&self) -> io::Result<u32> {
        self.inner
            .send_buffer_size()
            .map(|size| u32::try_from(size).unwrap_or(u32::MAX))
    }

    /// Sets `SO_SNDBUF` in bytes; the size no longer tunes itself.
    ///
    /// # Errors
    /// The option could not be set.
    pub fn set_send_buffer_size(&self, size: u32) -> io::Result<()> {
        self.inner.set_send_buffer_size(size as usize)
    }

    /// `SO_RCVBUF`, as the kernel counts it: twice what was set.
    ///
    /// # Errors
    /// The option could not be read.
    pub fn recv_buffer_size(&self) -> io::Result<u32> {
        self.inner
            .recv_buffer_size()
            .map(|size| u32::try_from(size).unwrap_or(u32::MAX))
    }

    /// Sets `SO_RCVBUF` in bytes; the size no longer tunes itself.
    ///
    /// # Errors
    /// The option could not be set.
    ///
    /// # Examples
    /// ```no_run
    /// # async fn example() -> std::io::Result<()> {
    /// use flextcp_net::TcpSocket;
    ///
    /// let socket = TcpSocket::new_v4()?;
    /// socket.set_recv_buffer_size(1 << 20)?;
    /// let stream = socket.connect("192.0.2.1:80".parse().unwrap()).await?;
    /// # Ok(())
    /// # }
    /// ```
    pub fn set_recv_buffer_size(&self, size: u32) -> io::Result<()> {
        self.inner.set_recv_buffer_size(size as usize)
    }

    /// `SO_LINGER`.
    ///
    /// # Errors
    /// The option could not be read.
    pub fn linger(&self) -> io::Result<Option<Duration>> {
        self.inner.linger()
    }

    /// Sets `SO_LINGER`, in whole seconds.
    ///
    /// # Errors
    /// The option could not be set.
    #[deprecated = "`SO_LINGER` causes the socket to block the thread on drop"]
    pub fn set_linger(&self, dur: Option<Duration>) -> io::Result<()> {
        self.inner.set_linger(dur)
    }

    /// Makes dropping the stream a reset.
    ///
    /// # Errors
    /// The option could not be set.
    pub fn set_zero_linger(&self) -> io::Result<()> {
        self.inner.set_linger(Some(Duration::ZERO))
    }

    #[doc(hidden)]
    #[deprecated(
        note = "`tos` related methods have been renamed `tos_v4` since they are IPv4-specific."
    )]
    #[allow(
        missing_docs,
        clippy::missing_errors_doc,
        reason = "hidden, as tokio's"
    )]
    pub fn tos(&self) -> io::Result<u32> {
        self.tos_v4()
    }

    #[doc(hidden)]
    #[deprecated(
        note = "`tos` related methods have been renamed `tos_v4` since they are IPv4-specific."
    )]
    #[allow(
        missing_docs,
        clippy::missing_errors_doc,
        reason = "hidden, as tokio's"
    )]
    pub fn set_tos(&self, tos: u32) -> io::Result<()> {
        self.set_tos_v4(tos)
    }

    /// `SO_BINDTODEVICE`: the interface it is bound to.
    ///
    /// # Errors
    /// The option could not be read.
    pub fn device(&self) -> io::Result<Option<Vec<u8>>> {
        self.inner.device()
    }

    /// Sets `SO_BINDTODEVICE`; `None` undoes it.
    ///
    /// # Errors
    /// The option could not be set.
    ///
    /// # Examples
    /// ```no_run
    /// # async fn example() -> std::io::Result<()> {
    /// use flextcp_net::TcpSocket;
    ///
    /// let socket = TcpSocket::new_v4()?;
    /// socket.bind_device(Some(b"eth1"))?;
    /// let stream = socket.connect("192.0.2.1:80".parse().unwrap()).await?;
    /// # Ok(())
    /// # }
    /// ```
    pub fn bind_device(&self, interface: Option<&[u8]>) -> io::Result<()> {
        self.inner.bind_device(interface)
    }

    /// The local address.
    ///
    /// # Errors
    /// Those of `getsockname`.
    pub fn local_addr(&self) -> io::Result<SocketAddr> {
        self.inner.local_addr()?.as_socket().ok_or_else(|| {
            io::Error::new(
                io::ErrorKind::InvalidInput,
                "invalid address family (not IPv4 or IPv6)",
            )
        })
    }

    /// The pending error of the socket (`SO_ERROR`), and clears it.
    ///
    /// # Errors
    /// The option could not be read.
    pub fn take_error(&self) -> io::Result<Option<io::Error>> {
        self.inner.take_error()
    }

    /// Binds to `addr`.
    ///
    /// # Errors
    /// Those of `bind`.
    ///
    /// # Examples
    /// ```no_run
    /// # async fn example() -> std::io::Result<()> {
    /// use flextcp_net::TcpSocket;
    ///
    /// let socket = TcpSocket::new_v4()?;
    /// socket.bind("127.0.0.1:8080".parse().unwrap())?;
    /// let listener = socket.listen(1024)?;
    /// # Ok(())
    /// # }
    /// ```
    pub fn bind(&self, addr: SocketAddr) -> io::Result<()> {
        host::bind(&self.inner, addr)
    }

    /// Connects to `addr`.
    ///
    /// # Errors
    /// Those of `connect`.
    ///
    /// # Panics
    /// Outside of a tokio runtime with IO.
    ///
    /// # Cancel safety
    /// Dropping the future gives the attempt up.
    ///
    /// # Examples
    /// ```no_run
    /// # async fn example() -> std::io::Result<()> {
    /// use flextcp_net::TcpSocket;
    ///
    /// let socket = TcpSocket::new_v4()?;
    /// socket.set_nodelay(true)?;
    /// let stream = socket.connect("192.0.2.1:80".parse().unwrap()).await?;
    /// # Ok(())
    /// # }
    /// ```
    pub async fn connect(self, addr: SocketAddr) -> io::Result<TcpStream> {
        let options = options_of(&SockRef::from(&self.inner));
        host::connect(addr, Some(self.inner), options).await
    }

    /// Listens, with room for `backlog` connections that were not accepted yet.
    ///
    /// # Errors
    /// Those of `listen`.
    ///
    /// # Panics
    /// Outside of a tokio runtime with IO.
    ///
    /// # Examples
    /// ```no_run
    /// # async fn example() -> std::io::Result<()> {
    /// use flextcp_net::TcpSocket;
    ///
    /// let socket = TcpSocket::new_v4()?;
    /// socket.bind("127.0.0.1:0".parse().unwrap())?;
    /// let listener = socket.listen(1024)?;
    /// # Ok(())
    /// # }
    /// ```
    pub fn listen(self, backlog: u32) -> io::Result<TcpListener> {
        let options = options_of(&SockRef::from(&self.inner));
        TcpListener::listen(self.inner, backlog, options)
    }

    /// Takes over a `std::net::TcpStream`, for a socket that was made and set up by other means. It has to be in
    /// non-blocking mode, and not connected.
    ///
    /// # Examples
    /// ```no_run
    /// # async fn example() -> std::io::Result<()> {
    /// use flextcp_net::TcpSocket;
    ///
    /// use socket2::{Domain, Socket, Type};
    ///
    /// let socket = Socket::new(Domain::IPV4, Type::STREAM, None)?;
    /// socket.set_nonblocking(true)?;
    /// let socket = TcpSocket::from_std_stream(socket.into());
    /// # Ok(())
    /// # }
    /// ```
    pub fn from_std_stream(std_stream: std::net::TcpStream) -> Self {
        Self {
            inner: std_stream.into(),
        }
    }
}

impl fmt::Debug for TcpSocket {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.inner.fmt(f)
    }
}

impl AsRawFd for TcpSocket {
    fn as_raw_fd(&self) -> RawFd {
        self.inner.as_raw_fd()
    }
}

impl AsFd for TcpSocket {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.inner.as_fd()
    }
}

impl IntoRawFd for TcpSocket {
    fn into_raw_fd(self) -> RawFd {
        self.inner.into_raw_fd()
    }
}

#[allow(
    unsafe_code,
    reason = "the trait's method is unsafe, and tokio's type has it"
)]
impl FromRawFd for TcpSocket {
    unsafe fn from_raw_fd(fd: RawFd) -> Self {
        // SAFETY: the caller owns `fd`, as this method demands in turn.
        let inner = unsafe { Socket::from_raw_fd(fd) };
        Self { inner }
    }
}
