//! [`TcpStream`].

use std::fmt;
use std::io::{self, IoSlice, IoSliceMut};
use std::net::SocketAddr;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, RawFd};
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::BufMut;
use flextcp_rt::options::{SocketOption, SocketOptions};
use flextcp_rt::socket::Stream;
use socket2::SockRef;
use tokio::io::{AsyncRead, AsyncWrite, Interest, ReadBuf, Ready};
use tokio::net::{ToSocketAddrs, lookup_host};

use super::shadow::{Shadow, linger_seconds};
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

    /// Attempts to receive without removing from the queue; returns how many bytes. `Pending` registers the task;
    /// only the last caller of a polling read method is woken.
    ///
    /// # Examples
    /// ```no_run
    /// # async fn example() -> std::io::Result<()> {
    /// use flextcp_net::TcpStream;
    /// use std::future::poll_fn;
    /// use tokio::io::ReadBuf;
    ///
    /// let stream = TcpStream::connect("192.0.2.1:80").await?;
    /// let mut bytes = [0; 16];
    /// let mut buf = ReadBuf::new(&mut bytes);
    /// let n = poll_fn(|cx| stream.poll_peek(cx, &mut buf)).await?;
    /// # Ok(())
    /// # }
    /// ```
    pub fn poll_peek(
        &self,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<usize>> {
        either!(self, stream => stream.poll_peek(cx, buf))
    }

    /// Receives without removing from the queue; returns how many bytes, 0 at the end of the stream.
    ///
    /// # Errors
    /// The connection's error.
    ///
    /// # Cancel safety
    /// Safe: nothing is taken.
    ///
    /// # Examples
    /// ```no_run
    /// # async fn example() -> std::io::Result<()> {
    /// use flextcp_net::TcpStream;
    /// use tokio::io::AsyncReadExt;
    ///
    /// let mut stream = TcpStream::connect("192.0.2.1:80").await?;
    /// let mut first = [0; 1];
    /// stream.peek(&mut first).await?;
    /// let is_tls = first[0] == 22;
    /// // Whoever reads next gets that byte too.
    /// # let _ = (is_tls, stream.read_u8().await?);
    /// # Ok(())
    /// # }
    /// ```
    pub async fn peek(&self, buf: &mut [u8]) -> io::Result<usize> {
        either!(self, stream => stream.peek(buf).await)
    }

    /// Waits for any of `interest`. The result may be a false positive: an operation after it may say `WouldBlock`.
    ///
    /// # Errors
    /// The runtime is being shut down.
    ///
    /// # Cancel safety
    /// Safe: once ready, it stays ready until an operation says `WouldBlock`.
    ///
    /// # Examples
    /// ```no_run
    /// # async fn example() -> std::io::Result<()> {
    /// use flextcp_net::TcpStream;
    /// use tokio::io::Interest;
    ///
    /// let stream = TcpStream::connect("192.0.2.1:80").await?;
    /// let ready = stream.ready(Interest::READABLE | Interest::WRITABLE).await?;
    /// if ready.is_read_closed() {
    ///     println!("the peer has sent its last byte");
    /// }
    /// # Ok(())
    /// # }
    /// ```
    pub async fn ready(&self, interest: Interest) -> io::Result<Ready> {
        either!(self, stream => stream.ready(interest).await)
    }

    /// Waits until the stream may be readable.
    ///
    /// # Errors
    /// The runtime is being shut down.
    ///
    /// # Cancel safety
    /// Safe, as [`ready`](Self::ready).
    ///
    /// # Examples
    /// ```no_run
    /// # async fn example() -> std::io::Result<()> {
    /// use flextcp_net::TcpStream;
    /// use std::io::ErrorKind;
    ///
    /// let stream = TcpStream::connect("192.0.2.1:80").await?;
    /// let mut buf = [0; 4096];
    /// loop {
    ///     stream.readable().await?;
    ///     match stream.try_read(&mut buf) {
    ///         Ok(0) => break,
    ///         Ok(n) => println!("{n} bytes"),
    ///         Err(error) if error.kind() == ErrorKind::WouldBlock => continue,
    ///         Err(error) => return Err(error),
    ///     }
    /// }
    /// # Ok(())
    /// # }
    /// ```
    pub async fn readable(&self) -> io::Result<()> {
        self.ready(Interest::READABLE).await?;
        Ok(())
    }

    /// Polls for read readiness. Only the last caller of a polling read method is woken.
    pub fn poll_read_ready(&self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        either!(self, stream => stream.poll_read_ready(cx))
    }

    /// Reads without waiting; 0 is the end of the stream, or of an empty `buf`.
    ///
    /// # Errors
    /// `WouldBlock` when nothing is there.
    ///
    /// # Examples
    /// ```no_run
    /// # async fn example() -> std::io::Result<()> {
    /// use flextcp_net::TcpStream;
    ///
    /// let stream = TcpStream::connect("192.0.2.1:80").await?;
    /// stream.readable().await?;
    /// let mut buf = [0; 4096];
    /// let n = stream.try_read(&mut buf)?;
    /// # let _ = n;
    /// # Ok(())
    /// # }
    /// ```
    pub fn try_read(&self, buf: &mut [u8]) -> io::Result<usize> {
        either!(self, stream => stream.try_read(buf))
    }

    /// [`try_read`](Self::try_read) into several buffers, in order.
    ///
    /// # Errors
    /// As [`try_read`](Self::try_read).
    ///
    /// # Examples
    /// ```no_run
    /// # async fn example() -> std::io::Result<()> {
    /// use flextcp_net::TcpStream;
    /// use std::io::IoSliceMut;
    ///
    /// let stream = TcpStream::connect("192.0.2.1:80").await?;
    /// stream.readable().await?;
    /// let (mut head, mut body) = ([0; 16], [0; 4096]);
    /// let n = stream.try_read_vectored(&mut [
    ///     IoSliceMut::new(&mut head),
    ///     IoSliceMut::new(&mut body),
    /// ])?;
    /// # let _ = n;
    /// # Ok(())
    /// # }
    /// ```
    pub fn try_read_vectored(&self, bufs: &mut [IoSliceMut<'_>]) -> io::Result<usize> {
        either!(self, stream => stream.try_read_vectored(bufs))
    }

    /// [`try_read`](Self::try_read), appending to `buf` and advancing it.
    ///
    /// # Errors
    /// As [`try_read`](Self::try_read).
    ///
    /// # Examples
    /// ```no_run
    /// # async fn example() -> std::io::Result<()> {
    /// use flextcp_net::TcpStream;
    ///
    /// let stream = TcpStream::connect("192.0.2.1:80").await?;
    /// stream.readable().await?;
    /// let mut buf = Vec::with_capacity(4096);
    /// stream.try_read_buf(&mut buf)?;
    /// # Ok(())
    /// # }
    /// ```
    pub fn try_read_buf<B: BufMut>(&self, buf: &mut B) -> io::Result<usize> {
        either!(self, stream => stream.try_read_buf(buf))
    }

    /// Waits until the stream may be writable.
    ///
    /// # Errors
    /// The runtime is being shut down.
    ///
    /// # Cancel safety
    /// Safe, as [`ready`](Self::ready).
    ///
    /// # Examples
    /// ```no_run
    /// # async fn example() -> std::io::Result<()> {
    /// use flextcp_net::TcpStream;
    /// use std::io::ErrorKind;
    ///
    /// let stream = TcpStream::connect("192.0.2.1:80").await?;
    /// let n = loop {
    ///     stream.writable().await?;
    ///     match stream.try_write(b"hello") {
    ///         Err(error) if error.kind() == ErrorKind::WouldBlock => continue,
    ///         result => break result?,
    ///     }
    /// };
    /// # let _ = n;
    /// # Ok(())
    /// # }
    /// ```
    pub async fn writable(&self) -> io::Result<()> {
        self.ready(Interest::WRITABLE).await?;
        Ok(())
    }

    /// Polls for write readiness. Only the last caller of a polling write method is woken.
    pub fn poll_write_ready(&self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        either!(self, stream => stream.poll_write_ready(cx))
    }

    /// Writes as much as fits without waiting; returns how many bytes.
    ///
    /// # Errors
    /// `WouldBlock` when nothing fits; `BrokenPipe` after a shutdown.
    ///
    /// # Examples
    /// ```no_run
    /// # async fn example() -> std::io::Result<()> {
    /// use flextcp_net::TcpStream;
    ///
    /// let stream = TcpStream::connect("192.0.2.1:80").await?;
    /// stream.writable().await?;
    /// let n = stream.try_write(b"hello")?;
    /// # let _ = n;
    /// # Ok(())
    /// # }
    /// ```
    pub fn try_write(&self, buf: &[u8]) -> io::Result<usize> {
        either!(self, stream => stream.try_write(buf))
    }

    /// [`try_write`](Self::try_write) of several buffers, in order.
    ///
    /// # Errors
    /// As [`try_write`](Self::try_write).
    ///
    /// # Examples
    /// ```no_run
    /// # async fn example() -> std::io::Result<()> {
    /// use flextcp_net::TcpStream;
    /// use std::io::IoSlice;
    ///
    /// let stream = TcpStream::connect("192.0.2.1:80").await?;
    /// stream.writable().await?;
    /// let n = stream.try_write_vectored(&[IoSlice::new(b"head"), IoSlice::new(b"body")])?;
    /// # let _ = n;
    /// # Ok(())
    /// # }
    /// ```
    pub fn try_write_vectored(&self, bufs: &[IoSlice<'_>]) -> io::Result<usize> {
        either!(self, stream => stream.try_write_vectored(bufs))
    }

    /// Runs `f` if the stream is ready for `interest`, and forgets the readiness when it says `WouldBlock`.
    ///
    /// # Errors
    /// `WouldBlock` when not ready, else those of `f`.
    pub fn try_io<R>(
        &self,
        interest: Interest,
        f: impl FnOnce() -> io::Result<R>,
    ) -> io::Result<R> {
        match &self.inner {
            Inner::Kernel(stream) => stream.try_io(interest, f),
            Inner::Flex(flex) => flex.stream().try_io(interest, || flex.shadow.run(f)),
        }
    }

    /// Runs `f` when the stream is ready for `interest`, again as long as it says `WouldBlock`.
    ///
    /// # Errors
    /// Those of `f`; the runtime is being shut down.
    ///
    /// # Cancel safety
    /// As `f`: it runs between awaits.
    ///
    /// # Examples
    /// ```no_run
    /// # async fn example() -> std::io::Result<()> {
    /// use flextcp_net::TcpStream;
    /// use tokio::io::Interest;
    ///
    /// let stream = TcpStream::connect("192.0.2.1:80").await?;
    /// let mut buf = [0; 4096];
    /// let n = stream
    ///     .async_io(Interest::READABLE, || stream.try_read(&mut buf))
    ///     .await?;
    /// # let _ = n;
    /// # Ok(())
    /// # }
    /// ```
    pub async fn async_io<R>(
        &self,
        interest: Interest,
        mut f: impl FnMut() -> io::Result<R>,
    ) -> io::Result<R> {
        match &self.inner {
            Inner::Kernel(stream) => stream.async_io(interest, f).await,
            Inner::Flex(flex) => {
                let operation = || flex.shadow.run(&mut f);
                flex.stream().async_io(interest, operation).await
            }
        }
    }

    /// Ends the write direction; returns at once.
    pub(super) fn shutdown_write(&self) -> io::Result<()> {
        match &self.inner {
            Inner::Kernel(stream) => {
                match SockRef::from(stream).shutdown(std::net::Shutdown::Write) {
                    // tokio's rule (tokio#4665): a connection that is over is shut down.
                    Err(error) if error.kind() == io::ErrorKind::NotConnected => Ok(()),
                    result => result,
                }
            }
            Inner::Flex(flex) => {
                flex.stream().shutdown_write();
                Ok(())
            }
        }
    }

    /// `TCP_NODELAY`: whether Nagle's algorithm is off.
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
    /// assert!(!stream.nodelay()?);
    /// # Ok(())
    /// # }
    /// ```
    pub fn nodelay(&self) -> io::Result<bool> {
        match &self.inner {
            Inner::Kernel(stream) => stream.nodelay(),
            Inner::Flex(flex) => Ok(flex.stream().nodelay()),
        }
    }

    /// Sets `TCP_NODELAY`: segments are sent as soon as possible, also short ones.
    ///
    /// # Errors
    /// The option could not be set.
    ///
    /// # Examples
    /// ```no_run
    /// # async fn example() -> std::io::Result<()> {
    /// use flextcp_net::TcpStream;
    ///
    /// let stream = TcpStream::connect("192.0.2.1:80").await?;
    /// stream.set_nodelay(true)?;
    /// # Ok(())
    /// # }
    /// ```
    pub fn set_nodelay(&self, nodelay: bool) -> io::Result<()> {
        match &self.inner {
            Inner::Kernel(stream) => stream.set_nodelay(nodelay)?,
            Inner::Flex(flex) => flex.set(SocketOption::NoDelay(nodelay)),
        }
        Ok(())
    }

    /// `TCP_QUICKACK`: whether acknowledgements are sent at once.
    ///
    /// # Errors
    /// The option could not be read.
    pub fn quickack(&self) -> io::Result<bool> {
        match &self.inner {
            Inner::Kernel(stream) => stream.quickack(),
            Inner::Flex(flex) => Ok(flex.stream().quickack()),
        }
    }

    /// Sets `TCP_QUICKACK`. It is not permanent: the stack may leave the mode by itself.
    ///
    /// # Errors
    /// The option could not be set.
    ///
    /// # Examples
    /// ```no_run
    /// # async fn example() -> std::io::Result<()> {
    /// use flextcp_net::TcpStream;
    ///
    /// let stream = TcpStream::connect("192.0.2.1:80").await?;
    /// stream.set_quickack(true)?;
    /// # Ok(())
    /// # }
    /// ```
    pub fn set_quickack(&self, quickack: bool) -> io::Result<()> {
        match &self.inner {
            Inner::Kernel(stream) => stream.set_quickack(quickack)?,
            Inner::Flex(flex) => flex.set(SocketOption::QuickAck(quickack)),
        }
        Ok(())
    }

    /// `SO_LINGER`.
    ///
    /// # Errors
    /// The option could not be read.
    pub fn linger(&self) -> io::Result<Option<Duration>> {
        match &self.inner {
            Inner::Kernel(stream) => stream.linger(),
            Inner::Flex(flex) => Ok(flex.stream().linger()),
        }
    }

    /// Sets `SO_LINGER`, in whole seconds.
    ///
    /// # Errors
    /// The option could not be set.
    #[deprecated = "`SO_LINGER` causes the socket to block the thread on drop"]
    pub fn set_linger(&self, dur: Option<Duration>) -> io::Result<()> {
        match &self.inner {
            Inner::Kernel(stream) => SockRef::from(stream).set_linger(dur)?,
            Inner::Flex(flex) => flex.set(SocketOption::Linger(linger_seconds(dur))),
        }
        Ok(())
    }

    /// Makes dropping the stream a reset: what was not sent yet is lost.
    ///
    /// # Errors
    /// The option could not be set.
    ///
    /// # Examples
    /// ```no_run
    /// # async fn example() -> std::io::Result<()> {
    /// use flextcp_net::TcpStream;
    ///
    /// let stream = TcpStream::connect("192.0.2.1:80").await?;
    /// // The peer sees a reset, not an end.
    /// stream.set_zero_linger()?;
    /// drop(stream);
    /// # Ok(())
    /// # }
    /// ```
    pub fn set_zero_linger(&self) -> io::Result<()> {
        match &self.inner {
            Inner::Kernel(stream) => stream.set_zero_linger()?,
            Inner::Flex(flex) => flex.set(SocketOption::Linger(Some(Duration::ZERO))),
        }
        Ok(())
    }

    /// `IP_TTL`.
    ///
    /// # Errors
    /// The option could not be read.
    pub fn ttl(&self) -> io::Result<u32> {
        match &self.inner {
            Inner::Kernel(stream) => stream.ttl(),
            Inner::Flex(flex) => Ok(flex.stream().ttl()),
        }
    }

    /// Sets `IP_TTL`, the hop limit of every packet sent.
    ///
    /// # Errors
    /// `InvalidInput` outside of 1 to 255.
    ///
    /// # Examples
    /// ```no_run
    /// # async fn example() -> std::io::Result<()> {
    /// use flextcp_net::TcpStream;
    ///
    /// let stream = TcpStream::connect("192.0.2.1:80").await?;
    /// // To the next router and no further.
    /// stream.set_ttl(1)?;
    /// # Ok(())
    /// # }
    /// ```
    pub fn set_ttl(&self, ttl: u32) -> io::Result<()> {
        match &self.inner {
            Inner::Kernel(stream) => stream.set_ttl(ttl)?,
            Inner::Flex(flex) => flex.set(SocketOption::Ttl(super::hop_limit(ttl)?)),
        }
        Ok(())
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

    pub(super) fn poll_read_shared(
        &self,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        match &self.inner {
            Inner::Kernel(stream) => kernel::poll_read(stream, cx, buf),
            Inner::Flex(flex) => flex.stream().poll_read(cx, buf),
        }
    }

    pub(super) fn poll_write_shared(
        &self,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        match &self.inner {
            Inner::Kernel(stream) => kernel::poll_write(stream, cx, |stream| stream.try_write(buf)),
            Inner::Flex(flex) => flex.stream().poll_write(cx, buf),
        }
    }

    pub(super) fn poll_write_vectored_shared(
        &self,
        cx: &mut Context<'_>,
        bufs: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        match &self.inner {
            Inner::Kernel(stream) => {
                kernel::poll_write(stream, cx, |stream| stream.try_write_vectored(bufs))
            }
            Inner::Flex(flex) => flex.stream().poll_write_vectored(cx, bufs),
        }
    }
}

/// tokio's polling operations want `&mut`; the owned halves share a kernel stream by `&`.
mod kernel {
    use std::io;
    use std::task::{Context, Poll, ready};

    use tokio::io::ReadBuf;
    use tokio::net::TcpStream;

    pub(super) fn poll_read(
        stream: &TcpStream,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        loop {
            ready!(stream.poll_read_ready(cx))?;
            match stream.try_read_buf(buf) {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                result => return Poll::Ready(result.map(drop)),
            }
        }
    }

    pub(super) fn poll_write(
        stream: &TcpStream,
        cx: &mut Context<'_>,
        mut write: impl FnMut(&TcpStream) -> io::Result<usize>,
    ) -> Poll<io::Result<usize>> {
        loop {
            ready!(stream.poll_write_ready(cx))?;
            match write(stream) {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                result => return Poll::Ready(result),
            }
        }
    }
}

impl TryFrom<std::net::TcpStream> for TcpStream {
    type Error = io::Error;

    /// [`TcpStream::from_std`].
    fn try_from(stream: std::net::TcpStream) -> Result<Self, Self::Error> {
        Self::from_std(stream)
    }
}

impl AsyncRead for TcpStream {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        match &mut self.get_mut().inner {
            Inner::Kernel(stream) => Pin::new(stream).poll_read(cx, buf),
            Inner::Flex(flex) => flex.stream().poll_read(cx, buf),
        }
    }
}

impl AsyncWrite for TcpStream {
    fn poll_write(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        match &mut self.get_mut().inner {
            Inner::Kernel(stream) => Pin::new(stream).poll_write(cx, buf),
            Inner::Flex(flex) => flex.stream().poll_write(cx, buf),
        }
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        match &mut self.get_mut().inner {
            Inner::Kernel(stream) => Pin::new(stream).poll_write_vectored(cx, bufs),
            Inner::Flex(flex) => flex.stream().poll_write_vectored(cx, bufs),
        }
    }

    fn is_write_vectored(&self) -> bool {
        true
    }

    /// TCP has nothing to flush.
    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(self.shutdown_write())
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
