//! Timers: a small table in each connection, and one ordered queue of the connections' next deadlines.
//!
//! Deadlines move later all the time (each ACK pushes the retransmission timer), so a connection stays queued
//! at its old, earlier place and is put back when that comes: the queue is touched once per timeout, not per ACK.

use std::collections::BTreeSet;

use flextcp_nic::time::Instant;

/// What a connection waits for.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Timer {
    /// Tail loss probe (RFC 8985, section 7). Before the retransmission timer: when both are due, the probe
    /// comes first and puts the timeout off.
    LossProbe,
    /// Retransmission; also of SYN and SYN-ACK.
    Retransmit,
    /// Zero-window probe, or a sender waiting for a worthwhile window.
    Persist,
    /// The pacing rate lets the next segment go.
    Pace,
    /// RACK's reordering window (RFC 8985, section 6.2).
    Reorder,
    /// Delayed acknowledgment.
    DelayedAck,
    /// Keep-alive.
    KeepAlive,
    /// Orphan in FIN_WAIT_2.
    FinWait2,
    /// Look at the progress of a flow on the NIC.
    Watch,
    /// Give the empty buffers of a quiet connection back.
    Idle,
}

const TIMERS: [Timer; 10] = [
    Timer::LossProbe,
    Timer::Retransmit,
    Timer::Persist,
    Timer::Pace,
    Timer::Reorder,
    Timer::DelayedAck,
    Timer::KeepAlive,
    Timer::FinWait2,
    Timer::Watch,
    Timer::Idle,
];

/// One connection's deadlines.
#[derive(Debug, Default)]
pub(super) struct TimerTable {
    deadlines: [Option<Instant>; TIMERS.len()],
}

impl TimerTable {
    pub(super) fn set(&mut self, timer: Timer, at: Instant) {
        self.deadlines[timer as usize] = Some(at);
    }

    /// Sets the timer unless it runs already.
    pub(super) fn start(&mut self, timer: Timer, at: Instant) {
        self.deadlines[timer as usize].get_or_insert(at);
    }

    pub(super) fn stop(&mut self, timer: Timer) {
        self.deadlines[timer as usize] = None;
    }

    pub(super) fn stop_all(&mut self) {
        self.deadlines = Default::default();
    }

    pub(super) const fn get(&self, timer: Timer) -> Option<Instant> {
        self.deadlines[timer as usize]
    }

    pub(super) const fn is_set(&self, timer: Timer) -> bool {
        self.deadlines[timer as usize].is_some()
    }

    pub(super) fn next(&self) -> Option<Instant> {
        self.deadlines.iter().flatten().min().copied()
    }

    /// Takes one timer that is due.
    pub(super) fn take_due(&mut self, now: Instant) -> Option<Timer> {
        TIMERS.into_iter().find(|&timer| {
            let deadline = &mut self.deadlines[timer as usize];
            let due = deadline.is_some_and(|at| at <= now);
            if due {
                *deadline = None;
            }
            due
        })
    }
}

/// Deadlines of many owners, by index. Each owner remembers its own place (`queued`).
#[derive(Debug, Default)]
pub(super) struct Deadlines {
    queue: BTreeSet<(Instant, u32)>,
}

impl Deadlines {
    /// Sees to it that `index` is queued no later than `next`.
    pub(super) fn update(
        &mut self,
        index: u32,
        queued: &mut Option<Instant>,
        next: Option<Instant>,
    ) {
        let Some(next) = next else { return };
        if queued.is_none_or(|at| next < at) {
            self.remove(index, queued);
            self.queue.insert((next, index));
            *queued = Some(next);
        }
    }

    pub(super) fn remove(&mut self, index: u32, queued: &mut Option<Instant>) {
        if let Some(at) = queued.take() {
            self.queue.remove(&(at, index));
        }
    }

    /// Takes an owner whose place has come. It must clear its `queued`, and update again.
    pub(super) fn pop_due(&mut self, now: Instant) -> Option<u32> {
        let &(at, index) = self.queue.first()?;
        (at <= now).then(|| {
            self.queue.pop_first();
            index
        })
    }

    #[cfg(feature = "lab")]
    pub(super) fn len(&self) -> usize {
        self.queue.len()
    }

    pub(super) fn next(&self) -> Option<Instant> {
        self.queue.first().map(|&(at, _)| at)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn later_deadlines_do_not_touch_the_queue() {
        let mut deadlines = Deadlines::default();
        let mut queued = None;
        deadlines.update(1, &mut queued, Some(Instant::from_millis(10)));
        deadlines.update(1, &mut queued, Some(Instant::from_millis(20)));
        assert_eq!(deadlines.next(), Some(Instant::from_millis(10)));
        deadlines.update(1, &mut queued, Some(Instant::from_millis(5)));
        assert_eq!(deadlines.next(), Some(Instant::from_millis(5)));
        assert_eq!(deadlines.queue.len(), 1);
        assert_eq!(deadlines.pop_due(Instant::from_millis(4)), None);
        assert_eq!(deadlines.pop_due(Instant::from_millis(5)), Some(1));
        assert_eq!(deadlines.next(), None);
    }

    #[test]
    fn table_gives_each_due_timer_once() {
        let mut table = TimerTable::default();
        table.set(Timer::KeepAlive, Instant::from_millis(3));
        table.set(Timer::Retransmit, Instant::from_millis(1));
        table.start(Timer::Retransmit, Instant::from_millis(9));
        assert_eq!(table.get(Timer::Retransmit), Some(Instant::from_millis(1)));
        assert_eq!(table.next(), Some(Instant::from_millis(1)));
        assert_eq!(
            table.take_due(Instant::from_millis(3)),
            Some(Timer::Retransmit)
        );
        assert_eq!(
            table.take_due(Instant::from_millis(3)),
            Some(Timer::KeepAlive)
        );
        assert_eq!(table.take_due(Instant::from_millis(3)), None);
    }
}
