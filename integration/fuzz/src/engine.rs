//! A whole host under a script: what its peers send, what its application does, how time goes.
//!
//! Held to, whatever the script says: no panic and no endless turn; the application reads what peers sent, each byte once
//! and in order; peers get what it wrote, within the window they granted; nothing is acknowledged that was not sent;
//! rings stay within the memory limit; and once every socket is closed and time went by, nothing is left.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::time::Duration;

use flextcp_nic::flow::FlowTuple;
use flextcp_nic::port::{RxChecksum, RxFrame};
use flextcp_nic::seq::{SeqNum, WindowScale};
use flextcp_nic::time::Instant;
use flextcp_nic::wire::{Packet, SackBlocks, SegmentRepr, TcpFlags, TcpOptions, Timestamps, parse};
use flextcp_rt::lab::{Lab, LabConfig, SocketId, Status};
use flextcp_rt::offload::OffloadPolicy;
use flextcp_rt::options::{KeepAlive, SocketOption};
use flextcp_rt::tcp::{EngineConfig, State};

use crate::peer::{Peer, address, host, pattern};
use crate::script::Script;

const PORT: u16 = 80;
/// Peers at once, and steps: enough for everything, few enough for many scripts a second.
const MAX_PEERS: usize = 4;
const MAX_STEPS: usize = 400;
const MAX_LEN: u32 = 1448;
const MEMORY: u64 = 1 << 20;
/// Turns after which a closed host has to be empty: every timer's backoff, for every connection.
const MAX_REST: usize = 20_000;

/// An application's end of a connection.
#[derive(Debug, Default)]
struct End {
    read: u32,
    written: u32,
    ended: bool,
}

struct World {
    lab: Lab,
    now: Instant,
    v6: bool,
    listener: Option<SocketId>,
    peers: Vec<Peer>,
    /// By the peer's address.
    ends: BTreeMap<SocketAddr, (SocketId, End)>,
    /// What was written to connections whose socket is closed.
    written: BTreeMap<SocketAddr, u32>,
    next_port: u16,
}

/// Plays a script to its end.
///
/// # Panics
/// When the host breaks one of the rules of this [module](self).
pub fn run(bytes: &[u8]) {
    let mut script = Script::new(bytes);
    let mut world = World::new(&mut script);
    for _ in 0..MAX_STEPS {
        if script.is_over() {
            break;
        }
        world.step(&mut script);
        world.settle();
    }
    world.end();
}

fn config(script: &mut Script<'_>) -> EngineConfig {
    let switches = script.byte();
    let offload = match script.choice(4) {
        0 => OffloadPolicy::Never,
        1 => OffloadPolicy::Always,
        _ => OffloadPolicy::Random(script.byte().into()),
    };
    let congestion = match script.choice(4) {
        0 => "reno",
        1 => "dctcp",
        2 => "bbr",
        _ => "cubic",
    };
    EngineConfig {
        offload,
        congestion,
        timestamps: switches & 1 == 0,
        sack: switches & 2 == 0,
        window_scaling: switches & 4 == 0,
        recv_buffer_initial: if switches & 8 == 0 { 64 << 10 } else { 4 << 10 },
        // Two half-open ones, then cookies.
        max_syn_backlog: if switches & 16 == 0 { 128 } else { 2 },
        retries: 4,
        orphan_retries: 3,
        ..EngineConfig::default()
    }
}

impl World {
    fn new(script: &mut Script<'_>) -> Self {
        let engine = config(script);
        let v6 = script.flag();
        let mut lab = Lab::new(LabConfig {
            seed: script.byte().into(),
            memory: MEMORY,
            engine,
            ..LabConfig::default()
        });
        let now = Instant::from_millis(1000);
        let listener = lab.socket();
        lab.bind(listener, SocketAddr::new(host(v6), PORT))
            .expect("the port is free");
        lab.listen(listener, 4).expect("it is bound");
        lab.run(now);
        Self {
            lab,
            now,
            v6,
            listener: Some(listener),
            peers: Vec::new(),
            ends: BTreeMap::new(),
            written: BTreeMap::new(),
            next_port: 40_000,
        }
    }

    /// The clock of the peers' timestamps, milliseconds.
    fn clock(&self) -> u32 {
        self.now.as_millis() as u32
    }

    fn step(&mut self, script: &mut Script<'_>) {
        match script.choice(32) {
            0 => self.open(script),
            1 => self.connect(script),
            2 => self.accept(),
            3..=6 => self.application(script),
            7 => self.now += Duration::from_micros(script.short().into()),
            8 => self.now += Duration::from_millis(script.distance().min(100_000).into()),
            9 | 10 => {
                if let Some(at) = self.lab.poll_at() {
                    self.now = self.now.max(at);
                }
            }
            11 => self.flood(script),
            12 => self.noise(script),
            _ => self.segment(script),
        }
    }

    fn new_peer(&mut self, script: &mut Script<'_>, port: u16, host_port: u16) -> Option<usize> {
        if self.peers.len() == MAX_PEERS {
            let over = self.peers.iter().position(|peer| peer.over)?;
            self.peers.remove(over);
        }
        let tuple = FlowTuple {
            local: (address(self.v6), port),
            remote: (host(self.v6), host_port),
        };
        let shape = script.byte();
        let offer = TcpOptions {
            mss: (shape & 1 == 0).then(|| match script.choice(4) {
                0 => script.short().max(1),
                _ => 1460,
            }),
            window_scale: (shape & 2 == 0).then(|| WindowScale::new(script.byte())),
            sack_permitted: shape & 4 == 0,
            timestamps: (shape & 8 == 0).then(Timestamps::default),
            ..TcpOptions::default()
        };
        // Around the wrap as often as not.
        let iss = match script.choice(3) {
            0 => SeqNum(0),
            1 => SeqNum(u32::MAX - u32::from(script.short())),
            _ => SeqNum(script.word()),
        };
        self.peers.push(Peer::new(tuple, iss, offer));
        Some(self.peers.len() - 1)
    }

    /// A peer connects; mostly it finishes the handshake.
    fn open(&mut self, script: &mut Script<'_>) {
        self.next_port += 1;
        let Some(index) = self.new_peer(script, self.next_port, PORT) else {
            return;
        };
        let mut syn = self.peers[index].syn(self.clock());
        if script.choice(4) == 0 {
            syn.flags = syn.flags | TcpFlags::ECE | TcpFlags::CWR;
        }
        self.send(index, &syn, 0);
        if script.choice(8) != 0 {
            self.settle();
            let ack = self.peers[index].segment(TcpFlags::ACK, self.clock());
            self.send(index, &ack, 0);
            self.settle();
            self.accept();
        }
    }

    /// The host connects; mostly it is answered.
    fn connect(&mut self, script: &mut Script<'_>) {
        self.next_port += 1;
        let socket = self.lab.socket();
        let remote = SocketAddr::new(address(self.v6), self.next_port);
        if self.lab.connect(socket, remote).is_err() {
            // No port left; the socket has to be closed all the same.
            let _ = self.lab.close(socket);
            return;
        }
        let port = match self.lab.local_addr(socket) {
            Ok(local) => local.port(),
            Err(error) => panic!("a connecting socket without an address: {error}"),
        };
        let Some(index) = self.new_peer(script, self.next_port, port) else {
            let _ = self.lab.close(socket);
            return;
        };
        self.ends.insert(remote, (socket, End::default()));
        self.settle();
        if script.choice(8) != 0 {
            let answer = self.peers[index].syn(self.clock());
            self.send(index, &answer, 0);
        }
    }

    fn accept(&mut self) {
        let Some(listener) = self.listener else {
            return;
        };
        if let Ok((socket, peer)) = self.lab.accept(listener) {
            let old = self.ends.insert(peer, (socket, End::default()));
            assert!(old.is_none(), "two connections from {peer}");
        }
    }

    fn application(&mut self, script: &mut Script<'_>) {
        let count = self.ends.len();
        let index = usize::from(script.byte()) % count.max(1);
        let Some((&peer, (socket, end))) = self.ends.iter_mut().nth(index) else {
            return;
        };
        let socket = *socket;
        match script.choice(12) {
            0..=2 => {
                let mut buffer = vec![0; 1 + script.distance() as usize % (128 << 10)];
                match self.lab.read(socket, &mut buffer) {
                    Ok(0) => end.ended = true,
                    Ok(n) => {
                        assert!(!end.ended, "{n} bytes after the end");
                        for (place, &byte) in (end.read..).zip(&buffer[..n]) {
                            assert_eq!(byte, pattern(place), "wrong byte read at {place}");
                        }
                        end.read += n as u32;
                    }
                    Err(_) => {}
                }
            }
            3..=6 => {
                let len = script.distance() % (64 << 10);
                let bytes: Vec<u8> = (end.written..end.written + len).map(pattern).collect();
                if let Ok(n) = self.lab.write(socket, &bytes) {
                    end.written += n as u32;
                }
            }
            7 => {
                let option = match script.choice(8) {
                    0 => SocketOption::NoDelay(script.flag()),
                    1 => SocketOption::QuickAck(script.flag()),
                    2 => SocketOption::KeepAlive(script.flag().then(|| KeepAlive {
                        time: Duration::from_secs(1 + u64::from(script.byte())),
                        interval: Duration::from_secs(1),
                        count: 3,
                    })),
                    3 => SocketOption::Linger(script.flag().then_some(Duration::ZERO)),
                    4 => SocketOption::UserTimeout(
                        script
                            .flag()
                            .then(|| Duration::from_millis(script.short().into())),
                    ),
                    5 => SocketOption::RecvBuffer(1 << script.choice(20)),
                    6 => SocketOption::SendBuffer(1 << script.choice(20)),
                    _ => SocketOption::MaxSegment(script.short()),
                };
                self.lab.set_option(socket, option).expect("it is open");
            }
            8 => {
                // It may have no connection yet, or anymore.
                let _ = self.lab.shutdown(socket);
            }
            9 => {
                // What was written may still be on its way.
                self.written.insert(peer, end.written);
                self.ends.remove(&peer);
                let closed = if script.flag() {
                    self.lab.abort(socket)
                } else {
                    self.lab.close(socket)
                };
                closed.expect("it was open");
            }
            10 => {
                let queues = self.lab.queue_sizes(socket);
                if let Ok(queues) = queues {
                    assert!(queues.send as u64 <= MEMORY && queues.recv as u64 <= MEMORY);
                }
                if self.lab.info(socket).is_none() {
                    self.finish(peer);
                }
            }
            _ => {
                let mut buffer = [0; 64];
                if let Ok(n) = self.lab.peek(socket, &mut buffer) {
                    for (place, &byte) in (end.read..).zip(&buffer[..n]) {
                        assert_eq!(byte, pattern(place), "wrong byte seen at {place}");
                    }
                }
            }
        }
    }

    /// Nothing more may be said about a connection that the host forgot: its tuple may be somebody else's.
    fn finish(&mut self, peer: SocketAddr) {
        for candidate in &mut self.peers {
            if candidate.addr() == peer && candidate.answered {
                candidate.over = true;
            }
        }
    }

    /// SYNs from strangers.
    fn flood(&mut self, script: &mut Script<'_>) {
        for _ in 0..script.choice(16) {
            let tuple = FlowTuple {
                local: (address(self.v6), 1024 + script.short() % 30_000),
                remote: (host(self.v6), PORT),
            };
            let mut stranger = Peer::new(tuple, SeqNum(script.word()), TcpOptions::default());
            let syn = stranger.syn(0);
            let frame = stranger.emit(&syn, 0);
            self.lab.inject(&frame);
        }
    }

    /// Anything at all, with and without a header that looks like one of ours.
    fn noise(&mut self, script: &mut Script<'_>) {
        let bytes = script.bytes(96);
        let Some(peer) = self.peers.last() else {
            self.lab.inject(bytes);
            return;
        };
        let mut stranger = Peer::new(peer.tuple, SeqNum(0), peer.offer);
        let mut frame = stranger.emit(&peer.segment(TcpFlags::ACK, 0), 0);
        for pair in bytes.chunks_exact(2) {
            let at = usize::from(pair[0]) % frame.len();
            frame[at] ^= pair[1];
        }
        // Flips that cancel out in the checksum would make another segment, which might be acceptable.
        if !matches!(
            parse(&RxFrame::contiguous(&frame, RxChecksum::Unverified)),
            Ok(Packet::Tcp(_))
        ) {
            self.lab.inject(&frame);
        }
    }

    /// A segment of a peer, from plain to absurd.
    fn segment(&mut self, script: &mut Script<'_>) {
        let count = self.peers.len();
        let index = usize::from(script.byte()) % count.max(1);
        let Some(peer) = self.peers.get(index) else {
            return self.open(script);
        };
        if peer.over || peer.host_iss.is_none() {
            return;
        }
        let known = self.ends.get(&peer.addr()).map(|(socket, _)| *socket);
        let established = known.is_some_and(|socket| {
            self.lab.status(socket) == Status::Connected
                && self
                    .lab
                    .info(socket)
                    .is_some_and(|info| info.state == State::Established)
        });
        let peer = &self.peers[index];
        let mut segment = peer.segment(TcpFlags::ACK, self.clock());
        let mut len = 0;
        match script.choice(20) {
            // In order, the common case.
            0..=4 => {
                len = script.distance() % (MAX_LEN + 1);
                segment.flags |= TcpFlags::PSH;
            }
            // Further on: a hole.
            5 | 6 => {
                segment.seq += script.distance() % (200 << 10);
                len = 1 + script.distance() % MAX_LEN;
            }
            // Again, or partly.
            7 | 8 => {
                let back = script.distance() % (64 << 10);
                let sent = segment.seq.since(peer.iss + 1);
                segment.seq = peer.iss + 1 + sent.saturating_sub(back);
                len = script.distance() % (MAX_LEN + 1);
            }
            // Less than all acknowledged.
            9 | 10 => segment.ack = self.behind(index, script),
            // With SACK blocks, good ones and bad ones.
            11 | 12 => {
                let all = peer.host_nxt;
                segment.ack = peer.acked;
                let mut blocks = SackBlocks::default();
                for _ in 0..=script.choice(4) {
                    let (from, span) = (script.distance() % (64 << 10), script.distance());
                    let left = segment.ack + from;
                    let right = left + span % (8 << 10);
                    let right = if script.choice(8) == 0 {
                        right
                    } else {
                        right.earliest(all)
                    };
                    blocks.push(left, right);
                }
                segment.options.sack = blocks;
            }
            // A window of another size.
            13 => segment.window = script.short() >> script.choice(16),
            14 => segment.window = 0,
            // The end.
            15 => segment.flags |= TcpFlags::FIN,
            16 => {
                segment.flags = TcpFlags::RST;
                segment.seq += script.distance();
            }
            // The SYN again; another one only where RFC 5961 has it answered and ignored.
            17 => {
                segment = peer.syn(self.clock());
                if established && script.flag() {
                    segment.seq = SeqNum(script.word());
                    segment.ack = SeqNum(script.word());
                }
            }
            // Flags, numbers, clocks and options of every kind, where nothing can come of it but an answer.
            18 if established => {
                let harmful = TcpFlags::RST | TcpFlags::FIN;
                segment.flags = TcpFlags::from_bits(script.byte()).without(harmful);
                segment.tos = script.byte();
                segment.urgent = script.short();
                segment.seq += script.distance();
                segment.ack = SeqNum(script.word());
                if let Some(timestamps) = &mut segment.options.timestamps {
                    timestamps.val = script.word();
                    timestamps.ecr = script.word();
                }
            }
            // Congestion marks and echoes.
            _ => {
                segment.tos = script.choice(4);
                if script.flag() {
                    segment.flags |= TcpFlags::ECE;
                }
                if script.flag() {
                    segment.flags |= TcpFlags::CWR;
                }
                len = script.distance() % (MAX_LEN + 1);
            }
        }
        self.send(index, &segment, len);
    }

    /// A number between what was acknowledged and what came.
    fn behind(&self, index: usize, script: &mut Script<'_>) -> SeqNum {
        let peer = &self.peers[index];
        let open = peer.host_nxt.since(peer.acked);
        peer.acked + script.distance() % (open + 1)
    }

    fn send(&mut self, index: usize, segment: &SegmentRepr, len: u32) {
        let frame = self.peers[index].emit(segment, len);
        self.lab.inject(&frame);
    }

    /// Lets the host come to rest and its peers hear what it said.
    fn settle(&mut self) {
        self.lab.run(self.now);
        for frame in self.lab.drain() {
            let rx = RxFrame::contiguous(&frame, RxChecksum::Unverified);
            let packet = match parse(&rx) {
                Ok(Packet::Tcp(packet)) => packet,
                other => panic!("the host sent what is no segment: {other:?}"),
            };
            let payload: Vec<u8> = packet.payload(&rx).flatten().copied().collect();
            let Some(peer) = self
                .peers
                .iter_mut()
                .find(|peer| peer.tuple == packet.tuple && !peer.over)
            else {
                continue;
            };
            let addr = peer.addr();
            let written = match self.ends.get(&addr) {
                Some((_, end)) => end.written,
                None => self.written.get(&addr).copied().unwrap_or(0),
            };
            peer.take(&packet, &payload, written);
        }
        let memory = self.lab.counts().memory;
        assert!(memory <= MEMORY, "{memory} bytes of rings");
    }

    /// Closes everything and waits.
    fn end(mut self) {
        for (socket, _) in std::mem::take(&mut self.ends).into_values() {
            self.lab.close(socket).expect("it was open");
        }
        if let Some(listener) = self.listener.take() {
            self.lab.close(listener).expect("it was open");
        }
        for peer in &mut self.peers {
            peer.over = true;
        }
        self.settle();
        for _ in 0..MAX_REST {
            let Some(at) = self.lab.poll_at() else {
                break;
            };
            self.now = self.now.max(at);
            self.settle();
        }
        let counts = self.lab.counts();
        assert!(counts.is_zero(), "left behind: {counts:?}");
    }
}
