//! The loading part.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use hdrhistogram::Histogram;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::task::JoinSet;

use super::{
    Load, Outcome, Request, RequestKind, Work, receive_hashed, send_pattern, until_stdin_ends,
    until_told,
};
use crate::stack::Stack;

const MESSAGE: usize = 64;
const CHUNK: usize = 64 << 10;
/// Most connections of one churn measurement: below the ephemeral ports, which TIME_WAIT keeps.
const CHURN_LIMIT: u64 = 20_000;

/// Runs one load to its end.
pub(super) async fn run<S: Stack>(args: &Load) -> io::Result<Outcome> {
    match args.work {
        Work::Rpc => rpc::<S>(args).await,
        Work::Upload => upload::<S>(args).await,
        Work::Download => download::<S>(args).await,
        Work::Churn => churn::<S>(args).await,
        Work::Exchange => exchange::<S>(args).await,
        Work::Hold => hold::<S>(args).await,
    }
}

fn request(kind: RequestKind) -> [u8; Request::LEN] {
    Request {
        kind,
        len: 0,
        seed: 0,
    }
    .encode()
}

/// Times in nanoseconds, to a tenth of a percent.
fn histogram() -> io::Result<Histogram<u64>> {
    Histogram::new_with_bounds(100, 60_000_000_000, 3).map_err(io::Error::other)
}

fn nanos(time: Duration) -> u64 {
    u64::try_from(time.as_nanos()).unwrap_or(u64::MAX)
}

fn outcome(times: &Histogram<u64>, seconds: f64) -> Outcome {
    let at = |quantile| times.value_at_quantile(quantile) as f64 / 1000.0;
    Outcome {
        requests: times.len(),
        bytes: times.len() * MESSAGE as u64,
        seconds,
        p50: at(0.5),
        p99: at(0.99),
        p999: at(0.999),
    }
}

async fn join_all(mut tasks: JoinSet<io::Result<Histogram<u64>>>) -> io::Result<Histogram<u64>> {
    let mut all = histogram()?;
    while let Some(times) = tasks.join_next().await {
        all.add(times??).map_err(io::Error::other)?;
    }
    Ok(all)
}

async fn rpc<S: Stack>(args: &Load) -> io::Result<Outcome> {
    let mut streams = Vec::with_capacity(args.connections);
    for _ in 0..args.connections {
        let mut stream = S::connect(args.server, args.congestion.as_deref()).await?;
        stream.write_all(&request(RequestKind::Echo)).await?;
        streams.push(stream);
    }
    let measure = Duration::from_millis(args.millis);
    let start = Instant::now() + measure / 5;
    let end = start + measure;
    let mut tasks = JoinSet::new();
    for mut stream in streams {
        tasks.spawn(async move {
            let mut times = histogram()?;
            let mut message = [0x42; MESSAGE];
            loop {
                let sent = Instant::now();
                if sent >= end {
                    return Ok(times);
                }
                stream.write_all(&message).await?;
                stream.read_exact(&mut message).await?;
                if sent >= start {
                    times.saturating_record(nanos(sent.elapsed()));
                }
            }
        });
    }
    let times = join_all(tasks).await?;
    Ok(outcome(&times, measure.as_secs_f64()))
}

/// A connection of one request.
async fn open_use_close<S: Stack>(server: SocketAddr, congestion: Option<&str>) -> io::Result<()> {
    let mut first = [0x42; Request::LEN + MESSAGE];
    first[..Request::LEN].copy_from_slice(&request(RequestKind::Echo));
    let mut answer = [0; MESSAGE];
    let mut stream = S::connect(server, congestion).await?;
    stream.write_all(&first).await?;
    stream.read_exact(&mut answer).await?;
    stream.shutdown().await?;
    // Until the server closed too: a connection counts when it is over.
    if stream.read(&mut answer).await? != 0 {
        return Err(io::Error::other("more bytes than were asked for"));
    }
    Ok(())
}

async fn churn<S: Stack>(args: &Load) -> io::Result<Outcome> {
    // What a process does once, at its first connection, is no part of the measurement.
    open_use_close::<S>(args.server, args.congestion.as_deref()).await?;
    let measure = Duration::from_millis(args.millis);
    let start = Instant::now();
    let end = start + measure;
    let used = Arc::new(AtomicU64::new(0));
    let mut tasks = JoinSet::new();
    for _ in 0..args.connections {
        let used = Arc::clone(&used);
        let (server, congestion) = (args.server, args.congestion.clone());
        tasks.spawn(async move {
            let mut times = histogram()?;
            while Instant::now() < end && used.fetch_add(1, Ordering::Relaxed) < CHURN_LIMIT {
                let opened = Instant::now();
                open_use_close::<S>(server, congestion.as_deref()).await?;
                times.saturating_record(nanos(opened.elapsed()));
            }
            Ok(times)
        });
    }
    let times = join_all(tasks).await?;
    Ok(outcome(&times, start.elapsed().as_secs_f64()))
}

async fn upload<S: Stack>(args: &Load) -> io::Result<Outcome> {
    let measure = Duration::from_millis(args.millis);
    let mut streams = Vec::with_capacity(args.connections);
    for _ in 0..args.connections {
        streams.push(S::connect(args.server, args.congestion.as_deref()).await?);
    }
    let start = Instant::now();
    let mut tasks = JoinSet::new();
    for mut stream in streams {
        tasks.spawn(async move {
            stream.write_all(&request(RequestKind::Sink)).await?;
            let buffer = vec![0x5a; CHUNK];
            while start.elapsed() < measure {
                stream.write_all(&buffer).await?;
            }
            stream.shutdown().await?;
            stream.read_u64_le().await
        });
    }
    sum(tasks, start).await
}

async fn download<S: Stack>(args: &Load) -> io::Result<Outcome> {
    let measure = Duration::from_millis(args.millis);
    // What a process does once, at its first connection, is no part of a transfer.
    let mut streams = Vec::with_capacity(args.connections);
    for _ in 0..args.connections {
        streams.push(S::connect(args.server, args.congestion.as_deref()).await?);
    }
    if args.wait {
        until_told().await;
    }
    let start = Instant::now();
    let mut tasks = JoinSet::new();
    for mut stream in streams {
        tasks.spawn(async move {
            stream.write_all(&request(RequestKind::Source)).await?;
            let mut buffer = vec![0; CHUNK];
            let mut count = 0;
            while start.elapsed() < measure {
                let n = stream.read(&mut buffer).await?;
                if n == 0 {
                    return Err(io::ErrorKind::UnexpectedEof.into());
                }
                count += n as u64;
            }
            S::reset_on_close(&stream)?;
            Ok(count)
        });
    }
    sum(tasks, start).await
}

async fn sum(mut tasks: JoinSet<io::Result<u64>>, start: Instant) -> io::Result<Outcome> {
    let mut bytes = 0;
    while let Some(count) = tasks.join_next().await {
        bytes += count??;
    }
    Ok(Outcome {
        bytes,
        seconds: start.elapsed().as_secs_f64(),
        ..Outcome::default()
    })
}

async fn exchange<S: Stack>(args: &Load) -> io::Result<Outcome> {
    let start = Instant::now();
    let mut tasks = JoinSet::new();
    for connection in 0..args.connections {
        let (server, len) = (args.server, args.bytes);
        let congestion = args.congestion.clone();
        tasks.spawn(async move {
            let seed = 0x9e37_79b9_7f4a_7c15_u64.wrapping_mul(connection as u64 + 1);
            let mut stream = S::connect(server, congestion.as_deref()).await?;
            let request = Request {
                kind: RequestKind::Exchange,
                len,
                seed,
            };
            stream.write_all(&request.encode()).await?;
            let (mut from, mut to) = tokio::io::split(stream);
            let (received, sent) = tokio::try_join!(
                receive_hashed(&mut from, len),
                send_pattern(&mut to, len, seed)
            )?;
            let mut theirs = [0; 64];
            from.read_exact(&mut theirs).await?;
            if theirs[..32] != sent || theirs[32..] != received {
                return Err(io::Error::new(
                    io::ErrorKind::InvalidData,
                    format!("connection {connection}: the hashes differ"),
                ));
            }
            to.shutdown().await?;
            Ok(len)
        });
    }
    sum(tasks, start).await
}

async fn hold<S: Stack>(args: &Load) -> io::Result<Outcome> {
    let start = Instant::now();
    let mut streams = Vec::with_capacity(args.connections);
    let mut answer = [0; MESSAGE];
    for _ in 0..args.connections {
        let mut stream = S::connect(args.server, args.congestion.as_deref()).await?;
        stream.write_all(&request(RequestKind::Echo)).await?;
        stream.write_all(&[0x42; MESSAGE]).await?;
        stream.read_exact(&mut answer).await?;
        streams.push(stream);
    }
    println!("holding {}", streams.len());
    until_stdin_ends().await;
    // All of them must still work.
    for stream in &mut streams {
        stream.write_all(&[0x43; MESSAGE]).await?;
        stream.read_exact(&mut answer).await?;
    }
    Ok(Outcome {
        requests: 2 * streams.len() as u64,
        seconds: start.elapsed().as_secs_f64(),
        ..Outcome::default()
    })
}
