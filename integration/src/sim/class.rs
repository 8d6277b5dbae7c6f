//! Kinds of links, each a pair of lines between a host and the router.

use std::time::Duration;

use flextcp_nic::port::impair::Impairment;

use super::rng::Rng;

/// A kind of link.
#[derive(Clone, Copy, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub enum LinkClass {
    /// A wire and nothing else.
    Wire,
    /// A rack: microseconds, gigabits.
    Lan,
    /// A rack whose switch marks at a threshold.
    Marking,
    /// A good way over land.
    Wan,
    /// A slow line with a deep queue.
    Bloated,
    /// A line with a shallow queue.
    Shallow,
    /// Half a second there and back.
    Satellite,
    /// Jitter and bursts of loss.
    Radio,
    /// Random loss up to a few per cent.
    Lossy,
    /// Random loss beyond what TCP is made for.
    Hostile,
    /// Reordering.
    Reordering,
    /// Duplication and corruption.
    Noisy,
    /// A little of everything.
    Mixed,
}

impl LinkClass {
    /// All of them.
    pub const ALL: [Self; 13] = [
        Self::Wire,
        Self::Lan,
        Self::Marking,
        Self::Wan,
        Self::Bloated,
        Self::Shallow,
        Self::Satellite,
        Self::Radio,
        Self::Lossy,
        Self::Hostile,
        Self::Reordering,
        Self::Noisy,
        Self::Mixed,
    ];

    /// For tables.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Wire => "wire",
            Self::Lan => "lan",
            Self::Marking => "marking",
            Self::Wan => "wan",
            Self::Bloated => "bloated",
            Self::Shallow => "shallow",
            Self::Satellite => "satellite",
            Self::Radio => "radio",
            Self::Lossy => "lossy",
            Self::Hostile => "hostile",
            Self::Reordering => "reordering",
            Self::Noisy => "noisy",
            Self::Mixed => "mixed",
        }
    }

    /// Whether connections may time out although both ends live.
    pub const fn may_kill(self) -> bool {
        matches!(self, Self::Hostile)
    }

    /// One direction of a link of this kind.
    pub fn line(self, rng: &mut Rng) -> Impairment {
        let micros = Duration::from_micros;
        let millis = Duration::from_millis;
        let mut line = Impairment::default();
        match self {
            Self::Wire => {}
            Self::Lan => {
                line.delay = rng.time(micros(5)..=micros(200));
                line.rate = Some(rng.pick(&[1_000_000_000, 10_000_000_000]));
                line.queue = rng.range(64..=1000) as usize;
            }
            Self::Marking => {
                line.delay = rng.time(micros(20)..=micros(500));
                line.rate = Some(rng.pick(&[100_000_000, 1_000_000_000]));
                line.queue = 500;
                line.ecn = Some(rng.range(5..=65) as usize);
            }
            Self::Wan => {
                line.delay = rng.time(millis(2)..=millis(60));
                line.rate = Some(rng.magnitude(10_000_000..=200_000_000));
                line.queue = rng.range(50..=500) as usize;
            }
            Self::Bloated => {
                line.delay = rng.time(millis(5)..=millis(30));
                line.rate = Some(rng.magnitude(1_000_000..=8_000_000));
                line.queue = 300;
            }
            Self::Shallow => {
                line.delay = rng.time(millis(1)..=millis(20));
                line.rate = Some(rng.magnitude(5_000_000..=50_000_000));
                line.queue = rng.range(4..=12) as usize;
            }
            Self::Satellite => {
                line.delay = millis(rng.range(200..=300));
                line.rate = Some(20_000_000);
                line.queue = 300;
            }
            Self::Radio => {
                line.delay = rng.time(millis(5)..=millis(40));
                line.jitter = rng.time(millis(1)..=millis(40));
                line.burst = 0.02 * rng.unit();
                line.burst_len = rng.range(2..=6) as u32;
                line.rate = Some(rng.magnitude(2_000_000..=50_000_000));
                line.queue = 200;
            }
            Self::Lossy => {
                line.delay = rng.time(micros(100)..=millis(40));
                line.loss = 0.05 * rng.unit();
            }
            Self::Hostile => {
                line.delay = rng.time(micros(100)..=millis(40));
                line.loss = 0.05 + 0.15 * rng.unit();
                line.reorder = 0.1 * rng.unit();
                line.corrupt = 0.05 * rng.unit();
            }
            Self::Reordering => {
                line.delay = rng.time(micros(100)..=millis(20));
                line.reorder = 0.2 * rng.unit();
                line.gap = rng.range(1..=20) as u32;
                line.hold = rng.time(micros(100)..=millis(30));
            }
            Self::Noisy => {
                line.delay = rng.time(micros(50)..=millis(10));
                line.duplicate = 0.1 * rng.unit();
                line.corrupt = 0.03 * rng.unit();
            }
            Self::Mixed => {
                line.delay = rng.time(micros(50)..=millis(30));
                line.jitter = rng.time(micros(1)..=millis(5));
                line.loss = 0.02 * rng.unit();
                line.reorder = 0.05 * rng.unit();
                line.duplicate = 0.02 * rng.unit();
                line.corrupt = 0.01 * rng.unit();
                line.rate = Some(rng.magnitude(5_000_000..=1_000_000_000));
                line.queue = rng.range(20..=300) as usize;
            }
        }
        line
    }
}
