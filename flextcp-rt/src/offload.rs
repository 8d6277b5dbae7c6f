//! When a connection is installed on the NIC and when it is claimed back.

/// Which plain established connections are offered to the NIC.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub enum OffloadPolicy {
    /// None: the engine carries everything.
    Never,
    /// All, as soon as they are plain.
    #[default]
    Always,
    /// For tests: connections are offered, and claimed back in mid-flight, by a coin from this seed.
    Random(u64),
}
