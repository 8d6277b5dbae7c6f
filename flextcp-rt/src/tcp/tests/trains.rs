//! Super-frames: what a port cuts is what would have been sent without.

use super::*;

/// A transfer with loss, reordering and a FIN, and what each side sent.
fn transfer(seed: u64, train: u32) -> Sim {
    let mut sim = Sim::new(
        EngineConfig {
            offload: crate::offload::OffloadPolicy::Never,
            ..EngineConfig::default()
        },
        seed,
    );
    sim.train = train;
    let (client, server) = sim.pair();
    sim.impairment = Impairment {
        loss: 5 * (seed % 8),
        reorder: seed % 3,
        duplicate: seed % 5,
        mark: 0,
    };
    let data = pattern(seed, 300_000 + seed as usize * 1_111);
    let (mut sent, mut got, mut closed) = (0, 0, false);
    let done = sim.run_until(120 * SECOND, |sim| {
        let piece = &data[sent..(sent + 70_000).min(data.len())];
        sent += sim.write(0, client, piece);
        if sent == data.len() && !closed {
            closed = true;
            sim.shutdown(0, client);
        }
        let bytes = sim.read(1, server, 1 << 20);
        assert!(bytes == data[got..got + bytes.len()]);
        got += bytes.len();
        got == data.len() && sim.hosts[1].peer_closed.contains(&server)
    });
    assert!(done, "seed {seed}: {got} of {}", data.len());
    sim
}

#[test]
fn what_the_port_cuts_is_what_would_have_been_sent_alone() {
    for seed in 0..40 {
        let alone = transfer(seed, 0);
        for train in [3_000, 65_000] {
            let cut = transfer(seed, train);
            assert!(cut.trains > 2, "seed {seed}: {} super-frames", cut.trains);
            assert_eq!(alone.log.len(), cut.log.len(), "seed {seed}, {train} bytes");
            for (alone, cut) in alone.log.iter().zip(&cut.log) {
                assert_eq!(alone, cut, "seed {seed}, {train} bytes");
            }
        }
    }
}

#[test]
fn segments_lost_in_a_row_are_sent_again_in_one_frame() {
    let mut sim = Sim::plain();
    sim.train = 65_000;
    let (client, server) = sim.pair();
    let conn = sim.hosts[0].engine.conns.get(client).unwrap();
    let (first, mss) = (conn.snd.una, conn.snd.mss.bytes());
    for lost in [1, 2, 3, 5] {
        sim.drop_data(0, first + lost * mss);
    }
    let data = pattern(0, 10 * mss as usize);
    sim.write(0, client, &data);
    let mut got = 0;
    sim.log.clear();
    sim.trains = 0;
    let done = sim.run_until(SECOND, |sim| {
        got += sim.read(1, server, 1 << 20).len();
        got == data.len()
    });
    assert!(done, "{got} of {}", data.len());
    // The ten, and the three; the fifth follows a gap.
    assert_eq!(sim.trains, 2);
    let segments = sim.log.iter().filter(|(by, _, len)| *by == 0 && *len > 0);
    assert_eq!(segments.count(), 14);
}
