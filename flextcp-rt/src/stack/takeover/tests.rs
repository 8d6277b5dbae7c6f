//! Kernel connections with bytes in every queue become ours, against a peer of the kernel's.

use std::io::{Read, Write};
use std::net::{Ipv4Addr, Ipv6Addr, Shutdown, TcpListener};
use std::time::Duration;

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

use super::*;
use crate::config::{Config, Interfaces, NicChoice};
use crate::host::testing::in_namespace;
use crate::stack::handover::Ours;

const PATIENCE: Duration = Duration::from_secs(20);

fn host(interfaces: &[&str]) -> Arc<Host> {
    Host::start(Config {
        nic: NicChoice::Soft,
        interfaces: Interfaces::List(interfaces.iter().map(|&name| name.to_owned()).collect()),
        hairpin: false,
        ..Config::default()
    })
}

fn within_runtime(test: impl Future<Output = ()> + Send) {
    in_namespace(|| {
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(1)
            .enable_all()
            .build()
            .unwrap();
        runtime.block_on(test);
    });
}

/// Both ends of a kernel connection; the second is set up for blocking calls.
fn kernel_pair(at: impl Into<std::net::IpAddr>) -> (TcpStream, TcpStream) {
    let listener = TcpListener::bind((at.into(), 0)).unwrap();
    let near = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
    let (far, _) = listener.accept().unwrap();
    far.set_read_timeout(Some(PATIENCE)).unwrap();
    far.set_write_timeout(Some(PATIENCE)).unwrap();
    near.set_nonblocking(true).unwrap();
    (near, far)
}

fn ours(host: &Arc<Host>, stream: TcpStream) -> Stream {
    match host.from_std(stream, SocketOptions::default()).unwrap() {
        Connection::Flex(stream) => stream,
        Connection::Kernel(_) => panic!("lo is accelerated"),
    }
}

fn stays(host: &Arc<Host>, stream: TcpStream) -> tokio::net::TcpStream {
    match host.from_std(stream, SocketOptions::default()).unwrap() {
        Connection::Kernel(stream) => stream,
        Connection::Flex(_) => panic!("it cannot be taken over"),
    }
}

fn pattern(len: usize) -> Vec<u8> {
    (0..len)
        .map(|at| (at ^ (at >> 8) ^ (at >> 16)) as u8)
        .collect()
}

#[test]
fn a_connection_is_taken_over_with_its_queues() {
    within_runtime(async {
        let host = host(&["lo"]);
        for at in [
            Ipv4Addr::LOCALHOST.into(),
            std::net::IpAddr::V6(Ipv6Addr::LOCALHOST),
        ] {
            let (mut near, mut far) = kernel_pair(at);
            far.write_all(b"unread").unwrap();
            // More than the peer's window takes: what is sent and what never was.
            let to_far = pattern(16 << 20);
            let mut queued = 0;
            while let Ok(n) = near.write(&to_far[queued..]) {
                queued += n;
            }
            assert!(queued > 1 << 20, "{queued}");
            let ends = (near.local_addr().unwrap(), near.peer_addr().unwrap());
            let mut byte = [0; 6];
            while near.peek(&mut byte).unwrap_or(0) < 6 {}

            let near = ours(&host, near);
            assert_eq!((near.local_addr(), near.peer_addr().unwrap()), ends);
            let reader = std::thread::spawn(move || {
                let mut received = vec![0; queued];
                far.read_exact(&mut received).unwrap();
                (far, received)
            });
            let mut near = Ours(near);
            let mut buf = [0; 6];
            near.read_exact(&mut buf).await.unwrap();
            assert_eq!(&buf, b"unread");
            let (mut far, received) = tokio::task::spawn_blocking(|| reader.join().unwrap())
                .await
                .unwrap();
            assert!(received == to_far[..queued], "bytes differ");

            for _ in 0..10 {
                near.write_all(b"ping").await.unwrap();
                far.read_exact(&mut buf[..4]).unwrap();
                far.write_all(b"pong").unwrap();
                near.read_exact(&mut buf[..4]).await.unwrap();
            }
            assert_eq!(&buf[..4], b"pong");
            assert!(host.stats().connections.ever_offloaded > 0);

            // Orderly ends, both ways.
            far.shutdown(Shutdown::Write).unwrap();
            assert_eq!(near.read(&mut buf).await.unwrap(), 0);
            near.shutdown().await.unwrap();
            drop(near);
            assert_eq!(far.read(&mut buf).unwrap(), 0);
        }
        assert_eq!(host.stats().connections.failed, 0);
    });
}

#[test]
fn a_connection_goes_to_the_kernel_and_back() {
    within_runtime(async {
        let host = host(&["lo"]);
        let (mut near, mut far) = kernel_pair(Ipv4Addr::LOCALHOST);
        let mut buf = [0; 4];
        for round in 0..3_u8 {
            let stream = ours(&host, near);
            far.write_all(&[round; 4]).unwrap();
            let mut stream = Ours(stream);
            stream.read_exact(&mut buf).await.unwrap();
            assert_eq!(buf, [round; 4]);
            stream.write_all(&[round + 10; 4]).await.unwrap();
            far.read_exact(&mut buf).unwrap();
            assert_eq!(buf, [round + 10; 4]);

            near = host.into_std(stream.0).unwrap();
            far.write_all(&[round + 20; 4]).unwrap();
            near.set_nonblocking(false).unwrap();
            near.set_read_timeout(Some(PATIENCE)).unwrap();
            near.read_exact(&mut buf).unwrap();
            assert_eq!(buf, [round + 20; 4]);
            near.set_nonblocking(true).unwrap();
        }
        assert_eq!(host.stats().connections.host, 0);
        assert_eq!(host.stats().connections.offloaded, 0);
    });
}

#[test]
fn what_cannot_be_taken_over_stays_a_kernel_socket() {
    within_runtime(async {
        let works = async |mut near: tokio::net::TcpStream, mut far: TcpStream| {
            let mut buf = [0; 2];
            near.write_all(b"ok").await.unwrap();
            far.read_exact(&mut buf).unwrap();
            assert_eq!(&buf, b"ok");
        };
        // No interface of ours.
        let without = host(&[]);
        let (near, far) = kernel_pair(Ipv4Addr::LOCALHOST);
        works(stays(&without, near), far).await;

        let host = host(&["lo"]);
        // Somebody else in this process has it too.
        let (near, far) = kernel_pair(Ipv4Addr::LOCALHOST);
        let duplicate = near.try_clone().unwrap();
        works(stays(&host, near), far).await;
        drop(duplicate);
        // The peer has closed its direction.
        let (near, far) = kernel_pair(Ipv4Addr::LOCALHOST);
        far.shutdown(Shutdown::Write).unwrap();
        while near.peek(&mut [0]).is_err() {}
        works(stays(&host, near), far).await;
    });
}
