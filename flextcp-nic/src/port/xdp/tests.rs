//! Tests on interfaces of network namespaces made here.

mod frames;

mod offload;
mod ports;
mod steer;
