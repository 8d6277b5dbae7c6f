//! Frames in.

use super::{Core, Instant};
use crate::fast::rx;
use crate::flow::FlowId;
use crate::nic::{Exception, Reason, Returned, Sink};
use crate::port::RxFrame;
use crate::steer::FlowKey;
use crate::wire::{IcmpError, Malformed, Packet, TcpPacket, parse};

impl Core {
    /// Handles one frame.
    pub(super) fn frame(&mut self, now: Instant, frame: RxFrame<'_>, sink: &mut dyn Sink) {
        let packet = match parse(&frame) {
            Ok(packet) => packet,
            Err(Malformed::BadChecksum) => {
                self.counters.bad_checksum += 1;
                return;
            }
            Err(_) => {
                self.counters.malformed += 1;
                return;
            }
        };
        match &packet {
            Packet::Tcp(tcp) => self.segment(now, frame, &packet, tcp, sink),
            Packet::Icmp(error) => self.icmp(frame, &packet, error, sink),
        }
    }

    fn segment(
        &mut self,
        now: Instant,
        frame: RxFrame<'_>,
        packet: &Packet,
        tcp: &TcpPacket,
        sink: &mut dyn Sink,
    ) {
        let key = FlowKey::new(&tcp.tuple);
        let Some(id) = self.table.find(&key) else {
            self.unknown(frame, packet, tcp, &key, sink);
            return;
        };
        // The table has just found it.
        let Some(flow) = self.table.get_mut(id) else {
            return;
        };
        let sizes = self.config.recv_sizes;
        let (state, local, buffers) = (&mut flow.state, &mut flow.local, &mut flow.buffers);
        match rx::receive(state, local, buffers, tcp, &frame, now, sizes) {
            Ok(received) => {
                self.counters.fast.frames_in += 1;
                self.counters.fast.bytes_in += u64::from(received.payload);
                if let Some(early) = received.early_ack {
                    self.queues.early_acks.push((id, early));
                }
                if flow.note(&received) && !flow.notify_queued {
                    flow.notify_queued = true;
                    self.dirty.push(id);
                }
                if received.payload > 0 || flow.local.ack_now {
                    self.queues.want_ack(id, flow);
                }
                if received.acked > 0 || received.window_changed {
                    self.queues.want_send(id, flow);
                }
                if received.payload > 0 {
                    self.touch(id, now);
                }
            }
            Err(reason) => {
                let returned = self.punt(id, key, sink);
                self.exception(frame, packet, reason, tcp.payload_len, returned, sink);
            }
        }
    }

    /// A segment of no flow of ours.
    fn unknown(
        &mut self,
        frame: RxFrame<'_>,
        packet: &Packet,
        tcp: &TcpPacket,
        key: &FlowKey,
        sink: &mut dyn Sink,
    ) {
        if !self.excluded.is_empty() && self.excluded.contains(&tcp.tuple) {
            return;
        }
        if self.refuses(&tcp.tuple) {
            self.counters.filtered += 1;
            return;
        }
        let host_owned = self.punted.contains(key);
        let reason = if host_owned {
            Reason::HostOwned
        } else {
            Reason::NoFlow
        };
        self.exception(frame, packet, reason, tcp.payload_len, None, sink);
    }

    /// An ICMP error goes to the slow path, with the flow if it is about what is in flight. About anything else
    /// of an installed flow it is late or forged (RFC 5927, section 4.1).
    fn icmp(
        &mut self,
        frame: RxFrame<'_>,
        packet: &Packet,
        error: &IcmpError,
        sink: &mut dyn Sink,
    ) {
        let key = FlowKey::new(&error.tuple);
        let mut returned = None;
        if let Some(id) = self.table.find(&key) {
            let in_flight = self.table.get(id).is_some_and(|flow| {
                error.seq.at_or_after(flow.state.snd_una())
                    && error.seq.before(flow.state.snd_nxt())
            });
            if !in_flight {
                self.counters.filtered += 1;
                return;
            }
            returned = self.punt(id, key, sink);
        }
        self.exception(frame, packet, Reason::Icmp, 0, returned, sink);
    }

    /// Makes a flow host-owned: what it did so far is notified first, and from here on its frames find no flow.
    fn punt(&mut self, id: FlowId, key: FlowKey, sink: &mut dyn Sink) -> Option<Box<Returned>> {
        self.notify(id, sink);
        self.punted.push(key);
        self.counters.punted += 1;
        self.release(id).map(Box::new)
    }

    fn exception(
        &mut self,
        frame: RxFrame<'_>,
        packet: &Packet,
        reason: Reason,
        payload: usize,
        returned: Option<Box<Returned>>,
        sink: &mut dyn Sink,
    ) {
        self.counters.slow.frames_in += 1;
        self.counters.slow.bytes_in += payload as u64;
        self.counters.exceptions[reason.index()] += 1;
        sink.exception(Exception {
            frame,
            packet,
            reason,
            returned,
        });
    }

    fn notify(&mut self, id: FlowId, sink: &mut dyn Sink) {
        if let Some(flow) = self.table.get_mut(id).filter(|flow| flow.notify_queued) {
            flow.notify_queued = false;
            sink.notification(flow.take_notification());
        }
    }

    /// Delivers what the poll gathered.
    pub(super) fn notify_all(&mut self, sink: &mut dyn Sink) {
        let mut dirty = std::mem::take(&mut self.dirty);
        dirty.drain(..).for_each(|id| self.notify(id, sink));
        self.dirty = dirty;
    }

    /// Gives back the flows that need the slow path although no frame says so.
    pub(super) fn deliver_returns(&mut self, sink: &mut dyn Sink) {
        for id in std::mem::take(&mut self.returns) {
            self.notify(id, sink);
            if let Some(returned) = self.release(id) {
                self.counters.punted += 1;
                sink.returned(returned);
            }
        }
    }
}
