//! Child processes that die with their test, and waiting for conditions.

use std::fs;
use std::io::{self, BufRead as _, BufReader, Read, Write as _};
use std::net::SocketAddr;
use std::process::{Child, ChildStdin, Command, ExitStatus, Stdio};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};

const POLL: Duration = Duration::from_millis(5);

/// Waits until `condition` holds.
///
/// # Errors
/// `TimedOut`, naming `what`, when it does not within `limit`.
pub fn wait_until(
    limit: Duration,
    what: &str,
    mut condition: impl FnMut() -> bool,
) -> io::Result<()> {
    wait_for(limit, what, || condition().then_some(()))
}

/// Waits until `probe` yields something.
///
/// # Errors
/// `TimedOut`, naming `what`, when it does not within `limit`.
pub fn wait_for<T>(
    limit: Duration,
    what: &str,
    mut probe: impl FnMut() -> Option<T>,
) -> io::Result<T> {
    let deadline = Instant::now() + limit;
    loop {
        if let Some(found) = probe() {
            return Ok(found);
        }
        if Instant::now() >= deadline {
            return Err(io::Error::new(
                io::ErrorKind::TimedOut,
                format!("waited {limit:?} for {what}"),
            ));
        }
        thread::sleep(POLL);
    }
}

/// Lets one test at a time use the machine: loads from several at once measure each other.
pub fn serial() -> MutexGuard<'static, ()> {
    static SERIAL: Mutex<()> = Mutex::new(());
    SERIAL.lock().unwrap_or_else(PoisonError::into_inner)
}

/// A child process, killed when dropped, whose output lines are kept.
#[derive(Debug)]
pub struct Process {
    child: Child,
    stdin: Option<ChildStdin>,
    stdout: Lines,
    stderr: Lines,
}

/// The output of a process that ended.
#[derive(Debug)]
pub struct Finished {
    /// How it ended.
    pub status: ExitStatus,
    /// What it wrote to its standard output.
    pub stdout: String,
    /// What it wrote to its standard error.
    pub stderr: String,
}

impl Process {
    /// Starts `command` with piped standard streams.
    ///
    /// # Errors
    /// When the program cannot be started.
    pub fn spawn(mut command: Command) -> io::Result<Self> {
        let mut child = command
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .map_err(|error| {
                io::Error::new(error.kind(), format!("cannot run {command:?}: {error}"))
            })?;
        let stdin = child.stdin.take();
        let stdout = Lines::collect(child.stdout.take());
        let stderr = Lines::collect(child.stderr.take());
        Ok(Self {
            child,
            stdin,
            stdout,
            stderr,
        })
    }

    /// Its process id. Under `ip netns exec` and `taskset` too, which replace themselves by their program.
    pub fn id(&self) -> u32 {
        self.child.id()
    }

    /// Waits for a line on standard output or standard error for which `pick` yields something.
    ///
    /// # Errors
    /// `TimedOut`, or `UnexpectedEof` when the process ended before, with all it wrote.
    pub fn wait_line<T>(
        &mut self,
        limit: Duration,
        what: &str,
        pick: impl Fn(&str) -> Option<T>,
    ) -> io::Result<T> {
        let found = wait_for(limit, what, || {
            let ended = !matches!(self.child.try_wait(), Ok(None))
                && self.stdout.ended()
                && self.stderr.ended();
            let found = self.stdout.find(&pick).or_else(|| self.stderr.find(&pick));
            (found.is_some() || ended).then_some(found)
        });
        match found {
            Ok(Some(found)) => Ok(found),
            Ok(None) => Err(io::Error::new(
                io::ErrorKind::UnexpectedEof,
                format!(
                    "the process ended before {what}:\n{}{}",
                    self.stdout(),
                    self.stderr()
                ),
            )),
            Err(error) => Err(io::Error::new(
                error.kind(),
                format!("{error}:\n{}{}", self.stdout(), self.stderr()),
            )),
        }
    }

    /// Waits until it tells the address that it listens on, as the servers here do: the first one, if there are several.
    ///
    /// # Errors
    /// As of [`Self::wait_line`].
    pub fn wait_listening(&mut self, limit: Duration) -> io::Result<SocketAddr> {
        self.wait_line(limit, "the server to listen", listening_on)
    }

    /// Writes a line to its standard input.
    ///
    /// # Errors
    /// When it closed its standard input, or ended.
    pub fn send_line(&mut self, line: &str) -> io::Result<()> {
        let stdin = self.stdin.as_mut().ok_or(io::ErrorKind::BrokenPipe)?;
        stdin.write_all(format!("{line}\n").as_bytes())?;
        stdin.flush()
    }

    /// Waits for the line of standard output with this index.
    ///
    /// # Errors
    /// `TimedOut`, or `UnexpectedEof` when the process ended before, with its standard error.
    pub fn wait_nth_line(&mut self, limit: Duration, index: usize) -> io::Result<String> {
        let found = wait_for(limit, "an answer", || {
            let ended = !matches!(self.child.try_wait(), Ok(None)) && self.stdout.ended();
            let line = self.stdout.state().lines.get(index).cloned();
            (line.is_some() || ended).then_some(line)
        });
        match found {
            Ok(Some(line)) => Ok(line),
            Ok(None) => Err(io::Error::new(
                io::ErrorKind::UnexpectedEof,
                format!("the process ended: {}", self.stderr()),
            )),
            Err(error) => Err(io::Error::new(
                error.kind(),
                format!("{error}: {}", self.stderr()),
            )),
        }
    }

    /// What it wrote to standard output so far.
    pub fn stdout(&self) -> String {
        self.stdout.text()
    }

    /// What it wrote to standard error so far.
    pub fn stderr(&self) -> String {
        self.stderr.text()
    }

    /// Closes its standard input.
    pub fn close_stdin(&mut self) {
        self.stdin = None;
    }

    /// Whether it still runs.
    pub fn is_running(&mut self) -> bool {
        matches!(self.child.try_wait(), Ok(None))
    }

    /// Sends a signal.
    ///
    /// # Errors
    /// When the process is gone.
    pub fn signal(&self, signal: Signal) -> io::Result<()> {
        let pid = i32::try_from(self.child.id())
            .ok()
            .and_then(Pid::from_raw)
            .ok_or_else(|| io::Error::other("the process id is not positive"))?;
        Ok(kill_process(pid, signal)?)
    }

    /// Waits for its end; kills it after `limit`.
    ///
    /// # Errors
    /// `TimedOut` when it had to be killed.
    pub fn finish(mut self, limit: Duration) -> io::Result<Finished> {
        self.stdin = None;
        let status = wait_for(limit, "a process to end", || {
            self.child.try_wait().ok().flatten()
        });
        let status = status.map_err(|error| {
            io::Error::new(
                error.kind(),
                format!("{error}:\n{}{}", self.stdout(), self.stderr()),
            )
        })?;
        wait_until(Duration::from_secs(5), "the end of its output", || {
            self.stdout.ended() && self.stderr.ended()
        })?;
        Ok(Finished {
            status,
            stdout: self.stdout(),
            stderr: self.stderr(),
        })
    }

    /// Processor time used so far by all of its threads, user and system.
    ///
    /// # Errors
    /// When the process is gone.
    pub fn cpu_time(&self) -> io::Result<Duration> {
        let stat = fs::read_to_string(format!("/proc/{}/stat", self.id()))?;
        // Fields after the parenthesised name, which may itself hold spaces; utime and stime are 14 and 15 of all.
        let fields: Vec<&str> = stat
            .rsplit(')')
            .next()
            .unwrap_or_default()
            .split_whitespace()
            .collect();
        let ticks = |index: usize| {
            fields
                .get(index)
                .and_then(|field| field.parse::<u64>().ok())
                .unwrap_or(0)
        };
        let hertz = rustix::param::clock_ticks_per_second().max(1);
        Ok(Duration::from_millis(
            (ticks(11) + ticks(12)) * 1000 / hertz,
        ))
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        if self.is_running() {
            let _ = self.child.kill();
        }
        let _ = self.child.wait();
    }
}

/// Runs `command` to its end.
///
/// # Errors
/// When it cannot be started, or did not end within `limit` and was killed.
pub fn run(command: Command, limit: Duration) -> io::Result<Finished> {
    Process::spawn(command)?.finish(limit)
}

/// The address in a line such as `http: listening on 127.0.0.1:8080 over FlexTCP`.
fn listening_on(line: &str) -> Option<SocketAddr> {
    let (_, rest) = line.split_once("listening on ")?;
    let word = rest.split_whitespace().next()?;
    let address = word.split_once("://").map_or(word, |(_, address)| address);
    address.trim_end_matches('/').parse().ok()
}

#[derive(Debug, Clone, Default)]
struct Lines(Arc<Mutex<LinesState>>);

#[derive(Debug, Default)]
struct LinesState {
    lines: Vec<String>,
    ended: bool,
}

impl Lines {
    fn collect(from: Option<impl Read + Send + 'static>) -> Self {
        let lines = Self::default();
        let Some(from) = from else {
            lines.state().ended = true;
            return lines;
        };
        let sink = lines.clone();
        thread::spawn(move || {
            let mut from = BufReader::new(from);
            let mut line = Vec::new();
            while from.read_until(b'\n', &mut line).is_ok_and(|n| n > 0) {
                sink.state()
                    .lines
                    .push(String::from_utf8_lossy(&line).into_owned());
                line.clear();
            }
            sink.state().ended = true;
        });
        lines
    }

    fn state(&self) -> MutexGuard<'_, LinesState> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn ended(&self) -> bool {
        self.state().ended
    }

    fn find<T>(&self, pick: impl Fn(&str) -> Option<T>) -> Option<T> {
        self.state().lines.iter().find_map(|line| pick(line))
    }

    fn text(&self) -> String {
        self.state().lines.concat()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_address_is_found_in_the_first_line() {
        let line = "http: listening on [::1]:8080 over FlexTCP\n";
        assert_eq!(listening_on(line), "[::1]:8080".parse().ok());
        let line = "http: listening on https://10.0.0.1:1 https://[::1]:2 over kernel sockets\n";
        assert_eq!(listening_on(line), "10.0.0.1:1".parse().ok());
        assert_eq!(listening_on("nothing"), None);
    }
}
