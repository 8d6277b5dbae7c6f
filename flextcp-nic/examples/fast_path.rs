//! What one fast-path operation of the software NIC costs: nanoseconds per segment over a port that does nothing.
//!
//! `cargo run --release -p flextcp-nic --example fast_path`

use std::hint::black_box;
use std::io;
use std::net::{IpAddr, Ipv4Addr};
use std::os::fd::BorrowedFd;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time;

use flextcp_nic::buffer::{Pool, RecvReader, SendWriter, recv_ring, send_ring};
use flextcp_nic::flow::{FlowId, FlowState, FlowTuple, Token, flags};
use flextcp_nic::nic::{Exception, FlowBuffers, Nic, Notification, Returned, Sink};
use flextcp_nic::port::{
    Port, PortCounters, PortFull, PortInfo, RxChecksum, RxFrame, TxFrame, TxOffload,
};
use flextcp_nic::seq::{Mss, SeqNum, WindowScale};
use flextcp_nic::soft::{SoftConfig, SoftNic};
use flextcp_nic::steer::SteerAll;
use flextcp_nic::time::Instant;
use flextcp_nic::wire::{MAX_HEADER_LEN, MacAddr, SegmentRepr, TcpFlags, TcpOptions};

/// Shared with the port: how much the peer sends, and what it acknowledges.
#[derive(Debug, Default)]
struct Script {
    /// Bytes of payload per segment.
    payload: AtomicU32,
    /// Segments to deliver.
    frames: AtomicU32,
    /// SND.NXT of the NIC as seen in its segments.
    sent_end: AtomicU32,
}

/// A port whose peer sends in-order segments without end and acknowledges all it gets.
#[derive(Debug)]
struct Peer {
    info: PortInfo,
    script: Arc<Script>,
    template: SegmentRepr,
    next: SeqNum,
    buffer: Vec<u8>,
    sink: Vec<u8>,
    counters: PortCounters,
}

impl Port for Peer {
    fn info(&self) -> &PortInfo {
        &self.info
    }

    fn receive(
        &mut self,
        _: Instant,
        budget: usize,
        sink: &mut dyn FnMut(RxFrame<'_>),
    ) -> io::Result<usize> {
        let frames = (self.script.frames.load(Ordering::Relaxed) as usize).min(budget);
        self.script
            .frames
            .fetch_sub(frames as u32, Ordering::Relaxed);
        let len = self.script.payload.load(Ordering::Relaxed) as usize;
        let mut header = [0; MAX_HEADER_LEN];
        for _ in 0..frames {
            self.template.seq = self.next;
            self.template.ack = SeqNum(self.script.sent_end.load(Ordering::Relaxed));
            let payload = &[0x55; 1448][..len];
            let header_len = self.template.emit([payload, &[]], true, &mut header);
            self.buffer.clear();
            self.buffer.extend_from_slice(&header[..header_len]);
            self.buffer.extend_from_slice(payload);
            self.next += len as u32;
            sink(RxFrame::contiguous(&self.buffer, RxChecksum::Trusted));
        }
        Ok(frames)
    }

    fn transmit(&mut self, _: Instant, frame: TxFrame<'_>) -> Result<(), PortFull> {
        self.sink.clear();
        self.sink.extend_from_slice(frame.header);
        self.sink.extend_from_slice(frame.payload[0]);
        self.sink.extend_from_slice(frame.payload[1]);
        let seq = frame.header[38..42]
            .try_into()
            .map_or(0, u32::from_be_bytes);
        let len = (frame.payload[0].len() + frame.payload[1].len()) as u32;
        self.script
            .sent_end
            .store(SeqNum(seq).0.wrapping_add(len), Ordering::Relaxed);
        self.counters.tx_frames += 1;
        Ok(())
    }

    fn flush(&mut self, _: Instant) -> io::Result<()> {
        black_box(&self.sink);
        Ok(())
    }

    fn arm(&mut self) -> io::Result<bool> {
        Ok(true)
    }

    fn wake_fd(&self) -> Option<BorrowedFd<'_>> {
        None
    }

    fn counters(&self) -> PortCounters {
        self.counters
    }
}

#[derive(Debug, Default)]
struct Count {
    exceptions: usize,
}

impl Sink for Count {
    fn notification(&mut self, notification: Notification) {
        black_box(notification);
    }

    fn exception(&mut self, exception: Exception<'_>) {
        self.exceptions += 1;
        eprintln!("unexpected exception: {:?}", exception.reason);
    }

    fn returned(&mut self, _: Returned) {
        self.exceptions += 1;
    }
}

struct Bench {
    nic: SoftNic,
    id: FlowId,
    recv: RecvReader,
    send: SendWriter,
    script: Arc<Script>,
    now: Instant,
    sink: Count,
}

impl Bench {
    fn new(checksum: bool) -> Self {
        let address = |n| IpAddr::V4(Ipv4Addr::new(10, 0, 0, n));
        let tuple = FlowTuple {
            local: (address(1), 1),
            remote: (address(2), 2),
        };
        let script = Arc::new(Script::default());
        let port = Peer {
            info: PortInfo {
                name: "nothing".into(),
                ifindex: 0,
                mac: MacAddr::ZERO,
                mtu: 1500,
                tx_checksum: !checksum,
                tx_segment_max: None,
            },
            script: Arc::clone(&script),
            template: SegmentRepr {
                src_mac: MacAddr::ZERO,
                dst_mac: MacAddr::ZERO,
                tuple: tuple.reversed(),
                tos: 0,
                ttl: 64,
                seq: SeqNum(0),
                ack: SeqNum(0),
                flags: TcpFlags::ACK | TcpFlags::PSH,
                window: 2048,
                urgent: 0,
                options: TcpOptions::with_timestamps(1, 1),
            },
            next: SeqNum(0),
            buffer: Vec::new(),
            sink: Vec::new(),
            counters: PortCounters::default(),
        };
        let mut state = FlowState {
            cwnd: 1 << 20,
            snd_wnd: 1 << 18,
            rcv_free: 1 << 18,
            flags: flags::TIMESTAMPS | flags::NO_DELAY,
            ..FlowState::default()
        };
        state.set_tuple(&tuple);
        state.set_rcv_adv(SeqNum(1 << 18));
        state.set_mss_scales(Mss::new(1448), WindowScale::new(7), WindowScale::new(7));
        let pool = Pool::new(64 << 20);
        let (writer, recv) = recv_ring(&pool);
        let (send, reader) = send_ring(&pool, 1 << 18);
        let mut nic = SoftNic::new(
            Box::new(port),
            Box::new(SteerAll::new()),
            SoftConfig::new([1; 16]),
        );
        let buffers = FlowBuffers {
            recv: writer,
            send: reader,
        };
        let now = Instant::from_millis(1);
        let installed = nic.install(now, Token(1), state, buffers);
        let id = installed
            .map_err(|error| error.kind)
            .expect("the table is empty");
        Self {
            nic,
            id,
            recv,
            send,
            script,
            now,
            sink: Count::default(),
        }
    }

    /// The peer sends `frames` segments of `payload` bytes; the NIC takes them in.
    fn arrive(&mut self, frames: u32, payload: u32) {
        self.script.payload.store(payload, Ordering::Relaxed);
        self.script.frames.store(frames, Ordering::Relaxed);
        self.nic
            .poll(self.now, frames as usize, &mut self.sink)
            .expect("the port does not fail");
    }

    fn consume(&mut self) {
        let len = self.recv.len();
        self.recv.consume(len);
        self.nic.doorbell(self.now, self.id).expect("installed");
    }

    fn write(&mut self, bytes: &[u8]) {
        self.send.write(bytes);
        self.nic.doorbell(self.now, self.id).expect("installed");
    }

    fn flush(&mut self) {
        self.now = Instant::from_nanos(self.now.as_nanos() + 1000);
        self.nic.flush(self.now).expect("the port does not fail");
    }
}

/// Median of 9 runs of `rounds` rounds, in nanoseconds for one of `per_round` operations.
fn measure(name: &str, per_round: u32, checksum: bool, mut round: impl FnMut(&mut Bench)) {
    const ROUNDS: u32 = 20_000;
    let mut bench = Bench::new(checksum);
    let mut samples: Vec<f64> = (0..9)
        .map(|_| {
            let start = time::Instant::now();
            (0..ROUNDS).for_each(|_| round(&mut bench));
            start.elapsed().as_nanos() as f64 / f64::from(ROUNDS * per_round)
        })
        .collect();
    samples.sort_by(f64::total_cmp);
    assert_eq!(bench.sink.exceptions, 0, "{name}");
    println!(
        "{name:44} {:8.1} ns  ({:.1} .. {:.1})",
        samples[4], samples[0], samples[8]
    );
}

fn main() {
    println!("the port's own work is in every number: building a frame, or copying one\n");
    measure("receive, 64 B, batches of 32", 32, false, |bench| {
        bench.arrive(32, 64);
        bench.consume();
        bench.flush();
    });
    measure("receive, 1448 B, batches of 32", 32, false, |bench| {
        bench.arrive(32, 1448);
        bench.consume();
        bench.flush();
    });
    for (name, checksum) in [("offloaded", false), ("in software", true)] {
        let data = [7; 1448 * 32];
        measure(
            &format!("send, 1448 B, 32 per ACK, checksum {name}"),
            32,
            checksum,
            |bench| {
                bench.write(&data);
                bench.flush();
                bench.arrive(1, 0);
            },
        );
        measure(
            &format!("request and reply, 64 B, checksum {name}"),
            1,
            checksum,
            |bench| {
                bench.arrive(1, 64);
                let mut request = [0; 64];
                bench.recv.read(&mut request);
                bench.write(&request);
                bench.flush();
            },
        );
    }
    let offload = TxOffload::default();
    measure("raw frame, 64 B", 1, false, |bench| {
        let frame = TxFrame {
            header: &[0; 64],
            payload: [&[], &[]],
            offload,
        };
        bench
            .nic
            .transmit(bench.now, frame)
            .expect("the port has room");
    });
}
