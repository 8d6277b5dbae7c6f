//! From `main` to a running server: logging, runtime, signals, exit code.

use std::error::Error;
use std::future::Future;
use std::io::IsTerminal;
use std::process::ExitCode;

use tokio::runtime::{Builder, Runtime};
use tokio::signal::unix::{Signal, SignalKind, signal};
use tracing::info;
use tracing_subscriber::EnvFilter;

use crate::stop::Stop;

/// What a server's start may fail with; its text is for the user.
pub type StartError = Box<dyn Error + Send + Sync>;

const DEFAULT_LOG: &str =
    "warn,flextcp_nic=info,flextcp_rt=info,flextcp_net=info,flextcp_examples=info";

/// Runs `server` on a runtime with `threads` threads until it ends by itself or by the stop that
/// SIGINT or SIGTERM ask for; a second signal ends the process at once.
///
/// Logs go to standard error, filtered by `RUST_LOG`. An error is printed there too, and gives
/// exit code 1.
pub fn run<F>(name: &str, threads: usize, server: impl FnOnce(Stop) -> F) -> ExitCode
where
    F: Future<Output = Result<(), StartError>>,
{
    let filter = EnvFilter::try_from_default_env().unwrap_or_else(|_| EnvFilter::new(DEFAULT_LOG));
    tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(std::io::stderr)
        .with_ansi(std::io::stderr().is_terminal())
        .init();

    let result = runtime(threads).and_then(|runtime| {
        runtime.block_on(async {
            let stop = Stop::new();
            let signals = (
                signal(SignalKind::interrupt())?,
                signal(SignalKind::terminate())?,
            );
            tokio::spawn(watch_signals(signals, stop.clone()));
            server(stop).await
        })
    });
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("{name}: {error}");
            ExitCode::FAILURE
        }
    }
}

fn runtime(threads: usize) -> Result<Runtime, StartError> {
    let mut builder = match threads {
        1 => Builder::new_current_thread(),
        _ => Builder::new_multi_thread(),
    };
    if threads > 1 {
        builder.worker_threads(threads);
    }
    builder
        .enable_all()
        .build()
        .map_err(|error| format!("cannot start the runtime with {threads} threads: {error}").into())
}

async fn watch_signals((mut interrupt, mut terminate): (Signal, Signal), stop: Stop) {
    let mut next = async || {
        tokio::select! {
            _ = interrupt.recv() => "SIGINT",
            _ = terminate.recv() => "SIGTERM",
        }
    };
    let signal = next().await;
    info!(
        signal,
        connections = stop.open(),
        "stopping; again to stop at once"
    );
    stop.request();
    next().await;
    std::process::exit(1);
}
