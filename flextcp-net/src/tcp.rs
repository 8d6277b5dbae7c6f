//! The halves of a split [`TcpStream`](crate::TcpStream).

pub(crate) mod listener;
mod shadow;
pub(crate) mod socket;
mod split;
mod split_owned;
pub(crate) mod stream;

pub(crate) use shadow::{congestion_name, options_of};
pub use split::{ReadHalf, WriteHalf};
pub use split_owned::{OwnedReadHalf, OwnedWriteHalf, ReuniteError};

use std::io;

/// What tokio says of an address that resolves to nothing.
fn unresolved() -> io::Error {
    io::Error::new(
        io::ErrorKind::InvalidInput,
        "could not resolve to any address",
    )
}

/// `IP_TTL` takes 1 to 255.
fn hop_limit(ttl: u32) -> io::Result<u8> {
    u8::try_from(ttl)
        .ok()
        .filter(|ttl| *ttl > 0)
        .ok_or_else(|| {
            io::Error::new(
                io::ErrorKind::InvalidInput,
                "the hop limit must be 1 to 255",
            )
        })
}
