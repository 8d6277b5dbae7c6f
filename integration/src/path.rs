//! A link emulator: a long, narrow, lossy path between two network namespaces, for Linux and ours alike.
//!
//! The kernel here has no netem, and impairment inside our own port is invisible to a Linux peer's sender. This path
//! lies outside of both: a third namespace between the two holds one end of each one's veth, and a thread carries
//! frames across a [`Line`](flextcp_nic::port::impair::Line) each way.
//!
//! | module | concern |
//! |---|---|
//! | [`emulator`] | two directions between two ports, in real time |
//! | [`net`] | the namespaces |
//! | [`record`] | what happened, and how exact it was |
//! | [`watch`] | which end sent FIN and RST, and FINs lost on purpose |

pub mod emulator;
pub mod net;
pub mod record;
pub mod watch;

pub use emulator::{Direction, Emulator};
pub use net::Path;
pub use watch::Watch;
