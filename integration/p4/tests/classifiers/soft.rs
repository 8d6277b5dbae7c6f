//! The software NIC as a classifier: frames in, and what its counters and its sink say of each.

use std::io;
use std::os::fd::BorrowedFd;
use std::sync::{Arc, Mutex};

use flextcp_nic::buffer::{Pool, recv_ring, send_ring};
use flextcp_nic::flow::{FlowId, FlowState, Token, flags};
use flextcp_nic::nic::{
    Exception, FlowBuffers, Nic, NicCounters, Notification, Reason, Returned, Sink,
};
use flextcp_nic::port::{Port, PortCounters, PortFull, PortInfo, RxChecksum, RxFrame, TxFrame};
use flextcp_nic::seq::{Mss, SeqNum, WindowScale};
use flextcp_nic::soft::{SoftConfig, SoftNic};
use flextcp_nic::steer::SteerAll;
use flextcp_nic::time::Instant;
use flextcp_nic::wire::MacAddr;

use super::model::Model;
use super::whose::{Whose, whose};

/// What the software NIC, with the XDP program's rule before it, makes of a frame.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Verdict {
    /// Not ours.
    Kernel,
    /// Ours and malformed, or refused by a filter.
    Drop,
    /// Ours, of no installed flow: for the slow path.
    Exception,
    /// Of this installed flow: the fast path took it, or said why not.
    Flow(usize, Option<Reason>),
}

/// A port on which one frame arrives at a time; what is sent disappears.
#[derive(Debug)]
pub(crate) struct OneFrame {
    info: PortInfo,
    frame: Arc<Mutex<Vec<u8>>>,
}

impl OneFrame {
    pub(crate) fn new(frame: &Arc<Mutex<Vec<u8>>>) -> Self {
        Self {
            info: PortInfo {
                name: "one frame".to_owned(),
                ifindex: 0,
                mac: MacAddr::ZERO,
                mtu: 1500,
                tx_checksum: false,
                tx_segment_max: None,
            },
            frame: Arc::clone(frame),
        }
    }
}

impl Port for OneFrame {
    fn info(&self) -> &PortInfo {
        &self.info
    }

    fn receive(
        &mut self,
        _: Instant,
        _: usize,
        sink: &mut dyn FnMut(RxFrame<'_>),
    ) -> io::Result<usize> {
        let frame = self.frame.lock().unwrap();
        sink(RxFrame::contiguous(&frame, RxChecksum::Unverified));
        Ok(1)
    }

    fn transmit(&mut self, _: Instant, _: TxFrame<'_>) -> Result<(), PortFull> {
        Ok(())
    }

    fn flush(&mut self, _: Instant) -> io::Result<()> {
        Ok(())
    }

    fn arm(&mut self) -> io::Result<bool> {
        Ok(false)
    }

    fn wake_fd(&self) -> Option<BorrowedFd<'_>> {
        None
    }

    fn counters(&self) -> PortCounters {
        PortCounters::default()
    }
}

#[derive(Default)]
pub(crate) struct Seen {
    pub(crate) exception: Option<Reason>,
    returned: Option<usize>,
    notified: Option<usize>,
}

impl Sink for Seen {
    fn notification(&mut self, notification: Notification) {
        self.notified = Some(notification.token.0 as usize);
    }

    fn exception(&mut self, exception: Exception<'_>) {
        self.exception = Some(exception.reason);
        self.returned = exception.returned.map(|of| of.token.0 as usize);
    }

    fn returned(&mut self, returned: Returned) {
        self.returned = Some(returned.token.0 as usize);
    }
}

pub(crate) struct Soft<'a> {
    model: &'a Model,
    nic: SoftNic,
    frame: Arc<Mutex<Vec<u8>>>,
    pool: Arc<Pool>,
    now: Instant,
    installed: Vec<Option<FlowId>>,
}

impl<'a> Soft<'a> {
    pub(crate) fn new(model: &'a Model) -> Self {
        let frame = Arc::new(Mutex::new(Vec::new()));
        let port = OneFrame::new(&frame);
        let mut config = SoftConfig::new([3; 16]);
        config.filter = model.filter();
        let mut nic = SoftNic::new(Box::new(port), Box::new(SteerAll::new()), config);
        model.enter(&mut nic);
        let mut this = Self {
            model,
            nic,
            frame,
            pool: Pool::new(64 << 20),
            now: Instant::ZERO,
            installed: vec![None; model.flows.len()],
        };
        for index in 0..model.flows.len() {
            this.install(index);
        }
        this
    }

    fn install(&mut self, index: usize) {
        let (recv, _) = recv_ring(&self.pool);
        let (writer, mut send) = send_ring(&self.pool, 1 << 16);
        let in_flight = self.model.in_flight(index);
        assert_eq!(
            writer.write(&vec![0; in_flight as usize]),
            in_flight as usize
        );
        assert_eq!(send.take_written(), in_flight);
        let token = Token(index as u64);
        let buffers = FlowBuffers { recv, send };
        let state = self.state(index);
        let installed = self.nic.install(self.now, token, state, buffers);
        self.installed[index] = Some(installed.expect("the table has room"));
    }

    /// Takes a connection back and installs it anew.
    #[cfg(feature = "firmware")]
    pub(crate) fn reinstall(&mut self, index: usize) {
        // A frame that was an exception has done so already.
        if let Some(id) = self.installed[index] {
            let claimed = self.nic.claim(self.now, id);
            claimed.expect("it was installed");
            self.install(index);
        }
    }

    /// A connection as it is installed.
    pub(crate) fn state(&self, index: usize) -> FlowState {
        let next = SeqNum(self.model.next_sequence());
        let own = SeqNum(self.model.acknowledged());
        let mut state = FlowState {
            // A third each: plain, with timestamps, with ECN.
            flags: [0, flags::TIMESTAMPS, flags::ECN][index % 3],
            cwnd: 1 << 20,
            snd_wnd: 1 << 16,
            rcv_free: 1 << 16,
            ..FlowState::default()
        };
        state.set_tuple(&self.model.flows[index]);
        state.set_remote_mac(MacAddr([2, 0, 0, 0, 0, 2]));
        state.set_ttl_tos(64, 0);
        let scale = WindowScale::new(7);
        state.set_mss_scales(Mss::new(1448), scale, scale);
        state.set_rcv_nxt(next);
        state.set_rcv_adv(next + (1 << 16));
        state.set_last_ack_sent(next);
        state.set_snd_una(own);
        let end = own + self.model.in_flight(index);
        state.set_snd_nxt(end);
        state.set_snd_end(end);
        state
    }

    /// Classifies a frame, and leaves the NIC as it was.
    pub(crate) fn classify(&mut self, frame: &[u8]) -> Verdict {
        match whose(frame) {
            Some(of) if self.model.is_owned(of.tuple.local) => {
                let verdict = self.receive(frame, &of);
                if self.model.excluded.contains(&of.tuple) {
                    assert!(
                        of.icmp || matches!(verdict, Verdict::Drop | Verdict::Kernel),
                        "an excluded connection's segment is nobody's here"
                    );
                    return Verdict::Kernel;
                }
                verdict
            }
            _ => Verdict::Kernel,
        }
    }

    fn receive(&mut self, frame: &[u8], of: &Whose) -> Verdict {
        frame.clone_into(&mut self.frame.lock().unwrap());
        let before = self.nic.counters();
        let mut seen = Seen::default();
        self.nic.poll(self.now, 1, &mut seen).unwrap();
        let after = self.nic.counters();
        let flow = self.model.flows.iter().position(|flow| *flow == of.tuple);
        let verdict = verdict(&before, &after, &seen, of, flow);
        if let Some(index) = seen.returned {
            self.install(index);
        }
        self.nic.flush(self.now).unwrap();
        verdict
    }
}

fn verdict(
    before: &NicCounters,
    after: &NicCounters,
    seen: &Seen,
    of: &Whose,
    flow: Option<usize>,
) -> Verdict {
    if after.malformed + after.bad_checksum > before.malformed + before.bad_checksum {
        return Verdict::Drop;
    }
    if after.filtered > before.filtered {
        // An ICMP error about what a flow does not have in flight; otherwise a filter's.
        return match flow {
            Some(index) if of.icmp => Verdict::Flow(index, None),
            _ => Verdict::Drop,
        };
    }
    if let Some(reason) = seen.exception {
        assert_eq!(seen.returned, flow, "the flow found is the frame's");
        return flow.map_or(Verdict::Exception, |index| {
            Verdict::Flow(index, Some(reason))
        });
    }
    if after.fast.frames_in > before.fast.frames_in {
        let index = flow.expect("the fast path has installed flows only");
        assert!(seen.notified.is_none_or(|notified| notified == index));
        return Verdict::Flow(index, None);
    }
    Verdict::Kernel
}
