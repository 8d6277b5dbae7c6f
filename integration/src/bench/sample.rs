//! One sample: fresh namespaces, a server process, a client process.

use std::io;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::Path;
use std::process::Command;
use std::thread;
use std::time::Duration;

use super::{Case, Place};
use crate::netns::{Namespace, VethPair};
use crate::peer::Outcome;
use crate::process::Process;
use crate::stack::StackKind;
use crate::stats::{STATS_FILE, Stats};

const START: Duration = Duration::from_secs(20);

/// A measured sample.
#[derive(Debug, Clone)]
pub struct Sample {
    /// What the client saw.
    pub outcome: Outcome,
    /// How often connections were handed to the NIC, by processes of our stack; `None` when none reported.
    pub offloaded: Option<u64>,
}

enum Net {
    One(Namespace),
    Two(VethPair),
}

impl Net {
    fn new(place: Place) -> io::Result<Self> {
        let net = match place {
            Place::Loopback => Self::One(Namespace::new("bench")?),
            Place::Veth(options) => Self::Two(VethPair::new("bench", options)?),
        };
        // Room for a churn's connections in TIME_WAIT, for both stacks.
        for namespace in [net.client(), net.server()] {
            namespace.sysctl("net/ipv4/ip_local_port_range", "2048 65535")?;
        }
        Ok(net)
    }

    fn client(&self) -> &Namespace {
        match self {
            Self::One(only) => only,
            Self::Two(pair) => &pair.a,
        }
    }

    fn server(&self) -> &Namespace {
        match self {
            Self::One(only) => only,
            Self::Two(pair) => &pair.b,
        }
    }

    fn server_ip(&self) -> IpAddr {
        match self {
            Self::One(_) => IpAddr::V4(Ipv4Addr::LOCALHOST),
            Self::Two(_) => VethPair::B_V4,
        }
    }

    fn device(&self) -> &'static str {
        match self {
            Self::One(_) => "lo",
            Self::Two(_) => VethPair::DEVICE,
        }
    }
}

/// Measures one side of `case` for `measure`; `program` is the benchmark itself, which also plays the peers.
///
/// # Errors
/// When the namespaces cannot be made, or a peer fails or hangs.
pub fn take(program: &Path, case: &Case, side: StackKind, measure: Duration) -> io::Result<Sample> {
    let (ends, place) = case.side(side);
    let net = Net::new(place)?;
    let scratch = tempfile::tempdir()?;
    let stats = scratch.path().join("stats");
    let (client_cpu, server_cpu) = cores();
    let environment = |command: &mut Command| {
        command
            .env("FLEXTCP_INTERFACES", net.device())
            .env("FLEXTCP_FALLBACK", "deny")
            .env(STATS_FILE, &stats);
    };

    let congestion = |stack: StackKind| {
        let name = case.congestion.filter(|_| stack == StackKind::Kernel);
        name.into_iter().flat_map(|name| ["--congestion", name])
    };

    let listen = SocketAddr::new(net.server_ip(), 0);
    let serve = |stack: StackKind| -> io::Result<(Process, SocketAddr)> {
        let mut command = net.server().command(program);
        command
            .args(["peer", "serve", "--stack", stack.name()])
            .args(["--listen", &listen.to_string()])
            .args(["--cpu", &server_cpu.to_string()])
            .args(congestion(stack));
        environment(&mut command);
        let mut server = Process::spawn(command)?;
        let address = server.wait_listening(START)?;
        Ok((server, address))
    };
    let beside = if case.beside_ours && side == StackKind::Flex {
        Some(serve(StackKind::Flex)?.0)
    } else {
        None
    };
    let (server, address) = serve(ends.server)?;

    let mut command = net.client().command(program);
    command
        .args(["peer", "load", "--stack", ends.client.name()])
        .args(["--work", case.work.name(), "--server", &address.to_string()])
        .args(["--connections", &case.connections.to_string()])
        .args([
            "--millis",
            &measure.as_millis().to_string(),
            "--cpu",
            &client_cpu.to_string(),
        ])
        .args(congestion(ends.client));
    environment(&mut command);
    let client = Process::spawn(command)?.finish(measure * 3 + Duration::from_secs(30));
    let client = client.map_err(|error| {
        io::Error::new(
            error.kind(),
            format!("client: {error}\nserver: {}", server.stderr()),
        )
    })?;
    if !client.status.success() {
        return Err(io::Error::other(format!(
            "the client ended with {}: {}\nserver: {}",
            client.status,
            client.stderr,
            server.stderr()
        )));
    }
    let outcome: Outcome = serde_json::from_str(client.stdout.trim())?;
    for server in beside.into_iter().chain([server]) {
        server.finish(Duration::from_secs(10))?;
    }

    let reports = Stats::read_lines(&stats)?;
    let offloaded = (!reports.is_empty()).then(|| reports.iter().map(Stats::offloaded).sum());
    Ok(Sample { outcome, offloaded })
}

/// A core for the client and one for the server.
fn cores() -> (usize, usize) {
    let count = thread::available_parallelism().map_or(1, usize::from);
    (0, 1.min(count - 1))
}
