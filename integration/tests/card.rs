//! The emulated card as a process of its own (`flextcp-card`): the NIC contract across the boundary, and what happens when a
//! process on either side of it is killed.

use std::path::Path;
use std::process::Command;
use std::sync::Arc;
use std::time::{Duration, Instant};

use flextcp_nic::buffer::{DmaRegion, Pool, RecvReader, SendWriter, recv_ring, send_ring};
use flextcp_nic::flow::{FlowId, FlowState, FlowTuple, Token};
use flextcp_nic::nfp::process::{CardProcess, Clock};
use flextcp_nic::nfp::{NfpConfig, NfpNic};
use flextcp_nic::nic::conformance::{Bench, run};
use flextcp_nic::nic::{Armed, Exception, FlowBuffers, Nic, Notification, Returned, Sink};
use flextcp_nic::port::unix::{UnixPort, UnixWire};
use flextcp_nic::port::{Port, RxFrame, TxFrame, TxOffload};
use flextcp_nic::queue::abi::{counter, register};
use flextcp_nic::seq::{Mss, SeqNum, WindowScale};
use flextcp_nic::steer::SteerAll;
use flextcp_nic::time;
use flextcp_nic::wire::{
    MAX_HEADER_LEN, MacAddr, Packet, SegmentRepr, TcpFlags, TcpOptions, parse,
};
use integration::netns::require_privileges;
use integration::places::{Family, Place};
use integration::process::{Process, serial, wait_until};
use integration::programs::{Server, ServerOptions, client, require_tools, workspace_binary};
use integration::stats::Stats;
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::process::Signal;

const START: Duration = Duration::from_secs(60);
const LIMIT: Duration = Duration::from_secs(120);
const PEER_MAC: MacAddr = MacAddr([2, 0, 0, 0, 0, 2]);

/// A card process, and the far end of its wire.
struct Card {
    process: Process,
    folder: tempfile::TempDir,
}

impl Card {
    fn start(args: &[&str]) -> (Self, UnixPort) {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("wire");
        let wire = UnixWire::listen(&path).unwrap();
        let mut command = Command::new(env!("CARGO_BIN_EXE_flextcp-card"));
        command.arg("--wire").arg(&path);
        command.args(["--flows", "64"]).args(args);
        let card = Self::spawn(command, folder);
        let far = wire.accept(PEER_MAC, 1500).unwrap();
        (card, far)
    }

    fn spawn(mut command: Command, folder: tempfile::TempDir) -> Self {
        command.arg("--socket").arg(folder.path().join("card"));
        let mut process = Process::spawn(command).unwrap();
        let serving = |line: &str| line.contains("serving").then_some(());
        process.wait_line(START, "the card", serving).unwrap();
        Self { process, folder }
    }

    fn socket(&self) -> std::path::PathBuf {
        self.folder.path().join("card")
    }

    /// Waits until the card says that a host left, for the `count`th time.
    fn wait_for_release(&self, count: usize) {
        wait_until(START, "the card to notice", || {
            self.process.stdout().matches("the card is reset").count() >= count
        })
        .unwrap();
    }
}

fn nic(socket: &Path, clock: Clock, buffers: &Arc<DmaRegion>) -> std::io::Result<NfpNic> {
    let config = NfpConfig {
        frame_size: 2048,
        ..NfpConfig::new("nfp-emu", [1; 16])
    };
    let bus = CardProcess::connect(socket, clock)?;
    NfpNic::new(Box::new(bus), Box::new(SteerAll::new()), buffers, config)
}

fn conforms(args: &[&str]) {
    let mut seed = 0;
    let mut cards = Vec::new();
    run(|| {
        seed += 1;
        let text = seed.to_string();
        let (card, far) = Card::start(&[args, &["--seed", &text]].concat());
        let region = DmaRegion::shared("buffers", 64 << 20).unwrap();
        let nic = nic(&card.socket(), Clock::Host, &region).unwrap();
        cards.push(card);
        Bench {
            nic: Box::new(nic),
            wire: Box::new(far),
            pool: Pool::in_region(region, 16 << 20),
        }
    });
}

#[test]
fn the_nic_contract_holds_across_processes() {
    conforms(&[]);
}

#[test]
fn the_nic_contract_holds_across_processes_when_dma_is_late_and_out_of_order() {
    conforms(&["--hostile"]);
}

/// What a NIC told.
#[derive(Default)]
struct Told {
    received: u32,
    exceptions: usize,
    returned: usize,
}

impl Sink for Told {
    fn notification(&mut self, notification: Notification) {
        self.received += notification.received;
    }

    fn exception(&mut self, exception: Exception<'_>) {
        self.exceptions += 1;
        self.returned += usize::from(exception.returned.is_some());
    }

    fn returned(&mut self, _: Returned) {
        self.returned += 1;
    }
}

fn tuple() -> FlowTuple {
    FlowTuple::new(
        "10.0.0.1:80".parse().unwrap(),
        "10.0.0.2:4000".parse().unwrap(),
    )
}

const OWN: SeqNum = SeqNum(77);
const PEER: SeqNum = SeqNum(u32::MAX - 5000);

/// A host with one flow.
struct Side {
    nic: NfpNic,
    id: FlowId,
    region: Arc<DmaRegion>,
    recv: RecvReader,
    _send: SendWriter,
    told: Told,
    started: Instant,
}

impl Side {
    fn new(card: &Card) -> Self {
        let region = DmaRegion::shared("buffers", 16 << 20).unwrap();
        let pool = Pool::in_region(Arc::clone(&region), 8 << 20);
        let mut nic = nic(&card.socket(), Clock::Card, &region).unwrap();
        let mut state = FlowState {
            cwnd: 1 << 20,
            snd_wnd: 1 << 16,
            rcv_free: 1 << 16,
            ..FlowState::default()
        };
        state.set_tuple(&tuple());
        state.set_remote_mac(PEER_MAC);
        state.set_ttl_tos(64, 0);
        state.set_mss_scales(Mss::new(1000), WindowScale::new(7), WindowScale::new(7));
        state.set_rcv_nxt(PEER);
        state.set_rcv_adv(PEER + (1 << 16));
        state.set_last_ack_sent(PEER);
        state.set_snd_una(OWN);
        state.set_snd_nxt(OWN);
        state.set_snd_end(OWN);
        let (writer, recv) = recv_ring(&pool);
        let (send, reader) = send_ring(&pool, 1 << 20);
        let buffers = FlowBuffers {
            recv: writer,
            send: reader,
        };
        let id = nic
            .install(time::Instant::from_millis(1), Token(1), state, buffers)
            .expect("the table is empty");
        let mut side = Self {
            nic,
            id,
            region,
            recv,
            _send: send,
            told: Told::default(),
            started: Instant::now(),
        };
        let installed = register::COUNTERS + counter::INSTALLED * 2;
        side.turn_until("the card to have the flow", |side| {
            side.nic.bus().read(installed) == 1
        });
        side
    }

    /// One turn, in real time; an error when the card is gone.
    fn turn(&mut self) -> std::io::Result<()> {
        let nanos = u64::try_from(self.started.elapsed().as_nanos()).unwrap();
        let now = time::Instant::from_nanos(nanos + 1_000_000);
        self.nic.poll(now, 64, &mut self.told)?;
        self.nic.flush(now)
    }

    fn turn_until(&mut self, what: &str, done: impl Fn(&Self) -> bool) {
        wait_until(START, what, || {
            self.turn().expect("the card is there");
            done(self)
        })
        .unwrap();
    }
}

fn bytes_of(region: &DmaRegion) -> Vec<u8> {
    let mut bytes = vec![0; region.len()];
    let fd = region.fd().expect("it is shared");
    let mut at = 0;
    while at < bytes.len() {
        let n = rustix::io::pread(fd, &mut bytes[at..], at as u64).unwrap();
        assert!(n > 0);
        at += n;
    }
    bytes
}

/// The peer sends `len` bytes at `at` of its stream.
fn peer_sends(wire: &mut UnixPort, at: u32, len: usize) {
    let repr = SegmentRepr {
        src_mac: PEER_MAC,
        dst_mac: MacAddr([2, 0, 0, 0, 0, 1]),
        tuple: tuple().reversed(),
        tos: 0,
        ttl: 64,
        seq: PEER + at,
        ack: OWN,
        flags: TcpFlags::ACK | TcpFlags::PSH,
        window: 512,
        urgent: 0,
        options: TcpOptions::default(),
    };
    let payload = vec![0xa5; len];
    let mut header = [0; MAX_HEADER_LEN];
    let header_len = repr.emit([&payload, &[]], false, &mut header);
    let frame = TxFrame {
        header: &header[..header_len],
        payload: [&payload, &[]],
        offload: TxOffload::default(),
    };
    wire.transmit(time::Instant::ZERO, frame).unwrap();
}

/// The highest ACK that arrived at the peer.
fn acknowledged(wire: &mut UnixPort) -> Option<SeqNum> {
    let mut ack = None;
    let mut look = |frame: RxFrame<'_>| {
        if let Ok(Packet::Tcp(packet)) = parse(&frame) {
            ack = Some(packet.tcp.ack);
        }
    };
    wire.receive(time::Instant::ZERO, 1000, &mut look).unwrap();
    ack
}

#[test]
fn a_card_that_lost_its_host_touches_its_memory_no_more_and_takes_the_next_host() {
    let (card, mut wire) = Card::start(&["--hostile"]);
    let mut first = Side::new(&card);
    for at in 0..20 {
        peer_sends(&mut wire, at * 500, 500);
    }
    first.turn_until("half of it", |side| side.told.received >= 5000);
    let epoch = first.nic.bus().read(register::EPOCH);
    wait_until(START, "an ACK", || {
        first.turn().expect("the card is there");
        acknowledged(&mut wire).is_some()
    })
    .unwrap();

    // A second host is told that there is a first.
    let region = DmaRegion::shared("buffers", 1 << 20).unwrap();
    let error = nic(&card.socket(), Clock::Card, &region).unwrap_err();
    assert!(error.to_string().contains("another host"), "{error}");

    // As its death does: the socket closes, and the card alone has the memory.
    let Side {
        nic: gone,
        region: memory,
        recv,
        ..
    } = first;
    drop(gone);
    card.wait_for_release(1);
    let before = bytes_of(&memory);
    for at in 20..60 {
        peer_sends(&mut wire, at * 500, 500);
    }

    let mut second = Side::new(&card);
    assert_ne!(
        second.nic.bus().read(register::EPOCH),
        epoch,
        "it was reset"
    );
    // The frames of before are nobody's: what the next host sees comes after it.
    peer_sends(&mut wire, 0, 700);
    second.turn_until("the first bytes of its own", |side| {
        side.told.received >= 700
    });
    assert_eq!(second.told.received, 700);
    let mut out = vec![0; 4096];
    assert_eq!(second.recv.read(&mut out), 700);
    assert!(out[..700].iter().all(|byte| *byte == 0xa5));
    assert!(
        bytes_of(&memory) == before,
        "the memory of a dead host was written"
    );
    drop(recv);
}

#[test]
fn a_host_that_lost_its_card_gets_an_error_that_names_it() {
    let (mut card, mut wire) = Card::start(&[]);
    let mut side = Side::new(&card);
    peer_sends(&mut wire, 0, 500);
    side.turn_until("the first bytes", |side| side.told.received >= 500);
    card.process.signal(Signal::KILL).unwrap();
    wait_until(START, "the card to die", || !card.process.is_running()).unwrap();
    let mut error = None;
    wait_until(START, "an error", || {
        error = side.turn().err();
        error.is_some()
    })
    .unwrap();
    let text = error.expect("it was waited for").to_string();
    assert!(
        text.contains("is gone") && text.contains("flextcp-card"),
        "{text}"
    );
    assert!(side.nic.arm().is_err(), "nobody would wake it");
    let error = nic(&card.socket(), Clock::Card, &side.region).unwrap_err();
    assert!(
        error.to_string().contains("flextcp-card --socket"),
        "{error}"
    );
}

#[test]
fn a_sleeping_card_is_woken_by_frames_and_by_doorbells_and_wakes_its_host() {
    let (card, mut wire) = Card::start(&["--spin", "0"]);
    let mut side = Side::new(&card);
    let mut at = 0;
    for _ in 0..50 {
        side.turn_until("nothing to do", |_| true);
        // Armed, and asleep until the card says that something came.
        while side.nic.arm().unwrap() != Armed::Armed {
            side.turn().unwrap();
        }
        peer_sends(&mut wire, at, 100);
        at += 100;
        let fd = side.nic.wake_fd().expect("there is one");
        let mut fds = [PollFd::new(&fd, PollFlags::IN)];
        let half_a_minute = Timespec {
            tv_sec: 30,
            tv_nsec: 0,
        };
        let ready = poll(&mut fds, Some(&half_a_minute));
        assert_eq!(ready, Ok(1), "the interrupt");
        side.turn_until("the bytes", |side| side.told.received >= at);
        let mut out = [0; 100];
        assert_eq!(side.recv.read(&mut out), 100);
        let (now, id) = (time::Instant::from_millis(1), side.id);
        side.nic.doorbell(now, id).unwrap();
    }
    let mut reached = None;
    wait_until(START, "the last ACK", || {
        side.turn().unwrap();
        reached = acknowledged(&mut wire).or(reached);
        reached == Some(PEER + at)
    })
    .unwrap();
}

/// A card at the server's end of a link.
fn card_at(place: &Place) -> Card {
    let program = workspace_binary("flextcp-card").unwrap();
    let mut command = place.server().command(program);
    command.args(["--interface", place.device()]);
    Card::spawn(command, tempfile::tempdir().unwrap())
}

fn http_on(card: &Card, place: &Place) -> Server {
    let mut options = ServerOptions::new("http", place.server_ip(Family::V4), place.device());
    let nic = format!("nfp-emu:{}", card.socket().display());
    options.env.push(("FLEXTCP_NIC", nic));
    options.env.push(("FLEXTCP_FALLBACK", "deny".to_owned()));
    Server::start(place.server(), &options).unwrap()
}

/// Fetches `len` bytes.
fn fetch(place: &Place, server: &Server, len: u64) -> std::io::Result<()> {
    let url = server.url(&format!("/bytes/{len}"));
    let args = ["-sSf", "--max-time", "60", "-o", "/dev/null", &url];
    client(place.client(), "curl", args, LIMIT).map(drop)
}

/// Starts an upload without an end, and waits until bytes come: a client that sends notices when nobody is there.
fn upload_for_ever(place: &Place, server: &Server) -> Process {
    let mut command = place.client().command("sh");
    let url = server.url("/upload");
    let text = format!("exec curl -sS --max-time 60 -o /dev/null -T - {url} < /dev/zero");
    command.args(["-c", &text]);
    let process = Process::spawn(command).unwrap();
    wait_until(START, "the transfer to begin", || {
        let stats = Stats::fetch(place.client(), server).unwrap();
        stats.count("fast_path.bytes_in") > 1 << 20
    })
    .unwrap();
    process
}

/// A client whose connection was reset: while it sent or while it waited for the answer.
fn assert_reset(client: Process) {
    let ended = client.finish(START).unwrap();
    let code = ended.status.code();
    assert!(matches!(code, Some(55 | 56)), "{code:?} {}", ended.stderr);
}

#[test]
fn a_card_outlives_the_server_that_used_it_and_serves_the_next() {
    let test = "a_card_outlives_the_server_that_used_it_and_serves_the_next";
    if !require_privileges(test) || !require_tools(test, &["curl"]) {
        return;
    }
    let _serial = serial();
    let place = Place::veth("cardhost").unwrap();
    let card = card_at(&place);
    for round in 1..=2 {
        let server = http_on(&card, &place);
        fetch(&place, &server, 4 << 20).unwrap();
        let stats = Stats::fetch(place.client(), &server).unwrap();
        assert_eq!(stats.text("nic.kind"), "nfp-emu");
        assert!(stats.count("fast_path.bytes_out") > 1 << 20, "{stats:?}");
        let curl = upload_for_ever(&place, &server);
        server.process.signal(Signal::KILL).unwrap();
        // The kernel, which gets the port's frames back, resets the connection.
        assert_reset(curl);
        card.wait_for_release(round);
    }
}

#[test]
fn a_server_outlives_its_card_and_goes_on_with_kernel_sockets() {
    let test = "a_server_outlives_its_card_and_goes_on_with_kernel_sockets";
    if !require_privileges(test) || !require_tools(test, &["curl"]) {
        return;
    }
    let _serial = serial();
    let place = Place::veth("carddies").unwrap();
    let mut card = card_at(&place);
    let mut server = http_on(&card, &place);
    let curl = upload_for_ever(&place, &server);
    card.process.signal(Signal::KILL).unwrap();
    assert_reset(curl);
    wait_until(START, "the error", || {
        server
            .process
            .stderr()
            .contains("is gone; start flextcp-card again")
    })
    .unwrap();
    assert!(server.process.is_running());
    fetch(&place, &server, 1 << 20).unwrap();
    // Its descriptors are closed before the kernel is done with the rest of it.
    wait_until(START, "the end of the card", || !card.process.is_running()).unwrap();
}
