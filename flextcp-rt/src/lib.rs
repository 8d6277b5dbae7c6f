//! The host side of FlexTCP: the slow path's TCP engine, the reactor, and life beside the kernel.
//!
//! A program uses `flextcp-net`; this crate is for those who configure the host ([`Host::configure`],
//! [`config`]), read its counters ([`metrics`]) or drive the engine themselves ([`tcp`]).

pub mod config;
pub mod host;
#[cfg(feature = "lab")]
pub mod lab;
pub mod metrics;
pub mod offload;
pub mod options;
mod reactor;
pub mod socket;
mod stack;
pub mod tcp;

pub use stack::{Connection, Host, Listener, Shard};
