//! The checked program: every field is a slot of at most 64 bits, every header instance an index.

use std::collections::BTreeMap;

use crate::source::Span;

/// Index of a field, a word of metadata, a parameter or a variable.
pub(crate) type Slot = usize;
/// Index of a header instance; the elements of a stack follow one another.
pub(crate) type HeaderId = usize;

#[derive(Clone, Debug)]
pub(crate) struct Header {
    /// As in rules: `hdr.ipv4`.
    pub(crate) name: String,
    pub(crate) first_slot: Slot,
    /// Bits of each field, in order.
    pub(crate) widths: Vec<u32>,
    pub(crate) bytes: usize,
}

#[derive(Clone, Debug)]
pub(crate) struct Stack {
    pub(crate) first: HeaderId,
    pub(crate) len: usize,
}

#[derive(Clone, Debug)]
pub(crate) enum Expr {
    Const(u64),
    /// A word that always has a value.
    Slot(Slot),
    /// A field, which has one only while its header is valid.
    Field(Slot, HeaderId),
    /// Field of the last element extracted into a stack.
    Last {
        stack: usize,
        field: usize,
    },
    Valid(HeaderId),
    Not(Box<Self>),
    /// `~` and unary `-`.
    Complement(Box<Self>, u64),
    Negate(Box<Self>, u64),
    /// The operand shifted right, then masked: slices and casts.
    Extract {
        of: Box<Self>,
        shift: u32,
        mask: u64,
    },
    Binary {
        op: Op,
        left: Box<Self>,
        right: Box<Self>,
        mask: u64,
    },
    /// Applies a table: whether a rule matched.
    Hit(usize),
}

#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Op {
    Or,
    And,
    Equal,
    NotEqual,
    Less,
    LessEqual,
    Greater,
    GreaterEqual,
    BitOr,
    BitXor,
    BitAnd,
    ShiftLeft,
    ShiftRight,
    Add,
    Subtract,
}

#[derive(Clone, Debug)]
pub(crate) enum Statement {
    Set {
        slot: Slot,
        value: Expr,
        span: Span,
    },
    /// A field: without effect while its header is not valid.
    SetField {
        slot: Slot,
        header: HeaderId,
        value: Expr,
        span: Span,
    },
    SetSlice {
        slot: Slot,
        header: Option<HeaderId>,
        low: u32,
        mask: u64,
        value: Expr,
        span: Span,
    },
    Valid(HeaderId, bool),
    Extract(HeaderId),
    ExtractNext(usize),
    If {
        condition: Expr,
        then: Vec<Self>,
        otherwise: Vec<Self>,
        span: Span,
    },
    Apply {
        table: usize,
    },
    Act {
        action: usize,
        arguments: Vec<Expr>,
        span: Span,
    },
    Extern(usize),
    Drop,
}

#[derive(Clone, Debug)]
pub(crate) struct State {
    pub(crate) body: Vec<Statement>,
    pub(crate) keys: Vec<Expr>,
    pub(crate) cases: Vec<Case>,
    pub(crate) span: Span,
}

/// One line of a select; a plain transition is one that takes everything.
#[derive(Clone, Debug)]
pub(crate) struct Case {
    /// Value and mask for each key.
    pub(crate) sets: Vec<(u64, u64)>,
    /// `None` accepts.
    pub(crate) to: Option<usize>,
}

#[derive(Clone, Debug)]
pub(crate) struct Action {
    pub(crate) name: String,
    pub(crate) params: Vec<Param>,
    pub(crate) body: Vec<Statement>,
}

#[derive(Clone, Debug)]
pub(crate) struct Param {
    pub(crate) name: String,
    pub(crate) slot: Slot,
    pub(crate) width: u32,
}

#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum MatchKind {
    Exact,
    Ternary,
}

#[derive(Clone, Debug)]
pub(crate) struct Key {
    /// As in rules files: `hdr.ipv4.source`, `scalars.metadata@local0`.
    pub(crate) name: String,
    pub(crate) expr: Expr,
    pub(crate) width: u32,
    pub(crate) kind: MatchKind,
    pub(crate) span: Span,
}

#[derive(Clone, Debug)]
pub(crate) struct Table {
    /// As in rules files: `ingress::flows`.
    pub(crate) name: String,
    pub(crate) keys: Vec<Key>,
    /// Names as in rules, and the action; `None` is `NoAction`.
    pub(crate) actions: Vec<(String, Option<usize>)>,
    pub(crate) default: Option<(usize, Vec<u64>)>,
    pub(crate) size: usize,
}

/// Slots of `standard_metadata`.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Standard {
    pub(crate) ingress_port: Slot,
    pub(crate) egress_spec: Slot,
    pub(crate) egress_port: Slot,
    pub(crate) packet_length: Slot,
}

/// A program that passed all checks.
#[derive(Clone, Debug)]
pub struct Program {
    pub(crate) slots: usize,
    pub(crate) standard: Standard,
    pub(crate) headers: Vec<Header>,
    pub(crate) stacks: Vec<Stack>,
    /// User metadata by name: slot and bits.
    pub(crate) metadata: BTreeMap<String, (Slot, u32)>,
    pub(crate) externs: Vec<String>,
    pub(crate) actions: Vec<Action>,
    pub(crate) tables: Vec<Table>,
    pub(crate) states: Vec<State>,
    pub(crate) start: usize,
    pub(crate) ingress: Vec<Statement>,
    pub(crate) egress: Vec<Statement>,
    /// Header instances in the order in which they are emitted.
    pub(crate) emitted: Vec<HeaderId>,
}

impl Program {
    /// Names of the tables, as in rules files.
    pub fn tables(&self) -> impl Iterator<Item = &str> {
        self.tables.iter().map(|table| table.name.as_str())
    }

    /// Names of the externs.
    pub fn externs(&self) -> impl Iterator<Item = &str> {
        self.externs.iter().map(String::as_str)
    }

    /// States of the parser.
    pub fn states(&self) -> usize {
        self.states.len()
    }

    /// Names of the words of metadata, in the order of the struct.
    pub fn metadata(&self) -> impl Iterator<Item = &str> {
        let mut words: Vec<_> = self.metadata.iter().collect();
        words.sort_by_key(|(_, (slot, _))| *slot);
        words.into_iter().map(|(name, _)| name.as_str())
    }
}

/// All ones in the low `width` bits.
pub(crate) const fn ones(width: u32) -> u64 {
    if width >= 64 {
        u64::MAX
    } else {
        (1 << width) - 1
    }
}
