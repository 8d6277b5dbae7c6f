//! tokio's `tests/rt_handle_block_on.rs` on `flextcp_net`.
// Not our code to lint.
#![allow(warnings, clippy::all)]

include!(concat!(env!("OUT_DIR"), "/rt_handle_block_on.rs"));
