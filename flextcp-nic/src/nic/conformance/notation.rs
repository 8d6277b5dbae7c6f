//! Segments as text, in the manner of tcpdump: `P. 0:5 ack 1 win 512`.
//!
//! Flags (`S F R P U . E W`), sequence numbers from and to relative to the sender's, `ack` relative to the
//! receiver's, `win` as in the field; then, if present, `ce` (the IP header's mark), `ect`, `ts VAL/ECR`,
//! `sack FROM:TO`, `mss N`.

use std::fmt;

use crate::seq::SeqNum;
use crate::wire::{TcpFlags, TcpOptions, Timestamps};

/// A segment without its addresses.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Segment {
    /// Control bits.
    pub flags: TcpFlags,
    /// SEG.SEQ, relative.
    pub start: u32,
    /// Bytes of payload.
    pub len: u32,
    /// SEG.ACK, relative.
    pub ack: u32,
    /// The window field.
    pub window: u16,
    /// The ECN bits of the IP header.
    pub ecn: u8,
    /// Options; SACK blocks are relative to the receiver's sequence numbers.
    pub options: TcpOptions,
}

const LETTERS: [(char, TcpFlags); 8] = [
    ('S', TcpFlags::SYN),
    ('F', TcpFlags::FIN),
    ('R', TcpFlags::RST),
    ('P', TcpFlags::PSH),
    ('U', TcpFlags::URG),
    ('E', TcpFlags::ECE),
    ('W', TcpFlags::CWR),
    ('.', TcpFlags::ACK),
];

impl Segment {
    /// Parses the notation.
    ///
    /// # Panics
    /// The text is not in the notation: it is part of a test.
    pub fn parse(text: &str) -> Self {
        let number = |text: &str| {
            text.parse::<i64>()
                .unwrap_or_else(|_| panic!("number in {text:?}")) as u32
        };
        let mut words = text.split_whitespace();
        let letters = words.next().unwrap_or_else(|| panic!("flags in {text:?}"));
        let mut segment = Self {
            flags: TcpFlags::NONE,
            start: 0,
            len: 0,
            ack: 0,
            window: 0,
            ecn: 0,
            options: TcpOptions::default(),
        };
        for (letter, flag) in LETTERS {
            if letters.contains(letter) {
                segment.flags |= flag;
            }
        }
        while let Some(word) = words.next() {
            let mut value = || {
                words
                    .next()
                    .unwrap_or_else(|| panic!("value of {word} in {text:?}"))
            };
            let pair = |text: &str, by: char| {
                let (a, b) = text
                    .split_once(by)
                    .unwrap_or_else(|| panic!("pair {text:?}"));
                (number(a), number(b))
            };
            match word {
                "ack" => segment.ack = number(value()),
                "win" => segment.window = number(value()) as u16,
                "mss" => segment.options.mss = Some(number(value()) as u16),
                "ce" => segment.ecn = 3,
                "ect" => segment.ecn = 2,
                "ts" => {
                    let (val, ecr) = pair(value(), '/');
                    segment.options.timestamps = Some(Timestamps { val, ecr });
                }
                "sack" => {
                    let (from, to) = pair(value(), ':');
                    segment.options.sack.push(SeqNum(from), SeqNum(to));
                }
                range => {
                    let (from, to) = pair(range, ':');
                    segment.start = from;
                    segment.len = to.wrapping_sub(from);
                }
            }
        }
        segment
    }
}

impl fmt::Display for Segment {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (letter, flag) in LETTERS {
            if self.flags.contains(flag) {
                write!(f, "{letter}")?;
            }
        }
        let end = self.start.wrapping_add(self.len);
        write!(
            f,
            " {}:{} ack {} win {}",
            self.start, end, self.ack, self.window
        )?;
        match self.ecn {
            3 => f.write_str(" ce")?,
            2 => f.write_str(" ect")?,
            _ => {}
        }
        if let Some(timestamps) = self.options.timestamps {
            write!(f, " ts {}/{}", timestamps.val, timestamps.ecr)?;
        }
        for (from, to) in self.options.sack.iter() {
            write!(f, " sack {from}:{to}")?;
        }
        self.options
            .mss
            .map_or(Ok(()), |mss| write!(f, " mss {mss}"))
    }
}
