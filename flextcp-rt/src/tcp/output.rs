//! What the engine wants done.

use flextcp_nic::flow::{FlowId, FlowState};
use flextcp_nic::nic::{FlowBuffers, Limits};
use flextcp_nic::time::{Instant, earlier};

use super::conn::Owner;
use super::send::Plan;
use super::{ConnId, Engine, Event, Transmit};

/// Bytes that a connection may send before the next one has its turn, as on the NIC.
pub(super) const QUANTUM: u32 = 64 << 10;

impl Engine {
    /// The next segment to send.
    #[cfg(test)]
    pub fn poll_transmit(&mut self, now: Instant) -> Option<Transmit<'_>> {
        self.poll_train(now, 0)
    }

    /// The next segment to send, with those that follow it up to `most` bytes of payload, to be cut.
    pub fn poll_train(&mut self, now: Instant, most: u32) -> Option<Transmit<'_>> {
        self.opened.clear();
        if let Some(segment) = self.raw.pop_front() {
            return Some(Transmit {
                segment,
                payload: [&[], &[]],
                cut: None,
            });
        }
        let (id, plan) = self.next_plan(now, most)?;
        self.transmit(now, id, &plan)
    }

    /// The same of what a frame that was taken in since calls for whatever the application does: full segments and retransmissions
    /// for which it made room, and acknowledgments of holes and of bulk. What is less may become more, and other
    /// acknowledgments find company, before [`poll_train`](Self::poll_train) is called.
    pub fn poll_opened(&mut self, now: Instant, most: u32) -> Option<Transmit<'_>> {
        while let Some(&id) = self.opened.front() {
            if let Some(conn) = self.conns.get_mut(id) {
                if let Some(plan) = conn.poll_opened(now, most.min(QUANTUM)) {
                    return self.transmit(now, id, &plan);
                }
                let next = conn.next_deadline();
                self.deadlines.update(id.index, &mut conn.queued, next);
            }
            self.opened.pop_front();
        }
        None
    }

    fn transmit(&mut self, now: Instant, id: ConnId, plan: &Plan) -> Option<Transmit<'_>> {
        let conn = self.conns.get_mut(id)?;
        let segment = conn.headers(now, &self.config, plan);
        let payload = match &conn.buffers {
            Some(buffers) if plan.len > 0 => buffers.send.slices(plan.offset, plan.len),
            _ => [&[][..], &[][..]],
        };
        Some(Transmit {
            segment,
            payload,
            cut: plan.cut,
        })
    }

    fn next_plan(&mut self, now: Instant, most: u32) -> Option<(ConnId, Plan)> {
        while let Some(&id) = self.dirty.front() {
            let mut pauses = true;
            if let Some(conn) = self.conns.get_mut(id) {
                if self.in_turn < QUANTUM
                    && let Some(plan) = conn.poll_train(now, most.min(QUANTUM))
                {
                    // The first segment of a burst starts the timers; those after it put them off, if anything.
                    if self.in_turn == 0 {
                        let next = conn.next_deadline();
                        self.deadlines.update(id.index, &mut conn.queued, next);
                    }
                    self.in_turn += plan.len;
                    return Some((id, plan));
                }
                pauses = self.in_turn < QUANTUM;
                conn.dirty = !pauses;
                let next = conn.next_deadline();
                self.deadlines.update(id.index, &mut conn.queued, next);
            }
            self.dirty.pop_front();
            self.in_turn = 0;
            // One that never pauses belongs on the NIC more than any other.
            let offered = self.offer(now, id);
            match self.conns.get_mut(id) {
                Some(conn) if offered => conn.dirty = false,
                Some(_) if !pauses => self.dirty.push_back(id),
                _ => {}
            }
        }
        None
    }

    /// When [`handle_timeout`](Self::handle_timeout) is next due.
    pub fn poll_timeout(&self) -> Option<Instant> {
        let opening = earlier(self.half_open_deadlines.next(), self.time_wait.next());
        earlier(self.deadlines.next(), opening)
    }

    /// The next event for the application's side.
    pub fn poll_event(&mut self) -> Option<Event> {
        self.events.pop_front()
    }

    /// A connection to install; answer with [`installed`](Self::installed) or
    /// [`install_refused`](Self::install_refused) before any other call. Poll after `poll_transmit` is empty.
    pub fn poll_install(&mut self, now: Instant) -> Option<(ConnId, FlowState, FlowBuffers)> {
        let _ = now;
        while let Some(id) = self.installs.pop_front() {
            let Some(conn) = self.conns.get_mut(id) else {
                continue;
            };
            conn.offered = false;
            if !conn.is_plain() || conn.dirty {
                continue;
            }
            if let Some((state, buffers)) = conn.hand_over() {
                return Some((id, state, buffers));
            }
        }
        None
    }

    /// A connection to claim. Give the answer to [`handle_returned`](Self::handle_returned);
    /// a [`StaleFlow`](flextcp_nic::nic::StaleFlow) means that it is on its way already.
    pub fn poll_claim(&mut self) -> Option<(ConnId, FlowId)> {
        while let Some(id) = self.claims.pop_front() {
            if let Some(Owner::Nic(flow)) = self.conns.get(id).map(|conn| conn.owner) {
                return Some((id, flow));
            }
        }
        None
    }

    /// New limits for a flow on the NIC.
    pub fn poll_limits(&mut self) -> Option<(FlowId, Limits)> {
        self.limits.pop_front()
    }

    /// A flow whose progress the engine wants to see: [`handle_progress`](Self::handle_progress).
    pub fn poll_progress_request(&mut self, now: Instant) -> Option<(ConnId, FlowId)> {
        let _ = now;
        while let Some(id) = self.progress.pop_front() {
            if let Some(Owner::Nic(flow)) = self.conns.get(id).map(|conn| conn.owner) {
                return Some((id, flow));
            }
        }
        None
    }
}
