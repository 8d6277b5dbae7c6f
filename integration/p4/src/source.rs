//! Places in source files, and what is wrong there.

use std::fmt;

use crate::rules::CardRule;

/// A place in one of the files of a program.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) struct Span {
    pub(crate) file: u16,
    pub(crate) line: u32,
    pub(crate) column: u32,
}

impl Span {
    /// Where every program begins.
    pub(crate) const START: Self = Self {
        file: 0,
        line: 1,
        column: 1,
    };
}

/// What is wrong at a place; internal, until the file has its name again.
#[derive(Clone, Debug)]
pub(crate) struct Fault {
    pub(crate) span: Span,
    pub(crate) rule: Option<CardRule>,
    pub(crate) message: String,
}

/// A result of the front end; boxed, since faults are rare and large.
pub(crate) type Checked<T> = Result<T, Box<Fault>>;

impl Fault {
    pub(crate) fn new(span: Span, message: impl Into<String>) -> Box<Self> {
        Box::new(Self {
            span,
            rule: None,
            message: message.into(),
        })
    }

    pub(crate) fn against(rule: CardRule, span: Span, message: impl Into<String>) -> Box<Self> {
        Box::new(Self {
            span,
            rule: Some(rule),
            message: message.into(),
        })
    }
}

/// Why a program is refused: a place, what is wrong there, and the rule of the card that forbids it, if one does.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Refusal {
    /// File as named on the command line or in an `#include`.
    pub file: String,
    /// Line, from 1.
    pub line: u32,
    /// Column in characters, from 1.
    pub column: u32,
    /// The card's rule.
    pub rule: Option<CardRule>,
    /// What is wrong and what to write instead.
    pub message: String,
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            file, line, column, ..
        } = self;
        write!(f, "{file}:{line}:{column}: {}", self.message)?;
        match self.rule {
            Some(rule) => write!(f, " [{}]", rule.name()),
            None => Ok(()),
        }
    }
}

impl std::error::Error for Refusal {}
