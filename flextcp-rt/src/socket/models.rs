//! Loom models of readiness, doorbells and the accept queue: every interleaving, within `LOOM_MAX_PREEMPTIONS`. A lost
//! wake-up shows as a deadlock.
//!
//! `RUSTFLAGS="--cfg flextcp_loom" LOOM_MAX_PREEMPTIONS=2 cargo test -p flextcp-rt --lib socket::models`

use std::future::poll_fn;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use flextcp_nic::buffer::{Pool, recv_ring, send_ring};
use loom::future::block_on;
use loom::sync::Mutex;
use loom::sync::atomic::AtomicU32;
use loom::thread;

use super::readiness::{Direction, READABLE, Readiness};
use super::*;

/// What a core was asked.
#[derive(Default)]
struct Notes {
    doorbells: Mutex<u32>,
    commands: Mutex<Vec<Command>>,
    accepted: Mutex<u32>,
}

impl Core for Notes {
    fn doorbell(&self, _: Token) {
        *self.doorbells.lock().unwrap() += 1;
    }

    fn command(&self, _: Token, command: Command) {
        self.commands.lock().unwrap().push(command);
    }

    fn accepted(&self, _: ListenerId) {
        *self.accepted.lock().unwrap() += 1;
    }

    fn info(&self, _: Token) -> Option<TcpInfo> {
        None
    }

    fn export(
        &self,
        _: Token,
        _: Addresses,
        _: &mut dyn FnMut() -> Vec<u8>,
    ) -> io::Result<TcpStream> {
        Err(io::ErrorKind::Unsupported.into())
    }
}

fn connection() -> (Stream, StreamHandle, Arc<Notes>) {
    let pool = Pool::new(1 << 20);
    let (_, recv) = recv_ring(&pool);
    let (send, _) = send_ring(&pool, 4096);
    let core = Arc::new(Notes::default());
    let addresses = Addresses {
        local: "127.0.0.1:1".parse().unwrap(),
        peer: "127.0.0.1:2".parse().unwrap(),
    };
    let (stream, handle) = pair(
        core.clone(),
        Token(1),
        AppBuffers { recv, send },
        addresses,
        SocketOptions::default(),
        None,
    );
    (stream, handle, core)
}

/// Waits as an operation does: tries, and forgets the readiness when there was nothing.
async fn take(readiness: &Readiness, items: &AtomicU32) {
    loop {
        let event = poll_fn(|cx| readiness.poll(cx, Direction::Read)).await;
        if items.load(Ordering::Relaxed) > 0 {
            return;
        }
        readiness.clear(event);
    }
}

/// An event that comes between the failed attempt and the clear is not lost, and what was published before it is
/// seen.
#[test]
fn an_event_during_a_clear_is_not_lost() {
    loom::model(|| {
        let shared = Arc::new((Readiness::default(), AtomicU32::new(0)));
        // As a stream is that was just accepted.
        shared.0.assume(READABLE);
        let producer = {
            let shared = shared.clone();
            thread::spawn(move || {
                shared.1.store(1, Ordering::Relaxed);
                shared.0.set(READABLE, &mut Wakers::new());
            })
        };
        block_on(take(&shared.0, &shared.1));
        producer.join().unwrap();
    });
}

/// Any number of tasks may wait, with the reserved slot and without, and each is woken.
#[test]
fn every_waiter_is_woken() {
    loom::model(|| {
        let readiness = Arc::new(Readiness::default());
        let waiting = {
            let readiness = readiness.clone();
            thread::spawn(move || {
                block_on(readiness.wait(READABLE));
            })
        };
        let setting = {
            let readiness = readiness.clone();
            thread::spawn(move || readiness.set(READABLE, &mut Wakers::new()))
        };
        block_on(poll_fn(|cx| readiness.poll(cx, Direction::Read)));
        waiting.join().unwrap();
        setting.join().unwrap();
    });
}

/// The end of the runtime ends every wait.
#[test]
fn a_shutdown_reaches_who_begins_to_wait() {
    loom::model(|| {
        let readiness = Arc::new(Readiness::default());
        let ending = {
            let readiness = readiness.clone();
            thread::spawn(move || readiness.shutdown(&mut Wakers::new()))
        };
        let event = block_on(readiness.wait(READABLE));
        assert!(event.is_shutdown);
        ending.join().unwrap();
    });
}

/// Whatever was done before a doorbell that made no request is seen when the request before it is served.
#[test]
fn a_doorbell_that_is_swallowed_was_heard() {
    loom::model(|| {
        let (stream, handle, core) = connection();
        let written = Arc::new(AtomicU32::new(0));
        let application = {
            let written = written.clone();
            thread::spawn(move || {
                for n in 1..=2 {
                    written.store(n, Ordering::Relaxed);
                    stream.ring();
                }
                stream
            })
        };
        let serve = || {
            let requests = std::mem::take(&mut *core.doorbells.lock().unwrap());
            (0..requests)
                .map(|_| {
                    handle.take_doorbell();
                    written.load(Ordering::Relaxed)
                })
                .last()
        };
        let early = serve();
        let stream = application.join().unwrap();
        // Nobody rings any more: what is requested now is all that the core will learn.
        assert_eq!(serve().or(early), Some(2));
        drop(stream);
    });
}

/// A connection that arrives while the listener closes is reset, once.
#[test]
fn a_connection_is_reset_by_whoever_closes_its_queue_last() {
    loom::model(|| {
        let queue = AcceptQueue::new();
        let (stream, _handle, core) = connection();
        let closing = {
            let queue = queue.clone();
            thread::spawn(move || queue.close())
        };
        queue.push(stream, ListenerId(0), &mut Wakers::new());
        closing.join().unwrap();
        assert_eq!(*core.commands.lock().unwrap(), [Command::Abort]);
        assert!(queue.is_empty());
    });
}

/// Two connections and one task that accepts: none is left behind, none is woken for in vain forever.
#[test]
fn every_connection_is_accepted() {
    loom::model(|| {
        let queue = AcceptQueue::new();
        let (first, _first, core) = connection();
        let (second, _second, _) = connection();
        let arriving = {
            let queue = queue.clone();
            thread::spawn(move || {
                for stream in [first, second] {
                    queue.push(stream, ListenerId(0), &mut Wakers::new());
                }
            })
        };
        let listener = FlexListener::new(queue, RuntimeHandle::new(), || {});
        block_on(async {
            for _ in 0..2 {
                drop(listener.accept().await.unwrap());
            }
        });
        arriving.join().unwrap();
        assert_eq!(*core.accepted.lock().unwrap(), 1);
    });
}
