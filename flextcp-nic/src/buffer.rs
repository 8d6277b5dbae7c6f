//! App buffers: one single-producer single-consumer byte ring per direction of a flow.
//!
//! The host half ([`RecvWriter`], [`SendReader`]) belongs to whoever owns the connection, NIC or engine,
//! and moves along with the ownership. The app half ([`RecvReader`], [`SendWriter`]) belongs to the
//! stream. Positions run freely in 64 bits; a ring's memory is a power of two and is attached from a
//! [`Pool`] when the first byte needs it, so an idle connection owns none.
//!
//! # How the halves share
//!
//! Head and tail are atomics: the producer publishes bytes by a release store of the tail, the consumer
//! gives space back by a release store of the head. The handle of the memory is behind a mutex that the
//! app half holds around each access and the host half takes only to attach, resize or release. The data
//! path of the host half never waits, and that of the app half waits only while a resize copies.

#[cfg(target_os = "linux")]
mod arena;
mod memory;
#[cfg(all(flextcp_loom, test))]
mod models;
mod pool;
mod recv;
mod send;
mod sync;

use std::fmt;
use std::io;

#[cfg(target_os = "linux")]
pub use arena::DmaRegion;
pub(crate) use memory::Memory;
pub use pool::{MAX_BLOCK, MIN_BLOCK, Pool, Pressure};
pub use recv::{Chunk, RecvReader, RecvWriter, recv_ring};
pub use send::{SendGauge, SendReader, SendWriter, send_ring};

/// The pool's limit is reached.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct OutOfBuffers;

impl fmt::Display for OutOfBuffers {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("the buffer memory limit is reached; raise it or close connections")
    }
}

impl std::error::Error for OutOfBuffers {}

impl From<OutOfBuffers> for io::Error {
    fn from(error: OutOfBuffers) -> Self {
        Self::new(io::ErrorKind::OutOfMemory, error)
    }
}
