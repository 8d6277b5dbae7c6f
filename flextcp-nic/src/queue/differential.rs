//! The card's C core against the Rust fast path: equal flow state, verdicts and headers, word for word, on random steps.
//!
//! `FLEXTCP_TEST_SEED=N` repeats a run. A difference is reported as the one step that makes it, with the state before it.

mod model;
pub(super) mod runner;
mod steps;

use model::Model;
use steps::{Generator, Step};

/// Words of an entry that are compared: up to where the firmware's own begin.
const WORDS: usize = super::abi::flow_entry::DELTA_FLAGS as usize + 1;
/// Words of a flow entry.
const ENTRY: usize = super::abi::constant::FLOW_ENTRY_WORDS as usize;
/// Words of arguments and of results (`firmware/test/step.h`).
const ARGUMENTS: usize = 72;
const RESULTS: usize = 40;
/// Where headers start in the results, their length in bytes before them.
const HEADER: usize = 12;

/// Steps between two installs.
const EPISODE: u64 = 256;

type Entry = [u32; ENTRY];
type Results = [u32; RESULTS];

unsafe extern "C" {
    fn fx_step(f: *mut u32, operation: u32, args: *const u32, out: *mut u32);
}

/// The C core takes a step.
fn step_in_c(entry: &mut Entry, step: &Step) -> Results {
    let mut out = [0; RESULTS];
    // SAFETY: `fx_step` reads ARGUMENTS words of `args`, and reads and writes FLOW_ENTRY_WORDS words of the entry and
    // RESULTS words of `out`, which these arrays have.
    unsafe {
        fx_step(
            entry.as_mut_ptr(),
            step.operation,
            step.args.as_ptr(),
            out.as_mut_ptr(),
        );
    }
    out
}

fn seed() -> u64 {
    let seed = std::env::var("FLEXTCP_TEST_SEED")
        .ok()
        .and_then(|seed| seed.parse().ok())
        .unwrap_or_else(|| {
            std::time::SystemTime::now()
                .duration_since(std::time::UNIX_EPOCH)
                .map_or(1, |time| time.as_nanos() as u64)
        });
    println!("FLEXTCP_TEST_SEED={seed}");
    seed
}

fn steps_to_take() -> u64 {
    if std::env::var_os("FLEXTCP_FULL").is_some() {
        20_000_000
    } else {
        1_000_000
    }
}

/// Runs `count` random steps through both; `sink` gets each with what the model made of it.
fn compare(seed: u64, count: u64, mut sink: impl FnMut(&Step, &Entry, &Results)) -> Coverage {
    let mut generator = Generator::new(seed);
    let mut model = Model::new();
    let mut entry = [0; ENTRY];
    let mut coverage = Coverage::default();
    for n in 0..count {
        let before = entry;
        let step = if n % EPISODE == 0 {
            generator.install()
        } else {
            generator.step(&model)
        };
        let (step, expected) = model.take(step);
        let results = step_in_c(&mut entry, &step);
        let words = model.words();
        if results != expected || entry[..WORDS] != words[..WORDS] {
            panic!(
                "{}",
                steps::report(
                    seed,
                    n,
                    &before,
                    &step,
                    (&entry, &results),
                    (&words, &expected)
                )
            );
        }
        coverage.note(&step, &results);
        sink(&step, &words, &expected);
    }
    coverage
}

/// What a run came across: a test that never sees a case proves nothing about it.
#[derive(Debug, Default)]
struct Coverage {
    /// By verdict of `fx_receive`, 0 for taken.
    received: [u64; 16],
    /// By `WAIT_*`.
    sent: [u64; 8],
    /// Early ACKs, paced refusals, ACKs.
    early: u64,
    paced: u64,
    acks: u64,
    /// By `VERDICT_*`.
    parsed: [u64; 16],
    /// By result of a bump, of an install.
    bumps: [u64; 4],
    installs: [u64; 16],
}

impl Coverage {
    fn note(&mut self, step: &Step, out: &Results) {
        use super::abi::{received, received_flag};
        match step.operation {
            steps::INSTALL => self.installs[out[0] as usize % 16] += 1,
            steps::RECEIVE => {
                self.received[out[received::EXCEPTION as usize] as usize % 16] += 1;
                self.early +=
                    u64::from(out[received::FLAGS as usize] & received_flag::EARLY_ACK != 0);
            }
            steps::SEND => {
                self.sent[out[0] as usize % 8] += 1;
                self.paced += u64::from(out[0] == 0 && out[5] == 1);
            }
            steps::ACK => self.acks += u64::from(out[HEADER - 1] != 0),
            steps::BUMP => self.bumps[out[0] as usize % 4] += 1,
            steps::PARSE => {
                self.parsed[out[super::abi::packet::WORDS as usize] as usize % 16] += 1;
            }
            _ => {}
        }
    }

    /// Every case was met.
    fn check(&self) {
        use super::abi::reason;
        // NO_FLOW, ICMP and HOST_OWNED are not the core's to say.
        for reason in 0..14_u32 {
            let elsewhere = [reason::NO_FLOW, reason::ICMP, reason::HOST_OWNED].contains(&reason);
            let met = self.received[reason as usize + 1] > 0;
            assert_eq!(met, !elsewhere, "exceptions of reason {reason}: {self:?}");
        }
        assert!(self.received[0] > 1000, "{self:?}");
        assert!(
            self.sent[..6]
                .iter()
                .enumerate()
                .all(|(wait, &n)| n > 10 || wait == 0),
            "{self:?}"
        );
        assert!(
            self.early > 10 && self.paced > 10 && self.acks > 1000,
            "{self:?}"
        );
        assert!(self.parsed[..10].iter().all(|&n| n > 10), "{self:?}");
        assert!(self.bumps[..3].iter().all(|&n| n > 10), "{self:?}");
        assert!(
            self.installs[0] > 10 && self.installs[7] > 0 && self.installs[8] > 0,
            "{self:?}"
        );
    }
}

/// In the process: a million steps, any difference shown with its step.
#[test]
fn the_c_core_is_the_rust_fast_path() {
    let coverage = compare(seed(), steps_to_take(), |_, _, _| {});
    println!("{coverage:?}");
    coverage.check();
}

/// The same steps through the core as other compilers and machines have it: sanitized, and on a big-endian 32-bit
/// processor under emulation; and through cores with a planted fault each, all of which must be noticed.
#[test]
fn other_builds_of_the_core_agree_and_faults_are_noticed() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let vectors = folder.path().join("vectors");
    let seed = seed();
    let mut writer = runner::Writer::new(&vectors);
    compare(seed, steps_to_take(), |step, words, results| {
        writer.step(step, words, results);
    });
    let expected = writer.finish();

    for build in runner::Build::all() {
        let program = build.compile(folder.path());
        let output = build.run(&program, &vectors);
        let first = output
            .lines()
            .zip(expected.lines())
            .position(|(a, b)| a != b);
        assert!(
            output == expected,
            "{}: episode {first:?} differs, FLEXTCP_TEST_SEED={seed}",
            build.name
        );
    }
    for fault in 1..=runner::FAULTS {
        let build = runner::Build::with_fault(fault);
        let program = build.compile(folder.path());
        let output = build.run(&program, &vectors);
        assert!(output != expected, "planted fault {fault} was not noticed");
    }
}
