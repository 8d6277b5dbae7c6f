//! What the driver needs of the way to a card: an emulated card implements it.

use std::fmt;
use std::io;
use std::os::fd::BorrowedFd;
use std::sync::Arc;

use crate::buffer::DmaRegion;
use crate::port::{PortCounters, PortInfo};
use crate::time::Instant;

/// A way to a card: its BAR, the host memory it reaches, its interrupt.
pub trait Bus: Send + fmt::Debug {
    /// What is on the card's wire.
    fn port(&self) -> &PortInfo;

    /// Reads the word `at` of the BAR ([`abi::register`](crate::queue::abi::register)).
    fn read(&self, at: u32) -> u32;

    /// Writes it.
    fn write(&mut self, at: u32, value: u32);

    /// Makes a region reachable for the card for as long as the bus lives; returns the bus address of its first byte.
    ///
    /// # Errors
    /// The memory cannot be reached, or the bus takes no more.
    fn map(&mut self, region: &Arc<DmaRegion>) -> io::Result<u64>;

    /// Lets a card work that does so only when it is asked to: it takes in up to `frames` frames and comes to rest. Others
    /// are kicked if they sleep. Returns the number of frames, as far as it is known.
    ///
    /// # Errors
    /// The device is gone.
    fn run(&mut self, now: Instant, frames: usize) -> io::Result<usize>;

    /// Whether the card works by itself, so that what it does takes a while.
    fn is_asynchronous(&self) -> bool;

    /// Asks for the descriptor to become readable when there is work; `false`: there is some.
    ///
    /// # Errors
    /// The device is gone.
    fn arm(&mut self) -> io::Result<bool>;

    /// The descriptor to wait on.
    fn wake_fd(&self) -> Option<BorrowedFd<'_>>;

    /// When the wire next has something by itself.
    fn poll_at(&self) -> Option<Instant>;

    /// Counters of the wire.
    fn counters(&self) -> PortCounters;
}
