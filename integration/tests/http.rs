//! The `http` example under third-party clients, over `lo` and veth, IPv4 and IPv6, with TLS and without.
//!
//! `FLEXTCP_FULL=1` runs the lengths of the acceptance: 10 s of wrk, 100,000 requests of ab, 1 GiB each way.

use std::fs::File;
use std::io::{self, Write as _};
use std::path::Path;
use std::time::Duration;

use integration::netns::require_privileges;
use integration::places::{Family, Place};
use integration::process::serial;
use integration::programs::{Server, ServerOptions, client, require_tools};
use integration::stats::Stats;
use sha2::{Digest as _, Sha256};

const LIMIT: Duration = Duration::from_secs(300);

fn full() -> bool {
    std::env::var_os("FLEXTCP_FULL").is_some_and(|value| value == "1")
}

fn scaled<'a>(short: &'a str, full_length: &'a str) -> &'a str {
    if full() { full_length } else { short }
}

fn all_clients(test: &str, place: fn(&str) -> io::Result<Place>, family: Family, tls: bool) {
    if !require_privileges(test) || !require_tools(test, &["wrk", "ab", "h2load", "curl"]) {
        return;
    }
    let _serial = serial();
    let place = place("http").unwrap();
    let mut options = ServerOptions::new("http", place.server_ip(family), place.device());
    options.args = if tls { vec!["--tls"] } else { Vec::new() };
    let server = Server::start(place.server(), &options).unwrap();

    curl_both_ways(&place, &server);
    wrk(&place, &server);
    ab(&place, &server);
    h2load(&place, &server);

    Stats::fetch(place.client(), &server)
        .unwrap()
        .assert_offloaded();
}

fn wrk(place: &Place, server: &Server) {
    let duration = scaled("2s", "10s");
    let url = server.url("/");
    let args = ["-c64", "-t2", "-d", duration, "--timeout", "10s", &url];
    let output = client(place.client(), "wrk", args, LIMIT).unwrap().stdout;
    assert!(output.contains("requests in"), "{output}");
    assert!(!output.contains("Socket errors"), "{output}");
    assert!(!output.contains("Non-2xx"), "{output}");
    println!("{output}");
}

fn ab(place: &Place, server: &Server) {
    let requests = scaled("5000", "100000");
    let url = server.url("/");
    let args = ["-q", "-n", requests, "-c", "50", "-s", "30", &url];
    let output = client(place.client(), "ab", args, LIMIT).unwrap().stdout;
    let field = |name: &str| {
        let line = output.lines().find_map(|line| line.strip_prefix(name));
        line.and_then(|line| line.trim_start_matches(':').split_whitespace().next())
            .map(str::to_owned)
            .unwrap_or_else(|| panic!("no {name} in {output}"))
    };
    assert_eq!(field("Complete requests"), requests, "{output}");
    assert_eq!(field("Failed requests"), "0", "{output}");
    assert!(!output.contains("Non-2xx"), "{output}");
}

fn h2load(place: &Place, server: &Server) {
    let requests = scaled("5000", "100000");
    // From an IPv6 address in the URL h2load makes an `:authority` without brackets, which servers refuse.
    let scheme = if server.tls { "https" } else { "http" };
    let url = format!("{scheme}://localhost/");
    let address = server.address.to_string();
    let args = [
        "-n",
        requests,
        "-c",
        "16",
        "-m",
        "10",
        "-T",
        "30",
        "-N",
        "30",
        "--connect-to",
        &address,
        &url,
    ];
    let output = client(place.client(), "h2load", args, LIMIT)
        .unwrap()
        .stdout;
    let expected = format!("{requests} done, {requests} succeeded, 0 failed, 0 errored, 0 timeout");
    assert!(output.contains(&expected), "{output}");
}

fn curl_both_ways(place: &Place, server: &Server) {
    let len: u64 = if full() { 1 << 30 } else { 64 << 20 };
    let scratch = tempfile::tempdir().unwrap();
    let down = scratch.path().join("down");
    let down_path = down.to_str().unwrap();
    let limit = LIMIT.as_secs().to_string();

    let url = server.url(&format!("/bytes/{len}"));
    let get = [
        "-ksSf",
        "--globoff",
        "--max-time",
        &limit,
        "-o",
        down_path,
        &url,
    ];
    client(place.client(), "curl", get, LIMIT).unwrap();
    assert_eq!(down.metadata().unwrap().len(), len);
    let first = file_hash(&down);

    // What came down goes up, and its hash has to come back; a second download has to be the same bytes.
    let url_up = server.url("/upload");
    let put = [
        "-ksSf",
        "--globoff",
        "--max-time",
        &limit,
        "-T",
        down_path,
        &url_up,
    ];
    let answer = client(place.client(), "curl", put, LIMIT).unwrap().stdout;
    let answer: serde_json::Value = serde_json::from_str(&answer).unwrap();
    assert_eq!(answer["sha256"], first.as_str(), "{answer}");

    client(place.client(), "curl", get, LIMIT).unwrap();
    assert_eq!(file_hash(&down), first);
}

fn file_hash(path: &Path) -> String {
    let mut hash = HashWriter(Sha256::new());
    io::copy(&mut File::open(path).unwrap(), &mut hash).unwrap();
    hash.0
        .finalize()
        .iter()
        .map(|byte| format!("{byte:02x}"))
        .collect()
}

struct HashWriter(Sha256);

impl io::Write for HashWriter {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.update(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[test]
fn lo_v4() {
    all_clients("lo_v4", Place::loopback, Family::V4, false);
}

#[test]
fn lo_v6() {
    all_clients("lo_v6", Place::loopback, Family::V6, false);
}

#[test]
fn lo_v4_tls() {
    all_clients("lo_v4_tls", Place::loopback, Family::V4, true);
}

#[test]
fn lo_v6_tls() {
    all_clients("lo_v6_tls", Place::loopback, Family::V6, true);
}

#[test]
fn veth_v4() {
    all_clients("veth_v4", Place::veth, Family::V4, false);
}

#[test]
fn veth_v6() {
    all_clients("veth_v6", Place::veth, Family::V6, false);
}

#[test]
fn veth_v4_tls() {
    all_clients("veth_v4_tls", Place::veth, Family::V4, true);
}

#[test]
fn veth_v6_tls() {
    all_clients("veth_v6_tls", Place::veth, Family::V6, true);
}

#[test]
fn a_keep_alive_connection_is_on_the_fast_path_while_it_is_used() {
    let test = "a_keep_alive_connection_is_on_the_fast_path_while_it_is_used";
    if !require_privileges(test) || !require_tools(test, &["curl"]) {
        return;
    }
    let _serial = serial();
    let place = Place::veth("keepalive").unwrap();
    let options = ServerOptions::new("http", place.server_ip(Family::V4), place.device());
    let server = Server::start(place.server(), &options).unwrap();
    // One curl, one connection, many requests.
    let mut config = tempfile::NamedTempFile::new().unwrap();
    for _ in 0..200 {
        writeln!(
            config,
            "url = \"{}\"\noutput = /dev/null",
            server.url("/bytes/10000")
        )
        .unwrap();
    }
    let path = config.path().to_str().unwrap();
    client(place.client(), "curl", ["-sSf", "-K", path], LIMIT).unwrap();
    let stats = Stats::fetch(place.client(), &server).unwrap();
    stats.assert_offloaded();
    if stats.has_nic() {
        let (fast, slow) = (
            stats.count("fast_path.bytes_out"),
            stats.count("slow_path.bytes_out"),
        );
        assert!(
            fast > 9 * slow,
            "the fast path carried {fast} bytes out, the slow path {slow}"
        );
    }
}
