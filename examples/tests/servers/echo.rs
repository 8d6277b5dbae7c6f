//! The `echo` program.

use flextcp_examples::pattern;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use crate::harness::Program;

const ECHO: &str = env!("CARGO_BIN_EXE_echo");

/// Writes `input` and the end of the stream, and reads to the end at the same time.
async fn answer_to(server: &Program, input: &[u8]) -> Vec<u8> {
    let stream = TcpStream::connect(server.address()).await.unwrap();
    let (mut read, mut write) = stream.into_split();
    let mut answer = Vec::new();
    let (sent, received) = tokio::join!(
        async {
            write.write_all(input).await?;
            write.shutdown().await
        },
        read.read_to_end(&mut answer)
    );
    sent.unwrap();
    received.unwrap();
    answer
}

#[tokio::test]
async fn echoes_on_many_connections() {
    for threads in ["1", "0"] {
        let server = Program::start(ECHO, &["--threads", threads]);
        let input = pattern::chunk(0, 1_000_000);
        let answers = futures::future::join_all((0..20).map(|_| answer_to(&server, &input))).await;
        assert!(answers.iter().all(|answer| *answer == input));
        server.stop();
    }
}

#[tokio::test]
async fn has_modes_for_measurements() {
    let sink = Program::start(ECHO, &["--mode", "sink"]);
    assert_eq!(answer_to(&sink, &[7; 300_000]).await, b"300000\n");
    sink.stop();
    let source = Program::start(ECHO, &["--mode", "source", "--bytes", "700000"]);
    assert!(answer_to(&source, b"").await == pattern::chunk(0, 700_000));
    source.stop();
    let rpc = Program::start(
        ECHO,
        &["--mode", "rpc", "--request", "32", "--response", "8"],
    );
    assert_eq!(answer_to(&rpc, &[0; 100]).await.len(), 24);
    rpc.stop();
}

/// What it says of the stop is an error then, which must not keep it from stopping.
#[tokio::test]
async fn stops_although_nobody_reads_its_log() {
    let server = Program::start_unread(ECHO);
    assert_eq!(answer_to(&server, b"before").await, b"before");
    server.stop();
}

#[tokio::test]
async fn a_graceful_stop_returns_what_arrived() {
    let server = Program::start(ECHO, &[]);
    let mut stream = TcpStream::connect(server.address()).await.unwrap();
    stream.write_all(b"before").await.unwrap();
    stream.read_exact(&mut [0; 6]).await.unwrap();
    server.signal("TERM");
    stream.write_all(b"after").await.unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await.unwrap();
    assert_eq!(answer, "after");
    assert!(server.wait().success());
}
