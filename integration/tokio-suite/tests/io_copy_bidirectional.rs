//! tokio's `tests/io_copy_bidirectional.rs` on `flextcp_net`.
// Not our code to lint.
#![allow(warnings, clippy::all)]

include!(concat!(env!("OUT_DIR"), "/io_copy_bidirectional.rs"));
