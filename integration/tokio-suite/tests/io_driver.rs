//! tokio's `tests/io_driver.rs` on `flextcp_net`.
#![allow(missing_debug_implementations, unreachable_pub, clippy::all)]

include!(concat!(env!("OUT_DIR"), "/io_driver.rs"));
