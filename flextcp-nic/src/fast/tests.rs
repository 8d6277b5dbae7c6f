//! Any segment against any state.

mod rules;

use std::sync::Arc;

use proptest::prelude::*;

use super::rx::{RecvSizes, Tuning, receive};
use super::{Local, ack, tx};
use crate::buffer::{Pool, RecvReader, SendWriter, recv_ring, send_ring};
use crate::flow::{FlowState, FlowTuple, flags};
use crate::nic::FlowBuffers;
use crate::port::{RxChecksum, RxFrame};
use crate::seq::{Mss, SeqNum, WindowScale};
use crate::time::Instant;
use crate::wire::{MacAddr, TcpFlags, TcpHeader, TcpOptions, TcpPacket, Timestamps};

const SIZES: RecvSizes = RecvSizes {
    first: 8192,
    max: 1 << 16,
};

#[derive(Clone, Debug)]
struct Case {
    state: FlowState,
    written: usize,
    /// Bytes that lie unread in the ring; detached if there are none and `detached`.
    unread: u32,
    detached: bool,
    packet: TcpPacket,
}

fn state() -> impl Strategy<Value = (FlowState, usize)> {
    let words = (
        any::<[u32; 3]>(),
        0..10_000_u32,
        0..10_000_u32,
        0..20_000_u32,
        0..70_000_u32,
    );
    let limits = (
        0..200_000_u32,
        0..200_000_u32,
        prop_oneof![Just(0), any::<u32>()],
    );
    let shape = (48_u16..9000, 0_u8..15, 0_u8..15, 0_u32..=flags::ALL);
    (words, limits, shape).prop_map(|(words, limits, shape)| {
        let ([una, nxt, ts], in_flight, unsent, window, free) = words;
        let mut state = FlowState {
            ts_recent: ts,
            rcv_free: free.max(window),
            cwnd: limits.0,
            snd_wnd: limits.1,
            pacing_rate: limits.2,
            flags: shape.3 & !flags::IPV6,
            ..FlowState::default()
        };
        state.set_mss_scales(
            Mss::new(shape.0),
            WindowScale::new(shape.1),
            WindowScale::new(shape.2),
        );
        state.set_snd_una(SeqNum(una));
        state.set_snd_nxt(SeqNum(una) + in_flight);
        state.set_snd_end(SeqNum(una) + in_flight + unsent);
        state.set_rcv_nxt(SeqNum(nxt));
        state.set_last_ack_sent(SeqNum(nxt) - in_flight);
        state.set_rcv_adv(SeqNum(nxt) + window);
        (state, (in_flight + unsent) as usize)
    })
}

fn case() -> impl Strategy<Value = Case> {
    let near =
        || prop_oneof![4 => Just(0_i32), 2 => -3..3, 1 => -30_000..30_000, 1 => any::<i32>()];
    let control = prop_oneof![8 => Just(0x10_u8), 4 => Just(0x18), 1 => any::<u8>()];
    let len = prop_oneof![Just(0_usize), Just(1), 2..3000_usize, 3000..40_000_usize];
    let stamps = prop_oneof![Just(None), near().prop_map(Some)];
    let segment = (
        near(),
        near(),
        len,
        control,
        any::<u16>(),
        stamps,
        any::<u8>(),
        0..40_u8,
    );
    let ring = (prop_oneof![Just(0_u32), 0..5000_u32], any::<bool>());
    (state(), segment, ring).prop_map(|((state, written), segment, (unread, detached))| {
        let (seq, ack, payload_len, control, window, stamps, tos, odd) = segment;
        let timestamps = stamps.map(|near| Timestamps {
            val: state.ts_recent.wrapping_add(near as u32),
            ecr: 0,
        });
        let mut options = TcpOptions {
            timestamps,
            ..TcpOptions::default()
        };
        match odd {
            0 => options.mss = Some(window),
            1 => options.other = true,
            2 => drop(options.sack.push(SeqNum(1), SeqNum(2))),
            _ => {}
        }
        let tuple = FlowTuple::new("10.0.0.1:1".parse().unwrap(), "10.0.0.2:2".parse().unwrap());
        let packet = TcpPacket {
            src_mac: MacAddr::ZERO,
            dst_mac: MacAddr::ZERO,
            tuple,
            tos,
            ttl: 64,
            ip_options: odd == 3,
            tcp: TcpHeader {
                src_port: 2,
                dst_port: 1,
                seq: state.rcv_nxt() + seq as u32,
                ack: if ack % 2 == 0 {
                    state.snd_una()
                } else {
                    state.snd_nxt()
                } + ack as u32,
                flags: TcpFlags::from_bits(control),
                window,
                urgent: 0,
                options,
            },
            payload_offset: 0,
            payload_len,
        };
        Case {
            state,
            written,
            unread,
            detached,
            packet,
        }
    })
}

fn rings(pool: &Arc<Pool>, case: &Case) -> (FlowBuffers, RecvReader, SendWriter) {
    let (mut recv, reader) = recv_ring(pool);
    let (writer, mut send) = send_ring(pool, 1 << 20);
    writer.write(&vec![7; case.written]);
    send.take_written();
    if case.unread > 0 || !case.detached {
        recv.resize(case.unread + case.state.rcv_free, 0).unwrap();
        recv.place(0, &vec![1; case.unread as usize]);
        recv.publish(case.unread);
    }
    (FlowBuffers { recv, send }, reader, writer)
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 4000, ..ProptestConfig::default() })]

    /// A segment is handled whole or changes nothing; RCV.NXT moves by what is readable; SND.UNA stays within
    /// what was sent; and what is sent after it stays within all limits.
    #[test]
    fn any_segment_against_any_state(case in case()) {
        let pool = Pool::new(1 << 30);
        let (mut buffers, reader, writer) = rings(&pool, &case);
        let mut state = case.state;
        let now = Instant::from_millis(7);
        let mut local = Local::new(&mut state, now);
        let payload: Vec<u8> = (0..case.packet.payload_len).map(|i| (i % 251) as u8).collect();
        // A multi-buffer frame.
        let (head, tail) = payload.split_at(payload.len() / 3);
        let tail = [tail];
        let frame = RxFrame { head, tail: &tail, checksum: RxChecksum::Trusted };
        let before = state;

        match receive(&mut state, &mut local, &mut buffers, &case.packet, &frame, now, SIZES) {
            Err(_) => {
                prop_assert_eq!(state, before);
                prop_assert_eq!((reader.len(), writer.len()), (case.unread as usize, case.written));
            }
            Ok(received) => {
                prop_assert_eq!(state.rcv_nxt(), before.rcv_nxt() + received.payload);
                prop_assert!(state.rcv_nxt().at_or_before(before.rcv_adv()));
                prop_assert_eq!(state.rcv_adv(), before.rcv_adv());
                prop_assert_eq!(state.snd_una(), before.snd_una() + received.acked);
                prop_assert!(state.snd_una().at_or_before(before.snd_nxt()));
                prop_assert_eq!((state.snd_nxt(), state.snd_end()), (before.snd_nxt(), before.snd_end()));
                prop_assert_eq!(writer.len(), case.written - received.acked as usize);
                let mut read = vec![0; 100_000];
                let n = reader.read(&mut read);
                prop_assert_eq!(n, (case.unread + received.payload) as usize);
                prop_assert_eq!(&read[case.unread as usize..n], &payload[..received.payload as usize]);
            }
        }

        let window_edge = (state.snd_una() + state.snd_wnd).latest(state.snd_nxt());
        for super_frame in [0, 10_000, 60_000] {
            while let Ok(segment) = tx::next(&state, super_frame) {
                prop_assert!(segment.len > 0);
                prop_assert_eq!(segment.offset, state.in_flight());
                let slices = buffers.send.slices(segment.offset, segment.len);
                prop_assert_eq!(slices[0].len() + slices[1].len(), segment.len as usize);
                let alone = state.in_flight() == 0 && segment.len <= segment.mss;
                prop_assert!(alone || state.in_flight() + segment.len <= state.cwnd);
                prop_assert!(segment.len <= segment.mss.max(super_frame));
                let header = tx::data_header(&mut state, &segment, MacAddr::ZERO, now, 65536);
                prop_assert_eq!(header.seq, state.snd_nxt());
                tx::sent(&mut state, &mut local, &segment, now);
                prop_assert!(state.snd_nxt().at_or_before(window_edge));
                prop_assert!(state.snd_nxt().at_or_before(state.snd_end()));
                prop_assert_eq!(state.last_ack_sent(), state.rcv_nxt());
            }
        }
        let edge = state.rcv_adv();
        ack::advertise(&mut state, 65536);
        prop_assert!(state.rcv_adv().at_or_after(edge));
    }
}

#[test]
fn a_small_segment_of_two_gigabytes_ago_holds_none_back() {
    let mut state = FlowState {
        snd_una: 5,
        snd_nxt: 5,
        snd_end: 15,
        snd_wnd: 65_535,
        cwnd: 65_535,
        ..FlowState::default()
    };
    state.set_mss_scales(Mss::new(1448), WindowScale::new(0), WindowScale::new(0));
    state.max_snd_wnd = state.snd_wnd;
    state.set_snd_sml(SeqNum(5) - ((1 << 31) + 1));
    assert_eq!(tx::next(&state, 0).map(|segment| segment.len), Ok(10));
    (state.snd_nxt, state.snd_sml) = (8, 8);
    assert_eq!(tx::next(&state, 0), Err(tx::Wait::Nagle));
}

/// A window below a segment lets one go all the same, as there is nothing whose acknowledgment would open it.
#[test]
fn a_segment_goes_into_an_empty_path_whatever_the_window() {
    let mut state = FlowState {
        cwnd: 100,
        snd_wnd: 10_000,
        ..FlowState::default()
    };
    state.set_mss_scales(Mss::new(1000), WindowScale::ZERO, WindowScale::ZERO);
    state.max_snd_wnd = 10_000;
    state.set_snd_end(SeqNum(5000));
    assert_eq!(tx::next(&state, 0).map(|segment| segment.len), Ok(1000));
    state.set_snd_nxt(SeqNum(1000));
    assert_eq!(tx::next(&state, 0), Err(tx::Wait::Cwnd));
}

#[test]
fn a_ring_that_takes_longer_to_pass_the_larger_it_is_stops_growing() {
    let mut tuning = Tuning::new(Instant::ZERO);
    assert!(!tuning.passed(999, 1000, Instant::from_millis(9)));
    assert!(tuning.passed(1, 1000, Instant::from_millis(10)));
    // Twice the ring in the same time: the window was the limit. In twice the time it was not.
    assert!(tuning.passed(2000, 2000, Instant::from_millis(22)));
    assert!(!tuning.passed(4000, 4000, Instant::from_millis(42)));
}
