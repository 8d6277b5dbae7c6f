//! What the card tells: events in, delivered to a [`Sink`].

use super::NfpNic;
use super::flows::{Flow, LateFrame};
use super::setup::result_text;
use crate::flow::{FlowId, FlowState, FlowTuple};
use crate::nic::{Exception, Reason, Returned, Sink};
use crate::port::{RxChecksum, RxFrame};
use crate::queue::abi::{
    cause, completion, event, event_flag, event_kind, operation, queue_register,
};
use crate::queue::ring::Event;
use crate::time::Instant;
use crate::wire::{Packet, parse};

const fn flow_of(event: &Event) -> FlowId {
    FlowId {
        index: event.word(event::FLOW),
        generation: event.word(event::GENERATION),
    }
}

const fn tuple_of(packet: &Packet) -> FlowTuple {
    match packet {
        Packet::Tcp(tcp) => tcp.tuple,
        Packet::Icmp(error) => error.tuple,
    }
}

fn payload_of(packet: &Packet) -> u64 {
    match packet {
        Packet::Tcp(tcp) => tcp.payload_len as u64,
        Packet::Icmp(_) => 0,
    }
}

impl NfpNic {
    /// Handles the events that are there, up to about `budget` of them; returns how many.
    pub(super) fn take_events(&mut self, budget: usize, sink: &mut dyn Sink) -> usize {
        let mut taken = 0;
        while taken < budget {
            let position = self.events.head();
            let Some(event) = self.events.pop() else {
                break;
            };
            taken += 1;
            match event.kind() {
                event_kind::NOTIFICATION => self.notification(&event),
                event_kind::EXCEPTION => self.exception(position, &event, sink),
                event_kind::RETURNED => self.returned(&event, sink),
                event_kind::COMPLETION => self.completion(&event, sink),
                kind => tracing::warn!(kind, "the card posted an event of an unknown kind"),
            }
        }
        if taken > 0 {
            self.write_queue(queue_register::EVENT_HEAD, self.events.head());
        } else {
            self.repeat_doorbell();
        }
        taken
    }

    fn notification(&mut self, event: &Event) {
        let id = flow_of(event);
        let Some(flow) = self.flows.get_mut(id) else {
            return;
        };
        let received = event.word(event::RECEIVED);
        let acked = event.word(event::ACKED);
        flow.buffers.recv.publish_placed(received);
        // The card acknowledges nothing beyond what it was told of.
        flow.buffers
            .send
            .release(acked.min(flow.buffers.send.len()));
        flow.state.set_rcv_nxt(flow.state.rcv_nxt() + received);
        flow.state.set_snd_una(flow.state.snd_una() + acked);
        flow.state.snd_wnd = event.word(event::SND_WND);
        flow.told |= received > 0;
        let delta = &mut flow.delta;
        delta.received += received;
        delta.acked += acked;
        delta.acked_ece += event.word(event::ACKED_ECE);
        delta.congestion_experienced |= event.has(event_flag::CONGESTION_EXPERIENCED);
        delta.cwnd_limited |= event.has(event_flag::CWND_LIMITED);
        delta.snd_wnd = event.word(event::SND_WND);
        delta.in_flight = event.word(event::IN_FLIGHT);
        if event.word(event::RTT_MICROS) != 0 {
            delta.rtt_micros = event.word(event::RTT_MICROS);
        }
        let (told, used) = (flow.told, received > 0 || acked > 0);
        if !std::mem::replace(&mut flow.notify_queued, true) {
            self.flows.to_notify.push(id.index);
        }
        if told {
            self.flows.want_to_tell(id.index);
        }
        if used {
            self.touch(id);
        }
    }

    /// Delivers what was gathered.
    pub(super) fn notify_all(&mut self, sink: &mut dyn Sink) {
        for index in std::mem::take(&mut self.flows.to_notify) {
            if let Some((_, flow)) = self.flows.at(index)
                && flow.notify_queued
            {
                sink.notification(flow.take_notification());
            }
        }
    }

    /// Takes a flow that comes back, after its last notification.
    fn take_flow(&mut self, id: FlowId, removing: bool, sink: &mut dyn Sink) -> Option<Flow> {
        let mut flow = self.flows.remove(id, removing)?;
        if flow.notify_queued {
            sink.notification(flow.take_notification());
        }
        Some(flow)
    }

    fn returned_state(&self, id: FlowId) -> (FlowState, Option<Instant>) {
        let since = self.memory.outstanding_since(id.index);
        (
            FlowState::from_words(self.memory.read_block(id.index)),
            since.map(|(ms, ns)| self.instant(ms, ns)),
        )
    }

    /// A frame that the fast path does not handle.
    fn exception(&mut self, position: u32, event: &Event, sink: &mut dyn Sink) {
        let len = event.word(event::FRAME_LENGTH);
        let bytes = self.memory.frame(position, len).to_vec();
        // The card verified it.
        let frame = RxFrame::contiguous(&bytes, RxChecksum::Trusted);
        let Ok(packet) = parse(&frame) else {
            self.counters.malformed += 1;
            return;
        };
        let reason = Reason::ALL
            .get(event.word(event::REASON) as usize)
            .copied()
            .unwrap_or(Reason::NoFlow);
        let tuple = tuple_of(&packet);
        if event.has(event_flag::RETURNED) {
            let id = flow_of(event);
            let Some(flow) = self.take_flow(id, true, sink) else {
                return;
            };
            self.counters.punted += 1;
            self.push_remove(id);
            let state = self.returned_state(id);
            self.deliver_return(flow, state, sink, Some((frame, &packet, reason)));
            return;
        }
        if let Some(id) = self.flows.find(&tuple) {
            // It came before the card had the flow. The slow path sees it with the flow, which has to come back.
            if let Some(flow) = self.flows.get_mut(id) {
                flow.late.push(LateFrame {
                    checksum: frame.checksum,
                    bytes,
                    reason,
                });
            }
            // The flow is there: it was just found.
            let _ = self.request_claim(id);
            return;
        }
        if self.excluded.contains_key(&tuple) {
            return;
        }
        self.deliver(frame, &packet, reason, None, sink);
    }

    /// Gives a flow back with the frames that waited for it, and then `frame`.
    fn deliver_return(
        &mut self,
        mut flow: Flow,
        (state, outstanding_since): (FlowState, Option<Instant>),
        sink: &mut dyn Sink,
        last: Option<(RxFrame<'_>, &Packet, Reason)>,
    ) {
        let late = std::mem::take(&mut flow.late);
        let mut returned = Some(Box::new(flow.into_returned(state, outstanding_since)));
        for late in &late {
            let frame = RxFrame::contiguous(&late.bytes, late.checksum);
            if let Ok(packet) = parse(&frame) {
                self.deliver(frame, &packet, late.reason, returned.take(), sink);
            }
        }
        if let Some((frame, packet, reason)) = last {
            self.deliver(frame, packet, reason, returned.take(), sink);
        }
        if let Some(returned) = returned {
            sink.returned(*returned);
        }
    }

    fn deliver(
        &mut self,
        frame: RxFrame<'_>,
        packet: &Packet,
        reason: Reason,
        returned: Option<Box<Returned>>,
        sink: &mut dyn Sink,
    ) {
        self.counters.slow.frames_in += 1;
        self.counters.slow.bytes_in += payload_of(packet);
        self.counters.exceptions[reason.index()] += 1;
        sink.exception(Exception {
            frame,
            packet,
            reason,
            returned,
        });
    }

    /// A flow comes back without a frame.
    fn returned(&mut self, event: &Event, sink: &mut dyn Sink) {
        let id = flow_of(event);
        let Some(flow) = self.take_flow(id, true, sink) else {
            return;
        };
        match event.word(event::REASON) {
            cause::CLAIMED => self.counters.claimed += 1,
            cause => {
                if cause != cause::STALLED {
                    tracing::warn!(token = flow.token.0, cause, "the card gave a flow back");
                }
                self.counters.punted += 1;
            }
        }
        self.push_remove(id);
        let state = self.returned_state(id);
        self.deliver_return(flow, state, sink, None);
    }

    fn completion(&mut self, event: &Event, sink: &mut dyn Sink) {
        let id = flow_of(event);
        let result = event.word(event::RESULT);
        match event.word(event::OPERATION) {
            operation::INSTALL if result != completion::OK => {
                tracing::debug!(result = result_text(result), ?id, "the card refused a flow");
                if let Some(flow) = self.take_flow(id, false, sink) {
                    self.counters.punted += 1;
                    let state = flow.state;
                    self.deliver_return(flow, (state, None), sink, None);
                }
            }
            operation::REMOVE => self.flows.removed(id.index),
            operation::RECV_RING if self.flows.get(id).is_some_and(|flow| flow.detaching) => {
                self.detached(id, result);
            }
            operation::RECV_RING => {
                if let Some(flow) = self.flows.get_mut(id)
                    && let Some(memory) = flow.next_recv.take()
                    && result == completion::OK
                {
                    let fits = flow.buffers.recv.adopt(memory);
                    debug_assert!(fits, "the card saw that what is held fits");
                    // Chunks of the memory before pin nothing any more.
                    flow.freed += flow.buffers.recv.take_freed();
                    self.flows.want_to_tell(id.index);
                }
            }
            operation::SEND_RING => {
                if let Some(flow) = self.flows.get_mut(id) {
                    flow.old_send.pop_front();
                }
            }
            operation::LISTEN | operation::UNLISTEN | operation::SEND_FRAME
                if result != completion::OK =>
            {
                tracing::warn!(
                    result = result_text(result),
                    operation = event.word(event::OPERATION),
                    "the card refused a request"
                );
            }
            _ => {}
        }
    }
}
