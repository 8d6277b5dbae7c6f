//! What must hold at the end of a run.

use std::io::ErrorKind;
use std::time::Duration;

use super::app::App;
use super::scenario::Scenario;
use super::trace::Trace;

/// What one end of a connection saw.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct End {
    /// It connected, or was accepted.
    pub present: bool,
    /// It came to its end.
    pub done: bool,
    /// Bytes that the socket took from it.
    pub written: u64,
    /// Bytes it read, each the one that was sent at this place but for `wrong`.
    pub read: u64,
    /// Where the first byte was that is not the one that was sent.
    pub wrong: Option<u64>,
    /// It read the end of the stream.
    pub eof: bool,
    /// It ended its direction in an orderly way.
    pub fin: bool,
    /// It left before the end of the stream, as planned.
    pub early: bool,
    /// Its host died.
    pub died: bool,
    /// The error it was given.
    pub error: Option<ErrorKind>,
    /// When it was done.
    pub done_at: Option<Duration>,
}

impl End {
    pub(super) fn of(app: &App) -> Self {
        Self {
            present: app.socket.is_some(),
            done: app.is_done(),
            written: app.written,
            read: app.read,
            wrong: app.wrong,
            eof: app.eof,
            fin: app.fin,
            early: app.early,
            died: app.died,
            error: app.error,
            done_at: app.done_at.map(|at| at - flextcp_nic::time::Instant::ZERO),
        }
    }

    /// Both directions ended for it, so that it let its socket go: what was not acknowledged is an orphan's.
    const fn has_left(&self) -> bool {
        self.fin && self.eof
    }
}

/// What came of a connection.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Outcome {
    /// The end that connected.
    pub client: End,
    /// The end that listened.
    pub server: End,
}

/// What came of a run.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Report {
    /// The scenario.
    pub seed: u64,
    /// One for each connection.
    pub outcomes: Vec<Outcome>,
    /// When nothing was left.
    pub ended: Duration,
    /// Fingerprint.
    pub trace: Trace,
    /// Segments sent again, by all hosts that lived to the end.
    pub retransmitted: u64,
    /// Retransmission time-outs.
    pub timeouts: u64,
    /// Times a connection was put on a NIC.
    pub installed: u64,
    /// What it met on its way.
    pub coverage: Coverage,
}

/// How often a run met what a scenario is there for.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct Coverage {
    /// Packets that a queue marked (ECN).
    pub marked: u64,
    /// Packets that were too large for the way, with a word from its router.
    pub too_big: u64,
    /// The same without a word.
    pub swallowed: u64,
    /// Super-frames that a NIC cut,
    pub cut: u64,
    /// and those that arrived in one piece.
    pub whole: u64,
    /// Simultaneous opens whose connections came to a good end.
    pub crossed: u64,
    /// Connections that a late segment opened again, passing for the ACK of a SYN cookie.
    pub reopened: u64,
}

impl Coverage {
    /// Adds another run's.
    pub fn add(&mut self, other: &Self) {
        self.marked += other.marked;
        self.too_big += other.too_big;
        self.swallowed += other.swallowed;
        self.cut += other.cut;
        self.whole += other.whole;
        self.crossed += other.crossed;
        self.reopened += other.reopened;
    }
}

/// Judges a connection; `overrun` says that a host had too much to do and may have reset it: a SYN cookie's connection that
/// finds the accept queue full is gone, and the peer does not know; a half-open one is given up early when there are many; an
/// orphan goes when memory is short (as on Linux).
///
/// `reopened` says that the listener accepted the connection once more after its end, and closed it: when the reset of one that
/// left early or may have failed is lost, the next segment of the peer, be it a keep-alive probe, may pass for the ACK of a SYN
/// cookie (as on Linux), and the FIN that it gets then looks like the end of the stream.
///
/// # Errors
/// What does not hold.
pub(super) fn judge(
    scenario: &Scenario,
    outcome: &Outcome,
    overrun: bool,
    reopened: bool,
) -> Result<(), String> {
    let Outcome { client, server } = outcome;
    let may_fail = scenario.may_time_out || overrun;
    let early = server.early || server.died;
    let may_fail = |from: &End| may_fail || (scenario.may_lose_orphans && from.has_left());
    direction(may_fail(client), false, "client to server", client, server)?;
    direction(
        may_fail(server),
        reopened && (early || may_fail(server)),
        "server to client",
        server,
        client,
    )
}

/// `false_end`: the stream may have ended before its end.
fn direction(
    may_fail: bool,
    false_end: bool,
    name: &str,
    from: &End,
    to: &End,
) -> Result<(), String> {
    let say = |what: String| Err(format!("{name}: {what}; from {from:?}; to {to:?}"));
    if let Some(offset) = to.wrong {
        return say(format!("byte {offset} is not the one that was sent"));
    }
    if to.read > from.written {
        return say("more bytes arrived than were sent".into());
    }
    if from.present && !from.done {
        return say("the sender's application hangs".into());
    }
    if to.eof && !false_end && (to.read != from.written || !from.fin) {
        return say("the stream ended before its end".into());
    }
    let cause = from.early || from.died || to.early || to.died || may_fail;
    if let Some(error) = to.error
        && !cause
    {
        return say(format!("an error without a cause: {error}"));
    }
    if to.eof || to.early || to.died {
        return Ok(());
    }
    // Bytes are missing: both ends have to know, and there has to be a reason.
    if to.present && to.error.is_none() {
        return say("the receiver was not told that bytes are missing".into());
    }
    if !cause {
        return say("bytes are missing without a cause".into());
    }
    if from.present && from.error.is_none() && !(from.early || from.died || from.has_left()) {
        return say("the sender was not told that bytes are missing".into());
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The server reset the connection after five bytes, the reset and the bytes were lost, and the client read an end.
    fn cut_short() -> Outcome {
        let end = End {
            present: true,
            done: true,
            eof: true,
            ..End::default()
        };
        Outcome {
            client: End { fin: true, ..end },
            server: End {
                written: 5,
                early: true,
                ..end
            },
        }
    }

    #[test]
    fn only_a_stretched_timeout_behind_a_silent_router_excuses_the_reset_of_an_orphan() {
        let mut scenario = Scenario::random(0);
        (scenario.may_time_out, scenario.may_lose_orphans) = (false, true);
        let mut outcome = cut_short();
        outcome.client.written = 5;
        outcome.server = End {
            eof: false,
            error: Some(ErrorKind::ConnectionReset),
            fin: true,
            ..outcome.client
        };
        outcome.server.written = 0;
        judge(&scenario, &outcome, false, false).unwrap();
        scenario.may_lose_orphans = false;
        assert!(judge(&scenario, &outcome, false, false).is_err());
        scenario.may_lose_orphans = true;
        outcome.client.eof = false;
        assert!(judge(&scenario, &outcome, false, false).is_err());
    }

    #[test]
    fn an_end_before_the_end_is_no_fault_of_a_connection_that_a_cookie_opened_again() {
        let mut scenario = Scenario::random(0);
        (scenario.may_time_out, scenario.may_lose_orphans) = (false, false);
        let outcome = cut_short();
        assert!(judge(&scenario, &outcome, false, false).is_err());
        judge(&scenario, &outcome, false, true).unwrap();
        let mut orderly = outcome;
        orderly.server.early = false;
        assert!(judge(&scenario, &orderly, false, true).is_err());
        orderly.server.fin = true;
        judge(&scenario, &orderly, true, true).unwrap();
        assert!(judge(&scenario, &orderly, true, false).is_err());
        let mut wrong = outcome;
        wrong.client.wrong = Some(0);
        assert!(judge(&scenario, &wrong, false, true).is_err());
    }
}
