//! What the example servers share: the command line, the listeners, the accept loop with its
//! graceful stop, TLS, and the counters they show.
//!
//! The three programs are `http`, `memcached` and `echo`; each runs on [`flextcp_net`] or, with
//! `--kernel`, on `tokio::net`, with the same code above the socket.
#![forbid(unsafe_code)]

pub mod args;
pub mod echo;

pub mod listener;
pub mod memcache;
pub mod pattern;
pub mod program;
pub mod scratch;
pub mod server;
pub mod stats;
pub mod stop;
pub mod tls;
pub mod web;
