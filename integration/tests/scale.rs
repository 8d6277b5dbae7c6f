//! Many connections: idle ones cost no processor time, ten thousand fit.

use std::net::SocketAddr;
use std::thread;
use std::time::{Duration, Instant};

use integration::netns::require_privileges;
use integration::places::{Family, Place};
use integration::process::{Process, serial, wait_until};
use integration::stack::StackKind;
use integration::stats::{STATS_FILE, Stats};
use tempfile::NamedTempFile;

/// A server of ours, its address, and the file that gets its statistics when it ends.
fn serve(place: &Place) -> (Process, String, NamedTempFile) {
    let stats = NamedTempFile::new().unwrap();
    // As a login shell has it: connections on the NIC need no descriptors.
    let mut command = place.server().command("prlimit");
    command
        .args(["--nofile=1024:", env!("CARGO_BIN_EXE_bench"), "peer"])
        .env("FLEXTCP_INTERFACES", place.device())
        .env(STATS_FILE, stats.path());
    let listen = SocketAddr::new(place.server_ip(Family::V4), 0).to_string();
    command.args([
        "serve",
        "--stack",
        StackKind::Flex.name(),
        "--listen",
        &listen,
    ]);
    let mut server = Process::spawn(command).unwrap();
    let address = server.wait_listening(Duration::from_secs(20)).unwrap();
    (server, address.to_string(), stats)
}

/// Stops the server; all `connections` must have been on its NIC.
fn assert_all_offloaded(server: Process, stats: &NamedTempFile, connections: u64) {
    let server = server.finish(Duration::from_secs(30)).unwrap();
    assert!(server.status.success(), "{}", server.stderr);
    let stats = Stats::read_lines(stats.path()).unwrap();
    assert_eq!(stats.len(), 1, "the server left no statistics");
    stats[0].assert_offloaded();
    assert_eq!(
        stats[0].count("connections.ever_offloaded"),
        connections,
        "{stats:?}"
    );
}

fn hold(place: &Place, server: &str, connections: usize) -> Process {
    // The kernel's connections need one each.
    let all = "ulimit -S -n $(ulimit -H -n) && exec \"$0\" peer load \"$@\"";
    let mut command = place.client().command("sh");
    command
        .args(["-c", all, env!("CARGO_BIN_EXE_bench")])
        .args(["--stack", StackKind::Kernel.name(), "--work", "hold"])
        .args([
            "--server",
            server,
            "--connections",
            &connections.to_string(),
        ]);
    let mut client = Process::spawn(command).unwrap();
    client
        .wait_line(Duration::from_secs(120), "all connections", |line| {
            line.starts_with("holding ").then_some(())
        })
        .unwrap();
    client
}

#[test]
fn a_thousand_idle_connections_cost_less_than_a_hundredth_of_a_core() {
    if !require_privileges("a_thousand_idle_connections_cost_less_than_a_hundredth_of_a_core") {
        return;
    }
    let _serial = serial();
    let place = Place::veth("idle").unwrap();
    let (server, address, stats) = serve(&place);
    let client = hold(&place, &address, 1000);

    let share = |window: Duration| {
        let (begin, before) = (Instant::now(), server.cpu_time().unwrap());
        thread::sleep(window);
        (server.cpu_time().unwrap() - before).as_secs_f64() / begin.elapsed().as_secs_f64()
    };
    // Delayed ACKs, adaptive spinning and buffers given back come to rest; then a window of time is the measure, not a wait.
    wait_until(
        Duration::from_secs(20),
        "the server to come to rest",
        || share(Duration::from_millis(500)) < 0.01,
    )
    .unwrap();
    let idle = share(Duration::from_secs(5));
    assert!(
        idle < 0.01,
        "the idle server used {:.2} % of a core",
        idle * 100.0
    );

    let held = client.finish(Duration::from_secs(30)).unwrap();
    assert!(held.status.success(), "{}", held.stderr);
    assert_all_offloaded(server, &stats, 1000);
}

#[test]
fn ten_thousand_connections_at_once() {
    if !require_privileges("ten_thousand_connections_at_once") {
        return;
    }
    let _serial = serial();
    let place = Place::veth("scale").unwrap();
    let (server, address, stats) = serve(&place);
    let client = hold(&place, &address, 10_000);
    let held = client.finish(Duration::from_secs(120)).unwrap();
    assert!(
        held.status.success(),
        "{}\nserver: {}",
        held.stderr,
        server.stderr()
    );
    assert_all_offloaded(server, &stats, 10_000);
}
