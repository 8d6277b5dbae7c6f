//! From `main` to a running server: logging, runtime, signals, exit code.

use std::error::Error;
use std::io::IsTerminal;
use std::net::SocketAddr;
use std::num::NonZeroUsize;
use std::process::ExitCode;
use std::sync::atomic::{AtomicBool, Ordering};

use flextcp_net::PerCore;
use tokio::runtime::{Builder, Runtime};
use tokio::signal::unix::{Signal, SignalKind, signal};
use tracing::info;
use tracing_subscriber::EnvFilter;

use crate::args::ServerArgs;
use crate::listener::BindError;
use crate::server::{Handler, Server};
use crate::stop::Stop;

/// What a server's start may fail with; its text is for the user.
pub type StartError = Box<dyn Error + Send + Sync>;

const DEFAULT_LOG: &str =
    "warn,flextcp_nic=info,flextcp_rt=info,flextcp_net=info,flextcp_examples=info";

/// What to serve, and how.
#[derive(Debug, Clone, Copy)]
pub struct Program<'a> {
    /// Name, for messages.
    pub name: &'a str,
    /// What its addresses are prefixed with in the first line: `http://`.
    pub scheme: &'a str,
    /// Where it listens.
    pub listen: &'a [SocketAddr],
    /// What every server has.
    pub args: &'a ServerArgs,
}

/// Serves every connection with what `handler` makes, until it ends by itself or by the stop that SIGINT or SIGTERM ask
/// for; a second signal ends the process at once.
///
/// Logs go to standard error, filtered by `RUST_LOG`. An error is printed there too, and gives
/// exit code 1.
pub fn run<H: Handler>(
    program: Program<'_>,
    handler: impl FnOnce(Stop) -> Result<H, StartError>,
) -> ExitCode {
    let filter = EnvFilter::try_from_default_env().unwrap_or_else(|_| EnvFilter::new(DEFAULT_LOG));
    tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(std::io::stderr)
        .with_ansi(std::io::stderr().is_terminal())
        // It would say on stderr that stderr is closed, and panic.
        .log_internal_errors(false)
        .init();

    let stop = Stop::new();
    let result = handler(stop.clone()).and_then(|handler| {
        if program.args.per_core {
            program.run_per_core(&stop, &handler)
        } else {
            runtime(program.args.threads)?.block_on(program.run(stop, handler))
        }
    });
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("{}: {error}", program.name);
            ExitCode::FAILURE
        }
    }
}

impl Program<'_> {
    /// One runtime for all connections.
    async fn run(self, stop: Stop, handler: impl Handler) -> Result<(), StartError> {
        watch_signals(&stop)?;
        let server = Server::bind(self.args.transport(), self.listen).await?;
        server.announce(self.name, self.scheme);
        server.run(stop, self.args.drain, handler).await;
        Ok(())
    }

    /// A runtime for each core.
    fn run_per_core(self, stop: &Stop, handler: &impl Handler) -> Result<(), StartError> {
        let &[address] = self.listen else {
            return Err("--per-core serves one address: give one --listen".into());
        };
        let mut per_core = PerCore::new();
        if let Some(threads) = NonZeroUsize::new(self.args.threads) {
            per_core = per_core.threads(threads);
        }
        let first = AtomicBool::new(true);
        let served = per_core.run(address, |listener| {
            let first = first.swap(false, Ordering::Relaxed);
            async move {
                let server = Server::of(listener);
                if first {
                    watch_signals(stop)?;
                    server.announce(self.name, self.scheme);
                }
                server
                    .run(stop.clone(), self.args.drain, handler.clone())
                    .await;
                Ok(())
            }
        });
        served
            .map(|_: Vec<()>| ())
            .map_err(|error| BindError::new(address, error).into())
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

/// Asks for the stop at the first signal, in a task of its own.
fn watch_signals(stop: &Stop) -> std::io::Result<()> {
    let signals = (
        signal(SignalKind::interrupt())?,
        signal(SignalKind::terminate())?,
    );
    tokio::spawn(until_signalled(signals, stop.clone()));
    Ok(())
}

async fn until_signalled((mut interrupt, mut terminate): (Signal, Signal), stop: Stop) {
    let mut next = async || {
        tokio::select! {
            _ = interrupt.recv() => "SIGINT",
            _ = terminate.recv() => "SIGTERM",
        }
    };
    let signal = next().await;
    let connections = stop.open();
    // Before it is said: whoever reads the log may be gone.
    stop.request();
    info!(signal, connections, "stopping; again to stop at once");
    next().await;
    std::process::exit(1);
}
