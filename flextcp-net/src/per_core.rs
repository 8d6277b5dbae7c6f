//! [`PerCore`].

use std::io;
use std::net::SocketAddr;
use std::num::NonZeroUsize;
use std::thread;

use tokio::runtime::{Builder, Runtime};
use tokio::task::LocalSet;

use crate::TcpListener;

/// Serves with one thread per core: each has a single-threaded runtime, a NIC queue and a listener of its own, so that a
/// connection stays on one core from the wire to the application. Nothing is shared and no task moves; tasks need not be
/// `Send` ([`spawn_local`](tokio::task::spawn_local)).
///
/// ```no_run
/// use flextcp_net::PerCore;
///
/// # fn main() -> std::io::Result<()> {
/// PerCore::new().run("0.0.0.0:7777".parse().unwrap(), |listener| async move {
///     loop {
///         let (mut stream, _) = listener.accept().await?;
///         tokio::task::spawn_local(async move {
///             let (mut read, mut write) = stream.split();
///             tokio::io::copy(&mut read, &mut write).await
///         });
///     }
/// })
/// # .map(|_: Vec<()>| ())
/// # }
/// ```
///
/// All listen at one address. A connection goes to the thread whose queue its first packet arrives on; those over
/// interfaces without a queue of ours are spread by the kernel (`SO_REUSEPORT`). What a thread connects to leaves
/// through its own queue. On systems other than Linux, and with the feature `kernel`, the threads share kernel sockets.
#[derive(Clone, Debug)]
pub struct PerCore {
    threads: Option<NonZeroUsize>,
    backlog: u32,
}

impl Default for PerCore {
    fn default() -> Self {
        Self::new()
    }
}

impl PerCore {
    /// As many threads as the interfaces of the address have queues; where it is not accelerated, as many as the
    /// system has cores for this process.
    pub const fn new() -> Self {
        Self {
            threads: None,
            backlog: 4096,
        }
    }

    /// Sets the number of threads. With fewer than queues each has several, with more they share.
    #[must_use]
    pub const fn threads(mut self, threads: NonZeroUsize) -> Self {
        self.threads = Some(threads);
        self
    }

    /// Sets how many connections may wait to be accepted, on each thread; 4096 without.
    #[must_use]
    pub const fn backlog(mut self, backlog: u32) -> Self {
        self.backlog = backlog;
        self
    }

    /// Listens at `address` (with port 0 on one port of the system's choice), has every thread run `serve` with its
    /// listener, and waits until all have returned; then gives their values, in the order of the threads. The
    /// connections that a thread's tasks still hold are closed when it returns.
    ///
    /// # Errors
    /// The address cannot be bound, or a thread or runtime not be started: then none has served. Else the first error
    /// that a `serve` returned, once all have.
    ///
    /// # Panics
    /// When `serve` does, once all have returned; and within a runtime, since it blocks.
    pub fn run<T, F, S>(self, address: SocketAddr, serve: S) -> io::Result<Vec<T>>
    where
        T: Send,
        F: Future<Output = io::Result<T>>,
        S: Fn(TcpListener) -> F + Sync,
    {
        let threads = match self.threads {
            Some(threads) => threads.get(),
            None => sockets::threads(address)?,
        };
        let shards = sockets::bind(address, threads)?
            .into_iter()
            .enumerate()
            .map(|(index, socket)| {
                let runtime = Builder::new_current_thread().enable_all().build()?;
                let entered = runtime.enter();
                let _shard = sockets::enter(index, threads);
                let listener = sockets::listen(socket, self.backlog)?;
                drop(entered);
                Ok((runtime, listener))
            })
            .collect::<io::Result<Vec<_>>>()?;
        run_all(shards, &serve)
    }
}

/// Runs every shard on a thread of its own, or none.
fn run_all<T, F, S>(shards: Vec<(Runtime, TcpListener)>, serve: &S) -> io::Result<Vec<T>>
where
    T: Send,
    F: Future<Output = io::Result<T>>,
    S: Fn(TcpListener) -> F + Sync,
{
    let of = shards.len();
    thread::scope(|scope| {
        let mut started = Vec::with_capacity(of);
        for (index, (runtime, listener)) in shards.into_iter().enumerate() {
            let (start, wait) = std::sync::mpsc::channel::<()>();
            let thread = thread::Builder::new()
                .name(format!("flextcp-core-{index}"))
                .spawn_scoped(scope, move || {
                    let _shard = sockets::enter(index, of);
                    // Without a start another thread could not be had.
                    wait.recv().ok()?;
                    let local = LocalSet::new();
                    Some(local.block_on(&runtime, serve(listener)))
                })?;
            started.push((start, thread));
        }
        let threads: Vec<_> = started
            .into_iter()
            .map(|(start, thread)| {
                // One that waits takes it.
                let _ = start.send(());
                thread
            })
            .collect();
        let ended: Vec<_> = threads.into_iter().map(|thread| thread.join()).collect();
        ended
            .into_iter()
            .map(|ended| match ended {
                Ok(result) => result.expect("it was told to start"),
                Err(panic) => std::panic::resume_unwind(panic),
            })
            .collect()
    })
}

/// One listening address for several runtimes.
#[cfg(target_os = "linux")]
mod sockets {
    use super::{SocketAddr, TcpListener, io};
    use crate::TcpSocket;

    pub(super) fn bind(address: SocketAddr, threads: usize) -> io::Result<Vec<TcpSocket>> {
        let mut address = address;
        let mut sockets = Vec::with_capacity(threads);
        for _ in 0..threads {
            let socket = match address {
                SocketAddr::V4(_) => TcpSocket::new_v4(),
                SocketAddr::V6(_) => TcpSocket::new_v6(),
            }?;
            socket.set_reuseaddr(true)?;
            socket.set_reuseport(true)?;
            socket.bind(address)?;
            // With port 0 the first one chooses.
            address = socket.local_addr()?;
            sockets.push(socket);
        }
        Ok(sockets)
    }

    pub(super) fn listen(socket: TcpSocket, backlog: u32) -> io::Result<TcpListener> {
        socket.listen(backlog)
    }

    #[cfg(not(feature = "kernel"))]
    pub(super) fn threads(address: SocketAddr) -> io::Result<usize> {
        match flextcp_rt::Host::current()?.queues_at(address)? {
            0 => super::cores(),
            queues => Ok(queues),
        }
    }

    #[cfg(not(feature = "kernel"))]
    pub(super) fn enter(index: usize, of: usize) -> impl Drop {
        flextcp_rt::Shard::new(index, of)
            .expect("a thread's number is below their number")
            .enter()
    }

    #[cfg(feature = "kernel")]
    pub(super) use super::kernel::{enter, threads};
}

/// Elsewhere `SO_REUSEPORT` does not share, or does not exist: all accept from one socket.
#[cfg(not(target_os = "linux"))]
mod sockets {
    use super::{SocketAddr, TcpListener, io};

    pub(super) use super::kernel::{enter, threads};

    pub(super) fn bind(
        address: SocketAddr,
        threads: usize,
    ) -> io::Result<Vec<std::net::TcpListener>> {
        let first = std::net::TcpListener::bind(address)?;
        first.set_nonblocking(true)?;
        let others = (1..threads).map(|_| first.try_clone());
        let mut all = others.collect::<io::Result<Vec<_>>>()?;
        all.push(first);
        Ok(all)
    }

    /// The standard library has chosen the backlog.
    pub(super) fn listen(socket: std::net::TcpListener, _backlog: u32) -> io::Result<TcpListener> {
        TcpListener::from_std(socket)
    }
}

/// Without a NIC.
#[cfg(any(not(target_os = "linux"), feature = "kernel"))]
mod kernel {
    use super::{SocketAddr, io};

    pub(super) struct NoShard;

    pub(super) fn enter(_index: usize, _of: usize) -> NoShard {
        NoShard
    }

    pub(super) fn threads(_address: SocketAddr) -> io::Result<usize> {
        super::cores()
    }
}

fn cores() -> io::Result<usize> {
    thread::available_parallelism().map(NonZeroUsize::get)
}

#[cfg(test)]
mod tests {
    use std::net::Ipv4Addr;
    use std::rc::Rc;
    use std::sync::Mutex;

    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
    use tokio::sync::Semaphore;

    use super::*;

    const ANY: SocketAddr = SocketAddr::new(std::net::IpAddr::V4(Ipv4Addr::LOCALHOST), 0);

    fn three() -> PerCore {
        PerCore::new().threads(NonZeroUsize::new(3).unwrap())
    }

    #[test]
    fn all_threads_serve_one_address_until_they_return() {
        const CONNECTIONS: usize = 30;
        let addresses = Mutex::new(Vec::new());
        let (served, all_served) = (Semaphore::new(0), Semaphore::new(0));
        let counts = three()
            .run(ANY, |listener| {
                let (addresses, served, all_served) = (&addresses, &served, &all_served);
                async move {
                    let address = listener.local_addr()?;
                    let first = {
                        let mut addresses = addresses.lock().unwrap();
                        addresses.push(address);
                        addresses.len() == 1
                    };
                    if first {
                        // From kernel sockets, over no queue of ours: a client that the hairpin does not shorten.
                        tokio::spawn(async move {
                            for n in 0..CONNECTIONS {
                                let mut stream =
                                    tokio::net::TcpStream::connect(address).await.unwrap();
                                stream.write_all(&[n as u8]).await.unwrap();
                                let mut echo = [0];
                                stream.read_exact(&mut echo).await.unwrap();
                                assert_eq!(echo, [n as u8]);
                            }
                        });
                    }
                    // Not `Send`, and neither are the tasks.
                    let mine = Rc::new(std::cell::Cell::new(0));
                    loop {
                        tokio::select! {
                            accepted = listener.accept() => {
                                let (mut stream, _) = accepted?;
                                let mine = mine.clone();
                                let mut byte = [0];
                                stream.read_exact(&mut byte).await?;
                                stream.write_all(&byte).await?;
                                tokio::task::spawn_local(async move {
                                    mine.set(mine.get() + 1);
                                })
                                .await?;
                                served.add_permits(1);
                                if served.available_permits() == CONNECTIONS {
                                    all_served.add_permits(3);
                                }
                            }
                            _ = all_served.acquire() => return Ok(mine.get()),
                        }
                    }
                }
            })
            .unwrap();
        assert_eq!(counts.len(), 3);
        assert_eq!(counts.iter().sum::<usize>(), CONNECTIONS);
        let addresses = addresses.into_inner().unwrap();
        assert!(addresses.iter().all(|address| *address == addresses[0]));
    }

    #[test]
    fn an_error_is_returned_once_all_have_ended() {
        let ended = Mutex::new(0);
        let error = three()
            .run::<(), _, _>(ANY, |listener| {
                let ended = &ended;
                async move {
                    drop(listener);
                    *ended.lock().unwrap() += 1;
                    Err(io::Error::other("enough"))
                }
            })
            .unwrap_err();
        assert_eq!(error.to_string(), "enough");
        assert_eq!(ended.into_inner().unwrap(), 3);
    }

    #[test]
    fn an_address_that_is_held_is_refused() {
        let held = std::net::TcpListener::bind(ANY).unwrap();
        let error = three()
            .run(held.local_addr().unwrap(), |_| async { Ok(()) })
            .unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::AddrInUse);
    }
}
