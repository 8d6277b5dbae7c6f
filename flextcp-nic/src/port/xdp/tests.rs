//! Tests on interfaces of network namespaces made here.

pub(super) mod frames;

mod bulk;
mod offload;
mod ports;
mod steer;
