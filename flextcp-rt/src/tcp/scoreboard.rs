//! What was sent and is not yet acknowledged, segment by segment: the base of RTT samples, SACK (RFC 2018)
//! and loss detection (RFC 8985).

use std::collections::VecDeque;
use std::time::Duration;

use flextcp_nic::seq::SeqNum;
use flextcp_nic::time::Instant;
use flextcp_nic::wire::SackBlocks;

/// One segment in flight. A SYN or FIN counts as a byte of it.
#[derive(Clone, Copy, Debug)]
pub(super) struct Sent {
    pub(super) start: SeqNum,
    pub(super) end: SeqNum,
    /// Last (re)transmission.
    pub(super) at: Instant,
    pub(super) sacked: bool,
    /// Taken as lost, not sent again since.
    pub(super) lost: bool,
    pub(super) retransmitted: bool,
}

impl Sent {
    pub(super) fn len(&self) -> u32 {
        self.end.since(self.start)
    }
}

/// The newest delivery that is known, in order of transmission (RFC 8985, section 5.2).
#[derive(Clone, Copy, Debug)]
struct Rack {
    at: Instant,
    end: SeqNum,
    rtt: Duration,
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
}

impl Delivered {
    /// Bytes that this acknowledgment says have arrived, and none did before.
    pub(super) const fn bytes(&self) -> u32 {
        self.acked + self.sacked - self.acked_sacked
    }
}

/// Segments between SND.UNA and SND.NXT.
#[derive(Debug, Default)]
pub(super) struct Scoreboard {
    segments: VecDeque<Sent>,
    sacked_bytes: u32,
    sacked_segments: u32,
    lost_bytes: u32,
    rack: Option<Rack>,
    /// A segment arrived after one sent later: the path reorders.
    reordering_seen: bool,
    highest_sacked: Option<SeqNum>,
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

    pub(super) fn clear(&mut self) {
        *self = Self::default();
    }

    pub(super) fn push(&mut self, start: SeqNum, end: SeqNum, at: Instant) {
        self.segments.push_back(Sent {
            start,
            end,
            at,
            sacked: false,
            lost: false,
            retransmitted: false,
        });
    }

    /// Segments whose history is unknown (the NIC sent them): no RTT samples from them.
    pub(super) fn restore(&mut self, una: SeqNum, nxt: SeqNum, mss: u32, at: Instant) {
        self.clear();
        let mut start = una;
        while start.before(nxt) {
            let end = start + mss.max(1).min(nxt.since(start));
            self.segments.push_back(Sent {
                start,
                end,
                at,
                sacked: false,
                lost: false,
                retransmitted: true,
            });
            start = end;
        }
    }

    /// Takes a cumulative acknowledgment.
    pub(super) fn acknowledge(&mut self, una: SeqNum, now: Instant, delivered: &mut Delivered) {
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
                self.note_delivery(&part, now, delivered);
            }
        }
        if self
            .highest_sacked
            .is_some_and(|highest| highest.at_or_before(una))
        {
            self.highest_sacked = None;
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
        delivered: &mut Delivered,
    ) {
        for (left, right) in blocks.iter() {
            // D-SACK (RFC 2883) lies below SND.UNA; nonsense lies above SND.NXT.
            if !left.before(right) || left.before(una) || right.after(nxt) {
                continue;
            }
            let first = self.segments.partition_point(|s| s.start.before(left));
            for index in first..self.segments.len() {
                let segment = &mut self.segments[index];
                if segment.end.after(right) {
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
                self.note_delivery(&copy, now, delivered);
                self.highest_sacked = Some(
                    self.highest_sacked
                        .map_or(copy.end, |highest| highest.latest(copy.end)),
                );
            }
        }
    }

    fn note_delivery(&mut self, segment: &Sent, now: Instant, delivered: &mut Delivered) {
        let rtt = now.saturating_since(segment.at);
        if !segment.retransmitted {
            delivered.rtt = Some(rtt);
            if self
                .highest_sacked
                .is_some_and(|highest| segment.end.before(highest))
            {
                self.reordering_seen = true;
            }
        }
        // RFC 8985, section 6.2, step 2: an answer faster than the path answers the first transmission.
        let spurious = segment.retransmitted
            && self
                .rack
                .is_some_and(|rack| rtt < rack.rtt.min(Duration::from_millis(1)));
        let newer = self.rack.is_none_or(|rack| {
            (rack.at, 0) < (segment.at, 1) && {
                rack.at < segment.at || segment.end.after(rack.end)
            }
        });
        if newer && !spurious {
            self.rack = Some(Rack {
                at: segment.at,
                end: segment.end,
                rtt,
            });
        }
    }

    /// Marks what is lost by now (RFC 8985, section 6.2, steps 4 and 5). Returns the bytes newly lost, and
    /// when to look again for segments inside the reordering window.
    pub(super) fn detect_losses(
        &mut self,
        now: Instant,
        in_recovery: bool,
        min_rtt: Option<Duration>,
    ) -> (u32, Option<Instant>) {
        let Some(rack) = self.rack else {
            return (0, None);
        };
        // Without reordering so far, three segments delivered above a hole are proof (step 4).
        let window = if !self.reordering_seen && (in_recovery || self.sacked_segments >= 3) {
            Duration::ZERO
        } else {
            min_rtt.unwrap_or(Duration::ZERO) / 4
        };
        let mut newly_lost = 0;
        let mut again: Option<Instant> = None;
        for segment in &mut self.segments {
            if segment.sacked || segment.lost {
                continue;
            }
            let sent_before =
                segment.at < rack.at || (segment.at == rack.at && segment.end.before(rack.end));
            if !sent_before {
                // First transmissions are in order of time: nothing older follows.
                if segment.retransmitted {
                    continue;
                }
                break;
            }
            let deadline = segment.at + rack.rtt + window;
            if deadline <= now {
                segment.lost = true;
                newly_lost += segment.len();
            } else {
                again = Some(again.map_or(deadline, |at| at.max(deadline)));
            }
        }
        self.lost_bytes += newly_lost;
        (newly_lost, again)
    }

    /// Marks the first segment lost (three duplicate ACKs, or a partial ACK; RFC 6582).
    pub(super) fn mark_front_lost(&mut self) -> bool {
        let Some(front) = self.segments.front_mut() else {
            return false;
        };
        if front.lost || front.sacked {
            return false;
        }
        front.lost = true;
        self.lost_bytes += front.len();
        true
    }

    /// Marks everything lost that the peer does not hold (RFC 6298, section 5; RFC 8985, section 6.3).
    pub(super) fn mark_all_lost(&mut self) {
        // A peer that holds the front and does not acknowledge it has reneged (RFC 2018, section 8).
        if self.segments.front().is_some_and(|front| front.sacked) {
            for segment in &mut self.segments {
                segment.sacked = false;
            }
            self.sacked_bytes = 0;
            self.sacked_segments = 0;
            self.highest_sacked = None;
        }
        self.lost_bytes = 0;
        for segment in &mut self.segments {
            segment.lost = !segment.sacked;
            if segment.lost {
                self.lost_bytes += segment.len();
            }
        }
        self.rack = None;
    }

    /// The first lost segment.
    pub(super) fn next_lost(&self) -> Option<Sent> {
        if self.lost_bytes == 0 {
            return None;
        }
        self.segments.iter().find(|segment| segment.lost).copied()
    }

    /// `start..end`, the beginning of a lost segment, was sent again.
    pub(super) fn retransmitted(&mut self, start: SeqNum, end: SeqNum, now: Instant) {
        let index = self.segments.partition_point(|s| s.start.before(start));
        let Some(segment) = self.segments.get_mut(index) else {
            return;
        };
        if segment.start != start {
            return;
        }
        if std::mem::take(&mut segment.lost) {
            self.lost_bytes -= segment.len();
        }
        segment.at = now;
        segment.retransmitted = true;
        if end.before(segment.end) {
            let mut rest = *segment;
            segment.end = end;
            rest.start = end;
            rest.lost = true;
            self.lost_bytes += rest.len();
            self.segments.insert(index + 1, rest);
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
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(micros: u64) -> Instant {
        Instant::from_micros(micros)
    }

    fn board(segments: u32) -> Scoreboard {
        let mut board = Scoreboard::default();
        for i in 0..segments {
            board.push(SeqNum(i * 100), SeqNum(i * 100 + 100), at(u64::from(i)));
        }
        board
    }

    fn sack(board: &mut Scoreboard, ranges: &[(u32, u32)], nxt: u32, now: Instant) -> Delivered {
        let mut blocks = SackBlocks::default();
        for &(left, right) in ranges {
            assert!(blocks.push(SeqNum(left), SeqNum(right)));
        }
        let mut delivered = Delivered::default();
        board.selectively_acknowledge(&blocks, SeqNum(0), SeqNum(nxt), now, &mut delivered);
        delivered
    }

    #[test]
    fn three_segments_above_a_hole_prove_its_loss() {
        let mut board = board(5);
        let min_rtt = Some(Duration::from_micros(1000));
        assert_eq!(sack(&mut board, &[(100, 300)], 500, at(1000)).sacked, 200);
        let (lost, again) = board.detect_losses(at(1000), false, min_rtt);
        assert_eq!(lost, 0);
        assert!(again.is_some());
        assert_eq!(sack(&mut board, &[(100, 400)], 500, at(1004)).sacked, 100);
        assert_eq!(board.detect_losses(at(1004), false, min_rtt).0, 100);
        assert_eq!(board.next_lost().unwrap().start, SeqNum(0));
        assert_eq!((board.lost_bytes(), board.sacked_bytes()), (100, 300));
    }

    #[test]
    fn lost_retransmission_is_found_again() {
        let mut board = board(6);
        sack(&mut board, &[(100, 400)], 600, at(1000));
        board.detect_losses(at(1000), false, Some(Duration::from_micros(900)));
        board.retransmitted(SeqNum(0), SeqNum(100), at(1001));
        assert_eq!(board.lost_bytes(), 0);
        board.push(SeqNum(600), SeqNum(700), at(1002));
        sack(&mut board, &[(100, 700)], 700, at(2002));
        assert_eq!(
            board
                .detect_losses(at(2002), true, Some(Duration::from_micros(900)))
                .0,
            100
        );
    }

    #[test]
    fn cumulative_ack_inside_a_segment_trims_it() {
        let mut board = board(3);
        let mut delivered = Delivered::default();
        board.acknowledge(SeqNum(150), at(500), &mut delivered);
        assert_eq!((delivered.acked, delivered.segments), (150, 2));
        assert_eq!(board.front().unwrap().start, SeqNum(150));
        assert_eq!(delivered.rtt, Some(Duration::from_micros(499)));
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
        board.mark_all_lost();
        board.retransmitted(SeqNum(0), SeqNum(60), at(9));
        assert_eq!(board.lost_bytes(), 140);
        assert_eq!(board.next_lost().unwrap().start, SeqNum(60));
    }
}
