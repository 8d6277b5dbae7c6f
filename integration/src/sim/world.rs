//! Virtual time: who is next, and what happens then.

use std::collections::{BTreeMap, HashMap};
use std::fmt;
use std::io;
use std::net::SocketAddr;
use std::path::Path;
use std::time::Duration;

use flextcp_nic::port::RxChecksum;
use flextcp_nic::port::impair::Line;
use flextcp_nic::time::Instant;
use flextcp_nic::wire::Packet;
use flextcp_rt::lab::Lab;

use super::app::{App, Phase};
use super::host::{Host, PORT};
use super::rng::Rng;
use super::router::{look, too_big};
use super::scenario::{NetEvent, Scenario, address};
use super::trace::{Recording, Sample, Trace};
use super::verdict::{End, Outcome, Report, judge};

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
            .map(|plan| {
                // A frame is damaged once on its way at most: two bits may cancel out in the checksum.
                let mut up = plan.up.clone();
                up.corrupt = 0.0;
                [up, plan.down.clone()].map(|line| Line::new(line, rng.next()))
            })
            .collect();
        let connections = scenario
            .connections
            .iter()
            .map(|plan| {
                let keys = (rng.next() >> 1, rng.next() >> 1);
                Connection {
                    client: App::new(plan.client_app.clone(), rng.fork(), keys),
                    server: App::new(plan.server_app.clone(), rng.fork(), (keys.1, keys.0)),
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
        for (number, connection) in self.connections.iter().enumerate() {
            let outcome = Outcome {
                client: End::of(&connection.client),
                server: End::of(&connection.server),
            };
            let plan = &self.scenario.connections[number];
            judge(self.scenario, &outcome, overrun[plan.server])
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
        };
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

    fn happen(&mut self, what: Timed) -> Result<(), String> {
        match what {
            Timed::Connect(number) => self.connect(number),
            Timed::Back(host) => {
                let plan = &self.scenario.hosts[host];
                self.hosts[host].boot(self.now, self.scenario.seed, host, plan);
                Ok(())
            }
            Timed::Event(number) => {
                let (_, event) = &self.scenario.events[number];
                self.event(event);
                Ok(())
            }
        }
    }

    fn event(&mut self, event: &NetEvent) {
        match event {
            NetEvent::Link { host, up, down } => {
                let [to_router, from_router] = &mut self.lines[*host];
                to_router.set((**up).clone());
                from_router.set((**down).clone());
            }
            NetEvent::Mtu { host, mtu } => self.hosts[*host].mtu = *mtu,
            NetEvent::Outage { host, length } => {
                let host = &mut self.hosts[*host];
                host.outage_until = host.outage_until.max(self.now + *length);
            }
            NetEvent::Gateway { host } => self.hosts[*host].change_gateway(),
            NetEvent::Die { host, back } => {
                self.hosts[*host].die();
                for (connection, plan) in
                    self.connections.iter_mut().zip(&self.scenario.connections)
                {
                    if plan.client == *host && connection.client.socket.is_some() {
                        connection.client.die();
                    }
                    if plan.server == *host && connection.server.socket.is_some() {
                        connection.server.die();
                    }
                }
                if let Some(back) = back {
                    self.at(self.now + *back, Timed::Back(*host));
                }
            }
        }
    }

    fn connect(&mut self, number: usize) -> Result<(), String> {
        let plan = &self.scenario.connections[number];
        let host = &mut self.hosts[plan.client];
        let Some(lab) = &mut host.lab else {
            return Ok(());
        };
        let port = PORT + u16::from(plan.v6);
        let remote = SocketAddr::new(address(plan.server, plan.v6), port);
        let client = &mut self.connections[number].client;
        let socket = lab.socket();
        let started = lab
            .set_options(socket, client.plan().options.clone())
            .and_then(|()| lab.connect(socket, remote))
            .and_then(|()| lab.local_addr(socket));
        let local =
            started.map_err(|error| format!("connection {number} cannot start: {error}"))?;
        client.socket = Some(socket);
        client.phase = Phase::Connecting;
        self.by_client.insert((plan.server, local), number);
        host.apps.push((number, false));
        host.stirred = true;
        Ok(())
    }

    /// Delivers what is due at the end of a host's lines.
    fn move_frames(&mut self, from: usize) {
        let now = self.now;
        while let Some(frame) = self.lines[from][0].take(now) {
            self.route(from, frame.bytes);
        }
        let host = &mut self.hosts[from];
        while let Some(frame) = self.lines[from][1].take(now) {
            if let Some(lab) = &mut host.lab {
                lab.inject_owned(frame.bytes);
                host.stirred = true;
            }
        }
    }

    fn route(&mut self, from: usize, frame: Vec<u8>) {
        let Some(packet) = look(&frame) else { return };
        let to = (0..self.hosts.len())
            .find(|&host| address(host, packet.destination.is_ipv6()) == packet.destination);
        let Some(to) = to else { return };
        let dark = |host: &Host| host.outage_until > self.now;
        if dark(&self.hosts[from]) || dark(&self.hosts[to]) {
            return;
        }
        let mtu = self.hosts[from].mtu.min(self.hosts[to].mtu);
        let (line, frame) = if packet.len > mtu as usize {
            (from, too_big(&frame, &packet, mtu))
        } else {
            (to, frame)
        };
        let down = &mut self.lines[line][1];
        down.enter(
            self.now,
            std::iter::once(&frame[..]),
            RxChecksum::Unverified,
        );
        if let Some(recording) = &mut self.recording {
            recording.queue(self.now, line, true, down.queued(self.now));
        }
        down.give_back(frame);
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
            let work = lab.poll(at);
            let up = &mut self.lines[number][0];
            while let Some(frame) = lab.take_frame() {
                self.trace.frame(now, number, &frame);
                if let Some(recording) = &mut self.recording {
                    let by_client = &self.by_client;
                    recording.segment(now, &frame, |packet| connection_of(by_client, packet));
                    recording.queue(now, number, false, up.queued(now));
                }
                up.enter(now, std::iter::once(&frame[..]), RxChecksum::Unverified);
                up.give_back(frame);
            }
            let any = self.accept(number)? | self.step_apps(number);
            let host = &mut self.hosts[number];
            let rests = host
                .lab
                .as_ref()
                .is_none_or(|lab| lab.poll_at().is_none_or(|next| next > at));
            if work == 0 && !any && rests {
                self.sample(number);
                return Ok(());
            }
        }
        Err(format!("host {number} turns for ever"))
    }

    fn accept(&mut self, number: usize) -> Result<bool, String> {
        let host = &mut self.hosts[number];
        let Some(lab) = &mut host.lab else {
            return Ok(false);
        };
        if host.accept_at > self.now {
            return Ok(false);
        }
        let mut any = false;
        for &listener in &host.listeners {
            while let Ok((socket, peer)) = lab.accept(listener) {
                any = true;
                let Some(&connection) = self.by_client.get(&(number, peer)) else {
                    return Err(format!("host {number} accepted a connection from {peer}"));
                };
                let server = &mut self.connections[connection].server;
                if server.socket.is_some() {
                    // A segment that was late has opened it once more: cookies remember nothing.
                    if lab.stats().defence.syn_cookies_accepted > 0 && lab.close(socket).is_ok() {
                        continue;
                    }
                    return Err(format!("connection {connection} was accepted twice"));
                }
                server.socket = Some(socket);
                server.phase = Phase::Open;
                let options = &server.plan().options;
                for option in super::app::changes(options) {
                    lab.set_option(socket, option)
                        .map_err(|error| format!("an option cannot be set: {error}"))?;
                }
                host.apps.push((connection, true));
            }
        }
        if any {
            host.accept_at = self.now + self.scenario.hosts[number].accept_pause;
        }
        Ok(any)
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

/// Whose segment a host sends: the connection, and whether the server is the sender.
fn connection_of(
    by_client: &HashMap<(usize, SocketAddr), usize>,
    packet: &Packet,
) -> Option<(usize, bool)> {
    let Packet::Tcp(packet) = packet else {
        return None;
    };
    // As the receiver sees it: local is the destination.
    let (to, from) = (packet.tuple.local_addr(), packet.tuple.remote_addr());
    let number = |addr: SocketAddr| match addr.ip() {
        std::net::IpAddr::V4(ip) => usize::from(ip.octets()[3]) - 1,
        std::net::IpAddr::V6(ip) => usize::from(ip.octets()[15]) - 1,
    };
    let by_client =
        |client: SocketAddr, server: SocketAddr| by_client.get(&(number(server), client)).copied();
    by_client(from, to)
        .map(|connection| (connection, false))
        .or_else(|| by_client(to, from).map(|connection| (connection, true)))
}
