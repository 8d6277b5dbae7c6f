//! What FlexTCP adds to a stream.

use std::future::Future;
use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::{Buf, Bytes};
use tokio::io::{AsyncBufRead, AsyncRead, Interest, ReadBuf};

use crate::TcpStream;

#[cfg(all(target_os = "linux", not(feature = "kernel")))]
mod flex;
mod kernel;

#[cfg(all(target_os = "linux", not(feature = "kernel")))]
use flex as backend;
#[cfg(any(not(target_os = "linux"), feature = "kernel"))]
use kernel as backend;

mod sealed {
    /// Implemented for this crate's stream only: methods may be added.
    pub trait Sealed {}
}

#[cfg(target_os = "linux")]
pub use flextcp_rt::options::KeepAlive;
#[cfg(target_os = "linux")]
pub use flextcp_rt::tcp::TcpInfo;

/// When and how often an idle connection is probed.
#[cfg(not(target_os = "linux"))]
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct KeepAlive {
    /// Idle time before the first probe.
    pub time: Duration,
    /// Time between probes.
    pub interval: Duration,
    /// Unanswered probes after which the connection is dead.
    pub count: u32,
}

/// Of a connection on the NIC; there is none on this system.
#[cfg(not(target_os = "linux"))]
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum TcpInfo {}

/// What a [`TcpStream`] can do beyond tokio's. It works with kernel sockets too, with the copies that they need.
pub trait TcpStreamExt: sealed::Sealed + Sync {
    /// Whether FlexTCP carries the connection, rather than a kernel socket.
    fn is_accelerated(&self) -> bool;

    /// Whether the NIC carries the connection at this moment. `false` while the slow path has it: for a moment
    /// after the handshake, during loss recovery, once a side closed. Cheap enough to ask at every read.
    ///
    /// # Examples
    /// ```no_run
    /// # async fn example() -> std::io::Result<()> {
    /// use flextcp_net::{TcpStream, TcpStreamExt};
    ///
    /// let stream = TcpStream::connect("192.0.2.1:80").await?;
    /// println!("on the NIC: {}", stream.is_offloaded());
    /// # Ok(())
    /// # }
    /// ```
    fn is_offloaded(&self) -> bool;

    /// A snapshot of the connection; `None` of a kernel socket, and when the connection is forgotten.
    ///
    /// # Examples
    /// ```no_run
    /// # async fn example() -> std::io::Result<()> {
    /// use flextcp_net::{TcpStream, TcpStreamExt};
    ///
    /// let stream = TcpStream::connect("192.0.2.1:80").await?;
    /// # #[cfg(target_os = "linux")]
    /// if let Some(info) = stream.info() {
    ///     println!("{:?} round trip, {} bytes of window", info.rtt, info.snd_cwnd);
    /// }
    /// # Ok(())
    /// # }
    /// ```
    fn info(&self) -> Option<TcpInfo>;

    /// Receives at least one and at most `max` bytes, or none at the end of the stream. On the NIC nothing is copied:
    /// the bytes lie where the NIC placed them, and hold that part of the receive window until they are dropped.
    ///
    /// # Errors
    /// The connection's error.
    ///
    /// # Cancel safety
    /// Safe: a dropped future has taken nothing.
    ///
    /// # Examples
    /// ```no_run
    /// # async fn example() -> std::io::Result<()> {
    /// use flextcp_net::{TcpStream, TcpStreamExt};
    ///
    /// let stream = TcpStream::connect("192.0.2.1:80").await?;
    /// loop {
    ///     let chunk = stream.read_chunk(64 << 10).await?;
    ///     if chunk.is_empty() {
    ///         break;
    ///     }
    ///     println!("{} bytes, where the NIC placed them", chunk.len());
    /// }
    /// # Ok(())
    /// # }
    /// ```
    fn read_chunk(&self, max: usize) -> impl Future<Output = io::Result<Bytes>> + Send;

    /// Sends all of `bytes`. They are copied into the send buffer once, as with `write_all`.
    ///
    /// # Errors
    /// The connection's error; part of the bytes may have been sent.
    ///
    /// # Cancel safety
    /// Not safe: a dropped future may have sent part of the bytes.
    ///
    /// # Examples
    /// ```no_run
    /// # async fn example() -> std::io::Result<()> {
    /// use flextcp_net::{TcpStream, TcpStreamExt};
    /// use bytes::Bytes;
    ///
    /// let stream = TcpStream::connect("192.0.2.1:80").await?;
    /// stream.write_owned(Bytes::from_static(b"hello")).await?;
    /// # Ok(())
    /// # }
    /// ```
    fn write_owned(&self, bytes: Bytes) -> impl Future<Output = io::Result<()>> + Send;

    /// Keep-alive with its times, `None` when it is off.
    ///
    /// # Errors
    /// The option could not be read.
    fn keepalive(&self) -> io::Result<Option<KeepAlive>>;

    /// Sets keep-alive with its times; `None` turns it off.
    ///
    /// # Errors
    /// The option could not be set.
    ///
    /// # Examples
    /// ```no_run
    /// # async fn example() -> std::io::Result<()> {
    /// use flextcp_net::{KeepAlive, TcpStream, TcpStreamExt};
    /// use std::time::Duration;
    ///
    /// let stream = TcpStream::connect("192.0.2.1:80").await?;
    /// stream.set_keepalive(Some(KeepAlive {
    ///     time: Duration::from_secs(60),
    ///     interval: Duration::from_secs(10),
    ///     count: 5,
    /// }))?;
    /// # Ok(())
    /// # }
    /// ```
    fn set_keepalive(&self, keepalive: Option<KeepAlive>) -> io::Result<()>;

    /// How long data may stay unacknowledged before the connection fails (RFC 5482); `None` is the system's rule.
    ///
    /// # Errors
    /// The option could not be read.
    fn user_timeout(&self) -> io::Result<Option<Duration>>;

    /// Sets that.
    ///
    /// # Errors
    /// The option could not be set.
    ///
    /// # Examples
    /// ```no_run
    /// # async fn example() -> std::io::Result<()> {
    /// use flextcp_net::{TcpStream, TcpStreamExt};
    /// use std::time::Duration;
    ///
    /// let stream = TcpStream::connect("192.0.2.1:80").await?;
    /// stream.set_user_timeout(Some(Duration::from_secs(30)))?;
    /// # Ok(())
    /// # }
    /// ```
    fn set_user_timeout(&self, timeout: Option<Duration>) -> io::Result<()>;

    /// Name of the congestion control.
    ///
    /// # Errors
    /// The option could not be read.
    fn congestion(&self) -> io::Result<String>;

    /// Sets that: `reno`, `cubic`, `dctcp`, `bbr`, or what the kernel knows for one of its sockets.
    ///
    /// # Errors
    /// `NotFound` for an unknown name.
    ///
    /// # Examples
    /// ```no_run
    /// # async fn example() -> std::io::Result<()> {
    /// use flextcp_net::{TcpStream, TcpStreamExt};
    ///
    /// let stream = TcpStream::connect("192.0.2.1:80").await?;
    /// stream.set_congestion("bbr")?;
    /// # Ok(())
    /// # }
    /// ```
    fn set_congestion(&self, name: &str) -> io::Result<()>;
}

impl sealed::Sealed for TcpStream {}

impl TcpStreamExt for TcpStream {
    fn is_accelerated(&self) -> bool {
        backend::is_accelerated(self)
    }

    fn is_offloaded(&self) -> bool {
        backend::is_offloaded(self)
    }

    fn info(&self) -> Option<TcpInfo> {
        backend::info(self)
    }

    async fn read_chunk(&self, max: usize) -> io::Result<Bytes> {
        self.async_io(Interest::READABLE, || backend::try_read_chunk(self, max))
            .await
    }

    async fn write_owned(&self, mut bytes: Bytes) -> io::Result<()> {
        while !bytes.is_empty() {
            match self
                .async_io(Interest::WRITABLE, || self.try_write(&bytes))
                .await?
            {
                0 => return Err(io::ErrorKind::WriteZero.into()),
                n => bytes.advance(n),
            }
        }
        Ok(())
    }

    fn keepalive(&self) -> io::Result<Option<KeepAlive>> {
        backend::keepalive(self)
    }

    fn set_keepalive(&self, keepalive: Option<KeepAlive>) -> io::Result<()> {
        backend::set_keepalive(self, keepalive)
    }

    fn user_timeout(&self) -> io::Result<Option<Duration>> {
        backend::user_timeout(self)
    }

    fn set_user_timeout(&self, timeout: Option<Duration>) -> io::Result<()> {
        backend::set_user_timeout(self, timeout)
    }

    fn congestion(&self) -> io::Result<String> {
        backend::congestion(self)
    }

    fn set_congestion(&self, name: &str) -> io::Result<()> {
        backend::set_congestion(self, name)
    }
}

/// Reads a stream as [`AsyncBufRead`], without a copy where the NIC carries the connection: `fill_buf` shows the
/// bytes where the NIC placed them. The stream must not be read by other means meanwhile.
///
/// # Examples
/// ```no_run
/// # async fn example() -> std::io::Result<()> {
/// use flextcp_net::{ChunkReader, TcpStream};
/// use tokio::io::AsyncBufReadExt;
///
/// let stream = TcpStream::connect("192.0.2.1:80").await?;
/// let mut lines = ChunkReader::new(stream).lines();
/// while let Some(line) = lines.next_line().await? {
///     println!("{line}");
/// }
/// # Ok(())
/// # }
/// ```
#[derive(Debug)]
pub struct ChunkReader<S> {
    stream: S,
    chunk: backend::Filled,
}

impl<S: AsRef<TcpStream>> ChunkReader<S> {
    /// Reads `stream`: a [`TcpStream`], or a reading half of one.
    pub fn new(stream: S) -> Self {
        Self {
            stream,
            chunk: backend::Filled::default(),
        }
    }

    /// The stream.
    pub const fn get_ref(&self) -> &S {
        &self.stream
    }

    /// The stream, for writing.
    pub const fn get_mut(&mut self) -> &mut S {
        &mut self.stream
    }

    /// The stream back. What `fill_buf` showed and `consume` did not take is lost with a kernel socket.
    pub fn into_inner(self) -> S {
        self.stream
    }
}

impl<S: AsRef<TcpStream> + Unpin> AsyncBufRead for ChunkReader<S> {
    fn poll_fill_buf(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<&[u8]>> {
        let Self { stream, chunk } = self.get_mut();
        if chunk.bytes().is_empty() {
            ready!(chunk.poll_fill(stream.as_ref(), cx))?;
        }
        Poll::Ready(Ok(chunk.bytes()))
    }

    fn consume(self: Pin<&mut Self>, n: usize) {
        let Self { stream, chunk } = self.get_mut();
        chunk.consume(stream.as_ref(), n);
    }
}

impl<S: AsRef<TcpStream> + Unpin> AsyncRead for ChunkReader<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let bytes = ready!(self.as_mut().poll_fill_buf(cx))?;
        let n = bytes.len().min(buf.remaining());
        buf.put_slice(&bytes[..n]);
        self.consume(n);
        Poll::Ready(Ok(()))
    }
}
