//! Fuzz targets: bytes in, invariants checked, a panic when one does not hold.
//!
//! | target | what its bytes are |
//! |---|---|
//! | [`wire::frame`] | a frame as it comes off a wire |
//! | [`wire::options`] | the options of a segment, and an order to make some |
//! | [`fast::run`] | a script: one flow of the fast path, segment by segment |
//! | [`engine::run`] | a script: what peers, the application and time do to a whole host |
//!
//! `tests/fuzz.rs` runs each over its corpus and over fresh inputs; how long, its documentation tells.
#![forbid(unsafe_code)]

pub mod engine;
pub mod fast;
pub mod peer;
pub mod script;
pub mod watch;
pub mod wire;
