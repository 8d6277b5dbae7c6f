//! `tokio::net`, over the FlexTCP NIC.
#![forbid(unsafe_code)]
pub use tokio::net::*;
