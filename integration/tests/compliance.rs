//! `docs/COMPLIANCE.md` names tests: each of them exists. `docs/COVERAGE.md` counts lines: enough of them run.

use std::fs;
use std::path::Path;

#[test]
fn every_named_test_exists() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
    let text = fs::read_to_string(root.join("docs/COMPLIANCE.md")).unwrap();
    let mut named = 0;
    let mut missing = Vec::new();
    for (number, line) in text.lines().enumerate() {
        // The last column; a row without a test proves nothing.
        let Some(tests) = line
            .strip_prefix("| ")
            .and_then(|row| row.trim_end_matches([' ', '|']).rsplit(" | ").next())
        else {
            continue;
        };
        if tests == "test" {
            continue;
        }
        let names: Vec<_> = tests
            .split('`')
            .filter(|name| name.contains("::"))
            .collect();
        if names.is_empty() {
            missing.push(format!("line {}: no test", number + 1));
        }
        for name in names {
            named += 1;
            if !exists(&root, name) {
                missing.push(format!("line {}: {name}", number + 1));
            }
        }
    }
    assert!(
        missing.is_empty(),
        "docs/COMPLIANCE.md:\n{}",
        missing.join("\n")
    );
    assert!(
        named > 100,
        "only {named} tests found: has the table changed its form?"
    );
}

/// RFC 9293 numbers its requirements, from 1 to 69 those that are a must.
#[test]
fn every_must_of_rfc_9293_is_accounted_for() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
    let text = fs::read_to_string(root.join("docs/COMPLIANCE.md")).unwrap();
    let named: Vec<u32> = text
        .split("MUST-")
        .skip(1)
        .filter_map(|rest| {
            let end = rest.find(|c: char| !c.is_ascii_digit());
            rest[..end.unwrap_or(rest.len())].parse().ok()
        })
        .collect();
    let missing: Vec<_> = (1..=69).filter(|must| !named.contains(must)).collect();
    assert!(missing.is_empty(), "docs/COMPLIANCE.md: MUST-{missing:?}");
}

/// What `.ci/coverage` wrote, as of when it last ran: the files are there, the share is enough, and what is uncovered has its reason.
#[test]
fn coverage_is_enough_and_what_is_uncovered_has_a_reason() {
    const LEAST: f64 = 90.0;
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
    let text = fs::read_to_string(root.join("docs/COVERAGE.md")).unwrap();
    let (mut lines, mut uncovered, mut wrong) = (0, 0, Vec::new());
    for row in text.lines().filter_map(|line| line.strip_prefix("| `")) {
        let cells: Vec<_> = row.split('|').map(str::trim).collect();
        let [file, of_file, of_them, _, reason, ""] = cells[..] else {
            panic!("docs/COVERAGE.md: {row}");
        };
        let file = file.trim_end_matches('`');
        let missed: u32 = of_them.parse().unwrap();
        lines += of_file.parse::<u32>().unwrap();
        uncovered += missed;
        if !root.join(file).is_file() {
            wrong.push(format!("{file} is gone: run .ci/coverage"));
        }
        if missed > 0 && reason.is_empty() {
            wrong.push(format!("{file}: {missed} lines are uncovered, and why?"));
        }
    }
    assert!(wrong.is_empty(), "docs/COVERAGE.md:\n{}", wrong.join("\n"));
    let share = 100.0 - 100.0 * f64::from(uncovered) / f64::from(lines);
    assert!(share >= LEAST, "{share:.1} % of {lines} lines");
}

/// Whether `file::function` is a function under a test attribute.
fn exists(root: &Path, name: &str) -> bool {
    let Some((file, function)) = name.split_once("::") else {
        return false;
    };
    let Ok(source) = fs::read_to_string(root.join(file)) else {
        return false;
    };
    let lines: Vec<_> = source.lines().map(str::trim).collect();
    let heads = [format!("fn {function}("), format!("async fn {function}(")];
    lines.iter().enumerate().any(|(at, line)| {
        heads.iter().any(|head| line.starts_with(head.as_str()))
            && lines[..at]
                .iter()
                .rev()
                .take_while(|line| {
                    line.starts_with("#[") || line.starts_with("//") || line.is_empty()
                })
                .any(|line| line.contains("test"))
    })
}
