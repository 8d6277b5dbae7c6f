//! A NIC under test, a scripted peer at the far end of its wire, and one installed flow between them.

use core::time::Duration;
use std::net::{IpAddr, Ipv4Addr};
use std::sync::Arc;

use super::Bench;
use super::notation::Segment;
use crate::buffer::{Pool, RecvReader, SendWriter, recv_ring, send_ring};
use crate::flow::{FlowId, FlowState, FlowTuple, Token};
use crate::nic::{
    Claim, Exception, FlowBuffers, InstallErrorKind, Nic, Notification, Reason, Returned, Sink,
};
use crate::port::{RxFrame, TxFrame, TxOffload};
use crate::seq::{Mss, SeqNum, WindowScale};
use crate::time::Instant;
use crate::wire::{MAX_HEADER_LEN, MacAddr, Packet, SegmentRepr, parse};

/// First sequence numbers, both close to the wrap.
pub(super) const OWN: SeqNum = SeqNum(u32::MAX - 700);
pub(super) const PEER: SeqNum = SeqNum(u32::MAX - 90);
pub(super) const MSS: u32 = 1000;
pub(super) const TOKEN: Token = Token(0xfeed);
/// Receive window at first: the field 512 with the scale 7.
pub(super) const WINDOW: u32 = 65536;

/// What a NIC delivered.
#[derive(Debug)]
pub(super) enum Event {
    Notification(Notification),
    Exception(Reason, Option<Returned>),
    Returned(Returned),
}

#[derive(Default)]
struct Events(Vec<Event>);

impl Sink for Events {
    fn notification(&mut self, notification: Notification) {
        self.0.push(Event::Notification(notification));
    }

    fn exception(&mut self, exception: Exception<'_>) {
        let returned = exception.returned.map(|returned| *returned);
        self.0.push(Event::Exception(exception.reason, returned));
    }

    fn returned(&mut self, returned: Returned) {
        self.0.push(Event::Returned(returned));
    }
}

/// The app halves of a flow's buffers.
pub(super) struct App {
    pub(super) recv: RecvReader,
    pub(super) send: SendWriter,
}

pub(super) struct Rig {
    pub(super) bench: Bench,
    pub(super) now: Instant,
    pub(super) pool: Arc<Pool>,
    pub(super) id: FlowId,
    pub(super) app: App,
}

pub(super) fn tuple(remote_port: u16) -> FlowTuple {
    let address = |n| IpAddr::V4(Ipv4Addr::new(10, 0, 0, n));
    FlowTuple {
        local: (address(1), 80),
        remote: (address(2), remote_port),
    }
}

/// Byte `position` of every stream.
pub(super) fn byte(position: u32) -> u8 {
    (position % 251) as u8
}

pub(super) fn bytes(from: u32, len: u32) -> Vec<u8> {
    (0..len).map(|i| byte(from.wrapping_add(i))).collect()
}

/// An established connection with nothing sent yet.
pub(super) fn state(remote_port: u16) -> FlowState {
    let mut state = FlowState {
        cwnd: 1 << 20,
        snd_wnd: 1 << 16,
        rcv_free: WINDOW,
        ..FlowState::default()
    };
    state.set_tuple(&tuple(remote_port));
    state.set_remote_mac(MacAddr([2, 0, 0, 0, 0, 2]));
    state.set_ttl_tos(64, 0);
    state.set_mss_scales(
        Mss::new(MSS as u16),
        WindowScale::new(7),
        WindowScale::new(7),
    );
    state.set_rcv_nxt(PEER);
    state.set_rcv_adv(PEER + WINDOW);
    state.set_last_ack_sent(PEER);
    state.set_snd_una(OWN);
    state.set_snd_nxt(OWN);
    state.set_snd_end(OWN);
    state
}

impl Rig {
    /// Installs a flow with port 1000 at the peer, its state as `adjust` leaves it.
    pub(super) fn new(bench: Bench, adjust: impl FnOnce(&mut FlowState)) -> Self {
        let pool = Arc::clone(&bench.pool);
        let mut state = state(1000);
        adjust(&mut state);
        let (buffers, app) = rings(&pool);
        let mut bench = bench;
        let now = Instant::from_millis(1000);
        let id = bench
            .nic
            .install(now, TOKEN, state, buffers)
            .expect("the table is empty");
        Self {
            bench,
            now,
            pool,
            id,
            app,
        }
    }

    pub(super) fn nic(&mut self) -> &mut dyn Nic {
        &mut *self.bench.nic
    }

    pub(super) fn install(&mut self, state: FlowState) -> Result<(FlowId, App), InstallErrorKind> {
        let (buffers, app) = rings(&self.pool);
        let now = self.now;
        self.nic()
            .install(now, TOKEN, state, buffers)
            .map(|id| (id, app))
            .map_err(|error| error.kind)
    }

    pub(super) fn wait(&mut self, time: Duration) {
        self.now += time;
    }

    /// The peer sends a segment.
    pub(super) fn peer(&mut self, text: &str) {
        self.peer_on(1000, text, false);
    }

    /// The peer sends a segment from `port`, with a wrong checksum if `corrupt`.
    pub(super) fn peer_on(&mut self, port: u16, text: &str, corrupt: bool) {
        let segment = Segment::parse(text);
        let mut options = segment.options;
        options.sack = Default::default();
        for (from, to) in segment.options.sack.iter() {
            options.sack.push(OWN + from.0, OWN + to.0);
        }
        let repr = SegmentRepr {
            src_mac: MacAddr([2, 0, 0, 0, 0, 2]),
            dst_mac: self.bench.nic.capabilities().port.mac,
            tuple: tuple(port).reversed(),
            tos: segment.ecn,
            ttl: 64,
            seq: PEER + segment.start,
            ack: OWN + segment.ack,
            flags: segment.flags,
            window: segment.window,
            urgent: 0,
            options,
        };
        let mut payload = bytes(segment.start, segment.len);
        let mut header = [0; MAX_HEADER_LEN];
        let len = repr.emit([&payload, &[]], false, &mut header);
        if corrupt {
            payload[0] ^= 0x10;
        }
        let frame = TxFrame {
            header: &header[..len],
            payload: [&payload, &[]],
            offload: TxOffload::default(),
        };
        self.bench
            .wire
            .transmit(self.now, frame)
            .expect("the wire has room");
        self.bench.wire.flush(self.now).expect("the wire is up");
    }

    /// Polls until nothing comes any more.
    pub(super) fn poll(&mut self) -> Vec<Event> {
        let mut events = Events::default();
        let mut quiet = 0;
        for _ in 0..1000 {
            let before = events.0.len();
            let frames = self
                .bench
                .nic
                .poll(self.now, 64, &mut events)
                .expect("the device is there");
            quiet = if frames == 0 && events.0.len() == before {
                quiet + 1
            } else {
                0
            };
            if quiet > 2 {
                break;
            }
        }
        events.0
    }

    /// Polls and expects exactly one notification.
    pub(super) fn notified(&mut self) -> Notification {
        match self.poll().as_slice() {
            [Event::Notification(notification)] => *notification,
            other => panic!("one notification, not {other:?}"),
        }
    }

    /// Flushes; what the NIC sent, in the notation.
    pub(super) fn sent(&mut self) -> Vec<String> {
        self.bench.nic.flush(self.now).expect("the device is there");
        let mut segments = Vec::new();
        let mut collect = |frame: RxFrame<'_>| {
            let Ok(Packet::Tcp(packet)) = parse(&frame) else {
                segments.push("not TCP".to_owned());
                return;
            };
            let segment = Segment {
                flags: packet.tcp.flags,
                start: packet.tcp.seq.offset_from(OWN) as u32,
                len: packet.payload_len as u32,
                ack: packet.tcp.ack.offset_from(PEER) as u32,
                window: packet.tcp.window,
                ecn: packet.tos & 3,
                options: packet.tcp.options,
            };
            let payload: Vec<u8> = packet.payload(&frame).flatten().copied().collect();
            assert_eq!(
                payload,
                bytes(segment.start, segment.len),
                "payload of {segment}"
            );
            assert_eq!(packet.tuple, tuple(packet.tuple.local.1).reversed());
            segments.push(segment.to_string());
        };
        for _ in 0..100 {
            self.bench
                .wire
                .receive(self.now, 64, &mut collect)
                .expect("the wire is up");
        }
        segments
    }

    /// The application writes `len` bytes at stream position `from`.
    pub(super) fn write(&mut self, from: u32, len: u32) {
        assert_eq!(self.app.send.write(&bytes(from, len)), len as usize);
        self.doorbell();
    }

    /// The application reads `len` bytes, which must be those at stream position `from`.
    pub(super) fn read(&mut self, from: u32, len: u32) {
        let mut out = vec![0; len as usize];
        assert_eq!(self.app.recv.read(&mut out), len as usize);
        assert_eq!(out, bytes(from, len));
        self.doorbell();
    }

    pub(super) fn doorbell(&mut self) {
        let (now, id) = (self.now, self.id);
        self.nic().doorbell(now, id).expect("the flow is installed");
    }

    /// Claims the flow, at once or when the NIC comes to it.
    pub(super) fn claim(&mut self) -> Returned {
        match self
            .bench
            .nic
            .claim(self.now, self.id)
            .expect("the flow is installed")
        {
            Claim::Done(returned) => returned,
            Claim::Pending => self
                .poll()
                .into_iter()
                .find_map(|event| match event {
                    Event::Returned(returned) | Event::Exception(_, Some(returned)) => {
                        Some(returned)
                    }
                    _ => None,
                })
                .expect("a pending claim is fulfilled"),
        }
    }
}

fn rings(pool: &Arc<Pool>) -> (FlowBuffers, App) {
    let (writer, recv) = recv_ring(pool);
    let (send, reader) = send_ring(pool, 1 << 20);
    (
        FlowBuffers {
            recv: writer,
            send: reader,
        },
        App { recv, send },
    )
}
