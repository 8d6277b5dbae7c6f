//! What a peer and an application do to one host.

use integration::sim::Rng;

pub(super) const MSS: u32 = 1_400;

#[derive(Clone, Copy, Debug)]
pub(super) enum Step {
    /// The application writes, reads, or ends.
    Write(usize),
    Read(usize),
    Shutdown,
    Close,
    Abort,
    /// The peer sends so many segments of so many bytes, in order.
    Data {
        segments: u32,
        len: u32,
    },
    /// The same, but the first is held back until [`Step::Fill`].
    Hole {
        segments: u32,
        len: u32,
    },
    Fill,
    /// What it sent before, once more.
    Old {
        back: u32,
        len: u32,
    },
    /// Acknowledges all that it has, or this part of what is new.
    Ack,
    PartialAck(u32),
    /// Opens or shuts its window; with an ACK.
    Window(u32),
    /// Stops acknowledging by itself, or goes on.
    Silent(bool),
    KeepAlive,
    Fin,
    Reset,
    /// Outside of the window, or impossible.
    Beyond,
    FutureAck,
    OldTimestamp,
    BlindReset,
    /// Time passes.
    Wait(u64),
}

/// A case.
#[derive(Clone, Debug)]
pub(super) struct Case {
    pub(super) passive: bool,
    pub(super) v6: bool,
    pub(super) timestamps: bool,
    pub(super) sack: bool,
    pub(super) nodelay: bool,
    pub(super) congestion: &'static str,
    pub(super) steps: Vec<Step>,
}

impl Case {
    pub(super) fn random(seed: u64) -> Self {
        let mut rng = Rng::new(seed ^ 0x00eb);
        let mut case = Self {
            passive: rng.chance(0.5),
            v6: rng.chance(0.3),
            timestamps: rng.chance(0.8),
            sack: rng.chance(0.8),
            nodelay: rng.chance(0.5),
            congestion: "cubic",
            steps: Vec::new(),
        };
        let count = rng.range(5..=60);
        for _ in 0..count {
            let len = rng.pick(&[1, 10, 100, 536, MSS - 12, MSS - 12]);
            let segments = rng.range(1..=6) as u32;
            let step = match rng.below(100) {
                0..=21 => Step::Write(rng.magnitude(1..=20_000) as usize),
                22..=37 => Step::Read(rng.magnitude(1..=20_000) as usize),
                38..=55 => Step::Data { segments, len },
                56..=58 => Step::Hole {
                    segments: segments + 1,
                    len,
                },
                59..=63 => Step::Fill,
                64..=66 => Step::Old {
                    back: rng.magnitude(1..=5_000) as u32,
                    len,
                },
                67..=74 => Step::Ack,
                75..=77 => Step::PartialAck(rng.range(1..=99) as u32),
                78..=79 => Step::Window(rng.pick(&[0, 0, 2, 10, 40]) * (MSS - 12)),
                80..=81 => Step::Window(rng.magnitude(1..=200_000) as u32),
                82..=84 => Step::Silent(rng.chance(0.5)),
                85..=86 => Step::KeepAlive,
                87..=88 => Step::Beyond,
                89 => Step::FutureAck,
                90 => Step::OldTimestamp,
                91 => Step::BlindReset,
                92 => match rng.below(4) {
                    0 => Step::Shutdown,
                    1 => Step::Fin,
                    2 => Step::Close,
                    _ => rng.pick(&[Step::Abort, Step::Reset]),
                },
                _ => Step::Wait(rng.magnitude(1..=120)),
            };
            case.steps.push(step);
        }
        // Most cases end well.
        let ending: &[Step] = match rng.below(5) {
            0 => &[Step::Shutdown, Step::Fin],
            1 => &[Step::Fin, Step::Shutdown],
            2 => &[Step::Close, Step::Fin],
            3 => &[Step::Fin, Step::Close],
            _ => &[],
        };
        case.steps.extend(ending);
        case.congestion = rng.pick(&["cubic", "reno"]);
        case
    }
}
