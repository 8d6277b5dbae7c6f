//! The simulator: whole hosts ([`flextcp_rt::lab`]) on bad links, in virtual time, with applications that misbehave.
//!
//! A scenario is a seed. [`Scenario::random`] makes from it hosts, links, what happens to them, and connections with
//! what their two applications do; [`run`] plays it and judges what came of it: every byte arrives once and in order or
//! both ends learn that it did not, nothing hangs, nothing is left behind. `sim --seed N` (`src/bin/sim.rs`) plays one
//! again, with a capture and plots.
//!
//! | module | concern |
//! |---|---|
//! | `scenario` | from a seed to hosts, links, events and connections |
//! | `class` | kinds of links |
//! | `world` | virtual time: who is next, and what happens then |
//! | `host` | a lab with its clock and its applications |
//! | `app` | one end of a connection |
//! | `router` | what joins the links: path MTU, ICMP |
//! | `segment` | what a NIC does with super-frames |
//! | `verdict` | what must hold at the end |
//! | `trace` | hash, samples and capture of a run |
//! | `batch` | many seeds on several threads |
//! | `plot` | a run as SVG |

mod app;
mod batch;
mod class;
mod host;
mod plot;
mod rng;
mod router;
mod scenario;
mod segment;
mod trace;
mod verdict;
mod world;

pub use app::{AppPlan, Ending, Mode};
pub use batch::{Batch, BatchPlan, Failed, Progress, batch};
pub use class::LinkClass;
pub use plot::draw;
pub use rng::Rng;
pub use scenario::{ConnectionPlan, HostPlan, NetEvent, Scenario};
pub use trace::{Recording, Sample, Trace};
pub use verdict::{Coverage, End, Outcome, Report};
pub use world::{Failure, run, run_recorded};
