//! Many seeds on several threads.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use super::scenario::Scenario;
use super::world::run;

/// A scenario that did not pass.
#[derive(Clone, Debug)]
pub struct Failed {
    /// Its seed.
    pub seed: u64,
    /// What does not hold, with how to play it alone; or the text of a panic.
    pub what: String,
}

/// What came of many scenarios.
#[derive(Clone, Debug, Default)]
pub struct Batch {
    /// Scenarios played.
    pub scenarios: u64,
    /// Of these, scenarios that were played twice, to the same trace.
    pub repeated: u64,
    /// Frames that hosts sent.
    pub frames: u64,
    /// Connections.
    pub connections: u64,
    /// Connections whose ends both saw everything, and no error.
    pub complete: u64,
    /// Times a connection was put on a NIC.
    pub installed: u64,
    /// Segments sent again.
    pub retransmitted: u64,
    /// Virtual time.
    pub simulated: Duration,
    /// What failed, in order of seeds.
    pub failed: Vec<Failed>,
}

/// Plays the scenarios of `seeds` on `threads` threads, each `repeat`th twice, and stops after `most` failures or at
/// `until`.
pub fn batch(
    seeds: std::ops::Range<u64>,
    threads: usize,
    repeat: u64,
    most: usize,
    until: Option<Instant>,
) -> Batch {
    let next = AtomicU64::new(seeds.start);
    let total = Mutex::new(Batch::default());
    std::thread::scope(|scope| {
        for _ in 0..threads {
            scope.spawn(|| {
                loop {
                    let seed = next.fetch_add(1, Ordering::Relaxed);
                    let over = until.is_some_and(|until| Instant::now() >= until);
                    if seed >= seeds.end || over {
                        return;
                    }
                    let mut one = play(seed, seed.is_multiple_of(repeat));
                    let mut total = total.lock().unwrap_or_else(PoisonError::into_inner);
                    total.scenarios += 1;
                    total.repeated += one.repeated;
                    total.frames += one.frames;
                    total.connections += one.connections;
                    total.complete += one.complete;
                    total.installed += one.installed;
                    total.retransmitted += one.retransmitted;
                    total.simulated += one.simulated;
                    total.failed.append(&mut one.failed);
                    if total.failed.len() >= most {
                        return;
                    }
                }
            });
        }
    });
    let mut total = total.into_inner().unwrap_or_else(PoisonError::into_inner);
    total.failed.sort_by_key(|failed| failed.seed);
    total
}

fn play(seed: u64, twice: bool) -> Batch {
    let result = catch_unwind(AssertUnwindSafe(|| {
        let scenario = Scenario::random(seed);
        let report = run(&scenario).map_err(|failure| failure.to_string())?;
        if twice {
            let again = run(&scenario).map_err(|failure| failure.to_string())?;
            if again != report {
                return Err(format!(
                    "scenario {seed} went another way the second time: {:?}, then {:?}",
                    report.trace, again.trace
                ));
            }
        }
        Ok(report)
    }));
    let failed = |what| Batch {
        failed: vec![Failed { seed, what }],
        ..Batch::default()
    };
    match result {
        Ok(Ok(report)) => Batch {
            repeated: u64::from(twice),
            frames: report.trace.frames,
            connections: report.outcomes.len() as u64,
            complete: report
                .outcomes
                .iter()
                .filter(|outcome| outcome.client.eof && outcome.server.eof)
                .count() as u64,
            installed: report.installed,
            retransmitted: report.retransmitted,
            simulated: report.ended,
            ..Batch::default()
        },
        Ok(Err(what)) => failed(what),
        Err(panic) => {
            let text = panic
                .downcast_ref::<String>()
                .map(String::as_str)
                .or_else(|| panic.downcast_ref::<&str>().copied())
                .unwrap_or("no text");
            failed(format!(
                "scenario {seed} panicked: {text}\n  alone: cargo run -p integration --bin sim -- --seed {seed}"
            ))
        }
    }
}
