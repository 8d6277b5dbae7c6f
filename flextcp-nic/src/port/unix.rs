//! A wire to another process: a Unix socket that carries one frame in each message (`SOCK_SEQPACKET`). Needs no privilege.

use std::fs;
use std::io::{self, IoSlice};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};

use rustix::io::Errno;
use rustix::net::{
    AddressFamily, RecvFlags, SendAncillaryBuffer, SendFlags, SocketAddrUnix, SocketFlags,
    SocketType, accept_with, bind, connect, listen, recv, sendmsg, socket_with, sockopt,
};

use super::{Port, PortCounters, PortFull, PortInfo, RxChecksum, RxFrame, TxFrame};
use crate::time::Instant;
use crate::wire::MacAddr;

/// Longest frame that is received whole: a super-frame with its headers.
const FRAME_MAX: usize = 68 << 10;
/// Bytes under way to the other end before the wire is full.
const SEND_BUFFER: usize = 1 << 20;

/// A socket of one message a frame.
pub(crate) fn seqpacket() -> io::Result<OwnedFd> {
    Ok(socket_with(
        AddressFamily::UNIX,
        SocketType::SEQPACKET,
        SocketFlags::CLOEXEC,
        None,
    )?)
}

fn text(what: &str, path: &Path, error: io::Error) -> io::Error {
    io::Error::new(error.kind(), format!("{what} {}: {error}", path.display()))
}

/// Connects to a socket of [`listen_at`].
///
/// # Errors
/// Nobody listens there.
pub(crate) fn connect_to(path: &Path) -> io::Result<OwnedFd> {
    let connected = || {
        let socket = seqpacket()?;
        connect(&socket, &SocketAddrUnix::new(path)?)?;
        Ok(socket)
    };
    connected().map_err(|error| text("connecting to", path, error))
}

/// A socket to accept others from, in the place of one that nobody listens on any more.
///
/// # Errors
/// Somebody listens there, or the path cannot be made.
pub(crate) fn listen_at(path: &Path) -> io::Result<OwnedFd> {
    let listening = || {
        let address = SocketAddrUnix::new(path)?;
        let socket = seqpacket()?;
        match bind(&socket, &address) {
            Err(Errno::ADDRINUSE) if connect(seqpacket()?, &address) == Err(Errno::CONNREFUSED) => {
                fs::remove_file(path)?;
                bind(&socket, &address)?;
            }
            result => result?,
        }
        listen(&socket, 8)?;
        Ok(socket)
    };
    listening().map_err(|error| text("listening at", path, error))
}

/// An end that waits for the other one.
#[derive(Debug)]
pub struct UnixWire {
    socket: OwnedFd,
    path: PathBuf,
}

impl UnixWire {
    /// Makes the socket at `path`.
    ///
    /// # Errors
    /// Somebody listens there, or the path cannot be made.
    pub fn listen(path: &Path) -> io::Result<Self> {
        Ok(Self {
            socket: listen_at(path)?,
            path: path.to_owned(),
        })
    }

    /// Waits for [`UnixPort::connect`] and joins it: a port with the hardware address and MTU that are given.
    ///
    /// # Errors
    /// The system refuses.
    pub fn accept(&self, mac: MacAddr, mtu: u32) -> io::Result<UnixPort> {
        let socket = accept_with(&self.socket, SocketFlags::CLOEXEC)?;
        UnixPort::new(socket, &self.path, mac, mtu)
    }
}

impl Drop for UnixWire {
    fn drop(&mut self) {
        // It may be gone already.
        let _ = fs::remove_file(&self.path);
    }
}

/// One end of a wire to another process. When that process is gone, what is sent is lost and nothing arrives, as with a
/// cable that was pulled out.
#[derive(Debug)]
pub struct UnixPort {
    info: PortInfo,
    socket: OwnedFd,
    buffer: Vec<u8>,
    gone: bool,
    counters: PortCounters,
}

impl UnixPort {
    /// Connects to the [`UnixWire`] at `path`.
    ///
    /// # Errors
    /// Nobody waits there.
    pub fn connect(path: &Path, mac: MacAddr, mtu: u32) -> io::Result<Self> {
        Self::new(connect_to(path)?, path, mac, mtu)
    }

    fn new(socket: OwnedFd, path: &Path, mac: MacAddr, mtu: u32) -> io::Result<Self> {
        sockopt::set_socket_send_buffer_size(&socket, SEND_BUFFER)?;
        Ok(Self {
            info: PortInfo {
                name: format!("unix:{}", path.display()),
                ifindex: 0,
                mac,
                mtu,
                tx_checksum: false,
                tx_segment_max: None,
            },
            socket,
            buffer: vec![0; FRAME_MAX],
            gone: false,
            counters: PortCounters::default(),
        })
    }
}

impl Port for UnixPort {
    fn info(&self) -> &PortInfo {
        &self.info
    }

    fn receive(
        &mut self,
        _now: Instant,
        budget: usize,
        sink: &mut dyn FnMut(RxFrame<'_>),
    ) -> io::Result<usize> {
        let mut count = 0;
        while count < budget && !self.gone {
            let flags = RecvFlags::DONTWAIT | RecvFlags::TRUNC;
            match recv(&self.socket, &mut self.buffer[..], flags) {
                Ok((0, _)) | Err(Errno::CONNRESET) => self.gone = true,
                Ok((_, len)) if len > self.buffer.len() => self.counters.rx_dropped += 1,
                Ok((_, len)) => {
                    count += 1;
                    self.counters.rx_frames += 1;
                    self.counters.rx_bytes += len as u64;
                    sink(RxFrame::contiguous(
                        &self.buffer[..len],
                        RxChecksum::Unverified,
                    ));
                }
                Err(Errno::AGAIN) => break,
                Err(Errno::INTR) => {}
                Err(error) => return Err(error.into()),
            }
        }
        Ok(count)
    }

    fn transmit(&mut self, _now: Instant, frame: TxFrame<'_>) -> Result<(), PortFull> {
        if self.gone {
            return Ok(());
        }
        let pieces = [frame.header, frame.payload[0], frame.payload[1]].map(IoSlice::new);
        let flags = SendFlags::DONTWAIT | SendFlags::NOSIGNAL;
        let mut nothing = SendAncillaryBuffer::default();
        match sendmsg(&self.socket, &pieces, &mut nothing, flags) {
            Ok(_) => {
                self.counters.tx_frames += 1;
                self.counters.tx_bytes += frame.len() as u64;
            }
            Err(Errno::AGAIN | Errno::NOBUFS | Errno::INTR) => {
                self.counters.tx_full += 1;
                return Err(PortFull);
            }
            Err(_) => self.gone = true,
        }
        Ok(())
    }

    fn flush(&mut self, _now: Instant) -> io::Result<()> {
        Ok(())
    }

    fn arm(&mut self) -> io::Result<bool> {
        if self.gone {
            return Ok(true);
        }
        match recv(
            &self.socket,
            &mut [0; 1],
            RecvFlags::DONTWAIT | RecvFlags::PEEK,
        ) {
            Ok((0, _)) | Err(Errno::CONNRESET) => {
                self.gone = true;
                Ok(true)
            }
            Ok(_) | Err(Errno::INTR) => Ok(false),
            Err(Errno::AGAIN) => Ok(true),
            Err(error) => Err(error.into()),
        }
    }

    fn wake_fd(&self) -> Option<BorrowedFd<'_>> {
        // An end without another one is readable for ever.
        (!self.gone).then(|| self.socket.as_fd())
    }

    fn counters(&self) -> PortCounters {
        self.counters
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::port::TxOffload;

    const MAC: MacAddr = MacAddr([2, 0, 0, 0, 0, 9]);

    fn pair() -> (tempfile::TempDir, UnixPort, UnixPort) {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("wire");
        let wire = UnixWire::listen(&path).unwrap();
        let near = UnixPort::connect(&path, MAC, 1500).unwrap();
        let far = wire.accept(MAC, 1500).unwrap();
        (folder, near, far)
    }

    fn frame<'a>(header: &'a [u8], payload: &'a [u8]) -> TxFrame<'a> {
        TxFrame {
            header,
            payload: [payload, &[]],
            offload: TxOffload::default(),
        }
    }

    #[test]
    fn frames_keep_their_borders_and_a_full_wire_says_so() {
        let (_folder, mut near, mut far) = pair();
        let now = Instant::ZERO;
        assert!(far.arm().unwrap());
        near.transmit(now, frame(b"head", b"body")).unwrap();
        near.transmit(now, frame(b"second", b"")).unwrap();
        assert!(!far.arm().unwrap());
        let mut seen = Vec::new();
        let mut take = |frame: RxFrame<'_>| seen.push(frame.to_vec());
        assert_eq!(far.receive(now, 64, &mut take).unwrap(), 2);
        assert_eq!(seen, [b"headbody".to_vec(), b"second".to_vec()]);

        let payload = vec![7; 60_000];
        let mut sent = 0;
        while near.transmit(now, frame(b"head", &payload)).is_ok() {
            sent += 1;
            assert!(sent < 1000, "the wire is never full");
        }
        assert_eq!(near.counters().tx_full, 1);
        let mut received = 0;
        let mut take = |frame: RxFrame<'_>| received += usize::from(frame.len() == 60_004);
        assert_eq!(far.receive(now, 1000, &mut take).unwrap(), sent);
        assert_eq!(received, sent);
        near.transmit(now, frame(b"head", &payload)).unwrap();
    }

    #[test]
    fn an_end_without_another_loses_frames_and_does_not_fail() {
        let (_folder, mut near, far) = pair();
        drop(far);
        let now = Instant::ZERO;
        near.transmit(now, frame(b"head", b"")).unwrap();
        assert_eq!(near.receive(now, 8, &mut |_| ()).unwrap(), 0);
        assert!(near.arm().unwrap());
        assert!(near.wake_fd().is_none(), "nothing to wait for");
    }

    #[test]
    fn a_path_of_the_dead_is_taken_over_and_one_of_the_living_is_not() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("wire");
        let first = listen_at(&path).unwrap();
        let error = listen_at(&path).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::AddrInUse);
        drop(first);
        assert!(connect_to(&path).is_err());
        listen_at(&path).unwrap();
    }
}
