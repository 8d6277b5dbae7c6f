//! Decisions out of bytes. A script that has ended decides for zero, so that every prefix is a script.

/// The rest of a script.
#[derive(Debug, Clone)]
pub struct Script<'a>(&'a [u8]);

impl<'a> Script<'a> {
    /// All of `bytes`.
    pub const fn new(bytes: &'a [u8]) -> Self {
        Self(bytes)
    }

    /// Whether nothing is left.
    pub const fn is_over(&self) -> bool {
        self.0.is_empty()
    }

    /// A byte.
    pub fn byte(&mut self) -> u8 {
        let Some((&first, rest)) = self.0.split_first() else {
            return 0;
        };
        self.0 = rest;
        first
    }

    /// Two bytes.
    pub fn short(&mut self) -> u16 {
        u16::from_be_bytes([self.byte(), self.byte()])
    }

    /// Four bytes.
    pub fn word(&mut self) -> u32 {
        u32::from_be_bytes([self.byte(), self.byte(), self.byte(), self.byte()])
    }

    /// One of `count`.
    pub fn choice(&mut self, count: u8) -> u8 {
        self.byte() % count.max(1)
    }

    /// Whether the next byte is odd.
    pub fn flag(&mut self) -> bool {
        self.byte() & 1 == 1
    }

    /// A small number mostly, and now and then one of any size: sizes and distances around the interesting ones.
    pub fn distance(&mut self) -> u32 {
        match self.choice(8) {
            0 => 0,
            1 => 1,
            2 => u32::from(self.byte()),
            3 => 1448 * u32::from(self.choice(20)),
            4 => 1448,
            5 => u32::from(self.short()),
            6 => 1 << self.choice(32),
            _ => self.word(),
        }
    }

    /// Up to `most` bytes as they are.
    pub fn bytes(&mut self, most: usize) -> &'a [u8] {
        let (head, rest) = self.0.split_at(most.min(self.0.len()));
        self.0 = rest;
        head
    }
}
