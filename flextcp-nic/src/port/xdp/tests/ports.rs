//! Frames through the port: native and generic, large and small, sleeping and busy.

use std::io::{self, BufRead, BufReader, ErrorKind};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant as Clock};

use rustix::event::{PollFd, PollFlags, Timespec, poll};

use super::frames::segment;
use crate::port::testing::{in_namespace, ip, veth};
use crate::port::xdp::{XdpConfig, XdpInterface, XdpMode, XdpPort};
use crate::port::{Port, TxFrame, TxOffload};
use crate::time::Instant;

const PATIENCE: Duration = Duration::from_secs(20);

fn config(mode: XdpMode) -> XdpConfig {
    XdpConfig {
        mode,
        ..XdpConfig::default()
    }
}

fn send(port: &mut XdpPort, frame: &[u8]) {
    // Split as the NIC does it: headers, then payload from a wrapped ring.
    let (header, payload) = frame.split_at(frame.len().min(54));
    let (first, second) = payload.split_at(payload.len() / 3);
    let frame = TxFrame {
        header,
        payload: [first, second],
        offload: TxOffload::default(),
    };
    while port.transmit(Instant::ZERO, frame).is_err() {
        port.flush(Instant::ZERO).unwrap();
    }
}

/// Receives at least one frame, sleeping on the descriptor as a reactor does.
fn receive(port: &mut XdpPort, frames: &mut Vec<Vec<u8>>) {
    let deadline = Clock::now() + PATIENCE;
    loop {
        let count = port
            .receive(Instant::ZERO, 256, &mut |frame| frames.push(frame.to_vec()))
            .unwrap();
        if count > 0 {
            return;
        }
        if port.arm().unwrap() {
            let left = deadline.saturating_duration_since(Clock::now());
            let timeout = Timespec::try_from(left).unwrap();
            let fd = port.wake_fd().unwrap();
            let ready = poll(&mut [PollFd::new(&fd, PollFlags::IN)], Some(&timeout)).unwrap();
            assert!(
                ready > 0,
                "no frame within {PATIENCE:?}: {:?}",
                port.counters()
            );
        }
    }
}

/// Sends `count` frames of `len` payload bytes from `left` to `right` and back, `window` at a time.
fn echo(left: &mut XdpPort, right: &mut XdpPort, ends: [SocketAddr; 2], count: usize, len: usize) {
    let window = 64.min(count).min(4_000_000 / (len + 4096));
    let (mut sent, mut done) = (0, 0);
    let (mut requests, mut replies) = (Vec::new(), Vec::new());
    let frame = |from, to, number: usize| {
        let payload: Vec<u8> = (0..len).map(|index| (index * 7 + number) as u8).collect();
        segment(from, to, &payload)
    };
    while done < count {
        while sent < count && sent - done < window {
            send(left, &frame(ends[0], ends[1], sent));
            sent += 1;
        }
        left.flush(Instant::ZERO).unwrap();
        receive(right, &mut requests);
        let first = done + replies.len();
        for (index, request) in requests.drain(..).enumerate() {
            assert_eq!(
                request,
                frame(ends[0], ends[1], first + index),
                "request {}",
                first + index
            );
            send(right, &frame(ends[1], ends[0], first + index));
        }
        right.flush(Instant::ZERO).unwrap();
        receive(left, &mut replies);
        for reply in replies.drain(..) {
            assert_eq!(reply, frame(ends[1], ends[0], done), "reply {done}");
            done += 1;
        }
        // Replies may come in two batches; requests of the second are numbered after those of the first.
        while done < sent && sent - done < window {
            receive(left, &mut replies);
            for reply in replies.drain(..) {
                assert_eq!(reply, frame(ends[1], ends[0], done), "reply {done}");
                done += 1;
            }
        }
    }
    for port in [left, right] {
        let counters = port.counters();
        assert_eq!(counters.rx_dropped, 0, "{counters:?}");
        assert_eq!(counters.tx_frames, count as u64, "{counters:?}");
        assert_eq!(counters.rx_frames, count as u64, "{counters:?}");
    }
}

fn echo_over_veth(mode: XdpMode, generic: bool) {
    in_namespace(|| {
        veth("left", "right");
        let left = XdpInterface::attach("left", config(mode)).unwrap();
        let right = XdpInterface::attach("right", config(mode)).unwrap();
        assert_eq!(left.is_generic(), generic);
        assert_ne!(left.mac(), right.mac());
        assert_eq!(left.mtu(), 1500);
        let ends = ["10.9.0.1:1000", "10.9.0.2:2000"].map(|end| end.parse().unwrap());
        left.steering().own(ends[0]).unwrap();
        right.steering().own(ends[1]).unwrap();
        for len in [0, 64, 1446] {
            let mut ports = [left.queue(0).unwrap(), right.queue(0).unwrap()];
            let [a, b] = &mut ports;
            echo(a, b, ends, 5_000, len);
        }
    });
}

#[test]
fn echo_over_veth_in_the_driver() {
    echo_over_veth(XdpMode::Native, false);
}

#[test]
fn veth_is_attached_in_generic_mode_by_itself() {
    echo_over_veth(XdpMode::Auto, true);
}

#[test]
fn echo_over_veth_in_generic_mode() {
    echo_over_veth(XdpMode::Generic, true);
}

#[test]
fn super_frames_over_lo() {
    in_namespace(|| {
        let lo = XdpInterface::attach("lo", config(XdpMode::Auto)).unwrap();
        assert!(lo.is_generic() && lo.is_loopback());
        assert_eq!(lo.mtu(), 65536);
        let mut port = lo.queue(0).unwrap();
        assert!(port.multi_buffer());
        for ends in [
            ["127.0.0.1:1000", "127.0.0.1:2000"],
            ["[::1]:1000", "[::1]:2000"],
        ] {
            let [from, to]: [SocketAddr; 2] = ends.map(|end| end.parse().unwrap());
            lo.steering().own(to).unwrap();
            for len in [1, 3_786, 3_787, 4_042, 4_043, 16_000, 60_000, 65_476] {
                for round in 0..200 {
                    let payload: Vec<u8> =
                        (0..len).map(|index| (index * 3 + round) as u8).collect();
                    let frame = segment(from, to, &payload);
                    send(&mut port, &frame);
                    port.flush(Instant::ZERO).unwrap();
                    let mut frames = Vec::new();
                    receive(&mut port, &mut frames);
                    assert_eq!(frames.len(), 1);
                    assert!(frames[0] == frame, "{len} bytes, round {round}");
                }
            }
        }
        assert_eq!(port.counters().rx_dropped, 0);
    });
}

#[test]
fn many_frames_wait_in_the_rings() {
    in_namespace(|| {
        let lo = XdpInterface::attach(
            "lo",
            XdpConfig {
                tx_ring: 512,
                ..XdpConfig::default()
            },
        )
        .unwrap();
        let [from, to] = ["127.0.0.1:1000", "127.0.0.1:2000"].map(|end| end.parse().unwrap());
        lo.steering().own(to).unwrap();
        let mut port = lo.queue(0).unwrap();
        let frame = segment(from, to, b"x");
        let (header, offload) = (&frame[..], TxOffload::default());
        let one = TxFrame {
            header,
            payload: [&[], &[]],
            offload,
        };
        let queued = (0..5_000)
            .take_while(|_| port.transmit(Instant::ZERO, one).is_ok())
            .count();
        assert_eq!(queued, 512, "the ring is full, then says so");
        port.flush(Instant::ZERO).unwrap();
        let mut frames = Vec::new();
        while frames.len() < queued {
            receive(&mut port, &mut frames);
        }
        assert_eq!(frames.len(), queued);
        assert!(
            port.transmit(Instant::ZERO, one).is_ok(),
            "completed chunks are used again"
        );
        println!("{:?}", port.counters());
    });
}

#[test]
fn a_frame_beyond_what_the_kernel_takes_is_lost_not_retried() {
    in_namespace(|| {
        let lo = XdpInterface::attach("lo", XdpConfig::default()).unwrap();
        let mut port = lo.queue(0).unwrap();
        let header = vec![0; 70_000];
        let frame = TxFrame {
            header: &header,
            payload: [&[], &[]],
            offload: TxOffload::default(),
        };
        assert!(port.transmit(Instant::ZERO, frame).is_ok());
        assert_eq!(port.counters().tx_frames, 0);
    });
}

#[test]
fn kernel_connections_beside_us_work() {
    in_namespace(|| {
        let lo = XdpInterface::attach("lo", XdpConfig::default()).unwrap();
        let _port = lo.queue(0).unwrap();
        lo.steering().own("0.0.0.0:2000".parse().unwrap()).unwrap();
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let client = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        let (server, _) = listener.accept().unwrap();
        let copied = std::thread::spawn(move || io::copy(&mut &server, &mut io::sink()).unwrap());
        let bulk = vec![7; 10 << 20];
        io::copy(&mut &bulk[..], &mut &client).unwrap();
        drop(client);
        assert_eq!(copied.join().unwrap(), bulk.len() as u64);
        let counters = lo.steering().counters().unwrap();
        assert_eq!(counters.redirected, 0);
        assert!(counters.passed > 0);
    });
}

#[test]
fn without_a_socket_on_the_queue_the_kernel_has_the_frames() {
    in_namespace(|| {
        let lo = XdpInterface::attach("lo", XdpConfig::default()).unwrap();
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        lo.steering().own(listener.local_addr().unwrap()).unwrap();
        TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        let port = lo.queue(0).unwrap();
        drop(port);
        TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        assert!(lo.steering().counters().unwrap().redirected > 0);
    });
}

#[test]
fn one_program_an_interface_one_socket_a_queue() {
    in_namespace(|| {
        veth("left", "right");
        let left = XdpInterface::attach("left", XdpConfig::default()).unwrap();
        for mode in [XdpMode::Auto, XdpMode::Generic] {
            let error = XdpInterface::attach("left", config(mode)).unwrap_err();
            assert_eq!(error.kind(), ErrorKind::ResourceBusy, "{error}");
            assert!(error.to_string().contains("another process"), "{error}");
        }
        let port = left.queue(0).unwrap();
        let error = left.queue(0).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::ResourceBusy, "{error}");
        let error = left.queue(left.queues()).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::InvalidInput, "{error}");
        drop(left);
        // The port keeps the program; with the port it goes.
        XdpInterface::attach("left", XdpConfig::default()).unwrap_err();
        drop(port);
        // Not at once: a process that another test starts holds the descriptors until it is a program of its own.
        let deadline = Clock::now() + PATIENCE;
        let again = || XdpInterface::attach("left", XdpConfig::default())?.queue(0);
        while let Err(error) = again() {
            assert!(Clock::now() < deadline, "{error}");
        }
    });
}

#[test]
fn every_queue_has_its_socket() {
    in_namespace(|| {
        ip(
            "link add left numrxqueues 2 numtxqueues 2 type veth peer name right numrxqueues 2 numtxqueues 2",
        );
        ip("link set left up");
        ip("link set right up");
        let left = XdpInterface::attach("left", XdpConfig::default()).unwrap();
        assert_eq!(left.queues(), 2);
        let names = [0, 1].map(|queue| left.queue(queue).unwrap().info().name.clone());
        assert_eq!(
            names,
            ["xdp:left/0 (native, copy)", "xdp:left/1 (native, copy)"]
        );
    });
}

#[test]
fn a_removed_interface_is_an_error() {
    in_namespace(|| {
        veth("left", "right");
        let left = XdpInterface::attach("left", XdpConfig::default()).unwrap();
        let mut port = left.queue(0).unwrap();
        assert!(port.arm().unwrap());
        ip("link del left");
        assert!(port.arm().is_err());
    });
}

#[test]
fn frames_that_wait_for_the_interface_to_come_up_keep_nobody_awake() {
    in_namespace(|| {
        veth("left", "right");
        let left = XdpInterface::attach("left", XdpConfig::default()).unwrap();
        let mut port = left.queue(0).unwrap();
        ip("link set left down");
        send(&mut port, &[0; 60]);
        port.flush(Instant::ZERO).unwrap();
        assert!(port.arm().unwrap(), "it would be turned all the time");
        ip("link set left up");
        let kicks = port.counters().kicks;
        port.flush(Instant::ZERO).unwrap();
        assert!(port.counters().kicks > kicks, "the frame still waits");
        port.flush(Instant::ZERO).unwrap();
        assert_eq!(port.counters().kicks, kicks + 1, "the frame has left");
    });
}

#[test]
fn loopback_settings_are_put_back() {
    in_namespace(|| {
        let read = |name: &str| {
            std::fs::read_to_string(format!("/proc/sys/net/ipv4/conf/lo/{name}")).unwrap()
        };
        let both = || ["route_localnet", "accept_local"].map(|name| read(name).trim().to_owned());
        let before = both();
        let lo = XdpInterface::attach("lo", XdpConfig::default()).unwrap();
        assert_eq!(both(), ["1", "1"]);
        drop(lo);
        assert_eq!(both(), before);
    });
}

#[test]
fn missing_privilege_is_named() {
    in_namespace(|| {
        let nobody = 65534;
        // SAFETY: the raw system call changes the ids of this thread only, which ends with the test.
        let result = unsafe { libc::syscall(libc::SYS_setresuid, nobody, nobody, nobody) };
        assert_eq!(result, 0);
        let error = XdpInterface::attach("lo", XdpConfig::default()).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::PermissionDenied, "{error}");
        assert!(error.to_string().contains("CAP_BPF"), "{error}");
    });
}

#[test]
fn bad_requests_are_explained() {
    let error = XdpInterface::attach("flextcp-none", XdpConfig::default()).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::NotFound, "{error}");
    let error = XdpInterface::attach_index(u32::MAX, XdpConfig::default()).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::NotFound, "{error}");
    let odd = XdpConfig {
        rx_ring: 1000,
        ..XdpConfig::default()
    };
    let error = XdpInterface::attach("lo", odd).unwrap_err();
    assert!(error.to_string().contains("rx_ring = 1000"), "{error}");
}

/// The process that [`the_program_goes_with_a_killed_process`] kills; does nothing by itself.
#[test]
#[ignore = "the other half of a test"]
fn attach_and_wait_to_be_killed() {
    let left = XdpInterface::attach("left", XdpConfig::default()).unwrap();
    let _port = left.queue(0).unwrap();
    println!("attached");
    loop {
        std::thread::park();
    }
}

#[test]
fn the_program_goes_with_a_killed_process() {
    in_namespace(|| {
        veth("left", "right");
        let name = "port::xdp::tests::ports::attach_and_wait_to_be_killed";
        let mut child = Command::new(std::env::current_exe().unwrap())
            .args(["--ignored", "--exact", "--nocapture", name])
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let output = BufReader::new(child.stdout.take().unwrap());
        let attached = output
            .lines()
            .any(|line| line.unwrap().contains("attached"));
        assert!(attached);
        let error = XdpInterface::attach("left", XdpConfig::default()).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::ResourceBusy);
        // SIGKILL.
        child.kill().unwrap();
        child.wait().unwrap();
        let deadline = Clock::now() + PATIENCE;
        while let Err(error) = XdpInterface::attach("left", XdpConfig::default()) {
            assert!(Clock::now() < deadline, "{error}");
        }
    });
}
