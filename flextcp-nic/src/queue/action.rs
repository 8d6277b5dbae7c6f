//! The card's Micro-C as P4 calls it, compiled for the host: one flow's entry, and the action on it.

use std::fmt;

use super::abi::{completion, constant, flow_block, flow_entry, flow_status, received};
use crate::flow::FlowState;
use crate::nic::Reason;

const ENTRY: usize = constant::FLOW_ENTRY_WORDS as usize;
const BLOCK: usize = constant::FLOW_BLOCK_WORDS as usize;
/// Words of `struct metadata` of `firmware/p4/fx_headers.p4`.
pub const METADATA_WORDS: usize = 31;
/// `FX_PEEK_WORDS` of `firmware/core/core.h`, and one that is read beyond the last.
const PEEK: usize = 48;
const RESULTS: usize = received::WORDS as usize;
/// Receive and send rings of 64 KiB, anywhere: an action moves no payload.
const RING_SHIFT: u32 = 16;

unsafe extern "C" {
    fn fx_flow_install(f: *mut u32, block: *const u32, generation: u32, ms: u32, ns: u32) -> u32;
    fn fx_action(
        f: *mut u32,
        m: *mut u32,
        w: *const u32,
        peek: u32,
        length: u32,
        now_ms: u32,
        now_ns: u32,
        out: *mut u32,
    );
    fn fx_action_checksum(m: *const u32, w: *const u32, sum: u32) -> u32;
    fn fx_action_hash(m: *const u32, key: *const u32) -> u32;
}

/// A connection on the card.
#[derive(Clone)]
pub struct CardFlow {
    entry: [u32; ENTRY],
}

impl fmt::Debug for CardFlow {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("CardFlow").finish_non_exhaustive()
    }
}

impl CardFlow {
    /// Installs a connection; `None` when the card refuses its state.
    pub fn install(state: &FlowState, generation: u32) -> Option<Self> {
        let mut words = [0; BLOCK];
        let state = state.to_words();
        words[..state.len()].copy_from_slice(&state);
        words[flow_block::RECV_SHIFT as usize] = RING_SHIFT;
        words[flow_block::SEND_SHIFT as usize] = RING_SHIFT;
        let mut entry = [0; ENTRY];
        // SAFETY: it reads the words of a block and writes those of an entry, which these arrays have.
        let result =
            unsafe { fx_flow_install(entry.as_mut_ptr(), words.as_ptr(), generation, 0, 0) };
        (result == completion::OK).then_some(Self { entry })
    }

    /// A frame of this connection, as P4 hands it over: `metadata` in the order of the P4 struct, of which the verdict is set.
    /// Returns why it is an exception, if it is one; the connection is the host's from then on.
    pub fn action(&mut self, metadata: &mut [u32; METADATA_WORDS], frame: &[u8]) -> Option<Reason> {
        let words = peek_words(frame);
        let peek = frame.len().min(PEEK * 4) as u32;
        let length = u32::try_from(frame.len()).unwrap_or(u32::MAX);
        let mut out = [0; RESULTS];
        // SAFETY: it reads and writes the words of an entry, of the metadata and of the results, and reads the frame's
        // first words as far as `peek` and P4's offsets go, which the array has: it was validated that headers end
        // within the frame, and the offsets of a frame that lies beyond the array are the caller's mistake, checked here.
        unsafe {
            if headers_end(metadata) <= PEEK * 4 {
                fx_action(
                    self.entry.as_mut_ptr(),
                    metadata.as_mut_ptr(),
                    words.as_ptr(),
                    peek,
                    length,
                    0,
                    0,
                    out.as_mut_ptr(),
                );
            }
        }
        let reason = (out[received::EXCEPTION as usize] as usize).checked_sub(1)?;
        Reason::ALL.get(reason).copied()
    }

    /// Whether the card carries the connection still.
    pub const fn is_nic_owned(&self) -> bool {
        self.entry[flow_entry::STATUS as usize] & 0xff == flow_status::NIC_OWNED
    }
}

/// Where the headers that `fx_action` reads by the metadata's offsets end at most: TCP's with timestamps.
fn headers_end(metadata: &[u32; METADATA_WORDS]) -> usize {
    const L3_OFFSET: usize = 7;
    const L4_OFFSET: usize = 8;
    let end = metadata[L3_OFFSET].max(metadata[L4_OFFSET]);
    end as usize + 32
}

/// The frame's first words.
fn peek_words(frame: &[u8]) -> [u32; PEEK + 1] {
    let mut words = [0; PEEK + 1];
    for (word, bytes) in words[..PEEK].iter_mut().zip(frame.chunks(4)) {
        let mut whole = [0; 4];
        whole[..bytes.len()].copy_from_slice(bytes);
        *word = u32::from_be_bytes(whole);
    }
    words
}

/// Whether the IPv4 header's checksum or TCP's is wrong, as the extern `fx_checksum` says it.
pub fn checksum_is_bad(metadata: &[u32; METADATA_WORDS], frame: &[u8]) -> bool {
    const L4_OFFSET: usize = 8;
    const L4_LENGTH: usize = 9;
    let start = metadata[L4_OFFSET] as usize;
    let bytes = frame.get(start..start + metadata[L4_LENGTH] as usize);
    let Some(bytes) = bytes.filter(|_| headers_end(metadata) <= PEEK * 4) else {
        return true;
    };
    let mut sum = 0_u32;
    for pair in bytes.chunks(2) {
        let low = pair.get(1).copied().unwrap_or(0);
        let (added, carry) = sum.overflowing_add(u32::from_be_bytes([pair[0], low, 0, 0]));
        sum = added + u32::from(carry);
    }
    // SAFETY: it reads the words of the metadata, and those of the frame up to where the transport header begins, which the
    // array has, as was just seen.
    unsafe { fx_action_checksum(metadata.as_ptr(), peek_words(frame).as_ptr(), sum) != 0 }
}

/// The Toeplitz hash of the connection in the metadata, as the extern `fx_rss` takes it.
pub fn hash(metadata: &[u32; METADATA_WORDS], key: &[u8; 40]) -> u32 {
    let mut words = [0; 10];
    for (word, bytes) in words.iter_mut().zip(key.as_chunks::<4>().0) {
        *word = u32::from_be_bytes(*bytes);
    }
    // SAFETY: it reads the words of the metadata and the ten words of the key, which these arrays have.
    unsafe { fx_action_hash(metadata.as_ptr(), words.as_ptr()) }
}
