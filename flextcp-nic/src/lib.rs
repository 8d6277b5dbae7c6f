//! What a FlexTCP NIC does and how a host talks to one. Knows no tokio.
//!
//! | module | concern |
//! |---|---|
//! | [`wire`] | frames and headers |
//! | [`seq`], [`time`] | sequence space and time as types |
//! | [`flow`] | who a flow is and what of it is handed to the NIC |
//! | [`buffer`] | app buffers: the rings a NIC fills and drains |
//! | [`nic`] | the contract between host and NIC, one trait per queue |
//! | [`port`] | packet I/O below the software NIC |
//! | [`fast`], [`steer`], [`pace`], [`soft`] | the software NIC |
//! | [`queue`] | the contract as words in memory, for hardware: descriptor rings, doorbells, the flow table |
//! | `nfp` | the Netronome card: driver, emulated card |

pub mod buffer;
pub mod fast;
pub mod flow;
#[cfg(target_os = "linux")]
pub mod nfp;
pub mod nic;
pub mod pace;
pub mod port;
pub mod queue;
pub mod seq;
pub mod soft;
pub mod steer;
pub mod time;
pub mod wire;
