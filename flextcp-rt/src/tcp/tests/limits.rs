//! What happens at the edges of the engine: full tables, refusals, options that change in mid-connection.

use flextcp_nic::buffer::recv_ring;
use flextcp_nic::seq::SeqNum;
use flextcp_nic::wire::{IcmpError, IcmpErrorKind, Unreachable};

use super::*;

/// Connects and closes from the client, whose end stays in TIME_WAIT.
fn leave_time_wait(sim: &mut Sim, port: u16) {
    let client = sim.connect(port, SocketOptions::default());
    sim.settle();
    let server = sim.hosts[1].accepted.pop_front().unwrap();
    sim.close(0, client);
    sim.settle();
    sim.close(1, server);
    sim.settle();
}

/// RFC 6191 from the active side, as Linux's `tcp_tw_reuse`.
#[test]
fn a_connection_in_time_wait_makes_room_for_its_successor_after_a_second() {
    let mut sim = Sim::plain();
    sim.listen(4, SocketOptions::default());
    leave_time_wait(&mut sim, 40_000);
    assert_eq!(sim.hosts[0].engine.time_wait.len(), 1);
    let again = |sim: &mut Sim| {
        let (now, tuple) = (sim.now, Sim::tuple(40_000, false));
        let engine = &mut sim.hosts[0].engine;
        engine.connect(now, tuple, sim::LINK, SocketOptions::default())
    };
    assert_eq!(again(&mut sim).err(), Some(CommandError::InUse));
    sim.run(SECOND);
    let (client, app) = again(&mut sim).unwrap();
    sim.hosts[0].apps.insert(client, app);
    sim.settle();
    assert_eq!(sim.state(0, client), State::Established);
    assert_eq!(sim.hosts[0].engine.time_wait.len(), 0);
    assert_eq!(again(&mut sim).err(), Some(CommandError::InUse));
}

#[test]
fn the_oldest_time_wait_makes_room() {
    let mut sim = Sim::plain();
    sim.hosts[0].engine.config.max_time_wait = 2;
    sim.listen(4, SocketOptions::default());
    for port in 40_000..40_003 {
        leave_time_wait(&mut sim, port);
    }
    let engine = &sim.hosts[0].engine;
    assert_eq!((engine.time_wait.len(), engine.tuples.len()), (2, 2));
    assert!(engine.tuples.get(&Sim::tuple(40_000, false)).is_none());
}

#[test]
fn connections_have_a_limit() {
    let mut sim = Sim::plain();
    for host in &mut sim.hosts {
        host.engine.config.max_connections = 1;
    }
    let (client, _) = sim.pair();
    let (now, tuple) = (sim.now, Sim::tuple(40_001, false));
    let options = SocketOptions::default();
    let refused = sim.hosts[0]
        .engine
        .connect(now, tuple, sim::LINK, options.clone());
    assert_eq!(refused.err(), Some(CommandError::NoBuffers));
    // The server has no room for a second one either, and the first goes on.
    sim.hosts[0].engine.config.max_connections = 2;
    let second = sim.connect(40_002, options);
    sim.run(SECOND / 2);
    assert_ne!(sim.state(0, second), State::Established);
    assert_eq!(sim.state(0, client), State::Established);
    assert_eq!(sim.hosts[1].engine.conns.len(), 1);
}

#[test]
fn congestion_control_changes_in_mid_connection() {
    let mut sim = Sim::plain();
    let (client, server) = sim.pair();
    let mut done = 0;
    for name in ["reno", "bbr", "dctcp", "cubic"] {
        let now = sim.now;
        let option = SocketOption::Congestion(name);
        sim.hosts[0].engine.set_option(now, client, option);
        let info = sim.hosts[0].engine.info(now, client).unwrap();
        assert_eq!(info.congestion, name);
        let goal = done + 300_000;
        let mut sent = done;
        let arrived = sim.run_until(60 * SECOND, |sim| {
            sent += sim.write(0, client, &pattern(sent as u64, goal - sent));
            let bytes = sim.read(1, server, 1 << 20);
            assert!(bytes == pattern(done as u64, bytes.len()));
            done += bytes.len();
            done == goal
        });
        assert!(arrived, "{done} of {goal} with {name}");
    }
}

#[test]
fn a_listener_takes_new_settings() {
    let mut sim = Sim::plain();
    let listener = sim.listen(16, SocketOptions::default());
    let engine = &mut sim.hosts[1].engine;
    assert!(engine.listens(&Sim::tuple(40_000, false).reversed()));
    engine.set_backlog(listener, 0);
    engine.set_listener_options(
        listener,
        SocketOptions {
            ttl: Some(9),
            ..SocketOptions::default()
        },
    );
    sim.connect(40_000, SocketOptions::default());
    sim.settle();
    assert!(sim.sent(1, TcpFlags::SYN).iter().all(|syn| syn.ttl == 9));
}

/// RFC 5461, section 4.1, and Linux's `icmp_err_convert`.
#[test]
fn icmp_errors_end_attempts_with_their_cause() {
    let unreachable = |reason, hard| IcmpErrorKind::Unreachable { reason, hard };
    let cases = [
        (
            unreachable(Unreachable::Port, true),
            Some(ConnError::Refused),
        ),
        (
            unreachable(Unreachable::Protocol, true),
            Some(ConnError::Refused),
        ),
        (IcmpErrorKind::TimeExceeded, None),
        (IcmpErrorKind::ParameterProblem, None),
    ];
    for (kind, error) in cases {
        let mut sim = Sim::plain();
        sim.cut[1] = true;
        let client = sim.connect(40_000, SocketOptions::default());
        sim.drive_all();
        let conn = sim.hosts[0].engine.conns.get(client).unwrap();
        let icmp = IcmpError {
            tuple: conn.tuple,
            seq: conn.snd.una,
            kind,
        };
        let beside = IcmpError {
            seq: icmp.seq + SeqNum(1 << 20).0,
            ..icmp
        };
        sim.hosts[0].engine.on_icmp(sim.now, &beside);
        sim.drive_all();
        assert!(
            sim.hosts[0].failed.is_empty(),
            "not about what is in flight"
        );
        sim.hosts[0].engine.on_icmp(sim.now, &icmp);
        sim.drive_all();
        let failed: Vec<_> = sim.hosts[0]
            .failed
            .iter()
            .map(|(_, error)| *error)
            .collect();
        assert_eq!(failed, Vec::from_iter(error), "{kind:?}");
    }
}

/// What was promised is taken once there is memory, though the ring got less than that while there was none.
#[test]
fn a_ring_that_found_little_memory_gets_the_rest_when_there_is_some() {
    let mut sim = Sim::plain();
    let (client, server) = sim.pair();
    let pool = sim.hosts[1].engine.pool.clone();
    let mut rings: Vec<_> = (13..30)
        .map(|shift| (recv_ring(&pool), 1 << shift))
        .collect();
    for ((writer, _), size) in &mut rings {
        writer.resize(*size, 0).unwrap();
    }
    assert_eq!(pool.limit() - pool.used(), 8192);
    let data: Vec<u8> = (0..30_000_u32).map(|at| at as u8).collect();
    assert_eq!(sim.write(0, client, &data), data.len());
    sim.run(SECOND);
    let refused = sim.hosts[1].engine.counters().out_of_memory;
    assert!(refused > 0);
    let taken = |sim: &Sim| {
        sim.hosts[1]
            .engine
            .info(sim.now, server)
            .unwrap()
            .bytes_received
    };
    assert!(taken(&sim) < 20_000);
    // The application reads nothing meanwhile: it is for the peer's retransmission to find room.
    drop(rings);
    sim.run(10 * SECOND);
    assert_eq!(taken(&sim), data.len() as u64);
    assert_eq!(sim.read(1, server, data.len()), data);
}

/// RFC 9293, section 3.8.6.2.2: a reader that takes little of a full buffer offers nothing before a segment or half of
/// the buffer is free.
#[test]
fn a_silly_window_is_not_offered() {
    let mut sim = Sim::plain();
    let small = SocketOptions {
        recv_buffer: Some(16_384),
        ..SocketOptions::default()
    };
    sim.listen(4, small);
    let client = sim.connect(40_000, SocketOptions::default());
    sim.settle();
    let server = sim.hosts[1].accepted.pop_front().unwrap();
    sim.write(0, client, &pattern(0, 60_000));
    sim.settle();
    let mut probe = sim.sent(0, TcpFlags::ACK).pop().unwrap();
    sim.log.clear();
    let conn = |sim: &Sim| {
        let conn = sim.hosts[1].engine.conns.get(server).unwrap();
        (conn.rcv.nxt, conn.rcv.adv)
    };
    let (next, edge) = conn(&sim);
    // What is free already has not been worth it either.
    assert!(edge.since(next) < 1_448);
    sim.read(1, server, 100);
    sim.settle();
    assert!(sim.log.is_empty());
    // Who asks hears of the same edge.
    probe.seq = next - 1;
    sim.inject(1, &probe, &[]);
    assert_eq!(sim.sent(1, TcpFlags::ACK).len(), 1);
    assert_eq!(conn(&sim), (next, edge));
    sim.read(1, server, 1_448);
    sim.settle();
    assert!(conn(&sim).1.at_or_after(edge + 1_448));
}

/// RFC 7323, section 2.2: the window of a SYN is not scaled; RFC 9293, section 3.10.7.3: it is the first flight's.
#[test]
fn the_window_of_a_syn_ack_holds_the_first_flight() {
    let mut sim = Sim::plain();
    sim.listen(4, SocketOptions::default());
    let client = sim.connect(40_000, SocketOptions::default());
    sim.drive_all();
    let syn = sim.sent(0, TcpFlags::SYN)[0];
    sim.cut[0] = true;
    sim.settle();
    let mut answer = sim.sent(1, TcpFlags::SYN)[0];
    assert_eq!(answer.ack, syn.seq + 1);
    answer.window = 2_000;
    sim.cut[1] = true;
    sim.inject(0, &answer, &[]);
    assert_eq!(sim.state(0, client), State::Established);
    sim.write(0, client, &pattern(0, 10_000));
    sim.drive_all();
    let first: usize = sim
        .log
        .iter()
        .filter(|(by, ..)| *by == 0)
        .map(|entry| entry.2)
        .sum();
    assert_eq!(first, 2_000);
}
