//! Transfers over a path: fresh namespaces, a server and a client process for each flow.

use std::io;
use std::net::SocketAddr;
use std::path::{Path as File, PathBuf};
use std::process::Command;
use std::time::Duration;

use flextcp_nic::port::impair::ImpairConfig;
use serde::Serialize;

use crate::netns::VethPair;
use crate::path::record::Records;
use crate::path::{Direction, Path};
use crate::peer::{CONNECTED, Outcome};
use crate::process::Process;
use crate::stack::StackKind;
use crate::stats::{STATS_FILE, Stats};

const START: Duration = Duration::from_secs(20);

/// Who sends to whom, under which congestion control.
#[derive(Debug, Clone, Copy)]
pub struct Flow {
    /// Whose TCP sends, from the first end.
    pub sender: StackKind,
    /// Whose TCP receives, at the second end.
    pub receiver: StackKind,
    /// Congestion control of the sender.
    pub congestion: &'static str,
}

/// A measured transfer.
#[derive(Debug, Clone, Serialize)]
pub struct Transfer {
    /// Payload that the receiver read, Mbit/s.
    pub goodput: f64,
    /// Its bytes.
    pub bytes: u64,
    /// From the receiver's request on an established connection to the last byte that it counts.
    pub seconds: f64,
    /// How often connections were handed to the NIC, by processes of our stack.
    pub offloaded: u64,
    /// Segments sent again, by processes of our stack.
    pub retransmitted: u64,
    /// Their retransmission timeouts.
    pub timeouts: u64,
}

/// What happened on a path.
#[derive(Debug, Clone)]
pub struct Run {
    /// The flows, in the order given.
    pub transfers: Vec<Transfer>,
    /// What the path did.
    pub records: Records,
    /// The bottleneck's queue, frames, every millisecond.
    pub queue: Vec<u32>,
}

/// Runs `flows` at once over a fresh path; `program` is the benchmark itself, which plays the peers. The receivers connect,
/// read for `length`, all of them at once, and reset: time ends a transfer, not the bytes that a sender wrote ahead, which take minutes on a bad
/// path.
///
/// # Errors
/// When the namespaces cannot be made, or a peer fails or hangs.
pub fn run(
    program: &File,
    config: &ImpairConfig,
    flows: &[Flow],
    length: Duration,
) -> io::Result<Run> {
    let path = Path::new("bench", config, 1500)?;
    let scratch = tempfile::tempdir()?;
    let stats: Vec<PathBuf> = (0..flows.len())
        .map(|flow| scratch.path().join(format!("stats-{flow}")))
        .collect();
    let environment = |command: &mut Command, stack: StackKind, flow: usize| {
        if stack == StackKind::Flex {
            command
                .env("FLEXTCP_INTERFACES", Path::DEVICE)
                .env("FLEXTCP_FALLBACK", "deny")
                .env("FLEXTCP_CONGESTION", flows[flow].congestion)
                .env(STATS_FILE, &stats[flow]);
        } else {
            command.args(["--congestion", flows[flow].congestion]);
        }
    };
    let mut servers = Vec::new();
    for (index, flow) in flows.iter().enumerate() {
        let mut command = path.a.command(program);
        let listen = SocketAddr::new(VethPair::A_V4, 0).to_string();
        command
            .args(["peer", "serve", "--stack", flow.sender.name()])
            .args(["--listen", &listen]);
        environment(&mut command, flow.sender, index);
        let mut server = Process::spawn(command)?;
        let address = server.wait_listening(START)?;
        servers.push((server, address));
    }
    let mut clients = Vec::new();
    for (index, (flow, (_, address))) in flows.iter().zip(&servers).enumerate() {
        let mut command = path.b.command(program);
        command
            .args(["peer", "load", "--stack", flow.receiver.name()])
            .args(["--work", "download", "--server", &address.to_string()])
            .args(["--millis", &length.as_millis().to_string(), "--wait"]);
        environment(&mut command, flow.receiver, index);
        let mut client = Process::spawn(command)?;
        client.wait_line(START, "the client to connect", |line| {
            (line.trim() == CONNECTED).then_some(())
        })?;
        clients.push(client);
    }
    for client in &mut clients {
        client.send_line("go")?;
    }
    let mut outcomes = Vec::new();
    for (client, (server, _)) in clients.into_iter().zip(&servers) {
        let client = client
            // A read may wait for some timeouts in a row.
            .finish(length * 3 + Duration::from_secs(60))
            .map_err(|error| {
                let (server, records) = (server.stderr(), path.emulator().records());
                io::Error::new(
                    error.kind(),
                    format!("client: {error}\nserver: {server}\n{records}"),
                )
            })?;
        if !client.status.success() {
            let text = format!(
                "the client ended with {}: {}\nserver: {}",
                client.status,
                client.stderr,
                server.stderr()
            );
            return Err(io::Error::other(text));
        }
        let outcome = client.stdout.lines().last().unwrap_or_default();
        outcomes.push(serde_json::from_str::<Outcome>(outcome)?);
    }
    let queue = path.emulator().queue(Direction::ToB);
    let records = path.emulator().records();
    for (server, _) in servers {
        server.finish(Duration::from_secs(10))?;
    }
    let sum = |reports: &[Stats], path: &str| reports.iter().map(|report| report.count(path)).sum();
    let mut transfers = Vec::new();
    for (outcome, stats) in outcomes.into_iter().zip(&stats) {
        let reports = Stats::read_lines(stats)?;
        transfers.push(Transfer {
            goodput: outcome.bytes as f64 * 8.0 / outcome.seconds.max(f64::MIN_POSITIVE) / 1e6,
            bytes: outcome.bytes,
            seconds: outcome.seconds,
            offloaded: reports.iter().map(Stats::offloaded).sum(),
            retransmitted: sum(&reports, "recovery.retransmitted"),
            timeouts: sum(&reports, "recovery.timeouts"),
        });
    }
    Ok(Run {
        transfers,
        records,
        queue,
    })
}
