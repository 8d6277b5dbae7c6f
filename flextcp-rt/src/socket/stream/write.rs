//! Writing, and the end of it.

use std::io::{self, IoSlice};
use std::task::{Context, Poll};

use tokio::io::Interest;

use super::Stream;
use crate::socket::Command;
use crate::socket::readiness::Direction;

impl Stream {
    /// Appends with `append`, which returns how many of the `wanted` bytes fitted.
    fn send(&self, wanted: usize, append: impl FnOnce() -> usize) -> io::Result<usize> {
        if self.shared.is_write_closed() {
            // `sk_stream_error`: the pending error first, then EPIPE for good.
            return Err(self
                .shared
                .take_error()
                .unwrap_or_else(|| io::Error::from_raw_os_error(libc::EPIPE)));
        }
        if wanted == 0 {
            return Ok(0);
        }
        match append() {
            0 => Err(io::ErrorKind::WouldBlock.into()),
            n => {
                self.shared.ring_doorbell();
                Ok(n)
            }
        }
    }

    fn write_now(&self, buf: &[u8]) -> io::Result<usize> {
        self.send(buf.len(), || self.shared.app.send.write(buf))
    }

    fn write_vectored_now(&self, bufs: &[IoSlice<'_>]) -> io::Result<usize> {
        let wanted = usize::from(bufs.iter().any(|buf| !buf.is_empty()));
        self.send(wanted, || self.shared.app.send.write_vectored(bufs))
    }

    /// Writes as much as fits, without waiting.
    ///
    /// # Errors
    /// `WouldBlock` when nothing fits; the connection's error, once, then `BrokenPipe`.
    pub fn try_write(&self, buf: &[u8]) -> io::Result<usize> {
        self.try_io(Interest::WRITABLE, || self.write_now(buf))
    }

    /// [`try_write`](Self::try_write) of several slices.
    ///
    /// # Errors
    /// As [`try_write`](Self::try_write).
    pub fn try_write_vectored(&self, bufs: &[IoSlice<'_>]) -> io::Result<usize> {
        self.try_io(Interest::WRITABLE, || self.write_vectored_now(bufs))
    }

    /// Writes as much as fits; the last caller is woken.
    pub fn poll_write(&self, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        self.poll_io(cx, Direction::Write, |event| {
            let n = self.write_now(buf)?;
            // A short write filled the ring.
            if 0 < n && n < buf.len() {
                self.shared.readiness.clear(event);
            }
            Ok(n)
        })
    }

    /// [`poll_write`](Self::poll_write) of several slices.
    pub fn poll_write_vectored(
        &self,
        cx: &mut Context<'_>,
        bufs: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        self.poll_io(cx, Direction::Write, |_| self.write_vectored_now(bufs))
    }

    /// Ends our direction: FIN after what was written. Returns at once; repeatable; `Ok` after a reset too.
    pub fn shutdown_write(&self) {
        if self.shared.shut_write() {
            self.shared
                .core
                .command(self.shared.conn, Command::ShutdownWrite);
        }
    }
}
