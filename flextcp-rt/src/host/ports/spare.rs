//! Kernel sockets that held a port and will hold another.
//!
//! Every outgoing connection needs a socket that holds its port, and to make and destroy one costs twice as much as
//! to give its port back and bind it again. The kernel takes back a port that it chose itself when a listening
//! socket is disconnected (`connect` to `AF_UNSPEC`), so the socket listens for that moment.

use std::io;
use std::net::SocketAddr;
use std::ops::RangeInclusive;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use socket2::Socket;

use super::{BindOptions, Reservation};

/// Sockets kept of each family.
const MOST_SPARES: usize = 64;

const RANGE_FILE: &str = "/proc/sys/net/ipv4/ip_local_port_range";
/// Linux's default of it.
const DEFAULT_RANGE: RangeInclusive<u16> = 32_768..=60_999;

type Spares = Mutex<Vec<Socket>>;

/// Sockets without a port, of each family.
#[derive(Debug, Default)]
pub struct SpareSockets {
    v4: Spares,
    v6: Spares,
    steps: AtomicU32,
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

    /// A port of the half that the kernel does not choose from while the other has free ones: the ephemeral ports of
    /// `like`'s other parity, one after the other from there. `foreign` as in [`BindOptions`].
    ///
    /// # Errors
    /// As [`Reservation::bind`].
    pub fn from_other_half(
        &self,
        source: SocketAddr,
        like: u16,
        foreign: bool,
    ) -> io::Result<Reservation> {
        let range = ephemeral_range(RANGE_FILE);
        let (first, last) = (u32::from(*range.start()), u32::from(*range.end()));
        let step = 2 * self.steps.fetch_add(1, Ordering::Relaxed) + 1;
        let ports = (last - first).next_multiple_of(2).max(2);
        let port = first + (u32::from(like).saturating_sub(first) + step % ports) % ports;
        let mut addr = source;
        addr.set_port(port as u16);
        let options = BindOptions {
            foreign,
            ..BindOptions::default()
        };
        Reservation::bind(addr, &options)
    }

    fn of(&self, addr: SocketAddr) -> MutexGuard<'_, Vec<Socket>> {
        let spares = if addr.is_ipv4() { &self.v4 } else { &self.v6 };
        // A push or a pop: whole even if poisoned.
        spares.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The ports that connections without one of their own get: what the kernel says, and its default where it cannot be
/// asked (no `/proc` in a container or a chroot).
fn ephemeral_range(file: &str) -> RangeInclusive<u16> {
    let text = std::fs::read_to_string(file).unwrap_or_default();
    let mut ports = text.split_whitespace().map_while(|port| port.parse().ok());
    match (ports.next(), ports.next()) {
        (Some(first), Some(last)) if first <= last => first..=last,
        _ => DEFAULT_RANGE,
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
    fn the_other_half_is_of_the_other_parity_and_goes_round() {
        let spares = Arc::new(SpareSockets::default());
        let source = loopbacks()[0];
        let like = spares.ephemeral(source).unwrap().port();
        let range = ephemeral_range(RANGE_FILE);
        // Others' connections may be in the way, or wait out TIME_WAIT there.
        let mut held = Vec::new();
        for _ in 0..20_000 {
            match spares.from_other_half(source, like, false) {
                Ok(port) => held.push(port),
                Err(error) => assert_eq!(error.kind(), io::ErrorKind::AddrInUse),
            }
            if held.len() == 20 {
                break;
            }
        }
        assert_eq!(held.len(), 20);
        for port in held {
            assert!(range.contains(&port.port()) && port.port() % 2 != like % 2);
        }
    }

    #[test]
    fn the_range_is_the_kernels_and_its_default_where_that_cannot_be_read() {
        assert_eq!(ephemeral_range("/nowhere/at/all"), DEFAULT_RANGE);
        let file = std::env::temp_dir().join(format!("flextcp-range-{}", std::process::id()));
        let read = |text: &str| {
            std::fs::write(&file, text).unwrap();
            ephemeral_range(file.to_str().unwrap())
        };
        assert_eq!(read("1024\t2047\n"), 1_024..=2_047);
        for nonsense in ["", "7", "9 8", "here there"] {
            assert_eq!(read(nonsense), DEFAULT_RANGE, "{nonsense:?}");
        }
        std::fs::remove_file(&file).unwrap();
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
