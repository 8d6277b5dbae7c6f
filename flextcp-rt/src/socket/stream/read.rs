//! Reading: copies, peeks, and bytes left where the NIC placed them.

use std::fmt;
use std::io::{self, IoSliceMut};
use std::ops::Deref;
use std::sync::Arc;
use std::task::{Context, Poll};

use bytes::{BufMut, Bytes};
use flextcp_nic::buffer::Chunk;
use tokio::io::{Interest, ReadBuf};

use super::Stream;
use crate::socket::handle::Shared;
use crate::socket::readiness::Direction;

impl Stream {
    /// What a read says once the ring is empty for good. Linux's order: the peer's end of the stream, the pending
    /// error once, the end.
    fn end_of_stream(&self) -> io::Result<usize> {
        if !self.shared.is_peer_closed()
            && let Some(error) = self.shared.take_error()
        {
            return Err(error);
        }
        Ok(0)
    }

    /// Runs `take` on the receive ring for at most `wanted` bytes; it returns 0 where nothing was there.
    fn receive(&self, wanted: usize, mut take: impl FnMut() -> usize) -> io::Result<usize> {
        loop {
            // The flag before the ring: bytes published before the end of the stream must not be passed over.
            let closed = self.shared.is_read_closed();
            if self.shared.app.recv.is_empty() {
                return if closed {
                    self.end_of_stream()
                } else {
                    Err(io::ErrorKind::WouldBlock.into())
                };
            }
            // Another task may have been faster: 0 would read as the end of the stream.
            match take() {
                0 if wanted > 0 => {}
                n => return Ok(n),
            }
        }
    }

    fn receive_freeing(&self, wanted: usize, take: impl FnMut() -> usize) -> io::Result<usize> {
        let n = self.receive(wanted, take)?;
        self.shared.note_freed(n);
        Ok(n)
    }

    fn peek_now(&self, buf: &mut [u8]) -> io::Result<usize> {
        self.receive(buf.len(), || self.shared.app.recv.peek(buf))
    }

    /// Reads without waiting.
    ///
    /// # Errors
    /// `WouldBlock` when there is nothing yet; the connection's error, once.
    pub fn try_read(&self, buf: &mut [u8]) -> io::Result<usize> {
        self.try_io(Interest::READABLE, || {
            self.receive_freeing(buf.len(), || self.shared.app.recv.read(buf))
        })
    }

    /// Copies bytes without taking them and without waiting.
    #[cfg(feature = "lab")]
    pub(crate) fn try_peek(&self, buf: &mut [u8]) -> io::Result<usize> {
        self.try_io(Interest::READABLE, || self.peek_now(buf))
    }

    /// [`try_read`](Self::try_read) into several slices.
    ///
    /// # Errors
    /// As [`try_read`](Self::try_read).
    pub fn try_read_vectored(&self, bufs: &mut [IoSliceMut<'_>]) -> io::Result<usize> {
        self.try_io(Interest::READABLE, || {
            let wanted = usize::from(bufs.iter().any(|buf| !buf.is_empty()));
            self.receive_freeing(wanted, || self.shared.app.recv.read_vectored(bufs))
        })
    }

    /// [`try_read`](Self::try_read) into the spare room of `buf`.
    ///
    /// # Errors
    /// As [`try_read`](Self::try_read).
    pub fn try_read_buf<B: BufMut + ?Sized>(&self, buf: &mut B) -> io::Result<usize> {
        self.try_io(Interest::READABLE, || {
            let room = buf.chunk_mut().len();
            self.receive_freeing(room, || {
                self.shared
                    .app
                    .recv
                    .read_with(room, |bytes| buf.put_slice(bytes))
            })
        })
    }

    /// Reads; the last caller is woken.
    pub fn poll_read(&self, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        self.poll_io(cx, Direction::Read, |event| {
            let room = buf.remaining();
            let n = self.receive_freeing(room, || {
                self.shared
                    .app
                    .recv
                    .read_with(room, |bytes| buf.put_slice(bytes))
            })?;
            // A short read emptied the ring: the next poll need not find that out.
            if 0 < n && n < room {
                self.shared.readiness.clear(event);
            }
            Ok(())
        })
    }

    /// Copies bytes without taking them; the last caller is woken.
    pub fn poll_peek(
        &self,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<usize>> {
        self.poll_io(cx, Direction::Read, |_| {
            let room = buf.remaining();
            self.receive(room, || {
                let available = self.shared.app.recv.len().min(room);
                let n = self
                    .shared
                    .app
                    .recv
                    .peek(buf.initialize_unfilled_to(available));
                buf.advance(n);
                n
            })
        })
    }

    /// Copies bytes without taking them. Cancel safe.
    ///
    /// # Errors
    /// The connection's error, once.
    pub async fn peek(&self, buf: &mut [u8]) -> io::Result<usize> {
        self.async_io(Interest::READABLE, || self.peek_now(buf))
            .await
    }

    /// Takes at most `max` received bytes where the NIC placed them, without a copy; empty at the end of the
    /// stream. The bytes hold their space of the receive window until they are dropped.
    ///
    /// # Errors
    /// `WouldBlock` when there is nothing yet; the connection's error, once.
    pub fn try_read_chunk(&self, max: usize) -> io::Result<Bytes> {
        let mut chunk = None;
        self.try_io(Interest::READABLE, || {
            self.receive(max, || {
                chunk = self.shared.app.recv.take_chunk(max);
                chunk.as_ref().map_or(0, |chunk| chunk.len())
            })
        })?;
        Ok(chunk.map_or_else(Bytes::new, |chunk| {
            let freed = chunk.len();
            Bytes::from_owner(RecvBytes {
                chunk: Some(chunk),
                freed,
                shared: Arc::clone(&self.shared),
            })
        }))
    }

    /// The next received bytes where the NIC placed them, not taken: [`consume`](Self::consume) takes them.
    /// Empty at the end of the stream. The last caller is woken.
    pub fn poll_fill(&self, cx: &mut Context<'_>) -> Poll<io::Result<RecvBytes>> {
        self.poll_io(cx, Direction::Read, |_| {
            let mut chunk = None;
            self.receive(usize::MAX, || {
                chunk = self.shared.app.recv.fill();
                chunk.as_ref().map_or(0, |chunk| chunk.len())
            })?;
            Ok(RecvBytes {
                chunk,
                freed: 0,
                shared: Arc::clone(&self.shared),
            })
        })
    }

    /// Takes `n` bytes unread, at most those that are there.
    pub fn consume(&self, n: usize) {
        self.shared.note_freed(self.shared.app.recv.consume(n));
    }
}

/// Received bytes where the NIC placed them. They hold their space of the receive window while this lives.
pub struct RecvBytes {
    chunk: Option<Chunk>,
    /// Bytes that become free with the chunk.
    freed: usize,
    shared: Arc<Shared>,
}

impl Deref for RecvBytes {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        self.chunk.as_deref().unwrap_or_default()
    }
}

impl AsRef<[u8]> for RecvBytes {
    fn as_ref(&self) -> &[u8] {
        self
    }
}

impl Drop for RecvBytes {
    fn drop(&mut self) {
        // The space first, then the doorbell that tells of it.
        self.chunk = None;
        self.shared.note_freed(self.freed);
    }
}

impl fmt::Debug for RecvBytes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("RecvBytes").field(&self.len()).finish()
    }
}
