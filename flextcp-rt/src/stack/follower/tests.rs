//! Changes in the kernel reach live connections and the steering.

use std::io::{Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::sync::mpsc;
use std::time::{Duration, Instant};

use super::*;
use crate::config::{Config, Interfaces, NicChoice};
use crate::host::testing::{in_namespace, ip};
use crate::options::SocketOptions;
use crate::socket::Stream;
use crate::stack::{Connection, Host};

const PATIENCE: Duration = Duration::from_secs(10);
const PEER: Ipv4Addr = Ipv4Addr::new(10, 9, 0, 2);

/// Writes `message` and reads as much back.
async fn echo(stream: &Stream, message: &[u8]) {
    assert_eq!(stream.try_write(message).unwrap(), message.len());
    let mut answer = Vec::new();
    while answer.len() < message.len() {
        let read = std::future::poll_fn(|cx| {
            let mut buf = [0; 64];
            let mut buf = tokio::io::ReadBuf::new(&mut buf);
            stream
                .poll_read(cx, &mut buf)
                .map_ok(|()| buf.filled().to_vec())
        });
        answer.extend(tokio::time::timeout(PATIENCE, read).await.unwrap().unwrap());
    }
    assert_eq!(answer, message);
}

/// The other end of the wire: a namespace with an echo server. Each command runs `ip` there.
fn peer(commands: mpsc::Receiver<String>, ready: mpsc::Sender<i32>) {
    in_namespace(move || {
        ready
            .send(rustix::thread::gettid().as_raw_nonzero().get())
            .unwrap();
        ip(&commands.recv().unwrap());
        ip("link set wire1 up");
        let listener = TcpListener::bind((PEER, 7)).unwrap();
        ready.send(0).unwrap();
        let (mut stream, _) = listener.accept().unwrap();
        std::thread::spawn(move || {
            let mut buf = [0; 64];
            while let Ok(read @ 1..) = stream.read(&mut buf) {
                stream.write_all(&buf[..read]).unwrap();
            }
        });
        while let Ok(command) = commands.recv() {
            ip(&command);
            ready.send(0).unwrap();
        }
    });
}

async fn connections_follow() {
    let (command, commands) = mpsc::channel();
    let (ready, peer_ready) = mpsc::channel();
    let other = std::thread::spawn(move || peer(commands, ready));
    let tid = peer_ready.recv_timeout(PATIENCE).unwrap();
    ip(
        "link add wire0 address 02:00:00:00:00:01 type veth peer name wire1 address 02:00:00:00:00:02",
    );
    ip(&format!("link set wire1 netns {tid}"));
    ip("addr add 10.9.0.1/24 dev wire0");
    ip("link set wire0 up");
    command
        .send(format!("addr add {PEER}/24 dev wire1"))
        .unwrap();
    peer_ready.recv_timeout(PATIENCE).unwrap();

    let host = Host::start(Config {
        nic: NicChoice::Soft,
        interfaces: Interfaces::List(vec!["wire0".to_owned()]),
        ..Config::default()
    });
    let remote = SocketAddr::from((PEER, 7));
    let connected = host.connect(remote, None, SocketOptions::default()).await;
    let Connection::Flex(stream) = connected.unwrap() else {
        panic!("wire0 is accelerated");
    };
    echo(&stream, b"before").await;

    // Another card answers there now: what is sent to the old address is not for it.
    command
        .send("link set wire1 address 02:00:00:00:00:99".to_owned())
        .unwrap();
    peer_ready.recv_timeout(PATIENCE).unwrap();
    ip(&format!(
        "neigh replace {PEER} lladdr 02:00:00:00:00:99 dev wire0"
    ));
    let started = Instant::now();
    echo(&stream, b"after").await;
    assert!(started.elapsed() < PATIENCE, "{:?}", started.elapsed());

    let serves = |address: [u8; 4]| {
        let interfaces = host.interfaces();
        let follower = interfaces.follower.as_ref().unwrap();
        let followed = lock(&follower.followed);
        let Steering::Xdp(steering) = &followed[0].steering else {
            panic!("wire0 has an XDP program");
        };
        flextcp_nic::steer::Steering::serves(steering, address.into())
    };
    assert!(serves([10, 9, 0, 1]));
    for (change, expected) in [("add", true), ("del", false)] {
        ip(&format!("addr {change} 10.9.0.77/24 dev wire0"));
        let until = Instant::now() + PATIENCE;
        while serves([10, 9, 0, 77]) != expected {
            assert!(Instant::now() < until, "never: {change}");
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    }
    drop(stream);
    drop(command);
    other.join().unwrap();
}

#[test]
fn neighbours_and_addresses_are_followed() {
    in_namespace(|| {
        tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .unwrap()
            .block_on(connections_follow());
    });
}
