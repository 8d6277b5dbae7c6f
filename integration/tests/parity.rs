//! Every method and trait of the TCP types, called on `tokio::net` and on `flextcp_net` by the same code: it has to
//! compile against both and to observe the same.

use std::future::poll_fn;
use std::io::{self, IoSlice, IoSliceMut};
use std::panic::{RefUnwindSafe, UnwindSafe};
use std::time::Duration;

use integration::netns::{Namespace, is_privileged};
use tokio::io::{
    AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _, Interest, ReadBuf, Ready,
};

/// What a call gave, without what differs from run to run.
fn seen<T: std::fmt::Debug>(log: &mut Vec<String>, call: &str, result: &io::Result<T>) {
    log.push(match result {
        Ok(value) => format!("{call}: {value:?}"),
        Err(error) => format!("{call}: {:?}", error.kind()),
    });
}

fn stream_traits<T>()
where
    T: AsyncRead
        + AsyncWrite
        + TryFrom<std::net::TcpStream, Error = io::Error>
        + std::fmt::Debug
        + AsRef<T>,
    T: std::os::fd::AsRawFd + std::os::fd::AsFd + Send + Sync + Unpin + UnwindSafe + RefUnwindSafe,
{
}

fn listener_traits<T>()
where
    T: TryFrom<std::net::TcpListener, Error = io::Error> + std::fmt::Debug,
    T: std::os::fd::AsRawFd + std::os::fd::AsFd + Send + Sync + Unpin + UnwindSafe + RefUnwindSafe,
{
}

fn socket_traits<T>()
where
    T: std::fmt::Debug + std::os::fd::AsRawFd + std::os::fd::AsFd,
    T: std::os::fd::FromRawFd + std::os::fd::IntoRawFd + Send + Sync + Unpin,
{
}

fn half_traits<H: std::fmt::Debug + AsRef<S> + Send + Sync + Unpin, S>() {}

macro_rules! observations {
    ($name:ident, $($net:ident)::+) => {
        #[expect(deprecated)]
        async fn $name() -> Vec<String> {
            use $($net)::+ as net;
            let mut log = Vec::new();
            let log = &mut log;

            stream_traits::<net::TcpStream>();
            listener_traits::<net::TcpListener>();
            socket_traits::<net::TcpSocket>();
            half_traits::<net::tcp::OwnedReadHalf, net::TcpStream>();
            half_traits::<net::tcp::OwnedWriteHalf, net::TcpStream>();
            half_traits::<net::tcp::ReadHalf<'static>, net::TcpStream>();
            half_traits::<net::tcp::WriteHalf<'static>, net::TcpStream>();

            // TcpSocket
            let socket = net::TcpSocket::new_v4().unwrap();
            seen(log, "set_keepalive", &socket.set_keepalive(true));
            seen(log, "keepalive", &socket.keepalive());
            seen(log, "set_reuseaddr", &socket.set_reuseaddr(true));
            seen(log, "reuseaddr", &socket.reuseaddr());
            seen(log, "set_reuseport", &socket.set_reuseport(true));
            seen(log, "reuseport", &socket.reuseport());
            seen(log, "set_send_buffer_size", &socket.set_send_buffer_size(16_384));
            seen(log, "send_buffer_size", &socket.send_buffer_size());
            seen(log, "set_recv_buffer_size", &socket.set_recv_buffer_size(16_384));
            seen(log, "recv_buffer_size", &socket.recv_buffer_size());
            seen(log, "set_linger", &socket.set_linger(Some(Duration::from_secs(3))));
            seen(log, "linger", &socket.linger());
            seen(log, "set_zero_linger", &socket.set_zero_linger());
            seen(log, "linger", &socket.linger());
            seen(log, "set_linger", &socket.set_linger(None));
            seen(log, "set_nodelay", &socket.set_nodelay(true));
            seen(log, "nodelay", &socket.nodelay());
            seen(log, "set_tos_v4", &socket.set_tos_v4(16));
            seen(log, "tos_v4", &socket.tos_v4());
            seen(log, "set_tos", &socket.set_tos(8));
            seen(log, "tos", &socket.tos());
            seen(log, "device", &socket.device());
            seen(log, "bind_device", &socket.bind_device(None));
            seen(log, "bind", &socket.bind(([127, 0, 0, 1], 0).into()));
            let bound = socket.local_addr().unwrap();
            log.push(format!("bound: {} {}", bound.ip(), bound.port() != 0));
            seen(log, "take_error", &socket.take_error().map(|error| error.is_none()));
            let six = net::TcpSocket::new_v6().unwrap();
            seen(log, "set_tclass_v6", &six.set_tclass_v6(32));
            seen(log, "tclass_v6", &six.tclass_v6());
            drop(six);

            // TcpListener
            let listener = socket.listen(16).unwrap();
            let address = listener.local_addr().unwrap();
            log.push(format!("same port: {}", address == bound));
            seen(log, "listener set_ttl", &listener.set_ttl(60));
            seen(log, "listener ttl", &listener.ttl());
            let mut idle = true;
            poll_fn(|cx| {
                idle = listener.poll_accept(cx).is_pending();
                std::task::Poll::Ready(())
            })
            .await;
            log.push(format!("nothing to accept: {idle}"));

            let client = net::TcpSocket::new_v4().unwrap().connect(address).await.unwrap();
            let (server, from) = listener.accept().await.unwrap();
            log.push(format!("addresses agree: {}", from == client.local_addr().unwrap()));
            log.push(format!("peers agree: {}", server.peer_addr().unwrap() == from));

            // TcpStream: options
            seen(log, "set_nodelay", &client.set_nodelay(true));
            seen(log, "nodelay", &client.nodelay());
            seen(log, "set_quickack", &client.set_quickack(true));
            seen(log, "quickack", &client.quickack());
            seen(log, "set_linger", &client.set_linger(Some(Duration::from_secs(3))));
            seen(log, "linger", &client.linger());
            seen(log, "set_zero_linger", &client.set_zero_linger());
            seen(log, "set_linger", &client.set_linger(None));
            seen(log, "set_ttl", &client.set_ttl(61));
            seen(log, "ttl", &client.ttl());
            seen(log, "take_error", &client.take_error().map(|error| error.is_none()));

            // TcpStream: readiness and data
            let mut small = [0; 4];
            seen(log, "try_read of nothing", &client.try_read(&mut small));
            seen(log, "ready", &client.ready(Interest::WRITABLE).await);
            seen(log, "writable", &client.writable().await);
            seen(log, "poll_write_ready", &poll_fn(|cx| client.poll_write_ready(cx)).await);
            seen(log, "try_write", &client.try_write(b"abcdefgh"));
            let slices = [IoSlice::new(b"ijkl"), IoSlice::new(b"mnop")];
            seen(log, "try_write_vectored", &client.try_write_vectored(&slices));
            seen(log, "is_write_vectored", &Ok(AsyncWrite::is_write_vectored(&client)));
            seen(log, "readable", &server.readable().await);
            seen(log, "poll_read_ready", &poll_fn(|cx| server.poll_read_ready(cx)).await);
            seen(log, "peek", &server.peek(&mut small).await);
            let mut space = [0; 4];
            let peeked = poll_fn(|cx| server.poll_peek(cx, &mut ReadBuf::new(&mut space))).await;
            seen(log, "poll_peek", &peeked);
            seen(log, "try_read", &server.try_read(&mut small));
            log.push(format!("{small:?}"));
            let mut taken = Vec::with_capacity(4);
            seen(log, "try_read_buf", &server.try_read_buf(&mut taken));
            log.push(format!("{taken:?}"));
            let (mut first, mut second) = ([0; 2], [0; 2]);
            server.readable().await.unwrap();
            let mut slices = [IoSliceMut::new(&mut first), IoSliceMut::new(&mut second)];
            seen(log, "try_read_vectored", &server.try_read_vectored(&mut slices));
            log.push(format!("{first:?} {second:?}"));
            let blocked = server.try_io(Interest::READABLE, || Err::<(), _>(io::ErrorKind::WouldBlock.into()));
            seen(log, "try_io", &blocked);
            seen(log, "async_io", &client.async_io(Interest::WRITABLE, || Ok(7)).await);

            // Borrowed halves
            let (mut client, mut server) = (client, server);
            {
                let (mut read, mut write) = client.split();
                seen(log, "WriteHalf::writable", &write.writable().await);
                seen(log, "WriteHalf::ready", &write.ready(Interest::WRITABLE).await);
                seen(log, "WriteHalf::try_write", &write.try_write(b"x"));
                seen(log, "WriteHalf::try_write_vectored", &write.try_write_vectored(&[IoSlice::new(b"y")]));
                log.push(format!("{}", read.local_addr().unwrap() == write.local_addr().unwrap()));
                log.push(format!("{}", read.peer_addr().unwrap() == write.peer_addr().unwrap()));
                let (mut from, mut to) = server.split();
                to.write_all(b"halves of it").await.unwrap();
                let mut rest = [0; 6];
                from.read_exact(&mut rest).await.unwrap();
                log.push(format!("{rest:?}"));
                seen(log, "ReadHalf::readable", &read.readable().await);
                seen(log, "ReadHalf::ready", &read.ready(Interest::READABLE).await.map(open_for_reading));
                seen(log, "ReadHalf::peek", &read.peek(&mut small).await);
                let mut space = [0; 4];
                let peeked = poll_fn(|cx| read.poll_peek(cx, &mut ReadBuf::new(&mut space))).await;
                seen(log, "ReadHalf::poll_peek", &peeked);
                seen(log, "ReadHalf::try_read", &read.try_read(&mut small));
                let mut slices = [IoSliceMut::new(&mut first), IoSliceMut::new(&mut second)];
                seen(log, "ReadHalf::try_read_vectored", &read.try_read_vectored(&mut slices));
                let mut taken = Vec::with_capacity(4);
                seen(log, "ReadHalf::try_read_buf", &read.try_read_buf(&mut taken));
                write.flush().await.unwrap();
            }

            // Owned halves
            let (mut read, mut write) = client.into_split();
            seen(log, "OwnedWriteHalf::writable", &write.writable().await);
            seen(log, "OwnedWriteHalf::ready", &write.ready(Interest::WRITABLE).await);
            seen(log, "OwnedWriteHalf::try_write", &write.try_write(b"1"));
            seen(log, "OwnedWriteHalf::try_write_vectored", &write.try_write_vectored(&[IoSlice::new(b"2")]));
            log.push(format!("{}", read.local_addr().unwrap() == write.local_addr().unwrap()));
            log.push(format!("{}", read.peer_addr().unwrap() == write.peer_addr().unwrap()));
            server.write_all(b"owned halves").await.unwrap();
            seen(log, "OwnedReadHalf::readable", &read.readable().await);
            seen(log, "OwnedReadHalf::ready", &read.ready(Interest::READABLE).await.map(open_for_reading));
            seen(log, "OwnedReadHalf::peek", &read.peek(&mut small).await);
            let mut space = [0; 4];
            let peeked = poll_fn(|cx| read.poll_peek(cx, &mut ReadBuf::new(&mut space))).await;
            seen(log, "OwnedReadHalf::poll_peek", &peeked);
            seen(log, "OwnedReadHalf::try_read", &read.try_read(&mut small));
            let mut slices = [IoSliceMut::new(&mut first), IoSliceMut::new(&mut second)];
            seen(log, "OwnedReadHalf::try_read_vectored", &read.try_read_vectored(&mut slices));
            let mut taken = Vec::with_capacity(4);
            seen(log, "OwnedReadHalf::try_read_buf", &read.try_read_buf(&mut taken));
            let (other_read, other_write) = server.into_split();
            let strangers = read.reunite(other_write);
            let net::tcp::ReuniteError(read, other_write) = strangers.err().unwrap();
            log.push(net::tcp::ReuniteError(read, other_write).to_string());
            let client = {
                // The error gave them back; the owned halves moved into it have to be taken out again.
                let fresh = net::TcpStream::connect(address).await.unwrap();
                let (accepted, _) = listener.accept().await.unwrap();
                let (read, write) = fresh.into_split();
                let fresh = read.reunite(write).unwrap();
                let (read, write) = accepted.into_split();
                let accepted = write.reunite(read).unwrap();
                let (read, write) = accepted.into_split();
                write.forget();
                (fresh, read)
            };
            drop(other_read);
            write.shutdown().await.ok();

            // The end: data, FIN, and what comes after
            let (mut fresh, mut far) = client;
            seen(log, "write_all", &fresh.write_all(b"end").await);
            seen(log, "shutdown", &fresh.shutdown().await);
            seen(log, "shutdown again", &fresh.shutdown().await);
            let mut rest = Vec::new();
            seen(log, "read_to_end", &far.read_to_end(&mut rest).await);
            log.push(format!("{rest:?}"));
            seen(log, "read_closed", &far.ready(Interest::READABLE).await.map(Ready::is_read_closed));
            seen(log, "write after shutdown", &fresh.try_write(b"x"));

            // std
            let listener = listener.into_std().unwrap();
            log.push(format!("{}", listener.local_addr().unwrap() == address));
            let listener = net::TcpListener::from_std(listener).unwrap();
            let stream = net::TcpStream::connect(&[address][..]).await.unwrap();
            let (accepted, _) = listener.accept().await.unwrap();
            match stream.into_std() {
                Ok(stream) => {
                    log.push(format!("{}", stream.peer_addr().unwrap() == address));
                    let mut stream = net::TcpStream::from_std(stream).unwrap();
                    stream.write_all(b"std").await.unwrap();
                    // An accepted stream starts out assumed readable.
                    let read = loop {
                        accepted.readable().await.unwrap();
                        match accepted.try_read(&mut small) {
                            Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => {}
                            answer => break answer,
                        }
                    };
                    seen(log, "after from_std", &read);
                }
                Err(error) => log.extend([format!("into_std: {error}"), String::new()]),
            }
            let socket = std::net::TcpStream::connect(address).unwrap();
            let socket = net::TcpSocket::from_std_stream(socket);
            seen(log, "from_std_stream", &socket.nodelay());

            // Errors
            let free = {
                let listener = net::TcpListener::bind("127.0.0.1:0").await.unwrap();
                listener.local_addr().unwrap()
            };
            seen(log, "refused", &net::TcpStream::connect(free).await.map(drop));
            seen(log, "no address", &net::TcpStream::connect(&[][..]).await.map(drop));
            seen(log, "in use", &net::TcpListener::bind(address).await.map(drop));
            let resolved = net::lookup_host(("127.0.0.1", 80)).await.map(Iterator::count);
            seen(log, "lookup_host", &resolved);
            std::mem::take(log)
        }
    };
}

observations!(on_tokio, tokio::net);
observations!(on_flextcp, flextcp_net);

/// What readiness says when data can be read and no end is in sight.
fn open_for_reading(ready: Ready) -> bool {
    ready.is_readable() && !ready.is_read_closed()
}

fn both() -> (Vec<String>, Vec<String>) {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap();
    runtime.block_on(async {
        let limit = Duration::from_secs(30);
        let tokio = tokio::time::timeout(limit, on_tokio())
            .await
            .expect("tokio hangs");
        let flextcp = tokio::time::timeout(limit, on_flextcp())
            .await
            .expect("flextcp_net hangs");
        (tokio, flextcp)
    })
}

#[test]
fn every_method_gives_what_tokios_gives() {
    // As root, in a namespace: the machine's own loopback interface stays untouched.
    let (tokio, flextcp) = if is_privileged() {
        Namespace::new("parity").unwrap().within(both).unwrap()
    } else {
        both()
    };
    assert!(tokio.len() > 100, "{tokio:?}");
    let differences: Vec<String> = (tokio.iter().zip(&flextcp).enumerate())
        .filter(|(_, (theirs, ours))| theirs != ours)
        .map(|(call, (theirs, ours))| format!("{call}: tokio: {theirs}; ours: {ours}"))
        .collect();
    assert!(differences.is_empty(), "{}", differences.join("\n"));
    assert_eq!(tokio.len(), flextcp.len());
}
