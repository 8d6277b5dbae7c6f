//! How far an application may write ahead (Linux's `tcp_sndbuf_expand`).

use flextcp_nic::buffer::{Pressure, recv_ring};

use super::*;
use crate::options::SocketOption;

/// Writes and reads as fast as they can for a while; gives the most that was written ahead.
fn bulk(sim: &mut Sim, client: ConnId, server: ConnId, time: Duration) -> usize {
    let data = vec![7; 1 << 20];
    let until = sim.now + time;
    let mut most = 0;
    while sim.now < until {
        while sim.write(0, client, &data) > 0 {}
        most = most.max(sim.hosts[0].apps[&client].send.len());
        sim.read(1, server, 8 << 20);
        sim.run(Duration::from_millis(5));
    }
    most
}

/// Hosts 50 ms apart, the receiver with room for anything.
fn far() -> Sim {
    let mut sim = Sim::plain();
    sim.keep_log = false;
    sim.delay = Duration::from_millis(50);
    sim.hosts[1].engine.config.recv_buffer_max = 64 << 20;
    sim
}

fn limit(sim: &Sim, client: ConnId) -> u32 {
    sim.hosts[0].apps[&client].send.limit()
}

#[test]
fn it_grows_with_the_window_to_its_bound() {
    let mut sim = far();
    sim.hosts[0].engine.config.send_buffer_max = 2 << 20;
    let (client, server) = sim.pair();
    assert_eq!(limit(&sim, client), 256 << 10);
    assert_eq!(
        bulk(&mut sim, client, server, Duration::from_millis(5)),
        256 << 10
    );
    bulk(&mut sim, client, server, SECOND);
    let cwnd = sim.hosts[0].engine.info(sim.now, client).unwrap().snd_cwnd;
    assert!(cwnd > 256 << 10, "{cwnd}");
    let most = bulk(&mut sim, client, server, 2 * SECOND);
    assert_eq!((most, limit(&sim, client)), (2 << 20, 2 << 20));
}

#[test]
fn what_the_application_asked_for_stays() {
    let mut sim = far();
    let (client, server) = sim.pair();
    let asked = SocketOption::SendBuffer(100_000);
    sim.hosts[0].apps[&client].send.set_limit(100_000);
    let now = sim.now;
    sim.hosts[0].engine.set_option(now, client, asked);
    assert_eq!(bulk(&mut sim, client, server, 2 * SECOND), 100_000);

    let options = SocketOptions {
        send_buffer: Some(1 << 20),
        ..SocketOptions::default()
    };
    let client = sim.connect(40_009, options);
    sim.run(SECOND / 2);
    let server = sim.hosts[1].accepted.pop_front().unwrap();
    assert_eq!(bulk(&mut sim, client, server, 2 * SECOND), 1 << 20);
}

#[test]
fn none_grows_while_memory_is_short() {
    let mut sim = far();
    let (client, server) = sim.pair();
    let pool = sim.hosts[0].engine.pool.clone();
    assert_eq!(pool.limit(), 1 << 30);
    // Three quarters, and a little.
    let mut rings: Vec<_> = [29, 28, 20]
        .map(|shift| (recv_ring(&pool), 1 << shift))
        .into();
    for ((writer, _), size) in &mut rings {
        writer.resize(*size, 0).unwrap();
    }
    assert_eq!(pool.pressure(), Pressure::Pressed);
    bulk(&mut sim, client, server, SECOND);
    assert_eq!(limit(&sim, client), 256 << 10);
}

#[test]
fn on_a_short_path_it_stays_in_the_caches() {
    let mut sim = far();
    sim.delay = Duration::from_micros(20);
    let (client, server) = sim.pair();
    bulk(&mut sim, client, server, SECOND);
    let cwnd = sim.hosts[0].engine.info(sim.now, client).unwrap().snd_cwnd;
    assert!(cwnd > 1 << 20, "{cwnd}");
    assert_eq!(limit(&sim, client), 1 << 20);
}
