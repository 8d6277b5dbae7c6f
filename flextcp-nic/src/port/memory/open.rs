//! A port whose wire is in the caller's hands: what it sends is taken out frame by frame, what it receives is put in.

use std::collections::VecDeque;
use std::io;
use std::num::NonZeroU16;
use std::os::fd::BorrowedFd;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use super::{Frame, MemoryConfig, recycle};
use crate::port::{Port, PortCounters, PortFull, PortInfo, RxChecksum, RxFrame, TxFrame};
use crate::time::Instant;
use crate::wire::checksum::checksum;

/// A frame that a port sent.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct SentFrame {
    /// From the Ethernet header on, with its checksum.
    pub bytes: Vec<u8>,
    /// A super-frame: a NIC would cut its payload into segments of so many bytes.
    pub segment: Option<NonZeroU16>,
}

/// Both directions of an open wire.
#[derive(Debug, Default)]
struct Wire {
    inbound: VecDeque<Vec<u8>>,
    outbound: VecDeque<SentFrame>,
    /// Buffers of frames that were received, for frames to send.
    spare: Vec<Vec<u8>>,
}

type Shared = Arc<Mutex<Wire>>;

fn lock(wire: &Shared) -> MutexGuard<'_, Wire> {
    // Every update is one push or one pop: the queues are whole even if poisoned.
    wire.lock().unwrap_or_else(PoisonError::into_inner)
}

/// The NIC's side of an open wire. No descriptor, no loss, no limit but `queue_frames` of one batch: whoever holds
/// the [`OpenEnd`] decides what becomes of a frame.
#[derive(Debug)]
pub struct OpenPort {
    info: PortInfo,
    wire: Shared,
    batch: Vec<SentFrame>,
    max_batch: usize,
    counters: PortCounters,
}

/// The caller's side of an open wire.
#[derive(Clone, Debug)]
pub struct OpenEnd {
    wire: Shared,
}

impl OpenPort {
    /// A port and its open end. Of `config`, the sizes of the far queue and fragments have no meaning here. Frames come
    /// out with their checksums, and super-frames (`tx_segment_max`) in one piece.
    pub fn new(config: MemoryConfig) -> (Self, OpenEnd) {
        let wire = Shared::default();
        let end = OpenEnd {
            wire: Arc::clone(&wire),
        };
        let port = Self {
            info: PortInfo {
                name: config.name,
                ifindex: 0,
                mac: config.mac,
                mtu: config.mtu,
                tx_checksum: config.tx_checksum,
                tx_segment_max: config.tx_segment_max,
            },
            wire,
            batch: Vec::new(),
            max_batch: config.queue_frames,
            counters: PortCounters::default(),
        };
        (port, end)
    }
}

impl OpenEnd {
    /// Puts a frame in, to be received by the port's next [`Port::receive`]. Its checksum is verified there.
    pub fn inject(&self, frame: Vec<u8>) {
        lock(&self.wire).inbound.push_back(frame);
    }

    /// Takes out the oldest frame that was flushed.
    pub fn take(&self) -> Option<SentFrame> {
        lock(&self.wire).outbound.pop_front()
    }

    /// Takes out all frames that were flushed, oldest first.
    pub fn drain(&self) -> Vec<SentFrame> {
        lock(&self.wire).outbound.drain(..).collect()
    }

    /// Frames that were put in and not yet received.
    pub fn waiting(&self) -> usize {
        lock(&self.wire).inbound.len()
    }
}

/// Where the TCP header of a frame of ours is: behind Ethernet's and an IP header without options.
const TRANSPORT_V4: usize = 14 + 20;
const TRANSPORT_V6: usize = 14 + 40;
/// Of the checksum, in a TCP header.
const CHECKSUM_OFFSET: usize = 16;

/// Completes the checksum of a segment whose field holds the sum of its pseudo-header.
fn complete_checksum(frame: &mut [u8]) {
    let transport = match frame.get(14) {
        Some(version) if version >> 4 == 4 => TRANSPORT_V4,
        _ => TRANSPORT_V6,
    };
    let Some(segment) = frame.get_mut(transport..) else {
        return;
    };
    let sum = checksum(segment);
    if let Some(field) = segment.get_mut(CHECKSUM_OFFSET..CHECKSUM_OFFSET + 2) {
        field.copy_from_slice(&sum.to_be_bytes());
    }
}

impl Port for OpenPort {
    fn info(&self) -> &PortInfo {
        &self.info
    }

    fn receive(
        &mut self,
        _now: Instant,
        budget: usize,
        sink: &mut dyn FnMut(RxFrame<'_>),
    ) -> io::Result<usize> {
        let mut count = 0;
        while count < budget {
            // Not held while the sink runs: it may be what puts the next frame in.
            let Some(frame) = lock(&self.wire).inbound.pop_front() else {
                break;
            };
            count += 1;
            self.counters.rx_frames += 1;
            self.counters.rx_bytes += frame.len() as u64;
            sink(RxFrame::contiguous(&frame, RxChecksum::Unverified));
            recycle(&mut lock(&self.wire).spare, frame);
        }
        Ok(count)
    }

    fn transmit(&mut self, _now: Instant, frame: TxFrame<'_>) -> Result<(), PortFull> {
        if self.batch.len() >= self.max_batch {
            self.counters.tx_full += 1;
            return Err(PortFull);
        }
        self.counters.tx_frames += 1;
        self.counters.tx_bytes += frame.len() as u64;
        let buffer = lock(&self.wire).spare.pop().unwrap_or_default();
        let mut bytes = Frame::fill(buffer, &frame).bytes;
        if frame.offload.checksum {
            complete_checksum(&mut bytes);
        }
        let segment = frame.offload.segment;
        self.batch.push(SentFrame { bytes, segment });
        Ok(())
    }

    fn flush(&mut self, _now: Instant) -> io::Result<()> {
        if !self.batch.is_empty() {
            lock(&self.wire).outbound.extend(self.batch.drain(..));
        }
        Ok(())
    }

    fn arm(&mut self) -> io::Result<bool> {
        Ok(lock(&self.wire).inbound.is_empty())
    }

    fn wake_fd(&self) -> Option<BorrowedFd<'_>> {
        None
    }

    fn counters(&self) -> PortCounters {
        self.counters
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::port::TxOffload;

    #[test]
    fn frames_pass_by_hand() {
        let (mut port, end) = OpenPort::new(MemoryConfig {
            queue_frames: 2,
            ..MemoryConfig::default()
        });
        let now = Instant::ZERO;
        let frame = TxFrame {
            header: b"head",
            payload: [b"er ", b"body"],
            offload: TxOffload::default(),
        };
        port.transmit(now, frame).unwrap();
        assert!(end.take().is_none(), "not before the batch is flushed");
        port.transmit(now, frame).unwrap();
        assert_eq!(port.transmit(now, frame), Err(PortFull));
        port.flush(now).unwrap();
        assert_eq!(end.take().unwrap().bytes, b"header body");
        assert_eq!(end.drain().len(), 1);

        assert!(port.arm().unwrap());
        for byte in 0..3 {
            end.inject(vec![byte]);
        }
        assert!(!port.arm().unwrap());
        let mut seen = Vec::new();
        let count = port.receive(now, 2, &mut |frame| seen.push(frame.head[0]));
        assert_eq!((count.unwrap(), seen, end.waiting()), (2, vec![0, 1], 1));
        assert_eq!(port.counters().rx_frames, 2);
        assert_eq!(port.counters().tx_full, 1);
    }
}
