//! The extensions on a kernel socket.

use std::io;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::{Buf, BufMut, Bytes, BytesMut};
use socket2::SockRef;
use tokio::net::TcpStream;

use super::KeepAlive;
use crate::sockopt;

/// Most bytes that a chunk holds.
const CHUNK: usize = 64 << 10;

#[cfg(any(not(target_os = "linux"), feature = "kernel"))]
pub(super) const fn is_accelerated(_: &TcpStream) -> bool {
    false
}

#[cfg(any(not(target_os = "linux"), feature = "kernel"))]
pub(super) const fn is_offloaded(_: &TcpStream) -> bool {
    false
}

#[cfg(any(not(target_os = "linux"), feature = "kernel"))]
pub(super) const fn info(_: &TcpStream) -> Option<super::TcpInfo> {
    None
}

pub(super) fn try_read_chunk(stream: &TcpStream, max: usize) -> io::Result<Bytes> {
    let room = max.min(CHUNK);
    let mut chunk = BytesMut::with_capacity(room);
    stream.try_read_buf(&mut (&mut chunk).limit(room))?;
    Ok(chunk.freeze())
}

pub(super) fn keepalive(stream: &TcpStream) -> io::Result<Option<KeepAlive>> {
    sockopt::keepalive(&SockRef::from(stream))
}

pub(super) fn set_keepalive(stream: &TcpStream, keepalive: Option<KeepAlive>) -> io::Result<()> {
    sockopt::set_keepalive(&SockRef::from(stream), keepalive)
}

pub(super) fn user_timeout(stream: &TcpStream) -> io::Result<Option<Duration>> {
    sockopt::user_timeout(&SockRef::from(stream))
}

pub(super) fn set_user_timeout(stream: &TcpStream, timeout: Option<Duration>) -> io::Result<()> {
    sockopt::set_user_timeout(&SockRef::from(stream), timeout)
}

pub(super) fn congestion(stream: &TcpStream) -> io::Result<String> {
    sockopt::congestion(&SockRef::from(stream))
}

pub(super) fn set_congestion(stream: &TcpStream, name: &str) -> io::Result<()> {
    sockopt::set_congestion(&SockRef::from(stream), name)
}

/// What `fill_buf` shows.
#[derive(Debug, Default)]
pub(super) struct Filled(BytesMut);

impl Filled {
    pub(super) fn bytes(&self) -> &[u8] {
        &self.0
    }

    pub(super) fn poll_fill(
        &mut self,
        stream: &TcpStream,
        cx: &mut Context<'_>,
    ) -> Poll<io::Result<()>> {
        loop {
            ready!(stream.poll_read_ready(cx))?;
            self.0.reserve(CHUNK);
            match stream.try_read_buf(&mut self.0) {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                result => return Poll::Ready(result.map(drop)),
            }
        }
    }

    pub(super) fn consume(&mut self, _: &TcpStream, n: usize) {
        self.0.advance(n);
    }
}
