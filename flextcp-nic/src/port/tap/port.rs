//! The port: frames of one TAP queue.

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::Errno;

use super::TapConfig;
use super::batch::{Batch, MAX_BATCH, Piece};
use super::device::Device;
use super::neighbor::{Handled, Neighbors};
use crate::port::netdev::NetDevice;
use crate::port::vnet;
use crate::port::{Port, PortCounters, PortFull, PortInfo, RxFrame, TxFrame};
use crate::time::Instant;
use crate::wire::MacAddr;

/// Largest frame either way: 64 KiB of IP packet, Ethernet header, one tag, virtio header.
const MAX_FRAME: usize = 65535 + 18 + vnet::LEN;

/// Bytes between two frames in receive memory.
const RX_SLOT: usize = MAX_FRAME.next_multiple_of(4096);

/// Frames read in one system call at most.
const RX_SLOTS: usize = 32;

/// Reads tried when nothing is known of the load; a read that finds nothing is wasted.
const RX_TRY: usize = 4;

/// Bytes of frames written in one flush at most.
const TX_MEMORY: usize = 2 << 20;

/// One queue of a TAP. About 4 MiB of memory, of which small frames touch little.
#[derive(Debug)]
pub struct TapPort {
    rx: Batch,
    tx: Batch,
    /// Frames to write: pieces of `tx`, one after the other.
    queued: Vec<Piece>,
    tx_end: usize,
    /// Reads to try next time.
    rx_try: usize,
    results: Vec<Result<usize, Errno>>,
    neighbors: Neighbors,
    peer_mac: MacAddr,
    info: PortInfo,
    counters: PortCounters,
    device: Device,
}

impl TapPort {
    /// Attaches to the TAP called `name`, which is made when it does not exist (that needs CAP_NET_ADMIN).
    ///
    /// # Errors
    /// The text says what is missing and what to do.
    pub fn open(name: &str, config: TapConfig) -> io::Result<Self> {
        Self::new(Device::open(name, config.multi_queue)?, config, true)
    }

    /// Takes over a descriptor of `/dev/net/tun` that is attached with `IFF_TAP`, `IFF_NO_PI` and `IFF_VNET_HDR`.
    ///
    /// # Errors
    /// It is not such a descriptor.
    pub fn from_fd(fd: OwnedFd, config: TapConfig) -> io::Result<Self> {
        Self::new(Device::from_fd(fd)?, config, true)
    }

    pub(super) fn new(device: Device, config: TapConfig, allow_ring: bool) -> io::Result<Self> {
        let link = NetDevice::by_name(&device.name)?;
        let mac = config.mac.unwrap_or_else(|| beside(link.mac));
        let info = PortInfo {
            name: format!("tap:{}", device.name),
            ifindex: link.ifindex,
            mac,
            mtu: link.mtu,
            tx_checksum: true,
            tx_segment_max: Some(u16::MAX.into()),
        };
        Ok(Self {
            rx: Batch::new(RX_SLOTS * RX_SLOT, allow_ring),
            tx: Batch::new(TX_MEMORY, allow_ring),
            queued: Vec::with_capacity(MAX_BATCH),
            tx_end: 0,
            rx_try: RX_TRY,
            results: Vec::with_capacity(MAX_BATCH),
            neighbors: Neighbors::new(mac, config.addresses),
            peer_mac: link.mac,
            info,
            counters: PortCounters::default(),
            device,
        })
    }

    /// The neighbours on the link, and our addresses.
    pub fn neighbors(&self) -> Neighbors {
        self.neighbors.clone()
    }

    /// The hardware address of the kernel's end: the next hop to everything, unless the TAP is bridged.
    pub const fn peer_mac(&self) -> MacAddr {
        self.peer_mac
    }

    /// Room for `len` more bytes as one frame.
    fn reserve(&mut self, len: usize) -> Option<&mut [u8]> {
        if self.queued.len() == MAX_BATCH || TX_MEMORY - self.tx_end < len {
            return None;
        }
        let start = self.tx_end;
        let place = self.tx.memory_mut().get_mut(start..start + len)?;
        self.queued.push((start, len));
        self.tx_end += len;
        Some(place)
    }

    /// Queues a frame of the port's own; dropped when there is no room, its protocol asks again.
    fn queue_own(&mut self, frame: &[u8]) {
        if let Some(place) = self.reserve(vnet::LEN + frame.len()) {
            let (header, bytes) = place.split_at_mut(vnet::LEN);
            header.fill(0);
            bytes.copy_from_slice(frame);
        }
    }

    fn write_queued(&mut self) -> io::Result<()> {
        if self.queued.is_empty() {
            return Ok(());
        }
        self.counters.kicks += self
            .tx
            .write(&self.device.fd, &self.queued, &mut self.results)?;
        for (result, (_, len)) in self.results.iter().zip(&self.queued) {
            match result {
                Ok(_) => {
                    self.counters.tx_frames += 1;
                    self.counters.tx_bytes += (len - vnet::LEN) as u64;
                }
                Err(Errno::BADFD) => return Err(gone(&self.info)),
                // Down (EIO), out of memory, or malformed: lost, as on a wire.
                Err(error) => tracing::trace!(%error, "the TAP refused a frame"),
            }
        }
        self.queued.clear();
        self.tx_end = 0;
        Ok(())
    }
}

/// The device's own address, made another one of the same link.
fn beside(mac: MacAddr) -> MacAddr {
    let [first, rest @ .., last] = mac.0;
    let [a, b, c, d] = rest;
    MacAddr([(first | 0x02) & !0x01, a, b, c, d, last ^ 0x01])
}

fn gone(info: &PortInfo) -> io::Error {
    let text = format!("{}: the TAP was removed", info.name);
    io::Error::new(io::ErrorKind::NotConnected, text)
}

impl Port for TapPort {
    fn info(&self) -> &PortInfo {
        &self.info
    }

    fn receive(
        &mut self,
        _now: Instant,
        budget: usize,
        sink: &mut dyn FnMut(RxFrame<'_>),
    ) -> io::Result<usize> {
        const PIECES: [Piece; RX_SLOTS] = {
            let mut pieces = [(0, RX_SLOT); RX_SLOTS];
            let mut index = 0;
            while index < RX_SLOTS {
                pieces[index].0 = index * RX_SLOT;
                index += 1;
            }
            pieces
        };
        let mut frames = 0;
        while frames < budget {
            let wanted = self.rx_try.min(budget - frames);
            let mut results = std::mem::take(&mut self.results);
            let read = self
                .rx
                .read(&self.device.fd, &PIECES[..wanted], &mut results);
            self.counters.kicks += read?;
            let mut found = 0;
            let mut replies = Vec::new();
            for (result, (start, _)) in results.iter().zip(PIECES) {
                let len = match result {
                    Ok(len) => *len,
                    Err(Errno::AGAIN) => break,
                    Err(Errno::BADFD) => return Err(gone(&self.info)),
                    // The kernel had a frame and could not hand it over.
                    Err(_) => {
                        self.counters.rx_dropped += 1;
                        continue;
                    }
                };
                found += 1;
                let bytes = &self.rx.memory()[start..start + len];
                let Some((header, frame)) = bytes.split_first_chunk::<{ vnet::LEN }>() else {
                    continue;
                };
                self.counters.rx_frames += 1;
                self.counters.rx_bytes += frame.len() as u64;
                match self.neighbors.handle(frame) {
                    Handled::Reply(reply) => replies.push(reply),
                    Handled::Quiet => {}
                    // The kernel also sends here what it multicasts.
                    Handled::No if !frame.starts_with(&self.info.mac.0) => {}
                    Handled::No => sink(RxFrame::contiguous(frame, vnet::checksum(header))),
                }
            }
            self.results = results;
            replies.iter().for_each(|reply| self.queue_own(reply));
            frames += found;
            if found < wanted {
                self.rx_try = (found + 1).clamp(RX_TRY, RX_SLOTS);
                break;
            }
            self.rx_try = (self.rx_try * 2).min(RX_SLOTS);
        }
        Ok(frames)
    }

    fn transmit(&mut self, _now: Instant, frame: TxFrame<'_>) -> Result<(), PortFull> {
        let Some(header) = vnet::header(&frame).filter(|_| frame.len() + vnet::LEN <= MAX_FRAME)
        else {
            // No retry would help: lost, as on a wire that does not take it.
            return Ok(());
        };
        let Some(mut place) = self.reserve(vnet::LEN + frame.len()) else {
            self.counters.tx_full += 1;
            return Err(PortFull);
        };
        for part in [
            &header[..],
            frame.header,
            frame.payload[0],
            frame.payload[1],
        ] {
            let (now, later) = place.split_at_mut(part.len());
            now.copy_from_slice(part);
            place = later;
        }
        Ok(())
    }

    fn flush(&mut self, now: Instant) -> io::Result<()> {
        for question in self.neighbors.questions(now) {
            self.queue_own(&question);
        }
        self.write_queued()
    }

    fn arm(&mut self) -> io::Result<bool> {
        self.write_queued()?;
        let mut fds = [PollFd::new(&self.device.fd, PollFlags::IN)];
        // A frame that comes after this look wakes the descriptor, level- or edge-triggered.
        let ready = poll(
            &mut fds,
            Some(&Timespec {
                tv_sec: 0,
                tv_nsec: 0,
            }),
        )?;
        if ready > 0
            && fds[0]
                .revents()
                .intersects(PollFlags::ERR | PollFlags::NVAL)
        {
            return Err(gone(&self.info));
        }
        Ok(ready == 0)
    }

    fn wake_fd(&self) -> Option<BorrowedFd<'_>> {
        Some(self.device.fd.as_fd())
    }

    fn poll_at(&self) -> Option<Instant> {
        self.neighbors.poll_at()
    }

    fn counters(&self) -> PortCounters {
        self.counters
    }
}
