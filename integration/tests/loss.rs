//! Bulk throughput over veth with one frame in a hundred lost, each way, ours at both ends, beside the same without loss. In
//! memory, where nothing but the processor counts, `flextcp-rt/tests/loss.rs` measures it.

use std::fs;
use std::io::Write as _;
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use integration::netns::require_privileges;
use integration::peer::Outcome;
use integration::places::{Family, Place};
use integration::process::{Process, serial};
use integration::stats::{STATS_FILE, Stats};

const LIMIT: Duration = Duration::from_secs(60);
const SEED: u64 = 1;
/// Rounds for one congestion control, of which the best counts: what others do meanwhile makes none better.
const ROUNDS: usize = 8;
const MILLIS: u64 = 200;
/// Part of the throughput without loss that is enough. Of 63 rounds of twice the length on a quiet machine the median kept 0.85 with CUBIC and
/// with BBR (of three runs of 21: 0.82 to 0.90, and 0.81 to 0.87), half of them 0.78 to 0.91; the aim is 0.85.
const LEAST: f64 = 0.65;
/// Part of a round's time in which somebody waited for a processor. Two processes have two of them; when others have them
/// too, what a round measures is how often the two are run at once.
const CROWDED: f64 = 0.3;

/// A link with a server at one end. What arrives at either end may be lost.
struct Link {
    place: Place,
    impair: Option<String>,
    server: Process,
    address: String,
}

impl Link {
    fn new(tag: &str, impair: Option<String>) -> Self {
        let place = Place::veth(tag).unwrap();
        let listen = SocketAddr::new(place.server_ip(Family::V4), 0).to_string();
        let mut command = place.server().command(env!("CARGO_BIN_EXE_bench"));
        command.args(["peer", "serve", "--stack", "flex", "--listen", &listen]);
        ours(&mut command, impair.as_deref());
        let mut server = Process::spawn(command).unwrap();
        let address = server.wait_listening(LIMIT).unwrap().to_string();
        Self {
            place,
            impair,
            server,
            address,
        }
    }

    /// Bytes a second from the client to the server, and what the client counted.
    fn upload(&self, congestion: &str) -> (f64, Stats) {
        let scratch = tempfile::tempdir().unwrap();
        let file = scratch.path().join("stats");
        let mut command = self.place.client().command(env!("CARGO_BIN_EXE_bench"));
        command
            .args(["peer", "load", "--stack", "flex", "--work", "upload"])
            .args(["--server", &self.address, "--congestion", congestion])
            .args(["--millis", &MILLIS.to_string()])
            .env(STATS_FILE, &file);
        ours(&mut command, self.impair.as_deref());
        let client = Process::spawn(command).unwrap().finish(LIMIT).unwrap();
        assert!(
            client.status.success(),
            "{}\nserver: {}",
            client.stderr,
            self.server.stderr()
        );
        let outcome: Outcome = serde_json::from_str(client.stdout.trim()).unwrap();
        let stats = Stats::read_lines(&file).unwrap().pop();
        (
            outcome.bytes as f64 / outcome.seconds,
            stats.expect("our process left statistics"),
        )
    }
}

fn ours(command: &mut std::process::Command, impair: Option<&str>) {
    command
        .env("FLEXTCP_INTERFACES", "veth0")
        .env("FLEXTCP_FALLBACK", "deny");
    if let Some(impair) = impair {
        command.env("FLEXTCP_IMPAIR", impair);
    }
}

/// Time in which a task of the machine waited for a processor; `None` where the kernel does not count it.
fn waited() -> Option<Duration> {
    let text = fs::read_to_string("/proc/pressure/cpu").ok()?;
    let micros = text.lines().next()?.split("total=").nth(1)?;
    micros.trim().parse().ok().map(Duration::from_micros)
}

/// Rounds with and without loss alternate, so that both see the same machine.
#[test]
fn one_per_cent_of_loss_leaves_bulk_over_veth_fast() {
    if !require_privileges("one_per_cent_of_loss_leaves_bulk_over_veth_fast") {
        return;
    }
    let _serial = serial();
    let clean = Link::new("clean", None);
    let lossy = Link::new("lossy", Some(format!("rx.loss=1%,seed={SEED}")));
    for congestion in ["cubic", "bbr"] {
        let (mut best, mut quiet, mut recovered) = (0.0, 0, 0);
        for _ in 0..ROUNDS {
            let (began, before) = (Instant::now(), waited());
            let (without, _) = clean.upload(congestion);
            let (with, stats) = lossy.upload(congestion);
            let crowded = before.zip(waited()).is_some_and(|(before, after)| {
                (after - before).as_secs_f64() > CROWDED * began.elapsed().as_secs_f64()
            });
            stats.assert_offloaded();
            let recoveries = stats.count("recovery.fast_recoveries");
            println!(
                "{congestion}: {:.1} of {:.1} Gbit/s, {:.2}, {recoveries} recoveries, {} timeouts{}",
                with * 8e-9,
                without * 8e-9,
                with / without,
                stats.count("recovery.timeouts"),
                if crowded {
                    "; others had the processors too"
                } else {
                    ""
                },
            );
            recovered += recoveries;
            if !crowded {
                quiet += 1;
                best = f64::max(best, with / without);
            }
            if best >= LEAST {
                break;
            }
        }
        // A round may spend itself on a SYN that was lost.
        assert!(recovered > 0, "nothing was lost");
        if quiet == 0 {
            // Not by `println!`, which shows nothing of a test that passes.
            let text =
                format!("{congestion}: NOT MEASURED, others had the processors in every round");
            writeln!(std::io::stderr(), "{text}").unwrap();
        } else {
            assert!(
                best >= LEAST,
                "{congestion}: {best:.2} in the best of {quiet} rounds"
            );
        }
    }
}
