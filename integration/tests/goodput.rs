//! Goodput on the table's paths in virtual time is what `docs/results/goodput.md` says.

use integration::bench::path::simulated::{REFRESH, bbr, bbr_beside_itself, file, table};
use integration::bench::path::{CAPACITY, Cell, cells};

fn cell(name: &str) -> Cell {
    let cells = cells(false);
    let found = cells.into_iter().find(|cell| cell.to_string() == name);
    found.expect("a path of the table")
}

#[test]
fn the_table_is_what_the_code_does() {
    let kept = std::fs::read_to_string(file()).unwrap_or_default();
    let found = table("").unwrap();
    println!("{found}");
    assert!(
        kept == found,
        "{} is out of date; look at what changed, and write it anew: {REFRESH}",
        file().display()
    );
}

/// No start is bad: one that takes its first losses for a full pipe, or gets no measurement between two of them, has two thirds.
#[test]
fn bbr_starts_well_on_a_path_that_loses_one_in_a_hundred() {
    let clean = bbr(cell("100 ms, no loss"), 1).unwrap().goodput;
    for seed in 1..=20 {
        let goodput = bbr(cell("100 ms, 1 % loss"), seed).unwrap().goodput;
        println!("seed {seed}: {goodput:.1} of {clean:.1} Mbit/s");
        assert!(goodput > 0.75 * clean, "seed {seed}: {goodput:.1}");
    }
}

/// A queue of a twentieth of what the path holds: what overflows it is ours, and answered.
#[test]
fn bbr_backs_off_from_a_queue_that_it_overflows() {
    let path = cell("100 ms, no loss");
    let transfer = bbr_beside_itself(path, 60_000, 1, 64 << 20, 1).unwrap()[0];
    println!("{transfer:?}");
    let sent = (64 << 20) / 1448;
    assert!(transfer.retransmitted < sent / 20, "{transfer:?}");
    assert!(transfer.goodput > 0.7 * CAPACITY, "{transfer:?}");
}

#[test]
fn bbr_shares_a_bottleneck_with_itself() {
    for queue in [60_000, 250_000] {
        let path = cell("20 ms, no loss");
        let flows = bbr_beside_itself(path, queue, 2, 48 << 20, 1).unwrap();
        println!("{queue}: {flows:?}");
        let sent = 2 * (48 << 20) / 1448;
        for flow in &flows {
            assert!(flow.goodput > 0.35 * CAPACITY, "{queue}: {flows:?}");
            assert!(flow.retransmitted < sent / 50, "{queue}: {flows:?}");
        }
    }
}
