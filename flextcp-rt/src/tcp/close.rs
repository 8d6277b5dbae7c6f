//! The application's end of a connection: shutdown, close, abort (RFC 9293, sections 3.10.4 and 3.10.5).

use flextcp_nic::time::Instant;

use super::State;
use super::conn::{Conn, Context};
use super::timer::Timer;

impl Conn {
    /// FIN after what was written.
    pub(super) fn shutdown_write(&mut self) {
        self.take_written();
        match self.state {
            State::SynSent => self.set_closed(),
            // The FIN waits until the SYN is acknowledged.
            State::SynReceived => self.wanted.shutdown = true,
            State::Established => self.state = State::FinWait1,
            State::CloseWait => self.state = State::LastAck,
            _ => {}
        }
    }

    /// The application dropped its halves. `room` says whether one more orphan is bearable.
    pub(super) fn close(&mut self, cx: &mut Context<'_>, room: bool) {
        self.orphan = true;
        self.listener = None;
        let unread = self
            .buffers
            .as_ref()
            .is_some_and(|buffers| buffers.recv.unread() > 0);
        let linger_zero = self.options.linger.is_some_and(|linger| linger.is_zero());
        // RFC 2525, section 2.17: the peer must learn that its bytes were not read.
        if self.state.is_synchronized() && (unread || linger_zero || !room) {
            return self.reset(cx);
        }
        self.shutdown_write();
        if self.state == State::FinWait2 {
            self.timers
                .set(Timer::FinWait2, cx.now + cx.config.fin_timeout);
        }
    }

    /// When TCP_USER_TIMEOUT (RFC 5482) ends the connection: so long after what is unanswered was first sent, but not
    /// before something was sent again, as in Linux.
    pub(super) fn user_deadline(&self) -> Option<Instant> {
        let limit = self.options.user_timeout.filter(|limit| !limit.is_zero())?;
        // A peer that answers probes with its window shut makes no difference.
        let shut = self.timers.is_set(Timer::Persist) && self.backoff > 0;
        let waits = self.on_host() && (self.retransmits > 0 || self.probes > 0 || shut);
        Some(self.stalled_since.filter(|_| waits)? + limit)
    }

    /// When a timer is due.
    pub(super) fn next_deadline(&self) -> Option<Instant> {
        let timer = self.timers.next();
        match self.user_deadline() {
            Some(at) => Some(timer.map_or(at, |timer| timer.min(at))),
            None => timer,
        }
    }

    pub(super) fn on_user_timeout(&mut self, cx: &mut Context<'_>) {
        // Probes on an idle connection are keep-alive's: like Linux it says so with a RST.
        if self.board.is_empty() && self.unsent() == 0 && self.state == State::Established {
            self.send_reset(cx);
        }
        self.time_out(cx);
    }

    /// Whether an orphan has waited for its peer long enough: the peer acknowledges nothing, or holds its window
    /// shut for ever. Linux gives it up when the backed-off timer has reached its largest value, and at once where
    /// there are too many or memory is short (RFC 9293, section 3.8.6.1 lets a system under attack do so).
    pub(super) fn orphan_expired(&self, cx: &Context<'_>) -> bool {
        self.orphan && (cx.scarce || self.rto() >= cx.config.rto_max)
    }

    /// Resets.
    pub(super) fn abort(&mut self, cx: &mut Context<'_>) {
        self.orphan = true;
        self.reset(cx);
    }
}
