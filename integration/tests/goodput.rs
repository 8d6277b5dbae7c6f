//! Goodput on the table's paths in virtual time is what `docs/results/goodput.md` says.

use integration::bench::path::simulated::{REFRESH, file, table};

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
