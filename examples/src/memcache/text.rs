//! The text commands.

use super::clock::Expiry;
use super::report;
use super::session::{Block, Session, Step, block, number, push_number, signed};
use super::store::{Delete, DeleteOutcome, Delta, DeltaOutcome, MAX_KEY, Mode, Put, PutOutcome};

const ERROR: &[u8] = b"ERROR\r\n";
const BAD_FORMAT: &[u8] = b"CLIENT_ERROR bad command line format\r\n";
const BAD_EXPTIME: &[u8] = b"CLIENT_ERROR invalid exptime argument\r\n";
pub(super) const BAD_CHUNK: &[u8] = b"CLIENT_ERROR bad data chunk\r\n";
pub(super) const TOO_LARGE: &[u8] = b"SERVER_ERROR object too large for cache\r\n";
pub(super) const NOT_A_NUMBER: &[u8] =
    b"CLIENT_ERROR cannot increment or decrement non-numeric value\r\n";

/// The reported version starts with that of the memcached whose protocol this is, since clients
/// look at it to learn what they may use.
pub(super) const VERSION: &str = concat!("1.6.18-flextcp-", env!("CARGO_PKG_VERSION"));

/// No command but a read takes more arguments than this.
const MAX_ARGUMENTS: usize = 7;

/// The arguments of a command, and whether it is to be answered.
struct Arguments<'a> {
    words: [&'a [u8]; MAX_ARGUMENTS],
    len: usize,
    noreply: bool,
}

impl<'a> Arguments<'a> {
    /// `None` if there are more than any command takes.
    fn new(words: impl Iterator<Item = &'a [u8]>) -> Option<Self> {
        let mut arguments = Self {
            words: [&[]; MAX_ARGUMENTS],
            len: 0,
            noreply: false,
        };
        for word in words {
            *arguments.words.get_mut(arguments.len)? = word;
            arguments.len += 1;
        }
        arguments.noreply = arguments.as_slice().last() == Some(&&b"noreply"[..]);
        Some(arguments)
    }

    fn as_slice(&self) -> &[&'a [u8]] {
        &self.words[..self.len]
    }
}

pub(super) fn execute<'a>(
    session: &Session,
    name: &[u8],
    words: impl Iterator<Item = &'a [u8]>,
    rest: &[u8],
    now: u64,
    output: &mut Vec<u8>,
) -> Step {
    match name {
        b"get" => return get(session, words, false, None, now, output),
        b"gets" => return get(session, words, true, None, now, output),
        b"gat" | b"gats" => return get_and_touch(session, words, name == b"gats", now, output),
        b"stats" => {
            let words: Vec<&[u8]> = words.collect();
            report::stats(session, &words, now, output);
            return Step::Done;
        }
        b"quit" => return Step::Quit,
        _ => {}
    }
    let Some(arguments) = Arguments::new(words) else {
        output.extend_from_slice(ERROR);
        return Step::Done;
    };
    let before = output.len();
    let quiet = arguments.noreply && name != b"version";
    let step = match name {
        b"set" => put(session, Mode::Set, false, &arguments, rest, now, output),
        b"add" => put(session, Mode::Add, false, &arguments, rest, now, output),
        b"replace" => put(session, Mode::Replace, false, &arguments, rest, now, output),
        b"append" => put(session, Mode::Append, false, &arguments, rest, now, output),
        b"prepend" => put(session, Mode::Prepend, false, &arguments, rest, now, output),
        b"cas" => put(session, Mode::Set, true, &arguments, rest, now, output),
        _ => {
            let answer = line(session, name, &arguments, now, output);
            output.extend_from_slice(answer);
            Step::Done
        }
    };
    if quiet && output[before..] != *ERROR {
        output.truncate(before);
    }
    step
}

fn get<'a>(
    session: &Session,
    keys: impl Iterator<Item = &'a [u8]>,
    with_cas: bool,
    touch: Option<Expiry>,
    now: u64,
    output: &mut Vec<u8>,
) -> Step {
    let start = output.len();
    let mut any = false;
    for key in keys {
        any = true;
        if key.len() > MAX_KEY {
            output.truncate(start);
            output.extend_from_slice(BAD_FORMAT);
            return Step::Done;
        }
        if let Some(expiry) = touch
            && !session.store.touch(key, expiry, now)
        {
            continue;
        }
        session.store.get(key, now, true, |item| {
            output.extend_from_slice(b"VALUE ");
            output.extend_from_slice(key);
            output.push(b' ');
            push_number(output, item.flags.into());
            output.push(b' ');
            push_number(output, item.value.len() as u64);
            if with_cas {
                output.push(b' ');
                push_number(output, item.cas);
            }
            output.extend_from_slice(b"\r\n");
            output.extend_from_slice(&item.value);
            output.extend_from_slice(b"\r\n");
        });
    }
    let end: &[u8] = match any || touch.is_some() {
        true => b"END\r\n",
        false => ERROR,
    };
    output.extend_from_slice(end);
    Step::Done
}

fn get_and_touch<'a>(
    session: &Session,
    mut words: impl Iterator<Item = &'a [u8]>,
    with_cas: bool,
    now: u64,
    output: &mut Vec<u8>,
) -> Step {
    let Some(exptime) = words.next() else {
        output.extend_from_slice(ERROR);
        return Step::Done;
    };
    let Some(exptime) = signed(exptime) else {
        output.extend_from_slice(BAD_EXPTIME);
        return Step::Done;
    };
    let expiry = Expiry::from_client(exptime, now);
    get(session, words, with_cas, Some(expiry), now, output)
}

fn put(
    session: &Session,
    mode: Mode,
    with_cas: bool,
    arguments: &Arguments<'_>,
    rest: &[u8],
    now: u64,
    output: &mut Vec<u8>,
) -> Step {
    let arguments = arguments.as_slice();
    let (needed, at_most) = if with_cas { (5, 6) } else { (4, 5) };
    if arguments.len() < needed || arguments.len() > at_most {
        output.extend_from_slice(ERROR);
        return Step::Done;
    }
    let Some(len) = number::<u32>(arguments[3]) else {
        output.extend_from_slice(BAD_FORMAT);
        return Step::Done;
    };
    let len = len as usize;
    let key = arguments[0];
    let parsed = (
        number(arguments[1]),
        signed(arguments[2]),
        with_cas.then(|| number(arguments[4])),
    );
    let (Some(flags), Some(exptime), None | Some(Some(_)), ..=MAX_KEY) =
        (parsed.0, parsed.1, parsed.2, key.len())
    else {
        // What follows is data, whatever is wrong with the line: it must not run as commands.
        output.extend_from_slice(BAD_FORMAT);
        return Step::Swallow(len.saturating_add(2));
    };
    if len > session.store.item_max() {
        output.extend_from_slice(TOO_LARGE);
        if mode == Mode::Set {
            session.store.refuse_too_large(key);
        }
        return Step::Swallow(len.saturating_add(2));
    }
    let value = match block(rest, len) {
        Block::Whole(value) => value,
        Block::Missing => return Step::Wait(len + 2),
        Block::Malformed => {
            output.extend_from_slice(BAD_CHUNK);
            return Step::Data(len + 2);
        }
    };
    let put = Put {
        key,
        value,
        flags,
        expiry: Expiry::from_client(exptime, now),
        mode,
        cas: parsed.2.flatten(),
        new_cas: None,
        invalidate: false,
        vivify: None,
    };
    output.extend_from_slice(match session.store.put(&put, now) {
        PutOutcome::Stored { .. } => b"STORED\r\n",
        PutOutcome::NotStored => b"NOT_STORED\r\n",
        PutOutcome::Exists => b"EXISTS\r\n",
        PutOutcome::NotFound => b"NOT_FOUND\r\n",
        PutOutcome::TooLarge => TOO_LARGE,
    });
    Step::Data(len + 2)
}

/// The commands of one line; returns the answer, or its end.
fn line(
    session: &Session,
    name: &[u8],
    arguments: &Arguments<'_>,
    now: u64,
    output: &mut Vec<u8>,
) -> &'static [u8] {
    let all = arguments.as_slice();
    let plain = &all[..all.len() - usize::from(arguments.noreply)];
    if let (b"delete" | b"incr" | b"decr" | b"touch", [key, ..]) = (name, plain)
        && key.len() > MAX_KEY
    {
        return BAD_FORMAT;
    }
    match (name, plain) {
        (b"delete", [key] | [key, b"0"]) => {
            match session.store.delete(key, &Delete::default(), now) {
                DeleteOutcome::Deleted => b"DELETED\r\n",
                DeleteOutcome::NotFound | DeleteOutcome::Exists => b"NOT_FOUND\r\n",
            }
        }
        (b"delete", [_, _] | [_, _, _]) => {
            b"CLIENT_ERROR bad command line format.  Usage: delete <key> [noreply]\r\n"
        }
        (b"incr" | b"decr", [key, by]) => delta(session, key, name == b"incr", by, now, output),
        (b"touch", [key, exptime]) => match signed(exptime) {
            None => BAD_EXPTIME,
            Some(exptime) => {
                let expiry = Expiry::from_client(exptime, now);
                match session.store.touch(key, expiry, now) {
                    true => b"TOUCHED\r\n",
                    false => b"NOT_FOUND\r\n",
                }
            }
        },
        (b"flush_all", []) => flush(session, 0, now),
        (b"flush_all", [delay]) => match signed(delay) {
            Some(delay) => flush(session, delay, now),
            None => BAD_EXPTIME,
        },
        (b"version", _) => {
            output.extend_from_slice(format!("VERSION {VERSION}").as_bytes());
            b"\r\n"
        }
        // Nothing here depends on the verbosity: logs follow RUST_LOG.
        (b"verbosity", [level]) => match number::<u64>(level) {
            Some(_) => b"OK\r\n",
            None => BAD_FORMAT,
        },
        (b"verbosity", []) if arguments.noreply => b"OK\r\n",
        (b"cache_memlimit", [megabytes]) => match number::<usize>(megabytes) {
            Some(megabytes @ 8..) => {
                session.store.set_memory(megabytes.saturating_mul(1 << 20));
                b"OK\r\n"
            }
            Some(_) => b"MEMLIMIT_TOO_SMALL cannot set maxbytes to less than 8m\r\n",
            None => ERROR,
        },
        // One pool of memory: there is nothing to move between classes, and nothing to tune.
        (b"slabs", [b"automove", _]) => b"OK\r\n",
        (b"slabs", [b"reassign", _, _]) => b"NOSPARE source class has no spare pages\r\n",
        (b"lru_crawler", [b"enable" | b"disable"] | [b"sleep" | b"tocrawl" | b"crawl", _]) => {
            b"OK\r\n"
        }
        (b"shutdown", _) => b"ERROR: shutdown not enabled\r\n",
        _ => ERROR,
    }
}

fn delta(
    session: &Session,
    key: &[u8],
    increment: bool,
    by: &[u8],
    now: u64,
    output: &mut Vec<u8>,
) -> &'static [u8] {
    let Some(by) = number(by) else {
        return b"CLIENT_ERROR invalid numeric delta argument\r\n";
    };
    let delta = Delta {
        increment,
        by,
        cas: None,
        new_cas: None,
        vivify: None,
        touch: None,
    };
    match session.store.delta(key, &delta, now) {
        DeltaOutcome::Value { value, .. } => {
            push_number(output, value);
            b"\r\n"
        }
        DeltaOutcome::NotFound | DeltaOutcome::Exists => b"NOT_FOUND\r\n",
        DeltaOutcome::NotANumber => NOT_A_NUMBER,
    }
}

fn flush(session: &Session, delay: i64, now: u64) -> &'static [u8] {
    let at = match Expiry::from_client(delay, now) {
        Expiry::At(second) if second > now => Some(second),
        Expiry::At(_) | Expiry::Never => None,
    };
    session.store.flush(at);
    b"OK\r\n"
}
