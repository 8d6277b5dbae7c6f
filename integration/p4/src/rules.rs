//! What the card's P4-16 forbids although the language allows it, as far as public sources tell
//! (`docs/netronome-p4.md` lists them).

/// A rule of the card's v1model variant and compiler.
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
#[non_exhaustive]
pub enum CardRule {
    /// Ports, `egress_spec` too, are `bit<16>`; p4c's v1model has `bit<9>`.
    PortWidth,
    /// `mark_to_drop()` takes no argument.
    DropArguments,
    /// `NoAction` only stands in tables.
    NoActionInTables,
    /// `isValid()` only stands in conditions, never in an assignment.
    ValidInConditions,
    /// User metadata is not zeroed: a read needs a write before it on every path, that of a truncated frame too.
    UnsetMetadata,
    /// `@atomic` is ignored: shared state needs a lock in C.
    Atomic,
    /// `@pragma netro ...` has no effect in P4-16, so that the flow cache may replay a stale path: no registers,
    /// counters or meters that control flow could depend on, all state is in C.
    StateInC,
    /// A cast that cuts set bits off is undefined and has crashed machines: mask first.
    NarrowingCast,
    /// The first header is `nfp_mac_eg_cmd_t`, of 1, 1, 1 and 29 bits.
    MacCommandFirst,
    /// That header is valid on physical egress only: set it in an action of a table keyed on `egress_port`.
    MacCommandOnEgress,
    /// Timestamps are 64 bits wide and not in `standard_metadata`.
    Timestamps,
    /// There is no match kind `header_valid`.
    MatchKind,
    /// An extern takes no arguments and returns nothing: C gets the headers and the metadata.
    ExternArguments,
}

impl CardRule {
    /// All rules.
    pub const ALL: [Self; 13] = [
        Self::PortWidth,
        Self::DropArguments,
        Self::NoActionInTables,
        Self::ValidInConditions,
        Self::UnsetMetadata,
        Self::Atomic,
        Self::StateInC,
        Self::NarrowingCast,
        Self::MacCommandFirst,
        Self::MacCommandOnEgress,
        Self::Timestamps,
        Self::MatchKind,
        Self::ExternArguments,
    ];

    /// Its name, as refusals show it.
    pub const fn name(self) -> &'static str {
        match self {
            Self::PortWidth => "nfp-port-width",
            Self::DropArguments => "nfp-drop-arguments",
            Self::NoActionInTables => "nfp-no-action-in-tables",
            Self::ValidInConditions => "nfp-valid-in-conditions",
            Self::UnsetMetadata => "nfp-unset-metadata",
            Self::Atomic => "nfp-atomic",
            Self::StateInC => "nfp-state-in-c",
            Self::NarrowingCast => "nfp-narrowing-cast",
            Self::MacCommandFirst => "nfp-mac-command-first",
            Self::MacCommandOnEgress => "nfp-mac-command-on-egress",
            Self::Timestamps => "nfp-timestamps",
            Self::MatchKind => "nfp-match-kind",
            Self::ExternArguments => "nfp-extern-arguments",
        }
    }
}
