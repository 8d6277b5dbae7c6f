//! A memcached on `flextcp_net`.

use std::net::SocketAddr;
use std::process::ExitCode;
use std::sync::Arc;

use clap::Parser;
use flextcp_examples::args::{ServerArgs, listen_address};
use flextcp_examples::listener::Stream;
use flextcp_examples::memcache::{self, ServerInfo, Settings, Store};
use flextcp_examples::program::{self, Program, StartError};
use flextcp_examples::server::Handler;
use flextcp_examples::stop::Stop;
use tracing::debug;

const EXAMPLES: &str = "\
Examples:
  memcached                                127.0.0.1:11211, 64 MB
  memcached --listen [::]:11211            every address, IPv6 and IPv4
  memcached -m 1024 -I 8                   1 GB, values of up to 8 MB
  memcached --kernel --threads 1           kernel sockets, one thread
  memcached --listen 10.0.0.1:11211 --per-core
                                           a thread and a listener for each NIC queue

The text protocol and the meta commands, as memcached 1.6 speaks them over TCP:
  printf 'set k 0 0 5\\r\\nhello\\r\\nget k\\r\\nstats\\r\\nquit\\r\\n' | nc 127.0.0.1 11211

RUST_LOG sets what is logged to standard error, like RUST_LOG=debug.";

/// A memcached over FlexTCP.
#[derive(Debug, Parser)]
#[command(name = "memcached", version, after_help = EXAMPLES)]
struct Args {
    /// Address to listen on; repeatable
    #[arg(long, value_name = "ADDRESS:PORT", value_parser = listen_address, default_value = "127.0.0.1:11211")]
    listen: Vec<SocketAddr>,

    /// Memory for items, in megabytes; beyond it the least recently used ones go
    #[arg(short, long, value_name = "MB", default_value_t = 64, value_parser = clap::value_parser!(u32).range(8..))]
    memory_limit: u32,

    /// Largest value, in megabytes
    #[arg(short = 'I', long, value_name = "MB", default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..=1024))]
    max_item_size: u32,

    #[command(flatten)]
    server: ServerArgs,
}

fn main() -> ExitCode {
    let args = Args::parse();
    let program = Program {
        name: "memcached",
        scheme: "",
        listen: &args.listen,
        args: &args.server,
    };
    program::run(program, |stop| handler(&args, stop))
}

/// What serves a connection.
fn handler(args: &Args, stop: Stop) -> Result<impl Handler + use<>, StartError> {
    let settings = Settings {
        memory: megabytes(args.memory_limit),
        item_max: megabytes(args.max_item_size),
    };
    if settings.item_max > settings.memory / 2 {
        return Err(
            "-I allows values larger than half of the memory that -m allows: raise -m or lower -I"
                .into(),
        );
    }
    let store = Arc::new(Store::new(settings));
    let listen: Vec<String> = args.listen.iter().map(ToString::to_string).collect();
    let threads = match args.server.threads {
        0 => std::thread::available_parallelism().map_or(1, usize::from),
        threads => threads,
    };
    let info = ServerInfo::new(
        args.server.transport(),
        threads,
        listen.join(","),
        stop.clone(),
    );
    let info = Arc::new(info);
    Ok(move |mut stream: Stream| {
        let (store, info) = (Arc::clone(&store), Arc::clone(&info));
        let stop = stop.clone();
        async move {
            if let Err(error) = memcache::serve(&mut stream, store, info, &stop).await {
                debug!(peer = %stream.peer_addr(), %error, "connection ended with an error");
            }
        }
    })
}

fn megabytes(count: u32) -> usize {
    (count as usize).saturating_mul(1 << 20)
}
