// Included by `parity.rs` with `net` as tokio's or ours.

use std::fmt::Debug;
use std::future::poll_fn;
use std::io::{self, IoSlice, IoSliceMut};
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::os::fd::{AsFd, AsRawFd, FromRawFd, IntoRawFd};
use std::panic::{RefUnwindSafe, UnwindSafe};
use std::time::Duration;

use net::tcp::{OwnedReadHalf, OwnedWriteHalf, ReadHalf, ReuniteError, WriteHalf};
use net::{TcpListener, TcpSocket, TcpStream, ToSocketAddrs, UdpSocket, lookup_host};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, Interest, ReadBuf, Ready};

fn everywhere<T: Send + Sync + Unpin + UnwindSafe + RefUnwindSafe + Debug>() {}
fn reads<T: AsyncRead + AsRef<TcpStream>>() {}
fn writes<T: AsyncWrite + AsRef<TcpStream>>() {}
fn descriptor<T: AsFd + AsRawFd>() {}
fn from_std<T: TryFrom<S, Error = io::Error>, S>() {}
fn owned_descriptor<T: FromRawFd + IntoRawFd>() {}
fn error<T: std::error::Error>() {}
fn address<A: ToSocketAddrs + ?Sized>() {}
fn send<T: Send>(future: T) -> T {
    future
}

#[test]
fn traits() {
    everywhere::<TcpStream>();
    everywhere::<TcpListener>();
    everywhere::<TcpSocket>();
    everywhere::<OwnedReadHalf>();
    everywhere::<OwnedWriteHalf>();
    everywhere::<ReadHalf<'_>>();
    everywhere::<WriteHalf<'_>>();
    reads::<TcpStream>();
    reads::<ReadHalf<'_>>();
    reads::<OwnedReadHalf>();
    writes::<TcpStream>();
    writes::<WriteHalf<'_>>();
    writes::<OwnedWriteHalf>();
    descriptor::<TcpStream>();
    descriptor::<TcpListener>();
    descriptor::<TcpSocket>();
    owned_descriptor::<TcpSocket>();
    from_std::<TcpStream, std::net::TcpStream>();
    from_std::<TcpListener, std::net::TcpListener>();
    error::<ReuniteError>();
    address::<str>();
    address::<(IpAddr, u16)>();
    let _: fn(ReuniteError) -> (OwnedReadHalf, OwnedWriteHalf) = |ReuniteError(read, write)| (read, write);
}

async fn pair() -> (TcpStream, TcpStream) {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
    let addr = listener.local_addr().unwrap();
    let (client, server) = send(async { tokio::join!(TcpStream::connect(addr), listener.accept()) }).await;
    (client.unwrap(), server.unwrap().0)
}

#[tokio::test]
#[allow(deprecated)]
async fn stream() {
    let (mut client, mut server) = pair().await;
    assert_eq!(client.local_addr().unwrap(), server.peer_addr().unwrap());
    assert!(client.take_error().unwrap().is_none());
    let ready: Ready = send(client.ready(Interest::WRITABLE)).await.unwrap();
    assert!(ready.is_writable());
    send(client.writable()).await.unwrap();
    poll_fn(|cx| client.poll_write_ready(cx)).await.unwrap();
    assert_eq!(client.try_write(b"abc").unwrap(), 3);
    assert_eq!(client.try_write_vectored(&[IoSlice::new(b"d"), IoSlice::new(b"e")]).unwrap(), 2);
    while send(server.peek(&mut [0; 8])).await.unwrap() < 5 {}
    server.readable().await.unwrap();
    poll_fn(|cx| server.poll_read_ready(cx)).await.unwrap();
    let mut bytes = [0; 8];
    let mut buf = ReadBuf::new(&mut bytes);
    assert_eq!(poll_fn(|cx| server.poll_peek(cx, &mut buf)).await.unwrap(), 5);
    let mut byte = [0; 1];
    assert_eq!(server.try_read(&mut byte).unwrap(), 1);
    assert_eq!(server.try_read_vectored(&mut [IoSliceMut::new(&mut byte)]).unwrap(), 1);
    let mut rest = Vec::with_capacity(8);
    assert_eq!(server.try_read_buf(&mut rest).unwrap(), 3);
    assert_eq!(rest, b"cde");
    assert_eq!(server.try_read(&mut byte).unwrap_err().kind(), io::ErrorKind::WouldBlock);
    assert_eq!(client.try_io(Interest::WRITABLE, || Ok(1)).unwrap(), 1);
    assert_eq!(send(client.async_io(Interest::WRITABLE, || Ok(2))).await.unwrap(), 2);

    client.set_nodelay(true).unwrap();
    assert!(client.nodelay().unwrap());
    client.set_quickack(true).unwrap();
    assert!(client.quickack().unwrap());
    client.set_linger(Some(Duration::from_secs(3))).unwrap();
    assert_eq!(client.linger().unwrap(), Some(Duration::from_secs(3)));
    client.set_zero_linger().unwrap();
    client.set_linger(None).unwrap();
    client.set_ttl(33).unwrap();
    assert_eq!(client.ttl().unwrap(), 33);
    assert_eq!(client.set_ttl(0).unwrap_err().kind(), io::ErrorKind::InvalidInput);

    assert!(client.is_write_vectored());
    client.write_all(b"end").await.unwrap();
    client.flush().await.unwrap();
    client.shutdown().await.unwrap();
    client.shutdown().await.unwrap();
    assert_eq!(client.write(b"x").await.unwrap_err().kind(), io::ErrorKind::BrokenPipe);
    let mut end = String::new();
    server.read_to_string(&mut end).await.unwrap();
    assert_eq!(end, "end");
    assert!(server.ready(Interest::READABLE).await.unwrap().is_read_closed());
}

#[tokio::test]
async fn halves() {
    let (mut client, server) = pair().await;
    let (mut read, mut write) = client.split();
    let _: (&TcpStream, &TcpStream) = (read.as_ref(), write.as_ref());
    assert_eq!(read.local_addr().unwrap(), write.local_addr().unwrap());
    assert_eq!(read.peer_addr().unwrap(), write.peer_addr().unwrap());
    write.ready(Interest::WRITABLE).await.unwrap();
    write.writable().await.unwrap();
    write.try_write(b"a").unwrap();
    write.try_write_vectored(&[IoSlice::new(b"b")]).unwrap();
    write.write_all(b"c").await.unwrap();
    let (mut owned_read, mut owned_write) = server.into_split();
    let _: (&TcpStream, &TcpStream) = (owned_read.as_ref(), owned_write.as_ref());
    assert_eq!(owned_read.local_addr().unwrap(), owned_write.local_addr().unwrap());
    assert_eq!(owned_read.peer_addr().unwrap(), owned_write.peer_addr().unwrap());
    while owned_read.peek(&mut [0; 8]).await.unwrap() < 3 {}
    let mut bytes = [0; 8];
    let mut buf = ReadBuf::new(&mut bytes);
    assert_eq!(poll_fn(|cx| owned_read.poll_peek(cx, &mut buf)).await.unwrap(), 3);
    owned_read.ready(Interest::READABLE).await.unwrap();
    owned_read.readable().await.unwrap();
    let mut byte = [0; 1];
    assert_eq!(owned_read.try_read(&mut byte).unwrap(), 1);
    assert_eq!(owned_read.try_read_vectored(&mut [IoSliceMut::new(&mut byte)]).unwrap(), 1);
    assert_eq!(owned_read.try_read_buf(&mut Vec::with_capacity(4)).unwrap(), 1);
    owned_write.ready(Interest::WRITABLE).await.unwrap();
    owned_write.writable().await.unwrap();
    owned_write.try_write(b"a").unwrap();
    owned_write.try_write_vectored(&[IoSlice::new(b"b")]).unwrap();
    owned_write.write_all(b"c").await.unwrap();
    while read.peek(&mut [0; 8]).await.unwrap() < 3 {}
    let mut buf = ReadBuf::new(&mut bytes);
    assert_eq!(poll_fn(|cx| read.poll_peek(cx, &mut buf)).await.unwrap(), 3);
    read.ready(Interest::READABLE).await.unwrap();
    read.readable().await.unwrap();
    assert_eq!(read.try_read(&mut byte).unwrap(), 1);
    assert_eq!(read.try_read_vectored(&mut [IoSliceMut::new(&mut byte)]).unwrap(), 1);
    assert_eq!(read.try_read_buf(&mut Vec::with_capacity(4)).unwrap(), 1);

    let (other, _peer) = pair().await;
    let (other_read, other_write) = other.into_split();
    let error = owned_read.reunite(other_write).unwrap_err();
    assert_eq!(error.to_string(), "tried to reunite halves that are not from the same socket");
    let ReuniteError(owned_read, other_write) = error;
    drop(owned_write.reunite(owned_read).unwrap());
    other_write.forget();
    drop(other_read);
}

#[tokio::test]
async fn listener() {
    let listener = TcpListener::bind("localhost:0").await.unwrap();
    listener.set_ttl(44).unwrap();
    assert_eq!(listener.ttl().unwrap(), 44);
    let addr = listener.local_addr().unwrap();
    let (client, accepted) = tokio::join!(TcpStream::connect(addr), poll_fn(|cx| listener.poll_accept(cx)));
    assert_eq!(accepted.unwrap().1, client.unwrap().local_addr().unwrap());
    let std = listener.into_std().unwrap();
    let listener = TcpListener::from_std(std).unwrap();
    let (client, accepted) = tokio::join!(TcpStream::connect(addr), send(listener.accept()));
    drop((client.unwrap(), accepted.unwrap()));
    assert_eq!(
        TcpListener::bind(&[][..] as &[SocketAddr]).await.unwrap_err().kind(),
        io::ErrorKind::InvalidInput
    );
    assert_eq!(TcpListener::bind(addr).await.unwrap_err().kind(), io::ErrorKind::AddrInUse);
}

#[tokio::test]
async fn std_streams() {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let client = std::net::TcpStream::connect(listener.local_addr().unwrap()).unwrap();
    client.set_nonblocking(true).unwrap();
    let client = TcpStream::from_std(client).unwrap();
    let client = TcpStream::try_from(client.into_std().unwrap()).unwrap();
    assert!(client.as_fd().as_raw_fd() == client.as_raw_fd());
    assert!(format!("{client:?}").contains("TcpStream"));
}

#[tokio::test]
#[allow(deprecated)]
async fn socket() {
    let socket = TcpSocket::new_v4().unwrap();
    socket.set_keepalive(true).unwrap();
    assert!(socket.keepalive().unwrap());
    socket.set_reuseaddr(true).unwrap();
    assert!(socket.reuseaddr().unwrap());
    socket.set_reuseport(false).unwrap();
    assert!(!socket.reuseport().unwrap());
    socket.set_send_buffer_size(10_000).unwrap();
    assert_eq!(socket.send_buffer_size().unwrap(), 20_000);
    socket.set_recv_buffer_size(10_000).unwrap();
    assert_eq!(socket.recv_buffer_size().unwrap(), 20_000);
    socket.set_linger(Some(Duration::from_secs(1))).unwrap();
    assert_eq!(socket.linger().unwrap(), Some(Duration::from_secs(1)));
    socket.set_zero_linger().unwrap();
    socket.set_linger(None).unwrap();
    socket.set_nodelay(true).unwrap();
    assert!(socket.nodelay().unwrap());
    socket.set_tos_v4(16).unwrap();
    assert_eq!(socket.tos_v4().unwrap(), 16);
    socket.set_tos(8).unwrap();
    assert_eq!(socket.tos().unwrap(), 8);
    assert!(socket.device().unwrap().is_none());
    socket.bind_device(None).unwrap();
    assert!(socket.take_error().unwrap().is_none());
    socket.bind("127.0.0.1:0".parse().unwrap()).unwrap();
    let addr = socket.local_addr().unwrap();
    let listener = socket.listen(8).unwrap();
    let client = TcpSocket::new_v4().unwrap();
    let client = TcpSocket::from_std_stream(client.as_fd().try_clone_to_owned().unwrap().into());
    let (client, server) = tokio::join!(send(client.connect(addr)), listener.accept());
    drop((client.unwrap(), server.unwrap()));

    let v6 = TcpSocket::new_v6().unwrap();
    v6.set_tclass_v6(8).unwrap();
    assert_eq!(v6.tclass_v6().unwrap(), 8);
    let fd = v6.into_raw_fd();
    assert!(fd >= 0);
}

#[tokio::test]
async fn the_rest() {
    assert!(lookup_host("127.0.0.1:1").await.unwrap().count() > 0);
    drop(UdpSocket::bind("127.0.0.1:0").await.unwrap());
}
