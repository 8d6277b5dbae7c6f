//! The card's side: serves one host after the other.

use std::fs::{Permissions, set_permissions};
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::str::SplitWhitespace;
use std::time::{self, Duration};

use rustix::net::{SocketFlags, accept_with};

use super::Clock;
use super::link::{Link, Message, Received, VERSION, interrupt, raise, wait_for};
use crate::buffer::DmaRegion;
use crate::flow::FlowTuple;
use crate::nfp::bus::Bus;
use crate::nfp::emulator::{Emulator, EmulatorConfig};
use crate::port::unix::listen_at;
use crate::port::wake::Wake;
use crate::port::{Port, xdp};
use crate::time::Instant;

/// Frames taken in a turn.
const BUDGET: usize = 256;
/// How often a card that has work looks for messages and other hosts.
const LOOK_UP: Duration = Duration::from_millis(1);
/// How soon a full wire is tried again.
const WIRE_RETRY: Duration = Duration::from_millis(1);
/// How long another host may take for its greeting.
const GREETING: Duration = Duration::from_millis(50);
/// Most regions of one host.
const REGIONS_MAX: usize = 64;

/// A card that waits for hosts.
#[derive(Debug)]
pub struct CardServer {
    emulator: Emulator,
    steering: Option<xdp::Steering>,
    listener: OwnedFd,
    path: PathBuf,
    started: time::Instant,
    /// How long the card looks for work before it sleeps.
    spin: Duration,
}

/// A host.
#[derive(Debug)]
struct Session {
    link: Link,
    clock: Clock,
    kick: Wake,
    /// The card's end and the host's.
    interrupt: (OwnedFd, OwnedFd),
    /// Interrupts that were passed on.
    raised: u64,
    regions: usize,
    owned: Vec<SocketAddr>,
    excluded: Vec<FlowTuple>,
}

/// Whether a host is still there.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Host {
    There,
    Gone,
}

impl CardServer {
    /// A card whose wire is `port` and whose hosts connect to the socket at `path`, which only this user may.
    /// `steering` sits before the port, if anything does.
    ///
    /// # Errors
    /// The configuration is impossible, or another card listens there.
    pub fn new(
        path: &Path,
        port: Box<dyn Port>,
        steering: Option<xdp::Steering>,
        config: EmulatorConfig,
        spin: Duration,
    ) -> io::Result<Self> {
        let listener = listen_at(path)?;
        set_permissions(path, Permissions::from_mode(0o600))?;
        Ok(Self {
            emulator: Emulator::new(port, config)?,
            steering,
            listener,
            path: path.to_owned(),
            started: time::Instant::now(),
            spin,
        })
    }

    /// The card.
    pub const fn emulator(&self) -> &Emulator {
        &self.emulator
    }

    fn now(&self) -> Instant {
        let nanos = self.started.elapsed().as_nanos();
        Instant::from_nanos(u64::try_from(nanos).unwrap_or(u64::MAX))
    }

    /// Serves the next host until it goes.
    ///
    /// # Errors
    /// The wire is gone, or the firmware does not come to rest.
    pub fn serve(&mut self) -> io::Result<()> {
        let socket = loop {
            match accept_with(&self.listener, SocketFlags::CLOEXEC) {
                Ok(socket) => break socket,
                Err(rustix::io::Errno::INTR) => {}
                Err(error) => return Err(error.into()),
            }
        };
        let mut session = Session {
            link: Link::of(socket),
            clock: Clock::Card,
            kick: Wake::new()?,
            interrupt: interrupt()?,
            raised: self.emulator.interrupts(),
            regions: 0,
            owned: Vec::new(),
            excluded: Vec::new(),
        };
        tracing::info!(path = %self.path.display(), "a host is here");
        let result = self.attend(&mut session);
        self.release(&session)?;
        tracing::info!("the host is gone; the card is reset");
        result
    }

    /// Works for a host until it goes.
    fn attend(&mut self, session: &mut Session) -> io::Result<()> {
        let mut looked = self.now();
        let mut worked = looked;
        loop {
            let now = self.now();
            let mut did = false;
            let mut full = false;
            if session.clock == Clock::Card {
                let work = self.emulator.work(now, BUDGET)?;
                did = work.did || work.frames > 0;
                full = work.full;
                self.raise(session);
            }
            if did {
                worked = now;
            }
            let idle = session.clock == Clock::Host || now.saturating_since(worked) >= self.spin;
            if idle {
                self.sleep(session, full)?;
                worked = self.now();
            }
            if idle || now.saturating_since(looked) >= LOOK_UP {
                looked = now;
                if self.hear(session)? == Host::Gone {
                    return Ok(());
                }
                self.turn_away()?;
            }
        }
    }

    /// Tells the host of interrupts.
    fn raise(&self, session: &mut Session) {
        let raised = self.emulator.interrupts();
        if raised != session.raised {
            session.raised = raised;
            raise(&session.interrupt.0);
        }
    }

    /// Waits for a doorbell, a frame, a message, another host or the timer.
    fn sleep(&mut self, session: &mut Session, full: bool) -> io::Result<()> {
        let mut longest = None;
        let mut wire = None;
        if session.clock == Clock::Card {
            self.emulator.set_asleep(true);
            // What the host did before it could see that.
            let now = self.now();
            let work = self.emulator.work(now, BUDGET)?;
            self.raise(session);
            if work.did || work.frames > 0 || !self.emulator.arm()? {
                self.emulator.set_asleep(false);
                return Ok(());
            }
            let mut soon = self.emulator.timer_in(now);
            if let Some(at) = self.emulator.poll_at() {
                let left = at.saturating_since(now);
                soon = Some(soon.map_or(left, |soon| soon.min(left)));
            }
            if full || work.full {
                soon = Some(soon.map_or(WIRE_RETRY, |soon| soon.min(WIRE_RETRY)));
            }
            longest = soon;
            wire = self.emulator.wake_fd();
        }
        let fds = [
            Some(session.link.fd()),
            session.kick.fd(),
            Some(self.listener.as_fd()),
            wire,
        ];
        wait_for(&fds, longest)?;
        session.kick.clear()?;
        if session.clock == Clock::Card {
            self.emulator.set_asleep(false);
        }
        Ok(())
    }

    /// Sends other hosts away: a card has one.
    fn turn_away(&self) -> io::Result<()> {
        while wait_for(&[Some(self.listener.as_fd())], Some(Duration::ZERO))?[0] {
            let other = Link::of(accept_with(&self.listener, SocketFlags::CLOEXEC)?);
            // Unread, its greeting would have the socket lose the answer. It may have given up already.
            let _ = other.wait(GREETING);
            let _ = other.send(
                "error another host uses it; stop that one, or start another card",
                &[],
            );
        }
        Ok(())
    }

    /// Carries out what the host asks for.
    fn hear(&mut self, session: &mut Session) -> io::Result<Host> {
        loop {
            let message = match session.link.receive() {
                Ok(Received::Message(message)) => message,
                Ok(Received::Nothing) => return Ok(Host::There),
                Ok(Received::End) | Err(_) => return Ok(Host::Gone),
            };
            let hello = message.text.starts_with("hello");
            let answer = self
                .obey(session, message)
                .unwrap_or_else(|error| format!("error {error}"));
            let sent = if hello && answer.starts_with("ok") {
                let fds = [
                    self.emulator.bar().fd(),
                    session.kick.fd(),
                    Some(session.interrupt.1.as_fd()),
                ];
                let fds: Vec<_> = fds.into_iter().flatten().collect();
                session.link.send(&answer, &fds)
            } else {
                session.link.send(&answer, &[])
            };
            if sent.is_err() {
                return Ok(Host::Gone);
            }
        }
    }

    fn obey(&mut self, session: &mut Session, message: Message) -> io::Result<String> {
        let Message { text, mut fds } = message;
        let mut words = text.split_whitespace();
        let what = words.next().unwrap_or_default();
        match what {
            "hello" => {
                if words.next() != Some(VERSION.to_string().as_str()) {
                    return Err(refused(
                        "host and card are of different releases; run the flextcp-card of the host's",
                    ));
                }
                if words.next() == Some("host") {
                    session.clock = Clock::Host;
                }
                Ok(self.greet())
            }
            "map" => {
                let len: usize = word(&mut words)?;
                let fd = fds.pop().ok_or_else(|| refused("no memory came along"))?;
                if session.regions >= REGIONS_MAX {
                    return Err(refused("no more regions"));
                }
                session.regions += 1;
                let region = DmaRegion::of_other(fd, len)?;
                Ok(format!("ok {}", self.emulator.map(&region)?))
            }
            "run" => {
                let now = Instant::from_nanos(word(&mut words)?);
                let frames = self.emulator.run(now, word(&mut words)?)?;
                let next = Bus::poll_at(&self.emulator).map(|at| at.as_nanos().to_string());
                Ok(format!("ok {frames} {}", next.unwrap_or_default()))
            }
            "arm" => Ok(format!("ok {}", u32::from(self.emulator.arm()?))),
            "counters" => {
                let of = Bus::counters(&self.emulator);
                Ok(format!(
                    "ok {} {} {} {} {} {} {}",
                    of.rx_frames,
                    of.rx_bytes,
                    of.tx_frames,
                    of.tx_bytes,
                    of.rx_dropped,
                    of.tx_full,
                    of.kicks
                ))
            }
            _ => self.steer(session, what, words),
        }
    }

    /// Who the card is.
    fn greet(&self) -> String {
        let info = self.emulator.port();
        let [a, b, c, d, e, f] = info.mac.0;
        format!(
            "ok {} {} {} {} {} {} {}",
            self.emulator.bar().len(),
            info.ifindex,
            u64::from_be_bytes([0, 0, a, b, c, d, e, f]),
            info.mtu,
            u32::from(info.tx_checksum),
            info.tx_segment_max.unwrap_or(0),
            info.name
        )
    }

    /// Whose frames come off the wire.
    fn steer(
        &self,
        session: &mut Session,
        what: &str,
        mut words: SplitWhitespace<'_>,
    ) -> io::Result<String> {
        let words = &mut words;
        let steering = self.steering.as_ref();
        match what {
            "own" => {
                let local = word(words)?;
                steering.map_or(Ok(()), |steering| steering.own(local))?;
                session.owned.push(local);
            }
            "disown" => {
                let local = word(words)?;
                if let Some(at) = session.owned.iter().position(|owned| *owned == local) {
                    session.owned.swap_remove(at);
                    steering.map_or(Ok(()), |steering| steering.disown(local))?;
                }
            }
            "exclude" => {
                let tuple = FlowTuple::new(word(words)?, word(words)?);
                steering.map_or(Ok(()), |steering| steering.exclude(tuple))?;
                session.excluded.push(tuple);
            }
            "include" => {
                let tuple = FlowTuple::new(word(words)?, word(words)?);
                if let Some(at) = session.excluded.iter().position(|other| *other == tuple) {
                    session.excluded.swap_remove(at);
                    steering.map_or(Ok(()), |steering| steering.include(tuple))?;
                }
            }
            "addresses" => {
                let addresses = words
                    .map(|word| word.parse().map_err(|_| refused("no address")))
                    .collect::<io::Result<Vec<IpAddr>>>()?;
                steering.map_or(Ok(()), |steering| steering.set_addresses(addresses))?;
            }
            "serves" => {
                let address = word(words)?;
                let serves = steering
                    .is_none_or(|steering| crate::steer::Steering::serves(steering, address));
                return Ok(format!("ok {}", u32::from(serves)));
            }
            _ => {
                return Err(refused(
                    "no such request; host and card are of different releases",
                ));
            }
        }
        Ok("ok".to_owned())
    }

    /// The host is gone: nothing of it is reached any more, and the next one finds the card as after power-on.
    fn release(&mut self, session: &Session) -> io::Result<()> {
        self.emulator.forget_host(self.now())?;
        let Some(steering) = &self.steering else {
            return Ok(());
        };
        for local in &session.owned {
            steering.disown(*local)?;
        }
        for tuple in &session.excluded {
            steering.include(*tuple)?;
        }
        Ok(())
    }
}

impl Drop for CardServer {
    fn drop(&mut self) {
        // It may be gone already.
        let _ = std::fs::remove_file(&self.path);
    }
}

fn refused(text: &str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidInput, text)
}

fn word<T: std::str::FromStr>(words: &mut SplitWhitespace<'_>) -> io::Result<T> {
    words
        .next()
        .and_then(|word| word.parse().ok())
        .ok_or_else(|| refused("the request lacks a word, or has a wrong one"))
}
