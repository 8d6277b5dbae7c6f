//! What passes a path, connection by connection: who sent FIN and RST, and FINs that get lost on purpose.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::net::{IpAddr, Ipv4Addr};
use std::ops::RangeInclusive;
use std::os::fd::BorrowedFd;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use flextcp_nic::port::{Port, PortCounters, PortFull, PortInfo, RxFrame, TxFrame};
use flextcp_nic::seq::SeqNum;
use flextcp_nic::time::Instant;
use flextcp_nic::wire::{Packet, TcpFlags, TcpPacket, parse};

/// Addresses that a flood comes from; answers to them end here (RFC 2544, section C.2.2).
pub const NOWHERE: RangeInclusive<IpAddr> =
    IpAddr::V4(Ipv4Addr::new(198, 18, 0, 0))..=IpAddr::V4(Ipv4Addr::new(198, 19, 255, 255));

/// What one end of a connection sent.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Sent {
    /// Segments with FIN.
    pub fin: u32,
    /// Segments with RST.
    pub rst: u32,
    /// Payload bytes, retransmissions too.
    pub bytes: u64,
}

#[derive(Debug, Default)]
struct Log {
    /// By the port of the first end and the end that sent.
    sent: BTreeMap<(u16, usize), Sent>,
    last: Option<std::time::Instant>,
    lose_first_fin: bool,
    lost: BTreeSet<(u16, usize)>,
    /// The last segment of the first end, and what the second acknowledged, by the first end's port.
    last_segment: BTreeMap<u16, TcpPacket>,
    acknowledged: BTreeMap<u16, SeqNum>,
}

/// What was seen, by both ends' ports.
#[derive(Debug, Clone, Default)]
pub struct Watch(Arc<Mutex<Log>>);

impl Watch {
    fn log(&self) -> MutexGuard<'_, Log> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// From now on the first FIN of each end of each connection vanishes.
    pub fn lose_first_fins(&self) {
        self.log().lose_first_fin = true;
    }

    /// What the ends of the connection from `port` of the first end sent.
    pub fn of(&self, port: u16) -> [Sent; 2] {
        let log = self.log();
        [0, 1].map(|end| log.sent.get(&(port, end)).copied().unwrap_or_default())
    }

    /// The last segment that the first end sent on each connection: what a stranger has to imitate.
    pub fn last_segments(&self) -> Vec<TcpPacket> {
        self.log().last_segment.values().copied().collect()
    }

    /// What the second end acknowledged, by the first end's port.
    pub fn acknowledged(&self) -> BTreeMap<u16, SeqNum> {
        self.log().acknowledged.clone()
    }

    /// Forgets what was seen.
    pub fn clear(&self) {
        let mut log = self.log();
        log.sent.clear();
        log.lost.clear();
    }

    /// How long nothing has passed.
    pub fn quiet_for(&self) -> Duration {
        self.log().last.map_or(Duration::MAX, |at| at.elapsed())
    }

    /// `port`, watched; `end` is 0 for the first end's side.
    pub fn tap<P: Port>(&self, port: P, end: usize) -> Tap<P> {
        Tap {
            port,
            end,
            watch: self.clone(),
        }
    }

    /// Notes a frame from `end`; says whether it goes on.
    fn note(&self, frame: &RxFrame<'_>, end: usize) -> bool {
        let Ok(Packet::Tcp(packet)) = parse(frame) else {
            return true;
        };
        let port = if end == 0 {
            packet.tuple.remote.1
        } else {
            packet.tuple.local.1
        };
        let flags = packet.tcp.flags;
        if NOWHERE.contains(&packet.tuple.local.0) {
            return false;
        }
        let mut log = self.log();
        log.last = Some(std::time::Instant::now());
        if end == 0 {
            log.last_segment.insert(port, packet);
        } else if flags.contains(TcpFlags::ACK) {
            log.acknowledged.insert(port, packet.tcp.ack);
        }
        let sent = log.sent.entry((port, end)).or_default();
        sent.fin += u32::from(flags.contains(TcpFlags::FIN));
        sent.rst += u32::from(flags.contains(TcpFlags::RST));
        sent.bytes += packet.payload_len as u64;
        let loses = log.lose_first_fin && flags.contains(TcpFlags::FIN);
        !(loses && log.lost.insert((port, end)))
    }
}

/// A port whose received frames are watched.
#[derive(Debug)]
pub struct Tap<P> {
    port: P,
    end: usize,
    watch: Watch,
}

impl<P: Port> Port for Tap<P> {
    fn info(&self) -> &PortInfo {
        self.port.info()
    }

    fn receive(
        &mut self,
        now: Instant,
        budget: usize,
        sink: &mut dyn FnMut(RxFrame<'_>),
    ) -> io::Result<usize> {
        let (watch, end) = (&self.watch, self.end);
        self.port.receive(now, budget, &mut |frame| {
            if watch.note(&frame, end) {
                sink(frame);
            }
        })
    }

    fn transmit(&mut self, now: Instant, frame: TxFrame<'_>) -> Result<(), PortFull> {
        self.port.transmit(now, frame)
    }

    fn flush(&mut self, now: Instant) -> io::Result<()> {
        self.port.flush(now)
    }

    fn arm(&mut self) -> io::Result<bool> {
        self.port.arm()
    }

    fn wake_fd(&self) -> Option<BorrowedFd<'_>> {
        self.port.wake_fd()
    }

    fn poll_at(&self) -> Option<Instant> {
        self.port.poll_at()
    }

    fn counters(&self) -> PortCounters {
        self.port.counters()
    }
}
