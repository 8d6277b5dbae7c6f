//! tokio's `tests/rt_shutdown_err.rs` on `flextcp_net`.
// Not our code to lint.
#![allow(warnings, clippy::all)]

include!(concat!(env!("OUT_DIR"), "/rt_shutdown_err.rs"));
