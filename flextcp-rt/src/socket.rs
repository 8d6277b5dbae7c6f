//! What an accelerated stream holds, and how the core tells it things.
//!
//! A connection's application side is a [`Stream`], its core side a [`StreamHandle`]; [`pair`] makes both.
//! Data operations touch the app buffers and, where the core has to know, one [`Core::doorbell`]; they take
//! no lock that the core holds and make no system call. Everything else is a [`Command`].
//!
//! | core, on this engine event | calls |
//! |---|---|
//! | `Connected` | [`StreamHandle::on_connected`] |
//! | `Accepted` | [`pair`], [`AcceptQueue::push`] |
//! | `Readable`, `Writable`, `PeerClosed`, `Failed` | [`StreamHandle::on_readable`] and so on |
//! | a doorbell from a stream | [`StreamHandle::take_doorbell`], then [`Engine::doorbell`] |
//!
//! The `on_*` methods collect wakers in a [`Wakers`] that the core wakes when it holds no lock.
//!
//! [`Engine::doorbell`]: crate::tcp::Engine::doorbell

mod accept;
mod handle;
#[cfg(target_os = "linux")]
mod mirror;
#[cfg(all(flextcp_loom, test))]
mod models;
mod readiness;
mod runtime;
mod stream;
mod sync;
#[cfg(test)]
mod tests;

use std::io;
use std::net::{SocketAddr, TcpStream};
use std::sync::Arc;

pub use accept::{AcceptQueue, FlexListener};
pub use flextcp_nic::flow::Token;
pub use handle::StreamHandle;
#[cfg(target_os = "linux")]
pub use mirror::Mirror;
pub use readiness::Wakers;
pub use runtime::RuntimeHandle;
pub(crate) use runtime::gone as runtime_shutdown_error;
pub use stream::{RecvBytes, Stream};

use crate::options::{SocketOption, SocketOptions};
use crate::tcp::{AppBuffers, ListenerId, TcpInfo};

/// What a stream asks of the core that owns its connection.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
#[non_exhaustive]
pub enum Command {
    /// The application writes no more: FIN after what it wrote.
    ShutdownWrite,
    /// The application dropped the stream: FIN after what it wrote, or RST when it left bytes unread or lingers
    /// zero. Nothing is said to the handle any more.
    Close,
    /// The application dropped the stream: RST at once.
    Abort,
    /// An option changed.
    SetOption(SocketOption),
}

/// The core of a connection, as its stream sees it. Every method may be called from any thread, also from
/// within a waker or a destructor, so none may block, and none may need a lock that is held while wakers are
/// woken or streams are dropped: they queue, and wake the reactor.
pub trait Core: Send + Sync {
    /// The application wrote, or freed enough of the receive ring. At most once until
    /// [`StreamHandle::take_doorbell`].
    fn doorbell(&self, conn: Token);

    /// Queues a command; commands of one connection keep their order, among themselves and with doorbells.
    fn command(&self, conn: Token, command: Command);

    /// The application took a connection of `listener` off the accept queue.
    fn accepted(&self, listener: ListenerId);

    /// A snapshot of the connection; `None` when it is forgotten.
    fn info(&self, conn: Token) -> Option<TcpInfo>;

    /// Moves the connection into a kernel socket with these `addresses`, and forgets it. `unread` takes a copy of
    /// the receive ring; it is called when no more bytes are published. Blocks for as long as a turn of the core.
    ///
    /// # Errors
    /// The kernel cannot carry it on; the connection is as before.
    fn export(
        &self,
        conn: Token,
        addresses: Addresses,
        unread: &mut dyn FnMut() -> Vec<u8>,
    ) -> io::Result<TcpStream>;
}

/// The two ends of a connection.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Addresses {
    /// Ours.
    pub local: SocketAddr,
    /// The peer's.
    pub peer: SocketAddr,
}

/// Makes both sides of the socket of `conn`. A stream belongs to `runtime` from the start (connect), or to that
/// of the task which takes it off the accept queue (`None`).
pub fn pair(
    core: Arc<dyn Core>,
    conn: Token,
    app: AppBuffers,
    addresses: Addresses,
    options: SocketOptions,
    runtime: Option<&RuntimeHandle>,
) -> (Stream, StreamHandle) {
    let shared = handle::Shared::new(core, conn, app, addresses, options);
    let stream = Stream::new(Arc::clone(&shared), runtime);
    (stream, StreamHandle::new(shared))
}
