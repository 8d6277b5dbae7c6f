//! tokio's `tests/async_send_sync.rs` on `flextcp_net`.
#![allow(missing_debug_implementations, unreachable_pub, clippy::all)]

include!(concat!(env!("OUT_DIR"), "/async_send_sync.rs"));
