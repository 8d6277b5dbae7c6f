//! Waking the owner of the other end, in this process or another.

use std::io;
use std::os::fd::BorrowedFd;

#[cfg(target_os = "linux")]
use rustix::event::{EventfdFlags, eventfd};
#[cfg(target_os = "linux")]
use rustix::io::Errno;
#[cfg(target_os = "linux")]
use std::os::fd::{AsFd, OwnedFd};

/// An event descriptor: readable once signalled, until cleared.
#[cfg(target_os = "linux")]
#[derive(Debug)]
pub(crate) struct Wake(OwnedFd);

#[cfg(target_os = "linux")]
impl Wake {
    pub(crate) fn new() -> io::Result<Self> {
        Ok(Self(eventfd(
            0,
            EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK,
        )?))
    }

    pub(crate) fn signal(&self) -> io::Result<()> {
        match rustix::io::write(&self.0, &1u64.to_ne_bytes()) {
            // The counter is at its limit: readable, which is all that is asked.
            Ok(_) | Err(Errno::AGAIN) => Ok(()),
            Err(error) => Err(error.into()),
        }
    }

    pub(crate) fn clear(&self) -> io::Result<()> {
        match rustix::io::read(&self.0, &mut [0; 8]) {
            Ok(_) | Err(Errno::AGAIN) => Ok(()),
            Err(error) => Err(error.into()),
        }
    }

    /// The one that another process made.
    pub(crate) const fn of_fd(fd: OwnedFd) -> Self {
        Self(fd)
    }

    pub(crate) fn fd(&self) -> Option<BorrowedFd<'_>> {
        Some(self.0.as_fd())
    }
}

/// Without event descriptors such a port is polled.
#[cfg(not(target_os = "linux"))]
#[derive(Debug)]
pub(crate) struct Wake;

#[cfg(not(target_os = "linux"))]
impl Wake {
    pub(crate) fn new() -> io::Result<Self> {
        Ok(Self)
    }

    pub(crate) fn signal(&self) -> io::Result<()> {
        Ok(())
    }

    pub(crate) fn clear(&self) -> io::Result<()> {
        Ok(())
    }

    pub(crate) fn fd(&self) -> Option<BorrowedFd<'_>> {
        None
    }
}
