//! The Rust fast path behind the steps of the test.

use std::sync::Arc;

use super::steps::{ACK, BUMP, INSTALL, LIMITS, PARSE, RECEIVE, SEND, Step};
use super::{ENTRY, Entry, HEADER, RESULTS, Results};
use crate::buffer::{Pool, RecvReader, SendWriter, recv_ring, send_ring};
use crate::fast::ack::{self, Due};
use crate::fast::rx::{self, RecvSizes};
use crate::fast::tx::{self, Wait};
use crate::fast::{Local, ack::EarlyAck};
use crate::flow::fields::ip_words;
use crate::flow::{FlowState, FlowTuple, flags};
use crate::nic::{FlowBuffers, Reason};
use crate::port::{RxChecksum, RxFrame};
use crate::queue::abi::{
    completion, constant, flow_block, flow_entry, flow_local, flow_state, flow_status, local_flag,
    packet, packet_flag, received, received_flag, verdict, wait,
};
use crate::seq::SeqNum;
use crate::time::Instant;
use crate::wire::checksum::Checksum;
use crate::wire::{
    MAX_HEADER_LEN, MacAddr, Malformed, Packet, SegmentRepr, TcpFlags, TcpHeader, TcpOptions,
    TcpPacket, Timestamps, parse,
};

/// As in `firmware/test/step.c`.
const OWN_MAC: MacAddr = MacAddr([2, 0, 0, 0, 0, 1]);

/// Rings are attached by the host: the fast path under test never does.
const SIZES: RecvSizes = RecvSizes { first: 0, max: 0 };

struct App {
    reader: RecvReader,
    writer: SendWriter,
}

pub(super) struct Model {
    pool: Arc<Pool>,
    state: FlowState,
    local: Local,
    buffers: FlowBuffers,
    app: App,
    block: [u32; 64],
    generation: u32,
    installed: bool,
    bumps: u32,
    recv_position: u32,
    send_position: u32,
    zeros: Vec<u8>,
}

fn instant(ms: u32, ns: u32) -> Instant {
    Instant::from_nanos(u64::from(ms) * 1_000_000 + u64::from(ns))
}

fn time(at: Instant) -> [u32; 2] {
    [at.as_millis() as u32, (at.as_nanos() % 1_000_000) as u32]
}

fn size(shift: u32) -> u32 {
    if shift == 0 { 0 } else { 1 << shift }
}

impl Model {
    pub(super) fn new() -> Self {
        let pool = Pool::new(1 << 30);
        let (buffers, app) = rings(&pool, 0, 0, 0, 0);
        let mut state = FlowState::default();
        Self {
            local: Local::new(&mut state, Instant::ZERO),
            pool,
            state,
            buffers,
            app,
            block: [0; 64],
            generation: 0,
            installed: false,
            bumps: 0,
            recv_position: 0,
            send_position: 0,
            zeros: vec![0; 1 << 16],
        }
    }

    pub(super) const fn state(&self) -> &FlowState {
        &self.state
    }

    pub(super) const fn bumps(&self) -> u32 {
        self.bumps
    }

    fn recv_size(&self) -> u32 {
        size(self.block[flow_block::RECV_SHIFT as usize])
    }

    fn send_size(&self) -> u32 {
        size(self.block[flow_block::SEND_SHIFT as usize])
    }

    /// Room in the send ring, bytes in the receive ring.
    pub(super) fn room(&self) -> (u32, u32) {
        (
            self.send_size() - self.buffers.send.len(),
            self.buffers.recv.unread(),
        )
    }

    /// What the flow's entry has to be.
    pub(super) fn words(&self) -> Entry {
        let mut words = [0; ENTRY];
        if !self.installed {
            return words;
        }
        words[..flow_state::WORDS as usize].copy_from_slice(&self.state.to_words());
        let local = &self.local;
        let mut bits = u32::from(local.quick_acks) << 8;
        let mut set = |word: u32, value: u32| words[word as usize] = value;
        set(flow_local::RCV_MSS, local.rcv_mss);
        if let Some((end, sent)) = local.timed {
            bits |= local_flag::TIMED;
            let [ms, ns] = time(sent);
            set(flow_local::TIMED_END, end.0);
            set(flow_local::TIMED_MS, ms);
            set(flow_local::TIMED_NS, ns);
        }
        if let Some(since) = local.outstanding_since {
            bits |= local_flag::OUTSTANDING;
            let [ms, ns] = time(since);
            set(flow_local::OUTSTANDING_MS, ms);
            set(flow_local::OUTSTANDING_NS, ns);
        }
        if local.pace.until() > Instant::ZERO {
            bits |= local_flag::PACED;
            let [ms, ns] = time(local.pace.until());
            set(flow_local::PACE_MS, ms);
            set(flow_local::PACE_NS, ns);
        }
        bits |= u32::from(local.ack_now) * local_flag::ACK_NOW;
        bits |= u32::from(local.ece_seen) * local_flag::ECE_SEEN;
        bits |= u32::from(local.heard) * local_flag::HEARD;
        set(flow_local::FLAGS, bits);
        set(flow_entry::STATUS, flow_status::NIC_OWNED);
        set(flow_entry::GENERATION, self.generation);
        set(flow_entry::BUMPS, self.bumps);
        for (entry, block) in [
            (flow_entry::RECV_LOW, flow_block::RECV_LOW),
            (flow_entry::RECV_HIGH, flow_block::RECV_HIGH),
            (flow_entry::SEND_LOW, flow_block::SEND_LOW),
            (flow_entry::SEND_HIGH, flow_block::SEND_HIGH),
        ] {
            set(entry, self.block[block as usize]);
        }
        set(flow_entry::RECV_SIZE, self.recv_size());
        set(flow_entry::RECV_POSITION, self.recv_position);
        set(flow_entry::RECV_USED, self.buffers.recv.unread());
        set(flow_entry::SEND_SIZE, self.send_size());
        set(flow_entry::SEND_POSITION, self.send_position);
        words
    }

    /// Takes a step; what the C core has to return for it, and the step with what only the model knows filled in.
    pub(super) fn take(&mut self, mut step: Step) -> (Step, Results) {
        let mut out = [0; RESULTS];
        let args = &mut step.args;
        match step.operation {
            INSTALL => out[0] = self.install(args),
            RECEIVE => self.receive(args, &mut out),
            SEND => args[1] = self.send(args, &mut out),
            ACK => self.acknowledge(args, &mut out),
            BUMP => out[0] = self.bump(args[0], args[1], args[2]),
            LIMITS => self.limits(args[0], args[1]),
            PARSE => parse_frame(args, &mut out),
            other => unreachable!("operation {other}"),
        }
        (step, out)
    }

    fn install(&mut self, args: &[u32]) -> u32 {
        let mut block = [0; 64];
        block.copy_from_slice(&args[..64]);
        let word = |word: u32| block[word as usize];
        let mut words = [0; flow_state::WORDS as usize];
        words.copy_from_slice(&block[..flow_state::WORDS as usize]);
        let mut state = FlowState::from_words(words);
        let held = state.snd_end.wrapping_sub(state.snd_una);
        let offered = state.rcv_adv.wrapping_sub(state.rcv_nxt);
        let used = word(flow_block::RECV_USED);
        let bad_ring = |low: u32, shift: u32, used: u32| {
            let low = word(low);
            match word(shift) {
                0 => used != 0,
                shift @ constant::RING_SHIFT_MIN..=constant::RING_SHIFT_MAX => {
                    !low.is_multiple_of(constant::ALIGNMENT) || used > 1 << shift
                }
                _ => true,
            }
        };
        if state.flags & !flags::ALL != 0 {
            return completion::UNSUPPORTED;
        }
        if bad_ring(flow_block::RECV_LOW, flow_block::RECV_SHIFT, used)
            || bad_ring(flow_block::SEND_LOW, flow_block::SEND_SHIFT, held)
        {
            return completion::BAD_RING;
        }
        if state.snd_nxt.wrapping_sub(state.snd_una) > held || offered > 1 << 30 {
            return completion::BAD_STATE;
        }
        let recv_size = size(word(flow_block::RECV_SHIFT));
        if recv_size > 0 && offered > recv_size - used {
            return completion::BAD_RING;
        }
        let send_size = size(word(flow_block::SEND_SHIFT));
        (self.buffers, self.app) = rings(&self.pool, recv_size, used, send_size, held);
        // As `soft::flow::Flow::new`.
        if recv_size > 0 {
            state.rcv_free = self.buffers.recv.free();
        }
        state.rcv_free = state.rcv_free.max(state.rcv_wnd());
        self.local = Local::new(&mut state, instant(args[65], args[66]));
        self.state = state;
        self.recv_position = word(flow_block::RECV_POSITION);
        self.send_position = word(flow_block::SEND_POSITION);
        self.block = block;
        self.generation = args[64];
        self.bumps = 0;
        self.installed = true;
        completion::OK
    }

    fn receive(&mut self, args: &[u32], out: &mut Results) {
        let packet = packet_of(args);
        let now = instant(
            args[packet::WORDS as usize],
            args[packet::WORDS as usize + 1],
        );
        let mut refused = rx::exception(&self.state, &packet);
        if refused.is_none()
            && packet.tcp.seq == self.state.rcv_nxt()
            && packet.payload_len as u32 > self.buffers.recv.free()
        {
            // The software NIC would attach a ring here.
            refused = Some(Reason::NoBuffer);
        }
        if let Some(reason) = refused {
            out[received::EXCEPTION as usize] = reason.index() as u32 + 1;
            return;
        }
        let frame = RxFrame::contiguous(&self.zeros, RxChecksum::Trusted);
        let taken = rx::receive(
            &mut self.state,
            &mut self.local,
            &mut self.buffers,
            &packet,
            &frame,
            now,
            SIZES,
        )
        .expect("neither an exception nor without room");
        self.recv_position = self.recv_position.wrapping_add(taken.payload);
        self.send_position = self.send_position.wrapping_add(taken.acked);
        let mut bits = 0;
        bits |= u32::from(taken.ece) * received_flag::ECE;
        bits |= u32::from(taken.ce) * received_flag::CE;
        bits |= u32::from(taken.window_changed) * received_flag::WINDOW_CHANGED;
        if let Some(early) = &taken.early_ack {
            bits |= received_flag::EARLY_ACK;
            bits |= u32::from(early.ece) * received_flag::EARLY_ECE;
            self.early(early, now, out);
        }
        out[received::PAYLOAD as usize] = taken.payload;
        out[received::ACKED as usize] = taken.acked;
        out[received::FLAGS as usize] = bits;
        out[received::RTT_MICROS as usize] = taken.rtt_micros;
    }

    fn early(&self, early: &EarlyAck, now: Instant, out: &mut Results) {
        out[received::EARLY_ACK as usize] = early.ack.0;
        out[received::EARLY_WINDOW as usize] = u32::from(early.window);
        let header = tx::early_ack_header(&self.state, early, OWN_MAC, now);
        emit(&header, [&[], &[]], true, out);
    }

    fn capacity(&self) -> u32 {
        self.buffers.recv.capacity().max(self.state.rcv_free)
    }

    /// Returns the sum of the payload.
    fn send(&mut self, args: &[u32], out: &mut Results) -> u32 {
        let now = instant(args[3], args[4]);
        let segment = match tx::next(&self.state, args[0]) {
            Ok(segment) => segment,
            Err(reason) => {
                out[0] = match reason {
                    Wait::Idle => wait::IDLE,
                    Wait::Nagle => wait::NAGLE,
                    Wait::Cwnd => wait::CWND,
                    Wait::Window => wait::WINDOW,
                    Wait::Stalled => wait::STALLED,
                };
                return 0;
            }
        };
        let fields = [
            segment.offset,
            segment.len,
            segment.mss,
            u32::from(segment.push),
        ];
        out[1..5].copy_from_slice(&fields);
        if self
            .local
            .pace
            .blocked(now, self.state.pacing_rate)
            .is_some()
        {
            out[5] = 1;
            return 0;
        }
        let capacity = self.capacity();
        let payload = self.buffers.send.slices(segment.offset, segment.len);
        let header = tx::data_header(&mut self.state, &segment, OWN_MAC, now, capacity);
        emit(&header, payload, args[2] == 0, out);
        let mut sum = Checksum::new();
        payload.iter().for_each(|part| sum.add(part));
        tx::sent(&mut self.state, &mut self.local, &segment, now);
        u32::from(sum.folded())
    }

    fn acknowledge(&mut self, args: &[u32], out: &mut Results) {
        let capacity = self.capacity();
        let due = ack::due(&self.state, &self.local);
        let update = ack::window_update_due(&self.state, capacity);
        out[0] = match due {
            Due::Nothing => 0,
            Due::Delayed => 1,
            Due::Now => 2,
        };
        out[1] = u32::from(update);
        if due == Due::Now || update || args[0] != 0 {
            let now = instant(args[1], args[2]);
            let header = tx::ack_header(&mut self.state, OWN_MAC, now, capacity);
            emit(&header, [&[], &[]], true, out);
            ack::sent(&mut self.state, &mut self.local, false);
        }
    }

    fn bump(&mut self, sequence: u32, sent: u32, freed: u32) -> u32 {
        let expected = SeqNum(self.bumps) + 1;
        if SeqNum(sequence) != expected {
            return if SeqNum(sequence).before(expected) {
                1
            } else {
                2
            };
        }
        let (room, used) = self.room();
        if sent > room || freed > used {
            return 2;
        }
        self.bumps = sequence;
        self.app.writer.write(&self.zeros_or_more(sent));
        let written = self.buffers.send.take_written();
        self.state.set_snd_end(self.state.snd_end() + written);
        let mut taken = vec![0; freed as usize];
        self.app.reader.read(&mut taken);
        let (state, local, recv) = (&mut self.state, &mut self.local, &mut self.buffers.recv);
        rx::freed(state, local, recv, Instant::ZERO, SIZES);
        0
    }

    fn zeros_or_more(&self, len: u32) -> Vec<u8> {
        (0..len).map(|i| (i * 7 + self.bumps) as u8).collect()
    }

    fn limits(&mut self, cwnd: u32, pacing_rate: u32) {
        // As `SoftNic::set_limits`.
        if self.local.ece_seen && cwnd < self.state.cwnd {
            self.local.ece_seen = false;
            self.state.set(flags::CWR, true);
        }
        self.state.cwnd = cwnd;
        self.state.pacing_rate = pacing_rate;
    }
}

fn rings(
    pool: &Arc<Pool>,
    recv_size: u32,
    used: u32,
    send_size: u32,
    held: u32,
) -> (FlowBuffers, App) {
    let (mut recv, reader) = recv_ring(pool);
    let (writer, mut send) = send_ring(pool, send_size);
    if recv_size > 0 {
        recv.resize(recv_size, 0).expect("the pool is large");
        recv.place(0, &vec![1; used as usize]);
        recv.publish(used);
    }
    writer.write(&vec![3; held as usize]);
    send.take_written();
    (FlowBuffers { recv, send }, App { reader, writer })
}

fn emit(header: &SegmentRepr, payload: [&[u8]; 2], partial: bool, out: &mut Results) {
    let mut bytes = [0; MAX_HEADER_LEN];
    let len = header.emit(payload, partial, &mut bytes);
    out[HEADER - 1] = len as u32;
    for (word, chunk) in out[HEADER..].iter_mut().zip(bytes[..len].chunks(4)) {
        let mut four = [0; 4];
        four[..chunk.len()].copy_from_slice(chunk);
        *word = u32::from_be_bytes(four);
    }
}

fn packet_of(args: &[u32]) -> TcpPacket {
    let word = |word: u32| args[word as usize];
    let bits = word(packet::FLAGS);
    let mut options = TcpOptions::default();
    if bits & packet_flag::TIMESTAMPS != 0 {
        options.timestamps = Some(Timestamps {
            val: word(packet::TS_VAL),
            ecr: word(packet::TS_ECR),
        });
    }
    if bits & packet_flag::SACK != 0 {
        options.sack.push(SeqNum(1), SeqNum(2));
    }
    options.other = bits & packet_flag::OPTIONS != 0;
    let nowhere = FlowTuple {
        local: ([0, 0, 0, 0].into(), 0),
        remote: ([0, 0, 0, 0].into(), 0),
    };
    TcpPacket {
        src_mac: MacAddr::ZERO,
        dst_mac: MacAddr::ZERO,
        tuple: nowhere,
        tos: word(packet::TTL_TOS) as u8,
        ttl: 64,
        ip_options: bits & packet_flag::IP_OPTIONS != 0,
        tcp: TcpHeader {
            src_port: 0,
            dst_port: 0,
            seq: SeqNum(word(packet::SEQ)),
            ack: SeqNum(word(packet::ACK)),
            flags: TcpFlags::from_bits(word(packet::FLAGS_WINDOW) as u8),
            window: (word(packet::FLAGS_WINDOW) >> 16) as u16,
            urgent: 0,
            options,
        },
        payload_offset: 0,
        payload_len: word(packet::PAYLOAD_LEN) as usize,
    }
}

/// A frame as the classifier sees it.
fn parse_frame(args: &[u32], out: &mut Results) {
    let bytes: Vec<u8> = args[3..]
        .iter()
        .flat_map(|word| word.to_be_bytes())
        .collect();
    let checksum = [
        RxChecksum::Trusted,
        RxChecksum::Unverified,
        RxChecksum::MaybePartial,
    ];
    let frame = RxFrame::contiguous(&bytes[..args[0] as usize], checksum[args[2] as usize]);
    let mut set = |word: u32, value: u32| out[word as usize] = value;
    let tuple = match parse(&frame) {
        Err(malformed) => {
            let number = match malformed {
                Malformed::NotTcp => verdict::NOT_TCP,
                Malformed::Truncated => verdict::TRUNCATED,
                Malformed::BadChecksum => verdict::BAD_CHECKSUM,
                Malformed::Fragment => verdict::FRAGMENT,
                Malformed::IpHeader => verdict::IP_HEADER,
                Malformed::Extension => verdict::EXTENSION,
                Malformed::DataOffset => verdict::DATA_OFFSET,
                Malformed::NotUnicast => verdict::NOT_UNICAST,
                Malformed::Vlan => verdict::VLAN,
            };
            set(packet::WORDS, number);
            return;
        }
        Ok(Packet::Tcp(tcp)) => {
            let header = &tcp.tcp;
            let options = &header.options;
            let syn = header.flags.contains(TcpFlags::SYN);
            let mut bits = u32::from(tcp.tuple.local.0.is_ipv6()) * packet_flag::IPV6;
            bits |= u32::from(tcp.ip_options) * packet_flag::IP_OPTIONS;
            bits |= u32::from(!options.sack.is_empty()) * packet_flag::SACK;
            bits |= u32::from(options.other && !syn) * packet_flag::OPTIONS;
            if let Some(stamps) = options.timestamps {
                bits |= packet_flag::TIMESTAMPS;
                set(packet::TS_VAL, stamps.val);
                set(packet::TS_ECR, stamps.ecr);
            }
            set(packet::SEQ, header.seq.0);
            set(packet::ACK, header.ack.0);
            set(
                packet::FLAGS_WINDOW,
                u32::from(header.window) << 16 | u32::from(header.flags.bits()),
            );
            set(packet::FLAGS, bits);
            set(
                packet::TTL_TOS,
                u32::from(tcp.ttl) << 8 | u32::from(tcp.tos),
            );
            set(packet::PAYLOAD_LEN, tcp.payload_len as u32);
            set(packet::PAYLOAD_OFFSET, tcp.payload_offset as u32);
            tcp.tuple
        }
        Ok(Packet::Icmp(error)) => {
            let ipv6 = u32::from(error.tuple.local.0.is_ipv6());
            set(
                packet::FLAGS,
                (ipv6 * packet_flag::IPV6) | packet_flag::ICMP,
            );
            set(packet::SEQ, error.seq.0);
            error.tuple
        }
    };
    for (at, address) in [
        (packet::LOCAL_IP, tuple.local.0),
        (packet::REMOTE_IP, tuple.remote.0),
    ] {
        for (word, value) in (at..).zip(ip_words(address)) {
            set(word, value);
        }
    }
    set(
        packet::PORTS,
        u32::from(tuple.local.1) << 16 | u32::from(tuple.remote.1),
    );
}
