//! The one place that asks the host for connections.

use std::io;
use std::net::SocketAddr;

use flextcp_rt::options::SocketOptions;
use flextcp_rt::socket::{FlexListener, Stream};
use socket2::Socket;
use tokio::runtime::Handle;

use crate::tcp::stream::TcpStream;

/// Both halves of a listener.
pub(crate) struct Listener {
    pub(crate) kernel: tokio::net::TcpListener,
    pub(crate) flex: Option<FlexListener>,
}

/// Connects; `socket` is the caller's own, bound or with options set.
pub(crate) async fn connect(
    remote: SocketAddr,
    socket: Option<Socket>,
    _options: SocketOptions,
) -> io::Result<TcpStream> {
    // Panics outside of a runtime, with tokio's words.
    drop(Handle::current());
    let connected = match socket {
        None => tokio::net::TcpStream::connect(remote).await,
        Some(socket) => {
            tokio::net::TcpSocket::from_std_stream(socket.into())
                .connect(remote)
                .await
        }
    };
    connected.map(TcpStream::kernel)
}

/// Listens on a bound socket.
#[track_caller]
pub(crate) fn listen(
    socket: Socket,
    backlog: u32,
    _options: SocketOptions,
) -> io::Result<Listener> {
    socket.set_nonblocking(true)?;
    socket.listen(i32::try_from(backlog).unwrap_or(i32::MAX))?;
    let kernel = tokio::net::TcpListener::from_std(socket.into())?;
    Ok(Listener { kernel, flex: None })
}

/// Hands a connection over to the kernel.
pub(crate) fn into_std(stream: Stream) -> io::Result<std::net::TcpStream> {
    drop(stream);
    Err(io::Error::new(
        io::ErrorKind::Unsupported,
        "a connection on the NIC cannot be handed over to the kernel",
    ))
}
