//! Connections that have carried more than half of the sequence space: what was noted long ago lies ahead again.

use flextcp_nic::seq::SeqNum;

use super::super::conn::Conn;
use super::*;

/// Beyond half of the sequence space.
const LONG_AGO: u32 = (1 << 31) + 77_777;

/// Puts what a connection noted once `LONG_AGO` bytes back, as if these had passed since.
fn age(conn: &mut Conn) {
    let back = |seq: &mut SeqNum| *seq = *seq - LONG_AGO;
    back(&mut conn.snd.iss);
    back(&mut conn.snd.small_end);
    back(&mut conn.rcv.irs);
}

#[test]
fn bytes_are_released_and_sent_right_after_two_gigabytes() {
    let mut sim = Sim::plain();
    let (client, server) = sim.pair();
    for (host, id) in [(0, client), (1, server)] {
        age(sim.hosts[host].engine.conns.get_mut(id).unwrap());
    }
    sim.impairment = Impairment {
        loss: 20,
        reorder: 20,
        ..Impairment::default()
    };
    let data = pattern(0, 400_000);
    let (mut sent, mut got) = (0, 0);
    let done = sim.run_until(120 * SECOND, |sim| {
        let piece = &data[sent..(sent + 20_000).min(data.len())];
        sent += sim.write(0, client, piece);
        let bytes = sim.read(1, server, 1 << 20);
        assert!(bytes == data[got..got + bytes.len()]);
        got += bytes.len();
        got == data.len()
    });
    assert!(done, "{got} of {}", data.len());
    let all_acked = sim.run_until(10 * SECOND, |sim| {
        sim.hosts[0].engine.conns.get(client).unwrap().outstanding() == 0
    });
    assert!(all_acked);
    let conn = sim.hosts[0].engine.conns.get(client).unwrap();
    assert!(conn.buffers.as_ref().unwrap().send.is_empty());
}

#[test]
fn a_small_segment_of_long_ago_holds_none_back() {
    let mut sim = Sim::plain();
    let (client, server) = sim.pair();
    let conn = sim.hosts[0].engine.conns.get_mut(client).unwrap();
    assert!(!conn.options.nodelay, "Nagle's algorithm is on");
    conn.snd.small_end = conn.snd.una - LONG_AGO;
    sim.write(0, client, b"a word");
    let got = sim.run_until(SECOND, |sim| sim.read(1, server, 100) == b"a word");
    assert!(got);
}
