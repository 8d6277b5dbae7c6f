//! The `memcached` example under libmemcached's conformance test and load generator.

use std::time::Duration;

use integration::netns::require_privileges;
use integration::places::{Family, Place};
use integration::process::serial;
use integration::programs::{Server, ServerOptions, client, require_tools};

const LIMIT: Duration = Duration::from_secs(120);

fn server(place: &Place) -> Server {
    let options = ServerOptions::new("memcached", place.server_ip(Family::V4), place.device());
    Server::start(place.server(), &options).unwrap()
}

#[test]
fn memccapable_finds_no_fault_in_the_text_protocol() {
    let test = "memccapable_finds_no_fault_in_the_text_protocol";
    if !require_privileges(test) || !require_tools(test, &["memccapable"]) {
        return;
    }
    let _serial = serial();
    for place in [
        Place::loopback("capable").unwrap(),
        Place::veth("capable").unwrap(),
    ] {
        let server = server(&place);
        let (host, port) = (
            server.address.ip().to_string(),
            server.address.port().to_string(),
        );
        let args = ["-a", "-h", &host, "-p", &port];
        let output = client(place.client(), "memccapable", args, LIMIT)
            .unwrap()
            .stdout;
        assert!(output.contains("All tests passed"), "{output}");
    }
}

#[test]
fn memcslap_completes() {
    if !require_privileges("memcslap_completes")
        || !require_tools("memcslap_completes", &["memcslap"])
    {
        return;
    }
    let _serial = serial();
    for place in [
        Place::loopback("slap").unwrap(),
        Place::veth("slap").unwrap(),
    ] {
        let server = server(&place);
        let servers = format!("--servers={}", server.address);
        for test in ["--test=set", "--test=get", "--test=mget"] {
            let args = [
                &servers,
                "--concurrency=8",
                "--execute-number=2000",
                "--initial-load=2000",
                test,
            ];
            client(place.client(), "memcslap", args, LIMIT).unwrap();
        }
    }
}
