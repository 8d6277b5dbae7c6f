//! Header prediction: a segment that follows the one before it, at the same moment, and says nothing else. What an
//! acknowledgment, a timer or a window may ask for was seen to then; its payload is all that is left. Linux has the same of
//! generic receive offload, where such segments arrive as one.

use flextcp_nic::port::RxFrame;
use flextcp_nic::seq::SeqNum;
use flextcp_nic::time::Instant;
use flextcp_nic::wire::{TcpFlags, TcpPacket};

use super::conn::Conn;
use super::{Engine, State};

const ACK_PSH: TcpFlags = TcpFlags::from_bits(TcpFlags::ACK.bits() | TcpFlags::PSH.bits());

impl Engine {
    /// Takes a segment if it is a follower of the last one; `false` when it is to be looked at in full.
    pub(super) fn on_follower(
        &mut self,
        now: Instant,
        packet: &TcpPacket,
        frame: &RxFrame<'_>,
    ) -> bool {
        let Some(conn) = self.latest.and_then(|id| self.conns.get_mut(id)) else {
            return false;
        };
        if !conn.predicts(now, packet) {
            return false;
        }
        conn.take_follower(packet, frame, self.config.quick_acks);
        true
    }
}

impl Conn {
    /// Whether the segment continues what lies behind the last hole, and the engine would do nothing for it but place it: the one
    /// before it, taken in full at this moment, had the rest done.
    pub(super) fn predicts(&self, now: Instant, packet: &TcpPacket) -> bool {
        let tcp = &packet.tcp;
        let plain = tcp.flags == TcpFlags::ACK || tcp.flags == ACK_PSH;
        let end = tcp.seq + packet.payload_len as u32;
        plain
            && self.rcv.reassembly.right_edge() == Some(tcp.seq)
            && packet.payload_len > 0
            && packet.tuple == self.tuple
            && self.state == State::Established
            && self.dirty
            && self.rcv.ack.now > 0
            && self.rcv.last_heard == now
            && self.rcv.fin.is_none()
            && !self.orphan
            && self.negotiated.sack
            && tcp.ack == self.snd.una
            && self.negotiated.snd_wscale.scale_up(tcp.window) == self.snd.wnd
            && tcp.options.sack.is_empty()
            && self.predicts_timestamp(packet)
            && (!self.negotiated.ecn || packet.ecn_ce() == self.rcv.ece)
            && end.at_or_before(self.rcv.adv)
            && self.has_room_to(end)
    }

    /// Not older than TS.Recent, which a segment beyond a hole does not change (RFC 7323, section 4.3).
    fn predicts_timestamp(&self, packet: &TcpPacket) -> bool {
        let recent = SeqNum(self.rcv.ts_recent);
        !self.negotiated.timestamps
            || packet
                .tcp
                .options
                .timestamps
                .is_some_and(|ts| SeqNum(ts.val).at_or_after(recent))
    }

    fn has_room_to(&self, end: SeqNum) -> bool {
        let ring = self.buffers.as_ref().map(|buffers| &buffers.recv);
        ring.is_some_and(|ring| ring.free() >= end.since(self.rcv.nxt))
    }

    fn take_follower(&mut self, packet: &TcpPacket, frame: &RxFrame<'_>, quick_acks: u8) {
        let Some(buffers) = &mut self.buffers else {
            return;
        };
        let start = packet.tcp.seq;
        let mut offset = start.since(self.rcv.nxt);
        for slice in packet.payload(frame) {
            buffers.recv.place(offset, slice);
            offset += slice.len() as u32;
        }
        let len = packet.payload_len as u32;
        self.rcv.reassembly.insert(start, start + len);
        self.update_window(packet);
        self.rcv.mss = self.rcv.mss.max(len.min(self.snd.mss.bytes()));
        self.rcv.ack.quick = quick_acks;
        self.counters.segs_in += 1;
        self.counters.out_of_order += 1;
    }
}
