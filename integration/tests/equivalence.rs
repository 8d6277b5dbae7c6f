//! Offload equivalence: for any traffic and any application, the peer sees the same bytes, ACKs, windows, FINs and
//! RSTs with offload never, always, or toggled at random, up to the timing of ACKs (DESIGN, section 4).
//!
//! A case is a seed: a script of what a peer, made of segments, and an application do to one host. The host plays it
//! three times. After each step, once every delayed ACK is out, what the peer has seen and what the application knows
//! are compared, down to the last byte. At the end the peer takes everything, and bytes, ends and errors have to be the
//! same in any case. `FLEXTCP_EQUIVALENCE_FROM=N` starts at another seed, `FLEXTCP_EQUIVALENCE_CASES=N` plays another
//! number of them.
//!
//! What may differ, and is not compared:
//! - where segments begin and end, and how many ACKs there are: the NIC acknowledges and cuts as doorbells come;
//! - when a timer of the sender runs out (retransmission, tail loss, persist): it hangs on round-trip samples, which the
//!   NIC takes one a flight. From the first such transmission on only the end of a case is compared;
//! - how far slow start goes while round trips grow: HyStart++ goes by round-trip samples too. With CUBIC only the end is
//!   compared once a window held bytes back; the other half of the cases has Reno, whose window follows from what is
//!   acknowledged;
//! - SACK blocks and D-SACK of what the other side had no reason to report.

#[path = "equivalence/case.rs"]
mod case;
#[path = "equivalence/play.rs"]
mod play;

use flextcp_rt::offload::OffloadPolicy;

use case::{Case, Step};
use play::{Play, Seen};

const CASES: u64 = 2_000;
const FULL: u64 = 100_000;

/// Everything that was seen, step by step as far as that is compared, and at the end.
fn play(case: &Case, offload: OffloadPolicy) -> (Vec<Seen>, Seen, bool) {
    let mut play = Play::new(case, offload);
    let (mut history, mut comparable) = (Vec::new(), true);
    for &step in &case.steps {
        play.step(step);
        comparable &= !play.is_beyond_compare();
        if comparable {
            history.push(play.look());
        }
    }
    let mut last = play.finish();
    assert_eq!(play.wrong, None, "bytes that were not written");
    assert_eq!(play.shrunk, None, "a window that shrank");
    // How many depends on how many segments met a connection that was gone.
    last.resets = last.resets.min(1);
    if last.resets > 0 {
        // What was on its way then depends on when it was sent again.
        last.sent = 0;
        last.fin = false;
    }
    let offloaded = play.lab.stats().offload.installed > 0;
    (history, last, offloaded)
}

/// Plays a case with each policy; `seed` is the toggling's.
fn compare(case: &Case, seed: u64) -> Result<(), String> {
    let (never, end, offloaded) = play(case, OffloadPolicy::Never);
    assert!(!offloaded);
    for offload in [OffloadPolicy::Always, OffloadPolicy::Random(seed)] {
        let (steps, other, _) = play(case, offload);
        for (number, (a, b)) in never.iter().zip(&steps).enumerate() {
            if a != b {
                return Err(format!(
                    "case {seed}, {offload:?}, after step {number}, {:?}:\n   never {a:?}\n   here  {b:?}\n   {:?}",
                    case.steps[number],
                    &case.steps[..=number],
                ));
            }
        }
        if end != other {
            return Err(format!(
                "case {seed}, {offload:?}, at the end:\n   never {end:?}\n   here  {other:?}\n   {case:?}"
            ));
        }
    }
    Ok(())
}

fn number(variable: &str) -> Option<u64> {
    let value = std::env::var(variable).ok()?;
    Some(
        value
            .parse()
            .unwrap_or_else(|_| panic!("{variable}={value:?} is not a number")),
    )
}

#[test]
fn the_peer_cannot_tell_who_carries_a_connection() {
    let full = std::env::var_os("FLEXTCP_FULL").is_some_and(|value| value == "1");
    let from = number("FLEXTCP_EQUIVALENCE_FROM").unwrap_or(0);
    let cases = number("FLEXTCP_EQUIVALENCE_CASES").unwrap_or(if full { FULL } else { CASES });
    let failed: Vec<String> = (from..from + cases)
        .filter_map(|seed| {
            let result = std::panic::catch_unwind(|| compare(&Case::random(seed), seed));
            result
                .unwrap_or_else(|_| Err(format!("case {seed} panicked")))
                .err()
        })
        .collect();
    for what in failed.iter().take(5) {
        eprintln!("{what}\n");
    }
    assert!(
        failed.is_empty(),
        "{} of {cases} cases differ",
        failed.len()
    );
}

/// Cases that found something.
#[test]
fn what_differed_once_does_not_again() {
    // A window that was not used for an RTO decays on the NIC too (RFC 5681, section 4.1).
    for steps in [
        vec![
            Step::Write(12_658),
            Step::Wait(250),
            Step::Write(43),
            Step::Silent(true),
            Step::Write(40_000),
        ],
        // What is read meanwhile is no activity of the sender,
        vec![
            Step::Write(12_658),
            Step::Data {
                segments: 4,
                len: 1_388,
            },
            Step::Wait(150),
            Step::Read(2_000),
            Step::Wait(150),
            Step::Silent(true),
            Step::Write(40_000),
        ],
        // nor is it idle while something is outstanding.
        vec![
            Step::Write(12_658),
            Step::Silent(true),
            Step::Write(100),
            Step::Wait(140),
            Step::Write(40_000),
        ],
    ] {
        let case = Case {
            steps,
            congestion: "reno",
            ..Case::random(0)
        };
        compare(&case, 0).unwrap();
    }
}

#[test]
fn most_cases_are_carried_by_the_nic_and_compared() {
    let (mut offloaded, mut compared, mut steps) = (0, 0, 0);
    for seed in 0..100 {
        let case = Case::random(seed);
        let (history, _, on_nic) = play(&case, OffloadPolicy::Always);
        offloaded += usize::from(on_nic);
        compared += history.len();
        steps += case.steps.len();
    }
    assert!(offloaded > 95, "{offloaded} of 100");
    assert!(compared * 2 > steps, "{compared} of {steps}");
}
