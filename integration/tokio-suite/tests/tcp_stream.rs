//! tokio's `tests/tcp_stream.rs` on `flextcp_net`.
#![allow(missing_debug_implementations, unreachable_pub, clippy::all)]

include!(concat!(env!("OUT_DIR"), "/tcp_stream.rs"));
