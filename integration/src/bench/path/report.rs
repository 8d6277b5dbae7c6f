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
    /// Each round's goodput over that of Linux to Linux in the same round, which met the same losses.
    pub ratios: Vec<f64>,
    /// Their median.
    pub ratio: f64,
    /// Mean of all rounds over the mean of Linux to Linux.
    pub mean_ratio: f64,
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
            .map_or_else(Vec::new, |(_, transfers)| goodput(transfers));
        let over = |of: f64, by: f64| of / by.max(f64::MIN_POSITIVE);
        let sides = pairs.iter().map(|(pair, transfers)| {
            let samples = goodput(transfers);
            let paired = samples.iter().zip(&baseline);
            let ratios: Vec<f64> = paired.map(|(&of, &by)| over(of, by)).collect();
            Side {
                pair: *pair,
                median: median(samples.clone()),
                ratio: median(ratios.clone()),
                ratios,
                mean_ratio: over(samples.iter().sum(), baseline.iter().sum()),
                samples,
                offloaded: transfers.iter().map(|transfer| transfer.offloaded).sum(),
            }
        });
        Self {
            name,
            sides: sides.collect(),
        }
    }
}

/// Half of the values lie between these.
fn quartiles(values: &[f64]) -> (f64, f64) {
    let mut values = values.to_vec();
    values.sort_by(f64::total_cmp);
    let at = |part: usize| {
        let index = (values.len().saturating_sub(1) * part + 2) / 4;
        values.get(index).copied().unwrap_or(0.0)
    };
    (at(1), at(3))
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
        if let Some(first) = self.rows.first() {
            text += "\nGoodput, Mbit/s, median (least to most); median (quarter to three quarters) of each round's ratio to Linux at \
                     both ends with CUBIC, and the ratio of the means:\n\n| path |";
            for side in &first.sides {
                let _ = write!(text, " {} |", side.pair.name());
            }
            let _ = writeln!(text, "\n|---|{}", "---|".repeat(first.sides.len()));
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
                        let (low, high) = quartiles(&side.ratios);
                        let _ = write!(
                            text,
                            "; {:.2}× ({low:.2}–{high:.2}), {:.2}×{missed}",
                            side.ratio, side.mean_ratio
                        );
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
            (
                Pair::Ours,
                vec![transfer(ours), transfer(ours / 50.0 * 70.0)],
            ),
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
    fn ours_is_compared_with_linux_of_the_same_round() {
        let met = report(50.0);
        assert_eq!(met.rows[0].sides[1].ratio, 1.0);
        assert!(met.all_met());
        assert!(
            met.table()
                .contains("60.0 (50.0–70.0); 1.00× (1.00–1.00), 1.00× |")
        );
        let missed = report(49.0);
        assert!(!missed.all_met());
        assert!(missed.table().contains("0.98× MISSED |"));
    }

    #[test]
    fn quartiles_leave_half_between_them() {
        assert_eq!(quartiles(&[]), (0.0, 0.0));
        assert_eq!(quartiles(&[2.0]), (2.0, 2.0));
        assert_eq!(quartiles(&[5.0, 1.0, 4.0, 2.0, 3.0]), (2.0, 4.0));
    }

    #[test]
    fn a_share_is_judged_at_both_ends() {
        let met = |share| Check::share("shared".to_owned(), vec![share]).met;
        assert!(met(0.35) && met(0.65));
        assert!(!met(0.34) && !met(0.66));
    }
}
