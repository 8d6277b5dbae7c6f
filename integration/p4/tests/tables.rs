//! Rules files and the interpreter: what is refused, which rule wins, and what headers and metadata do.

use std::io;
use std::path::Path;
use std::process::Command;

use flextcp_p4::{Machine, Packet, Program, Tables, pcap};

/// A small pipeline: one exact and one ternary table, a stack, slices, an extern.
const PROGRAM: &str = r#"
header nfp_mac_eg_cmd_t { bit l3Sum; bit l4Sum; bit tsMark; bit<29> ignore; }
header label_t { bit<20> value; bit<3> class; bit<1> bottom; bit<8> ttl; }
struct headers { nfp_mac_eg_cmd_t command; label_t[3] labels; }
struct metadata { bit<32> sum; bit<32> rule; bit<8> top; bit<32> count; bit<32> first; }
extern void double();
parser P(packet_in packet, out headers hdr, inout metadata meta, inout standard_metadata_t standard_metadata) {
    state start {
        meta.sum = 0;
        meta.rule = 0;
        meta.top = 0;
        meta.count = 0;
        transition label;
    }
    state label {
        packet.extract(hdr.labels.next);
        meta.sum = meta.sum + (bit<32>)hdr.labels.last.value;
        meta.count = meta.count + 1;
        transition select(hdr.labels.last.bottom) { 0: label; default: accept; }
    }
}
control V(inout headers hdr, inout metadata meta) { apply { } }
control I(inout headers hdr, inout metadata meta, inout standard_metadata_t standard_metadata) {
    action to(bit<16> port, bit<32> rule) { standard_metadata.egress_spec = port; meta.rule = rule; }
    action lost() { mark_to_drop(); }
    table exact_table {
        key = { meta.sum: exact; }
        actions = { to; lost; NoAction; }
        default_action = NoAction();
        size = 2;
    }
    table masked {
        key = { meta.first: ternary; meta.count: ternary; }
        actions = { to; lost; }
        default_action = lost();
    }
    apply {
        meta.top = hdr.labels[0].value[19:12];
        meta.first = (bit<32>)hdr.labels[0].value;
        hdr.labels[0].value[3:0] = 0xf;
        double();
        if (!exact_table.apply().hit) { masked.apply(); }
    }
}
control E(inout headers hdr, inout metadata meta, inout standard_metadata_t standard_metadata) { apply { } }
control C(inout headers hdr, inout metadata meta) { apply { } }
control D(packet_out packet, in headers hdr) { apply { packet.emit(hdr); } }
V1Switch(P(), V(), I(), E(), C(), D()) main;
"#;

fn program() -> Program {
    let nothing = |_: &Path| Err(io::ErrorKind::NotFound.into());
    Program::from_text("test.p4", PROGRAM, &nothing).unwrap_or_else(|refusal| panic!("{refusal}"))
}

fn label(value: u32, bottom: bool) -> [u8; 4] {
    (value << 12 | u32::from(bottom) << 8 | 64).to_be_bytes()
}

fn double(name: &str, packet: &mut Packet<'_>) {
    assert_eq!(name, "double");
    packet.set("sum", packet.get("sum") * 2);
    packet.set("nothing of that name", 1);
    assert_eq!(packet.get("nothing of that name"), 0);
}

const RULES: &str = r#"{ "tables": {
    "ingress::exact_table": { "rules": [
        { "name": "six", "match": { "scalars.metadata@sum": { "value": "0x6" } },
          "action": { "type": "ingress::to", "data": { "port": { "value": "v0.2" }, "rule": { "value": 1 } } } } ] },
    "ingress::masked": { "rules": [
        { "name": "high", "match": { "scalars.metadata@first": { "value": "0xf0000", "mask": "0xf0000" } },
          "action": { "type": "ingress::to", "data": { "port": { "value": "p1" }, "rule": { "value": "2" } } } },
        { "name": "also high", "match": { "scalars.metadata@first": { "value": "0xf0000", "mask": "0xf0000" } },
          "action": { "type": "ingress::lost" } },
        { "name": "two labels", "match": { "scalars.metadata@count": { "value": "2" } },
          "action": { "type": "ingress::to", "data": { "port": { "value": "0" }, "rule": { "value": "10.0.0.1" } } } } ] }
} }"#;

#[test]
fn the_first_rule_that_matches_acts() {
    let program = program();
    let tables = Tables::load(&program, RULES).unwrap();
    let mut machine = Machine::new(&program, &tables);
    let mut run = |labels: &[[u8; 4]], rest: &[u8]| {
        let frame = [labels.concat(), rest.to_vec()].concat();
        let outcome = machine.process(&frame, 0, &mut double);
        let word = |name| machine.metadata(name).unwrap();
        (outcome, word("rule"), word("sum"), word("top"))
    };
    // 1 + 2, doubled by the extern, is in the exact table.
    let (outcome, rule, sum, _) = run(&[label(1, false), label(2, true)], b"rest");
    assert_eq!((outcome.egress, rule, sum), (Some(0x302), 1, 6));
    let changed = [&label(0xf, false)[..], &label(2, true), b"rest"].concat();
    assert_eq!(outcome.frame, changed, "the slice was set, the rest left");
    let (outcome, rule, _, top) = run(&[label(0xf1234, true)], b"");
    assert_eq!((outcome.egress, rule, top), (Some(1), 2, 0xf1));
    let (outcome, rule, ..) = run(&[label(5, false), label(6, true)], b"");
    assert_eq!((outcome.egress, rule), (Some(0), 0x0a00_0001));
    let (outcome, ..) = run(&[label(5, true)], b"");
    assert_eq!(outcome.egress, None, "the default drops");
    assert!(!outcome.truncated);
    // More labels than the stack has, and a frame that ends within one.
    let (outcome, ..) = run(&[label(1, false); 4], b"");
    assert!(outcome.truncated);
    assert_eq!(machine.metadata("count"), Some(3));
    let outcome = machine.process(&[0; 3], 0, &mut double);
    assert!(outcome.truncated && outcome.undefined_reads > 0);
    assert_eq!(machine.metadata("nothing of that name"), None);
}

#[test]
fn wrong_rules_are_refused_with_their_place() {
    let program = program();
    let rule = r#"{ "name": "r", "match": { "scalars.metadata@sum": { "value": "6" } },
        "action": { "type": "ingress::to", "data": { "port": { "value": "1" }, "rule": { "value": "1" } } } }"#;
    let file = |rules: &str| {
        format!(r#"{{ "tables": {{ "ingress::exact_table": {{ "rules": [ {rules} ] }} }} }}"#)
    };
    Tables::load(&program, &file(rule)).unwrap();
    for (rules, says) in [
        ("{".to_owned(), "no JSON"),
        ("{}".to_owned(), "expected { \"tables\""),
        (file(rule).replace("exact_table", "gone"), "no such table"),
        (file(&format!("{rule}, {rule}")), "same match"),
        (file(&rule.replace("@sum", "@other")), "no key"),
        (
            file(&rule.replace("\"value\": \"6\"", "\"value\": \"0x1ffffffff\"")),
            "does not fit",
        ),
        (
            file(&rule.replace("\"value\": \"6\"", "\"value\": \"six\"")),
            "no number",
        ),
        (
            file(&rule.replace("\"value\": \"6\"", "\"value\": \"6\", \"mask\": \"1\"")),
            "no mask",
        ),
        (
            file(&rule.replace("\"value\": \"6\"", "")),
            "expected { \"value\"",
        ),
        (
            file(&rule.replace("ingress::to", "ingress::gone")),
            "no action",
        ),
        (
            file(&rule.replace("\"rule\"", "\"other\"")),
            "takes no other",
        ),
        (
            file(&rule.replace(", \"rule\": { \"value\": \"1\" }", "")),
            "needs rule",
        ),
        (
            file(r#"{ "name": "r", "action": { "type": "NoAction" } }"#),
            "match",
        ),
        (
            file(r#"{ "name": "r", "match": {}, "action": { "type": "NoAction" } }"#),
            "is missing",
        ),
    ] {
        let refused = Tables::load(&program, &rules).map(drop).unwrap_err();
        assert!(refused.to_string().contains(says), "{says}: {refused}");
    }
    let others = [2, 3, 4].map(|n| rule.replace("\"6\"", &format!("\"{n}\"")));
    let refused = Tables::load(&program, &file(&others.join(",")))
        .map(drop)
        .unwrap_err();
    assert!(refused.message.contains("room for 2"), "{refused}");
    assert!(refused.place.contains("rule r"), "{refused}");
}

/// The program itself, on the firmware and its example rules.
#[test]
fn the_binary_checks_and_runs() {
    let firmware = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../flextcp-nic/firmware/p4");
    let folder = tempfile::tempdir().unwrap();
    let capture = folder.path().join("frames.pcap");
    // TCP to 10.0.0.1:80 from 10.0.0.2:50000, the connection that the example has installed; then to port 22.
    let mut frame = vec![2, 0, 0, 0, 0, 1, 2, 0, 0, 0, 0, 2, 8, 0];
    frame.extend([
        0x45, 0, 0, 40, 0, 0, 0x40, 0, 64, 6, 0, 0, 10, 0, 0, 2, 10, 0, 0, 1,
    ]);
    frame.extend([
        0xc3, 0x50, 0, 80, 0, 0, 0, 1, 0, 0, 0, 1, 0x50, 0x10, 1, 0, 0, 0, 0, 0,
    ]);
    let mut other = frame.clone();
    other[37] = 22;
    std::fs::write(&capture, pcap::write([&frame[..], &other[..]])).unwrap();
    let p4 = |arguments: &[&str]| {
        let mut command = Command::new(env!("CARGO_BIN_EXE_p4"));
        let output = command
            .args(arguments)
            .current_dir(&firmware)
            .output()
            .unwrap();
        let text = [output.stdout, output.stderr].concat();
        (output.status.success(), String::from_utf8(text).unwrap())
    };
    let (ok, text) = p4(&["--help"]);
    assert!(
        ok && text.contains("check") && text.contains("run"),
        "{text}"
    );
    let rules = "rules/example.p4cfg";
    let (ok, text) = p4(&["check", "fx_main.p4", "--rules", rules]);
    assert!(ok && text.contains("fx_main.p4: accepted"), "{text}");
    let capture = capture.to_str().unwrap();
    let (ok, text) = p4(&["run", "fx_main.p4", "--rules", rules, "--pcap", capture]);
    assert!(ok, "{text}");
    let lines: Vec<_> = text.lines().collect();
    assert_eq!(
        lines[0],
        "1: 54 bytes, dropped, verdict 3, queue 1, flow 7, malformed 0"
    );
    assert_eq!(
        lines[1],
        "2: 54 bytes, to 0x300, verdict 0, queue 0, flow 0, malformed 0"
    );
    for (arguments, says) in [
        (vec!["check", "fx_headers.p4"], "no V1Switch"),
        (vec!["check", "gone.p4"], "gone.p4:1:1: cannot read it"),
        (
            vec!["check", "fx_main.p4", "--rules", "fx_main.p4"],
            "no JSON",
        ),
        (
            vec!["run", "fx_main.p4", "--pcap", "fx_main.p4"],
            "not a pcap file",
        ),
        (
            vec!["run", "fx_main.p4", "--pcap", capture, "--show", "gone"],
            "no word gone",
        ),
        (
            vec!["run", "fx_main.p4", "--pcap", capture, "--port", "x"],
            "write a number",
        ),
    ] {
        let (ok, text) = p4(&arguments);
        assert!(!ok && text.contains(says), "{arguments:?}: {text}");
    }
}
