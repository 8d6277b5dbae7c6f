//! What sockets do at the edges: addresses of every kind, refusals, resets, ends, readiness, listeners that come and go,
//! connects that are given up. Each scenario runs on tokio's sockets, on ours, and with ours at one end, and every line
//! that it logs has to be the same.

use std::fmt::Debug;
use std::future::{Future, poll_fn};
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::{Context, Poll, Wake, Waker};
use std::time::Duration;

use flextcp_rt::Host;
use flextcp_rt::config::{Config, Interfaces};
use integration::netns::{Namespace, require_privileges};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _, Interest};
use tokio::time::{sleep, timeout};

/// After this long, what has not happened on a loopback interface is said not to happen.
const NEVER: Duration = Duration::from_millis(200);

/// What a call gave.
fn seen<T: Debug>(result: io::Result<T>) -> String {
    match result {
        Ok(value) => format!("{value:?}"),
        Err(error) => format!("{:?} {:?}", error.kind(), error.raw_os_error()),
    }
}

/// What an operation gave, or that it waits.
async fn outcome<T: Debug>(operation: impl Future<Output = io::Result<T>>) -> String {
    match timeout(NEVER, operation).await {
        Ok(result) => seen(result),
        Err(_) => "waits".to_owned(),
    }
}

/// Lets what was sent arrive.
async fn arrival() {
    sleep(Duration::from_millis(30)).await;
}

fn without_port(addr: io::Result<SocketAddr>) -> String {
    let addr = addr.map(|mut addr| {
        addr.set_port(0);
        addr
    });
    seen(addr)
}

struct Wakes(AtomicUsize);

impl Wake for Wakes {
    fn wake(self: Arc<Self>) {
        self.0.fetch_add(1, Ordering::SeqCst);
    }
}

fn counting() -> (Arc<Wakes>, Waker) {
    let wakes = Arc::new(Wakes(AtomicUsize::new(0)));
    (wakes.clone(), wakes.into())
}

mod tokio_alone {
    use tokio::net as client;
    use tokio::net as server;
    include!("edges/scenarios.rs");
}

mod flextcp_server {
    use flextcp_net as server;
    use tokio::net as client;
    include!("edges/scenarios.rs");
}

mod flextcp_client {
    use flextcp_net as client;
    use tokio::net as server;
    include!("edges/scenarios.rs");
}

mod flextcp_alone {
    use flextcp_net as client;
    use flextcp_net as server;
    include!("edges/scenarios.rs");
}

fn run<F: Future<Output = Vec<String>>>(scenario: impl FnOnce() -> F) -> Vec<String> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap();
    runtime.block_on(scenario())
}

/// A namespace whose `lo` has what the scenarios want, and ours on it.
fn on_loopback(differences: impl FnOnce() -> Vec<String> + Send) -> Vec<String> {
    let namespace = Namespace::new("edges").unwrap();
    for command in [
        "addr add fe80::1/64 dev lo nodad",
        "addr add 10.5.5.5/32 dev lo",
        "route add unreachable 10.66.1.0/24",
        "route add prohibit 10.66.2.0/24",
        "route add blackhole 10.66.3.0/24",
    ] {
        namespace.ip(command.split(' ')).unwrap();
    }
    namespace
        .within(|| {
            // Within the process too, connections go over the interface: that is what peers see.
            let config = Config::builder()
                .hairpin(false)
                .interfaces(Interfaces::List(vec!["lo".to_owned()]));
            Host::configure(config.build().unwrap()).unwrap();
            differences()
        })
        .unwrap()
}

macro_rules! differences {
    ($($scenario:ident),*) => {{
        let mut differences = Vec::new();
        $(
            let expected = run(tokio_alone::$scenario);
            for (way, seen) in [
                ("our server", run(flextcp_server::$scenario)),
                ("our client", run(flextcp_client::$scenario)),
                ("ours at both ends", run(flextcp_alone::$scenario)),
            ] {
                assert_eq!(expected.len(), seen.len(), "{way}: {expected:#?} {seen:#?}");
                let lines = expected.iter().zip(&seen).filter(|(theirs, ours)| theirs != ours);
                differences.extend(lines.map(|(theirs, ours)| {
                    format!("{}, {way}: tokio: {theirs}; ours: {ours}", stringify!($scenario))
                }));
            }
        )*
        differences
    }};
}

#[test]
fn what_tokios_sockets_do_ours_do() {
    if !require_privileges("what_tokios_sockets_do_ours_do") {
        return;
    }
    let differences = on_loopback(|| {
        differences!(
            addresses,
            families,
            refusals,
            resets,
            last_words,
            ends,
            halves,
            readiness,
            backpressure,
            closing_listeners,
            full_listeners,
            few_ports,
            shared_listeners,
            inheritance,
            connections_of_the_kernels,
            connects_given_up
        )
    });
    assert!(differences.is_empty(), "{}", differences.join("\n"));
}
