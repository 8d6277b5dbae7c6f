//! TCP options (RFC 9293, section 3.2; RFC 7323; RFC 2018).

use core::fmt;

use crate::seq::{SeqNum, WindowScale};

/// The timestamps option (RFC 7323, section 3).
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct Timestamps {
    /// TSval: the sender's clock.
    pub val: u32,
    /// TSecr: the clock value echoed, valid with ACK.
    pub ecr: u32,
}

/// SACK blocks (RFC 2018): up to four pairs of left edge and right edge (one past the last byte).
#[derive(Clone, Copy, Default, Eq)]
pub struct SackBlocks {
    blocks: [(SeqNum, SeqNum); Self::CAPACITY],
    len: u8,
}

impl SackBlocks {
    /// What fits in the option space of a header.
    pub const CAPACITY: usize = 4;

    /// Appends a block; `false` when there is no room.
    pub const fn push(&mut self, left: SeqNum, right: SeqNum) -> bool {
        if self.len() == Self::CAPACITY {
            return false;
        }
        self.blocks[self.len as usize] = (left, right);
        self.len += 1;
        true
    }

    /// The blocks, in the header's order.
    pub fn iter(&self) -> impl ExactSizeIterator<Item = (SeqNum, SeqNum)> + '_ {
        self.blocks[..self.len()].iter().copied()
    }

    /// Number of blocks.
    pub const fn len(&self) -> usize {
        self.len as usize
    }

    /// Whether there is none.
    pub const fn is_empty(&self) -> bool {
        self.len == 0
    }
}

impl PartialEq for SackBlocks {
    fn eq(&self, other: &Self) -> bool {
        self.iter().eq(other.iter())
    }
}

impl fmt::Debug for SackBlocks {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(self.iter()).finish()
    }
}

impl FromIterator<(SeqNum, SeqNum)> for SackBlocks {
    /// Takes the first four.
    fn from_iter<I: IntoIterator<Item = (SeqNum, SeqNum)>>(blocks: I) -> Self {
        let mut result = Self::default();
        for (left, right) in blocks.into_iter().take(Self::CAPACITY) {
            result.push(left, right);
        }
        result
    }
}

/// The options of one segment.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct TcpOptions {
    /// Maximum segment size, in a SYN; never zero in a received one.
    pub mss: Option<u16>,
    /// Window scale, in a SYN.
    pub window_scale: Option<WindowScale>,
    /// SACK-permitted, in a SYN.
    pub sack_permitted: bool,
    /// Timestamps.
    pub timestamps: Option<Timestamps>,
    /// SACK blocks.
    pub sack: SackBlocks,
    /// An option that is not understood here, or is out of place or ill-formed, was skipped.
    pub other: bool,
}

pub(super) const MAX_OPTIONS_LEN: usize = 40;

const END: u8 = 0;
const NOP: u8 = 1;
const MSS: u8 = 2;
const WINDOW_SCALE: u8 = 3;
const SACK_PERMITTED: u8 = 4;
const SACK: u8 = 5;
const TIMESTAMPS: u8 = 8;

/// `nop, nop, timestamps, 10`: how every segment of a connection with timestamps starts.
const ALIGNED_TIMESTAMPS: [u8; 4] = [NOP, NOP, TIMESTAMPS, 10];

impl TcpOptions {
    /// Only timestamps.
    pub const fn with_timestamps(val: u32, ecr: u32) -> Self {
        Self {
            mss: None,
            window_scale: None,
            sack_permitted: false,
            timestamps: Some(Timestamps { val, ecr }),
            sack: SackBlocks {
                blocks: [(SeqNum(0), SeqNum(0)); SackBlocks::CAPACITY],
                len: 0,
            },
            other: false,
        }
    }

    /// Parses the bytes between the fixed header and the payload, as leniently as Linux (`tcp_parse_options`):
    /// a length below two or beyond the header ends the list; a known option with a wrong length is skipped;
    /// of a repeated option the last counts; MSS 0 is no MSS; MSS, window scale and SACK-permitted count only
    /// in a SYN.
    #[inline]
    pub fn parse(bytes: &[u8], syn: bool) -> Self {
        if let Some((head, rest)) = bytes.split_first_chunk::<12>()
            && head[..4] == ALIGNED_TIMESTAMPS
        {
            let mut options = Self {
                timestamps: Some(parse_timestamps(&head[4..])),
                ..Self::default()
            };
            if !rest.is_empty() {
                options.parse_list(rest, syn);
            }
            return options;
        }
        let mut options = Self::default();
        options.parse_list(bytes, syn);
        options
    }

    fn parse_list(&mut self, mut bytes: &[u8], syn: bool) {
        while let [kind, rest @ ..] = bytes {
            match *kind {
                END => return,
                NOP => bytes = rest,
                kind => {
                    let Some(&length) = rest.first() else {
                        self.other = true;
                        return;
                    };
                    let length = usize::from(length);
                    if length < 2 || length > bytes.len() {
                        self.other = true;
                        return;
                    }
                    let (option, following) = bytes.split_at(length);
                    self.parse_option(kind, &option[2..], syn);
                    bytes = following;
                }
            }
        }
    }

    fn parse_option(&mut self, kind: u8, value: &[u8], syn: bool) {
        match (kind, value) {
            (MSS, &[high, low]) if syn => {
                let mss = u16::from_be_bytes([high, low]);
                if mss != 0 {
                    self.mss = Some(mss);
                }
            }
            (WINDOW_SCALE, &[shift]) if syn => self.window_scale = Some(WindowScale::new(shift)),
            (SACK_PERMITTED, []) if syn => self.sack_permitted = true,
            (TIMESTAMPS, value) if value.len() == 8 => {
                self.timestamps = Some(parse_timestamps(value));
            }
            (SACK, value) if !value.is_empty() && value.len().is_multiple_of(8) => {
                let (blocks, _) = value.as_chunks::<8>();
                self.sack = blocks
                    .iter()
                    .map(|&[a, b, c, d, e, f, g, h]| {
                        let left = u32::from_be_bytes([a, b, c, d]);
                        (SeqNum(left), SeqNum(u32::from_be_bytes([e, f, g, h])))
                    })
                    .collect();
            }
            _ => self.other = true,
        }
    }

    /// How many SACK blocks fit beside the other options.
    fn sack_room(&self) -> usize {
        let free = MAX_OPTIONS_LEN - self.len_without_sack();
        (free.saturating_sub(4) / 8).min(self.sack.len())
    }

    const fn len_without_sack(&self) -> usize {
        let mut len = 0;
        if self.mss.is_some() {
            len += 4;
        }
        if self.timestamps.is_some() {
            len += 12;
        } else if self.sack_permitted {
            len += 4;
        }
        if self.window_scale.is_some() {
            len += 4;
        }
        len
    }

    /// Bytes that the options take in a header: a multiple of four, at most 40.
    pub fn emitted_len(&self) -> usize {
        let blocks = self.sack_room();
        self.len_without_sack() + if blocks > 0 { 4 + 8 * blocks } else { 0 }
    }

    /// Writes the options in Linux's order (MSS, SACK-permitted, timestamps, window scale, SACK, padded in front
    /// with NOP) and returns their length. SACK blocks that do not fit are left out.
    pub(super) fn emit(&self, out: &mut [u8; MAX_OPTIONS_LEN]) -> usize {
        let mut writer = Writer { out, len: 0 };
        if let Some(mss) = self.mss {
            let [high, low] = mss.to_be_bytes();
            writer.put([MSS, 4, high, low]);
        }
        if let Some(timestamps) = self.timestamps {
            if self.sack_permitted {
                writer.put([SACK_PERMITTED, 2, TIMESTAMPS, 10]);
            } else {
                writer.put(ALIGNED_TIMESTAMPS);
            }
            writer.put(timestamps.val.to_be_bytes());
            writer.put(timestamps.ecr.to_be_bytes());
        } else if self.sack_permitted {
            writer.put([NOP, NOP, SACK_PERMITTED, 2]);
        }
        if let Some(scale) = self.window_scale {
            writer.put([NOP, WINDOW_SCALE, 3, scale.get()]);
        }
        let blocks = self.sack_room();
        if blocks > 0 {
            writer.put([NOP, NOP, SACK, (2 + 8 * blocks) as u8]);
            for (left, right) in self.sack.iter().take(blocks) {
                writer.put(left.0.to_be_bytes());
                writer.put(right.0.to_be_bytes());
            }
        }
        writer.len
    }
}

fn parse_timestamps(value: &[u8]) -> Timestamps {
    match *value {
        [a, b, c, d, e, f, g, h] => Timestamps {
            val: u32::from_be_bytes([a, b, c, d]),
            ecr: u32::from_be_bytes([e, f, g, h]),
        },
        _ => Timestamps::default(),
    }
}

struct Writer<'a> {
    out: &'a mut [u8; MAX_OPTIONS_LEN],
    len: usize,
}

impl Writer<'_> {
    fn put(&mut self, word: [u8; 4]) {
        self.out[self.len..self.len + 4].copy_from_slice(&word);
        self.len += 4;
    }
}
