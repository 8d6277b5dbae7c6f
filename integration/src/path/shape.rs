//! What a direction does to frames, and how that is written down.

use std::fmt;
use std::str::FromStr;
use std::time::Duration;

use serde::Serialize;

/// One direction of a path. The default is a wire: everything at once and in order.
///
/// Written as `delay=10ms,rate=100mbit,queue=250kB,loss=1%`. Keys:
///
/// | key | meaning |
/// |---|---|
/// | `delay` | propagation delay |
/// | `jitter` | how much earlier or later than `delay`, evenly; frames stay in order |
/// | `loss` | probability that a frame is lost |
/// | `burst` | `ENTER:LEAVE`, probabilities per frame of a run of losses to begin and to end (Gilbert's model) |
/// | `reorder` | probability that a frame is held back, |
/// | `hold` | for this long, so that later ones overtake it |
/// | `dup` | probability that a frame comes twice |
/// | `rate` | bits per second, of whole Ethernet frames |
/// | `queue` | how much waits for the link before more is dropped: bytes (`250kB`) or packets (`200p`), or both keys |
/// | `ecn` | how much waits for the link from which on ECN-capable packets are marked, bytes or packets |
///
/// Frames are lost before they reach the queue, so that what is lost takes no part of the rate (as netem has it).
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Shape {
    /// Propagation delay.
    pub delay: Duration,
    /// Largest deviation from it.
    pub jitter: Duration,
    /// Probability of a loss.
    pub loss: f64,
    /// Runs of losses.
    pub burst: Option<Burst>,
    /// Probability of being held back.
    pub reorder: f64,
    /// Time that a frame is held back.
    pub hold: Duration,
    /// Probability of a copy.
    pub duplicate: f64,
    /// Bits per second.
    pub rate: Option<u64>,
    /// Most that waits for the link.
    pub queue: Amount,
    /// From how much on packets are marked.
    pub ecn: Option<Amount>,
}

/// Runs of losses: probabilities per frame that one begins, and that it ends.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct Burst {
    /// Of the first loss of a run.
    pub enter: f64,
    /// Of the first frame that gets through again; a run has `1 / leave` frames on average.
    pub leave: f64,
}

/// How much waits in a queue. Without a number there is no bound in that unit.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize)]
pub struct Amount {
    /// Bytes of Ethernet frames.
    pub bytes: Option<u64>,
    /// Frames.
    pub packets: Option<u64>,
}

impl Amount {
    /// So many bytes.
    pub const fn bytes(bytes: u64) -> Self {
        Self {
            bytes: Some(bytes),
            packets: None,
        }
    }

    /// So many packets.
    pub const fn packets(packets: u64) -> Self {
        Self {
            bytes: None,
            packets: Some(packets),
        }
    }

    /// Whether `bytes` in `packets` frames are more than this in either unit.
    pub(super) fn is_exceeded(self, bytes: u64, packets: u64) -> bool {
        self.bytes.is_some_and(|limit| bytes > limit)
            || self.packets.is_some_and(|limit| packets > limit)
    }
}

impl Default for Shape {
    fn default() -> Self {
        Self {
            delay: Duration::ZERO,
            jitter: Duration::ZERO,
            loss: 0.0,
            burst: None,
            reorder: 0.0,
            hold: Duration::from_millis(2),
            duplicate: 0.0,
            rate: None,
            queue: Amount::packets(1000),
            ecn: None,
        }
    }
}

/// What is wrong with the text of a [`Shape`]: names the key, the value and the fix.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct InvalidShape {
    key: String,
    value: String,
    fix: &'static str,
}

impl fmt::Display for InvalidShape {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { key, value, fix } = self;
        write!(f, "`{key}` cannot be {value:?}: {fix}")
    }
}

impl std::error::Error for InvalidShape {}

const KEYS: &str =
    "the keys are delay, jitter, loss, burst, reorder, hold, dup, rate, queue and ecn";
const PAIR: &str = "write key=value, with commas between";
const PROBABILITY: &str =
    "give a probability from 0 to 1, or a percentage, as in loss=0.01 or loss=1%";
const BURST: &str = "give two probabilities, that a run of losses begins and that it ends, as in burst=0.1%:25% (the second not zero)";
const DURATION: &str = "give a number with a unit of ns, us, ms or s, as in delay=10ms";
const RATE: &str = "give bits per second, as in rate=100mbit (kbit, mbit, gbit; not zero)";
const AMOUNT: &str =
    "give bytes or packets, as in queue=250kB or queue=200p (B, kB, MB, p; not zero)";
const NO_RATE: &str = "only a link with a rate has a queue; set rate too";

impl FromStr for Shape {
    type Err = InvalidShape;

    fn from_str(text: &str) -> Result<Self, InvalidShape> {
        let mut shape = Self::default();
        let mut queue = Amount::default();
        let settings = text
            .split(',')
            .map(str::trim)
            .filter(|part| !part.is_empty());
        for setting in settings {
            let (key, value) = setting.split_once('=').unwrap_or((setting, ""));
            let (key, value) = (key.trim(), value.trim());
            shape
                .set(key, value, &mut queue)
                .map_err(|fix| InvalidShape {
                    key: key.into(),
                    value: value.into(),
                    fix: if setting.contains('=') { fix } else { PAIR },
                })?;
        }
        if queue != Amount::default() {
            shape.queue = queue;
        }
        if shape.rate.is_none() && (shape.ecn.is_some() || queue != Amount::default()) {
            let key = if shape.ecn.is_some() { "ecn" } else { "queue" };
            return Err(InvalidShape {
                key: key.into(),
                value: text.into(),
                fix: NO_RATE,
            });
        }
        Ok(shape)
    }
}

impl Shape {
    fn set(&mut self, key: &str, value: &str, queue: &mut Amount) -> Result<(), &'static str> {
        match key {
            "delay" => self.delay = duration(value)?,
            "jitter" => self.jitter = duration(value)?,
            "loss" => self.loss = probability(value)?,
            "burst" => self.burst = Some(burst(value)?),
            "reorder" => self.reorder = probability(value)?,
            "hold" => self.hold = duration(value)?,
            "dup" => self.duplicate = probability(value)?,
            "rate" => self.rate = Some(rate(value)?),
            "queue" => amount(value, queue)?,
            "ecn" => amount(value, self.ecn.get_or_insert_default())?,
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

fn burst(value: &str) -> Result<Burst, &'static str> {
    let (enter, leave) = value.split_once(':').ok_or(BURST)?;
    let of = |text| probability(text).map_err(|_| BURST);
    let burst = Burst {
        enter: of(enter)?,
        leave: of(leave)?,
    };
    if burst.leave > 0.0 {
        Ok(burst)
    } else {
        Err(BURST)
    }
}

/// Splits a number from its unit.
fn with_unit<'a>(value: &'a str, fix: &'static str) -> Result<(f64, &'a str), &'static str> {
    let end = value
        .find(|c: char| !c.is_ascii_digit() && c != '.')
        .unwrap_or(value.len());
    let number = value[..end].parse::<f64>().map_err(|_| fix)?;
    Ok((number, value[end..].trim()))
}

fn duration(value: &str) -> Result<Duration, &'static str> {
    let (number, unit) = with_unit(value, DURATION)?;
    let seconds = match unit {
        "ns" => 1e-9,
        "us" | "µs" => 1e-6,
        "ms" => 1e-3,
        "s" => 1.0,
        _ => return Err(DURATION),
    };
    Duration::try_from_secs_f64(number * seconds).map_err(|_| DURATION)
}

fn rate(value: &str) -> Result<u64, &'static str> {
    let (number, unit) = with_unit(value, RATE)?;
    let scale = match unit {
        "" | "bit" => 1.0,
        "kbit" => 1e3,
        "mbit" => 1e6,
        "gbit" => 1e9,
        _ => return Err(RATE),
    };
    whole(number * scale).ok_or(RATE)
}

fn amount(value: &str, amount: &mut Amount) -> Result<(), &'static str> {
    let (number, unit) = with_unit(value, AMOUNT)?;
    let scale = match unit {
        "p" => {
            amount.packets = Some(whole(number).ok_or(AMOUNT)?);
            return Ok(());
        }
        "B" => 1.0,
        "kB" => 1e3,
        "MB" => 1e6,
        _ => return Err(AMOUNT),
    };
    amount.bytes = Some(whole(number * scale).ok_or(AMOUNT)?);
    Ok(())
}

fn whole(number: f64) -> Option<u64> {
    (1.0..1e15).contains(&number).then_some(number as u64)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_key_is_read() {
        let shape: Shape =
            "delay=10ms, jitter=500us, loss=1%, burst=0.1%:25%, reorder=5%, hold=3ms, dup=0.5%, \
                            rate=100mbit, queue=250kB, queue=200p, ecn=65p"
                .parse()
                .unwrap();
        let expected = Shape {
            delay: Duration::from_millis(10),
            jitter: Duration::from_micros(500),
            loss: 0.01,
            burst: Some(Burst {
                enter: 0.001,
                leave: 0.25,
            }),
            reorder: 0.05,
            hold: Duration::from_millis(3),
            duplicate: 0.005,
            rate: Some(100_000_000),
            queue: Amount {
                bytes: Some(250_000),
                packets: Some(200),
            },
            ecn: Some(Amount::packets(65)),
        };
        assert_eq!(shape, expected);
        assert_eq!("".parse(), Ok(Shape::default()));
    }

    #[test]
    fn errors_name_key_value_and_fix() {
        for (text, part) in [
            ("loss=2", "`loss` cannot be \"2\""),
            ("delay=10", "delay=10ms"),
            ("burst=1%", "burst=0.1%:25%"),
            ("burst=1%:0", "not zero"),
            ("rate=0mbit", "rate=100mbit"),
            ("rate=1mbit,queue=9", "queue=250kB"),
            ("ecn=9p", "set rate too"),
            ("queue=9p", "set rate too"),
            ("speed=1", "the keys are"),
            ("loss", "key=value"),
        ] {
            let error = text.parse::<Shape>().unwrap_err().to_string();
            assert!(error.contains(part), "{text}: {error}");
        }
    }
}
