use std::net::{Ipv4Addr, UdpSocket};
use std::time::{Duration, Instant};

use super::*;
use crate::host::testing::{in_namespace, ip};

fn addr(text: &str) -> IpAddr {
    text.parse().unwrap()
}

/// Follows notifications until `done`, for five seconds at most.
fn until(view: &mut KernelView, what: &str, done: impl Fn(&KernelView) -> bool) {
    let deadline = Instant::now() + Duration::from_secs(5);
    while !done(view) {
        assert!(Instant::now() < deadline, "never saw: {what}\n{view:?}");
        let mut fds = [PollFd::new(&view.events, PollFlags::IN)];
        poll(
            &mut fds,
            Some(&Timespec {
                tv_sec: 0,
                tv_nsec: 100_000_000,
            }),
        )
        .unwrap();
        view.refresh().unwrap();
    }
}

fn veth() {
    ip("link add v0 type veth peer name v1");
    ip("addr add 10.9.0.1/24 dev v0");
    ip("addr add fd09::1/64 dev v0 nodad");
    ip("link set v0 up");
    ip("link set v1 up");
}

#[test]
fn a_fresh_namespace_has_loopback_only() {
    in_namespace(|| {
        let mut view = KernelView::open().unwrap();
        let lo = view.loopback().expect("lo").clone();
        assert_eq!(
            (lo.name.as_str(), lo.mtu, lo.up, lo.loopback),
            ("lo", 65536, true, true)
        );
        assert_eq!(view.owner_of(addr("127.0.0.1")), Some(lo.index));
        assert_eq!(
            view.owner_of(addr("127.1.2.3")),
            Some(lo.index),
            "all of 127/8 is local"
        );
        assert_eq!(view.owner_of(addr("::1")), Some(lo.index));
        assert_eq!(view.owner_of(addr("10.0.0.1")), None);
        assert_eq!(view.default_route_ifindex(), None);
        assert_eq!(view.route(addr("8.8.8.8")), None);
        assert_eq!(
            view.route_exact(addr("8.8.8.8"), None, None)
                .unwrap_err()
                .kind(),
            io::ErrorKind::NetworkUnreachable
        );
        assert!(!view.policy_rules());
        for dst in ["127.0.0.1", "::1"].map(addr) {
            let route = view.route(dst).expect("a local route");
            assert_eq!(
                route,
                Route {
                    ifindex: lo.index,
                    source: dst,
                    gateway: None,
                    mtu: 65536
                }
            );
            assert_eq!(view.route_exact(dst, None, None).unwrap(), route, "{dst}");
            assert_eq!(view.neighbor(lo.index, dst).mac(), Some(MacAddr([0; 6])));
        }
    });
}

#[test]
fn an_ordinary_user_sees_the_network() {
    let mut view = KernelView::open().unwrap();
    let lo = view.loopback().expect("every namespace has lo").index;
    if view.link(lo).unwrap().up {
        let route = view.route(addr("127.0.0.1")).expect("a local route");
        assert_eq!((route.ifindex, route.source), (lo, addr("127.0.0.1")));
        assert_eq!(
            view.route_exact(addr("127.0.0.1"), None, None).unwrap(),
            route
        );
    }
}

#[test]
fn the_mirror_follows_changes_and_agrees_with_the_kernel() {
    in_namespace(|| {
        let mut view = KernelView::open().unwrap();
        assert!(!view.refresh().unwrap());
        veth();
        until(&mut view, "v0 up with both routes", |view| {
            let up = view
                .link_by_name("v0")
                .is_some_and(|link| link.up && link.running);
            up && view.route(addr("10.9.0.2")).is_some() && view.route(addr("fd09::2")).is_some()
        });
        let v0 = view.link_by_name("v0").unwrap().clone();
        assert_eq!(
            (v0.kind.as_deref(), v0.mtu, v0.loopback),
            (Some("veth"), 1500, false)
        );
        assert_ne!(v0.mac, MacAddr([0; 6]));
        assert!(
            view.addresses_of(v0.index)
                .iter()
                .any(|own| own.addr == addr("10.9.0.1"))
        );
        assert_eq!(view.owner_of(addr("10.9.0.1")), Some(v0.index));

        ip("route add 10.20.0.0/16 via 10.9.0.9 mtu 1400");
        ip("route add default via 10.9.0.254");
        ip("-6 route add fd20::/16 via fd09::9");
        until(&mut view, "the new routes", |view| {
            view.default_route_ifindex() == Some(v0.index) && view.route(addr("fd20::1")).is_some()
        });
        assert!(view.carries_default_route(v0.index));
        assert!(!view.carries_default_route(view.loopback().unwrap().index));
        for dst in [
            "10.9.0.2",
            "10.20.1.1",
            "9.9.9.9",
            "10.9.0.1",
            "fd09::2",
            "fd20::1",
            "fd09::1",
        ] {
            let dst = addr(dst);
            let exact = view.route_exact(dst, None, None).unwrap();
            assert_eq!(view.route(dst), Some(exact), "{dst}");
        }
        let far = view.route(addr("10.20.1.1")).unwrap();
        assert_eq!(far.mtu, 1400);
        assert_eq!(
            (far.gateway, far.source),
            (Some(addr("10.9.0.9")), addr("10.9.0.1"))
        );
        assert_eq!(far.next_hop(addr("10.20.1.1")), addr("10.9.0.9"));
        let own = view.route(addr("10.9.0.1")).unwrap();
        assert_eq!(
            own.ifindex,
            view.loopback().unwrap().index,
            "own addresses go over lo"
        );

        ip("link set v0 mtu 1300");
        until(&mut view, "the new MTU", |view| {
            view.link(v0.index).is_some_and(|link| link.mtu == 1300)
        });
        ip("link set v0 down");
        until(&mut view, "no IPv4 route after link down", |view| {
            view.route(addr("10.20.1.1")).is_none() && view.route(addr("10.9.0.2")).is_none()
        });
        ip("link del v0");
        until(&mut view, "no link and no address", |view| {
            view.link(v0.index).is_none() && view.owner_of(addr("10.9.0.1")).is_none()
        });
    });
}

#[test]
fn routes_that_refuse_answer_as_connect_does() {
    in_namespace(|| {
        veth();
        ip("route add blackhole 10.30.0.0/16");
        ip("route add prohibit 10.31.0.0/16");
        ip("route add unreachable 10.32.0.0/16");
        let mut view = KernelView::open().unwrap();
        for (dst, errno) in [
            ("10.30.0.1", libc::EINVAL),
            ("10.31.0.1", libc::EACCES),
            ("10.32.0.1", libc::EHOSTUNREACH),
        ] {
            assert_eq!(view.route(addr(dst)), None);
            let error = view.route_exact(addr(dst), None, None).unwrap_err();
            let udp = UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 0)).unwrap();
            let kernel = udp.connect((dst, 9)).unwrap_err();
            assert_eq!(error.raw_os_error(), Some(errno), "{dst}");
            assert_eq!(kernel.raw_os_error(), Some(errno), "{dst}");
        }
        assert!(
            view.route_exact(addr("10.9.0.2"), Some(addr("1.2.3.4")), None)
                .is_err()
        );
    });
}

#[test]
fn policy_rules_are_noticed_and_asked_for() {
    in_namespace(|| {
        veth();
        ip("addr add 10.9.0.3/24 dev v0");
        let mut view = KernelView::open().unwrap();
        ip("route add 10.40.0.0/16 via 10.9.0.7 table 100");
        ip("rule add from 10.9.0.3 table 100");
        until(&mut view, "the rule", KernelView::policy_rules);
        assert_eq!(view.route(addr("10.40.0.1")), None);
        let route = view
            .route_exact(addr("10.40.0.1"), Some(addr("10.9.0.3")), None)
            .unwrap();
        assert_eq!(
            (route.gateway, route.source),
            (Some(addr("10.9.0.7")), addr("10.9.0.3"))
        );
        ip("rule del from 10.9.0.3 table 100");
        until(&mut view, "the rule's end", |view| !view.policy_rules());
    });
}

#[test]
fn the_kernel_resolves_neighbours_for_us() {
    in_namespace(|| {
        // The peer's end lives in a namespace of its own, or the kernel would answer over lo.
        ip("link add v0 type veth peer name v1");
        ip("addr add 10.9.0.1/24 dev v0");
        ip("link set v0 up");
        let here = rustix::thread::gettid().as_raw_nonzero();
        let (ready, is_ready) = std::sync::mpsc::channel();
        let (done, is_done) = std::sync::mpsc::channel::<()>();
        std::thread::scope(|scope| {
            scope.spawn(move || {
                in_namespace(move || {
                    let there = rustix::thread::gettid().as_raw_nonzero();
                    ready.send(there).unwrap();
                    is_done.recv().ok();
                });
            });
            let there = is_ready.recv().unwrap();
            ip(&format!(
                "link set v1 netns /proc/{}/task/{there}/ns/net",
                std::process::id()
            ));
            let enter = format!("--net=/proc/{}/task/{there}/ns/net", std::process::id());
            for command in ["addr add 10.9.0.2/24 dev v1", "link set v1 up"] {
                let status = std::process::Command::new("nsenter")
                    .arg(&enter)
                    .arg("ip")
                    .args(command.split_whitespace())
                    .status()
                    .unwrap();
                assert!(status.success(), "{command} (from thread {here})");
            }
            let mut view = KernelView::open().unwrap();
            until(&mut view, "a carrier", |view| {
                view.link_by_name("v0").unwrap().running
            });
            let v0 = view.link_by_name("v0").unwrap().index;
            assert_eq!(view.neighbor(v0, addr("10.9.0.2")), Neighbor::Unknown);
            view.resolve(v0, addr("10.9.0.2")).unwrap();
            until(&mut view, "the neighbour", |view| {
                matches!(view.neighbor(v0, addr("10.9.0.2")), Neighbor::Reachable(_))
            });
            view.resolve(v0, addr("10.9.0.77")).unwrap();
            until(&mut view, "a failed neighbour", |view| {
                view.neighbor(v0, addr("10.9.0.77")) == Neighbor::Failed
            });
            let error = view.resolve(9999, addr("10.9.0.2")).unwrap_err();
            assert_eq!(error.kind(), io::ErrorKind::NotFound);
            drop(done);
        });
    });
}

#[test]
fn garbage_datagrams_end_quietly() {
    for bytes in [
        &[][..],
        &[1, 2, 3],
        &[0; 16],
        &[255; 64],
        &[20, 0, 0, 0, 16, 0, 0, 0],
    ] {
        assert_eq!(messages(bytes).count(), 0, "{bytes:?}");
    }
}
