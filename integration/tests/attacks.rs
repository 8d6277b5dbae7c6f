//! Attacks on a server of ours while a kernel's upload runs: the transfer keeps its rate, memory stays in its bound,
//! nothing breaks, and the counters tell what was done.
//!
//! The upload goes over a path of 100 Mbit/s, which leaves the machine room for the attack itself. The attacker sits behind
//! the path and injects frames straight into the server's link; it knows the victims' addresses and ports, and as much of
//! their sequence numbers as each attack says.

use std::fs;
use std::io::Write as _;
use std::net::{Ipv4Addr, SocketAddr, TcpStream};
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use flextcp_nic::flow::FlowTuple;
use flextcp_nic::port::packet::PacketPort;
use flextcp_nic::port::{Port as _, TxFrame, TxOffload};
use flextcp_nic::seq::{SeqNum, WindowScale};
use flextcp_nic::wire::checksum::Checksum;
use flextcp_nic::wire::{MAX_HEADER_LEN, SegmentRepr, TcpFlags, TcpOptions, TcpPacket, Timestamps};
use integration::netns::require_privileges;
use integration::path::{Path, Watch};
use integration::process::{Process, serial, wait_until};
use integration::stats::{STATS_FILE, Stats};

const LIMIT: Duration = Duration::from_secs(30);
/// Of all rings, and of a receive ring.
const MEMORY: u64 = 32 << 20;
const RECV_RING: u64 = 1 << 20;
/// What the server may hold beyond rings: queues, tables, tasks, pages of its program.
const BESIDES: u64 = 4 << 20;
/// How long a rate is measured: bytes over time, not a wait for something to happen.
const SPAN: Duration = Duration::from_millis(1200);

/// Bytes of a connection after which it has filled the link and its queue.
const PAST_SLOW_START: u32 = 2 << 20;

/// SplitMix64: the seed is printed.
struct Rng(u64);

impl Rng {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    fn number(&mut self) -> u32 {
        self.next() as u32
    }
}

/// Makes one frame out of a victim's last segment.
type Forge = fn(&mut Rng, &TcpPacket) -> Vec<u8>;

/// The victim's next segment, as far as the stranger knows it.
fn imitate(victim: &TcpPacket) -> SegmentRepr {
    SegmentRepr {
        src_mac: victim.src_mac,
        dst_mac: victim.dst_mac,
        tuple: victim.tuple.reversed(),
        tos: 0,
        ttl: 64,
        seq: victim.seq_end(),
        ack: victim.tcp.ack,
        flags: TcpFlags::ACK,
        window: victim.tcp.window,
        urgent: 0,
        options: TcpOptions {
            timestamps: victim.tcp.options.timestamps,
            ..TcpOptions::default()
        },
    }
}

fn frame(segment: &SegmentRepr, payload: &[u8]) -> Vec<u8> {
    let mut header = [0; MAX_HEADER_LEN];
    let len = segment.emit([payload, &[]], false, &mut header);
    [&header[..len], payload].concat()
}

fn syn(rng: &mut Rng, victim: &TcpPacket) -> SegmentRepr {
    let source = rng.number();
    SegmentRepr {
        tuple: FlowTuple {
            local: (
                Ipv4Addr::from_bits(0xc612_0000 | (source & 0x1_ffff)).into(),
                1024 + (source >> 17) as u16,
            ),
            remote: victim.tuple.local,
        },
        seq: SeqNum(rng.number()),
        ack: SeqNum(0),
        flags: TcpFlags::SYN,
        options: TcpOptions {
            mss: Some(1460),
            window_scale: Some(WindowScale::new(7)),
            sack_permitted: true,
            timestamps: Some(Timestamps {
                val: source,
                ecr: 0,
            }),
            ..TcpOptions::default()
        },
        ..imitate(victim)
    }
}

fn forge_syn(rng: &mut Rng, victim: &TcpPacket) -> Vec<u8> {
    frame(&syn(rng, victim), &[])
}

/// RST, SYN, data and ACK in turn, with numbers out of the blue.
fn forge_blind(rng: &mut Rng, victim: &TcpPacket) -> Vec<u8> {
    let mut segment = imitate(victim);
    segment.seq = SeqNum(rng.number());
    segment.ack = SeqNum(rng.number());
    forge_any(rng, segment)
}

fn forge_any(rng: &mut Rng, mut segment: SegmentRepr) -> Vec<u8> {
    let kind = rng.next() % 4;
    segment.flags = match kind {
        0 => TcpFlags::RST,
        1 => TcpFlags::SYN,
        _ => TcpFlags::ACK,
    };
    let payload: &[u8] = if kind == 2 { &[b'!'; 64] } else { &[] };
    frame(&segment, payload)
}

/// The same with numbers inside of the window, as one in some thousand blind ones has: RST and SYN beside the exact
/// number, data and ACK that acknowledge what was never sent.
fn forge_in_window(rng: &mut Rng, victim: &TcpPacket) -> Vec<u8> {
    let mut segment = imitate(victim);
    segment.seq += 20_000 + rng.number() % 10_000;
    segment.ack += 1 << 29;
    forge_any(rng, segment)
}

/// Acknowledgments of nothing new, in order: the cheapest thing to send.
fn forge_ack(_: &mut Rng, victim: &TcpPacket) -> Vec<u8> {
    frame(&imitate(victim), &[])
}

/// Option bytes at random, on SYNs and on the victims' connections out of their window; half of the SYNs ask for an MSS of 0
/// to 47 as well.
fn forge_options(rng: &mut Rng, victim: &TcpPacket) -> Vec<u8> {
    let mut segment = if rng.next().is_multiple_of(2) {
        let mut segment = syn(rng, victim);
        segment.options.mss = Some((rng.next() % 48) as u16);
        segment
    } else {
        let mut segment = imitate(victim);
        segment.seq = segment.seq - 1_000_000;
        segment
    };
    segment.options.timestamps.get_or_insert_default();
    let tcp_at = 14 + 20;
    let mut bytes = frame(&segment, &[]);
    let options_at = tcp_at + 20 + if segment.options.mss.is_some() { 4 } else { 0 };
    for byte in &mut bytes[options_at..] {
        *byte = rng.next() as u8;
    }
    bytes[tcp_at + 16..tcp_at + 18].fill(0);
    let (from, to) = (segment.tuple.local.0, segment.tuple.remote.0);
    let mut sum = Checksum::pseudo_header(from, to, 6, (bytes.len() - tcp_at) as u32);
    sum.add(&bytes[tcp_at..]);
    let sum = sum.finish().to_be_bytes();
    bytes[tcp_at + 16..tcp_at + 18].copy_from_slice(&sum);
    bytes
}

/// A server of ours, an upload from a kernel to it, and the attacker's place.
struct Scene {
    path: Path,
    watch: Watch,
    server: Process,
    address: SocketAddr,
    load: Process,
    stats: tempfile::NamedTempFile,
}

impl Scene {
    fn new(tag: &str) -> Self {
        let watch = Watch::default();
        let config = "tx.rate=100mbit,tx.queue-bytes=250000".parse().unwrap();
        let path = Path::watched(tag, &config, 1500, &watch).unwrap();
        let stats = tempfile::NamedTempFile::new().unwrap();
        let bench = env!("CARGO_BIN_EXE_bench");
        let any = SocketAddr::new(path.server_ip(false), 0).to_string();
        let mut server = path.b.command(bench);
        server
            .args(["peer", "serve", "--stack", "flex", "--listen", &any])
            .env("FLEXTCP_INTERFACES", Path::DEVICE)
            .env("FLEXTCP_FALLBACK", "deny")
            .env("FLEXTCP_MEMORY", MEMORY.to_string())
            // Rings that grow with the transfers would hide what the strangers get.
            .env("FLEXTCP_RECV_BUFFER_MAX", RECV_RING.to_string())
            // Freed memory goes back at once, so that what is resident is what is held.
            .env("MALLOC_MMAP_THRESHOLD_", "65536")
            .env(STATS_FILE, stats.path());
        let mut server = Process::spawn(server).unwrap();
        let address = server.wait_listening(LIMIT).unwrap();
        let mut load = path.a.command(bench);
        load.args(["peer", "load", "--stack", "kernel", "--work", "upload"])
            .args(["--server", &address.to_string(), "--connections", "2"])
            // Longer than any of this takes; it is ended.
            .args(["--millis", "120000"]);
        let load = Process::spawn(load).unwrap();
        let scene = Self {
            path,
            watch,
            server,
            address,
            load,
            stats,
        };
        wait_until(LIMIT, "the upload to run", || {
            scene.watch.acknowledged().len() == 2
        })
        .unwrap();
        let begin = scene.watch.acknowledged();
        wait_until(LIMIT, "slow start to be over", || {
            let now = scene.watch.acknowledged();
            let bytes = |(port, ack): (&u16, &SeqNum)| now.get(port).map_or(0, |at| at.since(*ack));
            begin.iter().all(|flow| bytes(flow) > PAST_SLOW_START)
        })
        .unwrap();
        scene
    }

    /// Bytes a second that the server acknowledged to the upload, over `SPAN`.
    fn rate(&self) -> f64 {
        let before = self.watch.acknowledged();
        let since = Instant::now();
        thread::sleep(SPAN);
        let after = self.watch.acknowledged();
        let bytes: u32 = before
            .iter()
            .filter_map(|(port, ack)| Some(after.get(port)?.since(*ack)))
            .sum();
        f64::from(bytes) / since.elapsed().as_secs_f64()
    }

    /// The rate while `forge` injects `per_second` frames a second; and how many it really did.
    fn rate_under(&self, forge: Forge, per_second: u32, seed: u64) -> (f64, f64) {
        let (stop, under_way) = (AtomicBool::new(false), AtomicBool::new(false));
        let victims = self.watch.last_segments();
        let ports: Vec<u16> = victims.iter().map(|victim| victim.tuple.remote.1).collect();
        let (middle, device) = self.path.towards_b();
        thread::scope(|scope| {
            let attacker = scope.spawn(|| {
                middle
                    .within(|| {
                        let mut port = PacketPort::open(device).unwrap();
                        let mut rng = Rng(seed);
                        let since = Instant::now();
                        let mut sent = 0_u32;
                        while !stop.load(Ordering::Relaxed) {
                            let due = since.elapsed().as_secs_f64() * f64::from(per_second);
                            let victims: Vec<_> = self
                                .watch
                                .last_segments()
                                .into_iter()
                                .filter(|victim| ports.contains(&victim.tuple.remote.1))
                                .collect();
                            for _ in 0..(due as u32).saturating_sub(sent).min(1000) {
                                let victim = victims[sent as usize % victims.len()];
                                let frame = TxFrame {
                                    header: &forge(&mut rng, &victim),
                                    payload: [&[], &[]],
                                    offload: TxOffload::default(),
                                };
                                let now = flextcp_nic::time::Instant::ZERO;
                                let _ = port.transmit(now, frame);
                                sent += 1;
                            }
                            port.flush(flextcp_nic::time::Instant::ZERO).unwrap();
                            under_way.store(sent > 100, Ordering::Relaxed);
                            thread::sleep(Duration::from_millis(1));
                        }
                        f64::from(sent) / since.elapsed().as_secs_f64()
                    })
                    .unwrap()
            });
            wait_until(LIMIT, "the attack", || under_way.load(Ordering::Relaxed)).unwrap();
            let rate = self.rate();
            stop.store(true, Ordering::Relaxed);
            (rate, attacker.join().unwrap())
        })
    }

    /// Fails unless the transfer keeps nine tenths of its rate while most of the frames get out. A machine that others use
    /// gets three tries, and is forgiven when it has no time for the attacker.
    fn withstands(&self, name: &str, forge: Forge, per_second: u32, seed: u64) {
        let mut tries = Vec::new();
        for _ in 0..3 {
            let alone = self.rate();
            let (attacked, sent) = self.rate_under(forge, per_second, seed);
            let share = attacked / alone;
            println!(
                "{name}: {:.1} Mbit/s of {:.1}, {share:.3}, under {sent:.0} frames a second",
                attacked * 8e-6,
                alone * 8e-6
            );
            tries.push(share);
            if share >= 0.9 && sent >= 0.9 * f64::from(per_second) {
                return;
            }
        }
        let busy = fs::read_to_string("/proc/loadavg").unwrap();
        let load: f64 = busy.split_whitespace().next().unwrap().parse().unwrap();
        if load > 4.0 && tries.iter().any(|share| *share >= 0.9) {
            return println!("{name}: a busy machine (load {load}) did not let all of it out");
        }
        panic!("{name}: the transfer kept {tries:?} of its rate");
    }

    /// Largest resident memory of the server so far, bytes.
    fn peak_memory(&self) -> u64 {
        let status = fs::read_to_string(format!("/proc/{}/status", self.server.id())).unwrap();
        let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"));
        let kilobytes = line.and_then(|line| line.split_whitespace().next()?.parse::<u64>().ok());
        kilobytes.unwrap() << 10
    }

    /// Ends both and reads the server's counters.
    fn end(mut self) -> Stats {
        assert!(
            self.load.is_running(),
            "the upload broke: {}",
            self.load.stderr()
        );
        self.load.signal(rustix::process::Signal::TERM).unwrap();
        wait_until(LIMIT, "the upload to end", || !self.load.is_running()).unwrap();
        let server = self.server.finish(LIMIT).unwrap();
        assert!(server.status.success(), "{}", server.stderr);
        assert!(!server.stderr.contains("panicked"), "{}", server.stderr);
        let stats = Stats::read_lines(self.stats.path()).unwrap().remove(0);
        stats.assert_offloaded();
        stats
    }
}

fn seed() -> u64 {
    let seed = std::env::var("FLEXTCP_TEST_SEED")
        .ok()
        .and_then(|text| text.parse().ok())
        .unwrap_or_else(|| {
            std::time::UNIX_EPOCH
                .elapsed()
                .map_or(1, |since| since.as_secs())
        });
    println!("FLEXTCP_TEST_SEED={seed}");
    seed
}

#[test]
fn transfers_keep_their_rate_under_floods_and_forgeries() {
    let test = "transfers_keep_their_rate_under_floods_and_forgeries";
    if !require_privileges(test) {
        return;
    }
    let _serial = serial();
    let seed = seed();
    let scene = Scene::new("attack");
    // The first flood touches every frame that the port shares with the kernel.
    scene.rate_under(forge_syn, 100_000, !seed);
    let before = scene.peak_memory();
    scene.withstands("SYN flood", forge_syn, 100_000, seed);
    scene.withstands("blind injection", forge_blind, 20_000, seed);
    scene.withstands("injection in the window", forge_in_window, 2_000, seed);
    scene.withstands("ACK flood", forge_ack, 50_000, seed);
    scene.withstands("option garbage", forge_options, 20_000, seed);
    let grown = scene.peak_memory().saturating_sub(before);
    println!("{} KiB more than after the first flood", grown >> 10);
    // Two rings may still have grown, each copied into the larger one. Hundreds of thousands of strangers came: to remember
    // forty bytes of each would take more.
    assert!(
        grown < 2 * 2 * RECV_RING + BESIDES,
        "{grown} bytes for strangers"
    );
    let stats = scene.end();
    for counter in [
        "defence.syn_cookies_sent",
        "defence.challenge_acks",
        "defence.acks_held_back",
        "drops.unacceptable",
    ] {
        assert!(
            stats.count(counter) > 0,
            "{counter} does not tell: {stats:?}"
        );
    }
}

/// Connections that ask for everything and read nothing: each would fill a send buffer of 4 MiB.
#[test]
fn peers_that_never_read_get_no_more_than_the_memory_there_is() {
    let test = "peers_that_never_read_get_no_more_than_the_memory_there_is";
    if !require_privileges(test) {
        return;
    }
    let _serial = serial();
    let scene = Scene::new("stress");
    let before = scene.peak_memory();
    let alone = scene.rate();
    let address = scene.address;
    let stressing: Vec<TcpStream> = scene
        .path
        .a
        .within(|| {
            let connect = |_| {
                let mut stream = TcpStream::connect_timeout(&address, LIMIT).unwrap();
                let mut request = [0; integration::peer::Request::LEN];
                request[0] = b'D';
                stream.write_all(&request).unwrap();
                stream
            };
            (0..200).map(connect).collect()
        })
        .unwrap();
    let attacked = scene.rate().max(scene.rate());
    let share = attacked / alone;
    println!(
        "{share:.3} of {:.1} Mbit/s beside 200 shut windows",
        alone * 8e-6
    );
    assert!(share >= 0.9, "the transfer kept {share} of its rate");
    let grown = scene.peak_memory().saturating_sub(before);
    println!("{} MiB more than before", grown >> 20);
    assert!(
        grown < MEMORY + MEMORY / 8 + BESIDES,
        "{grown} bytes for peers that do not read: more than all rings and those kept for reuse"
    );
    drop(stressing);
    scene.end();
}
