//! `#include`, `#define` without arguments, `#if`, `#ifdef`, `#ifndef`, `#else`, `#endif`, `#undef`.

use std::collections::{HashMap, HashSet};
use std::io;
use std::path::{Path, PathBuf};

use crate::source::{Checked, Fault, Refusal, Span};
use crate::token::{Chars, Kind, Token};

/// Files that include one another this deep do so in a circle.
const MAX_INCLUDES: usize = 32;
/// More tokens than any program; macros that double in every line are refused.
const MAX_TOKENS: usize = 200_000;

/// The tokens of a program, and the files they are from.
#[derive(Default)]
pub(crate) struct Preprocessor {
    files: Vec<String>,
    macros: HashMap<String, Vec<Token>>,
    tokens: Vec<Token>,
    depth: usize,
    expansions: usize,
}

/// What an `#if` decided.
struct Branch {
    span: Span,
    /// This part is taken.
    taken: bool,
    /// The lines around are.
    outer: bool,
    seen_else: bool,
}

impl Preprocessor {
    /// Reads a program from `name`, whose text is `text`; includes are read by `read`, relative to the file.
    pub(crate) fn program(
        mut self,
        name: &str,
        text: &str,
        read: &dyn Fn(&Path) -> io::Result<String>,
    ) -> Result<(Vec<Token>, Self), Refusal> {
        match self.file(name, text, read) {
            Ok(end) => {
                let mut tokens = std::mem::take(&mut self.tokens);
                let kind = Kind::End;
                tokens.push(Token { kind, span: end });
                Ok((tokens, self))
            }
            Err(fault) => Err(self.refusal(*fault)),
        }
    }

    /// Gives a fault the name of its file.
    pub(crate) fn refusal(&self, fault: Fault) -> Refusal {
        let file = self.files.get(usize::from(fault.span.file));
        Refusal {
            file: file.cloned().unwrap_or_default(),
            line: fault.span.line,
            column: fault.span.column,
            rule: fault.rule,
            message: fault.message,
        }
    }

    fn file(
        &mut self,
        name: &str,
        text: &str,
        read: &dyn Fn(&Path) -> io::Result<String>,
    ) -> Checked<Span> {
        // Fewer than 2^16: every file is an include, and those are bounded by MAX_TOKENS.
        let index = self.files.len() as u16;
        self.files.push(name.to_owned());
        let mut chars = Chars::new(text, index);
        let mut branches: Vec<Branch> = Vec::new();
        loop {
            let taken = branches.last().is_none_or(|branch| branch.taken);
            let Some(token) = chars.next()? else {
                let span = chars.span();
                self.directive(&mut chars, span, &mut branches, Path::new(name), read)?;
                continue;
            };
            match &token.kind {
                Kind::End => {
                    return match branches.last() {
                        Some(branch) => Err(Fault::new(branch.span, "this #if has no #endif")),
                        None => Ok(token.span),
                    };
                }
                _ if !taken => {}
                _ => self.expand(token, &mut HashSet::new())?,
            }
        }
    }

    fn push(&mut self, token: Token) -> Checked<()> {
        if self.tokens.len() >= MAX_TOKENS {
            return Err(Fault::new(token.span, "the program is too long"));
        }
        self.tokens.push(token);
        Ok(())
    }

    fn expand(&mut self, token: Token, open: &mut HashSet<String>) -> Checked<()> {
        let body = match &token.kind {
            Kind::Word(word) if !open.contains(word) => self.macros.get(word).cloned(),
            _ => None,
        };
        let (Some(body), Kind::Word(word)) = (body, &token.kind) else {
            return self.push(token);
        };
        self.expansions += 1;
        if open.len() >= MAX_INCLUDES || self.expansions > MAX_TOKENS {
            return Err(Fault::new(token.span, "macros are nested too deeply"));
        }
        open.insert(word.clone());
        for inner in body {
            // What is wrong is wrong where the macro is used.
            let span = token.span;
            self.expand(Token { span, ..inner }, open)?;
        }
        open.remove(word);
        Ok(())
    }

    fn directive(
        &mut self,
        chars: &mut Chars<'_>,
        span: Span,
        branches: &mut Vec<Branch>,
        from: &Path,
        read: &dyn Fn(&Path) -> io::Result<String>,
    ) -> Checked<()> {
        let line = chars.line();
        let line = line.split("//").next().unwrap_or_default().trim();
        let (word, rest) = line
            .split_once(char::is_whitespace)
            .map_or((line, ""), |(word, rest)| (word, rest.trim()));
        let taken = branches.last().is_none_or(|branch| branch.taken);
        let mut enter = |condition: bool| {
            branches.push(Branch {
                span,
                taken: taken && condition,
                outer: taken,
                seen_else: false,
            });
        };
        match word {
            "ifdef" => enter(self.macros.contains_key(rest)),
            "ifndef" => enter(!self.macros.contains_key(rest)),
            "if" => match rest {
                "0" => enter(false),
                "1" => enter(true),
                _ => return Err(Fault::new(span, "#if takes 0 or 1; use #ifdef NAME")),
            },
            "else" => match branches.last_mut() {
                Some(branch) if !branch.seen_else => {
                    branch.taken = branch.outer && !branch.taken;
                    branch.seen_else = true;
                }
                _ => return Err(Fault::new(span, "#else without its #if")),
            },
            "endif" => {
                if branches.pop().is_none() {
                    return Err(Fault::new(span, "#endif without its #if"));
                }
            }
            _ if !taken => {}
            "define" => self.define(span, rest)?,
            "undef" => drop(self.macros.remove(rest)),
            "include" => self.include(span, rest, from, read)?,
            _ => {
                let message = format!("the subset has no directive #{word}");
                return Err(Fault::new(span, message));
            }
        }
        Ok(())
    }

    fn define(&mut self, span: Span, rest: &str) -> Checked<()> {
        let end = rest
            .find(|c: char| !c.is_ascii_alphanumeric() && c != '_')
            .unwrap_or(rest.len());
        let (name, body) = rest.split_at(end);
        if name.is_empty() || body.starts_with('(') {
            let message = "write #define NAME text: macros with arguments are not in the subset";
            return Err(Fault::new(span, message));
        }
        if body.ends_with('\\') {
            let message = "a #define ends with its line";
            return Err(Fault::new(span, message));
        }
        let mut chars = Chars::new(body, span.file);
        let mut tokens = Vec::new();
        loop {
            let token = chars.next().map_err(|mut fault| {
                fault.span = span;
                fault
            })?;
            match token {
                Some(token) if token.kind == Kind::End => break,
                Some(token) => tokens.push(token),
                None => return Err(Fault::new(span, "# has no meaning in a #define")),
            }
        }
        self.macros.insert(name.to_owned(), tokens);
        Ok(())
    }

    fn include(
        &mut self,
        span: Span,
        rest: &str,
        from: &Path,
        read: &dyn Fn(&Path) -> io::Result<String>,
    ) -> Checked<()> {
        // Their names are built in.
        if rest == "<core.p4>" || rest == "<v1model.p4>" {
            return Ok(());
        }
        let Some(name) = rest
            .strip_prefix('"')
            .and_then(|rest| rest.strip_suffix('"'))
        else {
            let message = "write #include \"file\", <core.p4> or <v1model.p4>";
            return Err(Fault::new(span, message));
        };
        if self.depth >= MAX_INCLUDES || self.files.len() >= 1000 {
            return Err(Fault::new(span, "files include one another in a circle"));
        }
        let path: PathBuf = from.parent().unwrap_or_else(|| Path::new("")).join(name);
        let text = read(&path).map_err(|error| {
            let message = format!("cannot read {}: {error}", path.display());
            Fault::new(span, message)
        })?;
        self.depth += 1;
        let name = path.to_string_lossy().into_owned();
        self.file(&name, &text, read)?;
        self.depth -= 1;
        Ok(())
    }
}
