//! Whole hosts on bad links in virtual time: thousands of seeded scenarios (`integration::sim`).
//!
//! `FLEXTCP_SIM_SCENARIOS=N` plays another number of them, `FLEXTCP_SIM_FROM=N` starts at another seed. A failure
//! prints its seed; `cargo run -p integration --bin sim -- --seed N` plays it alone.

use std::time::Duration;

use flextcp_nic::port::impair::Impairment;
use flextcp_rt::tcp::EngineConfig;
use integration::sim::{AppPlan, BatchPlan, Ending, LinkClass, Scenario, batch, run};

/// Scenarios, without `FLEXTCP_FULL`.
const SCENARIOS: u64 = 10_000;
/// Scenarios with `FLEXTCP_FULL`.
const FULL: u64 = 200_000;

fn variable(name: &str) -> Option<u64> {
    let value = std::env::var(name).ok()?;
    Some(
        value
            .parse()
            .unwrap_or_else(|_| panic!("{name}={value:?} is not a number")),
    )
}

#[test]
fn seeded_scenarios_pass() {
    let full = std::env::var_os("FLEXTCP_FULL").is_some_and(|value| value == "1");
    let count = variable("FLEXTCP_SIM_SCENARIOS").unwrap_or(if full { FULL } else { SCENARIOS });
    let from = variable("FLEXTCP_SIM_FROM").unwrap_or(0);
    let started = std::time::Instant::now();
    let plan = BatchPlan {
        seeds: from..from + count,
        threads: 2,
        repeat: 100,
        failures: 10,
        until: None,
        patience: Duration::from_secs(600),
    };
    let batch = batch(&plan, |progress| {
        assert_eq!(progress.stuck, None, "a scenario that does not end");
    });
    for failed in &batch.failed {
        eprintln!("{}\n", failed.what);
    }
    println!(
        "{} scenarios in {:.0} s: {} connections, {} complete, {} frames, {:.0} h of virtual time",
        batch.scenarios,
        started.elapsed().as_secs_f64(),
        batch.connections,
        batch.complete,
        batch.frames,
        batch.simulated.as_secs_f64() / 3_600.0,
    );
    let seeds: Vec<_> = batch.failed.iter().map(|failed| failed.seed).collect();
    assert!(seeds.is_empty(), "scenarios that failed: {seeds:?}");
    assert_eq!(batch.scenarios, count);
    // That most of it is what it is meant to be: connections that end well, many of them on the NIC.
    assert!(batch.complete * 2 > batch.connections, "{batch:?}");
    assert!(batch.installed > batch.connections / 2, "{batch:?}");
    assert!(batch.retransmitted > 0);
    // And that each kind of trouble is among it.
    let met = &batch.coverage;
    let kinds = [
        ("ECN marks", met.marked),
        ("packets too large", met.too_big),
        ("packets too large for a silent router", met.swallowed),
        ("super-frames cut", met.cut),
        ("super-frames passed on", met.whole),
        ("simultaneous opens", met.crossed),
    ];
    for (kind, count) in kinds {
        assert!(count * 1_000 > batch.scenarios, "{count} {kind}");
    }
}

/// Seeds beyond the range above that found something.
#[test]
fn what_failed_once_does_not_again() {
    for (seed, what) in [
        (
            28_583,
            "what was promised was refused although there was memory again",
        ),
        (
            195_897,
            "between NIC and engine without end: a window to be probed, and pacing",
        ),
        (
            700_167,
            "a flight of nothing: waiting for the peer's window was taken for a round trip, ever longer",
        ),
        (
            634_456,
            "an orphan that gave up behind a silent router, after an outage, was none to the judge",
        ),
    ] {
        let report = run(&Scenario::random(seed));
        assert!(report.is_ok(), "{what}: {}", report.unwrap_err());
    }
}

/// A gigabit over 100 ms has 12.5 MB in flight. The sender's settings are the defaults; the receiver's window is as Linux's.
#[test]
fn a_bulk_sender_fills_a_long_fat_path() {
    const BYTES: u64 = 400 << 20;
    let mut scenario = Scenario::random(0);
    scenario.hosts.truncate(2);
    scenario.events.clear();
    scenario.connections.truncate(1);
    for host in &mut scenario.hosts {
        host.class = LinkClass::Wire;
        (host.up, host.down) = (Impairment::default(), Impairment::default());
        (host.mtu, host.path_mtu) = (1_500, 1_500);
        host.tick = Duration::from_nanos(1);
        host.memory = 1 << 30;
        host.engine = EngineConfig::default();
        host.accept_pause = Duration::ZERO;
    }
    scenario.hosts[0].engine.recv_buffer_max = 32 << 20;
    let sender = &mut scenario.hosts[1];
    for line in [&mut sender.up, &mut sender.down] {
        line.delay = Duration::from_millis(50);
        line.rate = Some(1_000_000_000);
        line.queue = 8_000;
    }
    let connection = &mut scenario.connections[0];
    (connection.client, connection.server) = (1, 0);
    (connection.v6, connection.simultaneous) = (false, false);
    connection.at = Duration::ZERO;
    connection.client_app = AppPlan::bulk(BYTES, Ending::Shutdown);
    connection.server_app = AppPlan::bulk(0, Ending::Last);
    let report = run(&scenario).unwrap();
    let took = report.outcomes[0].server.done_at.unwrap();
    let rate = BYTES as f64 * 8.0 / took.as_secs_f64() / 1e6;
    // With 4 MiB in flight it would be 335 Mbit/s. Slow start takes about a second of the four and a half.
    assert!(rate > 600.0, "{rate:.0} Mbit/s, {took:?}: {report:?}");
}
