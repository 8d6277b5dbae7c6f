//! The host side of FlexTCP.

pub mod config;
pub mod host;
pub mod metrics;
pub mod offload;
pub mod options;
pub mod socket;
pub mod tcp;
