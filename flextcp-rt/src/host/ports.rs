//! Sharing the port space with the kernel.
//!
//! Whoever holds a port of ours holds a kernel socket bound to it, neither connected nor listening. So the
//! kernel gives the port to nobody else, gives us none that is taken, and `AddrInUse` means the same on both
//! sides. A reservation lives as long as the connection and its TIME_WAIT (`reactor::core`).

mod spare;

use std::io;
use std::net::{IpAddr, SocketAddr, TcpListener};
use std::os::fd::AsFd as _;

use socket2::{Domain, Protocol, Socket, Type};

use super::sockopt;
pub use spare::{EphemeralPort, SpareSockets};

/// Backlog of a listener that names none, as tokio's `TcpListener::bind`.
pub const DEFAULT_BACKLOG: u32 = 128;

/// How an address is bound.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct BindOptions {
    /// `SO_REUSEADDR`: bind although connections of a former owner linger; never beside a listener.
    pub reuse_address: bool,
    /// `SO_REUSEPORT`: bind beside others of the same user that set it too.
    pub reuse_port: bool,
    /// `IP_FREEBIND`: an address that the kernel does not have, as ours on a TAP device.
    pub foreign: bool,
    /// `SO_BINDTODEVICE`: only this interface.
    pub device: Option<String>,
}

/// A local address and port, held by a kernel socket for as long as this lives.
#[derive(Debug)]
pub struct Reservation {
    socket: Socket,
    local: SocketAddr,
}

impl Reservation {
    /// Takes a port of the kernel's choice at `source` (port 0; with a scope for a link-local address), for an
    /// outgoing connection; `foreign` as in [`BindOptions`].
    ///
    /// # Errors
    /// `AddrNotAvailable` when no ephemeral port is free (`net.ipv4.ip_local_port_range`) or the address is
    /// not ours, as `connect` answers.
    pub fn ephemeral(source: SocketAddr, foreign: bool) -> io::Result<Self> {
        let mut any_port = source;
        any_port.set_port(0);
        let options = BindOptions {
            foreign,
            ..BindOptions::default()
        };
        Self::bind(any_port, &options).map_err(|error| match error.kind() {
            io::ErrorKind::AddrInUse => io::Error::from_raw_os_error(libc::EADDRNOTAVAIL),
            _ => error,
        })
    }

    /// Takes an address, explicit or with port 0.
    ///
    /// # Errors
    /// `AddrInUse`, `AddrNotAvailable`, `PermissionDenied`: what `bind` answers.
    pub fn bind(addr: SocketAddr, options: &BindOptions) -> io::Result<Self> {
        let socket = socket_for(addr)?;
        // Off in a new socket: every outgoing connection comes here, and a system call less is a system call less.
        if options.reuse_address {
            socket.set_reuse_address(true)?;
        }
        if options.reuse_port {
            socket.set_reuse_port(true)?;
        }
        match addr {
            _ if !options.foreign => {}
            SocketAddr::V4(_) => socket.set_freebind_v4(true)?,
            SocketAddr::V6(_) => socket.set_freebind_v6(true)?,
        }
        if let Some(device) = &options.device {
            socket.bind_device(Some(device.as_bytes()))?;
        }
        socket.bind(&addr.into())?;
        Self::from_bound(socket)
    }

    /// Adopts a kernel socket that is bound already.
    ///
    /// # Errors
    /// `InvalidInput` when it is not bound to an IP address and port.
    pub fn from_bound(socket: Socket) -> io::Result<Self> {
        let local = socket
            .local_addr()?
            .as_socket()
            .filter(|local| local.port() != 0);
        let local = local.ok_or_else(|| {
            io::Error::new(
                io::ErrorKind::InvalidInput,
                "the socket is not bound; bind it first",
            )
        })?;
        Ok(Self { socket, local })
    }

    /// The address that is held.
    pub fn local_addr(&self) -> SocketAddr {
        self.local
    }

    /// The port that is held.
    pub fn port(&self) -> u16 {
        self.local.port()
    }

    /// The socket that holds it.
    pub fn socket(&self) -> &Socket {
        &self.socket
    }

    /// The socket, for use as a kernel socket: connect it, or [`listen`](Self::listen).
    pub fn into_socket(self) -> Socket {
        self.socket
    }

    /// Turns the reservation into the kernel's listener beside ours: it goes on holding the port, and accepts
    /// what comes over interfaces that are not accelerated. Non-blocking.
    ///
    /// # Errors
    /// `AddrInUse` when another listens there (`SO_REUSEADDR` lets two bind, not two listen).
    pub fn listen(self, backlog: u32) -> io::Result<TcpListener> {
        self.socket.set_nonblocking(true)?;
        self.socket
            .listen(i32::try_from(backlog).unwrap_or(i32::MAX))?;
        Ok(self.socket.into())
    }
}

/// The kernel's listener at `addr`, as tokio's `TcpListener::bind` makes it: `SO_REUSEADDR`, and for IPv6
/// whether IPv4 comes in too as the system has it (`net.ipv6.bindv6only`). Non-blocking.
///
/// # Errors
/// What `bind` and `listen` answer.
pub fn kernel_listener(addr: SocketAddr, backlog: u32) -> io::Result<TcpListener> {
    let options = BindOptions {
        reuse_address: true,
        ..BindOptions::default()
    };
    Reservation::bind(addr, &options)?.listen(backlog)
}

/// How many connections may wait at a listening socket; `None` when it does not listen.
pub fn backlog_of(listener: &Socket) -> Option<u32> {
    sockopt::backlog(listener.as_fd()).ok().flatten()
}

/// Whether a listener takes IPv4 connections at an IPv6 wildcard address.
///
/// # Errors
/// It is not an IPv6 socket.
pub fn accepts_ipv4(listener: &TcpListener) -> io::Result<bool> {
    let local = listener.local_addr()?.ip();
    if local != IpAddr::from([0; 16]) {
        return Ok(local.is_ipv4());
    }
    socket2::SockRef::from(listener).only_v6().map(|only| !only)
}

/// A TCP socket of the address's family, closed on exec.
pub(super) fn socket_for(addr: SocketAddr) -> io::Result<Socket> {
    Socket::new(Domain::for_address(addr), Type::STREAM, Some(Protocol::TCP))
}

#[cfg(test)]
mod tests {
    use std::net::{Ipv4Addr, Ipv6Addr, TcpStream};

    use super::*;

    const LOCALHOST: SocketAddr = SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), 0);

    #[test]
    fn a_reserved_port_is_in_use_for_everyone() {
        let held = Reservation::ephemeral(LOCALHOST, false).unwrap();
        assert_ne!(held.port(), 0);
        let in_use = |result: io::Result<()>| {
            assert_eq!(result.unwrap_err().kind(), io::ErrorKind::AddrInUse);
        };
        in_use(TcpListener::bind(held.local_addr()).map(drop));
        in_use(Reservation::bind(held.local_addr(), &BindOptions::default()).map(drop));
        in_use(kernel_listener(held.local_addr(), 1).map(drop));
        let addr = held.local_addr();
        drop(held);
        kernel_listener(addr, 1).expect("free again");
    }

    #[test]
    fn a_port_that_the_kernel_holds_is_in_use_for_us() {
        let kernel = TcpListener::bind(LOCALHOST).unwrap();
        let addr = kernel.local_addr().unwrap();
        for reuse_address in [false, true] {
            let options = BindOptions {
                reuse_address,
                ..BindOptions::default()
            };
            let error = Reservation::bind(addr, &options).unwrap_err();
            assert_eq!(error.kind(), io::ErrorKind::AddrInUse);
        }
    }

    #[test]
    fn two_may_bind_for_reuse_but_one_listens() {
        let reuse = BindOptions {
            reuse_address: true,
            ..BindOptions::default()
        };
        let first = Reservation::bind(LOCALHOST, &reuse).unwrap();
        let second = Reservation::bind(first.local_addr(), &reuse).unwrap();
        let listener = first.listen(8).unwrap();
        assert_eq!(
            second.listen(8).unwrap_err().kind(),
            io::ErrorKind::AddrInUse
        );
        drop(listener);
    }

    #[test]
    fn an_address_that_is_not_ours_is_refused_as_connect_does() {
        let elsewhere = SocketAddr::from(([192, 0, 2, 1], 0));
        let error = Reservation::ephemeral(elsewhere, false).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::AddrNotAvailable);
    }

    #[test]
    fn an_unbound_socket_reserves_nothing() {
        let socket = socket_for(LOCALHOST).unwrap();
        let error = Reservation::from_bound(socket).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::InvalidInput);
    }

    #[test]
    fn a_listener_tells_its_backlog() {
        let reservation = Reservation::ephemeral(LOCALHOST, false).unwrap();
        assert_eq!(backlog_of(reservation.socket()), None);
        let listener = Socket::from(reservation.listen(17).unwrap());
        assert_eq!(backlog_of(&listener), Some(17));
    }

    #[test]
    fn a_listener_accepts_and_a_dual_stack_one_says_so() {
        let listener = kernel_listener(LOCALHOST, DEFAULT_BACKLOG).unwrap();
        assert_eq!(
            listener.accept().unwrap_err().kind(),
            io::ErrorKind::WouldBlock
        );
        let client = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        assert_eq!(listener.accept().unwrap().1, client.local_addr().unwrap());
        assert!(accepts_ipv4(&listener).unwrap());

        let wildcard = kernel_listener((Ipv6Addr::UNSPECIFIED, 0).into(), 1).unwrap();
        let port = wildcard.local_addr().unwrap().port();
        let reached = TcpStream::connect((Ipv4Addr::LOCALHOST, port)).is_ok();
        assert_eq!(accepts_ipv4(&wildcard).unwrap(), reached);
        let v6 = kernel_listener((Ipv6Addr::LOCALHOST, 0).into(), 1).unwrap();
        assert!(!accepts_ipv4(&v6).unwrap());
    }
}
