//! Peers that hold a connection and give nothing: its application may leave it, and memory stays bounded.

use super::*;

/// The server wrote more than the peer takes, and the peer keeps its window shut, answering every probe.
fn sockstress(config: impl FnOnce(&mut EngineConfig)) -> (Sim, ConnId, ConnId) {
    let mut sim = Sim::plain();
    config(&mut sim.hosts[1].engine.config);
    let (client, server) = sim.pair();
    let data = pattern(0, 400_000);
    let mut written = 0;
    for _ in 0..20 {
        written += sim.write(1, server, &data[written..]);
        sim.run(Duration::from_millis(50));
    }
    assert_eq!(
        sim.hosts[1].engine.info(sim.now, server).unwrap().snd_wnd,
        0
    );
    (sim, client, server)
}

#[test]
fn a_shut_window_is_probed_as_long_as_the_peer_answers() {
    let (mut sim, client, server) = sockstress(|_| {});
    sim.run(3600 * SECOND);
    assert_eq!(sim.state(1, server), State::Established);
    assert_eq!(sim.state(0, client), State::Established);
    // RFC 9293, section 3.8.6.1: the interval grows to the largest RTO.
    let probes = sim.hosts[1].engine.counters().recovery.window_probes;
    assert!((35..60).contains(&probes), "{probes}");
}

#[test]
fn a_user_timeout_ends_a_shut_window_in_time() {
    let (mut sim, _, server) = sockstress(|_| {});
    let since = sim.now;
    let timeout = SocketOption::UserTimeout(Some(30 * SECOND));
    sim.hosts[1].engine.set_option(sim.now, server, timeout);
    sim.run_until(100 * SECOND, |sim| !sim.hosts[1].failed.is_empty());
    assert_eq!(sim.hosts[1].failed, [(server, ConnError::TimedOut)]);
    let took = sim.now.saturating_since(since);
    assert!(took <= 31 * SECOND, "{took:?}");
}

#[test]
fn a_user_timeout_is_kept_to_the_millisecond() {
    let mut sim = Sim::plain();
    let (client, _) = sim.pair();
    let timeout = SocketOption::UserTimeout(Some(Duration::from_millis(2345)));
    sim.hosts[0].engine.set_option(sim.now, client, timeout);
    sim.cut = [true, true];
    sim.write(0, client, b"x");
    let since = sim.now;
    sim.run_until(100 * SECOND, |sim| !sim.hosts[0].failed.is_empty());
    assert_eq!(sim.now.saturating_since(since).as_millis(), 2345);
}

#[test]
fn an_orphan_behind_a_shut_window_goes_after_minutes() {
    let (mut sim, _, server) = sockstress(|_| {});
    assert!(sim.hosts[1].engine.pool.used() > 0);
    sim.close(1, server);
    let since = sim.now;
    let done = sim.run_until(3600 * SECOND, |sim| !sim.hosts[1].closed.is_empty());
    let took = sim.now.saturating_since(since);
    assert!(done && took < 600 * SECOND, "{took:?}");
    assert_eq!(sim.hosts[1].engine.orphans, 0);
    assert_eq!(sim.hosts[1].engine.pool.used(), 0);
    assert!(!sim.sent(1, TcpFlags::RST).is_empty());
}

#[test]
fn orphans_that_answer_nothing_go_too() {
    let mut sim = Sim::plain();
    let (client, _) = sim.pair();
    sim.cut = [true, true];
    sim.write(0, client, &pattern(0, 5000));
    sim.close(0, client);
    let since = sim.now;
    let done = sim.run_until(3600 * SECOND, |sim| !sim.hosts[0].closed.is_empty());
    let took = sim.now.saturating_since(since);
    // Eight retries from 200 ms: more than 100 seconds, as tcp_orphan_retries documents.
    assert!(
        done && (50 * SECOND..200 * SECOND).contains(&took),
        "{took:?}"
    );
}

#[test]
fn one_orphan_too_many_is_reset() {
    let mut sim = Sim::plain();
    sim.hosts[1].engine.config.max_orphans = 2;
    sim.listen(16, SocketOptions::default());
    for port in 0..4 {
        sim.connect(40_000 + port, SocketOptions::default());
    }
    sim.settle();
    sim.cut = [true, true];
    sim.log.clear();
    for _ in 0..4 {
        let server = sim.hosts[1].accepted.pop_front().unwrap();
        sim.write(1, server, b"nobody acknowledges");
        sim.close(1, server);
    }
    assert_eq!(sim.sent(1, TcpFlags::RST).len(), 2);
    assert_eq!(sim.hosts[1].engine.orphans, 2);
    sim.run(600 * SECOND);
    assert_eq!(sim.hosts[1].engine.orphans, 0);
}

#[test]
fn short_of_memory_orphans_do_not_wait() {
    let (mut sim, _, server) = sockstress(|_| {});
    sim.close(1, server);
    sim.run(SECOND);
    assert_eq!(sim.hosts[1].engine.orphans, 1);
    sim.hosts[1].engine.config.max_orphans = 0;
    sim.run(20 * SECOND);
    assert_eq!(sim.hosts[1].engine.orphans, 0);
}
