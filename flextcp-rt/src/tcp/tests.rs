//! The engine against itself: handshakes, data, loss, closing.

mod ancestors;
mod half_open;
mod injection;
mod limits;
mod long_transfer;
mod orphans;
mod path_mtu;
mod prediction;
mod requirements;
mod send_buffer;
mod syn_flood;
mod trains;
mod turns;

use std::net::SocketAddr;
use std::time::Duration;

use flextcp_nic::wire::TcpFlags;

use super::sim::{Impairment, Rng, Sim};
use super::*;
use crate::offload::OffloadPolicy;
use crate::options::{SocketOption, SocketOptions};

const SECOND: Duration = Duration::from_secs(1);

fn pattern(from: u64, len: usize) -> Vec<u8> {
    (from..from + len as u64)
        .map(|i| (i.wrapping_mul(2_654_435_761) >> 13) as u8)
        .collect()
}

#[test]
fn handshake_negotiates_and_announces() {
    let mut sim = Sim::plain();
    let (client, server) = sim.pair();
    assert_eq!(sim.state(0, client), State::Established);
    assert_eq!(sim.state(1, server), State::Established);
    assert_eq!(sim.hosts[0].events.len(), 1);
    let info = sim.hosts[0].engine.info(sim.now, client).unwrap();
    assert!(info.timestamps && info.sack && info.rcv_wscale == 7);
    assert_eq!(
        (info.snd_mss, info.advmss, info.snd_cwnd),
        (1448, 1460, 14_480)
    );
    let flags: Vec<_> = sim
        .log
        .iter()
        .map(|(_, segment, _)| segment.flags)
        .collect();
    assert_eq!(
        flags,
        [TcpFlags::SYN, TcpFlags::SYN | TcpFlags::ACK, TcpFlags::ACK]
    );
}

#[test]
fn syn_ack_carries_only_what_was_offered() {
    let mut sim = Sim::plain();
    sim.hosts[0].engine.config.timestamps = false;
    sim.hosts[0].engine.config.window_scaling = false;
    let _ = sim.pair();
    let answer = sim.sent(1, TcpFlags::SYN)[0];
    assert!(answer.options.timestamps.is_none() && answer.options.window_scale.is_none());
    assert!(answer.options.sack_permitted);
}

#[test]
fn data_flows_both_ways() {
    let mut sim = Sim::plain();
    let (client, server) = sim.pair();
    assert_eq!(sim.write(0, client, b"ping"), 4);
    sim.settle();
    assert_eq!(sim.read(1, server, 100), b"ping");
    sim.write(1, server, b"pong");
    sim.settle();
    assert_eq!(sim.read(0, client, 100), b"pong");
}

#[test]
fn normal_close_passes_through_time_wait() {
    let mut sim = Sim::plain();
    let (client, server) = sim.pair();
    sim.write(0, client, b"last words");
    sim.close(0, client);
    sim.settle();
    assert_eq!(sim.state(0, client), State::FinWait2);
    assert_eq!(sim.hosts[1].peer_closed, [server]);
    assert_eq!(sim.read(1, server, 100), b"last words");
    sim.close(1, server);
    sim.settle();
    assert_eq!(sim.hosts[0].closed, [client]);
    assert_eq!(sim.hosts[1].closed, [server]);
    assert_eq!(sim.hosts[0].engine.time_wait.len(), 1);
    assert!(sim.sent(0, TcpFlags::RST).is_empty() && sim.sent(1, TcpFlags::RST).is_empty());
    sim.run(59 * SECOND);
    assert_eq!(sim.hosts[0].engine.time_wait.len(), 1);
    sim.run(2 * SECOND);
    assert_eq!(sim.hosts[0].engine.time_wait.len(), 0);
    assert!(sim.hosts[0].engine.tuples.len() == 0);
}

#[test]
fn half_close_lets_the_other_direction_go_on() {
    let mut sim = Sim::plain();
    let (client, server) = sim.pair();
    sim.shutdown(0, client);
    sim.settle();
    assert_eq!(
        (sim.state(0, client), sim.state(1, server)),
        (State::FinWait2, State::CloseWait)
    );
    sim.write(1, server, &pattern(0, 5000));
    sim.settle();
    assert_eq!(sim.read(0, client, 9000), pattern(0, 5000));
    sim.shutdown(1, server);
    sim.settle();
    assert_eq!(sim.hosts[0].closed, [client]);
    assert_eq!(sim.hosts[1].closed, [server]);
}

#[test]
fn simultaneous_close_ends_on_both_sides() {
    let mut sim = Sim::plain();
    let (client, server) = sim.pair();
    sim.hosts[0].engine.close(sim.now, client);
    sim.hosts[1].engine.close(sim.now, server);
    sim.drive_all();
    assert_eq!(sim.state(0, client), State::FinWait1);
    sim.settle();
    for host in &sim.hosts {
        assert_eq!((host.closed.len(), host.engine.time_wait.len()), (1, 1));
    }
}

#[test]
fn simultaneous_open_connects() {
    let mut sim = Sim::plain();
    let tuple = Sim::tuple(40_000, false);
    let options = SocketOptions::default();
    let now = sim.now;
    let (a, app) = sim.hosts[0]
        .engine
        .connect(now, tuple, sim::LINK, options.clone())
        .unwrap();
    sim.hosts[0].apps.insert(a, app);
    let (b, app) = sim.hosts[1]
        .engine
        .connect(now, tuple.reversed(), sim::LINK, options)
        .unwrap();
    sim.hosts[1].apps.insert(b, app);
    sim.settle();
    assert_eq!(
        (sim.state(0, a), sim.state(1, b)),
        (State::Established, State::Established)
    );
    sim.write(0, a, b"x");
    sim.settle();
    assert_eq!(sim.read(1, b, 9), b"x");
}

/// The SYN-ACK of a simultaneous open was lost: the peer's SYN comes again.
#[test]
fn a_syn_again_in_syn_received_gets_the_syn_ack_again() {
    let mut sim = Sim::plain();
    sim.cut[1] = true;
    let client = sim.connect(40_000, SocketOptions::default());
    sim.drive_all();
    let mut syn = sim.sent(0, TcpFlags::SYN)[0];
    syn.tuple = syn.tuple.reversed();
    syn.seq += 7_000_000;
    for _ in 0..2 {
        sim.log.clear();
        sim.inject(0, &syn, &[]);
        let answer = sim.sent(0, TcpFlags::SYN | TcpFlags::ACK);
        assert_eq!(answer.len(), 1);
        assert_eq!(answer[0].ack, syn.seq + 1);
        assert_eq!(sim.state(0, client), State::SynReceived);
    }
}

#[test]
fn nobody_listens_means_refused() {
    let mut sim = Sim::plain();
    let client = sim.connect(40_000, SocketOptions::default());
    sim.settle();
    assert_eq!(sim.hosts[0].failed, [(client, ConnError::Refused)]);
    assert_eq!(sim.hosts[0].closed, [client]);
}

#[test]
fn nobody_answers_means_timed_out() {
    let mut sim = Sim::plain();
    sim.cut[1] = true;
    let client = sim.connect(40_000, SocketOptions::default());
    sim.drive_all();
    let began = sim.now;
    let run_to = |sim: &mut Sim, seconds: f64| {
        let end = began + Duration::from_secs_f64(seconds);
        sim.run(end.saturating_since(sim.now));
    };
    for (attempts, at) in (1..).zip([1, 2, 3, 4, 5, 7, 11, 19, 35, 67]) {
        run_to(&mut sim, f64::from(at) - 0.1);
        assert_eq!(sim.sent(0, TcpFlags::SYN).len(), attempts, "before {at} s");
        run_to(&mut sim, f64::from(at) + 0.1);
        assert_eq!(sim.sent(0, TcpFlags::SYN).len(), attempts + 1, "at {at} s");
    }
    run_to(&mut sim, 130.9);
    assert!(sim.hosts[0].failed.is_empty());
    run_to(&mut sim, 131.1);
    assert_eq!(sim.hosts[0].failed, [(client, ConnError::TimedOut)]);
}

#[test]
fn close_with_unread_bytes_resets() {
    let mut sim = Sim::plain();
    let (client, server) = sim.pair();
    sim.write(0, client, b"unread");
    sim.settle();
    sim.close(1, server);
    sim.settle();
    assert_eq!(sim.hosts[0].failed, [(client, ConnError::Reset)]);
}

#[test]
fn close_with_no_time_to_linger_resets() {
    let mut sim = Sim::plain();
    let (client, server) = sim.pair();
    let linger = SocketOption::Linger(Some(Duration::ZERO));
    sim.hosts[1].engine.set_option(sim.now, server, linger);
    sim.close(1, server);
    sim.settle();
    assert_eq!(sim.hosts[0].failed, [(client, ConnError::Reset)]);
}

#[test]
fn data_after_close_is_answered_with_reset() {
    let mut sim = Sim::plain();
    let (client, server) = sim.pair();
    sim.close(1, server);
    sim.settle();
    sim.write(0, client, b"too late");
    sim.settle();
    assert_eq!(sim.hosts[0].failed, [(client, ConnError::BrokenPipe)]);
    assert_eq!(sim.hosts[1].closed, [server]);
}

/// Its acknowledgment was lost: the application had it.
#[test]
fn data_again_after_close_is_acknowledged() {
    let mut sim = Sim::plain();
    let (client, server) = sim.pair();
    sim.write(0, client, b"in time");
    sim.settle();
    assert_eq!(sim.read(1, server, 100), b"in time");
    let data = sim.sent(0, TcpFlags::PSH)[0];
    sim.close(1, server);
    sim.settle();
    sim.log.clear();
    sim.inject(1, &data, b"in time");
    assert!(sim.sent(1, TcpFlags::RST).is_empty());
    assert_eq!(sim.sent(1, TcpFlags::ACK).len(), 1);
    assert_eq!(sim.state(1, server), State::FinWait2);
}

#[test]
fn orphan_does_not_stay_in_fin_wait_2() {
    let mut sim = Sim::plain();
    let (client, _server) = sim.pair();
    sim.close(0, client);
    sim.run(59 * SECOND);
    assert_eq!(sim.state(0, client), State::FinWait2);
    sim.run(3 * SECOND);
    assert_eq!(sim.hosts[0].closed, [client]);
}

#[test]
fn full_accept_queue_ignores_the_last_ack() {
    let mut sim = Sim::plain();
    let listener = sim.listen(1, SocketOptions::default());
    // The application takes none: put back what the host's event loop counted as taken.
    for port in 0..2 {
        sim.connect(41_000 + port, SocketOptions::default());
        sim.settle();
        let conn = sim.hosts[1].accepted[usize::from(port)];
        sim.hosts[1]
            .engine
            .listeners
            .get_mut(listener)
            .unwrap()
            .accept_queue
            .push_back(conn);
    }
    let late = sim.connect(41_900, SocketOptions::default());
    sim.settle();
    assert_eq!(sim.state(0, late), State::SynSent);
    let counters = sim.hosts[1].engine.counters();
    assert_eq!((counters.accepted, counters.listen_overflow), (2, 1));
    let now = sim.now;
    sim.hosts[1].engine.accepted(now, listener);
    sim.run(2 * SECOND);
    assert_eq!(sim.state(0, late), State::Established);
}

#[test]
fn closing_a_listener_resets_what_was_not_accepted() {
    let mut sim = Sim::plain();
    let listener = sim.listen(8, SocketOptions::default());
    let client = sim.connect(40_000, SocketOptions::default());
    sim.settle();
    let server = sim.hosts[1].accepted[0];
    sim.hosts[1]
        .engine
        .listeners
        .get_mut(listener)
        .unwrap()
        .accept_queue
        .push_back(server);
    sim.hosts[1].engine.close_listener(sim.now, listener);
    sim.settle();
    assert_eq!(sim.hosts[0].failed, [(client, ConnError::Reset)]);
}

#[test]
fn zero_window_is_probed_until_it_opens() {
    let mut sim = Sim::plain();
    let (client, server) = sim.pair();
    let data = pattern(0, 400_000);
    let mut written = sim.write(0, client, &data);
    sim.run(5 * SECOND);
    assert!(sim.hosts[0].engine.info(sim.now, client).unwrap().probes <= 1);
    sim.cut[0] = true;
    let mut got = sim.read(1, server, 1 << 20);
    sim.settle();
    // The window update was lost: only a probe finds out.
    sim.cut[0] = false;
    let done = sim.run_until(300 * SECOND, |sim| {
        written += sim.write(0, client, &data[written..]);
        got.extend(sim.read(1, server, 1 << 20));
        got.len() == data.len()
    });
    assert!(done, "{} of {}", got.len(), data.len());
    assert!(got == data);
    let counters = sim.hosts[0].engine.counters();
    assert!(counters.recovery.window_probes > 0, "{counters:?}");
}

#[test]
fn dead_peer_times_out() {
    let mut sim = Sim::plain();
    let (client, _server) = sim.pair();
    sim.cut = [true, true];
    assert!(!sim.hosts[0].engine.has_unfinished());
    sim.write(0, client, b"anybody?");
    sim.run(SECOND);
    assert!(sim.hosts[0].engine.has_unfinished());
    // The time-out doubles: Linux takes 924 s for as many.
    sim.run(900 * SECOND);
    assert!(sim.hosts[0].failed.is_empty());
    sim.run(300 * SECOND);
    assert_eq!(sim.hosts[0].failed, [(client, ConnError::TimedOut)]);
    assert!(!sim.hosts[0].engine.has_unfinished());
    let counters = sim.hosts[0].engine.counters();
    assert_eq!((counters.connected, counters.failed), (1, 1));
    assert_eq!(counters.host_owned + counters.offloaded, 0);
    // Linux's tcp_retries2.
    assert_eq!(counters.recovery.timeouts, 15);
    assert!(sim.hosts[0].engine.poll_timeout().is_none());
}

#[test]
fn user_timeout_and_keepalive_end_a_dead_connection() {
    use crate::offload::OffloadPolicy;
    for offload in [OffloadPolicy::Never, OffloadPolicy::Always] {
        let config = EngineConfig {
            offload,
            ..EngineConfig::default()
        };
        let mut sim = Sim::new(config, 1);
        let (client, server) = sim.pair();
        let now = sim.now;
        let timeout = SocketOption::UserTimeout(Some(5 * SECOND));
        sim.hosts[0].engine.set_option(now, client, timeout);
        let keepalive = crate::options::KeepAlive {
            time: 10 * SECOND,
            interval: SECOND,
            count: 3,
        };
        sim.hosts[1]
            .engine
            .set_option(now, server, SocketOption::KeepAlive(Some(keepalive)));
        sim.log.clear();
        sim.run(100 * SECOND);
        assert_eq!(sim.state(1, server), State::Established);
        let probes = sim.sent(1, TcpFlags::ACK).len();
        assert!((8..=12).contains(&probes), "{probes} probes in 100 s");
        sim.cut = [true, true];
        sim.write(0, client, b"x");
        sim.run(20 * SECOND);
        assert_eq!(sim.hosts[1].failed, [(server, ConnError::TimedOut)]);
        // What stands in for a NIC here does not tell how a flow that it keeps is doing.
        if offload == OffloadPolicy::Never {
            assert_eq!(sim.hosts[0].failed, [(client, ConnError::TimedOut)]);
        }
    }
}

#[test]
fn blind_reset_is_challenged() {
    let mut sim = Sim::plain();
    let (client, server) = sim.pair();
    let mut rst = *sim
        .log
        .iter()
        .rev()
        .find(|(by, ..)| *by == 0)
        .map(|(_, s, _)| s)
        .unwrap();
    rst.flags = TcpFlags::RST;
    rst.seq += 100;
    sim.log.clear();
    sim.inject(1, &rst, &[]);
    assert_eq!(sim.state(1, server), State::Established);
    assert_eq!(sim.sent(1, TcpFlags::ACK).len(), 1);
    sim.inject(1, &rst, &[]);
    assert_eq!(
        sim.sent(1, TcpFlags::ACK).len(),
        1,
        "challenges are rate-limited"
    );
    rst.seq = rst.seq - 100;
    sim.inject(1, &rst, &[]);
    assert_eq!(sim.hosts[1].failed, [(server, ConnError::Reset)]);
    let _ = client;
}

#[test]
fn time_wait_gives_way_to_a_newer_syn() {
    let mut sim = Sim::plain();
    sim.listen(16, SocketOptions::default());
    let client = sim.connect(40_000, SocketOptions::default());
    sim.settle();
    let server = sim.hosts[1].accepted.pop_front().unwrap();
    sim.close_both(client, server);
    assert_eq!(sim.hosts[1].engine.time_wait.len(), 1);
    sim.run(2 * SECOND);
    let again = sim.connect(40_000, SocketOptions::default());
    sim.settle();
    assert_eq!(sim.state(0, again), State::Established);
    assert_eq!(sim.hosts[1].engine.time_wait.len(), 0);
}

/// Moves `len` bytes each way under impairment and closes; everything must arrive, in order.
fn transfer(seed: u64, offload: OffloadPolicy, sack: bool, len: usize) {
    let config = EngineConfig {
        offload,
        sack,
        ..EngineConfig::default()
    };
    let mut sim = Sim::new(config, seed);
    sim.keep_log = false;
    let mut rng = Rng(!seed);
    sim.impairment = Impairment {
        loss: rng.below(60),
        reorder: rng.below(60),
        duplicate: rng.below(30),
        ..Impairment::default()
    };
    sim.delay = Duration::from_micros(20 + rng.below(20_000));
    sim.hosts[1].engine.config.timestamps = rng.chance(700);
    let v6 = rng.chance(500);
    let local = SocketAddr::new(sim::address(1, v6), 80);
    let mss = SocketOptions {
        nodelay: rng.chance(500),
        maxseg: rng.chance(300).then_some(200 + rng.below(1300) as u16),
        ..SocketOptions::default()
    };
    sim.hosts[1]
        .engine
        .listen(local, 8, 1500, mss.clone())
        .unwrap();
    let now = sim.now;
    let (client, app) = sim.hosts[0]
        .engine
        .connect(now, Sim::tuple(40_000, v6), sim::LINK, mss)
        .unwrap();
    sim.hosts[0].apps.insert(client, app);
    let mut ids = [Some(client), None];
    let mut sent = [0usize; 2];
    let mut got = [0usize; 2];
    let mut shut = [false; 2];
    let mut app = |sim: &mut Sim| {
        if ids[1].is_none() {
            ids[1] = sim.hosts[1].accepted.pop_front();
        }
        for host in 0..2 {
            let Some(id) = ids[host] else { continue };
            if sent[host] < len {
                let n = (1 + rng.below(20_000) as usize).min(len - sent[host]);
                sent[host] += sim.write(host, id, &pattern(sent[host] as u64, n));
            } else if !shut[host] && sim.state(host, id) != State::SynSent {
                shut[host] = true;
                sim.hosts[host].engine.shutdown_write(sim.now, id);
            }
            if rng.chance(700) {
                let bytes = sim.read(host, id, 1 + rng.below(30_000) as usize);
                assert!(
                    bytes == pattern(got[host] as u64, bytes.len()),
                    "seed {seed}: wrong bytes"
                );
                got[host] += bytes.len();
            }
        }
        got == [len, len] && sim.hosts.iter().all(|host| !host.closed.is_empty())
    };
    // The application also looks when nothing else happens.
    let done = (0..36_000).any(|_| sim.run_until(SECOND / 10, &mut app));
    assert!(
        done,
        "seed {seed}: sent {sent:?} got {got:?} of {len}, failed {:?} {:?}\n{:?}\n{:?}",
        sim.hosts[0].failed,
        sim.hosts[1].failed,
        ids[0].and_then(|id| sim.hosts[0].engine.info(sim.now, id)),
        ids[1].and_then(|id| sim.hosts[1].engine.info(sim.now, id)),
    );
    assert!(
        sim.hosts.iter().all(|host| host.failed.is_empty()),
        "seed {seed}"
    );
}

#[test]
fn lossy_wire_loses_no_byte() {
    for seed in 0..300 {
        transfer(seed, OffloadPolicy::Never, true, 60_000);
    }
}

#[test]
fn lossy_wire_without_sack_loses_no_byte() {
    for seed in 1000..1150 {
        transfer(seed, OffloadPolicy::Never, false, 60_000);
    }
}

#[test]
fn owner_may_change_at_any_time() {
    for seed in 2000..2150 {
        transfer(seed, OffloadPolicy::Random(seed), true, 60_000);
    }
}

/// Segments that no peer would send, at connections in any state: nothing panics, memory stays bounded, and
/// what the numbers protect survives.
#[test]
fn random_segments_harm_nothing() {
    for seed in 0..400 {
        let mut rng = Rng(seed);
        let mut sim = Sim::plain();
        sim.rng = Rng(seed ^ 1);
        sim.impairment = Impairment {
            loss: 100,
            reorder: 100,
            duplicate: 50,
            ..Impairment::default()
        };
        sim.listen(4, SocketOptions::default());
        let client = sim.connect(40_000, SocketOptions::default());
        for _ in 0..120 {
            match rng.below(12) {
                0 => {
                    sim.write(0, client, &pattern(0, rng.below(9000) as usize));
                }
                1 => {
                    sim.read(0, client, 5000);
                }
                2 if rng.chance(50) => sim.close(0, client),
                3 => {
                    if let Some(&server) = sim.hosts[1].accepted.front() {
                        sim.write(1, server, &pattern(0, rng.below(9000) as usize));
                    }
                }
                4 if rng.chance(50) => {
                    if let Some(&server) = sim.hosts[1].accepted.front() {
                        sim.shutdown(1, server);
                    }
                }
                5..=7 => {
                    let limit = sim.now + SECOND;
                    sim.step(limit);
                }
                _ => {
                    // A true segment, twisted: numbers near the edges, any flags, any options.
                    let Some((by, mut segment, _)) = sim
                        .log
                        .get(rng.below(sim.log.len() as u64) as usize)
                        .copied()
                    else {
                        continue;
                    };
                    let near = |rng: &mut Rng| match rng.below(4) {
                        0 => 0,
                        1 => rng.below(3) as u32,
                        2 => rng.below(100_000) as u32,
                        _ => rng.next() as u32,
                    };
                    segment.seq = segment.seq + near(&mut rng) - near(&mut rng);
                    segment.ack = segment.ack + near(&mut rng) - near(&mut rng);
                    if rng.chance(700) {
                        segment.flags = TcpFlags::from_bits(rng.next() as u8);
                    }
                    segment.window = rng.next() as u16;
                    if rng.chance(500) {
                        let left = segment.ack + near(&mut rng);
                        segment.options.sack.push(left, left + near(&mut rng));
                    }
                    let payload = pattern(9, rng.below(1400) as usize);
                    sim.inject(1 - by, &segment, &payload);
                }
            }
        }
        sim.run(200 * SECOND);
        for host in &sim.hosts {
            assert!(
                host.engine.raw.len() < 5000 && host.engine.dirty.len() < 5000,
                "seed {seed}"
            );
        }
    }
}

#[test]
fn idle_connection_on_the_nic_owns_no_buffer() {
    let mut sim = Sim::new(EngineConfig::default(), 1);
    let (client, server) = sim.pair();
    sim.write(0, client, b"once");
    sim.settle();
    assert_eq!(sim.read(1, server, 9), b"once");
    assert!(sim.hosts[1].engine.pool.used() > 0);
    sim.run(30 * SECOND);
    for host in &sim.hosts {
        assert_eq!(host.engine.pool.used(), 0);
        assert!(host.installs > 1);
        assert!(
            host.engine.poll_timeout().is_none(),
            "an idle connection costs nothing"
        );
    }
    assert!(sim.hosts[1].engine.info(sim.now, server).unwrap().offloaded);
    sim.write(0, client, b"again");
    sim.settle();
    assert_eq!(sim.read(1, server, 9), b"again");
}

/// One per cent of loss and reordering must not bring a transfer to its knees: recovery, not timeouts.
#[test]
fn loss_is_repaired_without_timeouts() {
    let mut sim = Sim::plain();
    sim.keep_log = false;
    let (client, server) = sim.pair();
    sim.impairment = Impairment {
        loss: 10,
        reorder: 10,
        duplicate: 5,
        ..Impairment::default()
    };
    let len = 8 << 20;
    let data = pattern(0, len);
    let (mut sent, mut got) = (0, 0);
    let start = sim.now;
    let done = sim.run_until(60 * SECOND, |sim| {
        sent += sim.write(0, client, &data[sent..(sent + 65_536).min(len)]);
        let bytes = sim.read(1, server, 1 << 20);
        assert!(bytes == data[got..got + bytes.len()]);
        got += bytes.len();
        got == len
    });
    let info = sim.hosts[0].engine.info(sim.now, client).unwrap();
    assert!(done, "{got} of {len} in a minute: {info:?}");
    let seconds = sim.now.saturating_since(start).as_secs_f64();
    println!(
        "{:.1} MB/s, {} retransmissions",
        len as f64 / seconds / 1e6,
        info.total_retrans
    );
    let sender = sim.hosts[0].engine.counters();
    assert_eq!(sender.recovery.retransmitted, info.total_retrans);
    assert!(sender.recovery.fast_recoveries > 0, "{sender:?}");
    let receiver = sim.hosts[1].engine.counters();
    assert!(receiver.recovery.out_of_order > 0, "{receiver:?}");
    // 5,800 segments, 58 lost: many more retransmissions than losses would be spurious.
    assert!(info.total_retrans < 400, "{info:?}");
    assert!(seconds < 15.0, "{seconds} s: {info:?}");
}
