//! Tests of the socket against a core that only takes notes.

mod mirror;

use std::io::ErrorKind;
use std::pin::pin;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll, Wake, Waker};
use std::time::Duration;

use flextcp_nic::buffer::{Pool, RecvWriter, SendReader, recv_ring, send_ring};
use tokio::io::Interest;

use super::*;

#[derive(Default)]
struct Notes {
    doorbells: AtomicUsize,
    commands: Mutex<Vec<Command>>,
}

impl Core for Notes {
    fn doorbell(&self, _: Token) {
        self.doorbells.fetch_add(1, Ordering::SeqCst);
    }

    fn command(&self, _: Token, command: Command) {
        self.commands.lock().unwrap().push(command);
    }

    fn accepted(&self, _: ListenerId) {}

    fn info(&self, _: Token) -> Option<TcpInfo> {
        None
    }

    fn export(
        &self,
        _: Token,
        _: Addresses,
        _: &mut dyn FnMut() -> Vec<u8>,
    ) -> std::io::Result<std::net::TcpStream> {
        Err(ErrorKind::Unsupported.into())
    }
}

struct Peer {
    core: Arc<Notes>,
    handle: StreamHandle,
    recv: RecvWriter,
    send: SendReader,
}

impl Peer {
    fn deliver(&mut self, bytes: &[u8]) {
        assert_eq!(self.recv.place(0, bytes), bytes.len());
        self.recv.publish(bytes.len() as u32);
        self.handle.on_readable(&mut Wakers::new());
    }

    fn commands(&self) -> Vec<Command> {
        self.core.commands.lock().unwrap().clone()
    }

    fn reset(&self) {
        self.handle.on_failed(
            ErrorKind::ConnectionReset,
            Some(libc::ECONNRESET),
            &mut Wakers::new(),
        );
    }
}

const LIMIT: u32 = 4096;

fn connected() -> (Stream, Peer) {
    let pool = Pool::new(1 << 20);
    let (mut recv, reader) = recv_ring(&pool);
    recv.resize(LIMIT, 0).unwrap();
    let (writer, send) = send_ring(&pool, LIMIT);
    let core = Arc::new(Notes::default());
    let addresses = Addresses {
        local: "127.0.0.1:1".parse().unwrap(),
        peer: "127.0.0.1:2".parse().unwrap(),
    };
    let app = AppBuffers {
        recv: reader,
        send: writer,
    };
    let options = SocketOptions::default();
    let (stream, handle) = pair(
        Arc::<Notes>::clone(&core),
        Token(7),
        app,
        addresses,
        options,
        None,
    );
    handle.on_connected(&mut Wakers::new());
    (
        stream,
        Peer {
            core,
            handle,
            recv,
            send,
        },
    )
}

#[derive(Default)]
struct Count(AtomicUsize);

impl Wake for Count {
    fn wake(self: Arc<Self>) {
        self.0.fetch_add(1, Ordering::SeqCst);
    }
}

fn kind<T: std::fmt::Debug>(result: std::io::Result<T>) -> ErrorKind {
    result.unwrap_err().kind()
}

#[test]
fn readiness_stays_until_an_operation_finds_nothing() {
    let (stream, mut peer) = connected();
    let mut cx = Context::from_waker(Waker::noop());
    assert!(stream.poll_read_ready(&mut cx).is_pending());
    peer.deliver(b"ping");
    let mut buf = [0; 4];
    assert_eq!(stream.try_read(&mut buf).unwrap(), 4);
    assert!(stream.poll_read_ready(&mut cx).is_ready());
    assert_eq!(kind(stream.try_read(&mut buf)), ErrorKind::WouldBlock);
    assert!(stream.poll_read_ready(&mut cx).is_pending());
}

#[test]
fn one_event_wakes_the_slot_and_every_waiting_future() {
    let (stream, mut peer) = connected();
    let count = Arc::new(Count::default());
    let waker = Waker::from(Arc::clone(&count));
    let mut cx = Context::from_waker(&waker);
    let mut waits: Vec<_> = (0..50)
        .map(|_| Box::pin(stream.ready(Interest::READABLE)))
        .collect();
    assert!(
        waits
            .iter_mut()
            .all(|wait| wait.as_mut().poll(&mut cx).is_pending())
    );
    assert!(stream.poll_read_ready(&mut cx).is_pending());
    drop(waits.pop());
    peer.handle.on_writable(&mut Wakers::new());
    assert_eq!(count.0.load(Ordering::SeqCst), 0);
    peer.deliver(b"x");
    assert_eq!(count.0.load(Ordering::SeqCst), 50);
    assert!(
        waits
            .iter_mut()
            .all(|wait| wait.as_mut().poll(&mut cx).is_ready())
    );
}

#[test]
fn a_clear_does_not_lose_the_event_that_came_before_it() {
    let (stream, mut peer) = connected();
    peer.deliver(b"");
    let result = stream.try_io(Interest::READABLE, || {
        peer.deliver(b"late");
        Err::<(), _>(ErrorKind::WouldBlock.into())
    });
    assert_eq!(kind(result), ErrorKind::WouldBlock);
    assert_eq!(stream.try_read(&mut [0; 8]).unwrap(), 4);
}

#[test]
fn the_end_comes_after_the_bytes() {
    let (stream, mut peer) = connected();
    peer.deliver(b"last");
    peer.handle.on_peer_closed(&mut Wakers::new());
    let mut cx = Context::from_waker(Waker::noop());
    let ready = pin!(stream.ready(Interest::READABLE)).poll(&mut cx);
    assert!(matches!(ready, Poll::Ready(Ok(ready)) if ready.is_read_closed()));
    let mut buf = [0; 8];
    assert_eq!(stream.try_read(&mut buf).unwrap(), 4);
    assert_eq!(stream.try_read(&mut buf).unwrap(), 0);
    assert_eq!(stream.try_read(&mut buf).unwrap(), 0);
    assert_eq!(stream.try_write(b"still open").unwrap(), 10);
}

#[test]
fn an_error_is_told_once_then_the_end_and_a_broken_pipe() {
    let (stream, mut peer) = connected();
    peer.deliver(b"data");
    peer.reset();
    let mut buf = [0; 8];
    assert_eq!(stream.try_read(&mut buf).unwrap(), 4);
    assert_eq!(kind(stream.try_read(&mut buf)), ErrorKind::ConnectionReset);
    assert_eq!(stream.try_read(&mut buf).unwrap(), 0);
    assert_eq!(kind(stream.try_write(b"x")), ErrorKind::BrokenPipe);
    assert!(stream.take_error().is_none());

    let (stream, peer) = connected();
    peer.reset();
    assert_eq!(kind(stream.try_write(b"x")), ErrorKind::ConnectionReset);
    assert_eq!(kind(stream.try_write(b"x")), ErrorKind::BrokenPipe);
}

#[test]
fn a_doorbell_rings_once_until_it_is_taken() {
    let (stream, mut peer) = connected();
    stream.try_write(b"one").unwrap();
    stream.try_write(b"two").unwrap();
    assert_eq!(peer.core.doorbells.load(Ordering::SeqCst), 1);
    assert!(peer.handle.take_doorbell());
    assert!(!peer.handle.take_doorbell());
    assert_eq!(peer.send.take_written(), 6);
    stream.try_write(b"three").unwrap();
    assert_eq!(peer.core.doorbells.load(Ordering::SeqCst), 2);
}

#[test]
fn freed_space_rings_by_a_part_of_the_ring_or_when_all_is_read() {
    let (stream, mut peer) = connected();
    peer.recv.resize(64 << 10, 0).unwrap();
    peer.deliver(&[1; 40_000]);
    let doorbells = |peer: &Peer| peer.core.doorbells.load(Ordering::SeqCst);
    let mut buf = [0; 16 << 10];
    assert_eq!(stream.try_read(&mut buf[..16_383]).unwrap(), 16_383);
    assert_eq!(doorbells(&peer), 0, "a quarter less a byte");
    assert_eq!(stream.try_read(&mut buf[..1]).unwrap(), 1);
    assert_eq!(doorbells(&peer), 1);
    assert!(peer.handle.take_doorbell());

    // A chunk frees when it is dropped.
    let chunk = stream.try_read_chunk(20_000).unwrap();
    assert_eq!(chunk.len(), 20_000);
    assert_eq!(doorbells(&peer), 1);
    drop(chunk);
    assert_eq!(doorbells(&peer), 2);
    assert!(peer.handle.take_doorbell());

    // Read to the end, it is a segment that counts: the peer may wait for the window.
    let rest = 40_000 - 16_384 - 20_000;
    assert_eq!(stream.try_read(&mut buf[..rest - 1]).unwrap(), rest - 1);
    assert_eq!(doorbells(&peer), 2);
    assert_eq!(stream.try_read(&mut buf).unwrap(), 1);
    assert_eq!(doorbells(&peer), 3);
    assert!(peer.handle.take_doorbell());
    assert_eq!(peer.recv.free(), 64 << 10);
    peer.deliver(&[1; 1447]);
    assert_eq!(stream.try_read(&mut buf).unwrap(), 1447);
    assert_eq!(doorbells(&peer), 3, "less than a segment waits for more");
    peer.deliver(&[1; 1]);
    assert_eq!(stream.try_read(&mut buf).unwrap(), 1);
    assert_eq!(doorbells(&peer), 4);
}

/// However the application reads, once it has read all, the core was told of all but a segment.
#[test]
fn no_reader_that_waits_keeps_space_to_itself() {
    let (stream, mut peer) = connected();
    let mut seed = 0x9e37_79b9_u32;
    let mut next = |below: usize| {
        seed = seed.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        1 + (seed >> 8) as usize % below
    };
    let mut told = LIMIT;
    for _ in 0..10_000 {
        // No more than the window that the core can offer.
        let n = next(told as usize);
        peer.deliver(&vec![7; n]);
        told -= n as u32;
        let mut left = n;
        while left > 0 {
            left -= stream.try_read(&mut vec![0; next(2000)]).unwrap();
            if peer.core.doorbells.swap(0, Ordering::SeqCst) > 0 {
                assert!(peer.handle.take_doorbell());
                told = peer.recv.free();
            }
        }
        let free = peer.recv.free();
        assert!(free - told < 1448, "{} bytes untold", free - told);
    }
}

#[test]
fn a_full_send_ring_blocks_until_space_is_told() {
    let (stream, mut peer) = connected();
    assert_eq!(stream.try_write(&[0; 5000]).unwrap(), LIMIT as usize);
    assert_eq!(kind(stream.try_write(b"x")), ErrorKind::WouldBlock);
    let mut cx = Context::from_waker(Waker::noop());
    assert!(stream.poll_write_ready(&mut cx).is_pending());
    peer.send.take_written();
    peer.send.release(1);
    peer.handle.on_writable(&mut Wakers::new());
    assert_eq!(stream.try_write(b"xy").unwrap(), 1);
}

#[test]
fn shutdown_is_told_once_and_writes_then_fail() {
    let (stream, peer) = connected();
    stream.shutdown_write();
    stream.shutdown_write();
    assert_eq!(peer.commands(), [Command::ShutdownWrite]);
    assert_eq!(kind(stream.try_write(b"x")), ErrorKind::BrokenPipe);
    let (stream, peer) = connected();
    peer.reset();
    stream.shutdown_write();
    assert!(peer.commands().is_empty());
}

#[test]
fn a_drop_closes_or_resets() {
    let (stream, peer) = connected();
    drop(stream);
    assert_eq!(peer.commands(), [Command::Close]);
    assert!(peer.handle.is_orphaned());
    let (stream, mut peer) = connected();
    peer.deliver(b"unread");
    drop(stream);
    assert_eq!(peer.commands(), [Command::Abort]);
    let (stream, peer) = connected();
    let zero = SocketOption::Linger(Some(Duration::ZERO));
    stream.set_option(zero);
    drop(stream);
    assert_eq!(peer.commands(), [Command::SetOption(zero), Command::Abort]);
    let (stream, peer) = connected();
    stream.detach();
    assert!(peer.commands().is_empty());
}

#[test]
fn a_runtime_shutdown_fails_waits_with_tokios_error() {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap();
    let (stream, _peer) = connected();
    stream.attach(&RuntimeHandle::of(runtime.handle()));
    let count = Arc::new(Count::default());
    let waker = Waker::from(Arc::clone(&count));
    let mut cx = Context::from_waker(&waker);
    assert!(stream.poll_read_ready(&mut cx).is_pending());
    let mut readable = pin!(stream.ready(Interest::READABLE));
    assert!(readable.as_mut().poll(&mut cx).is_pending());
    drop(runtime);
    assert_eq!(count.0.load(Ordering::SeqCst), 2);
    let Poll::Ready(Err(error)) = stream.poll_read_ready(&mut cx) else {
        panic!("still waits")
    };
    assert!(tokio::runtime::is_rt_shutdown_err(&error));
    assert!(matches!(readable.poll(&mut cx), Poll::Ready(Err(_))));
}

#[test]
fn no_wakeup_is_lost_between_threads() {
    const TOTAL: usize = 200_000;
    const READERS: usize = 4;
    let (stream, mut peer) = connected();
    let stream = Arc::new(stream);
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(4)
        .build()
        .unwrap();
    let read = Arc::new(AtomicUsize::new(0));
    let readers: Vec<_> = (0..READERS)
        .map(|_| {
            let (stream, read) = (Arc::clone(&stream), Arc::clone(&read));
            runtime.spawn(async move {
                let mut buf = [0; 61];
                loop {
                    stream.ready(Interest::READABLE).await.unwrap();
                    match stream.try_read(&mut buf) {
                        Ok(0) => return,
                        Ok(n) => drop(read.fetch_add(n, Ordering::SeqCst)),
                        Err(error) => assert_eq!(error.kind(), ErrorKind::WouldBlock),
                    }
                }
            })
        })
        .collect();
    let writer = runtime.spawn({
        let stream = Arc::clone(&stream);
        async move {
            let mut left = TOTAL;
            while left > 0 {
                let n = left.min(777);
                left -= std::future::poll_fn(|cx| stream.poll_write(cx, &[3; 777][..n]))
                    .await
                    .unwrap();
            }
        }
    });
    // The core's thread: loops what was sent back, a little at a time, with an event for each step.
    let looped = std::thread::spawn(move || {
        let mut total = 0;
        while total < TOTAL {
            peer.send.take_written();
            let n = peer.send.len().min(peer.recv.free()).min(97);
            if n == 0 {
                std::thread::yield_now();
                continue;
            }
            let bytes = peer.send.slices(0, n).concat();
            peer.send.release(n);
            peer.handle.on_writable(&mut Wakers::new());
            peer.deliver(&bytes);
            total += bytes.len();
        }
        peer.handle.on_peer_closed(&mut Wakers::new());
    });
    runtime.block_on(async {
        for task in readers.into_iter().chain([writer]) {
            task.await.unwrap();
        }
    });
    looped.join().unwrap();
    assert_eq!(read.load(Ordering::SeqCst), TOTAL);
}

#[test]
fn an_accept_queue_wakes_all_and_resets_what_nobody_takes() {
    let queue = AcceptQueue::new();
    let listener = FlexListener::new(Arc::clone(&queue), RuntimeHandle::new(), || {});
    let count = Arc::new(Count::default());
    let waker = Waker::from(Arc::clone(&count));
    let mut cx = Context::from_waker(&waker);
    let mut accepts: Vec<_> = (0..50).map(|_| Box::pin(listener.accept())).collect();
    assert!(
        accepts
            .iter_mut()
            .all(|accept| accept.as_mut().poll(&mut cx).is_pending())
    );
    let engine_listener = ListenerId(0);
    let (stream, first) = connected();
    queue.push(stream, engine_listener, &mut Wakers::new());
    assert_eq!(count.0.load(Ordering::SeqCst), 50);
    let (stream, second) = connected();
    queue.push(stream, engine_listener, &mut Wakers::new());
    let Poll::Ready(Ok((stream, _))) = accepts[49].as_mut().poll(&mut cx) else {
        panic!("nothing")
    };
    // Accepted streams are assumed readable and writable.
    assert!(stream.poll_read_ready(&mut cx).is_ready());
    drop(accepts);
    drop(listener);
    assert_eq!(second.commands(), [Command::Abort]);
    assert!(first.commands().is_empty());
    let (stream, third) = connected();
    queue.push(stream, engine_listener, &mut Wakers::new());
    assert_eq!(third.commands(), [Command::Abort]);
}
