use std::net::SocketAddr;
use std::time::Duration;

use super::*;
use crate::offload::OffloadPolicy;
use crate::options::SocketOption;

fn host(number: u8, offload: OffloadPolicy) -> Lab {
    Lab::new(LabConfig {
        seed: number.into(),
        addresses: vec![IpAddr::from([10, 0, 0, number])],
        mac: MacAddr([2, 0, 0, 0, 0, number]),
        engine: EngineConfig {
            offload,
            ..EngineConfig::default()
        },
        ..LabConfig::default()
    })
}

/// Two hosts on a wire without delay.
struct Pair {
    now: Instant,
    a: Lab,
    b: Lab,
}

impl Pair {
    fn new(offload: OffloadPolicy) -> Self {
        Self {
            now: Instant::from_millis(1_000),
            a: host(1, offload),
            b: host(2, offload),
        }
    }

    fn settle(&mut self) {
        loop {
            self.a.run(self.now);
            self.b.run(self.now);
            let (to_b, to_a) = (self.a.drain(), self.b.drain());
            if to_a.is_empty() && to_b.is_empty() {
                return;
            }
            to_a.iter().for_each(|frame| self.a.inject(frame));
            to_b.iter().for_each(|frame| self.b.inject(frame));
        }
    }

    /// A listener of `b` and both ends of a connection to it.
    fn connect(&mut self) -> (SocketId, SocketId, SocketId) {
        let listener = self.b.socket();
        let address = SocketAddr::from(([10, 0, 0, 2], 80));
        self.b.bind(listener, address).unwrap();
        self.b.listen(listener, 16).unwrap();
        let client = self.a.socket();
        self.a.connect(client, address).unwrap();
        self.settle();
        assert_eq!(self.a.status(client), Status::Connected);
        let (server, peer) = self.b.accept(listener).unwrap();
        assert_eq!(peer, self.a.local_addr(client).unwrap());
        (listener, client, server)
    }

    /// Lets time pass until neither host has anything to wait for.
    fn wind_down(&mut self) {
        self.settle();
        while let Some(at) = self.a.poll_at().into_iter().chain(self.b.poll_at()).min() {
            self.now = self.now.max(at);
            self.settle();
        }
    }
}

#[test]
fn bytes_cross_and_nothing_is_left_behind() {
    for offload in [
        OffloadPolicy::Never,
        OffloadPolicy::Always,
        OffloadPolicy::Random(7),
    ] {
        let mut pair = Pair::new(offload);
        let (listener, client, server) = pair.connect();
        let sent: Vec<u8> = (0..300_000_u32).map(|n| (n % 251) as u8).collect();
        let (mut written, mut received) = (0, Vec::new());
        let mut buf = vec![0; 10_000];
        while received.len() < sent.len() {
            if let Ok(n) = pair.a.write(client, &sent[written..]) {
                written += n;
            }
            pair.settle();
            while let Ok(n @ 1..) = pair.b.read(server, &mut buf) {
                received.extend_from_slice(&buf[..n]);
            }
            pair.now += Duration::from_millis(1);
        }
        assert_eq!(received, sent);
        let offloaded = pair.a.stats().connections.ever_offloaded;
        assert_eq!(offloaded > 0, offload != OffloadPolicy::Never);

        pair.a.shutdown(client).unwrap();
        pair.settle();
        assert_eq!(pair.b.read(server, &mut buf).unwrap(), 0);
        assert_eq!(pair.b.write(server, b"bye").unwrap(), 3);
        pair.b.close(server).unwrap();
        pair.settle();
        assert_eq!(pair.a.peek(client, &mut buf).unwrap(), 3);
        assert_eq!(pair.a.queue_sizes(client).unwrap().recv, 3);
        assert_eq!(pair.a.read(client, &mut buf).unwrap(), 3);
        assert_eq!(pair.a.read(client, &mut buf).unwrap(), 0);
        pair.a.close(client).unwrap();
        pair.b.close(listener).unwrap();
        pair.settle();
        // Frames of TIME_WAIT still come here, and nobody else gets the port.
        let counts = pair.a.counts();
        assert_eq!((counts.time_wait, counts.owned, counts.ports), (1, 1, 1));
        pair.wind_down();
        assert!(pair.a.counts().is_zero(), "{:?}", pair.a.counts());
        assert!(pair.b.counts().is_zero(), "{:?}", pair.b.counts());
    }
}

#[test]
fn a_receive_buffer_of_a_size_bounds_a_connection_on_the_nic() {
    let small = SocketOption::RecvBuffer(8_000);
    for late in [false, true] {
        let mut pair = Pair::new(OffloadPolicy::Always);
        let (_, mut client, mut server) = pair.connect();
        if late {
            // 64 KiB were offered, and a ring of that size is there.
            pair.a.write(client, &[7; 2_000]).unwrap();
            pair.settle();
            assert_eq!(pair.b.read(server, &mut [0; 4_096]).unwrap(), 2_000);
            pair.b.set_option(server, small).unwrap();
            pair.settle();
        } else {
            let address = SocketAddr::from(([10, 0, 0, 2], 81));
            let listener = pair.b.socket();
            pair.b.set_option(listener, small).unwrap();
            pair.b.bind(listener, address).unwrap();
            pair.b.listen(listener, 16).unwrap();
            client = pair.a.socket();
            pair.a.connect(client, address).unwrap();
            pair.settle();
            (server, _) = pair.b.accept(listener).unwrap();
        }
        let mut written = 0;
        for _ in 0..200 {
            written += pair.a.write(client, &[7; 10_000]).unwrap_or(0);
            pair.settle();
            pair.now += Duration::from_millis(50);
        }
        assert!(pair.b.stats().offload.installed > 0);
        assert!(written > 100_000, "{written}");
        let unread = pair.b.queue_sizes(server).unwrap().recv;
        // What was offered before is not taken back.
        let most = if late { 65_536 } else { 8_192 };
        assert!((8_000..=most).contains(&unread), "{unread}");
        // Once that is used up the ring is as small as was asked.
        let (mut buf, mut read) = (vec![0; 4_096], 0);
        for _ in 0..2_000 {
            while let Ok(n @ 1..) = pair.b.read(server, &mut buf) {
                read += n;
                let unread = pair.b.queue_sizes(server).unwrap().recv;
                assert!(read < 200_000 || unread <= 8_192, "{unread} after {read}");
            }
            pair.a.write(client, &[7; 10_000]).ok();
            pair.settle();
            pair.now += Duration::from_millis(1);
        }
        assert!(read > 1_000_000, "{read}");
    }
}

#[test]
fn refusal_and_reset_are_told_once() {
    let mut pair = Pair::new(OffloadPolicy::Always);
    let refused = pair.a.socket();
    pair.a
        .connect(refused, SocketAddr::from(([10, 0, 0, 2], 81)))
        .unwrap();
    assert_eq!(
        pair.a.read(refused, &mut [0]).unwrap_err().kind(),
        std::io::ErrorKind::WouldBlock
    );
    pair.settle();
    assert_eq!(pair.a.status(refused), Status::Idle);
    let error = pair.a.take_error(refused).expect("an error");
    assert_eq!(error.kind(), std::io::ErrorKind::ConnectionRefused);
    assert!(pair.a.take_error(refused).is_none());
    pair.a.close(refused).unwrap();
    assert_eq!(pair.a.status(refused), Status::Closed);

    let (listener, client, server) = pair.connect();
    pair.b.abort(server).unwrap();
    pair.settle();
    let error = pair.a.read(client, &mut [0]).unwrap_err();
    assert_eq!(error.kind(), std::io::ErrorKind::ConnectionReset);
    assert_eq!(pair.a.read(client, &mut [0]).unwrap(), 0);
    pair.a.close(client).unwrap();
    pair.b.close(listener).unwrap();
    pair.wind_down();
    assert!(pair.a.counts().is_zero(), "{:?}", pair.a.counts());
    assert!(pair.b.counts().is_zero(), "{:?}", pair.b.counts());
}

#[test]
fn a_lab_that_is_dropped_in_mid_flight_takes_everything_with_it() {
    let mut pair = Pair::new(OffloadPolicy::Always);
    let (_, client, _) = pair.connect();
    pair.a
        .set_option(client, SocketOption::NoDelay(true))
        .unwrap();
    pair.a.write(client, b"on the way").unwrap();
    let pool = Arc::clone(&pair.b.pool);
    let core = Arc::downgrade(&pair.b.core);
    drop(pair);
    assert!(core.upgrade().is_none());
    assert_eq!(pool.used(), 0);
}

#[test]
fn the_same_calls_give_the_same_frames() {
    let frames = || {
        let mut pair = Pair::new(OffloadPolicy::Random(3));
        let (_, client, server) = pair.connect();
        let mut all = Vec::new();
        for round in 0..20 {
            pair.a.write(client, &[round; 3_000]).unwrap();
            pair.a.run(pair.now);
            let out = pair.a.drain();
            out.iter().for_each(|frame| pair.b.inject(frame));
            all.extend(out);
            pair.settle();
            pair.b.read(server, &mut [0; 10_000]).unwrap();
            pair.now += Duration::from_millis(3);
        }
        all
    };
    assert_eq!(frames(), frames());
}

/// A keep-alive time shorter than the retransmission timeout took the connection off the NIC again and again, which
/// started the retransmission timer anew each time (found by the simulator).
#[test]
fn keep_alive_does_not_put_a_retransmission_off() {
    let mut pair = Pair::new(OffloadPolicy::Always);
    let (_, client, _) = pair.connect();
    let keepalive = crate::options::KeepAlive {
        time: Duration::from_millis(100),
        interval: Duration::from_millis(100),
        count: 100,
    };
    pair.a
        .set_option(client, SocketOption::KeepAlive(Some(keepalive)))
        .unwrap();
    pair.settle();
    pair.a.write(client, b"lost").unwrap();
    pair.a.run(pair.now);
    assert!(pair.a.is_offloaded(client));
    assert_eq!(pair.a.drain().len(), 1);
    let until = pair.now + Duration::from_secs(2);
    while pair.a.drain().is_empty() {
        let due = pair.a.poll_at().expect("a timer");
        assert!(due < until, "nothing was sent again");
        pair.a.run(due);
    }
}

/// A flight that is lost whole, and every tail probe with it: going back to the NIC after each probe put the
/// retransmission timer off for ever (found by the simulator).
#[test]
fn tail_probes_do_not_put_a_retransmission_off() {
    let mut pair = Pair::new(OffloadPolicy::Always);
    let (_, client, _) = pair.connect();
    pair.settle();
    pair.a.write(client, &[1; 10_000]).unwrap();
    pair.a.run(pair.now);
    assert!(pair.a.drain().len() > 5);
    let until = pair.now + Duration::from_secs(5);
    while pair.a.stats().recovery.timeouts == 0 {
        let due = pair.a.poll_at().expect("a timer");
        assert!(due < until, "no timeout");
        pair.a.run(due);
    }
}

fn tcp(frame: &[u8]) -> wire::TcpPacket {
    match parse(frame) {
        Some(Packet::Tcp(packet)) => packet,
        other => panic!("a segment, not {other:?}"),
    }
}

/// What waits for no application does not wait for the next turn: the acknowledgment of much, and the data that it makes room for.
#[test]
fn bulk_goes_on_in_the_turn_of_its_acknowledgment() {
    for offload in [OffloadPolicy::Never, OffloadPolicy::Always] {
        let mut pair = Pair::new(offload);
        let (_, client, server) = pair.connect();
        pair.settle();
        pair.a.write(client, &[1; 200_000]).unwrap();
        pair.a.poll(pair.now);
        let mut turns = 0;
        let mut bulk = 0;
        let mut buf = vec![0; 200_000];
        let mut got = 0;
        while got < 200_000 {
            turns += 1;
            let flight = pair.a.drain();
            let full = flight.iter().filter(|frame| frame.len() > 1_400).count();
            flight.iter().for_each(|frame| pair.b.inject(frame));
            pair.b.poll(pair.now);
            let mut acks = pair.b.drain();
            if full >= 12 {
                bulk += 1;
                // One before it may tell of what was read.
                let last = acks.last().map(|frame| tcp(frame).tcp.ack);
                let sent = flight.last().map(|frame| tcp(frame).seq_end());
                assert_eq!(last, sent, "{offload:?}: {full} segments");
            }
            got += pair.b.read(server, &mut buf).unwrap_or(0);
            if acks.is_empty() {
                pair.b.poll(pair.now);
                acks = pair.b.drain();
            }
            acks.iter().for_each(|frame| pair.a.inject(frame));
            pair.a.poll(pair.now);
            assert!(turns < 100, "{offload:?}: {got} bytes");
        }
        assert!(bulk > 0, "{offload:?}");
        // A reply may carry the acknowledgment of a request.
        pair.settle();
        pair.a.write(client, &[2; 100]).unwrap();
        pair.a.poll(pair.now);
        pair.a.drain().iter().for_each(|frame| pair.b.inject(frame));
        pair.b.poll(pair.now);
        assert_eq!(pair.b.drain().len(), 0, "{offload:?}");
    }
}

/// The engine sends what follows each other at once; without a port that cuts, it leaves as segments all the same.
#[test]
fn a_train_leaves_as_full_segments_and_a_push() {
    let mut pair = Pair::new(OffloadPolicy::Never);
    let (_, client, server) = pair.connect();
    let data: Vec<u8> = (0..10_000).map(|at: u32| (at ^ (at >> 8)) as u8).collect();
    pair.a.write(client, &data).unwrap();
    pair.a.poll(pair.now);
    let flight = pair.a.drain();
    let segments: Vec<_> = flight.iter().map(|frame| tcp(frame)).collect();
    let lengths: Vec<_> = segments.iter().map(|packet| packet.payload_len).collect();
    assert_eq!(lengths, [1448, 1448, 1448, 1448, 1448, 1448, 1312]);
    for (one, next) in segments.iter().zip(&segments[1..]) {
        assert_eq!(one.seq_end(), next.tcp.seq);
    }
    let pushed = segments
        .iter()
        .map(|packet| packet.tcp.flags.contains(wire::TcpFlags::PSH));
    assert_eq!(
        pushed.collect::<Vec<_>>(),
        [false, false, false, false, false, false, true]
    );
    flight.iter().for_each(|frame| pair.b.inject(frame));
    pair.b.run(pair.now);
    let mut got = vec![0; 20_000];
    assert_eq!(pair.b.read(server, &mut got).unwrap(), data.len());
    assert!(got.starts_with(&data));
}
