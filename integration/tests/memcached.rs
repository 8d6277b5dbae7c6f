//! The `memcached` example under libmemcached's conformance test and load generator, and another client library.

use std::time::Duration;

use async_memcached::{AsciiProtocol as _, Client, MetaProtocol as _};
use integration::netns::require_privileges;
use integration::places::{Family, Place};
use integration::process::serial;
use integration::programs::{Server, ServerOptions, client, require_tools};
use integration::stats::{STATS_FILE, Stats};
use rustix::process::Signal;

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

/// What one connection of the client library does; keys are its own.
async fn use_a_client(dsn: &str, own: usize) -> Result<(), async_memcached::Error> {
    let mut client = Client::new(dsn).await?;
    let key = |name: &str| format!("{name}-{own}");
    let big: Vec<u8> = (0..90_000_usize)
        .map(|at| (at.wrapping_mul(31) >> 3 ^ own) as u8)
        .collect();
    for round in 0..20 {
        client.set(key("big"), &big[round..], None, Some(7)).await?;
        let value = client.get(key("big")).await?.expect("it was set");
        assert_eq!(value.flags, Some(7));
        assert!(value.data.as_deref() == Some(&big[round..]), "bytes differ");

        client.set(key("n"), "41", None, None).await?;
        assert_eq!(client.increment(key("n"), 1).await?, 42);
        assert_eq!(client.decrement(key("n"), 50).await?, 0);
        client.delete(key("n")).await?;
        assert!(client.get(key("n")).await?.is_none());

        let keys: Vec<String> = (0..50).map(|n| key(&format!("key{n}"))).collect();
        for key in &keys {
            client.set(key, &key[..], None, None).await?;
        }
        let values = client.get_multi(&keys).await?;
        assert_eq!(values.len(), keys.len());
        for value in values {
            assert_eq!(value.data, Some(value.key));
        }

        client.meta_set(key("m"), "meta", false, None, None).await?;
        let value = client
            .meta_get(key("m"), false, None, Some(&["v"][..]))
            .await?
            .expect("it was set");
        assert_eq!(value.data.as_deref(), Some(&b"meta"[..]));
    }
    Ok(())
}

#[test]
fn a_second_client_library_finds_no_fault() {
    if !require_privileges("a_second_client_library_finds_no_fault") {
        return;
    }
    let _serial = serial();
    for place in [
        Place::loopback("client").unwrap(),
        Place::veth("client").unwrap(),
    ] {
        let lines = tempfile::NamedTempFile::new().unwrap();
        let mut options =
            ServerOptions::new("memcached", place.server_ip(Family::V4), place.device());
        let path = lines.path().display().to_string();
        options.env.push((STATS_FILE, path));
        let server = Server::start(place.server(), &options).unwrap();
        let dsn = format!("tcp://{}", server.address);
        place
            .client()
            .within(|| {
                let runtime = tokio::runtime::Builder::new_current_thread()
                    .enable_all()
                    .build()
                    .unwrap();
                let clients = (0..8).map(|own| use_a_client(&dsn, own));
                let all = futures::future::try_join_all(clients);
                runtime.block_on(async {
                    tokio::time::timeout(LIMIT, all)
                        .await
                        .expect("no client hangs")
                })
            })
            .unwrap()
            .unwrap();
        server.process.signal(Signal::TERM).unwrap();
        let server = server.process.finish(LIMIT).unwrap();
        assert!(server.status.success(), "{}", server.stderr);
        Stats::read_lines(lines.path()).unwrap()[0].assert_offloaded();
    }
}
