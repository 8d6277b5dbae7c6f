//! The connection handlers of the `echo` example.

use std::future::{Future, poll_fn};
use std::io;
use std::num::NonZeroUsize;
use std::pin::{Pin, pin};
use std::task::Poll;

use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt};
use tokio::time::timeout;

use crate::pattern;
use crate::scratch;
use crate::server::QUIET;
use crate::stop::Stop;

/// What the server does with a connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mode {
    /// Sends back what arrives.
    Echo,
    /// Discards what arrives; at its end, answers with the number of bytes in decimal.
    Sink,
    /// Sends the first `bytes` bytes of [`pattern`], or without end.
    Source {
        /// How many; endless without.
        bytes: Option<u64>,
    },
    /// Sends `response` bytes for every `request` bytes that arrive.
    Rpc {
        /// Bytes that make one request.
        request: NonZeroUsize,
        /// Bytes that answer one request.
        response: usize,
    },
}

/// Serves one connection until the peer ends it, or until `stop` is asked for and nothing has
/// arrived for a moment.
///
/// # Errors
///
/// What the stream's reads and writes return.
pub async fn serve<S>(stream: &mut S, mode: Mode, stop: &Stop) -> io::Result<()>
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    match mode {
        Mode::Echo => echo(stream, stop).await?,
        Mode::Sink => sink(stream, stop).await?,
        Mode::Source { bytes } => source(stream, bytes, stop).await?,
        Mode::Rpc { request, response } => rpc(stream, request, response, stop).await?,
    }
    stream.shutdown().await
}

/// Runs one step, which waits for input; after a stop, only for a moment more.
async fn step<T>(
    step: impl Future<Output = io::Result<T>>,
    watch: &mut crate::stop::StopWatch,
    end: T,
) -> io::Result<T> {
    let mut step = pin!(step);
    match watch.race(&mut step).await {
        Some(result) => result,
        None => timeout(QUIET, step).await.unwrap_or(Ok(end)),
    }
}

enum Echoed {
    All,
    Rest(Vec<u8>),
    End,
}

async fn echo<S>(stream: &mut S, stop: &Stop) -> io::Result<()>
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    let mut watch = stop.watch();
    loop {
        let read_and_write = poll_fn(|cx| {
            scratch::poll_read_with(Pin::new(&mut *stream), cx, |stream, cx, bytes| {
                if bytes.is_empty() {
                    return Ok(Echoed::End);
                }
                match stream.poll_write(cx, bytes)? {
                    Poll::Ready(n) if n == bytes.len() => Ok(Echoed::All),
                    Poll::Ready(n) => Ok(Echoed::Rest(bytes[n..].to_vec())),
                    Poll::Pending => Ok(Echoed::Rest(bytes.to_vec())),
                }
            })
            .map(|result| result.flatten())
        });
        match step(read_and_write, &mut watch, Echoed::End).await? {
            Echoed::All => {}
            Echoed::Rest(rest) => stream.write_all(&rest).await?,
            Echoed::End => return Ok(()),
        }
    }
}

/// How many bytes arrived; 0 at the end.
async fn read_count<S>(stream: &mut S, watch: &mut crate::stop::StopWatch) -> io::Result<usize>
where
    S: AsyncRead + Unpin,
{
    let read = poll_fn(|cx| {
        scratch::poll_read_with(Pin::new(&mut *stream), cx, |_, _, bytes| bytes.len())
    });
    step(read, watch, 0).await
}

async fn sink<S>(stream: &mut S, stop: &Stop) -> io::Result<()>
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    let mut watch = stop.watch();
    let mut total = 0_u64;
    loop {
        match read_count(stream, &mut watch).await? {
            0 => break,
            n => total += n as u64,
        }
    }
    stream.write_all(format!("{total}\n").as_bytes()).await
}

/// Ends at the stop, unless it has an end of its own.
async fn source<S>(stream: &mut S, bytes: Option<u64>, stop: &Stop) -> io::Result<()>
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    const CHUNK: u64 = 256 * 1024;
    let total = bytes.unwrap_or(u64::MAX);
    let mut sent = 0;
    while sent < total && (bytes.is_some() || !stop.is_requested()) {
        let chunk = pattern::chunk(sent, CHUNK.min(total - sent));
        let written = stream.write(&chunk).await?;
        if written == 0 {
            return Err(io::ErrorKind::WriteZero.into());
        }
        sent += written as u64;
    }
    Ok(())
}

async fn rpc<S>(
    stream: &mut S,
    request: NonZeroUsize,
    response: usize,
    stop: &Stop,
) -> io::Result<()>
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    let mut watch = stop.watch();
    let mut unanswered = 0;
    loop {
        match read_count(stream, &mut watch).await? {
            0 => return Ok(()),
            n => unanswered += n,
        }
        let mut left = (unanswered / request) as u64 * response as u64;
        unanswered %= request;
        while left > 0 {
            let chunk = pattern::chunk(0, left);
            stream.write_all(&chunk).await?;
            left -= chunk.len() as u64;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::io::AsyncReadExt;

    /// Sends `input` from one side of a narrow pipe and returns what the server answers.
    async fn answer_to(mode: Mode, input: &[u8]) -> Vec<u8> {
        let (mut ours, theirs) = tokio::io::duplex(1000);
        let server =
            tokio::spawn(async move { serve(&mut ours, mode, &Stop::new()).await.unwrap() });
        let (mut read, mut write) = tokio::io::split(theirs);
        let mut answer = Vec::new();
        let (sent, received) = tokio::join!(
            async {
                write.write_all(input).await?;
                write.shutdown().await
            },
            read.read_to_end(&mut answer)
        );
        sent.unwrap();
        received.unwrap();
        server.await.unwrap();
        answer
    }

    #[tokio::test]
    async fn echo_returns_every_byte() {
        let input = pattern::chunk(3, 100_000);
        assert!(answer_to(Mode::Echo, &input).await == input);
    }

    #[tokio::test]
    async fn sink_counts() {
        let input = pattern::chunk(0, 12_345);
        assert_eq!(answer_to(Mode::Sink, &input).await, b"12345\n");
        assert_eq!(answer_to(Mode::Sink, b"").await, b"0\n");
    }

    #[tokio::test]
    async fn source_sends_the_pattern() {
        let bytes = Some(300_000);
        let answer = answer_to(Mode::Source { bytes }, b"").await;
        assert!(answer == pattern::chunk(0, 300_000));
    }

    #[tokio::test]
    async fn rpc_answers_whole_requests_only() {
        let mode = Mode::Rpc {
            request: NonZeroUsize::new(10).unwrap(),
            response: 25,
        };
        assert_eq!(answer_to(mode, &[0; 39]).await.len(), 75);
        assert_eq!(answer_to(mode, &[0; 9]).await.len(), 0);
    }

    #[tokio::test(start_paused = true)]
    async fn a_stop_still_echoes_what_is_on_its_way() {
        let (mut ours, mut theirs) = tokio::io::duplex(1000);
        let stop = Stop::new();
        let server = tokio::spawn({
            let stop = stop.clone();
            async move { serve(&mut ours, Mode::Echo, &stop).await }
        });
        tokio::task::yield_now().await;
        stop.request();
        tokio::time::sleep(QUIET / 2).await;
        theirs.write_all(b"late").await.unwrap();
        let mut answer = String::new();
        theirs.read_to_string(&mut answer).await.unwrap();
        assert_eq!(answer, "late");
        server.await.unwrap().unwrap();
    }
}
