//! The link emulator does what it says: delay, rate, losses, order; and Linux's own TCP gets through it.

use std::net::{SocketAddr, UdpSocket};
use std::thread;
use std::time::{Duration, Instant};

use flextcp_nic::port::impair::Impairment;
use integration::netns::{Namespace, VethPair, require_privileges};
use integration::path::{Direction, Path};
use integration::peer::Outcome;
use integration::process::{Process, serial, wait_until};

const LIMIT: Duration = Duration::from_secs(60);

fn path(config: &str) -> Path {
    Path::new("path", &config.parse().unwrap(), 1500).unwrap()
}

/// A socket at each end; the first is connected to the second.
fn sockets(path: &Path) -> (UdpSocket, UdpSocket) {
    let bind = |address: SocketAddr| move || UdpSocket::bind(address);
    let to = path.b.within(bind((VethPair::B_V4, 0).into()));
    let to = to.unwrap().unwrap();
    let from = path.a.within(bind((VethPair::A_V4, 0).into()));
    let from = from.unwrap().unwrap();
    from.connect(to.local_addr().unwrap()).unwrap();
    to.set_read_timeout(Some(Duration::from_secs(5))).unwrap();
    // The first one waits for ARP, both ways; the others should find the way.
    from.send(&[0; 8]).unwrap();
    to.recv(&mut [0; 8]).unwrap();
    (from, to)
}

/// Numbers of the datagrams that arrive, until nothing came for `quiet`: any of them may be lost, the last one too, so that
/// nothing else tells their end.
fn numbers(socket: &UdpSocket, quiet: Duration) -> Vec<u64> {
    socket.set_read_timeout(Some(quiet)).unwrap();
    let mut numbers = Vec::new();
    let mut datagram = [0; 2000];
    while let Ok(len) = socket.recv(&mut datagram) {
        assert!(len >= 8);
        numbers.push(u64::from_le_bytes(datagram[..8].try_into().unwrap()));
    }
    numbers
}

/// Runs one load between kernel sockets and returns what the client saw.
fn load(path: &Path, work: &str, v6: bool, args: &[&str]) -> Outcome {
    let bench = env!("CARGO_BIN_EXE_bench");
    let listen = SocketAddr::new(path.server_ip(v6), 0).to_string();
    let mut command = path.b.command(bench);
    command.args(["peer", "serve", "--stack", "kernel", "--listen", &listen]);
    let mut server = Process::spawn(command).unwrap();
    let address = server.wait_listening(LIMIT).unwrap().to_string();
    let mut command = path.a.command(bench);
    command
        .args(["peer", "load", "--stack", "kernel", "--work", work])
        .args(["--server", &address])
        .args(args);
    let client = Process::spawn(command).unwrap().finish(LIMIT).unwrap();
    assert!(
        client.status.success(),
        "{}\n{}",
        client.stderr,
        path.emulator().records()
    );
    server.finish(LIMIT).unwrap();
    serde_json::from_str(client.stdout.trim()).unwrap()
}

#[test]
fn a_round_trip_takes_both_delays() {
    if !require_privileges("a_round_trip_takes_both_delays") {
        return;
    }
    let _serial = serial();
    let path = path("delay=10ms");
    let outcome = load(&path, "rpc", false, &["--millis", "1000"]);
    // What the machine adds is scheduling; nothing makes it shorter.
    assert!(
        (20_000.0..22_000.0).contains(&outcome.p50),
        "{outcome:?}\n{}",
        path.emulator().records()
    );
}

#[test]
fn the_rate_holds_within_two_percent() {
    if !require_privileges("the_rate_holds_within_two_percent") {
        return;
    }
    let _serial = serial();
    let path = path("rate=20mbit,queue=100");
    let (from, to) = sockets(&path);
    // Twice the rate for a second and a half, since a rate is bytes over time: 1000 bytes of payload are 1042 on the wire.
    let receiver = thread::spawn(move || numbers(&to, Duration::from_millis(300)));
    let start = Instant::now();
    let (mut sent, mut datagram) = (0u64, [0; 1000]);
    while start.elapsed() < Duration::from_millis(1500) {
        while (sent as f64) < start.elapsed().as_secs_f64() * 40e6 / 8.0 / 1042.0 {
            datagram[..8].copy_from_slice(&sent.to_le_bytes());
            from.send(&datagram).unwrap();
            sent += 1;
        }
        thread::sleep(Duration::from_millis(1));
    }
    let queue = path.emulator().queue(Direction::ToB);
    let arrived = receiver.join().unwrap().len() as f64;
    let records = path.emulator().records();
    // All of the time from the first frame to the end, and then the queue of 100.
    let expected = 1.5 * 20e6 / 8.0 / 1042.0 + 100.0;
    assert!(
        (arrived / expected - 1.0).abs() < 0.02,
        "{arrived} of {expected}\n{records}"
    );
    assert!(records.to_b.counters.overflowed > 0, "{records}");
    assert!(queue.iter().any(|&frames| frames > 90), "{records}");
}

#[test]
fn losses_are_as_many_as_asked_for_and_order_is_kept() {
    if !require_privileges("losses_are_as_many_as_asked_for_and_order_is_kept") {
        return;
    }
    let _serial = serial();
    let path = path("delay=5ms,jitter=2ms,loss=5%,seed=9");
    let (from, to) = sockets(&path);
    const COUNT: u64 = 5000;
    let mut arrived = Vec::new();
    // In portions that a socket's buffer holds.
    for portion in 0..COUNT / 100 {
        for number in portion * 100..(portion + 1) * 100 {
            from.send(&number.to_le_bytes()).unwrap();
        }
        arrived.extend(numbers(&to, Duration::from_millis(20)));
    }
    // Those that a busy machine kept longer.
    arrived.extend(numbers(&to, Duration::from_millis(300)));
    let records = path.emulator().records();
    assert!(
        arrived.windows(2).all(|pair| pair[0] < pair[1]),
        "out of order\n{records}"
    );
    // 250 expected, 15 standard deviation; the seed is fixed, but the kernel's own frames take chances too.
    let lost = COUNT - arrived.len() as u64;
    assert!((175..325).contains(&lost), "{lost}\n{records}");
    assert!(lost <= records.to_b.counters.lost, "{records}");
}

#[test]
fn frames_overtake_those_that_are_held_back() {
    if !require_privileges("frames_overtake_those_that_are_held_back") {
        return;
    }
    let _serial = serial();
    let path = path("delay=1ms,reorder=10%,gap=20,hold=20ms,dup=10%,seed=3");
    let (from, to) = sockets(&path);
    for number in 0..200u64 {
        from.send(&number.to_le_bytes()).unwrap();
    }
    let arrived = numbers(&to, Duration::from_millis(200));
    let records = path.emulator().records();
    assert!(
        arrived.windows(2).any(|pair| pair[0] > pair[1]),
        "{records}"
    );
    assert!(arrived.len() > 200, "no copies\n{records}");
    let mut different = arrived;
    different.sort_unstable();
    different.dedup();
    assert_eq!(different.len(), 200, "{records}");
}

#[test]
fn linux_gets_every_byte_through_a_bad_path() {
    if !require_privileges("linux_gets_every_byte_through_a_bad_path") {
        return;
    }
    let _serial = serial();
    let config = "delay=2ms,jitter=1ms,loss=1%,burst=0.1%,reorder=2%,gap=20,dup=1%,corrupt=0.5%,rate=100mbit,queue=100,seed=5";
    for v6 in [false, true] {
        let path = path(config);
        let outcome = load(&path, "exchange", v6, &["--bytes", "2000000"]);
        assert_eq!(outcome.bytes, 2_000_000);
        let records = path.emulator().records();
        // Segmentation and checksums are done before the path, or it would not be one.
        assert_eq!(records.to_b.counters.oversized, 0, "{records}");
        assert!(records.to_b.counters.lost > 0, "{records}");
        assert!(records.realtime, "chrt is part of util-linux");
    }
}

#[test]
fn a_path_can_change_while_it_runs() {
    if !require_privileges("a_path_can_change_while_it_runs") {
        return;
    }
    let _serial = serial();
    let path = path("");
    let (from, to) = sockets(&path);
    let blackhole = Impairment {
        loss: 1.0,
        ..Impairment::default()
    };
    path.emulator().set(Direction::ToB, blackhole);
    from.send(&1u64.to_le_bytes()).unwrap();
    wait_until(LIMIT, "the loss", || {
        path.emulator().records().to_b.counters.lost > 0
    })
    .unwrap();
    path.emulator().set(Direction::ToB, Impairment::default());
    from.send(&2u64.to_le_bytes()).unwrap();
    assert_eq!(numbers(&to, Duration::from_millis(100)), [2]);
}

#[test]
fn the_program_joins_namespaces_and_reports() {
    if !require_privileges("the_program_joins_namespaces_and_reports") {
        return;
    }
    let _serial = serial();
    let (a, b) = (
        Namespace::new("left").unwrap(),
        Namespace::new("right").unwrap(),
    );
    let scratch = tempfile::tempdir().unwrap();
    let (json, queue) = (
        scratch.path().join("link.json"),
        scratch.path().join("queue.csv"),
    );
    let mut command = std::process::Command::new(env!("CARGO_BIN_EXE_link"));
    command
        .args(["delay=1ms,rate=10mbit,rx.loss=100%"])
        .args([a.name(), b.name(), "--stdin"])
        .arg("--json")
        .arg(&json)
        .arg("--queue")
        .arg(&queue);
    let mut link = Process::spawn(command).unwrap();
    link.wait_line(LIMIT, "the path", |line| {
        line.starts_with("joined").then_some(())
    })
    .unwrap();
    // ARP requests that nobody hears the answer of.
    let socket = a
        .within(|| UdpSocket::bind((VethPair::A_V4, 0)))
        .unwrap()
        .unwrap();
    socket
        .send_to(&[1], (VethPair::B_V4, 9))
        .expect("the datagram waits for ARP");
    wait_until(LIMIT, "the ARP request", || {
        b.ip(["neigh"])
            .is_ok_and(|table| table.contains("10.77.0.1"))
    })
    .unwrap();
    let finished = link.finish(LIMIT).unwrap();
    assert!(finished.status.success(), "{}", finished.stderr);
    let records: serde_json::Value =
        serde_json::from_str(&std::fs::read_to_string(&json).unwrap()).unwrap();
    let at = |path: &str| records.pointer(path).and_then(serde_json::Value::as_u64);
    assert!(at("/to_b/counters/delivered") > Some(0), "{records}");
    assert_eq!(at("/to_a/counters/delivered"), Some(0), "{records}");
    assert!(
        std::fs::read_to_string(&queue)
            .unwrap()
            .starts_with("ms,to_b,to_a\n0,0,0\n")
    );
}
