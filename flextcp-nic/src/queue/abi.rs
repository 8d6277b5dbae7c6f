//! Every word that host and NIC share, described once.
//!
//! `flextcp-nic/firmware/include/flextcp_abi.h` and `docs/abi.md` are generated from these tables; a test fails when they
//! differ and says how to write them anew.

mod device;
mod flow;
mod rings;
mod step;
mod table;

pub use device::{
    capability, config, constant, control, counter, failure, filter_rule, queue_register,
    queue_status, region, register, rule_flag, status,
};
pub use flow::{
    flow_block, flow_entry, flow_flag, flow_local, flow_state, flow_status, local_flag,
};
pub use rings::{
    cause, completion, descriptor, event, event_flag, event_kind, frame_flag, install_flag,
    listen_flag, operation, reason,
};
pub use step::{ack_due, packet, packet_flag, received, received_flag, send, verdict, wait};
pub use table::{Item, Table};

/// All tables, in the order of the C header.
pub fn tables() -> impl Iterator<Item = &'static Table> {
    [device::TABLES, rings::TABLES, flow::TABLES, step::TABLES]
        .into_iter()
        .flatten()
}
