//! The reactor: what turns a core (NIC queue, engine, sockets) and who does it.
//!
//! | file | concern |
//! |---|---|
//! | `core` | one queue's owner and its turn |
//! | `driver` | the background task in each runtime: spin, arm, sleep |
//! | `guard` | the thread that stands in for blocked and finished runtimes |
//! | `siblings`, `inbox` | the cores of one interface: frames that arrive on another queue than their connection's |
//! | `clock` | the monotonic clock |

pub(crate) mod clock;
pub(crate) mod core;
pub(crate) mod driver;
pub(crate) mod guard;
pub(crate) mod inbox;
pub(crate) mod siblings;
