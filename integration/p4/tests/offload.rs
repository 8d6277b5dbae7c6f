//! `bpf/steer_hw.o` against the limits of the card's stock BPF firmware and its driver, as far as public sources tell
//! (`docs/netronome-p4.md`). No card has loaded it; the kernel refuses it without one, and its twin is run instead.

use std::collections::BTreeMap;
use std::path::Path;

use aya_obj::Object;

/// One instruction.
#[derive(Clone, Copy, Debug)]
struct Instruction {
    code: u8,
    dst: u8,
    src: u8,
    off: i16,
    imm: i32,
}

#[derive(Clone, Copy, Debug)]
struct Map {
    kind: u32,
    key: u32,
    value: u32,
    entries: u32,
    flags: u32,
}

#[derive(Clone, Debug)]
struct Card {
    instructions: Vec<Instruction>,
    maps: BTreeMap<String, Map>,
}

// Classes, operations and modes of the instruction set.
const LDX: u8 = 0x01;
const ST: u8 = 0x02;
const STX: u8 = 0x03;
const ALU: u8 = 0x04;
const JMP: u8 = 0x05;
const JMP32: u8 = 0x06;
const ALU64: u8 = 0x07;
const MEM: u8 = 0x60;
const ATOMIC: u8 = 0xc0;
const ADD_IMM64: u8 = 0x07;
const MOV_REG64: u8 = 0xbf;
const MOV_IMM64: u8 = 0xb7;
const STORE_WORD: u8 = 0x63;
const LOAD_IMM64: u8 = 0x18;
const CALL: u8 = 0x85;
const EXIT: u8 = 0x95;
const GOTO: u8 = 0x05;
const R0: u8 = 0;
const R1: u8 = 1;
const FRAME: u8 = 10;

const HASH: u32 = 1;
const ARRAY: u32 = 2;
const MAP_LOOKUP: i32 = 1;
/// `offsetof(struct xdp_md, rx_queue_index)`.
const RX_QUEUE_INDEX: i16 = 16;
/// Verdicts that the card knows: ABORTED, DROP, PASS and TX.
const VERDICTS: std::ops::RangeInclusive<i32> = 0..=3;

/// The firmware's stack for a program, in bytes.
const STACK: i32 = 512;
/// What the kernel allowed programs before it allowed more; the firmware says its own number when it is there.
const INSTRUCTIONS: usize = 4096;
/// Key and value of a map, each rounded up to eight bytes.
const KEY_AND_VALUE: u32 = 64;
const KEY: u32 = 56;
const MAPS: usize = 128;
/// In all maps together.
const ENTRIES: u32 = 2_048_000;

fn load(name: &str) -> Card {
    let path = Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("../../flextcp-nic/bpf")
        .join(name);
    let object = Object::parse(&std::fs::read(path).unwrap()).unwrap();
    let programs = object.programs.len();
    assert_eq!(object.functions.len(), programs, "no subprograms");
    // `steer.o` has another for the kernel, which runs before XDP.
    let mut functions = object.functions.values();
    let function = functions
        .find(|of| of.name.starts_with("steer"))
        .expect("the program's name");
    let instructions = function
        .instructions
        .iter()
        .map(|of| Instruction {
            code: of.code,
            dst: of.dst_reg(),
            src: of.src_reg(),
            off: of.off,
            imm: of.imm,
        })
        .collect();
    let maps = object
        .maps
        .iter()
        .map(|(name, of)| {
            let map = Map {
                kind: of.map_type(),
                key: of.key_size(),
                value: of.value_size(),
                entries: of.max_entries(),
                flags: of.map_flags(),
            };
            (name.clone(), map)
        })
        .collect();
    Card { instructions, maps }
}

/// What the card would not take.
fn violations(card: &Card) -> Vec<String> {
    let mut found = maps(&card.maps);
    let code = &card.instructions;
    if code.len() > INSTRUCTIONS {
        found.push(format!("{} instructions", code.len()));
    }
    let writes = |register: u8| {
        code.iter()
            .filter(|of| {
                let to_register = matches!(of.code & 7, LDX | ALU | ALU64) || of.code == LOAD_IMM64;
                to_register && of.dst == register
            })
            .count()
    };
    // The register that keeps the context: copied from r1 once, and never written again.
    let context = code
        .iter()
        .take_while(|of| of.code & 7 != JMP)
        .find(|of| of.code == MOV_REG64 && of.src == R1)
        .map(|of| of.dst)
        .filter(|register| writes(*register) == 1);
    let mut deepest = 0;
    let mut skip = false;
    for (at, of) in code.iter().enumerate() {
        // The second half of a 64-bit constant is no instruction.
        if std::mem::take(&mut skip) {
            continue;
        }
        skip = of.code == LOAD_IMM64;
        let mut report = |what: String| found.push(format!("{at}: {what}"));
        let (class, operation) = (of.code & 7, of.code & 0xf0);
        match class {
            ALU | ALU64 => match operation {
                0x20 if of.code & 8 != 0 => report("multiplies by a variable".to_owned()),
                0x30 | 0x90 if of.code & 8 != 0 => report("divides by a variable".to_owned()),
                _ => {}
            },
            JMP32 => report("a 32-bit jump".to_owned()),
            STX if of.code & 0xe0 == ATOMIC && of.imm != 0 => {
                report("an atomic operation other than addition".to_owned());
            }
            JMP if of.code == CALL && of.src != 0 => report("calls a subprogram".to_owned()),
            JMP if of.code == CALL && of.imm != MAP_LOOKUP => {
                report(format!("calls helper {}", of.imm));
            }
            JMP if of.off < 0 && backward_into_a_loop(code, at) => report("loops".to_owned()),
            _ => {}
        }
        if matches!(class, LDX | ST | STX) && of.code & 0xe0 == MEM {
            let base = if class == LDX { of.src } else { of.dst };
            if base == FRAME {
                deepest = deepest.min(i32::from(of.off));
            } else if class != LDX {
                let to_queue = of.code == STORE_WORD && of.off == RX_QUEUE_INDEX;
                if !(to_queue && Some(base) == context) {
                    report(format!("stores at r{base} + {}", of.off));
                }
            }
        }
        if of.code == ADD_IMM64 && at > 0 {
            let before = code[at - 1];
            if before.code == MOV_REG64 && before.src == FRAME && before.dst == of.dst {
                deepest = deepest.min(of.imm);
            }
        }
        if of.dst == R0 && leads_to_exit(code, at + 1) {
            match of.code {
                MOV_IMM64 if VERDICTS.contains(&of.imm) => {}
                MOV_IMM64 => report(format!("returns {}", of.imm)),
                code if matches!(code & 7, LDX | ALU | ALU64) => {
                    report("returns what it computed".to_owned());
                }
                _ => {}
            }
        }
    }
    if deepest < -STACK {
        found.push(format!("{} bytes of stack", -deepest));
    }
    found
}

/// Whether there are only unconditional jumps from `at` to an exit.
fn leads_to_exit(code: &[Instruction], mut at: usize) -> bool {
    for _ in 0..code.len() {
        match code.get(at) {
            Some(of) if of.code == GOTO => at = target(at, of.off),
            of => return of.is_some_and(|of| of.code == EXIT),
        }
    }
    false
}

/// Whether the jump at `at` closes a circle: what it jumps back to can come here again.
fn backward_into_a_loop(code: &[Instruction], at: usize) -> bool {
    let mut reached = vec![false; code.len()];
    let mut pending = vec![target(at, code[at].off)];
    while let Some(next) = pending.pop() {
        if next == at {
            return true;
        }
        let Some(of) = code.get(next) else { continue };
        if std::mem::replace(&mut reached[next], true) || of.code == EXIT {
            continue;
        }
        let jumps = of.code & 7 == JMP && of.code != CALL;
        if jumps {
            pending.push(target(next, of.off));
        }
        if of.code != GOTO {
            pending.push(next + if of.code == LOAD_IMM64 { 2 } else { 1 });
        }
    }
    false
}

fn target(at: usize, off: i16) -> usize {
    (at + 1).wrapping_add_signed(off.into())
}

fn maps(maps: &BTreeMap<String, Map>) -> Vec<String> {
    let mut found = Vec::new();
    let entries: u32 = maps.values().map(|map| map.entries).sum();
    if maps.len() > MAPS || entries > ENTRIES {
        found.push(format!("{} maps of {entries} entries", maps.len()));
    }
    for (name, map) in maps {
        if ![HASH, ARRAY].contains(&map.kind) {
            found.push(format!("{name}: map type {}", map.kind));
        }
        if map.flags != 0 {
            found.push(format!("{name}: map flags {:#x}", map.flags));
        }
        let size = map.key.next_multiple_of(8) + map.value.next_multiple_of(8);
        if size > KEY_AND_VALUE || map.key > KEY {
            found.push(format!("{name}: key and value of {size} bytes"));
        }
    }
    found
}

#[test]
fn the_cards_program_keeps_to_the_cards_limits() {
    let card = load("steer_hw.o");
    assert_eq!(violations(&card), Vec::<String>::new());
    let stores = card
        .instructions
        .iter()
        .filter(|of| of.code == STORE_WORD && of.dst != FRAME)
        .count();
    assert!(stores > 0, "it steers");
    println!(
        "{} instructions, {} maps",
        card.instructions.len(),
        card.maps.len()
    );
}

#[test]
fn the_twin_is_the_program_but_for_the_store() {
    let (card, twin) = (load("steer_hw.o"), load("steer_hw_twin.o"));
    let maps = |of: &Card| format!("{:?}", of.maps);
    assert_eq!(maps(&card), maps(&twin));
    // Same look-ups in the same order.
    let calls = |of: &Card| -> Vec<i32> {
        let calls = of.instructions.iter().filter(|of| of.code == CALL);
        calls.map(|of| of.imm).collect()
    };
    assert_eq!(calls(&card), calls(&twin));
    let differ = card.instructions.len().abs_diff(twin.instructions.len());
    assert!(differ < 8, "{differ} instructions more or fewer");
}

/// The driver's program redirects to sockets, which the card cannot: the check has to say so.
#[test]
fn the_drivers_program_is_refused() {
    let found = violations(&load("steer.o")).join("\n");
    for what in [
        "calls helper 51",
        "SOCKETS: map type 17",
        "map flags",
        "32-bit jump",
    ] {
        assert!(found.contains(what), "no {what:?} in:\n{found}");
    }
}

#[test]
fn every_limit_is_noticed() {
    let sound = load("steer_hw.o");
    let insn = |code, dst, src, off, imm| Instruction {
        code,
        dst,
        src,
        off,
        imm,
    };
    for (planted, what) in [
        (insn(0x2f, 2, 3, 0, 0), "multiplies"),
        (insn(0x3f, 2, 3, 0, 0), "divides"),
        (insn(0x9f, 2, 3, 0, 0), "divides"),
        (insn(0x16, 2, 0, 0, 0), "32-bit jump"),
        (insn(0xdb, 2, 3, 0, 1), "atomic"),
        (insn(CALL, 0, 1, 0, 3), "subprogram"),
        (insn(CALL, 0, 0, 0, 2), "helper 2"),
        (insn(STORE_WORD, 6, 1, 12, 0), "stores at r6 + 12"),
        (insn(STORE_WORD, 3, 1, 16, 0), "stores at r3 + 16"),
        (insn(0x7b, FRAME, 1, -520, 0), "bytes of stack"),
        (insn(MOV_IMM64, R0, 0, 0, 4), "returns 4"),
        (insn(0x79, R0, 1, 0, 0), "returns what"),
        (insn(GOTO, 0, 0, -1, 0), "loops"),
    ] {
        let mut broken = sound.clone();
        // Behind the end, where it moves no jump's target.
        broken.instructions.push(planted);
        broken.instructions.push(insn(EXIT, 0, 0, 0, 0));
        let found = violations(&broken).join("\n");
        assert!(found.contains(what), "no {what:?} in {found:?}");
    }
    let map = |kind, key, value, entries, flags| Map {
        kind,
        key,
        value,
        entries,
        flags,
    };
    for (planted, what) in [
        (map(9, 4, 4, 1, 0), "map type 9"),
        (map(HASH, 4, 4, 1, 1), "map flags"),
        (map(HASH, 60, 4, 1, 0), "72 bytes"),
        (map(HASH, 4, 57, 1, 0), "72 bytes"),
        (map(HASH, 4, 4, 100_000, 0), "entries"),
    ] {
        let mut broken = sound.clone();
        broken.maps.insert("PLANTED".to_owned(), planted);
        let found = violations(&broken).join("\n");
        assert!(found.contains(what), "no {what:?} in {found:?}");
    }
}
