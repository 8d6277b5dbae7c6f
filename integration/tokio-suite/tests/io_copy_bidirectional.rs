//! tokio's `tests/io_copy_bidirectional.rs` on `flextcp_net`.
#![allow(missing_debug_implementations, unreachable_pub, clippy::all)]

include!(concat!(env!("OUT_DIR"), "/io_copy_bidirectional.rs"));
