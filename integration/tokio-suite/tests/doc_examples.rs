//! The examples in the documentation of tokio's TCP types, on `flextcp_net`, each against the peer that it wants.
// Nearly all of it is not our code to lint.
#![allow(warnings, clippy::all)]

use std::fmt::Debug;
use std::future::Future;
use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::mpsc::{RecvTimeoutError, channel};
use std::thread;
use std::time::{Duration, Instant};

include!(concat!(env!("OUT_DIR"), "/doc_examples.rs"));

const LIMIT: Duration = Duration::from_secs(20);

/// Whom an example talks to.
enum Peer {
    None,
    /// A server that says something, ends, and listens to the end.
    Talks(&'static str),
    /// A server that takes what comes: the example resets its connection, which may be before it is accepted.
    Listens(&'static str),
    /// A server that says something and, once it was answered, resets: the example goes on for ever otherwise.
    Resets(&'static str),
    /// A client that comes once.
    Visits(&'static str),
    /// A client that comes several times; the example never ends.
    VisitsForEver(&'static str),
}

fn block_on<F: Future>(example: F) -> F::Output {
    tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()
        .unwrap()
        .block_on(example)
}

/// Runs an example to its end, or where it has none until its peer is content.
fn run(peer: Peer, example: impl FnOnce() -> Result<(), String> + Send + 'static) {
    let server = match &peer {
        Peer::Talks(address) | Peer::Listens(address) | Peer::Resets(address) => {
            Some(TcpListener::bind(address).unwrap())
        }
        _ => None,
    };
    let (ended, end) = channel();
    thread::spawn(move || ended.send(example()));
    let result = || match end.recv_timeout(LIMIT) {
        Ok(result) => result,
        Err(RecvTimeoutError::Timeout) => panic!("the example did not end"),
        Err(RecvTimeoutError::Disconnected) => panic!("the example panicked"),
    };
    match peer {
        Peer::None | Peer::Listens(_) => result().unwrap(),
        Peer::Talks(_) => {
            let mut stream = accept(server.unwrap());
            // Some examples leave at once, without reading: the end is a reset then.
            let said = stream.write_all(b"hello world");
            let ended = said.and_then(|()| stream.shutdown(std::net::Shutdown::Write));
            let heard = ended.and_then(|()| stream.read_to_end(&mut Vec::new()));
            drop(heard);
            result().unwrap();
        }
        Peer::Resets(_) => {
            let mut stream = accept(server.unwrap());
            stream.write_all(b"hello world").unwrap();
            let mut answer = [0; 11];
            stream.read_exact(&mut answer).unwrap();
            assert_eq!(&answer, b"hello world");
            socket2::SockRef::from(&stream)
                .set_linger(Some(Duration::ZERO))
                .unwrap();
            drop(stream);
            let error = result().unwrap_err();
            assert!(
                error.contains("reset") || error.contains("Broken pipe"),
                "{error}"
            );
        }
        Peer::Visits(address) => {
            visit(address);
            result().unwrap();
        }
        Peer::VisitsForEver(address) => {
            for _ in 0..3 {
                visit(address);
            }
            assert!(
                matches!(end.try_recv(), Err(std::sync::mpsc::TryRecvError::Empty)),
                "the example ended"
            );
        }
    }
}

fn accept(server: TcpListener) -> TcpStream {
    server.set_nonblocking(true).unwrap();
    let stream = within_limit(|| server.accept().ok()).0;
    stream.set_nonblocking(false).unwrap();
    stream.set_read_timeout(Some(LIMIT)).unwrap();
    stream
}

/// Connects, and waits until the example hangs up.
fn visit(address: &str) {
    let mut stream = within_limit(|| TcpStream::connect(address).ok());
    stream.set_read_timeout(Some(LIMIT)).unwrap();
    assert_eq!(stream.read(&mut [0]).unwrap(), 0);
}

fn within_limit<T>(mut attempt: impl FnMut() -> Option<T>) -> T {
    let deadline = Instant::now() + LIMIT;
    loop {
        if let Some(done) = attempt() {
            return done;
        }
        assert!(
            Instant::now() < deadline,
            "the example did nothing for {LIMIT:?}"
        );
        thread::sleep(Duration::from_millis(5));
    }
}
