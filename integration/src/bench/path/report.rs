//! The results: tables and JSON.

use std::fmt::Write as _;

use serde::Serialize;

use super::run::Transfer;
use super::{BBR_FILL, CAPACITY, DCTCP_QUEUE, DCTCP_UTILISATION, GOODPUT, Pair, SHARE};
use crate::bench::report::median;

/// What one pair did in one cell.
#[derive(Debug, Clone, Serialize)]
pub struct Side {
    /// Whose TCP.
    pub pair: Pair,
    /// Goodput of each round, Mbit/s.
    pub samples: Vec<f64>,
    /// Their median.
    pub median: f64,
    /// Median over the median of Linux to Linux.
    pub ratio: f64,
    /// How often connections were handed to the NIC, all rounds.
    pub offloaded: u64,
}

/// One path of the table.
#[derive(Debug, Clone, Serialize)]
pub struct Row {
    /// The path.
    pub name: String,
    /// All pairs, Linux to Linux first.
    pub sides: Vec<Side>,
}

impl Row {
    /// Reduces what the pairs did, round by round.
    pub fn new(name: String, pairs: &[(Pair, Vec<Transfer>)]) -> Self {
        let goodput = |transfers: &[Transfer]| -> Vec<f64> {
            transfers.iter().map(|transfer| transfer.goodput).collect()
        };
        let baseline = pairs
            .iter()
            .find(|(pair, _)| *pair == Pair::Linux)
            .map_or(0.0, |(_, transfers)| median(goodput(transfers)));
        let sides = pairs.iter().map(|(pair, transfers)| {
            let samples = goodput(transfers);
            let median = median(samples.clone());
            Side {
                pair: *pair,
                samples,
                median,
                ratio: median / baseline.max(f64::MIN_POSITIVE),
                offloaded: transfers.iter().map(|transfer| transfer.offloaded).sum(),
            }
        });
        Self {
            name,
            sides: sides.collect(),
        }
    }
}

/// A check of something else than goodput.
#[derive(Debug, Clone, Serialize)]
pub struct Check {
    /// What was measured.
    pub name: String,
    /// The number of each round.
    pub samples: Vec<f64>,
    /// Their median.
    pub median: f64,
    /// What it should be.
    pub target: String,
    /// Whether it is.
    pub met: bool,
}

impl Check {
    fn new(name: String, samples: Vec<f64>, target: String, met: impl Fn(f64) -> bool) -> Self {
        let median = median(samples.clone());
        Self {
            name,
            samples,
            median,
            target,
            met: met(median),
        }
    }

    /// The part of the bottleneck that ours got.
    pub fn share(name: String, samples: Vec<f64>) -> Self {
        let target = format!("{:.2} to {:.2}", SHARE.start(), SHARE.end());
        Self::new(name, samples, target, |share| SHARE.contains(&share))
    }

    /// The median of the queue in terms of the threshold.
    pub fn queue(name: String, samples: Vec<f64>) -> Self {
        let target = format!("{:.2} to {:.2}", DCTCP_QUEUE.start(), DCTCP_QUEUE.end());
        Self::new(name, samples, target, |queue| DCTCP_QUEUE.contains(&queue))
    }

    /// The part of the time in which the link was busy.
    pub fn utilisation(name: String, samples: Vec<f64>) -> Self {
        let target = DCTCP_UTILISATION;
        Self::new(name, samples, target.to_string(), |part| target.met(part))
    }

    /// The part of the capacity that was filled.
    pub fn fill(name: String, samples: Vec<f64>) -> Self {
        let target = BBR_FILL;
        Self::new(name, samples, target.to_string(), |part| target.met(part))
    }
}

/// What a run found.
#[derive(Debug, Clone, Serialize)]
pub struct Report {
    /// Rounds of each pair.
    pub rounds: usize,
    /// Kernel release.
    pub kernel: String,
    /// Cores.
    pub cores: usize,
    /// Goodput.
    pub rows: Vec<Row>,
    /// The other checks.
    pub checks: Vec<Check>,
}

impl Report {
    /// The tables, as Markdown.
    pub fn table(&self) -> String {
        let mut text = format!(
            "path: 100 Mbit/s ({CAPACITY:.1} of payload), {} rounds, interleaved; Linux {}, {} cores\n",
            self.rounds, self.kernel, self.cores
        );
        // Writing to a String cannot fail.
        if !self.rows.is_empty() {
            text += "\nGoodput, Mbit/s, median (least to most), and its ratio to Linux at both ends with CUBIC:\n\n| path |";
            for pair in Pair::ALL {
                let _ = write!(text, " {} |", pair.name());
            }
            text += "\n|---|---|---|---|---|\n";
            for row in &self.rows {
                let _ = write!(text, "| {} |", row.name);
                for side in &row.sides {
                    let least = side.samples.iter().copied().fold(f64::INFINITY, f64::min);
                    let most = side.samples.iter().copied().fold(0.0, f64::max);
                    let _ = write!(text, " {:.1} ({least:.1}–{most:.1})", side.median);
                    if side.pair != Pair::Linux {
                        let missed = if GOODPUT.met(side.ratio) {
                            ""
                        } else {
                            " MISSED"
                        };
                        let _ = write!(text, " {:.2}×{missed}", side.ratio);
                    }
                    text += " |";
                }
                text.push('\n');
            }
        }
        if !self.checks.is_empty() {
            text += "\n| check | median (least to most) | target | verdict |\n|---|---|---|---|\n";
            for check in &self.checks {
                let least = check.samples.iter().copied().fold(f64::INFINITY, f64::min);
                let most = check.samples.iter().copied().fold(0.0, f64::max);
                let verdict = if check.met { "met" } else { "MISSED" };
                let _ = writeln!(
                    text,
                    "| {} | {:.2} ({least:.2}–{most:.2}) | {} | {verdict} |",
                    check.name, check.median, check.target
                );
            }
        }
        text
    }

    /// Whether every target is met.
    pub fn all_met(&self) -> bool {
        self.checks.iter().all(|check| check.met)
            && self.rows.iter().all(|row| {
                row.sides
                    .iter()
                    .all(|side| side.pair == Pair::Linux || GOODPUT.met(side.ratio))
            })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn transfer(goodput: f64) -> Transfer {
        Transfer {
            goodput,
            bytes: 1,
            seconds: 1.0,
            offloaded: 1,
            retransmitted: 0,
            timeouts: 0,
        }
    }

    fn report(ours: f64) -> Report {
        let pairs = [
            (Pair::Linux, vec![transfer(50.0), transfer(70.0)]),
            (Pair::Ours, vec![transfer(ours)]),
        ];
        Report {
            rounds: 1,
            kernel: String::new(),
            cores: 2,
            rows: vec![Row::new("20 ms, no loss".to_owned(), &pairs)],
            checks: Vec::new(),
        }
    }

    #[test]
    fn ours_is_compared_with_the_median_of_linux() {
        let met = report(60.0);
        assert_eq!(met.rows[0].sides[1].ratio, 1.0);
        assert!(met.all_met());
        assert!(met.table().contains("60.0 (60.0–60.0) 1.00× |"));
        let missed = report(59.0);
        assert!(!missed.all_met());
        assert!(missed.table().contains("0.98× MISSED |"));
    }

    #[test]
    fn a_share_is_judged_at_both_ends() {
        let met = |share| Check::share("shared".to_owned(), vec![share]).met;
        assert!(met(0.35) && met(0.65));
        assert!(!met(0.34) && !met(0.66));
    }
}
