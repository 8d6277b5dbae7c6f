//! Taking a reduction back when the loss it answered turns out not to be one: by the timestamp of what was
//! acknowledged (Eifel, RFC 3522 and RFC 4015), by reports of duplicates (RFC 3708), or because data that was
//! sent once is acknowledged after a timeout (F-RTO, RFC 5682).

use flextcp_nic::seq::SeqNum;

use super::super::conn::Conn;
use super::Phase;

/// What the sender was before an episode of recovery.
#[derive(Clone, Copy, Debug)]
pub(in crate::tcp) struct Undo {
    /// SND.UNA when it began.
    una: SeqNum,
    cwnd: u32,
    ssthresh: u32,
    /// Retransmissions that nobody reported as duplicates; `None` before the first.
    unreported: Option<u32>,
    /// TSval of the first retransmission.
    first_ts: Option<u32>,
    /// Something in flight, as a tail loss probe, had been sent again before it began.
    resent_before: bool,
}

impl Undo {
    /// Notes a retransmission, sent with this TSval.
    pub(super) fn retransmitted(&mut self, ts_val: Option<u32>) {
        *self.unreported.get_or_insert(0) += 1;
        if self.first_ts.is_none() {
            self.first_ts = ts_val;
        }
    }

    /// A report of a duplicate of `segments` segments that ends at `right`.
    fn reported(&mut self, right: SeqNum, segments: u32) {
        if right.after(self.una)
            && let Some(unreported) = &mut self.unreported
        {
            *unreported = unreported.saturating_sub(segments);
        }
    }

    /// Whether every retransmission was one too many.
    fn all_duplicates(&self) -> bool {
        self.unreported == Some(0)
    }

    /// Whether an acknowledgment of what was taken as lost answers its first transmission: it echoes a timestamp from before the
    /// first retransmission (RFC 3522, section 3.2), or there was none, as pacing held it back (Linux's
    /// `tcp_packet_delayed`).
    fn original_answered(&self, ts_ecr: Option<u32>) -> bool {
        match (self.unreported, self.first_ts, ts_ecr) {
            (None, ..) => !self.resent_before,
            (_, Some(first), Some(ecr)) => SeqNum(ecr).before(SeqNum(first)),
            _ => false,
        }
    }
}

impl Conn {
    /// Remembers what an episode may give back.
    pub(super) fn prepare_undo(&mut self) {
        let window = &self.congestion.window;
        self.recovery.undo = Some(Undo {
            una: self.snd.una,
            cwnd: window.cwnd,
            ssthresh: window.ssthresh,
            unreported: None,
            first_ts: None,
            resent_before: self.board.holds_retransmissions(),
        });
    }

    pub(super) fn note_duplicate_report(&mut self, left: SeqNum, right: SeqNum) {
        let segments = right.since(left).div_ceil(self.snd.mss.bytes().max(1));
        // A probe that was not needed says nothing of reordering.
        if self
            .recovery
            .probe
            .is_none_or(|probe| !probe.ends_at(right))
        {
            self.board.rack.on_dsack(self.snd.una, self.snd.nxt);
        }
        if let Some(undo) = &mut self.recovery.undo {
            undo.reported(right, segments.max(1));
        }
    }

    /// Whether reports of duplicates show that nothing was lost.
    pub(super) fn only_duplicates(&self) -> bool {
        self.recovery.undo.is_some_and(|undo| undo.all_duplicates())
    }

    /// Whether an advancing acknowledgment, or reports of duplicates, show that nothing was lost.
    pub(super) fn was_spurious(&self, ts_ecr: Option<u32>) -> bool {
        self.recovery
            .undo
            .is_some_and(|undo| undo.all_duplicates() || undo.original_answered(ts_ecr))
    }

    /// Takes the reduction back and ends the episode.
    pub(super) fn undo(&mut self) {
        let Some(undo) = self.recovery.undo.take() else {
            return;
        };
        self.counters.undone += 1;
        self.congestion.undo(undo.cwnd, undo.ssthresh);
        self.board.forgive();
        self.board.rack.reordering_seen = true;
        self.recovery.phase = Phase::Open;
        self.recovery.f_rto = false;
        self.recovery.send_new = false;
        self.recovery.dup_acks = 0;
        self.backoff = 0;
        self.retransmits = 0;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn undo(resent_before: bool) -> Undo {
        Undo {
            una: SeqNum(0),
            cwnd: 10,
            ssthresh: 10,
            unreported: None,
            first_ts: None,
            resent_before,
        }
    }

    #[test]
    fn what_was_never_sent_again_answers_for_itself() {
        assert!(undo(false).original_answered(None));
        assert!(!undo(true).original_answered(None), "the probe may have");
        let mut resent = undo(false);
        resent.retransmitted(Some(7));
        assert!(!resent.original_answered(None));
        assert!(!resent.original_answered(Some(7)));
        assert!(resent.original_answered(Some(6)));
    }

    #[test]
    fn only_duplicates_of_this_episode_count() {
        let mut resent = undo(false);
        assert!(!resent.all_duplicates(), "nothing was sent again");
        resent.retransmitted(None);
        resent.retransmitted(None);
        resent.reported(resent.una, 2);
        assert!(!resent.all_duplicates());
        resent.reported(resent.una + 1, 1);
        assert!(!resent.all_duplicates());
        resent.reported(resent.una + 1, 1);
        assert!(resent.all_duplicates());
    }
}
