//! Interfaces with several queues: each has a core, and a frame that arrives on another queue than its connection's is
//! handed over.

use std::net::SocketAddr;
use std::time::Duration;

use integration::netns::{Namespace, VethOptions, VethPair, require_privileges};
use integration::process::{Process, serial};
use integration::programs::{Server, ServerOptions, client, require_tools};
use integration::stack::StackKind;
use integration::stats::{STATS_FILE, Stats};
use rustix::process::Signal;
use tempfile::NamedTempFile;

const START: Duration = Duration::from_secs(20);
const LIMIT: Duration = Duration::from_secs(60);

/// A process of one stack in a namespace, whose statistics are kept.
struct Peer {
    process: Process,
    stats: NamedTempFile,
}

impl Peer {
    fn start(namespace: &Namespace, args: &str, address: SocketAddr) -> Self {
        let stats = NamedTempFile::new().unwrap();
        let mut command = namespace.command(env!("CARGO_BIN_EXE_bench"));
        command
            .args(args.split(' '))
            .arg(address.to_string())
            .env("FLEXTCP_INTERFACES", VethPair::DEVICE)
            .env("FLEXTCP_FALLBACK", "deny")
            .env(STATS_FILE, stats.path());
        let process = Process::spawn(command).unwrap();
        Self { process, stats }
    }

    fn address(&mut self) -> SocketAddr {
        self.process.wait_listening(START).unwrap()
    }

    /// Its counters at its end.
    fn finish(self) -> Stats {
        let finished = self.process.finish(LIMIT).unwrap();
        assert!(finished.status.success(), "{}", finished.stderr);
        let mut lines = Stats::read_lines(self.stats.path()).unwrap();
        assert_eq!(lines.len(), 1, "one process, one line");
        lines.remove(0)
    }
}

fn two_queues(tag: &str) -> VethPair {
    let options = VethOptions {
        queues: 2,
        ..VethOptions::default()
    };
    VethPair::new(tag, options).unwrap()
}

fn load(pair: &VethPair, stack: StackKind, work: &str, server: SocketAddr) -> Peer {
    let args = format!(
        "peer load --stack {} --work {work} --connections 16 --bytes 1000000 --millis 500 --server",
        stack.name()
    );
    Peer::start(&pair.a, &args, server)
}

fn assert_both_queues(stats: &Stats) {
    stats.assert_offloaded();
    let frames = stats.counts("nic.queue_frames_in");
    let busy = frames.iter().filter(|frames| **frames > 100).count();
    assert!(busy >= 2, "frames by queue: {frames:?}");
}

#[test]
fn a_thread_per_core_serves_a_kernel_peer_on_every_queue() {
    if !require_privileges("a_thread_per_core_serves_a_kernel_peer_on_every_queue") {
        return;
    }
    let _serial = serial();
    let pair = two_queues("percore");
    for any in [VethPair::B_V4, VethPair::B_V6] {
        let serve = "peer serve --stack flex --per-core --listen";
        let mut server = Peer::start(&pair.b, serve, SocketAddr::new(any, 0));
        let address = server.address();
        for work in ["exchange", "churn"] {
            let client = load(&pair, StackKind::Kernel, work, address).process;
            let client = client.finish(LIMIT).unwrap();
            assert!(client.status.success(), "{work}: {}", client.stderr);
        }
        assert_both_queues(&server.finish());
    }
}

#[test]
fn an_example_with_a_thread_per_core_uses_every_queue() {
    let test = "an_example_with_a_thread_per_core_uses_every_queue";
    if !require_privileges(test) || !require_tools(test, &["wrk", "curl"]) {
        return;
    }
    let _serial = serial();
    let pair = two_queues("example");
    let mut options = ServerOptions::new("http", VethPair::B_V4, VethPair::DEVICE);
    options.args = vec!["--per-core"];
    options.env = vec![("FLEXTCP_FALLBACK", "deny".to_owned())];
    let server = Server::start(&pair.b, &options).unwrap();
    let url = server.url("/");
    let load = ["-c16", "-t1", "-d1s", "--timeout", "10s", &url];
    let wrk = client(&pair.a, "wrk", load, LIMIT).unwrap().stdout;
    assert!(
        wrk.contains("requests in") && !wrk.contains("Socket errors"),
        "{wrk}"
    );
    assert_both_queues(&Stats::fetch(&pair.a, &server).unwrap());
    server.process.signal(Signal::TERM).unwrap();
    let ended = server.process.finish(LIMIT).unwrap();
    assert!(ended.status.success(), "{}", ended.stderr);
}

/// The kernel chooses the queue of its answers by a hash of its own: half of them arrive on the wrong one.
#[test]
fn what_arrives_on_another_queue_is_handed_over() {
    if !require_privileges("what_arrives_on_another_queue_is_handed_over") {
        return;
    }
    let _serial = serial();
    let pair = two_queues("handover");
    let listen = SocketAddr::new(VethPair::B_V4, 0);
    let mut server = Peer::start(&pair.b, "peer serve --stack kernel --listen", listen);
    let address = server.address();
    for work in ["exchange", "churn"] {
        let stats = load(&pair, StackKind::Flex, work, address).finish();
        assert_both_queues(&stats);
        let handed_over = stats.count("reactor.handed_over");
        assert!(handed_over > 16, "{work}: {handed_over} frames");
        assert_eq!(stats.count("connections.failed"), 0, "{stats:?}");
        assert_eq!(stats.count("drops.port"), 0, "{stats:?}");
    }
}

/// Frames leave through the queue of their connection, and a veth delivers them to the queue of that number.
#[test]
fn ours_at_both_ends_keep_to_their_queues() {
    if !require_privileges("ours_at_both_ends_keep_to_their_queues") {
        return;
    }
    let _serial = serial();
    let pair = two_queues("both");
    let listen = SocketAddr::new(VethPair::B_V4, 0);
    let serve = "peer serve --stack flex --per-core --listen";
    let mut server = Peer::start(&pair.b, serve, listen);
    let address = server.address();
    let client = load(&pair, StackKind::Flex, "exchange", address).finish();
    let server = server.finish();
    for stats in [&client, &server] {
        assert_both_queues(stats);
        assert_eq!(stats.count("reactor.handed_over"), 0, "{stats:?}");
    }
}
