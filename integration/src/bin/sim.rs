//! Plays simulated scenarios: one by its seed, a range of them, or for hours.

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::{Duration, Instant, SystemTime};

use clap::Parser;
use flextcp_nic::time::parse_duration;
use integration::sim::{
    Batch, BatchPlan, Failed, Progress, Recording, Scenario, batch, draw, run_recorded,
};

/// Between two lines of progress.
const REPORT: Duration = Duration::from_secs(60);
/// The longest time to play.
const YEAR: Duration = Duration::from_secs(366 * 24 * 3_600);
/// Real time after which a scenario hangs; they take milliseconds.
const PATIENCE: Duration = Duration::from_secs(300);
/// Resident memory of the long mode, bytes: what is kept of a scenario is a few numbers.
const MEMORY: u64 = 2 << 30;
const EXAMPLES: &str = "\
Examples:
  sim                                    seeds 0 to 9,999, as CI plays them
  sim --from 10000 --scenarios 100000    other seeds
  sim --for 8h                           new seeds for a night; stops at the first failure
  sim --seed 4711                        one scenario alone: what it is, and what came of it
  sim --seed 4711 --pcapng run --svg out its frames (run.0.pcapng ...) and its plots

A failure names its seed and how to play it alone. Seeds mean the same only for one version of the program.";

/// Whole FlexTCP hosts on bad links, in virtual time. A scenario is a seed: the same seed gives the same frames.
#[derive(Debug, Parser)]
#[command(name = "sim", after_help = EXAMPLES)]
struct Args {
    /// Play this scenario alone, and say what came of it
    #[arg(long)]
    seed: Option<u64>,
    /// Write each host's frames to FILE.N.pcapng (with --seed)
    #[arg(long, value_name = "FILE", requires = "seed")]
    pcapng: Option<PathBuf>,
    /// Draw sequence numbers, windows, round-trip times and queues over time into this directory (with --seed)
    #[arg(long, value_name = "DIR", requires = "seed")]
    svg: Option<PathBuf>,
    /// First seed of a range [default: 0; with --for a new one each time]
    #[arg(long)]
    from: Option<u64>,
    /// Scenarios to play
    #[arg(long, default_value_t = 10_000, conflicts_with_all = ["length", "hours"])]
    scenarios: u64,
    /// Play for this long (30min, 8h), with a line of progress each minute, in memory that does not grow
    #[arg(long = "for", value_name = "TIME", value_parser = length)]
    length: Option<Duration>,
    /// The same, where a number alone is of hours
    #[arg(long, hide = true, value_name = "N", value_parser = hours, conflicts_with = "length")]
    hours: Option<Duration>,
    /// Threads
    #[arg(long, default_value_t = 2)]
    threads: usize,
    /// Stop after so many failures [default: 20; with --for 1]
    #[arg(long)]
    failures: Option<usize>,
}

fn length(text: &str) -> Result<Duration, &'static str> {
    bounded(parse_duration(text, Some(Duration::from_secs(1))))
}

fn hours(text: &str) -> Result<Duration, &'static str> {
    bounded(parse_duration(text, Some(Duration::from_secs(3_600))))
}

fn bounded(time: Option<Duration>) -> Result<Duration, &'static str> {
    time.filter(|time| (Duration::from_nanos(1)..=YEAR).contains(time))
        .ok_or("give a time of more than nothing and of a year at most: 90s, 30min, 8h")
}

fn main() -> ExitCode {
    let args = Args::parse();
    match args.seed {
        Some(seed) => one(seed, &args),
        None => many(&args),
    }
}

fn one(seed: u64, args: &Args) -> ExitCode {
    let scenario = Scenario::random(seed);
    println!("{scenario:#?}");
    let (result, recording) = run_recorded(&scenario, args.pcapng.as_deref());
    if let Some(directory) = &args.svg {
        match draw(&recording, directory) {
            Ok(files) => files.iter().for_each(|file| println!("{}", file.display())),
            Err(error) => println!("no pictures in {}: {error}", directory.display()),
        }
    }
    match result {
        Ok(report) => {
            println!("{report:#?}");
            ExitCode::SUCCESS
        }
        Err(failure) => {
            last_seen(&recording);
            println!("{failure}");
            ExitCode::FAILURE
        }
    }
}

/// The ends that were open when it failed, as last seen.
fn last_seen(recording: &Recording) {
    let mut last = BTreeMap::new();
    for sample in &recording.samples {
        last.insert((sample.connection, sample.server), sample);
    }
    let until = recording.samples.last().map(|sample| sample.at);
    for sample in last.values() {
        if until.is_some_and(|until| sample.at + Duration::from_secs(300) >= until) {
            println!("{sample:#?}");
        }
    }
}

fn many(args: &Args) -> ExitCode {
    let started = Instant::now();
    let long = args.length.or(args.hours);
    let (seeds, failures) = match long {
        Some(_) => {
            let from = args.from.unwrap_or_else(new_seed);
            println!("from seed {from}");
            (from..u64::MAX, 1)
        }
        None => {
            let from = args.from.unwrap_or(0);
            (from..from.saturating_add(args.scenarios), 20)
        }
    };
    let plan = BatchPlan {
        seeds,
        threads: args.threads,
        repeat: 100,
        failures: args.failures.unwrap_or(failures),
        until: long.map(|length| started + length),
        patience: PATIENCE,
    };
    let mut reported = started;
    let mut told = BTreeSet::new();
    let batch = batch(&plan, |progress| {
        watch(progress);
        tell(&progress.batch.failed, &mut told);
        if reported.elapsed() >= REPORT {
            reported = Instant::now();
            let resident = resident().unwrap_or(0) >> 20;
            println!(
                "{:.1} h: {} scenarios, next seed {}, {} MiB, {} failed",
                started.elapsed().as_secs_f64() / 3_600.0,
                progress.batch.scenarios,
                progress.next,
                resident,
                progress.batch.failed.len(),
            );
        }
    });
    tell(&batch.failed, &mut told);
    summary(&batch, started.elapsed());
    if batch.failed.is_empty() {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    }
}

/// Says what failed, once.
fn tell(failed: &[Failed], told: &mut BTreeSet<u64>) {
    for failed in failed {
        if told.insert(failed.seed) {
            println!("{}\n", failed.what);
        }
    }
}

/// Ends the process where nothing else helps: a scenario that does not end, memory that does not stay in its bound.
fn watch(progress: &Progress<'_>) {
    if let Some(seed) = progress.stuck {
        println!(
            "scenario {seed} does not end in {PATIENCE:?} of real time\n  alone: cargo run -p integration --bin sim -- --seed {seed}"
        );
        std::process::exit(1);
    }
    if let Some(bytes) = resident()
        && bytes > MEMORY
    {
        println!(
            "{} MiB of memory are in use before seed {}: something is not given back",
            bytes >> 20,
            progress.next
        );
        std::process::exit(1);
    }
}

/// Resident memory of the process, bytes.
fn resident() -> Option<u64> {
    let text = std::fs::read_to_string("/proc/self/statm").ok()?;
    let pages: u64 = text.split_whitespace().nth(1)?.parse().ok()?;
    Some(pages * rustix::param::page_size() as u64)
}

/// A seed that nobody had, far from the next one's.
fn new_seed() -> u64 {
    let since = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH);
    since.map_or(1, |since| since.as_secs()) << 24
}

fn summary(batch: &Batch, took: Duration) {
    println!(
        "{} scenarios ({} of them twice), {} connections ({} complete), {} frames, {} sent again, {} installs, {:.0} h of virtual time in {:.1} s: {} failed",
        batch.scenarios,
        batch.repeated,
        batch.connections,
        batch.complete,
        batch.frames,
        batch.retransmitted,
        batch.installed,
        batch.simulated.as_secs_f64() / 3_600.0,
        took.as_secs_f64(),
        batch.failed.len(),
    );
    let met = &batch.coverage;
    println!(
        "{} packets marked, {} too large and {} swallowed for it, {} super-frames cut and {} whole, {} simultaneous opens, {} connections opened again by a late segment",
        met.marked, met.too_big, met.swallowed, met.cut, met.whole, met.crossed, met.reopened,
    );
}
