//! The receiving half: payload into the ring at its final place, the window, and when to acknowledge.

use std::time::Duration;

use flextcp_nic::seq::SeqNum;
use flextcp_nic::wire::{TcpFlags, TcpPacket};

use super::conn::{Conn, Context};
use super::handshake::initial_buffer;
use super::timer::Timer;
use super::{EngineConfig, Event, State};

/// A block of the pool that is always granted.
const LEAST_BUFFER: u32 = 4096;
/// A round trip that is worth being ahead of.
const LONG_RTT: Duration = Duration::from_millis(1);

impl Conn {
    /// Takes the payload and FIN of an acceptable segment.
    pub(super) fn on_text<'a>(
        &mut self,
        cx: &mut Context<'_>,
        packet: &TcpPacket,
        payload: impl Iterator<Item = &'a [u8]>,
    ) {
        let tcp = &packet.tcp;
        let start = tcp.seq;
        let len = packet.payload_len as u32;
        let mut end = start + len;
        if tcp.flags.contains(TcpFlags::FIN)
            && self.rcv.fin.is_none()
            && end.at_or_after(self.rcv.nxt)
        {
            self.rcv.fin = Some(end);
        }
        // Nothing comes after a FIN.
        if let Some(fin) = self.rcv.fin {
            end = end.earliest(fin);
        }
        // A super-frame of the port stands for several segments: it must not raise the size they are taken for.
        self.rcv.mss = self.rcv.mss.max(len.min(self.snd.mss.bytes()));
        if start.before(end) {
            self.note_duplicate(start, end);
        }
        let in_order = start.at_or_before(self.rcv.nxt);
        let had_hole = !self.rcv.reassembly.is_empty();
        // Payload beyond the window is cut off (RFC 9293, section 3.10.7.4).
        let (from, to) = (start.latest(self.rcv.nxt), end.earliest(self.rcv.adv));
        let mut placed = false;
        let (nxt, capacity) = (self.rcv.nxt, self.rcv.capacity);
        if from.before(to) && self.rcv.reassembly.has_room(from, to, nxt, capacity) {
            placed = self.place(start, from, to, payload);
            self.counters.out_of_order += u32::from(placed && !in_order);
        }
        let before = self.rcv.nxt;
        self.deliver(cx);
        let progressed = self.rcv.nxt != before;
        if progressed {
            self.schedule_ack(cx);
            self.note_heard(tcp.flags.contains(TcpFlags::PSH));
        }
        // RFC 5681, section 4.2: at once for what is out of order, fills a hole or cannot be taken.
        if !in_order || had_hole || (len > 0 && !progressed) || (len > 0 && !placed) {
            self.acknowledge_duplicate();
            // After a loss the peer's window is small, and each ACK that waits costs it a part of a round trip. Linux does
            // so after duplicates alone (`tcp_enter_quickack_mode`); RFC 5681, section 4.2, leaves it open.
            self.rcv.ack.quick = cx.config.quick_acks;
        }
        if self.rcv.ack.now > 0 {
            cx.opens(self.id);
        }
        if self.rcv.fin == Some(self.rcv.nxt) {
            self.on_fin(cx);
        } else if tcp.flags.contains(TcpFlags::FIN) {
            self.rcv.ack.now = self.rcv.ack.now.max(1);
        }
    }

    /// RFC 2883: what arrived twice.
    fn note_duplicate(&mut self, start: SeqNum, end: SeqNum) {
        if start.before(self.rcv.nxt) {
            self.rcv.dsack = Some((start, end.earliest(self.rcv.nxt)));
        } else if self.rcv.reassembly.contains(start, end) {
            self.rcv.dsack = Some((start, end));
        }
    }

    /// Acknowledges at once. A peer without SACK counts duplicates, so it gets one for each segment.
    fn acknowledge_duplicate(&mut self) {
        let now = &mut self.rcv.ack.now;
        *now = if self.negotiated.sack {
            1
        } else {
            now.saturating_add(1)
        };
    }

    /// Copies the parts of `from..to` that are not held to their place; returns whether all are held now.
    fn place<'a>(
        &mut self,
        start: SeqNum,
        from: SeqNum,
        to: SeqNum,
        payload: impl Iterator<Item = &'a [u8]>,
    ) -> bool {
        let nxt = self.rcv.nxt;
        self.make_room(to.since(nxt));
        let Some(buffers) = &mut self.buffers else {
            return false;
        };
        let ring = &mut buffers.recv;
        // Bytes that the ring takes, from `from` on.
        let to = to.earliest(nxt + ring.free());
        if !from.before(to) {
            return false;
        }
        let mut at = start;
        for slice in payload {
            let slice_end = at + slice.len() as u32;
            let (left, right) = (at.latest(from), slice_end.earliest(to));
            if left.before(right) {
                self.rcv.reassembly.gaps(left, right, |a, b| {
                    let bytes = &slice[a.since(at) as usize..b.since(at) as usize];
                    ring.place(a.since(nxt), bytes) == bytes.len()
                });
            }
            at = slice_end;
        }
        self.rcv.reassembly.insert(from, to);
        true
    }

    /// Sees to it that the ring has room for `len` bytes beyond RCV.NXT, if there is memory: it may have none yet, or less
    /// than was promised because memory was short when it got some.
    fn make_room(&mut self, len: u32) {
        let promised = self.rcv.adv.since(self.rcv.nxt);
        let extent = self.rcv.reassembly.extent(self.rcv.nxt);
        let Some(buffers) = &mut self.buffers else {
            return;
        };
        let ring = &mut buffers.recv;
        if ring.free() >= len {
            return;
        }
        let first = match ring.capacity() {
            0 => ring.pool().first_block(self.rcv.capacity),
            _ => 0,
        };
        let used = ring.capacity() - ring.free();
        let sizes = [promised.max(first), len, LEAST_BUFFER];
        let mut sizes = sizes.into_iter().map(|room| used.saturating_add(room));
        let fits = sizes.any(|size| size > ring.capacity() && ring.resize(size, extent).is_ok());
        self.counters.out_of_memory += u32::from(!fits);
    }

    /// Publishes what is in order now.
    fn deliver(&mut self, cx: &mut Context<'_>) {
        let nxt = self.rcv.reassembly.advance(self.rcv.nxt);
        let bytes = nxt.since(self.rcv.nxt);
        if bytes == 0 {
            return;
        }
        self.rcv.nxt = nxt;
        self.rcv.adv = self.rcv.adv.latest(nxt);
        self.counters.bytes_received += u64::from(bytes);
        if let Some(buffers) = &mut self.buffers {
            buffers.recv.publish(bytes);
        }
        if !self.orphan {
            cx.readable(self.id);
        }
    }

    /// The peer's FIN is next in order (RFC 9293, section 3.10.7.4, eighth).
    fn on_fin(&mut self, cx: &mut Context<'_>) {
        self.rcv.nxt += 1;
        self.rcv.adv = self.rcv.adv.latest(self.rcv.nxt);
        self.rcv.ack.now = self.rcv.ack.now.max(1);
        if !self.orphan {
            cx.events.push_back(Event::PeerClosed(self.id));
        }
        self.state = match self.state {
            State::Established | State::SynReceived => State::CloseWait,
            State::FinWait1 if self.fin_acked() => State::TimeWait,
            State::FinWait1 => State::Closing,
            State::FinWait2 => State::TimeWait,
            other => other,
        };
    }

    /// Bytes arrived in order: acknowledge every second full segment at once, others after a while.
    fn schedule_ack(&mut self, cx: &Context<'_>) {
        let ack = &mut self.rcv.ack;
        let owed = self.rcv.nxt.since(self.rcv.last_ack_sent);
        if ack.quick > 0 && self.options.quickack {
            ack.quick -= 1;
            ack.now = ack.now.max(1);
        } else if owed > self.rcv.mss {
            ack.now = ack.now.max(1);
        } else {
            self.timers
                .start(Timer::DelayedAck, cx.now + cx.config.delayed_ack);
        }
    }

    /// What the peer pushes may be the end of what its window lets it send: without a reply to carry the
    /// acknowledgment it would wait for the timer, and the peer's window be a segment smaller (Linux acknowledges it when the
    /// application has read it, `tcp_cleanup_rbuf` with `ICSK_ACK_PUSHED`; the fast path does as here).
    fn note_heard(&mut self, pushed: bool) {
        let ack = &mut self.rcv.ack;
        ack.heard = true;
        if pushed && !ack.conversation {
            ack.now = ack.now.max(1);
        }
    }

    /// The delayed-ACK timer ran out: no reply came in time to carry the acknowledgment.
    pub(super) fn on_delayed_ack(&mut self) {
        self.rcv.ack.conversation = false;
        if self.rcv.last_ack_sent != self.rcv.nxt {
            self.rcv.ack.now = self.rcv.ack.now.max(1);
        }
    }

    /// Space of the ring beyond RCV.NXT, as it is or as it would be once attached.
    pub(super) fn receive_space(&self) -> u32 {
        match &self.buffers {
            Some(buffers) if buffers.recv.capacity() > 0 => buffers.recv.offerable(),
            Some(buffers) => buffers.recv.pool().first_block(self.rcv.capacity),
            None => 0,
        }
    }

    /// Moves the right edge of the window as far as the ring allows, never back, and not by little
    /// (RFC 9293, section 3.8.6.2.2).
    pub(super) fn open_window(&mut self) {
        if let Some(edge) = self.worthwhile_edge() {
            self.rcv.adv = edge;
        }
    }

    fn worthwhile_edge(&self) -> Option<SeqNum> {
        let scale = self.negotiated.rcv_wscale;
        // Rounding must not promise more than there is, and not take back what was promised: keep one unit.
        let unit = 1u32 << scale.get();
        let space = self.receive_space();
        let window = scale.round(space.saturating_sub(unit - 1));
        let edge = self.rcv.nxt + window;
        let gain = edge.since(self.rcv.adv);
        let least = (self.rcv.capacity / 2).min(self.rcv.mss);
        (gain > 0 && gain >= least).then_some(edge)
    }

    /// The application read: grow the ring if it is fast, and tell the peer if the window at least doubles.
    pub(super) fn on_read(&mut self, cx: &Context<'_>) {
        let Some(buffers) = &mut self.buffers else {
            return;
        };
        let freed = buffers.recv.take_freed();
        self.rcv.read = self.rcv.read.saturating_add(freed);
        self.tune(cx);
        if !self.state.may_receive() {
            return;
        }
        let window = self.rcv.adv.since(self.rcv.nxt);
        if let Some(edge) = self.worthwhile_edge()
            && edge.since(self.rcv.nxt) >= 2 * window
        {
            self.rcv.ack.now = self.rcv.ack.now.max(1);
        }
    }

    /// `SO_RCVBUF`: the ring gets this size and is not tuned any more, on the NIC neither. What the peer was offered is
    /// not taken back, so a smaller ring may have to wait until that was used.
    pub(super) fn apply_receive_buffer(&mut self, config: &EngineConfig) {
        let capacity = initial_buffer(&self.options, config);
        let offered = self.rcv.adv.since(self.rcv.nxt);
        let extent = self.rcv.reassembly.extent(self.rcv.nxt);
        let Some(buffers) = &mut self.buffers else {
            return;
        };
        let ring = &mut buffers.recv;
        if self.options.recv_buffer.is_none() || ring.limit() == capacity {
            return;
        }
        ring.set_limit(capacity);
        self.rcv.capacity = capacity;
        let wanted = ring.unread().saturating_add(offered).max(capacity);
        if ring.capacity() > 0 && wanted.next_power_of_two() != ring.capacity() {
            // Without memory it stays as it is.
            let _ = ring.resize(wanted, extent);
        }
    }

    /// Receive buffer tuning after Linux's dynamic right-sizing.
    pub(super) fn tune(&mut self, cx: &Context<'_>) {
        let Some(size) = self.wanted_ring(cx) else {
            return;
        };
        let Some(buffers) = &mut self.buffers else {
            return;
        };
        let ring = &mut buffers.recv;
        if ring.capacity() > 0
            && !ring.pool().under_pressure()
            && ring
                .resize(size, self.rcv.reassembly.extent(self.rcv.nxt))
                .is_ok()
        {
            self.rcv.capacity = ring.capacity();
        }
    }

    /// Once in a round trip: the size that the ring should have, if that is more than it has. It holds twice what the
    /// application reads in a round trip; four times while that grows: the window that is granted now is that of the
    /// next round trip, in which a sender in slow start sends twice as much (Linux's `tcp_rcv_space_adjust` adds the
    /// growth twice over). On a short path a round trip more does not matter, and each step costs a claim from the NIC.
    pub(super) fn wanted_ring(&mut self, cx: &Context<'_>) -> Option<u32> {
        let rtt = self.rtt.srtt().unwrap_or(Duration::from_millis(100));
        if self.options.recv_buffer.is_some() || self.rcv.tuned_at + rtt > cx.now {
            return None;
        }
        let (read, before) = (self.rcv.read, self.rcv.read_before);
        self.rcv.read_before = read;
        self.rcv.read = 0;
        self.rcv.tuned_at = cx.now;
        let growing = rtt >= LONG_RTT && read > before.saturating_add(before / 4);
        let wanted = read.saturating_mul(if growing { 4 } else { 2 });
        let most = cx.config.recv_buffer_max;
        (wanted > self.rcv.capacity && self.rcv.capacity < most).then(|| {
            let size = wanted.min(most.min(1 << 30));
            size.next_power_of_two()
        })
    }
}
