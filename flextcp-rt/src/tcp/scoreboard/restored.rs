//! What the NIC sent, when the connection comes back: nobody knows when, and where one segment ended and the next began.

use std::time::Duration;

use flextcp_nic::seq::SeqNum;
use flextcp_nic::time::Instant;

use super::{Scoreboard, Sent};
use crate::tcp::delivery::Stamp;

impl Scoreboard {
    /// Segments that the NIC sent, once each, nobody knows when: taken to be sent evenly over the last `span`. At one
    /// moment, each delivery would seem to have taken longer than the one before it, and what was sent before it to have
    /// more time left.
    pub(in crate::tcp) fn restore(
        &mut self,
        una: SeqNum,
        nxt: SeqNum,
        mss: u32,
        at: Instant,
        span: Duration,
    ) {
        self.clear();
        let segments = nxt.since(una).div_ceil(mss.max(1)) as usize;
        self.divisions = segments;
        self.unit = mss;
        // And as many again: parts, or what the window has room for when these are acknowledged.
        self.segments.reserve(2 * segments);
        self.order.reserve(2 * segments);
        let outstanding = u128::from(nxt.since(una).max(1));
        let mut start = una;
        while start.before(nxt) {
            let end = start + mss.max(1).min(nxt.since(start));
            let before = span.as_nanos() * u128::from(nxt.since(end)) / outstanding;
            let sent = at - Duration::from_nanos(u64::try_from(before).unwrap_or(u64::MAX));
            self.append(start, end, sent, Stamp::default(), false);
            start = end;
        }
    }

    /// A SACK block begins or ends at `edge`, and so did a segment. Within what was taken for one segment of the NIC there were
    /// two: a loss of one is not a loss of both, and the other, sent again, would seem to arrive before it was sent. As often as
    /// there were segments at most, so that blocks of single bytes do not make the list grow.
    pub(super) fn divide(&mut self, edge: SeqNum) {
        if self.divisions == 0 {
            return;
        }
        let index = self.segments.partition_point(|s| s.end.at_or_before(edge));
        let Some(segment) = self.segments.get_mut(index) else {
            return;
        };
        if segment.timed || segment.sacked || segment.start.at_or_after(edge) {
            return;
        }
        self.divisions -= 1;
        let whole = *segment;
        segment.end = edge;
        self.segments.insert(
            index + 1,
            Sent {
                start: edge,
                ..whole
            },
        );
        // One that is lost is in no order any more.
        let behind = self.order.partition_point(|(_, n)| *n <= whole.serial);
        if !whole.lost {
            self.order.insert(behind, (edge, whole.serial));
        }
    }

    /// The parts of two guesses between which a segment was lost are one again, to be sent as it was.
    pub(super) fn rejoin(&mut self, index: usize) {
        let (Some(first), Some(second)) = (self.segments.get(index), self.segments.get(index + 1))
        else {
            return;
        };
        let end = second.end;
        let parts = first.lost && second.lost && !first.timed && !second.timed;
        if parts && end.since(first.start) <= self.unit {
            self.segments[index].end = end;
            self.segments.remove(index + 1);
        }
    }
}

#[cfg(test)]
mod tests {
    use flextcp_nic::wire::SackBlocks;

    use super::super::Delivered;
    use super::*;
    use crate::tcp::rack::Reordering;

    fn at(micros: u64) -> Instant {
        Instant::from_micros(micros)
    }

    fn sack(board: &mut Scoreboard, ranges: &[(u32, u32)], now: Instant) -> (u32, u32) {
        let mut blocks = SackBlocks::default();
        for &(left, right) in ranges {
            assert!(blocks.push(SeqNum(left), SeqNum(right)));
        }
        let (una, nxt) = (SeqNum(0), SeqNum(1000));
        let mut delivered = Delivered::default();
        board.selectively_acknowledge(&blocks, una, nxt, now, None, &mut delivered);
        let (lost, _) = board.detect_losses(now, Reordering::default());
        (delivered.sacked, lost)
    }

    #[test]
    fn a_loss_between_two_guesses_is_one_segment() {
        let mut board = Scoreboard::default();
        // The NIC cut at 40, 140, 240 and so on.
        let (una, nxt) = (SeqNum(0), SeqNum(1000));
        board.restore(una, nxt, 100, at(1000), Duration::from_micros(100));
        let (sacked, lost) = sack(&mut board, &[(440, 1000), (0, 340)], at(2000));
        assert_eq!((sacked, lost), (900, 100));
        assert_eq!((board.lost_bytes(), board.sacked_bytes()), (100, 900));
        let lost = board.next_lost().unwrap();
        assert_eq!((lost.start, lost.end), (SeqNum(340), SeqNum(440)));
        board.retransmitted(lost.start, lost.end, at(2001), Stamp::default());
        assert!(board.next_lost().is_none());
        assert_eq!(board.lost_bytes(), 0);
    }

    #[test]
    fn blocks_of_single_bytes_divide_no_more_than_there_was() {
        let mut board = Scoreboard::default();
        board.restore(SeqNum(0), SeqNum(1000), 100, at(1000), Duration::ZERO);
        for byte in (1..999).rev() {
            sack(&mut board, &[(byte, byte + 1)], at(2000));
        }
        assert_eq!(board.segments.len(), 20);
        assert!(board.order.len() <= 20);
        assert!(
            board
                .segments
                .iter()
                .zip(board.segments.iter().skip(1))
                .all(|(a, b)| a.end == b.start)
        );
    }

    #[test]
    fn what_was_sent_before_all_that_was_sent_again_in_part_is_not_lost() {
        let mut board = Scoreboard::default();
        for i in 0..10 {
            board.push(
                SeqNum(i * 100),
                SeqNum(i * 100 + 100),
                at(u64::from(i)),
                Stamp::default(),
            );
        }
        board.retransmitted(SeqNum(0), SeqNum(100), at(100), Stamp::default());
        let mut delivered = Delivered::default();
        board.acknowledge(SeqNum(60), at(200), None, &mut delivered);
        assert_eq!((delivered.acked, delivered.rtt), (60, None));
        assert_eq!(
            board.detect_losses(at(10_000), Reordering::default()),
            (0, None)
        );
        board.acknowledge(SeqNum(100), at(201), None, &mut delivered);
        assert_eq!(
            board.detect_losses(at(10_000), Reordering::default()).0,
            900
        );
    }
}
