//! The stack end to end, over the hairpin.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;

use socket2::{Domain, Socket, Type};

use super::{Connection, Host, Listener};
use crate::config::{Config, Fallback, NicChoice};
use crate::host::testing::{in_namespace, ip};
use crate::options::SocketOptions;
use crate::socket::Stream;

/// A host without interfaces: what it accelerates stays in the process.
fn host() -> Arc<Host> {
    let mut config = Config::default();
    config.nic = NicChoice::Soft;
    config.interfaces = crate::config::Interfaces::List(Vec::new());
    Host::start(config)
}

fn listen(host: &Arc<Host>) -> (Listener, SocketAddr) {
    let socket = Socket::new(Domain::IPV4, Type::STREAM, None).unwrap();
    socket
        .bind(&SocketAddr::from(([127, 0, 0, 1], 0)).into())
        .unwrap();
    let listener = host.listen(socket, 128, SocketOptions::default()).unwrap();
    let addr = listener.kernel.local_addr().unwrap();
    (listener, addr)
}

#[test]
fn where_falling_back_is_denied_a_misspelt_interface_is_an_error() {
    let listen = |fallback| {
        let mut config = Config::default();
        config.nic = NicChoice::Soft;
        config.hairpin = false;
        config.interfaces = crate::config::Interfaces::List(vec!["nope".to_owned()]);
        config.fallback = fallback;
        Host::start(config).listen_cores(SocketAddr::from(([127, 0, 0, 1], 0)), None)
    };
    assert!(listen(Fallback::Allow).unwrap().is_empty());
    let error = listen(Fallback::Deny).unwrap_err();
    assert_eq!(error.kind(), io::ErrorKind::NotFound);
    assert!(error.to_string().contains("no interface nope"), "{error}");
}

async fn pair(host: &Arc<Host>) -> (Stream, Stream) {
    let (listener, addr) = listen(host);
    let Connection::Flex(client) = host
        .connect(addr, None, SocketOptions::default())
        .await
        .unwrap()
    else {
        panic!("a connection within the process is ours");
    };
    let (server, _) = listener.flex.as_ref().unwrap().accept().await.unwrap();
    (client, server)
}

async fn read_some(stream: &Stream, buf: &mut [u8]) -> io::Result<usize> {
    loop {
        std::future::poll_fn(|cx| stream.poll_read_ready(cx)).await?;
        match stream.try_read(buf) {
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
            answer => return answer,
        }
    }
}

async fn write_some(stream: &Stream, buf: &[u8]) -> io::Result<usize> {
    loop {
        std::future::poll_fn(|cx| stream.poll_write_ready(cx)).await?;
        match stream.try_write(buf) {
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
            answer => return answer,
        }
    }
}

#[tokio::test]
async fn a_connection_within_the_process_carries_bytes_both_ways() {
    let host = host();
    let (client, server) = pair(&host).await;
    assert_eq!(client.local_addr(), server.peer_addr().unwrap());
    assert_eq!(write_some(&client, b"ping").await.unwrap(), 4);
    let mut buf = [0; 16];
    assert_eq!(read_some(&server, &mut buf).await.unwrap(), 4);
    assert_eq!(write_some(&server, b"pong!").await.unwrap(), 5);
    assert_eq!(read_some(&client, &mut buf).await.unwrap(), 5);
    assert_eq!(&buf[..5], b"pong!");
    drop(client);
    assert_eq!(read_some(&server, &mut buf).await.unwrap(), 0);
}

#[tokio::test]
async fn established_connections_are_carried_by_the_fast_path() {
    let host = host();
    let (client, server) = pair(&host).await;
    let data: Vec<u8> = (0..8_u32 << 20)
        .map(|i| (i * 7 + (i >> 11)) as u8)
        .collect();
    let expected = data.clone();
    let writer = tokio::spawn(async move {
        let mut sent = 0;
        while sent < data.len() {
            sent += write_some(&client, &data[sent..]).await.unwrap();
        }
        client.shutdown_write();
        client
    });
    let mut received = Vec::new();
    let mut buf = vec![0; 64 << 10];
    loop {
        match read_some(&server, &mut buf).await.unwrap() {
            0 => break,
            n => received.extend_from_slice(&buf[..n]),
        }
    }
    drop(writer.await.unwrap());
    assert!(received == expected, "bytes differ");
    let stats = host.stats();
    // On a loaded machine the engine has it for some of the time: while rings grow, and after a probe.
    assert!(stats.fast_path.bytes_in >= 4 << 20, "{stats:?}");
}

#[tokio::test]
async fn connecting_to_a_closed_port_is_refused() {
    let host = host();
    let (listener, addr) = listen(&host);
    drop(listener);
    let error = host
        .connect(addr, None, SocketOptions::default())
        .await
        .unwrap_err();
    assert_eq!(error.kind(), io::ErrorKind::ConnectionRefused);
}

/// Waits until `done`; tests wait for conditions, this bounds a failing one.
async fn eventually(what: &str, mut done: impl FnMut() -> bool) {
    let until = std::time::Instant::now() + std::time::Duration::from_secs(5);
    while !done() {
        assert!(std::time::Instant::now() < until, "never: {what}");
        tokio::time::sleep(std::time::Duration::from_millis(1)).await;
    }
}

#[tokio::test]
async fn statistics_tell_who_carries_a_connection_and_what_is_unfinished() {
    let host = host();
    let (client, server) = pair(&host).await;
    eventually("both ends on the NIC", || {
        client.is_offloaded() && server.is_offloaded()
    })
    .await;
    let connections = host.stats().connections;
    assert_eq!((connections.accepted, connections.connected), (1, 1));
    assert_eq!((connections.offloaded, connections.host), (2, 0));
    assert_eq!(connections.ever_offloaded, 2);
    let unfinished = || host.cores().iter().any(|core| core.has_unfinished());
    // An idle connection that is still open is no reason to wait.
    eventually("idle", || !unfinished()).await;

    // A closed window keeps bytes back: neither side reads.
    let data = vec![7; 1 << 20];
    let mut written = 0;
    while let Ok(n) = client.try_write(&data) {
        written += n;
        tokio::task::yield_now().await;
    }
    assert!(unfinished());
    drop(client);
    let mut buf = vec![0; 1 << 20];
    loop {
        match read_some(&server, &mut buf).await.unwrap() {
            0 => break,
            n => written -= n,
        }
    }
    assert_eq!(written, 0);
    assert!(!server.is_offloaded());
    drop(server);
    eventually("all acknowledged", || !unfinished()).await;
    eventually("one end in TIME_WAIT", || {
        let connections = host.stats().connections;
        (
            connections.offloaded,
            connections.host,
            connections.time_wait,
        ) == (0, 0, 1)
    })
    .await;
    assert_eq!(host.stats().connections.ever_offloaded, 2);
    assert_eq!(host.stats().connections.failed, 0);
}

fn names(cores: &[Arc<crate::reactor::core::Core>]) -> Vec<String> {
    let mut names: Vec<_> = cores.iter().map(|core| core.name().to_owned()).collect();
    names.sort();
    names
}

#[test]
fn what_a_wildcard_listener_accelerates() {
    in_namespace(|| {
        for command in [
            "link add own type veth peer name peer",
            "link add port type veth peer name guest",
            "link add bare type veth peer name other",
            "link add bridge type bridge",
            "link set port master bridge",
            "addr add 10.9.0.1/24 dev own",
            "addr add 10.9.1.1/24 dev bridge",
            "link set own up",
            "link set peer up",
            "link set port up",
            "link set guest up",
            "link set bridge up",
            "link set other up",
            // Without an address of IPv6 either.
            "link set bare addrgenmode none",
            "link set bare up",
        ] {
            ip(command);
        }
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .unwrap();
        runtime.block_on(async {
            let host = Host::start(Config {
                nic: NicChoice::Soft,
                ..Config::default()
            });
            let listen = |device: Option<&str>| {
                let socket = Socket::new(Domain::IPV4, Type::STREAM, None).unwrap();
                socket.bind_device(device.map(str::as_bytes)).unwrap();
                let any = SocketAddr::from(([0, 0, 0, 0], 0));
                socket.bind(&any.into()).unwrap();
                let listener = host.listen(socket, 8, SocketOptions::default()).unwrap();
                let listening = host.listening().last().unwrap().cores();
                (listener, names(&listening))
            };
            let (_everywhere, cores) = listen(None);
            let has = |name: &str| cores.iter().any(|core| core.contains(name));
            assert!(has("hairpin") && has(":lo/") && has(":own/"), "{cores:?}");
            assert!(!has(":port/") && !has(":bare/"), "{cores:?}");
            let (_bound, cores) = listen(Some("own"));
            assert!(cores.iter().all(|core| core.contains(":own/")), "{cores:?}");
            let (_bound, cores) = listen(Some("lo"));
            assert_eq!(cores.len(), 2, "{cores:?}");
        });
    });
}
