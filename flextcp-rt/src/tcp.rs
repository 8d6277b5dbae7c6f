//! The engine: a complete sans-IO TCP, and the slow path of connections that the NIC carries.
//!
//! It never reads a clock, sends a frame or blocks. Its driver (the reactor, the lab, a test) calls three
//! families of methods:
//!
//! - `handle_*`: what came from outside (frames, notifications, returned connections, time);
//! - commands: what the application asks for;
//! - `poll_*`: what the engine wants done, to be called until each says `None` after any of the above.
//!
//! At any moment a connection is owned by the engine or by the NIC. While the NIC has it, the engine keeps
//! its timers and its congestion control and sees notifications only.

mod api;
mod challenge;
mod close;
mod command;
mod config;
mod congestion;
mod conn;
mod counters;
mod delivery;
mod demux;
mod directory;
mod ecn;
mod export;
mod handover;
mod handshake;
mod import;
mod info;
mod input;
mod isn;
mod listener;
mod output;
mod pmtu;
mod prediction;
mod rack;
mod reassembly;
mod receive;
mod recovery;
mod rtt;
mod scoreboard;
mod segment;
mod send;
mod send_buffer;
#[cfg(test)]
mod sim;
mod state;
mod syn_cookie;
mod table;
#[cfg(test)]
mod tests;
mod time_wait;
mod timer;
mod train;

use std::collections::VecDeque;
use std::sync::Arc;

use flextcp_nic::buffer::Pool;
use flextcp_nic::flow::FlowId;
use flextcp_nic::nic::Limits;
use flextcp_nic::time::Instant;
use flextcp_nic::wire::SegmentRepr;
use slab::Slab;

pub use api::{AppBuffers, CommandError, ConnError, ConnId, Event, Link, ListenerId, Transmit};
pub use config::{Ecn, EngineConfig};
pub use directory::Directory;
pub use export::Exported;
pub use info::TcpInfo;
pub use state::State;

use challenge::Challenges;
use conn::{Conn, Context, Owner};
use directory::Tuples;
use isn::Secret;
use listener::{HalfOpen, Listeners};
use table::ConnTable;
use time_wait::TimeWaitTable;
use timer::Deadlines;

use crate::metrics::EngineCounters;
use crate::offload::Offload;

/// The slow path of one core. See the [module](self).
#[derive(Debug)]
pub struct Engine {
    config: EngineConfig,
    secret: Secret,
    pool: Arc<Pool>,
    offload: Offload,
    conns: ConnTable,
    tuples: Tuples,
    /// Whose the last segment was.
    latest: Option<ConnId>,
    listeners: Listeners,
    half_open: Slab<HalfOpen>,
    /// Numbers half-open connections by age.
    serial: u64,
    time_wait: TimeWaitTable,
    orphans: usize,
    challenges: Challenges,
    /// What happened outside of connections, and to those that are forgotten.
    totals: EngineCounters,
    deadlines: Deadlines,
    half_open_deadlines: Deadlines,
    /// Stateless answers and resets.
    raw: VecDeque<SegmentRepr>,
    /// Connections that may have something to send.
    dirty: VecDeque<ConnId>,
    /// Bytes that the first of them sent in its turn.
    in_turn: u32,
    /// Connections that may send without their applications since then.
    opened: VecDeque<ConnId>,
    events: VecDeque<Event>,
    installs: VecDeque<ConnId>,
    claims: VecDeque<ConnId>,
    limits: VecDeque<(FlowId, Limits)>,
    progress: VecDeque<ConnId>,
}

impl Engine {
    /// An engine without connections. `secret` keys sequence numbers and timestamps: random, per process.
    pub fn new(config: EngineConfig, secret: [u8; 16], pool: Arc<Pool>) -> Self {
        let secret = Secret::new(secret);
        Self {
            offload: Offload::new(config.offload),
            challenges: Challenges::new(secret.seed()),
            secret,
            config,
            pool,
            conns: ConnTable::default(),
            tuples: Tuples::default(),
            latest: None,
            listeners: Listeners::default(),
            half_open: Slab::new(),
            serial: 0,
            time_wait: TimeWaitTable::default(),
            orphans: 0,
            totals: EngineCounters::default(),
            deadlines: Deadlines::default(),
            half_open_deadlines: Deadlines::default(),
            raw: VecDeque::new(),
            dirty: VecDeque::new(),
            in_turn: 0,
            opened: VecDeque::new(),
            events: VecDeque::new(),
            installs: VecDeque::new(),
            claims: VecDeque::new(),
            limits: VecDeque::new(),
            progress: VecDeque::new(),
        }
    }

    /// Runs `f` on a connection, and then does what its new state asks for.
    fn with_conn<R>(
        &mut self,
        now: Instant,
        id: ConnId,
        f: impl FnOnce(&mut Conn, &mut Context<'_>) -> R,
    ) -> Option<R> {
        let scarce = self.orphans > self.config.max_orphans || self.pool.used() > self.pool.limit();
        let conn = self.conns.get_mut(id)?;
        let mut cx = Context {
            now,
            config: &self.config,
            events: &mut self.events,
            opened: &mut self.opened,
            raw: &mut self.raw,
            challenges: &mut self.challenges,
            scarce,
            pressed: self.pool.under_pressure(),
        };
        let result = f(conn, &mut cx);
        self.settle(now, id);
        Some(result)
    }

    /// Queues a connection for whatever it needs now.
    fn settle(&mut self, now: Instant, id: ConnId) {
        let Some(conn) = self.conns.get_mut(id) else {
            return;
        };
        if matches!(conn.state, State::Closed | State::TimeWait) {
            return self.forget(now, id);
        }
        let next = conn.next_deadline();
        self.deadlines.update(id.index, &mut conn.queued, next);
        match conn.owner {
            Owner::Host => {
                if !conn.dirty {
                    conn.dirty = true;
                    self.dirty.push_back(id);
                }
            }
            Owner::Offered => {}
            Owner::Nic(_) => {
                let wanted = &mut conn.wanted;
                let wants = wanted.shutdown || wanted.abort || wanted.grow.is_some();
                if wants && !wanted.claim {
                    wanted.claim = true;
                }
                if wanted.claim && !conn.offered {
                    // `offered` doubles as "claim queued" while the NIC has the connection.
                    conn.offered = true;
                    self.claims.push_back(id);
                }
                if std::mem::take(&mut wanted.progress) {
                    self.progress.push_back(id);
                }
            }
        }
    }

    /// Offers a connection that owes the peer nothing to the NIC; returns whether it did.
    fn offer(&mut self, now: Instant, id: ConnId) -> bool {
        let Some(conn) = self.conns.get_mut(id) else {
            return false;
        };
        let offers = !conn.offered && conn.is_plain() && self.offload.offers(&conn.hysteresis, now);
        if offers {
            conn.offered = true;
            self.installs.push_back(id);
        }
        offers
    }

    fn forget(&mut self, now: Instant, id: ConnId) {
        let Some(mut conn) = self.conns.remove(id) else {
            return;
        };
        conn.counters.add_to(&mut self.totals);
        self.deadlines.remove(id.index, &mut conn.queued);
        self.tuples.remove(&conn.tuple);
        if conn.orphan {
            self.orphans = self.orphans.saturating_sub(1);
        }
        if conn.state == State::TimeWait {
            let tuple = conn.tuple;
            self.events.push_back(Event::TimeWait { conn: id, tuple });
            self.enter_time_wait(now, &conn);
        }
        self.events.push_back(Event::Closed(id));
    }
}
