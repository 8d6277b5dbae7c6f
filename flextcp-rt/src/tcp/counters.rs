//! What happened, counted: per connection while it lives, then in the engine's totals.

use super::conn::{Conn, Owner};
use super::timer::Timer;
use super::{Engine, State};
use crate::metrics::EngineCounters;

/// Counters of one connection, for [`TcpInfo`](super::TcpInfo) and the engine's sums.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct ConnCounters {
    pub(super) total_retrans: u64,
    pub(super) bytes_acked: u64,
    pub(super) bytes_received: u64,
    pub(super) segs_out: u64,
    pub(super) segs_in: u64,
    pub(super) timeouts: u32,
    pub(super) fast_recoveries: u32,
    pub(super) tail_probes: u32,
    pub(super) undone: u32,
    pub(super) out_of_order: u32,
    pub(super) window_probes: u32,
    pub(super) unacceptable: u32,
    pub(super) out_of_memory: u32,
    /// Our SYN was answered.
    pub(super) connected: bool,
    /// Ended by a reset or a time-out after it was established.
    pub(super) failed: bool,
    /// The NIC had it at least once.
    pub(super) was_offloaded: bool,
}

impl ConnCounters {
    /// Bytes delivered, both ways.
    pub(super) const fn carried(&self) -> u64 {
        self.bytes_acked + self.bytes_received
    }

    pub(super) fn add_to(&self, totals: &mut EngineCounters) {
        totals.connected += u64::from(self.connected);
        totals.failed += u64::from(self.failed);
        totals.ever_offloaded += u64::from(self.was_offloaded);
        totals.recovery.retransmitted += self.total_retrans;
        totals.recovery.timeouts += u64::from(self.timeouts);
        totals.recovery.fast_recoveries += u64::from(self.fast_recoveries);
        totals.recovery.tail_probes += u64::from(self.tail_probes);
        totals.recovery.undone += u64::from(self.undone);
        totals.recovery.out_of_order += u64::from(self.out_of_order);
        totals.recovery.window_probes += u64::from(self.window_probes);
        totals.unacceptable += u64::from(self.unacceptable);
        totals.out_of_memory += u64::from(self.out_of_memory);
    }
}

impl Engine {
    /// Counters since the start, and gauges of now. Visits every connection.
    pub fn counters(&self) -> EngineCounters {
        let mut totals = self.totals;
        totals.time_wait = self.time_wait.len() as u64;
        totals.defence.challenge_acks += self.challenges.sent;
        totals.defence.acks_held_back += self.challenges.held_back;
        for conn in self.conns.iter() {
            conn.counters.add_to(&mut totals);
            match conn.owner {
                Owner::Nic(_) => totals.offloaded += 1,
                Owner::Host | Owner::Offered => totals.host_owned += 1,
            }
        }
        totals
    }

    /// Adds what the engine holds.
    #[cfg(feature = "lab")]
    pub(crate) fn add_holdings(&self, counts: &mut crate::lab::Counts) {
        counts.connections += self.conns.len();
        counts.orphans += self.orphans;
        counts.half_open += self.half_open.len();
        counts.time_wait += self.time_wait.len();
        counts.tuples += self.tuples.len();
        counts.timers += self.deadlines.len() + self.half_open_deadlines.len();
        counts.frames += self.raw.len();
    }

    /// Whether bytes, a FIN or a RST are still to be sent or acknowledged. TIME_WAIT does not count. For a
    /// connection on the NIC it may say so for an RTO too long. Visits every connection.
    pub fn has_unfinished(&self) -> bool {
        !self.raw.is_empty() || self.conns.iter().any(Conn::is_unfinished)
    }
}

impl Conn {
    fn is_unfinished(&self) -> bool {
        if !self.on_host() {
            // The watch runs as long as the flow has data that is not acknowledged.
            return self.wanted.shutdown || self.wanted.abort || self.timers.is_set(Timer::Watch);
        }
        match self.state {
            State::Closed | State::TimeWait | State::SynSent => false,
            State::SynReceived => self.wanted.shutdown,
            _ => {
                self.snd.una.before(self.snd.end) || (self.state.fin_queued() && !self.fin_acked())
            }
        }
    }
}
