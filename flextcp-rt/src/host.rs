//! The kernel around us: what it knows of the network, and how we share addresses and ports with it.
//!
//! | module | concern |
//! |---|---|
//! | [`netlink`] | a mirror of links, addresses, routes and neighbours, followed as they change |
//! | [`ports`] | port reservation and the kernel's own listener beside ours |
//! | [`repair`] | moving a live connection between us and a kernel socket (TCP_REPAIR) |
//! | `diag` | the kernel's own connections at a port |
//! | [`doctor`] | what is missing here for the NIC to serve, and how to fix it |
//!
//! Everything works on the network namespace of the thread that opens it.

#[cfg(target_os = "linux")]
pub(crate) mod diag;
#[cfg(target_os = "linux")]
pub mod doctor;
#[cfg(target_os = "linux")]
pub mod links;
#[cfg(target_os = "linux")]
pub mod neighbors;
#[cfg(target_os = "linux")]
pub mod netlink;
#[cfg(target_os = "linux")]
pub mod ports;
#[cfg(target_os = "linux")]
pub mod repair;
#[cfg(target_os = "linux")]
pub mod routes;
#[cfg(target_os = "linux")]
pub(crate) mod sockopt;

#[cfg(all(test, target_os = "linux"))]
pub(crate) mod testing;
