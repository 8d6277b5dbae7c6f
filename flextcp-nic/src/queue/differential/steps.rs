//! Random steps: mostly what a peer and an application do, sometimes anything.

use std::fmt::Write as _;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use super::model::Model;
use super::{ARGUMENTS, Entry, HEADER, Results, WORDS};
use crate::flow::{FlowState, FlowTuple, flags};
use crate::queue::abi::{flow_block, flow_state, packet, packet_flag};
use crate::seq::{Mss, SeqNum, WindowScale};
use crate::wire::checksum::{Checksum, checksum};
use crate::wire::{MAX_HEADER_LEN, MacAddr, SegmentRepr, TcpFlags, TcpOptions};

// Operations of `firmware/test/step.h`.
pub(super) const INSTALL: u32 = 1;
pub(super) const RECEIVE: u32 = 2;
pub(super) const SEND: u32 = 3;
pub(super) const ACK: u32 = 4;
pub(super) const BUMP: u32 = 5;
pub(super) const LIMITS: u32 = 6;
pub(super) const PARSE: u32 = 7;

/// Longest frame for PARSE: what the classifier looks at.
const FRAME_MAX: usize = 192;

/// An operation and its arguments.
#[derive(Clone, Debug)]
pub(super) struct Step {
    pub(super) operation: u32,
    pub(super) args: [u32; ARGUMENTS],
}

impl Step {
    fn new(operation: u32, given: &[u32]) -> Self {
        let mut args = [0; ARGUMENTS];
        args[..given.len()].copy_from_slice(given);
        Self { operation, args }
    }
}

/// SplitMix64.
struct Random(u64);

impl Random {
    fn word(&mut self) -> u32 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        ((z ^ (z >> 31)) >> 32) as u32
    }

    /// Below `n`.
    fn below(&mut self, n: u32) -> u32 {
        ((u64::from(self.word()) * u64::from(n.max(1))) >> 32) as u32
    }

    fn one_in(&mut self, n: u32) -> bool {
        self.below(n) == 0
    }

    /// Small values often, large ones too.
    fn size(&mut self, max: u32) -> u32 {
        let bits = self.below(32 - max.leading_zeros()) + 1;
        self.below((1_u64 << bits).min(u64::from(max) + 1) as u32)
    }
}

/// Makes the steps.
pub(super) struct Generator {
    random: Random,
    ms: u32,
    ns: u32,
}

impl Generator {
    pub(super) fn new(seed: u64) -> Self {
        Self {
            random: Random(seed),
            ms: 1000,
            ns: 0,
        }
    }

    /// Time passes: microseconds mostly, seconds at times.
    fn now(&mut self) -> [u32; 2] {
        let nanos = match self.random.below(20) {
            0 => self.random.below(2_000_000_000),
            1..4 => 0,
            _ => self.random.below(300_000),
        };
        self.ns += nanos % 1_000_000;
        self.ms += nanos / 1_000_000 + self.ns / 1_000_000;
        self.ns %= 1_000_000;
        [self.ms, self.ns]
    }

    /// A flow that can be installed.
    pub(super) fn install(&mut self) -> Step {
        let block = self.block();
        let [ms, ns] = self.now();
        let generation = self.random.word();
        let mut args = block.to_vec();
        args.extend([generation, ms, ns]);
        Step::new(INSTALL, &args)
    }

    fn tuple(&mut self, ipv6: bool) -> FlowTuple {
        let random = &mut self.random;
        let mut end = || {
            let address = if ipv6 {
                let low = u128::from(random.word()) << 32 | u128::from(random.word());
                IpAddr::V6(Ipv6Addr::from_bits(0xfd00 << 112 | low))
            } else {
                IpAddr::V4(Ipv4Addr::from_bits(0x0a00_0000 | random.word() >> 8))
            };
            (address, random.word() as u16)
        };
        FlowTuple {
            local: end(),
            remote: end(),
        }
    }

    fn block(&mut self) -> [u32; 64] {
        let ipv6 = self.random.one_in(3);
        let tuple = self.tuple(ipv6);
        let random = &mut self.random;
        let mut block = [0; 64];
        let recv_shift = if random.one_in(10) {
            0
        } else {
            12 + random.below(6)
        };
        let send_shift = 12 + random.below(6);
        let recv_size = if recv_shift == 0 { 0 } else { 1 << recv_shift };
        let recv_used = random.below(recv_size / 2 + 1) * u32::from(recv_shift > 0);
        let offered = match recv_shift {
            0 => random.below(70_000),
            _ => random.below(recv_size - recv_used + 1),
        };
        let held = random.below((1 << send_shift) + 1) * u32::from(random.one_in(2));
        let in_flight = random.below(held + 1) * u32::from(random.one_in(2));
        let mut state = FlowState {
            flags: random.word() & flags::ALL,
            ts_recent: random.word(),
            ts_offset: random.word(),
            rcv_free: random.below(70_000).max(offered),
            cwnd: random.size(200_000),
            snd_wnd: random.size(300_000),
            pacing_rate: random.size(1 << 20) * u32::from(random.one_in(3)),
            ..FlowState::default()
        };
        state.set_tuple(&tuple);
        state.set_remote_mac(MacAddr(
            random.word().to_be_bytes().repeat(2)[..6]
                .try_into()
                .expect("six bytes"),
        ));
        state.set_ttl_tos(64, random.word() as u8);
        // MSS below the least too.
        let mss = [536, 1000, 1448, 1460, 8948, 40, 65_000][random.below(7) as usize];
        let scales = (random.below(16) as u8, random.below(16) as u8);
        state.set_mss_scales(
            Mss::new(mss),
            WindowScale::new(scales.0),
            WindowScale::new(scales.1),
        );
        let (una, nxt) = (SeqNum(random.word()), SeqNum(random.word()));
        state.set_snd_una(una);
        state.set_snd_nxt(una + in_flight);
        state.set_snd_end(una + held);
        state.set_rcv_nxt(nxt);
        state.set_rcv_adv(nxt + offered);
        state.set_last_ack_sent(nxt - random.below(3000) * u32::from(random.one_in(3)));
        block[..flow_state::WORDS as usize].copy_from_slice(&state.to_words());
        block[flow_block::RECV_LOW as usize] = random.word() & !63;
        block[flow_block::RECV_HIGH as usize] = random.word();
        block[flow_block::RECV_SHIFT as usize] = recv_shift;
        block[flow_block::RECV_POSITION as usize] = random.word();
        block[flow_block::RECV_USED as usize] = recv_used;
        block[flow_block::SEND_LOW as usize] = random.word() & !63;
        block[flow_block::SEND_HIGH as usize] = random.word();
        block[flow_block::SEND_SHIFT as usize] = send_shift;
        block[flow_block::SEND_POSITION as usize] = random.word();
        block
    }

    /// A step that suits the flow, or not.
    pub(super) fn step(&mut self, model: &Model) -> Step {
        match self.random.below(100) {
            0 => self.bad_install(),
            1..45 => self.receive(model),
            45..65 => self.send(),
            65..75 => {
                let force = u32::from(self.random.one_in(4));
                let [ms, ns] = self.now();
                Step::new(ACK, &[force, ms, ns])
            }
            75..90 => self.bump(model),
            90..94 => {
                let (cwnd, rate) = (self.random.size(200_000), self.random.size(1 << 20));
                let paced = u32::from(self.random.one_in(2));
                Step::new(LIMITS, &[cwnd, rate * paced])
            }
            _ => self.parse(),
        }
    }

    /// A block with one word changed: refused, or another flow.
    fn bad_install(&mut self) -> Step {
        let mut step = self.install();
        let at = match self.random.below(4) {
            0 => self.random.below(flow_block::SEND_POSITION),
            1 => flow_block::RECV_SHIFT,
            2 => flow_state::SND_NXT,
            _ => flow_state::FLAGS,
        };
        let word = &mut step.args[at as usize];
        *word = match self.random.below(3) {
            0 => self.random.word(),
            1 => word.wrapping_add(1),
            _ => 1 << self.random.below(32),
        };
        // The model has no rings below a page or of gigabytes.
        for shift in [flow_block::RECV_SHIFT, flow_block::SEND_SHIFT] {
            let shift = &mut step.args[shift as usize];
            if matches!(*shift, 6..12 | 19..31) {
                *shift = 31;
            }
        }
        step
    }

    fn near(&mut self, value: u32) -> u32 {
        match self.random.below(8) {
            0 => self.random.word(),
            1 | 2 => value.wrapping_add(self.random.below(5)).wrapping_sub(2),
            3 => value
                .wrapping_add(self.random.below(60_000))
                .wrapping_sub(30_000),
            _ => value.wrapping_sub(1),
        }
    }

    fn receive(&mut self, model: &Model) -> Step {
        let state = model.state();
        let mut words = [0; packet::WORDS as usize + 2];
        let mut set = |word: u32, value: u32| words[word as usize] = value;
        let seq = if self.random.below(10) < 8 {
            state.rcv_nxt
        } else {
            self.near(state.rcv_nxt)
        };
        let ack = match self.random.below(10) {
            0..3 => state.snd_una,
            3..5 => state.snd_nxt,
            5..9 => state
                .snd_una
                .wrapping_add(self.random.below(state.in_flight() + 1)),
            _ => self.near(state.snd_una),
        };
        let same_window = state.snd_wnd >> state.snd_scale().get();
        let window = match self.random.below(10) {
            0 => 0,
            1..6 => same_window.min(0xffff),
            _ => self.random.below(0x1_0000),
        };
        let control = match self.random.below(30) {
            0 => self.random.word() & 0xff,
            1..4 => 0x50,
            4..6 => 0x90,
            6..14 => 0x18,
            _ => 0x10,
        };
        let len = match self.random.below(10) {
            0..4 => 0,
            4 => 1,
            5..9 => self.random.below(1500),
            _ => self.random.size(60_000),
        };
        let stamps = state.has(flags::TIMESTAMPS) ^ self.random.one_in(20);
        let mut bits = if stamps { packet_flag::TIMESTAMPS } else { 0 };
        if self.random.one_in(40) {
            let others = [
                packet_flag::IP_OPTIONS,
                packet_flag::SACK,
                packet_flag::OPTIONS,
            ];
            bits |= others[self.random.below(3) as usize];
        }
        let ts_val = match self.random.below(10) {
            0 => self.near(state.ts_recent),
            _ => state.ts_recent.wrapping_add(self.random.below(3)),
        };
        set(packet::SEQ, seq);
        set(packet::ACK, ack);
        set(packet::FLAGS_WINDOW, window << 16 | control);
        set(packet::FLAGS, bits);
        set(packet::TS_VAL, ts_val);
        set(
            packet::TTL_TOS,
            64 << 8 | [0, 2, 2, 3][self.random.below(4) as usize],
        );
        set(packet::PAYLOAD_LEN, len);
        let [ms, ns] = self.now();
        set(packet::WORDS, ms);
        set(packet::WORDS + 1, ns);
        Step::new(RECEIVE, &words)
    }

    fn send(&mut self) -> Step {
        let super_frame = if self.random.one_in(3) {
            self.random.below(65_000)
        } else {
            0
        };
        let complete = u32::from(self.random.one_in(2));
        let [ms, ns] = self.now();
        Step::new(SEND, &[super_frame, 0, complete, ms, ns])
    }

    fn bump(&mut self, model: &Model) -> Step {
        let sequence = match self.random.below(20) {
            0 => self.near(model.bumps()),
            _ => model.bumps().wrapping_add(1),
        };
        let (room, used) = model.room();
        let sent = self.random.below(room + 1) * u32::from(self.random.one_in(2));
        let freed = self.random.below(used + 1);
        let beyond = u32::from(self.random.one_in(30));
        Step::new(
            BUMP,
            &[
                sequence,
                sent + beyond * (room + 1),
                freed + beyond * self.random.word() % 2,
            ],
        )
    }

    fn parse(&mut self) -> Step {
        let mut frame = self.frame();
        if self.random.one_in(3) {
            for _ in 0..=self.random.below(3) {
                let at = self.random.below(frame.len() as u32) as usize;
                frame[at] = match self.random.below(3) {
                    0 => self.random.word() as u8,
                    1 => frame[at] ^ 1 << self.random.below(8),
                    _ => frame[at].wrapping_add(1),
                };
            }
        }
        if self.random.one_in(6) {
            frame.truncate(self.random.below(frame.len() as u32 + 1) as usize);
        } else if self.random.one_in(6) {
            frame.resize(
                (frame.len() + self.random.below(20) as usize).min(FRAME_MAX),
                0,
            );
        }
        let mut args = vec![frame.len() as u32, 0, self.random.below(3)];
        args.extend(frame.chunks(4).map(|chunk| {
            let mut bytes = [0; 4];
            bytes[..chunk.len()].copy_from_slice(chunk);
            u32::from_be_bytes(bytes)
        }));
        Step::new(PARSE, &args)
    }

    /// A frame as it should be: TCP with or without options, or an ICMP error about one of ours.
    fn frame(&mut self) -> Vec<u8> {
        let ipv6 = self.random.one_in(2);
        let tuple = self.tuple(ipv6);
        let random = &mut self.random;
        let mut options = TcpOptions::default();
        if random.one_in(2) {
            options = TcpOptions::with_timestamps(random.word(), random.word());
        }
        if random.one_in(6) {
            options
                .sack
                .push(SeqNum(random.word()), SeqNum(random.word()));
        }
        if random.one_in(8) {
            options.mss = Some(1 + random.below(65_000) as u16);
        }
        let repr = SegmentRepr {
            src_mac: MacAddr([2, 0, 0, 0, 0, 1]),
            dst_mac: MacAddr([2, 0, 0, 0, 0, 2]),
            tuple,
            tos: random.word() as u8,
            ttl: random.word() as u8,
            seq: SeqNum(random.word()),
            ack: SeqNum(random.word()),
            flags: TcpFlags::from_bits(random.word() as u8),
            window: random.word() as u16,
            urgent: 0,
            options,
        };
        let payload = vec![random.word() as u8; random.below(24) as usize];
        let mut header = [0; MAX_HEADER_LEN];
        let len = repr.emit([&payload, &[]], random.one_in(4), &mut header);
        let mut frame = [&header[..len], &payload].concat();
        match random.below(8) {
            0 | 1 => frame = icmp_error(random, &frame, ipv6),
            2 if ipv6 => extend(random, &mut frame),
            _ => {}
        }
        if random.one_in(8) {
            let vlan = random.below(4) as u8;
            frame.splice(12..12, [0x81, 0, random.word() as u8 & 0xf0, vlan / 3]);
        }
        frame.truncate(FRAME_MAX);
        frame
    }
}

/// An extension header between IPv6 and TCP. TCP's checksum does not cover it.
fn extend(random: &mut Random, frame: &mut Vec<u8>) {
    let kind = [0, 43, 44, 60, 60][random.below(5) as usize];
    let next = std::mem::replace(&mut frame[20], kind);
    let third = random.below(30) / 28;
    frame.splice(54..54, [next, 0, 0, third as u8, 0, 0, 0, 0]);
    frame[19] += 8;
}

/// An ICMP error about the packet of `frame`, which our end sent.
fn icmp_error(random: &mut Random, frame: &[u8], ipv6: bool) -> Vec<u8> {
    let quoted = &frame[14..frame.len().min(14 + 68)];
    let code = random.below(18) as u8;
    let kind = if ipv6 {
        random.below(6)
    } else {
        [3, 3, 11, 12, 4][random.below(5) as usize]
    };
    let mut message = [&[kind as u8, code, 0, 0, 0, 0, 5, 0][..], quoted].concat();
    let mut out = frame[..14].to_vec();
    let mut sum = Checksum::new();
    if ipv6 {
        let (source, destination) = (
            Ipv6Addr::from_bits(0xfd01 << 112),
            Ipv6Addr::from_bits(0xfd02 << 112),
        );
        sum = Checksum::pseudo_header(source.into(), destination.into(), 58, message.len() as u32);
        out.extend([0x60, 0, 0, 0, 0, message.len() as u8, 58, 64]);
        out.extend(source.octets());
        out.extend(destination.octets());
    } else {
        let mut ip = [
            0x45,
            0,
            0,
            20 + message.len() as u8,
            0,
            0,
            0,
            0,
            64,
            1,
            0,
            0,
            10,
            9,
            9,
            9,
            10,
            0,
            0,
            1,
        ];
        let header = checksum(&ip);
        ip[10..12].copy_from_slice(&header.to_be_bytes());
        out.extend(ip);
    }
    sum.add(&message);
    message[2..4].copy_from_slice(&sum.finish().to_be_bytes());
    out.extend(message);
    out
}

/// A difference, as the one step that makes it.
pub(super) fn report(
    seed: u64,
    n: u64,
    before: &Entry,
    step: &Step,
    c: (&Entry, &Results),
    rust: (&Entry, &Results),
) -> String {
    let mut text = format!("FLEXTCP_TEST_SEED={seed}: step {n} differs\n");
    let given = step
        .args
        .iter()
        .rposition(|&word| word != 0)
        .map_or(0, |last| last + 1);
    let _ = writeln!(
        text,
        "operation {} arguments {:#x?}",
        step.operation,
        &step.args[..given]
    );
    for (at, before) in before.iter().enumerate().take(WORDS) {
        let changed = c.0[at] != rust.0[at];
        let mark = if changed { "  <-- differs" } else { "" };
        let _ = writeln!(
            text,
            "entry {at:2}: {:#010x} -> C {:#010x} Rust {:#010x}{mark}",
            before, c.0[at], rust.0[at]
        );
    }
    for at in (0..c.1.len()).filter(|&at| c.1[at] != rust.1[at]) {
        let part = if at >= HEADER { "header" } else { "result" };
        let _ = writeln!(
            text,
            "{part} {at:2}: C {:#010x} Rust {:#010x}",
            c.1[at], rust.1[at]
        );
    }
    text
}
