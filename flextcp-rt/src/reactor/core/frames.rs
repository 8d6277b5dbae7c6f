//! Segments of the engine become frames. A train that the port does not cut is cut here: the engine has built its headers once,
//! as Linux does for generic segmentation offload.

use std::num::NonZeroU16;

use flextcp_nic::nic::Nic;
use flextcp_nic::port::{TxFrame, TxOffload};
use flextcp_nic::time::Instant;
use flextcp_nic::wire::{MAX_HEADER_LEN, SegmentRepr, TcpFlags};

use crate::tcp::Transmit;

/// Payload of a train that is cut here: sixteen of Ethernet's segments. A port whose ring is full loses what is left of a train.
const CUT_HERE: u32 = 24 << 10;

/// Writes headers and passes frames on.
pub(super) struct FrameSender<'a> {
    nic: &'a mut dyn Nic,
    header: [u8; MAX_HEADER_LEN],
    /// The port completes checksums.
    checksum: bool,
    /// The port cuts super-frames.
    cuts: bool,
    most: u32,
}

impl<'a> FrameSender<'a> {
    pub(super) fn new(nic: &'a mut dyn Nic) -> Self {
        let port = &nic.capabilities().port;
        let checksum = port.tx_checksum;
        // The port completes the checksums of what it cuts.
        let super_frame = port.tx_segment_max.filter(|_| checksum);
        let largest = |max: u32| {
            max.min(u32::from(u16::MAX))
                .saturating_sub(MAX_HEADER_LEN as u32)
        };
        Self {
            nic,
            header: [0; MAX_HEADER_LEN],
            checksum,
            cuts: super_frame.is_some(),
            most: super_frame.map_or(CUT_HERE, largest),
        }
    }

    /// Bytes of payload that may come at once.
    pub(super) const fn most(&self) -> u32 {
        self.most
    }

    /// Sends it; `false` when the NIC takes no more. What is lost then is lost on a full queue, and recovery treats it as such.
    pub(super) fn send(&mut self, now: Instant, transmit: Transmit<'_>) -> bool {
        let Transmit {
            segment,
            payload,
            cut,
        } = transmit;
        match cut {
            Some(cut) if !self.cuts => self.send_cut(now, segment, payload, cut),
            _ => self.send_frame(now, &segment, payload, cut),
        }
    }

    fn send_cut(
        &mut self,
        now: Instant,
        mut segment: SegmentRepr,
        mut payload: [&[u8]; 2],
        cut: NonZeroU16,
    ) -> bool {
        let last = segment.flags;
        // What the application's bytes end with is pushed.
        segment.flags = last.without(TcpFlags::PSH);
        loop {
            let (first, rest) = split(payload, usize::from(cut.get()));
            let ends = rest.iter().all(|slice| slice.is_empty());
            if ends {
                segment.flags = last;
            }
            let passed = self.send_frame(now, &segment, first, None);
            if ends || !passed {
                return passed;
            }
            segment.seq += u32::from(cut.get());
            payload = rest;
        }
    }

    fn send_frame(
        &mut self,
        now: Instant,
        segment: &SegmentRepr,
        payload: [&[u8]; 2],
        cut: Option<NonZeroU16>,
    ) -> bool {
        let len = segment.emit(payload, self.checksum, &mut self.header);
        let frame = TxFrame {
            header: &self.header[..len],
            payload,
            offload: TxOffload {
                checksum: self.checksum,
                segment: cut,
            },
        };
        // The ring is full: hand the batch over and try once more.
        self.nic.transmit(now, frame).is_ok()
            || (self.nic.flush(now).is_ok() && self.nic.transmit(now, frame).is_ok())
    }
}

/// The first `len` bytes, and those behind them.
fn split([first, second]: [&[u8]; 2], len: usize) -> ([&[u8]; 2], [&[u8]; 2]) {
    match first.split_at_checked(len) {
        Some((head, tail)) => ([head, &[]], [tail, second]),
        None => {
            let (head, tail) = second.split_at(second.len().min(len - first.len()));
            ([first, head], [&[], tail])
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn split_goes_on_where_the_ring_wraps() {
        let bytes: Vec<u8> = (0..20).collect();
        for wrap in 0..=20 {
            let (first, second) = bytes.split_at(wrap);
            let mut rest = [first, second];
            let mut pieces = Vec::new();
            while rest.iter().any(|slice| !slice.is_empty()) {
                let (piece, behind) = split(rest, 7);
                pieces.push(piece.concat());
                rest = behind;
            }
            let expected: Vec<_> = bytes.chunks(7).map(<[u8]>::to_vec).collect();
            assert_eq!(pieces, expected, "wrapped at {wrap}");
        }
    }
}
