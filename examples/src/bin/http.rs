//! An axum server on `flextcp_net`.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use clap::Parser;
use flextcp_examples::args::{ServerArgs, duration, listen_address};
use flextcp_examples::listener::Stream;
use flextcp_examples::program::{self, Program, StartError};
use flextcp_examples::server::Handler;
use flextcp_examples::stop::Stop;
use flextcp_examples::tls::{self, Identity};
use flextcp_examples::web::{self, Options, ServerInfo};

const EXAMPLES: &str = "\
Examples:
  http                                     http://127.0.0.1:8080/
  http --listen [::]:80                    every address, IPv6 and IPv4
  http --tls                               HTTPS, certificate made at start
  http --tls --cert chain.pem --key key.pem
  http --kernel --threads 1                kernel sockets, one thread
  http --listen 10.0.0.1:80 --per-core     a thread and a listener for each NIC queue

Paths:
  /            a page that says what is running
  /echo        POST: the body, streamed back
  /bytes/N     GET, HEAD: n bytes, always the same ones
  /upload      PUT, POST: size and SHA-256 of the body, as JSON
  /stats       the counters of the process and of this connection, as JSON
  /metrics     the counters of the process, as Prometheus reads them
  /connections its listeners and connections, a line each

HTTP/1.1 and HTTP/2; without TLS, HTTP/2 by prior knowledge.
RUST_LOG sets what is logged to standard error, like RUST_LOG=debug.";

/// An HTTP server over FlexTCP.
#[derive(Debug, Parser)]
#[command(name = "http", version, after_help = EXAMPLES)]
struct Args {
    /// Address to listen on; repeatable
    #[arg(long, value_name = "ADDRESS:PORT", value_parser = listen_address, default_value = "127.0.0.1:8080")]
    listen: Vec<SocketAddr>,

    /// Serve HTTPS; without --cert, with a certificate made at start
    #[arg(long)]
    tls: bool,

    /// Certificate chain, PEM
    #[arg(long, value_name = "FILE", requires_all = ["tls", "key"])]
    cert: Option<PathBuf>,

    /// Private key of the certificate, PEM
    #[arg(long, value_name = "FILE", requires_all = ["tls", "cert"])]
    key: Option<PathBuf>,

    /// Close connections on which no request arrives for this long: 30s, 5min, or seconds; 0 for never
    #[arg(long, value_name = "TIME", default_value = "0", value_parser = duration)]
    idle_timeout: Duration,

    #[command(flatten)]
    server: ServerArgs,
}

fn main() -> ExitCode {
    let args = Args::parse();
    let program = Program {
        name: "http",
        scheme: if args.tls { "https://" } else { "http://" },
        listen: &args.listen,
        args: &args.server,
    };
    program::run(program, |stop| handler(&args, stop))
}

/// What serves a connection.
fn handler(args: &Args, stop: Stop) -> Result<impl Handler + use<>, StartError> {
    let identity = match (&args.cert, &args.key) {
        (Some(cert), Some(key)) => Identity::Files {
            cert: cert.clone(),
            key: key.clone(),
        },
        _ => Identity::SelfSigned(args.listen.clone()),
    };
    let options = Options {
        tls: if args.tls {
            Some(tls::acceptor(&identity, &["h2", "http/1.1"])?)
        } else {
            None
        },
        idle: Some(args.idle_timeout).filter(|time| !time.is_zero()),
    };
    let router = web::router(ServerInfo::new(args.server.transport(), stop.clone()));
    Ok(move |stream: Stream| web::serve(stream, router.clone(), options.clone(), stop.clone()))
}
