use std::process::Command;
use std::sync::{Arc, Mutex};

use super::*;
use crate::flow::FlowTuple;
use crate::port::TxOffload;
use crate::port::memory::{MemoryConfig, MemoryPort};
use crate::seq::SeqNum;
use crate::wire::{MAX_HEADER_LEN, MacAddr, SegmentRepr, TcpFlags, TcpOptions};

/// A file that outlives the capture.
#[derive(Clone, Default)]
struct Shared(Arc<Mutex<Vec<u8>>>);

impl Write for Shared {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.lock().unwrap().extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[derive(Debug, PartialEq)]
struct Record {
    nanos: u64,
    flags: u32,
    original: u32,
    bytes: Vec<u8>,
}

/// A pcapng reader of its own, strict about lengths.
fn read(file: &[u8]) -> Vec<Record> {
    let word = |bytes: &[u8], at: usize| u32::from_ne_bytes(bytes[at..at + 4].try_into().unwrap());
    let mut records = Vec::new();
    let mut rest = file;
    let mut kinds = Vec::new();
    while !rest.is_empty() {
        let total = word(rest, 4) as usize;
        assert_eq!(total % 4, 0);
        assert_eq!(
            word(rest, total - 4) as usize,
            total,
            "lengths at both ends"
        );
        let body = &rest[8..total - 4];
        kinds.push(word(rest, 0));
        match word(rest, 0) {
            0x0a0d_0d0a => assert_eq!(word(body, 0), 0x1a2b_3c4d),
            1 => assert_eq!(u16::from_ne_bytes([body[0], body[1]]), 1, "Ethernet"),
            6 => {
                let captured = word(body, 12) as usize;
                let options = 20 + captured.next_multiple_of(4);
                assert_eq!(word(body, options), u32::from_ne_bytes([2, 0, 4, 0]));
                assert_eq!(word(body, options + 8), 0);
                records.push(Record {
                    nanos: u64::from(word(body, 4)) << 32 | u64::from(word(body, 8)),
                    flags: word(body, options + 4),
                    original: word(body, 16),
                    bytes: body[20..20 + captured].to_vec(),
                });
            }
            other => panic!("block {other}"),
        }
        rest = &rest[total..];
    }
    assert_eq!(kinds[..2], [0x0a0d_0d0a, 1]);
    records
}

fn segment(payload: &[u8]) -> Vec<u8> {
    let repr = SegmentRepr {
        src_mac: MacAddr([2, 0, 0, 0, 0, 1]),
        dst_mac: MacAddr([2, 0, 0, 0, 0, 2]),
        tuple: FlowTuple {
            local: ([10, 0, 0, 1].into(), 4242),
            remote: ([10, 0, 0, 2].into(), 80),
        },
        tos: 0,
        ttl: 64,
        seq: SeqNum(1),
        ack: SeqNum(2),
        flags: TcpFlags::ACK | TcpFlags::PSH,
        window: 100,
        urgent: 0,
        options: TcpOptions::with_timestamps(1, 2),
    };
    let mut header = [0; MAX_HEADER_LEN];
    let len = repr.emit([payload, &[]], false, &mut header);
    [&header[..len], payload].concat()
}

fn captured(config: CaptureConfig, payloads: &[&[u8]]) -> (Vec<u8>, Vec<Vec<u8>>, u64) {
    let fragmented = MemoryConfig {
        fragment: std::num::NonZeroUsize::new(150),
        ..Default::default()
    };
    let (a, mut b) = MemoryPort::pair(fragmented, MemoryConfig::default()).unwrap();
    let file = Shared::default();
    let mut a = Capture::new(a, file.clone(), config).unwrap();
    let mut frames = Vec::new();
    for (step, payload) in payloads.iter().enumerate() {
        let now = Instant::from_nanos(1_500_000_001 + step as u64);
        let frame = segment(payload);
        let (header, rest) = frame.split_at(60);
        let (first, second) = rest.split_at(rest.len() / 2);
        let offload = TxOffload::default();
        if step % 2 == 0 {
            a.transmit(
                now,
                TxFrame {
                    header,
                    payload: [first, second],
                    offload,
                },
            )
            .unwrap();
            a.flush(now).unwrap();
        } else {
            b.transmit(
                now,
                TxFrame {
                    header,
                    payload: [first, second],
                    offload,
                },
            )
            .unwrap();
            b.flush(now).unwrap();
            assert_eq!(
                a.receive(now, 8, &mut |got| assert_eq!(got.to_vec(), frame))
                    .unwrap(),
                1
            );
        }
        frames.push(frame);
    }
    assert!(a.error().is_none());
    let count = a.frames();
    drop(a);
    let bytes = file.0.lock().unwrap().clone();
    (bytes, frames, count)
}

const PAYLOADS: [&[u8]; 5] = [b"GET / HTTP/1.1", b"", &[7; 1000], &[8; 999], b"x"];

#[test]
fn what_passes_is_in_the_file() {
    let config = CaptureConfig {
        epoch: Duration::from_secs(1_700_000_000),
        ..Default::default()
    };
    let (file, frames, count) = captured(config, &PAYLOADS);
    let records = read(&file);
    assert_eq!(
        (records.len(), count),
        (PAYLOADS.len(), PAYLOADS.len() as u64)
    );
    for (step, (record, frame)) in records.iter().zip(frames).enumerate() {
        let expected = Record {
            nanos: 1_700_000_001_500_000_001 + step as u64,
            flags: if step % 2 == 0 { 2 } else { 1 },
            original: frame.len() as u32,
            bytes: frame,
        };
        assert_eq!(*record, expected);
    }
}

#[test]
fn frames_are_cut_at_the_snap_length() {
    let config = CaptureConfig {
        snap_len: 75,
        ..Default::default()
    };
    let (file, frames, _) = captured(config, &PAYLOADS);
    for (record, frame) in read(&file).iter().zip(frames) {
        assert_eq!(record.original as usize, frame.len());
        assert_eq!(record.bytes, frame[..frame.len().min(75)]);
    }
}

#[test]
fn the_limit_ends_the_capture_and_not_the_traffic() {
    let config = CaptureConfig {
        max_bytes: 400,
        ..Default::default()
    };
    let (file, frames, count) = captured(config, &PAYLOADS);
    assert!(file.len() <= 400);
    let records = read(&file);
    assert_eq!(records.len() as u64, count);
    assert!(!records.is_empty() && records.len() < frames.len());
}

#[test]
fn a_write_error_ends_the_capture_and_not_the_traffic() {
    /// A disk that is full after the headers.
    struct Full(usize);
    impl Write for Full {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.0 = self
                .0
                .checked_sub(bytes.len())
                .ok_or(io::ErrorKind::StorageFull)?;
            Ok(bytes.len())
        }
        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }
    let (a, mut b) = MemoryPort::pair(MemoryConfig::default(), MemoryConfig::default()).unwrap();
    let mut a = Capture::new(a, Full(200), CaptureConfig::default()).unwrap();
    for _ in 0..3 {
        let frame = segment(b"data");
        let frame = TxFrame {
            header: &frame,
            payload: [&[], &[]],
            offload: TxOffload::default(),
        };
        a.transmit(Instant::ZERO, frame).unwrap();
    }
    a.flush(Instant::ZERO).unwrap();
    assert_eq!(b.receive(Instant::ZERO, 8, &mut |_| ()).unwrap(), 3);
    assert_eq!(
        a.error().map(io::Error::kind),
        Some(io::ErrorKind::StorageFull)
    );
    assert!(a.frames() < 3);
}

/// Independent readers, where they are installed.
#[test]
fn tcpdump_and_tshark_read_it() {
    let config = CaptureConfig {
        epoch: Duration::from_secs(1_700_000_000),
        ..Default::default()
    };
    let (bytes, ..) = captured(config, &PAYLOADS);
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("capture.pcapng");
    std::fs::write(&path, bytes).unwrap();
    let run = |program: &str, arguments: &[&str]| match Command::new(program)
        .args(arguments)
        .arg(&path)
        .output()
    {
        Ok(output) => {
            let error = String::from_utf8_lossy(&output.stderr).into_owned();
            assert!(output.status.success(), "{program}: {error}");
            Some(String::from_utf8(output.stdout).unwrap())
        }
        Err(error) => {
            eprintln!("SKIPPED: {program} is not installed ({error})");
            None
        }
    };
    if let Some(text) = run("tcpdump", &["-nn", "-vv", "-r"]) {
        assert_eq!(
            text.matches("10.0.0.1.4242 > 10.0.0.2.80").count(),
            PAYLOADS.len(),
            "{text}"
        );
        assert_eq!(text.matches("(correct)").count(), PAYLOADS.len(), "{text}");
    }
    let fields = [
        "-T",
        "fields",
        "-e",
        "frame.time_epoch",
        "-e",
        "frame.packet_flags_direction",
    ];
    if let Some(text) = run("tshark", &[&fields[..], &["-e", "tcp.len", "-r"]].concat()) {
        let rows: Vec<Vec<&str>> = text
            .lines()
            .map(|line| line.split('\t').collect())
            .collect();
        assert_eq!(rows.len(), PAYLOADS.len(), "{text}");
        assert!(rows[0][0].contains("1.500000001"), "{text}");
        for (row, payload) in rows.iter().zip(PAYLOADS) {
            assert_eq!(row[2], payload.len().to_string(), "{text}");
        }
    }
}
