//! Kernel sockets that held a port and will hold another.
//!
//! Every outgoing connection needs a socket that holds its port, and to make and destroy one costs twice as much as
//! to give its port back and bind it again. The kernel takes back a port that it chose itself when a listening
//! socket is disconnected (`connect` to `AF_UNSPEC`), so the socket listens for that moment.

use std::io;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use socket2::Socket;

use super::Reservation;

/// Sockets kept of each family.
const MOST_SPARES: usize = 64;

type Spares = Mutex<Vec<Socket>>;

/// Sockets without a port, of each family.
#[derive(Debug, Default)]
pub struct SpareSockets {
    v4: Spares,
    v6: Spares,
}

/// A port of the kernel's choice. When it is dropped, its socket becomes a spare one.
#[derive(Debug)]
pub struct EphemeralPort {
    reservation: Option<Reservation>,
    port: u16,
    spares: Arc<SpareSockets>,
}

impl SpareSockets {
    /// [`Reservation::ephemeral`] of an address that the kernel has.
    ///
    /// # Errors
    /// As there.
    pub fn ephemeral(self: &Arc<Self>, source: SocketAddr) -> io::Result<EphemeralPort> {
        let mut any_port = source;
        any_port.set_port(0);
        let spare = self.of(source).pop();
        let reservation = match spare.map(|socket| rebind(socket, any_port)) {
            Some(Ok(reservation)) => reservation,
            Some(Err(_)) | None => Reservation::ephemeral(any_port, false)?,
        };
        Ok(EphemeralPort {
            port: reservation.port(),
            reservation: Some(reservation),
            spares: Arc::clone(self),
        })
    }

    fn of(&self, addr: SocketAddr) -> MutexGuard<'_, Vec<Socket>> {
        let spares = if addr.is_ipv4() { &self.v4 } else { &self.v6 };
        // A push or a pop: whole even if poisoned.
        spares.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn rebind(socket: Socket, any_port: SocketAddr) -> io::Result<Reservation> {
    socket.bind(&any_port.into())?;
    Reservation::from_bound(socket)
}

/// Has the kernel take back a port that it chose.
fn unbind(socket: &Socket) -> io::Result<()> {
    socket.listen(0)?;
    rustix::net::connect_unspec(socket)?;
    Ok(())
}

impl EphemeralPort {
    /// The port.
    pub fn port(&self) -> u16 {
        self.port
    }
}

impl Drop for EphemeralPort {
    fn drop(&mut self) {
        let Some(reservation) = self.reservation.take() else {
            return;
        };
        let local = reservation.local_addr();
        let socket = reservation.into_socket();
        if self.spares.of(local).len() < MOST_SPARES && unbind(&socket).is_ok() {
            self.spares.of(local).push(socket);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::net::{Ipv4Addr, Ipv6Addr, TcpListener};
    use std::os::fd::AsRawFd as _;

    use super::*;

    fn loopbacks() -> [SocketAddr; 2] {
        [
            SocketAddr::from((Ipv4Addr::LOCALHOST, 0)),
            SocketAddr::from((Ipv6Addr::LOCALHOST, 0)),
        ]
    }

    fn descriptor(port: &EphemeralPort) -> i32 {
        port.reservation.as_ref().unwrap().socket().as_raw_fd()
    }

    #[test]
    fn a_socket_holds_one_port_after_the_other() {
        for source in loopbacks() {
            let spares = Arc::new(SpareSockets::default());
            let first = spares.ephemeral(source).unwrap();
            let (fd, port) = (descriptor(&first), first.port());
            let at_first = SocketAddr::new(source.ip(), port);
            let held = TcpListener::bind(at_first).unwrap_err();
            assert_eq!(held.kind(), io::ErrorKind::AddrInUse);
            drop(first);
            TcpListener::bind(at_first).expect("the port is free again");

            let second = spares.ephemeral(source).unwrap();
            assert_eq!(descriptor(&second), fd, "the same socket");
            let at_second = SocketAddr::new(source.ip(), second.port());
            let held = TcpListener::bind(at_second).unwrap_err();
            assert_eq!(held.kind(), io::ErrorKind::AddrInUse);
            std::net::TcpStream::connect(at_second).expect_err("nobody listens there");
        }
    }

    #[test]
    fn spares_are_few_and_of_their_family() {
        let spares = Arc::new(SpareSockets::default());
        let [v4, v6] = loopbacks();
        let ports: Vec<_> = (0..MOST_SPARES + 10)
            .map(|_| spares.ephemeral(v4).unwrap())
            .collect();
        drop(ports);
        assert_eq!(spares.of(v4).len(), MOST_SPARES);
        assert_eq!(spares.of(v6).len(), 0);
        spares.ephemeral(v6).expect("a new one");
        assert_eq!(spares.of(v6).len(), 1);
    }

    #[test]
    fn an_address_that_is_not_ours_is_refused_with_spares_too() {
        let spares = Arc::new(SpareSockets::default());
        drop(spares.ephemeral(loopbacks()[0]).unwrap());
        let elsewhere = SocketAddr::from(([192, 0, 2, 1], 0));
        let error = spares.ephemeral(elsewhere).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::AddrNotAvailable);
    }
}
