//! The send ring: how far the application may write ahead, and what it wrote.

use flextcp_nic::nic::Limits;
use flextcp_nic::time::Instant;

use super::conn::{Conn, Context};

/// What an application may write ahead on the shortest path. With 16 MiB bulk over veth was a quarter slower.
const SHORT_PATH_SEND_BUFFER: u32 = 1 << 20;
/// What a microsecond of a longer path adds: 34 Gbit/s.
const SEND_BUFFER_PER_MICROSECOND: u32 = 4 << 10;

impl Conn {
    /// Lets the application write ahead what the next window takes: twice the congestion window, thrice with BBR, whose
    /// window is no bound of the next one (Linux's `tcp_sndbuf_expand`). It never shrinks; what the application asked for
    /// stays (`SOCK_SNDBUF_LOCK`), and while memory is short none grows. On a short path the congestion window says little:
    /// there it stays in the caches.
    pub(super) fn tune_send_buffer(&self, cx: &Context<'_>) {
        if self.options.send_buffer.is_some() || cx.pressed {
            return;
        }
        let times = if self.congestion.owns_window() { 3 } else { 2 };
        let wanted = self.congestion.window.cwnd.saturating_mul(times);
        let in_flight_at_most = self.rtt.min().map_or(u32::MAX, |rtt| {
            u32::try_from(rtt.as_micros())
                .unwrap_or(u32::MAX)
                .saturating_mul(SEND_BUFFER_PER_MICROSECOND)
        });
        let wanted = wanted
            .min(in_flight_at_most.max(SHORT_PATH_SEND_BUFFER))
            .min(cx.config.send_buffer_max);
        if wanted > self.send_gauge.limit() {
            self.send_gauge.set_limit(wanted);
        }
    }

    /// Takes what the application wrote.
    pub(super) fn take_written(&mut self) {
        if let Some(buffers) = &mut self.buffers {
            let written = buffers.send.take_written();
            // What raced with a shutdown stays unsent.
            if !self.state.fin_queued() {
                self.snd.end += written;
            }
        }
    }

    /// The application may have written while the NIC has the connection. Returns new limits when nothing was sent for so
    /// long that the window is no longer known to fit (RFC 5681, section 4.1).
    pub(super) fn on_written(&mut self, now: Instant) -> Option<Limits> {
        let before = std::mem::replace(&mut self.written, self.send_gauge.written());
        if before == self.written {
            return None;
        }
        let restarted = before == self.send_gauge.released() && self.restart_after_idle(now);
        self.snd.last_sent = now;
        restarted.then(|| self.new_limits()).flatten()
    }
}
