//! tokio's `tests/net_quickack.rs` on `flextcp_net`.
// Not our code to lint.
#![allow(warnings, clippy::all)]

include!(concat!(env!("OUT_DIR"), "/net_quickack.rs"));
