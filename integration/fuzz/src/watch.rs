//! An input that never ends is a failure like any other, and has to be named.

use std::panic::{RefUnwindSafe, UnwindSafe};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;
use std::time::Duration;

/// How often the watcher looks. It counts its looks and not the clock: a process that was stopped as a whole has not hung.
const LOOK: Duration = Duration::from_millis(250);

/// What is being tried, and how many inputs came before it.
#[derive(Debug, Default)]
struct Trial {
    number: u64,
    input: Option<Vec<u8>>,
}

/// `target`, under the eyes of a thread that ends the process when one input takes longer than `limit`: it prints the input as
/// hexadecimal digits, which `FLEXTCP_FUZZ_INPUT` plays alone.
///
/// # Panics
/// No thread can be started; and with the target.
pub fn watched(
    name: &'static str,
    limit: Duration,
    target: fn(&[u8]),
) -> impl Fn(&[u8]) + UnwindSafe + RefUnwindSafe {
    let current = Arc::new(Mutex::new(Trial::default()));
    let seen = Arc::clone(&current);
    thread::Builder::new()
        .name(format!("watch {name}"))
        .spawn(move || watch(name, limit, &seen))
        .expect("a test process may start a thread");
    move |input| {
        set(&current, Some(input.to_vec()));
        target(input);
        set(&current, None);
    }
}

fn set(current: &Mutex<Trial>, input: Option<Vec<u8>>) {
    let mut trial = current.lock().unwrap_or_else(PoisonError::into_inner);
    trial.number += 1;
    trial.input = input;
}

fn watch(name: &str, limit: Duration, current: &Mutex<Trial>) {
    let patience = limit.as_millis() / LOOK.as_millis();
    let (mut last, mut looks) = (0, 0);
    loop {
        thread::sleep(LOOK);
        let trial = current.lock().unwrap_or_else(PoisonError::into_inner);
        if trial.number != last {
            (last, looks) = (trial.number, 0);
            continue;
        }
        looks += 1;
        if looks > patience
            && let Some(input) = &trial.input
        {
            eprintln!("{name}: this input does not end: {}", hex(input));
            std::process::abort();
        }
    }
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// The bytes that hexadecimal digits name; `None` when they do not.
pub fn unhex(digits: &str) -> Option<Vec<u8>> {
    let pair = |at| u8::from_str_radix(digits.get(at..at + 2)?, 16).ok();
    (0..digits.len()).step_by(2).map(pair).collect()
}
