//! tokio's `tests/rt_shutdown_err.rs` on `flextcp_net`.
#![allow(missing_debug_implementations, unreachable_pub, clippy::all)]

include!(concat!(env!("OUT_DIR"), "/rt_shutdown_err.rs"));
