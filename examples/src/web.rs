//! The HTTP server of the `http` example.

mod body;
mod connection;
mod page;
mod routes;

pub use connection::{Options, serve};
pub use routes::{ServerInfo, router};
