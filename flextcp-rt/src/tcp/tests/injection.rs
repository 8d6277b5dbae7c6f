//! Segments from a stranger who guesses (RFC 5961, RFC 7323), and from a peer that is confused.

use flextcp_nic::seq::SeqNum;
use flextcp_nic::wire::{SegmentRepr, Timestamps};

use super::*;

/// A connection with some data behind it, and the client's next segment as a stranger would imitate it.
fn victim() -> (Sim, ConnId, ConnId, SegmentRepr) {
    let mut sim = Sim::plain();
    let (client, server) = sim.pair();
    sim.write(0, client, &pattern(0, 5000));
    sim.write(1, server, &pattern(0, 5000));
    sim.settle();
    sim.read(1, server, 5000);
    sim.read(0, client, 5000);
    sim.settle();
    let mut segment = sim.sent(0, TcpFlags::ACK).pop().unwrap();
    let conn = sim.hosts[1].engine.conns.get(server).unwrap();
    segment.seq = conn.rcv.nxt;
    segment.ack = conn.snd.nxt;
    segment.options.sack = Default::default();
    sim.log.clear();
    (sim, client, server, segment)
}

fn state_of(sim: &Sim, server: ConnId) -> (State, SeqNum, SeqNum, SeqNum, u32, u32) {
    let conn = sim.hosts[1].engine.conns.get(server).unwrap();
    (
        conn.state,
        conn.rcv.nxt,
        conn.snd.una,
        conn.snd.nxt,
        conn.snd.wnd,
        conn.rcv.ts_recent,
    )
}

#[test]
fn only_the_exact_reset_ends_a_connection() {
    let (mut sim, _, server, mut segment) = victim();
    segment.flags = TcpFlags::RST;
    let before = state_of(&sim, server);
    let exact = segment.seq;
    for offset in [1, 100, 60_000] {
        segment.seq = exact + offset;
        sim.inject(1, &segment, &[]);
    }
    // Outside the window it is not even challenged.
    for seq in [exact - 1, exact - 50_000, exact + 10_000_000] {
        segment.seq = seq;
        sim.inject(1, &segment, &[]);
    }
    assert_eq!(state_of(&sim, server), before);
    assert_eq!(
        sim.sent(1, TcpFlags::ACK).len(),
        1,
        "one challenge, then the limit"
    );
    let defence = sim.hosts[1].engine.counters().defence;
    assert_eq!((defence.challenge_acks, defence.acks_held_back), (1, 2));
    segment.seq = exact;
    sim.inject(1, &segment, &[]);
    assert_eq!(sim.hosts[1].failed, [(server, ConnError::Reset)]);
}

/// As Linux: its sender may not know that something is missing before it.
#[test]
fn a_reset_at_the_end_of_what_arrived_is_believed() {
    let (mut sim, _, server, mut segment) = victim();
    segment.seq += 1000;
    sim.inject(1, &segment, &[1; 100]);
    segment.flags = TcpFlags::RST;
    sim.inject(1, &segment, &[]);
    assert!(sim.hosts[1].failed.is_empty());
    segment.seq += 100;
    sim.inject(1, &segment, &[]);
    assert_eq!(sim.hosts[1].failed, [(server, ConnError::Reset)]);
}

#[test]
fn a_reset_is_not_subject_to_paws() {
    let (mut sim, _, server, mut segment) = victim();
    segment.flags = TcpFlags::RST;
    segment.options.timestamps = Some(Timestamps { val: 1, ecr: 0 });
    let conn = sim.hosts[1].engine.conns.get_mut(server).unwrap();
    conn.rcv.ts_recent = 1_000_000;
    sim.inject(1, &segment, &[]);
    assert_eq!(sim.hosts[1].failed, [(server, ConnError::Reset)]);
}

#[test]
fn a_syn_on_a_connection_is_challenged_wherever_it_lies() {
    let (mut sim, _, server, mut segment) = victim();
    segment.flags = TcpFlags::SYN;
    let before = state_of(&sim, server);
    let next = segment.seq;
    for seq in [next, next + 1000, next - 1_000_000, next + 100_000_000] {
        segment.seq = seq;
        sim.log.clear();
        sim.inject(1, &segment, &[]);
        let answers = sim.sent(1, TcpFlags::ACK);
        assert_eq!(answers.len(), 1);
        assert_eq!((answers[0].seq, answers[0].ack), (before.3, before.1));
        sim.run(SECOND);
        assert_eq!(state_of(&sim, server), before);
    }
    assert_eq!(sim.hosts[1].engine.counters().defence.challenge_acks, 4);
}

/// RFC 5961, section 7: the limit of all connections holds for each.
#[test]
fn no_challenge_goes_beyond_the_limit_of_all() {
    let (mut sim, _, _, mut segment) = victim();
    sim.hosts[1].engine.config.challenge_limit = 0;
    segment.flags = TcpFlags::SYN;
    sim.inject(1, &segment, &[]);
    assert!(sim.sent(1, TcpFlags::ACK).is_empty());
    let defence = sim.hosts[1].engine.counters().defence;
    assert_eq!((defence.challenge_acks, defence.acks_held_back), (0, 1));
}

#[test]
fn data_with_an_impossible_acknowledgment_is_challenged_and_dropped() {
    let (mut sim, _, server, mut segment) = victim();
    let before = state_of(&sim, server);
    let una = segment.ack;
    for ack in [una + 1, una + 70_000, una - 100_000, una + (1 << 30)] {
        segment.ack = ack;
        sim.log.clear();
        sim.inject(1, &segment, b"injected");
        assert_eq!(sim.sent(1, TcpFlags::ACK).len(), 1);
        sim.run(SECOND);
        assert_eq!(state_of(&sim, server), before);
    }
    assert!(sim.read(1, server, 100).is_empty());
    // Older than the first byte, though within the largest window.
    segment.ack = una - 6_000;
    sim.inject(1, &segment, b"injected");
    assert!(sim.read(1, server, 100).is_empty());
}

#[test]
fn data_outside_the_window_changes_nothing() {
    let (mut sim, _, server, mut segment) = victim();
    let before = state_of(&sim, server);
    let next = segment.seq;
    for seq in [next - 5000, next - 100, next + 10_000_000, next + (1 << 31)] {
        segment.seq = seq;
        sim.inject(1, &segment, b"injected");
    }
    assert_eq!(state_of(&sim, server), before);
    assert!(sim.read(1, server, 100).is_empty());
    assert_eq!(sim.sent(1, TcpFlags::ACK).len(), 4, "data is answered");
}

#[test]
fn an_old_timestamp_is_refused_but_zero_means_nothing() {
    let (mut sim, _, server, mut segment) = victim();
    let recent = state_of(&sim, server).5;
    segment.options.timestamps = Some(Timestamps {
        val: recent - 1,
        ecr: 0,
    });
    sim.inject(1, &segment, b"old");
    assert!(sim.read(1, server, 9).is_empty());
    assert_eq!(state_of(&sim, server).5, recent);
    assert_eq!(sim.sent(1, TcpFlags::ACK).len(), 1, "data is answered");

    let conn = sim.hosts[1].engine.conns.get_mut(server).unwrap();
    conn.rcv.ts_recent = 0;
    segment.options.timestamps = Some(Timestamps {
        val: u32::MAX - 5,
        ecr: 0,
    });
    sim.inject(1, &segment, b"taken");
    assert_eq!(sim.read(1, server, 9), b"taken");

    // Without timestamps on a connection that has them: taken too, as in Linux.
    segment.seq += 5;
    segment.options.timestamps = None;
    sim.inject(1, &segment, b"bare");
    assert_eq!(sim.read(1, server, 9), b"bare");
}

#[test]
fn a_timestamp_from_before_24_days_is_void() {
    let (mut sim, _, server, mut segment) = victim();
    let recent = state_of(&sim, server).5;
    segment.options.timestamps = Some(Timestamps {
        val: recent - 1000,
        ecr: 0,
    });
    sim.now += Duration::from_secs(25 * 24 * 3600);
    sim.inject(1, &segment, b"after a month");
    assert_eq!(sim.read(1, server, 99), b"after a month");
    assert_eq!(state_of(&sim, server).5, recent - 1000);
}

#[test]
fn an_overtaken_duplicate_ack_still_counts() {
    let (mut sim, _, server, mut segment) = victim();
    sim.cut[0] = true;
    sim.write(1, server, &pattern(0, 6000));
    sim.drive_all();
    let recent = state_of(&sim, server).5;
    segment.ack = state_of(&sim, server).2;
    segment.options.timestamps = Some(Timestamps {
        val: recent - 20,
        ecr: 0,
    });
    let before = sim.hosts[1].engine.counters().unacceptable;
    sim.inject(1, &segment, &[]);
    assert_eq!(sim.hosts[1].engine.counters().unacceptable, before);
    segment.options.timestamps = Some(Timestamps {
        val: recent - 20_000,
        ecr: 0,
    });
    sim.inject(1, &segment, &[]);
    assert_eq!(sim.hosts[1].engine.counters().unacceptable, before + 1);
    assert_eq!(
        state_of(&sim, server).5,
        recent,
        "TS.Recent never goes back"
    );
}

#[test]
fn acks_of_acks_do_not_go_on_for_ever() {
    let (mut sim, client, server, _) = victim();
    // Each side thinks the other is somewhere else: every ACK is unacceptable to its receiver.
    sim.hosts[0].engine.conns.get_mut(client).unwrap().snd.nxt += 10_000_000;
    sim.hosts[1].engine.conns.get_mut(server).unwrap().snd.nxt += 10_000_000;
    for host in 0..2 {
        let id = [client, server][host];
        sim.hosts[host]
            .engine
            .conns
            .get_mut(id)
            .unwrap()
            .rcv
            .ack
            .now = 1;
        sim.hosts[host].engine.settle(sim.now, id);
    }
    sim.run(10 * SECOND);
    let acks = sim.log.len();
    assert!(acks <= 2 + 2 * 20, "{acks} ACKs in ten seconds");
    assert!(acks >= 3, "{acks}");
}

#[test]
fn a_flood_of_unacceptable_segments_gets_two_answers_a_second() {
    let (mut sim, _, server, mut segment) = victim();
    segment.seq = segment.seq - 100_000;
    for _ in 0..1000 {
        sim.inject(1, &segment, &[]);
        sim.now += Duration::from_millis(1);
    }
    // What is held back does not put off the next.
    assert!((2..=3).contains(&sim.sent(1, TcpFlags::ACK).len()));
    let counters = sim.hosts[1].engine.counters();
    assert_eq!(counters.unacceptable, 1000);
    assert!(counters.defence.acks_held_back > 990);
    assert_eq!(sim.state(1, server), State::Established);
}

#[test]
fn urgent_data_stays_in_line() {
    let (mut sim, _, server, mut segment) = victim();
    segment.flags = TcpFlags::ACK | TcpFlags::URG;
    segment.urgent = 3;
    sim.inject(1, &segment, b"abcdef");
    assert_eq!(sim.read(1, server, 99), b"abcdef");
    // A pointer to nowhere is as good as any.
    segment.seq += 6;
    segment.urgent = u16::MAX;
    sim.inject(1, &segment, b"ghi");
    assert_eq!(sim.read(1, server, 99), b"ghi");
    segment.seq += 3;
    sim.inject(1, &segment, &[]);
    segment.flags = TcpFlags::ACK;
    sim.inject(1, &segment, b"jkl");
    assert_eq!(sim.read(1, server, 99), b"jkl");
}

#[test]
fn a_reset_that_forgot_the_fin_is_believed() {
    let (mut sim, client, server, _) = victim();
    sim.shutdown(0, client);
    sim.settle();
    assert_eq!(sim.state(1, server), State::CloseWait);
    let mut rst = sim.sent(0, TcpFlags::FIN)[0];
    rst.flags = TcpFlags::RST;
    sim.inject(1, &rst, &[]);
    assert_eq!(sim.hosts[1].failed, [(server, ConnError::BrokenPipe)]);
}

#[test]
fn another_syn_in_syn_received_is_told_where_we_are() {
    let mut sim = Sim::plain();
    sim.listen(4, SocketOptions::default());
    sim.connect(40_000, SocketOptions::default());
    sim.drive_all();
    let mut syn = sim.sent(0, TcpFlags::SYN)[0];
    sim.cut[0] = true;
    sim.settle();
    sim.log.clear();
    // The client died and tries again from the same port: our ACK makes it reset the old attempt.
    syn.seq += 5_000_000;
    sim.inject(1, &syn, &[]);
    let ack = sim.sent(1, TcpFlags::ACK)[0];
    assert_eq!(ack.flags, TcpFlags::ACK);
    sim.inject(1, &syn, &[]);
    assert_eq!(
        sim.sent(1, TcpFlags::ACK).len(),
        1,
        "not more than twice a second"
    );
    let mut rst = syn;
    rst.flags = TcpFlags::RST;
    rst.seq = ack.ack;
    sim.inject(1, &rst, &[]);
    assert_eq!(sim.hosts[1].engine.half_open.len(), 0);
}

#[test]
fn time_wait_gives_way_to_a_larger_number_and_to_nothing_else() {
    let mut sim = Sim::plain();
    sim.hosts[0].engine.config.timestamps = false;
    let (client, server) = sim.pair();
    sim.close_both(client, server);
    let waiting = |sim: &Sim| sim.hosts[1].engine.time_wait.len();
    assert_eq!(waiting(&sim), 1);
    let mut segment = sim.sent(0, TcpFlags::FIN)[0];
    let next = segment.seq + 1;
    sim.run(SECOND);
    sim.log.clear();
    // The host that has forgotten would answer with what ends it.
    sim.cut = [true, true];
    // The FIN again: acknowledged again, and the wait begins anew.
    sim.inject(1, &segment, &[]);
    assert_eq!(sim.sent(1, TcpFlags::ACK).len(), 1);
    // Only the exact number would end it. An old SYN is answered with where we are.
    segment.flags = TcpFlags::RST;
    for seq in [next - 1, next + 1] {
        segment.seq = seq;
        sim.inject(1, &segment, &[]);
    }
    segment.flags = TcpFlags::SYN;
    segment.seq = next - 100_000;
    sim.run(SECOND);
    sim.inject(1, &segment, &[]);
    assert_eq!(waiting(&sim), 1);
    assert_eq!(sim.sent(1, TcpFlags::ACK).len(), 2);
    assert_eq!(sim.sent(1, TcpFlags::SYN).len(), 0);
    segment.seq = next + 1;
    sim.inject(1, &segment, &[]);
    assert_eq!(waiting(&sim), 0);
    // Beyond all that the old connection could have sent.
    let answer = sim.sent(1, TcpFlags::SYN)[0];
    assert_eq!(answer.ack, segment.seq + 1);
    assert!(answer.seq.after(segment.ack + 65_535));
}

#[test]
fn a_new_connection_gets_past_time_wait_at_a_port_whose_listener_is_gone() {
    let mut sim = Sim::plain();
    let listener = sim.listen(16, SocketOptions::default());
    let client = sim.connect(40_000, SocketOptions::default());
    sim.settle();
    let server = sim.hosts[1].accepted.pop_front().unwrap();
    sim.close_both(client, server);
    let now = sim.now;
    sim.hosts[1].engine.close_listener(now, listener);
    sim.run(SECOND);
    sim.log.clear();
    // The peer answers our ACK with the RST that ends it. Its next SYN is no longer TIME_WAIT's: here it is refused, beside
    // a successor it is not ours.
    let again = sim.connect(40_000, SocketOptions::default());
    sim.settle();
    assert_eq!(sim.sent(1, TcpFlags::ACK).len(), 1);
    assert_eq!(sim.sent(0, TcpFlags::RST).len(), 1);
    assert_eq!(sim.hosts[1].engine.time_wait.len(), 0);
    assert_eq!(sim.state(0, again), State::SynSent);
    sim.run(SECOND);
    assert_eq!(sim.sent(0, TcpFlags::SYN).len(), 2);
    assert_eq!(sim.sent(1, TcpFlags::RST).len(), 1);
}

#[test]
fn a_reset_with_the_exact_number_ends_time_wait_as_on_linux() {
    let mut sim = Sim::plain();
    let (client, server) = sim.pair();
    sim.close_both(client, server);
    let mut segment = sim.sent(0, TcpFlags::FIN)[0];
    segment.flags = TcpFlags::RST;
    segment.seq += 1;
    assert_eq!(sim.hosts[1].engine.time_wait.len(), 1);
    sim.inject(1, &segment, &[]);
    assert_eq!(sim.hosts[1].engine.time_wait.len(), 0);
}

#[test]
fn an_unreachable_host_ends_an_attempt_and_explains_a_timeout() {
    use flextcp_nic::wire::{IcmpError, IcmpErrorKind, Unreachable};
    let unreachable = |sim: &mut Sim, id: ConnId, hard: bool| {
        let conn = sim.hosts[0].engine.conns.get(id).unwrap();
        let error = IcmpError {
            tuple: conn.tuple,
            seq: conn.snd.una,
            kind: IcmpErrorKind::Unreachable {
                reason: Unreachable::Host,
                hard,
            },
        };
        sim.hosts[0].engine.on_icmp(sim.now, &error);
        sim.drive_all();
    };
    let (mut sim, client, _, _) = victim();
    sim.cut = [true, true];
    sim.write(0, client, b"anybody?");
    sim.drive_all();
    for hard in [false, true] {
        unreachable(&mut sim, client, hard);
        assert_eq!(sim.state(0, client), State::Established);
    }
    let attempt = sim.connect(50_000, SocketOptions::default());
    sim.drive_all();
    unreachable(&mut sim, attempt, false);
    assert_eq!(sim.state(0, attempt), State::SynSent);
    unreachable(&mut sim, attempt, true);
    assert_eq!(sim.hosts[0].failed, [(attempt, ConnError::HostUnreachable)]);
    sim.run(1200 * SECOND);
    assert_eq!(sim.hosts[0].failed[1], (client, ConnError::HostUnreachable));
}

/// RFC 7323, section 4.3: only what spans Last.ACK.sent sets TS.Recent.
#[test]
fn a_timestamp_beyond_a_hole_is_not_remembered() {
    let (mut sim, _, server, mut segment) = victim();
    let recent = state_of(&sim, server).5;
    segment.options.timestamps = Some(Timestamps {
        val: recent + 50,
        ecr: 0,
    });
    segment.seq += 100;
    sim.inject(1, &segment, b"later");
    assert_eq!(state_of(&sim, server).5, recent);
    segment.seq = segment.seq - 100;
    sim.inject(1, &segment, &[0; 100]);
    assert_eq!(state_of(&sim, server).5, recent + 50);
    assert_eq!(sim.read(1, server, 200).len(), 105);
}
