//! The body of `/bytes/{n}`: large chunks, none of them copied.

use std::convert::Infallible;
use std::pin::Pin;
use std::task::{Context, Poll};

use bytes::Bytes;
use hyper::body::{Body, Frame, SizeHint};

use crate::pattern;

/// Large enough to keep the cost per byte low, small enough that many bodies fit the send buffers.
const CHUNK: u64 = 256 * 1024;

/// The first `n` bytes of the pattern.
#[derive(Debug)]
pub(super) struct PatternBody {
    offset: u64,
    end: u64,
}

impl PatternBody {
    pub(super) fn new(len: u64) -> Self {
        Self {
            offset: 0,
            end: len,
        }
    }

    fn left(&self) -> u64 {
        self.end - self.offset
    }
}

impl Body for PatternBody {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        _cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        if self.left() == 0 {
            return Poll::Ready(None);
        }
        let chunk = pattern::chunk(self.offset, self.left().min(CHUNK));
        self.offset += chunk.len() as u64;
        Poll::Ready(Some(Ok(Frame::data(chunk))))
    }

    fn is_end_stream(&self) -> bool {
        self.left() == 0
    }

    fn size_hint(&self) -> SizeHint {
        SizeHint::with_exact(self.left())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use http_body_util::BodyExt;

    #[tokio::test]
    async fn is_as_long_as_asked_for() {
        for len in [0, 1, CHUNK, CHUNK + 1, pattern::PERIOD, 3_000_000] {
            let body = PatternBody::new(len);
            assert_eq!(body.size_hint().exact(), Some(len));
            assert_eq!(body.is_end_stream(), len == 0);
            let collected = body.collect().await.unwrap().to_bytes();
            assert_eq!(collected.len() as u64, len);
            let tail = len.saturating_sub(100);
            assert_eq!(collected[tail as usize..], pattern::chunk(tail, len - tail));
        }
    }
}
