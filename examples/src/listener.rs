//! One listener and one stream type over both transports, chosen at run time.

use std::fmt;
use std::io::{self, IoSlice};
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll};
use std::time::Duration;

use flextcp_net::{self as net, TcpStreamExt};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::time::timeout;

/// How long a connection that was just accepted may take to get to the NIC.
const SETTLING: Duration = Duration::from_millis(5);

/// Which sockets a server runs on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Transport {
    /// `flextcp_net`: the NIC where it can, kernel sockets where it cannot.
    FlexTcp,
    /// `tokio::net`.
    Kernel,
}

/// A listening socket of either transport.
#[derive(Debug)]
pub enum Listener {
    /// A listener of `flextcp_net`.
    FlexTcp(net::TcpListener),
    /// A listener of `tokio::net`.
    Kernel(tokio::net::TcpListener),
}

impl Listener {
    /// Binds `address` and listens.
    ///
    /// # Errors
    ///
    /// [`BindError`], whose text names the address, the cause and what to do.
    pub async fn bind(transport: Transport, address: SocketAddr) -> Result<Self, BindError> {
        let bound = match transport {
            Transport::FlexTcp => net::TcpListener::bind(address).await.map(Self::FlexTcp),
            Transport::Kernel => tokio::net::TcpListener::bind(address)
                .await
                .map(Self::Kernel),
        };
        bound.map_err(|source| BindError::new(address, source))
    }

    /// The address it listens on, with the port that the system chose.
    ///
    /// # Errors
    ///
    /// What the socket's own method returns.
    pub fn local_addr(&self) -> io::Result<SocketAddr> {
        match self {
            Self::FlexTcp(listener) => listener.local_addr(),
            Self::Kernel(listener) => listener.local_addr(),
        }
    }

    /// Accepts one connection. Cancel safe, as both transports' `accept` are.
    ///
    /// # Errors
    ///
    /// What the socket's own method returns.
    pub async fn accept(&self) -> io::Result<Stream> {
        let (inner, peer) = match self {
            Self::FlexTcp(listener) => {
                let (stream, peer) = listener.accept().await?;
                (Inner::FlexTcp(stream), peer)
            }
            Self::Kernel(listener) => {
                let (stream, peer) = listener.accept().await?;
                (Inner::Kernel(stream), peer)
            }
        };
        Ok(Stream::new(inner, peer))
    }
}

/// Why a listening address could not be used.
#[derive(Debug)]
pub struct BindError {
    address: SocketAddr,
    source: io::Error,
}

impl BindError {
    pub(crate) const fn new(address: SocketAddr, source: io::Error) -> Self {
        Self { address, source }
    }
}

impl fmt::Display for BindError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { address, source } = self;
        write!(f, "cannot listen on {address}: {source}")?;
        match source.kind() {
            io::ErrorKind::AddrInUse => write!(
                f,
                "; another program holds the port (`ss -ltnp 'sport = :{}'` shows which): \
                 stop it, or choose another port with --listen {}:PORT",
                address.port(),
                Host(*address)
            ),
            io::ErrorKind::AddrNotAvailable => write!(
                f,
                "; no interface of this host has that address (`ip addr` lists them): \
                 choose another with --listen ADDRESS:{}",
                address.port()
            ),
            io::ErrorKind::PermissionDenied => write!(
                f,
                "; ports below 1024 need CAP_NET_BIND_SERVICE: choose a higher one with \
                 --listen {}:PORT",
                Host(*address)
            ),
            _ => Ok(()),
        }
    }
}

impl std::error::Error for BindError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        Some(&self.source)
    }
}

/// The address part, bracketed as `--listen` takes it.
struct Host(SocketAddr);

impl fmt::Display for Host {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            SocketAddr::V4(address) => write!(f, "{}", address.ip()),
            SocketAddr::V6(address) => write!(f, "[{}]", address.ip()),
        }
    }
}

#[derive(Debug)]
enum Inner {
    FlexTcp(net::TcpStream),
    Kernel(tokio::net::TcpStream),
}

/// An accepted connection of either transport.
#[derive(Debug)]
pub struct Stream {
    inner: Inner,
    peer: SocketAddr,
    offload: OffloadFlag,
}

/// Whether a connection was on the NIC when it was last read from; outlives the hand-over of the
/// stream to a protocol library.
#[derive(Debug, Clone, Default)]
pub struct OffloadFlag(Arc<AtomicBool>);

impl OffloadFlag {
    /// True if the last read found the connection on the NIC.
    #[must_use]
    pub fn get(&self) -> bool {
        self.0.load(Ordering::Relaxed)
    }

    /// Lets the others run until the connection is on the NIC, a few milliseconds at most. It goes there just after it was
    /// accepted, and a request that arrived before may be answered first.
    pub async fn settled(&self) {
        let moved = async {
            while !self.get() {
                tokio::task::yield_now().await;
            }
        };
        // One that stays in the slow path has its reasons.
        let _ = timeout(SETTLING, moved).await;
    }

    fn set(&self, offloaded: bool) {
        if self.get() != offloaded {
            self.0.store(offloaded, Ordering::Relaxed);
        }
    }
}

impl Stream {
    fn new(inner: Inner, peer: SocketAddr) -> Self {
        let stream = Self {
            inner,
            peer,
            offload: OffloadFlag::default(),
        };
        stream.offload.set(stream.is_offloaded());
        stream
    }

    /// The peer's address.
    #[must_use]
    pub fn peer_addr(&self) -> SocketAddr {
        self.peer
    }

    /// The address the peer connected to.
    ///
    /// # Errors
    ///
    /// What the socket's own method returns.
    pub fn local_addr(&self) -> io::Result<SocketAddr> {
        match &self.inner {
            Inner::FlexTcp(stream) => stream.local_addr(),
            Inner::Kernel(stream) => stream.local_addr(),
        }
    }

    /// Turns Nagle's algorithm off (`true`) or on.
    ///
    /// # Errors
    ///
    /// What the socket's own method returns.
    pub fn set_nodelay(&self, nodelay: bool) -> io::Result<()> {
        match &self.inner {
            Inner::FlexTcp(stream) => stream.set_nodelay(nodelay),
            Inner::Kernel(stream) => stream.set_nodelay(nodelay),
        }
    }

    /// Which sockets this connection was accepted from.
    #[must_use]
    pub fn transport(&self) -> Transport {
        match self.inner {
            Inner::FlexTcp(_) => Transport::FlexTcp,
            Inner::Kernel(_) => Transport::Kernel,
        }
    }

    /// True if the NIC carries the connection right now.
    #[must_use]
    pub fn is_offloaded(&self) -> bool {
        match &self.inner {
            Inner::FlexTcp(stream) => stream.is_offloaded(),
            Inner::Kernel(_) => false,
        }
    }

    /// True if FlexTCP carries the connection, on the NIC or in the slow path; false for a kernel socket.
    #[must_use]
    pub fn is_accelerated(&self) -> bool {
        match &self.inner {
            Inner::FlexTcp(stream) => stream.is_accelerated(),
            Inner::Kernel(_) => false,
        }
    }

    /// A flag that follows [`Stream::is_offloaded`] from read to read.
    #[must_use]
    pub fn offload_flag(&self) -> OffloadFlag {
        self.offload.clone()
    }
}

impl AsyncRead for Stream {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        match &mut this.inner {
            Inner::FlexTcp(stream) => {
                let read = Pin::new(stream).poll_read(cx, buf);
                this.offload.set(this.is_offloaded());
                read
            }
            Inner::Kernel(stream) => Pin::new(stream).poll_read(cx, buf),
        }
    }
}

impl AsyncWrite for Stream {
    fn poll_write(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        match &mut self.get_mut().inner {
            Inner::FlexTcp(stream) => Pin::new(stream).poll_write(cx, buf),
            Inner::Kernel(stream) => Pin::new(stream).poll_write(cx, buf),
        }
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        match &mut self.get_mut().inner {
            Inner::FlexTcp(stream) => Pin::new(stream).poll_write_vectored(cx, bufs),
            Inner::Kernel(stream) => Pin::new(stream).poll_write_vectored(cx, bufs),
        }
    }

    fn is_write_vectored(&self) -> bool {
        match &self.inner {
            Inner::FlexTcp(stream) => stream.is_write_vectored(),
            Inner::Kernel(stream) => stream.is_write_vectored(),
        }
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match &mut self.get_mut().inner {
            Inner::FlexTcp(stream) => Pin::new(stream).poll_flush(cx),
            Inner::Kernel(stream) => Pin::new(stream).poll_flush(cx),
        }
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match &mut self.get_mut().inner {
            Inner::FlexTcp(stream) => Pin::new(stream).poll_shutdown(cx),
            Inner::Kernel(stream) => Pin::new(stream).poll_shutdown(cx),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bind_errors_name_the_flag() {
        let text = |kind: io::ErrorKind, address: &str| {
            BindError {
                address: address.parse().unwrap(),
                source: kind.into(),
            }
            .to_string()
        };
        let in_use = text(io::ErrorKind::AddrInUse, "[::1]:8080");
        assert!(in_use.contains("--listen [::1]:PORT"), "{in_use}");
        assert!(in_use.contains("sport = :8080"), "{in_use}");
        let absent = text(io::ErrorKind::AddrNotAvailable, "192.0.2.1:8080");
        assert!(absent.contains("--listen ADDRESS:8080"), "{absent}");
        let denied = text(io::ErrorKind::PermissionDenied, "127.0.0.1:80");
        assert!(denied.contains("--listen 127.0.0.1:PORT"), "{denied}");
    }

    #[tokio::test]
    async fn a_port_that_is_taken_is_refused() {
        let held = Listener::bind(Transport::Kernel, ([127, 0, 0, 1], 0).into())
            .await
            .unwrap();
        let address = held.local_addr().unwrap();
        let error = Listener::bind(Transport::Kernel, address)
            .await
            .unwrap_err();
        assert_eq!(error.source.kind(), io::ErrorKind::AddrInUse);
    }
}
