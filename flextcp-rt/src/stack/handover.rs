//! Connections that become `std::net::TcpStream`s. Best is a kernel socket that carries the connection on; where the
//! kernel cannot, the program gets one end of a kernel connection within this host, and a relay copies between its
//! other end and ours.

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpListener, TcpStream};
use std::pin::Pin;
use std::sync::{Arc, OnceLock};
use std::task::{Context, Poll};
use std::time::Duration;

use flextcp_nic::flow::FlowTuple;
use socket2::{SockRef, TcpKeepalive};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf, copy_bidirectional};
use tokio::runtime::Runtime;

use super::Host;
use crate::host::repair;
use crate::options::{SocketOption, SocketOptions};
use crate::socket::{RuntimeHandle, Stream};

/// Connections of others that may come in between while a loopback pair is made.
const STRANGERS: usize = 16;

impl Host {
    /// Turns a connection into a kernel socket in non-blocking mode, with the options and the unread bytes.
    ///
    /// With CAP_NET_ADMIN an established connection to another process or host is handed over: the kernel carries
    /// it on, and FlexTCP forgets it. In all other cases (no privilege, both ends in this process, a side closed)
    /// FlexTCP carries it on behind a relay, on a thread of its own: bytes, half-closes and resets pass through, at
    /// the cost of two copies, and what the relay holds is lost when the process ends. Without CAP_NET_ADMIN the
    /// addresses of such a socket are those of the relay.
    ///
    /// # Errors
    /// No socket could be made. The connection is closed then.
    pub fn into_std(self: &Arc<Self>, stream: Stream) -> io::Result<TcpStream> {
        let options = stream.options();
        let socket = match stream.export() {
            Ok(socket) => {
                let (local, peer) = (socket.local_addr()?, socket.peer_addr()?);
                self.note_spared([FlowTuple::new(canonical(local), canonical(peer))]);
                socket
            }
            Err((stream, error)) => {
                tracing::debug!(%error, ?stream, "relaying a connection that became a kernel socket");
                self.relay(stream)?
            }
        };
        apply(&options, &SockRef::from(&socket))?;
        Ok(socket)
    }

    /// Puts a kernel connection before the stream; returns its end for the program.
    fn relay(self: &Arc<Self>, stream: Stream) -> io::Result<TcpStream> {
        let (program, relay) = match self.look_alike(&stream) {
            Some(pair) => pair,
            None => loopback_pair(stream.local_addr().ip())?,
        };
        relay.set_nodelay(true)?;
        let runtime = relays()?;
        let mut stream = stream;
        stream.rehome(&RuntimeHandle::of(runtime.handle()));
        let entered = runtime.enter();
        let relay = tokio::net::TcpStream::from_std(relay)?;
        drop(entered);
        drop(runtime.spawn(splice(Ours(stream), relay)));
        Ok(program)
    }

    /// A kernel connection with the very addresses of a stream between two sockets of this process; `None` without
    /// the privilege, or when the peer is elsewhere.
    fn look_alike(self: &Arc<Self>, stream: &Stream) -> Option<(TcpStream, TcpStream)> {
        let (local, peer) = (stream.local_addr(), stream.peer_addr().ok()?);
        let pair = repair::pair(local, peer)
            .inspect_err(|error| tracing::debug!(%error, "the relay has addresses of its own"))
            .ok()?;
        let tuple = FlowTuple::new(canonical(local), canonical(peer));
        for core in self.cores().iter().filter(|core| !core.is_hairpin()) {
            for tuple in [tuple, tuple.reversed()] {
                if let Err(error) = core.exclude(tuple) {
                    tracing::debug!(%error, "the relay has addresses of its own");
                    return None;
                }
            }
        }
        self.note_spared([tuple, tuple.reversed()]);
        Some(pair)
    }
}

fn canonical(address: SocketAddr) -> SocketAddr {
    SocketAddr::new(address.ip().to_canonical(), address.port())
}

/// A connection over the loopback interface, both ends in non-blocking mode.
fn loopback_pair(like: IpAddr) -> io::Result<(TcpStream, TcpStream)> {
    let v6 = like.to_canonical().is_ipv6();
    let listener = match v6 {
        true => TcpListener::bind((Ipv6Addr::LOCALHOST, 0)),
        false => TcpListener::bind((Ipv4Addr::LOCALHOST, 0)),
    }?;
    let near = TcpStream::connect(listener.local_addr()?)?;
    let expected = near.local_addr()?;
    for _ in 0..STRANGERS {
        let (far, from) = listener.accept()?;
        if from == expected {
            near.set_nonblocking(true)?;
            far.set_nonblocking(true)?;
            return Ok((near, far));
        }
    }
    Err(io::Error::new(
        io::ErrorKind::ConnectionAborted,
        "others connect to the loopback pair that is to stand for the connection",
    ))
}

/// Sets on a kernel socket what was set on ours.
fn apply(options: &SocketOptions, socket: &SockRef<'_>) -> io::Result<()> {
    socket.set_tcp_nodelay(options.nodelay)?;
    socket.set_linger(options.linger)?;
    socket.set_tcp_user_timeout(options.user_timeout)?;
    if let Some(keepalive) = options.keepalive {
        let times = TcpKeepalive::new()
            .with_time(keepalive.time)
            .with_interval(keepalive.interval)
            .with_retries(keepalive.count);
        socket.set_tcp_keepalive(&times)?;
    }
    let v6 = socket.local_addr()?.is_ipv6();
    if let Some(ttl) = options.ttl {
        match v6 {
            true => socket.set_unicast_hops_v6(ttl.into())?,
            false => socket.set_ttl_v4(ttl.into())?,
        }
    }
    match v6 {
        true => socket.set_tclass_v6(options.tos.into())?,
        false => socket.set_tos_v4(options.tos.into())?,
    }
    if let Some(bytes) = options.recv_buffer {
        socket.set_recv_buffer_size(bytes as usize)?;
    }
    if let Some(bytes) = options.send_buffer {
        socket.set_send_buffer_size(bytes as usize)?;
    }
    Ok(())
}

/// Where relays run: not in the program's runtime, which may be blocked in the very socket that is relayed.
fn relays() -> io::Result<&'static Runtime> {
    static RELAYS: OnceLock<Runtime> = OnceLock::new();
    if let Some(runtime) = RELAYS.get() {
        return Ok(runtime);
    }
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(1)
        .thread_name("flextcp-relay")
        .enable_io()
        .build()?;
    if let Err(superfluous) = RELAYS.set(runtime) {
        superfluous.shutdown_background();
    }
    Ok(RELAYS.get().expect("it was set, by us or another thread"))
}

/// Copies both ways until both are closed. A reset of one side resets the other.
async fn splice(mut ours: Ours, mut kernel: tokio::net::TcpStream) {
    if let Err(error) = copy_bidirectional(&mut ours, &mut kernel).await {
        tracing::debug!(%error, "a relayed connection was reset");
        ours.0
            .set_option(SocketOption::Linger(Some(Duration::ZERO)));
        // A refusal leaves an orderly close, which is the best that is left.
        let _ = SockRef::from(&kernel).set_linger(Some(Duration::ZERO));
    }
}

/// Our end as tokio's traits want it.
#[derive(Debug)]
pub(super) struct Ours(pub(super) Stream);

impl AsyncRead for Ours {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        self.0.poll_read(cx, buf)
    }
}

impl AsyncWrite for Ours {
    fn poll_write(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        self.0.poll_write(cx, buf)
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.0.shutdown_write();
        Poll::Ready(Ok(()))
    }
}

#[cfg(test)]
mod tests;
