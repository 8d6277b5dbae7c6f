//! What is counted: a host and a peer that is made of nothing but its frames, which are ready before counting begins.

use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use flextcp_nic::flow::FlowTuple;
use flextcp_nic::seq::{SeqNum, WindowScale};
use flextcp_nic::time::Instant;
use flextcp_nic::wire::{
    MAX_HEADER_LEN, MacAddr, Packet, SackBlocks, SegmentRepr, TcpFlags, TcpOptions, Timestamps,
};
use flextcp_rt::lab::{Lab, LabConfig, SocketId, parse};
use flextcp_rt::offload::OffloadPolicy;
use flextcp_rt::options::SocketOption;
use flextcp_rt::tcp::EngineConfig;

const MSS: u32 = 1448;
/// What arrives between two turns of the host.
const BATCH: u32 = 16;
const ROUND_TRIP: Duration = Duration::from_millis(1);

/// A case: its name, and what runs it and returns how many segments were counted.
pub(crate) type Case = (&'static str, fn() -> u32);

/// All cases.
pub(crate) const CASES: &[Case] = &[
    ("fast path: data in order", || {
        in_order(OffloadPolicy::Always)
    }),
    ("fast path: pure ACK", || acks(OffloadPolicy::Always)),
    ("slow path: data in order", || {
        in_order(OffloadPolicy::Never)
    }),
    ("slow path: pure ACK", || acks(OffloadPolicy::Never)),
    ("slow path: SACK ACK with 64 in flight", || sacks(64)),
    ("slow path: SACK ACK with 1024 in flight", || sacks(1024)),
    ("slow path: SACK ACK with every second segment lost", || {
        islands(256)
    }),
    ("slow path: data beyond a hole", beyond_a_hole),
    ("slow path: data that fills a hole", fills),
    ("slow path: data beyond 30 holes", beyond_holes),
];

struct World {
    lab: Lab,
    socket: SocketId,
    now: Instant,
    /// The peer's SND.NXT, and the host's as the peer knows it.
    nxt: SeqNum,
    host: SeqNum,
}

/// What callgrind counts: from frames on the wire to a host at rest.
#[inline(never)]
fn counted(lab: &mut Lab, now: Instant, frames: Vec<Vec<u8>>) {
    for frame in frames {
        lab.inject_owned(frame);
    }
    lab.run(now);
}

fn data(from: SeqNum, ack: SeqNum, now: Instant, len: u32) -> Vec<u8> {
    let mut repr = segment(TcpFlags::ACK | TcpFlags::PSH, from, ack, now);
    repr.options = TcpOptions::with_timestamps(now.as_millis() as u32, 0);
    frame(&repr, len)
}

fn segment(flags: TcpFlags, seq: SeqNum, ack: SeqNum, now: Instant) -> SegmentRepr {
    SegmentRepr {
        src_mac: MacAddr([2, 0, 0, 0, 0, 2]),
        dst_mac: MacAddr([2, 0, 0, 0, 0, 1]),
        tuple: FlowTuple {
            local: (IpAddr::from([10, 0, 0, 2]), 4000),
            remote: (IpAddr::from([10, 0, 0, 1]), 80),
        },
        tos: 0,
        ttl: 64,
        seq,
        ack,
        flags,
        window: 0xffff,
        urgent: 0,
        options: TcpOptions::with_timestamps(now.as_millis() as u32, 0),
    }
}

fn frame(repr: &SegmentRepr, len: u32) -> Vec<u8> {
    let payload = vec![0x55; len as usize];
    let mut header = [0; MAX_HEADER_LEN];
    let header_len = repr.emit([&payload, &[]], false, &mut header);
    [&header[..header_len], &payload].concat()
}

impl World {
    fn new(offload: OffloadPolicy) -> Self {
        let mut lab = Lab::new(LabConfig {
            engine: EngineConfig {
                offload,
                recv_buffer_initial: 4 << 20,
                recv_buffer_max: 4 << 20,
                // Whatever a case wants in flight goes out at once.
                initial_window: 2048,
                ..EngineConfig::default()
            },
            ..LabConfig::default()
        });
        let now = Instant::from_millis(1000);
        let listener = lab.socket();
        let local = SocketAddr::from(([10, 0, 0, 1], 80));
        lab.bind(listener, local).expect("the port is free");
        lab.listen(listener, 1).expect("it is bound");
        let mut syn = segment(TcpFlags::SYN, SeqNum(0), SeqNum(0), now);
        syn.options = TcpOptions {
            mss: Some(1460),
            window_scale: Some(WindowScale::new(10)),
            sack_permitted: true,
            timestamps: Some(Timestamps {
                val: now.as_millis() as u32,
                ecr: 0,
            }),
            ..TcpOptions::default()
        };
        lab.run(now);
        lab.inject_owned(frame(&syn, 0));
        lab.run(now);
        let answer = lab.take_frame().expect("a SYN-ACK");
        let Some(Packet::Tcp(answer)) = parse(&answer) else {
            panic!("no segment");
        };
        let (nxt, host) = (SeqNum(1), answer.tcp.seq + 1);
        lab.inject_owned(frame(&segment(TcpFlags::ACK, nxt, host, now), 0));
        lab.run(now);
        let (socket, _) = lab.accept(listener).expect("the handshake is over");
        lab.set_option(socket, SocketOption::SendBuffer(8 << 20))
            .expect("it is open");
        lab.run(now);
        let mut world = Self {
            lab,
            socket,
            now,
            nxt,
            host,
        };
        // Buffers are attached, the window opens, quick ACKs end.
        for _ in 0..20 {
            for _ in 0..BATCH {
                let bytes = data(world.nxt, world.host, world.now, MSS);
                world.lab.inject_owned(bytes);
                world.nxt += MSS;
            }
            world.lab.run(world.now);
            world.read();
        }
        world
    }

    /// Takes the host's frames, and moves the clock.
    fn take(&mut self) {
        for bytes in self.lab.drain() {
            let Some(Packet::Tcp(packet)) = parse(&bytes) else {
                panic!("no segment");
            };
            let end = packet.tcp.seq + packet.payload_len as u32;
            self.host = self.host.latest(end);
        }
        self.now += ROUND_TRIP;
    }

    fn read(&mut self) {
        let mut buffer = vec![0; 4 << 20];
        // There may be nothing yet.
        let _ = self.lab.read(self.socket, &mut buffer);
        self.lab.run(self.now);
        self.take();
    }

    fn ack(&self, ack: SeqNum, sack: &[(SeqNum, SeqNum)]) -> Vec<u8> {
        let mut repr = segment(TcpFlags::ACK, self.nxt, ack, self.now);
        repr.options.sack = sack.iter().copied().collect::<SackBlocks>();
        frame(&repr, 0)
    }

    /// Data from the host, `segments` of it in flight at once: until the congestion window lets them, all is acknowledged.
    fn in_flight(&mut self, segments: u32) -> SeqNum {
        let chunk = vec![0xaa; (segments * MSS) as usize];
        for _ in 0..100 {
            let una = self.host;
            let n = self.lab.write(self.socket, &chunk).expect("it is open");
            assert_eq!(n, chunk.len(), "the send buffer is too small");
            if self.send_without_ack(una + segments * MSS) {
                return una;
            }
            while self.host.since(una) < segments * MSS {
                self.acknowledge_all();
                self.send_without_ack(una + segments * MSS);
            }
            self.acknowledge_all();
        }
        panic!("the congestion window does not reach {segments} segments");
    }

    /// Lets the host send for a while, since it may pace; whether it came to `end`.
    fn send_without_ack(&mut self, end: SeqNum) -> bool {
        for _ in 0..20 {
            self.lab.run(self.now);
            self.take();
            if self.host == end {
                return true;
            }
        }
        false
    }

    fn acknowledge_all(&mut self) {
        let ack = self.ack(self.host, &[]);
        self.lab.inject_owned(ack);
        self.lab.run(self.now);
        self.take();
    }

    fn count(&mut self, frames: Vec<Vec<u8>>) {
        counted(&mut self.lab, self.now, frames);
        self.take();
    }

    fn counted_in_batches(&mut self, frames: Vec<Vec<u8>>) -> u32 {
        let total = frames.len() as u32;
        let mut frames = frames.into_iter().peekable();
        while frames.peek().is_some() {
            let batch = frames.by_ref().take(BATCH as usize).collect();
            self.count(batch);
        }
        total
    }
}

fn in_order(offload: OffloadPolicy) -> u32 {
    let mut world = World::new(offload);
    let mut total = 0;
    for _ in 0..10 {
        let frames: Vec<_> = (0..64)
            .map(|i| data(world.nxt + i * MSS, world.host, world.now, MSS))
            .collect();
        world.nxt += 64 * MSS;
        total += world.counted_in_batches(frames);
        world.read();
    }
    assert_eq!(
        world.lab.is_offloaded(world.socket),
        offload == OffloadPolicy::Always
    );
    total
}

fn acks(offload: OffloadPolicy) -> u32 {
    let mut world = World::new(offload);
    let mut total = 0;
    for _ in 0..10 {
        let una = world.in_flight(64);
        let frames = (1..=64).map(|i| world.ack(una + i * MSS, &[])).collect();
        total += world.counted_in_batches(frames);
    }
    assert_eq!(
        world.lab.is_offloaded(world.socket),
        offload == OffloadPolicy::Always
    );
    total
}

/// The first segment is lost, the others arrive.
fn sacks(segments: u32) -> u32 {
    let mut world = World::new(OffloadPolicy::Never);
    let una = world.in_flight(segments);
    let frames = (2..=segments)
        .map(|i| world.ack(una, &[(una + MSS, una + i * MSS)]))
        .collect();
    world.counted_in_batches(frames)
}

/// Every second segment is lost: each ACK has a block more, of which the newest three are told.
fn islands(segments: u32) -> u32 {
    let mut world = World::new(OffloadPolicy::Never);
    let una = world.in_flight(segments);
    let block = |i: u32| (una + i * MSS, una + (i + 1) * MSS);
    let frames = (1..segments)
        .step_by(2)
        .map(|i| {
            let newest = (1..=i).rev().step_by(2).take(3);
            world.ack(una, &newest.map(block).collect::<Vec<_>>())
        })
        .collect();
    world.counted_in_batches(frames)
}

fn beyond_a_hole() -> u32 {
    let mut world = World::new(OffloadPolicy::Never);
    let frames = (1..=640)
        .map(|i| data(world.nxt + i * MSS, world.host, world.now, MSS))
        .collect();
    world.counted_in_batches(frames)
}

/// Pairs of segments in the wrong order: the second one of each fills the hole that the first one made.
fn fills() -> u32 {
    let mut world = World::new(OffloadPolicy::Never);
    let frames = (0..640_u32)
        .map(|i| data(world.nxt + (i ^ 1) * MSS, world.host, world.now, MSS))
        .collect();
    world.counted_in_batches(frames)
}

fn beyond_holes() -> u32 {
    let mut world = World::new(OffloadPolicy::Never);
    let at = |i: u32| data(world.nxt + i * MSS, world.host, world.now, MSS);
    let holes: Vec<_> = (0..30).map(|i| at(2 * i + 1)).collect();
    let frames = (61..500).map(at).collect();
    for bytes in holes {
        world.lab.inject_owned(bytes);
    }
    world.lab.run(world.now);
    world.take();
    world.counted_in_batches(frames)
}
