//! The extensions on either kind of socket.

use std::io;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::Bytes;
use flextcp_rt::options::SocketOption;
use flextcp_rt::socket::RecvBytes;

use super::{KeepAlive, TcpInfo, kernel};
use crate::tcp::stream::{Inner, TcpStream};

pub(super) const fn is_accelerated(stream: &TcpStream) -> bool {
    matches!(stream.inner, Inner::Flex(_))
}

pub(super) fn is_offloaded(stream: &TcpStream) -> bool {
    match &stream.inner {
        Inner::Kernel(_) => false,
        Inner::Flex(flex) => flex.stream().is_offloaded(),
    }
}

pub(super) fn info(stream: &TcpStream) -> Option<TcpInfo> {
    match &stream.inner {
        Inner::Kernel(_) => None,
        Inner::Flex(flex) => flex.stream().info(),
    }
}

pub(super) fn try_read_chunk(stream: &TcpStream, max: usize) -> io::Result<Bytes> {
    match &stream.inner {
        Inner::Kernel(stream) => kernel::try_read_chunk(stream, max),
        Inner::Flex(flex) => flex.stream().try_read_chunk(max),
    }
}

pub(super) fn keepalive(stream: &TcpStream) -> io::Result<Option<KeepAlive>> {
    match &stream.inner {
        Inner::Kernel(stream) => kernel::keepalive(stream),
        Inner::Flex(flex) => Ok(flex.stream().keepalive()),
    }
}

pub(super) fn set_keepalive(stream: &TcpStream, keepalive: Option<KeepAlive>) -> io::Result<()> {
    match &stream.inner {
        Inner::Kernel(stream) => kernel::set_keepalive(stream, keepalive)?,
        Inner::Flex(flex) => flex.set(SocketOption::KeepAlive(keepalive)),
    }
    Ok(())
}

pub(super) fn user_timeout(stream: &TcpStream) -> io::Result<Option<Duration>> {
    match &stream.inner {
        Inner::Kernel(stream) => kernel::user_timeout(stream),
        Inner::Flex(flex) => Ok(flex.stream().options().user_timeout),
    }
}

pub(super) fn set_user_timeout(stream: &TcpStream, timeout: Option<Duration>) -> io::Result<()> {
    match &stream.inner {
        Inner::Kernel(stream) => kernel::set_user_timeout(stream, timeout)?,
        Inner::Flex(flex) => flex.set(SocketOption::UserTimeout(timeout)),
    }
    Ok(())
}

pub(super) fn congestion(stream: &TcpStream) -> io::Result<String> {
    match &stream.inner {
        Inner::Kernel(stream) => kernel::congestion(stream),
        Inner::Flex(flex) => {
            let stream = flex.stream();
            let set = stream.options().congestion;
            let name = set.or_else(|| stream.info().map(|info| info.congestion));
            name.map(str::to_owned)
                .ok_or_else(|| io::ErrorKind::NotConnected.into())
        }
    }
}

pub(super) fn set_congestion(stream: &TcpStream, name: &str) -> io::Result<()> {
    match &stream.inner {
        Inner::Kernel(stream) => kernel::set_congestion(stream, name)?,
        Inner::Flex(flex) => {
            let known = crate::tcp::congestion_name(name).ok_or_else(|| {
                io::Error::new(
                    io::ErrorKind::NotFound,
                    format!("no congestion control is called {name:?}; there are reno, cubic, dctcp, bbr"),
                )
            })?;
            flex.set(SocketOption::Congestion(known));
        }
    }
    Ok(())
}

/// What `fill_buf` shows.
#[derive(Debug, Default)]
pub(super) struct Filled {
    kernel: kernel::Filled,
    chunk: Option<RecvBytes>,
}

impl Filled {
    pub(super) fn bytes(&self) -> &[u8] {
        self.chunk.as_deref().unwrap_or_else(|| self.kernel.bytes())
    }

    pub(super) fn poll_fill(
        &mut self,
        stream: &TcpStream,
        cx: &mut Context<'_>,
    ) -> Poll<io::Result<()>> {
        match &stream.inner {
            Inner::Kernel(stream) => self.kernel.poll_fill(stream, cx),
            Inner::Flex(flex) => {
                self.chunk = Some(ready!(flex.stream().poll_fill(cx))?);
                Poll::Ready(Ok(()))
            }
        }
    }

    pub(super) fn consume(&mut self, stream: &TcpStream, n: usize) {
        match &stream.inner {
            Inner::Kernel(stream) => self.kernel.consume(stream, n),
            Inner::Flex(flex) => {
                // Unpinned first: space is free when the doorbell tells of it. The rest is shown again.
                self.chunk = None;
                flex.stream().consume(n);
            }
        }
    }
}
