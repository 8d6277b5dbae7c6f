//! Capture: everything that passes a port, written in pcapng for Wireshark and tcpdump.

mod pcapng;

#[cfg(test)]
mod tests;

use std::fmt;
use std::io::{self, Write};
use std::os::fd::BorrowedFd;
use std::time::Duration;

use self::pcapng::{Direction, PcapngWriter};
use super::{Port, PortCounters, PortFull, PortInfo, RxFrame, TxFrame};
use crate::time::Instant;

/// How much a [`Capture`] writes.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct CaptureConfig {
    /// Bytes after which the capture ends; the port works on.
    pub max_bytes: u64,
    /// Bytes of each frame that are kept.
    pub snap_len: u32,
    /// [`Instant::ZERO`] as time since the Unix epoch.
    pub epoch: Duration,
}

impl Default for CaptureConfig {
    /// Whole frames, 1 GiB of them, counted from 1970.
    fn default() -> Self {
        Self {
            max_bytes: 1 << 30,
            snap_len: 262_144,
            epoch: Duration::ZERO,
        }
    }
}

/// A port whose frames are written to `W` as they pass, with direction and time in nanoseconds.
///
/// Sent frames are captured when the port takes them; with offloads their checksums are partial and they may
/// be super-frames, as in a capture of the kernel's. A write error or a full capture ends the writing, never
/// the traffic. Give a buffered writer; it is flushed when the port goes idle and when the capture is dropped.
pub struct Capture<P, W: Write> {
    port: P,
    /// `None` once the capture is over.
    writer: Option<PcapngWriter<W>>,
    epoch: Duration,
    error: Option<io::Error>,
    frames: u64,
}

impl<P: Port, W: Write + Send> Capture<P, W> {
    /// Starts capturing `port` into `writer`.
    ///
    /// # Errors
    /// The file's header cannot be written.
    pub fn new(port: P, writer: W, config: CaptureConfig) -> io::Result<Self> {
        let name = &port.info().name;
        let writer = PcapngWriter::new(writer, name, config.snap_len, config.max_bytes)?;
        Ok(Self {
            port,
            writer: Some(writer),
            epoch: config.epoch,
            error: None,
            frames: 0,
        })
    }

    /// Frames captured.
    pub const fn frames(&self) -> u64 {
        self.frames
    }

    /// Why the capture ended early, if a write failed.
    pub const fn error(&self) -> Option<&io::Error> {
        self.error.as_ref()
    }

    /// The port below.
    pub const fn port(&self) -> &P {
        &self.port
    }

    fn flush_writer(&mut self) {
        if let Some(writer) = &mut self.writer
            && let Err(error) = writer.flush()
        {
            self.writer = None;
            self.fail(error);
        }
    }

    fn fail(&mut self, error: io::Error) {
        tracing::warn!(%error, port = %self.port.info().name, "the capture ends: its file cannot be written");
        self.error = Some(error);
    }
}

/// Writes a frame, unless the capture is over, or ends it here.
fn record<'a, W: Write>(
    writer: &mut Option<PcapngWriter<W>>,
    frames: &mut u64,
    time: Duration,
    direction: Direction,
    pieces: impl Iterator<Item = &'a [u8]> + Clone,
) -> io::Result<()> {
    let Some(open) = writer else {
        return Ok(());
    };
    match open.frame(time, direction, pieces) {
        Ok(true) => {
            *frames += 1;
            Ok(())
        }
        Ok(false) => {
            let flushed = open.flush();
            *writer = None;
            flushed
        }
        Err(error) => {
            *writer = None;
            Err(error)
        }
    }
}

impl<P: Port, W: Write + Send> Port for Capture<P, W> {
    fn info(&self) -> &PortInfo {
        self.port.info()
    }

    fn receive(
        &mut self,
        now: Instant,
        budget: usize,
        sink: &mut dyn FnMut(RxFrame<'_>),
    ) -> io::Result<usize> {
        let Self {
            port,
            writer,
            epoch,
            frames,
            ..
        } = self;
        let time = *epoch + Duration::from_nanos(now.as_nanos());
        let mut failed = None;
        let count = port.receive(now, budget, &mut |frame| {
            let pieces = std::iter::once(frame.head).chain(frame.tail.iter().copied());
            if let Err(error) = record(writer, frames, time, Direction::Inbound, pieces) {
                failed = Some(error);
            }
            sink(frame);
        });
        if let Some(error) = failed {
            self.fail(error);
        }
        count
    }

    fn transmit(&mut self, now: Instant, frame: TxFrame<'_>) -> Result<(), PortFull> {
        self.port.transmit(now, frame)?;
        let time = self.epoch + Duration::from_nanos(now.as_nanos());
        let pieces = [frame.header, frame.payload[0], frame.payload[1]].into_iter();
        let Self { writer, frames, .. } = self;
        if let Err(error) = record(writer, frames, time, Direction::Outbound, pieces) {
            self.fail(error);
        }
        Ok(())
    }

    fn flush(&mut self, now: Instant) -> io::Result<()> {
        self.port.flush(now)
    }

    fn arm(&mut self) -> io::Result<bool> {
        let armed = self.port.arm()?;
        if armed {
            self.flush_writer();
        }
        Ok(armed)
    }

    fn wake_fd(&self) -> Option<BorrowedFd<'_>> {
        self.port.wake_fd()
    }

    fn poll_at(&self) -> Option<Instant> {
        self.port.poll_at()
    }

    fn counters(&self) -> PortCounters {
        self.port.counters()
    }
}

impl<P, W: Write> Drop for Capture<P, W> {
    fn drop(&mut self) {
        if let Some(writer) = &mut self.writer {
            // Nobody is left to tell.
            let _ = writer.flush();
        }
    }
}

impl<P: fmt::Debug, W: Write> fmt::Debug for Capture<P, W> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Capture")
            .field("port", &self.port)
            .field("frames", &self.frames)
            .field("over", &self.writer.is_none())
            .field("error", &self.error)
            .finish_non_exhaustive()
    }
}
