//! Living beside the kernel: shared addresses and ports, other interfaces, death, stopping, no privileges.

use std::fs;
use std::io::{ErrorKind, Read as _, Write as _};
use std::net::{Ipv4Addr, SocketAddr, TcpStream};
use std::os::unix::fs::PermissionsExt as _;
use std::time::Duration;

use integration::netns::{Namespace, VethPair, require_privileges};
use integration::places::{Family, Place};
use integration::process::{Process, serial, wait_until};
use integration::programs::{Server, ServerOptions, client, require_tools, workspace_binary};
use integration::stack::StackKind;
use integration::stats::{STATS_FILE, Stats};
use rustix::process::Signal;
use sha2::{Digest as _, Sha256};
use socket2::{Domain, Socket, Type};

const START: Duration = Duration::from_secs(20);
const LIMIT: Duration = Duration::from_secs(60);

fn serve(namespace: &Namespace, device: &str, stack: StackKind, listen: SocketAddr) -> Process {
    let mut command = namespace.command(env!("CARGO_BIN_EXE_bench"));
    command
        .args([
            "peer",
            "serve",
            "--stack",
            stack.name(),
            "--listen",
            &listen.to_string(),
        ])
        .env("FLEXTCP_INTERFACES", device);
    Process::spawn(command).unwrap()
}

fn address_of(server: &mut Process) -> SocketAddr {
    server.wait_listening(START).unwrap()
}

#[test]
fn a_held_port_is_in_use_both_ways() {
    if !require_privileges("a_held_port_is_in_use_both_ways") {
        return;
    }
    let _serial = serial();
    let place = Place::veth("inuse").unwrap();
    let any = SocketAddr::new(place.server_ip(Family::V4), 0);
    for (holder, other) in [
        (StackKind::Flex, StackKind::Kernel),
        (StackKind::Kernel, StackKind::Flex),
        (StackKind::Flex, StackKind::Flex),
    ] {
        let mut held = serve(place.server(), place.device(), holder, any);
        let address = address_of(&mut held);
        let refused = serve(place.server(), place.device(), other, address)
            .finish(LIMIT)
            .unwrap();
        assert!(
            !refused.status.success(),
            "{} took {}'s port",
            other.name(),
            holder.name()
        );
        assert!(
            refused.stderr.contains("Address already in use"),
            "{}",
            refused.stderr
        );
    }
}

#[test]
fn an_unrelated_kernel_service_works_under_load() {
    let test = "an_unrelated_kernel_service_works_under_load";
    if !require_privileges(test) || !require_tools(test, &["wrk"]) {
        return;
    }
    let _serial = serial();
    for place in [
        Place::loopback("unrelated").unwrap(),
        Place::veth("unrelated").unwrap(),
    ] {
        let ip = place.server_ip(Family::V4);
        let options = ServerOptions::new("http", ip, place.device());
        let ours = Server::start(place.server(), &options).unwrap();
        let any = SocketAddr::new(ip, 0);
        let mut kernel = serve(place.server(), place.device(), StackKind::Kernel, any);
        let address = address_of(&mut kernel).to_string();

        let mut load = place.client().command("wrk");
        load.args(["-c16", "-t1", "-d5s", &ours.url("/")]);
        let load = Process::spawn(load).unwrap();
        let bench = env!("CARGO_BIN_EXE_bench");
        let exchange = [
            "peer", "load", "--stack", "kernel", "--work", "exchange", "--server",
        ];
        let exchange = exchange.into_iter().chain([
            address.as_str(),
            "--connections",
            "4",
            "--bytes",
            "4000000",
        ]);
        client(place.client(), bench, exchange, LIMIT).unwrap();
        let load = load.finish(LIMIT).unwrap();
        assert!(load.stdout.contains("requests in"), "{}", load.stdout);
        assert!(!load.stdout.contains("Socket errors"), "{}", load.stdout);
        Stats::fetch(place.client(), &ours)
            .unwrap()
            .assert_offloaded();
    }
}

#[test]
fn a_wildcard_listener_accepts_over_every_interface() {
    let test = "a_wildcard_listener_accepts_over_every_interface";
    if !require_privileges(test) || !require_tools(test, &["curl"]) {
        return;
    }
    let _serial = serial();
    let pair = VethPair::new("wildcard", Default::default()).unwrap();
    let options = ServerOptions::new("http", Ipv4Addr::UNSPECIFIED.into(), VethPair::DEVICE);
    let server = Server::start(&pair.b, &options).unwrap();
    let port = server.address.port();
    let over_veth = format!("http://{}:{port}/bytes/1000000", VethPair::B_V4);
    let over_lo = format!("http://127.0.0.1:{port}/bytes/1000000");
    let to_self = format!("http://{}:{port}/bytes/1000000", VethPair::B_V4);
    for _ in 0..3 {
        client(
            &pair.a,
            "curl",
            ["-sSf", "-m", "20", "-o", "/dev/null", &over_veth],
            LIMIT,
        )
        .unwrap();
        client(
            &pair.b,
            "curl",
            ["-sSf", "-m", "20", "-o", "/dev/null", &over_lo],
            LIMIT,
        )
        .unwrap();
        client(
            &pair.b,
            "curl",
            ["-sSf", "-m", "20", "-o", "/dev/null", &to_self],
            LIMIT,
        )
        .unwrap();
    }
    let local = Server {
        address: SocketAddr::new(VethPair::B_V4, port),
        ..server
    };
    let stats = Stats::fetch(&pair.a, &local).unwrap();
    stats.assert_offloaded();
    if stats.has_nic() {
        assert!(stats.count("connections.kernel_opened") >= 6, "{stats:?}");
    }
}

#[test]
fn a_killed_server_leaves_no_program_and_its_peer_sees_reset() {
    let test = "a_killed_server_leaves_no_program_and_its_peer_sees_reset";
    if !require_privileges(test) {
        return;
    }
    let _serial = serial();
    let place = Place::veth("kill").unwrap();
    let options = ServerOptions::new("http", place.server_ip(Family::V4), place.device());
    let server = Server::start(place.server(), &options).unwrap();
    let address = server.address;
    let mut stream = place
        .client()
        .within(|| TcpStream::connect_timeout(&address, START))
        .unwrap()
        .unwrap();
    stream.set_read_timeout(Some(START)).unwrap();
    let request = format!("GET / HTTP/1.1\r\nHost: {address}\r\n\r\n");
    stream.write_all(request.as_bytes()).unwrap();
    let mut answer = [0; 4096];
    assert!(stream.read(&mut answer).unwrap() > 0);
    Stats::fetch(place.client(), &server)
        .unwrap()
        .assert_offloaded();
    let mut server = server;
    server.process.signal(Signal::KILL).unwrap();
    wait_until(START, "the server to die", || !server.process.is_running()).unwrap();

    wait_until(START, "the XDP program to go", || {
        place
            .server()
            .has_xdp(place.device())
            .is_ok_and(|attached| !attached)
    })
    .unwrap();
    // The kernel, which knows no such connection, answers what the client sends next.
    let reset = wait_until(START, "the reset", || {
        let sent = stream.write_all(request.as_bytes());
        let error = sent.err().or_else(|| stream.read(&mut answer).err());
        error.is_some_and(|error| {
            matches!(
                error.kind(),
                ErrorKind::ConnectionReset | ErrorKind::BrokenPipe
            )
        })
    });
    reset.unwrap();
}

#[test]
fn a_graceful_stop_loses_no_byte() {
    let test = "a_graceful_stop_loses_no_byte";
    if !require_privileges(test) || !require_tools(test, &["curl"]) {
        return;
    }
    let _serial = serial();
    let place = Place::veth("stop").unwrap();
    let options = ServerOptions::new("http", place.server_ip(Family::V4), place.device());
    let server = Server::start(place.server(), &options).unwrap();
    let scratch = tempfile::tempdir().unwrap();
    let file = scratch.path().join("body");
    let len = 32u64 << 20;

    let mut curl = place.client().command("curl");
    curl.args(["-sSf", "-m", "60", "--limit-rate", "12M", "-o"])
        .arg(&file)
        .arg(server.url(&format!("/bytes/{len}")));
    let curl = Process::spawn(curl).unwrap();
    wait_until(START, "the first bytes", || {
        file.metadata().is_ok_and(|data| data.len() > 0)
    })
    .unwrap();
    server.process.signal(Signal::TERM).unwrap();
    let curl = curl.finish(LIMIT).unwrap();
    assert!(curl.status.success(), "{}", curl.stderr);
    assert_eq!(file.metadata().unwrap().len(), len);
    let server = server.process.finish(LIMIT).unwrap();
    assert!(server.status.success(), "{}", server.stderr);
}

/// Half of a request was sent when the server is told to stop: it takes nobody new, and the rest of the old one arrives on
/// the same connection and is answered.
#[test]
fn a_graceful_stop_takes_in_the_rest_of_an_upload() {
    if !require_privileges("a_graceful_stop_takes_in_the_rest_of_an_upload") {
        return;
    }
    const LEN: usize = 3_000_001;
    let _serial = serial();
    let body: Vec<u8> = (0..LEN).map(|n| (n ^ (n >> 8) ^ (n >> 16)) as u8).collect();
    let digest: String = Sha256::digest(&body)
        .iter()
        .map(|byte| format!("{byte:02x}"))
        .collect();
    let head = format!(
        "PUT /upload HTTP/1.1\r\nHost: x\r\nContent-Length: {LEN}\r\nExpect: 100-continue\r\n\r\n"
    );
    for place in [
        Place::veth("upload").unwrap(),
        Place::loopback("upload").unwrap(),
    ] {
        for family in [Family::V4, Family::V6] {
            let scratch = tempfile::tempdir().unwrap();
            let stats = scratch.path().join("stats");
            let mut options = ServerOptions::new("http", place.server_ip(family), place.device());
            options.env.push((STATS_FILE, stats.display().to_string()));
            let server = Server::start(place.server(), &options).unwrap();
            let address = server.address;
            let connect = || {
                place
                    .client()
                    .within(|| TcpStream::connect(address))
                    .unwrap()
            };
            let mut stream = connect().unwrap();
            stream.set_read_timeout(Some(START)).unwrap();
            stream.write_all(head.as_bytes()).unwrap();
            // "HTTP/1.1 100 Continue": the request is in the handler.
            stream.read_exact(&mut [0; 25]).unwrap();
            let (first, rest) = body.split_at(LEN / 2);
            stream.write_all(first).unwrap();

            server.process.signal(Signal::TERM).unwrap();
            wait_until(START, "the listener to be gone", || connect().is_err()).unwrap();
            stream.write_all(rest).unwrap();
            let mut answer = String::new();
            stream.read_to_string(&mut answer).unwrap();
            assert!(answer.contains(&digest), "{address}: {answer}");
            let server = server.process.finish(LIMIT).unwrap();
            assert!(server.status.success(), "{}", server.stderr);
            if std::env::var_os("FLEXTCP_TEST_KERNEL").is_none() {
                let [stats] = &Stats::read_lines(&stats).unwrap()[..] else {
                    panic!("one line of statistics");
                };
                stats.assert_offloaded();
            }
        }
    }
}

/// What the application has written, and the peer not taken, is delivered when the process is gone, as with kernel
/// sockets.
#[test]
fn what_a_slow_peer_has_not_taken_outlives_the_process() {
    let test = "what_a_slow_peer_has_not_taken_outlives_the_process";
    if !require_privileges(test) {
        return;
    }
    // More than the peer takes, less than may be written ahead: what is not written yet ends with the process.
    const LEN: usize = 300_000;
    let _serial = serial();
    for place in [
        Place::veth("outlive").unwrap(),
        Place::loopback("outlive").unwrap(),
    ] {
        for family in [Family::V4, Family::V6] {
            let mut options = ServerOptions::new("echo", place.server_ip(family), place.device());
            options.args = vec!["--mode", "source", "--bytes", "300000"];
            let mut server = Server::start(place.server(), &options).unwrap();
            let address = server.address;
            let connect = || {
                let stream = place.client().within(|| {
                    let socket = Socket::new(Domain::for_address(address), Type::STREAM, None)?;
                    socket.set_recv_buffer_size(64 << 10)?;
                    socket.connect(&address.into())?;
                    Ok::<_, std::io::Error>(TcpStream::from(socket))
                });
                let stream = stream.unwrap().unwrap();
                stream.set_read_timeout(Some(START)).unwrap();
                stream
            };
            let mut expected = Vec::new();
            connect().read_to_end(&mut expected).unwrap();
            assert_eq!(expected.len(), LEN);

            let mut slow = connect();
            let mut first = [0; 1];
            slow.read_exact(&mut first).unwrap();
            server.process.signal(Signal::TERM).unwrap();
            wait_until(START, "the server to end", || !server.process.is_running()).unwrap();
            let mut rest = first.to_vec();
            slow.read_to_end(&mut rest).unwrap();
            assert!(rest == expected, "{address}: {} bytes arrived", rest.len());
        }
    }
}

#[test]
fn a_filter_keeps_peers_out_of_what_we_listen_on() {
    let test = "a_filter_keeps_peers_out_of_what_we_listen_on";
    if !require_privileges(test) || !require_tools(test, &["curl"]) {
        return;
    }
    if std::env::var_os("FLEXTCP_TEST_KERNEL").is_some() {
        return;
    }
    let _serial = serial();
    let place = Place::veth("filter").unwrap();
    place
        .client()
        .ip(["addr", "add", "10.77.0.9/24", "dev", place.device()])
        .unwrap();
    let mut options = ServerOptions::new("http", place.server_ip(Family::V4), place.device());
    let rules = "allow 10.77.0.1, deny 10.77.0.0/24";
    options.env.push(("FLEXTCP_FILTER", rules.to_owned()));
    let server = Server::start(place.server(), &options).unwrap();
    let url = server.url("/");
    let from = |source| {
        let args = ["-sSf", "-m", "2", "--interface", source, &url];
        client(place.client(), "curl", args, LIMIT)
    };
    from("10.77.0.1").unwrap();
    let refused = from("10.77.0.9").unwrap_err().to_string();
    assert!(refused.contains("timed out"), "{refused}");
    let stats = Stats::fetch(place.client(), &server).unwrap();
    stats.assert_offloaded();
    assert!(stats.count("drops.filtered") >= 1, "{stats:?}");

    // The rules are about who comes in: this host still connects to where nobody is let in from.
    let mut kernel = serve(
        place.client(),
        place.device(),
        StackKind::Kernel,
        (Ipv4Addr::new(10, 77, 0, 9), 0).into(),
    );
    let address = address_of(&mut kernel).to_string();
    let lines = tempfile::NamedTempFile::new().unwrap();
    let mut load = place.server().command(env!("CARGO_BIN_EXE_bench"));
    load.args("peer load --stack flex --work exchange --bytes 100000 --server".split(' '))
        .arg(&address)
        .env("FLEXTCP_INTERFACES", place.device())
        .env("FLEXTCP_FILTER", "deny any")
        .env("FLEXTCP_FALLBACK", "deny")
        .env(STATS_FILE, lines.path());
    drop(server);
    let load = Process::spawn(load).unwrap().finish(LIMIT).unwrap();
    assert!(load.status.success(), "{}", load.stderr);
    Stats::read_lines(lines.path()).unwrap()[0].assert_offloaded();
}

#[test]
fn the_settings_of_lo_are_put_back_at_the_end() {
    if !require_privileges("the_settings_of_lo_are_put_back_at_the_end") {
        return;
    }
    let _serial = serial();
    let place = Place::loopback("settings").unwrap();
    let settings = || {
        ["route_localnet", "accept_local"].map(|name| {
            let path = format!("/proc/sys/net/ipv4/conf/lo/{name}");
            let read = place.server().within(|| fs::read_to_string(path));
            read.unwrap().unwrap().trim().to_owned()
        })
    };
    let before = settings();
    let options = ServerOptions::new("http", place.server_ip(Family::V4), place.device());
    let server = Server::start(place.server(), &options).unwrap();
    assert_eq!(settings(), ["1", "1"]);
    server.process.signal(Signal::TERM).unwrap();
    let server = server.process.finish(LIMIT).unwrap();
    assert!(server.status.success(), "{}", server.stderr);
    assert_eq!(settings(), before);
}

/// A copy of an example that any user may run, and its directory.
fn for_everybody(name: &str) -> (tempfile::TempDir, std::path::PathBuf) {
    let directory = tempfile::tempdir().unwrap();
    fs::set_permissions(directory.path(), fs::Permissions::from_mode(0o755)).unwrap();
    let copy = directory.path().join(name);
    fs::copy(workspace_binary(name).unwrap(), &copy).unwrap();
    fs::set_permissions(&copy, fs::Permissions::from_mode(0o755)).unwrap();
    (directory, copy)
}

const NOBODY: [&str; 4] = [
    "--reuid=65534",
    "--regid=65534",
    "--clear-groups",
    "--no-new-privs",
];

#[test]
fn an_ordinary_user_is_served_by_kernel_sockets_after_one_warning() {
    let test = "an_ordinary_user_is_served_by_kernel_sockets_after_one_warning";
    if !require_privileges(test) || !require_tools(test, &["setpriv", "curl"]) {
        return;
    }
    let _serial = serial();
    let (_directory, program) = for_everybody("http");
    let place = Place::loopback("user").unwrap();
    let mut command = place.server().command("setpriv");
    command.args(NOBODY).arg(program);
    let options = ServerOptions::new("http", place.server_ip(Family::V4), place.device());
    let server = Server::start_command(command, &options).unwrap();
    for _ in 0..3 {
        client(
            place.client(),
            "curl",
            ["-sSf", "-m", "20", &server.url("/")],
            LIMIT,
        )
        .unwrap();
    }
    let stats = Stats::fetch(place.client(), &server).unwrap();
    assert!(!stats.has_nic(), "{stats:?}");
    let log = server.process.stderr();
    let warnings: Vec<&str> = log.lines().filter(|line| line.contains("WARN")).collect();
    if std::env::var_os("FLEXTCP_TEST_KERNEL").is_none() {
        assert_eq!(warnings.len(), 1, "{log}");
        assert!(
            warnings[0].contains("CAP_"),
            "the warning names no capability: {log}"
        );
    }
}

/// As a systemd unit grants them.
#[test]
fn the_capabilities_that_the_documents_name_are_enough() {
    let test = "the_capabilities_that_the_documents_name_are_enough";
    if !require_privileges(test) || !require_tools(test, &["setpriv", "curl"]) {
        return;
    }
    if std::env::var_os("FLEXTCP_TEST_KERNEL").is_some() {
        return;
    }
    let _serial = serial();
    let documents = include_str!("../../docs/migration.md");
    let (_, named) = documents.split_once("`AmbientCapabilities=").unwrap();
    let (named, _) = named.split_once('`').unwrap();
    let granted: Vec<String> = named
        .split(' ')
        .map(|name| format!("+{}", name.trim_start_matches("CAP_").to_lowercase()))
        .collect();
    let granted = granted.join(",");
    let (_directory, program) = for_everybody("http");
    let place = Place::loopback("capabilities").unwrap();
    for family in [Family::V4, Family::V6] {
        let mut command = place.server().command("setpriv");
        command
            .args(["--reuid=65534", "--regid=65534", "--clear-groups"])
            .arg(format!("--inh-caps={granted}"))
            .arg(format!("--ambient-caps={granted}"))
            .arg(&program)
            .env("FLEXTCP_FALLBACK", "deny");
        let options = ServerOptions::new("http", place.server_ip(family), place.device());
        let server = Server::start_command(command, &options).unwrap();
        Stats::fetch(place.client(), &server)
            .unwrap()
            .assert_offloaded();
    }
}

#[test]
fn a_tap_handed_to_an_ordinary_user_serves_curl_and_wrk() {
    let test = "a_tap_handed_to_an_ordinary_user_serves_curl_and_wrk";
    if !require_privileges(test) || !require_tools(test, &["setpriv", "curl", "wrk"]) {
        return;
    }
    if std::env::var_os("FLEXTCP_TEST_KERNEL").is_some() {
        return;
    }
    let _serial = serial();
    let (directory, program) = for_everybody("http");
    let namespace = Namespace::new("tap").unwrap();
    namespace
        .ip([
            "tuntap", "add", "dev", "tap0", "mode", "tap", "user", "65534", "vnet_hdr",
        ])
        .unwrap();
    namespace
        .ip(["addr", "add", "10.88.0.1/24", "dev", "tap0"])
        .unwrap();
    namespace.ip(["link", "set", "tap0", "up"]).unwrap();
    // A TAP of a user is no use if that user cannot open the device: root hands over that too, here in the mount
    // namespace that `ip netns exec` makes.
    let open_to_all =
        "mknod -m 666 \"$0\" c 10 200 && mount --bind \"$0\" /dev/net/tun && exec setpriv \"$@\"";
    let mut command = namespace.command("sh");
    command
        .args(["-c", open_to_all])
        .arg(directory.path().join("tun"))
        .args(NOBODY)
        .arg(program)
        .args(["--listen", "10.88.0.2:8080"])
        .env("FLEXTCP_NIC", "tap:tap0")
        .env("FLEXTCP_TAP_ADDR", "10.88.0.2/24")
        .env("FLEXTCP_FALLBACK", "deny");
    let mut process = Process::spawn(command).unwrap();
    let address = process.wait_listening(START).unwrap();
    let server = Server {
        process,
        address,
        tls: false,
    };
    let url = server.url("/bytes/67108864");
    client(
        &namespace,
        "curl",
        ["-sSf", "-m", "60", "-o", "/dev/null", &url],
        LIMIT,
    )
    .unwrap();
    let output = client(
        &namespace,
        "wrk",
        ["-c64", "-t1", "-d2s", &server.url("/")],
        LIMIT,
    )
    .unwrap()
    .stdout;
    assert!(
        output.contains("requests in") && !output.contains("Socket errors"),
        "{output}"
    );
    Stats::fetch(&namespace, &server)
        .unwrap()
        .assert_offloaded();
}

#[test]
fn a_tap_connects_to_the_kernel_behind_it() {
    let test = "a_tap_connects_to_the_kernel_behind_it";
    if !require_privileges(test) {
        return;
    }
    let _serial = serial();
    let namespace = Namespace::new("tapout").unwrap();
    for command in [
        "tuntap add dev tap0 mode tap vnet_hdr",
        "addr add 10.88.0.1/24 dev tap0",
        "addr add fd88::1/64 dev tap0 nodad",
        "link set tap0 up",
    ] {
        namespace.ip(command.split(' ')).unwrap();
    }
    for kernel in ["10.88.0.1:0", "[fd88::1]:0"] {
        let listen = kernel.parse().unwrap();
        let mut server = serve(&namespace, "", StackKind::Kernel, listen);
        let address = address_of(&mut server).to_string();
        let stats = tempfile::NamedTempFile::new().unwrap();
        let mut load = namespace.command(env!("CARGO_BIN_EXE_bench"));
        load.args(
            "peer load --stack flex --work exchange --connections 4 --bytes 4000000 --server"
                .split(' '),
        )
        .arg(&address)
        .env("FLEXTCP_NIC", "tap:tap0")
        .env("FLEXTCP_TAP_ADDR", "10.88.0.2/24,fd88::2/64")
        .env("FLEXTCP_FALLBACK", "deny")
        .env(STATS_FILE, stats.path());
        let load = Process::spawn(load).unwrap().finish(LIMIT).unwrap();
        assert!(load.status.success(), "{address}: {}", load.stderr);
        let stats = Stats::read_lines(stats.path()).unwrap();
        assert_eq!(stats.len(), 1, "our process left no statistics");
        stats[0].assert_offloaded();
    }
}
