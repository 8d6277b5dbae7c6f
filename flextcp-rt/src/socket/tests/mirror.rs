//! Reads by descriptor, on the machine's loopback interface.

use std::io::Read;
use std::mem::MaybeUninit;

use socket2::{Domain, Socket, Type};

use super::*;

fn mirrored() -> (Stream, Peer, Arc<Mirror>) {
    let (stream, peer) = connected();
    let near = Socket::new(Domain::IPV4, Type::STREAM.nonblocking(), None).unwrap();
    let mirror = stream.mirror(near);
    (stream, peer, mirror)
}

fn read(mirror: &Mirror, len: usize) -> std::io::Result<Vec<u8>> {
    let mut buf = vec![0; len];
    let mut socket = mirror.socket();
    let n = socket.read(&mut buf)?;
    buf.truncate(n);
    Ok(buf)
}

fn peek(mirror: &Mirror) -> std::io::Result<usize> {
    mirror.socket().peek(&mut [MaybeUninit::uninit(); 64])
}

#[test]
fn what_is_read_by_descriptor_is_taken_from_the_stream() {
    let (stream, mut peer, mirror) = mirrored();
    peer.deliver(b"hello world");
    mirror.lend(false);
    assert_eq!(peek(&mirror).unwrap(), 11);
    assert_eq!(read(&mirror, 6).unwrap(), b"hello ");
    mirror.settle();
    let mut buf = [0; 16];
    let n = stream.try_read(&mut buf).unwrap();
    assert_eq!(&buf[..n], b"world");
    mirror.lend(false);
    assert_eq!(kind(peek(&mirror)), ErrorKind::WouldBlock);
}

#[test]
fn what_arrives_while_the_descriptor_is_lent_is_shown() {
    let (stream, mut peer, mirror) = mirrored();
    mirror.lend(false);
    assert_eq!(kind(peek(&mirror)), ErrorKind::NotConnected);
    peer.deliver(b"early");
    assert_eq!(peek(&mirror).unwrap(), 5);
    mirror.settle();
    assert_eq!(kind(peek(&mirror)), ErrorKind::WouldBlock);
    peer.deliver(b" and late");
    assert_eq!(kind(peek(&mirror)), ErrorKind::WouldBlock);
    mirror.lend(false);
    assert_eq!(read(&mirror, 64).unwrap(), b"early and late");
    mirror.settle();
    assert_eq!(kind(stream.try_read(&mut [0; 4])), ErrorKind::WouldBlock);
}

#[test]
fn a_reader_by_descriptor_waits_on_the_stream() {
    let (stream, mut peer, mirror) = mirrored();
    mirror.lend(true);
    assert_eq!(kind(read(&mirror, 4)), ErrorKind::WouldBlock);
    assert!(stream.try_io(Interest::READABLE, || Ok(())).is_err());
    peer.deliver(b"ping");
    stream
        .try_io(Interest::READABLE, || read(&mirror, 2))
        .unwrap();
    mirror.read_all_shown();
    assert!(stream.try_io(Interest::READABLE, || Ok(())).is_ok());
    assert_eq!(read(&mirror, 4).unwrap(), b"ng");
}

#[test]
fn the_end_of_the_stream_is_shown_after_its_bytes() {
    let (stream, mut peer, mirror) = mirrored();
    mirror.lend(false);
    peer.deliver(b"last");
    peer.handle.on_peer_closed(&mut Wakers::new());
    assert_eq!(read(&mirror, 64).unwrap(), b"last");
    assert_eq!(read(&mirror, 64).unwrap(), b"");
    mirror.settle();
    assert_eq!(stream.try_read(&mut [0; 4]).unwrap(), 0);
}

#[test]
fn more_than_fits_into_the_socket_is_shown_in_turns() {
    let (stream, mut peer, mirror) = mirrored();
    mirror.socket().set_recv_buffer_size(1).unwrap();
    let sent: Vec<u8> = (0..LIMIT).map(|i| (i % 251) as u8).collect();
    peer.deliver(&sent);
    let mut got = Vec::new();
    while got.len() < sent.len() {
        mirror.lend(false);
        got.extend(read(&mirror, 100).unwrap());
        mirror.settle();
    }
    assert_eq!(got, sent);
    assert_eq!(kind(stream.try_read(&mut [0; 4])), ErrorKind::WouldBlock);
}

#[test]
fn writes_by_descriptor_fail() {
    let (_stream, mut peer, mirror) = mirrored();
    assert_eq!(kind(mirror.socket().send(b"x")), ErrorKind::BrokenPipe);
    peer.deliver(b"ping");
    mirror.lend(false);
    assert_eq!(kind(mirror.socket().send(b"x")), ErrorKind::BrokenPipe);
}
