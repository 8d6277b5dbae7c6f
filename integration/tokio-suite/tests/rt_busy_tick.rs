//! tokio's `tests/rt_busy_tick.rs` on `flextcp_net`.
// Not our code to lint.
#![allow(warnings, clippy::all)]

include!(concat!(env!("OUT_DIR"), "/rt_busy_tick.rs"));
