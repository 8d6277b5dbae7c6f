//! What a connection lives through, for [`tracing`]: a span for each (`connection`, level `debug`, target
//! `flextcp_rt::connection`), and in it an event for every change of its owner, and for its end. It costs a flag's look
//! where nobody subscribes.

use flextcp_nic::flow::FlowTuple;
use tracing::{Span, debug, debug_span};

const TARGET: &str = "flextcp_rt::connection";

/// How a connection came to be.
#[derive(Clone, Copy, Debug)]
pub(super) enum Origin {
    Accepted,
    Connected,
    /// Taken over from the kernel.
    Imported,
}

/// The span of a connection on `core`.
pub(super) fn opened(core: &str, tuple: &FlowTuple, origin: Origin) -> Span {
    let span = debug_span!(
        target: TARGET,
        "connection",
        core,
        local = %tuple.local_addr(),
        peer = %tuple.remote_addr(),
    );
    span.in_scope(|| debug!(target: TARGET, ?origin, "established"));
    span
}

pub(super) fn moved(span: &Span, to_nic: bool) {
    let owner = if to_nic { "nic" } else { "host" };
    span.in_scope(|| debug!(target: TARGET, owner, "moved"));
}

pub(super) fn failed(span: &Span, error: &std::io::Error) {
    span.in_scope(|| debug!(target: TARGET, %error, "failed"));
}

pub(super) fn closed(span: &Span) {
    span.in_scope(|| debug!(target: TARGET, "closed"));
}
