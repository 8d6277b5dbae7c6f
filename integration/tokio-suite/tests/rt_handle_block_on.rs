//! tokio's `tests/rt_handle_block_on.rs` on `flextcp_net`.
#![allow(missing_debug_implementations, unreachable_pub, clippy::all)]

include!(concat!(env!("OUT_DIR"), "/rt_handle_block_on.rs"));
