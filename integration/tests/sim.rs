//! Whole hosts on bad links in virtual time: thousands of seeded scenarios (`integration::sim`).
//!
//! `FLEXTCP_SIM_SCENARIOS=N` plays another number of them, `FLEXTCP_SIM_FROM=N` starts at another seed. A failure
//! prints its seed; `cargo run -p integration --bin sim -- --seed N` plays it alone.

use integration::sim::batch;

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
    // Each hundredth is played twice: the same seed has to give the same frames.
    let batch = batch(from..from + count, 2, 100, 10, None);
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
}
