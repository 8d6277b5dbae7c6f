//! The fast path's pure functions over one flow: what a peer sends, what the application does, what is sent.
//!
//! Held to: a segment is handled whole or changes nothing; what is readable are the peer's bytes, once and in order; what
//! is sent are the application's, within the peer's window and cwnd; an offered window is never taken back.

use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use flextcp_nic::buffer::{Pool, RecvReader, SendWriter, recv_ring, send_ring};
use flextcp_nic::fast::rx::{RecvSizes, freed, receive};
use flextcp_nic::fast::{Local, ack, tx};
use flextcp_nic::flow::{FlowState, FlowTuple, flags};
use flextcp_nic::nic::FlowBuffers;
use flextcp_nic::port::{RxChecksum, RxFrame};
use flextcp_nic::seq::{Mss, SeqNum, WindowScale};
use flextcp_nic::time::Instant;
use flextcp_nic::wire::{
    MacAddr, SackBlocks, TcpFlags, TcpHeader, TcpOptions, TcpPacket, Timestamps,
};

use crate::peer::pattern;
use crate::script::Script;

const MAX_STEPS: usize = 300;
const SIZES: RecvSizes = RecvSizes {
    first: 4096,
    max: 1 << 18,
};

struct World {
    state: FlowState,
    local: Local,
    buffers: FlowBuffers,
    reader: RecvReader,
    writer: SendWriter,
    now: Instant,
    /// Where the two streams begin.
    irs: SeqNum,
    iss: SeqNum,
    /// Bytes that the application took and wrote.
    read: u32,
    written: u32,
}

/// Plays a script to its end.
///
/// # Panics
/// When the fast path breaks one of the rules of this [module](self).
pub fn run(bytes: &[u8]) {
    let mut script = Script::new(bytes);
    let mut world = World::new(&mut script);
    for _ in 0..MAX_STEPS {
        if script.is_over() {
            break;
        }
        match script.choice(16) {
            0 => world.read(script.distance()),
            1..=3 => world.write(script.distance() % 20_000),
            4 | 5 => world.send(script.choice(4)),
            6 => world.acknowledge(),
            7 => world.limits(&mut script),
            8 => world.now += Duration::from_micros(script.distance().into()),
            9 => world.reinstall(),
            _ => world.segment(&mut script),
        }
    }
}

impl World {
    fn new(script: &mut Script<'_>) -> Self {
        let (irs, iss) = (SeqNum(script.word()), SeqNum(script.word()));
        let window = u32::from(script.short());
        let mut state = FlowState {
            flags: u32::from(script.byte()) & flags::ALL & !flags::IPV6,
            ts_recent: script.word(),
            cwnd: script.distance() % (1 << 20),
            snd_wnd: script.distance() % (1 << 20),
            rcv_free: window,
            ..FlowState::default()
        };
        let mss = Mss::new(script.short().max(48));
        let scale = |script: &mut Script<'_>| WindowScale::new(script.choice(15));
        state.set_mss_scales(mss, scale(script), scale(script));
        state.set_rcv_nxt(irs);
        state.set_last_ack_sent(irs);
        state.set_rcv_adv(irs + window);
        state.set_snd_una(iss);
        state.set_snd_nxt(iss);
        state.set_snd_end(iss);
        let pool = Pool::new(64 << 20);
        let (recv, reader) = recv_ring(&pool);
        let (writer, send) = send_ring(&Arc::clone(&pool), 1 << 18);
        let now = Instant::from_millis(1000);
        Self {
            local: Local::new(&mut state, now),
            state,
            buffers: FlowBuffers { recv, send },
            reader,
            writer,
            now,
            irs,
            iss,
            read: 0,
            written: 0,
        }
    }

    fn read(&mut self, most: u32) {
        let mut buffer = vec![0; most.min(1 << 18) as usize];
        let n = self.reader.read(&mut buffer);
        for (place, &byte) in (self.read..).zip(&buffer[..n]) {
            assert_eq!(byte, pattern(place), "wrong byte read at {place}");
        }
        self.read += n as u32;
        let (state, local) = (&mut self.state, &mut self.local);
        freed(state, local, &mut self.buffers.recv, self.now, SIZES);
        self.check_window();
    }

    fn write(&mut self, len: u32) {
        let bytes: Vec<u8> = (self.written..self.written + len).map(pattern).collect();
        self.written += self.writer.write(&bytes) as u32;
        let written = self.buffers.send.take_written();
        self.state.set_snd_end(self.state.snd_end() + written);
        assert_eq!(self.state.snd_end().since(self.iss), self.written);
    }

    fn send(&mut self, super_frames: u8) {
        let super_frame = u32::from(super_frames) * 20_000;
        let edge = (self.state.snd_una() + self.state.snd_wnd).latest(self.state.snd_nxt());
        while let Ok(segment) = tx::next(&self.state, super_frame) {
            let state = &mut self.state;
            assert!(segment.len > 0, "an empty segment");
            assert_eq!(segment.offset, state.in_flight());
            let alone = segment.offset == 0 && segment.len <= segment.mss;
            assert!(
                alone || segment.offset + segment.len <= state.cwnd,
                "beyond cwnd"
            );
            let first = state.snd_nxt().since(self.iss);
            let [head, tail] = self.buffers.send.slices(segment.offset, segment.len);
            assert_eq!((head.len() + tail.len()) as u32, segment.len);
            for (place, &byte) in (first..).zip(head.iter().chain(tail)) {
                assert_eq!(byte, pattern(place), "wrong byte sent at {place}");
            }
            let capacity = self.buffers.recv.capacity().max(state.rcv_free);
            let adv = state.rcv_adv();
            let header = tx::data_header(state, &segment, MacAddr::ZERO, self.now, capacity);
            assert_eq!((header.seq, header.ack), (state.snd_nxt(), state.rcv_nxt()));
            assert!(state.rcv_adv().at_or_after(adv), "a window was taken back");
            tx::sent(state, &mut self.local, &segment, self.now);
            assert!(state.snd_nxt().at_or_before(edge), "beyond the window");
            assert!(state.snd_nxt().at_or_before(state.snd_end()));
        }
    }

    fn acknowledge(&mut self) {
        if ack::due(&self.state, &self.local) == ack::Due::Nothing {
            return;
        }
        let state = &mut self.state;
        let capacity = self.buffers.recv.capacity().max(state.rcv_free);
        let adv = state.rcv_adv();
        let header = tx::ack_header(state, MacAddr::ZERO, self.now, capacity);
        assert_eq!((header.seq, header.ack), (state.snd_nxt(), state.rcv_nxt()));
        assert!(state.rcv_adv().at_or_after(adv), "a window was taken back");
        ack::sent(state, &mut self.local, false);
        assert_eq!(ack::due(state, &self.local), ack::Due::Nothing);
        self.check_window();
    }

    /// What the engine may change of an installed flow.
    fn limits(&mut self, script: &mut Script<'_>) {
        self.state.cwnd = script.distance();
        self.state.pacing_rate = script.distance();
        self.state.set(flags::NO_DELAY, script.flag());
        self.state.set(flags::CWR, script.flag());
    }

    /// A claim, and an install of the same state.
    fn reinstall(&mut self) {
        self.local = Local::new(&mut self.state, self.now);
    }

    fn segment(&mut self, script: &mut Script<'_>) {
        let state = &self.state;
        let near = |script: &mut Script<'_>| match script.choice(8) {
            0 => script.distance(),
            1 => 0_u32.wrapping_sub(script.distance()),
            _ => 0,
        };
        let seq = state.rcv_nxt() + near(script);
        let base = if script.flag() {
            state.snd_una()
        } else {
            state.snd_nxt()
        };
        let flags = match script.choice(16) {
            0 => TcpFlags::from_bits(script.byte()),
            1 => TcpFlags::ACK | TcpFlags::ECE,
            2 => TcpFlags::ACK | TcpFlags::CWR,
            _ => TcpFlags::ACK | TcpFlags::PSH,
        };
        let mut options = TcpOptions::default();
        if script.choice(8) != 0 {
            options.timestamps = Some(Timestamps {
                val: state.ts_recent.wrapping_add(near(script)),
                ecr: script.word(),
            });
        }
        match script.choice(32) {
            0 => options.other = true,
            1 => options.mss = Some(1460),
            2 => options.sack = SackBlocks::from_iter([(SeqNum(1), SeqNum(2))]),
            _ => {}
        }
        let start = seq.since(self.irs);
        let len = script.distance() % 9000;
        let payload: Vec<u8> = (0..len)
            .map(|offset| pattern(start.wrapping_add(offset)))
            .collect();
        let packet = TcpPacket {
            src_mac: MacAddr::ZERO,
            dst_mac: MacAddr::ZERO,
            tuple: FlowTuple {
                local: (IpAddr::from([10, 0, 0, 1]), 1),
                remote: (IpAddr::from([10, 0, 0, 2]), 2),
            },
            tos: script.choice(4),
            ttl: 64,
            ip_options: script.choice(64) == 1,
            tcp: TcpHeader {
                src_port: 2,
                dst_port: 1,
                seq,
                ack: base + near(script),
                flags,
                window: script.short(),
                urgent: 0,
                options,
            },
            payload_offset: 0,
            payload_len: payload.len(),
        };
        self.take(&packet, &payload, script.byte());
    }

    fn take(&mut self, packet: &TcpPacket, payload: &[u8], cut: u8) {
        let (head, tail) = payload.split_at(payload.len() * usize::from(cut) / 256);
        let tail = [tail];
        let frame = RxFrame {
            head,
            tail: &tail,
            checksum: RxChecksum::Trusted,
        };
        let before = self.state;
        let (readable, unacked) = (self.reader.len(), self.writer.len());
        let (state, local) = (&mut self.state, &mut self.local);
        match receive(
            state,
            local,
            &mut self.buffers,
            packet,
            &frame,
            self.now,
            SIZES,
        ) {
            Err(_) => {
                assert_eq!(*state, before, "a punt changed the flow");
                assert_eq!((self.reader.len(), self.writer.len()), (readable, unacked));
            }
            Ok(received) => {
                assert_eq!(state.rcv_nxt(), before.rcv_nxt() + received.payload);
                assert!(
                    state.rcv_nxt().at_or_before(before.rcv_adv()),
                    "beyond the window"
                );
                assert_eq!(state.rcv_adv(), before.rcv_adv());
                assert_eq!(state.snd_una(), before.snd_una() + received.acked);
                assert!(state.snd_una().at_or_before(state.snd_nxt()));
                assert_eq!(self.reader.len(), readable + received.payload as usize);
                assert_eq!(self.writer.len(), unacked - received.acked as usize);
                assert!(
                    received.payload == 0 || ack::due(state, local) != ack::Due::Nothing,
                    "data without an ACK"
                );
            }
        }
        self.check_window();
    }

    /// What is on offer has room.
    fn check_window(&self) {
        let state = &self.state;
        assert!(
            state.rcv_wnd() <= state.rcv_free,
            "{} offered, {} free",
            state.rcv_wnd(),
            state.rcv_free
        );
        let ring = &self.buffers.recv;
        assert!(ring.capacity() == 0 || ring.free() >= state.rcv_wnd());
    }
}
