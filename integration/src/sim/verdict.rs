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
}

/// Judges a connection; `overrun` says that its listener had to turn connections away, which it may have reset: a SYN
/// cookie's connection that finds the accept queue full is gone, and the peer does not know (as on Linux).
///
/// # Errors
/// What does not hold.
pub(super) fn judge(scenario: &Scenario, outcome: &Outcome, overrun: bool) -> Result<(), String> {
    let Outcome { client, server } = outcome;
    let may_fail = scenario.may_time_out || overrun;
    direction(may_fail, "client to server", client, server)?;
    direction(may_fail, "server to client", server, client)
}

fn direction(may_fail: bool, name: &str, from: &End, to: &End) -> Result<(), String> {
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
    if to.eof && (to.read != from.written || !from.fin) {
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
    let left = from.fin && from.eof;
    if from.present && from.error.is_none() && !(from.early || from.died || left) {
        return say("the sender was not told that bytes are missing".into());
    }
    Ok(())
}
