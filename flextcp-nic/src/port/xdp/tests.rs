//! Tests on interfaces of network namespaces made here.

mod frames;

mod ports;
mod steer;
