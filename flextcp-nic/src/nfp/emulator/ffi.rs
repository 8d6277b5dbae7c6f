//! The firmware's host build, safely: what it offers, and what it calls.

use std::ffi::{c_int, c_void};
use std::num::NonZeroU16;
use std::ptr::NonNull;
use std::slice;
use std::sync::atomic::AtomicU32;

use super::Hooks;
pub(super) use super::raw::{Card, CardConfig, Transfer};
use super::raw::{
    Ops, fx_host_bar_words, fx_host_clock, fx_host_dma_done, fx_host_engines, fx_host_free,
    fx_host_new, fx_host_receive, fx_host_step, fx_host_timer,
};
use crate::port::{TxFrame, TxOffload};
use crate::time::Instant;

/// The hooks behind a card's context, for the time of one call.
///
/// # Safety
/// `context` is what [`new_card`] was given, and nobody else uses the hooks meanwhile.
unsafe fn hooks<'a>(context: *mut c_void) -> &'a mut Hooks {
    // SAFETY: as the caller promises.
    unsafe { &mut *context.cast() }
}

extern "C" fn start_dma(context: *mut c_void, transfer: *const Transfer) -> c_int {
    // SAFETY: the card calls back only within `step`, when nobody borrows the hooks, with a transfer of its own.
    let (hooks, transfer) = unsafe { (hooks(context), *transfer) };
    c_int::from(!hooks.dma.start(transfer))
}

extern "C" fn transmit(
    context: *mut c_void,
    frame: *const u8,
    length: u32,
    header: u32,
    partial: u32,
    mss: u32,
) -> c_int {
    // SAFETY: as in `start_dma`; the frame is `length` bytes of the card's.
    let (hooks, frame) = unsafe {
        (
            hooks(context),
            slice::from_raw_parts(frame, length as usize),
        )
    };
    let (header, payload) = frame.split_at(frame.len().min(header as usize));
    let offload = TxOffload {
        checksum: partial != 0,
        segment: u16::try_from(mss).ok().and_then(NonZeroU16::new),
    };
    let frame = TxFrame {
        header,
        payload: [payload, &[]],
        offload,
    };
    if hooks.port.transmit(hooks.now, frame).is_err() {
        hooks.full = true;
        return 1;
    }
    hooks.sent = true;
    0
}

extern "C" fn interrupt(context: *mut c_void, _queue: u32) {
    // SAFETY: as in `start_dma`.
    unsafe { hooks(context) }.interrupts += 1;
}

extern "C" fn netdev(context: *mut c_void, _frame: *const u8, _length: u32) {
    // SAFETY: as in `start_dma`.
    unsafe { hooks(context) }.not_ours += 1;
}

pub(super) fn bar_words(config: &CardConfig) -> u32 {
    // SAFETY: it reads the configuration.
    unsafe { fx_host_bar_words(config) }
}

/// A card that calls `hooks`; the caller keeps both them and the BAR alive until [`free`].
pub(super) fn new_card(
    bar: &[AtomicU32],
    config: &CardConfig,
    hooks: NonNull<Hooks>,
) -> Option<NonNull<Card>> {
    if bar.len() < bar_words(config) as usize {
        return None;
    }
    let ops = Ops {
        context: hooks.as_ptr().cast(),
        dma: start_dma,
        transmit,
        interrupt,
        netdev,
    };
    // SAFETY: the BAR has the words that such a card needs, zeroed, and is only accessed atomically on either side.
    NonNull::new(unsafe {
        fx_host_new(
            bar.as_ptr().cast::<u32>().cast_mut(),
            config,
            &raw const ops,
        )
    })
}

pub(super) fn free(card: NonNull<Card>) {
    // SAFETY: the one owner gives it up.
    unsafe { fx_host_free(card.as_ptr()) }
}

pub(super) fn set_clock(card: NonNull<Card>, now: Instant) {
    let ms = now.as_millis();
    let ns = (now.as_nanos() - ms * 1_000_000) as u32;
    // SAFETY: the card is alive.
    unsafe { fx_host_clock(card.as_ptr(), ms as u32, ns) }
}

/// Gives the card a frame; `false`: it has no buffer for it.
pub(super) fn receive(card: NonNull<Card>, frame: &[u8], checksum: u32) -> bool {
    let Ok(length) = u32::try_from(frame.len()) else {
        return false;
    };
    // SAFETY: the card copies the frame and calls nothing.
    unsafe { fx_host_receive(card.as_ptr(), frame.as_ptr(), length, checksum) == 0 }
}

pub(super) fn engines(card: NonNull<Card>) -> u32 {
    // SAFETY: the card is alive.
    unsafe { fx_host_engines(card.as_ptr()) }
}

/// One step of an engine; whether it did something. The card may call the hooks.
pub(super) fn step(card: NonNull<Card>, engine: u32) -> bool {
    // SAFETY: the card is alive, and nobody borrows the hooks.
    unsafe { fx_host_step(card.as_ptr(), engine) != 0 }
}

pub(super) fn update_timer(card: NonNull<Card>) {
    // SAFETY: the card is alive.
    unsafe { fx_host_timer(card.as_ptr()) };
}

pub(super) fn dma_done(card: NonNull<Card>, id: u32, failed: bool) {
    // SAFETY: the card is alive; it ignores ids of no transfer.
    unsafe { fx_host_dma_done(card.as_ptr(), id, u32::from(failed)) }
}
