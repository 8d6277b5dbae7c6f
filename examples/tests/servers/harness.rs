//! Starts a server program on a free port and stops it.

use std::io::{BufRead, BufReader, Read};
use std::net::SocketAddr;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::mpsc;
use std::time::{Duration, Instant};

/// How long anything here may take before the test fails.
pub(crate) const LIMIT: Duration = Duration::from_secs(60);

pub(crate) struct Program {
    child: Child,
    addresses: Vec<SocketAddr>,
    announcement: String,
}

impl Program {
    /// Starts `path` (from `CARGO_BIN_EXE_...`) on a free port of 127.0.0.1 and waits until it
    /// says where it listens.
    pub(crate) fn start(path: &str, args: &[&str]) -> Self {
        let mut with_listen = vec!["--listen", "127.0.0.1:0"];
        with_listen.extend(args);
        Self::start_as(path, &with_listen)
    }

    pub(crate) fn start_as(path: &str, args: &[&str]) -> Self {
        let mut command = Command::new(path);
        command.args(args).arg("--kernel");
        Self::start_command(command)
    }

    /// The same over FlexTCP's types, of which no NIC serves.
    pub(crate) fn start_without_nic(path: &str, args: &[&str]) -> Self {
        let mut command = Command::new(path);
        command
            .args(["--listen", "127.0.0.1:0"])
            .args(args)
            .env("FLEXTCP_NIC", "off");
        Self::start_command(command)
    }

    /// With a log that nobody reads any more.
    pub(crate) fn start_unread(path: &str) -> Self {
        let mut command = Command::new(path);
        command
            .args(["--listen", "127.0.0.1:0", "--kernel"])
            .env("RUST_LOG", "info")
            .stderr(Stdio::piped());
        let mut program = Self::start_command(command);
        drop(program.child.stderr.take());
        program
    }

    fn start_command(mut command: Command) -> Self {
        if !command.get_envs().any(|(name, _)| name == "RUST_LOG") {
            command.env("RUST_LOG", "warn");
        }
        let mut child = command
            .stdout(Stdio::piped())
            .spawn()
            .unwrap_or_else(|error| panic!("{command:?}: {error}"));
        let stdout = child.stdout.take().unwrap();
        let (send, receive) = mpsc::channel();
        std::thread::spawn(move || {
            let mut line = String::new();
            let mut stdout = BufReader::new(stdout);
            let _ = stdout.read_line(&mut line);
            let _ = send.send(line);
            let _ = stdout.read_to_end(&mut Vec::new());
        });
        let announcement = receive.recv_timeout(LIMIT).unwrap_or_default();
        let addresses = announcement
            .split_whitespace()
            .filter_map(|word| word.rsplit("//").next()?.parse().ok())
            .collect();
        let program = Self {
            child,
            addresses,
            announcement,
        };
        assert!(
            !program.addresses.is_empty(),
            "{command:?} said {:?}",
            program.announcement
        );
        program
    }

    pub(crate) fn address(&self) -> SocketAddr {
        self.addresses[0]
    }

    pub(crate) fn addresses(&self) -> &[SocketAddr] {
        &self.addresses
    }

    pub(crate) fn announcement(&self) -> &str {
        &self.announcement
    }

    pub(crate) fn signal(&self, name: &str) {
        let sent = Command::new("kill")
            .args(["-s", name, &self.child.id().to_string()])
            .status()
            .unwrap();
        assert!(sent.success());
    }

    /// Waits for the program's end.
    pub(crate) fn wait(mut self) -> ExitStatus {
        let start = Instant::now();
        loop {
            if let Some(status) = self.child.try_wait().unwrap() {
                return status;
            }
            assert!(start.elapsed() < LIMIT, "the program did not end");
            std::thread::sleep(Duration::from_millis(5));
        }
    }

    /// SIGTERM, and the program must end well.
    pub(crate) fn stop(self) {
        self.signal("TERM");
        let status = self.wait();
        assert!(status.success(), "{status}");
    }
}

impl Drop for Program {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Runs a program that is to fail at its start; returns what it wrote to standard error.
pub(crate) fn failing(path: &str, args: &[&str]) -> String {
    let output = Command::new(path).args(args).output().unwrap();
    assert!(!output.status.success(), "{path} {args:?} started");
    String::from_utf8(output.stderr).unwrap()
}

/// True if `tool` can be run; says so when it cannot.
pub(crate) fn have(tool: &str) -> bool {
    let found = Command::new("sh")
        .args(["-c", &format!("command -v {tool}")])
        .stdout(Stdio::null())
        .status()
        .is_ok_and(|status| status.success());
    if !found {
        eprintln!("SKIPPED: {tool} is not installed");
    }
    found
}
