//! The kernel's own TCP connections at a port, over `NETLINK_SOCK_DIAG`, which needs no privilege.

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use flextcp_nic::flow::FlowTuple;
use netlink_sys::{Socket, protocols::NETLINK_SOCK_DIAG};
use rustix::event::{PollFd, PollFlags, Timespec, poll};

const SOCK_DIAG_BY_FAMILY: u16 = 20;
const NLMSG_ERROR: u16 = 2;
const NLMSG_DONE: u16 = 3;
const NLM_F_REQUEST_DUMP: u16 = 0x301;
const INET_DIAG_REQ_BYTECODE: u16 = 1;
const INET_DIAG_BC_S_GE: u8 = 2;
const INET_DIAG_BC_S_LE: u8 = 3;

/// `TCP_ESTABLISHED` and so on: the states in which a socket has a peer, but TIME_WAIT.
const CONNECTED: u32 =
    1 << 1 | 1 << 2 | 1 << 3 | 1 << 4 | 1 << 5 | 1 << 8 | 1 << 9 | 1 << 11 | 1 << 12;
const TIME_WAIT: u32 = 1 << 6;

const HEADER: usize = 16;
/// `struct inet_diag_msg` up to the identity's end.
const IDENTITY: usize = 4 + 36;
const DATAGRAM: usize = 64 << 10;
/// The kernel answers while the request is sent; a longer silence means that no answer comes.
const ANSWER_TIMEOUT: Timespec = Timespec {
    tv_sec: 2,
    tv_nsec: 0,
};

/// The kernel's connections from the local port `port`, half-open ones too; also those in TIME_WAIT if `lingering`.
/// In the network namespace of the calling thread.
///
/// # Errors
/// The kernel or a sandbox denies it.
pub(crate) fn connections(port: u16, lingering: bool) -> io::Result<Vec<FlowTuple>> {
    let states = if lingering {
        CONNECTED | TIME_WAIT
    } else {
        CONNECTED
    };
    let socket = Socket::new(NETLINK_SOCK_DIAG)?;
    socket.set_non_blocking(true)?;
    let mut found = Vec::new();
    for family in [libc::AF_INET, libc::AF_INET6] {
        socket.send(&request(family as u8, port, states), 0)?;
        collect(&socket, port, &mut found)?;
    }
    Ok(found)
}

/// `struct inet_diag_req_v2` behind its header, and a program that lets the port's sockets through.
fn request(family: u8, port: u16, states: u32) -> Vec<u8> {
    let mut bytes = vec![0; 4];
    bytes.extend(SOCK_DIAG_BY_FAMILY.to_ne_bytes());
    bytes.extend(NLM_F_REQUEST_DUMP.to_ne_bytes());
    // Sequence number and sender: one question at a time.
    bytes.extend([0; 8]);
    bytes.extend([family, libc::IPPROTO_TCP as u8, 0, 0]);
    bytes.extend(states.to_ne_bytes());
    // No identity: all of them.
    bytes.extend([0; 48]);
    bytes.extend(20_u16.to_ne_bytes());
    bytes.extend(INET_DIAG_REQ_BYTECODE.to_ne_bytes());
    // Each step is two words, its operation with where to go on (from its start; beyond the end: no) and its port.
    for (operation, no) in [(INET_DIAG_BC_S_GE, 20_u16), (INET_DIAG_BC_S_LE, 12)] {
        bytes.extend([operation, 8]);
        bytes.extend(no.to_ne_bytes());
        bytes.extend([0, 0]);
        bytes.extend(port.to_ne_bytes());
    }
    let length = u32::try_from(bytes.len()).expect("a request is short");
    bytes[..4].copy_from_slice(&length.to_ne_bytes());
    bytes
}

/// Reads answers up to the dump's end.
fn collect(socket: &Socket, port: u16, found: &mut Vec<FlowTuple>) -> io::Result<()> {
    let mut buffer = Vec::with_capacity(DATAGRAM);
    loop {
        let mut fds = [PollFd::new(socket, PollFlags::IN)];
        match poll(&mut fds, Some(&ANSWER_TIMEOUT)) {
            Ok(0) => return Err(io::ErrorKind::TimedOut.into()),
            Ok(_) | Err(rustix::io::Errno::INTR) => {}
            Err(errno) => return Err(errno.into()),
        }
        buffer.clear();
        match socket.recv(&mut buffer, 0) {
            Ok(_) => {}
            Err(error)
                if matches!(
                    error.kind(),
                    io::ErrorKind::Interrupted | io::ErrorKind::WouldBlock
                ) =>
            {
                continue;
            }
            Err(error) => return Err(error),
        }
        let mut rest = &buffer[..];
        while let Some((kind, body, behind)) = message(rest) {
            match kind {
                NLMSG_DONE => return Ok(()),
                NLMSG_ERROR => {
                    let errno = body
                        .first_chunk()
                        .map_or(0, |code| -i32::from_ne_bytes(*code));
                    return Err(io::Error::from_raw_os_error(errno));
                }
                _ => found.extend(tuple(body).filter(|tuple| tuple.local.1 == port)),
            }
            rest = behind;
        }
    }
}

/// The first message's kind and body, and what is behind it.
fn message(bytes: &[u8]) -> Option<(u16, &[u8], &[u8])> {
    let length = u32::from_ne_bytes(*bytes.first_chunk()?) as usize;
    let kind = u16::from_ne_bytes([*bytes.get(4)?, *bytes.get(5)?]);
    let body = bytes.get(HEADER..length)?;
    let behind = bytes.get(length.next_multiple_of(4)..).unwrap_or(&[]);
    Some((kind, body, behind))
}

/// The ends that a `struct inet_diag_msg` names; IPv4 as IPv4, also of an IPv6 socket.
fn tuple(body: &[u8]) -> Option<FlowTuple> {
    let body = body.get(..IDENTITY)?;
    let port = |at: usize| u16::from_be_bytes([body[at], body[at + 1]]);
    let address = |at: usize| {
        let bytes: [u8; 16] = body[at..at + 16].try_into().expect("sixteen bytes");
        let [a, b, c, d, ..] = bytes;
        match i32::from(body[0]) {
            libc::AF_INET => IpAddr::V4(Ipv4Addr::new(a, b, c, d)),
            _ => IpAddr::V6(Ipv6Addr::from(bytes)).to_canonical(),
        }
    };
    let local = SocketAddr::new(address(8), port(4));
    let remote = SocketAddr::new(address(24), port(6));
    Some(FlowTuple::new(local, remote))
}

#[cfg(test)]
mod tests {
    use std::net::{TcpListener, TcpStream};

    use super::*;

    fn ends(stream: &TcpStream) -> FlowTuple {
        let canonical = |addr: SocketAddr| SocketAddr::new(addr.ip().to_canonical(), addr.port());
        FlowTuple::new(
            canonical(stream.local_addr().unwrap()),
            canonical(stream.peer_addr().unwrap()),
        )
    }

    #[test]
    fn a_ports_connections_are_found_and_no_others() {
        for address in ["127.0.0.1:0", "[::1]:0", "[::ffff:127.0.0.1]:0"] {
            // Connections of others may be in TIME_WAIT at the port that the kernel gives.
            let unused = || {
                let listener = TcpListener::bind(address).unwrap();
                let at = listener.local_addr().unwrap();
                let found = connections(at.port(), true).unwrap();
                found.is_empty().then_some((listener, at))
            };
            let found = (0..20).find_map(|_| unused());
            let (listener, at) = found.expect("a port that nobody used");
            let _near = TcpStream::connect(at).unwrap();
            let (accepted, _) = listener.accept().unwrap();
            let _waiting = TcpStream::connect(at).unwrap();
            let found = connections(at.port(), false).unwrap();
            assert_eq!(found.len(), 2, "{found:?}");
            assert!(found.contains(&ends(&accepted)), "{found:?}");
        }
    }

    #[test]
    fn time_wait_is_told_when_asked_for() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let at = listener.local_addr().unwrap();
        let near = TcpStream::connect(at).unwrap();
        let (accepted, _) = listener.accept().unwrap();
        let ends = ends(&accepted);
        drop(accepted);
        drop(near);
        while connections(at.port(), true).unwrap() != [ends] {
            std::thread::yield_now();
        }
        assert_eq!(connections(at.port(), false).unwrap(), []);
    }
}
