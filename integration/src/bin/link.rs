//! Joins two network namespaces with an emulated path: delay, jitter, loss, reordering, rate, queue, ECN marks.

use std::error::Error;
use std::fs;
use std::io::Write as _;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use clap::Parser;
use flextcp_nic::port::impair::ImpairConfig;
use flextcp_nic::time::parse_duration;
use integration::netns::{Namespace, VethPair, is_privileged};
use integration::path::{Direction, Path};
use tokio::signal::unix::{SignalKind, signal};

const EXAMPLES: &str = "\
The path is a list of settings, for both ways, or with tx. for the way to the second end and rx. for the way back:
  delay=10ms jitter=1ms loss=1% burst=0.1% burst-len=4 reorder=5% gap=3 hold=2ms dup=0.5% corrupt=0.1%
  rate=100mbit queue=200 (frames) queue-bytes=250000 ecn=65 (frames) seed=7

Examples:
  link delay=10ms,rate=100mbit,queue=165
      20 ms and 100 Mbit/s between two new namespaces, whose names are printed
  link delay=50ms,tx.rate=10mbit,tx.queue=40,tx.loss=1% left right
      namespaces that are there already, and a path that is worse one way
  link rate=100mbit,delay=250us,queue=700,ecn=65 --for 60s --json link.json --queue queue.csv
      what happened, and the length of the queue every millisecond

It runs until it is interrupted, the time --for is over or --stdin ends, and then tells what it did.";

/// Joins two network namespaces with an emulated path. Needs root.
///
/// Each end gets a device veth0, 10.77.0.1/24 and fd77::1/64 at the first, 10.77.0.2/24 and fd77::2/64 at the second,
/// without segmentation and checksum offload, so that the path carries what a wire would.
#[derive(Debug, Parser)]
#[command(after_help = EXAMPLES)]
struct Cli {
    /// What happens to frames
    path: ImpairConfig,
    /// Namespace at the first end; without both names two are made, which go with the program
    #[arg(requires = "b")]
    a: Option<String>,
    /// Namespace at the second end
    b: Option<String>,
    /// MTU of the devices, bytes
    #[arg(long, value_name = "BYTES", default_value_t = 1500)]
    mtu: u32,
    /// End after this time: 500ms, 60s, 2min, 1h, or a number of seconds
    #[arg(long = "for", alias = "seconds", value_name = "TIME", value_parser = duration)]
    length: Option<Duration>,
    /// End when standard input does
    #[arg(long)]
    stdin: bool,
    /// Write what happened as JSON
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,
    /// Write the queues' lengths every millisecond as CSV
    #[arg(long, value_name = "FILE")]
    queue: Option<PathBuf>,
}

fn duration(text: &str) -> Result<Duration, &'static str> {
    parse_duration(text, Some(Duration::from_secs(1)))
        .ok_or("give a time: 500ms, 60s, 2min, 1h, or a number of seconds")
}

fn main() -> ExitCode {
    match run(&Cli::parse()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("link: {error}");
            ExitCode::FAILURE
        }
    }
}

fn run(cli: &Cli) -> Result<(), Box<dyn Error>> {
    if !is_privileged() {
        return Err(
            "needs CAP_NET_ADMIN and CAP_SYS_ADMIN for network namespaces: run as root".into(),
        );
    }
    let path = match (&cli.a, &cli.b) {
        (Some(a), Some(b)) => Path::join(
            Namespace::existing(a)?,
            Namespace::existing(b)?,
            &cli.path,
            cli.mtu,
        )?,
        _ => Path::new("link", &cli.path, cli.mtu)?,
    };
    println!(
        "joined {} ({}) and {} ({}), seed {}",
        path.a.name(),
        VethPair::A_V4,
        path.b.name(),
        VethPair::B_V4,
        cli.path.seed
    );
    std::io::stdout().flush()?;
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    runtime.block_on(until_the_end(cli))?;

    let (to_b, to_a) = (
        path.emulator().queue(Direction::ToB),
        path.emulator().queue(Direction::ToA),
    );
    let records = path.emulator().records();
    print!("{records}");
    if let Some(file) = &cli.json {
        fs::write(file, serde_json::to_string_pretty(&records)? + "\n")?;
    }
    if let Some(file) = &cli.queue {
        let mut text = "ms,to_b,to_a\n".to_owned();
        for ms in 0..to_b.len().max(to_a.len()) {
            let at = |queue: &[u32]| queue.get(ms).copied().unwrap_or(0);
            text += &format!("{ms},{},{}\n", at(&to_b), at(&to_a));
        }
        fs::write(file, text)?;
    }
    Ok(())
}

async fn until_the_end(cli: &Cli) -> std::io::Result<()> {
    let mut interrupt = signal(SignalKind::interrupt())?;
    let mut terminate = signal(SignalKind::terminate())?;
    let over = async {
        match cli.length {
            Some(length) => tokio::time::sleep(length).await,
            None => std::future::pending().await,
        }
    };
    let input_ends = async {
        if cli.stdin {
            integration::peer::until_stdin_ends().await;
        } else {
            std::future::pending::<()>().await;
        }
    };
    tokio::select! {
        _ = interrupt.recv() => {}
        _ = terminate.recv() => {}
        () = over => {}
        () = input_ends => {}
    }
    Ok(())
}
