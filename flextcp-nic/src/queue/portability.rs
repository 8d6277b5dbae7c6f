//! What can be said of the firmware's fitness for the card without the card: the rules of its compiler as far as they are
//! public, memories that are not mixed up, and what a packet costs on a processor of the same kind.

use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use super::differential::runner::{has, sources};

const STRICT: [&str; 9] = [
    "-std=c89",
    "-pedantic",
    "-Wall",
    "-Wextra",
    "-Wconversion",
    "-Wsign-conversion",
    "-Wdeclaration-after-statement",
    "-Wvla",
    "-Werror",
];

fn firmware() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("firmware")
}

fn portable() -> Vec<PathBuf> {
    [sources("core"), sources("me")].concat()
}

fn compile(compiler: &str, flags: &[&str], files: &[PathBuf]) -> Output {
    let mut command = Command::new(compiler);
    command.args(STRICT).args(flags);
    for include in ["include", "core", "hal", "me", "test"] {
        command.arg("-I").arg(firmware().join(include));
    }
    command.args(files).output().expect("the compiler runs")
}

fn must_compile(compiler: &str, flags: &[&str], files: &[PathBuf]) {
    let output = compile(compiler, flags, files);
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{compiler} {flags:?}: {errors}");
}

/// A C file without comments and preprocessor lines.
fn code(path: &Path) -> String {
    let text = std::fs::read_to_string(path).expect("the firmware is there");
    let mut code = String::new();
    let mut rest = text.as_str();
    while let Some((before, comment)) = rest.split_once("/*") {
        code += before;
        rest = comment.split_once("*/").map_or("", |(_, after)| after);
    }
    code += rest;
    let lines = code
        .lines()
        .filter(|line| !line.trim_start().starts_with('#'));
    lines.map(|line| format!("{line}\n")).collect()
}

/// Why a line would not do on the card, if it would not.
fn objection(line: &str) -> Option<&'static str> {
    let words: Vec<&str> = line
        .split(|c: char| !c.is_alphanumeric() && c != '_')
        .collect();
    let has_any = |list: &[&str]| words.iter().any(|word| list.contains(word));
    if has_any(&["asm", "__asm", "__asm__"]) {
        return Some("no assembly: it belongs to the hardware layer");
    }
    if has_any(&[
        "float", "double", "short", "long", "uint64_t", "int64_t", "size_t",
    ]) {
        return Some("all is words of 32 bits");
    }
    if has_any(&["union", "goto", "malloc", "static_assert"]) {
        return Some("keep it plain");
    }
    let through_pointer = |rest: &str| {
        let name = rest.trim_start_matches(|c: char| c.is_alphanumeric() || c == '_');
        name.starts_with(")(")
    };
    if line.split("(*").skip(1).any(through_pointer) {
        return Some("no function pointers: engines have no indirect calls");
    }
    let divides = |(at, _): (usize, char)| {
        let operand = line[at + 1..].trim_start_matches('=').trim_start();
        !operand.starts_with(|c: char| c.is_ascii_digit())
    };
    if line
        .char_indices()
        .filter(|&(_, c)| c == '/' || c == '%')
        .any(divides)
    {
        return Some("no division by a variable: engines have no instruction for it");
    }
    None
}

#[test]
fn the_sources_keep_the_cards_rules() {
    for path in portable() {
        for (number, line) in (1..).zip(code(&path).lines()) {
            let objection = objection(line);
            assert!(
                objection.is_none(),
                "{}, line {number} of code: {line}: {objection:?}",
                path.display()
            );
        }
    }
    for bad in [
        "x = a / b;",
        "x %= y;",
        "unsigned long x;",
        "void (*f)(int);",
        "__asm nop;",
        "union u v;",
    ] {
        assert!(objection(bad).is_some(), "{bad}");
    }
    assert_eq!(objection("x = ms / 1000u + ns % 8u;"), None);
}

#[test]
fn all_compilers_take_the_sources() {
    for compiler in ["gcc", "clang", "powerpc-linux-gnu-gcc"] {
        if has(compiler, "a strict build") {
            must_compile(compiler, &["-O2", "-fsyntax-only"], &portable());
        }
    }
}

/// The card's half of the hardware layer against declarations of our own: its types agree with themselves, no more.
#[test]
fn the_cards_hardware_layer_parses() {
    if !has("gcc", "the card's layer") {
        return;
    }
    for engine in ["MANAGE", "CONTEXT", "CLASSIFY", "FLOW"] {
        let kind = format!("-DFX_ENGINE_KIND=FX_KIND_OF_{engine}");
        parses("gcc", &kind, "hal/hal_nfp.c");
    }
}

/// The same of what the vendor's P4 framework would call: also where a pointer is 32 bits and words are big-endian, as there.
#[test]
fn the_p4_frameworks_glue_parses() {
    for compiler in ["gcc", "powerpc-linux-gnu-gcc"] {
        if has(compiler, "the P4 framework's glue") {
            parses(compiler, "-Wno-pointer-to-int-cast", "p4/fx_glue_nfp.c");
        }
    }
}

fn parses(compiler: &str, flag: &str, file: &str) {
    let flags = ["-std=gnu89", "-Wno-long-long", "-DFX_MOCK_SDK", flag];
    let mut command = Command::new(compiler);
    command.args(flags);
    command.args(["-fsyntax-only", "-Wall", "-Wextra", "-Werror"]);
    for include in ["include", "core", "hal", "me", "p4", "test"] {
        command.arg("-I").arg(firmware().join(include));
    }
    let output = command.arg(firmware().join(file)).output();
    let output = output.expect("the compiler runs");
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{compiler} {file}: {errors}");
}

/// Local memory and the card's memories are different address spaces: clang refuses a pointer to one where the other is meant.
#[test]
fn memories_are_not_mixed_up() {
    if !has("clang", "the memory check") {
        return;
    }
    must_compile("clang", &["-DFX_LINT", "-fsyntax-only"], &portable());
    let folder = tempfile::tempdir().expect("a temporary folder");
    let mixed = folder.path().join("mixed.c");
    let text = "#include \"nic.h\"\nvoid mix(struct fx_nic *nic);\n\
        void mix(struct fx_nic *nic) { fx_flow_limits(nic->entries, 1u, 2u); }\n";
    std::fs::write(&mixed, text).expect("the folder is writable");
    must_compile("clang", &["-fsyntax-only"], std::slice::from_ref(&mixed));
    let output = compile(
        "clang",
        &["-DFX_LINT", "-fsyntax-only"],
        std::slice::from_ref(&mixed),
    );
    assert!(
        !output.status.success(),
        "an entry in card memory passed for local memory"
    );
}

/// Names of the functions of the core.
fn functions() -> Vec<String> {
    let mut names = Vec::new();
    for path in sources("core") {
        let code = code(&path);
        let starts = code
            .lines()
            .filter(|line| line.starts_with(|c: char| c.is_alphabetic()));
        names.extend(starts.filter_map(|line| {
            let before = line.split_once('(')?.0;
            before.rsplit(' ').next().map(str::to_owned)
        }));
    }
    names
}

/// Instructions that an operation may take on PowerPC: what it took when this was written, and a tenth more.
const BUDGETS: [(&str, usize); 13] = [
    ("parse", 450),
    ("hash", 210),
    ("hash6", 370),
    ("toeplitz", 1150),
    ("data", 200),
    ("ack", 175),
    ("mark", 250),
    ("exception", 85),
    ("send", 550),
    ("send-paced", 1120),
    ("send-ack", 305),
    ("bump", 36),
    ("checksum", 155),
];

/// A stand-in for the card's own count, which needs its compiler: 32-bit big-endian PowerPC, core functions alone.
#[test]
fn costs_stay_within_their_budgets() {
    if !has("powerpc-linux-gnu-gcc", "the count") || !has("qemu-ppc", "the count") {
        return;
    }
    let folder = tempfile::tempdir().expect("a temporary folder");
    let program = folder.path().join("cost");
    let mut files = sources("core");
    files.push(firmware().join("test/cost.c"));
    let output = program.to_str().expect("a plain path");
    must_compile(
        "powerpc-linux-gnu-gcc",
        &["-O2", "-static", "-o", output],
        &files,
    );
    let log = folder.path().join("log");
    let core = functions();
    // One instruction a block, each named by its function: what the C library does is not counted.
    let instructions = |operation: &str, turns: &str| {
        let status = Command::new("qemu-ppc")
            .args(["-singlestep", "-d", "exec,nochain", "-D"])
            .arg(&log)
            .arg(&program)
            .args([operation, turns])
            .status()
            .expect("the emulator runs");
        assert!(status.success(), "{operation}");
        let log = std::fs::read_to_string(&log).expect("the log was written");
        let symbols = log.lines().filter_map(|line| line.rsplit(' ').next());
        let counted = symbols.filter(|symbol| {
            let name = symbol.split('.').next().unwrap_or_default();
            core.iter().any(|function| function == name)
        });
        counted.count()
    };
    let mut over = Vec::new();
    for (operation, budget) in BUDGETS {
        let cost = instructions(operation, "1") - instructions(operation, "-1");
        println!("{operation:12} {cost:5} of {budget:5}");
        if cost == 0 || cost > budget {
            over.push((operation, cost));
        }
    }
    assert!(over.is_empty(), "over their budgets: {over:?}");
}
