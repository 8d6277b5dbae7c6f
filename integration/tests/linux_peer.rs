//! The Linux kernel as the peer, over veth with impairment: the same bytes with offload never, always and at random.

use std::net::SocketAddr;
use std::time::Duration;

use integration::netns::{Namespace, require_privileges};
use integration::places::{Family, Place};
use integration::process::{Process, serial};
use integration::stack::StackKind;
use integration::stats::{STATS_FILE, Stats};

const IMPAIRMENT: &str = "loss=0.01,reorder=0.01,dup=0.005,corrupt=0.005,seed=";
const LIMIT: Duration = Duration::from_secs(240);

/// The seed of this run: `FLEXTCP_TEST_SEED`, or the time.
fn seed() -> u64 {
    std::env::var("FLEXTCP_TEST_SEED")
        .ok()
        .and_then(|text| text.parse().ok())
        .unwrap_or_else(|| {
            std::time::UNIX_EPOCH
                .elapsed()
                .map_or(1, |since| since.as_secs())
        })
}

struct Ours {
    offload: String,
    impair: Option<String>,
    stats: std::path::PathBuf,
}

fn peer(
    namespace: &Namespace,
    part: &str,
    stack: StackKind,
    ours: &Ours,
    args: &[&str],
) -> Process {
    let mut command = namespace.command(env!("CARGO_BIN_EXE_bench"));
    command
        .args(["peer", part, "--stack", stack.name()])
        .args(args);
    if stack == StackKind::Flex {
        command
            .env("FLEXTCP_INTERFACES", "veth0")
            .env("FLEXTCP_OFFLOAD", &ours.offload)
            .env(STATS_FILE, &ours.stats);
        if let Some(impair) = &ours.impair {
            command.env("FLEXTCP_IMPAIR", impair);
        }
    }
    Process::spawn(command).unwrap()
}

fn exchange(test: &str, offload: &str, family: Family, impaired: bool) {
    if !require_privileges(test) {
        return;
    }
    let _serial = serial();
    let seed = seed();
    println!("{test}: FLEXTCP_TEST_SEED={seed}");
    let full = std::env::var_os("FLEXTCP_FULL").is_some_and(|value| value == "1");
    let bytes = if full { 64 << 20 } else { 8 << 20 }.to_string();
    // Ours once as the server and once as the client.
    for (client_stack, server_stack) in [
        (StackKind::Kernel, StackKind::Flex),
        (StackKind::Flex, StackKind::Kernel),
    ] {
        let place = Place::veth("peer").unwrap();
        let scratch = tempfile::tempdir().unwrap();
        let ours = Ours {
            offload: offload.replace("SEED", &seed.to_string()),
            impair: impaired.then(|| format!("{IMPAIRMENT}{seed}")),
            stats: scratch.path().join("stats"),
        };
        let listen = SocketAddr::new(place.server_ip(family), 0).to_string();
        let mut server = peer(
            place.server(),
            "serve",
            server_stack,
            &ours,
            &["--listen", &listen],
        );
        let address = server
            .wait_listening(Duration::from_secs(20))
            .unwrap()
            .to_string();
        let args = [
            "--work",
            "exchange",
            "--server",
            &address,
            "--connections",
            "8",
            "--bytes",
            &bytes,
        ];
        let client = peer(place.client(), "load", client_stack, &ours, &args).finish(LIMIT);
        let client = client.unwrap_or_else(|error| panic!("{error}\nserver: {}", server.stderr()));
        assert!(
            client.status.success(),
            "{} to {}: {}\nserver: {}",
            client_stack.name(),
            server_stack.name(),
            client.stderr,
            server.stderr()
        );
        let server = server.finish(Duration::from_secs(10)).unwrap();
        assert!(
            server
                .stderr
                .lines()
                .all(|line| !line.contains("connection:")),
            "{}",
            server.stderr
        );

        let stats = Stats::read_lines(&ours.stats).unwrap();
        assert_eq!(stats.len(), 1, "our process left no statistics");
        for stats in stats {
            if offload == "never" {
                assert_eq!(stats.offloaded(), 0, "offload is off");
            } else {
                stats.assert_offloaded();
            }
        }
    }
}

#[test]
fn clean_link_v4() {
    exchange("clean_link_v4", "auto", Family::V4, false);
}

#[test]
fn clean_link_v6() {
    exchange("clean_link_v6", "auto", Family::V6, false);
}

#[test]
fn impaired_link_offload_never() {
    exchange("impaired_link_offload_never", "never", Family::V4, true);
}

#[test]
fn impaired_link_offload_always() {
    exchange("impaired_link_offload_always", "always", Family::V4, true);
}

#[test]
fn impaired_link_offload_random() {
    exchange(
        "impaired_link_offload_random",
        "random:SEED",
        Family::V4,
        true,
    );
}

#[test]
fn impaired_link_v6() {
    exchange("impaired_link_v6", "always", Family::V6, true);
}
