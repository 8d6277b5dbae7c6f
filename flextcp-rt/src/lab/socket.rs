//! The application's calls: what a process does with a non-blocking socket.

use std::io;
use std::mem;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use flextcp_nic::flow::FlowTuple;

use super::Lab;
use super::ports::PortHold;
use crate::options::{SocketOption, SocketOptions};
use crate::reactor::core::{ConnectFuture, ConnectRequest, PortHold as PortOfCore};
use crate::socket::{AcceptQueue, FlexListener, Stream};
use crate::tcp::{Link, TcpInfo};

/// Ports in TIME_WAIT that a connect passes over before it gives up.
const PORT_TRIES: usize = 256;

/// A socket of a [`Lab`]; ids are not used again.
#[derive(Clone, Copy, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub struct SocketId(u64);

/// What a socket is.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Status {
    /// Made, perhaps bound; or the attempt to connect failed.
    Idle,
    /// It waits for connections.
    Listening,
    /// Its handshake is on the way.
    Connecting,
    /// It has, or had, a connection.
    Connected,
    /// Closed: the id names nothing.
    Closed,
}

/// Bytes in the rings of a connection (`SIOCINQ`, `SIOCOUTQ`).
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct QueueSizes {
    /// Received and not read.
    pub recv: usize,
    /// Written and not acknowledged.
    pub send: usize,
}

#[derive(Debug)]
pub(super) struct Socket {
    options: SocketOptions,
    state: SocketState,
    /// The error of an attempt to connect, reported once.
    error: Option<io::Error>,
}

#[derive(Debug)]
enum SocketState {
    Idle(Option<Bound>),
    Listening {
        listener: FlexListener,
        local: SocketAddr,
        _port: PortHold,
    },
    Connecting(ConnectFuture, FlowTuple),
    Connected(Stream),
}

#[derive(Debug)]
struct Bound {
    local: SocketAddr,
    port: PortHold,
}

fn errno(errno: i32) -> io::Error {
    io::Error::from_raw_os_error(errno)
}

impl Socket {
    fn new(options: SocketOptions, state: SocketState) -> Self {
        Self {
            options,
            state,
            error: None,
        }
    }

    /// Takes the answer to a connect that came meanwhile.
    fn settle(&mut self) {
        let SocketState::Connecting(future, _) = &mut self.state else {
            return;
        };
        match future.try_take() {
            None => {}
            Some(Ok(stream)) => self.state = SocketState::Connected(stream),
            Some(Err(error)) => {
                self.state = SocketState::Idle(None);
                self.error = Some(error);
            }
        }
    }
}

impl Lab {
    fn get(&mut self, id: SocketId) -> io::Result<&mut Socket> {
        let socket = self
            .sockets
            .get_mut(&id)
            .ok_or_else(|| errno(libc::EBADF))?;
        socket.settle();
        Ok(socket)
    }

    fn stream(&mut self, id: SocketId) -> io::Result<&Stream> {
        let socket = self.get(id)?;
        match &mut socket.state {
            SocketState::Connected(stream) => Ok(stream),
            SocketState::Connecting(..) => Err(io::ErrorKind::WouldBlock.into()),
            SocketState::Idle(_) | SocketState::Listening { .. } => {
                Err(socket.error.take().unwrap_or_else(|| errno(libc::ENOTCONN)))
            }
        }
    }

    fn add(&mut self, socket: Socket) -> SocketId {
        let id = SocketId(self.next_socket);
        self.next_socket += 1;
        self.sockets.insert(id, socket);
        id
    }
}

/// Sockets.
impl Lab {
    /// Makes a socket.
    pub fn socket(&mut self) -> SocketId {
        self.add(Socket::new(
            SocketOptions::default(),
            SocketState::Idle(None),
        ))
    }

    /// Binds it to an address of the host, or to an unspecified one; port 0 takes a free one.
    ///
    /// # Errors
    /// `EADDRINUSE`, `EADDRNOTAVAIL` (not one of the host's), `EINVAL` (bound already).
    pub fn bind(&mut self, id: SocketId, local: SocketAddr) -> io::Result<()> {
        let ours = local.ip().is_unspecified() || self.addresses.contains(&local.ip());
        if !ours {
            return Err(errno(libc::EADDRNOTAVAIL));
        }
        if !matches!(self.get(id)?.state, SocketState::Idle(None)) {
            return Err(errno(libc::EINVAL));
        }
        let port = match local.port() {
            0 => self.ports.take_any()?,
            port => self
                .ports
                .take(port)
                .ok_or_else(|| errno(libc::EADDRINUSE))?,
        };
        let local = SocketAddr::new(local.ip(), port.port());
        self.get(id)?.state = SocketState::Idle(Some(Bound { local, port }));
        Ok(())
    }

    /// Makes a bound socket a listener. Its options are those of the connections it accepts.
    ///
    /// # Errors
    /// `EINVAL` when it is not bound, or is something else already; `EADDRINUSE`.
    pub fn listen(&mut self, id: SocketId, backlog: u32) -> io::Result<()> {
        let socket = self.get(id)?;
        let options = socket.options.clone();
        let bound = match mem::replace(&mut socket.state, SocketState::Idle(None)) {
            SocketState::Idle(Some(bound)) => bound,
            state => {
                socket.state = state;
                return Err(errno(libc::EINVAL));
            }
        };
        let Bound { local, port } = bound;
        let queue = AcceptQueue::new();
        match self
            .core
            .listen(local, backlog, &options, &queue, &self.driver)
        {
            Ok(listener) => {
                let core = Arc::clone(&self.core);
                let on_close = move || core.unlisten(listener);
                let listener = FlexListener::new(queue, self.driver.runtime().clone(), on_close);
                self.get(id)?.state = SocketState::Listening {
                    listener,
                    local,
                    _port: port,
                };
                Ok(())
            }
            Err(error) => {
                self.get(id)?.state = SocketState::Idle(Some(Bound { local, port }));
                Err(error)
            }
        }
    }

    /// Takes the oldest connection of a listener.
    ///
    /// # Errors
    /// `WouldBlock`; `EINVAL` when it does not listen.
    pub fn accept(&mut self, id: SocketId) -> io::Result<(SocketId, SocketAddr)> {
        let SocketState::Listening { listener, .. } = &self.get(id)?.state else {
            return Err(errno(libc::EINVAL));
        };
        let (stream, peer) = listener.try_accept()?;
        let accepted = Socket::new(stream.options(), SocketState::Connected(stream));
        Ok((self.add(accepted), peer))
    }

    /// Starts a handshake with `remote`. The SYN leaves in the next turn; [`status`](Self::status) tells what became
    /// of it.
    ///
    /// # Errors
    /// `EISCONN`, `EALREADY`; `EADDRNOTAVAIL` (no address of this family, no free port), `ENOBUFS`.
    pub fn connect(&mut self, id: SocketId, remote: SocketAddr) -> io::Result<()> {
        let socket = self.get(id)?;
        let options = socket.options.clone();
        let bound = match mem::replace(&mut socket.state, SocketState::Idle(None)) {
            SocketState::Idle(bound) => bound,
            state => {
                let refused = match state {
                    SocketState::Connecting(..) => libc::EALREADY,
                    _ => libc::EISCONN,
                };
                socket.state = state;
                return Err(errno(refused));
            }
        };
        let source = bound
            .as_ref()
            .map(|bound| bound.local.ip())
            .filter(|ip| !ip.is_unspecified());
        let source = match source {
            Some(ip) => ip,
            None => self.source(remote.ip())?,
        };
        if let Some(Bound { port, .. }) = bound {
            return self
                .start(id, source, remote, &options, port)
                .map_err(|(error, _)| error);
        }
        // Held until the end, so that none is offered twice.
        let mut refused = Vec::new();
        loop {
            let port = self.ports.take_any()?;
            match self.start(id, source, remote, &options, port) {
                Ok(()) => return Ok(()),
                Err((error, port))
                    if error.kind() == io::ErrorKind::AddrNotAvailable
                        && refused.len() < PORT_TRIES =>
                {
                    refused.push(port);
                }
                Err((error, _)) => return Err(error),
            }
        }
    }

    fn source(&self, remote: IpAddr) -> io::Result<IpAddr> {
        self.addresses
            .iter()
            .find(|ip| ip.is_ipv4() == remote.is_ipv4())
            .copied()
            .ok_or_else(|| errno(libc::EADDRNOTAVAIL))
    }

    fn start(
        &mut self,
        id: SocketId,
        source: IpAddr,
        remote: SocketAddr,
        options: &SocketOptions,
        port: PortHold,
    ) -> Result<(), (io::Error, PortOfCore)> {
        let tuple = FlowTuple::new(SocketAddr::new(source, port.port()), remote);
        let link = Link {
            local_mac: self.mac,
            remote_mac: self.gateway,
            mtu: self.mtu,
        };
        let future = self.core.connect(ConnectRequest {
            scope: 0,
            tuple,
            link,
            options: options.clone(),
            reservation: PortOfCore::of_any(port),
            driver: Arc::clone(&self.driver),
        })?;
        if let Some(socket) = self.sockets.get_mut(&id) {
            socket.state = SocketState::Connecting(future, tuple);
        }
        Ok(())
    }

    /// What a socket is now.
    pub fn status(&mut self, id: SocketId) -> Status {
        match self.get(id).map(|socket| &socket.state) {
            Err(_) => Status::Closed,
            Ok(SocketState::Idle(_)) => Status::Idle,
            Ok(SocketState::Listening { .. }) => Status::Listening,
            Ok(SocketState::Connecting(..)) => Status::Connecting,
            Ok(SocketState::Connected(_)) => Status::Connected,
        }
    }

    /// Our end.
    ///
    /// # Errors
    /// `EBADF`; `EINVAL` when it has none yet.
    pub fn local_addr(&mut self, id: SocketId) -> io::Result<SocketAddr> {
        match &self.get(id)?.state {
            SocketState::Idle(None) => Err(errno(libc::EINVAL)),
            SocketState::Idle(Some(bound)) => Ok(bound.local),
            SocketState::Listening { local, .. } => Ok(*local),
            SocketState::Connecting(_, tuple) => Ok(tuple.local_addr()),
            SocketState::Connected(stream) => Ok(stream.local_addr()),
        }
    }

    /// The peer's end.
    ///
    /// # Errors
    /// `ENOTCONN`.
    pub fn peer_addr(&mut self, id: SocketId) -> io::Result<SocketAddr> {
        self.stream(id)?.peer_addr()
    }
}

/// Data.
impl Lab {
    /// Reads; 0 is the end of the stream.
    ///
    /// # Errors
    /// `WouldBlock`, `ENOTCONN`; the connection's error, once.
    pub fn read(&mut self, id: SocketId, buf: &mut [u8]) -> io::Result<usize> {
        self.stream(id)?.try_read(buf)
    }

    /// Reads without taking.
    ///
    /// # Errors
    /// As [`read`](Self::read).
    pub fn peek(&mut self, id: SocketId, buf: &mut [u8]) -> io::Result<usize> {
        self.stream(id)?.try_peek(buf)
    }

    /// Writes as much as fits.
    ///
    /// # Errors
    /// `WouldBlock` when nothing fits, `ENOTCONN`; the connection's error, once, then `EPIPE`.
    pub fn write(&mut self, id: SocketId, bytes: &[u8]) -> io::Result<usize> {
        self.stream(id)?.try_write(bytes)
    }

    /// Ends our direction: FIN after what was written.
    ///
    /// # Errors
    /// `ENOTCONN`.
    pub fn shutdown(&mut self, id: SocketId) -> io::Result<()> {
        self.stream(id)?.shutdown_write();
        Ok(())
    }

    /// Closes the socket: FIN after what was written, RST when bytes were left unread or linger is zero. Of a listener,
    /// connections that were not accepted are reset; a handshake on the way is given up.
    ///
    /// # Errors
    /// `EBADF`.
    pub fn close(&mut self, id: SocketId) -> io::Result<()> {
        self.get(id)?;
        self.sockets.remove(&id);
        Ok(())
    }

    /// Resets the connection and closes the socket, as closing with a linger time of zero.
    ///
    /// # Errors
    /// `EBADF`.
    pub fn abort(&mut self, id: SocketId) -> io::Result<()> {
        if let SocketState::Connected(stream) = &self.get(id)?.state {
            stream.set_option(SocketOption::Linger(Some(std::time::Duration::ZERO)));
        }
        self.close(id)
    }
}

/// Options and what there is to see.
impl Lab {
    /// Sets an option: of a connection from now on, of a listener for what it accepts if set before
    /// [`listen`](Self::listen).
    ///
    /// # Errors
    /// `EBADF`.
    pub fn set_option(&mut self, id: SocketId, option: SocketOption) -> io::Result<()> {
        let socket = self.get(id)?;
        socket.options.apply(option);
        if let SocketState::Connected(stream) = &socket.state {
            stream.set_option(option);
        }
        Ok(())
    }

    /// Replaces all options of a socket that is not connected.
    ///
    /// # Errors
    /// `EBADF`, `EISCONN`.
    pub fn set_options(&mut self, id: SocketId, options: SocketOptions) -> io::Result<()> {
        let socket = self.get(id)?;
        if !matches!(socket.state, SocketState::Idle(_)) {
            return Err(errno(libc::EISCONN));
        }
        socket.options = options;
        Ok(())
    }

    /// All options, as last set.
    ///
    /// # Errors
    /// `EBADF`.
    pub fn options(&mut self, id: SocketId) -> io::Result<SocketOptions> {
        let socket = self.get(id)?;
        Ok(match &socket.state {
            SocketState::Connected(stream) => stream.options(),
            _ => socket.options.clone(),
        })
    }

    /// The pending error, once (`SO_ERROR`).
    pub fn take_error(&mut self, id: SocketId) -> Option<io::Error> {
        let socket = self.get(id).ok()?;
        match &socket.state {
            SocketState::Connected(stream) => stream.take_error(),
            _ => socket.error.take(),
        }
    }

    /// What waits in the connection's rings.
    ///
    /// # Errors
    /// `ENOTCONN`.
    pub fn queue_sizes(&mut self, id: SocketId) -> io::Result<QueueSizes> {
        let (recv, send) = self.stream(id)?.queued();
        Ok(QueueSizes { recv, send })
    }

    /// Whether the NIC carries the connection now.
    pub fn is_offloaded(&mut self, id: SocketId) -> bool {
        self.stream(id).is_ok_and(Stream::is_offloaded)
    }

    /// A snapshot of the connection (`TCP_INFO`); `None` when there is none, or the engine forgot it.
    pub fn info(&mut self, id: SocketId) -> Option<TcpInfo> {
        self.stream(id).ok()?.info()
    }
}
