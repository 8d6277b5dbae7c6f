//! tokio's `tests/tcp_into_std.rs` on `flextcp_net`.
#![allow(missing_debug_implementations, unreachable_pub, clippy::all)]

include!(concat!(env!("OUT_DIR"), "/tcp_into_std.rs"));
