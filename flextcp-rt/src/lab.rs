//! The lab: a whole host to be driven step by step, for simulators, fuzzers and conformance tools.
//!
//! A [`Lab`] is what a process has of FlexTCP (software NIC, engine, reactor core, sockets with their rings and
//! readiness), without what makes it hard to test: no thread, no task, no clock, no global, no descriptor. Time is
//! passed in, randomness comes from a seed, and the wire is in the caller's hands. The same calls with the same
//! arguments give the same frames.
//!
//! | to | call |
//! |---|---|
//! | put a frame on the wire, take one off | [`inject`](Lab::inject), [`drain`](Lab::drain), [`take_sent`](Lab::take_sent) |
//! | let the host work | [`poll`](Lab::poll) for one turn, [`run`](Lab::run) until it rests |
//! | know when it must work again | [`poll_at`](Lab::poll_at) |
//! | be its application | [`socket`](Lab::socket), [`bind`](Lab::bind), [`listen`](Lab::listen), [`accept`](Lab::accept), [`connect`](Lab::connect), [`read`](Lab::read), [`peek`](Lab::peek), [`write`](Lab::write), [`shutdown`](Lab::shutdown), [`close`](Lab::close), [`abort`](Lab::abort) |
//! | look inside | [`status`](Lab::status), [`info`](Lab::info), [`queue_sizes`](Lab::queue_sizes), [`take_error`](Lab::take_error), [`counts`](Lab::counts), [`stats`](Lab::stats) |
//!
//! Socket calls never wait: they answer `WouldBlock`. What they ask for takes effect in the next turn, as the
//! reactor's do, so a reply that the application writes between two turns carries the ACK.
//!
//! Connections go to the NIC as [`EngineConfig::offload`] says: never, always, or by a coin from a seed, which also
//! takes them back in mid-flight.
//!
//! A handshake by hand, frame by frame:
//!
//! ```
//! use std::net::{IpAddr, SocketAddr};
//!
//! use flextcp_nic::seq::SeqNum;
//! use flextcp_nic::time::Instant;
//! use flextcp_nic::wire::{MAX_HEADER_LEN, MacAddr, Packet, SegmentRepr, TcpFlags, TcpOptions};
//! use flextcp_rt::lab::{Lab, LabConfig, Status, parse};
//!
//! let (ours, peer) = (IpAddr::from([192, 0, 2, 1]), IpAddr::from([192, 0, 2, 2]));
//! let mut host = Lab::new(LabConfig { addresses: vec![ours], ..LabConfig::default() });
//! let mut now = Instant::from_millis(1_000);
//!
//! let socket = host.socket();
//! host.connect(socket, SocketAddr::new(peer, 80))?;
//! host.run(now);
//! assert_eq!(host.status(socket), Status::Connecting);
//!
//! // Its SYN.
//! let frames = host.drain();
//! let [frame] = &frames[..] else { panic!("one frame") };
//! let Some(Packet::Tcp(syn)) = parse(frame) else { panic!("a segment") };
//! assert_eq!(syn.tcp.flags, TcpFlags::SYN);
//! assert_eq!(syn.tcp.options.mss, Some(1460));
//!
//! // Our SYN-ACK, 20 ms later. A packet names its ends as its receiver sees them, a segment as its sender does.
//! now += std::time::Duration::from_millis(20);
//! let reply = SegmentRepr {
//!     src_mac: syn.dst_mac,
//!     dst_mac: syn.src_mac,
//!     tuple: syn.tuple,
//!     tos: 0,
//!     ttl: 64,
//!     seq: SeqNum(7_000),
//!     ack: syn.tcp.seq + 1,
//!     flags: TcpFlags::SYN | TcpFlags::ACK,
//!     window: 65_535,
//!     urgent: 0,
//!     options: TcpOptions { mss: Some(1460), ..TcpOptions::default() },
//! };
//! let mut frame = [0; MAX_HEADER_LEN];
//! let len = reply.emit([&[], &[]], false, &mut frame);
//! host.inject(&frame[..len]);
//! host.run(now);
//! assert_eq!(host.status(socket), Status::Connected);
//!
//! // Its ACK.
//! let frames = host.drain();
//! let Some(Packet::Tcp(ack)) = parse(&frames[0]) else { panic!("a segment") };
//! assert_eq!(ack.tcp.flags, TcpFlags::ACK);
//! assert_eq!(ack.tcp.ack, SeqNum(7_001));
//!
//! // What is written leaves in the next turn.
//! assert_eq!(host.write(socket, b"hello")?, 5);
//! host.run(now);
//! let frames = host.drain();
//! let Some(Packet::Tcp(data)) = parse(&frames[0]) else { panic!("a segment") };
//! assert_eq!((data.tcp.seq, data.payload_len), (ack.tcp.seq, 5));
//! // And again when nobody acknowledges it.
//! let due = host.poll_at().expect("a retransmission timer");
//! host.run(due);
//! assert_eq!(host.drain().len(), 1);
//! # Ok::<(), std::io::Error>(())
//! ```
//!
//! [`EngineConfig::offload`]: crate::tcp::EngineConfig::offload

mod counts;
mod ports;
mod socket;
#[cfg(test)]
mod tests;

use std::collections::BTreeMap;
use std::fmt;
use std::io::Write;
use std::net::IpAddr;
use std::ops::RangeInclusive;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use flextcp_nic::buffer::Pool;
use flextcp_nic::port::capture::{Capture, CaptureConfig};
pub use flextcp_nic::port::memory::SentFrame;
use flextcp_nic::port::memory::{MemoryConfig, OpenEnd, OpenPort};
use flextcp_nic::port::{Port, RxChecksum, RxFrame};
use flextcp_nic::soft::{SoftConfig, SoftNic};
use flextcp_nic::time::Instant;
use flextcp_nic::wire::{self, MacAddr, Packet};

pub use counts::Counts;
pub use socket::{QueueSizes, SocketId, Status};

use counts::Owned;
use ports::Ports;
use socket::Socket;

use crate::metrics::Stats;
use crate::reactor::clock::Clock;
use crate::reactor::core::Core;
use crate::reactor::driver::DriverShared;
use crate::reactor::guard::Guard;
use crate::socket::RuntimeHandle;
use crate::tcp::{Engine, EngineConfig};

/// Turns after which [`Lab::run`] takes a host that finds ever more to do at one moment for broken.
const MAX_TURNS: usize = 100_000;

/// What a [`Lab`] is made from.
#[derive(Clone, Debug)]
pub struct LabConfig {
    /// For people, and the name of the interface in a capture.
    pub name: String,
    /// Where initial sequence numbers, timestamp offsets, hash keys and ephemeral ports come from.
    pub seed: u64,
    /// The host's own addresses. A connection leaves from the first of its peer's family.
    pub addresses: Vec<IpAddr>,
    /// Its hardware address.
    pub mac: MacAddr,
    /// The hardware address to which frames of outgoing connections go, whoever the peer is. Those of incoming
    /// connections go where the SYN came from.
    pub gateway: MacAddr,
    /// Largest IP packet of the interface.
    pub mtu: u32,
    /// Largest IP packet of a super-frame, up to 65,535: the interface cuts segments (TSO), or its peer takes them whole as
    /// veth does. [`Lab::take_sent`] tells where to cut. `None` without: all frames are of one segment.
    pub segmentation: Option<u32>,
    /// Ports for sockets that are not bound.
    pub ephemeral: RangeInclusive<u16>,
    /// Bytes that rings may take, of all connections together.
    pub memory: u64,
    /// Limits and times of the engine, and what goes to the NIC.
    pub engine: EngineConfig,
}

impl Default for LabConfig {
    /// 10.0.0.1 and fd00::1 on Ethernet, with Linux's ephemeral ports.
    fn default() -> Self {
        Self {
            name: "lab".into(),
            seed: 1,
            addresses: vec![
                IpAddr::from([10, 0, 0, 1]),
                IpAddr::from([0xfd00, 0, 0, 0, 0, 0, 0, 1]),
            ],
            mac: MacAddr([2, 0, 0, 0, 0, 1]),
            gateway: MacAddr([2, 0, 0, 0, 0, 0xfe]),
            mtu: 1500,
            segmentation: None,
            ephemeral: 32_768..=60_999,
            memory: 1 << 30,
            engine: EngineConfig::default(),
        }
    }
}

/// A whole host, to be driven by hand. See the [module](self).
pub struct Lab {
    core: Arc<Core>,
    driver: Arc<DriverShared>,
    wire: OpenEnd,
    clock: Arc<AtomicU64>,
    pool: Arc<Pool>,
    addresses: Vec<IpAddr>,
    mac: MacAddr,
    gateway: MacAddr,
    mtu: u32,
    sockets: BTreeMap<SocketId, Socket>,
    next_socket: u64,
    ports: Ports,
    owned: Owned,
    /// The last turn did something: there may be more to do at the same moment.
    busy: bool,
    next: Option<Instant>,
}

impl Lab {
    /// A host at time zero.
    pub fn new(config: LabConfig) -> Self {
        let (port, wire) = open_port(&config);
        Self::over(Box::new(port), wire, config)
    }

    /// A host whose frames, in and out, are written to `writer` as pcapng.
    ///
    /// # Errors
    /// The file's header cannot be written.
    pub fn capturing(
        config: LabConfig,
        writer: impl Write + Send + 'static,
    ) -> std::io::Result<Self> {
        let (port, wire) = open_port(&config);
        let port = Capture::new(port, writer, CaptureConfig::default())?;
        Ok(Self::over(Box::new(port), wire, config))
    }

    fn over(port: Box<dyn Port>, wire: OpenEnd, config: LabConfig) -> Self {
        let mut seeds = Seeds(config.seed);
        let clock = Arc::new(AtomicU64::new(0));
        let manual = Clock::manual(Arc::clone(&clock));
        let pool = Pool::new(config.memory);
        let owned = Owned::default();
        let mut soft = SoftConfig::new(seeds.secret());
        soft.delayed_ack = config.engine.delayed_ack;
        soft.recv_sizes.first = config.engine.recv_buffer_initial;
        soft.recv_sizes.max = config.engine.recv_buffer_max;
        let nic = SoftNic::new(port, Box::new(owned.clone()), soft);
        let engine = Engine::new(config.engine, seeds.secret(), Arc::clone(&pool));
        // A guard without a core never starts its thread.
        let guard = Guard::new(manual.clone());
        let core = Core::new(config.name, manual, guard, Box::new(nic), engine);
        let driver = DriverShared::new(Arc::clone(&core), RuntimeHandle::new());
        Self {
            core,
            driver,
            wire,
            clock,
            pool,
            addresses: config.addresses,
            mac: config.mac,
            gateway: config.gateway,
            mtu: config.mtu,
            sockets: BTreeMap::new(),
            next_socket: 0,
            ports: Ports::new(config.ephemeral, seeds.next()),
            owned,
            busy: false,
            next: None,
        }
    }

    /// Puts a frame, from its Ethernet header on, before the host; its next turn takes it in. Checksums are verified,
    /// hardware addresses are not: whatever is injected was meant for this host.
    pub fn inject(&mut self, frame: &[u8]) {
        self.wire.inject(frame.to_vec());
    }

    /// [`inject`](Self::inject) without a copy.
    pub fn inject_owned(&mut self, frame: Vec<u8>) {
        self.wire.inject(frame);
    }

    /// The frames that the host sent since the last call, in order.
    pub fn drain(&mut self) -> Vec<Vec<u8>> {
        let frames = self.wire.drain().into_iter();
        frames.map(|frame| frame.bytes).collect()
    }

    /// The oldest of them.
    pub fn take_frame(&mut self) -> Option<Vec<u8>> {
        self.wire.take().map(|frame| frame.bytes)
    }

    /// The oldest of them, and where a NIC would cut it if it is a super-frame ([`LabConfig::segmentation`]).
    pub fn take_sent(&mut self) -> Option<SentFrame> {
        self.wire.take()
    }

    /// One turn of the reactor at `now`: what the application did, timers, transmission; then what arrived. Returns
    /// how much there was to do; 0 means that nothing is left at this moment. Time does not go back: an earlier `now`
    /// is taken for the latest.
    pub fn poll(&mut self, now: Instant) -> usize {
        let now = self.advance(now);
        match self.core.turn(now) {
            Ok(turn) => {
                self.busy = turn.work > 0;
                self.next = turn.next;
                turn.work
            }
            Err(error) => {
                self.core.fail(&error);
                self.busy = false;
                self.next = None;
                0
            }
        }
    }

    /// Turns at `now` until nothing is left to do at this moment.
    ///
    /// # Panics
    /// There is no end to it: a bug in the host.
    pub fn run(&mut self, now: Instant) {
        for _ in 0..MAX_TURNS {
            if self.poll(now) == 0 && self.poll_at().is_none_or(|at| at > self.now()) {
                return;
            }
        }
        panic!("the host does not come to rest at {now:?}: {self:?}");
    }

    /// When to [`poll`](Self::poll) next: not after [`now`](Self::now) when there is something to do already, `None`
    /// when only a frame or a socket call can give it something to do.
    pub fn poll_at(&self) -> Option<Instant> {
        if self.busy || self.core.has_queued() || self.wire.waiting() > 0 {
            return Some(self.now());
        }
        self.next
    }

    /// The latest time that was passed in.
    pub fn now(&self) -> Instant {
        Instant::from_nanos(self.clock.load(Ordering::Relaxed))
    }

    fn advance(&self, now: Instant) -> Instant {
        let nanos = now.as_nanos();
        Instant::from_nanos(self.clock.fetch_max(nanos, Ordering::Relaxed).max(nanos))
    }

    /// Changes the next hop, of open connections too.
    pub fn set_gateway(&mut self, gateway: MacAddr) {
        self.gateway = gateway;
        self.core.relink(|_| Some(gateway));
    }

    /// Bytes that rings take now, and may take ([`LabConfig::memory`]; the smallest blocks are given beyond it).
    pub fn memory(&self) -> (u64, u64) {
        (self.pool.used(), self.pool.limit())
    }

    /// Counters of NIC and engine, as a process reports them.
    pub fn stats(&self) -> Stats {
        let mut stats = Stats::new();
        let (nic, engine) = self.core.counters();
        stats.add_queue(&self.core.capabilities(), &nic, false);
        stats.add_engine(&engine);
        stats.add_reactor(&self.core.reactor_counters());
        stats.add_memory(self.pool.used(), self.pool.limit());
        stats
    }
}

impl Drop for Lab {
    fn drop(&mut self) {
        self.sockets.clear();
        // Streams know their core and the core its streams.
        self.core.dismantle();
    }
}

impl fmt::Debug for Lab {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Lab")
            .field("name", &self.core.name())
            .field("now", &self.now())
            .field("counts", &self.counts())
            .finish_non_exhaustive()
    }
}

/// What a frame says, as the host it is for reads it; `None` when it is neither an intact TCP segment nor an ICMP error
/// about one.
pub fn parse(frame: &[u8]) -> Option<Packet> {
    wire::parse(&RxFrame::contiguous(frame, RxChecksum::Unverified)).ok()
}

fn open_port(config: &LabConfig) -> (OpenPort, OpenEnd) {
    OpenPort::new(MemoryConfig {
        name: config.name.clone(),
        mac: config.mac,
        mtu: config.mtu,
        tx_checksum: config.segmentation.is_some(),
        tx_segment_max: config.segmentation,
        ..MemoryConfig::default()
    })
}

/// SplitMix64.
struct Seeds(u64);

impl Seeds {
    const fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    fn secret(&mut self) -> [u8; 16] {
        let mut secret = [0; 16];
        secret[..8].copy_from_slice(&self.next().to_le_bytes());
        secret[8..].copy_from_slice(&self.next().to_le_bytes());
        secret
    }
}
