//! Shadow sockets: a kernel socket beside a connection on the NIC, for code that sets options or reads by descriptor.

use std::io;
use std::net::SocketAddr;
use std::os::fd::{AsFd, BorrowedFd};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::time::Duration;

use flextcp_rt::options::{SocketOption, SocketOptions};
use flextcp_rt::socket::{Mirror, Stream};
use socket2::{Domain, Protocol, SockRef, Socket, Type};

use crate::sockopt;

/// Congestion controls that can be taken over from a kernel socket.
const CONGESTION: [&str; 4] = ["reno", "cubic", "dctcp", "bbr"];

/// A congestion control's name as the engine wants it.
pub(crate) fn congestion_name(name: &str) -> Option<&'static str> {
    CONGESTION.into_iter().find(|known| *known == name)
}

fn new_socket(domain: Domain) -> io::Result<Socket> {
    Socket::new(domain, Type::STREAM.nonblocking(), Some(Protocol::TCP))
}

/// What a socket has that nobody set anything on.
fn pristine() -> &'static (Option<usize>, Option<usize>, Option<String>) {
    static PRISTINE: OnceLock<(Option<usize>, Option<usize>, Option<String>)> = OnceLock::new();
    PRISTINE.get_or_init(|| {
        let Ok(socket) = new_socket(Domain::IPV4) else {
            return (None, None, None);
        };
        (
            socket.recv_buffer_size().ok(),
            socket.send_buffer_size().ok(),
            sockopt::congestion(&SockRef::from(&socket)).ok(),
        )
    })
}

/// The size that was asked for: Linux doubles it for its bookkeeping. `None`: nobody asked.
fn asked(size: io::Result<usize>, pristine: Option<usize>) -> Option<u32> {
    let size = size
        .ok()
        .filter(|size| pristine.is_none_or(|pristine| *size != pristine))?;
    u32::try_from(size / 2).ok()
}

/// The options of a kernel socket, for a connection that takes them over. Where the kernel does not tell one, it
/// keeps its default.
pub(crate) fn options_of(socket: &SockRef<'_>) -> SocketOptions {
    let defaults = SocketOptions::default();
    let (recv, send, congestion) = pristine();
    let v6 = socket.local_addr().is_ok_and(|addr| addr.is_ipv6());
    let hops = if v6 {
        socket.unicast_hops_v6()
    } else {
        socket.ttl_v4()
    };
    let tos = if v6 {
        socket.tclass_v6()
    } else {
        socket.tos_v4()
    };
    let name = sockopt::congestion(socket)
        .ok()
        .filter(|name| congestion.as_ref() != Some(name));
    SocketOptions {
        nodelay: socket.tcp_nodelay().unwrap_or(defaults.nodelay),
        quickack: socket.tcp_quickack().unwrap_or(defaults.quickack),
        keepalive: sockopt::keepalive(socket).unwrap_or(defaults.keepalive),
        linger: socket.linger().unwrap_or(defaults.linger),
        user_timeout: sockopt::user_timeout(socket).unwrap_or(defaults.user_timeout),
        recv_buffer: asked(socket.recv_buffer_size(), *recv),
        send_buffer: asked(socket.send_buffer_size(), *send),
        ttl: hops.ok().and_then(|hops| u8::try_from(hops).ok()),
        tos: tos
            .ok()
            .and_then(|tos| u8::try_from(tos).ok())
            .unwrap_or(defaults.tos),
        congestion: name.and_then(|name| congestion_name(&name)),
        v6only: v6 && socket.only_v6().unwrap_or(defaults.v6only),
        reuse_port: socket.reuse_port().unwrap_or(defaults.reuse_port),
        ..defaults
    }
}

/// Sets what [`options_of`] reads. What the kernel refuses stays as it is: the stream has it nonetheless.
fn apply(options: &SocketOptions, socket: &Socket, v6: bool) {
    let socket = SockRef::from(socket);
    let _ = socket.set_tcp_nodelay(options.nodelay);
    let _ = socket.set_tcp_quickack(options.quickack);
    let _ = sockopt::set_keepalive(&socket, options.keepalive);
    let _ = socket.set_linger(options.linger);
    let _ = sockopt::set_user_timeout(&socket, options.user_timeout);
    if let Some(bytes) = options.recv_buffer {
        let _ = socket.set_recv_buffer_size(bytes as usize);
    }
    if let Some(bytes) = options.send_buffer {
        let _ = socket.set_send_buffer_size(bytes as usize);
    }
    if let Some(ttl) = options.ttl {
        let _ = if v6 {
            socket.set_unicast_hops_v6(ttl.into())
        } else {
            socket.set_ttl_v4(ttl.into())
        };
    }
    let tos = options.tos.into();
    let _ = if v6 {
        socket.set_tclass_v6(tos)
    } else {
        socket.set_tos_v4(tos)
    };
    if let Some(name) = options.congestion {
        let _ = sockopt::set_congestion(&socket, name);
    }
}

/// The changes that lead from `old` to `new`.
pub(super) fn changes(old: &SocketOptions, new: &SocketOptions) -> Vec<SocketOption> {
    let mut changes = Vec::new();
    let mut note = |changed: bool, option: Option<SocketOption>| {
        changes.extend(option.filter(|_| changed));
    };
    note(
        old.nodelay != new.nodelay,
        Some(SocketOption::NoDelay(new.nodelay)),
    );
    note(
        old.quickack != new.quickack,
        Some(SocketOption::QuickAck(new.quickack)),
    );
    note(
        old.keepalive != new.keepalive,
        Some(SocketOption::KeepAlive(new.keepalive)),
    );
    note(
        old.linger != new.linger,
        Some(SocketOption::Linger(new.linger)),
    );
    note(
        old.user_timeout != new.user_timeout,
        Some(SocketOption::UserTimeout(new.user_timeout)),
    );
    note(
        old.recv_buffer != new.recv_buffer,
        new.recv_buffer.map(SocketOption::RecvBuffer),
    );
    note(
        old.send_buffer != new.send_buffer,
        new.send_buffer.map(SocketOption::SendBuffer),
    );
    note(old.ttl != new.ttl, new.ttl.map(SocketOption::Ttl));
    note(old.tos != new.tos, Some(SocketOption::Tos(new.tos)));
    note(
        old.congestion != new.congestion,
        new.congestion.map(SocketOption::Congestion),
    );
    changes
}

/// The shadow of one stream, made when its descriptor is asked for.
#[derive(Debug, Default)]
pub(crate) struct Shadow {
    /// With the options as last read back: what differs was set through the descriptor.
    socket: OnceLock<Option<(Arc<Mirror>, Mutex<SocketOptions>)>>,
    /// The descriptor was lent since options were last read back.
    lent: AtomicBool,
    /// How many operations of the program's own run, which may read by descriptor.
    operations: AtomicUsize,
}

impl Shadow {
    /// The descriptor. When the process has none left it is that of the standard input, on which every socket
    /// call fails.
    pub(crate) fn fd(&self, stream: &Stream, local: SocketAddr) -> BorrowedFd<'_> {
        self.mirror(stream);
        let shadow = self.socket.get_or_init(|| {
            let v6 = local.is_ipv6();
            let socket = new_socket(if v6 { Domain::IPV6 } else { Domain::IPV4 }).ok()?;
            apply(&stream.options(), &socket, v6);
            let seen = options_of(&SockRef::from(&socket));
            Some((stream.mirror(socket), Mutex::new(seen)))
        });
        match shadow {
            Some((mirror, _)) => {
                self.lend(mirror);
                mirror.socket().as_fd()
            }
            None => stdin(),
        }
    }

    fn lend(&self, mirror: &Arc<Mirror>) {
        self.lent.store(true, Ordering::Release);
        mirror.lend(self.operations.load(Ordering::Relaxed) > 0);
    }

    /// Runs an operation of the program's own, which may read by descriptor, also by one lent before.
    pub(crate) fn run<R>(&self, operation: impl FnOnce() -> io::Result<R>) -> io::Result<R> {
        let running = Running::start(&self.operations);
        if let Some(Some((mirror, _))) = self.socket.get() {
            self.lend(mirror);
        }
        let result = operation();
        drop(running);
        if let Err(error) = &result
            && error.kind() == io::ErrorKind::WouldBlock
            && let Some(Some((mirror, _))) = self.socket.get()
        {
            mirror.read_all_shown();
        }
        result
    }

    /// Takes over what was set through the descriptor since it was last lent.
    pub(crate) fn mirror(&self, stream: &Stream) {
        if !self.lent.load(Ordering::Relaxed) || !self.lent.swap(false, Ordering::AcqRel) {
            return;
        }
        if let Some(Some((mirror, seen))) = self.socket.get() {
            mirror.settle();
            let mut seen = seen.lock().unwrap_or_else(PoisonError::into_inner);
            let now = options_of(&SockRef::from(mirror.socket()));
            let before = std::mem::replace(&mut *seen, now.clone());
            let current = stream.options();
            for option in changes(&before, &now) {
                let mut wanted = current.clone();
                wanted.apply(option);
                if wanted != current {
                    stream.set_option(option);
                }
            }
        }
    }

    /// Sets `option` on the shadow too, if there is one, so that it reads back.
    pub(crate) fn follow(&self, stream: &Stream, local: SocketAddr) {
        if let Some(Some((mirror, seen))) = self.socket.get() {
            let mut seen = seen.lock().unwrap_or_else(PoisonError::into_inner);
            apply(&stream.options(), mirror.socket(), local.is_ipv6());
            *seen = options_of(&SockRef::from(mirror.socket()));
        }
    }
}

impl Drop for Shadow {
    fn drop(&mut self) {
        if let Some(Some((mirror, _))) = self.socket.get() {
            mirror.settle();
        }
    }
}

/// Counts an operation while it runs, to its end or a panic.
struct Running<'a>(&'a AtomicUsize);

impl<'a> Running<'a> {
    fn start(operations: &'a AtomicUsize) -> Self {
        operations.fetch_add(1, Ordering::Relaxed);
        Self(operations)
    }
}

impl Drop for Running<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

fn stdin() -> BorrowedFd<'static> {
    static STDIN: OnceLock<io::Stdin> = OnceLock::new();
    STDIN.get_or_init(io::stdin).as_fd()
}

/// What `SO_LINGER` keeps of a time: whole seconds.
pub(crate) fn linger_seconds(linger: Option<Duration>) -> Option<Duration> {
    linger.map(|linger| Duration::from_secs(linger.as_secs()))
}
