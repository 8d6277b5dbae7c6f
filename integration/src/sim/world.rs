//! Virtual time: who is next, and what happens then.

mod events;
mod network;

use std::collections::{BTreeMap, HashMap};
use std::fmt;
use std::io;
use std::net::SocketAddr;
use std::path::Path;
use std::time::Duration;

use flextcp_nic::port::impair::Line;
use flextcp_nic::time::Instant;
use flextcp_rt::lab::Lab;

use super::app::App;
use super::host::Host;
use super::rng::Rng;
use super::scenario::Scenario;
use super::trace::{Recording, Sample, Trace};
use super::verdict::{Coverage, End, Outcome, Report, judge};

/// Turns of one host at one moment, beyond which it is taken to turn for ever.
const MAX_TURNS: u32 = 20_000;
/// Frames of one scenario, beyond which something feeds on itself.
const MAX_FRAMES: u64 = 3_000_000;

/// Why a scenario failed.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Failure {
    /// The scenario.
    pub seed: u64,
    /// Virtual time.
    pub at: Duration,
    /// What does not hold.
    pub what: String,
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { seed, at, what } = self;
        write!(
            f,
            "scenario {seed} at {at:?}: {what}\n  alone: cargo run -p integration --bin sim -- --seed {seed}"
        )
    }
}

impl std::error::Error for Failure {}

/// Plays a scenario and judges it.
///
/// # Errors
/// What does not hold.
pub fn run(scenario: &Scenario) -> Result<Report, Failure> {
    play(scenario, None, None)
}

/// [`run`], with what plots are made from, and a capture of every host's frames beside `capture`.
///
/// # Errors
/// The capture cannot be written.
pub fn run_recorded(
    scenario: &Scenario,
    capture: Option<&Path>,
) -> (Result<Report, Failure>, Recording) {
    let mut recording = Recording::default();
    let result = play(scenario, capture, Some(&mut recording));
    (result, recording)
}

fn play(
    scenario: &Scenario,
    capture: Option<&Path>,
    recording: Option<&mut Recording>,
) -> Result<Report, Failure> {
    let mut world = World::new(scenario, capture, recording).map_err(|error| Failure {
        seed: scenario.seed,
        at: Duration::ZERO,
        what: format!("the capture cannot be written: {error}"),
    })?;
    match world.play() {
        Ok(()) => Ok(world.report()),
        Err(what) => Err(Failure {
            seed: scenario.seed,
            at: world.now - Instant::ZERO,
            what,
        }),
    }
}

#[derive(Debug)]
enum Timed {
    Connect(usize),
    Event(usize),
    Back(usize),
}

#[derive(Debug)]
struct Connection {
    client: App,
    server: App,
    /// A late segment passed for the ACK of a SYN cookie and opened it once more, after its end.
    reopened: bool,
}

struct World<'a> {
    scenario: &'a Scenario,
    now: Instant,
    hosts: Vec<Host>,
    /// By host: towards the router, and from it.
    lines: Vec<[Line; 2]>,
    connections: Vec<Connection>,
    /// Whose connection comes from an address to a host.
    by_client: HashMap<(usize, SocketAddr), usize>,
    timeline: BTreeMap<(Instant, usize), Timed>,
    entries: usize,
    scratch: Vec<u8>,
    trace: Trace,
    coverage: Coverage,
    recording: Option<&'a mut Recording>,
}

impl<'a> World<'a> {
    fn new(
        scenario: &'a Scenario,
        capture: Option<&Path>,
        recording: Option<&'a mut Recording>,
    ) -> io::Result<Self> {
        let mut rng = Rng::new(scenario.seed ^ 0x0dd5);
        let hosts = (0..scenario.hosts.len())
            .map(|number| Host::new(scenario, number, capture))
            .collect::<io::Result<Vec<_>>>()?;
        let lines = scenario
            .hosts
            .iter()
            .map(|plan| [&plan.up, &plan.down].map(|line| Line::new(line.clone(), rng.next())))
            .collect();
        let connections = scenario
            .connections
            .iter()
            .map(|plan| {
                let keys = (rng.next() >> 1, rng.next() >> 1);
                Connection {
                    client: App::new(plan.client_app.clone(), rng.fork(), keys),
                    server: App::new(plan.server_app.clone(), rng.fork(), (keys.1, keys.0)),
                    reopened: false,
                }
            })
            .collect();
        let mut world = Self {
            scenario,
            now: Instant::ZERO,
            hosts,
            lines,
            connections,
            by_client: HashMap::new(),
            timeline: BTreeMap::new(),
            entries: 0,
            scratch: vec![0; 65_536],
            trace: Trace::default(),
            coverage: Coverage::default(),
            recording,
        };
        for (number, plan) in scenario.connections.iter().enumerate() {
            world.at(Instant::ZERO + plan.at, Timed::Connect(number));
        }
        for (number, (at, _)) in scenario.events.iter().enumerate() {
            world.at(Instant::ZERO + *at, Timed::Event(number));
        }
        Ok(world)
    }

    fn at(&mut self, at: Instant, what: Timed) {
        self.entries += 1;
        self.timeline.insert((at, self.entries), what);
    }

    fn play(&mut self) -> Result<(), String> {
        self.run_to_rest()?;
        let overrun: Vec<bool> = self
            .hosts
            .iter()
            .map(|host| host.lab.as_ref().is_some_and(is_overrun))
            .collect();
        let crowded = |host: usize| self.hosts[host].crowded;
        let starved = |host: usize| self.hosts[host].starved;
        for (number, connection) in self.connections.iter().enumerate() {
            let outcome = Outcome {
                client: End::of(&connection.client),
                server: End::of(&connection.server),
            };
            let plan = &self.scenario.connections[number];
            judge(
                self.scenario,
                &outcome,
                overrun[plan.server]
                    || crowded(plan.server)
                    || starved(plan.server)
                    || starved(plan.client),
                connection.reopened,
            )
            .map_err(|what| format!("connection {number}: {what}; {plan:?}"))?;
        }
        for host in &mut self.hosts {
            if let Some(lab) = &mut host.lab {
                for listener in host.listeners.drain(..) {
                    lab.close(listener)
                        .map_err(|error| format!("a listener cannot be closed: {error}"))?;
                }
                host.stirred = true;
            }
        }
        self.run_to_rest()?;
        for (number, host) in self.hosts.iter().enumerate() {
            if let Some(lab) = &host.lab {
                let counts = lab.counts();
                if !counts.is_zero() {
                    return Err(format!("host {number} leaks: {counts:?}"));
                }
            }
        }
        Ok(())
    }

    fn report(&self) -> Report {
        let mut report = Report {
            seed: self.scenario.seed,
            outcomes: self
                .connections
                .iter()
                .map(|connection| Outcome {
                    client: End::of(&connection.client),
                    server: End::of(&connection.server),
                })
                .collect(),
            ended: self.now - Instant::ZERO,
            trace: self.trace,
            retransmitted: 0,
            timeouts: 0,
            installed: 0,
            coverage: self.coverage,
        };
        let lines = self.lines.iter().flatten();
        report.coverage.marked = lines.map(|line| line.counters().marked).sum();
        for (connection, plan) in self.connections.iter().zip(&self.scenario.connections) {
            let both = connection.client.eof && connection.server.eof;
            report.coverage.crossed += u64::from(plan.simultaneous && both);
            report.coverage.reopened += u64::from(connection.reopened);
        }
        for lab in self.hosts.iter().filter_map(|host| host.lab.as_ref()) {
            let stats = lab.stats();
            report.retransmitted += stats.recovery.retransmitted;
            report.timeouts += stats.recovery.timeouts;
            report.installed += stats.offload.installed;
        }
        report
    }

    /// Until nothing is left that could happen.
    fn run_to_rest(&mut self) -> Result<(), String> {
        let limit = Instant::ZERO + self.scenario.limit;
        while let Some(next) = self.next_time() {
            if next > limit {
                return Err(self.describe_hang());
            }
            self.now = self.now.max(next);
            while let Some(entry) = self.timeline.first_entry()
                && entry.key().0 <= self.now
            {
                let what = entry.remove();
                self.happen(what)?;
            }
            for host in 0..self.hosts.len() {
                self.move_frames(host);
            }
            for host in 0..self.hosts.len() {
                if self.hosts[host].wakes_at(self.now) == Some(self.now) {
                    self.run_host(host)?;
                }
            }
            if self.trace.frames > MAX_FRAMES {
                return Err(format!("{MAX_FRAMES} frames, and no end"));
            }
        }
        Ok(())
    }

    fn next_time(&self) -> Option<Instant> {
        let timed = self.timeline.first_key_value().map(|(&(at, _), _)| at);
        let lines = self.lines.iter().flatten().filter_map(Line::next_due);
        let hosts = self.hosts.iter().filter_map(|host| host.wakes_at(self.now));
        timed.into_iter().chain(lines).chain(hosts).min()
    }

    fn describe_hang(&self) -> String {
        let open: Vec<_> = self
            .connections
            .iter()
            .enumerate()
            .filter(|(_, connection)| {
                [&connection.client, &connection.server]
                    .iter()
                    .any(|app| app.socket.is_some() && !app.is_done())
            })
            .map(|(number, connection)| {
                let (client, server) = (End::of(&connection.client), End::of(&connection.server));
                format!("connection {number}: client {client:?}, server {server:?}")
            })
            .collect();
        let counts: Vec<_> = self
            .hosts
            .iter()
            .map(|host| host.lab.as_ref().map(|lab| lab.counts()))
            .collect();
        format!("it does not end; open: {open:#?}; hosts: {counts:?}")
    }

    /// Turns a host and its applications until both rest.
    fn run_host(&mut self, number: usize) -> Result<(), String> {
        let now = self.now;
        let at = self.hosts[number].clock(now);
        for _ in 0..MAX_TURNS {
            let host = &mut self.hosts[number];
            host.stirred = false;
            let Some(lab) = &mut host.lab else {
                return Ok(());
            };
            let starved = |lab: &Lab| lab.memory().0 > lab.memory().1;
            host.starved |= starved(lab);
            let work = lab.poll(at);
            host.starved |= starved(lab);
            self.send_frames(number);
            let any = self.accept(number)? | self.step_apps(number);
            let host = &mut self.hosts[number];
            let rests = host
                .lab
                .as_ref()
                .is_none_or(|lab| lab.poll_at().is_none_or(|next| next > at));
            if work == 0 && !any && rests {
                let backlog = self.scenario.hosts[number].backlog.max(8) as usize;
                if self.connections.len() * 2 > backlog
                    && let Some(lab) = &host.lab
                {
                    host.crowded |= lab.counts().half_open * 2 > backlog;
                }
                self.sample(number);
                return Ok(());
            }
        }
        Err(format!("host {number} turns for ever"))
    }

    fn step_apps(&mut self, number: usize) -> bool {
        let Self {
            hosts,
            connections,
            scratch,
            now,
            ..
        } = self;
        let host = &mut hosts[number];
        let Some(lab) = &mut host.lab else {
            return false;
        };
        let mut any = false;
        let mut wake = None;
        host.apps.retain(|&(connection, server)| {
            let connection = &mut connections[connection];
            let app = if server {
                &mut connection.server
            } else {
                &mut connection.client
            };
            any |= app.step(lab, *now, scratch);
            wake = [wake, app.wakes_at(*now)].into_iter().flatten().min();
            !app.is_done()
        });
        host.app_wake = wake;
        any
    }

    fn sample(&mut self, number: usize) {
        let Some(recording) = &mut self.recording else {
            return;
        };
        let host = &mut self.hosts[number];
        let Some(lab) = &mut host.lab else { return };
        for &(connection, server) in &host.apps {
            let ends = &self.connections[connection];
            let app = if server { &ends.server } else { &ends.client };
            if let Some(info) = app.socket.and_then(|socket| lab.info(socket)) {
                recording.sample(Sample {
                    at: self.now - Instant::ZERO,
                    connection,
                    server,
                    info,
                });
            }
        }
    }
}

/// Whether its listener had more to do than its backlog allows.
fn is_overrun(lab: &Lab) -> bool {
    let stats = lab.stats();
    stats.drops.listen_overflow > 0 || stats.defence.syn_cookies_sent > 0
}
