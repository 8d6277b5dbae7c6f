//! Ports without a device: a wire between two ports of the process, a wire in the caller's hands, and the hairpin.

mod open;

#[cfg(all(test, target_os = "linux"))]
mod tests;

use std::collections::VecDeque;
use std::io;
use std::mem;
use std::num::NonZeroUsize;
use std::os::fd::BorrowedFd;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

pub use self::open::{OpenEnd, OpenPort, SentFrame};
use super::{Port, PortCounters, PortFull, PortInfo, RxChecksum, RxFrame, TxFrame};
use crate::port::wake::Wake;
use crate::time::Instant;
use crate::wire::{MAX_HEADER_LEN, MacAddr};

/// Buffers kept for reuse, in each direction: enough for a batch; more would only cool the cache.
const SPARE_BUFFERS: usize = 128;

/// A frame between two ports.
#[derive(Debug, Default)]
struct Frame {
    bytes: Vec<u8>,
    /// The TCP checksum field is not complete: the receiver must not look.
    partial: bool,
}

impl Frame {
    /// The one copy on the way in.
    fn fill(mut buffer: Vec<u8>, frame: &TxFrame<'_>) -> Self {
        buffer.clear();
        buffer.reserve(frame.len());
        buffer.extend_from_slice(frame.header);
        buffer.extend_from_slice(frame.payload[0]);
        buffer.extend_from_slice(frame.payload[1]);
        let offload = frame.offload;
        Self {
            bytes: buffer,
            partial: offload.checksum || offload.segment.is_some(),
        }
    }

    const fn checksum(&self) -> RxChecksum {
        if self.partial {
            RxChecksum::Trusted
        } else {
            RxChecksum::Unverified
        }
    }
}

fn recycle(spare: &mut Vec<Vec<u8>>, buffer: Vec<u8>) {
    if spare.len() < SPARE_BUFFERS {
        spare.push(buffer);
    }
}

/// One end of a [`MemoryPort::pair`].
#[derive(Clone, Debug)]
pub struct MemoryConfig {
    /// For people.
    pub name: String,
    /// Own hardware address.
    pub mac: MacAddr,
    /// Largest IP packet of one segment.
    pub mtu: u32,
    /// Leave the checksums of sent frames to the port; the other end then trusts them, as on veth.
    pub tx_checksum: bool,
    /// Largest IP packet of a super-frame; it arrives whole at the other end, as on veth.
    pub tx_segment_max: Option<u32>,
    /// Frames that wait at this end before more are dropped; also the most that one batch takes.
    pub queue_frames: usize,
    /// Bytes that wait at this end before more are dropped.
    pub queue_bytes: usize,
    /// Deliver longer frames in fragments of this many bytes (the first at least as long as the longest
    /// headers), as multi-buffer AF_XDP does.
    pub fragment: Option<NonZeroUsize>,
}

impl Default for MemoryConfig {
    /// An Ethernet-like end: MTU 1500, no offload, 4096 frames or 16 MiB.
    fn default() -> Self {
        Self {
            name: "memory".into(),
            mac: MacAddr([2, 0, 0, 0, 0, 1]),
            mtu: 1500,
            tx_checksum: false,
            tx_segment_max: None,
            queue_frames: 4096,
            queue_bytes: 16 << 20,
            fragment: None,
        }
    }
}

/// Frames under way to one end.
#[derive(Debug)]
struct Inbox {
    queue: Mutex<Queue>,
    /// Frames in `queue`, so that an idle poll takes no lock. Exact under the lock, a hint without.
    waiting: AtomicUsize,
    wake: Wake,
    max_frames: usize,
    max_bytes: usize,
}

#[derive(Debug, Default)]
struct Queue {
    frames: VecDeque<Frame>,
    bytes: usize,
    spare: Vec<Vec<u8>>,
    dropped: u64,
    /// The receiver sleeps: wake it. Guarded by the lock, so no frame slips between its look and its sleep.
    armed: bool,
}

impl Inbox {
    fn new(config: &MemoryConfig) -> io::Result<Arc<Self>> {
        Ok(Arc::new(Self {
            queue: Mutex::default(),
            waiting: AtomicUsize::new(0),
            wake: Wake::new()?,
            max_frames: config.queue_frames,
            max_bytes: config.queue_bytes,
        }))
    }

    fn lock(&self) -> MutexGuard<'_, Queue> {
        // Every update is complete before anything that could panic: the queue is whole even if poisoned.
        self.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// One end of a wire within the process. The two ends may live on different threads.
///
/// Nothing is lost, reordered or delayed except by a full queue; wrap it in
/// [`Impair`](super::impair::Impair) for that. When the other end is gone, frames go nowhere.
#[derive(Debug)]
pub struct MemoryPort {
    info: PortInfo,
    inbox: Arc<Inbox>,
    outbox: Arc<Inbox>,
    /// Frames of the batch, not yet flushed.
    batch: Vec<Frame>,
    max_batch: usize,
    fragment: Option<NonZeroUsize>,
    /// Frames taken over from the inbox, not yet delivered.
    arrived: VecDeque<Frame>,
    /// Delivered buffers, to go back to the sender.
    used: Vec<Vec<u8>>,
    spare: Vec<Vec<u8>>,
    /// Armed since the descriptor was last cleared.
    slept: bool,
    counters: PortCounters,
}

impl MemoryPort {
    /// Two joined ends.
    ///
    /// # Errors
    /// No file descriptor is left for the wake-ups.
    pub fn pair(a: MemoryConfig, b: MemoryConfig) -> io::Result<(Self, Self)> {
        let (to_a, to_b) = (Inbox::new(&a)?, Inbox::new(&b)?);
        let (outbox_a, outbox_b) = (Arc::clone(&to_b), Arc::clone(&to_a));
        Ok((Self::new(a, to_a, outbox_a), Self::new(b, to_b, outbox_b)))
    }

    fn new(config: MemoryConfig, inbox: Arc<Inbox>, outbox: Arc<Inbox>) -> Self {
        Self {
            info: PortInfo {
                name: config.name,
                ifindex: 0,
                mac: config.mac,
                mtu: config.mtu,
                tx_checksum: config.tx_checksum,
                tx_segment_max: config.tx_segment_max,
            },
            inbox,
            outbox,
            batch: Vec::new(),
            max_batch: config.queue_frames,
            fragment: config.fragment,
            arrived: VecDeque::new(),
            used: Vec::new(),
            spare: Vec::new(),
            slept: false,
            counters: PortCounters::default(),
        }
    }

    fn disarm(&mut self) -> io::Result<()> {
        if mem::take(&mut self.slept) {
            self.inbox.lock().armed = false;
            self.inbox.wake.clear()?;
        }
        Ok(())
    }

    /// Takes over what arrived, and gives used buffers back.
    fn fetch(&mut self) {
        if self.inbox.waiting.load(Ordering::Acquire) == 0 {
            return;
        }
        let mut queue = self.inbox.lock();
        for buffer in self.used.drain(..) {
            recycle(&mut queue.spare, buffer);
        }
        if self.arrived.is_empty() {
            mem::swap(&mut self.arrived, &mut queue.frames);
        } else {
            self.arrived.append(&mut queue.frames);
        }
        queue.bytes = 0;
        self.inbox.waiting.store(0, Ordering::Release);
    }

    fn deliver(&self, frame: &Frame, sink: &mut dyn FnMut(RxFrame<'_>)) {
        let checksum = frame.checksum();
        match self.fragment {
            Some(len) if frame.bytes.len() > len.get().max(MAX_HEADER_LEN) => {
                let (head, rest) = frame.bytes.split_at(len.get().max(MAX_HEADER_LEN));
                let tail: Vec<&[u8]> = rest.chunks(len.get()).collect();
                sink(RxFrame {
                    head,
                    tail: &tail,
                    checksum,
                });
            }
            _ => sink(RxFrame::contiguous(&frame.bytes, checksum)),
        }
    }
}

impl Port for MemoryPort {
    fn info(&self) -> &PortInfo {
        &self.info
    }

    fn receive(
        &mut self,
        _now: Instant,
        budget: usize,
        sink: &mut dyn FnMut(RxFrame<'_>),
    ) -> io::Result<usize> {
        self.disarm()?;
        if self.arrived.len() < budget {
            self.fetch();
        }
        let mut count = 0;
        while count < budget
            && let Some(frame) = self.arrived.pop_front()
        {
            self.counters.rx_frames += 1;
            self.counters.rx_bytes += frame.bytes.len() as u64;
            self.deliver(&frame, sink);
            recycle(&mut self.used, frame.bytes);
            count += 1;
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
        self.batch
            .push(Frame::fill(self.spare.pop().unwrap_or_default(), &frame));
        Ok(())
    }

    fn flush(&mut self, _now: Instant) -> io::Result<()> {
        if self.batch.is_empty() {
            return Ok(());
        }
        let outbox = &self.outbox;
        let mut queue = outbox.lock();
        for frame in self.batch.drain(..) {
            let bytes = queue.bytes + frame.bytes.len();
            if queue.frames.len() >= outbox.max_frames || bytes > outbox.max_bytes {
                queue.dropped += 1;
                recycle(&mut self.spare, frame.bytes);
            } else {
                queue.bytes = bytes;
                queue.frames.push_back(frame);
            }
        }
        let wanted = SPARE_BUFFERS
            .saturating_sub(self.spare.len())
            .min(queue.spare.len());
        let keep = queue.spare.len() - wanted;
        self.spare.extend(queue.spare.drain(keep..));
        outbox.waiting.store(queue.frames.len(), Ordering::Release);
        let wake = !queue.frames.is_empty() && mem::take(&mut queue.armed);
        drop(queue);
        if wake {
            self.counters.kicks += 1;
            outbox.wake.signal()?;
        }
        Ok(())
    }

    fn arm(&mut self) -> io::Result<bool> {
        self.disarm()?;
        if !self.arrived.is_empty() {
            return Ok(false);
        }
        let mut queue = self.inbox.lock();
        if !queue.frames.is_empty() {
            return Ok(false);
        }
        queue.armed = true;
        self.slept = true;
        Ok(true)
    }

    fn wake_fd(&self) -> Option<BorrowedFd<'_>> {
        self.inbox.wake.fd()
    }

    fn counters(&self) -> PortCounters {
        PortCounters {
            rx_dropped: self.inbox.lock().dropped,
            ..self.counters
        }
    }
}

/// Largest frames of the hairpin: the IP length fields allow no more.
pub const LOOPBACK_MTU: u32 = 65535;

/// The hairpin: what it sends it receives. One owner, no descriptor, no loss.
///
/// Frames whose checksums are left to the port never get one, and are trusted.
#[derive(Debug)]
pub struct LoopbackPort {
    info: PortInfo,
    frames: VecDeque<Frame>,
    /// Of `frames`, those that were flushed.
    flushed: usize,
    bytes: usize,
    spare: Vec<Vec<u8>>,
    counters: PortCounters,
}

/// Bytes that may wait in a hairpin before it is full.
const LOOPBACK_BYTES: usize = 16 << 20;
/// Frames that may wait in a hairpin before it is full.
const LOOPBACK_FRAMES: usize = 4096;

impl LoopbackPort {
    /// A hairpin whose segments are as long as IP allows.
    pub fn new() -> Self {
        Self::with_mtu(LOOPBACK_MTU)
    }

    /// A hairpin with an MTU of `mtu`, at most [`LOOPBACK_MTU`].
    pub fn with_mtu(mtu: u32) -> Self {
        Self {
            info: PortInfo {
                name: "hairpin".into(),
                ifindex: 0,
                mac: MacAddr::ZERO,
                mtu: mtu.min(LOOPBACK_MTU),
                tx_checksum: true,
                tx_segment_max: None,
            },
            frames: VecDeque::new(),
            flushed: 0,
            bytes: 0,
            spare: Vec::new(),
            counters: PortCounters::default(),
        }
    }
}

impl Default for LoopbackPort {
    fn default() -> Self {
        Self::new()
    }
}

impl Port for LoopbackPort {
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
        while count < budget
            && self.flushed > 0
            && let Some(frame) = self.frames.pop_front()
        {
            count += 1;
            self.flushed -= 1;
            self.counters.rx_frames += 1;
            self.counters.rx_bytes += frame.bytes.len() as u64;
            self.bytes -= frame.bytes.len();
            sink(RxFrame::contiguous(&frame.bytes, frame.checksum()));
            recycle(&mut self.spare, frame.bytes);
        }
        Ok(count)
    }

    fn transmit(&mut self, _now: Instant, frame: TxFrame<'_>) -> Result<(), PortFull> {
        if self.frames.len() >= LOOPBACK_FRAMES || self.bytes >= LOOPBACK_BYTES {
            self.counters.tx_full += 1;
            return Err(PortFull);
        }
        self.counters.tx_frames += 1;
        self.counters.tx_bytes += frame.len() as u64;
        self.bytes += frame.len();
        self.frames
            .push_back(Frame::fill(self.spare.pop().unwrap_or_default(), &frame));
        Ok(())
    }

    fn flush(&mut self, _now: Instant) -> io::Result<()> {
        self.flushed = self.frames.len();
        Ok(())
    }

    fn arm(&mut self) -> io::Result<bool> {
        Ok(self.frames.is_empty())
    }

    fn wake_fd(&self) -> Option<BorrowedFd<'_>> {
        None
    }

    fn counters(&self) -> PortCounters {
        self.counters
    }
}
