//! What a connection keeps between requests, and how requests are cut out of its input.

use std::sync::Arc;

use super::report::ServerInfo;
use super::store::Store;
use super::{meta, text};

/// A command line longer than this is not one. Reads of very many keys fit.
const MAX_LINE: usize = 64 * 1024;

/// Answers beyond this are sent before more requests are looked at.
const OUTPUT_LIMIT: usize = 256 * 1024;

/// One connection's side of the protocol.
#[derive(Debug)]
pub(super) struct Session {
    pub(super) store: Arc<Store>,
    pub(super) server: Arc<ServerInfo>,
    /// Bytes of a refused data block that are still to come.
    swallow: usize,
}

/// Why [`Session::process`] came back.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Progress {
    /// The rest of the input is the beginning of a request of at least this many bytes.
    NeedMore(usize),
    /// There is enough output to be sent.
    Full,
    /// The connection ends when the output is sent.
    Quit,
}

/// What became of one command line.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Step {
    /// It is answered.
    Done,
    /// It is answered, and so many bytes after it belong to it.
    Data(usize),
    /// It cannot be answered before so many bytes after it are there.
    Wait(usize),
    /// It is refused; so many bytes after it, which may not be there yet, are to be skipped.
    Swallow(usize),
    Quit,
}

impl Session {
    pub(super) fn new(store: Arc<Store>, server: Arc<ServerInfo>) -> Self {
        Self {
            store,
            server,
            swallow: 0,
        }
    }

    /// Answers all complete requests of `input` into `output`; returns how many bytes of the input
    /// are done with.
    pub(super) fn process(&mut self, input: &[u8], output: &mut Vec<u8>) -> (usize, Progress) {
        let now = self.store.clock.now();
        let mut done = 0;
        loop {
            let rest = &input[done..];
            if self.swallow > 0 {
                let skipped = self.swallow.min(rest.len());
                self.swallow -= skipped;
                done += skipped;
                if self.swallow > 0 {
                    return (done, Progress::NeedMore(1));
                }
                continue;
            }
            if output.len() >= OUTPUT_LIMIT {
                return (done, Progress::Full);
            }
            let Some(newline) = rest.iter().position(|byte| *byte == b'\n') else {
                if rest.len() > MAX_LINE {
                    output.extend_from_slice(b"CLIENT_ERROR line too long\r\n");
                    return (done, Progress::Quit);
                }
                return (done, Progress::NeedMore(rest.len() + 1));
            };
            let line = &rest[..newline];
            let line = line.strip_suffix(b"\r").unwrap_or(line);
            let after = newline + 1;
            match self.execute(line, &rest[after..], now, output) {
                Step::Done => done += after,
                Step::Data(len) => done += after + len,
                Step::Wait(len) => return (done, Progress::NeedMore(after + len)),
                Step::Swallow(len) => {
                    done += after;
                    self.swallow = len;
                }
                Step::Quit => return (done + after, Progress::Quit),
            }
        }
    }

    fn execute(&self, line: &[u8], rest: &[u8], now: u64, output: &mut Vec<u8>) -> Step {
        let mut words = words(line);
        let Some(name) = words.next() else {
            output.extend_from_slice(b"ERROR\r\n");
            return Step::Done;
        };
        match name {
            b"mg" | b"ms" | b"md" | b"ma" | b"mn" | b"me" => {
                meta::execute(self, name, words, rest, now, output)
            }
            _ => text::execute(self, name, words, rest, now, output),
        }
    }
}

/// The words of a line.
pub(super) fn words(line: &[u8]) -> impl Iterator<Item = &[u8]> + Clone {
    line.split(|byte| *byte == b' ')
        .filter(|word| !word.is_empty())
}

/// A data block of `len` bytes at the start of `rest`.
pub(super) enum Block<'a> {
    /// All of it.
    Whole(&'a [u8]),
    /// It has not arrived yet.
    Missing,
    /// It does not end in `\r\n`.
    Malformed,
}

pub(super) fn block(rest: &[u8], len: usize) -> Block<'_> {
    match rest.get(..len + 2) {
        None => Block::Missing,
        Some(block) if block.ends_with(b"\r\n") => Block::Whole(&block[..len]),
        Some(_) => Block::Malformed,
    }
}

/// A decimal number, digits only.
pub(super) fn number<T: std::str::FromStr>(word: &[u8]) -> Option<T> {
    if !word.first()?.is_ascii_digit() {
        return None;
    }
    std::str::from_utf8(word).ok()?.parse().ok()
}

/// A decimal number that may be negative.
pub(super) fn signed(word: &[u8]) -> Option<i64> {
    std::str::from_utf8(word).ok()?.parse().ok()
}

pub(super) fn push_number(output: &mut Vec<u8>, number: u64) {
    let mut digits = [0; 20];
    let mut at = digits.len();
    let mut left = number;
    loop {
        at -= 1;
        digits[at] = b'0' + (left % 10) as u8;
        left /= 10;
        if left == 0 {
            break;
        }
    }
    output.extend_from_slice(&digits[at..]);
}

#[cfg(test)]
mod tests;
