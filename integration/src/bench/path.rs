//! Ours beside Linux CUBIC on the same bad path: goodput under loss and reordering, sharing a bottleneck, ECN, BBR.
//!
//! Every sample has a path of its own. The samples of one round have one seed, so that all pairs of a round meet the
//! same losses as long as they send the same; pairs take turns from round to round.

mod measure;
pub mod plot;
pub mod report;
pub mod run;
pub mod simulated;

use std::fmt;
use std::time::Duration;

pub use measure::Bench;

use flextcp_nic::port::impair::{ImpairConfig, Impairment};
use serde::Serialize;

use super::Target;
use crate::stack::StackKind;

/// Rate of every path's link, bits per second.
pub const RATE: u64 = 100_000_000;
/// A full segment on the wire: MTU 1500 and the Ethernet header.
const FRAME: f64 = 1514.0;
/// Its payload, with timestamps.
const PAYLOAD: f64 = 1448.0;

/// The payload that [`RATE`] carries when nothing is sent twice, Mbit/s.
pub const CAPACITY: f64 = RATE as f64 / 1e6 * PAYLOAD / FRAME;

/// Whose TCP sends and whose receives.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Pair {
    /// Linux at both ends: what the others are compared with.
    Linux,
    /// Ours at both ends.
    Ours,
    /// Ours sends, Linux receives.
    ToLinux,
    /// Linux sends, ours receives.
    FromLinux,
}

impl Pair {
    /// All of them, the baseline first.
    pub const ALL: [Self; 4] = [Self::Linux, Self::Ours, Self::ToLinux, Self::FromLinux];

    /// Its name in tables.
    pub fn name(self) -> &'static str {
        match self {
            Self::Linux => "Linux to Linux",
            Self::Ours => "ours to ours",
            Self::ToLinux => "ours to Linux",
            Self::FromLinux => "Linux to ours",
        }
    }

    /// Sender and receiver.
    pub fn stacks(self) -> (StackKind, StackKind) {
        use StackKind::{Flex, Kernel};
        match self {
            Self::Linux => (Kernel, Kernel),
            Self::Ours => (Flex, Flex),
            Self::ToLinux => (Flex, Kernel),
            Self::FromLinux => (Kernel, Flex),
        }
    }
}

/// A path that transfers are measured on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Cell {
    /// Round trip without queue, milliseconds.
    pub rtt: u64,
    /// What is wrong with it, both ways.
    pub trouble: &'static str,
    /// The same for people.
    pub name: &'static str,
}

const TROUBLES: [(&str, &str); 5] = [
    ("no loss", ""),
    ("0.1 % loss", "loss=0.1%"),
    ("1 % loss", "loss=1%"),
    ("3 % loss", "loss=3%"),
    ("5 % reordered", "reorder=5%,gap=1000,hold=2ms"),
];

/// The paths of the table: 100 Mbit/s, a queue of one bandwidth-delay product.
pub fn cells(quick: bool) -> Vec<Cell> {
    let rtts: &[u64] = if quick { &[20] } else { &[20, 100] };
    let mut cells = Vec::new();
    for &rtt in rtts {
        for (name, trouble) in TROUBLES {
            if !quick || matches!(name, "no loss" | "1 % loss" | "5 % reordered") {
                cells.push(Cell { rtt, trouble, name });
            }
        }
    }
    cells
}

fn both_ways(impairment: Impairment, seed: u64) -> ImpairConfig {
    ImpairConfig {
        tx: impairment.clone(),
        rx: impairment,
        seed,
    }
}

impl Cell {
    /// The path.
    ///
    /// # Panics
    /// Never: the troubles above are well-formed, which a test sees to.
    pub fn config(&self, seed: u64) -> ImpairConfig {
        let trouble: ImpairConfig = self.trouble.parse().expect("a trouble of the table");
        both_ways(
            Impairment {
                delay: Duration::from_millis(self.rtt) / 2,
                rate: Some(RATE),
                queue: usize::MAX,
                queue_bytes: Some(RATE / 8 * self.rtt / 1000),
                ..trouble.tx
            },
            seed,
        )
    }

    /// How long a transfer has to last: slow start and some recoveries must not decide.
    pub fn length(&self, quick: bool) -> Duration {
        match (quick, self.rtt) {
            (true, _) => Duration::from_secs(2),
            (false, ..=50) => Duration::from_secs(5),
            (false, _) => Duration::from_secs(10),
        }
    }
}

impl fmt::Display for Cell {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} ms, {}", self.rtt, self.name)
    }
}

/// What each pair's goodput has to be, in terms of the baseline's.
pub const GOODPUT: Target = Target::AtLeast(1.0);
/// The part of a bottleneck that one of ours beside one of Linux's may take.
pub const SHARE: std::ops::RangeInclusive<f64> = 0.35..=0.65;
/// The part of the link's time in which DCTCP has to keep it busy.
pub const DCTCP_UTILISATION: Target = Target::AtLeast(0.95);
/// Where DCTCP has to keep the median of the queue, in terms of the marking threshold.
pub const DCTCP_QUEUE: std::ops::RangeInclusive<f64> = 0.25..=1.5;
/// The part of the capacity that BBR has to fill at 1 % loss.
pub const BBR_FILL: Target = Target::AtLeast(0.9);

/// The path on which two flows share a bottleneck. Without jitter a drop-tail queue that sends a packet every 121 µs lets
/// the phase of two ACK clocks decide who loses, all the time the same: whoever's segments come 100 µs later finds a place free.
/// What other traffic does to real queues, a random delay of up to one packet's time does here (Floyd and Jacobson, On Traffic
/// Phase Effects in Packet-Switched Gateways).
pub fn sharing(jitter: bool, seed: u64) -> ImpairConfig {
    let mut config = Cell {
        rtt: 20,
        trouble: "",
        name: "",
    }
    .config(seed);
    if jitter {
        let packet = Duration::from_secs_f64(FRAME * 8.0 / RATE as f64);
        config.tx.jitter = packet;
        config.rx.jitter = packet;
    }
    config
}

/// Packets from which on the path for DCTCP marks: a bandwidth-delay product (RFC 8257, section 4.1, wants a seventh
/// of one at least).
pub const DCTCP_THRESHOLD: usize = 20;

/// A short path that marks.
pub fn dctcp(seed: u64) -> ImpairConfig {
    both_ways(
        Impairment {
            delay: Duration::from_millis(1),
            rate: Some(RATE),
            ecn: Some(DCTCP_THRESHOLD),
            ..Impairment::default()
        },
        seed,
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_cell_has_a_path_with_a_queue_of_its_product() {
        for cell in cells(false) {
            let config = cell.config(1);
            assert_eq!(config.tx.delay * 2, Duration::from_millis(cell.rtt));
            assert_eq!(config.rx.queue_bytes, Some(12_500 * cell.rtt));
        }
        assert_eq!(cells(false).len(), 10);
        assert!(cells(true).iter().all(|cell| cells(false).contains(cell)));
    }
}
