//! The paths of the table in virtual time: our sender and receiver in the simulator, the same numbers on any machine.
//!
//! What they come to is kept in `docs/results/goodput.md`, so that a change of recovery or of congestion control shows
//! what it does in its diff; `tests/goodput.rs` compares.

use std::fmt::Write as _;
use std::path::PathBuf;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use flextcp_nic::port::impair::{ImpairConfig, Impairment};
use flextcp_rt::offload::OffloadPolicy;
use flextcp_rt::tcp::EngineConfig;

use super::{CAPACITY, Cell, cells};
use crate::sim::{
    AppPlan, ConnectionPlan, Ending, Failure, HostPlan, LinkClass, Report, Scenario, run,
    run_recorded,
};

/// How to write the table anew.
pub const REFRESH: &str = "cargo run -p integration --bin bench -- simulated";
/// Bytes of a transfer: at 100 Mbit/s some 70 or 14 round trips.
const BYTES: u64 = 16 << 20;
const SEEDS: u64 = 3;

/// A column: congestion control, and who carries the connection.
#[derive(Debug, Clone, Copy)]
struct Column {
    name: &'static str,
    congestion: &'static str,
    offload: OffloadPolicy,
}

const COLUMNS: [Column; 4] = [
    Column {
        name: "CUBIC",
        congestion: "cubic",
        offload: OffloadPolicy::Always,
    },
    Column {
        name: "CUBIC, never on the NIC",
        congestion: "cubic",
        offload: OffloadPolicy::Never,
    },
    Column {
        name: "Reno",
        congestion: "reno",
        offload: OffloadPolicy::Always,
    },
    Column {
        name: "BBR",
        congestion: "bbr",
        offload: OffloadPolicy::Always,
    },
];

/// What a transfer came to.
#[derive(Debug, Clone, Copy)]
pub struct Transfer {
    /// Mbit/s.
    pub goodput: f64,
    /// Segments sent again.
    pub retransmitted: u64,
    /// Timeouts.
    pub timeouts: u64,
}

/// Where the table is kept.
pub fn file() -> PathBuf {
    PathBuf::from(concat!(
        env!("CARGO_MANIFEST_DIR"),
        "/../docs/results/goodput.md"
    ))
}

fn host(path: ImpairConfig, column: Column) -> HostPlan {
    HostPlan {
        class: LinkClass::Wan,
        up: path.tx,
        down: path.rx,
        mtu: 1_500,
        path_mtu: 1_500,
        silent: false,
        segmentation: None,
        tick: Duration::from_nanos(1),
        epoch: Duration::from_secs(1_000),
        engine: EngineConfig {
            offload: column.offload,
            congestion: column.congestion,
            // Never in the way: what is compared is recovery and congestion control.
            send_buffer_initial: 4 << 20,
            send_buffer_max: 4 << 20,
            ..EngineConfig::default()
        },
        memory: 1 << 30,
        backlog: 4,
        accept_pause: Duration::ZERO,
    }
}

/// A transfer from the second host to the first, whose own link is a wire.
fn scenario(cell: Cell, column: Column, seed: u64) -> Scenario {
    let wire = ImpairConfig {
        tx: Impairment::default(),
        rx: Impairment::default(),
        seed,
    };
    Scenario {
        seed,
        hosts: vec![host(wire, column), host(cell.config(seed), column)],
        events: Vec::new(),
        connections: vec![ConnectionPlan {
            at: Duration::ZERO,
            client: 1,
            server: 0,
            v6: false,
            simultaneous: false,
            client_app: AppPlan::bulk(BYTES, Ending::Shutdown),
            server_app: AppPlan::bulk(0, Ending::Last),
        }],
        may_time_out: false,
        may_lose_orphans: false,
        limit: Duration::from_secs(3_600),
    }
}

fn measure(cell: Cell, column: Column, seed: u64) -> Result<Transfer, Failure> {
    let report: Report = run(&scenario(cell, column, seed))?;
    let took = report.outcomes[0].server.done_at.unwrap_or(report.ended);
    Ok(Transfer {
        goodput: mbit(BYTES, took),
        retransmitted: report.retransmitted,
        timeouts: report.timeouts,
    })
}

fn mbit(bytes: u64, took: Duration) -> f64 {
    bytes as f64 * 8.0 / took.as_secs_f64() / 1e6
}

/// A transfer of the table's last column.
///
/// # Errors
/// What does not hold in the scenario.
pub fn bbr(cell: Cell, seed: u64) -> Result<Transfer, Failure> {
    measure(cell, COLUMNS[3], seed)
}

/// BBR's `flows` over one bottleneck with this `queue` in bytes, `bytes` each: the goodput of each, and in all of them what was
/// sent again.
///
/// # Errors
/// What does not hold in the scenario.
pub fn bbr_beside_itself(
    cell: Cell,
    queue: u64,
    flows: usize,
    bytes: u64,
    seed: u64,
) -> Result<Vec<Transfer>, Failure> {
    let mut scenario = scenario(cell, COLUMNS[3], seed);
    scenario.hosts[1].up.queue_bytes = Some(queue);
    let plan = &mut scenario.connections[0];
    plan.client_app = AppPlan::bulk(bytes, Ending::Shutdown);
    scenario.connections = vec![plan.clone(); flows];
    let report = run(&scenario)?;
    Ok(report
        .outcomes
        .iter()
        .map(|outcome| Transfer {
            goodput: mbit(bytes, outcome.server.done_at.unwrap_or(report.ended)),
            retransmitted: report.retransmitted,
            timeouts: report.timeouts,
        })
        .collect())
}

/// Plays all of it, on two threads, and returns the table as Markdown.
///
/// # Errors
/// What does not hold in a scenario.
pub fn table(only: &str) -> Result<String, Failure> {
    let cells: Vec<Cell> = cells(false)
        .into_iter()
        .filter(|cell| cell.to_string().contains(only))
        .collect();
    let jobs: Vec<(Cell, Column, u64)> = cells
        .iter()
        .flat_map(|&cell| COLUMNS.map(|column| (cell, column)))
        .flat_map(|(cell, column)| (1..=SEEDS).map(move |seed| (cell, column, seed)))
        .collect();
    let next = AtomicUsize::new(0);
    let done = Mutex::new(vec![None; jobs.len()]);
    std::thread::scope(|scope| {
        for _ in 0..2 {
            scope.spawn(|| {
                loop {
                    let index = next.fetch_add(1, Ordering::Relaxed);
                    let Some(&(cell, column, seed)) = jobs.get(index) else {
                        break;
                    };
                    let result = measure(cell, column, seed);
                    done.lock().unwrap_or_else(PoisonError::into_inner)[index] = Some(result);
                }
            });
        }
    });
    let done = done.into_inner().unwrap_or_else(PoisonError::into_inner);
    let results = done
        .into_iter()
        .flatten()
        .collect::<Result<Vec<Transfer>, _>>()?;
    Ok(render(&cells, &results))
}

/// The sender's window over time, of the first seed of each path and column whose names contain `only`, as CSV.
///
/// # Errors
/// What does not hold in a scenario.
pub fn windows(only: &str) -> Result<String, Failure> {
    let mut text = String::from(
        "run,seconds,cwnd,ssthresh,in_flight,srtt_us,pacing_rate,retransmitted,offloaded\n",
    );
    for cell in cells(false) {
        for column in COLUMNS {
            let name = format!("{cell}; {}", column.name).replace(',', "");
            if !name.contains(only) {
                continue;
            }
            let (result, recording) = run_recorded(&scenario(cell, column, 1), None);
            result?;
            for sample in recording.samples.iter().filter(|sample| !sample.server) {
                let info = &sample.info;
                let _ = writeln!(
                    text,
                    "{name},{:.6},{},{},{},{},{},{},{}",
                    sample.at.as_secs_f64(),
                    info.snd_cwnd,
                    info.snd_ssthresh,
                    info.unacked - info.sacked - info.lost,
                    info.rtt.as_micros(),
                    info.pacing_rate,
                    info.total_retrans,
                    u8::from(info.offloaded),
                );
            }
        }
    }
    Ok(text)
}

fn render(cells: &[Cell], results: &[Transfer]) -> String {
    let mut text = format!(
        "# Goodput in the simulator\n\n\
         Ours at both ends, in virtual time: the same on any machine. 100 Mbit/s ({CAPACITY:.1} of payload), a queue of one\n\
         bandwidth-delay product, trouble both ways; {} MiB in one transfer, slow start included; Mbit/s, median (least to most)\n\
         of {SEEDS} seeds, then segments sent again and timeouts of all {SEEDS}. Written by `{REFRESH}`;\n\
         `integration/tests/goodput.rs` fails when it is not what the code does.\n\n| path |",
        BYTES >> 20,
    );
    // Writing to a String cannot fail.
    for column in COLUMNS {
        let _ = write!(text, " {} |", column.name);
    }
    text += "\n|---|---|---|---|---|\n";
    let seeds = SEEDS as usize;
    for (cell, row) in cells.iter().zip(results.chunks(seeds * COLUMNS.len())) {
        let _ = write!(text, "| {cell} |");
        for of in row.chunks(seeds) {
            let mut goodput: Vec<f64> = of.iter().map(|result| result.goodput).collect();
            goodput.sort_by(f64::total_cmp);
            let again: u64 = of.iter().map(|result| result.retransmitted).sum();
            let timeouts: u64 = of.iter().map(|result| result.timeouts).sum();
            let _ = write!(
                text,
                " {:.1} ({:.1}–{:.1}); {again}, {timeouts} |",
                goodput[seeds / 2],
                goodput[0],
                goodput[seeds - 1],
            );
        }
        text.push('\n');
    }
    text
}
