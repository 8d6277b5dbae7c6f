//! tokio's `tests/rt_busy_tick.rs` on `flextcp_net`.
#![allow(missing_debug_implementations, unreachable_pub, clippy::all)]

include!(concat!(env!("OUT_DIR"), "/rt_busy_tick.rs"));
