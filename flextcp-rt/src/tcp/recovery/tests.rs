//! Recovery between two engines: probes, spurious timeouts, duplicates, limited transmit.

use std::cmp::Reverse;
use std::time::Duration;

use flextcp_nic::seq::SeqNum;
use flextcp_nic::wire::{SackBlocks, TcpFlags};

use super::super::sim::Sim;
use super::super::timer::Timer;
use super::super::{ConnId, TcpInfo};
use super::duplicate_report;

const MS: Duration = Duration::from_millis(1);
const MSS: u32 = 1448;

/// A connection with a warm round trip of 20 ms.
fn warm(sim: &mut Sim) -> (ConnId, ConnId) {
    warm_with(sim, 10 * MS)
}

fn warm_with(sim: &mut Sim, delay: Duration) -> (ConnId, ConnId) {
    sim.delay = delay;
    let (client, server) = sim.pair();
    for _ in 0..4 {
        sim.write(0, client, &[1; 2000]);
        sim.run(100 * MS);
        sim.read(1, server, 5000);
    }
    sim.log.clear();
    (client, server)
}

fn info(sim: &Sim, conn: ConnId) -> TcpInfo {
    sim.hosts[0].engine.info(sim.now, conn).unwrap()
}

/// Sequence numbers of the client's data segments, by first.
fn data(sim: &Sim) -> Vec<SeqNum> {
    sim.log
        .iter()
        .filter(|(by, _, len)| *by == 0 && *len > 0)
        .map(|(_, segment, _)| segment.seq)
        .collect()
}

/// Where the client's next byte goes.
fn next(sim: &mut Sim, client: ConnId) -> SeqNum {
    sim.write(0, client, &[7]);
    sim.run(100 * MS);
    let seq = *data(sim).last().unwrap() + 1;
    sim.log.clear();
    seq
}

fn write_segments(sim: &mut Sim, client: ConnId, n: u32) {
    let bytes = vec![9; (n * MSS) as usize];
    assert_eq!(sim.write(0, client, &bytes), bytes.len());
    sim.drive_all();
}

/// Delays what is on the wire, frame by frame in order: `extra` tells how much.
fn delay_each(sim: &mut Sim, mut extra: impl FnMut(u32, &[u8]) -> Duration) {
    let mut held: Vec<_> = std::mem::take(&mut sim.wire)
        .into_iter()
        .map(|entry| entry.0)
        .collect();
    held.sort();
    for (i, (at, serial, to, frame)) in held.into_iter().enumerate() {
        let at = at + extra(i as u32, &frame);
        sim.wire.push(Reverse((at, serial, to, frame)));
    }
}

/// RFC 8985, section 7.3 and 7.4: the tail is lost, the probe repairs it, and the window pays for it.
#[test]
fn tail_loss_is_repaired_by_a_probe_and_not_by_a_timeout() {
    let mut sim = Sim::plain();
    let (client, server) = warm(&mut sim);
    let seq = next(&mut sim, client);
    sim.drop_data(0, seq + 4 * MSS);
    sim.drop_data(0, seq + 3 * MSS);
    let start = sim.now;
    write_segments(&mut sim, client, 5);
    let done = sim.run_until(150 * MS, |sim| info(sim, client).unacked == 0);
    assert!(done, "{:?}", info(&sim, client));
    assert!(sim.now.saturating_since(start) < 120 * MS);
    let counters = sim.hosts[0].engine.counters().recovery;
    assert_eq!((counters.timeouts, counters.tail_probes), (0, 1));
    assert!(info(&sim, client).snd_ssthresh < u32::MAX / 2);
    assert_eq!(sim.read(1, server, 1 << 20).len() as u32, 5 * MSS + 1);
}

/// The probe itself filled the only hole (RFC 8985, section 7.4.2): a loss that nothing else shows.
#[test]
fn loss_that_the_probe_hides_still_costs_window() {
    let mut sim = Sim::plain();
    let (client, _) = warm(&mut sim);
    let seq = next(&mut sim, client);
    sim.drop_data(0, seq + 4 * MSS);
    write_segments(&mut sim, client, 5);
    sim.run(400 * MS);
    assert_eq!(info(&sim, client).unacked, 0);
    assert!(info(&sim, client).snd_ssthresh > 1 << 30, "not known yet");
    write_segments(&mut sim, client, 1);
    sim.run(400 * MS);
    assert!(info(&sim, client).snd_ssthresh < 1 << 20);
    assert_eq!(sim.hosts[0].engine.counters().recovery.timeouts, 0);
}

/// RFC 8985, section 7.4.1: the receiver had it all; its D-SACK says so.
#[test]
fn probe_reported_as_a_duplicate_costs_nothing() {
    let mut sim = Sim::plain();
    let (client, _) = warm(&mut sim);
    // The acknowledgments of a flight are lost.
    sim.cut[0] = true;
    write_segments(&mut sim, client, 5);
    sim.run(30 * MS);
    sim.cut[0] = false;
    sim.run(400 * MS);
    let counters = sim.hosts[0].engine.counters().recovery;
    assert_eq!((counters.tail_probes, counters.timeouts), (1, 0));
    write_segments(&mut sim, client, 1);
    sim.run(400 * MS);
    assert!(info(&sim, client).snd_ssthresh > 1 << 30);
}

/// New data is preferred as a probe (RFC 8985, section 7.3).
#[test]
fn probe_sends_new_data_when_there_is_some() {
    let mut sim = Sim::plain();
    let (client, _) = warm(&mut sim);
    let seq = next(&mut sim, client);
    let window = info(&sim, client).snd_cwnd.div_ceil(MSS);
    for i in 0..window {
        sim.drop_data(0, seq + i * MSS);
    }
    write_segments(&mut sim, client, window + 4);
    let done = sim.run_until(70 * MS, |sim| {
        sim.hosts[0].engine.counters().recovery.tail_probes > 0
    });
    assert!(done);
    let sent = data(&sim);
    assert!(
        !sent[..sent.len() - 1].contains(sent.last().unwrap()),
        "{sent:?}"
    );
}

/// A path that stalls for longer than an RTO, after a full window was sent.
fn stalled_path(timestamps: bool) -> (Sim, ConnId, TcpInfo) {
    let mut sim = Sim::plain();
    for host in &mut sim.hosts {
        host.engine.config.timestamps = timestamps;
    }
    let (client, server) = warm(&mut sim);
    let before = info(&sim, client);
    sim.stalled_until = sim.now + 700 * MS;
    write_segments(&mut sim, client, 40);
    let done = sim.run_until(3000 * MS, |sim| {
        sim.read(1, server, 1 << 20);
        info(sim, client).unacked == 0
    });
    assert!(done);
    (sim, client, before)
}

/// RFC 3522 and RFC 4015: the timestamp tells that the answer is to the first transmission.
#[test]
fn eifel_undoes_a_spurious_timeout() {
    let (sim, client, before) = stalled_path(true);
    let counters = sim.hosts[0].engine.counters().recovery;
    assert!(counters.timeouts > 0 && counters.undone > 0, "{counters:?}");
    let after = info(&sim, client);
    assert!(after.snd_ssthresh >= before.snd_ssthresh);
    assert!(after.snd_cwnd >= before.snd_cwnd, "{after:?}");
    assert!(after.total_retrans < 6, "{after:?}");
}

/// RFC 5682, section 3.1: without timestamps, new data tells.
#[test]
fn f_rto_undoes_a_spurious_timeout_without_timestamps() {
    let (sim, client, before) = stalled_path(false);
    let counters = sim.hosts[0].engine.counters().recovery;
    assert!(counters.timeouts > 0 && counters.undone > 0, "{counters:?}");
    assert!(info(&sim, client).snd_cwnd >= before.snd_cwnd);
    assert!(info(&sim, client).total_retrans < 6);
}

/// RFC 5682, section 3.1, step 3.a: a real timeout is repaired as one.
#[test]
fn f_rto_lets_a_true_timeout_be() {
    for timestamps in [false, true] {
        let mut sim = Sim::plain();
        for host in &mut sim.hosts {
            host.engine.config.timestamps = timestamps;
        }
        let (client, server) = warm(&mut sim);
        sim.cut[1] = true;
        write_segments(&mut sim, client, 30);
        let timeouts = |sim: &Sim| sim.hosts[0].engine.counters().recovery.timeouts;
        assert!(sim.run_until(2000 * MS, |sim| timeouts(sim) > 0));
        sim.cut[1] = false;
        let done = sim.run_until(3000 * MS, |sim| {
            sim.read(1, server, 1 << 20);
            info(sim, client).unacked == 0
        });
        assert!(done, "{:?}", info(&sim, client));
        let counters = sim.hosts[0].engine.counters().recovery;
        assert_eq!(counters.undone, 0);
        assert!(counters.timeouts <= 3, "{counters:?}");
    }
}

/// A timeout while only acknowledgments are delayed: reports of duplicates take the reduction back
/// (RFC 3708; RFC 2883, section 5.4).
#[test]
fn duplicates_undo_a_fast_recovery() {
    let mut sim = Sim::plain();
    for host in &mut sim.hosts {
        host.engine.config.timestamps = false;
    }
    let (client, server) = warm(&mut sim);
    let before = info(&sim, client);
    let seq = next(&mut sim, client);
    // One segment takes a detour of a round trip.
    write_segments(&mut sim, client, 10);
    delay_each(&mut sim, |_, frame| {
        if frame_seq(frame) == seq {
            25 * MS
        } else {
            Duration::ZERO
        }
    });
    sim.run(500 * MS);
    sim.read(1, server, 1 << 20);
    let counters = sim.hosts[0].engine.counters().recovery;
    assert_eq!(
        (counters.fast_recoveries, counters.undone),
        (1, 1),
        "{counters:?}"
    );
    assert!(info(&sim, client).snd_cwnd >= before.snd_cwnd);
}

fn frame_seq(frame: &[u8]) -> SeqNum {
    let tcp = &frame[34..];
    SeqNum(u32::from_be_bytes([tcp[4], tcp[5], tcp[6], tcp[7]]))
}

/// RFC 3042: the first two duplicates let new segments out.
#[test]
fn limited_transmit_sends_new_data_on_the_first_duplicates() {
    for sack in [true, false] {
        let mut sim = Sim::plain();
        for host in &mut sim.hosts {
            host.engine.config.sack = sack;
        }
        let (client, _) = warm_with(&mut sim, MS * 2 / 5);
        let seq = next(&mut sim, client);
        sim.drop_data(0, seq);
        let cwnd = info(&sim, client).snd_cwnd;
        write_segments(&mut sim, client, cwnd.div_ceil(MSS) + 10);
        delay_each(&mut sim, |i, _| MS / 100 * i);
        let full = data(&sim).len();
        let acks = |sim: &Sim| {
            sim.log
                .iter()
                .filter(|(by, s, len)| *by == 1 && *len == 0 && s.ack == seq)
                .count()
        };
        // The first duplicate acknowledgment has left the receiver and reached the sender.
        assert!(sim.run_until(30 * MS, |sim| data(sim).len() > full));
        assert!(acks(&sim) > 0);
        assert!(
            !data(&sim)[1..].contains(&seq),
            "nothing was sent again yet"
        );
    }
}

/// RFC 2883, section 4: the receiver reports what arrived twice, first in the option.
#[test]
fn receiver_reports_duplicates_first() {
    let mut sim = Sim::plain();
    let (client, _) = warm(&mut sim);
    sim.write(0, client, &[3; 500]);
    sim.run(100 * MS);
    let (_, segment, len) = *sim
        .log
        .iter()
        .rfind(|(by, _, len)| *by == 0 && *len > 0)
        .unwrap();
    sim.log.clear();
    sim.inject(1, &segment, &vec![3; len]);
    let answer = sim.sent(1, TcpFlags::ACK)[0];
    assert_eq!(
        answer.options.sack.iter().next(),
        Some((segment.seq, segment.seq + len as u32))
    );
    // Of a segment with something new no more than what is old.
    sim.log.clear();
    sim.inject(1, &segment, &vec![3; len + 100]);
    let answer = sim.sent(1, TcpFlags::ACK)[0];
    assert_eq!(answer.ack, segment.seq + len as u32 + 100);
    let duplicate = (segment.seq, segment.seq + len as u32);
    assert_eq!(answer.options.sack.iter().next(), Some(duplicate));
}

/// RFC 2883, section 4: a duplicate lies below the acknowledgment, or within the block that follows it.
#[test]
fn a_first_block_is_a_duplicate_by_where_it_lies() {
    let report = |blocks: &[(u32, u32)]| {
        let mut option = SackBlocks::default();
        for &(left, right) in blocks {
            assert!(option.push(SeqNum(left), SeqNum(right)));
        }
        duplicate_report(&option, SeqNum(1000)).is_some()
    };
    assert!(report(&[(500, 1000)]));
    assert!(report(&[(500, 900), (2000, 3000)]));
    assert!(report(&[(2000, 2500), (2000, 3000)]));
    assert!(report(&[(2500, 3000), (2000, 3000)]));
    assert!(!report(&[(500, 1001)]));
    assert!(!report(&[(2000, 3000), (2500, 3000)]));
    assert!(!report(&[(4000, 5000), (2000, 3000)]));
    assert!(!report(&[(2000, 3000)]));
    assert!(!report(&[]));
}

/// A second loss of the front is found by what is sent after it, so the timeout begins anew.
#[test]
fn a_retransmission_of_the_front_puts_the_timeout_off() {
    let mut sim = Sim::plain();
    let (client, _) = warm(&mut sim);
    let front = next(&mut sim, client);
    sim.drop_data(0, front);
    write_segments(&mut sim, client, 10);
    assert!(sim.run_until(200 * MS, |sim| info(sim, client).total_retrans > 0));
    let conn = sim.hosts[0].engine.conns.get(client).unwrap();
    let due = conn.timers.get(Timer::Retransmit);
    assert_eq!(due, Some(sim.now + conn.rto()));
}

/// RACK (RFC 8985, section 6.2): a path that reorders for long is borne with, once duplicates told of it.
#[test]
fn reordering_window_adapts_to_the_path() {
    let mut sim = Sim::plain();
    let (client, server) = warm(&mut sim);
    sim.impairment.reorder = 150;
    sim.rng = super::super::sim::Rng(7);
    let mut retransmitted = Vec::new();
    let mut before = 0;
    for _ in 0..12 {
        for _ in 0..20 {
            write_segments(&mut sim, client, 10);
            sim.run(60 * MS);
            sim.read(1, server, 1 << 20);
        }
        let total = info(&sim, client).total_retrans;
        retransmitted.push(total - before);
        before = total;
    }
    let late: u64 = retransmitted[8..].iter().sum();
    assert!(late <= 4, "{retransmitted:?}");
}

/// RFC 6582, section 3.2: without SACK, too, what one flight lost is one episode. Partial acknowledgments repair it, and only
/// the next flight's loss costs the window again.
#[test]
fn the_losses_of_one_flight_cost_one_reduction_without_sack() {
    let mut sim = Sim::plain();
    for host in &mut sim.hosts {
        host.engine.config.sack = false;
    }
    let (client, server) = warm(&mut sim);
    let mut threshold = f64::from(info(&sim, client).snd_cwnd);
    for (episodes, lost) in [(1, &[0, 3, 5][..]), (2, &[1])] {
        let seq = next(&mut sim, client);
        for segment in lost {
            sim.drop_data(0, seq + segment * MSS);
        }
        write_segments(&mut sim, client, 10);
        let done = sim.run_until(1000 * MS, |sim| info(sim, client).unacked == 0);
        sim.run(100 * MS);
        sim.read(1, server, 1 << 20);
        let counters = sim.hosts[0].engine.counters().recovery;
        assert!(done, "{counters:?}");
        assert_eq!(counters.fast_recoveries, episodes, "{counters:?}");
        assert_eq!((counters.timeouts, counters.undone), (0, 0), "{counters:?}");
        let now = f64::from(info(&sim, client).snd_ssthresh);
        assert!(
            now < threshold && now > threshold * 0.6,
            "{now} of {threshold}"
        );
        threshold = now;
    }
}

/// RFC 6937, section 3: while a flight with a loss is acknowledged, what goes out keeps the proportion of the new window to the
/// old: neither a burst nor half a round trip of silence.
#[test]
fn a_recovery_sends_in_proportion_to_what_arrives() {
    let mut sim = Sim::plain();
    let (client, server) = warm(&mut sim);
    for _ in 0..3 {
        write_segments(&mut sim, client, 40);
        sim.run(200 * MS);
        sim.read(1, server, 1 << 20);
    }
    let seq = next(&mut sim, client);
    sim.drop_data(0, seq);
    let flight = info(&sim, client).snd_cwnd / MSS;
    assert!(flight >= 30, "{flight}");
    write_segments(&mut sim, client, 3 * flight);
    assert!(sim.run_until(200 * MS, |sim| is_recovering(sim, client)));
    let before = data(&sim).len();
    let mut acked = 0;
    let done = sim.run_until(200 * MS, |sim| {
        let conn = sim.hosts[0].engine.conns.get(client).unwrap();
        let (recovery, ssthresh) = (&conn.recovery, conn.congestion.window.ssthresh);
        if recovery.phase == super::Phase::Recovery && conn.in_flight() > ssthresh {
            acked = acked.max(recovery.prr_delivered / MSS);
            let due = u64::from(recovery.prr_delivered) * u64::from(ssthresh)
                / u64::from(recovery.recover_flight);
            let behind = due.saturating_sub(u64::from(recovery.prr_out));
            assert!(behind <= u64::from(2 * MSS), "{behind} bytes too few");
        }
        !is_recovering(sim, client)
    });
    assert!(done && acked > flight / 5, "{acked} of {flight}");
    let sent = (data(&sim).len() - before) as f64 / f64::from(flight);
    assert!(
        (0.55..0.85).contains(&sent),
        "{sent} of a flight of {flight}"
    );
    let after = info(&sim, client);
    assert!(after.snd_cwnd <= after.snd_ssthresh + 2 * MSS, "{after:?}");
    assert!(after.snd_cwnd >= after.snd_ssthresh / 2, "{after:?}");
}

fn is_recovering(sim: &Sim, client: ConnId) -> bool {
    let conn = sim.hosts[0].engine.conns.get(client).unwrap();
    conn.recovery.phase == super::Phase::Recovery
}
