//! What an emulated card under test calls: its DMA, its wire, its interrupt.

use std::cell::RefCell;
use std::ffi::c_void;

use crate::nfp::emulator::raw::Transfer;

/// What the card's calls reach.
#[derive(Default)]
pub(super) struct World {
    pub(super) dma: Vec<Transfer>,
    pub(super) sent: Vec<Vec<u8>>,
    pub(super) interrupts: u32,
    /// Of the wire and the DMA queue: refuse the next calls.
    pub(super) busy: u32,
}

fn world<'a>(context: *mut c_void) -> &'a RefCell<World> {
    // SAFETY: the context is the `World` that `Host` owns in a box, as long as the card lives.
    unsafe { &*context.cast::<RefCell<World>>() }
}

pub(super) extern "C" fn dma(context: *mut c_void, dma: *const Transfer) -> i32 {
    let mut world = world(context).borrow_mut();
    if world.busy > 0 {
        world.busy -= 1;
        return 1;
    }
    // SAFETY: the card passes a DMA that is valid during the call.
    world.dma.push(unsafe { *dma });
    0
}

pub(super) extern "C" fn transmit(
    context: *mut c_void,
    frame: *const u8,
    length: u32,
    _: u32,
    partial: u32,
    mss: u32,
) -> i32 {
    let mut world = world(context).borrow_mut();
    if world.busy > 0 {
        world.busy -= 1;
        return 1;
    }
    assert_eq!((partial, mss), (0, 0), "nothing is left to the wire");
    // SAFETY: the card passes `length` bytes that are valid during the call.
    let bytes = unsafe { std::slice::from_raw_parts(frame, length as usize) };
    world.sent.push(bytes.to_vec());
    0
}

pub(super) extern "C" fn interrupt(context: *mut c_void, _: u32) {
    world(context).borrow_mut().interrupts += 1;
}

pub(super) extern "C" fn netdev(_: *mut c_void, _: *const u8, _: u32) {
    panic!("all frames are ours");
}
