//! Tests on interfaces of network namespaces made here.

pub(super) mod frames;

mod offload;
mod ports;
mod steer;
