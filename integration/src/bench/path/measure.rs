//! The rounds: who is measured when.

use std::collections::BTreeMap;
use std::io;
use std::path::Path as File;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use flextcp_nic::port::impair::ImpairConfig;

use super::report::{Check, Report, Row};
use super::run::{Flow, Run, Transfer, run};
use super::{CAPACITY, Cell, DCTCP_THRESHOLD, Pair, RATE, cells, dctcp, sharing};
use crate::stack::StackKind;

const SEED: u64 = 1;
/// What counts of a run, after it found its rate.
const SETTLED_MS: usize = 1000;

/// A run of the benchmark.
#[derive(Debug, Clone, Copy)]
pub struct Bench<'a> {
    /// The benchmark itself, which plays the peers.
    pub program: &'a File,
    /// Rounds of each pair.
    pub rounds: usize,
    /// Few paths, short transfers: shows that it works.
    pub quick: bool,
    /// Only what has this in its name.
    pub only: &'a str,
    /// Rounds at once, on paths of their own.
    pub jobs: usize,
    /// Who is measured, beside Linux to Linux; all without any.
    pub pairs: &'a [Pair],
}

impl Bench<'_> {
    /// Measures all of it.
    ///
    /// # Errors
    /// When the namespaces cannot be made, or a peer fails or hangs.
    pub fn run(&self) -> io::Result<Report> {
        let mut rows = Vec::new();
        for cell in cells(self.quick) {
            if cell.to_string().contains(self.only) {
                rows.push(self.cell(cell)?);
            }
        }
        let mut checks = Vec::new();
        if "sharing".contains(self.only) {
            checks.push(self.sharing("ours", StackKind::Flex, true)?);
        }
        if "phase".contains(self.only) {
            checks.push(self.sharing("ours", StackKind::Flex, false)?);
        }
        if "baseline".contains(self.only) {
            checks.push(self.sharing("one Linux CUBIC flow", StackKind::Kernel, true)?);
        }
        if "dctcp".contains(self.only) {
            checks.extend(self.dctcp()?);
        }
        if "bbr".contains(self.only) {
            checks.extend(self.bbr()?);
        }
        Ok(Report {
            rounds: self.rounds,
            kernel: rustix::system::uname()
                .release()
                .to_string_lossy()
                .into_owned(),
            cores: std::thread::available_parallelism()?.get(),
            rows,
            checks,
        })
    }

    fn measure(
        &self,
        name: &str,
        config: &ImpairConfig,
        flows: &[Flow],
        length: Duration,
    ) -> io::Result<Run> {
        let run = run(self.program, config, flows, length)
            .map_err(|error| io::Error::new(error.kind(), format!("{name}: {error}")))?;
        let goodput: Vec<String> = run
            .transfers
            .iter()
            .map(|transfer| match transfer.offloaded {
                0 => format!("{:.1}", transfer.goodput),
                installs => format!(
                    "{:.1} ({} sent again, {} timeouts, {installs} installs)",
                    transfer.goodput, transfer.retransmitted, transfer.timeouts
                ),
            })
            .collect();
        eprintln!(
            "{name}: {} Mbit/s; late p99 {:.0} µs",
            goodput.join(" and "),
            run.records.to_b.late.p99
        );
        Ok(run)
    }

    /// Plays rounds, some at once, and returns what came of them in their order.
    fn rounds<T: Send>(&self, play: impl Fn(usize) -> io::Result<T> + Sync) -> io::Result<Vec<T>> {
        let next = AtomicUsize::new(0);
        let done = Mutex::new(BTreeMap::new());
        std::thread::scope(|scope| {
            for _ in 0..self.jobs.clamp(1, self.rounds.max(1)) {
                scope.spawn(|| {
                    loop {
                        let round = next.fetch_add(1, Ordering::Relaxed);
                        if round >= self.rounds {
                            break;
                        }
                        let result = play(round);
                        let mut done = done.lock().unwrap_or_else(PoisonError::into_inner);
                        done.insert(round, result);
                    }
                });
            }
        });
        let done = done.into_inner().unwrap_or_else(PoisonError::into_inner);
        done.into_values().collect()
    }

    fn pairs(&self) -> Vec<Pair> {
        let measured = |pair: &Pair| {
            *pair == Pair::Linux || self.pairs.is_empty() || self.pairs.contains(pair)
        };
        Pair::ALL.into_iter().filter(measured).collect()
    }

    fn cell(&self, cell: Cell) -> io::Result<Row> {
        let of_round = self.pairs();
        let rounds = self.rounds(|round| {
            let config = cell.config(SEED + round as u64);
            let mut transfers = Vec::new();
            for turn in 0..of_round.len() {
                // The order changes from round to round, so that a drift of the machine favours none.
                let pair = of_round[(turn + round) % of_round.len()];
                let (sender, receiver) = pair.stacks();
                let flow = Flow {
                    sender,
                    receiver,
                    congestion: "cubic",
                };
                let name = format!("{cell}, round {}, {}", round + 1, pair.name());
                let run = self.measure(&name, &config, &[flow], cell.length(self.quick))?;
                transfers.extend(run.transfers.into_iter().map(|transfer| (pair, transfer)));
            }
            Ok(transfers)
        })?;
        let mut pairs: Vec<_> = of_round
            .iter()
            .map(|&pair| (pair, Vec::<Transfer>::new()))
            .collect();
        for (pair, transfer) in rounds.into_iter().flatten() {
            let of = pairs.iter_mut().filter(|(other, _)| *other == pair);
            of.for_each(|(_, transfers)| transfers.push(transfer.clone()));
        }
        Ok(Row::new(cell.to_string(), &pairs))
    }

    /// What a flow of `stack` gets beside one of Linux.
    fn sharing(&self, whose: &str, stack: StackKind, jitter: bool) -> io::Result<Check> {
        let length = Duration::from_secs(if self.quick { 5 } else { 60 });
        // One at a time: with more paths than cores our process waits for one and sends in bursts, while the kernel's timers
        // and interrupts do not.
        let alone = Self { jobs: 1, ..*self };
        let shares = alone.rounds(|round| {
            let mut flows = [stack, StackKind::Kernel].map(|stack| Flow {
                sender: stack,
                receiver: stack,
                congestion: "cubic",
            });
            // Who comes first finds an empty queue.
            let its = round % 2;
            if its == 1 {
                flows.reverse();
            }
            let config = sharing(jitter, SEED + round as u64);
            let run = self.measure("sharing", &config, &flows, length)?;
            let of = |flow: usize| run.transfers[flow].goodput;
            Ok(of(its) / (of(0) + of(1)).max(f64::MIN_POSITIVE))
        })?;
        let name = format!(
            "share of {whose} beside one Linux CUBIC flow, 20 ms, {} s{}",
            length.as_secs(),
            if jitter { "" } else { ", without jitter" },
        );
        Ok(Check::share(name, shares))
    }

    fn dctcp(&self) -> io::Result<[Check; 2]> {
        let length = Duration::from_secs(if self.quick { 3 } else { 10 });
        let threshold = DCTCP_THRESHOLD as f64;
        let (mut queues, mut busy) = (Vec::new(), Vec::new());
        for round in 0..self.rounds {
            let flow = Flow {
                sender: StackKind::Flex,
                receiver: StackKind::Flex,
                congestion: "dctcp",
            };
            let config = dctcp(SEED + round as u64);
            let run = self.measure("dctcp", &config, &[flow], length)?;
            let end = usize::try_from(length.as_millis()).unwrap_or(usize::MAX);
            let mut settled: Vec<u32> = run
                .queue
                .iter()
                .copied()
                .skip(SETTLED_MS)
                .take(end - SETTLED_MS)
                .collect();
            settled.sort_unstable();
            let median = settled.get(settled.len() / 2).copied().unwrap_or(0);
            queues.push(f64::from(median) / threshold);
            // From the first to the last frame, whatever the transfer's own rate.
            let transfer = &run.transfers[0];
            let bytes = run.records.to_b.counters.delivered_bytes as f64;
            busy.push(bytes * 8.0 / transfer.seconds / RATE as f64);
        }
        Ok([
            Check::queue(
                format!("DCTCP, median queue in thresholds of {DCTCP_THRESHOLD} packets, 2 ms"),
                queues,
            ),
            Check::utilisation("DCTCP, part of the rate in use, 2 ms".to_owned(), busy),
        ])
    }

    fn bbr(&self) -> io::Result<Vec<Check>> {
        let mut checks = Vec::new();
        for rtt in [20, 100] {
            let cell = Cell {
                rtt,
                trouble: "loss=1%",
                name: "1 % loss",
            };
            let mut fills = Vec::new();
            for round in 0..self.rounds {
                let flow = Flow {
                    sender: StackKind::Flex,
                    receiver: StackKind::Flex,
                    congestion: "bbr",
                };
                let config = cell.config(SEED + round as u64);
                // Long enough for its start not to decide.
                let length = cell.length(self.quick) * 2;
                let run = self.measure(&format!("bbr, {cell}"), &config, &[flow], length)?;
                fills.push(run.transfers[0].goodput / CAPACITY);
            }
            checks.push(Check::fill(
                format!("BBR, part of the capacity, {cell}"),
                fills,
            ));
        }
        Ok(checks)
    }
}
