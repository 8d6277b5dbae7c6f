//! Loom models of the rings: every interleaving of the two halves, within `LOOM_MAX_PREEMPTIONS`, over rings of four
//! bytes whose every access is watched for a race.
//!
//! `RUSTFLAGS="--cfg flextcp_loom" LOOM_MAX_PREEMPTIONS=2 cargo test -p flextcp-nic --lib models`

use loom::thread;

use super::{Pool, recv_ring, send_ring};

/// Reads until `n` bytes are there, letting the writer run in between.
fn read_all(n: usize, mut read: impl FnMut(&mut [u8]) -> usize) -> Vec<u8> {
    let mut all = Vec::new();
    while all.len() < n {
        let mut buf = [0; 3];
        match read(&mut buf) {
            0 => thread::yield_now(),
            got => all.extend_from_slice(&buf[..got]),
        }
    }
    all
}

/// Six bytes through a ring of four: the writer waits for space, which the reader gives back.
#[test]
fn received_bytes_pass_in_order() {
    loom::model(|| {
        let pool = Pool::new(1 << 10);
        let (mut writer, reader) = recv_ring(&pool);
        writer.resize(4, 0).unwrap();
        let reading = thread::spawn(move || read_all(6, |buf| reader.read(buf)));
        let bytes = [1, 2, 3, 4, 5, 6];
        let mut sent = 0;
        while sent < bytes.len() {
            let n = writer.place(0, &bytes[sent..]);
            if n == 0 {
                thread::yield_now();
                continue;
            }
            writer.publish(n as u32);
            sent += n;
        }
        assert_eq!(reading.join().unwrap(), bytes);
    });
}

/// The ring moves to a larger block while the application reads from the smaller one.
#[test]
fn a_receive_ring_grows_under_its_reader() {
    loom::model(|| {
        let pool = Pool::new(1 << 10);
        let (mut writer, reader) = recv_ring(&pool);
        writer.resize(4, 0).unwrap();
        writer.place(0, &[1, 2]);
        writer.publish(2);
        let reading = thread::spawn(move || read_all(4, |buf| reader.read(buf)));
        // What is placed beyond the tail moves along.
        assert_eq!(writer.place(1, &[4]), 1);
        writer.resize(8, 2).unwrap();
        assert_eq!(writer.place(0, &[3]), 1);
        writer.publish(2);
        assert_eq!(reading.join().unwrap(), [1, 2, 3, 4]);
    });
}

/// A chunk pins its bytes until it is dropped, in whichever memory they are.
#[test]
fn a_chunk_outlives_a_resize_and_holds_its_space() {
    loom::model(|| {
        let pool = Pool::new(1 << 10);
        let (mut writer, reader) = recv_ring(&pool);
        writer.resize(4, 0).unwrap();
        writer.place(0, &[1, 2, 3]);
        writer.publish(3);
        let chunk = reader.take_chunk(2).unwrap();
        let holding = thread::spawn(move || {
            assert_eq!(&chunk[..], [1, 2]);
            drop(chunk);
            let mut buf = [0; 1];
            assert_eq!((reader.read(&mut buf), buf), (1, [3]));
            reader
        });
        // At most one byte fits while the chunk lives; all that fits is written over nothing that is read.
        let placed = writer.place(0, &[4, 5, 6]);
        writer.publish(placed as u32);
        writer.resize(8, 0).unwrap();
        writer.place(0, &[7]);
        writer.publish(1);
        let reader = holding.join().unwrap();
        let rest = read_all(placed + 1, |buf| reader.read(buf));
        assert_eq!(rest[..placed], [4, 5, 6][..placed]);
        assert_eq!(rest[placed], 7);
        assert_eq!(writer.free(), 8);
    });
}

/// An idle ring gives its memory back only when nothing is in it, and comes back empty.
#[test]
fn an_idle_receive_ring_is_released_beside_its_reader() {
    loom::model(|| {
        let pool = Pool::new(1 << 10);
        let (mut writer, reader) = recv_ring(&pool);
        writer.resize(4, 0).unwrap();
        writer.place(0, &[1, 2]);
        writer.publish(2);
        let reading = thread::spawn(move || read_all(3, |buf| reader.read(buf)));
        if writer.release_if_empty() {
            assert_eq!(writer.capacity(), 0);
            writer.resize(4, 0).unwrap();
        }
        assert_eq!(writer.place(0, &[3]), 1);
        writer.publish(1);
        assert_eq!(reading.join().unwrap(), [1, 2, 3]);
    });
}

/// What the application writes, growing the ring, is sent in order and released.
#[test]
fn written_bytes_pass_in_order_while_the_ring_grows() {
    loom::model(|| {
        let pool = Pool::new(1 << 10);
        let (writer, mut reader) = send_ring(&pool, 8);
        let writing = thread::spawn(move || {
            let bytes = [1, 2, 3, 4, 5, 6];
            // The first two fit four bytes, the rest needs eight.
            let mut written = writer.write(&bytes[..2]);
            while written < bytes.len() {
                match writer.write(&bytes[written..]) {
                    0 => thread::yield_now(),
                    n => written += n,
                }
            }
            writer
        });
        let mut sent = Vec::new();
        while sent.len() < 6 {
            let n = reader.take_written();
            if n == 0 {
                thread::yield_now();
                continue;
            }
            let parts = reader.slices(0, n);
            sent.extend_from_slice(parts[0]);
            sent.extend_from_slice(parts[1]);
            reader.release(n);
        }
        assert_eq!(sent, [1, 2, 3, 4, 5, 6]);
        let writer = writing.join().unwrap();
        assert_eq!((writer.len(), writer.free()), (0, 8));
    });
}

/// The NIC's half gives an idle ring's memory back beside a writer.
#[test]
fn an_idle_send_ring_is_released_beside_its_writer() {
    loom::model(|| {
        let pool = Pool::new(1 << 10);
        let (writer, mut reader) = send_ring(&pool, 4);
        assert_eq!(writer.write(&[1]), 1);
        assert_eq!(reader.take_written(), 1);
        reader.release(1);
        let writing = thread::spawn(move || assert_eq!(writer.write(&[2, 3]), 2));
        reader.release_if_empty();
        writing.join().unwrap();
        assert_eq!(reader.take_written(), 2);
        assert_eq!(reader.slices(0, 2).concat(), [2, 3]);
    });
}
