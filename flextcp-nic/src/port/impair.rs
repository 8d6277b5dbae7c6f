//! A bad wire: loss (alone and in bursts), reordering, duplication, corruption, delay, jitter, rate, queue and
//! congestion marks, around any port ([`Impair`]) or by itself ([`Line`]), reproducible from a seed.

mod config;
mod line;

#[cfg(test)]
mod tests;

use std::io;
use std::os::fd::BorrowedFd;

pub use config::{ImpairConfig, Impairment, InvalidImpairment};
use line::Rng;
pub use line::{ImpairCounters, Line, Waiting};

use super::{Port, PortCounters, PortFull, PortInfo, RxChecksum, RxFrame, TxFrame, TxOffload};
use crate::time::Instant;

/// A port whose wire is bad, as an [`ImpairConfig`] says.
///
/// A direction without impairment passes straight through. With any on transmit, the port offers neither
/// checksum nor segmentation offload: what meets the wire is packets with their checksums, so that the
/// receiver notices damage. A direction that takes time works only when [`Port::poll_at`] is followed: frames
/// that are due go out in [`Port::flush`] and [`Port::receive`].
#[derive(Debug)]
pub struct Impair<P> {
    port: P,
    info: PortInfo,
    tx: Option<Line>,
    rx: Option<Line>,
    /// The latest time passed in.
    now: Instant,
    /// Frames were handed to the port below and not flushed.
    unflushed: bool,
}

impl<P: Port> Impair<P> {
    /// Puts a bad wire before `port`.
    pub fn new(port: P, config: ImpairConfig) -> Self {
        let mut seeds = Rng::new(config.seed);
        let (tx_rng, rx_rng) = (Rng::new(seeds.next()), Rng::new(seeds.next()));
        let line = |line: Impairment, rng| (!line.is_none()).then(|| Line::with_rng(line, rng));
        let (tx, rx) = (line(config.tx, tx_rng), line(config.rx, rx_rng));
        let mut info = port.info().clone();
        if tx.is_some() {
            info.tx_checksum = false;
            info.tx_segment_max = None;
        }
        if tx.is_some() || rx.is_some() {
            info.name.push_str(" (impaired)");
        }
        Self {
            port,
            info,
            tx,
            rx,
            now: Instant::ZERO,
            unflushed: false,
        }
    }

    /// What was done to sent frames.
    pub fn tx_counters(&self) -> ImpairCounters {
        self.tx.as_ref().map(Line::counters).unwrap_or_default()
    }

    /// What was done to received frames.
    pub fn rx_counters(&self) -> ImpairCounters {
        self.rx.as_ref().map(Line::counters).unwrap_or_default()
    }

    /// The port below.
    pub const fn port(&self) -> &P {
        &self.port
    }

    /// Hands frames that are due to the port below, as many as it takes.
    fn send_due(&mut self, now: Instant) -> io::Result<()> {
        let Some(line) = &mut self.tx else {
            return Ok(());
        };
        while let Some(frame) = line.peek(now) {
            let frame = TxFrame {
                header: &frame.bytes,
                payload: [&[], &[]],
                offload: TxOffload::default(),
            };
            if self.port.transmit(now, frame).is_err() {
                self.port.flush(now)?;
                if self.port.transmit(now, frame).is_err() {
                    // What is due stays, and poll_at says so.
                    break;
                }
            }
            self.unflushed = true;
            line.pop();
        }
        Ok(())
    }

    fn flush_below(&mut self, now: Instant) -> io::Result<()> {
        self.unflushed = false;
        self.port.flush(now)
    }
}

impl<P: Port> Port for Impair<P> {
    fn info(&self) -> &PortInfo {
        &self.info
    }

    fn receive(
        &mut self,
        now: Instant,
        budget: usize,
        sink: &mut dyn FnMut(RxFrame<'_>),
    ) -> io::Result<usize> {
        self.now = now;
        self.send_due(now)?;
        if self.unflushed {
            self.flush_below(now)?;
        }
        let Some(line) = &mut self.rx else {
            return self.port.receive(now, budget, sink);
        };
        self.port.receive(now, budget, &mut |frame| {
            line.enter(now, frame.slices(0, usize::MAX), frame.checksum);
        })?;
        let mut count = 0;
        while count < budget
            && let Some(frame) = line.peek(now)
        {
            sink(RxFrame::contiguous(&frame.bytes, frame.checksum));
            line.pop();
            count += 1;
        }
        Ok(count)
    }

    fn transmit(&mut self, now: Instant, frame: TxFrame<'_>) -> Result<(), PortFull> {
        self.now = now;
        let Some(line) = &mut self.tx else {
            return self.port.transmit(now, frame);
        };
        if line.is_full() {
            return Err(PortFull);
        }
        let pieces = [frame.header, frame.payload[0], frame.payload[1]];
        line.enter(now, pieces.into_iter(), RxChecksum::Unverified);
        Ok(())
    }

    fn flush(&mut self, now: Instant) -> io::Result<()> {
        self.now = now;
        self.send_due(now)?;
        self.flush_below(now)
    }

    fn arm(&mut self) -> io::Result<bool> {
        let due = |line: &Option<Line>| line.as_ref().is_some_and(|l| l.peek(self.now).is_some());
        if due(&self.rx) || due(&self.tx) {
            Ok(false)
        } else {
            self.port.arm()
        }
    }

    fn wake_fd(&self) -> Option<BorrowedFd<'_>> {
        self.port.wake_fd()
    }

    fn poll_at(&self) -> Option<Instant> {
        let lines = [&self.tx, &self.rx]
            .into_iter()
            .flatten()
            .filter_map(Line::next_due);
        lines.chain(self.port.poll_at()).min()
    }

    fn counters(&self) -> PortCounters {
        self.port.counters()
    }
}
