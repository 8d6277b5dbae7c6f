//! The socket between host and card: messages of words, with descriptors.

use std::io::{self, IoSlice, IoSliceMut};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::Path;
use std::time::Duration;

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::Errno;
use rustix::net::{
    RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, SendAncillaryBuffer,
    SendAncillaryMessage, SendFlags, recvmsg, sendmsg,
};

use crate::port::unix::connect_to;

/// What the messages mean; both sides must agree.
pub(super) const VERSION: u32 = 1;
/// Longest message: all addresses of a host.
const MESSAGE_MAX: usize = 64 << 10;
/// Most descriptors in one.
const FDS_MAX: usize = 4;

/// One end.
#[derive(Debug)]
pub(super) struct Link(OwnedFd);

/// What arrived.
#[derive(Debug, Default)]
pub(super) struct Message {
    pub(super) text: String,
    pub(super) fds: Vec<OwnedFd>,
}

/// What a look at the socket came to.
#[derive(Debug)]
pub(super) enum Received {
    Message(Message),
    /// Nothing, for now.
    Nothing,
    /// The other side is gone.
    End,
}

impl Link {
    pub(super) fn connect(path: &Path) -> io::Result<Self> {
        connect_to(path).map(Self)
    }

    #[cfg(feature = "firmware")]
    pub(super) const fn of(socket: OwnedFd) -> Self {
        Self(socket)
    }

    pub(super) fn fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }

    pub(super) fn send(&self, text: &str, fds: &[BorrowedFd<'_>]) -> io::Result<()> {
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(FDS_MAX))];
        let mut ancillary = SendAncillaryBuffer::new(&mut space);
        if !fds.is_empty() {
            let pushed = ancillary.push(SendAncillaryMessage::ScmRights(fds));
            debug_assert!(pushed, "there is space for all that one message carries");
        }
        let pieces = [IoSlice::new(text.as_bytes())];
        loop {
            match sendmsg(&self.0, &pieces, &mut ancillary, SendFlags::NOSIGNAL) {
                Ok(_) => return Ok(()),
                Err(Errno::INTR) => {}
                Err(error) => return Err(error.into()),
            }
        }
    }

    /// What is there now.
    pub(super) fn receive(&self) -> io::Result<Received> {
        let mut bytes = vec![0; MESSAGE_MAX];
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(FDS_MAX))];
        let mut ancillary = RecvAncillaryBuffer::new(&mut space);
        let flags = RecvFlags::DONTWAIT | RecvFlags::CMSG_CLOEXEC;
        let mut pieces = [IoSliceMut::new(&mut bytes)];
        let len = match recvmsg(&self.0, &mut pieces, &mut ancillary, flags) {
            Ok(received) => received.bytes,
            Err(Errno::AGAIN | Errno::INTR) => return Ok(Received::Nothing),
            Err(Errno::CONNRESET) => return Ok(Received::End),
            Err(error) => return Err(error.into()),
        };
        if len == 0 {
            return Ok(Received::End);
        }
        let mut fds = Vec::new();
        for message in ancillary.drain() {
            if let RecvAncillaryMessage::ScmRights(rights) = message {
                fds.extend(rights);
            }
        }
        bytes.truncate(len);
        let text = String::from_utf8_lossy(&bytes).into_owned();
        Ok(Received::Message(Message { text, fds }))
    }

    /// Waits for a message.
    ///
    /// # Errors
    /// `TimedOut`; `ConnectionReset` when the other side is gone.
    pub(super) fn wait(&self, patience: Duration) -> io::Result<Message> {
        let start = std::time::Instant::now();
        loop {
            match self.receive()? {
                Received::Message(message) => return Ok(message),
                Received::End => return Err(io::ErrorKind::ConnectionReset.into()),
                Received::Nothing => {}
            }
            let left = patience.saturating_sub(start.elapsed());
            if left.is_zero() {
                return Err(io::ErrorKind::TimedOut.into());
            }
            wait_for(&[Some(self.fd())], Some(left))?;
        }
    }
}

/// The card's end and the host's of its interrupt. A socket, since that also tells of the card's death: one descriptor to
/// wait on, whose every change is an edge.
#[cfg(feature = "firmware")]
pub(super) fn interrupt() -> io::Result<(OwnedFd, OwnedFd)> {
    use rustix::net::{AddressFamily, SocketFlags, SocketType, socketpair};
    Ok(socketpair(
        AddressFamily::UNIX,
        SocketType::SEQPACKET,
        SocketFlags::CLOEXEC | SocketFlags::NONBLOCK,
        None,
    )?)
}

/// Raises an interrupt.
#[cfg(feature = "firmware")]
pub(super) fn raise(card: &OwnedFd) {
    // Full, it is raised already; without a host, in vain.
    let _ = rustix::net::send(card, b"!", SendFlags::NOSIGNAL);
}

/// Clears interrupts; `false`: the card is gone.
pub(super) fn clear(host: &OwnedFd) -> bool {
    loop {
        match rustix::net::recv(host, &mut [0; 8], RecvFlags::DONTWAIT) {
            Ok((_, 1..)) | Err(Errno::INTR) => {}
            Err(Errno::AGAIN) => return true,
            _ => return false,
        }
    }
}

/// Whether the card is there.
pub(super) fn is_there(host: &OwnedFd) -> bool {
    let flags = RecvFlags::DONTWAIT | RecvFlags::PEEK;
    !matches!(
        rustix::net::recv(host, &mut [0; 8], flags),
        Ok((_, 0)) | Err(Errno::CONNRESET)
    )
}

/// Waits until one of the descriptors is readable, or for `longest`; says which are.
pub(super) fn wait_for<const N: usize>(
    of: &[Option<BorrowedFd<'_>>; N],
    longest: Option<Duration>,
) -> io::Result<[bool; N]> {
    let mut fds: Vec<PollFd<'_>> = of
        .iter()
        .flatten()
        .map(|fd| PollFd::new(fd, PollFlags::IN))
        .collect();
    let timeout = longest.map(|longest| Timespec {
        tv_sec: i64::try_from(longest.as_secs()).unwrap_or(i64::MAX),
        tv_nsec: i64::from(longest.subsec_nanos()),
    });
    match poll(&mut fds, timeout.as_ref()) {
        Ok(_) | Err(Errno::INTR) => {}
        Err(error) => return Err(error.into()),
    }
    let mut results = fds.iter().map(|fd| !fd.revents().is_empty());
    Ok(of.map(|fd| fd.is_some() && results.next() == Some(true)))
}
