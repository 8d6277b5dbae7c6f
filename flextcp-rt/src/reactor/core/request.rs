//! What streams and listeners ask of a core, and how it is done.

use std::io;
use std::net::TcpStream;

use flextcp_nic::flow::Token;
use flextcp_nic::time::Instant;

use super::{Core, Inner};
use crate::reactor::driver::DriverShared;
use crate::socket::{self, Addresses, Command};
use crate::tcp::{ConnId, ListenerId, TcpInfo};

/// What streams and listeners ask, in order.
#[derive(Debug)]
pub(super) enum Request {
    /// The application wrote or read, or a connect has a SYN to send.
    Doorbell(Token),
    Command(Token, Command),
    /// The application took a connection off the accept queue.
    Accepted(ListenerId),
    /// The engine has something to say: nothing but a turn.
    Turn,
}

impl Core {
    pub(super) fn take_requests(&self, inner: &mut Inner, now: Instant) -> usize {
        let mut taken = 0;
        while let Some(request) = self.requests.pop() {
            taken += 1;
            match request {
                Request::Doorbell(token) => inner.doorbell(now, token),
                Request::Command(token, command) => inner.command(now, token, command),
                Request::Accepted(listener) => inner.engine.accepted(now, listener),
                Request::Turn => {}
            }
        }
        taken
    }
}

impl Inner {
    fn doorbell(&mut self, now: Instant, token: Token) {
        if let Some(entry) = self.streams.get(&token) {
            entry.handle.take_doorbell();
        }
        if let Some(flow) = self.engine.doorbell(now, ConnId::from(token)) {
            // Before the bytes: the first of them after an idle time are bound by it.
            self.set_limits();
            // Stale: the flow comes back within this turn and the engine looks at the rings itself.
            let _ = self.nic.doorbell(now, flow);
        }
    }

    fn command(&mut self, now: Instant, token: Token, command: Command) {
        let conn = ConnId::from(token);
        match command {
            Command::ShutdownWrite => self.engine.shutdown_write(now, conn),
            Command::Close => self.engine.close(now, conn),
            Command::Abort => {
                if let Some(connecting) = self.connecting.remove(&token) {
                    self.disown(connecting.tuple.local_addr());
                }
                if self.streams.contains_key(&token) {
                    self.send_last_words(now);
                }
                self.engine.abort(now, conn);
            }
            Command::SetOption(option) => self.engine.set_option(now, conn, option),
        }
    }

    /// Sends what was written, and a FIN, before a reset in the same turn takes them back: on Linux they leave with the
    /// call that makes them, so that a server may answer, close, and leave the rest of the request unread.
    fn send_last_words(&mut self, now: Instant) {
        self.run_engine(now);
        // A device that is gone says so at the turn's own flush.
        let _ = self.nic.flush(now);
    }
}

/// What a stream calls: it lands in the core's queue and wakes the driver of the stream's runtime.
impl socket::Core for DriverShared {
    fn doorbell(&self, conn: Token) {
        self.core().requests.push(Request::Doorbell(conn));
        self.wake();
    }

    fn command(&self, conn: Token, command: Command) {
        self.core().requests.push(Request::Command(conn, command));
        self.wake();
    }

    fn accepted(&self, listener: ListenerId) {
        self.core().requests.push(Request::Accepted(listener));
        self.wake();
    }

    fn export(
        &self,
        conn: Token,
        addresses: Addresses,
        unread: &mut dyn FnMut() -> Vec<u8>,
    ) -> io::Result<TcpStream> {
        self.core().export(conn, addresses, unread)
    }

    fn info(&self, conn: Token) -> Option<TcpInfo> {
        let now = self.core().now();
        self.core().lock().engine.info(now, ConnId::from(conn))
    }
}
