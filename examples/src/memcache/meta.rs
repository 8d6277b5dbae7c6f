//! The meta commands.

use std::borrow::Cow;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;

use super::clock::Expiry;
use super::session::{Block, Session, Step, block, number, push_number, signed};
use super::shard::Item;
use super::store::{Delete, DeleteOutcome, Delta, DeltaOutcome, MAX_KEY, Mode, Put, PutOutcome};
use super::text::{BAD_CHUNK, NOT_A_NUMBER, TOO_LARGE};

const BAD_FORMAT: &[u8] = b"CLIENT_ERROR bad command line format\r\n";
const BAD_TOKEN: &[u8] = b"CLIENT_ERROR bad token in command line format\r\n";

const MAX_OPAQUE: usize = 31;

/// The flags of one command, as parsed.
#[derive(Debug, Default)]
struct Flags {
    /// A bit for every letter that was there.
    seen: u64,
    cas: Option<u64>,
    new_cas: Option<u64>,
    client_flags: u32,
    expiry: Option<Expiry>,
    vivify: Option<Expiry>,
    recache: Option<u64>,
    delta: Option<u64>,
    initial: u64,
    mode: Option<u8>,
}

impl Flags {
    fn parse<'a>(
        words: impl Iterator<Item = &'a [u8]>,
        allowed: &[u8],
        now: u64,
    ) -> Result<Self, &'static [u8]> {
        let mut flags = Self::default();
        for word in words {
            let (letter, token) = (word[0], &word[1..]);
            if !allowed.contains(&letter) {
                return Err(b"CLIENT_ERROR invalid flag\r\n");
            }
            let bit = 1 << (letter - b'A');
            if flags.seen & bit != 0 {
                return Err(b"CLIENT_ERROR duplicate flag\r\n");
            }
            flags.seen |= bit;
            let expiry = || match signed(token) {
                Some(exptime) => Ok(Some(Expiry::from_client(exptime, now))),
                None => Err(BAD_TOKEN),
            };
            let unsigned = || number(token).ok_or(BAD_TOKEN);
            match letter {
                b'C' => flags.cas = Some(unsigned()?),
                b'E' => flags.new_cas = Some(unsigned()?),
                b'F' => flags.client_flags = number(token).ok_or(BAD_TOKEN)?,
                b'T' => flags.expiry = expiry()?,
                b'N' => flags.vivify = expiry()?,
                b'R' => flags.recache = Some(unsigned()?),
                b'D' => flags.delta = Some(unsigned()?),
                b'J' => flags.initial = unsigned()?,
                b'M' => match token {
                    [mode] => flags.mode = Some(*mode),
                    _ => return Err(b"CLIENT_ERROR incorrect length for M token\r\n"),
                },
                b'O' if token.len() > MAX_OPAQUE => {
                    return Err(b"CLIENT_ERROR opaque token too long\r\n");
                }
                _ => {}
            }
        }
        Ok(flags)
    }

    fn has(&self, letter: u8) -> bool {
        self.seen & (1 << (letter - b'A')) != 0
    }

    /// The key that the item has, of the key that the client sent.
    fn key<'a>(&self, sent: &'a [u8]) -> Result<Cow<'a, [u8]>, &'static [u8]> {
        if !self.has(b'b') {
            return Ok(sent.into());
        }
        match STANDARD.decode(sent) {
            Ok(key) if !key.is_empty() && key.len() <= MAX_KEY => Ok(key.into()),
            _ => Err(b"CLIENT_ERROR error decoding key\r\n"),
        }
    }
}

/// A command after its name: the key as it was sent, and the words of the flags.
struct Command<'a, I> {
    sent: &'a [u8],
    words: I,
}

impl<'a, I: Iterator<Item = &'a [u8]> + Clone> Command<'a, I> {
    /// Appends the flags that are answered for every item and every miss.
    fn echo(&self, output: &mut Vec<u8>, flags: &Flags) {
        for word in self.words.clone() {
            self.echo_one(word, output, flags);
        }
    }

    fn echo_one(&self, word: &[u8], output: &mut Vec<u8>, flags: &Flags) {
        match word[0] {
            b'O' => {
                output.push(b' ');
                output.extend_from_slice(word);
            }
            b'k' => {
                output.extend_from_slice(b" k");
                output.extend_from_slice(self.sent);
                if flags.has(b'b') {
                    output.extend_from_slice(b" b");
                }
            }
            _ => {}
        }
    }

    /// A code alone on its line, with the flags that every answer has.
    fn code(&self, code: &[u8], output: &mut Vec<u8>, flags: &Flags) {
        output.extend_from_slice(code);
        self.echo(output, flags);
        output.extend_from_slice(b"\r\n");
    }
}

pub(super) fn execute<'a>(
    session: &Session,
    name: &[u8],
    mut words: impl Iterator<Item = &'a [u8]> + Clone,
    rest: &[u8],
    now: u64,
    output: &mut Vec<u8>,
) -> Step {
    if name == b"mn" {
        output.extend_from_slice(b"MN\r\n");
        return Step::Done;
    }
    let Some(sent) = words.next() else {
        output.extend_from_slice(match name {
            b"me" => BAD_FORMAT,
            _ => b"ERROR\r\n",
        });
        return Step::Done;
    };
    // A key in base64 is longer than the key it stands for.
    if sent.len() > MAX_KEY.div_ceil(3) * 4 {
        output.extend_from_slice(BAD_FORMAT);
        return match (name, words.next().and_then(number::<u32>)) {
            (b"ms", Some(len)) => Step::Swallow((len as usize).saturating_add(2)),
            _ => Step::Done,
        };
    }
    let result = match name {
        b"ms" => {
            let Some(len) = words.next().and_then(number::<u32>) else {
                output.extend_from_slice(BAD_FORMAT);
                return Step::Done;
            };
            let command = Command { sent, words };
            return set(session, &command, len as usize, rest, now, output);
        }
        b"mg" => get(session, &Command { sent, words }, now, output),
        b"md" => delete(session, &Command { sent, words }, now, output),
        b"ma" => arithmetic(session, &Command { sent, words }, now, output),
        _ => debug(session, &Command { sent, words }, now, output),
    };
    if let Err(error) = result {
        output.extend_from_slice(error);
    }
    Step::Done
}

type Answered = Result<(), &'static [u8]>;

fn plain_key_len(key: &[u8]) -> Answered {
    match key.len() {
        ..=MAX_KEY => Ok(()),
        _ => Err(BAD_FORMAT),
    }
}

fn get<'a>(
    session: &Session,
    command: &Command<'a, impl Iterator<Item = &'a [u8]> + Clone>,
    now: u64,
    output: &mut Vec<u8>,
) -> Answered {
    let flags = Flags::parse(command.words.clone(), b"bcfhklOqstuvENRT", now)?;
    let key = flags.key(command.sent)?;
    plain_key_len(&key)?;
    let mut hit = |item: &mut Item, made: bool| {
        let recache = flags
            .recache
            .zip(item.expiry.left(now))
            .is_some_and(|(limit, left)| left < limit);
        let lost = item.won && !made;
        let won = !lost && (made || item.stale || recache);
        item.won |= won;
        if let (Some(expiry), false) = (flags.expiry, made) {
            item.expiry = expiry;
        }

        if flags.has(b'v') {
            output.extend_from_slice(b"VA ");
            push_number(output, item.value.len() as u64);
        } else {
            output.extend_from_slice(b"HD");
        }
        for word in command.words.clone() {
            match word[0] {
                b'c' => push_flag(output, b'c', item.cas),
                b'f' => push_flag(output, b'f', item.flags.into()),
                b'h' => push_flag(output, b'h', item.fetched.into()),
                b'l' => push_flag(output, b'l', now.saturating_sub(item.last_access)),
                b's' => push_flag(output, b's', item.value.len() as u64),
                b't' => push_ttl(output, item.expiry, now),
                _ => command.echo_one(word, output, &flags),
            }
        }
        for (letter, shown) in [(b'W', won), (b'X', item.stale), (b'Z', lost)] {
            if shown {
                output.extend_from_slice(&[b' ', letter]);
            }
        }
        output.extend_from_slice(b"\r\n");
        if flags.has(b'v') {
            output.extend_from_slice(&item.value);
            output.extend_from_slice(b"\r\n");
        }
    };
    let store = &session.store;
    if let Some(expiry) = flags.vivify {
        store.get_or_vivify(&key, now, expiry, flags.new_cas, hit);
    } else {
        let bump = !flags.has(b'u');
        let found = store.get(&key, now, bump, |item| hit(item, false));
        if found.is_none() && !flags.has(b'q') {
            command.code(b"EN", output, &flags);
        }
    }
    Ok(())
}

fn set<'a>(
    session: &Session,
    command: &Command<'a, impl Iterator<Item = &'a [u8]> + Clone>,
    len: usize,
    rest: &[u8],
    now: u64,
    output: &mut Vec<u8>,
) -> Step {
    let parsed = Flags::parse(command.words.clone(), b"bcCEFIkMNOqsT", now).and_then(|flags| {
        let key = flags.key(command.sent)?;
        plain_key_len(&key)?;
        let mode = match flags.mode.map(|mode| mode.to_ascii_uppercase()) {
            None | Some(b'S') => Mode::Set,
            Some(b'E') => Mode::Add,
            Some(b'R') => Mode::Replace,
            Some(b'A') => Mode::Append,
            Some(b'P') => Mode::Prepend,
            Some(_) => return Err(b"CLIENT_ERROR invalid mode for ms M token\r\n"),
        };
        Ok((flags, key, mode))
    });
    let (flags, key, mode) = match parsed {
        Ok(parsed) => parsed,
        Err(error) => {
            output.extend_from_slice(error);
            return Step::Swallow(len.saturating_add(2));
        }
    };
    if len > session.store.item_max() {
        output.extend_from_slice(TOO_LARGE);
        if mode == Mode::Set {
            session.store.refuse_too_large(&key);
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
        key: &key,
        value,
        flags: flags.client_flags,
        expiry: flags.expiry.unwrap_or(Expiry::Never),
        mode,
        cas: flags.cas,
        new_cas: flags.new_cas,
        invalidate: flags.has(b'I'),
        vivify: flags.vivify,
    };
    let (code, cas) = match session.store.put(&put, now) {
        PutOutcome::Stored { .. } if flags.has(b'q') => return Step::Data(len + 2),
        PutOutcome::Stored { cas } => (b"HD", cas),
        PutOutcome::NotStored => (b"NS", 0),
        PutOutcome::Exists => (b"EX", 0),
        PutOutcome::NotFound => (b"NF", 0),
        PutOutcome::TooLarge => {
            output.extend_from_slice(TOO_LARGE);
            return Step::Data(len + 2);
        }
    };
    output.extend_from_slice(code);
    for word in command.words.clone() {
        match word[0] {
            b'c' => push_flag(output, b'c', cas),
            b's' => push_flag(output, b's', len as u64),
            _ => command.echo_one(word, output, &flags),
        }
    }
    output.extend_from_slice(b"\r\n");
    Step::Data(len + 2)
}

fn delete<'a>(
    session: &Session,
    command: &Command<'a, impl Iterator<Item = &'a [u8]> + Clone>,
    now: u64,
    output: &mut Vec<u8>,
) -> Answered {
    let flags = Flags::parse(command.words.clone(), b"bCEIkOqTx", now)?;
    let key = flags.key(command.sent)?;
    plain_key_len(&key)?;
    let delete = Delete {
        cas: flags.cas,
        new_cas: flags.new_cas,
        mark_stale: flags.has(b'I'),
        touch: flags.expiry,
        value_only: flags.has(b'x'),
    };
    let code = match session.store.delete(&key, &delete, now) {
        DeleteOutcome::Exists => b"EX",
        DeleteOutcome::Deleted | DeleteOutcome::NotFound if flags.has(b'q') => return Ok(()),
        DeleteOutcome::Deleted => b"HD",
        DeleteOutcome::NotFound => b"NF",
    };
    command.code(code, output, &flags);
    Ok(())
}

fn arithmetic<'a>(
    session: &Session,
    command: &Command<'a, impl Iterator<Item = &'a [u8]> + Clone>,
    now: u64,
    output: &mut Vec<u8>,
) -> Answered {
    let flags = Flags::parse(command.words.clone(), b"bcCDEJkMNOqtTv", now)?;
    let key = flags.key(command.sent)?;
    plain_key_len(&key)?;
    let increment = match flags.mode {
        None | Some(b'I' | b'i' | b'+') => true,
        Some(b'D' | b'd' | b'-') => false,
        Some(_) => return Err(b"CLIENT_ERROR invalid mode for ma M token\r\n"),
    };
    let delta = Delta {
        increment,
        by: flags.delta.unwrap_or(1),
        cas: flags.cas,
        new_cas: flags.new_cas,
        vivify: flags.vivify.map(|expiry| (expiry, flags.initial)),
        touch: flags.expiry,
    };
    let (value, cas, expiry) = match session.store.delta(&key, &delta, now) {
        DeltaOutcome::Value { value, cas, expiry } => (value, cas, expiry),
        DeltaOutcome::NotFound => {
            command.code(b"NF", output, &flags);
            return Ok(());
        }
        DeltaOutcome::Exists => {
            command.code(b"EX", output, &flags);
            return Ok(());
        }
        DeltaOutcome::NotANumber => return Err(NOT_A_NUMBER),
    };
    if flags.has(b'q') {
        return Ok(());
    }
    let digits = value.checked_ilog10().map_or(1, |log| log + 1);
    if flags.has(b'v') {
        output.extend_from_slice(b"VA ");
        push_number(output, digits.into());
    } else {
        output.extend_from_slice(b"HD");
    }
    for word in command.words.clone() {
        match word[0] {
            b'c' => push_flag(output, b'c', cas),
            b't' => push_ttl(output, expiry, now),
            _ => command.echo_one(word, output, &flags),
        }
    }
    output.extend_from_slice(b"\r\n");
    if flags.has(b'v') {
        push_number(output, value);
        output.extend_from_slice(b"\r\n");
    }
    Ok(())
}

fn debug<'a>(
    session: &Session,
    command: &Command<'a, impl Iterator<Item = &'a [u8]> + Clone>,
    now: u64,
    output: &mut Vec<u8>,
) -> Answered {
    let flags = Flags::parse(command.words.clone(), b"b", now)?;
    let key = flags.key(command.sent)?;
    plain_key_len(&key)?;
    let line = session.store.peek(&key, now, |item| {
        let left = item.expiry.left(now);
        format!(
            " exp={} la={} cas={} fetch={} cls=1 size={}\r\n",
            left.map_or_else(|| "-1".to_owned(), |left| left.to_string()),
            now.saturating_sub(item.last_access),
            item.cas,
            if item.fetched { "yes" } else { "no" },
            Item::cost(key.len(), item.value.len()),
        )
    });
    match line {
        Some(line) => {
            output.extend_from_slice(b"ME ");
            output.extend_from_slice(command.sent);
            output.extend_from_slice(line.as_bytes());
        }
        None => output.extend_from_slice(b"EN\r\n"),
    }
    Ok(())
}

fn push_flag(output: &mut Vec<u8>, letter: u8, value: u64) {
    output.extend_from_slice(&[b' ', letter]);
    push_number(output, value);
}

fn push_ttl(output: &mut Vec<u8>, expiry: Expiry, now: u64) {
    match expiry.left(now) {
        Some(left) => push_flag(output, b't', left),
        None => output.extend_from_slice(b" t-1"),
    }
}
