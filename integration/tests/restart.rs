//! A server is followed by its successor at the same port while connections of its own go on.

use std::io::{ErrorKind, Read as _, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::path::Path;
use std::time::Duration;

use integration::netns::require_privileges;
use integration::places::{Family, Place};
use integration::process::{serial, wait_for, wait_until};
use integration::programs::{Server, ServerOptions, client, require_tools};
use integration::stats::{STATS_FILE, Stats};
use rustix::process::Signal;

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
