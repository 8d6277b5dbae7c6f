//! Which sequence ranges beyond RCV.NXT the receive ring holds already. The bytes lie at their final place;
//! this is only the list of ranges, and the source of SACK blocks.

use flextcp_nic::seq::SeqNum;
use flextcp_nic::wire::SackBlocks;

/// Islands that any ring may have. A full queue that drops every other segment makes hundreds of them on a long path, so
/// larger rings may have more: as many as take a hundredth of their memory. More is not loss but an attack on our memory,
/// and further islands are dropped.
const LEAST_RANGES: usize = 64;
const MOST_RANGES: usize = 1024;
const RING_PER_RANGE: u32 = 2048;

/// Islands that a ring of `capacity` bytes may have.
fn most_ranges(capacity: u32) -> usize {
    ((capacity / RING_PER_RANGE) as usize).clamp(LEAST_RANGES, MOST_RANGES)
}

#[derive(Clone, Copy, Debug)]
struct Range {
    start: SeqNum,
    end: SeqNum,
    /// When a segment last landed in it: RFC 2018, section 4 wants the newest first.
    touched: u64,
}

/// Disjoint, non-adjacent ranges in sequence order.
#[derive(Debug, Default)]
pub(super) struct Reassembly {
    ranges: Vec<Range>,
    clock: u64,
    /// What was touched up to here, an acknowledgment told.
    told: u64,
}

impl Reassembly {
    pub(super) const fn is_empty(&self) -> bool {
        self.ranges.is_empty()
    }

    pub(super) const fn len(&self) -> usize {
        self.ranges.len()
    }

    /// Bytes beyond `rcv_nxt` up to the end of the last range: what a resize must keep.
    pub(super) fn extent(&self, rcv_nxt: SeqNum) -> u32 {
        self.ranges.last().map_or(0, |last| last.end.since(rcv_nxt))
    }

    /// Right edge of the last range.
    pub(super) fn right_edge(&self) -> Option<SeqNum> {
        self.ranges.last().map(|last| last.end)
    }

    /// Calls `visit` with each part of `start..end` that is not held; stops when it says `false`.
    pub(super) fn gaps(
        &self,
        start: SeqNum,
        end: SeqNum,
        mut visit: impl FnMut(SeqNum, SeqNum) -> bool,
    ) {
        let mut at = start;
        // What follows a hole comes behind all that is held.
        let first = match self.ranges.last() {
            Some(last) if last.end.after(start) => {
                self.ranges.partition_point(|r| r.end.at_or_before(start))
            }
            _ => self.ranges.len(),
        };
        for range in &self.ranges[first..] {
            if !range.start.before(end) {
                break;
            }
            if range.start.after(at) && !visit(at, range.start) {
                return;
            }
            at = range.end;
        }
        if at.before(end) {
            visit(at, end);
        }
    }

    /// Whether all of `start..end` is held.
    pub(super) fn contains(&self, start: SeqNum, end: SeqNum) -> bool {
        if self.ranges.last().is_none_or(|last| last.end.before(end)) {
            return false;
        }
        let index = self.ranges.partition_point(|r| r.end.before(end));
        let last = self.ranges.get(index);
        last.is_some_and(|r| r.start.at_or_before(start))
    }

    /// Whether `start..end` can be added in a ring of `capacity` bytes: it is next in order, and passed at once, it
    /// touches a range, or there is room for one more.
    pub(super) fn has_room(
        &self,
        start: SeqNum,
        end: SeqNum,
        rcv_nxt: SeqNum,
        capacity: u32,
    ) -> bool {
        if start.at_or_before(rcv_nxt) || self.ranges.len() < most_ranges(capacity) {
            return true;
        }
        let index = self.ranges.partition_point(|r| r.end.before(start));
        let next = self.ranges.get(index);
        next.is_some_and(|r| r.start.at_or_before(end))
    }

    /// Adds `start..end`, joined with what it overlaps or touches.
    pub(super) fn insert(&mut self, start: SeqNum, end: SeqNum) {
        if !start.before(end) {
            return;
        }
        self.clock += 1;
        // What follows a hole extends the last range, segment by segment.
        if let Some(last) = self.ranges.last_mut()
            && start == last.end
        {
            last.end = end;
            last.touched = self.clock;
            return;
        }
        let first = self.ranges.partition_point(|r| r.end.before(start));
        let last = self.ranges.partition_point(|r| r.start.at_or_before(end));
        let mut joined = Range {
            start,
            end,
            touched: self.clock,
        };
        if first == last {
            return self.ranges.insert(first, joined);
        }
        joined.start = joined.start.earliest(self.ranges[first].start);
        joined.end = joined.end.latest(self.ranges[last - 1].end);
        self.ranges[first] = joined;
        self.ranges.drain(first + 1..last);
    }

    /// Where `rcv_nxt` can advance to, dropping the ranges it passes.
    pub(super) fn advance(&mut self, rcv_nxt: SeqNum) -> SeqNum {
        if self.ranges.first().is_none_or(|r| r.start.after(rcv_nxt)) {
            return rcv_nxt;
        }
        let passed = self
            .ranges
            .partition_point(|r| r.start.at_or_before(rcv_nxt));
        let end = self.ranges[..passed]
            .last()
            .map_or(rcv_nxt, |r| r.end.latest(rcv_nxt));
        self.ranges.drain(..passed);
        end
    }

    /// Adds the blocks of an acknowledgment to `blocks`, up to `limit` in all, newest first (RFC 2018, section 4). Where
    /// more ranges changed since the last one than it can tell of, those that changed first: one acknowledgment for each
    /// segment would have told of every range, and what the sender does not hear of it takes for lost.
    pub(super) fn tell(&mut self, blocks: &mut SackBlocks, limit: usize) {
        let room = limit.saturating_sub(blocks.len());
        if room == 0 || self.ranges.is_empty() {
            return;
        }
        let mut until = self.clock;
        let told = self.told;
        let untold = |r: &&Range| r.touched > told;
        if self.ranges.iter().filter(untold).count() > room {
            let mut changed: Vec<u64> = self
                .ranges
                .iter()
                .filter(untold)
                .map(|r| r.touched)
                .collect();
            let (_, last, _) = changed.select_nth_unstable(room - 1);
            until = *last;
        }
        self.told = until;
        for _ in 0..room {
            let newest = self.ranges.iter().filter(|r| r.touched <= until);
            let Some(range) = newest.max_by_key(|r| r.touched) else {
                return;
            };
            blocks.push(range.start, range.end);
            until = range.touched - 1;
        }
    }

    /// Whether a range changed that no acknowledgment told of.
    pub(super) fn has_untold(&self) -> bool {
        self.told < self.clock && self.ranges.iter().any(|r| r.touched > self.told)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn blocks(reassembly: &mut Reassembly) -> Vec<(u32, u32)> {
        let mut blocks = SackBlocks::default();
        reassembly.tell(&mut blocks, 3);
        blocks
            .iter()
            .map(|(left, right)| (left.0, right.0))
            .collect()
    }

    #[test]
    fn newest_block_comes_first() {
        let mut r = Reassembly::default();
        r.insert(SeqNum(100), SeqNum(200));
        r.insert(SeqNum(300), SeqNum(400));
        r.insert(SeqNum(500), SeqNum(600));
        assert_eq!(blocks(&mut r), [(500, 600), (300, 400), (100, 200)]);
        r.insert(SeqNum(200), SeqNum(250));
        assert_eq!(blocks(&mut r), [(100, 250), (500, 600), (300, 400)]);
    }

    #[test]
    fn every_range_that_changed_is_told_before_the_newest_is_repeated() {
        let mut r = Reassembly::default();
        for start in (100..600).step_by(100) {
            r.insert(SeqNum(start), SeqNum(start + 50));
        }
        assert_eq!(blocks(&mut r), [(300, 350), (200, 250), (100, 150)]);
        assert!(r.has_untold());
        assert_eq!(blocks(&mut r), [(500, 550), (400, 450), (300, 350)]);
        assert!(!r.has_untold());
        r.insert(SeqNum(550), SeqNum(560));
        assert!(r.has_untold());
        assert_eq!(blocks(&mut r), [(500, 560), (400, 450), (300, 350)]);
        // What is in order by then needs no block.
        r.insert(SeqNum(150), SeqNum(160));
        assert_eq!(r.advance(SeqNum(100)), SeqNum(160));
        assert!(!r.has_untold());
    }

    #[test]
    fn islands_are_bounded_and_what_is_next_in_order_always_fits() {
        for (capacity, most) in [(4096, 64), (1 << 20, 512), (1 << 26, 1024)] {
            let mut r = Reassembly::default();
            let nxt = SeqNum(0);
            for i in 1..=most {
                let (start, end) = (SeqNum(i * 10), SeqNum(i * 10 + 1));
                assert!(r.has_room(start, end, nxt, capacity));
                r.insert(start, end);
            }
            let beyond = SeqNum(most * 10 + 5);
            assert!(!r.has_room(beyond, beyond + 1, nxt, capacity));
            assert!(!r.has_room(SeqNum(5), SeqNum(9), nxt, capacity));
            assert!(r.has_room(SeqNum(5), SeqNum(10), nxt, capacity));
            assert!(r.has_room(SeqNum(11), SeqNum(12), nxt, capacity));
            assert!(r.has_room(nxt, SeqNum(5), nxt, capacity));
            r.insert(nxt, SeqNum(5));
            assert_eq!(r.advance(nxt), SeqNum(5));
            assert_eq!(r.ranges.len() as u32, most);
        }
    }

    proptest! {
        #[test]
        fn behaves_as_a_set_of_bytes(
            base in prop_oneof![any::<u32>(), u32::MAX - 400..=u32::MAX],
            segments in prop::collection::vec((0u32..300, 1u32..40), 1..40),
        ) {
            let mut reassembly = Reassembly::default();
            let mut held = vec![false; 400];
            let mut next = 0u32;
            for (offset, len) in segments {
                let (start, end) = (offset.max(next), (offset + len).max(next));
                let (s, e) = (SeqNum(base) + start, SeqNum(base) + end);
                let mut gap_bytes = 0;
                reassembly.gaps(s, e, |a, b| {
                    assert!(a.before(b));
                    for i in a.since(SeqNum(base))..b.since(SeqNum(base)) {
                        assert!(!held[i as usize]);
                        gap_bytes += 1;
                    }
                    true
                });
                let missing = held[start as usize..end as usize].iter().filter(|h| !**h).count();
                prop_assert_eq!(gap_bytes, missing);
                prop_assert_eq!(reassembly.contains(s, e) || start == end, missing == 0);
                reassembly.insert(s, e);
                held[start as usize..end as usize].fill(true);
                let advanced = reassembly.advance(SeqNum(base) + next).since(SeqNum(base));
                while held[next as usize] {
                    next += 1;
                }
                prop_assert_eq!(advanced, next);
            }
        }
    }
}
