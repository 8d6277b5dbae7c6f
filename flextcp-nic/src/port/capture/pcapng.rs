//! The pcapng format (draft-ietf-opsawg-pcapng), as little of it as a capture of one interface needs.
//! Written in host byte order, which readers take from the section header.

use std::io::{self, Write};
use std::time::Duration;

const SECTION_HEADER: u32 = 0x0a0d_0d0a;
const INTERFACE_DESCRIPTION: u32 = 1;
const ENHANCED_PACKET: u32 = 6;
const BYTE_ORDER_MAGIC: u32 = 0x1a2b_3c4d;
const LINKTYPE_ETHERNET: u16 = 1;

const OPTION_END: u16 = 0;
const OPTION_IF_NAME: u16 = 2;
const OPTION_IF_TSRESOL: u16 = 9;
const OPTION_EPB_FLAGS: u16 = 2;
/// 10^-9 seconds.
const NANOSECONDS: u8 = 9;

#[derive(Clone, Copy, Debug)]
pub(super) enum Direction {
    Inbound = 1,
    Outbound = 2,
}

#[derive(Debug)]
pub(super) struct PcapngWriter<W> {
    writer: W,
    snap_len: usize,
    /// Bytes that may still be written.
    left: u64,
    /// A block under construction, all but the packet's bytes.
    block: Vec<u8>,
}

const fn padding(len: usize) -> usize {
    len.wrapping_neg() % 4
}

/// Bytes of an enhanced packet block around the padded packet: type, length, interface, time (2), captured and
/// original length, the flags option (2), the end of options, length.
const PACKET_OVERHEAD: usize = 7 * 4 + 2 * 4 + 4 + 4;

impl<W: Write> PcapngWriter<W> {
    /// Writes the section header and the description of the interface.
    pub(super) fn new(writer: W, name: &str, snap_len: u32, max_bytes: u64) -> io::Result<Self> {
        let mut this = Self {
            writer,
            snap_len: snap_len as usize,
            left: max_bytes,
            block: Vec::new(),
        };
        this.word(BYTE_ORDER_MAGIC);
        this.halves(1, 0);
        // Section length: not known.
        this.block.extend_from_slice(&u64::MAX.to_ne_bytes());
        this.write_block(SECTION_HEADER)?;

        this.halves(LINKTYPE_ETHERNET, 0);
        this.word(snap_len);
        let name = &name.as_bytes()[..name.len().min(1024)];
        this.option(OPTION_IF_NAME, name);
        this.option(OPTION_IF_TSRESOL, &[NANOSECONDS]);
        this.halves(OPTION_END, 0);
        this.write_block(INTERFACE_DESCRIPTION)?;
        Ok(this)
    }

    /// Writes a packet; `false` when it does not fit any more.
    pub(super) fn frame<'a>(
        &mut self,
        time: Duration,
        direction: Direction,
        pieces: impl Iterator<Item = &'a [u8]> + Clone,
    ) -> io::Result<bool> {
        let original: usize = pieces.clone().map(<[u8]>::len).sum();
        let captured = original.min(self.snap_len);
        let total = PACKET_OVERHEAD + captured + padding(captured);
        let Some(left) = self.left.checked_sub(total as u64) else {
            return Ok(false);
        };
        self.left = left;

        let nanos = time.as_nanos() as u64;
        self.word(ENHANCED_PACKET);
        self.word(total as u32);
        self.word(0);
        self.word((nanos >> 32) as u32);
        self.word(nanos as u32);
        self.word(captured as u32);
        self.word(original as u32);
        let mut rest = captured;
        for piece in pieces {
            let take = piece.len().min(rest);
            self.block.extend_from_slice(&piece[..take]);
            rest -= take;
        }
        self.block.extend_from_slice(&[0; 3][..padding(captured)]);
        self.option(OPTION_EPB_FLAGS, &(direction as u32).to_ne_bytes());
        self.halves(OPTION_END, 0);
        self.word(total as u32);
        debug_assert_eq!(self.block.len(), total);
        let written = self.writer.write_all(&self.block);
        self.block.clear();
        written.map(|()| true)
    }

    pub(super) fn flush(&mut self) -> io::Result<()> {
        self.writer.flush()
    }

    /// Writes the body gathered in `block` with its type and its length before and after it.
    fn write_block(&mut self, kind: u32) -> io::Result<()> {
        let total = (self.block.len() + 12) as u32;
        self.left = self.left.saturating_sub(u64::from(total));
        self.writer.write_all(&kind.to_ne_bytes())?;
        self.writer.write_all(&total.to_ne_bytes())?;
        self.writer.write_all(&self.block)?;
        self.writer.write_all(&total.to_ne_bytes())?;
        self.block.clear();
        Ok(())
    }

    fn word(&mut self, value: u32) {
        self.block.extend_from_slice(&value.to_ne_bytes());
    }

    fn halves(&mut self, first: u16, second: u16) {
        self.block.extend_from_slice(&first.to_ne_bytes());
        self.block.extend_from_slice(&second.to_ne_bytes());
    }

    /// An option of at most a kilobyte, padded.
    fn option(&mut self, code: u16, value: &[u8]) {
        self.halves(code, value.len() as u16);
        self.block.extend_from_slice(value);
        self.block
            .extend_from_slice(&[0; 3][..padding(value.len())]);
    }
}
