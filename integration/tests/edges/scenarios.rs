// Included by `edges.rs` with `server` and `client` as tokio's sockets or ours.

use super::*;

async fn pair_at(ip: IpAddr) -> (client::TcpStream, server::TcpStream) {
    let listener = server::TcpListener::bind((ip, 0)).await.unwrap();
    let near = client::TcpStream::connect(listener.local_addr().unwrap())
        .await
        .unwrap();
    (near, listener.accept().await.unwrap().0)
}

async fn pair() -> (client::TcpStream, server::TcpStream) {
    pair_at(Ipv4Addr::LOCALHOST.into()).await
}

async fn listener() -> (server::TcpListener, SocketAddr) {
    let listener = server::TcpListener::bind((Ipv4Addr::LOCALHOST, 0))
        .await
        .unwrap();
    let at = listener.local_addr().unwrap();
    (listener, at)
}

async fn connected(to: SocketAddr) -> String {
    outcome(async { client::TcpStream::connect(to).await.map(drop) }).await
}

async fn accepted(listener: &server::TcpListener) -> String {
    outcome(async { listener.accept().await.map(drop) }).await
}

pub(super) async fn addresses() -> Vec<String> {
    let mut log = Vec::new();
    for (listen, to) in [
        ("127.0.0.1:0", "127.0.0.1"),
        ("127.0.0.5:0", "127.0.0.5"),
        ("10.5.5.5:0", "10.5.5.5"),
        ("[::1]:0", "::1"),
        ("[fe80::1%1]:0", "fe80::1%1"),
        ("0.0.0.0:0", "10.5.5.5"),
        ("0.0.0.0:0", "0.0.0.0"),
        ("[::]:0", "127.0.0.1"),
        ("[::]:0", "::1"),
        ("[::]:0", "::"),
        ("[::]:0", "0.0.0.0"),
        ("[::]:0", "::ffff:127.0.0.1"),
        ("[::ffff:127.0.0.1]:0", "127.0.0.1"),
    ] {
        let listen: SocketAddr = listen.parse().unwrap();
        let listener = server::TcpListener::bind(listen).await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let to: SocketAddr = match to.contains(':') {
            true => format!("[{to}]:{port}").parse().unwrap(),
            false => format!("{to}:{port}").parse().unwrap(),
        };
        let near = client::TcpStream::connect(to).await.unwrap();
        let (far, from) = listener.accept().await.unwrap();
        let seen = [
            near.local_addr(),
            near.peer_addr(),
            far.local_addr(),
            far.peer_addr(),
            Ok(from),
        ];
        log.push(format!("{listen} {}", seen.map(without_port).join(" ")));
    }
    log
}

pub(super) async fn families() -> Vec<String> {
    let mut log = Vec::new();
    let (_v4, v4) = listener().await;
    let listener = server::TcpListener::bind((Ipv6Addr::LOCALHOST, 0))
        .await
        .unwrap();
    let v6 = listener.local_addr().unwrap();
    for bound in [None, Some("0.0.0.0:0"), Some("127.0.0.1:0")] {
        for to in [v4, v6] {
            let socket = client::TcpSocket::new_v4().unwrap();
            if let Some(bound) = bound {
                socket.bind(bound.parse().unwrap()).unwrap();
            }
            let connect = async { socket.connect(to).await?.local_addr().map(|addr| addr.ip()) };
            log.push(format!("{bound:?} {}", outcome(connect).await));
        }
    }
    for bound in [None, Some("[::]:0"), Some("[::1]:0")] {
        for to in [v4, v6] {
            let socket = client::TcpSocket::new_v6().unwrap();
            if let Some(bound) = bound {
                socket.bind(bound.parse().unwrap()).unwrap();
            }
            let connect = async { socket.connect(to).await?.local_addr().map(|addr| addr.ip()) };
            log.push(format!("{bound:?} {}", outcome(connect).await));
        }
    }
    log
}

pub(super) async fn refusals() -> Vec<String> {
    let mut log = Vec::new();
    for to in [
        "127.0.0.1:0",
        "[::1]:0",
        "127.0.0.1:1",
        "10.9.9.9:1",
        "10.66.1.1:1",
        "10.66.2.1:1",
        "10.66.3.1:1",
        "255.255.255.255:1",
        "224.0.0.1:1",
        "[ff02::1]:1",
        "[fd99::1]:1",
        "[fe80::77]:1",
    ] {
        log.push(format!("{to} {}", connected(to.parse().unwrap()).await));
    }
    // The same ends twice.
    let (_listener, at) = listener().await;
    let socket = || {
        let socket = client::TcpSocket::new_v4().unwrap();
        socket.set_reuseaddr(true).unwrap();
        socket
    };
    let first = socket();
    first.bind((Ipv4Addr::LOCALHOST, 0).into()).unwrap();
    let from = first.local_addr().unwrap();
    let _first = first.connect(at).await.unwrap();
    let second = socket();
    log.push(format!("bind {}", seen(second.bind(from))));
    log.push(format!(
        "connect {}",
        outcome(async { second.connect(at).await.map(drop) }).await
    ));
    // To itself.
    let socket = socket();
    socket.bind((Ipv4Addr::LOCALHOST, 0).into()).unwrap();
    let own = socket.local_addr().unwrap();
    log.push(format!(
        "to itself {}",
        outcome(async { socket.connect(own).await.map(drop) }).await
    ));
    let unbound = server::TcpSocket::new_v4().unwrap().listen(8);
    log.push(without_port(
        unbound.and_then(|listener| listener.local_addr()),
    ));
    log
}

async fn reset_pair() -> client::TcpStream {
    let (near, far) = pair().await;
    far.set_zero_linger().unwrap();
    drop(far);
    arrival().await;
    near
}

pub(super) async fn resets() -> Vec<String> {
    let mut log = Vec::new();
    let near = reset_pair().await;
    for interest in [Interest::READABLE | Interest::WRITABLE, Interest::ERROR] {
        log.push(outcome(near.ready(interest)).await);
    }
    log.push(without_port(near.local_addr()));
    log.push(seen(near.peer_addr()));
    log.push(format!(
        "{:?}",
        near.take_error().unwrap().map(|error| error.kind())
    ));
    log.push(seen(near.try_read(&mut [0; 4])));
    log.push(seen(near.try_write(b"x")));
    log.push(outcome(near.peek(&mut [0; 4])).await);
    log.push(format!(
        "{} {}",
        seen(near.set_nodelay(true)),
        seen(near.ttl())
    ));

    let mut near = reset_pair().await;
    log.push(outcome(near.peek(&mut [0; 4])).await);
    log.push(seen(near.read(&mut [0; 4]).await));
    log.push(seen(near.write(b"x").await));
    log.push(seen(near.shutdown().await));

    let mut near = reset_pair().await;
    log.push(seen(near.write(b"x").await));
    log.push(seen(near.write(b"x").await));
    log.push(seen(near.read(&mut [0; 4]).await));

    // What came before the reset is read before it.
    let (mut near, far) = pair().await;
    far.try_write(b"abc").unwrap();
    near.readable().await.unwrap();
    far.set_zero_linger().unwrap();
    drop(far);
    arrival().await;
    for _ in 0..4 {
        log.push(seen(near.read(&mut [0; 2]).await));
    }

    // Bytes for a socket that is gone.
    let (mut near, far) = pair().await;
    drop(far);
    arrival().await;
    log.push(seen(near.write(b"late").await));
    arrival().await;
    log.push(seen(near.write(b"late").await));
    log.push(seen(near.write(b"late").await));
    log.push(seen(near.read(&mut [0; 2]).await));
    log.push(format!(
        "{:?}",
        near.take_error().unwrap().map(|error| error.kind())
    ));
    log
}

/// What is written just before a drop that resets.
pub(super) async fn last_words() -> Vec<String> {
    let mut log = Vec::new();
    for ending in 0..4 {
        let (mut near, mut far) = pair().await;
        if ending < 3 {
            near.write_all(b"request").await.unwrap();
            far.readable().await.unwrap();
            arrival().await;
        }
        if ending > 0 {
            far.write_all(b"answer").await.unwrap();
        }
        match ending {
            2 => far.shutdown().await.unwrap(),
            3 => far.set_zero_linger().unwrap(),
            _ => {}
        }
        drop(far);
        arrival().await;
        for _ in 0..2 {
            log.push(format!("{ending} {}", seen(near.read(&mut [0; 8]).await)));
        }
    }
    log
}

pub(super) async fn ends() -> Vec<String> {
    let mut log = Vec::new();
    let both = Interest::READABLE | Interest::WRITABLE;
    let (mut near, mut far) = pair().await;
    near.shutdown().await.unwrap();
    arrival().await;
    log.push(outcome(near.ready(both)).await);
    log.push(outcome(far.ready(Interest::READABLE)).await);
    log.push(seen(far.read(&mut [0; 2]).await));
    log.push(outcome(far.peek(&mut [0; 2])).await);
    far.write_all(b"still").await.unwrap();
    log.push(seen(near.read_exact(&mut [0; 5]).await));
    far.shutdown().await.unwrap();
    arrival().await;
    log.push(seen(near.read(&mut [0; 2]).await));
    log.push(outcome(near.ready(both)).await);
    log.push(seen(near.try_write(b"x")));
    log.push(without_port(near.peer_addr()));
    log.push(without_port(far.peer_addr()));
    log.push(without_port(far.local_addr()));
    log.push(format!(
        "{} {}",
        seen(near.shutdown().await),
        seen(far.shutdown().await)
    ));
    log.push(format!(
        "{:?}",
        near.take_error().unwrap().map(|error| error.kind())
    ));

    // Much is written, then the end, and the peer is slow.
    let (mut near, mut far) = pair().await;
    let sender = tokio::spawn(async move {
        far.write_all(&vec![7; 8 << 20]).await?;
        far.shutdown().await
    });
    arrival().await;
    let mut bytes = Vec::new();
    log.push(seen(near.read_to_end(&mut bytes).await));
    log.push(seen(sender.await.unwrap()));
    log
}

pub(super) async fn halves() -> Vec<String> {
    let mut log = Vec::new();
    let (near, far) = pair().await;
    let (near_read, near_write) = near.into_split();
    let (mut far_read, mut far_write) = far.into_split();
    drop(near_read);
    far_write.write_all(b"nobody reads").await.unwrap();
    arrival().await;
    log.push(seen(far_write.write_all(b"more").await));
    drop(near_write);
    arrival().await;
    log.push(seen(far_read.read(&mut [0; 2]).await));

    let (near, far) = pair().await;
    let (mut near_read, near_write) = near.into_split();
    let (mut far_read, mut far_write) = far.into_split();
    drop(near_write);
    log.push(seen(far_read.read(&mut [0; 2]).await));
    far_write.write_all(b"ok").await.unwrap();
    log.push(seen(near_read.read_exact(&mut [0; 2]).await));
    drop(far_read);
    drop(far_write);
    log.push(seen(near_read.read(&mut [0; 2]).await));
    log
}

pub(super) async fn readiness() -> Vec<String> {
    let mut log = Vec::new();
    let blocked = || Err::<(), _>(io::ErrorKind::WouldBlock.into());
    let (near, mut far) = pair().await;
    near.try_write(b"abcd").unwrap();
    far.readable().await.unwrap();
    arrival().await;
    log.push(seen(far.try_read(&mut [0; 2])));
    log.push(outcome(far.readable()).await);
    // Forgotten, though there is more.
    log.push(seen(far.try_io(Interest::READABLE, blocked)));
    log.push(outcome(far.readable()).await);
    log.push(seen(far.try_read(&mut [0; 2])));
    near.try_write(b"e").unwrap();
    log.push(outcome(far.readable()).await);
    for _ in 0..2 {
        log.push(seen(far.try_read(&mut [0; 8])));
    }
    log.push(outcome(far.readable()).await);
    log.push(seen(far.try_read(&mut [])));
    log.push(seen(far.try_write(&[])));
    log.push(outcome(far.read(&mut [])).await);
    log.push(outcome(far.write(&[])).await);
    // The last task that polls is woken.
    let (first, last) = (counting(), counting());
    for (_, waker) in [&first, &last] {
        let pending = far
            .poll_read_ready(&mut Context::from_waker(waker))
            .is_pending();
        log.push(format!("{pending}"));
    }
    near.try_write(b"f").unwrap();
    arrival().await;
    log.push(format!(
        "{:?}",
        [first, last].map(|(wakes, _)| wakes.0.load(Ordering::SeqCst))
    ));
    log
}

pub(super) async fn backpressure() -> Vec<String> {
    let (near, far) = pair().await;
    let mut chunk = vec![1; 64 << 10];
    let mut log = Vec::new();
    let mut written = 0;
    while timeout(NEVER, near.writable()).await.is_ok() {
        written += near.try_write(&chunk).unwrap_or(0);
    }
    log.push(seen(near.try_write(&chunk)));
    while written > 0 {
        far.readable().await.unwrap();
        written -= far.try_read(&mut chunk).unwrap_or(0);
    }
    log.push(outcome(near.writable()).await);
    log.push(format!("{}", near.try_write(&chunk).is_ok()));
    log
}

pub(super) async fn closing_listeners() -> Vec<String> {
    let mut log = Vec::new();
    // Somebody waits to be accepted.
    let (closing, at) = listener().await;
    let mut waiting = client::TcpStream::connect(at).await.unwrap();
    waiting.write_all(b"hello").await.unwrap();
    arrival().await;
    drop(closing);
    log.push(outcome(waiting.read(&mut [0; 2])).await);
    log.push(connected(at).await);

    // Whoever was accepted holds the port, at the end too.
    let (closing, at) = listener().await;
    let mut near = client::TcpStream::connect(at).await.unwrap();
    let (far, _) = closing.accept().await.unwrap();
    let bound = |reuse| {
        let socket = tokio::net::TcpSocket::new_v4().unwrap();
        socket.set_reuseaddr(reuse).unwrap();
        seen(socket.bind(at))
    };
    log.push(format!("{} {}", bound(true), bound(false)));
    drop(closing);
    log.push(format!("{} {}", bound(true), bound(false)));
    drop(far);
    log.push(outcome(near.read(&mut [0; 1])).await);
    drop(near);
    arrival().await;
    log.push(format!("in TIME_WAIT: {}", bound(false)));

    // Who waits has written and gone, or was reset.
    let (listener, at) = listener().await;
    let mut early = client::TcpStream::connect(at).await.unwrap();
    early.write_all(b"early").await.unwrap();
    drop(early);
    arrival().await;
    let (mut late, _) = listener.accept().await.unwrap();
    let mut bytes = Vec::new();
    log.push(format!(
        "{} {bytes:?}",
        seen(late.read_to_end(&mut bytes).await)
    ));
    let early = client::TcpStream::connect(at).await.unwrap();
    early.set_zero_linger().unwrap();
    drop(early);
    arrival().await;
    let (mut late, _) = listener.accept().await.unwrap();
    log.push(seen(late.read(&mut [0; 2]).await));

    // Two tasks wait, and two come.
    let listener = Arc::new(listener);
    let tasks = [(); 2].map(|()| {
        let listener = listener.clone();
        tokio::spawn(async move { accepted(&listener).await })
    });
    let _both = [
        client::TcpStream::connect(at).await.unwrap(),
        client::TcpStream::connect(at).await.unwrap(),
    ];
    for task in tasks {
        log.push(task.await.unwrap());
    }
    log
}

pub(super) async fn full_listeners() -> Vec<String> {
    let mut log = Vec::new();
    for of_std in [false, true] {
        let socket = server::TcpSocket::new_v4().unwrap();
        socket.bind((Ipv4Addr::LOCALHOST, 0).into()).unwrap();
        let mut listener = socket.listen(1).unwrap();
        if of_std {
            let listening = listener.into_std().unwrap();
            listener = server::TcpListener::from_std(listening).unwrap();
        }
        let at = listener.local_addr().unwrap();
        let mut held = Vec::new();
        for _ in 0..4 {
            if let Ok(stream) = timeout(NEVER, client::TcpStream::connect(at)).await {
                held.push(stream.unwrap());
            }
        }
        log.push(format!("{}", held.len()));
        for _ in 0..=held.len() {
            log.push(accepted(&listener).await);
        }
        log.push(connected(at).await);
    }
    log
}

/// Connections to different peers share a port when there are few; one more to the same peer finds none.
pub(super) async fn few_ports() -> Vec<String> {
    const RANGE: &str = "/proc/sys/net/ipv4/ip_local_port_range";
    let mut log = Vec::new();
    let listeners = [listener().await, listener().await];
    let whole = std::fs::read_to_string(RANGE).unwrap();
    std::fs::write(RANGE, "20000 20003").unwrap();
    let mut held = Vec::new();
    for (_, at) in &listeners {
        for _ in 0..5 {
            match client::TcpStream::connect(*at).await {
                Ok(stream) => {
                    stream.set_zero_linger().unwrap();
                    let port = stream.local_addr().unwrap().port();
                    log.push(format!("{}", (20_000..=20_003).contains(&port)));
                    held.push(stream);
                }
                Err(error) => log.push(seen(Err::<(), _>(error))),
            }
        }
    }
    std::fs::write(RANGE, whole).unwrap();
    for (listener, _) in &listeners {
        for _ in 0..4 {
            log.push(accepted(listener).await);
        }
    }
    log
}

pub(super) async fn shared_listeners() -> Vec<String> {
    let mut log = Vec::new();
    let mut at = SocketAddr::from((Ipv4Addr::LOCALHOST, 0));
    let mut both = Vec::new();
    for _ in 0..2 {
        let socket = server::TcpSocket::new_v4().unwrap();
        socket.set_reuseport(true).unwrap();
        socket.bind(at).unwrap();
        at = socket.local_addr().unwrap();
        both.push(socket.listen(256).unwrap());
    }
    let mut held = Vec::new();
    let mut counts = [0; 2];
    for _ in 0..64 {
        held.push(client::TcpStream::connect(at).await.unwrap());
    }
    for (count, listener) in counts.iter_mut().zip(&both) {
        while timeout(NEVER, listener.accept()).await.is_ok() {
            *count += 1;
        }
    }
    log.push(format!(
        "{} {}",
        counts[0] + counts[1],
        counts.iter().all(|&count| count > 5)
    ));
    both.pop();
    for _ in 0..16 {
        held.push(client::TcpStream::connect(at).await.unwrap());
        log.push(accepted(&both[0]).await);
    }
    log.push(seen(server::TcpSocket::new_v4().unwrap().bind(at)));
    drop(both);
    log.push(connected(at).await);
    log
}

/// Options of a listener, set before it listens and through its descriptor later, are its connections'.
pub(super) async fn inheritance() -> Vec<String> {
    let socket = server::TcpSocket::new_v4().unwrap();
    socket.set_nodelay(true).unwrap();
    socket.set_keepalive(true).unwrap();
    socket.bind((Ipv4Addr::LOCALHOST, 0).into()).unwrap();
    let listener = socket.listen(8).unwrap();
    let at = listener.local_addr().unwrap();
    let mut log = Vec::new();
    for round in 0..3 {
        let options = socket2::SockRef::from(&listener);
        match round {
            1 => options.set_tcp_nodelay(false).unwrap(),
            2 => options.set_keepalive(false).unwrap(),
            _ => {}
        }
        for _ in 0..2 {
            let _near = client::TcpStream::connect(at).await.unwrap();
            let (far, _) = listener.accept().await.unwrap();
            let keepalive = socket2::SockRef::from(&far).keepalive();
            log.push(format!("{} {}", seen(far.nodelay()), seen(keepalive)));
        }
    }
    log
}

/// The kernel has connections at a port, and somebody else begins to listen there.
pub(super) async fn connections_of_the_kernels() -> Vec<String> {
    let mut log = Vec::new();
    let heir = std::net::TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    let at = heir.local_addr().unwrap();
    let mut near = client::TcpStream::connect(at).await.unwrap();
    let (far, _) = heir.accept().unwrap();
    far.set_nonblocking(true).unwrap();
    let mut far = tokio::net::TcpStream::from_std(far).unwrap();
    let mut waiting = client::TcpStream::connect(at).await.unwrap();
    heir.set_nonblocking(true).unwrap();
    let heir = server::TcpListener::from_std(heir).unwrap();
    near.write_all(b"up").await.unwrap();
    log.push(outcome(far.read_exact(&mut [0; 2])).await);
    far.write_all(b"down").await.unwrap();
    log.push(outcome(near.read_exact(&mut [0; 4])).await);
    waiting.write_all(b"wait").await.unwrap();
    let (mut first, _) = heir.accept().await.unwrap();
    log.push(outcome(first.read_exact(&mut [0; 4])).await);
    let mut new = client::TcpStream::connect(at).await.unwrap();
    new.write_all(b"new").await.unwrap();
    let (mut first, _) = heir.accept().await.unwrap();
    log.push(outcome(first.read_exact(&mut [0; 3])).await);

    // One that shares the port.
    let socket = tokio::net::TcpSocket::new_v4().unwrap();
    socket.set_reuseport(true).unwrap();
    socket.bind((Ipv4Addr::LOCALHOST, 0).into()).unwrap();
    let kernel = socket.listen(8).unwrap();
    let at = kernel.local_addr().unwrap();
    let mut near = client::TcpStream::connect(at).await.unwrap();
    let (mut far, _) = kernel.accept().await.unwrap();
    let socket = server::TcpSocket::new_v4().unwrap();
    socket.set_reuseport(true).unwrap();
    socket.bind(at).unwrap();
    let _sharer = socket.listen(8).unwrap();
    near.write_all(b"up").await.unwrap();
    log.push(outcome(far.read_exact(&mut [0; 2])).await);
    far.write_all(b"down").await.unwrap();
    log.push(outcome(near.read_exact(&mut [0; 4])).await);
    log
}

pub(super) async fn connects_given_up() -> Vec<String> {
    let mut log = Vec::new();
    // Nothing of it is left: the listener sees no connection, or its end.
    let (listener, at) = listener().await;
    for polls in 0..3 {
        let mut connect = Box::pin(client::TcpStream::connect(at));
        for _ in 0..polls {
            if poll_fn(|cx| Poll::Ready(connect.as_mut().poll(cx).is_ready())).await {
                break;
            }
        }
        drop(connect);
        arrival().await;
        if let Ok(accepted) = timeout(NEVER, listener.accept()).await {
            let mut far = accepted.unwrap().0;
            let ended = outcome(async { far.read(&mut [0; 1]).await.map(drop) }).await;
            assert_ne!(ended, "waits", "after {polls} polls");
        }
    }
    // A port of one's own is free again.
    let full = server::TcpSocket::new_v4().unwrap();
    full.bind((Ipv4Addr::LOCALHOST, 0).into()).unwrap();
    let full = full.listen(0).unwrap();
    let at = full.local_addr().unwrap();
    let _only = client::TcpStream::connect(at).await.unwrap();
    let socket = client::TcpSocket::new_v4().unwrap();
    socket.bind((Ipv4Addr::LOCALHOST, 0).into()).unwrap();
    let own = socket.local_addr().unwrap();
    log.push(outcome(async { socket.connect(at).await.map(drop) }).await);
    arrival().await;
    log.push(seen(std::net::TcpListener::bind(own).map(drop)));
    log
}
