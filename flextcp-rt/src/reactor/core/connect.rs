//! Connecting from a core.

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use flextcp_nic::flow::{FlowTuple, Token};

use super::request::Request;
use super::{Core, Owned};
use crate::options::SocketOptions;
use crate::reactor::driver::DriverShared;
use crate::socket::{self, Command, Core as _, Stream};
use crate::tcp::{AppBuffers, CommandError, Link};

/// Whatever holds the local port of an outgoing connection (a kernel socket, but in the lab), until the last clone is
/// dropped.
#[derive(Clone)]
pub(crate) struct PortHold {
    _hold: Arc<dyn Send + Sync>,
    /// Connections to other peers may have it too: the program did not ask for this port.
    any: bool,
}

impl PortHold {
    /// Of the port that the program asked for.
    pub(crate) fn of_its_own(hold: impl Send + Sync + 'static) -> Self {
        Self {
            _hold: Arc::new(hold),
            any: false,
        }
    }

    /// Of a port of nobody's choice.
    pub(crate) fn of_any(hold: impl Send + Sync + 'static) -> Self {
        Self {
            _hold: Arc::new(hold),
            any: true,
        }
    }
}

/// An outgoing connection as [`Core::connect`] wants it.
pub(crate) struct ConnectRequest {
    pub(crate) tuple: FlowTuple,
    /// The link of link-local addresses.
    pub(crate) scope: u32,
    pub(crate) link: Link,
    pub(crate) options: SocketOptions,
    pub(crate) reservation: PortHold,
    pub(crate) driver: Arc<DriverShared>,
}

/// The answer to a [`ConnectRequest`]; dropping it aborts the handshake.
pub(crate) struct ConnectFuture {
    done: tokio::sync::oneshot::Receiver<io::Result<Stream>>,
    abort: Option<(Arc<DriverShared>, Token)>,
}

/// An outgoing connection whose handshake is on the way.
pub(super) struct Connecting {
    pub(super) tuple: FlowTuple,
    pub(super) scope: u32,
    pub(super) app: AppBuffers,
    pub(super) driver: Arc<DriverShared>,
    pub(super) reservation: PortHold,
    pub(super) options: SocketOptions,
    pub(super) done: tokio::sync::oneshot::Sender<io::Result<Stream>>,
}

impl Core {
    /// Starts a handshake.
    ///
    /// # Errors
    /// Gives the reservation back: `AddrNotAvailable` may be over at another port.
    pub(crate) fn connect(
        self: &Arc<Self>,
        request: ConnectRequest,
    ) -> Result<ConnectFuture, (io::Error, PortHold)> {
        let ConnectRequest {
            tuple,
            scope,
            link,
            options,
            reservation,
            driver,
        } = request;
        let now = self.now();
        let mut inner = self.lock();
        if let Err(error) = inner.nic.own(tuple.local_addr()) {
            return Err((error, reservation));
        }
        // A former connection with these ends may have left for the kernel.
        if let Err(error) = inner.nic.include(tuple) {
            inner.disown(tuple.local_addr());
            return Err((error, reservation));
        }
        let (conn, app) = match inner.engine.connect(now, tuple, link, options.clone()) {
            Ok(started) => started,
            Err(error) => {
                inner.disown(tuple.local_addr());
                return Err((connect_error(error), reservation));
            }
        };
        let (done, waiting) = tokio::sync::oneshot::channel();
        let token = Token::from(conn);
        inner.connecting.insert(
            token,
            Connecting {
                tuple,
                scope,
                app,
                driver: driver.clone(),
                reservation,
                options,
                done,
            },
        );
        drop(inner);
        self.requests.push(Request::Doorbell(token));
        driver.wake();
        Ok(ConnectFuture {
            done: waiting,
            abort: Some((driver, token)),
        })
    }
}

impl Core {
    /// A port of an outgoing connection at `source`, for another one, to `remote`: a pair of ends is one connection's, a
    /// port need not be. Looks at every connection.
    pub(crate) fn port_to_share(
        &self,
        source: IpAddr,
        remote: SocketAddr,
    ) -> Option<(u16, PortHold)> {
        let inner = self.lock();
        inner.streams.values().find_map(|entry| {
            let local = entry.owned.as_ref().map(Owned::local)?;
            if local.ip() != source {
                return None;
            }
            let hold = entry.reservation.as_ref().filter(|hold| hold.any)?;
            let taken = inner.engine.knows(&FlowTuple::new(local, remote));
            (!taken).then(|| (local.port(), hold.clone()))
        })
    }
}

#[cfg(feature = "lab")]
impl ConnectFuture {
    /// The answer, if it came.
    pub(crate) fn try_take(&mut self) -> Option<io::Result<Stream>> {
        let answer = match self.done.try_recv() {
            Ok(answer) => answer,
            Err(tokio::sync::oneshot::error::TryRecvError::Empty) => return None,
            Err(tokio::sync::oneshot::error::TryRecvError::Closed) => {
                Err(socket::runtime_shutdown_error())
            }
        };
        self.abort = None;
        Some(answer)
    }
}

impl std::fmt::Debug for ConnectFuture {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("ConnectFuture").finish_non_exhaustive()
    }
}

impl Future for ConnectFuture {
    type Output = io::Result<Stream>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        Pin::new(&mut self.done).poll(cx).map(|answer| {
            self.abort = None;
            answer.unwrap_or_else(|_| Err(socket::runtime_shutdown_error()))
        })
    }
}

impl Drop for ConnectFuture {
    fn drop(&mut self) {
        if let Some((driver, token)) = self.abort.take() {
            driver.command(token, Command::Abort);
        }
    }
}

/// `connect(2)`'s errno.
pub(super) fn connect_error(error: CommandError) -> io::Error {
    match error {
        CommandError::NoBuffers => io::Error::from_raw_os_error(libc::ENOBUFS),
        CommandError::NotAHost => io::Error::from_raw_os_error(libc::ENETUNREACH),
        _ => io::Error::from_raw_os_error(libc::EADDRNOTAVAIL),
    }
}
