//! tokio's `tests/tcp_peek.rs` on `flextcp_net`.
// Not our code to lint.
#![allow(warnings, clippy::all)]

include!(concat!(env!("OUT_DIR"), "/tcp_peek.rs"));
