//! Bulk on `lo`: the large frames of its own sockets, which `bypass` of `bpf/steer.c` takes around XDP.
//!
//! XDP on `lo` runs on a copy of a large frame, and the AF_XDP socket is filled with another, both on the sender's
//! processor. A TAP's queue takes the frame as it is; it is copied when we read it, once, on our processor. How many
//! frames were sent into the queue stands in memory shared with the program, so that looking for them costs no system
//! call.

use std::fs;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use rustix::io::Errno;

use super::mapping::Mapping;
use crate::port::netdev;
use crate::port::tap::device::Device;
use crate::port::{RxChecksum, RxFrame, vnet};
use crate::time::Instant;

/// Frames the TAP's queue holds: more than the chunks of the AF_XDP socket, whose place it takes.
const QUEUE: u32 = 8192;

/// Largest frame: 64 KiB and an Ethernet header.
const LARGEST: usize = (64 << 10) + 14;

/// A frame that was counted and has not come for so long was dropped: the queue was full.
const LOST_AFTER: Duration = Duration::from_millis(10);

/// How often we look into the queue without a reason: when the kernel cut a frame in two, one more than was counted is there.
const LOOK_EVERY: Duration = Duration::from_millis(1);

/// Words of `struct bulk` in `bpf/steer.c`.
const IFINDEX: usize = 0;
const SENT: usize = 1;

/// The way around XDP, closed until [`open`](Self::open).
#[derive(Debug)]
pub(super) struct Bulk {
    tap: Device,
    ifindex: u32,
    shared: Mapping,
    /// Frames sent that need no waiting for: they were read, or lost.
    settled: u64,
    /// Frames read beyond those.
    read: u64,
    /// Since when a frame that was counted is not there.
    missing: Option<Instant>,
    looked: Instant,
    buffer: Box<[u8]>,
    // Without the program nothing is sent this way.
    _program: OwnedFd,
}

impl Bulk {
    /// Makes the TAP. `shared` is the program's map `BULK`, `program` its link.
    ///
    /// # Errors
    /// No TAPs in this kernel or container, or no right to make one. The text says what to do.
    pub(super) fn new(shared: Mapping, program: OwnedFd) -> io::Result<Self> {
        let tap = Device::open("flextcp%d", false)?;
        // It is nobody's network: no addresses, no router solicitations.
        match fs::write(
            format!("/proc/sys/net/ipv6/conf/{}/disable_ipv6", tap.name),
            "1",
        ) {
            Ok(()) => {}
            Err(error) => tracing::debug!(interface = tap.name, %error, "IPv6 stays on"),
        }
        let ifindex = netdev::bring_up(&tap.name, QUEUE)?;
        Ok(Self {
            tap,
            ifindex,
            shared,
            settled: 0,
            read: 0,
            missing: None,
            looked: Instant::from_nanos(0),
            buffer: vec![0; vnet::LEN + LARGEST].into_boxed_slice(),
            _program: program,
        })
    }

    /// From now on large frames go this way.
    pub(super) fn open(&self) {
        self.word(IFINDEX)
            .store(u64::from(self.ifindex), Ordering::Release);
    }

    /// Large frames go the way of all others again.
    pub(super) fn close(&self) {
        self.word(IFINDEX).store(0, Ordering::Release);
    }

    /// Whether frames were sent that were not read.
    pub(super) fn waits(&self) -> bool {
        self.sent() != self.settled
    }

    /// The next frame; `None` when there is none now.
    pub(super) fn receive(&mut self, now: Instant) -> Option<RxFrame<'_>> {
        if !self.waits() && now.saturating_since(self.looked) < LOOK_EVERY {
            return None;
        }
        self.looked = now;
        loop {
            let sent = self.sent();
            match rustix::io::read(&self.tap.fd, &mut self.buffer[..]) {
                Ok(len) if is_from_lo(self.buffer.get(vnet::LEN..len).unwrap_or_default()) => {
                    self.read += 1;
                    self.missing = None;
                    let frame = &self.buffer[vnet::LEN..len];
                    return Some(RxFrame::contiguous(frame, RxChecksum::Trusted));
                }
                // What the kernel says on every interface that is up.
                Ok(_) | Err(Errno::INTR) => {}
                Err(_) => {
                    let since = *self.missing.get_or_insert(now);
                    if sent - self.settled <= self.read || now.saturating_since(since) >= LOST_AFTER
                    {
                        self.settled = sent;
                        self.read = 0;
                        self.missing = None;
                    }
                    return None;
                }
            }
        }
    }

    fn sent(&self) -> u64 {
        self.word(SENT).load(Ordering::Acquire)
    }

    fn word(&self, index: usize) -> &AtomicU64 {
        self.shared
            .word(index)
            .expect("the map's value has two words")
    }
}

/// Frames of `lo` have no hardware address; those that the kernel sends over the TAP itself have the TAP's.
fn is_from_lo(frame: &[u8]) -> bool {
    frame.get(6..12) == Some(&[0; 6])
}

impl AsFd for Bulk {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.tap.fd.as_fd()
    }
}
