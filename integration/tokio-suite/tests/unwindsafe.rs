//! tokio's `tests/unwindsafe.rs` on `flextcp_net`.
// Not our code to lint.
#![allow(warnings, clippy::all)]

include!(concat!(env!("OUT_DIR"), "/unwindsafe.rs"));
