//! Which way a connection goes: the kernel's rules of policy, a bound address and a bound device decide, as for its own
//! sockets.

use std::io::{self, Read as _, Write as _};
use std::net::{IpAddr, SocketAddr, TcpListener};
use std::thread;
use std::time::Duration;

use flextcp_net::{TcpSocket, TcpStream, TcpStreamExt as _};
use flextcp_rt::Host;
use integration::netns::{VethOptions, VethPair, require_privileges};
use integration::process::wait_until;
use integration::stack::on_devices;
use socket2::SockRef;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

/// The service is at an address behind both links.
const SERVICE: &str = "10.99.0.1";
const WAYS: usize = 5;
/// Of the rule that sends marked packets over the second link.
const MARK: u32 = 7;

fn two_links() -> io::Result<VethPair> {
    let pair = VethPair::new("routing", VethOptions::default())?;
    let (a, b) = (&pair.a, &pair.b);
    a.ip(format!(
        "link add veth1 type veth peer name veth1 netns {}",
        b.name()
    )
    .split(' '))?;
    for (end, host) in [(a, 1), (b, 2)] {
        let v4 = IpAddr::from([10, 78, 0, host]);
        let v6 = IpAddr::from([0xfd78, 0, 0, 0, 0, 0, 0, u16::from(host)]);
        end.set_up("veth1", v4, v6, VethOptions::default())?;
    }
    wait_until(Duration::from_secs(10), "the second link", || {
        a.is_up("veth1") && b.is_up("veth1")
    })?;
    b.ip(format!("addr add {SERVICE}/32 dev lo").split(' '))?;
    for route in [
        "route add 10.99.0.1 via 10.77.0.2 dev veth0 metric 100",
        "route add 10.99.0.1 via 10.78.0.2 dev veth1 metric 200",
        "route add 10.99.0.1 via 10.78.0.2 dev veth1 table 100",
        "rule add from 10.78.0.1 lookup 100",
        "rule add fwmark 7 lookup 100",
    ] {
        a.ip(route.split(' '))?;
    }
    Ok(pair)
}

/// A socket that holds `local`, if any, and must use `device`, if any.
fn socket(local: Option<&str>, device: Option<&str>) -> TcpSocket {
    let socket = TcpSocket::new_v4().unwrap();
    if let Some(device) = device {
        socket.bind_device(Some(device.as_bytes())).unwrap();
    }
    if let Some(local) = local {
        socket.bind(local.parse().unwrap()).unwrap();
    }
    socket
}

async fn exchange(stream: &mut TcpStream, source: &str) -> SocketAddr {
    let local = stream.local_addr().unwrap();
    assert_eq!(local.ip().to_string(), source);
    stream.write_all(b"ping").await.unwrap();
    let mut answer = [0; 4];
    stream.read_exact(&mut answer).await.unwrap();
    assert_eq!(&answer, b"ping");
    local
}

async fn expect(stream: TcpStream, source: &str, link: &str) {
    let mut stream = stream;
    assert!(stream.is_accelerated(), "it fell back to the kernel");
    let local = exchange(&mut stream, source).await;
    let table = Host::current().unwrap().connections();
    let mine = table.connections.iter().find(|it| it.local == local);
    let core = &mine.expect("a connection that lives is listed").core;
    assert!(core.contains(link), "{local} went over {core}");
}

#[test]
fn policy_addresses_and_devices_choose_the_link() {
    if !require_privileges("policy_addresses_and_devices_choose_the_link") {
        return;
    }
    let pair = two_links().unwrap();
    let service: SocketAddr = (SERVICE.parse::<IpAddr>().unwrap(), 7777).into();
    let listener = pair.b.within(|| TcpListener::bind(service)).unwrap();
    let listener = listener.unwrap();
    let server = thread::spawn(move || {
        for _ in 0..WAYS {
            let (mut stream, _) = listener.accept().unwrap();
            let mut ping = [0; 4];
            stream.read_exact(&mut ping).unwrap();
            stream.write_all(&ping).unwrap();
            // To the client's end.
            let _ = stream.read(&mut ping);
        }
    });

    on_devices(&pair.a, &["veth0", "veth1"], async || {
        let plain = TcpStream::connect(service).await.unwrap();
        expect(plain, "10.77.0.1", "veth0").await;
        for (local, device) in [
            (Some("10.78.0.1:0"), None),
            (None, Some("veth1")),
            (Some("10.78.0.1:0"), Some("veth1")),
        ] {
            let bound = socket(local, device).connect(service).await.unwrap();
            expect(bound, "10.78.0.1", "veth1").await;
        }
        // A mark is for the kernel's rules, of routing and of the firewall: the kernel has the connection.
        let marked = socket(None, None);
        SockRef::from(&marked).set_mark(MARK).unwrap();
        let mut marked = marked.connect(service).await.unwrap();
        assert!(!marked.is_accelerated(), "no rule sees its mark");
        exchange(&mut marked, "10.78.0.1").await;
        assert_eq!(SockRef::from(&marked).mark().unwrap(), MARK);
    })
    .unwrap();
    server.join().unwrap();
}
