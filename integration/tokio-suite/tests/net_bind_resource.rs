//! tokio's `tests/net_bind_resource.rs` on `flextcp_net`.
#![allow(missing_debug_implementations, unreachable_pub, clippy::all)]

include!(concat!(env!("OUT_DIR"), "/net_bind_resource.rs"));
