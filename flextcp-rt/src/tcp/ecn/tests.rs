//! ECN between two engines, over a wire that marks.

use std::time::Duration;

use flextcp_nic::wire::{SegmentRepr, TcpFlags};

use super::super::sim::Sim;
use super::super::{ConnId, Ecn};
use crate::options::SocketOptions;

const MS: Duration = Duration::from_millis(1);
const SYN: TcpFlags = TcpFlags::SYN;
const ECE: TcpFlags = TcpFlags::ECE;
const CWR: TcpFlags = TcpFlags::CWR;

fn sim(client: Ecn, server: Ecn) -> Sim {
    let mut sim = Sim::plain();
    sim.hosts[0].engine.config.ecn = client;
    sim.hosts[1].engine.config.ecn = server;
    sim.delay = 10 * MS;
    sim
}

fn agreed(sim: &mut Sim) -> bool {
    let (client, _) = sim.pair();
    sim.write(0, client, b"x");
    sim.run(100 * MS);
    let data = data(sim, 0);
    data[0].tos & 3 == 2
}

/// Data segments of one host.
fn data(sim: &Sim, host: usize) -> Vec<SegmentRepr> {
    sim.log
        .iter()
        .filter(|(by, _, len)| *by == host && *len > 0)
        .map(|(_, segment, _)| *segment)
        .collect()
}

fn connect_with(sim: &mut Sim, congestion: &'static str) -> (ConnId, ConnId) {
    let options = SocketOptions {
        congestion: Some(congestion),
        nodelay: true,
        ..SocketOptions::default()
    };
    sim.listen(16, options.clone());
    let client = sim.connect(40_000, options);
    sim.settle();
    (client, sim.hosts[1].accepted.pop_front().unwrap())
}

/// RFC 3168, section 6.1.1, and Linux's tcp_ecn.
#[test]
fn negotiated_when_one_asks_and_the_other_accepts() {
    assert!(agreed(&mut sim(Ecn::Request, Ecn::Accept)));
    assert!(agreed(&mut sim(Ecn::Request, Ecn::Request)));
    assert!(!agreed(&mut sim(Ecn::Request, Ecn::Off)));
    assert!(!agreed(&mut sim(Ecn::Accept, Ecn::Request)));
    assert!(
        !agreed(&mut sim(Ecn::Accept, Ecn::Accept)),
        "the default asks for nothing"
    );
}

/// RFC 3168, section 6.1.1: which flags say what; and 6.1.1.1: a SYN that is sent again does not ask.
#[test]
fn a_lost_syn_does_not_ask_again() {
    let mut sim = sim(Ecn::Request, Ecn::Accept);
    sim.cut[1] = true;
    sim.listen(16, SocketOptions::default());
    sim.connect(40_000, SocketOptions::default());
    sim.run(500 * MS);
    sim.cut[1] = false;
    sim.run(1000 * MS);
    let syns = sim.sent(0, SYN);
    assert!(syns[0].flags.contains(ECE | CWR) && !syns[1].flags.intersects(ECE | CWR));
    assert!(!sim.sent(1, SYN)[0].flags.intersects(ECE | CWR));
    let mut sim = self::sim(Ecn::Request, Ecn::Accept);
    sim.pair();
    let answer = sim.sent(1, SYN)[0];
    assert!(answer.flags.contains(ECE) && !answer.flags.contains(CWR));
}

/// RFC 3168, sections 6.1.2 and 6.1.3: echoed until CWR, one reduction for a window, and CWR on new data.
#[test]
fn marks_are_echoed_until_the_sender_slowed_down() {
    let mut sim = sim(Ecn::Request, Ecn::Accept);
    let (client, server) = sim.pair();
    sim.log.clear();
    sim.impairment.mark = 1000;
    sim.write(0, client, &[1; 5000]);
    sim.run(15 * MS);
    sim.impairment.mark = 0;
    sim.run(100 * MS);
    let info = sim.hosts[0].engine.info(sim.now, client).unwrap();
    assert_eq!(info.snd_ssthresh, 14_480 * 7 / 10);
    assert_eq!(info.snd_cwnd, info.snd_ssthresh);
    sim.read(1, server, 9000);
    sim.write(0, client, &[1; 5000]);
    sim.run(200 * MS);
    let sent = data(&sim, 0);
    let with_cwr: Vec<_> = sent.iter().filter(|s| s.flags.contains(CWR)).collect();
    assert_eq!(with_cwr.len(), 1, "once for the window");
    let acks = sim.sent(1, TcpFlags::ACK);
    assert!(acks[0].flags.contains(ECE));
    assert!(!acks.last().unwrap().flags.contains(ECE));
    let again = sim.hosts[0].engine.info(sim.now, client).unwrap();
    assert_eq!(again.snd_ssthresh, info.snd_ssthresh);
}

/// RFC 3168, sections 6.1.4 and 6.1.5: pure acknowledgments and retransmissions are not ECN-capable.
#[test]
fn only_new_data_is_capable() {
    let mut sim = sim(Ecn::Request, Ecn::Accept);
    let (client, _) = sim.pair();
    sim.write(0, client, &[1; 100]);
    sim.run(100 * MS);
    let seq = data(&sim, 0)[0].seq + 100;
    sim.drop_data(0, seq);
    sim.log.clear();
    sim.write(0, client, &[1; 14_000]);
    sim.run(400 * MS);
    let (first, again): (Vec<_>, Vec<_>) = {
        let sent = data(&sim, 0);
        let at = sent.iter().rposition(|s| s.seq == seq).unwrap();
        assert!(at > 0, "sent again");
        (sent[..at].to_vec(), vec![sent[at]])
    };
    assert!(first.iter().all(|s| s.tos & 3 == 2));
    assert_eq!(again[0].tos & 3, 0);
    assert!(sim.sent(1, TcpFlags::ACK).iter().all(|s| s.tos & 3 == 0));
}

/// RFC 8257, section 3.2: an acknowledgment at once when marks begin or end, with the old state for what came
/// before.
#[test]
fn dctcp_acknowledges_at_every_change_of_marks() {
    let mut sim = sim(Ecn::Accept, Ecn::Accept);
    let (client, _) = connect_with(&mut sim, "dctcp");
    // Past the acknowledgments at once of a fresh connection.
    for _ in 0..20 {
        sim.write(0, client, &[1; 500]);
        sim.run(100 * MS);
    }
    sim.log.clear();
    for mark in [0, 1000, 1000, 0] {
        sim.impairment.mark = mark;
        sim.write(0, client, &[1; 300]);
        sim.drive_all();
        sim.run(MS);
    }
    sim.impairment.mark = 0;
    sim.run(200 * MS);
    let seq = data(&sim, 0)[0].seq;
    let acks: Vec<_> = sim
        .sent(1, TcpFlags::ACK)
        .iter()
        .map(|s| (s.ack.since(seq), s.flags.contains(ECE)))
        .collect();
    // The unmarked 300 bytes, then the first mark; the second mark, then the end of marks.
    assert!(acks.contains(&(300, false)), "{acks:?}");
    assert!(acks.contains(&(600, true)), "{acks:?}");
    assert!(acks.contains(&(900, true)), "{acks:?}");
    assert!(acks.contains(&(1200, false)), "{acks:?}");
}

/// RFC 8257, section 3.3: a mild reduction for mild congestion, where CUBIC would lose three tenths each time.
#[test]
fn dctcp_keeps_more_of_its_window_under_light_marking() {
    let window = |congestion| {
        let mut sim = sim(Ecn::Request, Ecn::Accept);
        sim.keep_log = false;
        sim.delay = MS;
        let (client, server) = connect_with(&mut sim, congestion);
        sim.impairment.mark = 5;
        let mut sum = 0;
        for i in 0..400 {
            sim.write(0, client, &[1; 100_000]);
            sim.run(10 * MS);
            sim.read(1, server, 1 << 20);
            if i >= 200 {
                sum += sim.hosts[0].engine.info(sim.now, client).unwrap().snd_cwnd / 200;
            }
        }
        let counters = sim.hosts[0].engine.counters().recovery;
        assert_eq!(counters.retransmitted, 0, "{counters:?}");
        sum
    };
    let (dctcp, reno) = (window("dctcp"), window("reno"));
    assert!(dctcp > reno * 3 / 2, "{dctcp} {reno}");
}
