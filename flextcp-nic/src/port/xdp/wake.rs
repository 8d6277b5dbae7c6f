//! The descriptor that an armed port makes readable.

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use rustix::event::epoll;

/// An epoll that watches what frames come from only while the port is armed.
///
/// Every frame wakes those who wait on its socket, and an epoll always waits: a busy port would pay for
/// wake-ups that nobody needs. So the reactor's epoll watches this one, and this one the sockets.
#[derive(Debug)]
pub(super) struct Wake {
    epoll: OwnedFd,
    armed: bool,
}

impl Wake {
    /// # Errors
    /// Out of descriptors.
    pub(super) fn new() -> io::Result<Self> {
        Ok(Self {
            epoll: epoll::create(epoll::CreateFlags::CLOEXEC)?,
            armed: false,
        })
    }

    /// Becomes readable at the next frame of one of `sources`, or now if one waits.
    ///
    /// # Errors
    /// Out of kernel memory.
    pub(super) fn arm<'a>(
        &mut self,
        sources: impl Iterator<Item = BorrowedFd<'a>>,
    ) -> io::Result<()> {
        if !self.armed {
            for source in sources {
                let data = epoll::EventData::new_u64(0);
                epoll::add(&self.epoll, source, data, epoll::EventFlags::IN)?;
            }
            self.armed = true;
        }
        Ok(())
    }

    /// Frames of the same `sources` wake nobody any more.
    ///
    /// # Errors
    /// None that the caller caused.
    pub(super) fn disarm<'a>(
        &mut self,
        sources: impl Iterator<Item = BorrowedFd<'a>>,
    ) -> io::Result<()> {
        if self.armed {
            for source in sources {
                epoll::delete(&self.epoll, source)?;
            }
            self.armed = false;
        }
        Ok(())
    }
}

impl AsFd for Wake {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.epoll.as_fd()
    }
}
