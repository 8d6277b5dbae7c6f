//! The one place that asks the host for connections.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;

use flextcp_rt::options::SocketOptions;
use flextcp_rt::socket::Stream;
use flextcp_rt::{Connection, Host, Listener};
use socket2::{SockRef, Socket};
use tokio::runtime::Handle;

use crate::tcp::{options_of, stream::TcpStream};

/// Connects; `socket` is the caller's own, bound or with options set.
pub(crate) async fn connect(
    remote: SocketAddr,
    socket: Option<Socket>,
    options: SocketOptions,
) -> io::Result<TcpStream> {
    // Panics outside of a runtime, with tokio's words.
    drop(Handle::current());
    let host = Host::current()?;
    // Boxed: the states of the way to a connection would otherwise be part of every caller's future.
    let connection = Box::pin(host.connect(remote, socket, options)).await?;
    Ok(connection.into())
}

/// Listens on a bound socket.
#[track_caller]
pub(crate) fn listen(socket: Socket, backlog: u32, options: SocketOptions) -> io::Result<Listener> {
    drop(Handle::current());
    let host: Arc<Host> = Host::current()?;
    host.listen(socket, backlog, options)
}

/// Binds; to an address that only the host has, too.
pub(crate) fn bind(socket: &Socket, addr: SocketAddr) -> io::Result<()> {
    Host::current()?.prepare_bind(socket, addr)?;
    socket.bind(&addr.into())
}

/// A kernel socket that the kernel's half of a listener accepted.
pub(crate) fn kernel_accepted(
    (stream, peer): (tokio::net::TcpStream, SocketAddr),
) -> (TcpStream, SocketAddr) {
    if let Ok(host) = Host::current() {
        host.count_kernel_socket();
    }
    (TcpStream::kernel(stream), peer)
}

/// Takes a kernel connection over where it can be.
#[track_caller]
pub(crate) fn from_std(stream: std::net::TcpStream) -> io::Result<TcpStream> {
    drop(Handle::current());
    let options = options_of(&SockRef::from(&stream));
    Ok(Host::current()?.from_std(stream, options)?.into())
}

/// Makes a kernel socket of a connection.
pub(crate) fn into_std(stream: Stream) -> io::Result<std::net::TcpStream> {
    Host::current()?.into_std(stream)
}

impl From<Connection> for TcpStream {
    fn from(connection: Connection) -> Self {
        match connection {
            Connection::Kernel(stream) => Self::kernel(stream),
            Connection::Flex(stream) => Self::flex(stream),
        }
    }
}
