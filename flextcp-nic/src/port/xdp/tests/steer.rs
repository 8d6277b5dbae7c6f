//! The program's decisions, frame by frame, on `lo`.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::time::{Duration, Instant as Clock};

use super::frames::{IPPROTO_TCP, ethernet, ipv4, ipv6, tcp};
use crate::flow::FlowTuple;
use crate::port::testing::in_namespace;
use crate::port::xdp::{SteeringCounters, XdpConfig, XdpInterface, XdpPort};
use crate::port::{Port, TxFrame, TxOffload};
use crate::time::Instant;

const ME: [u8; 4] = [127, 0, 0, 1];
const PEER: [u8; 4] = [127, 0, 0, 9];
const ME6: [u8; 16] = [0xfd, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1];
const PEER6: [u8; 16] = [0xfd, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 9];

#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Verdict {
    Ours,
    Kernels,
    Excluded,
}
use Verdict::{Excluded, Kernels, Ours};

struct Loop {
    interface: XdpInterface,
    port: XdpPort,
}

impl Loop {
    fn new() -> Self {
        let interface = XdpInterface::attach("lo", XdpConfig::default()).unwrap();
        let port = interface.queue(0).unwrap();
        Self { interface, port }
    }

    fn own(&self, address: impl Into<IpAddr>, port: u16) {
        self.interface
            .steering()
            .own(SocketAddr::new(address.into(), port))
            .unwrap();
    }

    /// Sends one frame around the loop and sees what the program did with it.
    fn verdict(&mut self, frame: &[u8]) -> Verdict {
        let steering = self.interface.steering();
        let before = steering.counters().unwrap();
        let frame = TxFrame {
            header: frame,
            payload: [&[], &[]],
            offload: TxOffload::default(),
        };
        self.port.transmit(Instant::ZERO, frame).unwrap();
        self.port.flush(Instant::ZERO).unwrap();
        let deadline = Clock::now() + Duration::from_secs(10);
        loop {
            let now = steering.counters().unwrap();
            let SteeringCounters {
                redirected,
                passed,
                excluded,
            } = before;
            if now.redirected > redirected {
                let received = self.port.receive(Instant::ZERO, 16, &mut |_| ()).unwrap();
                if received == 1 {
                    return Ours;
                }
            }
            if now.excluded > excluded {
                return Excluded;
            }
            if now.passed > passed {
                return Kernels;
            }
            assert!(
                Clock::now() < deadline,
                "the frame did not come around: {now:?}"
            );
        }
    }
}

fn plain(port: u16) -> Vec<u8> {
    ethernet(
        [0; 6],
        0x0800,
        &ipv4(PEER, ME, IPPROTO_TCP, &[], 0, &tcp(999, port, b"")),
    )
}

fn plain6(port: u16) -> Vec<u8> {
    ethernet(
        [0; 6],
        0x86dd,
        &ipv6(PEER6, ME6, IPPROTO_TCP, &tcp(999, port, b"")),
    )
}

fn tagged(vlan: u16, ethertype: u16, packet: &[u8]) -> Vec<u8> {
    let mut inner = vlan.to_be_bytes().to_vec();
    inner.extend(ethertype.to_be_bytes());
    inner.extend(packet);
    ethernet([0; 6], 0x8100, &inner)
}

#[test]
fn destination_address_and_port_decide() {
    in_namespace(|| {
        let mut net = Loop::new();
        assert_eq!(net.verdict(&plain(80)), Kernels);
        net.own(Ipv4Addr::from(ME), 80);
        net.own(Ipv4Addr::from(PEER), 81);
        net.own(Ipv4Addr::UNSPECIFIED, 82);
        net.own(Ipv6Addr::from(ME6), 83);
        net.own(Ipv6Addr::UNSPECIFIED, 84);
        let verdicts = [80, 81, 82, 83, 84, 144].map(|port| net.verdict(&plain(port)));
        assert_eq!(verdicts, [Ours, Kernels, Ours, Kernels, Kernels, Kernels]);
        let verdicts = [80, 81, 82, 83, 84].map(|port| net.verdict(&plain6(port)));
        assert_eq!(verdicts, [Kernels, Kernels, Kernels, Ours, Ours]);
        let udp = ethernet(
            [0; 6],
            0x0800,
            &ipv4(PEER, ME, 17, &[], 0, &tcp(999, 80, b"")),
        );
        assert_eq!(net.verdict(&udp), Kernels);
        let steering = net.interface.steering();
        steering.disown(SocketAddr::from((ME, 80))).unwrap();
        assert_eq!(net.verdict(&plain(80)), Kernels);
    });
}

#[test]
fn options_tags_and_fragments() {
    in_namespace(|| {
        let mut net = Loop::new();
        net.own(Ipv4Addr::from(ME), 80);
        net.own(Ipv6Addr::from(ME6), 80);
        let segment = tcp(999, 80, b"data");
        let v4 =
            |options: &[u8], fragment| ipv4(PEER, ME, IPPROTO_TCP, options, fragment, &segment);
        let raw = |packet: &[u8]| ethernet([0; 6], 0x0800, packet);
        assert_eq!(net.verdict(&raw(&v4(&[1; 40], 0))), Ours, "IP options");
        assert_eq!(net.verdict(&raw(&v4(&[], 0x4000))), Ours, "don't fragment");
        assert_eq!(net.verdict(&raw(&v4(&[], 0x2000))), Ours, "first fragment");
        assert_eq!(
            net.verdict(&raw(&v4(&[], 0x2001))),
            Kernels,
            "later fragment"
        );
        assert_eq!(
            net.verdict(&tagged(0xe000, 0x0800, &v4(&[], 0))),
            Ours,
            "priority tag"
        );
        assert_eq!(
            net.verdict(&tagged(5, 0x0800, &v4(&[], 0))),
            Kernels,
            "VLAN 5"
        );
        let multicast = ethernet([1, 0, 0x5e, 0, 0, 1], 0x0800, &v4(&[], 0));
        assert_eq!(net.verdict(&multicast), Kernels, "multicast");

        let v6 = |next, payload: &[u8]| ethernet([0; 6], 0x86dd, &ipv6(PEER6, ME6, next, payload));
        let with = |header: &[u8]| [header, &segment].concat();
        assert_eq!(
            net.verdict(&v6(0, &with(&[6, 0, 0, 0, 0, 0, 0, 0]))),
            Ours,
            "hop-by-hop"
        );
        let two = [
            60, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 6, 0, 0, 0, 0, 0, 0, 0,
        ];
        assert_eq!(
            net.verdict(&v6(43, &with(&two))),
            Ours,
            "routing and destination options"
        );
        assert_eq!(
            net.verdict(&v6(44, &with(&[6, 0, 0, 1, 0, 0, 0, 9]))),
            Ours,
            "first fragment"
        );
        assert_eq!(
            net.verdict(&v6(44, &with(&[6, 0, 0, 8, 0, 0, 0, 9]))),
            Kernels,
            "later fragment"
        );
        assert_eq!(
            net.verdict(&v6(50, &with(&[6, 0, 0, 0, 0, 0, 0, 0]))),
            Kernels,
            "ESP"
        );
        let chain = [[0, 0, 0, 0, 0, 0, 0, 0]; 6].concat();
        assert_eq!(
            net.verdict(&v6(0, &with(&chain))),
            Kernels,
            "endless options"
        );
    });
}

#[test]
fn icmp_errors_follow_the_segment_they_quote() {
    in_namespace(|| {
        let mut net = Loop::new();
        net.own(Ipv4Addr::from(ME), 80);
        net.own(Ipv6Addr::from(ME6), 80);
        let router = [127, 0, 0, 77];
        let quote = |port| ipv4(ME, PEER, IPPROTO_TCP, &[], 0, &tcp(port, 999, b"")[..8]);
        let error = |kind: u8, quote: &[u8]| {
            let icmp = [&[kind, 4, 0, 0, 0, 0, 5, 0], quote].concat();
            ethernet([0; 6], 0x0800, &ipv4(router, ME, 1, &[], 0, &icmp))
        };
        assert_eq!(net.verdict(&error(3, &quote(80))), Ours, "unreachable");
        assert_eq!(net.verdict(&error(11, &quote(80))), Ours, "time exceeded");
        assert_eq!(net.verdict(&error(3, &quote(81))), Kernels, "another port");
        assert_eq!(net.verdict(&error(8, &quote(80))), Kernels, "echo request");
        assert_eq!(
            net.verdict(&error(3, &quote(80)[..20])),
            Kernels,
            "no ports quoted"
        );
        let received = ipv4(PEER, ME, IPPROTO_TCP, &[], 0, &tcp(999, 80, b"")[..8]);
        assert_eq!(
            net.verdict(&error(3, &received)),
            Kernels,
            "quotes what we never sent"
        );

        let quote6 = ipv6(ME6, PEER6, IPPROTO_TCP, &tcp(80, 999, b"")[..8]);
        let error6 = |kind: u8| {
            let icmp = [&[kind, 0, 0, 0, 0, 0, 5, 0], &quote6[..]].concat();
            ethernet([0; 6], 0x86dd, &ipv6(PEER6, ME6, 58, &icmp))
        };
        let verdicts = [1, 2, 3, 4, 135].map(|kind| net.verdict(&error6(kind)));
        assert_eq!(verdicts, [Ours, Ours, Ours, Kernels, Kernels]);
    });
}

#[test]
fn truncated_frames_are_the_kernels() {
    in_namespace(|| {
        let mut net = Loop::new();
        net.own(Ipv4Addr::from(ME), 80);
        net.own(Ipv6Addr::from(ME6), 80);
        for frame in [plain(80), plain6(80)] {
            let ports_end = frame.len() - 16;
            for len in 14..ports_end {
                assert_eq!(net.verdict(&frame[..len]), Kernels, "{len} bytes");
            }
            assert_eq!(
                net.verdict(&frame[..ports_end]),
                Ours,
                "ports are enough to decide"
            );
        }
    });
}

#[test]
fn excluded_connections_are_the_kernels() {
    in_namespace(|| {
        let mut net = Loop::new();
        net.own(Ipv4Addr::UNSPECIFIED, 80);
        net.own(Ipv6Addr::from(ME6), 80);
        let steering = net.interface.steering();
        let tuple = |local: IpAddr, remote: IpAddr, port| FlowTuple {
            local: (local, 80),
            remote: (remote, port),
        };
        let v4 = tuple(ME.into(), PEER.into(), 999);
        let v6 = tuple(ME6.into(), PEER6.into(), 999);
        steering
            .exclude(tuple(ME.into(), PEER.into(), 998))
            .unwrap();
        assert_eq!(
            [net.verdict(&plain(80)), net.verdict(&plain6(80))],
            [Ours, Ours]
        );
        steering.exclude(v4).unwrap();
        assert_eq!(
            [net.verdict(&plain(80)), net.verdict(&plain6(80))],
            [Excluded, Ours]
        );
        steering.exclude(v6).unwrap();
        assert_eq!(
            [net.verdict(&plain(80)), net.verdict(&plain6(80))],
            [Excluded, Excluded]
        );
        steering.include(v4).unwrap();
        assert_eq!(
            [net.verdict(&plain(80)), net.verdict(&plain6(80))],
            [Ours, Excluded]
        );
        steering.include(v6).unwrap();
        assert_eq!(
            [net.verdict(&plain(80)), net.verdict(&plain6(80))],
            [Ours, Ours]
        );
    });
}

#[test]
fn single_connections_are_ours_and_the_rest_of_their_port_is_not() {
    in_namespace(|| {
        let mut net = Loop::new();
        let steering = net.interface.steering();
        let (v4, v6) = (SocketAddr::from((ME, 80)), SocketAddr::from((ME6, 80)));
        let both = [
            FlowTuple::new(v4, SocketAddr::from((PEER, 999))),
            FlowTuple::new(v6, SocketAddr::from((PEER6, 999))),
        ];
        let others = [
            FlowTuple::new(v4, SocketAddr::from((PEER, 998))),
            FlowTuple::new(v6, SocketAddr::from((PEER6, 998))),
        ];
        let mut verdicts = || [net.verdict(&plain(80)), net.verdict(&plain6(80))];
        for tuple in others {
            steering.own_flow(tuple).unwrap();
        }
        assert_eq!(verdicts(), [Kernels, Kernels], "of another connection");
        for tuple in both {
            steering.own_flow(tuple).unwrap();
        }
        assert_eq!(verdicts(), [Ours, Ours]);
        // A listener comes and goes.
        let any = [
            SocketAddr::from(([0; 4], 80)),
            SocketAddr::from(([0; 16], 80)),
        ];
        for listener in any {
            steering.own(listener).unwrap();
        }
        for tuple in both {
            steering.disown_flow(tuple).unwrap();
        }
        assert_eq!(verdicts(), [Ours, Ours], "a new one");
        for listener in any {
            steering.disown(listener).unwrap();
        }
        assert_eq!(verdicts(), [Kernels, Kernels], "it is not known");
        for tuple in both {
            steering.own_flow(tuple).unwrap();
            steering.exclude(tuple).unwrap();
        }
        assert_eq!(verdicts(), [Excluded, Excluded]);
    });
}

#[test]
fn a_port_with_more_connections_than_the_table_holds_is_left_to_others_when_they_fit() {
    const ROOM: u32 = 131_072;
    in_namespace(|| {
        let mut net = Loop::new();
        let steering = net.interface.steering();
        let local = SocketAddr::from((ME, 80));
        let of = |n: u32| {
            let [_, a, b, c] = n.to_be_bytes();
            FlowTuple::new(local, SocketAddr::from(([10, a, b, c], 999)))
        };
        steering.own(local).unwrap();
        let known = FlowTuple::new(local, SocketAddr::from((PEER, 999)));
        steering.own_flow(known).unwrap();
        for n in 0..ROOM {
            steering.own_flow(of(n)).unwrap();
        }
        let error = steering.disown(local).unwrap_err();
        assert_eq!(error.kind(), std::io::ErrorKind::StorageFull, "{error}");
        let stranger = ethernet(
            [0; 6],
            0x0800,
            &ipv4(PEER, ME, IPPROTO_TCP, &[], 0, &tcp(998, 80, b"")),
        );
        assert_eq!(net.verdict(&plain(80)), Ours);
        assert_eq!(net.verdict(&stranger), Ours);
        steering.disown_flow(of(0)).unwrap();
        assert_eq!(net.verdict(&plain(80)), Ours);
        assert_eq!(net.verdict(&stranger), Kernels);
    });
}
