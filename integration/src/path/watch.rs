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

/// For so long a repetition is one of something that a busy machine has not acknowledged yet.
const SLOW: Duration = Duration::from_secs(2);

/// What one end of a connection sent.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Sent {
    /// Segments with FIN.
    pub fin: u32,
    /// Segments with RST.
    pub rst: u32,
    /// Payload bytes, retransmissions too.
    pub bytes: u64,
    /// End of what it sent, in sequence space.
    reach: Option<SeqNum>,
    acked: Option<SeqNum>,
}

impl Sent {
    /// Notes a segment that ends at `end` and acknowledges `ack`.
    fn note_reach(&mut self, end: SeqNum, ack: Option<SeqNum>) {
        let latest = |known: Option<SeqNum>, new: SeqNum| known.map_or(new, |it| it.latest(new));
        self.reach = Some(latest(self.reach, end));
        self.acked = ack.map(|ack| latest(self.acked, ack)).or(self.acked);
    }
}

#[derive(Debug, Default)]
struct Log {
    /// By the port of the first end and the end that sent.
    sent: BTreeMap<(u16, usize), Sent>,
    last: Option<std::time::Instant>,
    lose_first_fin: bool,
    swallow_repeats: bool,
    /// How far data and FIN of each end of each connection got, and when.
    passed: BTreeMap<(u16, usize), (SeqNum, std::time::Instant)>,
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

    /// From now on what passed already does not pass again, for a while: where nothing is lost, a repetition is an accident of
    /// a machine too busy to acknowledge in time, and so is what it leads to.
    pub fn swallow_repeats(&self) {
        self.log().swallow_repeats = true;
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

    /// Whether nothing more is to come for the connections from these ports of the first end: what both ends sent is
    /// acknowledged, or one of them reset it. A lost FIN is on its way until it came again.
    pub fn is_settled(&self, ports: impl IntoIterator<Item = u16>) -> bool {
        ports.into_iter().all(|port| {
            let [a, b] = self.of(port);
            let covers = |acks: Sent, sends: Sent| {
                let both = acks.acked.zip(sends.reach);
                both.is_some_and(|(acked, reach)| acked.at_or_after(reach))
            };
            a.rst + b.rst > 0 || (covers(a, b) && covers(b, a))
        })
    }

    /// Forgets what was seen.
    pub fn clear(&self) {
        let mut log = self.log();
        log.sent.clear();
        log.lost.clear();
        log.passed.clear();
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
        let now = std::time::Instant::now();
        log.last = Some(now);
        let key = (port, end);
        let (reach, carries) = (packet.seq_end(), packet.segment_len() > 0);
        if log.swallow_repeats
            && carries
            && !flags.contains(TcpFlags::RST)
            && let Some(&(passed, at)) = log.passed.get(&key)
            && passed.at_or_after(reach)
            && at + SLOW > now
        {
            return false;
        }
        if end == 0 {
            log.last_segment.insert(port, packet);
        } else if flags.contains(TcpFlags::ACK) {
            log.acknowledged.insert(port, packet.tcp.ack);
        }
        let sent = log.sent.entry(key).or_default();
        sent.fin += u32::from(flags.contains(TcpFlags::FIN));
        sent.rst += u32::from(flags.contains(TcpFlags::RST));
        sent.bytes += packet.payload_len as u64;
        if !flags.contains(TcpFlags::RST) {
            let ack = flags.contains(TcpFlags::ACK).then_some(packet.tcp.ack);
            sent.note_reach(reach, ack);
        }
        let loses = log.lose_first_fin && flags.contains(TcpFlags::FIN);
        let lost = loses && log.lost.insert(key);
        if carries && !lost {
            log.passed.insert(key, (reach, now));
        }
        !lost
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
