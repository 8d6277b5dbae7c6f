//! The accept loop, and how it ends.

use std::future::Future;
use std::io;
use std::net::SocketAddr;
use std::time::Duration;

use tokio::task::JoinSet;
use tokio::time::{Instant, sleep, timeout, timeout_at};
use tracing::{debug, warn};

use crate::listener::{BindError, Listener, Stream, Transport};
use crate::stop::Stop;

/// How long a connection that says nothing is kept after a stop was asked for: a request that is
/// already on its way still gets its answer.
pub const QUIET: Duration = Duration::from_millis(250);

/// After a stop, connections that the system has already accepted for us are still served: this
/// long without one, and the listener closes ...
const BACKLOG_QUIET: Duration = Duration::from_millis(20);
/// ... as it does after this long with always another one.
const BACKLOG_LIMIT: Duration = Duration::from_millis(250);

/// Pause after an `accept` that failed for want of descriptors or memory.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);

/// What becomes of an accepted connection.
pub trait Handler: Clone + Send + Sync + 'static {
    /// Serves one connection to its end, in a task of its own.
    fn serve(&self, stream: Stream) -> impl Future<Output = ()> + Send + 'static;
}

impl<H, F> Handler for H
where
    H: Fn(Stream) -> F + Clone + Send + Sync + 'static,
    F: Future<Output = ()> + Send + 'static,
{
    fn serve(&self, stream: Stream) -> impl Future<Output = ()> + Send + 'static {
        self(stream)
    }
}

/// The listeners of one server.
#[derive(Debug)]
pub struct Server {
    listeners: Vec<Listener>,
    transport: Transport,
}

impl Server {
    /// Binds all of `addresses`.
    ///
    /// # Errors
    ///
    /// The first address that cannot be bound, and why.
    pub async fn bind(transport: Transport, addresses: &[SocketAddr]) -> Result<Self, BindError> {
        let mut listeners = Vec::with_capacity(addresses.len());
        for &address in addresses {
            listeners.push(Listener::bind(transport, address).await?);
        }
        Ok(Self {
            listeners,
            transport,
        })
    }

    /// Serves what `listener` accepts.
    #[must_use]
    pub fn of(listener: flextcp_net::TcpListener) -> Self {
        Self {
            listeners: vec![Listener::FlexTcp(listener)],
            transport: Transport::FlexTcp,
        }
    }

    /// Prints the one line that says where the server listens and over what.
    pub fn announce(&self, name: &str, scheme: &str) {
        let places: Vec<String> = self
            .listeners
            .iter()
            .filter_map(|listener| listener.local_addr().ok())
            .map(|address| format!("{scheme}{address}"))
            .collect();
        println!(
            "{name}: listening on {} over {}",
            places.join(" "),
            crate::stats::describe(self.transport)
        );
    }

    /// Serves every connection with `handler`, each in its own task, until `stop` is asked for;
    /// then stops accepting and gives the open connections at most `drain` to end.
    pub async fn run(self, stop: Stop, drain: Duration, handler: impl Handler) {
        let mut accepting = JoinSet::new();
        for listener in self.listeners {
            accepting.spawn(accept_loop(listener, stop.clone(), handler.clone()));
        }
        stop.requested().await;
        let deadline = Instant::now() + drain;
        while accepting.join_next().await.is_some() {}
        if timeout_at(deadline, stop.all_closed()).await.is_err() {
            warn!(
                connections = stop.open(),
                "still open at the end of the drain time, closing them (--drain gives more time)"
            );
        }
    }
}

async fn accept_loop(listener: Listener, stop: Stop, handler: impl Handler) {
    let serve = |stream: Stream| {
        if let Err(error) = stream.set_nodelay(true) {
            debug!(%error, peer = %stream.peer_addr(), "cannot turn Nagle's algorithm off");
        }
        let open = stop.connection(!stream.is_accelerated());
        let connection = handler.serve(stream);
        tokio::spawn(async move {
            connection.await;
            drop(open);
        });
    };

    let mut watch = stop.watch();
    let mut failing = false;
    loop {
        let mut accept = std::pin::pin!(listener.accept());
        match watch.race(&mut accept).await {
            None => break,
            Some(Ok(stream)) => {
                failing = false;
                serve(stream);
            }
            Some(Err(error)) if is_of_the_connection(&error) => {
                debug!(%error, "a connection was gone before it was accepted");
            }
            Some(Err(error)) => {
                if !failing {
                    warn!(%error, "cannot accept connections; trying again (ulimit -n raises the number of descriptors)");
                    failing = true;
                }
                sleep(ACCEPT_PAUSE).await;
            }
        }
    }

    let deadline = Instant::now() + BACKLOG_LIMIT;
    while Instant::now() < deadline {
        match timeout(BACKLOG_QUIET, listener.accept()).await {
            Ok(Ok(stream)) => serve(stream),
            Ok(Err(error)) if is_of_the_connection(&error) => {}
            Ok(Err(_)) | Err(_) => break,
        }
    }
}

/// Errors that `accept` passes on from the new connection: accept(2), "Error handling".
fn is_of_the_connection(error: &io::Error) -> bool {
    use io::ErrorKind::{
        ConnectionAborted, ConnectionRefused, ConnectionReset, HostUnreachable, Interrupted,
        NetworkDown, NetworkUnreachable, TimedOut,
    };
    matches!(
        error.kind(),
        ConnectionAborted
            | ConnectionRefused
            | ConnectionReset
            | HostUnreachable
            | Interrupted
            | NetworkDown
            | NetworkUnreachable
            | TimedOut
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::net::TcpStream;

    #[tokio::test]
    async fn serves_what_was_in_the_backlog_when_the_stop_came() {
        let server = Server::bind(Transport::Kernel, &[([127, 0, 0, 1], 0).into()])
            .await
            .unwrap();
        let address = server.listeners[0].local_addr().unwrap();
        let mut clients = Vec::new();
        for _ in 0..20 {
            clients.push(TcpStream::connect(address).await.unwrap());
        }
        let stop = Stop::new();
        stop.request();
        server
            .run(
                stop,
                Duration::from_secs(5),
                |mut stream: Stream| async move {
                    stream.write_all(b"served").await.unwrap();
                },
            )
            .await;
        for mut client in clients {
            let mut answer = String::new();
            client.read_to_string(&mut answer).await.unwrap();
            assert_eq!(answer, "served");
        }
        assert!(TcpStream::connect(address).await.is_err());
    }

    #[tokio::test]
    async fn a_connection_that_never_ends_is_cut_at_the_deadline() {
        let server = Server::bind(Transport::Kernel, &[([127, 0, 0, 1], 0).into()])
            .await
            .unwrap();
        let address = server.listeners[0].local_addr().unwrap();
        let _client = TcpStream::connect(address).await.unwrap();
        let stop = Stop::new();
        stop.request();
        let hang = |stream: Stream| async move {
            let _stream = stream;
            std::future::pending().await
        };
        server
            .run(stop.clone(), Duration::from_millis(100), hang)
            .await;
        assert_eq!(stop.open(), 1);
    }
}
