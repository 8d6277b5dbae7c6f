//! Medians, spread, ratios and verdicts: the table and the JSON.

use std::fmt::Write as _;

use serde::Serialize;

use super::sample::Sample;
use super::{Case, Suite, Target};
use crate::stack::StackKind;

/// The samples of one side of a case, reduced.
#[derive(Debug, Clone, Serialize)]
pub struct Side {
    /// The compared number of each round, in order.
    pub samples: Vec<f64>,
    /// Their median.
    pub median: f64,
    /// The smallest.
    pub min: f64,
    /// The largest.
    pub max: f64,
    /// Median of the rounds' median request times, µs; 0 for throughput.
    pub p50: f64,
    /// Median of the rounds' 99th percentiles, µs.
    pub p99: f64,
    /// Median of the rounds' 99.9th percentiles, µs.
    pub p999: f64,
}

impl Side {
    fn new(case: &Case, samples: &[Sample]) -> Self {
        let of = |number: fn(&Sample) -> f64| median(samples.iter().map(number).collect());
        let values: Vec<f64> = samples
            .iter()
            .map(|sample| case.metric.of(&sample.outcome))
            .collect();
        Self {
            median: median(values.clone()),
            min: values.iter().copied().fold(f64::INFINITY, f64::min),
            max: values.iter().copied().fold(0.0, f64::max),
            p50: of(|sample| sample.outcome.p50),
            p99: of(|sample| sample.outcome.p99),
            p999: of(|sample| sample.outcome.p999),
            samples: values,
        }
    }
}

/// Whether a case meets its target.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Verdict {
    /// It does.
    Met,
    /// It does not.
    Missed,
    /// No connection was carried by the NIC: the number says nothing about it.
    NotOffloaded,
    /// There is no target.
    None,
}

impl Verdict {
    fn text(self) -> &'static str {
        match self {
            Self::Met => "met",
            Self::Missed => "MISSED",
            Self::NotOffloaded => "NOT OFFLOADED",
            Self::None => "",
        }
    }
}

/// The result of a case.
#[derive(Debug, Clone, Serialize)]
pub struct Row {
    /// The case's name.
    pub name: &'static str,
    /// Unit of the compared number.
    pub unit: &'static str,
    /// Connections at once.
    pub connections: usize,
    /// Ours.
    pub ours: Side,
    /// The kernel's.
    pub kernel: Side,
    /// Median of ours over median of the kernel's.
    pub ratio: f64,
    /// What the ratio should be.
    pub target: Option<Target>,
    /// Whether it is.
    pub verdict: Verdict,
    /// How often connections were handed to the NIC, all rounds.
    pub offloaded: u64,
}

impl Row {
    /// Reduces the samples of a case.
    pub fn new(case: &Case, ours: &[Sample], kernel: &[Sample]) -> Self {
        let offloaded: u64 = ours.iter().filter_map(|sample| sample.offloaded).sum();
        let (ours, kernel) = (Side::new(case, ours), Side::new(case, kernel));
        let ratio = ours.median / kernel.median.max(f64::MIN_POSITIVE);
        let verdict = match case.target {
            _ if offloaded == 0 && !case.beside_ours => Verdict::NotOffloaded,
            None => Verdict::None,
            Some(target) if target.met(ratio) => Verdict::Met,
            Some(_) => Verdict::Missed,
        };
        Self {
            name: case.name,
            unit: case.metric.unit(),
            connections: case.connections,
            ours,
            kernel,
            ratio,
            target: case.target,
            verdict,
            offloaded,
        }
    }
}

/// What a run of the benchmark found.
#[derive(Debug, Clone, Serialize)]
pub struct Report {
    /// What was measured.
    pub suite: Suite,
    /// Rounds of each side.
    pub rounds: usize,
    /// Length of one measurement, milliseconds.
    pub millis: u64,
    /// Kernel release.
    pub kernel: String,
    /// Cores.
    pub cores: usize,
    /// The cases.
    pub rows: Vec<Row>,
}

impl Report {
    /// The table, as Markdown.
    pub fn table(&self) -> String {
        let mut text = format!(
            "{}: {} rounds of {} ms, interleaved; Linux {}, {} cores\n\n\
             | case | ours | kernel | unit | ratio | target | verdict |\n\
             |---|---|---|---|---|---|---|\n",
            self.suite.name(),
            self.rounds,
            self.millis,
            self.kernel,
            self.cores
        );
        for row in &self.rows {
            let target = row
                .target
                .map(|target| target.to_string())
                .unwrap_or_default();
            // Writing to a String cannot fail.
            let _ = writeln!(
                text,
                "| {} | {} | {} | {} | {:.2}× | {target} | {} |",
                row.name,
                spread(&row.ours),
                spread(&row.kernel),
                row.unit,
                row.ratio,
                row.verdict.text()
            );
        }
        if self.rows.iter().any(|row| row.ours.p50 > 0.0) {
            text.push_str(
                "\n| case | side | p50 µs | p99 µs | p99.9 µs |\n|---|---|---|---|---|\n",
            );
            for row in &self.rows {
                for (kind, side) in [
                    (StackKind::Flex, &row.ours),
                    (StackKind::Kernel, &row.kernel),
                ] {
                    let _ = writeln!(
                        text,
                        "| {} | {} | {:.1} | {:.1} | {:.1} |",
                        row.name,
                        kind.name(),
                        side.p50,
                        side.p99,
                        side.p999
                    );
                }
            }
        }
        text
    }

    /// Whether every case met its target.
    pub fn all_met(&self) -> bool {
        self.rows
            .iter()
            .all(|row| matches!(row.verdict, Verdict::Met | Verdict::None))
    }
}

fn spread(side: &Side) -> String {
    format!(
        "{} ({}–{})",
        number(side.median),
        number(side.min),
        number(side.max)
    )
}

/// Three significant digits, or whole.
fn number(value: f64) -> String {
    match value {
        value if value >= 100.0 => format!("{value:.0}"),
        value if value >= 10.0 => format!("{value:.1}"),
        value => format!("{value:.2}"),
    }
}

pub(super) fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    match values.len() {
        0 => 0.0,
        n if n % 2 == 1 => values[n / 2],
        n => f64::midpoint(values[n / 2 - 1], values[n / 2]),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::bench::cases;
    use crate::peer::Outcome;

    fn sample(p50: f64, offloaded: u64) -> Sample {
        let outcome = Outcome {
            requests: 1,
            seconds: 1.0,
            p50,
            ..Outcome::default()
        };
        Sample {
            outcome,
            offloaded: Some(offloaded),
        }
    }

    #[test]
    fn medians_of_odd_and_even_counts() {
        assert_eq!(median(vec![3.0, 1.0, 2.0]), 2.0);
        assert_eq!(median(vec![4.0, 1.0, 2.0, 3.0]), 2.5);
        assert_eq!(median(Vec::new()), 0.0);
    }

    #[test]
    fn a_round_trip_must_be_short_enough_and_offloaded() {
        let case = &cases(Suite::Rpc)[0];
        let kernel = [sample(100.0, 0)];
        let verdict = |ours| Row::new(case, &[ours], &kernel).verdict;
        assert_eq!(verdict(sample(30.0, 1)), Verdict::Met);
        assert_eq!(verdict(sample(40.0, 1)), Verdict::Missed);
        assert_eq!(verdict(sample(30.0, 0)), Verdict::NotOffloaded);
    }

    #[test]
    fn throughput_must_be_high_enough() {
        assert!(Target::AtLeast(1.3).met(1.3));
        assert!(!Target::AtLeast(1.3).met(1.29));
    }
}
