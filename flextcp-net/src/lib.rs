//! `tokio::net`, over the FlexTCP NIC: change one import.
//!
//! ```no_run
//! use flextcp_net::{TcpListener, TcpStream}; // was: tokio::net
//! use tokio::io::copy;
//!
//! # async fn run() -> std::io::Result<()> {
//! let listener = TcpListener::bind("127.0.0.1:8080").await?;
//! loop {
//!     let (mut stream, _) = listener.accept().await?;
//!     tokio::spawn(async move {
//!         let (mut read, mut write) = stream.split();
//!         copy(&mut read, &mut write).await
//!     });
//! }
//! # }
//! ```
//!
//! [`TcpStream`], [`TcpListener`], [`TcpSocket`] and the halves in [`tcp`] have tokio's methods, traits and
//! semantics; the rest of `tokio::net` is re-exported. Each socket is of one of two kinds inside, which a program
//! does not see (but [`TcpStreamExt::is_offloaded`] tells): a connection on the NIC, or a kernel socket where the
//! way to the peer is not accelerated.
//!
//! Beyond tokio's surface there are [`TcpStreamExt`] (offload, zero-copy reads and writes, more options) and [`PerCore`]
//! (a thread, a queue and a listener per core).
//!
//! # Where it differs
//! - The descriptor of `AsFd` is a *shadow socket* for a connection on the NIC: options set through it take
//!   effect with the next operation on the stream, received bytes can be read and peeked at through it, best within
//!   `try_io` and `async_io`, and writes to it fail.
//! - `SO_LINGER` with a time does not block; zero resets.
//!
//! # Features
//! - `kernel`: the types are tokio's own. So they are on systems other than Linux.
//! - `axum`, `tonic`, `hyper-util`, `tokio-util`, `tokio-stream`: these crates' listener, connection and connector
//!   traits and types.

// One impl needs an exception, with its reason there: `FromRawFd` is an unsafe trait method.
#![deny(unsafe_code)]

pub use tokio::net::*;

mod ext;
pub mod observe;
mod per_core;
mod sockopt;
mod support;

pub use ext::{ChunkReader, KeepAlive, TcpInfo, TcpStreamExt};
pub use per_core::PerCore;
#[cfg(feature = "hyper-util")]
pub use support::hyper_util::FlexConnector;
#[cfg(feature = "tokio-stream")]
pub use support::incoming::TcpListenerStream;

#[cfg(all(target_os = "linux", not(feature = "kernel")))]
mod host;
#[cfg(all(target_os = "linux", not(feature = "kernel")))]
pub mod tcp;
#[cfg(all(target_os = "linux", not(feature = "kernel")))]
pub use tcp::{listener::TcpListener, socket::TcpSocket, stream::TcpStream};
