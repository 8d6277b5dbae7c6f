//! The servers and loads that benchmark and tests run in processes of their own.
//!
//! One program plays both parts on either stack. A connection begins with a [`Request`]; the server prints
//! `listening on ADDRESS` and ends when its standard input does, a load prints its [`Outcome`] as one JSON line.

pub mod load;
pub mod script;
pub mod serve;

use std::io;
use std::net::SocketAddr;

use clap::{Args, Subcommand};
use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};

use crate::stack::{Flex, Kernel, Stack, StackKind};

/// What a peer process does.
#[derive(Debug, Clone, Subcommand)]
pub enum Part {
    /// Serves every kind of request until its standard input ends
    Serve(Serve),
    /// Puts load on a server
    Load(Load),
    /// Does with many connections what standard input says, step by step
    Script(Script),
}

/// Options of a scripted peer.
#[derive(Debug, Clone, Args)]
pub struct Script {
    /// Whose sockets
    #[arg(long, value_enum)]
    pub stack: StackKind,
}

/// Options of a server.
#[derive(Debug, Clone, Args)]
pub struct Serve {
    /// Whose sockets
    #[arg(long, value_enum)]
    pub stack: StackKind,
    /// Address to listen on
    #[arg(long)]
    pub listen: SocketAddr,
    /// Serve with one thread per core
    #[arg(long)]
    pub per_core: bool,
    /// Core to stay on
    #[arg(long)]
    pub cpu: Option<usize>,
    /// Congestion control of the connections; the stack's default without
    #[arg(long)]
    pub congestion: Option<String>,
}

/// Options of a load.
#[derive(Debug, Clone, Args)]
pub struct Load {
    /// Whose sockets
    #[arg(long, value_enum)]
    pub stack: StackKind,
    /// The server
    #[arg(long)]
    pub server: SocketAddr,
    /// Core to stay on
    #[arg(long)]
    pub cpu: Option<usize>,
    /// Congestion control of the connections; the stack's default without
    #[arg(long)]
    pub congestion: Option<String>,
    /// Connections at once
    #[arg(long, default_value_t = 1)]
    pub connections: usize,
    /// How long to measure, milliseconds
    #[arg(long, default_value_t = 1000)]
    pub millis: u64,
    /// Say when connected, and begin at a line on standard input (download)
    #[arg(long)]
    pub wait: bool,
    /// Bytes each way (exchange)
    #[arg(long, default_value_t = 1 << 20)]
    pub bytes: u64,
    /// What to do
    #[arg(long, value_enum)]
    pub work: Work,
}

/// Kinds of load.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Work {
    /// 64-byte requests, one outstanding on each connection
    Rpc,
    /// One direction, as fast as it goes, to the server
    Upload,
    /// One direction, as fast as it goes, from the server
    Download,
    /// Connections opened, used for one 64-byte request and closed
    Churn,
    /// Fixed bytes in both directions at once, compared by SHA-256
    Exchange,
    /// Connections opened and held until standard input ends
    Hold,
}

impl Work {
    /// Its name on the command line.
    pub fn name(self) -> &'static str {
        match self {
            Self::Rpc => "rpc",
            Self::Upload => "upload",
            Self::Download => "download",
            Self::Churn => "churn",
            Self::Exchange => "exchange",
            Self::Hold => "hold",
        }
    }
}

/// What a load saw.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub struct Outcome {
    /// Requests answered, or connections used.
    pub requests: u64,
    /// Payload bytes moved, one direction.
    pub bytes: u64,
    /// Time measured, seconds.
    pub seconds: f64,
    /// Median time of a request, microseconds.
    pub p50: f64,
    /// 99th percentile, microseconds.
    pub p99: f64,
    /// 99.9th percentile, microseconds.
    pub p999: f64,
}

/// Plays a part to its end on a current-thread runtime, the same for both stacks.
///
/// # Errors
/// What the sockets gave; for an exchange `InvalidData` when a hash differs.
pub fn run(part: &Part) -> io::Result<()> {
    let cpu = match part {
        Part::Serve(serve) => serve.cpu,
        Part::Load(load) => load.cpu,
        Part::Script(_) => None,
    };
    if let Some(cpu) = cpu {
        let mut set = rustix::thread::CpuSet::new();
        set.set(cpu);
        rustix::thread::sched_setaffinity(None, &set)?;
    }
    if let Part::Serve(args) = part
        && args.per_core
    {
        return serve::run_per_core(args);
    }
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    runtime.block_on(async {
        match part {
            Part::Serve(args) => match args.stack {
                StackKind::Flex => serve::run::<Flex>(args).await,
                StackKind::Kernel => serve::run::<Kernel>(args).await,
            },
            Part::Script(args) => match args.stack {
                StackKind::Flex => script::run::<Flex>().await,
                StackKind::Kernel => script::run::<Kernel>().await,
            },
            Part::Load(args) => {
                let outcome = match args.stack {
                    StackKind::Flex => load::run::<Flex>(args).await,
                    StackKind::Kernel => load::run::<Kernel>(args).await,
                }?;
                println!("{}", serde_json::to_string(&outcome)?);
                Ok(())
            }
        }
    })
}

/// Ends when standard input does: whoever started this process is done with it, or gone.
pub async fn until_stdin_ends() {
    let (ended, wait) = tokio::sync::oneshot::channel::<()>();
    std::thread::spawn(move || {
        // An error ends the input as well.
        let _ = io::copy(&mut io::stdin().lock(), &mut io::sink());
        drop(ended);
    });
    let _ = wait.await;
}

/// What a load says that waits to be told to begin.
pub const CONNECTED: &str = "connected";

/// Says [`CONNECTED`] and waits for a line on standard input, or its end.
async fn until_told() {
    println!("{CONNECTED}");
    let (told, wait) = tokio::sync::oneshot::channel::<()>();
    std::thread::spawn(move || {
        // An error tells as well.
        let _ = io::stdin().read_line(&mut String::new());
        drop(told);
    });
    let _ = wait.await;
}

/// The first 17 bytes of a connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Request {
    /// What is asked for.
    pub kind: RequestKind,
    /// Bytes each way, of an exchange.
    pub len: u64,
    /// Seed of the client's bytes; the server's are those of its complement.
    pub seed: u64,
}

/// Kinds of requests.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub enum RequestKind {
    /// Send back what comes.
    Echo = b'E',
    /// Count what comes and answer with the count at its end.
    Sink = b'S',
    /// Send until the connection breaks.
    Source = b'D',
    /// Send and receive `len` bytes, then answer with the hashes of both.
    Exchange = b'X',
}

impl Request {
    /// Its size on the wire, bytes.
    pub const LEN: usize = 17;

    /// As bytes.
    pub fn encode(self) -> [u8; Self::LEN] {
        let mut bytes = [self.kind as u8; Self::LEN];
        bytes[1..9].copy_from_slice(&self.len.to_le_bytes());
        bytes[9..].copy_from_slice(&self.seed.to_le_bytes());
        bytes
    }

    /// Reads one; `None` when the connection ends first.
    ///
    /// # Errors
    /// `InvalidData` for an unknown kind, or what reading gives.
    pub async fn read(stream: &mut (impl AsyncRead + Unpin)) -> io::Result<Option<Self>> {
        let kind = match stream.read_u8().await {
            Ok(kind) => kind,
            Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => return Ok(None),
            Err(error) => return Err(error),
        };
        let kind = match kind {
            b'E' => RequestKind::Echo,
            b'S' => RequestKind::Sink,
            b'D' => RequestKind::Source,
            b'X' => RequestKind::Exchange,
            _ => {
                let text = format!("no request begins with byte {kind:#x}");
                return Err(io::Error::new(io::ErrorKind::InvalidData, text));
            }
        };
        let len = stream.read_u64_le().await?;
        let seed = stream.read_u64_le().await?;
        Ok(Some(Self { kind, len, seed }))
    }
}

/// SHA-256 of what was moved.
pub type Hash = [u8; 32];

/// Sends `len` bytes of the sequence that `seed` gives, and hashes them.
async fn send_pattern(to: &mut (impl AsyncWrite + Unpin), len: u64, seed: u64) -> io::Result<Hash> {
    // xorshift64; zero is its fixed point.
    let mut state = seed | 1;
    let mut hash = Sha256::new();
    let mut chunk = vec![0; 64 << 10];
    let mut left = len;
    while left > 0 {
        for word in chunk.chunks_exact_mut(8) {
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            word.copy_from_slice(&state.to_le_bytes());
        }
        let n = usize::try_from(left).unwrap_or(usize::MAX).min(chunk.len());
        hash.update(&chunk[..n]);
        to.write_all(&chunk[..n]).await?;
        left -= n as u64;
    }
    to.flush().await?;
    Ok(hash.finalize().into())
}

/// Receives `len` bytes and hashes them.
async fn receive_hashed(from: &mut (impl AsyncRead + Unpin), len: u64) -> io::Result<Hash> {
    let mut hash = Sha256::new();
    let mut chunk = vec![0; 64 << 10];
    let mut left = len;
    while left > 0 {
        let limit = usize::try_from(left).unwrap_or(usize::MAX).min(chunk.len());
        let n = from.read(&mut chunk[..limit]).await?;
        if n == 0 {
            return Err(io::Error::new(
                io::ErrorKind::UnexpectedEof,
                format!("{left} of {len} bytes are missing"),
            ));
        }
        hash.update(&chunk[..n]);
        left -= n as u64;
    }
    Ok(hash.finalize().into())
}

/// Binds, serves in the background and returns the address: a server for tests in this process.
///
/// # Errors
/// What binding gives.
pub fn spawn_server<S: Stack>(listen: SocketAddr) -> io::Result<SocketAddr> {
    let listener = S::bind(listen, None)?;
    let address = S::local_addr(&listener)?;
    tokio::spawn(serve::accept_all::<S>(listener));
    Ok(address)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::Ipv4Addr;

    #[tokio::test]
    async fn every_load_runs_against_the_server() {
        let server = spawn_server::<Kernel>((Ipv4Addr::LOCALHOST, 0).into()).unwrap();
        for work in [
            Work::Rpc,
            Work::Upload,
            Work::Download,
            Work::Churn,
            Work::Exchange,
        ] {
            let load = Load {
                stack: StackKind::Kernel,
                server,
                cpu: None,
                congestion: None,
                connections: 2,
                millis: 30,
                wait: false,
                bytes: 100_000,
                work,
            };
            let outcome = load::run::<Kernel>(&load).await.unwrap();
            assert!(
                outcome.requests + outcome.bytes > 0,
                "{work:?} moved nothing: {outcome:?}"
            );
            assert!(outcome.seconds > 0.0);
        }
    }

    #[tokio::test]
    async fn requests_survive_the_wire() {
        let request = Request {
            kind: RequestKind::Exchange,
            len: 7,
            seed: 9,
        };
        let bytes = request.encode();
        assert_eq!(Request::read(&mut &bytes[..]).await.unwrap(), Some(request));
        assert_eq!(Request::read(&mut &bytes[..0]).await.unwrap(), None);
        assert!(Request::read(&mut &b"?"[..]).await.is_err());
    }
}
