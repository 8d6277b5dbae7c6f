//! A connection leaves for another TCP implementation: the kernel's.

use flextcp_nic::flow::{FlowId, FlowTuple};
use flextcp_nic::seq::{Mss, SeqNum, WindowScale};
use flextcp_nic::time::Instant;

use super::conn::{Conn, Owner};
use super::{ConnId, Engine, State};

/// What another implementation needs to carry a connection on, but for the received bytes that were not read.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Exported {
    /// Its ends.
    pub tuple: FlowTuple,
    /// SND.UNA: the first byte of `unacked`.
    pub snd_una: SeqNum,
    /// Sent and not acknowledged.
    pub unacked: Vec<u8>,
    /// Written and not sent.
    pub unsent: Vec<u8>,
    /// SND.WL1.
    pub snd_wl1: SeqNum,
    /// SND.WND in bytes.
    pub snd_wnd: u32,
    /// Largest window the peer granted.
    pub max_window: u32,
    /// RCV.NXT.
    pub rcv_nxt: SeqNum,
    /// RCV.NXT as last acknowledged.
    pub rcv_wup: SeqNum,
    /// Bytes granted from there on.
    pub rcv_wnd: u32,
    /// The peer's MSS, options not subtracted.
    pub peer_mss: Mss,
    /// Scales of the peer's windows and of ours, when negotiated.
    pub window_scales: Option<(WindowScale, WindowScale)>,
    /// SACK was negotiated.
    pub sack: bool,
    /// TSval of now, in milliseconds, when timestamps were negotiated.
    pub timestamp: Option<u32>,
}

impl Engine {
    /// The flow of a connection that the NIC has: to be claimed before [`export`](Self::export).
    pub fn flow(&self, conn: ConnId) -> Option<FlowId> {
        match self.conns.get(conn)?.owner {
            Owner::Nic(flow) => Some(flow),
            Owner::Host | Owner::Offered => None,
        }
    }

    /// The state of a connection that is to leave; it goes on until [`release`](Self::release). `None` unless it is
    /// ESTABLISHED and the engine owns it. What arrived out of order is left out: the peer sends it again.
    pub fn export(&mut self, now: Instant, conn: ConnId) -> Option<Exported> {
        let conn = self.conns.get_mut(conn)?;
        conn.take_written();
        conn.exported(now)
    }

    /// The same of a connection whose application is gone and whose last bytes, or FIN, the peer has not acknowledged:
    /// the other implementation is to close it behind these bytes. `None` when there is nothing left to deliver.
    pub fn export_orphan(&self, now: Instant, conn: ConnId) -> Option<Exported> {
        let conn = self.conns.get(conn)?;
        let closing = matches!(
            conn.state,
            State::FinWait1 | State::Closing | State::LastAck
        );
        let undelivered = closing && conn.orphan && conn.on_host() && !conn.fin_acked();
        undelivered.then(|| conn.snapshot(now)).flatten()
    }

    /// Forgets a connection without a segment or an event: another implementation has it now.
    pub fn release(&mut self, conn: ConnId) {
        let Some(mut conn) = self.conns.remove(conn) else {
            return;
        };
        conn.counters.add_to(&mut self.totals);
        self.deadlines.remove(conn.id.index, &mut conn.queued);
        self.tuples.remove(&conn.tuple);
    }
}

impl Conn {
    fn exported(&self, now: Instant) -> Option<Exported> {
        if self.state != State::Established || self.rcv.fin.is_some() || self.orphan {
            return None;
        }
        self.snapshot(now)
    }

    /// Without a FIN of ours, sent or not.
    fn snapshot(&self, now: Instant) -> Option<Exported> {
        let buffers = self.buffers.as_ref()?;
        let written = self.snd.end.since(self.snd.una);
        let outstanding = self.outstanding().min(written);
        let negotiated = &self.negotiated;
        let scaled = negotiated.window_scaling;
        Some(Exported {
            tuple: self.tuple,
            snd_una: self.snd.una,
            unacked: buffers.send.slices(0, outstanding).concat(),
            unsent: buffers
                .send
                .slices(outstanding, written - outstanding)
                .concat(),
            snd_wl1: self.snd.wl1,
            snd_wnd: self.snd.wnd,
            max_window: self.snd.max_wnd,
            rcv_nxt: self.rcv.nxt,
            rcv_wup: self.rcv.last_ack_sent,
            rcv_wnd: self.rcv.adv.since(self.rcv.last_ack_sent),
            peer_mss: negotiated.peer_mss,
            window_scales: scaled.then_some((negotiated.snd_wscale, negotiated.rcv_wscale)),
            sack: negotiated.sack,
            timestamp: negotiated.timestamps.then(|| self.timestamp_clock(now)),
        })
    }
}
