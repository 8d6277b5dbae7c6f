//! The kernel's connections at ports that are ours: of a listening socket that came with some, of a process that shares
//! the port, and those that we gave to the kernel. Their frames stay with the kernel for as long as they live.

use std::collections::{BTreeSet, HashMap};
use std::sync::{Arc, MutexGuard, PoisonError, Weak};
use std::time::Duration;

use flextcp_nic::flow::FlowTuple;

use super::Host;
use crate::host::diag;
use crate::reactor::core::Core;

/// How often it is looked which of them are gone: their ends may come again, and a port without any is cheaper to steer.
const SWEEP: Duration = Duration::from_secs(5);

/// The connections, with the cores whose interfaces leave them alone.
#[derive(Debug, Default)]
pub(super) struct Spared {
    connections: HashMap<FlowTuple, Vec<Weak<Core>>>,
    /// A thread looks which are gone.
    swept: bool,
}

impl Host {
    fn spared(&self) -> MutexGuard<'_, Spared> {
        self.spared.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Leaves to the kernel the connections that it has at `port` now. Call it before the cores own the port, so that
    /// none of their frames is answered with RST, and again afterwards for those that came in between.
    pub(super) fn spare(self: &Arc<Self>, port: u16, cores: &[Arc<Core>]) {
        let cores = one_of_each_interface(cores);
        if cores.is_empty() {
            return;
        }
        let found = match diag::connections(port, false) {
            Ok(found) => found,
            Err(error) => {
                tracing::warn!(%error, port, "the kernel does not tell its connections at a port that is taken over: peers will see them reset");
                return;
            }
        };
        for tuple in found {
            self.spare_one(tuple, &cores);
        }
        self.sweep_spared();
    }

    fn spare_one(&self, tuple: FlowTuple, cores: &[Arc<Core>]) {
        let mut spared = self.spared();
        let by = spared.connections.entry(tuple).or_default();
        for core in cores {
            if by.iter().any(|other| other.as_ptr() == Arc::as_ptr(core)) {
                continue;
            }
            match core.exclude(tuple) {
                Ok(()) => by.push(Arc::downgrade(core)),
                Err(error) => {
                    tracing::warn!(core = core.name(), %error, "a connection of the kernel's cannot be left to it");
                }
            }
        }
    }

    /// Remembers connections that the cores leave to the kernel already.
    pub(super) fn note_spared(self: &Arc<Self>, tuples: impl IntoIterator<Item = FlowTuple>) {
        let cores = one_of_each_interface(&self.cores());
        let by: Vec<_> = cores.iter().map(Arc::downgrade).collect();
        let mut spared = self.spared();
        let noted = tuples.into_iter().map(|tuple| (tuple, by.clone()));
        spared.connections.extend(noted);
        drop(spared);
        self.sweep_spared();
    }

    /// A connection has become ours.
    pub(super) fn forget_spared(&self, tuple: &FlowTuple) {
        self.spared().connections.remove(tuple);
    }

    /// Starts the thread that looks which are gone, unless there are none or it runs.
    fn sweep_spared(self: &Arc<Self>) {
        let mut spared = self.spared();
        if spared.connections.is_empty() || spared.swept {
            return;
        }
        let host = Arc::downgrade(self);
        let started = std::thread::Builder::new()
            .name("flextcp-spared".into())
            .spawn(move || {
                loop {
                    std::thread::sleep(SWEEP);
                    let Some(host) = host.upgrade() else {
                        return;
                    };
                    host.drop_spared();
                    let mut spared = host.spared();
                    if spared.connections.is_empty() {
                        spared.swept = false;
                        return;
                    }
                }
            });
        match started {
            Ok(_) => spared.swept = true,
            Err(error) => {
                tracing::warn!(%error, "ends of connections that the kernel had stay its own");
            }
        }
    }

    /// Gives up those that the kernel has no more.
    fn drop_spared(&self) {
        let ports: BTreeSet<u16> = self
            .spared()
            .connections
            .keys()
            .map(|tuple| tuple.local.1)
            .collect();
        for port in ports {
            let Ok(alive) = diag::connections(port, true) else {
                continue;
            };
            let alive: BTreeSet<_> = alive.iter().map(|it| (it.local, it.remote)).collect();
            let mut gone = Vec::new();
            self.spared().connections.retain(|tuple, by| {
                let stays = tuple.local.1 != port || alive.contains(&(tuple.local, tuple.remote));
                if !stays {
                    gone.push((*tuple, std::mem::take(by)));
                }
                stays
            });
            for (tuple, by) in gone {
                for core in by.iter().filter_map(Weak::upgrade) {
                    if let Err(error) = core.include(tuple) {
                        tracing::warn!(core = core.name(), %error, "ends of a connection that the kernel had stay its own");
                    }
                }
            }
        }
    }
}

/// The queues of an interface share its steering.
fn one_of_each_interface(cores: &[Arc<Core>]) -> Vec<Arc<Core>> {
    let mut seen = BTreeSet::new();
    cores
        .iter()
        .filter(|core| {
            let ifindex = core.capabilities().port.ifindex;
            ifindex != 0 && seen.insert(ifindex)
        })
        .cloned()
        .collect()
}
