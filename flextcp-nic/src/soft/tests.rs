//! Two software NICs joined by a memory wire.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use super::*;
use crate::buffer::{Pool, RecvReader, SendWriter, recv_ring, send_ring};
use crate::nic::{Exception, Notification, Reason};
use crate::port::TxOffload;
use crate::port::memory::{MemoryConfig, MemoryPort};
use crate::seq::{Mss, SeqNum, WindowScale};
use crate::steer::SteerAll;
use crate::wire::{MAX_HEADER_LEN, MacAddr, SegmentRepr, TcpFlags, TcpOptions};

#[derive(Debug, Default)]
struct Log {
    notifications: Vec<Notification>,
    exceptions: Vec<(Reason, bool)>,
    returned: usize,
}

impl Sink for Log {
    fn notification(&mut self, notification: Notification) {
        self.notifications.push(notification);
    }

    fn exception(&mut self, exception: Exception<'_>) {
        self.exceptions
            .push((exception.reason, exception.returned.is_some()));
    }

    fn returned(&mut self, _: Returned) {
        self.returned += 1;
    }
}

struct End {
    nic: SoftNic,
    id: FlowId,
    recv: RecvReader,
    send: SendWriter,
    log: Log,
}

struct Setup {
    mss: u16,
    flags: u32,
    cwnd: u32,
    pacing_rate: u32,
    v6: bool,
    port: MemoryConfig,
}

impl Default for Setup {
    fn default() -> Self {
        Self {
            mss: 1448,
            flags: flags::TIMESTAMPS | flags::NO_DELAY,
            cwnd: 100_000,
            pacing_rate: 0,
            v6: false,
            port: MemoryConfig::default(),
        }
    }
}

fn address(v6: bool, n: u8) -> IpAddr {
    if v6 {
        Ipv6Addr::from_bits(0xfd << 120 | u128::from(n)).into()
    } else {
        Ipv4Addr::new(10, 0, 0, n).into()
    }
}

/// Both ends of an established connection, carried by two NICs.
fn connected(setup: &Setup) -> [End; 2] {
    let (a, b) = MemoryPort::pair(setup.port.clone(), setup.port.clone()).unwrap();
    let pool = Pool::new(256 << 20);
    let tuple = FlowTuple {
        local: (address(setup.v6, 1), 1000),
        remote: (address(setup.v6, 2), 2000),
    };
    let sequence = [SeqNum(u32::MAX - 10_000), SeqNum(77)];
    let end = |port: MemoryPort, tuple: FlowTuple, own: SeqNum, peer: SeqNum| {
        let mut state = FlowState {
            flags: setup.flags,
            cwnd: setup.cwnd,
            pacing_rate: setup.pacing_rate,
            snd_wnd: 65536,
            rcv_free: 65536,
            ..FlowState::default()
        };
        state.set_tuple(&tuple);
        state.set_ttl_tos(64, 0);
        state.set_mss_scales(
            Mss::new(setup.mss),
            WindowScale::new(7),
            WindowScale::new(7),
        );
        state.set_snd_una(own);
        state.set_snd_nxt(own);
        state.set_snd_end(own);
        state.set_rcv_nxt(peer);
        state.set_last_ack_sent(peer);
        state.set_rcv_adv(peer + 65536);
        let (writer, recv) = recv_ring(&pool);
        let (send, reader) = send_ring(&pool, 1 << 20);
        let mut nic = SoftNic::new(
            Box::new(port),
            Box::new(SteerAll::new()),
            SoftConfig::new([1; 16]),
        );
        let buffers = FlowBuffers {
            recv: writer,
            send: reader,
        };
        let id = nic
            .install(Instant::ZERO, Token(9), state, buffers)
            .unwrap();
        End {
            nic,
            id,
            recv,
            send,
            log: Log::default(),
        }
    };
    [
        end(a, tuple, sequence[0], sequence[1]),
        end(b, tuple.reversed(), sequence[1], sequence[0]),
    ]
}

/// Moves `total` bytes both ways, checking every byte; returns the virtual time it took.
fn transfer(setup: &Setup, total: u64) -> (Instant, [End; 2]) {
    let mut ends = connected(setup);
    let mut now = Instant::ZERO;
    let (mut written, mut read) = ([0_u64; 2], [0_u64; 2]);
    let pattern: Vec<u8> = (0..251_u8).cycle().take(251 * 300).collect();
    for round in 0.. {
        assert!(
            round < 1_000_000,
            "no progress: {written:?} {read:?} {:?}",
            ends[0].nic.progress(ends[0].id)
        );
        for (i, end) in ends.iter_mut().enumerate() {
            end.nic.poll(now, 64, &mut end.log).unwrap();
            let mut out = [0; 30_000];
            let n = end.recv.read(&mut out);
            let start = (read[i] % 251) as usize;
            assert_eq!(out[..n], pattern[start..start + n]);
            read[i] += n as u64;
            let left = (total - written[i]).min(40_000) as usize;
            let start = (written[i] % 251) as usize;
            written[i] += end.send.write(&pattern[start..start + left]) as u64;
            end.nic.doorbell(now, end.id).unwrap();
            end.nic.flush(now).unwrap();
        }
        if read == [total; 2] {
            break;
        }
        now += Duration::from_micros(10);
    }
    for end in &ends {
        assert_eq!(end.log.exceptions, []);
        assert_eq!(
            end.log
                .notifications
                .iter()
                .map(|n| u64::from(n.received))
                .sum::<u64>(),
            total
        );
    }
    (now, ends)
}

#[test]
fn a_megabyte_each_way() {
    for v6 in [false, true] {
        for flags in [0, flags::TIMESTAMPS, flags::NO_DELAY | flags::ECN] {
            transfer(
                &Setup {
                    v6,
                    flags,
                    ..Setup::default()
                },
                1 << 20,
            );
        }
    }
}

#[test]
fn super_frames_over_offload_ports() {
    let port = MemoryConfig {
        mtu: 65535,
        tx_checksum: true,
        tx_segment_max: Some(65535),
        fragment: std::num::NonZeroUsize::new(4096),
        ..MemoryConfig::default()
    };
    let (_, ends) = transfer(
        &Setup {
            port,
            ..Setup::default()
        },
        4 << 20,
    );
    let counters = ends[0].nic.counters();
    assert!(
        counters.fast.bytes_out / counters.fast.frames_out > 3000,
        "{counters:?}"
    );
}

#[test]
fn pacing_keeps_the_rate() {
    let setup = Setup {
        pacing_rate: 10_000,
        ..Setup::default()
    };
    let (took, _) = transfer(&setup, 500_000);
    let millis = took.as_millis();
    assert!(
        (48..=60).contains(&millis),
        "500 kB at 10 kB/ms took {millis} ms"
    );
}

#[test]
fn idle_rings_give_their_memory_back() {
    let (mut now, mut ends) = transfer(&Setup::default(), 10_000);
    let [a, b] = &mut ends;
    for _ in 0..10 {
        for end in [&mut *a, &mut *b] {
            now += Duration::from_secs(1);
            end.nic.poll(now, 64, &mut end.log).unwrap();
            end.nic.flush(now).unwrap();
        }
    }
    for end in ends {
        let Claim::Done(returned) = end.nic_claim() else {
            panic!("the software NIC claims at once")
        };
        assert_eq!(
            (
                returned.buffers.recv.capacity(),
                returned.buffers.recv.pool().used()
            ),
            (0, 0)
        );
        assert!(returned.state.rcv_free >= 65536);
    }
}

impl End {
    fn nic_claim(mut self) -> Claim {
        self.nic.claim(Instant::ZERO, self.id).unwrap()
    }
}

/// Sends `frame` past the flows of `nic`.
fn send_raw(nic: &mut SoftNic, frame: &[u8]) {
    let frame = TxFrame {
        header: frame,
        payload: [&[], &[]],
        offload: TxOffload::default(),
    };
    nic.transmit(Instant::ZERO, frame).unwrap();
    nic.flush(Instant::ZERO).unwrap();
}

fn segment(tuple: FlowTuple, seq: SeqNum, ack: SeqNum, flags: TcpFlags, payload: &[u8]) -> Vec<u8> {
    let segment = SegmentRepr {
        src_mac: MacAddr::default(),
        dst_mac: MacAddr::default(),
        tuple,
        tos: 0,
        ttl: 64,
        seq,
        ack,
        flags,
        window: 1000,
        urgent: 0,
        options: TcpOptions::default(),
    };
    let mut header = [0; MAX_HEADER_LEN];
    let len = segment.emit([payload, &[]], false, &mut header);
    [&header[..len], payload].concat()
}

/// Which segments of no flow reach the host.
#[test]
fn a_filter_guards_listeners_and_spares_what_this_host_began() {
    let [mut ours, mut peer] = connected(&Setup::default());
    let rules = ["allow 10.0.0.2 port 80", "deny any"].map(|rule| rule.parse().unwrap());
    ours.nic.set_filter(Filter::new(rules.to_vec()));
    let local = |port| SocketAddr::new(address(false, 1), port);
    let any = |port| SocketAddr::new(Ipv4Addr::UNSPECIFIED.into(), port);
    let mut let_in = |nic: &mut SoftNic, port: u16| {
        let tuple = FlowTuple::new(SocketAddr::new(address(false, 2), 4000), local(port));
        let syn = segment(tuple, SeqNum(1), SeqNum(0), TcpFlags::SYN, b"");
        send_raw(&mut peer.nic, &syn);
        let mut log = Log::default();
        nic.poll(Instant::ZERO, 64, &mut log).unwrap();
        !log.exceptions.is_empty()
    };
    assert!(let_in(&mut ours.nic, 80), "allowed");
    assert!(!let_in(&mut ours.nic, 81), "nobody has the port");
    assert_eq!(ours.nic.counters().filtered, 1);
    ours.nic.own(local(81)).unwrap();
    assert!(let_in(&mut ours.nic, 81), "the answer to a connect");
    for listener in [local(81), any(81)] {
        ours.nic.listen(listener).unwrap();
        assert!(!let_in(&mut ours.nic, 81), "{listener} is guarded");
        ours.nic.unlisten(listener).unwrap();
    }
    assert!(let_in(&mut ours.nic, 81), "only a connection again");
    ours.nic.disown(local(81)).unwrap();
    assert!(!let_in(&mut ours.nic, 81));
}

/// RFC 5927, section 4.1: an ICMP error that quotes what is not in flight is late or forged.
#[test]
fn icmp_errors_are_about_what_is_in_flight() {
    for (from_una, believed) in [(-1, false), (0, true), (999, true), (1000, false)] {
        let [mut ours, mut peer] = connected(&Setup::default());
        assert_eq!(ours.send.write(&[7; 1000]), 1000);
        ours.nic.doorbell(Instant::ZERO, ours.id).unwrap();
        ours.nic.flush(Instant::ZERO).unwrap();
        let state = ours.nic.progress(ours.id).unwrap().state;
        assert_eq!(state.in_flight(), 1000);
        let seq = state.snd_una() + from_una as u32;
        let quoted = segment(state.tuple(), seq, SeqNum(0), TcpFlags::ACK, b"");
        let unreachable = etherparse::icmpv4::DestUnreachableHeader::Host;
        let builder = etherparse::PacketBuilder::ethernet2([2; 6], [2; 6])
            .ipv4([192, 0, 2, 1], [10, 0, 0, 1], 64)
            .icmpv4(etherparse::Icmpv4Type::DestinationUnreachable(unreachable));
        let mut frame = Vec::new();
        builder.write_to_vec(&mut frame, &quoted[14..]).unwrap();
        send_raw(&mut peer.nic, &frame);
        ours.nic.poll(Instant::ZERO, 64, &mut ours.log).unwrap();
        let expected = [(Reason::Icmp, true)];
        assert_eq!(
            ours.log.exceptions,
            &expected[..usize::from(believed)],
            "{from_una}"
        );
        assert_eq!(ours.nic.counters().filtered, u64::from(!believed));
        assert_eq!(ours.nic.progress(ours.id).is_err(), believed);
    }
}

/// The host's engine is told, so that no other queue is asked for the connection while it is on its way.
#[test]
fn what_follows_a_punt_in_its_poll_is_known_to_be_the_hosts() {
    let [mut ours, mut peer] = connected(&Setup::default());
    let state = ours.nic.progress(ours.id).unwrap().state;
    let reversed = state.tuple().reversed();
    let ahead = segment(
        reversed,
        state.rcv_nxt() + 5,
        state.snd_una(),
        TcpFlags::ACK,
        b"data",
    );
    let elsewhere = FlowTuple {
        local: (reversed.local.0, 2001),
        ..reversed
    };
    let stranger = segment(elsewhere, SeqNum(1), SeqNum(1), TcpFlags::ACK, b"");
    let mut exceptions = |frames: &[&Vec<u8>]| {
        frames
            .iter()
            .for_each(|frame| send_raw(&mut peer.nic, frame));
        let mut log = Log::default();
        ours.nic.poll(Instant::ZERO, 64, &mut log).unwrap();
        log.exceptions
            .into_iter()
            .map(|(reason, _)| reason)
            .collect::<Vec<_>>()
    };
    // Without timestamps, which were negotiated.
    assert_eq!(
        exceptions(&[&ahead, &stranger, &ahead]),
        [Reason::Paws, Reason::NoFlow, Reason::HostOwned]
    );
    assert_eq!(exceptions(&[&ahead]), [Reason::NoFlow]);
}

/// A window that was in no frame is not promised: an update would never follow.
#[test]
fn what_a_full_port_refuses_offers_no_window() {
    let port = MemoryConfig {
        queue_frames: 0,
        ..MemoryConfig::default()
    };
    let [mut ours, _peer] = connected(&Setup {
        port,
        ..Setup::default()
    });
    let Claim::Done(mut returned) = ours.nic.claim(Instant::ZERO, ours.id).unwrap() else {
        panic!("the software NIC claims at once")
    };
    let offered = returned.state.rcv_adv();
    returned.state.rcv_free *= 2;
    ours.id = ours
        .nic
        .install(Instant::ZERO, Token(9), returned.state, returned.buffers)
        .unwrap();
    assert_eq!(ours.send.write(b"data"), 4);
    ours.nic.doorbell(Instant::ZERO, ours.id).unwrap();
    ours.nic.flush(Instant::ZERO).unwrap();
    let state = ours.nic.progress(ours.id).unwrap().state;
    assert_eq!((state.in_flight(), state.rcv_adv()), (0, offered));
    assert_eq!(
        ours.nic.poll_at(),
        Some(Instant::ZERO),
        "both are to be tried again"
    );
}

#[test]
fn flows_take_turns_of_a_quantum() {
    let [mut ours, _peer] = connected(&Setup::default());
    let pool = Pool::new(16 << 20);
    let template = ours.nic.progress(ours.id).unwrap().state;
    let flows = [3000, 3001].map(|port| {
        let mut state = template;
        let remote = SocketAddr::new(address(false, 2), port);
        state.set_tuple(&FlowTuple::new(template.tuple().local_addr(), remote));
        (state.cwnd, state.snd_wnd) = (1 << 20, 1 << 20);
        let (recv, _) = recv_ring(&pool);
        let (writer, send) = send_ring(&pool, 1 << 20);
        assert_eq!(writer.write(&[7; 500_000]), 500_000);
        let buffers = FlowBuffers { recv, send };
        ours.nic
            .install(Instant::ZERO, Token(1), state, buffers)
            .unwrap()
    });
    ours.nic.flush(Instant::ZERO).unwrap();
    let [first, second] = flows.map(|id| ours.nic.progress(id).unwrap().state.in_flight());
    let (mss, config) = (1448, SoftConfig::new([0; 16]));
    assert!(
        first.abs_diff(second) <= config.quantum + mss,
        "{first} {second}"
    );
    let sent = first + second;
    assert!((config.flush_budget..=config.flush_budget + config.quantum + mss).contains(&sent));
}

/// A third of the window, as Linux; on a long path what may be sent is sent, so that it does not leave in bursts.
#[test]
fn a_super_frame_waits_for_its_room_on_a_short_path() {
    const MSS: u32 = 1448;
    for (rtt_micros, after) in [(999, [0, 0, 10]), (1000, [4, 5, 1]), (0, [4, 5, 1])] {
        let [mut ours, mut peer] = connected(&Setup {
            flags: flags::NO_DELAY,
            cwnd: 30 * MSS,
            port: MemoryConfig {
                mtu: 65535,
                tx_checksum: true,
                tx_segment_max: Some(65535),
                ..MemoryConfig::default()
            },
            ..Setup::default()
        });
        let Claim::Done(mut returned) = ours.nic.claim(Instant::ZERO, ours.id).unwrap() else {
            panic!("the software NIC claims at once")
        };
        // An own sample takes its place when all that is in flight now was acknowledged.
        returned.state.rtt_micros = rtt_micros;
        let tuple = returned.state.tuple().reversed();
        let (first, seq) = (returned.state.snd_una(), returned.state.rcv_nxt());
        let sent = |ours: &End| {
            ours.nic
                .progress(ours.id)
                .unwrap()
                .state
                .snd_nxt()
                .since(first)
        };
        ours.id = ours
            .nic
            .install(Instant::ZERO, Token(9), returned.state, returned.buffers)
            .unwrap();
        assert_eq!(ours.send.write(&[7; 200_000]), 200_000);
        ours.nic.doorbell(Instant::ZERO, ours.id).unwrap();
        ours.nic.flush(Instant::ZERO).unwrap();
        assert_eq!(sent(&ours), 30 * MSS, "nothing in flight brings more room");
        let mut before = sent(&ours);
        for (acked, after) in [4, 9, 10].into_iter().zip(after) {
            let ack = segment(tuple, seq, first + acked * MSS, TcpFlags::ACK, b"");
            send_raw(&mut peer.nic, &ack);
            ours.nic.poll(Instant::ZERO, 64, &mut ours.log).unwrap();
            ours.nic.flush(Instant::ZERO).unwrap();
            assert_eq!(
                sent(&ours) - before,
                after * MSS,
                "{rtt_micros} µs, {acked} acked"
            );
            before = sent(&ours);
        }
    }
}

#[test]
fn conforms() {
    crate::nic::conformance::run(|| {
        let (near, far) =
            MemoryPort::pair(MemoryConfig::default(), MemoryConfig::default()).unwrap();
        let nic = SoftNic::new(
            Box::new(near),
            Box::new(SteerAll::new()),
            SoftConfig::new([1; 16]),
        );
        crate::nic::conformance::Bench {
            nic: Box::new(nic),
            wire: Box::new(far),
            pool: crate::buffer::Pool::new(16 << 20),
        }
    });
}
