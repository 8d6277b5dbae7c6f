//! What happens at its time: connections begin and are accepted, hosts and links change.

use std::net::SocketAddr;

use super::super::app::{Phase, changes};
use super::super::host::PORT;
use super::super::scenario::{NetEvent, address};
use super::{Connection, Timed, World};

/// First port of those ends of a simultaneous open: one pair of ports for each connection.
const CLIENT_PORTS: u16 = 2_000;
const SERVER_PORTS: u16 = 3_000;

impl World<'_> {
    pub(super) fn happen(&mut self, what: Timed) -> Result<(), String> {
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
        if plan.simultaneous {
            let client =
                SocketAddr::new(address(plan.client, plan.v6), CLIENT_PORTS + number as u16);
            let server =
                SocketAddr::new(address(plan.server, plan.v6), SERVER_PORTS + number as u16);
            if self.hosts[plan.client].lab.is_some() {
                self.connect_end(number, true, Some(server), client)?;
                self.connect_end(number, false, Some(client), server)?;
            }
            return Ok(());
        }
        let port = PORT + u16::from(plan.v6);
        let remote = SocketAddr::new(address(plan.server, plan.v6), port);
        self.connect_end(number, false, None, remote)
    }

    /// Has one end of a connection connect, if its host lives.
    fn connect_end(
        &mut self,
        number: usize,
        server: bool,
        local: Option<SocketAddr>,
        remote: SocketAddr,
    ) -> Result<(), String> {
        let plan = &self.scenario.connections[number];
        let connection = &mut self.connections[number];
        let (host, app) = if server {
            (&mut self.hosts[plan.server], &mut connection.server)
        } else {
            (&mut self.hosts[plan.client], &mut connection.client)
        };
        let Some(lab) = &mut host.lab else {
            return Ok(());
        };
        let socket = lab.socket();
        let started = lab
            .set_options(socket, app.plan().options.clone())
            .and_then(|()| local.map_or(Ok(()), |local| lab.bind(socket, local)))
            .and_then(|()| lab.connect(socket, remote))
            .and_then(|()| lab.local_addr(socket));
        let local =
            started.map_err(|error| format!("connection {number} cannot start: {error}"))?;
        app.socket = Some(socket);
        app.phase = Phase::Connecting;
        host.apps.push((number, server));
        host.stirred = true;
        if !server {
            self.by_client.insert((plan.server, local), number);
        }
        Ok(())
    }

    pub(super) fn accept(&mut self, number: usize) -> Result<bool, String> {
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
                let Connection {
                    server, reopened, ..
                } = &mut self.connections[connection];
                if server.socket.is_some() {
                    // A segment that was late has opened it once more: cookies remember nothing.
                    *reopened = true;
                    if lab.stats().defence.syn_cookies_accepted > 0 && lab.close(socket).is_ok() {
                        continue;
                    }
                    return Err(format!("connection {connection} was accepted twice"));
                }
                server.socket = Some(socket);
                server.phase = Phase::Open;
                let options = &server.plan().options;
                for option in changes(options) {
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
}
