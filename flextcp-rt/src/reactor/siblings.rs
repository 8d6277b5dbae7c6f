//! The cores of one interface among themselves. A frame whose connection lives on another queue is handed over to it:
//! receive-side scaling decides where a frame arrives, and not every device lets itself be asked.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Weak};

use flextcp_nic::nic::{Exception, Reason};
use flextcp_nic::wire::{Packet, TcpFlags};

use super::core::Core;
use super::inbox::Inbox;
use crate::tcp::{Directory, Engine};

/// What a core knows of the others.
#[derive(Debug)]
pub(crate) struct Siblings {
    own: u32,
    directory: Arc<Directory>,
    all: Vec<Sibling>,
    handed_over: AtomicU64,
}

#[derive(Clone, Debug)]
struct Sibling {
    core: Weak<Core>,
    inbox: Arc<Inbox>,
}

impl Siblings {
    /// Makes the cores of an interface, in the order of its queues, siblings. One alone has none.
    pub(crate) fn introduce(cores: &[(Arc<Core>, Arc<Inbox>)]) {
        if cores.len() < 2 {
            return;
        }
        let directory = Arc::new(Directory::default());
        let all: Vec<_> = cores
            .iter()
            .map(|(core, inbox)| Sibling {
                core: Arc::downgrade(core),
                inbox: inbox.clone(),
            })
            .collect();
        for (own, (core, _)) in (0..).zip(cores) {
            core.join(Self {
                own,
                directory: directory.clone(),
                all: all.clone(),
                handed_over: AtomicU64::new(0),
            });
        }
    }

    /// The own queue, and what all share.
    pub(crate) fn directory(&self) -> (Arc<Directory>, u32) {
        (self.directory.clone(), self.own)
    }

    /// Frames that were given to others.
    pub(crate) fn handed_over(&self) -> u64 {
        self.handed_over.load(Ordering::Relaxed)
    }

    /// Gives an exception to the core whose connection it is about, or on which somebody listens for its SYN; `false`
    /// when it is for this one.
    pub(crate) fn take(&self, engine: &Engine, exception: &Exception<'_>) -> bool {
        if exception.returned.is_some() || exception.reason == Reason::HostOwned {
            return false;
        }
        let tuple = match exception.packet {
            Packet::Tcp(packet) => &packet.tuple,
            Packet::Icmp(error) => &error.tuple,
        };
        let home = self.directory.home(tuple).or_else(|| {
            let Packet::Tcp(packet) = exception.packet else {
                return None;
            };
            let flags = packet.tcp.flags;
            let opens = flags.contains(TcpFlags::SYN) && !flags.contains(TcpFlags::ACK);
            (opens && !engine.listens(tuple))
                .then(|| self.directory.listener(tuple.local_addr()))
                .flatten()
        });
        let Some(sibling) = home
            .filter(|home| *home != self.own)
            .and_then(|home| self.all.get(home as usize))
        else {
            return false;
        };
        self.handed_over.fetch_add(1, Ordering::Relaxed);
        if sibling.inbox.push(&exception.frame)
            && let Some(core) = sibling.core.upgrade()
        {
            core.poke();
        }
        true
    }
}
