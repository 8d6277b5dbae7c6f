//! What of it is lost, and what goes out again first.

use flextcp_nic::seq::SeqNum;
use flextcp_nic::time::Instant;
use flextcp_nic::wire::SackBlocks;

use super::{Scoreboard, Sent};
use crate::tcp::rack::Reordering;

impl Scoreboard {
    /// Marks what is lost by now (RFC 8985, section 6.2, step 5). Returns the bytes newly lost, and
    /// when to look again for segments inside the reordering window.
    pub(in crate::tcp) fn detect_losses(
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
        // Transmissions mostly follow each other as their segments do.
        let mut next = 0;
        while let Some(&(start, serial)) = self.order.front() {
            let follows = |s: &Sent| s.start == start && s.serial == serial;
            let index = if self.segments.get(next).is_some_and(follows) {
                next
            } else {
                self.segments.partition_point(|s| s.end.at_or_before(start))
            };
            next = index + 1;
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
    pub(in crate::tcp) fn mark_front_lost(&mut self) -> u32 {
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
    pub(in crate::tcp) fn mark_timed_out(&mut self, now: Instant, reordering: Reordering) -> u32 {
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

    /// Segments larger than `mss` are lost: the path does not take them (RFC 1191).
    pub(in crate::tcp) fn mark_oversized_lost(&mut self, mss: u32) {
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

    /// Nothing was lost after all.
    pub(in crate::tcp) fn forgive(&mut self) {
        for segment in &mut self.segments {
            if std::mem::take(&mut segment.lost) {
                self.serial += 1;
                segment.serial = self.serial;
                self.order.push_back((segment.start, self.serial));
            }
        }
        self.lost_bytes = 0;
    }

    /// Whether a segment of `most` bytes or less that starts at `start` and ends by `end` is lost.
    pub(in crate::tcp) fn has_lost(&mut self, start: SeqNum, most: u32, end: SeqNum) -> bool {
        let at = self.segments.partition_point(|s| s.start.before(start));
        // As it would be sent.
        self.rejoin(at);
        self.segments.get(at).is_some_and(|s| {
            s.lost && s.start == start && s.len() <= most && s.end.at_or_before(end)
        })
    }

    /// The first lost segment.
    pub(in crate::tcp) fn next_lost(&mut self) -> Option<Sent> {
        if self.lost_bytes == 0 {
            return None;
        }
        let from = self
            .segments
            .partition_point(|s| s.end.at_or_before(self.lost_from));
        let index = from + self.segments.range(from..).position(|s| s.lost)?;
        self.rejoin(index);
        let lost = self.segments[index];
        self.lost_from = lost.start;
        Some(lost)
    }
}
