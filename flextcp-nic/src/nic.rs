//! The NIC contract: one trait per queue, implemented by the software NIC and the Netronome driver.
//!
//! At any moment exactly one side owns a connection. [`Nic::install`] moves it to the NIC, and it comes
//! back by a punt (with the first exception) or by [`Nic::claim`]. The app buffers' host halves
//! ([`FlowBuffers`]) move along with the ownership, so the type system sees to it that there is one
//! writer.

#[cfg(any(test, feature = "conformance"))]
pub mod conformance;

use std::fmt;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::os::fd::BorrowedFd;

use crate::buffer::{RecvWriter, SendReader};
use crate::flow::{FlowId, FlowState, FlowTuple, Token};
use crate::port::{PortCounters, PortFull, PortInfo, RxFrame, TxFrame};
use crate::time::Instant;
use crate::wire::Packet;

/// The host's halves of a flow's app buffers.
#[derive(Debug)]
pub struct FlowBuffers {
    /// Where received payload is placed.
    pub recv: RecvWriter,
    /// Where payload to send is taken from.
    pub send: SendReader,
}

/// A connection given back by the NIC: its state and its buffers.
#[derive(Debug)]
pub struct Returned {
    /// What the host called it.
    pub token: Token,
    /// State at the moment the flow became host-owned.
    pub state: FlowState,
    /// The buffers' host halves.
    pub buffers: FlowBuffers,
    /// Where RFC 6298's retransmission timer runs from, as [`FlowProgress::outstanding_since`].
    pub outstanding_since: Option<Instant>,
}

/// NIC to host: deltas since the last notification of this flow.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct Notification {
    /// What the host calls the flow.
    pub token: Token,
    /// Bytes that arrived in order and are published in the receive ring.
    pub received: u32,
    /// Bytes that the peer acknowledged; their space in the send ring is free.
    pub acked: u32,
    /// Of `acked`, bytes acknowledged with ECE.
    pub acked_ece: u32,
    /// A data segment carried CE.
    pub congestion_experienced: bool,
    /// The send window the peer grants now, in bytes.
    pub snd_wnd: u32,
    /// Bytes in flight after this.
    pub in_flight: u32,
    /// Sending was limited by `cwnd` (not by the application or the peer's window) since the last one.
    pub cwnd_limited: bool,
    /// All that the application wrote was sent.
    pub app_limited: bool,
    /// A round-trip sample in microseconds, 0 for none.
    pub rtt_micros: u32,
}

/// Host to NIC: deltas, as hardware is told them.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct Doorbell {
    /// Bytes the application wrote into the send ring.
    pub sent: u32,
    /// Bytes the application read out of the receive ring.
    pub freed: u32,
}

/// Why a frame is an exception.
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
#[non_exhaustive]
pub enum Reason {
    /// No such flow: a SYN for a listener, a host-owned connection, or a stray.
    NoFlow,
    /// SYN, FIN, RST or URG, or no ACK.
    Flags,
    /// Does not start at RCV.NXT.
    OutOfOrder,
    /// Duplicate ACK with data outstanding.
    DuplicateAck,
    /// Carries SACK blocks.
    Sack,
    /// Timestamp older than TS.Recent, or missing (RFC 7323, section 5).
    Paws,
    /// Acknowledges what was not sent, or is older than SND.UNA.
    AckOutOfWindow,
    /// Payload beyond the window.
    OutOfWindow,
    /// Other TCP options than timestamps.
    Options,
    /// The peer closed its window with data waiting: zero-window probing is the engine's.
    ZeroWindow,
    /// No receive buffer is attached.
    NoBuffer,
    /// An ICMP error about a flow of ours.
    Icmp,
    /// IP options or extension headers, or a fragment.
    IpOptions,
    /// The flow is owned by the host: a frame that followed a punt.
    HostOwned,
}

impl Reason {
    /// All reasons, in the order of their counters.
    pub const ALL: [Self; 14] = [
        Self::NoFlow,
        Self::Flags,
        Self::OutOfOrder,
        Self::DuplicateAck,
        Self::Sack,
        Self::Paws,
        Self::AckOutOfWindow,
        Self::OutOfWindow,
        Self::Options,
        Self::ZeroWindow,
        Self::NoBuffer,
        Self::Icmp,
        Self::IpOptions,
        Self::HostOwned,
    ];

    /// Its place in [`Reason::ALL`] and in [`NicCounters::exceptions`].
    pub const fn index(self) -> usize {
        self as usize
    }

    /// Name as in counters and statistics.
    pub const fn name(self) -> &'static str {
        match self {
            Self::NoFlow => "no_flow",
            Self::Flags => "flags",
            Self::OutOfOrder => "out_of_order",
            Self::DuplicateAck => "duplicate_ack",
            Self::Sack => "sack",
            Self::Paws => "paws",
            Self::AckOutOfWindow => "ack_out_of_window",
            Self::OutOfWindow => "out_of_window",
            Self::Options => "options",
            Self::ZeroWindow => "zero_window",
            Self::NoBuffer => "no_buffer",
            Self::Icmp => "icmp",
            Self::IpOptions => "ip_options",
            Self::HostOwned => "host_owned",
        }
    }
}

/// A frame the fast path does not handle, whole, with what the NIC found in it.
#[derive(Debug)]
pub struct Exception<'a> {
    /// The frame.
    pub frame: RxFrame<'a>,
    /// Its headers, parsed and validated (checksum included).
    pub packet: &'a Packet,
    /// Why.
    pub reason: Reason,
    /// With the first exception of a flow the NIC owned: the connection comes back here. Boxed: most exceptions have none, and are
    /// moved with what it would take.
    pub returned: Option<Box<Returned>>,
}

/// Where [`Nic::poll`] delivers.
pub trait Sink {
    /// A delta of an installed flow.
    fn notification(&mut self, notification: Notification);
    /// A frame for the slow path.
    fn exception(&mut self, exception: Exception<'_>);
    /// A connection comes back without a frame: a claim that was pending, or a reset NIC.
    fn returned(&mut self, returned: Returned);
}

/// What [`Nic::claim`] answers.
#[derive(Debug)]
#[expect(
    clippy::large_enum_variant,
    reason = "returned once per claim and taken apart at once"
)]
pub enum Claim {
    /// The connection, now.
    Done(Returned),
    /// The NIC stops at its next quiescent point and gives it back through [`Sink::returned`].
    Pending,
}

/// The id names no flow: its generation is over.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct StaleFlow;

impl fmt::Display for StaleFlow {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("the flow is no longer on the NIC")
    }
}

impl std::error::Error for StaleFlow {}

/// Why [`Nic::install`] refused; the connection stays with the engine.
#[derive(Debug)]
pub struct InstallError {
    /// The reason.
    pub kind: InstallErrorKind,
    /// The buffers, back.
    pub buffers: FlowBuffers,
}

/// See [`InstallError`].
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
#[non_exhaustive]
pub enum InstallErrorKind {
    /// The flow table is full.
    TableFull,
    /// The tuple is installed already.
    Duplicate,
    /// The NIC cannot carry such a flow (address family, missing timestamps, ...).
    Unsupported,
}

/// What the slow path sets and the fast path enforces.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Limits {
    /// Congestion window in bytes.
    pub cwnd: u32,
    /// Pacing rate in bytes per millisecond, 0 for unlimited.
    pub pacing_rate: u32,
}

/// What [`Nic::arm`] answers.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Armed {
    /// The descriptor becomes readable at the next event: sleep.
    Armed,
    /// Something waits already: poll.
    Pending,
}

/// What the NIC is.
#[derive(Clone, Debug)]
pub struct Capabilities {
    /// `software`, `nfp`, `nfp-emu`: what statistics show.
    pub kind: &'static str,
    /// The port below, with MTU, addresses and offloads.
    pub port: PortInfo,
    /// Largest number of installed flows.
    pub max_flows: u32,
}

/// Counters of one side of the split.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct PathCounters {
    /// Frames in.
    pub frames_in: u64,
    /// Frames out.
    pub frames_out: u64,
    /// TCP payload bytes in.
    pub bytes_in: u64,
    /// TCP payload bytes out.
    pub bytes_out: u64,
}

/// Counters of one queue; they only grow.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct NicCounters {
    /// The fast path.
    pub fast: PathCounters,
    /// Pure ACKs the fast path sent.
    pub fast_acks_out: u64,
    /// Frames the slow path sent through this queue, and exceptions (frames in).
    pub slow: PathCounters,
    /// Exceptions, in the order of [`Reason::ALL`].
    pub exceptions: [u64; Reason::ALL.len()],
    /// Frames dropped: malformed headers.
    pub malformed: u64,
    /// Frames dropped: wrong checksum.
    pub bad_checksum: u64,
    /// Frames dropped: refused by a filter.
    pub filtered: u64,
    /// Flows installed.
    pub installed: u64,
    /// Flows punted by exceptions.
    pub punted: u64,
    /// Flows claimed by the host.
    pub claimed: u64,
    /// Doorbells refused (stale flow, bump beyond the buffer).
    pub bad_doorbells: u64,
    /// The port below.
    pub port: PortCounters,
}

/// Progress of an installed flow, for the host's timers.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct FlowProgress {
    /// State words as they are now.
    pub state: FlowState,
    /// Where RFC 6298's retransmission timer runs from, if anything is outstanding: the oldest unacknowledged
    /// segment was sent, or SND.UNA last moved, whichever was later.
    pub outstanding_since: Option<Instant>,
}

/// One per-core NIC queue.
///
/// All calls come from one thread at a time, the owner of the core. None blocks.
pub trait Nic: Send + fmt::Debug {
    /// What the NIC is and can do.
    fn capabilities(&self) -> &Capabilities;

    /// Takes in up to `budget` frames and delivers notifications and exceptions; returns the number of frames.
    /// A flow's notifications of one poll are merged into one, delivered before any exception of that flow.
    ///
    /// # Errors
    /// The device is gone: the queue must fall back.
    fn poll(&mut self, now: Instant, budget: usize, sink: &mut dyn Sink) -> io::Result<usize>;

    /// Rings a flow's doorbell: the application wrote or read. The implementation takes the deltas from the
    /// app buffers it holds ([`SendReader::take_written`], [`RecvWriter::take_freed`]); hardware gets them as a
    /// [`Doorbell`] descriptor. Nothing is sent before [`flush`](Self::flush).
    ///
    /// # Errors
    /// [`StaleFlow`].
    fn doorbell(&mut self, now: Instant, flow: FlowId) -> Result<(), StaleFlow>;

    /// Sends a raw frame of the slow path.
    ///
    /// # Errors
    /// [`PortFull`]: call [`flush`](Self::flush) and retry.
    fn transmit(&mut self, now: Instant, frame: TxFrame<'_>) -> Result<(), PortFull>;

    /// Sends what doorbells asked for and windows allow, the ACKs that are due, and kicks the port once.
    ///
    /// # Errors
    /// As [`poll`](Self::poll).
    fn flush(&mut self, now: Instant) -> io::Result<()>;

    /// Sends what the frames that were just taken in call for whatever the application does: full segments for which they made
    /// room, and ACKs of bulk. The rest, which a reply may join, waits for [`flush`](Self::flush). A NIC that sends by itself has
    /// nothing to do here.
    ///
    /// # Errors
    /// As [`poll`](Self::poll).
    fn resume(&mut self, now: Instant) -> io::Result<()> {
        let _ = now;
        Ok(())
    }

    /// When [`flush`](Self::flush) next has work by the clock (a delayed ACK, a paced segment).
    fn poll_at(&self) -> Option<Instant>;

    /// Hands an established, plain connection to the NIC.
    ///
    /// # Errors
    /// [`InstallError`] with the buffers.
    fn install(
        &mut self,
        now: Instant,
        token: Token,
        state: FlowState,
        buffers: FlowBuffers,
    ) -> Result<FlowId, InstallError>;

    /// Takes a connection back. Deltas not yet notified are in the returned state, not notified again.
    ///
    /// # Errors
    /// [`StaleFlow`]: it came back already.
    fn claim(&mut self, now: Instant, flow: FlowId) -> Result<Claim, StaleFlow>;

    /// Sets what the fast path enforces.
    ///
    /// # Errors
    /// [`StaleFlow`].
    fn set_limits(&mut self, flow: FlowId, limits: Limits) -> Result<(), StaleFlow>;

    /// Reads a flow's state without taking it.
    ///
    /// # Errors
    /// [`StaleFlow`].
    fn progress(&self, flow: FlowId) -> Result<FlowProgress, StaleFlow>;

    /// Frames for this address and port are ours from now on, and anybody may open a connection to it whom the NIC's
    /// filters let in: an unspecified address means every address.
    ///
    /// # Errors
    /// The steering table is full, or the device refused.
    fn listen(&mut self, local: SocketAddr) -> io::Result<()>;

    /// Ends [`listen`](Self::listen).
    ///
    /// # Errors
    /// The device refused.
    fn unlisten(&mut self, local: SocketAddr) -> io::Result<()>;

    /// Frames for this address and port are ours from now on, for a connection: as long as nobody listens there too,
    /// filters do not apply.
    ///
    /// # Errors
    /// As [`listen`](Self::listen).
    fn own(&mut self, local: SocketAddr) -> io::Result<()>;

    /// Ends [`own`](Self::own).
    ///
    /// # Errors
    /// The device refused.
    fn disown(&mut self, local: SocketAddr) -> io::Result<()>;

    /// Frames of this connection are ours from now on, whoever has the rest of its local port; filters as with
    /// [`own`](Self::own). A NIC that cannot tell the connections of a port apart takes it whole.
    ///
    /// # Errors
    /// As [`listen`](Self::listen).
    fn own_flow(&mut self, tuple: FlowTuple) -> io::Result<()> {
        self.own(tuple.local_addr())
    }

    /// Ends [`own_flow`](Self::own_flow).
    ///
    /// # Errors
    /// The device refused.
    fn disown_flow(&mut self, tuple: FlowTuple) -> io::Result<()> {
        self.disown(tuple.local_addr())
    }

    /// Frames of this connection belong to the kernel although its port is ours (a handed-over connection).
    ///
    /// # Errors
    /// The steering table is full, or the device refused.
    fn exclude(&mut self, tuple: FlowTuple) -> io::Result<()>;

    /// Ends [`exclude`](Self::exclude); without one it does nothing.
    ///
    /// # Errors
    /// The device refused.
    fn include(&mut self, tuple: FlowTuple) -> io::Result<()>;

    /// Whether this queue sees traffic for `address`.
    fn serves(&self, address: IpAddr) -> bool;

    /// Arms the wake-up.
    ///
    /// # Errors
    /// As [`poll`](Self::poll).
    fn arm(&mut self) -> io::Result<Armed>;

    /// The descriptor an armed queue makes readable; `None` for memory.
    fn wake_fd(&self) -> Option<BorrowedFd<'_>>;

    /// Counters.
    fn counters(&self) -> NicCounters;
}
