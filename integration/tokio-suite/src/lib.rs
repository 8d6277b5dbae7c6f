//! tokio's own tests of its TCP types, run against `flextcp_net`.
//!
//! The test files are not part of this repository. `build.rs` takes them from the tokio package that `Cargo.lock`
//! names, replaces `tokio::net` by `flextcp_net`, and each target in `tests/` includes one of them. Run them with
//! `cargo run -p integration --bin tokio_suite`, which does so with and without privileges, in a network namespace of
//! its own, and counts the connections that the NIC carried. A single file runs with
//! `cargo test -p tokio-suite --test tcp_accept`.
