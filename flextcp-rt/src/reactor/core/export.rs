//! Connections that leave a core for the kernel.

use std::io;
use std::net::TcpStream;

use flextcp_nic::flow::{FlowTuple, Token};
use flextcp_nic::nic::{Claim, StaleFlow};
use flextcp_nic::time::Instant;

use super::{Core, Inner};
use crate::host::repair::{self, RepairState, RepairWindow};
use crate::reactor::siblings::Siblings;
use crate::socket::Addresses;
use crate::tcp::{ConnId, Exported};

/// Polls that a NIC may take to give a claimed connection back.
const CLAIM_POLLS: usize = 1000;

impl Core {
    /// Leaves frames of `tuple` to the kernel.
    pub(crate) fn exclude(&self, tuple: FlowTuple) -> io::Result<()> {
        self.lock().nic.exclude(tuple)
    }

    /// [`socket::Core::export`].
    pub(super) fn export(
        &self,
        token: Token,
        addresses: Addresses,
        unread: &mut dyn FnMut() -> Vec<u8>,
    ) -> io::Result<TcpStream> {
        let now = self.now();
        let conn = ConnId::from(token);
        // No turn comes between, so nothing moves while the kernel's connection is built.
        let mut inner = self.lock();
        if inner.is_hairpin() {
            return Err(not_exported(
                "both its ends are in this process, and the kernel has never seen it",
            ));
        }
        self.take_requests(&mut inner, now);
        inner.claim(now, conn, self.siblings.get())?;
        let exported = inner
            .engine
            .export(now, conn)
            .ok_or_else(|| not_exported("it is not established any more"))?;
        let tuple = exported.tuple;
        inner.hand_over(token, tuple, &repair_state(exported, addresses, unread()))
    }

    /// Leaves to the kernel what peers have not taken yet of connections that were closed: it goes on when the process
    /// is gone, as with sockets of its own. Says how many it took, and how many it did not.
    pub(crate) fn bequeath(&self) -> (usize, usize) {
        let now = self.now();
        let mut inner = self.lock();
        if inner.is_hairpin() {
            return (0, 0);
        }
        let tokens: Vec<Token> = inner.streams.keys().copied().collect();
        let (mut taken, mut lost) = (0, 0);
        for token in tokens {
            let conn = ConnId::from(token);
            if let Err(error) = inner.claim(now, conn, self.siblings.get()) {
                tracing::debug!(%error, "a connection is not handed over");
                lost += 1;
                continue;
            }
            let Some(exported) = inner.engine.export_orphan(now, conn) else {
                continue;
            };
            let tuple = exported.tuple;
            let addresses = Addresses {
                local: tuple.local_addr(),
                peer: tuple.remote_addr(),
            };
            let state = repair_state(exported, addresses, Vec::new());
            match inner.hand_over(token, tuple, &state) {
                // Closed by the kernel, behind the bytes.
                Ok(stream) => {
                    drop(stream);
                    taken += 1;
                }
                Err(error) => {
                    tracing::debug!(%error, "a connection is not handed over");
                    lost += 1;
                }
            }
        }
        (taken, lost)
    }
}

impl Inner {
    /// Has the kernel carry on a connection that the engine owns.
    fn hand_over(
        &mut self,
        token: Token,
        tuple: FlowTuple,
        state: &RepairState,
    ) -> io::Result<TcpStream> {
        let stream = repair::export(state)?;
        // From here on the kernel answers. What is on its way to us already is dropped, and comes again.
        if let Err(error) = self.nic.exclude(tuple) {
            repair::discard(&stream)?;
            return Err(error);
        }
        self.engine.release(token.into());
        if let Some(entry) = self.streams.remove(&token)
            && let Some(owned) = entry.owned
        {
            self.give_up(owned);
        }
        Ok(stream)
    }

    /// Has the engine own the connection.
    fn claim(&mut self, now: Instant, conn: ConnId, siblings: Option<&Siblings>) -> io::Result<()> {
        let Some(flow) = self.engine.flow(conn) else {
            return Ok(());
        };
        match self.nic.claim(now, flow) {
            Ok(Claim::Done(returned)) => self.take_back(now, returned),
            Ok(Claim::Pending) | Err(StaleFlow) => {}
        }
        for _ in 0..CLAIM_POLLS {
            if self.engine.flow(conn).is_none() {
                return Ok(());
            }
            self.poll_nic(now, siblings)?;
        }
        Err(io::Error::new(
            io::ErrorKind::ResourceBusy,
            "the NIC does not give the connection back",
        ))
    }
}

fn not_exported(reason: &str) -> io::Error {
    io::Error::new(
        io::ErrorKind::Unsupported,
        format!("the kernel cannot carry the connection on: {reason}"),
    )
}

fn repair_state(exported: Exported, addresses: Addresses, recv_queue: Vec<u8>) -> RepairState {
    RepairState {
        local: addresses.local,
        remote: addresses.peer,
        snd_una: exported.snd_una,
        rcv_nxt: exported.rcv_nxt,
        recv_queue,
        unacked: exported.unacked,
        unsent: exported.unsent,
        mss: exported.peer_mss,
        window_scales: exported.window_scales,
        sack_permitted: exported.sack,
        timestamp: exported.timestamp,
        window: RepairWindow {
            snd_wl1: exported.snd_wl1,
            snd_wnd: exported.snd_wnd,
            max_window: exported.max_window,
            rcv_wnd: exported.rcv_wnd,
            rcv_wup: exported.rcv_wup,
        },
    }
}
