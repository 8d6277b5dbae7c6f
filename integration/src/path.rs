//! A link emulator: a long, narrow, lossy path between two network namespaces, for Linux and ours alike.
//!
//! The kernel here has no netem, and impairment inside our own port is invisible to a Linux peer's sender. This path
//! lies outside of both: a third namespace between the two holds one end of each one's veth, and a thread carries
//! frames across as a [`Shape`] says.
//!
//! | module | concern |
//! |---|---|
//! | [`shape`] | what a direction does to frames, and how that is written down |
//! | [`mod@line`] | one direction: pure, in virtual time, reproducible from a seed |
//! | [`emulator`] | two directions between two ports, in real time |
//! | [`net`] | the namespaces |
//! | [`record`] | what happened, and how exact it was |

pub mod emulator;
pub mod line;
pub mod net;
pub mod record;
pub mod shape;

pub use emulator::Emulator;
pub use net::{Path, PathConfig};
pub use shape::Shape;
