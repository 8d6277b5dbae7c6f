use proptest::prelude::*;

use super::*;
use crate::tcp::rack::Reordering;

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
    // What the timeout is of is lost, whenever it was sent.
    board.retransmitted(SeqNum(0), SeqNum(100), at(5050), Stamp::default());
    assert_eq!(board.mark_timed_out(at(5060), Reordering::default()), 200);
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
fn one_acknowledgment_of_many_segments_is_no_reordering() {
    let mut board = board(9);
    let mut delivered = Delivered::default();
    board.acknowledge(SeqNum(100), at(40), None, &mut delivered);
    let blocks = [(600, 900), (400, 500), (200, 300)];
    let blocks: SackBlocks = blocks
        .map(|(a, b)| (SeqNum(a), SeqNum(b)))
        .into_iter()
        .collect();
    let (una, nxt) = (SeqNum(100), SeqNum(900));
    board.selectively_acknowledge(&blocks, una, nxt, at(40), None, &mut delivered);
    assert_eq!(delivered.bytes(), 600);
    assert!(!board.rack.reordering_seen);
    sack(&mut board, &[(300, 500)], 900, at(41));
    assert!(board.rack.reordering_seen, "after what was sent later");
}

#[test]
fn what_the_nic_sent_is_lost_when_its_own_successors_are_late() {
    const MS: u32 = 1000;
    let mut board = Scoreboard::default();
    board.rack.reordering_seen = true;
    let nxt = SeqNum(10_000);
    let sent = at(1_000_000);
    board.restore(SeqNum(0), nxt, 100, sent, Duration::from_millis(20));
    let first = board.front().unwrap().at;
    assert_eq!(sent.saturating_since(first).as_micros(), 19_800);
    let reordering = Reordering {
        min_rtt: Some(Duration::from_millis(20)),
        srtt: Some(Duration::from_millis(40)),
        ..Reordering::default()
    };
    // They arrive half as fast as they are taken to have gone out: the window of 5 ms is over after 10.
    for millis in 0..=10 {
        let now = sent + Duration::from_micros((millis * MS).into());
        sack(&mut board, &[(100, 200 + 250 * millis)], 10_000, now);
        let (lost, _) = board.detect_losses(now, reordering);
        assert_eq!(lost, if millis < 10 { 0 } else { 100 }, "{millis}");
    }
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

#[test]
fn the_front_is_lost_once() {
    let mut board = board(3);
    assert_eq!(board.mark_front_lost(), 100);
    assert_eq!(board.mark_front_lost(), 0);
    assert_eq!(board.lost_bytes(), 100);
}
