//! The port: packet I/O of one queue.

use std::io;
use std::os::fd::{AsFd, BorrowedFd};
use std::sync::Arc;

use rustix::net::xdp::{XdpDesc, XdpDescOptions};

use super::interface::Attached;
use super::socket::{Kick, Socket};
use super::umem::CHUNK;
use crate::port::{Port, PortCounters, PortFull, PortInfo, RxChecksum, RxFrame, TxFrame};
use crate::time::Instant;

/// Fragments of the largest frame: 64 KiB and headers in chunks with 256 bytes of headroom, and some.
const MAX_FRAGMENTS: usize = 32;

/// Copy-mode transmit takes at most this many descriptors for one frame (`MAX_SKB_FRAGS`).
const MAX_TX_CHUNKS: usize = 17;

/// Received frames after which their chunks go back to the kernel.
const REFILL: u32 = 64;

/// System calls one flush makes at most, when the kernel sends 32 frames in each.
const MAX_KICKS: u32 = 128;

/// An AF_XDP socket on one queue of an interface; made by [`XdpInterface::queue`](super::XdpInterface::queue).
#[derive(Debug)]
pub struct XdpPort {
    socket: Socket,
    info: PortInfo,
    checksum: RxChecksum,
    counters: PortCounters,
    /// Frames longer than the interface takes, dropped.
    oversize: u64,
    /// Received chunks that found the fill ring full: the kernel shows a frame before it gives the place free that
    /// its chunk came from (`xsk_flush`).
    withheld: Vec<u64>,
    // The program and its maps live as long as any queue.
    attached: Arc<Attached>,
    queue: u32,
}

impl XdpPort {
    pub(super) fn new(
        socket: Socket,
        info: PortInfo,
        checksum: RxChecksum,
        attached: Arc<Attached>,
        queue: u32,
    ) -> Self {
        let counters = PortCounters::default();
        Self {
            socket,
            info,
            checksum,
            counters,
            oversize: 0,
            withheld: Vec::new(),
            attached,
            queue,
        }
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

    /// Sends what the ring holds.
    fn kick(&mut self) -> io::Result<()> {
        for _ in 0..MAX_KICKS {
            if !self.socket.tx.needs_wakeup() && self.socket.zero_copy {
                return Ok(());
            }
            self.counters.kicks += 1;
            if self.socket.kick_transmit()? == Kick::Done {
                return Ok(());
            }
            let before = self.socket.tx.outstanding();
            self.reclaim();
            if before == 0 {
                return Ok(());
            }
        }
        Ok(())
    }
}

impl Port for XdpPort {
    fn info(&self) -> &PortInfo {
        &self.info
    }

    fn receive(
        &mut self,
        _now: Instant,
        budget: usize,
        sink: &mut dyn FnMut(RxFrame<'_>),
    ) -> io::Result<usize> {
        let mut frames = 0;
        let mut unfilled = 0;
        while let Some(&address) = self.withheld.last()
            && self.socket.fill.push(address)
        {
            self.withheld.pop();
            unfilled += 1;
        }
        while frames < budget {
            let Some(count) = self.next_frame() else {
                break;
            };
            let Socket { rx, fill, umem, .. } = &mut self.socket;
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
                    let address = desc.addr & !u64::from(CHUNK - 1);
                    if !fill.push(address) {
                        self.withheld.push(address);
                    }
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
        if self.socket.zero_copy && self.socket.fill.needs_wakeup() {
            self.counters.kicks += 1;
            self.socket.kick_receive()?;
        }
        Ok(frames)
    }

    fn transmit(&mut self, _now: Instant, frame: TxFrame<'_>) -> Result<(), PortFull> {
        debug_assert_eq!(
            frame.offload,
            Default::default(),
            "the port offers no offload"
        );
        let len = frame.len();
        let chunks = len.div_ceil(CHUNK as usize);
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
            let mut space = umem.chunk_mut(address);
            let fill = left.min(CHUNK as usize);
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
            let options = if left > 0 {
                XdpDescOptions::XDP_PKT_CONTD
            } else {
                XdpDescOptions::empty()
            };
            let pushed = tx.push(XdpDesc {
                addr: address,
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
        }
        Ok(())
    }

    fn arm(&mut self) -> io::Result<bool> {
        self.socket.check()?;
        if self.socket.tx.outstanding() > 0 && !self.socket.zero_copy {
            self.kick()?;
            if self.socket.tx.outstanding() > 0 {
                return Ok(false);
            }
        }
        // The kernel publishes a frame before it wakes the descriptor, and wakes it at every publication: what
        // this look does not see wakes, level- or edge-triggered.
        std::sync::atomic::fence(std::sync::atomic::Ordering::SeqCst);
        Ok(self.socket.rx.refresh() == 0)
    }

    fn wake_fd(&self) -> Option<BorrowedFd<'_>> {
        Some(self.socket.as_fd())
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
    }
}
