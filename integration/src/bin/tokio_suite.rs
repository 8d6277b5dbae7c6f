//! Runs tokio's own TCP tests on `flextcp_net` three times: with privileges, over AF_XDP on `lo` of a namespace of its own
//! with the hairpin off, by the software NIC and by the emulated Netronome card; and without, over the hairpin and kernel
//! sockets. Counts the connections that a NIC carried.

use std::error::Error;
use std::ffi::OsStr;
use std::fs;
use std::io;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode, Stdio};
use std::time::{Duration, Instant};

use clap::{Parser, ValueEnum};
use integration::netns::{Namespace, is_privileged, privileges_required};
use integration::process::{self, Finished};
use integration::stats::{STATS_FILE, Stats};

/// Longest time for one test file; the slowest takes three seconds.
const LIMIT: Duration = Duration::from_secs(60);

/// Runs tokio's own TCP tests on flextcp_net: on the software NIC, on the emulated card, and without privileges.
#[derive(Debug, Parser)]
struct Cli {
    /// Only test files whose name contains this
    #[arg(default_value = "")]
    only: String,
    /// Only tests whose name contains this
    #[arg(long, default_value = "")]
    test: String,
    /// Only these ways; all without this
    #[arg(long, value_enum)]
    way: Vec<Way>,
    /// Do not fail when no connection was offloaded
    #[arg(long)]
    kernel: bool,
}

/// What carries the connections.
#[derive(Clone, Copy, Debug, Eq, PartialEq, ValueEnum)]
enum Way {
    /// The software NIC, over AF_XDP on `lo` of a namespace
    Soft,
    /// The emulated Netronome card, over the same
    NfpEmu,
    /// The hairpin and kernel sockets, without privileges
    Unprivileged,
}

impl Way {
    const ALL: [Self; 3] = [Self::Soft, Self::NfpEmu, Self::Unprivileged];

    const fn name(self) -> &'static str {
        match self {
            Self::Soft => "AF_XDP on lo",
            Self::NfpEmu => "emulated card on lo",
            Self::Unprivileged => "no privileges",
        }
    }

    /// Variables of the tests' processes.
    const fn environment(self) -> &'static [(&'static str, &'static str)] {
        const OVER_LO: [(&str, &str); 2] =
            [("FLEXTCP_HAIRPIN", "off"), ("FLEXTCP_INTERFACES", "lo")];
        match self {
            Self::Soft => &OVER_LO,
            Self::NfpEmu => &[OVER_LO[0], OVER_LO[1], ("FLEXTCP_NIC", "nfp-emu")],
            Self::Unprivileged => &[],
        }
    }
}

fn main() -> ExitCode {
    match run(&Cli::parse()) {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("tokio_suite: {error}");
            ExitCode::FAILURE
        }
    }
}

fn run(cli: &Cli) -> Result<bool, Box<dyn Error>> {
    let scratch = Scratch::new()?;
    let mut programs: Vec<PathBuf> = build(&cli.only)?
        .iter()
        .map(|(name, program)| scratch.add(name, program))
        .collect::<io::Result<_>>()?;
    programs.sort();

    let mut totals = Vec::new();
    for way in Way::ALL {
        if !cli.way.is_empty() && !cli.way.contains(&way) {
            continue;
        }
        let stats = scratch.0.path().join(format!("{way:?}.stats"));
        if way == Way::Unprivileged {
            totals.push(Total::of(way, cli, &programs, &stats, unprivileged)?);
        } else if is_privileged() {
            let namespace = Namespace::new("tokio")?;
            let start = |program: &Path| namespace.command(program);
            totals.push(Total::of(way, cli, &programs, &stats, start)?);
        } else if privileges_required() {
            return Err("the runs over AF_XDP need root, and FLEXTCP_REQUIRE_PRIVILEGED=1".into());
        } else {
            println!(
                "SKIPPED {}: it needs CAP_NET_ADMIN and CAP_SYS_ADMIN (run as root)",
                way.name()
            );
        }
    }

    for total in &totals {
        println!(
            "tokio's tests, {}: {} passed, {} failed, {} connections offloaded, {} on kernel sockets, {:.1} s",
            total.name,
            total.passed,
            total.failed,
            total.offloaded,
            total.on_kernel,
            total.time.as_secs_f64()
        );
    }
    let passed: u64 = totals.iter().map(|total| total.passed).sum();
    let failed: u64 = totals.iter().map(|total| total.failed).sum();
    println!("{passed} passed, {failed} failed");
    let on_kernel = totals.iter().any(|total| total.offloaded == 0);
    if on_kernel && !cli.kernel {
        println!(
            "no connection was offloaded: the tests ran on kernel sockets, which proves nothing"
        );
    }
    Ok(passed > 0 && failed == 0 && (cli.kernel || !on_kernel))
}

/// `program` as an ordinary user.
fn unprivileged(program: &Path) -> Command {
    if !is_privileged() {
        return Command::new(program);
    }
    let mut command = Command::new("setpriv");
    command
        .args([
            "--reuid=65534",
            "--regid=65534",
            "--clear-groups",
            "--no-new-privs",
        ])
        .arg(program);
    command
}

struct Total {
    name: &'static str,
    passed: u64,
    failed: u64,
    /// Connections that a NIC carried; both ends of one count.
    offloaded: u64,
    /// Connections on kernel sockets.
    on_kernel: u64,
    time: Duration,
}

impl Total {
    fn of(
        way: Way,
        cli: &Cli,
        programs: &[PathBuf],
        stats: &Path,
        start: impl Fn(&Path) -> Command,
    ) -> Result<Self, Box<dyn Error>> {
        let started = Instant::now();
        let name = way.name();
        let mut total = Self {
            name,
            passed: 0,
            failed: 0,
            offloaded: 0,
            on_kernel: 0,
            time: Duration::ZERO,
        };
        for program in programs {
            let file = program
                .file_name()
                .map(OsStr::to_string_lossy)
                .unwrap_or_default();
            let mut command = start(program);
            command
                .arg(&cli.test)
                .current_dir(program.parent().unwrap_or_else(|| Path::new("/")))
                .envs(way.environment().iter().copied())
                .env(STATS_FILE, stats);
            let (passed, failed, complaint) = match process::run(command, LIMIT) {
                Ok(finished) => {
                    // No summary: it ended before its last test did.
                    let (passed, mut failed) = counts(&finished.stdout).unwrap_or((0, 1));
                    if !finished.status.success() {
                        failed = failed.max(1);
                    }
                    let Finished {
                        status,
                        stdout,
                        stderr,
                    } = finished;
                    (passed, failed, format!("{status}\n{stdout}{stderr}"))
                }
                Err(error) => (0, 1, error.to_string()),
            };
            println!("{name}: {file}: {passed} passed, {failed} failed");
            if failed > 0 {
                println!("{complaint}");
            }
            total.passed += passed;
            total.failed += failed;
        }
        for stats in Stats::read_lines(stats)? {
            total.offloaded += stats.count("connections.ever_offloaded");
            total.on_kernel += stats.count("connections.kernel_opened");
        }
        total.time = started.elapsed();
        Ok(total)
    }
}

/// Reads libtest's "test result: ok. 7 passed; 0 failed; ...".
fn counts(output: &str) -> Option<(u64, u64)> {
    let result = output
        .lines()
        .rev()
        .find(|line| line.starts_with("test result:"))?;
    let count = |what: &str| {
        result
            .split([';', '.'])
            .find_map(|part| part.trim().strip_suffix(what))
            .and_then(|number| number.trim().parse().ok())
    };
    Some((count("passed")?, count("failed")?))
}

/// The test files whose name contains `only`.
fn names(only: &str) -> io::Result<Vec<String>> {
    let mut names = Vec::new();
    for entry in fs::read_dir(concat!(env!("CARGO_MANIFEST_DIR"), "/tokio-suite/tests"))? {
        let path = entry?.path();
        if let Some(name) = path.file_stem().and_then(OsStr::to_str)
            && name.contains(only)
        {
            names.push(name.to_owned());
        }
    }
    Ok(names)
}

/// Builds the tests; their names and executables.
fn build(only: &str) -> Result<Vec<(String, PathBuf)>, Box<dyn Error>> {
    let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let output = Command::new(cargo)
        .args(["test", "--package", "tokio-suite", "--no-run"])
        .args(names(only)?.iter().flat_map(|name| ["--test", name]))
        .args(["--message-format", "json-render-diagnostics"])
        .current_dir(env!("CARGO_MANIFEST_DIR"))
        .stderr(Stdio::inherit())
        .output()?;
    if !output.status.success() {
        return Err("tokio's tests do not build".into());
    }
    let mut programs = Vec::new();
    for line in String::from_utf8_lossy(&output.stdout).lines() {
        let Ok(message) = serde_json::from_str::<serde_json::Value>(line) else {
            continue;
        };
        let target = &message["target"];
        if let (Some("test"), Some(name), Some(program)) = (
            target["kind"][0].as_str(),
            target["name"].as_str(),
            message["executable"].as_str(),
        ) {
            programs.push((name.to_owned(), PathBuf::from(program)));
        }
    }
    Ok(programs)
}

/// A directory where any user can run the tests and leave statistics: the build directory may be closed to others.
struct Scratch(tempfile::TempDir);

impl Scratch {
    fn new() -> io::Result<Self> {
        let directory = tempfile::Builder::new()
            .prefix("tokio-suite-")
            .permissions(fs::Permissions::from_mode(0o777))
            .tempdir()?;
        fs::set_permissions(directory.path(), fs::Permissions::from_mode(0o777))?;
        // One of tokio's tests reads the manifest of the package that it belongs to.
        let manifest = Path::new(env!("CARGO_MANIFEST_DIR")).join("tokio-suite/Cargo.toml");
        let copy = directory.path().join("Cargo.toml");
        fs::copy(manifest, &copy)?;
        fs::set_permissions(copy, fs::Permissions::from_mode(0o644))?;
        Ok(Self(directory))
    }

    fn add(&self, name: &str, program: &Path) -> io::Result<PathBuf> {
        let copy = self.0.path().join(name);
        fs::copy(program, &copy)?;
        fs::set_permissions(&copy, fs::Permissions::from_mode(0o755))?;
        Ok(copy)
    }
}
