//! The emulated card as a process of its own, so that the host side crosses the same boundary as on PCIe: another
//! program's death, its time, and nothing shared but memory.
//!
//! | of PCIe | here |
//! |---|---|
//! | BAR | memory of the card (memfd), mapped by the host |
//! | DMA | the host's regions (memfd), mapped by the card; every address is checked |
//! | interrupt | a socket that the card writes to; its end tells of the card's death |
//! | doorbell | the word in the BAR; a card that sleeps says so in [`NEED_WAKEUP`] and is kicked by an event descriptor |
//!
//! The socket also carries what a card's netdev and its driver do in the kernel: whose frames are taken off the wire. Its
//! messages are lines of words, one request, one answer.
//!
//! A card serves one host at a time. When that one goes, the card is reset and reaches none of its memory any more.
//!
//! [`NEED_WAKEUP`]: crate::queue::abi::control::NEED_WAKEUP

#[cfg(feature = "firmware")]
pub mod card;
mod host;
mod link;

pub use host::{CardProcess, CardSteering, Clock};
