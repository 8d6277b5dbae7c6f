//! One memcached connection: bytes in, answers out, one write for all requests that came together.

use std::future::poll_fn;
use std::io;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::task::Poll;

use bytes::{Buf, BytesMut};
use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt};
use tokio::time::timeout;

use super::report::ServerInfo;
use super::session::{Progress, Session};
use super::store::Store;
use crate::scratch;
use crate::server::QUIET;
use crate::stop::Stop;

/// A connection without work keeps no larger buffer than this.
const KEEP: usize = 16 * 1024;

/// Serves one connection until the peer ends it or quits, or until `stop` is asked for and no
/// request has arrived for a moment.
///
/// # Errors
///
/// What the stream's reads and writes return.
pub async fn serve<S>(
    stream: &mut S,
    store: Arc<Store>,
    server: Arc<ServerInfo>,
    stop: &Stop,
) -> io::Result<()>
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    server.count_connection();
    let mut session = Session::new(store, Arc::clone(&server));
    let mut watch = stop.watch();
    // Input that waits for its rest, or for room in the output.
    let mut input = BytesMut::new();
    let mut output = Vec::new();
    loop {
        let step = {
            let mut read = pin!(read(stream, &mut session, &mut input, &mut output));
            match watch.race(&mut read).await {
                Some(result) => result?,
                None => match timeout(QUIET, read).await {
                    Ok(result) => result?,
                    Err(_) => break,
                },
            }
        };
        server
            .bytes_read
            .fetch_add(step.read as u64, Ordering::Relaxed);
        let mut progress = step.progress;
        let mut written = step.written;
        loop {
            stream.write_all(&output[written..]).await?;
            server
                .bytes_written
                .fetch_add(output.len() as u64, Ordering::Relaxed);
            output.clear();
            output.shrink_to(KEEP);
            if progress != Progress::Full {
                break;
            }
            let (done, next) = session.process(&input, &mut output);
            input.advance(done);
            progress = next;
            written = 0;
        }
        match progress {
            Progress::Quit => break,
            _ if step.read == 0 => break,
            Progress::NeedMore(len) if !input.is_empty() => {
                input.reserve(len.saturating_sub(input.len()));
            }
            _ => input = BytesMut::new(),
        }
    }
    stream.shutdown().await
}

struct ReadStep {
    /// Bytes that arrived; 0 at the end.
    read: usize,
    /// Bytes of the output that are already sent.
    written: usize,
    progress: Progress,
}

/// Reads once, answers what is complete, and sends what can be sent at once.
async fn read<S>(
    stream: &mut S,
    session: &mut Session,
    input: &mut BytesMut,
    output: &mut Vec<u8>,
) -> io::Result<ReadStep>
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    poll_fn(|cx| {
        scratch::poll_read_with(Pin::new(&mut *stream), cx, |stream, cx, bytes| {
            let progress = if input.is_empty() {
                let (done, progress) = session.process(bytes, output);
                input.extend_from_slice(&bytes[done..]);
                progress
            } else {
                input.extend_from_slice(bytes);
                let (done, progress) = session.process(input, output);
                input.advance(done);
                progress
            };
            let mut written = 0;
            if !output.is_empty()
                && let Poll::Ready(sent) = stream.poll_write(cx, output)
            {
                written = sent?;
            }
            Ok(ReadStep {
                read: bytes.len(),
                written,
                progress,
            })
        })
        .map(|result| result.flatten())
    })
    .await
}
