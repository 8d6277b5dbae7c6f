//! The port: packet I/O of one queue.

use std::io;
use std::os::fd::{AsFd, BorrowedFd};
use std::sync::Arc;

use rustix::net::xdp::{XdpDesc, XdpDescOptions};

use super::bulk::Bulk;
use super::interface::Attached;
use super::packet::{PacketSocket, Refused};
use super::socket::{Kick, Socket};
use super::umem::{CHUNK, METADATA, ROOM, prefetch};
use super::wake::Wake;
use crate::port::{Port, PortCounters, PortFull, PortInfo, RxChecksum, RxFrame, TxFrame, vnet};
use crate::time::Instant;

/// Fragments of the largest frame: 64 KiB and headers in chunks with 256 bytes of headroom, and some.
const MAX_FRAGMENTS: usize = 32;

/// Copy-mode transmit takes at most this many descriptors for one frame (`MAX_SKB_FRAGS`).
const MAX_TX_CHUNKS: usize = 17;

/// Received frames after which their chunks go back to the kernel.
const REFILL: u32 = 64;

/// `XDP_TX_METADATA`: the chunk starts with metadata.
const TX_METADATA: u32 = 1 << 1;

/// System calls one flush makes at most, when the kernel sends 32 frames in each.
const MAX_KICKS: u32 = 128;

/// An AF_XDP socket on one queue of an interface; made by [`XdpInterface::queue`](super::XdpInterface::queue).
#[derive(Debug)]
pub struct XdpPort {
    socket: Socket,
    wake: Wake,
    /// For frames that do not fit a chunk; `None` where the kernel gives none.
    packet: Option<PacketSocket>,
    /// For large frames of the sockets on `lo`; `None` elsewhere.
    bulk: Option<Bulk>,
    info: PortInfo,
    checksum: RxChecksum,
    counters: PortCounters,
    /// Frames longer than the interface takes, dropped.
    oversize: u64,
    // The program and its maps live as long as any queue.
    attached: Arc<Attached>,
    queue: u32,
}

impl XdpPort {
    pub(super) fn new(
        socket: Socket,
        packet: Option<PacketSocket>,
        info: PortInfo,
        checksum: RxChecksum,
        attached: Arc<Attached>,
        queue: u32,
    ) -> io::Result<Self> {
        let counters = PortCounters::default();
        let wake = Wake::new()?;
        let bulk = attached.take_bulk();
        if let Some(bulk) = &bulk {
            bulk.open();
        }
        Ok(Self {
            socket,
            wake,
            packet,
            bulk,
            info,
            checksum,
            counters,
            oversize: 0,
            attached,
            queue,
        })
    }

    /// The queue's number.
    pub const fn queue(&self) -> u32 {
        self.queue
    }

    /// Whether the driver moves frames without copying them.
    pub const fn zero_copy(&self) -> bool {
        self.socket.zero_copy
    }

    /// Whether frames larger than one chunk are possible.
    pub const fn multi_buffer(&self) -> bool {
        self.socket.multi_buffer
    }

    /// Takes back transmit chunks that the kernel is done with.
    fn reclaim(&mut self) {
        let Socket {
            completion, umem, ..
        } = &mut self.socket;
        let done = completion.refresh();
        for index in 0..done {
            if let Some(address) = completion.peek(index) {
                umem.give_back(address);
            }
        }
        completion.release(done);
    }

    /// Descriptors of the first readable frame; `None` until its last one is there.
    fn next_frame(&mut self) -> Option<u32> {
        let rx = &mut self.socket.rx;
        let mut count = 0;
        loop {
            if count == rx.available() && rx.refresh() == count {
                return None;
            }
            let desc = rx.peek(count)?;
            count += 1;
            if !desc.options.contains(XdpDescOptions::XDP_PKT_CONTD) {
                return Some(count);
            }
        }
    }

    /// Sends a frame that does not fit a chunk, after those that wait in the ring.
    fn send_large(&mut self, now: Instant, frame: TxFrame<'_>) -> Result<(), PortFull> {
        // An interface that is gone says so at the next flush.
        let _ = self.flush(now);
        self.counters.kicks += 1;
        let sent = match &self.packet {
            Some(packet) => packet.send(&frame),
            None => Err(Refused::Lost),
        };
        match sent {
            Ok(()) => {
                self.counters.tx_frames += 1;
                self.counters.tx_bytes += frame.len() as u64;
                Ok(())
            }
            Err(Refused::Full) => {
                self.counters.tx_full += 1;
                Err(PortFull)
            }
            Err(Refused::Lost) => {
                self.oversize += 1;
                Ok(())
            }
        }
    }

    /// Sends what the ring holds.
    fn kick(&mut self) -> io::Result<Kick> {
        for _ in 0..MAX_KICKS {
            if !self.socket.tx.needs_wakeup() && self.socket.zero_copy {
                return Ok(Kick::Done);
            }
            self.counters.kicks += 1;
            let kick = self.socket.kick_transmit()?;
            if kick != Kick::Again {
                return Ok(kick);
            }
            let before = self.socket.tx.outstanding();
            self.reclaim();
            if before == 0 {
                return Ok(Kick::Done);
            }
        }
        Ok(Kick::Again)
    }
}

/// What frames come from.
fn sources<'a>(socket: &'a Socket, bulk: Option<&'a Bulk>) -> impl Iterator<Item = BorrowedFd<'a>> {
    std::iter::once(socket.as_fd()).chain(bulk.map(Bulk::as_fd))
}

impl Port for XdpPort {
    fn info(&self) -> &PortInfo {
        &self.info
    }

    fn receive(
        &mut self,
        now: Instant,
        budget: usize,
        sink: &mut dyn FnMut(RxFrame<'_>),
    ) -> io::Result<usize> {
        self.wake
            .disarm(sources(&self.socket, self.bulk.as_ref()))?;
        // Small frames before the large ones that followed them, but those must have their turn.
        let share = match &self.bulk {
            Some(bulk) if bulk.waits() => budget.div_ceil(2),
            _ => budget,
        };
        let mut frames = 0;
        let mut unfilled = 0;
        self.socket.chunks.saw(self.socket.rx.refresh());
        unfilled += self.socket.chunks.top_up(&mut self.socket.fill);
        while frames < share {
            let Some(count) = self.next_frame() else {
                break;
            };
            let Socket {
                rx,
                fill,
                umem,
                chunks,
                ..
            } = &mut self.socket;
            let mut fragments: [&[u8]; MAX_FRAGMENTS] = [&[]; MAX_FRAGMENTS];
            let mut valid = count as usize <= MAX_FRAGMENTS;
            let mut bytes = 0;
            for (index, fragment) in (0..count).zip(&mut fragments) {
                match rx
                    .peek(index)
                    .and_then(|desc| umem.received(desc.addr, desc.len))
                {
                    Some(slice) => {
                        *fragment = slice;
                        bytes += slice.len() as u64;
                    }
                    None => valid = false,
                }
            }
            // Another core or the device wrote it: on its way to this core while this frame is worked on.
            if let Some(next) = rx
                .peek(count)
                .and_then(|desc| umem.received(desc.addr, desc.len))
            {
                prefetch(next);
            }
            if valid {
                self.counters.rx_frames += 1;
                self.counters.rx_bytes += bytes;
                let [head, tail @ ..] = &fragments;
                sink(RxFrame {
                    head,
                    tail: &tail[..count as usize - 1],
                    checksum: self.checksum,
                });
            } else {
                self.counters.rx_dropped += 1;
            }
            for index in 0..count {
                if let Some(desc) = rx.peek(index) {
                    // A chunk is named by any address inside of it.
                    chunks.give_back(desc.addr & !u64::from(CHUNK - 1), fill);
                }
            }
            rx.release(count);
            frames += 1;
            unfilled += count;
            if unfilled >= REFILL {
                fill.submit();
                unfilled = 0;
            }
        }
        if unfilled > 0 {
            self.socket.fill.submit();
        }
        if let Some(bulk) = &mut self.bulk {
            while frames < budget
                && let Some(frame) = bulk.receive(now)
            {
                self.counters.rx_frames += 1;
                self.counters.rx_bytes += frame.head.len() as u64;
                sink(frame);
                frames += 1;
            }
        }
        if self.socket.zero_copy && self.socket.fill.needs_wakeup() {
            self.counters.kicks += 1;
            self.socket.kick_receive()?;
        }
        Ok(frames)
    }

    fn transmit(&mut self, now: Instant, frame: TxFrame<'_>) -> Result<(), PortFull> {
        let len = frame.len();
        if self.packet.is_some() && (len > ROOM as usize || frame.offload.segment.is_some()) {
            return self.send_large(now, frame);
        }
        debug_assert_eq!(
            frame.offload.segment, None,
            "the port offers no segmentation"
        );
        let chunks = len.div_ceil(ROOM as usize);
        let mut transport = if frame.offload.checksum {
            vnet::transport_offset(frame.header)
        } else {
            None
        };
        let allowed = if self.socket.multi_buffer {
            MAX_TX_CHUNKS
        } else {
            1
        };
        if chunks > allowed || len == 0 {
            // No retry would help: lost, as on a wire that does not take it.
            self.oversize += 1;
            return Ok(());
        }
        if self.socket.umem.free_chunks() < chunks {
            self.reclaim();
        }
        let Socket { tx, umem, .. } = &mut self.socket;
        if umem.free_chunks() < chunks || (tx.free(chunks as u32) as usize) < chunks {
            self.counters.tx_full += 1;
            return Err(PortFull);
        }
        let mut parts = [frame.header, frame.payload[0], frame.payload[1]].into_iter();
        let mut part: &[u8] = parts.next().unwrap_or_default();
        let mut left = len;
        while left > 0 {
            let address = umem.take().expect("the free chunks were counted");
            let mut space = umem.frame_mut(address);
            let fill = left.min(ROOM as usize);
            left -= fill;
            space = &mut space[..fill];
            while !space.is_empty() {
                while part.is_empty() {
                    part = parts
                        .next()
                        .expect("the parts' lengths add up to the frame's");
                }
                let copied = part.len().min(space.len());
                let (now, later) = space.split_at_mut(copied);
                now.copy_from_slice(&part[..copied]);
                part = &part[copied..];
                space = later;
            }
            let mut options = XdpDescOptions::empty();
            options.set(XdpDescOptions::XDP_PKT_CONTD, left > 0);
            if let Some(start) = transport.take() {
                umem.request_checksum(address, start, vnet::CHECKSUM_OFFSET);
                options |= XdpDescOptions::from_bits_retain(TX_METADATA);
            }
            let pushed = tx.push(XdpDesc {
                addr: address + u64::from(METADATA),
                len: fill as u32,
                options,
            });
            debug_assert!(pushed, "the ring's free entries were counted");
        }
        self.counters.tx_frames += 1;
        self.counters.tx_bytes += len as u64;
        Ok(())
    }

    fn flush(&mut self, _now: Instant) -> io::Result<()> {
        if self.socket.tx.submit() || self.socket.tx.outstanding() > 0 {
            self.kick()?;
            // In copy mode most are done by now: the same few chunks are used again while they are in the cache.
            self.reclaim();
        }
        Ok(())
    }

    fn arm(&mut self) -> io::Result<bool> {
        self.socket.check()?;
        if self.socket.tx.outstanding() > 0 && !self.socket.zero_copy {
            // What waits for the interface to come up is kicked with what is sent next.
            if self.kick()? != Kick::Down && self.socket.tx.outstanding() > 0 {
                return Ok(false);
            }
        }
        self.wake.arm(sources(&self.socket, self.bulk.as_ref()))?;
        // The kernel publishes a frame before it wakes the descriptor, and wakes it at every publication: what
        // this look does not see wakes, level- or edge-triggered.
        std::sync::atomic::fence(std::sync::atomic::Ordering::SeqCst);
        Ok(self.socket.rx.refresh() == 0 && !self.bulk.as_ref().is_some_and(Bulk::waits))
    }

    fn wake_fd(&self) -> Option<BorrowedFd<'_>> {
        Some(self.wake.as_fd())
    }

    fn counters(&self) -> PortCounters {
        let mut counters = self.counters;
        if let Some(kernel) = self.socket.statistics() {
            counters.rx_dropped +=
                kernel.rx_dropped + kernel.rx_ring_full.unwrap_or(0) + kernel.rx_invalid_descs;
        }
        counters
    }
}

impl Drop for XdpPort {
    fn drop(&mut self) {
        self.attached.unbind(self.queue);
        if let Some(bulk) = self.bulk.take() {
            bulk.close();
            self.attached.put_bulk_back(bulk);
        }
    }
}
