//! A TAP in a namespace made here, the kernel on its other end.

use std::io::{Read, Write};
use std::net::{IpAddr, SocketAddr, TcpStream};
use std::num::NonZeroU16;
use std::os::fd::AsFd;
use std::time::{Duration, Instant as Clock};

use rustix::event::{PollFd, PollFlags, Timespec, poll};

use super::device::Device;
use super::{TapConfig, TapPort};
use crate::port::testing::{in_namespace, ip};
use crate::port::{Port, PortFull, RxChecksum, RxFrame, TxFrame, TxOffload};
use crate::seq::SeqNum;
use crate::time::Instant;
use crate::wire::{MAX_HEADER_LEN, Packet, SegmentRepr, TcpFlags, TcpOptions, TcpPacket, parse};

const PATIENCE: Duration = Duration::from_secs(20);
const US: [&str; 2] = ["10.7.0.2", "fd07::2"];
const MSS: u16 = 1400;

fn config() -> TapConfig {
    let addresses = US.iter().map(|address| address.parse().unwrap()).collect();
    TapConfig {
        addresses,
        ..TapConfig::default()
    }
}

/// Gives the kernel's end its addresses.
fn bring_up(name: &str) {
    ip(&format!("addr add 10.7.0.1/24 dev {name}"));
    ip(&format!("addr add fd07::1/64 dev {name} nodad"));
    ip(&format!("link set {name} up"));
}

struct Segment {
    packet: TcpPacket,
    payload: Vec<u8>,
    frame_len: usize,
    checksum: RxChecksum,
}

/// Our end, driven by hand.
struct End {
    port: TapPort,
    seq: SeqNum,
}

impl End {
    fn new(port: TapPort) -> Self {
        Self {
            port,
            seq: SeqNum(0xffff_f000),
        }
    }

    /// The next TCP segment; sleeps on the descriptor as a reactor does.
    fn segment(&mut self) -> Segment {
        let deadline = Clock::now() + PATIENCE;
        loop {
            let mut found = None;
            let mut sink = |frame: RxFrame<'_>| {
                if let Ok(Packet::Tcp(packet)) = parse(&frame) {
                    let payload = packet.payload(&frame).flatten().copied().collect();
                    let (frame_len, checksum) = (frame.len(), frame.checksum);
                    found = Some(Segment {
                        packet,
                        payload,
                        frame_len,
                        checksum,
                    });
                }
            };
            let count = self.port.receive(Instant::ZERO, 1, &mut sink).unwrap();
            self.port.flush(Instant::ZERO).unwrap();
            if let Some(segment) = found {
                return segment;
            }
            if count == 0 && self.port.arm().unwrap() {
                let left = deadline.saturating_duration_since(Clock::now());
                let timeout = Timespec::try_from(left).unwrap();
                let fd = self.port.wake_fd().unwrap();
                let ready = poll(&mut [PollFd::new(&fd, PollFlags::IN)], Some(&timeout)).unwrap();
                assert!(ready > 0, "no segment within {PATIENCE:?}");
            }
        }
    }

    fn answer(
        &mut self,
        to: &TcpPacket,
        ack: SeqNum,
        flags: TcpFlags,
        payload: &[u8],
        offload: TxOffload,
    ) {
        let options = if flags.contains(TcpFlags::SYN) {
            TcpOptions {
                mss: Some(MSS),
                ..TcpOptions::default()
            }
        } else {
            TcpOptions::default()
        };
        let repr = SegmentRepr {
            src_mac: self.port.info().mac,
            dst_mac: to.src_mac,
            tuple: to.tuple,
            tos: 0,
            ttl: 64,
            seq: self.seq,
            ack,
            flags,
            window: 65535,
            urgent: 0,
            options,
        };
        let mut header = [0; MAX_HEADER_LEN];
        let len = repr.emit([payload, &[]], offload.checksum, &mut header);
        let (first, second) = payload.split_at(payload.len() / 3);
        let frame = TxFrame {
            header: &header[..len],
            payload: [first, second],
            offload,
        };
        self.port.transmit(Instant::ZERO, frame).unwrap();
        self.port.flush(Instant::ZERO).unwrap();
        self.seq += payload.len() as u32 + u32::from(flags.contains(TcpFlags::SYN));
    }
}

const PLAIN: TxOffload = TxOffload {
    checksum: false,
    segment: None,
};
const PARTIAL: TxOffload = TxOffload {
    checksum: true,
    segment: None,
};

fn connect(to: &str) -> std::thread::JoinHandle<std::io::Result<TcpStream>> {
    let address = SocketAddr::new(to.parse().unwrap(), 80);
    std::thread::spawn(move || TcpStream::connect_timeout(&address, PATIENCE))
}

/// A whole exchange with the kernel's TCP: handshake, 40 KB each way, in super-frames.
fn exchange(mut end: End) {
    for (address, offload) in [(US[0], PARTIAL), (US[1], PARTIAL), (US[0], PLAIN)] {
        let client = connect(address);
        let expected: IpAddr = address.parse().unwrap();
        // What the connection before still sends comes first.
        let syn = std::iter::repeat_with(|| end.segment())
            .find(|segment| segment.packet.tcp.flags.contains(TcpFlags::SYN))
            .unwrap();
        assert_eq!(syn.packet.tuple.local, (expected, 80));
        assert_eq!(syn.packet.src_mac, end.port.peer_mac());
        let mut next = syn.packet.tcp.seq + 1;
        end.answer(
            &syn.packet,
            next,
            TcpFlags::SYN | TcpFlags::ACK,
            b"",
            offload,
        );
        let mut client = client.join().unwrap().unwrap();

        let request: Vec<u8> = (0..40_000u32)
            .map(|index| ((index * 31) >> 3) as u8)
            .collect();
        client.write_all(&request).unwrap();
        let (mut received, mut largest) = (Vec::new(), 0);
        while received.len() < request.len() {
            let segment = end.segment();
            if segment.packet.tcp.seq == next && !segment.payload.is_empty() {
                assert_eq!(segment.checksum, RxChecksum::Trusted);
                next += segment.payload.len() as u32;
                received.extend(segment.payload);
                largest = largest.max(segment.frame_len);
                end.answer(&syn.packet, next, TcpFlags::ACK, b"", offload);
            }
        }
        assert!(received == request);
        assert!(
            largest > 2 * usize::from(MSS),
            "the kernel leaves cutting to us: {largest}"
        );

        let segment = NonZeroU16::new(MSS).filter(|_| offload.checksum);
        let flags = TcpFlags::ACK | TcpFlags::PSH;
        if segment.is_some() {
            end.answer(
                &syn.packet,
                next,
                flags,
                &request,
                TxOffload { segment, ..offload },
            );
        } else {
            for piece in request.chunks(MSS.into()) {
                end.answer(&syn.packet, next, flags, piece, offload);
            }
        }
        let mut reply = vec![0; request.len()];
        client.set_read_timeout(Some(PATIENCE)).unwrap();
        client.read_exact(&mut reply).unwrap();
        assert!(reply == request);
        end.answer(
            &syn.packet,
            next,
            TcpFlags::RST | TcpFlags::ACK,
            b"",
            offload,
        );
        assert!(client.read(&mut reply).is_err(), "reset");
    }
}

#[test]
fn the_kernel_talks_to_us_in_super_frames() {
    in_namespace(|| {
        let port = TapPort::open("flex0", config()).unwrap();
        bring_up("flex0");
        assert_eq!(port.info().name, "tap:flex0");
        assert_eq!(port.info().mtu, 1500);
        exchange(End::new(port));
    });
}

#[test]
fn the_kernel_talks_to_us_without_io_uring() {
    in_namespace(|| {
        let device = Device::open("flex0", false).unwrap();
        bring_up("flex0");
        exchange(End::new(TapPort::new(device, config(), false).unwrap()));
    });
}

#[test]
fn an_unprivileged_process_uses_a_tap_it_was_given() {
    in_namespace(|| {
        let nobody = 65534;
        ip(&format!("tuntap add flex0 mode tap user {nobody} vnet_hdr"));
        bring_up("flex0");
        let [given, other] = [(), ()].map(|()| Device::clone_device().unwrap());
        // SAFETY: the raw system call changes the ids of this thread only, which ends with the test.
        let result = unsafe { libc::syscall(libc::SYS_setresuid, nobody, nobody, nobody) };
        assert_eq!(result, 0);
        let error = Device::attach(other, "flex1", false).unwrap_err();
        assert_eq!(error.kind(), std::io::ErrorKind::PermissionDenied);
        assert!(error.to_string().contains("ip tuntap add flex1"), "{error}");
        let device = Device::attach(given, "flex0", false).unwrap();
        exchange(End::new(TapPort::new(device, config(), true).unwrap()));
    });
}

#[test]
fn a_descriptor_handed_over_is_a_port() {
    in_namespace(|| {
        let opened = TapPort::open("flex0", config()).unwrap();
        let fd = opened.wake_fd().unwrap().try_clone_to_owned().unwrap();
        drop(opened);
        bring_up("flex0");
        exchange(End::new(TapPort::from_fd(fd, config()).unwrap()));
        let file = std::fs::File::open("/dev/null").unwrap();
        let error =
            TapPort::from_fd(file.as_fd().try_clone_to_owned().unwrap(), config()).unwrap_err();
        assert!(error.to_string().contains("no attached TAP"), "{error}");
    });
}

#[test]
fn several_queues_of_one_tap() {
    in_namespace(|| {
        let queue = || {
            let config = TapConfig {
                multi_queue: true,
                ..config()
            };
            TapPort::open("flex0", config).unwrap()
        };
        let mut ports = [queue(), queue()];
        bring_up("flex0");
        assert_eq!(ports[0].info().mac, ports[1].info().mac);
        let error = TapPort::open("flex0", config()).unwrap_err();
        assert!(error.to_string().contains("multi_queue"), "{error}");
        let client = connect(US[0]);
        let deadline = Clock::now() + PATIENCE;
        // Whichever queue the kernel chooses has the SYN.
        let syn = 'found: loop {
            for port in &mut ports {
                let mut syn = None;
                let mut sink = |frame: RxFrame<'_>| {
                    if let Ok(Packet::Tcp(packet)) = parse(&frame) {
                        syn = Some(packet);
                    }
                };
                port.receive(Instant::ZERO, 16, &mut sink).unwrap();
                port.flush(Instant::ZERO).unwrap();
                if let Some(syn) = syn {
                    break 'found syn;
                }
            }
            assert!(Clock::now() < deadline);
            std::thread::yield_now();
        };
        let [_, second] = ports;
        let mut end = End::new(second);
        end.answer(
            &syn,
            syn.tcp.seq + 1,
            TcpFlags::RST | TcpFlags::ACK,
            b"",
            PLAIN,
        );
        let error = client.join().unwrap().unwrap_err();
        assert_eq!(error.kind(), std::io::ErrorKind::ConnectionRefused);
    });
}

#[test]
fn we_find_the_kernels_addresses() {
    in_namespace(|| {
        let mut port = TapPort::open("flex0", config()).unwrap();
        bring_up("flex0");
        let neighbors = port.neighbors();
        let deadline = Clock::now() + PATIENCE;
        for address in ["10.7.0.1", "fd07::1"] {
            let address = address.parse().unwrap();
            while neighbors.resolve(address).is_none() {
                let elapsed = deadline.saturating_duration_since(Clock::now());
                assert!(!elapsed.is_zero(), "{address} does not answer");
                let now = Instant::from_nanos((PATIENCE - elapsed).as_nanos() as u64);
                port.flush(now).unwrap();
                port.receive(now, 16, &mut |_| ()).unwrap();
            }
            assert_eq!(neighbors.resolve(address), Some(port.peer_mac()));
        }
        assert_eq!(port.poll_at(), None);
    });
}

#[test]
fn a_full_batch_says_so_and_a_flush_empties_it() {
    in_namespace(|| {
        let mut port = TapPort::open("flex0", config()).unwrap();
        bring_up("flex0");
        let header = [0; 60];
        let frame = TxFrame {
            header: &header,
            payload: [&[], &[]],
            offload: PLAIN,
        };
        let fill = |port: &mut TapPort| {
            (0..1000)
                .take_while(|_| port.transmit(Instant::ZERO, frame).is_ok())
                .count()
        };
        let first = fill(&mut port);
        assert_eq!(port.transmit(Instant::ZERO, frame), Err(PortFull));
        port.flush(Instant::ZERO).unwrap();
        assert_eq!(fill(&mut port), first);
        let counters = port.counters();
        assert_eq!(
            (counters.tx_frames, counters.kicks, counters.tx_full),
            (first as u64, 1, 3)
        );
    });
}

#[test]
fn a_removed_tap_is_an_error() {
    in_namespace(|| {
        let mut port = TapPort::open("flex0", config()).unwrap();
        ip("link del flex0");
        assert!(port.arm().is_err());
        assert!(port.receive(Instant::ZERO, 16, &mut |_| ()).is_err());
    });
}

#[test]
fn names_are_checked() {
    in_namespace(|| {
        let error = TapPort::open("a-name-too-long-for-linux", config()).unwrap_err();
        assert_eq!(error.kind(), std::io::ErrorKind::InvalidInput);
    });
}
