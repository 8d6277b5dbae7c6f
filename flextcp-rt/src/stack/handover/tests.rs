//! Connections that become kernel sockets, by each of the ways.

use std::io::{Read, Write};
use std::sync::Arc;

use socket2::{Domain, Socket, Type};

use super::*;
use crate::config::{Config, Interfaces, NicChoice};
use crate::host::testing::in_namespace;
use crate::stack::{Connection, Listener};

const PATIENCE: Duration = Duration::from_secs(20);

fn host(interfaces: &[&str]) -> Arc<Host> {
    Host::start(Config {
        nic: NicChoice::Soft,
        interfaces: Interfaces::List(interfaces.iter().map(|&name| name.to_owned()).collect()),
        ..Config::default()
    })
}

fn listen(host: &Arc<Host>, at: SocketAddr) -> (Listener, SocketAddr) {
    let socket = Socket::new(Domain::for_address(at), Type::STREAM, None).unwrap();
    socket.bind(&at.into()).unwrap();
    let listener = host.listen(socket, 128, SocketOptions::default()).unwrap();
    let addr = listener.kernel.local_addr().unwrap();
    (listener, addr)
}

async fn accept(listener: &Listener) -> Stream {
    listener.flex.as_ref().unwrap().accept().await.unwrap().0
}

async fn hairpin_pair(host: &Arc<Host>) -> (Stream, Stream) {
    let (listener, addr) = listen(host, (Ipv4Addr::LOCALHOST, 0).into());
    let connected = host.connect(addr, None, SocketOptions::default()).await;
    let Connection::Flex(client) = connected.unwrap() else {
        panic!("a connection within the process is ours");
    };
    (client, accept(&listener).await)
}

fn blocking(stream: &TcpStream) {
    stream.set_nonblocking(false).unwrap();
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    stream.set_write_timeout(Some(PATIENCE)).unwrap();
}

fn runtime() -> Runtime {
    tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap()
}

fn pattern(len: usize) -> Vec<u8> {
    (0..len)
        .map(|at| (at ^ (at >> 8) ^ (at >> 16)) as u8)
        .collect()
}

/// Reads and writes of the program block the thread that the connection's runtime needs.
#[tokio::test]
async fn a_connection_within_the_process_is_relayed_while_its_runtime_is_blocked() {
    let host = host(&[]);
    let (client, server) = hairpin_pair(&host).await;
    let (local, peer) = (server.local_addr(), server.peer_addr().unwrap());
    assert_eq!(client.try_write(b"early").unwrap(), 5);
    let mut server = host.into_std(server).unwrap();
    blocking(&server);
    let mut buf = [0; 5];
    server.read_exact(&mut buf).unwrap();
    assert_eq!(&buf, b"early");
    assert_eq!(client.try_write(b"later").unwrap(), 5);
    server.read_exact(&mut buf).unwrap();
    assert_eq!(&buf, b"later");
    if repair::is_permitted() {
        assert_eq!(server.local_addr().unwrap(), local);
        assert_eq!(server.peer_addr().unwrap(), peer);
    }

    server.write_all(b"reply").unwrap();
    server.shutdown(std::net::Shutdown::Write).unwrap();
    let mut client = Ours(client);
    let mut reply = Vec::new();
    tokio::io::AsyncReadExt::read_to_end(&mut client, &mut reply)
        .await
        .unwrap();
    assert_eq!(reply, b"reply");
    // The other direction goes on after a half-close.
    assert_eq!(client.0.try_write(b"still").unwrap(), 5);
    server.read_exact(&mut buf).unwrap();
    assert_eq!(&buf, b"still");
    drop(client);
    assert_eq!(server.read(&mut buf).unwrap(), 0);
}

#[tokio::test]
async fn resets_pass_through_a_relay() {
    let host = host(&[]);
    let (client, server) = hairpin_pair(&host).await;
    let mut server = host.into_std(server).unwrap();
    blocking(&server);
    client.set_option(SocketOption::Linger(Some(Duration::ZERO)));
    drop(client);
    let error = server.read(&mut [0]).unwrap_err();
    assert_eq!(error.kind(), io::ErrorKind::ConnectionReset);

    let (client, server) = hairpin_pair(&host).await;
    let server = host.into_std(server).unwrap();
    SockRef::from(&server)
        .set_linger(Some(Duration::ZERO))
        .unwrap();
    drop(server);
    let error = std::future::poll_fn(|cx| {
        let mut byte = [0];
        client.poll_read(cx, &mut ReadBuf::new(&mut byte))
    })
    .await
    .unwrap_err();
    assert_eq!(error.kind(), io::ErrorKind::ConnectionReset);
}

#[test]
fn a_loopback_pair_is_connected() {
    let (mut near, mut far) = loopback_pair(Ipv4Addr::new(192, 0, 2, 1).into()).unwrap();
    blocking(&far);
    near.write_all(b"x").unwrap();
    let mut byte = [0];
    far.read_exact(&mut byte).unwrap();
    assert_eq!(&byte, b"x");
    assert_eq!(near.local_addr().unwrap(), far.peer_addr().unwrap());
}

/// An accepted connection, with bytes in every queue, becomes the kernel's; its listener goes on.
#[test]
fn an_accepted_connection_is_handed_over_with_its_queues() {
    in_namespace(|| {
        runtime().block_on(async {
            let host = host(&["lo"]);
            let (listener, addr) = listen(&host, (Ipv4Addr::LOCALHOST, 0).into());
            // Past the host: a peer that is the kernel's.
            let mut peer = TcpStream::connect_timeout(&addr, PATIENCE).unwrap();
            blocking(&peer);
            let server = accept(&listener).await;
            assert_eq!(server.peer_addr().unwrap(), peer.local_addr().unwrap());
            peer.write_all(b"unread").unwrap();
            std::future::poll_fn(|cx| server.poll_read_ready(cx))
                .await
                .unwrap();
            while server.info().unwrap().bytes_received < 6 {
                tokio::task::yield_now().await;
            }
            let to_peer = pattern(1 << 20);
            let queued = server.try_write(&to_peer).unwrap();
            assert!(queued > 64 << 10, "{queued}");

            let mut server = host.into_std(server).unwrap();
            assert_eq!(host.stats().connections.host, 0, "nothing of it stays");
            assert_eq!(host.stats().connections.offloaded, 0);
            blocking(&server);
            assert_eq!(server.local_addr().unwrap(), addr);
            assert_eq!(server.peer_addr().unwrap(), peer.local_addr().unwrap());
            let mut buf = [0; 6];
            server.read_exact(&mut buf).unwrap();
            assert_eq!(&buf, b"unread");
            let mut received = vec![0; queued];
            peer.read_exact(&mut received).unwrap();
            assert!(received == to_peer[..queued], "bytes differ");
            // Without the host: this thread is its runtime, and blocked.
            for _ in 0..10 {
                peer.write_all(b"ping").unwrap();
                server.read_exact(&mut buf[..4]).unwrap();
                server.write_all(b"pong").unwrap();
                peer.read_exact(&mut buf[..4]).unwrap();
            }
            assert_eq!(&buf[..4], b"pong");
            drop(server);
            assert_eq!(peer.read(&mut buf).unwrap(), 0);

            let second = TcpStream::connect_timeout(&addr, PATIENCE).unwrap();
            let server = accept(&listener).await;
            assert_eq!(server.peer_addr().unwrap(), second.local_addr().unwrap());
        });
    });
}

/// The addresses are those that the program saw before, whatever the families are.
#[test]
fn a_handed_over_connection_keeps_the_addresses_of_its_listeners_family() {
    in_namespace(|| {
        runtime().block_on(async {
            let host = host(&["lo"]);
            let (listener, addr) = listen(&host, (Ipv6Addr::UNSPECIFIED, 0).into());
            for ip in [Ipv4Addr::LOCALHOST.into(), IpAddr::V6(Ipv6Addr::LOCALHOST)] {
                let mut peer = TcpStream::connect((ip, addr.port())).unwrap();
                blocking(&peer);
                let server = accept(&listener).await;
                let addresses = (server.local_addr(), server.peer_addr().unwrap());
                let mut server = host.into_std(server).unwrap();
                assert_eq!(server.local_addr().unwrap(), addresses.0);
                assert_eq!(server.peer_addr().unwrap(), addresses.1);
                assert_eq!(host.stats().connections.host, 0, "nothing of it stays");
                blocking(&server);
                peer.write_all(b"ping").unwrap();
                let mut buf = [0; 4];
                server.read_exact(&mut buf).unwrap();
                server.write_all(&buf).unwrap();
                peer.read_exact(&mut buf).unwrap();
                assert_eq!(&buf, b"ping");
            }
        });
    });
}

/// A connection that we opened leaves its port to the kernel's socket.
#[test]
fn an_outgoing_connection_is_handed_over() {
    in_namespace(|| {
        runtime().block_on(async {
            let host = host(&["lo"]);
            let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
            let addr = listener.local_addr().unwrap();
            let connected = host.connect(addr, None, SocketOptions::default()).await;
            let Connection::Flex(client) = connected.unwrap() else {
                panic!("lo is accelerated");
            };
            let (mut peer, from) = listener.accept().unwrap();
            blocking(&peer);
            let mut client = host.into_std(client).unwrap();
            blocking(&client);
            assert_eq!(client.local_addr().unwrap(), from);
            client.write_all(b"over").unwrap();
            let mut buf = [0; 4];
            peer.read_exact(&mut buf).unwrap();
            assert_eq!(&buf, b"over");
            peer.write_all(b"back").unwrap();
            client.read_exact(&mut buf).unwrap();
            assert_eq!(&buf, b"back");
        });
    });
}
