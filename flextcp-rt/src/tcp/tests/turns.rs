//! What is sent before what: connections that always have something to send take turns, and do not stay off the NIC for
//! it; an acknowledgment goes before a reset.

use super::super::output::QUANTUM;
use super::*;
use crate::offload::OffloadPolicy;

/// Segments of a turn.
const TURN: usize = QUANTUM.div_ceil(1448) as usize;

/// Two connections that nothing but the engine holds back, each with a megabyte to send.
fn two_busy_connections(offload: OffloadPolicy) -> Sim {
    let mut sim = Sim::plain();
    let (first, _) = sim.pair();
    let second = sim.connect(40_001, SocketOptions::default());
    sim.settle();
    let data = pattern(0, 1 << 20);
    for id in [first, second] {
        let host = &mut sim.hosts[0];
        let conn = host.engine.conns.get_mut(id).unwrap();
        conn.snd.wnd = 1 << 24;
        conn.congestion.window.cwnd = 1 << 24;
        conn.congestion.pacing_rate = 0;
        conn.snd.last_sent = sim.now;
        conn.send_gauge.set_limit(1 << 20);
        assert_eq!(host.apps[&id].send.write(&data), data.len());
        assert_eq!(host.engine.doorbell(sim.now, id), None);
    }
    sim.hosts[0].engine.offload = crate::offload::Offload::new(offload);
    sim
}

#[test]
fn nobody_waits_for_one_that_never_pauses() {
    let mut sim = two_busy_connections(OffloadPolicy::Never);
    let (now, engine) = (sim.now, &mut sim.hosts[0].engine);
    let mut ports = Vec::new();
    for _ in 0..4 * TURN {
        let transmit = engine.poll_transmit(now).expect("both are busy");
        ports.push(transmit.segment.tuple.local.1);
    }
    for turn in ports.chunks(2 * TURN) {
        for port in [40_000, 40_001] {
            let share = turn.iter().filter(|&&sender| sender == port).count();
            assert_eq!(share, TURN, "of {port} in {turn:?}");
        }
    }
}

#[test]
fn one_that_never_pauses_goes_to_the_nic_in_mid_flight() {
    let mut sim = two_busy_connections(OffloadPolicy::Always);
    let (now, engine) = (sim.now, &mut sim.hosts[0].engine);
    let sent = std::iter::from_fn(|| engine.poll_transmit(now).map(drop)).count();
    assert_eq!(sent, 2 * TURN);
    for _ in 0..2 {
        let (_, state, buffers) = engine.poll_install(now).expect("both were offered");
        assert!(state.in_flight() > 0 && state.unsent() > 0);
        assert_eq!(buffers.send.len(), 1 << 20);
    }
}

/// It went to the NIC and came back without end, until pacing let the engine see that the window was to be probed.
#[test]
fn one_whose_window_holds_no_segment_stays_while_pacing_holds_it() {
    let mut sim = two_busy_connections(OffloadPolicy::Always);
    let (now, engine) = (sim.now, &mut sim.hosts[0].engine);
    let ids: Vec<_> = engine.conns.iter().map(|conn| conn.id).collect();
    for id in ids {
        let conn = engine.conns.get_mut(id).unwrap();
        conn.snd.wnd = 300;
        conn.congestion.pacing_rate = 1;
        conn.pace.sent(now, 1, 3_000);
    }
    assert!(engine.poll_transmit(now).is_none());
    assert!(engine.poll_install(now).is_none());
    assert!(engine.poll_timeout().is_some_and(|at| at > now), "pacing");
}

#[test]
fn a_reset_comes_after_the_acknowledgment_that_is_due() {
    let mut sim = Sim::plain();
    let (client, _) = sim.pair();
    let (now, engine) = (sim.now, &mut sim.hosts[0].engine);
    // As when the application resets in the turn that its connect succeeds.
    engine.conns.get_mut(client).unwrap().rcv.ack.now = 1;
    engine.abort(now, client);
    let mut next = || engine.poll_transmit(now).map(|sent| sent.segment.flags);
    assert_eq!(next(), Some(TcpFlags::ACK));
    assert_eq!(next(), Some(TcpFlags::RST | TcpFlags::ACK));
    assert_eq!(next(), None);
}
