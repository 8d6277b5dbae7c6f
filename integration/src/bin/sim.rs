//! Plays simulated scenarios: one by its seed, a range of them, or for hours.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::{Duration, Instant};

use clap::Parser;
use integration::sim::{Batch, Recording, Scenario, batch, draw, run_recorded};

/// Whole FlexTCP hosts on bad links, in virtual time. A scenario is a seed: the same seed gives the same frames.
#[derive(Debug, Parser)]
#[command(name = "sim")]
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
    /// First seed of a range
    #[arg(long, default_value_t = 0)]
    from: u64,
    /// Scenarios to play
    #[arg(long, default_value_t = 10_000)]
    scenarios: u64,
    /// Play for so many hours instead, from the first seed on
    #[arg(long, value_name = "H")]
    hours: Option<f64>,
    /// Threads
    #[arg(long, default_value_t = 2)]
    threads: usize,
    /// Stop after so many failures
    #[arg(long, default_value_t = 20)]
    failures: usize,
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
    let (end, until) = match args.hours {
        Some(hours) => (
            u64::MAX,
            Some(started + Duration::from_secs_f64(hours * 3_600.0)),
        ),
        None => (args.from.saturating_add(args.scenarios), None),
    };
    let batch = batch(args.from..end, args.threads, 100, args.failures, until);
    for failed in &batch.failed {
        println!("{}\n", failed.what);
    }
    summary(&batch, started.elapsed());
    if batch.failed.is_empty() {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    }
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
}
