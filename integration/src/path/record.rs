//! What happened on a path, and how exact it was.

use std::fmt;

use serde::Serialize;

/// What was done to the frames of one direction; counters only grow.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
pub struct Counters {
    /// Frames that came in.
    pub frames: u64,
    /// Frames lost by chance, alone or in a burst.
    pub lost: u64,
    /// Frames dropped because the queue was full.
    pub overflowed: u64,
    /// Packets marked congestion experienced.
    pub marked: u64,
    /// Frames held back.
    pub reordered: u64,
    /// Frames that came twice.
    pub duplicated: u64,
    /// Frames with a flipped bit.
    pub corrupted: u64,
    /// Frames that came out, copies too.
    pub delivered: u64,
    /// Their bytes.
    pub delivered_bytes: u64,
    /// Frames longer than the link's MTU, dropped: segmentation offload was left on.
    pub oversized: u64,
}

/// How long the queue was, sampled once a millisecond, frames.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize)]
pub struct QueueLength {
    /// Mean.
    pub mean: f64,
    /// Median.
    pub p50: u64,
    /// 95th percentile.
    pub p95: u64,
    /// Longest.
    pub max: u64,
}

impl QueueLength {
    /// Reduces samples.
    pub fn of(mut samples: Vec<u32>) -> Self {
        samples.sort_unstable();
        let Some(&max) = samples.last() else {
            return Self::default();
        };
        let sum: u64 = samples.iter().copied().map(u64::from).sum();
        let at = |percent: usize| u64::from(samples[(samples.len() - 1) * percent / 100]);
        Self {
            mean: sum as f64 / samples.len() as f64,
            p50: at(50),
            p95: at(95),
            max: max.into(),
        }
    }
}

/// How much later than due frames went out, microseconds: what the emulator itself adds to the path.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize)]
pub struct Lateness {
    /// Median.
    pub p50: f64,
    /// 99th percentile.
    pub p99: f64,
    /// Largest.
    pub max: f64,
}

/// A direction's record.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize)]
pub struct Record {
    /// Counts.
    pub counters: Counters,
    /// The queue, over the whole run.
    pub queue: QueueLength,
    /// Exactness.
    pub late: Lateness,
}

/// Both directions.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize)]
pub struct Records {
    /// From the first end to the second.
    pub to_b: Record,
    /// From the second end to the first.
    pub to_a: Record,
    /// Time the emulator ran, seconds.
    pub seconds: f64,
    /// Whether its thread had real-time priority.
    pub realtime: bool,
}

impl fmt::Display for Records {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "{:.1} s", self.seconds)?;
        writeln!(f, "{:<24}{:>14}{:>14}", "", "to the second", "to the first")?;
        let (b, a) = (&self.to_b, &self.to_a);
        let mut line = |name: &str, b: u64, a: u64| writeln!(f, "{name:<24}{b:>14}{a:>14}");
        line("frames in", b.counters.frames, a.counters.frames)?;
        line("lost", b.counters.lost, a.counters.lost)?;
        line(
            "dropped, queue full",
            b.counters.overflowed,
            a.counters.overflowed,
        )?;
        line("marked", b.counters.marked, a.counters.marked)?;
        line("held back", b.counters.reordered, a.counters.reordered)?;
        line("doubled", b.counters.duplicated, a.counters.duplicated)?;
        line("corrupted", b.counters.corrupted, a.counters.corrupted)?;
        line("frames out", b.counters.delivered, a.counters.delivered)?;
        line(
            "bytes out",
            b.counters.delivered_bytes,
            a.counters.delivered_bytes,
        )?;
        line("queue p50, frames", b.queue.p50, a.queue.p50)?;
        line("queue p95, frames", b.queue.p95, a.queue.p95)?;
        line("queue max, frames", b.queue.max, a.queue.max)?;
        let mut line = |name: &str, b: f64, a: f64| writeln!(f, "{name:<24}{b:>14.1}{a:>14.1}");
        line("late p50, µs", b.late.p50, a.late.p50)?;
        line("late p99, µs", b.late.p99, a.late.p99)?;
        line("late max, µs", b.late.max, a.late.max)?;
        if b.counters.oversized + a.counters.oversized > 0 {
            writeln!(
                f,
                "{} frames were longer than the MTU and dropped: turn tso, gso and gro off at the ends",
                b.counters.oversized + a.counters.oversized
            )?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_queue_is_reduced_to_its_percentiles() {
        let queue = QueueLength::of((0..=100).rev().collect());
        assert_eq!((queue.p50, queue.p95, queue.max), (50, 95, 100));
        assert_eq!(queue.mean, 50.0);
        assert_eq!(QueueLength::of(Vec::new()), QueueLength::default());
    }
}
