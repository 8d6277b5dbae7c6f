//! Tests on interfaces of network namespaces made here.

mod frames;
mod namespace;
mod ports;
mod steer;
