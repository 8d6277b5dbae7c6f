//! An echo server on `flextcp_net`, and three other simple servers for measurements.

use std::net::SocketAddr;
use std::num::NonZeroUsize;
use std::process::ExitCode;

use clap::{Parser, ValueEnum};
use flextcp_examples::args::{ServerArgs, listen_address};
use flextcp_examples::echo::{self, Mode};
use flextcp_examples::listener::Stream;
use flextcp_examples::program::{self, Program};
use flextcp_examples::server::Handler;
use flextcp_examples::stop::Stop;
use tracing::debug;

const EXAMPLES: &str = "\
Examples:
  echo                                        127.0.0.1:7777, every byte back
  echo --listen [::]:7                        every address, IPv6 and IPv4
  echo --mode sink                            counts: nc -N 127.0.0.1 7777 < FILE
  echo --mode source --bytes 1000000          sends a million bytes to everyone
  echo --mode rpc --request 64 --response 1024
  echo --kernel --threads 1                   kernel sockets, one thread
  echo --listen 10.0.0.1:7777 --per-core      a thread and a listener for each NIC queue

RUST_LOG sets what is logged to standard error, like RUST_LOG=debug.";

/// An echo server over FlexTCP.
#[derive(Debug, Parser)]
#[command(name = "echo", version, after_help = EXAMPLES)]
struct Args {
    /// Address to listen on; repeatable
    #[arg(long, value_name = "ADDRESS:PORT", value_parser = listen_address, default_value = "127.0.0.1:7777")]
    listen: Vec<SocketAddr>,

    /// What to do with a connection
    #[arg(long, value_enum, default_value_t = ModeName::Echo)]
    mode: ModeName,

    /// With --mode source: how many bytes to send, then close (without: no end)
    #[arg(long, value_name = "N")]
    bytes: Option<u64>,

    /// With --mode rpc: bytes in a request
    #[arg(long, value_name = "N", default_value = "64")]
    request: NonZeroUsize,

    /// With --mode rpc: bytes in a response
    #[arg(long, value_name = "N", default_value_t = 64)]
    response: usize,

    #[command(flatten)]
    server: ServerArgs,
}

#[derive(Debug, Clone, Copy, ValueEnum)]
enum ModeName {
    /// Send back what arrives
    Echo,
    /// Discard what arrives; at its end, answer with the number of bytes
    Sink,
    /// Send bytes, always the same ones
    Source,
    /// Answer every --request bytes with --response bytes
    Rpc,
}

fn main() -> ExitCode {
    let args = Args::parse();
    let program = Program {
        name: "echo",
        scheme: "",
        listen: &args.listen,
        args: &args.server,
    };
    program::run(program, |stop| Ok(handler(&args, stop)))
}

/// What serves a connection.
fn handler(args: &Args, stop: Stop) -> impl Handler + use<> {
    let mode = match args.mode {
        ModeName::Echo => Mode::Echo,
        ModeName::Sink => Mode::Sink,
        ModeName::Source => Mode::Source { bytes: args.bytes },
        ModeName::Rpc => Mode::Rpc {
            request: args.request,
            response: args.response,
        },
    };
    move |mut stream: Stream| {
        let stop = stop.clone();
        async move {
            if let Err(error) = echo::serve(&mut stream, mode, &stop).await {
                debug!(peer = %stream.peer_addr(), %error, "connection ended with an error");
            }
        }
    }
}
