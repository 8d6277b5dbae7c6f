//! What a port leaves to the kernel: checksums and the cutting of super-frames.

use std::num::NonZeroU16;
use std::process::Command;
use std::time::{Duration, Instant as Clock};

use crate::flow::FlowTuple;
use crate::port::testing::{in_namespace, veth};
use crate::port::xdp::{XdpConfig, XdpInterface, XdpPort};
use crate::port::{Port, RxChecksum, RxFrame, TxFrame, TxOffload};
use crate::seq::SeqNum;
use crate::time::Instant;
use crate::wire::{MAX_HEADER_LEN, MacAddr, Packet, SegmentRepr, TcpFlags, TcpOptions, parse};

const MSS: u16 = 1428;

fn ethtool(interface: &str, settings: &[&str]) {
    let output = Command::new("ethtool")
        .args(["-K", interface])
        .args(settings)
        .output()
        .expect("ethtool is installed");
    let error = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "ethtool: {error}");
}

fn repr(from: &str, to: &str) -> SegmentRepr {
    let (from, to): (std::net::SocketAddr, std::net::SocketAddr) =
        (from.parse().unwrap(), to.parse().unwrap());
    SegmentRepr {
        src_mac: MacAddr([2, 0, 0, 0, 0, 1]),
        dst_mac: MacAddr([2, 0, 0, 0, 0, 2]),
        tuple: FlowTuple {
            local: (from.ip(), from.port()),
            remote: (to.ip(), to.port()),
        },
        tos: 0,
        ttl: 64,
        seq: SeqNum(7),
        ack: SeqNum(9),
        flags: TcpFlags::ACK | TcpFlags::PSH,
        window: 1000,
        urgent: 0,
        options: TcpOptions::with_timestamps(3, 4),
    }
}

/// Sends `payload` with everything left to the port, and collects frames until all of it arrived.
fn send_and_collect(
    left: &mut XdpPort,
    right: &mut XdpPort,
    repr: &SegmentRepr,
    payload: &[u8],
) -> Vec<Vec<u8>> {
    let (first, second) = payload.split_at(payload.len() / 3);
    let mut header = [0; MAX_HEADER_LEN];
    let len = repr.emit([first, second], true, &mut header);
    let frame = TxFrame {
        header: &header[..len],
        payload: [first, second],
        offload: TxOffload {
            checksum: true,
            segment: NonZeroU16::new(MSS).filter(|_| payload.len() > usize::from(MSS)),
        },
    };
    left.transmit(Instant::ZERO, frame).unwrap();
    left.flush(Instant::ZERO).unwrap();
    let deadline = Clock::now() + Duration::from_secs(20);
    let mut frames: Vec<Vec<u8>> = Vec::new();
    while frames.iter().map(|frame| frame.len() - len).sum::<usize>() < payload.len() {
        assert!(Clock::now() < deadline, "{:?}", right.counters());
        right
            .receive(Instant::ZERO, 256, &mut |frame| frames.push(frame.to_vec()))
            .unwrap();
    }
    frames
}

fn check(settings: &[&str], checksum: RxChecksum, expected_frames: fn(usize) -> usize) {
    in_namespace(|| {
        veth("left", "right");
        ethtool("left", settings);
        let config = XdpConfig {
            segmentation: true,
            ..XdpConfig::default()
        };
        let left = XdpInterface::attach("left", config.clone()).unwrap();
        let right = XdpInterface::attach("right", config).unwrap();
        let mut ports = [left.queue(0).unwrap(), right.queue(0).unwrap()];
        let [a, b] = &mut ports;
        assert!(a.info().tx_checksum && a.info().tx_segment_max.is_some());
        for (from, to) in [
            ("10.9.0.1:1000", "10.9.0.2:2000"),
            ("[fd00::1]:1000", "[fd00::2]:2000"),
        ] {
            right.steering().own(to.parse().unwrap()).unwrap();
            let repr = repr(from, to);
            for len in [1, 64, 1428, 1429, 5000, 65_000] {
                let payload: Vec<u8> = (0..len).map(|index| (index * 7) as u8).collect();
                let frames = send_and_collect(a, b, &repr, &payload);
                assert_eq!(frames.len(), expected_frames(len), "{len} bytes");
                let mut bytes = Vec::new();
                for frame in &frames {
                    let Ok(Packet::Tcp(tcp)) = parse(&RxFrame::contiguous(frame, checksum)) else {
                        panic!("{len} bytes: the frame does not verify");
                    };
                    assert_eq!(tcp.tcp.seq, repr.seq + bytes.len() as u32);
                    assert_eq!(tcp.tcp.options, repr.options);
                    bytes.extend_from_slice(&frame[tcp.payload_offset..][..tcp.payload_len]);
                }
                assert!(bytes == payload, "{len} bytes");
            }
        }
        assert_eq!(b.counters().rx_dropped, 0);
    });
}

#[test]
fn a_super_frame_crosses_a_link_that_takes_it_whole() {
    check(&["tso", "on"], RxChecksum::MaybePartial, |_| 1);
}

#[test]
fn a_device_without_segmentation_has_the_kernel_cut() {
    let cut = |len: usize| len.div_ceil(MSS.into());
    check(&["tso", "off", "gso", "off"], RxChecksum::MaybePartial, cut);
}

#[test]
fn a_device_without_checksums_has_the_kernel_complete_them() {
    let cut = |len: usize| len.div_ceil(MSS.into());
    check(&["tx", "off"], RxChecksum::Unverified, cut);
}
