//! The `http` program.

use std::io::Write;
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use bytes::Bytes;
use flextcp_examples::pattern;
use hyper::Method;
use rustls::pki_types::CertificateDer;
use sha2::{Digest, Sha256};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use crate::harness::{Program, failing, have};
use crate::http_client::{Client, tls};

const HTTP: &str = env!("CARGO_BIN_EXE_http");

fn sha256(bytes: &[u8]) -> String {
    let digest = Sha256::digest(bytes);
    digest.iter().map(|byte| format!("{byte:02x}")).collect()
}

fn content(len: u64) -> Bytes {
    let mut content = Vec::new();
    while (content.len() as u64) < len {
        let offset = content.len() as u64;
        content.extend_from_slice(&pattern::chunk(offset, len - offset));
    }
    content.into()
}

/// Every path, over a connection of either protocol.
async fn all_paths(client: &mut Client) {
    let page = client.get("/").await;
    assert_eq!(page.status(), 200);
    assert!(
        page.headers()["content-type"]
            .to_str()
            .unwrap()
            .contains("text/html")
    );
    assert!(String::from_utf8_lossy(page.body()).contains("This connection"));

    for len in [0, 1, 1000, 3_000_001] {
        let path = format!("/bytes/{len}");
        let bytes = client.get(&path).await;
        assert_eq!(bytes.status(), 200);
        assert_eq!(bytes.headers()["content-length"], len.to_string());
        assert!(*bytes.body() == content(len), "{path}");
        let head = client.send(Method::HEAD, &path, "").await.unwrap();
        assert_eq!(head.headers()["content-length"], len.to_string());
        assert!(head.body().is_empty());
    }
    for wrong in ["/bytes/many", "/bytes/-1", "/bytes/99999999999999999999"] {
        let answer = client.get(wrong).await;
        assert_eq!(answer.status(), 400, "{wrong}");
        assert!(String::from_utf8_lossy(answer.body()).contains("whole number"));
    }

    let body = content(2_500_000);
    let echoed = client
        .send(Method::POST, "/echo", body.clone())
        .await
        .unwrap();
    assert_eq!(echoed.status(), 200);
    assert!(*echoed.body() == body);

    for method in [Method::PUT, Method::POST] {
        let answer = client.send(method, "/upload", body.clone()).await.unwrap();
        let answer: serde_json::Value = serde_json::from_slice(answer.body()).unwrap();
        assert_eq!(answer["size"], 2_500_000);
        assert_eq!(answer["sha256"], sha256(&body));
    }

    let stats = client.get_json("/stats").await;
    assert!(stats["nic"]["kind"].is_string(), "{stats}");
    for path in ["fast_path", "slow_path"] {
        assert!(stats[path]["bytes_in"].is_u64(), "{stats}");
        assert!(stats[path]["bytes_out"].is_u64(), "{stats}");
    }
    assert!(stats["exceptions"].is_object(), "{stats}");
    for owner in ["offloaded", "host", "kernel"] {
        assert!(stats["connections"][owner].is_u64(), "{stats}");
    }
    assert_eq!(stats["this_connection"]["offloaded"], false);

    let metrics = client.get("/metrics").await;
    let metrics = String::from_utf8_lossy(metrics.body()).into_owned();
    assert!(
        metrics.contains("flextcp_connections_accepted_total "),
        "{metrics}"
    );
    assert_eq!(client.get("/connections").await.status(), 200);

    let absent = client.get("/absent").await;
    assert_eq!(absent.status(), 404);
    assert!(String::from_utf8_lossy(absent.body()).contains("/bytes/{n}"));
    let wrong = client.send(Method::DELETE, "/echo", "").await.unwrap();
    assert_eq!(wrong.status(), 405);
}

#[tokio::test(flavor = "multi_thread")]
async fn serves_both_versions_on_every_runtime() {
    for threads in ["0", "1", "2"] {
        let server = Program::start(HTTP, &["--threads", threads]);
        all_paths(&mut Client::http1(server.address()).await).await;
        all_paths(&mut Client::http2(server.address()).await).await;
        server.stop();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn serves_with_a_runtime_for_each_core() {
    for args in [&["--per-core"][..], &["--per-core", "--threads", "3"]] {
        let server = Program::start_without_nic(HTTP, args);
        for _ in 0..8 {
            all_paths(&mut Client::http1(server.address()).await).await;
        }
        all_paths(&mut Client::http2(server.address()).await).await;
        server.stop();
    }
    let two = [
        "--per-core",
        "--listen",
        "127.0.0.1:0",
        "--listen",
        "[::1]:0",
    ];
    assert!(failing(HTTP, &two).contains("one --listen"));
}

#[tokio::test(flavor = "multi_thread")]
async fn serves_both_versions_over_tls() {
    let made = rcgen::generate_simple_self_signed(vec!["localhost".to_owned()]).unwrap();
    let mut cert = tempfile::NamedTempFile::new().unwrap();
    cert.write_all(made.cert.pem().as_bytes()).unwrap();
    let mut key = tempfile::NamedTempFile::new().unwrap();
    key.write_all(made.signing_key.serialize_pem().as_bytes())
        .unwrap();
    let (cert, key) = (cert.path().to_str().unwrap(), key.path().to_str().unwrap());
    let server = Program::start(HTTP, &["--tls", "--cert", cert, "--key", key]);
    assert!(server.announcement().contains("https://"));

    let trusted: CertificateDer<'static> = made.cert.der().clone();
    let stream = tls(server.address(), trusted.clone(), &["h2", "http/1.1"]).await;
    assert_eq!(stream.get_ref().1.alpn_protocol(), Some(&b"h2"[..]));
    let mut client = Client::http2_over(stream).await;
    all_paths(&mut client).await;
    let stats = client.get_json("/stats").await;
    assert_eq!(stats["this_connection"]["tls"], "TLS 1.3");
    assert_eq!(stats["this_connection"]["http"], "HTTP/2.0");

    let stream = tls(server.address(), trusted, &["http/1.1"]).await;
    assert_eq!(stream.get_ref().1.alpn_protocol(), Some(&b"http/1.1"[..]));
    all_paths(&mut Client::http1_over(stream).await).await;
    drop(client);
    server.stop();
}

#[test]
fn curl_gets_puts_and_accepts_a_self_signed_certificate() {
    if !have("curl") {
        return;
    }
    let file = tempfile::NamedTempFile::new().unwrap();
    let body = content(5_000_000);
    std::fs::write(file.path(), &body).unwrap();
    for (scheme, args) in [("http", &[][..]), ("https", &["--tls"][..])] {
        let server = Program::start(HTTP, args);
        let curl = |path: &str, args: &[&str]| {
            let output = Command::new("curl")
                .args(["-sSfk", "--max-time", "50"])
                .args(args)
                .arg(format!("{scheme}://{}{path}", server.address()))
                .output()
                .unwrap();
            assert!(output.status.success(), "{path} {args:?}: {output:?}");
            output.stdout
        };
        for version in ["--http1.1", "--http2"] {
            assert!(curl("/bytes/5000000", &[version]) == body);
            let answer = curl("/upload", &[version, "-T", file.path().to_str().unwrap()]);
            assert!(String::from_utf8_lossy(&answer).contains(&sha256(&body)));
        }
        server.stop();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn listens_on_several_addresses() {
    let listen = ["--listen", "127.0.0.1:0", "--listen", "[::1]:0"];
    let server = Program::start_as(HTTP, &listen);
    assert_eq!(server.addresses().len(), 2, "{}", server.announcement());
    for &address in server.addresses() {
        assert_eq!(Client::http1(address).await.get("/").await.status(), 200);
    }
    server.stop();
}

#[tokio::test]
async fn a_client_that_closes_its_side_first_gets_the_whole_answer() {
    let server = Program::start(HTTP, &[]);
    let mut stream = TcpStream::connect(server.address()).await.unwrap();
    stream
        .write_all(b"GET /bytes/2000000 HTTP/1.1\r\nHost: x\r\n\r\n")
        .await
        .unwrap();
    stream.shutdown().await.unwrap();
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer).await.unwrap();
    assert!(answer.ends_with(&content(2_000_000)));
    server.stop();
}

/// GOAWAY without an error came between two requests (RFC 9113 section 6.8): this one was not sent, or its stream is beyond
/// the last that the server took.
fn was_not_taken(error: &hyper::Error) -> bool {
    let source = std::error::Error::source(error).and_then(|source| source.downcast_ref());
    source.is_some_and(|error: &h2::Error| {
        error.is_go_away() && error.is_remote() && error.reason() == Some(h2::Reason::NO_ERROR)
    })
}

/// Clients ask without a pause while the server is told to stop: whatever was asked is answered,
/// and the connection ends only between answers.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_graceful_stop_loses_no_response() {
    for version in [1, 2] {
        let server = Program::start(HTTP, &[]);
        let address = server.address();
        let answered = Arc::new(AtomicUsize::new(0));
        let mut clients = Vec::new();
        for _ in 0..16 {
            let mut client = match version {
                1 => Client::http1(address).await,
                _ => Client::http2(address).await,
            };
            let answered = Arc::clone(&answered);
            clients.push(tokio::spawn(async move {
                loop {
                    match client.send(Method::GET, "/bytes/70000", "").await {
                        Ok(response) => {
                            assert_eq!(response.status(), 200);
                            assert_eq!(response.body().len(), 70_000);
                            answered.fetch_add(1, Ordering::Relaxed);
                            if response.headers().get("connection").is_some() {
                                return;
                            }
                        }
                        // HTTP/2: the request was not sent any more.
                        Err(error) if version == 2 && error.is_canceled() => return,
                        // HTTP/2: the server says that it did not look at the request.
                        Err(error) if version == 2 && error.is_closed() => return,
                        Err(error) if version == 2 && was_not_taken(&error) => return,
                        Err(error) => panic!("HTTP/{version}: {error:?}"),
                    }
                }
            }));
        }
        while answered.load(Ordering::Relaxed) < 200 {
            tokio::task::yield_now().await;
        }
        server.signal("TERM");
        for client in clients {
            client.await.unwrap();
        }
        assert!(server.wait().success());
    }
}

/// A download under way, an idle connection and one that is half-way through its upload.
#[tokio::test]
async fn a_graceful_stop_lets_what_is_under_way_end() {
    let server = Program::start(HTTP, &[]);
    let _idle = TcpStream::connect(server.address()).await.unwrap();

    let mut download = TcpStream::connect(server.address()).await.unwrap();
    let len = 32 << 20;
    let request = format!("GET /bytes/{len} HTTP/1.1\r\nHost: x\r\n\r\n");
    download.write_all(request.as_bytes()).await.unwrap();
    let mut received = vec![0; 1000];
    download.read_exact(&mut received).await.unwrap();

    let mut upload = TcpStream::connect(server.address()).await.unwrap();
    upload
        .write_all(b"PUT /upload HTTP/1.1\r\nHost: x\r\nContent-Length: 10\r\n\r\nhello")
        .await
        .unwrap();
    // The server has read the head once another connection, opened later, was answered.
    Client::http1(server.address()).await.get("/").await;

    server.signal("INT");
    while TcpStream::connect(server.address()).await.is_ok() {
        tokio::task::yield_now().await;
    }
    upload.write_all(b"world").await.unwrap();
    let mut answer = String::new();
    upload.read_to_string(&mut answer).await.unwrap();
    assert!(answer.contains(&sha256(b"helloworld")), "{answer}");
    download.read_to_end(&mut received).await.unwrap();
    assert!(received.ends_with(&content(len)));
    assert!(server.wait().success());
}

#[test]
fn mistakes_on_the_command_line_are_explained() {
    let server = Program::start(HTTP, &[]);
    let taken = server.address().to_string();
    let error = failing(HTTP, &["--kernel", "--listen", &taken]);
    assert!(
        error.contains(&taken) && error.contains("--listen"),
        "{error}"
    );
    let error = failing(HTTP, &["--listen", "8080"]);
    assert!(error.contains("ADDRESS:PORT"), "{error}");
    let error = failing(HTTP, &["--cert", "x.pem"]);
    assert!(error.contains("--key"), "{error}");
    let error = failing(
        HTTP,
        &["--tls", "--cert", "/none.pem", "--key", "/none.pem"],
    );
    assert!(error.contains("/none.pem"), "{error}");
}

#[test]
fn a_second_signal_ends_the_program_at_once() {
    let server = Program::start(HTTP, &["--drain", "1h"]);
    let mut upload = std::net::TcpStream::connect(server.address()).unwrap();
    let head =
        "PUT /upload HTTP/1.1\r\nHost: x\r\nContent-Length: 10\r\nExpect: 100-continue\r\n\r\n";
    upload.write_all(head.as_bytes()).unwrap();
    // "100 Continue" shows that the request is in the handler.
    std::io::Read::read_exact(&mut upload, &mut [0; 12]).unwrap();
    server.signal("TERM");
    // Signals of one kind are merged while one is pending: the first was seen when the listener
    // is gone.
    while std::net::TcpStream::connect(server.address()).is_ok() {}
    server.signal("TERM");
    assert_eq!(server.wait().code(), Some(1));
}
