//! Many seeds on several threads.

use std::ops::Range;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use super::scenario::Scenario;
use super::verdict::Coverage;
use super::world::run;

/// Between two looks of the thread that reports and watches.
const LOOK: Duration = Duration::from_millis(200);

/// Which scenarios to play, and how.
#[derive(Debug)]
pub struct BatchPlan {
    /// Their seeds.
    pub seeds: Range<u64>,
    /// Threads.
    pub threads: usize,
    /// Each so-manieth is played twice: the same seed has to give the same frames.
    pub repeat: u64,
    /// Stop after so many failures,
    pub failures: usize,
    /// or then.
    pub until: Option<Instant>,
    /// A scenario that takes longer than this, in real time, is stuck: [`Progress::stuck`] names it.
    pub patience: Duration,
}

/// What [`batch`] tells while it plays.
#[derive(Debug)]
pub struct Progress<'a> {
    /// So far.
    pub batch: &'a Batch,
    /// The next seed.
    pub next: u64,
    /// A seed that is played for longer than [`BatchPlan::patience`]. It cannot be stopped; the process can.
    pub stuck: Option<u64>,
}

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
    /// What was met on the way.
    pub coverage: Coverage,
    /// Virtual time.
    pub simulated: Duration,
    /// What failed, in order of seeds.
    pub failed: Vec<Failed>,
}

impl Batch {
    fn add(&mut self, one: &mut Self) {
        self.scenarios += 1;
        self.repeated += one.repeated;
        self.frames += one.frames;
        self.connections += one.connections;
        self.complete += one.complete;
        self.installed += one.installed;
        self.retransmitted += one.retransmitted;
        self.coverage.add(&one.coverage);
        self.simulated += one.simulated;
        self.failed.append(&mut one.failed);
    }
}

/// What a thread plays, and since when.
type Playing = Mutex<Option<(u64, Instant)>>;

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Plays scenarios. `progress` is called a few times a second.
pub fn batch(plan: &BatchPlan, mut progress: impl FnMut(&Progress<'_>)) -> Batch {
    let next = AtomicU64::new(plan.seeds.start);
    let total = Mutex::new(Batch::default());
    let playing: Vec<Playing> = (0..plan.threads.max(1)).map(|_| Mutex::default()).collect();
    let left = AtomicUsize::new(playing.len());
    std::thread::scope(|scope| {
        for slot in &playing {
            let (next, total, left) = (&next, &total, &left);
            scope.spawn(move || {
                loop {
                    let over = plan.until.is_some_and(|until| Instant::now() >= until)
                        || lock(total).failed.len() >= plan.failures;
                    let seed = next.fetch_add(1, Ordering::Relaxed);
                    if seed >= plan.seeds.end || over {
                        break;
                    }
                    *lock(slot) = Some((seed, Instant::now()));
                    let mut one = play(seed, seed.is_multiple_of(plan.repeat.max(1)));
                    *lock(slot) = None;
                    lock(total).add(&mut one);
                }
                left.fetch_sub(1, Ordering::Relaxed);
            });
        }
        while left.load(Ordering::Relaxed) > 0 {
            std::thread::park_timeout(LOOK);
            let stuck = playing.iter().find_map(|slot| {
                let (seed, since) = (*lock(slot))?;
                (since.elapsed() > plan.patience).then_some(seed)
            });
            progress(&Progress {
                batch: &lock(&total),
                next: next.load(Ordering::Relaxed).min(plan.seeds.end),
                stuck,
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
            coverage: report.coverage,
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
