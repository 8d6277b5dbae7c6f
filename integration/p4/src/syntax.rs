//! From tokens to the program as written: declarations and parser states. Statements and expressions are in
//! `syntax/code.rs`, controls in `syntax/control.rs`.

mod code;
mod control;

use std::collections::HashSet;

use crate::ast::{
    Case, Declaration, Expr, Field, KeySet, Name, Param, Parser, State, Transition, Type, TypeRef,
};
use crate::rules::CardRule;
use crate::source::{Checked, Fault, Span};
use crate::token::{Kind, Token};

/// Nesting of blocks and expressions.
const MAX_DEPTH: usize = 60;

/// Words that begin what the subset leaves out, and what to do instead.
const LEFT_OUT: [(&str, &str); 16] = [
    ("enum", "write constants"),
    ("error", "write constants for a word of metadata"),
    ("header_union", "write two headers"),
    ("varbit", "write a header stack of fixed units"),
    ("int", "write bit<N>"),
    ("tuple", "write a struct"),
    ("package", "V1Switch is built in"),
    ("value_set", "write the values"),
    ("match_kind", "exact and ternary are built in"),
    ("switch", "write if (table.apply().hit)"),
    ("exit", "end the control's apply block"),
    ("return", "end the action"),
    ("for", "write a parser loop or do it in C"),
    ("string", "there is no text on the card"),
    ("abstract", "declare a control"),
    ("match", "write a table"),
];

/// Objects that keep state between packets.
const STATE: [&str; 6] = [
    "register",
    "counter",
    "direct_counter",
    "meter",
    "direct_meter",
    "digest",
];

pub(crate) struct Syntax {
    tokens: Vec<Token>,
    at: usize,
    depth: usize,
    /// Operators in the statement that is being read.
    operators: usize,
    /// Names of types so far: a cast is told from a bracketed expression by them.
    types: HashSet<String>,
}

/// Reads the declarations of a program.
pub(crate) fn parse(tokens: Vec<Token>) -> Checked<Vec<Declaration>> {
    let mut syntax = Syntax {
        tokens,
        at: 0,
        depth: 0,
        operators: 0,
        types: HashSet::new(),
    };
    let mut declarations = Vec::new();
    while syntax.token().kind != Kind::End {
        if let Some(declaration) = syntax.declaration()? {
            declarations.push(declaration);
        }
    }
    Ok(declarations)
}

impl Syntax {
    fn token(&self) -> &Token {
        // The list ends with `End`, at which nobody advances.
        &self.tokens[self.at.min(self.tokens.len() - 1)]
    }

    fn ahead(&self, by: usize) -> &Kind {
        let last = self.tokens.len() - 1;
        &self.tokens[(self.at + by).min(last)].kind
    }

    fn span(&self) -> Span {
        self.token().span
    }

    fn advance(&mut self) -> Token {
        let token = self.token().clone();
        self.at = (self.at + 1).min(self.tokens.len() - 1);
        token
    }

    fn is(&self, mark: &str) -> bool {
        matches!(&self.token().kind, Kind::Mark(found) if *found == mark)
    }

    fn is_word(&self, word: &str) -> bool {
        matches!(&self.token().kind, Kind::Word(found) if found == word)
    }

    fn take(&mut self, mark: &str) -> bool {
        let found = self.is(mark);
        if found {
            self.advance();
        }
        found
    }

    fn take_word(&mut self, word: &str) -> bool {
        let found = self.is_word(word);
        if found {
            self.advance();
        }
        found
    }

    fn expect(&mut self, mark: &str) -> Checked<()> {
        if self.take(mark) {
            Ok(())
        } else {
            Err(self.unexpected(&format!("`{mark}`")))
        }
    }

    fn unexpected(&self, wanted: &str) -> Box<Fault> {
        let token = self.token();
        let found = match &token.kind {
            Kind::Word(word) => format!("`{word}`"),
            Kind::Number { value, .. } => format!("`{value}`"),
            Kind::Mark(mark) => format!("`{mark}`"),
            Kind::Text(text) => format!("\"{text}\""),
            Kind::End => "the end of the program".to_owned(),
        };
        Fault::new(token.span, format!("expected {wanted}, found {found}"))
    }

    fn name(&mut self, what: &str) -> Checked<Name> {
        let Kind::Word(text) = &self.token().kind else {
            return Err(self.unexpected(what));
        };
        let name = Name {
            text: text.clone(),
            span: self.span(),
        };
        self.advance();
        Ok(name)
    }

    /// Runs `inner` one level deeper, so that no program overflows the stack.
    fn deeper<T>(&mut self, inner: impl FnOnce(&mut Self) -> Checked<T>) -> Checked<T> {
        if self.depth >= MAX_DEPTH {
            return Err(Fault::new(self.span(), "nested too deeply"));
        }
        self.depth += 1;
        let result = inner(self);
        self.depth -= 1;
        result
    }

    /// Refuses what starts here and has no place in the subset.
    fn refuse_left_out(&self) -> Checked<()> {
        let span = self.span();
        if self.is("@") {
            return Err(match self.ahead(1) {
                Kind::Word(word) if word == "atomic" => Fault::against(
                    CardRule::Atomic,
                    span,
                    "@atomic is ignored by the card: take a lock in C",
                ),
                Kind::Word(word) if word == "pragma" => Fault::against(
                    CardRule::StateInC,
                    span,
                    "the card ignores @pragma in P4-16: what must not be cached is done in C",
                ),
                _ => Fault::new(span, "the subset has no annotations"),
            });
        }
        let Kind::Word(word) = &self.token().kind else {
            return Ok(());
        };
        if STATE.contains(&word.as_str()) {
            let message = format!(
                "no {word} here: the card's flow cache replays paths that depend on state; keep it in C"
            );
            return Err(Fault::against(CardRule::StateInC, span, message));
        }
        if let Some((_, instead)) = LEFT_OUT.iter().find(|(left_out, _)| left_out == word) {
            let message = format!("`{word}` is not in the subset: {instead}");
            return Err(Fault::new(span, message));
        }
        Ok(())
    }

    fn declaration(&mut self) -> Checked<Option<Declaration>> {
        self.operators = 0;
        self.refuse_left_out()?;
        let span = self.span();
        if self.take(";") {
            return Ok(None);
        }
        let Kind::Word(word) = self.token().kind.clone() else {
            return Err(self.unexpected("a declaration"));
        };
        let declaration = match word.as_str() {
            "const" => {
                self.advance();
                let ty = self.type_ref()?;
                let name = self.name("the constant's name")?;
                self.expect("=")?;
                let value = self.expression()?;
                self.expect(";")?;
                Declaration::Const { ty, name, value }
            }
            "typedef" => {
                self.advance();
                let ty = self.type_ref()?;
                let name = self.name("the type's name")?;
                self.expect(";")?;
                self.types.insert(name.text.clone());
                Declaration::Typedef { ty, name }
            }
            "header" | "struct" => {
                self.advance();
                let name = self.name("the type's name")?;
                self.types.insert(name.text.clone());
                let fields = self.fields()?;
                if word == "header" {
                    Declaration::Header { name, fields }
                } else {
                    Declaration::Struct { name, fields }
                }
            }
            "extern" => self.extern_function()?,
            "parser" => {
                self.advance();
                Declaration::Parser(self.parser()?)
            }
            "control" => {
                self.advance();
                Declaration::Control(self.control()?)
            }
            "V1Switch" => {
                self.advance();
                let parts = self.package()?;
                Declaration::Package { span, parts }
            }
            _ => {
                return Err(self.unexpected(
                    "const, typedef, header, struct, extern, parser, control or V1Switch",
                ));
            }
        };
        Ok(Some(declaration))
    }

    fn type_ref(&mut self) -> Checked<TypeRef> {
        self.refuse_left_out()?;
        let span = self.span();
        let name = self.name("a type")?;
        let ty = match name.text.as_str() {
            "bool" => Type::Bool,
            "bit" if self.take("<") => {
                let Kind::Number { value, width: None } = self.token().kind else {
                    return Err(self.unexpected("a number of bits"));
                };
                if !(1..=64).contains(&value) {
                    let message = format!("bit<{value}>: the subset has 1 to 64 bits");
                    return Err(Fault::new(self.span(), message));
                }
                self.advance();
                self.expect(">")?;
                Type::Bit(value as u32)
            }
            "bit" => Type::Bit(1),
            _ => Type::Named(name.text),
        };
        Ok(TypeRef { ty, span })
    }

    fn fields(&mut self) -> Checked<Vec<Field>> {
        self.expect("{")?;
        let mut fields = Vec::new();
        while !self.take("}") {
            self.refuse_left_out()?;
            let ty = self.type_ref()?;
            let stack = if self.take("[") {
                let size = self.expression()?;
                self.expect("]")?;
                Some(size)
            } else {
                None
            };
            let name = self.name("the field's name")?;
            self.expect(";")?;
            fields.push(Field { ty, stack, name });
        }
        Ok(fields)
    }

    fn extern_function(&mut self) -> Checked<Declaration> {
        self.advance();
        let span = self.span();
        if !self.take_word("void") {
            let message = "an extern is a function: write extern void name();";
            return Err(Fault::against(CardRule::ExternArguments, span, message));
        }
        let name = self.name("the extern's name")?;
        self.expect("(")?;
        if !self.is(")") {
            let message = "the card hands an extern the headers and the metadata, no arguments";
            return Err(Fault::against(
                CardRule::ExternArguments,
                self.span(),
                message,
            ));
        }
        self.expect(")")?;
        self.expect(";")?;
        Ok(Declaration::Extern(name))
    }

    fn params(&mut self) -> Checked<Vec<Param>> {
        self.expect("(")?;
        let mut params = Vec::new();
        while !self.take(")") {
            let direction = ["inout", "in", "out"]
                .into_iter()
                .find(|direction| self.take_word(direction))
                .map(str::to_owned);
            let ty = self.type_ref()?;
            let name = self.name("the parameter's name")?;
            params.push(Param {
                direction,
                ty,
                name,
            });
            if !self.is(")") {
                self.expect(",")?;
            }
        }
        Ok(params)
    }

    fn package(&mut self) -> Checked<Vec<Name>> {
        self.expect("(")?;
        let mut parts = Vec::new();
        while !self.take(")") {
            parts.push(self.name("a parser or control")?);
            self.expect("(")?;
            self.expect(")")?;
            if !self.is(")") {
                self.expect(",")?;
            }
        }
        let name = self.name("`main`")?;
        if name.text != "main" {
            return Err(Fault::new(name.span, "the package is called main"));
        }
        self.expect(";")?;
        Ok(parts)
    }

    fn parser(&mut self) -> Checked<Parser> {
        let name = self.name("the parser's name")?;
        let params = self.params()?;
        self.expect("{")?;
        let mut states = Vec::new();
        while !self.take("}") {
            self.refuse_left_out()?;
            if !self.take_word("state") {
                return Err(self.unexpected("`state`"));
            }
            states.push(self.state()?);
        }
        Ok(Parser {
            name,
            params,
            states,
        })
    }

    fn state(&mut self) -> Checked<State> {
        let name = self.name("the state's name")?;
        self.expect("{")?;
        let mut body = Vec::new();
        while !self.is_word("transition") {
            if self.is("}") {
                let message = "a state ends with a transition: write transition accept;";
                return Err(Fault::new(self.span(), message));
            }
            body.push(self.statement()?);
        }
        self.advance();
        let transition = if self.take_word("select") {
            self.select()?
        } else {
            let to = self.name("a state")?;
            self.expect(";")?;
            Transition::To(to)
        };
        self.expect("}")?;
        Ok(State {
            name,
            body,
            transition,
        })
    }

    fn select(&mut self) -> Checked<Transition> {
        self.expect("(")?;
        let keys = self.list(")")?;
        self.expect("{")?;
        let mut cases = Vec::new();
        while !self.take("}") {
            let span = self.span();
            let sets = if self.take("(") {
                let mut sets = vec![self.key_set()?];
                while self.take(",") {
                    sets.push(self.key_set()?);
                }
                self.expect(")")?;
                sets
            } else {
                vec![self.key_set()?]
            };
            self.expect(":")?;
            let to = self.name("a state")?;
            self.expect(";")?;
            cases.push(Case { span, sets, to });
        }
        Ok(Transition::Select { keys, cases })
    }

    fn key_set(&mut self) -> Checked<KeySet> {
        if self.take("_") || self.take_word("default") {
            return Ok(KeySet::Any);
        }
        let value = self.expression()?;
        if self.take("&&&") {
            return Ok(KeySet::Masked(value, self.expression()?));
        }
        if self.is("..") {
            return Err(Fault::new(self.span(), "write value &&& mask, not a range"));
        }
        Ok(KeySet::Value(value))
    }

    /// Expressions with commas between them, up to and with `end`.
    fn list(&mut self, end: &str) -> Checked<Vec<Expr>> {
        let mut list = Vec::new();
        while !self.take(end) {
            list.push(self.expression()?);
            if !self.is(end) {
                self.expect(",")?;
            }
        }
        Ok(list)
    }
}
