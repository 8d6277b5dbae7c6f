//! `firmware/hal/hal_host.h`, word for word.

use std::ffi::{c_int, c_void};

/// `struct fx_nic`.
#[repr(C)]
pub(crate) struct Card {
    _private: [u8; 0],
}

/// `struct fx_host_dma`.
#[derive(Clone, Copy, Debug)]
#[repr(C)]
pub(crate) struct Transfer {
    pub(crate) id: u32,
    pub(crate) to_host: u32,
    pub(crate) address_low: u32,
    pub(crate) address_high: u32,
    pub(crate) local: *mut u8,
    pub(crate) length: u32,
}

impl Transfer {
    pub(crate) fn address(&self) -> u64 {
        u64::from(self.address_high) << 32 | u64::from(self.address_low)
    }
}

/// `struct fx_host_config`.
#[repr(C)]
pub(crate) struct CardConfig {
    pub(crate) queues: u32,
    pub(crate) flows_per_queue: u32,
    pub(crate) groups: u32,
    pub(crate) mtu: u32,
    pub(crate) mac_high: u32,
    pub(crate) mac_low: u32,
    pub(crate) packets: u32,
    pub(crate) packet_bytes: u32,
}

/// `struct fx_host_ops`.
#[repr(C)]
pub(crate) struct Ops {
    pub(crate) context: *mut c_void,
    pub(crate) dma: extern "C" fn(*mut c_void, *const Transfer) -> c_int,
    pub(crate) transmit: extern "C" fn(*mut c_void, *const u8, u32, u32, u32, u32) -> c_int,
    pub(crate) interrupt: extern "C" fn(*mut c_void, u32),
    pub(crate) netdev: extern "C" fn(*mut c_void, *const u8, u32),
}

unsafe extern "C" {
    pub(crate) fn fx_host_bar_words(config: *const CardConfig) -> u32;
    pub(crate) fn fx_host_new(
        bar: *mut u32,
        config: *const CardConfig,
        ops: *const Ops,
    ) -> *mut Card;
    pub(crate) fn fx_host_free(card: *mut Card);
    pub(crate) fn fx_host_clock(card: *mut Card, ms: u32, ns: u32);
    pub(crate) fn fx_host_receive(
        card: *mut Card,
        frame: *const u8,
        length: u32,
        checksum: u32,
    ) -> c_int;
    pub(crate) fn fx_host_engines(card: *const Card) -> u32;
    pub(crate) fn fx_host_step(card: *mut Card, engine: u32) -> c_int;
    pub(crate) fn fx_host_timer(card: *mut Card) -> c_int;
    pub(crate) fn fx_host_dma_done(card: *mut Card, id: u32, failed: u32);
}
