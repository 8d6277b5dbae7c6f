//! Ports: the packet I/O below the software NIC, its MAC. Not a TCP port.
//!
//! A port moves Ethernet frames and knows nothing of TCP. It receives in batches, transmits into a
//! batch that one [`Port::flush`] hands to the wire, and has one descriptor to wait on.

pub mod capture;
pub mod impair;
pub mod memory;
#[cfg(target_os = "linux")]
mod netdev;
#[cfg(target_os = "linux")]
pub mod packet;
#[cfg(target_os = "linux")]
pub mod tap;
#[cfg(all(test, target_os = "linux"))]
pub(crate) mod testing;
#[cfg(target_os = "linux")]
pub mod unix;
#[cfg(target_os = "linux")]
mod vnet;
pub(crate) mod wake;
#[cfg(target_os = "linux")]
pub mod xdp;

use std::io;
use std::num::NonZeroU16;
use std::os::fd::BorrowedFd;

use crate::time::Instant;
use crate::wire::MacAddr;

/// What is known of a received frame's transport checksum.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum RxChecksum {
    /// The link verified it, or said that the frame never left the machine.
    Trusted,
    /// Nobody looked, and a local sender may have left it to hardware that does not exist (`CHECKSUM_PARTIAL` on
    /// `lo` and veth): a field that holds the pseudo-header's sum passes, any other is verified in full.
    MaybePartial,
    /// Nobody looked: the NIC verifies it.
    Unverified,
}

/// One received frame, as fragments in the port's own memory.
///
/// `head` holds all headers (Ethernet up to the TCP options) and the first payload bytes; `tail` the
/// further fragments of a multi-buffer frame, in order, empty for most.
#[derive(Clone, Copy, Debug)]
pub struct RxFrame<'a> {
    /// First fragment, from the Ethernet header.
    pub head: &'a [u8],
    /// Further fragments.
    pub tail: &'a [&'a [u8]],
    /// Checksum knowledge.
    pub checksum: RxChecksum,
}

impl<'a> RxFrame<'a> {
    /// A frame in one piece.
    pub const fn contiguous(head: &'a [u8], checksum: RxChecksum) -> Self {
        Self {
            head,
            tail: &[],
            checksum,
        }
    }

    /// Bytes in all fragments.
    pub fn len(&self) -> usize {
        self.head.len()
            + self
                .tail
                .iter()
                .map(|fragment| fragment.len())
                .sum::<usize>()
    }

    /// Whether the frame has no byte.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The bytes from `offset` (into the whole frame) on, fragment by fragment, at most `len` of them.
    pub fn slices(&self, offset: usize, len: usize) -> impl Iterator<Item = &'a [u8]> + use<'a> {
        let mut skip = offset;
        let mut left = len;
        std::iter::once(self.head)
            .chain(self.tail.iter().copied())
            .filter_map(move |fragment| {
                let start = skip.min(fragment.len());
                skip -= start;
                let rest = &fragment[start..];
                let take = rest.len().min(left);
                left -= take;
                (take > 0).then(|| &rest[..take])
            })
    }

    /// The whole frame copied into one vector.
    pub fn to_vec(&self) -> Vec<u8> {
        let mut bytes = Vec::with_capacity(self.len());
        self.slices(0, usize::MAX)
            .for_each(|slice| bytes.extend_from_slice(slice));
        bytes
    }
}

/// Work the port does on a frame before it reaches the wire (virtio-net's terms).
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct TxOffload {
    /// The TCP checksum field holds the folded pseudo-header sum; the port completes it.
    pub checksum: bool,
    /// Cut the payload into segments of this many bytes (TSO).
    pub segment: Option<NonZeroU16>,
}

/// One frame to send: complete headers, then payload straight out of an app buffer (two slices when
/// the ring wraps, either may be empty).
#[derive(Clone, Copy, Debug)]
pub struct TxFrame<'a> {
    /// Ethernet, IP and TCP headers (or a whole frame, with no payload).
    pub header: &'a [u8],
    /// Payload, in order.
    pub payload: [&'a [u8]; 2],
    /// What the port still has to do; all zero unless its capabilities allow more.
    pub offload: TxOffload,
}

impl TxFrame<'_> {
    /// Bytes of the whole frame.
    pub fn len(&self) -> usize {
        self.header.len() + self.payload[0].len() + self.payload[1].len()
    }

    /// Whether the frame has no byte.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

/// What a port is and can do; fixed while it is open.
#[derive(Clone, Debug)]
pub struct PortInfo {
    /// For people: `xdp:veth0/0 (native, copy)`, `tap:flex0`, `hairpin`.
    pub name: String,
    /// Kernel interface index, 0 for in-memory ports.
    pub ifindex: u32,
    /// Own hardware address; all zero on `lo`.
    pub mac: MacAddr,
    /// Largest IP packet of one segment, as on the interface.
    pub mtu: u32,
    /// Transmit checksum completion ([`TxOffload::checksum`]).
    pub tx_checksum: bool,
    /// Largest IP packet of a segmentation-offload super-frame ([`TxOffload::segment`]); `None` without TSO.
    pub tx_segment_max: Option<u32>,
}

/// The transmit batch is full: flush, then try again.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct PortFull;

impl std::fmt::Display for PortFull {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("the port's transmit ring is full; flush it and retry")
    }
}

impl std::error::Error for PortFull {}

/// Counters of a port; they only grow.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct PortCounters {
    /// Frames and bytes received.
    pub rx_frames: u64,
    /// Bytes received.
    pub rx_bytes: u64,
    /// Frames sent.
    pub tx_frames: u64,
    /// Bytes sent.
    pub tx_bytes: u64,
    /// Frames the port or the kernel below it dropped on receive (ring full, no buffer).
    pub rx_dropped: u64,
    /// Frames refused because the transmit ring was full.
    pub tx_full: u64,
    /// Wake-up system calls.
    pub kicks: u64,
}

/// Packet I/O of one queue.
pub trait Port: Send + std::fmt::Debug {
    /// What the port is.
    fn info(&self) -> &PortInfo;

    /// Passes up to `budget` received frames to `sink`, in order; returns how many.
    ///
    /// # Errors
    /// The interface is gone or down for good; the queue must fall back.
    fn receive(
        &mut self,
        now: Instant,
        budget: usize,
        sink: &mut dyn FnMut(RxFrame<'_>),
    ) -> io::Result<usize>;

    /// Copies `frame` into the transmit batch.
    ///
    /// # Errors
    /// [`PortFull`]: nothing was taken.
    fn transmit(&mut self, now: Instant, frame: TxFrame<'_>) -> Result<(), PortFull>;

    /// Hands the batch to the wire, with at most one system call.
    ///
    /// # Errors
    /// As [`Port::receive`].
    fn flush(&mut self, now: Instant) -> io::Result<()>;

    /// Asks for [`Port::wake_fd`] to become readable at the next frame. Returns `false` when frames wait
    /// already: poll instead of sleeping. Race-free: a frame that arrives after the call wakes.
    fn arm(&mut self) -> io::Result<bool>;

    /// The descriptor that an armed port makes readable; `None` for ports without one (memory).
    fn wake_fd(&self) -> Option<BorrowedFd<'_>>;

    /// When the port itself next has a frame without anybody sending one (a delaying memory wire).
    fn poll_at(&self) -> Option<Instant> {
        None
    }

    /// Counters.
    fn counters(&self) -> PortCounters;
}

impl<P: Port + ?Sized> Port for Box<P> {
    fn info(&self) -> &PortInfo {
        (**self).info()
    }

    fn receive(
        &mut self,
        now: Instant,
        budget: usize,
        sink: &mut dyn FnMut(RxFrame<'_>),
    ) -> io::Result<usize> {
        (**self).receive(now, budget, sink)
    }

    fn transmit(&mut self, now: Instant, frame: TxFrame<'_>) -> Result<(), PortFull> {
        (**self).transmit(now, frame)
    }

    fn flush(&mut self, now: Instant) -> io::Result<()> {
        (**self).flush(now)
    }

    fn arm(&mut self) -> io::Result<bool> {
        (**self).arm()
    }

    fn wake_fd(&self) -> Option<BorrowedFd<'_>> {
        (**self).wake_fd()
    }

    fn poll_at(&self) -> Option<Instant> {
        (**self).poll_at()
    }

    fn counters(&self) -> PortCounters {
        (**self).counters()
    }
}
