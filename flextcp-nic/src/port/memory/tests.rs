use std::thread;

use rustix::event::{PollFd, PollFlags, Timespec, poll};

use super::*;
use crate::port::TxOffload;

const NOW: Instant = Instant::ZERO;

fn pair(config: MemoryConfig) -> (MemoryPort, MemoryPort) {
    MemoryPort::pair(config.clone(), config).unwrap()
}

fn send(port: &mut dyn Port, header: &[u8], payload: [&[u8]; 2]) -> Result<(), PortFull> {
    port.transmit(
        NOW,
        TxFrame {
            header,
            payload,
            offload: TxOffload::default(),
        },
    )
}

fn receive_all(port: &mut dyn Port) -> Vec<Vec<u8>> {
    let mut frames = Vec::new();
    port.receive(NOW, usize::MAX, &mut |frame| frames.push(frame.to_vec()))
        .unwrap();
    frames
}

fn is_readable(port: &dyn Port, wait_secs: i64) -> bool {
    let fd = port.wake_fd().unwrap();
    let timeout = Timespec {
        tv_sec: wait_secs,
        tv_nsec: 0,
    };
    poll(&mut [PollFd::new(&fd, PollFlags::IN)], Some(&timeout)).unwrap() == 1
}

#[test]
fn frames_arrive_whole_in_order_after_flush() {
    let (mut a, mut b) = pair(MemoryConfig::default());
    send(&mut a, b"head", [b"er and", b" payload"]).unwrap();
    send(&mut a, b"second", [b"", b""]).unwrap();
    assert!(receive_all(&mut b).is_empty());
    a.flush(NOW).unwrap();
    assert_eq!(
        receive_all(&mut b),
        [b"header and payload".to_vec(), b"second".to_vec()]
    );
    assert!(receive_all(&mut a).is_empty());
    assert_eq!((a.counters().tx_frames, a.counters().tx_bytes), (2, 24));
    assert_eq!((b.counters().rx_frames, b.counters().rx_bytes), (2, 24));
}

#[test]
fn budget_is_kept_and_the_rest_still_waits() {
    let (mut a, mut b) = pair(MemoryConfig::default());
    for byte in 0..5 {
        send(&mut a, &[byte], [b"", b""]).unwrap();
    }
    a.flush(NOW).unwrap();
    let mut seen = Vec::new();
    assert_eq!(
        b.receive(NOW, 2, &mut |frame| seen.extend_from_slice(frame.head))
            .unwrap(),
        2
    );
    assert!(!b.arm().unwrap(), "three frames wait");
    assert_eq!(
        b.receive(NOW, 9, &mut |frame| seen.extend_from_slice(frame.head))
            .unwrap(),
        3
    );
    assert_eq!(seen, [0, 1, 2, 3, 4]);
    assert!(b.arm().unwrap());
}

#[test]
fn a_full_queue_drops_at_the_tail_and_a_full_batch_refuses() {
    let config = MemoryConfig {
        queue_frames: 2,
        ..MemoryConfig::default()
    };
    let (mut a, mut b) = pair(config);
    for round in 0..2 {
        send(&mut a, &[round, 0], [b"", b""]).unwrap();
        send(&mut a, &[round, 1], [b"", b""]).unwrap();
        assert_eq!(send(&mut a, &[round, 2], [b"", b""]), Err(PortFull));
        a.flush(NOW).unwrap();
    }
    assert_eq!(receive_all(&mut b), [[0, 0], [0, 1]]);
    assert_eq!(b.counters().rx_dropped, 2);
    assert_eq!(a.counters().tx_full, 2);

    let config = MemoryConfig {
        queue_bytes: 10,
        ..MemoryConfig::default()
    };
    let (mut a, mut b) = pair(config);
    for length in [6, 5, 4] {
        send(&mut a, &vec![0; length], [b"", b""]).unwrap();
    }
    a.flush(NOW).unwrap();
    let lengths: Vec<usize> = receive_all(&mut b).iter().map(Vec::len).collect();
    assert_eq!(lengths, [6, 4]);
}

#[test]
fn long_frames_come_in_fragments_when_asked() {
    let config = MemoryConfig {
        fragment: NonZeroUsize::new(200),
        ..MemoryConfig::default()
    };
    let (mut a, mut b) = pair(config);
    let bytes: Vec<u8> = (0..=255).cycle().take(950).collect();
    send(&mut a, &bytes[..60], [&bytes[60..500], &bytes[500..]]).unwrap();
    a.flush(NOW).unwrap();
    let mut shape = Vec::new();
    b.receive(NOW, 1, &mut |frame| {
        shape.push(frame.head.len());
        shape.extend(frame.tail.iter().map(|fragment| fragment.len()));
        assert_eq!(frame.to_vec(), bytes);
        let middle: Vec<u8> = frame.slices(150, 300).flatten().copied().collect();
        assert_eq!(middle, bytes[150..450]);
    })
    .unwrap();
    assert_eq!(shape, [200, 200, 200, 200, 150]);
}

#[test]
fn only_frames_left_incomplete_are_trusted() {
    let (mut a, mut b) = pair(MemoryConfig {
        tx_checksum: true,
        ..MemoryConfig::default()
    });
    for checksum in [false, true] {
        let offload = TxOffload {
            checksum,
            segment: None,
        };
        a.transmit(
            NOW,
            TxFrame {
                header: b"frame",
                payload: [b"", b""],
                offload,
            },
        )
        .unwrap();
    }
    a.flush(NOW).unwrap();
    let mut seen = Vec::new();
    b.receive(NOW, 2, &mut |frame| seen.push(frame.checksum))
        .unwrap();
    assert_eq!(seen, [RxChecksum::Unverified, RxChecksum::Trusted]);
}

#[test]
fn only_an_armed_end_is_woken_and_once() {
    let (mut a, mut b) = pair(MemoryConfig::default());
    send(&mut a, b"x", [b"", b""]).unwrap();
    a.flush(NOW).unwrap();
    assert!(!is_readable(&b, 0), "nobody asked");
    assert!(!b.arm().unwrap(), "a frame waits");
    receive_all(&mut b);

    assert!(b.arm().unwrap());
    assert!(!is_readable(&b, 0));
    for _ in 0..3 {
        send(&mut a, b"x", [b"", b""]).unwrap();
        a.flush(NOW).unwrap();
    }
    assert!(is_readable(&b, 0));
    assert_eq!(a.counters().kicks, 1);
    assert_eq!(receive_all(&mut b).len(), 3);
    assert!(!is_readable(&b, 0), "receiving clears the descriptor");
    assert!(b.arm().unwrap());
}

#[test]
fn buffers_are_reused() {
    let (mut a, mut b) = pair(MemoryConfig::default());
    let payload = [7; 1400];
    let mut seen = std::collections::HashSet::new();
    for _ in 0..1000 {
        send(&mut a, &[0; 54], [&payload, b""]).unwrap();
        a.flush(NOW).unwrap();
        b.receive(NOW, 64, &mut |frame| {
            seen.insert(frame.head.as_ptr());
        })
        .unwrap();
    }
    assert!(seen.len() <= 4, "{} different buffers", seen.len());
}

/// Ping-pong between two threads that sleep whenever they may: a lost wake-up would hang it.
#[test]
fn no_wake_up_is_lost_between_threads() {
    const ROUNDS: u32 = 20_000;
    fn next(port: &mut MemoryPort) -> u32 {
        let mut value = None;
        loop {
            port.receive(NOW, 1, &mut |frame| {
                value = Some(u32::from_be_bytes(frame.head.try_into().unwrap()));
            })
            .unwrap();
            if let Some(value) = value {
                return value;
            }
            if port.arm().unwrap() {
                assert!(is_readable(port, 30), "no wake-up within 30 s");
            }
        }
    }
    let (mut a, mut b) = pair(MemoryConfig::default());
    let echo = thread::spawn(move || {
        for _ in 0..ROUNDS {
            let value = next(&mut b);
            send(&mut b, &value.to_be_bytes(), [b"", b""]).unwrap();
            b.flush(NOW).unwrap();
        }
    });
    for round in 0..ROUNDS {
        send(&mut a, &round.to_be_bytes(), [b"", b""]).unwrap();
        a.flush(NOW).unwrap();
        assert_eq!(next(&mut a), round);
    }
    echo.join().unwrap();
}

#[test]
fn sending_to_a_closed_end_is_harmless() {
    let (mut a, b) = pair(MemoryConfig {
        queue_frames: 8,
        ..MemoryConfig::default()
    });
    drop(b);
    for _ in 0..100 {
        send(&mut a, b"x", [b"", b""]).unwrap();
        a.flush(NOW).unwrap();
    }
    assert!(a.arm().unwrap());
}

#[test]
fn the_hairpin_receives_what_it_sent() {
    let mut port = LoopbackPort::new();
    assert!(port.arm().unwrap());
    send(&mut port, b"one ", [b"fr", b"ame"]).unwrap();
    assert!(!port.arm().unwrap(), "a frame waits");
    assert!(receive_all(&mut port).is_empty(), "not flushed yet");
    port.flush(NOW).unwrap();
    send(&mut port, b"two", [b"", b""]).unwrap();
    assert_eq!(receive_all(&mut port), [b"one frame"]);
    port.flush(NOW).unwrap();
    assert_eq!(receive_all(&mut port), [b"two"]);
    assert!(port.arm().unwrap());
    assert!(port.wake_fd().is_none());
    assert_eq!(
        (port.counters().tx_bytes, port.counters().rx_bytes),
        (12, 12)
    );
}

#[test]
fn the_hairpin_is_bounded_and_loses_nothing() {
    let mut port = LoopbackPort::new();
    let payload = vec![1; 65_000];
    let mut sent = 0;
    while send(&mut port, &[0; 54], [&payload, b""]).is_ok() {
        sent += 1;
        assert!(sent <= LOOPBACK_FRAMES);
    }
    assert!(sent * payload.len() <= LOOPBACK_BYTES + payload.len());
    port.flush(NOW).unwrap();
    assert_eq!(receive_all(&mut port).len(), sent);
    assert!(send(&mut port, &[0; 54], [&payload, b""]).is_ok());
}
