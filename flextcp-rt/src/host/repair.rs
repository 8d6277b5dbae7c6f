//! Hand-over of live connections between us and kernel sockets, by Linux's TCP_REPAIR.
//!
//! A socket in repair mode can be taken apart and put together without a packet being sent: [`import`] takes a
//! kernel connection and closes its socket silently; [`export`] builds a kernel connection out of ours. The
//! peer sees a pause, at most a retransmission, and no lost byte. Needs CAP_NET_ADMIN in the owning user
//! namespace.
//!
//! A segment that finds no socket is answered with RST, and that would be the connection's end. So at every
//! moment someone must own its arrivals: a taken-over socket stays, frozen, until [`Imported::finish`], by when
//! the NIC must steer the flow to us; and a built one is there before the NIC stops to.
//!
//! Only ESTABLISHED connections are handed over: repair mode has no way to make a socket that has seen or
//! sent a FIN.

use std::fmt;
use std::io::{self, Write};
use std::net::{SocketAddr, TcpStream};
use std::os::fd::{AsFd, BorrowedFd};

use flextcp_nic::seq::{Mss, SeqNum, WindowScale};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use socket2::Socket;

use super::ports::{Reservation, socket_for};
use super::sockopt;

/// A connection as it is handed over. Sequence numbers are those of the next bytes, as in RFC 9293.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct RepairState {
    /// Our end.
    pub local: SocketAddr,
    /// The peer's.
    pub remote: SocketAddr,
    /// SND.UNA: the first byte of `unacked`, or of `unsent` without any.
    pub snd_una: SeqNum,
    /// RCV.NXT: after the last byte of `recv_queue`.
    pub rcv_nxt: SeqNum,
    /// Received in order, not yet read by the application.
    pub recv_queue: Vec<u8>,
    /// Sent, not acknowledged: from SND.UNA to SND.NXT.
    pub unacked: Vec<u8>,
    /// Written by the application, never sent.
    pub unsent: Vec<u8>,
    /// Largest segment the peer takes, options not subtracted.
    pub mss: Mss,
    /// Window scales of (the peer, us), when negotiated.
    pub window_scales: Option<(WindowScale, WindowScale)>,
    /// SACK was negotiated.
    pub sack_permitted: bool,
    /// TSval of the next segment, when timestamps were negotiated (milliseconds).
    pub timestamp: Option<u32>,
    /// The windows.
    pub window: RepairWindow,
}

/// The windows of a connection at hand-over.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct RepairWindow {
    /// SND.WL1: sequence number of the segment of the last window update.
    pub snd_wl1: SeqNum,
    /// SND.WND in bytes, scaled.
    pub snd_wnd: u32,
    /// Largest window the peer ever granted.
    pub max_window: u32,
    /// RCV.WND as last advertised, in bytes, counted from `rcv_wup`.
    pub rcv_wnd: u32,
    /// RCV.NXT when it was advertised: the last acknowledgment sent.
    pub rcv_wup: SeqNum,
}

impl RepairState {
    /// SND.NXT.
    pub fn snd_nxt(&self) -> SeqNum {
        self.snd_una + length(&self.unacked)
    }

    /// The first byte of the receive queue: what the application has read so far.
    pub fn read_seq(&self) -> SeqNum {
        self.rcv_nxt - length(&self.recv_queue)
    }
}

/// Why [`import`] refused; the connection goes on as a kernel socket.
#[derive(Debug)]
pub struct ImportError {
    /// The connection, unharmed.
    pub stream: TcpStream,
    /// The cause.
    pub error: io::Error,
}

impl fmt::Display for ImportError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.error.fmt(f)
    }
}

impl std::error::Error for ImportError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        Some(&self.error)
    }
}

impl From<ImportError> for io::Error {
    fn from(error: ImportError) -> Self {
        error.error
    }
}

/// `struct tcp_repair_opt` of `linux/tcp.h`.
#[derive(Clone, Copy, Debug)]
#[repr(C)]
struct TcpRepairOpt {
    code: u32,
    value: u32,
}

/// `struct tcp_repair_window` of `linux/tcp.h`.
#[derive(Clone, Copy, Debug)]
#[repr(C)]
struct TcpRepairWindow {
    snd_wl1: u32,
    snd_wnd: u32,
    max_window: u32,
    rcv_wnd: u32,
    rcv_wup: u32,
}

const REPAIR_ON: i32 = 1;
/// Leaves repair mode and probes the peer, whose answer brings acknowledgment and window up to date.
const REPAIR_OFF: i32 = 0;
/// Leaves repair mode silently.
const REPAIR_OFF_NO_PROBE: i32 = -1;

const RECV_QUEUE: i32 = 1;
const SEND_QUEUE: i32 = 2;

// TCP option kinds (RFC 9293, section 3.2; RFC 7323; RFC 2018), as TCP_REPAIR_OPTIONS takes them.
const OPT_MSS: u32 = 2;
const OPT_WINDOW_SCALE: u32 = 3;
const OPT_SACK_PERMITTED: u32 = 4;
const OPT_TIMESTAMPS: u32 = 8;

// Bits of `tcpi_options`, and the state of `tcpi_state`, in `struct tcp_info`.
const INFO_TIMESTAMPS: u8 = 1;
const INFO_SACK: u8 = 2;
const INFO_WINDOW_SCALE: u8 = 4;
const INFO_ESTABLISHED: u8 = 1;

/// `SO_BUF_LOCK`: which buffer sizes are fixed; 0 gives both back to the kernel's tuning.
const SO_BUF_LOCK: i32 = 72;
/// Bytes moved by one call while queues are restored: no more than a segment-offload packet.
const CHUNK: usize = 32 * 1024;
/// How long a write may wait for a socket that has been given room for it.
const WRITE_TIMEOUT: Timespec = Timespec {
    tv_sec: 1,
    tv_nsec: 0,
};
/// The MSS of the loopback interface, and a window that every new socket has room for.
const LOOPBACK_MSS: u16 = 65_483;
const FRESH_WINDOW: u32 = 32 * 1024;
/// Attempts to read a connection at rest.
const SNAPSHOTS: usize = 8;

fn length(bytes: &[u8]) -> u32 {
    u32::try_from(bytes.len()).expect("queues are shorter than half the sequence space")
}

/// Adds to a failed step of repair what it was, and what to do about a missing privilege.
fn explained(step: &'static str) -> impl FnOnce(io::Error) -> io::Error {
    move |error| match error.raw_os_error() {
        Some(libc::EPERM) => io::Error::new(
            io::ErrorKind::PermissionDenied,
            format!(
                "{step}: moving a live connection to or from a kernel socket needs CAP_NET_ADMIN: \
                 grant it with `setcap cap_net_admin+ep` or run as root"
            ),
        ),
        _ => io::Error::new(error.kind(), format!("{step}: {error}")),
    }
}

/// Builds a kernel connection that continues ours. It is in non-blocking mode. Ours must be at rest, and once
/// this succeeded it neither sends nor answers: forget it, then have the NIC pass the flow to the kernel.
/// Whatever socket holds the local port may stay.
///
/// # Errors
/// `PermissionDenied` without CAP_NET_ADMIN; `AddrNotAvailable` when the kernel has a connection of the same
/// ends. Nothing was sent, and ours may go on.
pub fn export(state: &RepairState) -> io::Result<TcpStream> {
    let socket = assemble(state)?;
    let fd = socket.as_fd();
    set_repair(fd, REPAIR_OFF).map_err(explained("leave repair mode"))?;
    // From here on the kernel sends. What was never sent is ordinary data.
    fill(&socket, &state.unsent).map_err(explained("queue unsent data"))?;
    // Best effort: before Linux 5.14 the sizes stay as reserved.
    let _ = sockopt::set(fd, libc::SOL_SOCKET, SO_BUF_LOCK, &[0_i32]);
    Ok(socket.into())
}

/// Forgets a kernel connection without a packet, after an [`export`] that is not to be.
///
/// # Errors
/// `PermissionDenied` without CAP_NET_ADMIN.
pub fn discard(stream: &TcpStream) -> io::Result<()> {
    set_repair(stream.as_fd(), REPAIR_ON).map_err(explained("enter repair mode"))?;
    Ok(rustix::net::connect_unspec(stream)?)
}

/// Builds a kernel connection between two addresses of this host, both of whose ends the caller gets: the one at
/// `local` first. Both are in non-blocking mode. Nothing is sent.
///
/// # Errors
/// As [`export`].
pub fn pair(local: SocketAddr, remote: SocketAddr) -> io::Result<(TcpStream, TcpStream)> {
    let mut numbers = [0; 8];
    rustix::rand::getrandom(&mut numbers, rustix::rand::GetRandomFlags::empty())?;
    let [a, b, c, d, e, f, g, h] = numbers;
    let (ours, theirs) = (
        SeqNum(u32::from_ne_bytes([a, b, c, d])),
        SeqNum(u32::from_ne_bytes([e, f, g, h])),
    );
    let near = assemble(&fresh(local, remote, ours, theirs))?;
    let far = assemble(&fresh(remote, local, theirs, ours))?;
    // Silently, and after both are there: a probe that finds a listener in the other's place is answered with RST.
    for socket in [&near, &far] {
        set_repair(socket.as_fd(), REPAIR_OFF_NO_PROBE).map_err(explained("leave repair mode"))?;
    }
    Ok((near.into(), far.into()))
}

/// A connection that has sent nothing yet.
fn fresh(local: SocketAddr, remote: SocketAddr, snd: SeqNum, rcv: SeqNum) -> RepairState {
    let scale = WindowScale::new(7);
    RepairState {
        local,
        remote,
        snd_una: snd,
        rcv_nxt: rcv,
        recv_queue: Vec::new(),
        unacked: Vec::new(),
        unsent: Vec::new(),
        mss: Mss::new(LOOPBACK_MSS),
        window_scales: Some((scale, scale)),
        sack_permitted: true,
        timestamp: None,
        window: RepairWindow {
            snd_wl1: rcv,
            snd_wnd: FRESH_WINDOW,
            max_window: FRESH_WINDOW,
            rcv_wnd: FRESH_WINDOW,
            rcv_wup: rcv,
        },
    }
}

/// All of [`export`] but leaving repair mode.
fn assemble(state: &RepairState) -> io::Result<Socket> {
    let socket = socket_for(state.local)?;
    let fd = socket.as_fd();
    // Repair mode also lets the socket bind an address that is held: by our reservation, or our listener.
    set_repair(fd, REPAIR_ON).map_err(explained("enter repair mode"))?;
    socket
        .bind(&state.local.into())
        .map_err(explained("bind the local address"))?;
    select_queue(fd, SEND_QUEUE, Some(state.snd_una))?;
    select_queue(fd, RECV_QUEUE, Some(state.read_seq()))?;
    socket
        .connect(&state.remote.into())
        .map_err(explained("connect in repair mode"))?;
    set_tcp(fd, libc::TCP_REPAIR_OPTIONS, &options(state)).map_err(explained("set TCP options"))?;

    reserve_buffers(&socket, state);
    socket.set_nonblocking(true)?;
    select_queue(fd, RECV_QUEUE, None)?;
    fill(&socket, &state.recv_queue).map_err(explained("restore the receive queue"))?;
    select_queue(fd, SEND_QUEUE, None)?;
    fill(&socket, &state.unacked).map_err(explained("restore the retransmission queue"))?;

    if let Some(timestamp) = state.timestamp {
        // The lowest bit chooses microsecond timestamps (Linux 6.7): cleared, upwards, since a TSval that steps
        // back would be dropped by the peer as old (PAWS).
        let timestamp = timestamp.wrapping_add(1) & !1;
        set_tcp(fd, libc::TCP_TIMESTAMP, &[timestamp]).map_err(explained("set the timestamp"))?;
    }
    let window = TcpRepairWindow {
        snd_wl1: state.window.snd_wl1.0,
        snd_wnd: state.window.snd_wnd,
        max_window: state.window.max_window.max(state.window.snd_wnd),
        rcv_wnd: state.window.rcv_wnd,
        rcv_wup: state.window.rcv_wup.0,
    };
    set_tcp(fd, libc::TCP_REPAIR_WINDOW, &[window]).map_err(explained("set the windows"))?;
    Ok(socket)
}

/// A connection taken over from the kernel, whose socket is still there: frozen, deaf and silent. Dropping it
/// closes the socket without a packet.
#[derive(Debug)]
pub struct Imported {
    /// The connection.
    pub state: RepairState,
    reservation: Reservation,
    frozen: Frozen,
}

/// The kernel's socket in repair mode; `None` once it was given back.
#[derive(Debug)]
struct Frozen(Option<TcpStream>);

impl Drop for Frozen {
    fn drop(&mut self) {
        // Not left to close: a child between fork and exec would keep the connection alive. In repair mode this
        // sends nothing, and cannot fail for a TCP socket.
        if let Some(stream) = &self.0 {
            let _ = rustix::net::connect_unspec(stream);
        }
    }
}

impl Imported {
    /// Closes the kernel's socket without a packet; its port stays reserved. From here on the kernel answers
    /// segments of the connection with RST, if it gets to see any.
    pub fn finish(self) -> (RepairState, Reservation) {
        (self.state, self.reservation)
    }

    /// Gives the connection back to the kernel as it was; what the peer sent meanwhile comes again.
    pub fn undo(mut self) -> TcpStream {
        let stream = self.frozen.0.take().expect("only undo takes it, and once");
        thaw(&stream);
        stream
    }
}

/// Takes over a kernel connection: freezes its socket and reads its state. Segments that arrive from here on
/// are lost, and come again: once the flow is ours, send an acknowledgment, which the peer may be waiting for.
///
/// # Errors
/// [`ImportError`], which returns the stream: `PermissionDenied` without CAP_NET_ADMIN, `InvalidInput` when the
/// connection is not ESTABLISHED, `ResourceBusy` when duplicates of it keep it in motion.
pub fn import(stream: TcpStream) -> Result<Imported, ImportError> {
    match freeze(&stream).and_then(|state| Ok((state, hold_port(&stream)?))) {
        Ok((state, reservation)) => Ok(Imported {
            state,
            reservation,
            frozen: Frozen(Some(stream)),
        }),
        Err(error) => {
            thaw(&stream);
            Err(ImportError { stream, error })
        }
    }
}

fn freeze(stream: &TcpStream) -> io::Result<RepairState> {
    let fd = stream.as_fd();
    let info: [u8; 8] = get_tcp(fd, libc::TCP_INFO)?;
    if info[0] != INFO_ESTABLISHED {
        let text = "only an established connection can be taken over; this one is closing or not connected";
        return Err(io::Error::new(io::ErrorKind::InvalidInput, text));
    }
    set_repair(fd, REPAIR_ON).map_err(explained("enter repair mode"))?;
    sockopt::drop_incoming(fd).map_err(explained("hold incoming segments"))?;
    snapshot_at_rest(stream)
}

/// Undoes as much of [`freeze`] as was done: what was not in effect says so, which does not matter.
fn thaw(stream: &TcpStream) {
    let fd = stream.as_fd();
    let _ = sockopt::set(fd, libc::SOL_SOCKET, libc::SO_DETACH_FILTER, &[0_i32]);
    let _ = set_repair(fd, REPAIR_OFF);
}

/// Reads the connection until two readings agree: a segment that was past the filter when it was attached may
/// still move it.
fn snapshot_at_rest(stream: &TcpStream) -> io::Result<RepairState> {
    let mut last = snapshot(stream)?;
    for _ in 0..SNAPSHOTS {
        let next = snapshot(stream)?;
        let same = |a: &RepairState, b: &RepairState| {
            a.rcv_nxt == b.rcv_nxt
                && a.snd_una == b.snd_una
                && a.unacked.len() == b.unacked.len()
                && a.unsent.len() == b.unsent.len()
                && a.recv_queue.len() == b.recv_queue.len()
        };
        if same(&last, &next) {
            return Ok(next);
        }
        last = next;
    }
    let text = "the connection does not come to rest; is another handle to it still used?";
    Err(io::Error::new(io::ErrorKind::ResourceBusy, text))
}

fn snapshot(stream: &TcpStream) -> io::Result<RepairState> {
    let fd = stream.as_fd();
    let info: [u8; 8] = get_tcp(fd, libc::TCP_INFO)?;
    let negotiated = info[5];
    // Two bit-fields of four bits: the peer's scale first, ours second.
    let (low, high) = (
        WindowScale::new(info[6] & 0xf),
        WindowScale::new(info[6] >> 4),
    );
    let scales = if cfg!(target_endian = "little") {
        (low, high)
    } else {
        (high, low)
    };

    select_queue(fd, RECV_QUEUE, None)?;
    let rcv_nxt = SeqNum(get_tcp(fd, libc::TCP_QUEUE_SEQ)?);
    let recv_queue = peek(stream, sockopt::count(fd, libc::FIONREAD)?)?;

    select_queue(fd, SEND_QUEUE, None)?;
    let write_seq = SeqNum(get_tcp(fd, libc::TCP_QUEUE_SEQ)?);
    let queued = sockopt::count(fd, libc::TIOCOUTQ)?;
    let never_sent = sockopt::count(fd, libc::SIOCOUTQNSD as libc::Ioctl)?;
    let mut unacked = peek(stream, queued)?;
    let snd_una = write_seq - length(&unacked);
    let unsent = unacked.split_off(queued.saturating_sub(never_sent));

    let mss: u32 = get_tcp(fd, libc::TCP_MAXSEG)?;
    let timestamps = negotiated & INFO_TIMESTAMPS != 0;
    // One more than the kernel's clock says, whose lowest bit it hides.
    let timestamp = get_tcp::<u32>(fd, libc::TCP_TIMESTAMP)?.wrapping_add(1);
    let window: TcpRepairWindow = get_tcp(fd, libc::TCP_REPAIR_WINDOW)?;
    Ok(RepairState {
        local: stream.local_addr()?,
        remote: stream.peer_addr()?,
        snd_una,
        rcv_nxt,
        recv_queue,
        unacked,
        unsent,
        mss: Mss::new(u16::try_from(mss).unwrap_or(u16::MAX)),
        window_scales: (negotiated & INFO_WINDOW_SCALE != 0).then_some(scales),
        sack_permitted: negotiated & INFO_SACK != 0,
        timestamp: timestamps.then_some(timestamp),
        window: RepairWindow {
            snd_wl1: SeqNum(window.snd_wl1),
            snd_wnd: window.snd_wnd,
            max_window: window.max_window,
            rcv_wnd: window.rcv_wnd,
            rcv_wup: SeqNum(window.rcv_wup),
        },
    })
}

/// The selected queue's `len` bytes, left in place.
fn peek(stream: &TcpStream, len: usize) -> io::Result<Vec<u8>> {
    let mut bytes = vec![0; len];
    if len > 0 {
        let read = stream.peek(&mut bytes)?;
        // A shorter queue is one that moved; the next reading will tell.
        bytes.truncate(read);
    }
    Ok(bytes)
}

/// A reservation of the connection's local address beside the connection itself, which will go.
fn hold_port(stream: &TcpStream) -> io::Result<Reservation> {
    let local = stream.local_addr()?;
    let socket = socket_for(local)?;
    set_repair(socket.as_fd(), REPAIR_ON).map_err(explained("hold the local port"))?;
    socket
        .bind(&local.into())
        .map_err(explained("hold the local port"))?;
    set_repair(socket.as_fd(), REPAIR_OFF_NO_PROBE)?;
    // As with a connection of the kernel's: a restarted server may bind its port again.
    socket.set_reuse_address(true)?;
    Reservation::from_bound(socket)
}

fn options(state: &RepairState) -> Vec<TcpRepairOpt> {
    let option = |code, value| TcpRepairOpt { code, value };
    let mut options = vec![option(OPT_MSS, state.mss.bytes())];
    if let Some((theirs, ours)) = state.window_scales {
        let scales = u32::from(theirs.get()) | u32::from(ours.get()) << 16;
        options.push(option(OPT_WINDOW_SCALE, scales));
    }
    if state.sack_permitted {
        options.push(option(OPT_SACK_PERMITTED, 0));
    }
    if state.timestamp.is_some() {
        options.push(option(OPT_TIMESTAMPS, 0));
    }
    options
}

/// Makes room for queues that are larger than what a new socket holds; the kernel counts its own overhead too.
fn reserve_buffers(socket: &Socket, state: &RepairState) {
    let reserve = |name, bytes: usize| {
        if bytes > CHUNK {
            let bytes = i32::try_from(bytes.saturating_mul(2)).unwrap_or(i32::MAX / 2);
            // A refusal shows when the queue is filled.
            let _ = sockopt::set(socket.as_fd(), libc::SOL_SOCKET, name, &[bytes]);
        }
    };
    reserve(libc::SO_RCVBUFFORCE, state.recv_queue.len());
    reserve(
        libc::SO_SNDBUFFORCE,
        state.unacked.len() + state.unsent.len(),
    );
}

/// Writes all of `bytes` into the selected queue.
fn fill(mut socket: &Socket, bytes: &[u8]) -> io::Result<()> {
    for mut chunk in bytes.chunks(CHUNK) {
        while !chunk.is_empty() {
            match socket.write(chunk) {
                Ok(written) => chunk = &chunk[written..],
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    let mut fds = [PollFd::new(socket, PollFlags::OUT)];
                    if poll(&mut fds, Some(&WRITE_TIMEOUT))? == 0 {
                        return Err(error);
                    }
                }
                Err(error) => return Err(error),
            }
        }
    }
    Ok(())
}

impl sockopt::Plain for TcpRepairOpt {}
impl sockopt::Plain for TcpRepairWindow {}

fn set_repair(fd: BorrowedFd<'_>, mode: i32) -> io::Result<()> {
    set_tcp(fd, libc::TCP_REPAIR, &[mode])
}

/// Chooses the queue that reads, writes and TCP_QUEUE_SEQ mean, and sets its sequence number.
fn select_queue(fd: BorrowedFd<'_>, queue: i32, seq: Option<SeqNum>) -> io::Result<()> {
    set_tcp(fd, libc::TCP_REPAIR_QUEUE, &[queue]).map_err(explained("select a queue"))?;
    match seq {
        Some(seq) => {
            set_tcp(fd, libc::TCP_QUEUE_SEQ, &[seq.0]).map_err(explained("set a sequence number"))
        }
        None => Ok(()),
    }
}

fn set_tcp<T: sockopt::Plain>(fd: BorrowedFd<'_>, name: i32, values: &[T]) -> io::Result<()> {
    sockopt::set(fd, libc::IPPROTO_TCP, name, values)
}

fn get_tcp<T: sockopt::Plain>(fd: BorrowedFd<'_>, name: i32) -> io::Result<T> {
    sockopt::get(fd, libc::IPPROTO_TCP, name)
}

/// Whether this thread may hand connections over: it can put a socket into repair mode.
pub fn is_permitted() -> bool {
    let attempt = || {
        let socket = socket_for(SocketAddr::from(([127, 0, 0, 1], 0)))?;
        set_repair(socket.as_fd(), REPAIR_ON)
    };
    attempt().is_ok()
}

#[cfg(test)]
mod tests;
