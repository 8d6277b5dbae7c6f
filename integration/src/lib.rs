//!
//! | module | concern |
//! |---|---|
//! | [`netns`] | network namespaces and veth links of the test's own |
//! | [`places`] | where a test's client and server meet |
//! | [`process`] | child processes that die with their test, and waiting for conditions |
//! | [`programs`] | the example servers and third-party clients |
//! | [`sim`] | whole hosts on bad links in virtual time |
//! | [`stats`] | what a process reports about its connections |
//! | [`stack`] | flextcp_net and tokio::net behind one trait |
//! | [`peer`] | the servers and loads that benchmark and tests run in processes of their own |
//! | [`path`] | a link emulator: delay, loss, reordering, rate, queue and marks between two namespaces |
//! | [`mod@bench`] | the benchmark: rounds, statistics, tables, plots |
#![forbid(unsafe_code)]

pub mod bench;
pub mod netns;
pub mod path;
pub mod peer;
pub mod places;
pub mod process;
pub mod programs;
pub mod sim;
pub mod stack;
pub mod stats;
