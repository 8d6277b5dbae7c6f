//! A host of the simulated world: a lab, its clock, and who listens on it.

use std::fs::File;
use std::io::BufWriter;
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};
use std::path::Path;
use std::time::Duration;

use flextcp_nic::time::Instant;
use flextcp_nic::wire::MacAddr;
use flextcp_rt::lab::{Lab, LabConfig, SocketId};
use flextcp_rt::options::SocketOptions;

use super::scenario::{HostPlan, Scenario, address};

/// The port that every host listens on.
pub(super) const PORT: u16 = 80;

#[derive(Debug)]
pub(super) struct Host {
    /// `None` while it is switched off.
    pub(super) lab: Option<Lab>,
    pub(super) listeners: Vec<SocketId>,
    /// Connections of its applications that are not done: (connection, is the server's end).
    pub(super) apps: Vec<(usize, bool)>,
    /// When the first of them goes on by itself.
    pub(super) app_wake: Option<Instant>,
    /// When it accepts again.
    pub(super) accept_at: Instant,
    /// Nothing passes its link before.
    pub(super) outage_until: Instant,
    /// Largest IP packet that its way takes now.
    pub(super) mtu: u32,
    /// Its connections took more than its memory: orphans have to go (as on Linux).
    pub(super) starved: bool,
    /// Half-open connections filled more than half of its listener's queue: the old are given up early (as on Linux).
    pub(super) crowded: bool,
    /// It has to be turned now: a frame came in, or an application did something.
    pub(super) stirred: bool,
    tick: u64,
    epoch: Duration,
    gateway: u8,
}

impl Host {
    pub(super) fn new(
        scenario: &Scenario,
        number: usize,
        capture: Option<&Path>,
    ) -> std::io::Result<Self> {
        let plan = &scenario.hosts[number];
        let config = lab_config(scenario.seed, number, plan);
        let lab = match capture {
            Some(path) => {
                let file = File::create(path.with_extension(format!("{number}.pcapng")))?;
                Lab::capturing(config, BufWriter::new(file))?
            }
            None => Lab::new(config),
        };
        let mut host = Self {
            lab: Some(lab),
            listeners: Vec::new(),
            apps: Vec::new(),
            app_wake: None,
            accept_at: Instant::ZERO,
            outage_until: Instant::ZERO,
            mtu: plan.path_mtu.min(plan.mtu),
            starved: false,
            crowded: false,
            stirred: true,
            tick: (plan.tick.as_nanos() as u64).max(1),
            epoch: plan.epoch,
            gateway: 0xfe,
        };
        host.start(Instant::ZERO, plan);
        Ok(host)
    }

    /// Switches it on again, without a memory.
    pub(super) fn boot(&mut self, now: Instant, seed: u64, number: usize, plan: &HostPlan) {
        self.lab = Some(Lab::new(lab_config(seed ^ 0xb007, number, plan)));
        self.start(now, plan);
        self.stirred = true;
    }

    fn start(&mut self, now: Instant, plan: &HostPlan) {
        let at = self.clock(now);
        let Some(lab) = &mut self.lab else { return };
        lab.poll(at);
        let addresses = [
            SocketAddr::from((Ipv4Addr::UNSPECIFIED, PORT)),
            SocketAddr::from((Ipv6Addr::UNSPECIFIED, PORT + 1)),
        ];
        self.listeners = addresses
            .into_iter()
            .map(|local| {
                let listener = lab.socket();
                let options = SocketOptions {
                    v6only: true,
                    ..SocketOptions::default()
                };
                lab.set_options(listener, options)
                    .and_then(|()| lab.bind(listener, local))
                    .and_then(|()| lab.listen(listener, plan.backlog))
                    .expect("a host that has just started has every port free");
                listener
            })
            .collect();
    }

    /// Switches it off.
    pub(super) fn die(&mut self) {
        self.lab = None;
        self.listeners.clear();
        self.apps.clear();
        self.app_wake = None;
    }

    /// What its clock shows.
    pub(super) fn clock(&self, now: Instant) -> Instant {
        let nanos = now.as_nanos();
        Instant::from_nanos(nanos - nanos % self.tick) + self.epoch
    }

    /// When its clock will show `shown`, or more.
    fn world_time(&self, shown: Instant) -> Instant {
        let nanos = shown
            .saturating_since(Instant::ZERO + self.epoch)
            .as_nanos() as u64;
        Instant::from_nanos(nanos.div_ceil(self.tick) * self.tick)
    }

    /// When it next has something to do by itself.
    pub(super) fn wakes_at(&self, now: Instant) -> Option<Instant> {
        let lab = self.lab.as_ref()?;
        if self.stirred {
            return Some(now);
        }
        let lab = lab.poll_at().map(|at| self.world_time(at).max(now));
        let accept = (self.accept_at > now).then_some(self.accept_at);
        [lab, self.app_wake, accept].into_iter().flatten().min()
    }

    /// The next hop gets another hardware address.
    pub(super) fn change_gateway(&mut self) {
        self.gateway ^= 1;
        let gateway = MacAddr([2, 0, 0, 0, 0, self.gateway]);
        if let Some(lab) = &mut self.lab {
            lab.set_gateway(gateway);
        }
        self.stirred = true;
    }
}

fn lab_config(seed: u64, number: usize, plan: &HostPlan) -> LabConfig {
    LabConfig {
        name: format!("host{number}"),
        seed: seed ^ (number as u64 + 1) << 56,
        addresses: vec![address(number, false), address(number, true)],
        mac: MacAddr([2, 0, 0, 0, 0, number as u8 + 1]),
        mtu: plan.mtu,
        segmentation: plan.segmentation,
        memory: plan.memory,
        engine: plan.engine.clone(),
        ..LabConfig::default()
    }
}
