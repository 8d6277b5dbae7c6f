//! The answers to `stats`.

use std::fmt::Display;
use std::sync::atomic::{AtomicU64, Ordering};

use super::session::Session;
use super::text::VERSION;
use crate::listener::Transport;
use crate::stats;
use crate::stop::Stop;

/// What `stats` says beyond the cache itself.
#[derive(Debug)]
pub struct ServerInfo {
    transport: Transport,
    threads: usize,
    listen: String,
    stop: Stop,
    connections: AtomicU64,
    pub(super) bytes_read: AtomicU64,
    pub(super) bytes_written: AtomicU64,
}

impl ServerInfo {
    /// Of a server that listens on `listen` (for people) and ends by `stop`.
    #[must_use]
    pub fn new(transport: Transport, threads: usize, listen: String, stop: Stop) -> Self {
        Self {
            transport,
            threads,
            listen,
            stop,
            connections: AtomicU64::new(0),
            bytes_read: AtomicU64::new(0),
            bytes_written: AtomicU64::new(0),
        }
    }

    pub(super) fn count_connection(&self) {
        self.connections.fetch_add(1, Ordering::Relaxed);
    }
}

struct Lines<'a>(&'a mut Vec<u8>);

impl Lines<'_> {
    fn stat(&mut self, name: impl Display, value: impl Display) {
        self.0
            .extend_from_slice(format!("STAT {name} {value}\r\n").as_bytes());
    }
}

pub(super) fn stats(session: &Session, arguments: &[&[u8]], now: u64, output: &mut Vec<u8>) {
    let mut lines = Lines(output);
    match arguments {
        [] => general(session, now, &mut lines),
        [b"settings"] => settings(session, &mut lines),
        [b"items"] => items(session, now, &mut lines),
        [b"slabs"] => slabs(session, now, &mut lines),
        [b"flextcp"] => flextcp(session, &mut lines),
        [b"sizes" | b"sizes_enable" | b"sizes_disable"] => lines.stat("sizes_status", "disabled"),
        [b"conns", ..] => {
            lines.stat("listen", &session.server.listen);
            lines.stat("curr_connections", session.server.stop.open());
        }
        [b"cachedump", _, _] | [b"detail", b"dump"] => {}
        [b"detail", b"on" | b"off"] => {
            output.extend_from_slice(b"OK\r\n");
            return;
        }
        [b"detail", ..] => {
            output.extend_from_slice(b"CLIENT_ERROR usage: stats detail on|off|dump\r\n");
            return;
        }
        [b"reset"] => {
            session.store.reset_counters();
            output.extend_from_slice(b"RESET\r\n");
            return;
        }
        _ => {
            output.extend_from_slice(b"ERROR\r\n");
            return;
        }
    }
    output.extend_from_slice(b"END\r\n");
}

fn general(session: &Session, now: u64, lines: &mut Lines<'_>) {
    let server = &session.server;
    let totals = session.store.totals(now);
    let counters = &totals.counters;
    lines.stat("pid", std::process::id());
    lines.stat("uptime", session.store.clock.uptime());
    lines.stat("time", now);
    lines.stat("version", VERSION);
    lines.stat("pointer_size", usize::BITS);
    lines.stat("curr_connections", server.stop.open());
    lines.stat(
        "total_connections",
        server.connections.load(Ordering::Relaxed),
    );
    for (name, value) in [
        ("cmd_get", counters.cmd_get),
        ("cmd_set", counters.cmd_set),
        ("cmd_flush", totals.flushes),
        ("cmd_touch", counters.cmd_touch),
        ("get_hits", counters.get_hits),
        ("get_misses", counters.get_misses),
        ("get_expired", counters.get_expired),
        ("get_flushed", counters.get_flushed),
        ("delete_misses", counters.delete_misses),
        ("delete_hits", counters.delete_hits),
        ("incr_misses", counters.incr_misses),
        ("incr_hits", counters.incr_hits),
        ("decr_misses", counters.decr_misses),
        ("decr_hits", counters.decr_hits),
        ("cas_misses", counters.cas_misses),
        ("cas_hits", counters.cas_hits),
        ("cas_badval", counters.cas_badval),
        ("touch_hits", counters.touch_hits),
        ("touch_misses", counters.touch_misses),
        ("store_too_large", counters.too_large),
        ("bytes_read", server.bytes_read.load(Ordering::Relaxed)),
        (
            "bytes_written",
            server.bytes_written.load(Ordering::Relaxed),
        ),
        ("limit_maxbytes", session.store.memory() as u64),
        ("accepting_conns", u64::from(!server.stop.is_requested())),
        ("threads", server.threads as u64),
        ("bytes", totals.bytes),
        ("curr_items", totals.items),
        ("total_items", counters.total_items),
        ("expired_unfetched", counters.expired_unfetched),
        ("evicted_unfetched", counters.evicted_unfetched),
        ("evictions", counters.evictions),
        ("reclaimed", counters.reclaimed),
    ] {
        lines.stat(name, value);
    }
    flextcp(session, lines);
}

/// The network side, with the names of the HTTP example's `/stats`.
fn flextcp(session: &Session, lines: &mut Lines<'_>) {
    let snapshot = stats::snapshot(session.server.transport, &session.server.stop);
    for (name, value) in stats::flatten(&snapshot) {
        lines.stat(name, value);
    }
}

fn settings(session: &Session, lines: &mut Lines<'_>) {
    lines.stat("maxbytes", session.store.memory());
    lines.stat("item_size_max", session.store.item_max());
    lines.stat("inter", &session.server.listen);
    lines.stat("udpport", 0);
    lines.stat("verbosity", 0);
    lines.stat("evictions", "on");
    lines.stat("cas_enabled", "yes");
    lines.stat("num_threads", session.server.threads);
    lines.stat("auth_enabled_sasl", "no");
    lines.stat("binding_protocol", "ascii");
    lines.stat("transport", stats::describe(session.server.transport));
}

fn items(session: &Session, now: u64, lines: &mut Lines<'_>) {
    let totals = session.store.totals(now);
    if totals.items == 0 {
        return;
    }
    let counters = &totals.counters;
    for (name, value) in [
        ("number", totals.items),
        ("age", totals.age),
        ("mem_requested", totals.bytes),
        ("evicted", counters.evictions),
        ("evicted_unfetched", counters.evicted_unfetched),
        ("reclaimed", counters.reclaimed),
        ("expired_unfetched", counters.expired_unfetched),
        ("outofmemory", 0),
    ] {
        // One pool for all sizes, shown as the class 1.
        lines.stat(format_args!("items:1:{name}"), value);
    }
}

fn slabs(session: &Session, now: u64, lines: &mut Lines<'_>) {
    let totals = session.store.totals(now);
    let counters = &totals.counters;
    for (name, value) in [
        ("used_chunks", totals.items),
        ("get_hits", counters.get_hits),
        ("cmd_set", counters.cmd_set),
        ("delete_hits", counters.delete_hits),
        ("incr_hits", counters.incr_hits),
        ("decr_hits", counters.decr_hits),
        ("cas_hits", counters.cas_hits),
        ("cas_badval", counters.cas_badval),
        ("touch_hits", counters.touch_hits),
    ] {
        lines.stat(format_args!("1:{name}"), value);
    }
    lines.stat("active_slabs", 1);
    lines.stat("total_malloced", totals.bytes);
}
