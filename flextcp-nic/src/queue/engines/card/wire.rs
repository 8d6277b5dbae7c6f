//! The wire of the card under test: what the peer sends and gets, and the slow path's own frames.

use super::*;

impl Host {
    /// The peer sends a segment of the stream, at those positions.
    pub(in crate::queue::engines) fn peer(
        &mut self,
        flags: TcpFlags,
        start: u32,
        acked: u32,
        len: u32,
    ) {
        let payload: Vec<u8> = (start..start + len).map(byte).collect();
        let repr = SegmentRepr {
            src_mac: MacAddr([2, 0, 0, 0, 0, 2]),
            dst_mac: MacAddr([2, 0, 0, 0, 0, 1]),
            tuple: tuple().reversed(),
            tos: 0,
            ttl: 64,
            seq: PEER + start,
            ack: OWN + acked,
            flags,
            window: 512,
            urgent: 0,
            options: TcpOptions::default(),
        };
        let mut header = [0; MAX_HEADER_LEN];
        let len = repr.emit([&payload, &[]], false, &mut header);
        let frame = [&header[..len], &payload].concat();
        for _ in 0..1000 {
            // SAFETY: the card lives and copies the frame.
            if unsafe { fx_host_receive(self.nic, frame.as_ptr(), frame.len() as u32, 2) } == 0 {
                return;
            }
            self.some_steps(10);
        }
        panic!("no packet buffer");
    }

    /// Takes in what the card sent.
    pub(super) fn frames_out(&mut self) {
        let frames = std::mem::take(&mut self.world.borrow_mut().sent);
        for bytes in frames {
            let frame = RxFrame::contiguous(&bytes, RxChecksum::Unverified);
            let Ok(Packet::Tcp(packet)) = parse(&frame) else {
                panic!("the card sent what is no segment");
            };
            if packet.tuple.remote == tuple().local {
                let start = packet.tcp.seq.offset_from(OWN) as u32;
                let payload: Vec<u8> = packet.payload(&frame).flatten().copied().collect();
                let expected: Vec<u8> = (start..start + payload.len() as u32).map(byte).collect();
                assert_eq!(payload, expected, "payload from {start}");
                let told = packet.tcp.ack.offset_from(PEER) as u32;
                let events = self.received + self.untold();
                assert!(
                    told <= events,
                    "acknowledged {told} of {events} that the host can know of"
                );
                self.seen = self.seen.max(start + payload.len() as u32);
                let edge = told + (u32::from(packet.tcp.window) << 7);
                self.offered = self.offered.max(edge);
            }
            self.sent.push(packet);
        }
    }

    /// What events that nobody looked at yet report.
    pub(super) fn untold(&self) -> u32 {
        let waiting = |position: u32| {
            let at = EVENTS_AT + (position % EVENTS) * 64;
            (self.get(at + 60) == position + 1).then_some(at)
        };
        let mut sum = 0;
        let mut position = self.head;
        while let Some(at) = waiting(position) {
            if self.get(at) & 0xff == event_kind::NOTIFICATION {
                sum += self.get(at + 4 * event::RECEIVED);
            }
            position += 1;
        }
        sum
    }

    pub(in crate::queue::engines) fn take_sent(&mut self) -> Vec<TcpPacket> {
        self.frames_out();
        std::mem::take(&mut self.sent)
    }

    /// Bytes that the peer may send beyond `sent`.
    pub(in crate::queue::engines) const fn peer_window(&self, sent: u32) -> u32 {
        self.offered.saturating_sub(sent)
    }

    /// How far the peer saw the card's stream.
    pub(in crate::queue::engines) const fn reached(&self) -> u32 {
        self.seen
    }

    /// A frame of the slow path, its checksum partial.
    pub(in crate::queue::engines) fn send_frame(&mut self) {
        let mut raw = tuple();
        raw.local.1 = 999;
        let repr = SegmentRepr {
            src_mac: MacAddr([2, 0, 0, 0, 0, 1]),
            dst_mac: MacAddr([2, 0, 0, 0, 0, 2]),
            tuple: raw,
            tos: 0,
            ttl: 64,
            seq: PEER,
            ack: OWN,
            flags: TcpFlags::RST,
            window: 0,
            urgent: 0,
            options: TcpOptions::default(),
        };
        let mut header = [0; MAX_HEADER_LEN];
        let len = repr.emit([&[7; 33], &[]], true, &mut header);
        let frame = [&header[..len], &[7; 33]].concat();
        let at = RAW_AT + self.raw * 256;
        self.raw += 1;
        self.memory[at as usize..at as usize + frame.len()].copy_from_slice(&frame);
        let address = BASE + u64::from(at);
        let operation = operation::SEND_FRAME | crate::queue::abi::frame_flag::CHECKSUM;
        self.push(
            Descriptor::new(operation)
                .with(descriptor::FRAME_LENGTH, frame.len() as u32)
                .with(descriptor::FRAME_LOW, address as u32)
                .with(descriptor::FRAME_HIGH, (address >> 32) as u32),
        );
    }

    pub(in crate::queue::engines) fn frames_sent(&self) -> u32 {
        self.get(CONTROL_AT + 4 * control::FRAMES_SENT)
    }
}
