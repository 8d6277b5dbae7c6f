//! What was sent and is not yet acknowledged, segment by segment: the base of RTT samples, SACK (RFC 2018)
//! and loss detection (RFC 8985).
//!
//! An acknowledgment costs what it changes, not what is in flight: SACK blocks are read from where the last
//! ones ended, and losses are looked for in order of transmission, as far as the newest delivery.

use std::collections::VecDeque;
use std::time::Duration;

use flextcp_nic::seq::SeqNum;
use flextcp_nic::time::Instant;
use flextcp_nic::wire::SackBlocks;

use super::delivery::Stamp;
use super::rack::{Rack, Reordering};

/// One segment in flight. A SYN or FIN counts as a byte of it.
#[derive(Clone, Copy, Debug)]
pub(super) struct Sent {
    pub(super) start: SeqNum,
    pub(super) end: SeqNum,
    /// Last (re)transmission.
    pub(super) at: Instant,
    /// Its number, among all transmissions.
    serial: u64,
    pub(super) sacked: bool,
    /// Taken as lost, not sent again since.
    pub(super) lost: bool,
    pub(super) retransmitted: bool,
    /// `at` is when it was sent; the NIC does not tell.
    timed: bool,
    stamp: Stamp,
}

impl Sent {
    pub(super) fn len(&self) -> u32 {
        self.end.since(self.start)
    }
}

/// What an acknowledgment delivered.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Delivered {
    /// Bytes acknowledged cumulatively for the first time.
    pub(super) acked: u32,
    /// Segments acknowledged cumulatively.
    pub(super) segments: u32,
    /// Bytes newly acknowledged selectively.
    pub(super) sacked: u32,
    /// Of `acked`, bytes that had been acknowledged selectively before.
    pub(super) acked_sacked: u32,
    /// A round trip of a segment that was sent once.
    pub(super) rtt: Option<Duration>,
    /// The lowest end of a segment that was sent once: no answer to a retransmission.
    pub(super) original: Option<SeqNum>,
    /// The newest transmission among them: stamp, time and number.
    newest: Option<(Stamp, Instant, u64)>,
}

impl Delivered {
    /// Bytes that this acknowledgment says have arrived, and none did before.
    pub(super) const fn bytes(&self) -> u32 {
        self.acked + self.sacked - self.acked_sacked
    }

    /// Stamp and time of the newest transmission delivered.
    pub(super) fn newest(&self) -> Option<(Stamp, Instant)> {
        self.newest.map(|(stamp, at, _)| (stamp, at))
    }
}

/// Segments between SND.UNA and SND.NXT.
#[derive(Debug, Default)]
pub(super) struct Scoreboard {
    segments: VecDeque<Sent>,
    /// Transmissions in order of time: where the segment began, and its number. Those that were delivered,
    /// lost or sent again since are skipped when their turn comes.
    order: VecDeque<(SeqNum, u64)>,
    serial: u64,
    sacked_bytes: u32,
    sacked_segments: u32,
    lost_bytes: u32,
    /// No lost segment lies below.
    lost_from: SeqNum,
    pub(super) rack: Rack,
    highest_sacked: Option<SeqNum>,
    /// The blocks of the last acknowledgment that had some: all segments within are marked.
    seen: SackBlocks,
}

impl Scoreboard {
    pub(super) fn is_empty(&self) -> bool {
        self.segments.is_empty()
    }

    pub(super) const fn sacked_bytes(&self) -> u32 {
        self.sacked_bytes
    }

    pub(super) const fn lost_bytes(&self) -> u32 {
        self.lost_bytes
    }

    #[cfg(test)]
    fn front(&self) -> Option<&Sent> {
        self.segments.front()
    }

    /// The last segment that the peer is not known to hold.
    pub(super) fn last_unsacked(&self) -> Option<Sent> {
        self.segments.iter().rev().find(|s| !s.sacked).copied()
    }

    /// Forgets the segments; what was learnt of the path stays.
    pub(super) fn clear(&mut self) {
        self.rack.newest = None;
        *self = Self {
            rack: self.rack,
            serial: self.serial,
            ..Self::default()
        };
    }

    pub(super) fn push(&mut self, start: SeqNum, end: SeqNum, at: Instant, stamp: Stamp) {
        self.append(start, end, at, stamp, true);
    }

    fn append(&mut self, start: SeqNum, end: SeqNum, at: Instant, stamp: Stamp, timed: bool) {
        self.serial += 1;
        self.order.push_back((start, self.serial));
        self.segments.push_back(Sent {
            start,
            end,
            at,
            serial: self.serial,
            sacked: false,
            lost: false,
            retransmitted: false,
            timed,
            stamp,
        });
    }

    /// Segments that the NIC sent, once each, nobody knows when.
    pub(super) fn restore(&mut self, una: SeqNum, nxt: SeqNum, mss: u32, at: Instant) {
        self.clear();
        let mut start = una;
        while start.before(nxt) {
            let end = start + mss.max(1).min(nxt.since(start));
            self.append(start, end, at, Stamp::default(), false);
            start = end;
        }
    }

    /// Takes a cumulative acknowledgment.
    pub(super) fn acknowledge(
        &mut self,
        una: SeqNum,
        now: Instant,
        min_rtt: Option<Duration>,
        delivered: &mut Delivered,
    ) {
        while let Some(front) = self.segments.front_mut() {
            if !front.start.before(una) {
                break;
            }
            let whole = front.end.at_or_before(una);
            let part = Sent {
                end: front.end.earliest(una),
                ..*front
            };
            if whole {
                self.segments.pop_front();
            } else {
                front.start = una;
            }
            delivered.acked += part.len();
            delivered.segments += 1;
            if part.lost {
                self.lost_bytes -= part.len();
            }
            if part.sacked {
                self.sacked_bytes -= part.len();
                self.sacked_segments -= u32::from(whole);
                delivered.acked_sacked += part.len();
            } else {
                self.note_delivery(&part, now, min_rtt, delivered);
            }
        }
        if self
            .highest_sacked
            .is_some_and(|highest| highest.at_or_before(una))
        {
            self.highest_sacked = None;
        }
        while let Some(&(start, serial)) = self.order.front() {
            let alive = self.segments.front().is_some_and(|s| s.serial == serial);
            if alive || start.at_or_after(una) {
                break;
            }
            self.order.pop_front();
        }
    }

    /// Takes SACK blocks. Only segments that a block covers whole are marked: splitting them would let a peer
    /// grow this list by blocks of single bytes.
    pub(super) fn selectively_acknowledge(
        &mut self,
        blocks: &SackBlocks,
        una: SeqNum,
        nxt: SeqNum,
        now: Instant,
        min_rtt: Option<Duration>,
        delivered: &mut Delivered,
    ) {
        let mut seen = SackBlocks::default();
        for (left, right) in blocks.iter() {
            // D-SACK (RFC 2883) lies below SND.UNA; nonsense lies above SND.NXT.
            if !left.before(right) || left.before(una) || right.after(nxt) {
                continue;
            }
            seen.push(left, right);
            let known = self
                .seen
                .iter()
                .find(|(a, b)| a.before(right) && left.before(*b));
            let first = self.segments.partition_point(|s| s.start.before(left));
            match known {
                None => self.mark_sacked(first, right, right, now, min_rtt, delivered),
                Some((known_left, known_right)) => {
                    self.mark_sacked(first, known_left, right, now, min_rtt, delivered);
                    let rest = self
                        .segments
                        .partition_point(|s| s.end.at_or_before(known_right));
                    self.mark_sacked(rest.max(first), right, right, now, min_rtt, delivered);
                }
            }
        }
        if !seen.is_empty() {
            self.seen = seen;
        }
    }

    /// Marks segments from `index` on that start before `until` and end by `right`.
    fn mark_sacked(
        &mut self,
        index: usize,
        until: SeqNum,
        right: SeqNum,
        now: Instant,
        min_rtt: Option<Duration>,
        delivered: &mut Delivered,
    ) {
        for index in index..self.segments.len() {
            let segment = &mut self.segments[index];
            if segment.end.after(right) || segment.start.at_or_after(until) {
                break;
            }
            if segment.sacked {
                continue;
            }
            segment.sacked = true;
            let copy = *segment;
            if std::mem::take(&mut segment.lost) {
                self.lost_bytes -= copy.len();
            }
            self.sacked_bytes += copy.len();
            self.sacked_segments += 1;
            delivered.sacked += copy.len();
            self.note_delivery(&copy, now, min_rtt, delivered);
            self.highest_sacked = Some(
                self.highest_sacked
                    .map_or(copy.end, |highest| highest.latest(copy.end)),
            );
        }
    }

    fn note_delivery(
        &mut self,
        segment: &Sent,
        now: Instant,
        min_rtt: Option<Duration>,
        delivered: &mut Delivered,
    ) {
        let rtt = now.saturating_since(segment.at);
        if !segment.retransmitted {
            delivered.original = Some(
                delivered
                    .original
                    .map_or(segment.end, |end| end.earliest(segment.end)),
            );
            if segment.timed {
                delivered.rtt = Some(rtt);
            }
            if self
                .highest_sacked
                .is_some_and(|highest| segment.end.before(highest))
            {
                self.rack.reordering_seen = true;
            }
        }
        if segment.timed
            && delivered
                .newest
                .is_none_or(|(.., serial)| serial < segment.serial)
        {
            delivered.newest = Some((segment.stamp, segment.at, segment.serial));
        }
        self.rack
            .delivered(segment.serial, rtt, segment.retransmitted, min_rtt);
    }

    /// Segments that the peer holds out of order.
    pub(super) const fn sacked_segments(&self) -> u32 {
        self.sacked_segments
    }

    /// Marks what is lost by now (RFC 8985, section 6.2, step 5). Returns the bytes newly lost, and
    /// when to look again for segments inside the reordering window.
    pub(super) fn detect_losses(
        &mut self,
        now: Instant,
        mut reordering: Reordering,
    ) -> (u32, Option<Instant>) {
        let Some(newest) = self.rack.newest else {
            return (0, None);
        };
        reordering.sacked_segments = self.sacked_segments;
        let patience = newest.rtt + self.rack.window(reordering);
        let mut newly_lost = 0;
        let mut again = None;
        while let Some(&(start, serial)) = self.order.front() {
            let index = self.segments.partition_point(|s| s.end.at_or_before(start));
            let segment = self
                .segments
                .get_mut(index)
                .filter(|s| s.serial == serial && !s.sacked && !s.lost);
            if let Some(segment) = segment {
                if serial >= newest.serial {
                    break;
                }
                // Later transmissions have later deadlines.
                let deadline = segment.at + patience;
                if deadline > now {
                    again = Some(deadline);
                    break;
                }
                segment.lost = true;
                let (start, len) = (segment.start, segment.len());
                newly_lost += len;
                self.note_lost(start, len);
            }
            self.order.pop_front();
        }
        (newly_lost, again)
    }

    fn note_lost(&mut self, start: SeqNum, len: u32) {
        self.lost_from = if self.lost_bytes == 0 {
            start
        } else {
            self.lost_from.earliest(start)
        };
        self.lost_bytes += len;
    }

    /// Marks the first segment lost (three duplicate ACKs, or a partial ACK; RFC 6582). Returns its bytes.
    pub(super) fn mark_front_lost(&mut self) -> u32 {
        let Some(front) = self.segments.front_mut() else {
            return 0;
        };
        if front.lost || front.sacked {
            return 0;
        }
        front.lost = true;
        let (start, len) = (front.start, front.len());
        self.note_lost(start, len);
        len
    }

    /// A retransmission timeout: marks the first segment lost, and all that were sent long enough ago
    /// (RFC 8985, section 6.3). Returns the bytes newly lost.
    pub(super) fn mark_timed_out(&mut self, now: Instant, reordering: Reordering) -> u32 {
        // A peer that holds the front and does not acknowledge it has reneged (RFC 2018, section 8).
        let reneged = self.segments.front().is_some_and(|front| front.sacked);
        if reneged {
            for segment in &mut self.segments {
                segment.sacked = false;
            }
            self.sacked_bytes = 0;
            self.sacked_segments = 0;
            self.highest_sacked = None;
            self.seen = SackBlocks::default();
        }
        let patience = self
            .rack
            .newest
            .map(|newest| newest.rtt + self.rack.window(reordering));
        let before = self.lost_bytes;
        for (index, segment) in self.segments.iter_mut().enumerate() {
            let recent = patience.is_some_and(|patience| segment.at + patience > now);
            if segment.sacked || segment.lost || (index > 0 && recent && !reneged) {
                continue;
            }
            segment.lost = true;
            self.lost_bytes += segment.len();
        }
        if let Some(front) = self.segments.front() {
            self.lost_from = front.start;
        }
        self.lost_bytes - before
    }

    /// Nothing was lost after all.
    pub(super) fn forgive(&mut self) {
        for segment in &mut self.segments {
            if std::mem::take(&mut segment.lost) {
                self.serial += 1;
                segment.serial = self.serial;
                self.order.push_back((segment.start, self.serial));
            }
        }
        self.lost_bytes = 0;
    }

    /// The first lost segment.
    pub(super) fn next_lost(&mut self) -> Option<Sent> {
        if self.lost_bytes == 0 {
            return None;
        }
        let from = self
            .segments
            .partition_point(|s| s.end.at_or_before(self.lost_from));
        let lost = self.segments.range(from..).find(|s| s.lost).copied();
        if let Some(lost) = lost {
            self.lost_from = lost.start;
        }
        lost
    }

    /// `start..end`, the beginning of a segment, was sent again; the rest of the segment is as it was.
    pub(super) fn retransmitted(&mut self, start: SeqNum, end: SeqNum, now: Instant, stamp: Stamp) {
        let index = self.segments.partition_point(|s| s.start.before(start));
        let Some(segment) = self.segments.get_mut(index) else {
            return;
        };
        if segment.start != start {
            return;
        }
        let whole = *segment;
        self.serial += 1;
        self.order.push_back((start, self.serial));
        *segment = Sent {
            end: whole.end.earliest(end),
            at: now,
            serial: self.serial,
            lost: false,
            retransmitted: true,
            timed: true,
            stamp,
            ..whole
        };
        if whole.lost {
            self.lost_bytes -= segment.len();
        }
        if end.before(whole.end) {
            self.segments.insert(
                index + 1,
                Sent {
                    start: end,
                    ..whole
                },
            );
            self.order.push_back((end, whole.serial));
        }
    }

    /// Segments larger than `mss` are lost: the path does not take them (RFC 1191).
    pub(super) fn mark_oversized_lost(&mut self, mss: u32) {
        for segment in &mut self.segments {
            if !segment.sacked && !segment.lost && segment.len() > mss {
                segment.lost = true;
                self.lost_bytes += segment.len();
            }
        }
        if let Some(front) = self.segments.front() {
            self.lost_from = front.start;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn at(micros: u64) -> Instant {
        Instant::from_micros(micros)
    }

    fn board(segments: u32) -> Scoreboard {
        let mut board = Scoreboard::default();
        for i in 0..segments {
            board.push(
                SeqNum(i * 100),
                SeqNum(i * 100 + 100),
                at(u64::from(i)),
                Stamp::default(),
            );
        }
        board
    }

    fn sack(board: &mut Scoreboard, ranges: &[(u32, u32)], nxt: u32, now: Instant) -> Delivered {
        let mut blocks = SackBlocks::default();
        for &(left, right) in ranges {
            assert!(blocks.push(SeqNum(left), SeqNum(right)));
        }
        let mut delivered = Delivered::default();
        let una = SeqNum(0);
        board.selectively_acknowledge(&blocks, una, SeqNum(nxt), now, None, &mut delivered);
        delivered
    }

    fn detect(board: &mut Scoreboard, now: Instant, in_recovery: bool) -> (u32, Option<Instant>) {
        board.detect_losses(
            now,
            Reordering {
                in_recovery,
                min_rtt: Some(Duration::from_micros(900)),
                ..Reordering::default()
            },
        )
    }

    #[test]
    fn three_segments_above_a_hole_prove_its_loss() {
        let mut board = board(5);
        assert_eq!(sack(&mut board, &[(100, 300)], 500, at(1000)).sacked, 200);
        let (lost, again) = detect(&mut board, at(1000), false);
        assert_eq!(lost, 0);
        assert!(again.is_some());
        assert_eq!(sack(&mut board, &[(100, 400)], 500, at(1004)).sacked, 100);
        assert_eq!(detect(&mut board, at(1004), false).0, 100);
        assert_eq!(board.next_lost().unwrap().start, SeqNum(0));
        assert_eq!((board.lost_bytes(), board.sacked_bytes()), (100, 300));
    }

    #[test]
    fn lost_retransmission_is_found_again() {
        let mut board = board(6);
        sack(&mut board, &[(100, 400)], 600, at(1000));
        detect(&mut board, at(1000), false);
        board.retransmitted(SeqNum(0), SeqNum(100), at(1001), Stamp::default());
        assert_eq!(board.lost_bytes(), 0);
        board.push(SeqNum(600), SeqNum(700), at(1002), Stamp::default());
        sack(&mut board, &[(100, 700)], 700, at(2002));
        assert_eq!(detect(&mut board, at(2002), true).0, 100);
    }

    #[test]
    fn cumulative_ack_inside_a_segment_trims_it() {
        let mut board = board(3);
        let mut delivered = Delivered::default();
        board.acknowledge(SeqNum(150), at(500), None, &mut delivered);
        assert_eq!((delivered.acked, delivered.segments), (150, 2));
        assert_eq!(board.front().unwrap().start, SeqNum(150));
        assert_eq!(delivered.rtt, Some(Duration::from_micros(499)));
    }

    #[test]
    fn timeout_spares_what_was_sent_lately() {
        let mut board = board(3);
        sack(&mut board, &[(200, 300)], 300, at(100));
        board.push(SeqNum(300), SeqNum(400), at(5000), Stamp::default());
        assert_eq!(board.mark_timed_out(at(5050), Reordering::default()), 200);
        assert_eq!(board.lost_bytes(), 200);
        board.forgive();
        assert_eq!((board.lost_bytes(), board.sacked_bytes()), (0, 100));
    }

    #[test]
    fn reneging_peer_gets_everything_again() {
        let mut board = board(3);
        sack(&mut board, &[(0, 200)], 300, at(100));
        assert_eq!(board.mark_timed_out(at(200), Reordering::default()), 300);
        assert_eq!(board.sacked_bytes(), 0);
        assert_eq!(sack(&mut board, &[(0, 200)], 300, at(300)).sacked, 200);
    }

    #[test]
    fn partly_covered_segments_are_not_split() {
        let mut board = board(3);
        assert_eq!(
            sack(&mut board, &[(110, 190), (210, 300)], 300, at(9)).sacked,
            0
        );
        assert_eq!(board.segments.len(), 3);
    }

    #[test]
    fn retransmission_in_smaller_pieces_keeps_the_rest_lost() {
        let mut board = board(2);
        board.mark_timed_out(at(9), Reordering::default());
        board.retransmitted(SeqNum(0), SeqNum(60), at(9), Stamp::default());
        assert_eq!(board.lost_bytes(), 140);
        assert_eq!(board.next_lost().unwrap().start, SeqNum(60));
    }

    proptest! {
        /// Whatever blocks and acknowledgments come, the sums are those of the segments, and remembering the
        /// last blocks changes nothing.
        #[test]
        fn sums_hold_and_memory_of_blocks_changes_nothing(
            steps in prop::collection::vec((0u32..40, prop::collection::vec((0u32..40, 1u32..20), 0..4)), 1..30),
        ) {
            let (mut board, mut forgetful) = (board(40), board(40));
            let mut una = 0;
            for (step, (ack, ranges)) in steps.into_iter().enumerate() {
                let now = at(1000 + step as u64);
                let blocks: SackBlocks = ranges
                    .into_iter()
                    .map(|(from, len)| (SeqNum(from * 100), SeqNum((from + len).min(40) * 100)))
                    .collect();
                if step % 3 == 0 {
                    una = una.max(ack * 50);
                }
                forgetful.seen = SackBlocks::default();
                for board in [&mut board, &mut forgetful] {
                    let mut delivered = Delivered::default();
                    let (low, nxt) = (SeqNum(una), SeqNum(4000));
                    board.selectively_acknowledge(&blocks, low, nxt, now, None, &mut delivered);
                    board.acknowledge(low, now, None, &mut delivered);
                    detect(board, now, step % 2 == 0);
                    if let Some(lost) = board.next_lost() {
                        prop_assert!(board.segments.iter().find(|s| s.lost).unwrap().start == lost.start);
                        board.retransmitted(lost.start, lost.end, now, Stamp::default());
                    }
                    let sum = |f: fn(&Sent) -> bool| board.segments.iter().filter(|s| f(s)).map(Sent::len).sum::<u32>();
                    prop_assert_eq!(board.sacked_bytes, sum(|s| s.sacked));
                    prop_assert_eq!(board.lost_bytes, sum(|s| s.lost));
                    prop_assert_eq!(
                        board.sacked_segments as usize, board.segments.iter().filter(|s| s.sacked).count()
                    );
                }
                let marks = |board: &Scoreboard| board.segments.iter().map(|s| (s.start, s.sacked, s.lost)).collect::<Vec<_>>();
                prop_assert_eq!(marks(&board), marks(&forgetful));
            }
        }
    }
}
