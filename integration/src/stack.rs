//! flextcp_net and tokio::net behind one trait, so that both run the same code.

use std::io;
use std::net::SocketAddr;

use clap::ValueEnum;
use flextcp_rt::Host;
use flextcp_rt::config::{Config, Fallback, Interfaces};
use serde::{Deserialize, Serialize};
use socket2::SockRef;
use tokio::io::{AsyncRead, AsyncWrite};

use crate::netns::Namespace;

/// Runs `work` inside `namespace` on a single-threaded runtime, where ours uses `devices`, and neither kernel sockets nor the
/// way within the process instead. A process can do so once.
///
/// # Errors
/// When the namespace cannot be entered, or the process's host runs already.
///
/// # Panics
/// When `work` does.
pub fn on_devices<T: Send>(
    namespace: &Namespace,
    devices: &[&str],
    work: impl AsyncFnOnce() -> T + Send,
) -> io::Result<T> {
    let devices = devices.iter().map(|&device| device.to_owned()).collect();
    let config = Config::builder()
        .interfaces(Interfaces::List(devices))
        .fallback(Fallback::Deny)
        .hairpin(false)
        .build()
        .map_err(io::Error::other)?;
    namespace.within(|| {
        Host::configure(config)?;
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()?;
        Ok(runtime.block_on(work()))
    })?
}

/// Whose sockets a peer uses.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum StackKind {
    /// `flextcp_net`.
    Flex,
    /// `tokio::net`.
    Kernel,
}

impl StackKind {
    /// Its name on the command line.
    pub fn name(self) -> &'static str {
        match self {
            Self::Flex => "flex",
            Self::Kernel => "kernel",
        }
    }
}

/// The part of `tokio::net` that the peers use.
pub trait Stack: Send + Sync + 'static {
    /// Its listener.
    type Listener: Send + Sync + 'static;
    /// Its stream.
    type Stream: AsyncRead + AsyncWrite + Unpin + Send + 'static;

    /// Binds a listener with a backlog of 4096. Connections get `congestion`, or the stack's default.
    fn bind(address: SocketAddr, congestion: Option<&str>) -> io::Result<Self::Listener>;
    /// Its address.
    fn local_addr(listener: &Self::Listener) -> io::Result<SocketAddr>;
    /// Accepts a connection, with no delay of small writes.
    fn accept(listener: &Self::Listener) -> impl Future<Output = io::Result<Self::Stream>> + Send;
    /// Connects, with no delay of small writes.
    fn connect(
        address: SocketAddr,
        congestion: Option<&str>,
    ) -> impl Future<Output = io::Result<Self::Stream>> + Send;
    /// Makes the close of `stream` a reset, so that a client of many connections does not run out of ports.
    fn reset_on_close(stream: &Self::Stream) -> io::Result<()>;
    /// Both ends of a stream: local, peer.
    fn ends(stream: &Self::Stream) -> io::Result<(SocketAddr, SocketAddr)>;
    /// Reads without waiting.
    fn try_read(stream: &Self::Stream, buffer: &mut [u8]) -> io::Result<usize>;
    /// Writes without waiting.
    fn try_write(stream: &Self::Stream, bytes: &[u8]) -> io::Result<usize>;
    /// Takes the pending error (`SO_ERROR`).
    fn take_error(stream: &Self::Stream) -> io::Result<Option<io::Error>>;
}

macro_rules! stack {
    ($(#[$doc:meta])* $name:ident, $($net:ident)::+) => {
        $(#[$doc])*
        #[derive(Debug)]
        pub struct $name;

        impl $name {
            fn socket(
                address: SocketAddr,
                congestion: Option<&str>,
            ) -> io::Result<$($net)::+::TcpSocket> {
                let socket = if address.is_ipv4() {
                    $($net)::+::TcpSocket::new_v4()
                } else {
                    $($net)::+::TcpSocket::new_v6()
                }?;
                if let Some(name) = congestion {
                    // Before the handshake, which tells the peer whether there will be ECN.
                    SockRef::from(&socket).set_tcp_congestion(name.as_bytes())?;
                }
                Ok(socket)
            }
        }

        impl Stack for $name {
            type Listener = $($net)::+::TcpListener;
            type Stream = $($net)::+::TcpStream;

            fn bind(
                address: SocketAddr,
                congestion: Option<&str>,
            ) -> io::Result<Self::Listener> {
                let socket = Self::socket(address, congestion)?;
                socket.set_reuseaddr(true)?;
                socket.bind(address)?;
                socket.listen(4096)
            }

            fn local_addr(listener: &Self::Listener) -> io::Result<SocketAddr> {
                listener.local_addr()
            }

            async fn accept(listener: &Self::Listener) -> io::Result<Self::Stream> {
                let (stream, _) = listener.accept().await?;
                stream.set_nodelay(true)?;
                Ok(stream)
            }

            async fn connect(
                address: SocketAddr,
                congestion: Option<&str>,
            ) -> io::Result<Self::Stream> {
                let stream = match congestion {
                    None => $($net)::+::TcpStream::connect(address).await?,
                    Some(_) => Self::socket(address, congestion)?.connect(address).await?,
                };
                stream.set_nodelay(true)?;
                Ok(stream)
            }

            fn reset_on_close(stream: &Self::Stream) -> io::Result<()> {
                stream.set_zero_linger()
            }

            fn ends(stream: &Self::Stream) -> io::Result<(SocketAddr, SocketAddr)> {
                Ok((stream.local_addr()?, stream.peer_addr()?))
            }

            fn try_read(stream: &Self::Stream, buffer: &mut [u8]) -> io::Result<usize> {
                stream.try_read(buffer)
            }

            fn try_write(stream: &Self::Stream, bytes: &[u8]) -> io::Result<usize> {
                stream.try_write(bytes)
            }

            fn take_error(stream: &Self::Stream) -> io::Result<Option<io::Error>> {
                stream.take_error()
            }
        }
    };
}

stack! {
    /// `flextcp_net`.
    Flex, flextcp_net
}
stack! {
    /// `tokio::net`.
    Kernel, tokio::net
}
