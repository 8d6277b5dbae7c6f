//! A connection comes from another TCP implementation: the kernel's.

use std::time::Duration;

use flextcp_nic::buffer::{RecvWriter, SendWriter, recv_ring, send_ring};
use flextcp_nic::nic::FlowBuffers;
use flextcp_nic::seq::WindowScale;
use flextcp_nic::time::Instant;

use super::conn::{Conn, Negotiated};
use super::demux::Entry;
use super::handshake::Birth;
use super::timer::Timer;
use super::{AppBuffers, CommandError, ConnId, Engine, EngineConfig, Event, Exported, Link, State};
use crate::options::SocketOptions;

impl Engine {
    /// Carries an established connection on that another implementation began. `unread` is what it had received and
    /// the application had not read. An acknowledgment goes out at once: what arrived in between is lost, and the
    /// peer may be waiting.
    ///
    /// # Errors
    /// [`CommandError`]; nothing is remembered.
    pub fn import(
        &mut self,
        now: Instant,
        state: &Exported,
        unread: &[u8],
        link: Link,
        options: SocketOptions,
    ) -> Result<(ConnId, AppBuffers), CommandError> {
        if self.conns.len() >= self.config.max_connections {
            return Err(CommandError::NoBuffers);
        }
        let tuple = state.tuple;
        if self.tuples.get(&tuple).is_some() || self.tuples.is_elsewhere(&tuple) {
            return Err(CommandError::InUse);
        }
        let (mut recv_writer, recv) = recv_ring(&self.pool);
        let limit = self.config.first_send_limit(options.send_buffer);
        let (send, send_reader) = send_ring(&self.pool, limit);
        let restored = fill_recv(&mut recv_writer, unread, state) && fill_send(&send, limit, state);
        if !restored {
            return Err(CommandError::NoBuffers);
        }
        let scales = state.window_scales;
        let (snd_wscale, rcv_wscale) = scales.unwrap_or((WindowScale::ZERO, WindowScale::ZERO));
        let id = self.conns.next_id();
        let birth = Birth {
            id,
            tuple,
            link,
            options,
            buffers: FlowBuffers {
                recv: recv_writer,
                send: send_reader,
            },
            negotiated: Negotiated {
                peer_mss: state.peer_mss,
                timestamps: state.timestamp.is_some(),
                sack: state.sack,
                // TCP_REPAIR does not tell.
                ecn: false,
                window_scaling: scales.is_some(),
                snd_wscale,
                rcv_wscale,
            },
            iss: state.snd_una - 1,
            ts_offset: state
                .timestamp
                .map_or(0, |val| val.wrapping_sub(now.as_millis() as u32)),
        };
        let mut conn = Conn::new(birth, now, &self.config);
        conn.resume(state, unread.len() as u32, now, &self.config);
        self.conns.insert(conn);
        self.tuples.insert(tuple, Entry::Conn(id));
        if !unread.is_empty() {
            self.events.push_back(Event::Readable(id));
        }
        self.settle(now, id);
        Ok((id, AppBuffers { recv, send }))
    }
}

/// Restores the receive ring; it holds what the peer may send into its window, too, which must not shrink.
fn fill_recv(ring: &mut RecvWriter, unread: &[u8], state: &Exported) -> bool {
    let edge = state.rcv_wup + state.rcv_wnd;
    let window = if edge.after(state.rcv_nxt) {
        edge.since(state.rcv_nxt)
    } else {
        0
    };
    let wanted = u32::try_from(unread.len()).map(|unread| unread.saturating_add(window));
    match wanted {
        Ok(0) => true,
        Ok(wanted) => {
            let attached = ring.resize(wanted, 0).is_ok();
            let whole = attached && ring.place(0, unread) == unread.len();
            if whole {
                ring.publish(unread.len() as u32);
            }
            whole
        }
        Err(_) => false,
    }
}

/// Restores the send ring, beyond its limit where the kernel's was larger.
fn fill_send(ring: &SendWriter, limit: u32, state: &Exported) -> bool {
    let queued = [&state.unacked, &state.unsent];
    let total = queued.iter().map(|bytes| bytes.len()).sum::<usize>();
    let Ok(total) = u32::try_from(total) else {
        return false;
    };
    ring.set_limit(limit.max(total));
    let whole = queued.iter().all(|bytes| ring.write(bytes) == bytes.len());
    ring.set_limit(limit);
    whole
}

impl Conn {
    /// Takes another implementation's variables over.
    fn resume(&mut self, state: &Exported, unread: u32, now: Instant, config: &EngineConfig) {
        self.state = State::Established;
        self.syn_due = false;

        self.snd.syn_unacked = false;
        self.snd.una = state.snd_una;
        self.snd.end = state.snd_una;
        self.snd.wl1 = state.snd_wl1;
        self.snd.wl2 = state.snd_una;
        self.snd.small_end = state.snd_una;
        self.snd.wnd = state.snd_wnd;
        self.snd.max_wnd = state.max_window.max(state.snd_wnd);
        self.snd.nxt = state.snd_una + state.unacked.len() as u32;

        self.rcv.irs = state.rcv_nxt - unread - 1;
        self.rcv.nxt = state.rcv_nxt;
        self.rcv.last_ack_sent = state.rcv_wup;
        self.rcv.adv = (state.rcv_wup + state.rcv_wnd).latest(state.rcv_nxt);
        // TS.Recent is not told: 0 stands for none, and the next segment brings it.
        self.rcv.ts_recent = 0;
        self.rcv.ts_recent_at = now;
        let attached = self.buffers.as_ref().map_or(0, |b| b.recv.capacity());
        self.rcv.capacity = self.rcv.capacity.max(attached);

        self.start_sender(config);
        self.take_written();
        let mss = self.snd.mss.bytes();
        self.board
            .restore(self.snd.una, self.snd.nxt, mss, now, Duration::ZERO);
        if !self.board.is_empty() {
            self.stalled_since = Some(now);
            self.timers.set(Timer::Retransmit, now + self.rto());
        }
        self.rcv.ack.now = 1;
        self.arm_keepalive(now);
    }
}
