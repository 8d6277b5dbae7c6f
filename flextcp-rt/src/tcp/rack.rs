//! RACK's idea of time: the newest delivery, and how much reordering to bear with (RFC 8985, section 6.2).

use std::time::Duration;

use flextcp_nic::seq::SeqNum;

/// Segments delivered above a hole that prove its loss while the path has not reordered (RFC 5681, section 3.2).
const DUP_THRESH: u32 = 3;
/// Recoveries for which a widened reordering window is kept (RFC 8985, section 6.2, step 4).
const PERSIST: u32 = 16;

/// The newest delivery known, in order of transmission.
#[derive(Clone, Copy, Debug)]
pub(super) struct Newest {
    /// Number of the transmission: finer than its time.
    pub(super) serial: u64,
    pub(super) rtt: Duration,
}

/// What is learnt of the path's reordering over the life of a connection.
#[derive(Clone, Copy, Debug)]
pub(super) struct Rack {
    pub(super) newest: Option<Newest>,
    /// A segment arrived after one sent later.
    pub(super) reordering_seen: bool,
    /// Quarters of the least round trip to wait.
    steps: u32,
    persist: u32,
    /// A duplicate was reported in this round trip, which ends here.
    round: Option<SeqNum>,
}

impl Default for Rack {
    fn default() -> Self {
        Self {
            newest: None,
            reordering_seen: false,
            steps: 1,
            persist: 0,
            round: None,
        }
    }
}

/// What the reordering window depends on.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Reordering {
    pub(super) in_recovery: bool,
    pub(super) sacked_segments: u32,
    pub(super) min_rtt: Option<Duration>,
    pub(super) srtt: Option<Duration>,
}

impl Rack {
    /// Takes the acknowledgment of transmission `serial`, sent `rtt` ago. `retransmitted` segments answered
    /// faster than the path can were answered for an earlier transmission.
    pub(super) fn delivered(
        &mut self,
        serial: u64,
        rtt: Duration,
        retransmitted: bool,
        min_rtt: Option<Duration>,
    ) {
        if retransmitted && min_rtt.is_some_and(|min| rtt < min) {
            return;
        }
        if self.newest.is_none_or(|newest| newest.serial < serial) {
            self.newest = Some(Newest { serial, rtt });
        }
    }

    /// How long a segment may be late behind one sent after it.
    pub(super) fn window(&self, at: Reordering) -> Duration {
        if !self.reordering_seen && (at.in_recovery || at.sacked_segments >= DUP_THRESH) {
            return Duration::ZERO;
        }
        let window = at.min_rtt.unwrap_or_default() / 4 * self.steps;
        at.srtt.map_or(window, |srtt| window.min(srtt))
    }

    /// A duplicate was reported: we sent again what was only late. Widens the window once per round trip, where reordering was
    /// seen: a single duplicate has other causes, and does not make every loss wait (RFC 8985, section 6.2, step 4; Linux's
    /// `tcp_dsack_seen`).
    pub(super) fn on_dsack(&mut self, una: SeqNum, nxt: SeqNum) {
        let this_round = self
            .round
            .is_some_and(|end| end.after(una) && end.at_or_before(nxt));
        if !self.reordering_seen || this_round {
            return;
        }
        self.round = Some(nxt);
        self.steps = (self.steps + 1).min(64);
        self.persist = PERSIST;
    }

    /// A recovery ended: after enough of them without a duplicate the window narrows again.
    pub(super) const fn on_recovered(&mut self) {
        self.persist = self.persist.saturating_sub(1);
        if self.persist == 0 {
            self.steps = 1;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MS: Duration = Duration::from_millis(1);

    fn reordering() -> Reordering {
        Reordering {
            min_rtt: Some(40 * MS),
            srtt: Some(60 * MS),
            ..Reordering::default()
        }
    }

    #[test]
    fn window_is_a_quarter_of_the_least_round_trip() {
        assert_eq!(Rack::default().window(reordering()), 10 * MS);
    }

    #[test]
    fn without_reordering_three_segments_prove_a_loss_at_once() {
        let mut rack = Rack::default();
        let three = Reordering {
            sacked_segments: 3,
            ..reordering()
        };
        assert_eq!(rack.window(three), Duration::ZERO);
        rack.reordering_seen = true;
        assert_eq!(rack.window(three), 10 * MS);
    }

    #[test]
    fn duplicates_widen_the_window_once_a_round_up_to_a_round_trip() {
        let mut rack = Rack {
            reordering_seen: true,
            ..Rack::default()
        };
        rack.on_dsack(SeqNum(0), SeqNum(1000));
        assert_eq!(rack.window(reordering()), 20 * MS);
        rack.on_dsack(SeqNum(999), SeqNum(2000));
        assert_eq!(rack.window(reordering()), 20 * MS);
        for round in 1..9 {
            rack.on_dsack(SeqNum(round * 1000), SeqNum(round * 1000 + 1000));
        }
        assert_eq!(rack.window(reordering()), 60 * MS, "never beyond SRTT");
    }

    #[test]
    fn a_duplicate_alone_is_no_reordering() {
        let mut rack = Rack::default();
        rack.on_dsack(SeqNum(0), SeqNum(1000));
        assert_eq!(rack.window(reordering()), 10 * MS);
        let three = Reordering {
            sacked_segments: 3,
            ..reordering()
        };
        assert_eq!(rack.window(three), Duration::ZERO);
    }

    #[test]
    fn sixteen_recoveries_without_a_duplicate_narrow_it_again() {
        let mut rack = Rack {
            reordering_seen: true,
            ..Rack::default()
        };
        rack.on_dsack(SeqNum(0), SeqNum(1000));
        for _ in 0..15 {
            rack.on_recovered();
            assert_eq!(rack.window(reordering()), 20 * MS);
        }
        rack.on_recovered();
        assert_eq!(rack.window(reordering()), 10 * MS);
    }

    #[test]
    fn an_answer_faster_than_the_path_is_for_the_first_transmission() {
        let mut rack = Rack::default();
        rack.delivered(7, 39 * MS, true, Some(40 * MS));
        assert!(rack.newest.is_none());
        rack.delivered(7, 39 * MS, false, Some(40 * MS));
        assert!(rack.newest.is_some());
    }
}
