//! What comes from outside: frames, notifications, connections that come back from the NIC, time.

use flextcp_nic::flow::FlowId;
use flextcp_nic::nic::{Exception, FlowProgress, InstallError, Notification, Reason, Returned};
use flextcp_nic::time::Instant;
use flextcp_nic::wire::Packet;

use super::conn::Owner;
use super::{ConnId, Engine};

impl Engine {
    /// Takes a frame that the fast path did not handle, and the connection when it comes back with it.
    pub fn handle_exception(&mut self, now: Instant, exception: Exception<'_>) {
        if let Some(returned) = exception.returned {
            self.take_returned(now, *returned, Some(exception.reason));
        }
        match exception.packet {
            Packet::Tcp(packet) => self.on_tcp(now, packet, &exception.frame),
            Packet::Icmp(error) => self.on_icmp(now, error),
        }
    }

    /// Takes a delta of a connection on the NIC.
    pub fn handle_notification(&mut self, now: Instant, notification: Notification) {
        let id = notification.token.into();
        let claim = self.offload.claims();
        let limits = self.with_conn(now, id, |conn, cx| {
            if claim && matches!(conn.owner, Owner::Nic(_)) {
                conn.wanted.claim = true;
            }
            conn.on_notification(cx, &notification)
        });
        self.limits.extend(limits.flatten());
    }

    /// Takes a claimed connection back.
    pub fn handle_returned(&mut self, now: Instant, returned: Returned) {
        self.take_returned(now, returned, None);
    }

    /// Takes the answer to [`poll_progress_request`](Self::poll_progress_request).
    pub fn handle_progress(&mut self, now: Instant, conn: ConnId, progress: FlowProgress) {
        self.with_conn(now, conn, |conn, cx| conn.on_progress(cx, &progress));
    }

    /// Runs the timers that are due.
    pub fn handle_timeout(&mut self, now: Instant) {
        while let Some(index) = self.deadlines.pop_due(now) {
            let Some(id) = self.conns.id_at(index) else {
                continue;
            };
            self.with_conn(now, id, |conn, cx| {
                conn.queued = None;
                conn.on_timers(cx);
            });
        }
        self.retransmit_syn_acks(now);
        while let Some(expired) = self.time_wait.pop_expired(now) {
            self.time_wait_over(&expired);
        }
    }

    /// The NIC took what [`poll_install`](Self::poll_install) offered.
    pub fn installed(&mut self, now: Instant, conn: ConnId, flow: FlowId) {
        self.with_conn(now, conn, |conn, cx| {
            conn.offered = false;
            conn.on_installed(cx, flow);
        });
    }

    /// The NIC refused it.
    pub fn install_refused(&mut self, now: Instant, conn: ConnId, error: InstallError) {
        self.with_conn(now, conn, |conn, cx| {
            conn.offered = false;
            conn.owner = Owner::Host;
            conn.buffers = Some(error.buffers);
            conn.hysteresis.refused(cx.now);
        });
    }

    fn take_returned(&mut self, now: Instant, returned: Returned, reason: Option<Reason>) {
        let Returned {
            token,
            state,
            buffers,
            outstanding_since,
        } = returned;
        self.with_conn(now, token.into(), |conn, cx| {
            conn.offered = false;
            conn.take_back(cx, &state, buffers, outstanding_since);
            if matches!(
                reason,
                Some(Reason::OutOfOrder | Reason::DuplicateAck | Reason::Sack | Reason::Paws)
            ) {
                let (carried, rtt) = (conn.counters.carried(), conn.rtt.srtt());
                let mss = conn.snd.mss.bytes();
                conn.hysteresis.punted(cx.now, carried, mss, rtt);
            }
        });
    }
}
