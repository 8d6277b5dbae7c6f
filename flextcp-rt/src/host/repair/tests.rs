use std::io::Read;
use std::net::{Ipv4Addr, Ipv6Addr, TcpListener};
use std::thread;
use std::time::Duration;

use super::*;
use crate::host::testing::{in_namespace, ip};

/// A byte stream that shows any loss, repetition or shift.
fn pattern(len: usize) -> Vec<u8> {
    (0..len)
        .map(|at| (at ^ (at >> 8) ^ (at >> 16)) as u8)
        .collect()
}

/// A connected pair (the one that connected, the one that was accepted) and the listener.
fn pair(addr: SocketAddr) -> (TcpStream, TcpStream, TcpListener) {
    let listener = TcpListener::bind(addr).unwrap();
    let client = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
    let (server, _) = listener.accept().unwrap();
    for stream in [&client, &server] {
        stream
            .set_read_timeout(Some(Duration::from_secs(20)))
            .unwrap();
        stream
            .set_write_timeout(Some(Duration::from_secs(20)))
            .unwrap();
    }
    (client, server, listener)
}

fn v4() -> SocketAddr {
    (Ipv4Addr::LOCALHOST, 0).into()
}

/// Packets with this mark go nowhere.
const MUTED: u32 = 1;

/// A namespace in which [`MUTED`] sockets cannot send.
fn in_mutable_namespace(test: impl FnOnce() + Send) {
    in_namespace(|| {
        for family in ["-4", "-6"] {
            ip(&format!("{family} rule add pref 10 table local"));
            ip(&format!("{family} rule del pref 0"));
            ip(&format!(
                "{family} rule add pref 5 fwmark {MUTED} blackhole"
            ));
        }
        test();
    });
}

/// Through our representation and back. With no NIC to own the arrivals between the two sockets, the peer is
/// muted meanwhile, as if what it sends were lost on the wire.
fn round_trip(stream: TcpStream, peer: &TcpStream) -> (TcpStream, RepairState) {
    let peer = socket2::SockRef::from(peer);
    peer.set_mark(MUTED).unwrap();
    let (state, reservation) = import(stream).unwrap().finish();
    assert_eq!(reservation.local_addr(), state.local);
    let stream = export(&state).unwrap();
    drop(reservation);
    peer.set_mark(0).unwrap();
    stream.set_nonblocking(false).unwrap();
    stream
        .set_read_timeout(Some(Duration::from_secs(20)))
        .unwrap();
    stream
        .set_write_timeout(Some(Duration::from_secs(20)))
        .unwrap();
    (stream, state)
}

fn echo_continues<'a>(mut a: &'a TcpStream, mut b: &'a TcpStream) {
    for (message, mut buffer) in [(&b"ping"[..], [0; 4]), (b"pong", [0; 4])] {
        a.write_all(message).unwrap();
        b.read_exact(&mut buffer).unwrap();
        assert_eq!(buffer, message);
        (a, b) = (b, a);
    }
}

/// Writes until the socket takes no more; returns how much it took.
fn write_until_full(stream: &TcpStream, bytes: &[u8]) -> usize {
    stream.set_nonblocking(true).unwrap();
    let mut written = 0;
    while written < bytes.len() {
        match (&*stream).write(&bytes[written..]) {
            Ok(n) => written += n,
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => break,
            Err(error) => panic!("{error}"),
        }
    }
    stream.set_nonblocking(false).unwrap();
    written
}

#[test]
fn either_end_of_an_idle_connection_moves_and_goes_on() {
    in_mutable_namespace(|| {
        for addr in [v4(), (Ipv6Addr::LOCALHOST, 0).into()] {
            let (client, server, _listener) = pair(addr);
            echo_continues(&client, &server);
            let (server, state) = round_trip(server, &client);
            assert!(state.recv_queue.is_empty() && state.unacked.is_empty());
            assert!(state.window_scales.is_some() && state.sack_permitted);
            assert!(state.timestamp.is_some());
            echo_continues(&client, &server);
            let (client, _) = round_trip(client, &server);
            echo_continues(&client, &server);
            drop(client);
            let mut rest = Vec::new();
            (&server).read_to_end(&mut rest).unwrap();
            assert!(
                rest.is_empty(),
                "the end of the stream arrives, and nothing else"
            );
        }
    });
}

#[test]
fn full_queues_move_without_the_loss_of_a_byte() {
    in_mutable_namespace(|| {
        let (client, server, _listener) = pair(v4());
        let sent = pattern(64 << 20);
        // Both directions full: the receive and the send queue of the server hold data.
        let to_server = write_until_full(&client, &sent);
        let to_client = write_until_full(&server, &sent);
        let (server, state) = round_trip(server, &client);
        assert!(
            !state.recv_queue.is_empty(),
            "unread bytes were there to move"
        );
        assert!(
            !state.unacked.is_empty() || !state.unsent.is_empty(),
            "unacknowledged bytes too"
        );
        assert!(state.recv_queue == sent[..state.recv_queue.len()]);

        let more = to_client + (1 << 20);
        thread::scope(|scope| {
            let reader = scope.spawn(|| {
                let mut received = vec![0; to_server];
                (&server).read_exact(&mut received).map(|()| received)
            });
            let writer = scope.spawn(|| (&server).write_all(&sent[to_client..more]));
            let mut received = vec![0; more];
            (&client).read_exact(&mut received).unwrap();
            assert!(received == sent[..more], "client received other bytes");
            let received = reader.join().unwrap().unwrap();
            assert!(received == sent[..to_server], "server received other bytes");
            writer.join().unwrap().unwrap();
        });
        echo_continues(&client, &server);
    });
}

#[test]
fn a_connection_moves_while_its_peer_sends_and_receives() {
    in_mutable_namespace(|| {
        let (client, server, _listener) = pair(v4());
        let sent = pattern(8 << 20);
        thread::scope(|scope| {
            let writer = scope.spawn(|| (&client).write_all(&sent));
            let reader = scope.spawn(|| {
                let mut received = vec![0; sent.len()];
                (&client).read_exact(&mut received).map(|()| received)
            });
            // Echo in pieces and move the connection between them, in the middle of the traffic.
            let mut server = server;
            let mut done = 0;
            let mut moves = 0;
            while done < sent.len() {
                let mut buffer = vec![0; 256 << 10];
                let n = (&server).read(&mut buffer).unwrap();
                assert_ne!(n, 0);
                (&server).write_all(&buffer[..n]).unwrap();
                done += n;
                if done / (1 << 20) > moves {
                    moves += 1;
                    server = round_trip(server, &client).0;
                }
            }
            assert!(moves >= 7, "moved {moves} times");
            writer.join().unwrap().unwrap();
            assert!(
                reader.join().unwrap().unwrap() == sent,
                "other bytes came back"
            );
        });
    });
}

#[test]
fn plain_connections_without_options_move() {
    in_mutable_namespace(|| {
        for option in ["tcp_timestamps", "tcp_sack", "tcp_window_scaling"] {
            std::fs::write(format!("/proc/sys/net/ipv4/{option}"), "0").unwrap();
        }
        let (client, server, _listener) = pair(v4());
        let (server, state) = round_trip(server, &client);
        assert_eq!(
            (state.timestamp, state.window_scales, state.sack_permitted),
            (None, None, false)
        );
        echo_continues(&client, &server);
        let to_server = pattern(300_000);
        thread::scope(|scope| {
            scope.spawn(|| (&client).write_all(&to_server).unwrap());
            let mut received = vec![0; to_server.len()];
            (&server).read_exact(&mut received).unwrap();
            assert!(received == to_server);
        });
    });
}

#[test]
fn an_imported_connection_is_silent_and_keeps_its_port() {
    in_namespace(|| {
        let (client, server, _listener) = pair(v4());
        let local = client.local_addr().unwrap();
        let (state, reservation) = import(client).unwrap().finish();
        assert_eq!(state.local, local);
        server.set_nonblocking(true).unwrap();
        let error = (&server).read(&mut [0]).unwrap_err();
        assert_eq!(
            error.kind(),
            io::ErrorKind::WouldBlock,
            "the peer saw neither FIN nor RST"
        );
        let taken = Reservation::bind(local, &crate::host::ports::BindOptions::default());
        assert_eq!(taken.unwrap_err().kind(), io::ErrorKind::AddrInUse);
        drop(reservation);
        Reservation::bind(local, &crate::host::ports::BindOptions::default()).expect("free again");
    });
}

#[test]
fn a_second_export_of_one_connection_is_refused() {
    in_namespace(|| {
        let (client, server, _listener) = pair(v4());
        let (state, _reservation) = import(server).unwrap().finish();
        let server = export(&state).unwrap();
        let error = export(&state).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::AddrNotAvailable, "{error}");
        server.set_nonblocking(false).unwrap();
        echo_continues(&client, &server);
    });
}

#[test]
fn a_closing_connection_is_returned_unharmed() {
    in_namespace(|| {
        let (client, server, _listener) = pair(v4());
        client.shutdown(std::net::Shutdown::Write).unwrap();
        assert_eq!((&server).read(&mut [0]).unwrap(), 0);
        let ImportError {
            stream: server,
            error,
        } = import(server).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::InvalidInput);
        (&server).write_all(b"rest").unwrap();
        let mut rest = [0; 4];
        (&client).read_exact(&mut rest).unwrap();
        assert_eq!(&rest, b"rest");
    });
}

#[test]
fn an_import_that_is_undone_leaves_the_connection_as_it_was() {
    in_namespace(|| {
        let (client, server, _listener) = pair(v4());
        (&client).write_all(b"before ").unwrap();
        let imported = import(server).unwrap();
        (&client).write_all(b"meanwhile ").unwrap();
        let server = imported.undo();
        (&client).write_all(b"after").unwrap();
        let mut received = [0; 22];
        (&server).read_exact(&mut received).unwrap();
        assert_eq!(&received, b"before meanwhile after");
        echo_continues(&client, &server);
    });
}

#[test]
fn our_numbers_agree_with_the_peers() {
    in_namespace(|| {
        let (client, server, _listener) = pair(v4());
        (&client).write_all(b"four").unwrap();
        let mut four = [0; 4];
        server.peek(&mut four).unwrap();
        let ours = import(server).unwrap();
        let theirs = import(client).unwrap();
        assert_eq!(ours.state.recv_queue, b"four");
        assert_eq!(ours.state.read_seq() + 4, ours.state.rcv_nxt);
        assert_eq!(ours.state.rcv_nxt, theirs.state.snd_nxt());
        assert_eq!(ours.state.snd_nxt(), theirs.state.rcv_nxt);
        assert_eq!(
            (ours.state.local, ours.state.remote),
            (theirs.state.remote, theirs.state.local)
        );
        let swapped = |(theirs, ours)| (ours, theirs);
        assert_eq!(
            ours.state.window_scales,
            theirs.state.window_scales.map(swapped)
        );
    });
}
