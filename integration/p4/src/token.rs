//! Tokens, and their characters.

use crate::source::{Checked, Fault, Span};

#[derive(Clone, Debug, Eq, PartialEq)]
pub(crate) enum Kind {
    Word(String),
    /// A number, with its width when it was written (`16w5`).
    Number {
        value: u64,
        width: Option<u32>,
    },
    /// An operator or bracket.
    Mark(&'static str),
    /// The text of `"..."`.
    Text(String),
    End,
}

#[derive(Clone, Debug)]
pub(crate) struct Token {
    pub(crate) kind: Kind,
    pub(crate) span: Span,
}

/// Longest first, so that the first that fits is the right one. `>>` is two tokens' worth of `bit<8>>`, which the subset
/// has no use for.
const MARKS: [&str; 37] = [
    "&&&", "<<", ">>", "<=", ">=", "==", "!=", "&&", "||", "++", "..", "{", "}", "(", ")", "[",
    "]", "<", ">", ";", ":", ",", ".", "=", "+", "-", "*", "/", "%", "&", "|", "^", "~", "!", "?",
    "@", "_",
];

/// The characters of one file.
pub(crate) struct Chars<'a> {
    rest: &'a str,
    span: Span,
}

impl<'a> Chars<'a> {
    pub(crate) const fn new(text: &'a str, file: u16) -> Self {
        let span = Span {
            file,
            line: 1,
            column: 1,
        };
        Self { rest: text, span }
    }

    pub(crate) const fn span(&self) -> Span {
        self.span
    }

    fn bump(&mut self) -> Option<char> {
        let mut chars = self.rest.chars();
        let next = chars.next()?;
        self.rest = chars.as_str();
        if next == '\n' {
            self.span.line += 1;
            self.span.column = 1;
        } else {
            self.span.column += 1;
        }
        Some(next)
    }

    fn bump_while(&mut self, mut wanted: impl FnMut(char) -> bool) -> &'a str {
        let start = self.rest;
        while self.rest.chars().next().is_some_and(&mut wanted) {
            self.bump();
        }
        &start[..start.len() - self.rest.len()]
    }

    /// The rest of the line, its end taken.
    pub(crate) fn line(&mut self) -> &'a str {
        let line = self.bump_while(|c| c != '\n');
        self.bump();
        line
    }

    /// Skips blanks and comments; whether a line's end was among them.
    fn skip(&mut self) -> Checked<bool> {
        let mut new_line = false;
        loop {
            let blank = self.bump_while(char::is_whitespace);
            new_line |= blank.contains('\n');
            if self.rest.starts_with("//") {
                self.bump_while(|c| c != '\n');
            } else if self.rest.starts_with("/*") {
                let span = self.span;
                let Some(end) = self.rest[2..].find("*/") else {
                    return Err(Fault::new(span, "this comment has no end: write */"));
                };
                let after = self.rest.len() - (end + 4);
                while self.rest.len() > after {
                    new_line |= self.bump() == Some('\n');
                }
            } else {
                return Ok(new_line);
            }
        }
    }

    /// The next token, or `None` at a `#` that starts a line; that `#` is taken.
    pub(crate) fn next(&mut self) -> Checked<Option<Token>> {
        let at_start = self.span.column == 1;
        let new_line = self.skip()? || at_start;
        let span = self.span;
        let Some(first) = self.rest.chars().next() else {
            let kind = Kind::End;
            return Ok(Some(Token { kind, span }));
        };
        if first == '#' {
            if !new_line {
                return Err(Fault::new(span, "# only starts a line"));
            }
            self.bump();
            return Ok(None);
        }
        let kind = if first.is_ascii_digit() {
            self.number()?
        } else if first == '"' {
            self.text()?
        } else if first.is_ascii_alphabetic() || first == '_' {
            let word = self.bump_while(|c| c.is_ascii_alphanumeric() || c == '_');
            if word == "_" {
                Kind::Mark("_")
            } else {
                Kind::Word(word.to_owned())
            }
        } else {
            let Some(mark) = MARKS.iter().find(|mark| self.rest.starts_with(**mark)) else {
                let message = format!("the character {first:?} has no place in P4");
                return Err(Fault::new(span, message));
            };
            for _ in 0..mark.len() {
                self.bump();
            }
            Kind::Mark(mark)
        };
        Ok(Some(Token { kind, span }))
    }

    fn text(&mut self) -> Checked<Kind> {
        let span = self.span;
        self.bump();
        let text = self.bump_while(|c| c != '"' && c != '\n').to_owned();
        if self.bump() != Some('"') {
            return Err(Fault::new(
                span,
                "this text has no end on its line: write \"",
            ));
        }
        Ok(Kind::Text(text))
    }

    fn number(&mut self) -> Checked<Kind> {
        let span = self.span;
        let text = self.bump_while(|c| c.is_ascii_alphanumeric() || c == '_');
        let text = text.replace('_', "");
        let wrong = || Fault::new(span, format!("{text} is no number of at most 64 bits"));
        // `16w0x10` has a width; `0x16` has none, though it holds no `w` either.
        let (width, digits) = match text.split_once('w') {
            Some((width, digits)) => {
                let width = width.parse::<u32>().map_err(|_| wrong())?;
                (Some(width), digits)
            }
            None => (None, text.as_str()),
        };
        if text.contains('s') {
            let message = format!("{text} is signed: the subset has bit<N> only, no int<N>");
            return Err(Fault::new(span, message));
        }
        let lower = digits.to_ascii_lowercase();
        let value = if let Some(hex) = lower.strip_prefix("0x") {
            u64::from_str_radix(hex, 16)
        } else if let Some(binary) = lower.strip_prefix("0b") {
            u64::from_str_radix(binary, 2)
        } else {
            lower.parse()
        };
        let value = value.map_err(|_| wrong())?;
        if let Some(width) = width {
            if width == 0 || width > 64 {
                return Err(Fault::new(span, format!("{width} bits: write 1 to 64")));
            }
            if width < 64 && value >> width != 0 {
                let message = format!("{value} does not fit in {width} bits");
                return Err(Fault::new(span, message));
            }
        }
        Ok(Kind::Number { value, width })
    }
}
