//! The application's end of a connection: shutdown, close, abort (RFC 9293, sections 3.10.4 and 3.10.5).

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

    /// Resets.
    pub(super) fn abort(&mut self, cx: &mut Context<'_>) {
        self.orphan = true;
        self.reset(cx);
    }
}
