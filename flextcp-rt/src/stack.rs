//! One process's FlexTCP: its configuration, its cores, and the two things a program asks of it, to connect
//! and to listen. What is not accelerated runs on kernel sockets behind the same answers.
//!
//! | file | concern |
//! |---|---|
//! | `interfaces` | which interfaces have cores; attaching them on first use; the hairpin; falling back |
//! | `control` | the control socket: counters and connections for people and monitors |
//! | `connect` | outgoing connections: route, neighbour, port, core |
//! | `exit` | the orderly end of the process |
//! | `follower` | changes of addresses, routes and neighbours |
//! | `handover` | connections that become kernel sockets |
//! | `listen` | hybrid listeners: the kernel's and every core's behind one queue |
//! | `nfp` | the Netronome card, and the emulated one |
//! | `shard` | a thread's share of the queues |
//! | `spared` | connections that stay with the kernel although their port is ours |
//! | `takeover` | kernel connections that become ours |
//! | `tap` | the TAP device and its addresses, which the kernel does not have |

mod connect;
mod control;
mod exit;
mod follower;
mod handover;
mod interfaces;
mod listen;
mod nfp;
mod shard;
mod spared;
mod takeover;
mod tap;
#[cfg(test)]
mod tests;

use std::io;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};

use flextcp_nic::buffer::Pool;

use crate::config::{Config, ConfigError, Fallback, NicChoice};
use crate::host::netlink::KernelView;
use crate::host::ports::SpareSockets;
use crate::metrics::{ConnectionTable, Stats};
use crate::reactor::clock::Clock;
use crate::reactor::core::Core;
use crate::reactor::guard::Guard;
use crate::socket::Stream;

use interfaces::Interfaces;
pub use listen::Listener;
pub use shard::Shard;

/// A connection, on whichever side carries it.
#[derive(Debug)]
pub enum Connection {
    /// A kernel socket.
    Kernel(tokio::net::TcpStream),
    /// Ours.
    Flex(Stream),
}

/// One process's FlexTCP: its configuration, its cores, and what listens.
pub struct Host {
    config: Config,
    clock: Clock,
    guard: Arc<Guard>,
    pool: Arc<Pool>,
    kernel: Mutex<Option<KernelView>>,
    interfaces: Mutex<Interfaces>,
    listening: Mutex<Vec<Arc<listen::Listening>>>,
    kernel_opened: AtomicU64,
    /// Outgoing connections, counted to spread them over queues.
    connects: AtomicUsize,
    spare_sockets: Arc<SpareSockets>,
    spared: Mutex<spared::Spared>,
}

static CURRENT: OnceLock<Result<Arc<Host>, ConfigError>> = OnceLock::new();

impl Host {
    /// The process's host, started on first use from the environment's configuration, in the network namespace
    /// of the calling thread.
    ///
    /// # Errors
    /// `InvalidInput` for a bad configuration: the text names the key, the value and the fix.
    pub fn current() -> io::Result<Arc<Self>> {
        CURRENT
            .get_or_init(|| Config::from_env().map(Self::start))
            .clone()
            .map_err(|error| io::Error::new(io::ErrorKind::InvalidInput, error))
    }

    /// Starts the process's host with a configuration of the program's own.
    ///
    /// # Errors
    /// `AlreadyExists` when it runs already: call this before the first connection or listener.
    pub fn configure(config: Config) -> io::Result<Arc<Self>> {
        let mut mine = None;
        let host = CURRENT.get_or_init(|| {
            let host = Self::start(config);
            mine = Some(host.clone());
            Ok(host)
        });
        match (host, mine) {
            (Ok(_), Some(mine)) => Ok(mine),
            _ => Err(io::Error::new(
                io::ErrorKind::AlreadyExists,
                "FlexTCP runs already in this process; configure it before the first socket",
            )),
        }
    }

    fn start(config: Config) -> Arc<Self> {
        let clock = Clock::start();
        let pool = nfp::pool(&config).unwrap_or_else(|| Pool::new(config.memory));
        let kernel = match KernelView::open() {
            Ok(view) => Some(view),
            Err(error) => {
                tracing::warn!(%error, "the kernel's routes cannot be read over netlink: only connections within this process are accelerated");
                None
            }
        };
        let host = Arc::new(Self {
            guard: Guard::new(clock.clone()),
            interfaces: Mutex::new(Interfaces::default()),
            listening: Mutex::new(Vec::new()),
            kernel_opened: AtomicU64::new(0),
            connects: AtomicUsize::new(0),
            spare_sockets: Arc::default(),
            spared: Mutex::default(),
            kernel: Mutex::new(kernel),
            pool,
            clock,
            config,
        });
        if let Some(path) = &host.config.control
            && let Err(error) = control::start(&host, path)
        {
            tracing::warn!(path = %path.display(), %error, "there is no control socket (FLEXTCP_CONTROL names its path)");
        }
        host.look_for_named_interfaces();
        host
    }

    /// Its configuration.
    pub fn config(&self) -> &Config {
        &self.config
    }

    /// Counters of the whole process.
    pub fn stats(&self) -> Stats {
        let mut stats = Stats::new();
        let (cores, hairpin) = {
            let interfaces = self.interfaces();
            stats.nic.fallback = interfaces.refusals();
            (interfaces.cores(), interfaces.hairpin())
        };
        for core in cores {
            let (nic, engine) = core.counters();
            let within = hairpin
                .as_ref()
                .is_some_and(|hairpin| Arc::ptr_eq(hairpin, &core));
            stats.add_queue(&core.capabilities(), &nic, within);
            stats.add_engine(&engine);
            stats.add_reactor(&core.reactor_counters());
        }
        stats.add_memory(self.pool.used(), self.pool.limit());
        stats.connections.kernel_opened = self.kernel_opened.load(Ordering::Relaxed);
        stats
    }

    /// Listeners and connections that a NIC serves, one by one; none of the kernel's. Holds every core up while it
    /// is read: about a millisecond for 10,000 connections.
    pub fn connections(&self) -> ConnectionTable {
        ConnectionTable {
            listeners: self.listening_at(),
            connections: self
                .cores()
                .iter()
                .flat_map(|core| core.connections())
                .collect(),
        }
    }

    /// Counts a connection that became a kernel socket.
    pub fn count_kernel_socket(&self) {
        self.kernel_opened.fetch_add(1, Ordering::Relaxed);
    }

    fn cores(&self) -> Vec<Arc<Core>> {
        self.interfaces().cores()
    }

    fn interfaces(&self) -> MutexGuard<'_, Interfaces> {
        self.interfaces
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }

    fn kernel(&self) -> MutexGuard<'_, Option<KernelView>> {
        self.kernel.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What to do where the NIC cannot serve: go on with kernel sockets, or stop.
    fn fall_back(&self, error: io::Error) -> io::Result<()> {
        match self.config.fallback {
            Fallback::Allow => Ok(()),
            Fallback::Deny => Err(error),
        }
    }

    fn uses_nic(&self) -> bool {
        self.config.nic != NicChoice::Off
    }
}

impl std::fmt::Debug for Host {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Host")
            .field("config", &self.config)
            .finish_non_exhaustive()
    }
}
