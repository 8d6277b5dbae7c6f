//! Rings of flows that idle: their memory goes back to the pool.
//!
//! The card alone knows whether the receive ring is empty, so it is asked to let go of it first; from then on a segment with data
//! is an exception that returns the flow, whose next install brings a ring. The send ring is the host's to take: a card
//! reads no byte that was not announced.

use super::NfpNic;
use super::flows::Flow;
use crate::flow::FlowId;
use crate::queue::abi::{completion, operation};
use crate::time::Instant;

impl NfpNic {
    /// Sees to it that the flow's rings are looked at once they may be idle.
    pub(super) fn touch(&mut self, id: FlowId) {
        let (now, after) = (self.now, self.config.idle_release);
        if let Some(flow) = self.flows.get_mut(id) {
            flow.active = now;
            if !std::mem::replace(&mut flow.watched, true) {
                self.idle.push_back((now + after, id));
            }
        }
    }

    /// When the next rings may be idle.
    pub(super) fn idle_at(&self) -> Option<Instant> {
        self.idle.front().map(|&(at, _)| at)
    }

    /// Gives the memory of idle rings back, or asks for it.
    pub(super) fn release_idle(&mut self) {
        let (now, after) = (self.now, self.config.idle_release);
        while let Some(&(_, id)) = self.idle.front().filter(|(at, _)| *at <= now) {
            self.idle.pop_front();
            let Some(flow) = self.flows.get_mut(id) else {
                continue;
            };
            let due = flow.active + after;
            if due > now {
                self.idle.push_back((due, id));
                continue;
            }
            if flow.claimed || !flow.is_quiet() {
                self.idle.push_back((now + after, id));
                continue;
            }
            flow.watched = false;
            self.release(id);
        }
    }

    fn release(&mut self, id: FlowId) {
        let Some(flow) = self.flows.get_mut(id) else {
            return;
        };
        let send = flow.buffers.send.memory().cloned();
        let sent = send.is_some() && flow.buffers.send.release_if_empty();
        if sent {
            // The card may be reading it still: it is free when the request that follows was carried out.
            flow.old_send.push_back(send);
        }
        let received = flow.buffers.recv.capacity() > 0 && flow.buffers.recv.held() == 0;
        flow.detaching |= received;
        if sent {
            self.push_ring(operation::SEND_RING, id, None);
        }
        if received {
            self.push_ring(operation::RECV_RING, id, None);
        }
    }

    /// The card let go of the receive ring, or something is in it.
    pub(super) fn detached(&mut self, id: FlowId, result: u32) {
        if let Some(flow) = self.flows.get_mut(id) {
            flow.detaching = false;
            let released = result == completion::OK && flow.buffers.recv.release_if_empty();
            if !released {
                self.touch(id);
            }
        }
    }
}

impl Flow {
    /// Whether the card knows all that the application did, and nothing is asked of it about the rings.
    fn is_quiet(&mut self) -> bool {
        self.freed += self.buffers.recv.take_freed();
        let told = self.written == 0 && self.freed == 0 && !self.told;
        told && self.next_recv.is_none() && !self.detaching && self.old_send.is_empty()
    }
}
