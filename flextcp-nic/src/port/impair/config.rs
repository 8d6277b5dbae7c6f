//! What to do to frames, and how to write it down.

use std::fmt;
use std::str::FromStr;
use std::time::Duration;

use crate::time::parse_duration;

/// Impairments of one direction. Probabilities are per frame and independent.
#[derive(Clone, Debug, PartialEq)]
pub struct Impairment {
    /// Probability that a frame is dropped.
    pub loss: f64,
    /// Probability that a burst of loss begins with a frame (the bad state of Gilbert's model): all frames are
    /// dropped until it ends, at the latest when none came for 100 ms.
    pub burst: f64,
    /// Frames that a burst drops on average, at least one.
    pub burst_len: u32,
    /// Probability that a frame is held back.
    pub reorder: f64,
    /// A frame held back goes after this many later ones,
    pub gap: u32,
    /// or after this long, whichever comes first.
    pub hold: Duration,
    /// Probability that a frame comes twice.
    pub duplicate: f64,
    /// Probability that one bit behind the Ethernet header is flipped. One, because the checksum notices
    /// every single flip, but not every two.
    pub corrupt: f64,
    /// Propagation delay.
    pub delay: Duration,
    /// Up to so much more delay, evenly spread. It does not reorder: a frame waits for those before it.
    pub jitter: Duration,
    /// Rate of the link in bits per second.
    pub rate: Option<u64>,
    /// Frames that wait for the link before more are dropped.
    pub queue: usize,
    /// Bytes that wait for the link before more frames are dropped; no bound of its own without.
    pub queue_bytes: Option<u64>,
    /// Frames that wait for the link from which on ECN-capable packets are marked.
    pub ecn: Option<usize>,
}

impl Default for Impairment {
    /// None at all.
    fn default() -> Self {
        Self {
            loss: 0.0,
            burst: 0.0,
            burst_len: 4,
            reorder: 0.0,
            gap: 3,
            hold: Duration::from_millis(2),
            duplicate: 0.0,
            corrupt: 0.0,
            delay: Duration::ZERO,
            jitter: Duration::ZERO,
            rate: None,
            queue: 1000,
            queue_bytes: None,
            ecn: None,
        }
    }
}

impl Impairment {
    /// Whether frames pass unchanged and at once.
    pub fn is_none(&self) -> bool {
        let chances = [
            self.loss,
            self.burst,
            self.reorder,
            self.duplicate,
            self.corrupt,
        ];
        chances.iter().all(|&chance| chance == 0.0)
            && self.delay.is_zero()
            && self.jitter.is_zero()
            && self.rate.is_none()
    }
}

/// Impairments of both directions of a port, reproducible from the seed.
///
/// Written as `loss=0.01,reorder=1%,dup=0.005,corrupt=0.005,delay=1ms,seed=7`. Keys: `loss`, `burst`, `burst-len`,
/// `reorder`, `gap`, `hold`, `dup`, `corrupt`, `delay`, `jitter`, `rate` (`100mbit`), `queue`, `queue-bytes`, `ecn`, `seed`. A key holds for both directions, or
/// for one with `tx.` or `rx.` before it; later ones override earlier ones. The empty text is no impairment.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct ImpairConfig {
    /// Frames that the port sends.
    pub tx: Impairment,
    /// Frames that the port receives.
    pub rx: Impairment,
    /// Seed of every random decision.
    pub seed: u64,
}

/// What is wrong with the text of an [`ImpairConfig`]: names the key, the value and the fix.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct InvalidImpairment {
    key: String,
    value: String,
    fix: &'static str,
}

impl fmt::Display for InvalidImpairment {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { key, value, fix } = self;
        write!(f, "impairment `{key}` cannot be {value:?}: {fix}")
    }
}

impl std::error::Error for InvalidImpairment {}

const PROBABILITY: &str =
    "give a probability from 0 to 1, or a percentage, as in loss=0.01 or loss=1%";
const DURATION: &str = "give a number with a unit of ns, us, ms or s, as in delay=1ms";
const COUNT: &str = "give a whole number of frames, as in queue=1000";
const BYTES: &str = "give a whole number of bytes, as in queue-bytes=250000";
const RATE: &str = "give bits per second, as in rate=100mbit (kbit, mbit, gbit; not zero)";
const SEED: &str = "give a whole number, as in seed=7";
const BURST: &str = "give a whole number of frames, at least 1, as in burst-len=4";
const KEYS: &str = "the keys are loss, burst, burst-len, reorder, gap, hold, dup, corrupt, delay, jitter, rate, queue, queue-bytes and ecn, after tx. or rx. for one direction, and seed";
const PAIR: &str = "write key=value, with commas between";
const ECN: &str = "only a link with a rate has a queue to mark for; set rate too";

impl FromStr for ImpairConfig {
    type Err = InvalidImpairment;

    fn from_str(text: &str) -> Result<Self, InvalidImpairment> {
        let mut config = Self::default();
        for setting in text
            .split(',')
            .map(str::trim)
            .filter(|setting| !setting.is_empty())
        {
            let (key, value) = setting.split_once('=').unwrap_or((setting, ""));
            let (key, value) = (key.trim(), value.trim());
            config.set(key, value).map_err(|fix| InvalidImpairment {
                key: key.into(),
                value: value.into(),
                fix: if setting.contains('=') { fix } else { PAIR },
            })?;
        }
        for line in [&config.tx, &config.rx] {
            if let (Some(threshold), None) = (line.ecn, line.rate) {
                let (key, value) = ("ecn".into(), threshold.to_string());
                return Err(InvalidImpairment {
                    key,
                    value,
                    fix: ECN,
                });
            }
        }
        Ok(config)
    }
}

impl ImpairConfig {
    fn set(&mut self, key: &str, value: &str) -> Result<(), &'static str> {
        if key == "seed" {
            self.seed = value.parse().map_err(|_| SEED)?;
        } else if let Some(key) = key.strip_prefix("tx.") {
            self.tx.set(key, value)?;
        } else if let Some(key) = key.strip_prefix("rx.") {
            self.rx.set(key, value)?;
        } else {
            self.tx.set(key, value)?;
            self.rx.set(key, value)?;
        }
        Ok(())
    }
}

impl Impairment {
    fn set(&mut self, key: &str, value: &str) -> Result<(), &'static str> {
        match key {
            "loss" => self.loss = probability(value)?,
            "burst" => self.burst = probability(value)?,
            "burst-len" => {
                let frames = value.parse().ok().filter(|&frames| frames > 0);
                self.burst_len = frames.ok_or(BURST)?;
            }
            "reorder" => self.reorder = probability(value)?,
            "gap" => self.gap = value.parse().map_err(|_| COUNT)?,
            "hold" => self.hold = duration(value)?,
            "dup" | "duplicate" => self.duplicate = probability(value)?,
            "corrupt" => self.corrupt = probability(value)?,
            "delay" => self.delay = duration(value)?,
            "jitter" => self.jitter = duration(value)?,
            "rate" => self.rate = Some(rate(value)?),
            "queue" => self.queue = value.parse().map_err(|_| COUNT)?,
            "queue-bytes" => self.queue_bytes = Some(value.parse().map_err(|_| BYTES)?),
            "ecn" => self.ecn = Some(value.parse().map_err(|_| COUNT)?),
            _ => return Err(KEYS),
        }
        Ok(())
    }
}

fn probability(value: &str) -> Result<f64, &'static str> {
    let (number, scale) = match value.strip_suffix('%') {
        Some(number) => (number, 0.01),
        None => (value, 1.0),
    };
    let chance = number.trim().parse::<f64>().map_err(|_| PROBABILITY)? * scale;
    if (0.0..=1.0).contains(&chance) {
        Ok(chance)
    } else {
        Err(PROBABILITY)
    }
}

/// Splits a number from its unit.
fn with_unit(value: &str) -> (&str, &str) {
    let end = value
        .find(|c: char| !c.is_ascii_digit() && c != '.')
        .unwrap_or(value.len());
    (&value[..end], value[end..].trim())
}

fn duration(value: &str) -> Result<Duration, &'static str> {
    parse_duration(value, None).ok_or(DURATION)
}

fn rate(value: &str) -> Result<u64, &'static str> {
    let (number, unit) = with_unit(value);
    let scale = match unit {
        "" | "bit" => 1.0,
        "kbit" => 1e3,
        "mbit" => 1e6,
        "gbit" => 1e9,
        _ => return Err(RATE),
    };
    let bits = number.parse::<f64>().map_err(|_| RATE)? * scale;
    if (1.0..1e15).contains(&bits) {
        Ok(bits as u64)
    } else {
        Err(RATE)
    }
}
