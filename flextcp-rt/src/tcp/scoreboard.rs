//! What was sent and is not yet acknowledged, segment by segment: the base of RTT samples, SACK (RFC 2018)
//! and loss detection (RFC 8985).
//!
//! An acknowledgment costs what it changes, not what is in flight: SACK blocks are read from where the last
//! ones ended, and losses are looked for in order of transmission, as far as the newest delivery.

mod loss;
mod restored;
#[cfg(test)]
mod tests;

use std::collections::VecDeque;
use std::time::Duration;

use flextcp_nic::seq::SeqNum;
use flextcp_nic::time::Instant;
use flextcp_nic::wire::SackBlocks;

use super::delivery::Stamp;
use super::rack::Rack;

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
    /// Round trip of the newest transmission among them, if it was of a segment that was sent once (Karn's rule).
    /// Older ones may have waited for it, when their own acknowledgments were lost.
    pub(super) rtt: Option<Duration>,
    rtt_serial: u64,
    /// The lowest end of a segment that was sent once: no answer to a retransmission.
    pub(super) original: Option<SeqNum>,
    /// The newest transmission among them: stamp, time and number.
    newest: Option<(Stamp, Instant, u64)>,
    /// The end of what was acknowledged selectively before.
    highest_before: Option<SeqNum>,
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
    /// Segments of the NIC that may yet be divided where the peer shows that another began.
    divisions: usize,
    /// Payload of a full segment of the NIC's.
    unit: u32,
}

impl Scoreboard {
    pub(super) fn is_empty(&self) -> bool {
        self.segments.is_empty()
    }

    pub(super) const fn sacked_bytes(&self) -> u32 {
        self.sacked_bytes
    }

    /// Whether what is lost lies within `start..end` and was sent once.
    pub(super) fn lost_once_within(&self, start: SeqNum, end: SeqNum) -> bool {
        self.segments
            .iter()
            .filter(|s| s.lost)
            .all(|s| !s.retransmitted && s.start.at_or_after(start) && s.end.at_or_before(end))
    }

    /// Whether the peer is not known to hold something that was sent again.
    pub(super) fn holds_retransmissions(&self) -> bool {
        self.segments.iter().any(|s| s.retransmitted && !s.sacked)
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

    /// Takes a cumulative acknowledgment.
    pub(super) fn acknowledge(
        &mut self,
        una: SeqNum,
        now: Instant,
        min_rtt: Option<Duration>,
        delivered: &mut Delivered,
    ) {
        delivered.highest_before = self.highest_sacked;
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
            } else if whole || !part.retransmitted {
                self.note_delivery(&part, now, min_rtt, delivered);
            }
            // A part of what was sent again as a whole arrived before that, with a segment that was cut elsewhere.
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
        delivered.highest_before = self.highest_sacked;
        for (left, right) in blocks.iter() {
            // D-SACK (RFC 2883) lies below SND.UNA; nonsense lies above SND.NXT.
            if !left.before(right) || left.before(una) || right.after(nxt) {
                continue;
            }
            seen.push(left, right);
            self.divide(left);
            self.divide(right);
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
        if delivered.rtt_serial < segment.serial {
            delivered.rtt_serial = segment.serial;
            delivered.rtt = (segment.timed && !segment.retransmitted).then_some(rtt);
        }
        if !segment.retransmitted {
            delivered.original = Some(
                delivered
                    .original
                    .map_or(segment.end, |end| end.earliest(segment.end)),
            );
            // Above it was something by an earlier acknowledgment: one may tell of many segments, in any order of blocks.
            if delivered
                .highest_before
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
}
