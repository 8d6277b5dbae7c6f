//! A slot of the flow table, and what of it the host has still to be told.

use crate::fast::Local;
use crate::fast::rx::Received;
use crate::flow::{FlowState, Token, flags};
use crate::nic::{FlowBuffers, Notification, Returned};
use crate::time::Instant;

/// An installed flow. The words that every segment touches come first.
#[derive(Debug)]
pub(super) struct Flow {
    pub(super) state: FlowState,
    pub(super) local: Local,
    pub(super) buffers: FlowBuffers,
    pub(super) token: Token,
    /// What the next notification says.
    delta: Notification,
    pub(super) notify_queued: bool,
    pub(super) send_queued: bool,
    pub(super) ack_queued: bool,
    /// When the delayed ACK goes out.
    pub(super) ack_deadline: Option<Instant>,
    /// Of the rings: last use, and whether the idle queue has the flow.
    pub(super) active: Instant,
    pub(super) watched: bool,
}

impl Flow {
    pub(super) fn new(
        token: Token,
        mut state: FlowState,
        buffers: FlowBuffers,
        now: Instant,
    ) -> Self {
        if buffers.recv.capacity() > 0 {
            state.rcv_free = buffers.recv.offerable();
        }
        // The peer may use what it was offered, whatever the ring looks like now.
        state.rcv_free = state.rcv_free.max(state.rcv_wnd());
        Self {
            local: Local::new(&mut state, now),
            state,
            buffers,
            token,
            delta: Notification {
                token,
                ..Notification::default()
            },
            notify_queued: false,
            send_queued: false,
            ack_queued: false,
            ack_deadline: None,
            active: now,
            watched: false,
        }
    }

    /// Takes over what the application wrote; returns how many bytes.
    pub(super) fn take_written(&mut self) -> u32 {
        let written = self.buffers.send.take_written();
        self.state.set_snd_end(self.state.snd_end() + written);
        written
    }

    /// Bytes of ring that windows are measured against: what is attached, or what will be.
    pub(super) fn recv_capacity(&self) -> u32 {
        self.buffers.recv.capacity().max(self.state.rcv_free)
    }

    /// Adds a segment's results to the next notification; returns whether there is something to notify.
    pub(super) fn note(&mut self, received: &Received) -> bool {
        let delta = &mut self.delta;
        delta.received += received.payload;
        delta.acked += received.acked;
        if received.ece && self.state.has(flags::ECN) {
            delta.acked_ece += received.acked;
        }
        delta.congestion_experienced |= received.ce;
        if received.rtt_micros > 0 {
            delta.rtt_micros = received.rtt_micros;
        }
        received.payload > 0 || received.acked > 0 || received.window_changed || received.ce
    }

    /// Sending was limited by the congestion window: the next notification says so.
    pub(super) const fn note_cwnd_limited(&mut self) {
        self.delta.cwnd_limited = true;
    }

    /// The notification, and a fresh start for the next one.
    pub(super) fn take_notification(&mut self) -> Notification {
        let fresh = Notification {
            token: self.token,
            ..Notification::default()
        };
        let mut notification = std::mem::replace(&mut self.delta, fresh);
        notification.snd_wnd = self.state.snd_wnd;
        notification.in_flight = self.state.in_flight();
        notification.app_limited = self.state.unsent() == 0;
        notification
    }

    pub(super) fn into_returned(mut self) -> Returned {
        self.take_written();
        self.buffers.recv.take_freed();
        if self.buffers.recv.capacity() > 0 {
            self.state.rcv_free = self.buffers.recv.offerable();
        }
        Returned {
            token: self.token,
            state: self.state,
            buffers: self.buffers,
            outstanding_since: self.local.outstanding_since,
        }
    }
}
