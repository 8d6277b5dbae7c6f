//! The examples over the emulated Netronome card (`FLEXTCP_NIC=nfp-emu`), a Linux peer at the other end of a veth link: the
//! card's firmware carries the payload.

use std::time::Duration;

use integration::netns::require_privileges;
use integration::places::{Family, Place};
use integration::process::serial;
use integration::programs::{Server, ServerOptions, client, require_tools};
use integration::stats::Stats;

const LIMIT: Duration = Duration::from_secs(120);

fn server(name: &'static str, place: &Place) -> Server {
    let mut options = ServerOptions::new(name, place.server_ip(Family::V4), place.device());
    options.env.push(("FLEXTCP_NIC", "nfp-emu".to_owned()));
    options.env.push(("FLEXTCP_FALLBACK", "deny".to_owned()));
    Server::start(place.server(), &options).unwrap()
}

#[test]
fn http_clients_find_no_fault_with_the_firmware() {
    let test = "http_clients_find_no_fault_with_the_firmware";
    if !require_privileges(test) || !require_tools(test, &["wrk", "curl"]) {
        return;
    }
    let _serial = serial();
    let place = Place::veth("nfphttp").unwrap();
    let server = server("http", &place);
    let len: u64 = 8 << 20;
    let scratch = tempfile::tempdir().unwrap();
    let down = scratch.path().join("down");
    let path = down.to_str().unwrap();
    let (from, to) = (server.url(&format!("/bytes/{len}")), server.url("/upload"));
    let get = ["-sSf", "--max-time", "60", "-o", path, &from];
    client(place.client(), "curl", get, LIMIT).unwrap();
    assert_eq!(down.metadata().unwrap().len(), len);

    let put = ["-sSf", "--max-time", "60", "-T", path, &to];
    let answer = client(place.client(), "curl", put, LIMIT).unwrap().stdout;
    assert!(answer.contains("sha256"), "{answer}");

    let url = server.url("/");
    let args = ["-c16", "-t2", "-d", "2s", "--timeout", "10s", &url];
    let output = client(place.client(), "wrk", args, LIMIT).unwrap().stdout;
    println!("{output}");
    assert!(output.contains("requests in"), "{output}");
    assert!(!output.contains("Socket errors"), "{output}");
    assert!(!output.contains("Non-2xx"), "{output}");

    let stats = Stats::fetch(place.client(), &server).unwrap();
    println!("{stats:?}");
    assert_eq!(stats.text("nic.kind"), "nfp-emu");
    // A lone transfer may spend its time in recovery; wrk's many short ones do not.
    assert!(stats.count("fast_path.bytes_out") > len, "{stats:?}");
    assert!(stats.count("fast_path.bytes_in") > 1 << 20, "{stats:?}");
}

#[test]
fn memccapable_finds_no_fault_with_the_firmware() {
    let test = "memccapable_finds_no_fault_with_the_firmware";
    if !require_privileges(test) || !require_tools(test, &["memccapable"]) {
        return;
    }
    let _serial = serial();
    let place = Place::veth("nfpmemc").unwrap();
    let server = server("memcached", &place);
    let host = server.address.ip().to_string();
    let port = server.address.port().to_string();
    let args = ["-a", "-h", &host, "-p", &port];
    let output = client(place.client(), "memccapable", args, LIMIT)
        .unwrap()
        .stdout;
    assert!(output.contains("All tests passed"), "{output}");
}

#[test]
fn the_echo_server_sends_back_what_a_kernel_peer_sent() {
    let test = "the_echo_server_sends_back_what_a_kernel_peer_sent";
    if !require_privileges(test) || !require_tools(test, &["python3"]) {
        return;
    }
    let _serial = serial();
    let place = Place::veth("nfpecho").unwrap();
    let server = server("echo", &place);
    let host = server.address.ip().to_string();
    let port = server.address.port().to_string();
    let args = ["-c", ECHO_CLIENT, &host, &port];
    let output = client(place.client(), "python3", args, LIMIT)
        .unwrap()
        .stdout;
    assert!(output.contains("echoed 4 x 2097152"), "{output}");
}

/// Four connections at once, each with a stream of its own that comes back while it is sent.
const ECHO_CLIENT: &str = r#"
import random, socket, sys, threading
LENGTH, FAILED = 2 << 20, []
def one(seed):
    try:
        sent = random.Random(seed).randbytes(LENGTH)
        peer = socket.create_connection((sys.argv[1], int(sys.argv[2])), timeout=60)
        def write():
            peer.sendall(sent)
            peer.shutdown(socket.SHUT_WR)
        writer = threading.Thread(target=write)
        writer.start()
        back = bytearray()
        while piece := peer.recv(1 << 16):
            back += piece
        writer.join()
        assert back == sent, f"{len(back)} bytes came back, not {LENGTH} or not the same"
    except Exception as error:
        FAILED.append(error)
threads = [threading.Thread(target=one, args=(seed,)) for seed in range(4)]
[thread.start() for thread in threads]
[thread.join() for thread in threads]
assert not FAILED, FAILED
print(f"echoed {len(threads)} x {LENGTH}")
"#;
