//! tokio's `tests/tcp_accept.rs` on `flextcp_net`.
#![allow(missing_debug_implementations, unreachable_pub, clippy::all)]

include!(concat!(env!("OUT_DIR"), "/tcp_accept.rs"));
