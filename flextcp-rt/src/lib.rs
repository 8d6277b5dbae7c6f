//! The host side of FlexTCP.

pub mod offload;
pub mod options;
pub mod tcp;
