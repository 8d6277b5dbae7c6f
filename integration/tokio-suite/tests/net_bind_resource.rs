//! tokio's `tests/net_bind_resource.rs` on `flextcp_net`.
// Not our code to lint.
#![allow(warnings, clippy::all)]

include!(concat!(env!("OUT_DIR"), "/net_bind_resource.rs"));
