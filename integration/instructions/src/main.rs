//! Instructions that a segment costs the host, counted by callgrind: numbers that a busy machine does not change.
//!
//! ```text
//! cargo run --release -p flextcp-instructions                  count, and compare with what was last recorded
//! cargo run --release -p flextcp-instructions -- record NOTE   count, and append to docs/results/instructions.csv
//! ```
//!
//! Counting fails when a case costs 10 % more than what was last recorded for it. A count covers all that the host does between
//! a frame on its wire and rest: port, steering, fast or slow path, rings, readiness, and the frames it sends.
#![forbid(unsafe_code)]

mod cases;
mod history;
mod plot;

use std::error::Error;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};

use crate::cases::CASES;
use crate::history::{Entry, History};

/// How much more than last time is a failure.
const TOLERANCE: f64 = 0.10;

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let words: Vec<&str> = arguments.iter().map(String::as_str).collect();
    let result = match words[..] {
        ["case", index] => run_case(index),
        [] => compare(),
        ["record", note] => record(note),
        _ => Err("usage: instructions [record NOTE]".into()),
    };
    match result {
        Ok(code) => code,
        Err(error) => {
            eprintln!("{error}");
            ExitCode::FAILURE
        }
    }
}

fn results(file: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("../../docs/results")
        .join(file)
}

/// Under callgrind: runs one case and prints how many segments were counted.
fn run_case(index: &str) -> Result<ExitCode, Box<dyn Error>> {
    let (_, case) = CASES.get(index.parse::<usize>()?).ok_or("no such case")?;
    println!("{}", case());
    Ok(ExitCode::SUCCESS)
}

/// Instructions for one segment of a case.
fn count(index: usize) -> Result<u32, Box<dyn Error>> {
    let output = Command::new("valgrind")
        .args(["--tool=callgrind", "--callgrind-out-file=/dev/null"])
        .args(["--collect-atstart=no", "--toggle-collect=*cases::counted*"])
        .arg(std::env::current_exe()?)
        .args(["case", &index.to_string()])
        .output()
        .map_err(|error| format!("valgrind does not run: {error}; apt-get install valgrind"))?;
    let report = String::from_utf8_lossy(&output.stderr).into_owned();
    if !output.status.success() {
        return Err(report.into());
    }
    let segments: u64 = String::from_utf8_lossy(&output.stdout).trim().parse()?;
    let collected: u64 = report
        .lines()
        .find_map(|line| line.split_once("Collected : "))
        .ok_or("callgrind reports nothing")?
        .1
        .trim()
        .parse()?;
    if collected == 0 || segments == 0 {
        return Err("callgrind counted nothing: does it find the symbols?".into());
    }
    Ok(u32::try_from(collected / segments)?)
}

fn compare() -> Result<ExitCode, Box<dyn Error>> {
    let history = History::read(&results("instructions.csv"))?;
    let mut worse = false;
    for (index, (name, _)) in CASES.iter().enumerate() {
        let now = count(index)?;
        let Some(last) = history.last(name) else {
            println!("{name:50} {now:7}  never recorded");
            worse = true;
            continue;
        };
        let change = f64::from(now) / f64::from(last) - 1.0;
        let verdict = if change > TOLERANCE {
            worse = true;
            "MORE"
        } else if change < -TOLERANCE {
            "less: record it"
        } else {
            ""
        };
        println!(
            "{name:50} {now:7}  was {last:7}  {:+5.1} %  {verdict}",
            change * 100.0
        );
    }
    if !worse {
        return Ok(ExitCode::SUCCESS);
    }
    println!(
        "\nA segment costs more than recorded. If it is worth it, record it, with the reason:\n\
         cargo run --release -p flextcp-instructions -- record NOTE"
    );
    Ok(ExitCode::FAILURE)
}

fn record(note: &str) -> Result<ExitCode, Box<dyn Error>> {
    let file = results("instructions.csv");
    let mut history = History::read(&file)?;
    let date = Command::new("date").args(["-u", "+%F"]).output()?.stdout;
    let date = String::from_utf8(date)?.trim().to_owned();
    for (index, (name, _)) in CASES.iter().enumerate() {
        let instructions = count(index)?;
        println!("{name:50} {instructions:7}");
        history.entries.push(Entry {
            date: date.clone(),
            note: note.replace([',', '\n'], ";"),
            case: (*name).to_owned(),
            instructions,
        });
    }
    history.write(&file)?;
    plot::draw(&history, &results("instructions.svg"))?;
    Ok(ExitCode::SUCCESS)
}
