//! A peer that does what it is told, one step at a time, with many connections at once.
//!
//! Each line of standard input is answered by one line:
//!
//! | command | does | answer |
//! |---|---|---|
//! | `listen ADDRESS` | binds | `listening on ADDRESS` |
//! | `connect ADDRESS N` | opens connections | `ports PORT...` |
//! | `accept PORT...` | accepts those from these ports and puts them in this order | `accepted` |
//! | `step INDEX:OP...` | see [`Op`] | `did RESULT...` |
//! | `forget` | drops all connections | `forgotten` |

use std::collections::HashMap;
use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::task::{Context, Poll, Waker};

use tokio::io::{AsyncBufReadExt as _, AsyncWrite as _, BufReader};

use crate::stack::Stack;

/// Turns of the runtime's other tasks, the stack's driver among them, after a command.
const TURNS: usize = 4;

/// What can be done to a connection, by its letter.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Op {
    /// `w`: writes 100 bytes.
    Write,
    /// `r`: reads until nothing is left: how many bytes, and `block`, `eof` or the error.
    Read,
    /// `s`: shuts the write direction down.
    Shutdown,
    /// `d`: drops the stream.
    Drop,
    /// `l`: drops it with a linger time of zero.
    Reset,
    /// `e`: takes the pending error.
    Error,
}

impl Op {
    /// Its letter.
    pub const fn letter(self) -> char {
        match self {
            Self::Write => 'w',
            Self::Read => 'r',
            Self::Shutdown => 's',
            Self::Drop => 'd',
            Self::Reset => 'l',
            Self::Error => 'e',
        }
    }

    fn of(letter: &str) -> io::Result<Self> {
        [
            Self::Write,
            Self::Read,
            Self::Shutdown,
            Self::Drop,
            Self::Reset,
            Self::Error,
        ]
        .into_iter()
        .find(|op| letter == op.letter().to_string())
        .ok_or_else(|| invalid(&format!("no operation is called {letter}")))
    }
}

fn invalid(text: &str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidInput, text)
}

/// Obeys standard input until it ends.
pub(super) async fn run<S: Stack>() -> io::Result<()> {
    let mut lines = BufReader::new(tokio::io::stdin()).lines();
    let mut listener = None;
    let mut streams: Vec<Option<S::Stream>> = Vec::new();
    while let Some(line) = lines.next_line().await? {
        let mut words = line.split_whitespace();
        let answer = match words.next() {
            Some("listen") => {
                let address = parse::<SocketAddr>(words.next())?;
                let bound = listener.insert(S::bind(address, None)?);
                format!("listening on {}", S::local_addr(bound)?)
            }
            Some("connect") => {
                let address = parse::<SocketAddr>(words.next())?;
                let mut ports = String::from("ports");
                for _ in 0..parse::<usize>(words.next())? {
                    let stream = S::connect(address, None).await?;
                    ports += &format!(" {}", S::ends(&stream)?.0.port());
                    streams.push(Some(stream));
                }
                ports
            }
            Some("accept") => {
                let listener = listener
                    .as_ref()
                    .ok_or_else(|| invalid("nothing listens"))?;
                let ports = words.map(|word| parse(Some(word)));
                let ports = ports.collect::<io::Result<Vec<u16>>>()?;
                let mut by_port = HashMap::new();
                while by_port.len() < ports.len() {
                    let stream = S::accept(listener).await?;
                    by_port.insert(S::ends(&stream)?.1.port(), stream);
                }
                streams.extend(ports.iter().map(|port| by_port.remove(port)));
                "accepted".to_owned()
            }
            Some("step") => {
                let mut answer = String::from("did");
                for word in words {
                    let (index, letter) = word
                        .split_once(':')
                        .ok_or_else(|| invalid("a step is INDEX:OP"))?;
                    let index = parse::<usize>(Some(index))?;
                    let stream = streams
                        .get_mut(index)
                        .ok_or_else(|| invalid("no connection has this index"))?;
                    answer += &format!(" {}", perform::<S>(stream, Op::of(letter)?));
                }
                answer
            }
            Some("forget") => {
                streams.clear();
                "forgotten".to_owned()
            }
            _ => return Err(invalid(&format!("no command begins like {line:?}"))),
        };
        // What was done is on the wire before it is told.
        for _ in 0..TURNS {
            tokio::task::yield_now().await;
        }
        println!("{answer}");
    }
    Ok(())
}

fn parse<T: std::str::FromStr>(word: Option<&str>) -> io::Result<T> {
    word.and_then(|word| word.parse().ok())
        .ok_or_else(|| invalid("an argument is missing or malformed"))
}

/// Does `op` and tells what came of it, in one word.
fn perform<S: Stack>(slot: &mut Option<S::Stream>, op: Op) -> String {
    if matches!(op, Op::Drop | Op::Reset) {
        let result = match &slot {
            Some(stream) if op == Op::Reset => S::reset_on_close(stream),
            Some(_) => Ok(()),
            None => return "gone".to_owned(),
        };
        *slot = None;
        return result.map_or_else(name, |()| "ok".to_owned());
    }
    let Some(stream) = slot else {
        return "gone".to_owned();
    };
    match op {
        Op::Write => S::try_write(stream, &[b'x'; 100]).map_or_else(name, |n| n.to_string()),
        Op::Read => {
            let mut total = 0;
            let mut buffer = [0; 4096];
            loop {
                match S::try_read(stream, &mut buffer) {
                    Ok(0) => return format!("{total}+eof"),
                    Ok(n) => total += n,
                    Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                        return format!("{total}+block");
                    }
                    Err(error) => return format!("{total}+{}", name(error)),
                }
            }
        }
        Op::Shutdown => {
            let mut cx = Context::from_waker(Waker::noop());
            match Pin::new(stream).poll_shutdown(&mut cx) {
                Poll::Ready(result) => result.map_or_else(name, |()| "ok".to_owned()),
                Poll::Pending => "pending".to_owned(),
            }
        }
        Op::Error => match S::take_error(stream) {
            Ok(None) => "none".to_owned(),
            Ok(Some(error)) => name(error),
            Err(error) => format!("failed:{}", name(error)),
        },
        Op::Drop | Op::Reset => "ok".to_owned(),
    }
}

fn name(error: io::Error) -> String {
    format!("{:?}", error.kind())
}
