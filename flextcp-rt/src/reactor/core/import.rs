//! Connections that come to a core from the kernel.

use std::io;
use std::net::TcpStream;
use std::sync::Arc;

use flextcp_nic::flow::{FlowTuple, Token};

use super::connect::{PortHold, connect_error};
use super::request::Request;
use super::trace::{self, Origin};
use super::{Core, Owned, StreamEntry};
use crate::host::repair::{self, ImportError, RepairState};
use crate::options::SocketOptions;
use crate::reactor::driver::DriverShared;
use crate::socket::{self, Addresses, Stream};
use crate::tcp::{Exported, Link};

/// A kernel connection as [`Core::import`] wants it.
pub(crate) struct ImportRequest {
    pub(crate) stream: TcpStream,
    pub(crate) link: Link,
    pub(crate) options: SocketOptions,
    pub(crate) driver: Arc<DriverShared>,
}

impl Core {
    /// Ends [`exclude`](Self::exclude).
    pub(crate) fn include(&self, tuple: FlowTuple) -> io::Result<()> {
        self.lock().nic.include(tuple)
    }

    /// Takes a kernel connection over. What the peer sends in between comes again.
    ///
    /// # Errors
    /// Gives it back, unharmed.
    pub(crate) fn import(&self, request: ImportRequest) -> Result<Stream, ImportError> {
        let ImportRequest {
            stream,
            link,
            options,
            driver,
        } = request;
        // From here on the kernel drops what arrives, and says nothing.
        let imported = repair::import(stream)?;
        let (state, unread) = exported(&imported.state);
        let tuple = state.tuple;
        let now = self.now();
        // No turn comes between: the first frame that is steered to us finds its connection.
        let mut inner = self.lock();
        let started = inner
            .engine
            .import(now, &state, unread, link, options.clone())
            .map_err(connect_error);
        let (conn, app) = match started {
            Ok(started) => started,
            Err(error) => {
                let stream = imported.undo();
                return Err(ImportError { stream, error });
            }
        };
        let owned = inner.nic.own_flow(tuple).and_then(|()| {
            let included = inner.nic.include(tuple);
            if included.is_err() {
                inner.give_up(Owned::Flow(tuple));
            }
            included
        });
        if let Err(error) = owned {
            inner.engine.release(conn);
            let stream = imported.undo();
            return Err(ImportError { stream, error });
        }
        let (state, reservation) = imported.finish();
        let addresses = Addresses {
            local: state.local,
            peer: state.remote,
        };
        let token = Token::from(conn);
        let runtime = driver.runtime().clone();
        let core: Arc<dyn socket::Core> = driver.clone();
        let (stream, handle) = socket::pair(core, token, app, addresses, options, Some(&runtime));
        stream.assume_accepted();
        let span = trace::opened(&self.name, &tuple, Origin::Imported);
        inner.streams.insert(
            token,
            StreamEntry {
                handle,
                owned: Some(Owned::Flow(tuple)),
                reservation: Some(PortHold::of_its_own(reservation)),
                inherited: None,
                span,
            },
        );
        drop(inner);
        self.requests.push(Request::Doorbell(token));
        driver.wake();
        Ok(stream)
    }
}

/// The kernel's words in the engine's, and the unread bytes.
fn exported(state: &RepairState) -> (Exported, &[u8]) {
    let canonical = |addr: std::net::SocketAddr| {
        std::net::SocketAddr::new(addr.ip().to_canonical(), addr.port())
    };
    let exported = Exported {
        tuple: FlowTuple::new(canonical(state.local), canonical(state.remote)),
        snd_una: state.snd_una,
        unacked: state.unacked.clone(),
        unsent: state.unsent.clone(),
        snd_wl1: state.window.snd_wl1,
        snd_wnd: state.window.snd_wnd,
        max_window: state.window.max_window,
        rcv_nxt: state.rcv_nxt,
        rcv_wup: state.window.rcv_wup,
        rcv_wnd: state.window.rcv_wnd,
        peer_mss: state.mss,
        window_scales: state.window_scales,
        sack: state.sack_permitted,
        timestamp: state.timestamp,
    };
    (exported, &state.recv_queue)
}
