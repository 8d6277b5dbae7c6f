//! Measures ours beside kernel sockets: `cargo run --release -p integration --bin bench -- rpc|bulk|churn|path`.

use std::error::Error;
use std::fs;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use clap::{Args, Parser, Subcommand};
use integration::bench::path;
use integration::bench::report::{Report, Row};
use integration::bench::{Suite, cases, plot, sample};
use integration::netns::is_privileged;
use integration::peer::{self, Part};
use integration::stack::StackKind;

/// Compares flextcp_net with tokio::net on kernel sockets, in network namespaces of its own. Needs root.
#[derive(Debug, Parser)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Round trips and requests per second of 64-byte messages
    Rpc(Options),
    /// Throughput of one connection
    Bulk(Options),
    /// Connections opened, used once and closed per second
    Churn(Options),
    /// What our program on `lo` costs kernel sockets that have nothing to do with us
    Bystander(Options),
    /// Goodput over a bad path of 100 Mbit/s, beside Linux CUBIC; sharing, DCTCP, BBR
    Path(Options),
    /// Goodput on the same paths in virtual time, ours alone: writes docs/results/goodput.md
    Simulated(Simulated),
    /// One end of a measurement; what the others start
    #[command(hide = true)]
    Peer {
        #[command(subcommand)]
        part: Part,
    },
}

#[derive(Debug, Args)]
struct Simulated {
    /// Only paths whose name contains this, and write nothing
    #[arg(long, value_name = "TEXT")]
    only: Option<String>,
    /// Write the sender's windows over time of paths and columns ("20 ms 1 % loss; BBR") that contain TEXT as CSV,
    /// and nothing else
    #[arg(long, value_name = "FILE", requires = "only")]
    csv: Option<PathBuf>,
}

#[derive(Debug, Args)]
struct Options {
    /// Write the results as JSON
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,
    /// Draw the results into this directory
    #[arg(long, value_name = "DIR")]
    svg: Option<PathBuf>,
    /// Two short rounds: shows that it works, not how fast it is
    #[arg(long)]
    quick: bool,
    /// Rounds of each side
    #[arg(long, value_name = "N", default_value_t = 7, value_parser = clap::value_parser!(u16).range(1..=100))]
    rounds: u16,
    /// Only cases whose name contains this
    #[arg(long, value_name = "TEXT", default_value = "")]
    only: String,
    /// Rounds at once, on paths of their own (path; not where flows share one)
    #[arg(long, value_name = "N", default_value_t = 1)]
    jobs: u8,
    /// Only these beside Linux to Linux (path)
    #[arg(long, value_enum, value_delimiter = ',')]
    pairs: Vec<path::Pair>,
    /// Exit with an error when a target is missed
    #[arg(long)]
    strict: bool,
}

fn main() -> ExitCode {
    let result = match Cli::parse().command {
        Command::Rpc(options) => measure(Suite::Rpc, &options),
        Command::Bulk(options) => measure(Suite::Bulk, &options),
        Command::Churn(options) => measure(Suite::Churn, &options),
        Command::Bystander(options) => measure(Suite::Bystander, &options),
        Command::Path(options) => measure_path(&options),
        Command::Simulated(options) => simulate(&options),
        Command::Peer { part } => {
            let filter = tracing_subscriber::EnvFilter::try_from_default_env()
                .unwrap_or_else(|_| tracing_subscriber::EnvFilter::new("warn"));
            tracing_subscriber::fmt()
                .with_env_filter(filter)
                .with_writer(std::io::stderr)
                .init();
            peer::run(&part).map(|()| true).map_err(Into::into)
        }
    };
    match result {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("bench: {error}");
            ExitCode::FAILURE
        }
    }
}

fn require_root() -> Result<(), Box<dyn Error>> {
    if is_privileged() {
        return Ok(());
    }
    Err("needs CAP_NET_ADMIN and CAP_SYS_ADMIN to make network namespaces: run as root".into())
}

fn measure(suite: Suite, options: &Options) -> Result<bool, Box<dyn Error>> {
    require_root()?;
    let program = std::env::current_exe()?;
    let (rounds, length) = if options.quick {
        (2, Duration::from_millis(300))
    } else {
        (usize::from(options.rounds), Duration::from_secs(1))
    };
    let mut rows = Vec::new();
    for case in cases(suite) {
        if !case.name.contains(&options.only) {
            continue;
        }
        let (mut ours, mut kernel) = (Vec::new(), Vec::new());
        for round in 0..rounds {
            // Swap the order from round to round, so that a drift of the machine favours neither.
            let mut order = [StackKind::Flex, StackKind::Kernel];
            if round % 2 == 1 {
                order.reverse();
            }
            for side in order {
                let sample = sample::take(&program, &case, side, length)
                    .map_err(|error| format!("{}, {}: {error}", case.name, side.name()))?;
                eprintln!(
                    "{}, round {}, {}: {:.2} {}",
                    case.name,
                    round + 1,
                    side.name(),
                    case.metric.of(&sample.outcome),
                    case.metric.unit()
                );
                match side {
                    StackKind::Flex => ours.push(sample),
                    StackKind::Kernel => kernel.push(sample),
                }
            }
        }
        rows.push(Row::new(&case, &ours, &kernel));
    }
    let report = Report {
        suite,
        rounds,
        millis: u64::try_from(length.as_millis())?,
        kernel: rustix::system::uname()
            .release()
            .to_string_lossy()
            .into_owned(),
        cores: std::thread::available_parallelism()?.get(),
        rows,
    };
    println!("{}", report.table());
    if let Some(file) = &options.json {
        fs::write(file, serde_json::to_string_pretty(&report)? + "\n")?;
    }
    if let Some(directory) = &options.svg {
        println!("{}", plot::draw(&report, directory)?.display());
    }
    Ok(!options.strict || report.all_met())
}

fn measure_path(options: &Options) -> Result<bool, Box<dyn Error>> {
    require_root()?;
    let program = std::env::current_exe()?;
    let rounds = if options.quick {
        1
    } else {
        usize::from(options.rounds)
    };
    let bench = path::Bench {
        program: &program,
        rounds,
        quick: options.quick,
        only: &options.only,
        jobs: options.jobs.into(),
        pairs: &options.pairs,
    };
    let report = bench.run()?;
    println!("{}", report.table());
    if let Some(file) = &options.json {
        fs::write(file, serde_json::to_string_pretty(&report)? + "\n")?;
    }
    if let Some(directory) = &options.svg {
        println!("{}", path::plot::draw(&report, directory)?.display());
    }
    Ok(!options.strict || report.all_met())
}

fn simulate(options: &Simulated) -> Result<bool, Box<dyn Error>> {
    let only = options.only.as_deref().unwrap_or("");
    if let Some(file) = &options.csv {
        fs::write(file, path::simulated::windows(only)?)?;
        return Ok(true);
    }
    let table = path::simulated::table(only)?;
    println!("{table}");
    if options.only.is_none() {
        fs::write(path::simulated::file(), table)?;
    }
    Ok(true)
}
