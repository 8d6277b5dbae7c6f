//! The host's side: a [`Bus`] to a card in another process, and what steers frames there.

use std::fmt::Write as _;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::str::{FromStr, SplitWhitespace};
use std::sync::atomic::{Ordering, fence};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use super::link::{Link, Message, VERSION, clear, is_there};
use crate::buffer::DmaRegion;
use crate::flow::FlowTuple;
use crate::nfp::bus::Bus;
use crate::nfp::memory::Words;
use crate::nfp::regions::{EMULATED, Regions};
use crate::port::wake::Wake;
use crate::port::{PortCounters, PortInfo};
use crate::steer::Steering;
use crate::time::Instant;
use crate::wire::MacAddr;

/// How long a card may take for an answer.
const PATIENCE: Duration = Duration::from_secs(5);
/// How often a card that runs is looked after.
const LOOK_AFTER: Duration = Duration::from_millis(10);

/// Whose time a card lives in.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Clock {
    /// Its own: it works by itself.
    Card,
    /// The host's: it works when it is asked to, at the time that it is told. For tests.
    Host,
}

/// The socket, shared by bus and steering.
#[derive(Debug)]
struct Control {
    link: Mutex<Link>,
    path: PathBuf,
}

impl Control {
    /// One request and its answer.
    fn ask(&self, request: &str, fds: &[BorrowedFd<'_>]) -> io::Result<Message> {
        let link = self.link.lock().unwrap_or_else(PoisonError::into_inner);
        let answer = link
            .send(request, fds)
            .and_then(|()| link.wait(PATIENCE))
            .map_err(|error| self.lost(&error))?;
        match answer.text.split_once(' ') {
            Some(("error", text)) => Err(io::Error::other(format!(
                "the card at {}: {text}",
                self.path.display()
            ))),
            _ if answer.text.starts_with("ok") => Ok(answer),
            _ => Err(self.nonsense(&answer.text)),
        }
    }

    fn gone(&self) -> io::Error {
        io::Error::new(
            io::ErrorKind::NetworkDown,
            format!(
                "the card process at {} is gone; start flextcp-card again, and this program",
                self.path.display()
            ),
        )
    }

    fn lost(&self, error: &io::Error) -> io::Error {
        match error.kind() {
            io::ErrorKind::ConnectionReset | io::ErrorKind::BrokenPipe => self.gone(),
            io::ErrorKind::TimedOut => io::Error::new(
                io::ErrorKind::TimedOut,
                format!(
                    "the card process at {} does not answer; see whether it runs, and start it again",
                    self.path.display()
                ),
            ),
            kind => io::Error::new(
                kind,
                format!("the card at {}: {error}", self.path.display()),
            ),
        }
    }

    fn nonsense(&self, text: &str) -> io::Error {
        io::Error::new(
            io::ErrorKind::InvalidData,
            format!(
                "the card process at {} answers {text:?}; run the flextcp-card of this release",
                self.path.display()
            ),
        )
    }
}

/// A card in another process.
#[derive(Debug)]
pub struct CardProcess {
    control: Arc<Control>,
    clock: Clock,
    bar: Words,
    info: PortInfo,
    regions: Regions,
    kick: Wake,
    /// Readable at an interrupt, and when the card is gone.
    interrupt: OwnedFd,
    poll_at: Option<Instant>,
    looked: Instant,
}

/// The words of an answer, after "ok".
struct Answer<'a>(SplitWhitespace<'a>);

impl<'a> Answer<'a> {
    fn of(message: &'a Message) -> Self {
        let mut words = message.text.split_whitespace();
        words.next();
        Self(words)
    }

    fn next<T: FromStr>(&mut self) -> Option<T> {
        self.0.next()?.parse().ok()
    }
}

impl CardProcess {
    /// Connects to the card process that listens at `path`.
    ///
    /// # Errors
    /// There is none, another host uses it, or it is of another release.
    pub fn connect(path: &Path, clock: Clock) -> io::Result<Self> {
        let link = Link::connect(path).map_err(|error| {
            io::Error::new(
                error.kind(),
                format!(
                    "{error}; start the card there: flextcp-card --socket {}",
                    path.display()
                ),
            )
        })?;
        let control = Arc::new(Control {
            link: Mutex::new(link),
            path: path.to_owned(),
        });
        let whose = match clock {
            Clock::Card => "card",
            Clock::Host => "host",
        };
        let answer = control.ask(&format!("hello {VERSION} {whose}"), &[])?;
        let (bar_len, info) = greeting(&answer).ok_or_else(|| control.nonsense(&answer.text))?;
        let Ok([bar, kick, interrupt]) = <[OwnedFd; 3]>::try_from(answer.fds) else {
            return Err(control.nonsense(&answer.text));
        };
        let bar = DmaRegion::of_other(bar, bar_len)?;
        Ok(Self {
            bar: Words::of(&bar, 0, bar.len() / 4),
            control,
            clock,
            info,
            regions: Regions::new(EMULATED),
            kick: Wake::of_fd(kick),
            interrupt,
            poll_at: None,
            looked: Instant::ZERO,
        })
    }

    /// What decides which frames the card takes off its wire.
    pub fn steering(&self) -> CardSteering {
        CardSteering {
            control: Arc::clone(&self.control),
        }
    }

    /// Kicks the card if it sleeps, or if it cannot say so because its queue does not run.
    fn kick_if_asleep(&self) -> io::Result<()> {
        // After the doorbell, before the flag (see `queue`: sleep of the NIC).
        fence(Ordering::SeqCst);
        let asleep = self
            .regions
            .need_wakeup(&self.bar)
            .is_none_or(|word| word.load(Ordering::Relaxed) != 0);
        if asleep { self.kick.signal() } else { Ok(()) }
    }

    /// The answer to "run": frames, and when the wire has some by itself.
    fn step(&mut self, now: Instant, frames: usize) -> io::Result<usize> {
        let request = format!("run {} {frames}", now.as_nanos());
        let message = self.control.ask(&request, &[])?;
        let mut answer = Answer::of(&message);
        let frames = answer.next();
        self.poll_at = answer.next().map(Instant::from_nanos);
        frames.ok_or_else(|| self.control.nonsense(&message.text))
    }
}

/// BAR's length and the wire, as "hello" is answered.
fn greeting(answer: &Message) -> Option<(usize, PortInfo)> {
    let mut words = Answer::of(answer);
    let bar_len = words.next()?;
    let ifindex = words.next()?;
    let mac = words.next::<u64>()?.to_be_bytes();
    let mtu = words.next()?;
    let tx_checksum = words.next::<u32>()? != 0;
    let segment = words.next::<u32>()?;
    let name: Vec<&str> = words.0.collect();
    let [0, 0, mac @ ..] = mac else {
        return None;
    };
    let info = PortInfo {
        name: name.join(" "),
        ifindex,
        mac: MacAddr(mac),
        mtu,
        tx_checksum,
        tx_segment_max: (segment != 0).then_some(segment),
    };
    Some((bar_len, info))
}

impl Bus for CardProcess {
    fn port(&self) -> &PortInfo {
        &self.info
    }

    fn read(&self, at: u32) -> u32 {
        self.bar.read(at)
    }

    fn write(&mut self, at: u32, value: u32) {
        self.bar.write(at, value);
    }

    fn map(&mut self, region: &Arc<DmaRegion>) -> io::Result<u64> {
        let fd = region.fd().ok_or_else(|| {
            io::Error::new(
                io::ErrorKind::InvalidInput,
                "a card in another process reaches shared regions only: make it with DmaRegion::shared",
            )
        })?;
        let request = format!("map {}", region.len());
        let answer = self.control.ask(&request, &[fd])?;
        let address = Answer::of(&answer)
            .next()
            .ok_or_else(|| self.control.nonsense(&answer.text))?;
        self.regions.insert(address, region);
        Ok(address)
    }

    fn run(&mut self, now: Instant, frames: usize) -> io::Result<usize> {
        if self.clock == Clock::Host {
            return self.step(now, frames);
        }
        if now.saturating_since(self.looked) >= LOOK_AFTER || now < self.looked {
            self.looked = now;
            if !is_there(&self.interrupt) {
                return Err(self.control.gone());
            }
        }
        self.kick_if_asleep()?;
        Ok(0)
    }

    fn is_asynchronous(&self) -> bool {
        self.clock == Clock::Card
    }

    fn arm(&mut self) -> io::Result<bool> {
        if self.clock == Clock::Host {
            let answer = self.control.ask("arm", &[])?;
            return Ok(Answer::of(&answer).next() == Some(1));
        }
        // An interrupt that is cleared here was raised for events that are in memory, which the caller looks for next.
        if !clear(&self.interrupt) {
            return Err(self.control.gone());
        }
        self.kick_if_asleep()?;
        Ok(true)
    }

    fn wake_fd(&self) -> Option<BorrowedFd<'_>> {
        Some(self.interrupt.as_fd())
    }

    fn poll_at(&self) -> Option<Instant> {
        self.poll_at
    }

    fn counters(&self) -> PortCounters {
        // Of a card that is gone nothing is known.
        let Ok(message) = self.control.ask("counters", &[]) else {
            return PortCounters::default();
        };
        let mut answer = Answer::of(&message);
        let mut next = || answer.next().unwrap_or(0);
        PortCounters {
            rx_frames: next(),
            rx_bytes: next(),
            tx_frames: next(),
            tx_bytes: next(),
            rx_dropped: next(),
            tx_full: next(),
            kicks: next(),
        }
    }
}

/// Decides which frames a card in another process takes off its wire.
#[derive(Clone, Debug)]
pub struct CardSteering {
    control: Arc<Control>,
}

impl CardSteering {
    /// The addresses of this host, for wildcards; call it whenever they change.
    ///
    /// # Errors
    /// The card is gone, or its table is full.
    pub fn set_addresses(&self, addresses: impl IntoIterator<Item = IpAddr>) -> io::Result<()> {
        let mut request = "addresses".to_owned();
        for address in addresses {
            // Writing to a string does not fail.
            let _ = write!(request, " {address}");
        }
        self.control.ask(&request, &[]).map(drop)
    }

    fn about(&self, what: &str, tuple: FlowTuple) -> io::Result<()> {
        let (local, remote) = (tuple.local_addr(), tuple.remote_addr());
        let request = format!("{what} {local} {remote}");
        self.control.ask(&request, &[]).map(drop)
    }
}

impl Steering for CardSteering {
    fn own(&mut self, local: SocketAddr) -> io::Result<()> {
        self.control.ask(&format!("own {local}"), &[]).map(drop)
    }

    fn disown(&mut self, local: SocketAddr) -> io::Result<()> {
        self.control.ask(&format!("disown {local}"), &[]).map(drop)
    }

    fn exclude(&mut self, tuple: FlowTuple) -> io::Result<()> {
        self.about("exclude", tuple)
    }

    fn include(&mut self, tuple: FlowTuple) -> io::Result<()> {
        self.about("include", tuple)
    }

    fn serves(&self, address: IpAddr) -> bool {
        self.control
            .ask(&format!("serves {address}"), &[])
            .is_ok_and(|answer| Answer::of(&answer).next() == Some(1))
    }
}
