//! The memcached server of the `memcached` example: the text protocol and the meta commands.

mod clock;
mod connection;
mod meta;
mod report;
mod session;
mod shard;
mod store;
mod text;

pub use connection::serve;
pub use report::ServerInfo;
pub use store::{Settings, Store};
