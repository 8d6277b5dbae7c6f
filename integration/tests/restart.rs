//! A server is followed by its successor at the same port while connections of its own go on.

use std::io::{self, ErrorKind, Read as _, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread;
use std::time::Duration;

use integration::netns::require_privileges;
use integration::places::{Family, Place};
use integration::process::{serial, wait_for, wait_until};
use integration::programs::{Server, ServerOptions, client, require_tools};
use integration::stats::{STATS_FILE, Stats};
use rustix::process::Signal;
use sha2::{Digest as _, Sha256};
use socket2::{Domain, Socket, Type};

const START: Duration = Duration::from_secs(20);
const LIMIT: Duration = Duration::from_secs(60);
/// What a slow client gets, in bytes: more than all buffers on the way take.
const LEN: usize = 48 << 20;

/// A transfer that stands still, with most of it unsent, until it is finished.
struct Transfer {
    stream: TcpStream,
    answer: Vec<u8>,
}

impl Transfer {
    fn start(place: &Place, address: SocketAddr) -> Self {
        let connect = || TcpStream::connect_timeout(&address, START);
        let mut stream = place.client().within(connect).unwrap().unwrap();
        stream.set_read_timeout(Some(START)).unwrap();
        let request = format!("GET /bytes/{LEN} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n");
        stream.write_all(request.as_bytes()).unwrap();
        let mut answer = vec![0; 100_000];
        stream.read_exact(&mut answer).unwrap();
        Self { stream, answer }
    }

    /// The rest of it; the whole body is returned.
    fn finish(mut self) -> Vec<u8> {
        self.stream.read_to_end(&mut self.answer).unwrap();
        let mut ends = self.answer.windows(4);
        let head = ends.position(|bytes| bytes == b"\r\n\r\n").unwrap();
        self.answer.split_off(head + 4)
    }
}

fn options(place: &Place, family: Family, port: u16, stats: &Path) -> ServerOptions {
    let mut options = ServerOptions::new("http", place.server_ip(family), place.device());
    options.port = port;
    options.args = vec!["--drain", "60s"];
    options.env.push((STATS_FILE, stats.display().to_string()));
    options
}

/// Tells a server to stop and starts the next one as soon as its listener is gone.
fn succeed(place: &Place, server: &Server, options: &ServerOptions) -> Server {
    server.process.signal(Signal::TERM).unwrap();
    wait_for(START, "the port to be free", || {
        Server::start(place.server(), options).ok()
    })
    .unwrap()
}

/// New clients are served, each on a connection of its own.
fn assert_serves(place: &Place, server: &Server) {
    for _ in 0..10 {
        let url = server.url("/bytes/300000");
        let args = ["-sSf", "--globoff", "-m", "10", "-o", "/dev/null", &url];
        client(place.client(), "curl", args, LIMIT).unwrap();
    }
}

#[test]
fn servers_follow_each_other_while_their_transfers_go_on() {
    let test = "servers_follow_each_other_while_their_transfers_go_on";
    if !require_privileges(test) || !require_tools(test, &["curl"]) {
        return;
    }
    let _serial = serial();
    for (place, family) in [
        (Place::loopback("restart").unwrap(), Family::V4),
        (Place::loopback("restart").unwrap(), Family::V6),
        (Place::veth("restart").unwrap(), Family::V4),
        (Place::veth("restart").unwrap(), Family::V6),
    ] {
        let scratch = tempfile::tempdir().unwrap();
        let file = |name: &str| scratch.path().join(name);
        let stats = file("first");
        let first = Server::start(place.server(), &options(&place, family, 0, &stats)).unwrap();
        let next = options(&place, family, first.address.port(), &file("others"));
        let expected = Transfer::start(&place, first.address).finish();
        assert_eq!(expected.len(), LEN);

        let mut servers = vec![first];
        let mut transfers = Vec::new();
        for _ in 0..2 {
            let last = servers.last().unwrap();
            for _ in 0..3 {
                transfers.push(Transfer::start(&place, last.address));
            }
            let successor = succeed(&place, last, &next);
            assert_serves(&place, &successor);
            servers.push(successor);
        }
        for transfer in transfers {
            assert!(transfer.finish() == expected, "other bytes");
        }
        assert_serves(&place, servers.last().unwrap());
        servers
            .last()
            .unwrap()
            .process
            .signal(Signal::TERM)
            .unwrap();
        for server in servers {
            let ended = server.process.finish(LIMIT).unwrap();
            assert!(ended.status.success(), "{}", ended.stderr);
        }
        Stats::read_lines(&stats).unwrap()[0].assert_offloaded();
    }
}

/// An upload of a kernel socket whose large frames come around XDP.
#[derive(Default)]
struct Upload {
    sent: AtomicU64,
    ends: AtomicBool,
}

impl Upload {
    /// Sends without a pause until told to end; the server's answer has to tell of the same bytes.
    fn run(&self, mut stream: TcpStream) {
        let mut hash = Sha256::new();
        let head = "PUT /upload HTTP/1.1\r\nHost: x\r\nConnection: close\r\nTransfer-Encoding: chunked\r\n\r\n";
        stream.write_all(head.as_bytes()).unwrap();
        let mut piece = vec![0; 256 << 10];
        for turn in 0_u64.. {
            if self.ends.load(Ordering::Relaxed) {
                break;
            }
            for (at, eight) in piece.chunks_exact_mut(8).enumerate() {
                eight.copy_from_slice(&(turn << 32 | at as u64).to_le_bytes());
            }
            hash.update(&piece);
            let mut chunk = format!("{:x}\r\n", piece.len()).into_bytes();
            chunk.extend(&piece);
            chunk.extend(b"\r\n");
            stream.write_all(&chunk).unwrap();
            self.sent.fetch_add(piece.len() as u64, Ordering::Relaxed);
        }
        stream.write_all(b"0\r\n\r\n").unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).unwrap();
        let expected: String = hash.finalize().iter().map(|b| format!("{b:02x}")).collect();
        assert!(answer.contains(&expected), "not {expected}: {answer}");
    }

    fn wait_for(&self, more: u64) {
        let enough = self.sent.load(Ordering::Relaxed) + more;
        let sent = || self.sent.load(Ordering::Relaxed) >= enough;
        wait_until(LIMIT, "the upload to go on", sent).unwrap();
    }
}

/// Ends them at the end of a block, however that is left.
struct Ends<'a>(&'a [Upload]);

impl Drop for Ends<'_> {
    fn drop(&mut self) {
        for upload in self.0 {
            upload.ends.store(true, Ordering::Relaxed);
        }
    }
}

/// A kernel socket, set up by `prepare`.
fn connect_with(
    place: &Place,
    server: SocketAddr,
    prepare: impl Fn(&Socket) -> io::Result<()> + Sync,
) -> TcpStream {
    let connect = || {
        let socket = Socket::new(Domain::for_address(server), Type::STREAM, None)?;
        prepare(&socket)?;
        socket.connect_timeout(&server.into(), START)?;
        Ok::<_, io::Error>(TcpStream::from(socket))
    };
    let stream = place.client().within(connect).unwrap().unwrap();
    stream.set_read_timeout(Some(LIMIT)).unwrap();
    stream.set_write_timeout(Some(LIMIT)).unwrap();
    stream
}

/// The port is given up between two frames of bulk, and none of them goes to the kernel, which would reset the connection.
#[test]
fn bulk_around_xdp_goes_on_when_its_server_is_followed() {
    let test = "bulk_around_xdp_goes_on_when_its_server_is_followed";
    if !require_privileges(test) || !require_tools(test, &["curl"]) {
        return;
    }
    let _serial = serial();
    let place = Place::loopback("restartbulk").unwrap();
    for family in [Family::V4, Family::V6] {
        let scratch = tempfile::tempdir().unwrap();
        let file = |name: &str| scratch.path().join(name);
        let stats = file("first");
        let first = Server::start(place.server(), &options(&place, family, 0, &stats)).unwrap();
        let next = options(&place, family, first.address.port(), &file("second"));
        let uploads = [Upload::default(), Upload::default()];
        let around = || {
            let frames = place.server().frames_sent("flextcp0");
            frames.expect("a TAP beside lo")
        };
        let second = thread::scope(|scope| {
            let _ends = Ends(&uploads);
            for upload in &uploads {
                // Before the connection: a socket that ever ran BBR stays paced.
                let stream = connect_with(&place, first.address, |socket| {
                    socket.set_tcp_congestion(b"reno")
                });
                scope.spawn(move || upload.run(stream));
            }
            let go_on = || uploads.iter().for_each(|upload| upload.wait_for(16 << 20));
            go_on();
            assert!(around() > 0, "no frame went around XDP");
            let second = succeed(&place, &first, &next);
            let before = around();
            go_on();
            assert!(around() > before, "frames no longer go around XDP");
            assert_serves(&place, &second);
            second
        });
        second.process.signal(Signal::TERM).unwrap();
        for server in [first, second] {
            let ended = server.process.finish(LIMIT).unwrap();
            assert!(ended.status.success(), "{}", ended.stderr);
        }
        Stats::read_lines(&stats).unwrap()[0].assert_offloaded();
    }
}

/// What the predecessor has of a connection in TIME_WAIT makes room for the next one between the same ends.
#[test]
fn a_client_comes_from_the_same_port_again_and_reaches_the_successor() {
    let test = "a_client_comes_from_the_same_port_again_and_reaches_the_successor";
    if !require_privileges(test) || !require_tools(test, &["curl"]) {
        return;
    }
    let _serial = serial();
    for place in [
        Place::loopback("again").unwrap(),
        Place::veth("again").unwrap(),
    ] {
        let scratch = tempfile::tempdir().unwrap();
        let stats = scratch.path().join("stats");
        let first = Server::start(place.server(), &options(&place, Family::V4, 0, &stats)).unwrap();
        let get = |mut stream: TcpStream| {
            let request = "GET /bytes/1000 HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n";
            stream.write_all(request.as_bytes()).unwrap();
            let mut answer = Vec::new();
            stream.read_to_end(&mut answer).unwrap();
            assert!(answer.starts_with(b"HTTP/1.1 200 OK\r\n"));
            stream.local_addr().unwrap()
        };
        let client = get(connect_with(&place, first.address, |_| Ok(())));
        wait_until(START, "TIME_WAIT", || {
            let stats = Stats::fetch(place.client(), &first).unwrap();
            stats.count("connections.time_wait") == 1
        })
        .unwrap();
        // It stays because of this one.
        let transfer = Transfer::start(&place, first.address);
        let next = options(&place, Family::V4, first.address.port(), &stats);
        let second = succeed(&place, &first, &next);
        let again = connect_with(&place, second.address, |socket| {
            socket.set_reuse_address(true)?;
            socket.bind(&client.into())
        });
        assert_eq!(get(again), client);
        assert_eq!(transfer.finish().len(), LEN);
        second.process.signal(Signal::TERM).unwrap();
        for server in [first, second] {
            let ended = server.process.finish(LIMIT).unwrap();
            assert!(ended.status.success(), "{}", ended.stderr);
        }
    }
}

/// A successor that knows nothing of us, and a predecessor that is killed.
#[test]
fn a_kernel_server_follows_and_the_killed_ones_peers_see_reset() {
    let test = "a_kernel_server_follows_and_the_killed_ones_peers_see_reset";
    if !require_privileges(test) || !require_tools(test, &["curl"]) {
        return;
    }
    let _serial = serial();
    for place in [
        Place::loopback("successor").unwrap(),
        Place::veth("successor").unwrap(),
    ] {
        let scratch = tempfile::tempdir().unwrap();
        let file = |name: &str| scratch.path().join(name);
        let first = options(&place, Family::V4, 0, &file("stats"));
        let first = Server::start(place.server(), &first).unwrap();
        let mut transfer = Transfer::start(&place, first.address);
        let mut next = options(&place, Family::V4, first.address.port(), &file("stats"));
        next.args.push("--kernel");
        let mut second = succeed(&place, &first, &next);
        assert_serves(&place, &second);
        first.process.signal(Signal::KILL).unwrap();
        let reset = wait_until(START, "the reset", || {
            let sent = transfer.stream.write_all(b"anybody there?");
            let gone = [ErrorKind::ConnectionReset, ErrorKind::BrokenPipe];
            sent.is_err_and(|error| gone.contains(&error.kind()))
        });
        reset.unwrap();
        assert_serves(&place, &second);
        assert!(second.process.is_running());
    }
}
