//! What the engine says of its connections, delivered to their streams and listeners.

use std::io;
use std::net::{IpAddr, SocketAddr};

use flextcp_nic::flow::{FlowTuple, Token};

use super::connect::Connecting;
use super::trace::{self, Origin};
use super::{Inner, Owned, StreamEntry};
use crate::socket::{self, Addresses, StreamHandle, Wakers};
use crate::tcp::{AppBuffers, ConnError, ConnId, Event, ListenerId};

/// What a turn had to say.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Delivered {
    pub(super) events: usize,
    /// Whether some were new connections.
    pub(super) accepted: bool,
}

impl Inner {
    pub(super) fn deliver_events(&mut self, wakers: &mut Wakers) -> Delivered {
        let mut delivered = Delivered::default();
        while let Some(event) = self.engine.poll_event() {
            delivered.events += 1;
            match event {
                Event::Readable(conn) => {
                    self.with_stream(conn, |handle| handle.on_readable(wakers))
                }
                Event::Writable(conn) => {
                    self.with_stream(conn, |handle| handle.on_writable(wakers))
                }
                Event::PeerClosed(conn) => {
                    self.with_stream(conn, |handle| handle.on_peer_closed(wakers));
                }
                Event::Connected(conn) => self.connected(conn, wakers),
                Event::Accepted {
                    listener,
                    conn,
                    tuple,
                    app,
                } => {
                    delivered.accepted = true;
                    self.accepted(listener, conn, tuple, app, wakers);
                }
                Event::Failed { conn, error } => self.failed(conn, error, wakers),
                Event::TimeWait { conn, tuple } => self.enter_time_wait(conn, tuple),
                Event::TimeWaitOver(tuple) => self.leave_time_wait(&tuple),
                Event::Closed(conn) => self.closed(conn, wakers),
            }
        }
        delivered
    }

    pub(super) fn with_stream(&self, conn: ConnId, notify: impl FnOnce(&StreamHandle)) {
        if let Some(entry) = self.streams.get(&conn.into()) {
            notify(&entry.handle);
        }
    }

    fn connected(&mut self, conn: ConnId, wakers: &mut Wakers) {
        let token = Token::from(conn);
        let Some(connecting) = self.connecting.remove(&token) else {
            return;
        };
        let Connecting {
            tuple,
            scope,
            app,
            driver,
            reservation,
            options,
            done,
        } = connecting;
        let addresses = Addresses {
            local: scoped(tuple.local_addr(), scope),
            peer: scoped(tuple.remote_addr(), scope),
        };
        let runtime = driver.runtime().clone();
        let (stream, handle) = socket::pair(driver, token, app, addresses, options, Some(&runtime));
        handle.on_connected(wakers);
        self.streams.insert(
            token,
            StreamEntry {
                handle,
                owned: Some(Owned::Port(tuple.local_addr())),
                reservation: Some(reservation),
                inherited: None,
                span: trace::opened(
                    &self.nic.capabilities().port.name,
                    &tuple,
                    Origin::Connected,
                ),
            },
        );
        // When the caller gave up, the stream comes back here and its drop closes the connection.
        drop(done.send(Ok(stream)));
    }

    fn accepted(
        &mut self,
        listener: ListenerId,
        conn: ConnId,
        tuple: FlowTuple,
        app: AppBuffers,
        wakers: &mut Wakers,
    ) {
        let Some(entry) = self.listeners.get(&listener) else {
            return;
        };
        let token = Token::from(conn);
        let (local, peer) = (tuple.local_addr(), tuple.remote_addr());
        let addresses = match entry.local {
            SocketAddr::V4(_) => Addresses { local, peer },
            SocketAddr::V6(listening) => {
                let scope = match listening.scope_id() {
                    0 => self.nic.capabilities().port.ifindex,
                    scope => scope,
                };
                Addresses {
                    local: scoped(mapped(local), scope),
                    peer: scoped(mapped(peer), scope),
                }
            }
        };
        let core = entry.driver.clone();
        let (stream, handle) =
            socket::pair(core, token, app, addresses, entry.options.clone(), None);
        let owned = match self.nic.own_flow(tuple) {
            Ok(()) => Some(Owned::Flow(tuple)),
            Err(error) => {
                tracing::warn!(%local, %error, "this connection will not outlive its listener");
                None
            }
        };
        self.streams.insert(
            token,
            StreamEntry {
                handle,
                owned,
                reservation: None,
                inherited: None,
                span: trace::opened(&self.nic.capabilities().port.name, &tuple, Origin::Accepted),
            },
        );
        entry.queue.push(stream, listener, wakers);
    }

    fn failed(&mut self, conn: ConnId, error: ConnError, wakers: &mut Wakers) {
        if let Some(connecting) = self.connecting.remove(&conn.into()) {
            self.disown(connecting.tuple.local_addr());
            // Nobody wants the error of a connect that was given up.
            drop(connecting.done.send(Err(error.into())));
            return;
        }
        let errno = error.raw_os_error();
        let error = io::Error::from(error);
        if let Some(entry) = self.streams.get(&conn.into()) {
            trace::failed(&entry.span, &error);
            entry.handle.on_failed(error.kind(), Some(errno), wakers);
        }
    }

    fn closed(&mut self, conn: ConnId, wakers: &mut Wakers) {
        let token = Token::from(conn);
        if let Some(connecting) = self.connecting.remove(&token) {
            self.disown(connecting.tuple.local_addr());
        }
        if let Some(entry) = self.streams.remove(&token) {
            trace::closed(&entry.span);
            entry.handle.on_closed(wakers);
            if let Some(owned) = entry.owned {
                self.give_up(owned);
            }
            drop(entry.reservation);
        }
    }
}

/// A link-local address says on which link it is, as the kernel's sockets do: it reaches nobody without.
fn scoped(address: SocketAddr, scope: u32) -> SocketAddr {
    match address {
        SocketAddr::V6(mut v6) if v6.ip().is_unicast_link_local() => {
            v6.set_scope_id(scope);
            v6.into()
        }
        _ => address,
    }
}

/// An IPv4 address as an IPv6 socket shows it, and as its peers are named.
fn mapped(address: SocketAddr) -> SocketAddr {
    match address.ip() {
        IpAddr::V4(ip) => SocketAddr::new(ip.to_ipv6_mapped().into(), address.port()),
        IpAddr::V6(_) => address,
    }
}
