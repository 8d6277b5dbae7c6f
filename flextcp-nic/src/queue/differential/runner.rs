//! `firmware/test/runner.c`, built for other machines and with other checks, fed with the steps.

use std::fs::File;
use std::io::{BufWriter, Write};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use super::steps::{INSTALL, Step};
use super::{Entry, Results, WORDS};

/// Planted faults (`FX_FAULT`), from 1.
pub(super) const FAULTS: u32 = 5;

/// Writes the steps, and the hashes that the runner is to print.
pub(super) struct Writer {
    file: BufWriter<File>,
    hashes: [u32; 2],
    steps: u64,
    lines: String,
}

impl Writer {
    pub(super) fn new(path: &Path) -> Self {
        let file = File::create(path).expect("the temporary folder is writable");
        Self {
            file: BufWriter::with_capacity(1 << 20, file),
            hashes: [0x811c_9dc5, 0x0100_0193],
            steps: 0,
            lines: String::new(),
        }
    }

    fn word(&mut self, word: u32) {
        let bytes = word.to_be_bytes();
        self.file
            .write_all(&bytes)
            .expect("there is room for the steps");
    }

    fn hash(&mut self, word: u32) {
        let [a, b] = &mut self.hashes;
        *a = (*a ^ word).wrapping_mul(0x0100_0193);
        *b = (b.rotate_left(5) ^ word).wrapping_mul(0x9e37_79b1);
    }

    pub(super) fn step(&mut self, step: &Step, entry: &Entry, results: &Results) {
        if step.operation == INSTALL && self.steps > 0 {
            self.lines += &format!("{:08x}{:08x}\n", self.hashes[0], self.hashes[1]);
        }
        let given = step
            .args
            .iter()
            .rposition(|&word| word != 0)
            .map_or(0, |last| last + 1);
        self.word(step.operation << 24 | given as u32);
        step.args[..given].iter().for_each(|&word| self.word(word));
        entry[..WORDS].iter().for_each(|&word| self.hash(word));
        results.iter().for_each(|&word| self.hash(word));
        self.steps += 1;
    }

    /// What the runner is to print.
    pub(super) fn finish(mut self) -> String {
        self.file.flush().expect("there is room for the steps");
        let [a, b] = self.hashes;
        self.lines + &format!("{a:08x}{b:08x} {}\n", self.steps)
    }
}

/// The C files of a folder of the firmware.
pub(in crate::queue) fn sources(folder: &str) -> Vec<PathBuf> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("firmware");
    let entries = std::fs::read_dir(root.join(folder)).expect("the firmware is there");
    let files = entries.filter_map(|entry| entry.ok().map(|entry| entry.path()));
    let mut files: Vec<_> = files
        .filter(|file| file.extension().is_some_and(|ext| ext == "c"))
        .collect();
    files.sort();
    files
}

/// Whether a program can be run. A missing one is said, and fails under `FLEXTCP_REQUIRE_PRIVILEGED`, which CI sets.
pub(in crate::queue) fn has(program: &str, what: &str) -> bool {
    let status = Command::new(program)
        .arg("--version")
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .status();
    let there = status.is_ok_and(|status| status.success());
    let required = std::env::var_os("FLEXTCP_REQUIRE_PRIVILEGED").is_some();
    assert!(there || !required, "{what} needs {program}");
    if !there {
        eprintln!("SKIPPED: {what} needs {program}");
    }
    there
}

/// A build of the runner.
pub(super) struct Build {
    pub(super) name: String,
    compiler: &'static str,
    flags: Vec<String>,
    /// What runs the program.
    emulator: Option<&'static str>,
}

impl Build {
    /// All that must agree and can be made here.
    pub(super) fn all() -> Vec<Self> {
        let strict = [
            "-std=c89",
            "-pedantic",
            "-Wall",
            "-Wextra",
            "-Werror",
            "-Wdeclaration-after-statement",
            "-Wvla",
        ];
        let build = |name: &str, compiler, more: &[&str], emulator| Self {
            name: name.to_owned(),
            compiler,
            flags: strict
                .iter()
                .chain(more)
                .map(|&flag| flag.to_owned())
                .collect(),
            emulator,
        };
        let sanitize = [
            "-O1",
            "-g",
            "-fsanitize=address,undefined",
            "-fno-sanitize-recover=all",
        ];
        let builds = vec![
            build("gcc", "gcc", &["-O2"], None),
            build("gcc, sanitizers", "gcc", &sanitize, None),
            build("clang, sanitizers", "clang", &sanitize, None),
            build(
                "PowerPC",
                "powerpc-linux-gnu-gcc",
                &["-O2", "-static"],
                Some("qemu-ppc"),
            ),
        ];
        builds.into_iter().filter(Self::is_possible).collect()
    }

    /// The plain one with a fault.
    pub(super) fn with_fault(fault: u32) -> Self {
        Self {
            name: format!("fault {fault}"),
            compiler: "cc",
            flags: vec!["-O2".to_owned(), format!("-DFX_FAULT={fault}")],
            emulator: None,
        }
    }

    fn is_possible(&self) -> bool {
        let programs = [Some(self.compiler), self.emulator];
        programs
            .into_iter()
            .flatten()
            .all(|program| has(program, &self.name))
    }

    pub(super) fn compile(&self, folder: &Path) -> PathBuf {
        let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("firmware");
        let program = folder.join(self.name.replace([' ', ','], "-"));
        let mut command = Command::new(self.compiler);
        command.args(&self.flags);
        for include in ["include", "core", "test"] {
            command.arg("-I").arg(root.join(include));
        }
        command.args(sources("core"));
        command.args(["step.c", "runner.c"].map(|file| root.join("test").join(file)));
        let output = command
            .arg("-o")
            .arg(&program)
            .output()
            .expect("the compiler runs");
        assert!(
            output.status.success(),
            "{}: {}",
            self.name,
            String::from_utf8_lossy(&output.stderr)
        );
        program
    }

    /// What it prints for the steps of a file.
    pub(super) fn run(&self, program: &Path, vectors: &Path) -> String {
        let mut command = match self.emulator {
            Some(emulator) => {
                let mut command = Command::new(emulator);
                command.arg(program);
                command
            }
            None => Command::new(program),
        };
        let input = File::open(vectors).expect("the steps were written");
        let output = command.stdin(input).output().expect("the program runs");
        let errors = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "{}: {errors}", self.name);
        String::from_utf8_lossy(&output.stdout).into_owned()
    }
}
