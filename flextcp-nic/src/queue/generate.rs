//! The C header and the documentation out of the tables, and the test that the committed files are these.

use std::fmt::Write as _;
use std::path::{Path, PathBuf};

use super::abi::{Item, Table, tables};

const NOTICE: &str =
    "Generated from the tables in flextcp-nic/src/queue/abi: change these, then run";
const COMMAND: &str = "FLEXTCP_WRITE_ABI=1 cargo test -p flextcp-nic --lib queue::generate";

/// A documentation string without Rust's links, on one line.
fn plain(doc: &str) -> String {
    let text = doc.replace("[`", "`").replace("`]", "`");
    text.split_whitespace().collect::<Vec<_>>().join(" ")
}

fn c_name(table: &Table, item: &Item) -> String {
    format!("FX_{}{}", table.prefix, item.name)
}

fn number(value: u32) -> String {
    if value > 0xffff || (value >= 0x100 && value.is_power_of_two()) {
        format!("{value:#010x}u")
    } else {
        format!("{value}u")
    }
}

fn header() -> String {
    let mut out = format!("/* {NOTICE}\n *   {COMMAND}\n */\n");
    out.push_str("#ifndef FLEXTCP_ABI_H\n#define FLEXTCP_ABI_H\n");
    for table in tables() {
        let _ = writeln!(out, "\n/* {} */", plain(table.doc));
        for item in table.items {
            let _ = writeln!(
                out,
                "#define {} {} /* {} */",
                c_name(table, item),
                number(item.value),
                plain(item.doc)
            );
        }
    }
    out.push_str("\n#endif\n");
    out
}

fn documentation() -> String {
    let mut out = String::from("# The host-NIC interface\n\n");
    let _ = writeln!(out, "<!-- {NOTICE} {COMMAND} -->\n");
    out.push_str(
        "Every word that host and card share. Who writes what and when, memory ordering, the life of a flow and\n\
         reset are told in the documentation of the module `flextcp_nic::queue`. Names are those of the C header\n\
         (`flextcp-nic/firmware/include/flextcp_abi.h`), without their `FX_`.\n",
    );
    for table in tables() {
        let _ = writeln!(out, "\n## `{}`\n\n{}\n", table.name, plain(table.doc));
        out.push_str("| name | value | |\n|---|---|---|\n");
        for item in table.items {
            let value = number(item.value);
            let _ = writeln!(
                out,
                "| `{}{}` | {} | {} |",
                table.prefix,
                item.name,
                value.trim_end_matches('u'),
                plain(item.doc).replace('|', "\\|")
            );
        }
    }
    out
}

fn repository() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..")
}

fn check(path: &str, text: &str) {
    let file = repository().join(path);
    if std::env::var_os("FLEXTCP_WRITE_ABI").is_some() {
        std::fs::write(&file, text).expect("the repository is writable");
    }
    let committed = std::fs::read_to_string(&file).unwrap_or_default();
    assert!(
        committed == text,
        "{path} differs from the tables; write it anew with: {COMMAND}"
    );
}

#[test]
fn the_c_header_is_that_of_the_tables() {
    check("flextcp-nic/firmware/include/flextcp_abi.h", &header());
}

#[test]
fn the_documentation_is_that_of_the_tables() {
    check("docs/abi.md", &documentation());
}

#[test]
fn names_are_unique_and_layouts_do_not_overlap() {
    let mut names = std::collections::HashSet::new();
    for table in tables() {
        for item in table.items {
            assert!(names.insert(c_name(table, item)), "{}", c_name(table, item));
        }
    }
    let layouts = [
        "register",
        "region",
        "queue_register",
        "control",
        "counter",
        "flow_state",
    ];
    for table in tables().filter(|table| layouts.contains(&table.name)) {
        let mut values = std::collections::HashSet::new();
        for item in table.items {
            assert!(values.insert(item.value), "{}", c_name(table, item));
        }
    }
}
