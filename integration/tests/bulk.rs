//! Large frames of kernel sockets on `lo`, which reach us around XDP: none is lost, none comes twice, small ones among
//! them keep their place, and nothing is left when the server goes.

use std::fs;
use std::io::{self, Read as _, Write as _};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::thread;
use std::time::Duration;

use integration::netns::{Namespace, require_privileges, skip};
use integration::places::{Family, Place};
use integration::process::{serial, wait_for, wait_until};
use integration::programs::{Server, ServerOptions};
use integration::stats::{STATS_FILE, Stats};
use rustix::process::Signal;
use socket2::{Domain, Socket, Type};
use tempfile::NamedTempFile;

const LIMIT: Duration = Duration::from_secs(60);
const SEED: u64 = 0x0b5e_55ed;
const TOTAL: usize = 96 << 20;

/// xorshift64.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0
    }

    /// Mostly what bulk is made of, sometimes a few bytes, sometimes a page or two.
    fn piece(&mut self) -> usize {
        let below = match self.next() % 4 {
            0 => 64,
            1 => 9000,
            _ => 256 << 10,
        };
        1 + (self.next() % below) as usize
    }

    /// Now and then longer than small frames stay with large ones.
    fn pause(&mut self) {
        if self.next().is_multiple_of(64) {
            thread::sleep(Duration::from_millis(self.next() % 16));
        }
    }
}

/// Frames that went into the queue of the namespace's one TAP; `None` when there is none.
fn frames_around(namespace: &Namespace) -> Option<u64> {
    namespace.frames_sent("flextcp0")
}

fn connect(place: &Place, server: SocketAddr, congestion: &str) -> TcpStream {
    let connect = || {
        let socket = Socket::new(Domain::for_address(server), Type::STREAM, None)?;
        // Before the connection: a socket that ever ran BBR stays paced.
        socket.set_tcp_congestion(congestion.as_bytes())?;
        socket.connect_timeout(&server.into(), LIMIT)?;
        Ok::<_, io::Error>(TcpStream::from(socket))
    };
    let stream = place.client().within(connect).unwrap().unwrap();
    stream.set_nodelay(true).unwrap();
    stream.set_read_timeout(Some(LIMIT)).unwrap();
    stream.set_write_timeout(Some(LIMIT)).unwrap();
    stream
}

/// Sends `TOTAL` bytes in pieces of all sizes and compares what comes back.
fn exchange(stream: &TcpStream, seed: u64) {
    let mut random = Random(seed);
    let bytes: Vec<u8> = std::iter::repeat_with(|| random.next().to_le_bytes())
        .take(TOTAL / 8)
        .flatten()
        .collect();
    thread::scope(|scope| {
        scope.spawn(|| {
            let mut rest = &bytes[..];
            let mut to = stream;
            while !rest.is_empty() {
                let (piece, later) = rest.split_at(random.piece().min(rest.len()));
                to.write_all(piece).unwrap();
                rest = later;
                random.pause();
            }
            stream.shutdown(Shutdown::Write).unwrap();
        });
        let mut answer = vec![0; 256 << 10];
        let mut received = 0;
        let mut from = stream;
        loop {
            let n = from.read(&mut answer).unwrap();
            if n == 0 {
                break;
            }
            assert!(
                bytes.get(received..received + n) == Some(&answer[..n]),
                "seed {seed:#x}: other bytes at {received}"
            );
            received += n;
        }
        assert_eq!(received, TOTAL, "seed {seed:#x}");
    });
}

fn start(place: &Place, family: Family, stats: &NamedTempFile) -> Server {
    let mut options = ServerOptions::new("echo", place.server_ip(family), place.device());
    let path = stats.path().to_str().expect("a temporary path is text");
    options.env.push((STATS_FILE, path.to_owned()));
    Server::start(place.server(), &options).unwrap()
}

/// What the server counted, which it says at its end.
fn stop(server: Server, file: &NamedTempFile) -> Stats {
    server.process.signal(Signal::TERM).unwrap();
    let ended = server.process.finish(LIMIT).unwrap();
    assert!(ended.status.success(), "{}", ended.stderr);
    let stats = Stats::read_lines(file.path()).unwrap().pop().unwrap();
    stats.assert_offloaded();
    stats
}

#[test]
fn bytes_in_pieces_of_all_sizes_come_back_in_order() {
    if !require_privileges("bytes_in_pieces_of_all_sizes_come_back_in_order") {
        return;
    }
    let _serial = serial();
    println!("seed {SEED:#x}");
    let place = Place::loopback("bulk").unwrap();
    for family in [Family::V4, Family::V6] {
        let file = NamedTempFile::new().unwrap();
        let server = start(&place, family, &file);
        thread::scope(|scope| {
            for n in 0..2 {
                let stream = connect(&place, server.address, "reno");
                scope.spawn(move || exchange(&stream, SEED + n));
            }
        });
        let around = frames_around(place.server()).expect("a TAP beside lo");
        let stats = stop(server, &file);
        let frames = stats.count("port.frames_in");
        println!("{around} of {frames} frames went around XDP");
        // 64 KiB each at most, and most of the bytes come in large ones.
        assert!(around > (2 * TOTAL / (64 << 10)) as u64, "{around} frames");
        assert!(frames >= around, "{frames} of {around} frames were read");
    }
}

#[test]
fn a_paced_sender_keeps_the_way_it_is_faster_on() {
    if !require_privileges("a_paced_sender_keeps_the_way_it_is_faster_on") {
        return;
    }
    let known = "/proc/sys/net/ipv4/tcp_available_congestion_control";
    if !fs::read_to_string(known).unwrap().contains("bbr") {
        skip(
            "a_paced_sender_keeps_the_way_it_is_faster_on",
            "this kernel has no BBR, whose segments it paces",
        );
        return;
    }
    let _serial = serial();
    let place = Place::loopback("bulkpaced").unwrap();
    let file = NamedTempFile::new().unwrap();
    let server = start(&place, Family::V4, &file);
    let stream = connect(&place, server.address, "bbr");
    exchange(&stream, SEED);
    assert_eq!(frames_around(place.server()), Some(0));
    stop(server, &file);
}

#[test]
fn a_killed_server_leaves_no_tap_and_the_kernel_has_lo_again() {
    if !require_privileges("a_killed_server_leaves_no_tap_and_the_kernel_has_lo_again") {
        return;
    }
    let _serial = serial();
    let place = Place::loopback("bulkkill").unwrap();
    let file = NamedTempFile::new().unwrap();
    let mut server = start(&place, Family::V4, &file);
    let mut stream = connect(&place, server.address, "reno");
    // No more than fits on its way there and back: nobody reads the answer.
    stream.write_all(&vec![1; 512 << 10]).unwrap();
    assert!(frames_around(place.server()).is_some_and(|frames| frames > 0));
    server.process.signal(Signal::KILL).unwrap();
    wait_until(LIMIT, "the server to die", || !server.process.is_running()).unwrap();
    wait_until(LIMIT, "the TAP to go", || {
        frames_around(place.server()).is_none()
    })
    .unwrap();
    // The same port and bulk of the same size, now the kernel's own.
    let address = server.address;
    let listener = wait_for(LIMIT, "the port", || {
        let bound = place.server().within(|| TcpListener::bind(address));
        bound.unwrap().ok()
    })
    .unwrap();
    let receiver = thread::spawn(move || {
        let (mut taken, _) = listener.accept().unwrap();
        let mut bytes = Vec::new();
        taken.read_to_end(&mut bytes).unwrap();
        bytes.len()
    });
    let mut stream = connect(&place, address, "reno");
    stream.write_all(&vec![1; 8 << 20]).unwrap();
    drop(stream);
    assert_eq!(receiver.join().unwrap(), 8 << 20);
}
