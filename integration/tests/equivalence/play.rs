//! A host that plays a case, beside a peer made of segments.

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use flextcp_nic::flow::FlowTuple;
use flextcp_nic::seq::{SeqNum, WindowScale};
use flextcp_nic::time::Instant;
use flextcp_nic::wire::{
    MAX_HEADER_LEN, MacAddr, Packet, SegmentRepr, TcpFlags, TcpOptions, Timestamps,
};
use flextcp_rt::lab::{Lab, LabConfig, SocketId, parse};
use flextcp_rt::offload::OffloadPolicy;
use flextcp_rt::options::SocketOption;
use flextcp_rt::tcp::{EngineConfig, State};

use super::case::{Case, MSS, Step};

/// Longer than ACKs are delayed, shorter than any retransmission timeout.
const SETTLE: Duration = Duration::from_millis(60);

/// The byte at `offset` of the stream that the host sends, and of the one that it receives.
fn byte(offset: u32, ours: bool) -> u8 {
    (offset.wrapping_mul(31).wrapping_add(u32::from(ours) * 7) >> 3) as u8 ^ offset as u8
}

fn bytes(offset: u32, len: u32, ours: bool) -> Vec<u8> {
    (offset..offset + len).map(|at| byte(at, ours)).collect()
}

/// What can be seen after a step.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub(super) struct Seen {
    /// Bytes that the host sent, without a gap from the first.
    pub(super) sent: u32,
    /// Its FIN came.
    pub(super) fin: bool,
    pub(super) resets: u32,
    /// Bytes that it acknowledged, FIN and all.
    acked: u32,
    /// What the application wrote and read, and what it was told.
    written: u32,
    read: u32,
    end: bool,
    error: Option<io::ErrorKind>,
    state: Option<State>,
    /// The peer acknowledges nothing by itself.
    silent: bool,
}

pub(super) struct Play {
    case: Case,
    pub(super) lab: Lab,
    socket: Option<SocketId>,
    now: Instant,
    /// Of the peer's segments.
    tuple: FlowTuple,
    iss: SeqNum,
    host_iss: Option<SeqNum>,
    /// Offset of the next new byte of the peer.
    next: u32,
    fin_sent: bool,
    hole: Option<(u32, u32)>,
    window: u32,
    silent: bool,
    owes_ack: bool,
    ts_recent: u32,
    have: Vec<bool>,
    scale: WindowScale,
    seen: Seen,
    /// The host sent something again.
    pub(super) again: bool,
    /// A segment had other bytes than were written.
    pub(super) wrong: Option<u32>,
    /// Where the host's window ends, and when it ended earlier than before: from where to where.
    edge: i32,
    pub(super) shrunk: Option<(i32, i32)>,
}

impl Play {
    pub(super) fn new(case: &Case, offload: OffloadPolicy) -> Self {
        let host = |number: u16| match case.v6 {
            true => IpAddr::from([0xfd00, 0, 0, 0, 0, 0, 0, number]),
            false => IpAddr::from([10, 0, 0, number as u8]),
        };
        let mut lab = Lab::new(LabConfig {
            engine: EngineConfig {
                offload,
                congestion: case.congestion,
                ..EngineConfig::default()
            },
            ..LabConfig::default()
        });
        let now = Instant::from_millis(5_000);
        let socket = lab.socket();
        let nodelay = SocketOption::NoDelay(case.nodelay);
        lab.set_option(socket, nodelay).unwrap();
        let mut play = Self {
            case: case.clone(),
            socket: None,
            now,
            tuple: FlowTuple {
                local: (host(2), 5_000),
                remote: (host(1), 80),
            },
            iss: SeqNum(0xffff_f000),
            host_iss: None,
            next: 0,
            fin_sent: false,
            hole: None,
            window: 65_535,
            silent: false,
            owes_ack: false,
            ts_recent: 0,
            have: Vec::new(),
            scale: WindowScale::ZERO,
            seen: Seen::default(),
            again: false,
            wrong: None,
            edge: 0,
            shrunk: None,
            lab,
        };
        let syn = TcpOptions {
            mss: Some(MSS as u16),
            window_scale: Some(WindowScale::new(2)),
            sack_permitted: case.sack,
            ..TcpOptions::default()
        };
        if case.passive {
            play.lab.bind(socket, SocketAddr::new(host(1), 80)).unwrap();
            play.lab.listen(socket, 8).unwrap();
            play.emit(TcpFlags::SYN, play.iss, &[], syn);
            play.run();
            play.ack_now();
            play.run();
            play.socket = Some(play.lab.accept(socket).expect("the handshake is done").0);
        } else {
            play.lab
                .connect(socket, SocketAddr::new(host(2), 5_000))
                .unwrap();
            play.lab.run(now);
            let frames = play.lab.drain();
            let Some(Packet::Tcp(packet)) = parse(&frames[0]) else {
                panic!("a SYN");
            };
            play.tuple.remote.1 = packet.tcp.src_port;
            play.take(&frames[0]);
            play.emit(TcpFlags::SYN | TcpFlags::ACK, play.iss, &[], syn);
            play.run();
            play.socket = Some(socket);
        }
        play
    }

    fn emit(&mut self, flags: TcpFlags, seq: SeqNum, payload: &[u8], options: TcpOptions) {
        let timestamps = self.case.timestamps.then(|| Timestamps {
            val: self.now.as_millis() as u32,
            ecr: self.ts_recent,
        });
        self.emit_with(
            flags,
            seq,
            payload,
            TcpOptions {
                timestamps,
                ..options
            },
        );
    }

    fn emit_with(&mut self, flags: TcpFlags, seq: SeqNum, payload: &[u8], options: TcpOptions) {
        let ack = self.host_iss.map_or(SeqNum(0), |iss| {
            iss + 1 + self.seen.sent + u32::from(self.seen.fin)
        });
        self.emit_acking(flags, seq, ack, payload, options);
    }

    fn emit_acking(
        &mut self,
        flags: TcpFlags,
        seq: SeqNum,
        ack: SeqNum,
        payload: &[u8],
        options: TcpOptions,
    ) {
        let syn = flags.contains(TcpFlags::SYN);
        let window = match syn {
            true => self.window.min(65_535) as u16,
            false => WindowScale::new(2).scale_down(self.window),
        };
        let segment = SegmentRepr {
            src_mac: MacAddr([2, 0, 0, 0, 0, 2]),
            dst_mac: MacAddr([2, 0, 0, 0, 0, 1]),
            tuple: self.tuple,
            tos: 0,
            ttl: 64,
            seq,
            ack,
            flags,
            window,
            urgent: 0,
            options,
        };
        let mut header = [0; MAX_HEADER_LEN];
        let len = segment.emit([payload, &[]], false, &mut header);
        self.lab.inject(&[&header[..len], payload].concat());
    }

    fn data(&mut self, offset: u32, len: u32) {
        let payload = bytes(offset, len, false);
        let seq = self.iss + 1 + offset;
        self.emit(TcpFlags::ACK, seq, &payload, TcpOptions::default());
        self.owes_ack = false;
    }

    fn ack_now(&mut self) {
        let seq = self.iss + 1 + self.next + u32::from(self.fin_sent);
        self.emit(TcpFlags::ACK, seq, &[], TcpOptions::default());
        self.owes_ack = false;
    }

    /// What the host says.
    fn take(&mut self, frame: &[u8]) {
        let Some(Packet::Tcp(packet)) = parse(frame) else {
            panic!("the host sent something that is no segment");
        };
        let tcp = &packet.tcp;
        if tcp.flags.contains(TcpFlags::RST) {
            self.seen.resets += 1;
            return;
        }
        if tcp.flags.contains(TcpFlags::SYN) {
            self.host_iss = Some(tcp.seq);
            if self.case.timestamps {
                self.ts_recent = tcp.options.timestamps.map_or(0, |ts| ts.val);
            }
            self.scale = tcp.options.window_scale.unwrap_or(WindowScale::ZERO);
            return;
        }
        if let Some(ts) = tcp.options.timestamps {
            self.ts_recent = ts.val;
        }
        let iss = self.host_iss.expect("a SYN came first");
        let offset = tcp.seq.offset_from(iss + 1);
        let payload = &frame[packet.payload_offset..][..packet.payload_len];
        for (at, &got) in (offset..).zip(payload) {
            // A zero-window probe may lie one byte before.
            let Ok(at) = u32::try_from(at) else { continue };
            if got != byte(at, true) {
                self.wrong.get_or_insert(at);
            }
            let index = at as usize;
            if self.have.len() <= index {
                self.have.resize(index + 1, false);
            }
            self.again |= self.have[index];
            self.have[index] = true;
        }
        while self.have.get(self.seen.sent as usize) == Some(&true) {
            self.seen.sent += 1;
        }
        if tcp.flags.contains(TcpFlags::FIN) {
            let at = offset + payload.len() as i32;
            assert!(at >= self.seen.sent as i32, "a FIN before the last byte");
            self.again |= self.seen.fin;
            self.seen.fin |= at == self.seen.sent as i32;
        }
        self.owes_ack |= !payload.is_empty() || tcp.flags.contains(TcpFlags::FIN);
        let acked = tcp.ack.offset_from(self.iss + 1);
        self.seen.acked = self.seen.acked.max(acked.max(0) as u32);
        // A window never ends before it did (RFC 9293, section 3.8.6.2.1), but for what the scale rounds away.
        let edge = acked + self.scale.scale_up(tcp.window) as i32;
        let rounded = 1 << self.scale.get();
        if edge + rounded <= self.edge {
            self.shrunk.get_or_insert((self.edge, edge));
        }
        self.edge = self.edge.max(edge);
    }

    /// Lets the host work, and answers as long as there is something to answer.
    fn run(&mut self) {
        for _ in 0..1_000 {
            self.lab.run(self.now);
            let frames = self.lab.drain();
            for frame in &frames {
                self.take(frame);
            }
            if frames.is_empty() {
                return;
            }
            if self.owes_ack && !self.silent && self.seen.resets == 0 {
                self.ack_now();
            }
            let sent = self.lab.stats().recovery;
            self.again |= sent.retransmitted + sent.tail_probes + sent.window_probes > 0;
        }
        panic!("host and peer talk without end");
    }

    /// Lets time pass.
    fn wait(&mut self, time: Duration) {
        let until = self.now + time;
        self.run();
        while let Some(at) = self.lab.poll_at()
            && at <= until
        {
            self.now = self.now.max(at);
            self.run();
        }
        self.now = until;
        self.run();
    }

    fn read(&mut self, most: usize) {
        let Some(socket) = self.socket else { return };
        let mut buf = vec![0; most];
        while !self.seen.end && self.seen.error.is_none() {
            match self.lab.read(socket, &mut buf) {
                Ok(0) => self.seen.end = true,
                Ok(n) => {
                    if buf[..n] != bytes(self.seen.read, n as u32, false) {
                        self.wrong.get_or_insert(self.seen.read);
                    }
                    self.seen.read += n as u32;
                    return;
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return,
                Err(error) => self.seen.error = Some(error.kind()),
            }
        }
    }

    fn write(&mut self, len: usize) {
        let Some(socket) = self.socket else { return };
        if self.seen.error.is_some() {
            return;
        }
        match self
            .lab
            .write(socket, &bytes(self.seen.written, len as u32, true))
        {
            Ok(n) => self.seen.written += n as u32,
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
            Err(error) => self.seen.error = Some(error.kind()),
        }
    }

    pub(super) fn step(&mut self, step: Step) {
        let none = TcpOptions::default();
        let seq = self.iss + 1 + self.next + u32::from(self.fin_sent);
        match step {
            Step::Write(len) => self.write(len),
            Step::Read(most) => self.read(most),
            Step::Shutdown => {
                if let Some(socket) = self.socket {
                    self.lab.shutdown(socket).expect("it is connected");
                }
            }
            Step::Close | Step::Abort => {
                if let Some(socket) = self.socket.take() {
                    let closed = match step {
                        Step::Close => self.lab.close(socket),
                        _ => self.lab.abort(socket),
                    };
                    closed.expect("it is open");
                }
            }
            Step::Data { segments, len } if !self.fin_sent && self.hole.is_none() => {
                for _ in 0..segments {
                    self.data(self.next, len);
                    self.next += len;
                }
            }
            Step::Hole { segments, len } if !self.fin_sent && self.hole.is_none() => {
                self.hole = Some((self.next, len));
                self.next += len;
                for _ in 1..segments {
                    self.data(self.next, len);
                    self.next += len;
                }
            }
            Step::Fill => {
                if let Some((offset, len)) = self.hole.take() {
                    self.data(offset, len);
                }
            }
            Step::Old { back, len } => {
                let offset = self.next.saturating_sub(back);
                self.data(offset, len.min(self.next - offset));
            }
            Step::Ack => self.ack_now(),
            Step::PartialAck(percent) => {
                let iss = self.host_iss.expect("connected");
                let ack = iss + 1 + self.seen.sent * percent / 100;
                let timestamps = self.case.timestamps.then(|| Timestamps {
                    val: self.now.as_millis() as u32,
                    ecr: self.ts_recent,
                });
                let options = TcpOptions { timestamps, ..none };
                self.emit_acking(TcpFlags::ACK, seq, ack, &[], options);
            }
            Step::Window(window) => {
                self.window = window;
                self.ack_now();
            }
            Step::Silent(silent) => {
                self.silent = silent;
                if !silent && self.owes_ack {
                    self.ack_now();
                }
            }
            Step::KeepAlive => self.emit(TcpFlags::ACK, seq - 1, &[], none),
            Step::Fin if !self.fin_sent && self.hole.is_none() => {
                self.emit(TcpFlags::FIN | TcpFlags::ACK, seq, &[], none);
                self.fin_sent = true;
            }
            Step::Reset => {
                let seq = self.iss + 1 + self.seen.acked;
                self.emit(TcpFlags::RST | TcpFlags::ACK, seq, &[], none);
            }
            Step::Beyond => {
                let payload = [7; 100];
                self.emit(TcpFlags::ACK, seq + 9_000_000, &payload, none);
            }
            Step::FutureAck => {
                let iss = self.host_iss.expect("connected");
                let timestamps = self.case.timestamps.then(|| Timestamps {
                    val: self.now.as_millis() as u32,
                    ecr: self.ts_recent,
                });
                let options = TcpOptions { timestamps, ..none };
                let ack = iss + 9_000_000;
                self.emit_acking(TcpFlags::ACK, seq, ack, &[], options);
            }
            Step::OldTimestamp if self.case.timestamps => {
                let timestamps = Some(Timestamps { val: 1, ecr: 1 });
                let options = TcpOptions { timestamps, ..none };
                self.emit_with(TcpFlags::ACK, seq, &[9; 50], options);
            }
            Step::BlindReset => self.emit(TcpFlags::RST, seq + 300, &[], none),
            Step::Wait(millis) => self.wait(Duration::from_millis(millis)),
            Step::Data { .. } | Step::Hole { .. } | Step::Fin | Step::OldTimestamp => {}
        }
        self.wait(SETTLE);
    }

    pub(super) fn look(&mut self) -> Seen {
        self.seen.state = self
            .socket
            .and_then(|socket| self.lab.info(socket))
            .map(|info| info.state);
        self.seen.silent = self.silent;
        self.seen.clone()
    }

    /// What is compared from here on is the end alone.
    pub(super) fn is_beyond_compare(&self) -> bool {
        let waits = self.case.congestion == "cubic" && self.seen.written > self.seen.sent;
        self.again || waits
    }

    /// The peer takes everything and gives what is missing; the application reads what there is.
    pub(super) fn finish(&mut self) -> Seen {
        self.silent = false;
        self.window = 200_000;
        self.step(Step::Fill);
        for _ in 0..40 {
            self.step(Step::Ack);
            self.wait(Duration::from_secs(5));
            self.read(1 << 20);
            self.read(1 << 20);
        }
        self.look()
    }
}
