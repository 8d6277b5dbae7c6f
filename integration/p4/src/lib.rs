//! The firmware's P4 without the vendor's tools: a checker and an interpreter for the subset of P4-16 that
//! `flextcp-nic/firmware/p4` uses, in the variant that Netronome's compiler takes.
//!
//! What is not in the subset is refused, with the place and what to write instead; so is what public sources say that
//! the card does not take ([`CardRule`]). That a program passes here does not prove that the vendor's compiler takes it.
//!
//! ```
//! use flextcp_p4::{Machine, Packet, Program, Tables};
//!
//! # fn main() -> Result<(), Box<dyn std::error::Error>> {
//! let program = Program::from_file("../../flextcp-nic/firmware/p4/fx_main.p4".as_ref())?;
//! let tables = Tables::new(&program);
//! let mut machine = Machine::new(&program, &tables);
//! let outcome = machine.process(&[0; 60], 0, &mut |_: &str, _: &mut Packet<'_>| {});
//! assert_eq!(outcome.egress, None, "without rules nothing has a place to go");
//! # Ok(())
//! # }
//! ```
#![forbid(unsafe_code)]

mod ast;
mod check;
mod interp;
mod ir;
pub mod pcap;
mod preprocess;
mod rules;
mod source;
mod syntax;
mod tables;
mod token;

use std::io;
use std::path::Path;

pub use interp::{Externs, Machine, Outcome, Packet};
pub use ir::Program;
pub use rules::CardRule;
pub use source::Refusal;
pub use tables::{BadRules, Tables};

impl Program {
    /// Checks the program in a file; what it includes is found beside it.
    ///
    /// # Errors
    /// [`Refusal`]: it cannot be read, is not P4 of the subset, or breaks a rule of the card.
    pub fn from_file(path: &Path) -> Result<Self, Refusal> {
        let name = path.to_string_lossy();
        let text = std::fs::read_to_string(path).map_err(|error| Refusal {
            file: name.clone().into_owned(),
            line: 1,
            column: 1,
            rule: None,
            message: format!("cannot read it: {error}"),
        })?;
        Self::from_text(&name, &text, &|path: &Path| std::fs::read_to_string(path))
    }

    /// Checks a program, with what it includes read by `read`.
    ///
    /// # Errors
    /// As [`from_file`](Self::from_file).
    pub fn from_text(
        name: &str,
        text: &str,
        read: &dyn Fn(&Path) -> io::Result<String>,
    ) -> Result<Self, Refusal> {
        let preprocessor = preprocess::Preprocessor::default();
        let (tokens, files) = preprocessor.program(name, text, read)?;
        // The list always ends with `End`.
        let end = tokens
            .last()
            .map_or(source::Span::START, |token| token.span);
        syntax::parse(tokens)
            .and_then(|declarations| check::check(declarations, end))
            .map_err(|fault| files.refusal(*fault))
    }
}
