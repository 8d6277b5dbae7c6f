//! tokio's `tests/async_send_sync.rs` on `flextcp_net`.
// Not our code to lint.
#![allow(warnings, clippy::all)]

include!(concat!(env!("OUT_DIR"), "/async_send_sync.rs"));
