//! What the checker refuses: every rule of the card by a program that breaks it and nothing else, what the subset
//! leaves out, and text that is no program at all.

use std::io;
use std::path::Path;

use flextcp_p4::{CardRule, Program, Refusal, Tables};
use proptest::prelude::*;

/// A small program that is accepted; the tests break one line each.
const SOUND: &str = r#"#include <core.p4>
#include <v1model.p4>
header nfp_mac_eg_cmd_t { bit l3Sum; bit l4Sum; bit tsMark; bit<29> ignore; }
header ethernet_t { bit<48> destination; bit<48> source; bit<16> kind; }
struct headers { nfp_mac_eg_cmd_t command; ethernet_t ethernet; }
struct metadata { bit<32> word; bit<8> byte; }
extern void action_in_c();
parser P(packet_in packet, out headers hdr, inout metadata meta, inout standard_metadata_t standard_metadata) {
    state start {
        meta.word = 1;
        packet.extract(hdr.ethernet);
        transition accept;
    }
}
control V(inout headers hdr, inout metadata meta) { apply { } }
control I(inout headers hdr, inout metadata meta, inout standard_metadata_t standard_metadata) {
    action to(bit<16> port) { standard_metadata.egress_spec = port; }
    table where {
        key = { hdr.ethernet.kind: exact; }
        actions = { to; NoAction; }
        default_action = NoAction();
        size = 16;
    }
    action note() { meta.byte = 1; }
    table maybe {
        key = { meta.word: ternary; }
        actions = { note; NoAction; }
    }
    apply {
        if (hdr.ethernet.isValid()) {
            where.apply();
            maybe.apply();
        }
        meta.word = meta.word + 1;
        action_in_c();
    }
}
control E(inout headers hdr, inout metadata meta, inout standard_metadata_t standard_metadata) {
    action command() { hdr.command.setValid(); }
    table commands {
        key = { standard_metadata.egress_port: exact; }
        actions = { command; NoAction; }
        size = 2;
    }
    apply { commands.apply(); }
}
control C(inout headers hdr, inout metadata meta) { apply { } }
control D(packet_out packet, in headers hdr) { apply { packet.emit(hdr); } }
V1Switch(P(), V(), I(), E(), C(), D()) main;
"#;

fn check(text: &str) -> Result<Program, Refusal> {
    let nothing = |_: &Path| Err(io::ErrorKind::NotFound.into());
    Program::from_text("test.p4", text, &nothing)
}

/// Replaces one piece of the sound program.
fn broken(old: &str, new: &str) -> Refusal {
    assert_eq!(SOUND.matches(old).count(), 1, "{old:?} stands there once");
    let text = SOUND.replace(old, new);
    match check(&text) {
        Ok(_) => panic!("accepted with {new:?} for {old:?}"),
        Err(refusal) => {
            let lines = text.lines().count() as u32 + 1;
            assert!((1..=lines).contains(&refusal.line), "{refusal}");
            refusal
        }
    }
}

#[test]
fn the_sound_program_is_accepted() {
    check(SOUND).unwrap();
}

#[test]
fn every_rule_of_the_card_has_a_program_that_breaks_it() {
    let assign = "meta.word = meta.word + 1;";
    let apply = "        action_in_c();\n    }";
    let cases: &[(CardRule, &str, &str)] = &[
        (CardRule::PortWidth, "bit<16> port) {", "bit<9> port) {"),
        (
            CardRule::PortWidth,
            assign,
            "bit<9> nine = 1; standard_metadata.egress_spec = nine;",
        ),
        (
            CardRule::DropArguments,
            assign,
            "mark_to_drop(standard_metadata);",
        ),
        (CardRule::NoActionInTables, assign, "NoAction();"),
        (
            CardRule::ValidInConditions,
            assign,
            "bit<1> valid = hdr.ethernet.isValid();",
        ),
        (
            CardRule::ValidInConditions,
            assign,
            "hdr.ethernet.isValid();",
        ),
        // Not written at all.
        (
            CardRule::UnsetMetadata,
            assign,
            "meta.byte = meta.byte + 1;",
        ),
        // Not written when the frame is shorter than its first header.
        (
            CardRule::UnsetMetadata,
            "meta.word = 1;\n        packet.extract(hdr.ethernet);",
            "packet.extract(hdr.ethernet);\n        meta.word = 1;",
        ),
        // Written in one branch only.
        (
            CardRule::UnsetMetadata,
            assign,
            "if (meta.word == 0) { meta.byte = 1; } meta.word = (bit<32>)meta.byte;",
        ),
        // Written by the action of a rule that need not match.
        (
            CardRule::UnsetMetadata,
            assign,
            "maybe.apply(); meta.word = (bit<32>)meta.byte;",
        ),
        (CardRule::Atomic, assign, "@atomic { meta.word = 2; }"),
        (
            CardRule::StateInC,
            "control I(",
            "register<bit<32>>(16) seen; control I(",
        ),
        (
            CardRule::StateInC,
            "    table where {",
            "    @pragma netro no_lookup_caching\n    table where {",
        ),
        (
            CardRule::NarrowingCast,
            assign,
            "meta.byte = (bit<8>)meta.word;",
        ),
        (
            CardRule::NarrowingCast,
            assign,
            "meta.byte = (bit<8>)(meta.word & 0x1ff);",
        ),
        (
            CardRule::MacCommandFirst,
            "nfp_mac_eg_cmd_t command; ethernet_t ethernet;",
            "ethernet_t ethernet; nfp_mac_eg_cmd_t command;",
        ),
        (
            CardRule::MacCommandFirst,
            "bit<29> ignore",
            "bit<21> ignore",
        ),
        (
            CardRule::MacCommandFirst,
            "packet.emit(hdr);",
            "packet.emit(hdr.ethernet); packet.emit(hdr.command);",
        ),
        (
            CardRule::MacCommandOnEgress,
            assign,
            "hdr.command.setValid();",
        ),
        (
            CardRule::MacCommandOnEgress,
            "key = { standard_metadata.egress_port: exact; }",
            "key = { hdr.ethernet.kind: exact; }",
        ),
        (
            CardRule::MacCommandOnEgress,
            "actions = { command; NoAction; }",
            "actions = { command; NoAction; } default_action = command();",
        ),
        (
            CardRule::MacCommandOnEgress,
            "{ commands.apply(); }",
            "{ commands.apply(); command(); }",
        ),
        (
            CardRule::Timestamps,
            assign,
            "meta.word = standard_metadata.ingress_global_timestamp;",
        ),
        (
            CardRule::MatchKind,
            "hdr.ethernet.kind: exact",
            "hdr.ethernet.kind: header_valid",
        ),
        (
            CardRule::ExternArguments,
            "extern void action_in_c();",
            "extern void action_in_c(in bit<32> word);",
        ),
        (
            CardRule::ExternArguments,
            apply,
            "        action_in_c(meta.word);\n    }",
        ),
    ];
    for (rule, old, new) in cases {
        let refusal = broken(old, new);
        assert_eq!(refusal.rule, Some(*rule), "{new}: {refusal}");
        assert!(refusal.to_string().ends_with(&format!("[{}]", rule.name())));
    }
    for rule in CardRule::ALL {
        let shown = cases.iter().any(|(of, ..)| *of == rule);
        assert!(shown, "no program breaks {}", rule.name());
    }
}

#[test]
fn masks_make_narrow_casts_sound() {
    let assign = "meta.word = meta.word + 1;";
    for sound in [
        "meta.byte = (bit<8>)(meta.word & 0xff);",
        "meta.byte = (bit<8>)(meta.word >> 24);",
        "meta.byte = meta.word[7:0];",
        "meta.byte = (bit<8>)((bit<32>)hdr.ethernet.kind[15:8]);",
        "meta.byte = (bit<8>)200;",
    ] {
        check(&SOUND.replace(assign, sound)).unwrap_or_else(|refusal| panic!("{sound}: {refusal}"));
    }
}

#[test]
fn what_the_subset_leaves_out_is_named_with_its_place() {
    let assign = "meta.word = meta.word + 1;";
    // What is replaced by what, where in that the refusal points, and a word of what it says.
    for (old, new, at, says) in [
        (assign, "meta.word = meta.word * 2;", "* 2", "operator *"),
        (assign, "meta.word = meta.byte;", "byte", "write a cast"),
        (assign, "meta.word = 0x1ffffffff;", "0x1f", "does not fit"),
        (assign, "meta.word = meta.word & 1 == 0;", "& 1", "brackets"),
        (assign, "meta.other = 1;", "other", "no field `other`"),
        (assign, "where.apply(1);", "apply", "no argument"),
        (
            assign,
            "switch (where.apply().action_run) { }",
            "switch",
            "switch",
        ),
        (assign, "meta.word = 1 << meta.word;", "<<", "bits to shift"),
        (assign, "meta.byte = 8w1 << meta.byte;", "byte;", "constant"),
        (assign, "meta.word[40:0] = 1;", "40", "bits 31 to 0"),
        (assign, "bit<32> x; x = 1;", "; x", "starts with a value"),
        (assign, "return;", "return", "`return`"),
        (assign, "nothing();", "nothing", "no action or extern"),
        (assign, "hdr = hdr;", "hdr", "cannot be assigned"),
        (assign, "if (meta.word) { }", "word", "a condition"),
        (
            "transition accept;",
            "transition reject;",
            "reject",
            "not public",
        ),
        (
            "transition accept;",
            "transition nowhere;",
            "nowhere",
            "no state",
        ),
        ("kind: exact", "kind: lpm", "lpm", "exact or ternary"),
        ("bit<16> kind;", "int<16> kind;", "int", "bit<N>"),
        ("bit<16> kind;", "varbit<16> kind;", "varbit", "stack"),
        ("bit<16> kind;", "bit<65> kind;", "65", "64 bits"),
        (
            "ethernet_t { bit<48> d",
            "ethernet_t { bit<47> d",
            "ethernet_t",
            "whole bytes",
        ),
        ("size = 16;", "size = 0;", "0", "rules"),
        ("bit<8> byte;", "bit<8> word;", "word", "twice"),
        (
            "V1Switch(P(), V(), I(), E(), C(), D()) main;",
            " ",
            "",
            "no V1Switch",
        ),
        (
            "V1Switch(P(), V()",
            "V1Switch(P(), W()",
            "W",
            "no control `W`",
        ),
        (
            "#include <core.p4>",
            "#include \"gone.p4\"",
            "include",
            "gone.p4",
        ),
        ("#include <core.p4>", "#ifdef X", "ifdef", "no #endif"),
        ("#include <core.p4>", "#pragma x", "pragma", "#pragma"),
        ("#include <core.p4>", "/* open", "/*", "no end"),
        ("#include <core.p4>", "\"open", "\"", "no end"),
        ("#include <core.p4>", "\u{e9}", "\u{e9}", "no place in P4"),
    ] {
        let refusal = broken(old, new);
        assert!(refusal.message.contains(says), "{new}: {refusal}");
        assert_eq!(refusal.file, "test.p4");
        if at.is_empty() {
            continue;
        }
        let before = &SOUND[..SOUND.find(old).unwrap()];
        let before = format!("{before}{}", &new[..new.find(at).unwrap()]);
        let line = before.matches('\n').count() as u32 + 1;
        let column = before.chars().rev().take_while(|c| *c != '\n').count() as u32 + 1;
        let found = (refusal.line, refusal.column);
        assert_eq!(found, (line, column), "{new}: {refusal}");
    }
}

#[test]
fn circles_without_extraction_are_refused() {
    let two = "transition other; } state other { transition select(meta.word) { 1: start; default: accept; }";
    check(&SOUND.replace("transition accept;", two)).unwrap();
    let circle = "transition other; } state other { transition select(meta.word) { 1: third; default: accept; } }
        state third { meta.word = 2; transition other;";
    let refusal = broken("transition accept;", circle);
    assert!(refusal.message.contains("circle"), "{refusal}");
}

#[test]
fn deep_and_long_programs_are_refused_not_overflown() {
    let assign = "meta.word = meta.word + 1;";
    for deep in [
        format!("meta.word = {}1{};", "(".repeat(10_000), ")".repeat(10_000)),
        format!("meta.word = {}meta.word;", "~".repeat(10_000)),
        format!("meta.word = 1{};", " + 1".repeat(10_000)),
        format!("{}{}", "{".repeat(10_000), "}".repeat(10_000)),
        format!("meta.word = meta{};", ".word".repeat(10_000)),
        "if (true) { } else ".repeat(10_000),
    ] {
        check(&SOUND.replace(assign, &deep)).unwrap_err();
    }
    let mut doubling = String::from("#define A0 1\n");
    for i in 1..64 {
        doubling += &format!("#define A{i} A{0} A{0}\n", i - 1);
    }
    check(&format!("{doubling}A63\n{SOUND}")).unwrap_err();
    let around = |_: &Path| Ok("#include \"self.p4\"\n".to_owned());
    let refusal = Program::from_text("self.p4", "#include \"self.p4\"\n", &around).unwrap_err();
    assert!(refusal.message.contains("circle"), "{refusal}");
}

#[test]
fn the_firmware_and_its_example_rules_are_accepted() {
    let path =
        Path::new(env!("CARGO_MANIFEST_DIR")).join("../../flextcp-nic/firmware/p4/fx_main.p4");
    let program = Program::from_file(&path).unwrap_or_else(|refusal| panic!("{refusal}"));
    let externs: Vec<_> = program.externs().collect();
    assert_eq!(externs, ["fx_checksum", "fx_rss", "fx_rx"]);
    let rules = std::fs::read_to_string(path.with_file_name("rules/example.p4cfg")).unwrap();
    Tables::load(&program, &rules).unwrap_or_else(|bad| panic!("{bad}"));
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 400, failure_persistence: None, ..ProptestConfig::default() })]

    /// Characters changed, lost or doubled: refused with a place in the text, or accepted, but never a panic.
    #[test]
    fn damaged_programs_never_panic(
        edits in prop::collection::vec((any::<prop::sample::Index>(), 0..4_u8, any::<char>()), 1..8)
    ) {
        let mut text: Vec<char> = SOUND.chars().collect();
        for (at, edit, other) in edits {
            let at = at.index(text.len().max(1));
            match edit {
                _ if text.is_empty() => text.push(other),
                0 => text[at] = other,
                1 => drop(text.remove(at)),
                2 => text.insert(at, text[at]),
                _ => text.truncate(at.max(1)),
            }
        }
        let text: String = text.into_iter().collect();
        if let Err(refusal) = check(&text) {
            prop_assert!(refusal.line as usize <= text.split('\n').count());
        }
    }

    /// Whole tokens out of place.
    #[test]
    fn shuffled_programs_never_panic(
        swaps in prop::collection::vec((any::<prop::sample::Index>(), any::<prop::sample::Index>()), 1..6)
    ) {
        let mut words: Vec<&str> = SOUND.split_inclusive([' ', '(', ')', ';', '.', '\n']).collect();
        for (a, b) in swaps {
            let (a, b) = (a.index(words.len()), b.index(words.len()));
            words.swap(a, b);
        }
        let _ = check(&words.concat());
    }
}
