//! Two engines over a virtual wire in virtual time, for tests: frames are emitted and parsed as on a real one.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BinaryHeap, HashMap, VecDeque};
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use flextcp_nic::buffer::Pool;
use flextcp_nic::flow::{FlowId, FlowState, FlowTuple};
use flextcp_nic::nic::{Exception, FlowBuffers, Reason, Returned};
use flextcp_nic::port::{RxChecksum, RxFrame};
use flextcp_nic::seq::SeqNum;
use flextcp_nic::time::Instant;
use flextcp_nic::wire::{MAX_HEADER_LEN, MacAddr, Packet, SegmentRepr, TcpFlags, parse};

use super::*;
use crate::options::SocketOptions;

/// SplitMix64: tests print the seed and nothing else is random.
#[derive(Debug)]
pub(super) struct Rng(pub(super) u64);

impl Rng {
    pub(super) fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    pub(super) fn below(&mut self, n: u64) -> u64 {
        self.next() % n.max(1)
    }

    pub(super) fn chance(&mut self, per_mille: u64) -> bool {
        self.below(1000) < per_mille
    }
}

/// What the wire does to frames, in per mille.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Impairment {
    pub(super) loss: u64,
    pub(super) reorder: u64,
    pub(super) duplicate: u64,
    /// Marked "congestion experienced".
    pub(super) mark: u64,
}

/// One host: an engine, what its application holds, and a stand-in for a NIC that only keeps and returns flows.
#[derive(Debug)]
pub(super) struct Host {
    pub(super) engine: Engine,
    pub(super) apps: HashMap<ConnId, AppBuffers>,
    pub(super) events: Vec<String>,
    pub(super) accepted: VecDeque<ConnId>,
    pub(super) peer_closed: Vec<ConnId>,
    pub(super) closed: Vec<ConnId>,
    pub(super) failed: Vec<(ConnId, ConnError)>,
    installed: BTreeMap<u32, (ConnId, FlowTuple, FlowState, FlowBuffers)>,
    next_flow: u32,
    pub(super) installs: u32,
}

impl Host {
    fn new(config: EngineConfig, secret: u8) -> Self {
        Self {
            engine: Engine::new(config, [secret; 16], Pool::new(1 << 30)),
            apps: HashMap::new(),
            events: Vec::new(),
            accepted: VecDeque::new(),
            peer_closed: Vec::new(),
            closed: Vec::new(),
            failed: Vec::new(),
            installed: BTreeMap::new(),
            next_flow: 0,
            installs: 0,
        }
    }
}

pub(super) type Frame = Vec<u8>;

/// The virtual world.
#[derive(Debug)]
pub(super) struct Sim {
    pub(super) now: Instant,
    pub(super) hosts: [Host; 2],
    pub(super) wire: BinaryHeap<Reverse<(Instant, u64, usize, Frame)>>,
    pub(super) impairment: Impairment,
    pub(super) delay: Duration,
    pub(super) rng: Rng,
    /// Every segment sent: (by, segment, payload length).
    pub(super) log: Vec<(usize, SegmentRepr, usize)>,
    pub(super) keep_log: bool,
    /// IP packets larger than this vanish without a word.
    pub(super) narrow: usize,
    /// Frames to these hosts vanish.
    pub(super) cut: [bool; 2],
    /// What is sent arrives no earlier: the path stands still.
    pub(super) stalled_until: Instant,
    /// Data segments to lose, once each: (by, sequence number).
    drops: Vec<(usize, SeqNum)>,
    serial: u64,
    /// Payload of the super-frames that the ports take and cut.
    pub(super) train: u32,
    /// How many there were.
    pub(super) trains: usize,
}

pub(super) const LINK: Link = Link {
    local_mac: MacAddr([2, 0, 0, 0, 0, 1]),
    remote_mac: MacAddr([2, 0, 0, 0, 0, 2]),
    mtu: 1500,
};

pub(super) fn address(host: usize, v6: bool) -> IpAddr {
    if v6 {
        IpAddr::from([0xfd00, 0, 0, 0, 0, 0, 0, host as u16 + 1])
    } else {
        IpAddr::from([10, 0, 0, host as u8 + 1])
    }
}

impl Sim {
    pub(super) fn new(config: EngineConfig, seed: u64) -> Self {
        Self {
            now: Instant::from_millis(1_000),
            hosts: [Host::new(config.clone(), 1), Host::new(config, 2)],
            wire: BinaryHeap::new(),
            impairment: Impairment::default(),
            delay: Duration::from_micros(500),
            rng: Rng(seed),
            log: Vec::new(),
            keep_log: true,
            narrow: usize::MAX,
            cut: [false; 2],
            stalled_until: Instant::ZERO,
            drops: Vec::new(),
            serial: 0,
            train: 0,
            trains: 0,
        }
    }

    pub(super) fn plain() -> Self {
        Self::new(
            EngineConfig {
                offload: crate::offload::OffloadPolicy::Never,
                ..EngineConfig::default()
            },
            1,
        )
    }

    pub(super) fn listen(&mut self, backlog: u32, options: SocketOptions) -> ListenerId {
        let local = SocketAddr::new(address(1, false), 80);
        self.hosts[1]
            .engine
            .listen(local, backlog, 1500, options)
            .unwrap()
    }

    pub(super) fn tuple(port: u16, v6: bool) -> FlowTuple {
        FlowTuple {
            local: (address(0, v6), port),
            remote: (address(1, v6), 80),
        }
    }

    pub(super) fn connect(&mut self, port: u16, options: SocketOptions) -> ConnId {
        let (id, app) = self.hosts[0]
            .engine
            .connect(self.now, Self::tuple(port, false), LINK, options)
            .unwrap();
        self.hosts[0].apps.insert(id, app);
        id
    }

    /// Closes the client's connection and its server's, which goes first and waits in TIME_WAIT.
    pub(super) fn close_both(&mut self, client: ConnId, server: ConnId) {
        self.close(1, server);
        self.settle();
        self.close(0, client);
        self.settle();
    }

    /// A connection ready on both sides: (client's, server's).
    pub(super) fn pair(&mut self) -> (ConnId, ConnId) {
        self.listen(16, SocketOptions::default());
        let client = self.connect(40_000, SocketOptions::default());
        self.settle();
        let server = self.hosts[1]
            .accepted
            .pop_front()
            .expect("the handshake completes");
        (client, server)
    }

    /// Sends, installs and collects events of one host.
    fn drive(&mut self, host: usize) {
        let now = self.now;
        let Host {
            engine, installed, ..
        } = &mut self.hosts[host];
        while let Some((id, flow)) = engine.poll_claim() {
            if let Some((_, _, state, buffers)) = installed.remove(&flow.index) {
                engine.handle_returned(
                    now,
                    Returned {
                        token: id.into(),
                        state,
                        buffers,
                        outstanding_since: None,
                    },
                );
            }
        }
        let mut out = Vec::new();
        while let Some(transmit) = self.hosts[host].engine.poll_train(now, self.train) {
            self.trains += usize::from(transmit.cut.is_some());
            let payload = transmit.payload.concat();
            let cut = transmit.cut.map_or(payload.len(), |cut| cut.get().into());
            for at in (0..payload.len().max(1)).step_by(cut.max(1)) {
                let part = &payload[at..(at + cut).min(payload.len())];
                let mut segment = transmit.segment;
                segment.seq += at as u32;
                // As hardware does it: the push is the last one's.
                if at + part.len() < payload.len() {
                    segment.flags = segment.flags.without(TcpFlags::PSH);
                }
                let mut header = [0; MAX_HEADER_LEN];
                let len = segment.emit([part, &[]], false, &mut header);
                let frame = [&header[..len], part].concat();
                assert!(
                    frame.len() <= 1514 || LINK.mtu > 1500,
                    "a segment larger than the link"
                );
                out.push((segment, frame, part.len()));
            }
        }
        for (segment, frame, len) in out {
            if self.keep_log {
                self.log.push((host, segment, len));
            }
            let lost = self
                .drops
                .iter()
                .position(|&(by, seq)| len > 0 && (by, seq) == (host, segment.seq));
            match lost {
                Some(index) => drop(self.drops.swap_remove(index)),
                None => self.send(1 - host, frame),
            }
        }
        let Host {
            engine,
            installed,
            next_flow,
            installs,
            ..
        } = &mut self.hosts[host];
        while let Some((id, state, buffers)) = engine.poll_install(now) {
            *next_flow += 1;
            *installs += 1;
            engine.installed(
                now,
                id,
                FlowId {
                    index: *next_flow,
                    generation: 1,
                },
            );
            installed.insert(*next_flow, (id, state.tuple(), state, buffers));
        }
        while let Some(event) = self.hosts[host].engine.poll_event() {
            self.hosts[host].on_event(now, event);
        }
    }

    /// Loses the next data segment of `by` that starts at `seq`.
    pub(super) fn drop_data(&mut self, by: usize, seq: SeqNum) {
        self.drops.push((by, seq));
    }

    /// Puts a frame on the wire to `to`.
    pub(super) fn send(&mut self, to: usize, mut frame: Frame) {
        if self.cut[to] || frame.len() - 14 > self.narrow || self.rng.chance(self.impairment.loss) {
            return;
        }
        if self.rng.chance(self.impairment.mark) {
            flextcp_nic::wire::mark_congestion(&mut frame);
        }
        let copies = 1 + usize::from(self.rng.chance(self.impairment.duplicate));
        for _ in 0..copies {
            let mut at = (self.now + self.delay).max(self.stalled_until);
            if self.rng.chance(self.impairment.reorder) {
                at += Duration::from_micros(self.rng.below(3_000));
            }
            self.serial += 1;
            self.wire
                .push(Reverse((at, self.serial, to, frame.clone())));
        }
    }

    /// Delivers a frame to a host now.
    pub(super) fn deliver(&mut self, to: usize, frame: &[u8]) {
        let rx = RxFrame::contiguous(frame, RxChecksum::Unverified);
        let Ok(packet) = parse(&rx) else { return };
        let tuple = match &packet {
            Packet::Tcp(packet) => packet.tuple,
            Packet::Icmp(error) => error.tuple,
        };
        let Host {
            engine, installed, ..
        } = &mut self.hosts[to];
        let flow = installed
            .iter()
            .find(|(_, entry)| entry.1 == tuple)
            .map(|(&index, _)| index);
        let returned =
            flow.and_then(|flow| installed.remove(&flow))
                .map(|(id, _, state, buffers)| {
                    Box::new(Returned {
                        token: id.into(),
                        state,
                        buffers,
                        outstanding_since: None,
                    })
                });
        let reason = if returned.is_some() {
            Reason::Flags
        } else {
            Reason::NoFlow
        };
        engine.handle_exception(
            self.now,
            Exception {
                frame: rx,
                packet: &packet,
                reason,
                returned,
            },
        );
    }

    /// Delivers a segment that a test makes up.
    pub(super) fn inject(&mut self, to: usize, segment: &SegmentRepr, payload: &[u8]) {
        let mut header = [0; MAX_HEADER_LEN];
        let len = segment.emit([payload, &[]], false, &mut header);
        let mut frame = header[..len].to_vec();
        frame.extend_from_slice(payload);
        self.deliver(to, &frame);
        self.drive_all();
    }

    pub(super) fn drive_all(&mut self) {
        self.drive(0);
        self.drive(1);
    }

    fn next_timer(&self) -> Option<Instant> {
        self.hosts
            .iter()
            .filter_map(|host| host.engine.poll_timeout())
            .min()
    }

    /// One step: the next frame or timer, at or before `limit`. `false` when there is none.
    pub(super) fn step(&mut self, limit: Instant) -> bool {
        self.drive_all();
        let frame = self.wire.peek().map(|Reverse((at, ..))| *at);
        let timer = self.next_timer();
        let Some(at) = frame
            .into_iter()
            .chain(timer)
            .min()
            .filter(|&at| at <= limit)
        else {
            return false;
        };
        self.now = self.now.max(at);
        while let Some(Reverse((at, ..))) = self.wire.peek() {
            if *at > self.now {
                break;
            }
            let Some(Reverse((_, _, to, frame))) = self.wire.pop() else {
                break;
            };
            self.deliver(to, &frame);
        }
        for host in &mut self.hosts {
            host.engine.handle_timeout(self.now);
        }
        self.drive_all();
        true
    }

    /// Runs until `done`, or for `limit` of virtual time; says whether it was done.
    pub(super) fn run_until(
        &mut self,
        limit: Duration,
        mut done: impl FnMut(&mut Self) -> bool,
    ) -> bool {
        let end = self.now + limit;
        loop {
            if done(self) {
                return true;
            }
            if !self.step(end) {
                self.now = end;
                return done(self);
            }
        }
    }

    /// Runs for so long.
    pub(super) fn run(&mut self, time: Duration) {
        self.run_until(time, |_| false);
    }

    /// Runs until nothing is on the wire; timers do not run beyond that.
    pub(super) fn settle(&mut self) {
        self.drive_all();
        while let Some(Reverse((at, ..))) = self.wire.peek() {
            let at = *at;
            self.step(at);
        }
    }

    /// Writes and rings the doorbell; returns how much fit.
    pub(super) fn write(&mut self, host: usize, id: ConnId, bytes: &[u8]) -> usize {
        let Some(app) = self.hosts[host].apps.get(&id) else {
            return 0;
        };
        let n = app.send.write(bytes);
        self.doorbell(host, id);
        n
    }

    /// Reads up to `max` bytes and rings the doorbell.
    pub(super) fn read(&mut self, host: usize, id: ConnId, max: usize) -> Vec<u8> {
        let Some(app) = self.hosts[host].apps.get(&id) else {
            return Vec::new();
        };
        let mut bytes = vec![0; max];
        let n = app.recv.read(&mut bytes);
        bytes.truncate(n);
        if n > 0 {
            self.doorbell(host, id);
        }
        bytes
    }

    fn doorbell(&mut self, host: usize, id: ConnId) {
        let now = self.now;
        let Host {
            engine, installed, ..
        } = &mut self.hosts[host];
        if let Some(flow) = engine.doorbell(now, id) {
            // This NIC only keeps flows: work to do brings them back.
            if let Some((id, _, state, buffers)) = installed.remove(&flow.index) {
                engine.handle_returned(
                    now,
                    Returned {
                        token: id.into(),
                        state,
                        buffers,
                        outstanding_since: None,
                    },
                );
            }
        }
    }

    pub(super) fn close(&mut self, host: usize, id: ConnId) {
        self.hosts[host].engine.close(self.now, id);
        self.hosts[host].apps.remove(&id);
        self.drive_all();
    }

    pub(super) fn shutdown(&mut self, host: usize, id: ConnId) {
        self.hosts[host].engine.shutdown_write(self.now, id);
        self.drive_all();
    }

    pub(super) fn state(&self, host: usize, id: ConnId) -> State {
        self.hosts[host]
            .engine
            .info(self.now, id)
            .map_or(State::Closed, |info| info.state)
    }

    /// Segments sent by `host` with these flags.
    pub(super) fn sent(&self, host: usize, flags: TcpFlags) -> Vec<SegmentRepr> {
        self.log
            .iter()
            .filter(|(by, segment, _)| *by == host && segment.flags.contains(flags))
            .map(|(_, segment, _)| *segment)
            .collect()
    }
}

impl Host {
    fn on_event(&mut self, now: Instant, event: Event) {
        match event {
            Event::Accepted {
                listener,
                conn,
                app,
                ..
            } => {
                self.apps.insert(conn, app);
                self.accepted.push_back(conn);
                self.engine.accepted(now, listener);
            }
            Event::PeerClosed(conn) => self.peer_closed.push(conn),
            Event::Closed(conn) => self.closed.push(conn),
            Event::TimeWait { .. } | Event::TimeWaitOver(_) => {}
            Event::Failed { conn, error } => self.failed.push((conn, error)),
            Event::Connected(conn) => self.events.push(format!("connected {conn:?}")),
            Event::Readable(_) | Event::Writable(_) => {}
        }
    }
}
