use proptest::prelude::*;

use super::*;

fn ring() -> (RecvWriter, RecvReader) {
    recv_ring(&Pool::new(1 << 20))
}

#[test]
fn detached_until_resized() {
    let (mut writer, reader) = ring();
    assert_eq!((writer.capacity(), writer.free()), (0, 0));
    assert_eq!(writer.place(0, b"abc"), 0);
    assert!(reader.is_empty() && reader.fill().is_none());
    writer.resize(1, 0).unwrap();
    assert_eq!(writer.place(0, b"abc"), 3);
    writer.publish(3);
    assert!(!writer.release_if_empty());
    let mut out = [0; 8];
    assert_eq!(reader.peek(&mut out), 3);
    assert_eq!(reader.read(&mut out), 3);
    assert_eq!(&out[..3], b"abc");
    assert_eq!(writer.take_freed(), 3);
    assert!(writer.release_if_empty());
    assert_eq!(writer.pool().used(), 0);
}

#[test]
fn out_of_order_bytes_survive_a_resize() {
    let (mut writer, reader) = ring();
    writer.resize(4096, 0).unwrap();
    writer.place(0, b"ab");
    writer.place(4, b"ef");
    writer.resize(8192, 6).unwrap();
    assert!(!writer.release_if_empty());
    writer.place(2, b"cd");
    writer.publish(6);
    let mut out = [0; 8];
    assert_eq!(reader.read(&mut out), 6);
    assert_eq!(&out[..6], b"abcdef");
}

#[test]
fn a_chunk_holds_its_space() {
    let (mut writer, reader) = ring();
    writer.resize(4096, 0).unwrap();
    writer.place(0, &[1; 4096]);
    writer.publish(4096);
    let first = reader.fill().unwrap();
    assert_eq!(reader.consume(10), 10);
    let second = reader.take_chunk(100).unwrap();
    assert_eq!((first.len(), second.len()), (4096, 100));
    assert_eq!((writer.free(), writer.pinned()), (0, 110));
    drop(first);
    assert_eq!((writer.free(), writer.pinned()), (10, 100));
    writer.place(0, &[2; 10]);
    assert!(second.iter().all(|&byte| byte == 1));
    drop(second);
    assert_eq!(writer.free(), 110);
}

#[test]
fn a_chunk_outlives_ring_and_memory() {
    let (mut writer, reader) = ring();
    writer.resize(4096, 0).unwrap();
    writer.place(0, b"keep");
    writer.publish(4);
    let chunk = reader.take_chunk(4).unwrap();
    writer.resize(4096, 0).unwrap();
    assert_eq!(writer.free(), 4096);
    let pool = Arc::clone(writer.pool());
    drop((writer, reader));
    assert_eq!(&*chunk, b"keep");
    drop(chunk);
    assert_eq!(pool.used(), 0);
}

proptest! {
    /// Against a plain vector: what is placed, published, read, pinned and resized comes out once, in order.
    #[test]
    fn behaves_as_a_queue(steps in prop::collection::vec((0..6_u8, 0..6000_usize), 1..80)) {
        let (mut writer, reader) = ring();
        let (mut next_in, mut next_out) = (0_u64, 0_u64);
        let mut chunks = Vec::new();
        for (step, n) in steps {
            match step {
                0 | 1 => {
                    let bytes: Vec<u8> = (0..n as u64).map(|i| (next_in + i) as u8).collect();
                    let placed = writer.place(0, &bytes);
                    prop_assert_eq!(placed, n.min(writer.free() as usize));
                    writer.publish(placed as u32);
                    next_in += placed as u64;
                }
                2 => {
                    let mut out = vec![0; n];
                    let taken = reader.read(&mut out);
                    let (expected, was) = (next_in - next_out, next_out);
                    prop_assert_eq!(taken, n.min(expected as usize));
                    prop_assert!(out[..taken].iter().enumerate().all(|(i, &b)| b == (was + i as u64) as u8));
                    next_out += taken as u64;
                }
                3 => if let Some(chunk) = reader.take_chunk(n) {
                    chunks.push((next_out, chunk));
                    next_out += chunks.last().unwrap().1.len() as u64;
                },
                4 if !chunks.is_empty() => drop(chunks.swap_remove(n % chunks.len())),
                _ => {
                    writer.resize(n as u32, 0).unwrap();
                    writer.release_if_empty();
                }
            }
            for (start, chunk) in &chunks {
                prop_assert!(chunk.iter().enumerate().all(|(i, &b)| b == (start + i as u64) as u8));
            }
            prop_assert_eq!(writer.unread() as usize, reader.len());
            prop_assert!(writer.free() + writer.unread() + writer.pinned() <= writer.capacity());
        }
    }
}

#[test]
fn two_threads_pass_a_stream() {
    let (mut writer, reader) = ring();
    writer.resize(4096, 0).unwrap();
    const TOTAL: u32 = 1 << 20;
    std::thread::scope(|scope| {
        scope.spawn(|| {
            let (mut next, mut out) = (0_u32, [0; 777]);
            while next < TOTAL {
                let n = reader.read(&mut out);
                for &byte in &out[..n] {
                    assert_eq!(byte, (next % 251) as u8);
                    next += 1;
                }
                if n == 0 {
                    std::thread::yield_now();
                }
            }
        });
        let mut next = 0;
        while next < TOTAL {
            let bytes: Vec<u8> = (next..TOTAL.min(next + 1000))
                .map(|i| (i % 251) as u8)
                .collect();
            let n = writer.place(0, &bytes) as u32;
            writer.publish(n);
            next += n;
            if next % 7 == 0 {
                writer.resize(4096 << (next % 3), 0).unwrap();
            }
            if n == 0 {
                std::thread::yield_now();
            }
        }
    });
}
