//! Paths narrower than their first link, with routers that speak and routers that do not.

use flextcp_nic::wire::{IcmpError, IcmpErrorKind};

use super::*;

/// Moves `len` bytes; gives how long it took.
fn move_bytes(sim: &mut Sim, client: ConnId, server: ConnId, len: usize) -> Duration {
    let data = pattern(0, len);
    let (mut sent, mut got) = (0, 0);
    let since = sim.now;
    let done = sim.run_until(600 * SECOND, |sim| {
        sent += sim.write(0, client, &data[sent..(sent + 65_536).min(len)]);
        let bytes = sim.read(1, server, 1 << 20);
        assert!(bytes == data[got..got + bytes.len()]);
        got += bytes.len();
        got == len
    });
    let info = sim.hosts[0].engine.info(sim.now, client);
    assert!(done, "{got} of {len}: {info:?}");
    sim.now.saturating_since(since)
}

fn mss(sim: &Sim, client: ConnId) -> u32 {
    sim.hosts[0].engine.info(sim.now, client).unwrap().snd_mss
}

fn too_big(sim: &mut Sim, client: ConnId, offset: u32, mtu: u32) {
    let conn = sim.hosts[0].engine.conns.get(client).unwrap();
    let error = IcmpError {
        tuple: conn.tuple,
        seq: conn.snd.una + offset,
        kind: IcmpErrorKind::PacketTooBig { mtu },
    };
    sim.hosts[0].engine.on_icmp(sim.now, &error);
}

#[test]
fn a_router_that_speaks_is_believed_about_what_is_in_flight() {
    let mut sim = Sim::plain();
    let (client, _) = sim.pair();
    sim.cut = [true, true];
    sim.write(0, client, &pattern(0, 5000));
    sim.drive_all();
    too_big(&mut sim, client, 1 << 20, 1000);
    assert_eq!(mss(&sim, client), 1448, "nothing of ours has this number");
    too_big(&mut sim, client, 0, 1400);
    assert_eq!(mss(&sim, client), 1348);
    too_big(&mut sim, client, 0, 1480);
    assert_eq!(mss(&sim, client), 1348, "an error never widens a path");
    too_big(&mut sim, client, 0, 68);
    assert_eq!(mss(&sim, client), 500, "nor below what every path takes");
    // At once, without a timeout.
    sim.log.clear();
    sim.drive_all();
    let (_, again, len) = sim.log[0];
    assert_eq!(
        (again.seq, len),
        (sim.hosts[0].engine.conns.get(client).unwrap().snd.una, 500)
    );
}

#[test]
fn an_old_router_does_not_tell_its_mtu() {
    let mut sim = Sim::plain();
    let (client, _) = sim.pair();
    sim.cut = [true, true];
    sim.write(0, client, &pattern(0, 5000));
    sim.drive_all();
    too_big(&mut sim, client, 0, 0);
    assert_eq!(mss(&sim, client), 500);
}

/// Segments were never made smaller than the first router had asked for, if that was below what a search begins with
/// (found by the simulator).
#[test]
fn a_black_hole_behind_a_router_that_speaks_is_found() {
    let mut sim = Sim::plain();
    let (client, server) = sim.pair();
    sim.cut = [true, true];
    sim.write(0, client, &pattern(0, 5000));
    sim.drive_all();
    too_big(&mut sim, client, 0, 820);
    assert_eq!(mss(&sim, client), 768);
    sim.cut = [false, false];
    sim.narrow = 761;
    let done = sim.run_until(60 * SECOND, |sim| {
        sim.hosts[0]
            .engine
            .info(sim.now, client)
            .unwrap()
            .bytes_acked
            == 5000
    });
    assert!(done, "{:?}", sim.hosts[0].engine.info(sim.now, client));
    assert_eq!(sim.read(1, server, 1 << 20), pattern(0, 5000));
    assert!((524..=709).contains(&mss(&sim, client)));
}

#[test]
fn a_black_hole_is_found_and_its_size_searched() {
    let mut sim = Sim::plain();
    sim.keep_log = false;
    let (client, server) = sim.pair();
    sim.narrow = 1300;
    let took = move_bytes(&mut sim, client, server, 2_000_000);
    let found = mss(&sim, client);
    // 1,300 bytes of packet are 1,248 of payload beside timestamps.
    assert!((1216..=1248).contains(&found), "{found}");
    assert!(took < 10 * SECOND, "{took:?}");
    let conn = sim.hosts[0].engine.conns.get(client).unwrap();
    assert!(!conn.path_mtu.is_searching());
    // RFC 4821, section 7.6.2: a probe that was too large is no congestion.
    let recovery = sim.hosts[0].engine.counters().recovery;
    assert_eq!(recovery.fast_recoveries, 0, "{recovery:?}");
    assert!(recovery.retransmitted > recovery.timeouts);
}

#[test]
fn a_path_that_widens_again_is_used_again() {
    let mut sim = Sim::plain();
    sim.keep_log = false;
    let (client, server) = sim.pair();
    sim.narrow = 1100;
    move_bytes(&mut sim, client, server, 1_000_000);
    assert!(mss(&sim, client) < 1100);
    sim.narrow = usize::MAX;
    sim.run(601 * SECOND);
    move_bytes(&mut sim, client, server, 1_000_000);
    assert_eq!(mss(&sim, client), 1448);
}

#[test]
fn an_outage_costs_no_segment_size() {
    let mut sim = Sim::plain();
    sim.keep_log = false;
    let (client, server) = sim.pair();
    sim.write(0, client, &pattern(0, 50_000));
    sim.cut = [true, true];
    sim.run(20 * SECOND);
    assert_eq!(mss(&sim, client), 524, "as small as it gets");
    sim.cut = [false, false];
    sim.run(60 * SECOND);
    let mut got = Vec::new();
    while got.len() < 50_000 {
        got.extend(sim.read(1, server, 50_000));
        assert!(sim.step(sim.now + SECOND));
    }
    move_bytes(&mut sim, client, server, 1_000_000);
    assert_eq!(mss(&sim, client), 1448);
}

#[test]
fn an_mss_of_one_is_raised_to_what_is_worth_a_header() {
    let mut sim = Sim::plain();
    sim.listen(4, SocketOptions::default());
    for (port, mss) in [(41_000, 1), (41_001, 40), (41_002, 65_535)] {
        let client = sim.connect(port, SocketOptions::default());
        sim.drive_all();
        let mut syn = *sim.sent(0, TcpFlags::SYN).last().unwrap();
        syn.options.mss = Some(mss);
        sim.wire.clear();
        sim.inject(1, &syn, &[]);
        sim.settle();
        assert_eq!(sim.state(0, client), State::Established);
        let server = sim.hosts[1].accepted.pop_front().unwrap();
        let expected = if mss > 1460 { 1448 } else { 48 };
        let info = sim.hosts[1].engine.info(sim.now, server).unwrap();
        assert_eq!(info.snd_mss, expected, "{mss}");
        sim.write(1, server, &pattern(0, 1000));
        sim.run(SECOND);
        assert_eq!(sim.read(0, client, 2000), pattern(0, 1000));
    }
}

/// RFC 8201, section 4: a node that is told less than IPv6's least MTU does not go below it.
#[test]
fn no_ipv6_path_is_narrower_than_1280_bytes() {
    let mut sim = Sim::plain();
    let local = SocketAddr::new(sim::address(1, true), 80);
    let options = SocketOptions::default();
    let server = &mut sim.hosts[1].engine;
    server.listen(local, 4, 1500, options.clone()).unwrap();
    let (client, app) = sim.hosts[0]
        .engine
        .connect(sim.now, Sim::tuple(40_000, true), sim::LINK, options)
        .unwrap();
    sim.hosts[0].apps.insert(client, app);
    sim.settle();
    sim.cut = [true, true];
    sim.write(0, client, &pattern(0, 5000));
    sim.drive_all();
    assert_eq!(mss(&sim, client), 1500 - 60 - 12);
    too_big(&mut sim, client, 0, 1279);
    assert_eq!(mss(&sim, client), 1280 - 60 - 12);
    too_big(&mut sim, client, 0, 68);
    assert_eq!(mss(&sim, client), 1280 - 60 - 12);
}
