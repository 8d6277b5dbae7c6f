//! [`TcpStream`].

mod data;
mod options;
mod readiness;

use std::fmt;
use std::io;
use std::net::SocketAddr;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, RawFd};

use flextcp_rt::options::{SocketOption, SocketOptions};
use flextcp_rt::socket::Stream;
use tokio::net::{ToSocketAddrs, lookup_host};

use super::shadow::Shadow;
use super::split::{ReadHalf, WriteHalf};
use super::split_owned::{self, OwnedReadHalf, OwnedWriteHalf};
use crate::host;

/// A TCP stream between a local and a remote socket: `tokio::net::TcpStream`, on the NIC where the way to the
/// peer is accelerated.
///
/// Reading and writing is done with the methods of `AsyncReadExt` and `AsyncWriteExt`. To shut down the stream in
/// the write direction, call `shutdown`. Dropping the stream closes it in both; what was written is still sent,
/// unless received bytes were left unread or linger is zero: then the connection is reset.
pub struct TcpStream {
    pub(crate) inner: Inner,
}

pub(crate) enum Inner {
    Kernel(tokio::net::TcpStream),
    Flex(Flex),
}

/// A connection on the NIC.
pub(crate) struct Flex {
    /// Dropped first: what was read through it is not unread when the stream goes.
    shadow: Shadow,
    stream: Stream,
}

impl Flex {
    /// The stream, with what was set through the shadow descriptor.
    pub(crate) fn stream(&self) -> &Stream {
        self.shadow.mirror(&self.stream);
        &self.stream
    }

    pub(crate) fn set(&self, option: SocketOption) {
        self.stream().set_option(option);
        self.shadow.follow(&self.stream, self.stream.local_addr());
    }
}

/// Runs the same method on either kind.
macro_rules! either {
    ($stream:expr, $inner:ident => $call:expr) => {
        match &$stream.inner {
            Inner::Kernel($inner) => $call,
            Inner::Flex(flex) => {
                let $inner = flex.stream();
                $call
            }
        }
    };
}
use either;

impl TcpStream {
    pub(crate) const fn kernel(stream: tokio::net::TcpStream) -> Self {
        Self {
            inner: Inner::Kernel(stream),
        }
    }

    pub(crate) fn flex(stream: Stream) -> Self {
        Self {
            inner: Inner::Flex(Flex {
                stream,
                shadow: Shadow::default(),
            }),
        }
    }

    /// Opens a connection to a remote host, trying each address that `addr` resolves to.
    ///
    /// # Errors
    /// That of the last address tried; `InvalidInput` when there is none.
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
    /// use flextcp_net::TcpStream;
    /// use tokio::io::{AsyncReadExt, AsyncWriteExt};
    ///
    /// let mut stream = TcpStream::connect("example.org:80").await?;
    /// stream.write_all(b"GET / HTTP/1.0\r\n\r\n").await?;
    /// let mut answer = Vec::new();
    /// stream.read_to_end(&mut answer).await?;
    /// # Ok(())
    /// # }
    /// ```
    pub async fn connect<A: ToSocketAddrs>(addr: A) -> io::Result<Self> {
        let addrs = lookup_host(addr).await?;
        let mut last = None;
        for addr in addrs {
            match host::connect(addr, None, SocketOptions::default()).await {
                Ok(stream) => return Ok(stream),
                Err(error) => last = Some(error),
            }
        }
        Err(last.unwrap_or_else(super::unresolved))
    }

    /// Takes over a connected `std::net::TcpStream`, which has to be in non-blocking mode.
    ///
    /// An established connection over an accelerated interface becomes ours, with its unread bytes and those on their
    /// way: the kernel's socket is gone then, and [`as_raw_fd`](AsRawFd::as_raw_fd) is another. It stays a kernel socket
    /// without CAP_NET_ADMIN, when its peer has closed its direction, and when this process has another descriptor of it
    /// (or more than 1,024 descriptors). One that another process holds is dead afterwards.
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
    /// use flextcp_net::TcpStream;
    ///
    /// let stream = std::net::TcpStream::connect("192.0.2.1:80")?;
    /// stream.set_nonblocking(true)?;
    /// // From here on the NIC's, where the way to the peer is accelerated.
    /// let stream = TcpStream::from_std(stream)?;
    /// # Ok(())
    /// # }
    /// ```
    #[track_caller]
    pub fn from_std(stream: std::net::TcpStream) -> io::Result<Self> {
        host::from_std(stream)
    }

    /// Turns the stream into a `std::net::TcpStream`, in non-blocking mode. A connection on the NIC is handed over
    /// to the kernel, which carries it on. Where that cannot be (it needs CAP_NET_ADMIN, an established connection,
    /// and a peer outside of this process), the result is a kernel socket from and to which a thread copies; without
    /// CAP_NET_ADMIN its `local_addr` and `peer_addr` are not those of the connection.
    ///
    /// # Errors
    /// No socket could be made. The connection is closed then.
    ///
    /// # Examples
    /// ```no_run
    /// # async fn example() -> std::io::Result<()> {
    /// use flextcp_net::TcpStream;
    ///
    /// let stream = TcpStream::connect("192.0.2.1:80").await?;
    /// // From here on the kernel's: to be given to a child process, say.
    /// let stream = stream.into_std()?;
    /// stream.set_nonblocking(false)?;
    /// # Ok(())
    /// # }
    /// ```
    pub fn into_std(self) -> io::Result<std::net::TcpStream> {
        match self.inner {
            Inner::Kernel(stream) => stream.into_std(),
            Inner::Flex(flex) => {
                // Last look at what was set through the descriptor.
                flex.stream();
                host::into_std(flex.stream)
            }
        }
    }

    /// The local address.
    ///
    /// # Errors
    /// Those of `getsockname`.
    ///
    /// # Examples
    /// ```no_run
    /// # async fn example() -> std::io::Result<()> {
    /// use flextcp_net::TcpStream;
    ///
    /// let stream = TcpStream::connect("192.0.2.1:80").await?;
    /// println!("connected from {}", stream.local_addr()?);
    /// # Ok(())
    /// # }
    /// ```
    pub fn local_addr(&self) -> io::Result<SocketAddr> {
        match &self.inner {
            Inner::Kernel(stream) => stream.local_addr(),
            Inner::Flex(flex) => Ok(flex.stream.local_addr()),
        }
    }

    /// The remote address.
    ///
    /// # Errors
    /// `NotConnected` once the connection was reset.
    ///
    /// # Examples
    /// ```no_run
    /// # async fn example() -> std::io::Result<()> {
    /// use flextcp_net::TcpStream;
    ///
    /// let stream = TcpStream::connect("192.0.2.1:80").await?;
    /// println!("connected to {}", stream.peer_addr()?);
    /// # Ok(())
    /// # }
    /// ```
    pub fn peer_addr(&self) -> io::Result<SocketAddr> {
        match &self.inner {
            Inner::Kernel(stream) => stream.peer_addr(),
            Inner::Flex(flex) => flex.stream.peer_addr(),
        }
    }

    /// The pending error of the socket (`SO_ERROR`), and clears it.
    ///
    /// # Errors
    /// The option could not be read.
    ///
    /// # Examples
    /// ```no_run
    /// # async fn example() -> std::io::Result<()> {
    /// use flextcp_net::TcpStream;
    ///
    /// let stream = TcpStream::connect("192.0.2.1:80").await?;
    /// if let Some(error) = stream.take_error()? {
    ///     eprintln!("the connection failed: {error}");
    /// }
    /// # Ok(())
    /// # }
    /// ```
    pub fn take_error(&self) -> io::Result<Option<io::Error>> {
        match &self.inner {
            Inner::Kernel(stream) => stream.take_error(),
            Inner::Flex(flex) => Ok(flex.stream.take_error()),
        }
    }

    /// Splits the stream into a reading and a writing half that borrow it.
    ///
    /// # Examples
    /// ```no_run
    /// # async fn example() -> std::io::Result<()> {
    /// use flextcp_net::TcpStream;
    /// use tokio::io::copy;
    ///
    /// let mut stream = TcpStream::connect("192.0.2.1:80").await?;
    /// let (mut read, mut write) = stream.split();
    /// copy(&mut read, &mut write).await?;
    /// # Ok(())
    /// # }
    /// ```
    #[allow(
        clippy::needless_lifetimes,
        reason = "tokio's signature, which tells that it borrows"
    )]
    pub fn split<'a>(&'a mut self) -> (ReadHalf<'a>, WriteHalf<'a>) {
        (ReadHalf(self), WriteHalf(self))
    }

    /// Splits the stream into a reading and a writing half that own it. Dropping the writing half shuts the write
    /// direction down.
    ///
    /// # Examples
    /// ```no_run
    /// # async fn example() -> std::io::Result<()> {
    /// use flextcp_net::TcpStream;
    /// use tokio::io::{AsyncWriteExt, copy, sink};
    ///
    /// let stream = TcpStream::connect("192.0.2.1:80").await?;
    /// let (mut read, mut write) = stream.into_split();
    /// tokio::spawn(async move { copy(&mut read, &mut sink()).await });
    /// write.write_all(b"hello").await?;
    /// # Ok(())
    /// # }
    /// ```
    pub fn into_split(self) -> (OwnedReadHalf, OwnedWriteHalf) {
        split_owned::split(self)
    }
}

impl TryFrom<std::net::TcpStream> for TcpStream {
    type Error = io::Error;

    /// [`TcpStream::from_std`].
    fn try_from(stream: std::net::TcpStream) -> Result<Self, Self::Error> {
        Self::from_std(stream)
    }
}

impl fmt::Debug for TcpStream {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.inner {
            Inner::Kernel(stream) => stream.fmt(f),
            Inner::Flex(flex) => flex.stream.fmt(f),
        }
    }
}

impl AsRef<Self> for TcpStream {
    fn as_ref(&self) -> &Self {
        self
    }
}

/// Of a connection on the NIC this is a shadow socket, made on first use. Options set through it take effect with the
/// next operation on the stream. It shows what the stream received and did not read, to be peeked at or read until
/// the next operation on the stream; in `try_io` and `async_io` always. Writes to it fail.
impl AsFd for TcpStream {
    fn as_fd(&self) -> BorrowedFd<'_> {
        match &self.inner {
            Inner::Kernel(stream) => stream.as_fd(),
            Inner::Flex(flex) => flex.shadow.fd(&flex.stream, flex.stream.local_addr()),
        }
    }
}

/// As [`AsFd`].
impl AsRawFd for TcpStream {
    fn as_raw_fd(&self) -> RawFd {
        self.as_fd().as_raw_fd()
    }
}
