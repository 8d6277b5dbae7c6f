//! Rules that no limit of the properties holds, one by one.

use super::*;
use crate::fast::rx::freed;

const MSS: u32 = 1000;

/// An established connection with nothing sent or received yet, `unsent` bytes written.
fn established(unsent: u32) -> FlowState {
    let mut state = FlowState {
        cwnd: 1 << 20,
        snd_wnd: 1 << 20,
        max_snd_wnd: 1 << 20,
        rcv_free: 65_535,
        ..FlowState::default()
    };
    state.set_mss_scales(Mss::new(MSS as u16), WindowScale::ZERO, WindowScale::ZERO);
    state.set_rcv_adv(SeqNum(65_535));
    state.set_snd_end(SeqNum(unsent));
    state
}

/// Nagle's algorithm holds the end of a super-frame as it would hold the small segment (RFC 9293, section 3.7.4).
#[test]
fn a_small_end_does_not_ride_on_a_super_frame_past_another_small_segment() {
    let mut state = established(2_510);
    state.set_snd_nxt(SeqNum(10));
    state.set_snd_sml(SeqNum(10));
    let len = |state: &FlowState| tx::next(state, 60_000).map(|segment| segment.len);
    assert_eq!(len(&state), Ok(2_000));
    state.set_snd_una(SeqNum(10));
    assert_eq!(len(&state), Ok(2_500));
}

/// Linux's `tcp_tso_autosize`: a super-frame is what a millisecond at the flow's rate holds, two segments at least.
#[test]
fn a_paced_flow_sends_super_frames_of_a_millisecond() {
    let mut state = established(100_000);
    for (rate, len) in [(0, 60_000), (10_000, 10_000), (1, 2_000)] {
        state.pacing_rate = rate;
        assert_eq!(tx::next(&state, 60_000).map(|segment| segment.len), Ok(len));
    }
}

/// Linux's `tcp_measure_rcv_mss` goes by `gso_size`: taken for one segment, a super-frame would put off every later ACK.
#[test]
fn a_super_frame_does_not_raise_the_peers_segment_size() {
    let pool = Pool::new(1 << 20);
    let (mut recv, _reader) = recv_ring(&pool);
    let (_writer, send) = send_ring(&pool, 1 << 20);
    recv.resize(65_536, 0).unwrap();
    let mut buffers = FlowBuffers { recv, send };
    let mut state = established(0);
    let mut local = Local::new(&mut state, Instant::ZERO);
    let payload = [0; 5_000];
    let packet = TcpPacket {
        src_mac: MacAddr::ZERO,
        dst_mac: MacAddr::ZERO,
        tuple: FlowTuple::new("10.0.0.1:1".parse().unwrap(), "10.0.0.2:2".parse().unwrap()),
        tos: 0,
        ttl: 64,
        ip_options: false,
        tcp: TcpHeader {
            src_port: 2,
            dst_port: 1,
            seq: SeqNum(0),
            ack: SeqNum(0),
            flags: TcpFlags::ACK,
            window: 500,
            urgent: 0,
            options: TcpOptions::default(),
        },
        payload_offset: 0,
        payload_len: payload.len(),
    };
    let frame = RxFrame::contiguous(&payload, RxChecksum::Trusted);
    let now = Instant::ZERO;
    receive(
        &mut state,
        &mut local,
        &mut buffers,
        &packet,
        &frame,
        now,
        SIZES,
    )
    .unwrap();
    assert_eq!((local.rcv_mss, state.segments_received), (MSS, 5));
}

/// Lets the application read a full ring of `capacity` bytes at once; returns the ring's size after it.
fn read_a_ring(pool: &Arc<Pool>, scale: u8, capacity: u32, max: u32) -> u32 {
    let (mut recv, reader) = recv_ring(pool);
    recv.resize(capacity, 0).unwrap();
    let mut state = established(0);
    state.set_mss_scales(
        Mss::new(MSS as u16),
        WindowScale::new(scale),
        WindowScale::ZERO,
    );
    let mut local = Local::new(&mut state, Instant::ZERO);
    recv.place(0, &vec![0; capacity as usize]);
    recv.publish(capacity);
    let read = reader.read(&mut vec![0; capacity as usize]);
    assert_eq!(read, capacity as usize);
    let sizes = RecvSizes { first: 8_192, max };
    assert!(freed(
        &mut state,
        &mut local,
        &mut recv,
        Instant::ZERO,
        sizes
    ));
    recv.capacity()
}

/// Without a scale a window has 16 bits (RFC 7323, section 2.2): more of a ring would stay empty.
#[test]
fn a_ring_grows_as_far_as_its_window_can_be_offered() {
    let pool = Pool::new(1 << 30);
    assert_eq!(read_a_ring(&pool, 0, 32_768, 1 << 20), 65_536);
    assert_eq!(read_a_ring(&pool, 0, 65_536, 1 << 20), 65_536);
    assert_eq!(read_a_ring(&pool, 1, 65_536, 1 << 20), 131_072);
    assert_eq!(read_a_ring(&pool, 7, 65_536, 65_536), 65_536, "the limit");
}

/// As in Linux (`tcp_grow_window`, `tcp_clamp_window`), where only a host that is not short of memory raises its windows.
#[test]
fn no_ring_grows_under_memory_pressure() {
    let pool = Pool::new(1 << 20);
    assert_eq!(read_a_ring(&pool, 7, 32_768, 1 << 20), 65_536);
    let _others = [1 << 19, 1 << 18, 1 << 14].map(|bytes| pool.take(bytes).unwrap());
    assert!(pool.under_pressure());
    assert_eq!(read_a_ring(&pool, 7, 32_768, 1 << 20), 32_768);
}
