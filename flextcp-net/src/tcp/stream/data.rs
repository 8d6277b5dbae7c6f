//! Reading and writing.

use std::io::{self, IoSlice, IoSliceMut};
use std::pin::Pin;
use std::task::{Context, Poll};

use bytes::BufMut;
use socket2::SockRef;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use super::{Inner, TcpStream, either};

impl TcpStream {
    /// Attempts to receive without removing from the queue; returns how many bytes. `Pending` registers the task;
    /// only the last caller of a polling read method is woken.
    ///
    /// # Examples
    /// ```no_run
    /// # async fn example() -> std::io::Result<()> {
    /// use flextcp_net::TcpStream;
    /// use std::future::poll_fn;
    /// use tokio::io::ReadBuf;
    ///
    /// let stream = TcpStream::connect("192.0.2.1:80").await?;
    /// let mut bytes = [0; 16];
    /// let mut buf = ReadBuf::new(&mut bytes);
    /// let n = poll_fn(|cx| stream.poll_peek(cx, &mut buf)).await?;
    /// # Ok(())
    /// # }
    /// ```
    pub fn poll_peek(
        &self,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<usize>> {
        either!(self, stream => stream.poll_peek(cx, buf))
    }

    /// Receives without removing from the queue; returns how many bytes, 0 at the end of the stream.
    ///
    /// # Errors
    /// The connection's error.
    ///
    /// # Cancel safety
    /// Safe: nothing is taken.
    ///
    /// # Examples
    /// ```no_run
    /// # async fn example() -> std::io::Result<()> {
    /// use flextcp_net::TcpStream;
    /// use tokio::io::AsyncReadExt;
    ///
    /// let mut stream = TcpStream::connect("192.0.2.1:80").await?;
    /// let mut first = [0; 1];
    /// stream.peek(&mut first).await?;
    /// let is_tls = first[0] == 22;
    /// // Whoever reads next gets that byte too.
    /// # let _ = (is_tls, stream.read_u8().await?);
    /// # Ok(())
    /// # }
    /// ```
    pub async fn peek(&self, buf: &mut [u8]) -> io::Result<usize> {
        either!(self, stream => stream.peek(buf).await)
    }

    /// Reads without waiting; 0 is the end of the stream, or of an empty `buf`.
    ///
    /// # Errors
    /// `WouldBlock` when nothing is there.
    ///
    /// # Examples
    /// ```no_run
    /// # async fn example() -> std::io::Result<()> {
    /// use flextcp_net::TcpStream;
    ///
    /// let stream = TcpStream::connect("192.0.2.1:80").await?;
    /// stream.readable().await?;
    /// let mut buf = [0; 4096];
    /// let n = stream.try_read(&mut buf)?;
    /// # let _ = n;
    /// # Ok(())
    /// # }
    /// ```
    pub fn try_read(&self, buf: &mut [u8]) -> io::Result<usize> {
        either!(self, stream => stream.try_read(buf))
    }

    /// [`try_read`](Self::try_read) into several buffers, in order.
    ///
    /// # Errors
    /// As [`try_read`](Self::try_read).
    ///
    /// # Examples
    /// ```no_run
    /// # async fn example() -> std::io::Result<()> {
    /// use flextcp_net::TcpStream;
    /// use std::io::IoSliceMut;
    ///
    /// let stream = TcpStream::connect("192.0.2.1:80").await?;
    /// stream.readable().await?;
    /// let (mut head, mut body) = ([0; 16], [0; 4096]);
    /// let n = stream.try_read_vectored(&mut [
    ///     IoSliceMut::new(&mut head),
    ///     IoSliceMut::new(&mut body),
    /// ])?;
    /// # let _ = n;
    /// # Ok(())
    /// # }
    /// ```
    pub fn try_read_vectored(&self, bufs: &mut [IoSliceMut<'_>]) -> io::Result<usize> {
        either!(self, stream => stream.try_read_vectored(bufs))
    }

    /// [`try_read`](Self::try_read), appending to `buf` and advancing it.
    ///
    /// # Errors
    /// As [`try_read`](Self::try_read).
    ///
    /// # Examples
    /// ```no_run
    /// # async fn example() -> std::io::Result<()> {
    /// use flextcp_net::TcpStream;
    ///
    /// let stream = TcpStream::connect("192.0.2.1:80").await?;
    /// stream.readable().await?;
    /// let mut buf = Vec::with_capacity(4096);
    /// stream.try_read_buf(&mut buf)?;
    /// # Ok(())
    /// # }
    /// ```
    pub fn try_read_buf<B: BufMut>(&self, buf: &mut B) -> io::Result<usize> {
        either!(self, stream => stream.try_read_buf(buf))
    }

    /// Writes as much as fits without waiting; returns how many bytes.
    ///
    /// # Errors
    /// `WouldBlock` when nothing fits; `BrokenPipe` after a shutdown.
    ///
    /// # Examples
    /// ```no_run
    /// # async fn example() -> std::io::Result<()> {
    /// use flextcp_net::TcpStream;
    ///
    /// let stream = TcpStream::connect("192.0.2.1:80").await?;
    /// stream.writable().await?;
    /// let n = stream.try_write(b"hello")?;
    /// # let _ = n;
    /// # Ok(())
    /// # }
    /// ```
    pub fn try_write(&self, buf: &[u8]) -> io::Result<usize> {
        either!(self, stream => stream.try_write(buf))
    }

    /// [`try_write`](Self::try_write) of several buffers, in order.
    ///
    /// # Errors
    /// As [`try_write`](Self::try_write).
    ///
    /// # Examples
    /// ```no_run
    /// # async fn example() -> std::io::Result<()> {
    /// use flextcp_net::TcpStream;
    /// use std::io::IoSlice;
    ///
    /// let stream = TcpStream::connect("192.0.2.1:80").await?;
    /// stream.writable().await?;
    /// let n = stream.try_write_vectored(&[IoSlice::new(b"head"), IoSlice::new(b"body")])?;
    /// # let _ = n;
    /// # Ok(())
    /// # }
    /// ```
    pub fn try_write_vectored(&self, bufs: &[IoSlice<'_>]) -> io::Result<usize> {
        either!(self, stream => stream.try_write_vectored(bufs))
    }

    /// Ends the write direction; returns at once.
    pub(in crate::tcp) fn shutdown_write(&self) -> io::Result<()> {
        match &self.inner {
            Inner::Kernel(stream) => {
                match SockRef::from(stream).shutdown(std::net::Shutdown::Write) {
                    // tokio's rule (tokio#4665): a connection that is over is shut down.
                    Err(error) if error.kind() == io::ErrorKind::NotConnected => Ok(()),
                    result => result,
                }
            }
            Inner::Flex(flex) => {
                flex.stream().shutdown_write();
                Ok(())
            }
        }
    }

    pub(in crate::tcp) fn poll_read_shared(
        &self,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        match &self.inner {
            Inner::Kernel(stream) => kernel::poll_read(stream, cx, buf),
            Inner::Flex(flex) => flex.stream().poll_read(cx, buf),
        }
    }

    pub(in crate::tcp) fn poll_write_shared(
        &self,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        match &self.inner {
            Inner::Kernel(stream) => kernel::poll_write(stream, cx, |stream| stream.try_write(buf)),
            Inner::Flex(flex) => flex.stream().poll_write(cx, buf),
        }
    }

    pub(in crate::tcp) fn poll_write_vectored_shared(
        &self,
        cx: &mut Context<'_>,
        bufs: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        match &self.inner {
            Inner::Kernel(stream) => {
                kernel::poll_write(stream, cx, |stream| stream.try_write_vectored(bufs))
            }
            Inner::Flex(flex) => flex.stream().poll_write_vectored(cx, bufs),
        }
    }
}

/// tokio's polling operations want `&mut`; the owned halves share a kernel stream by `&`.
mod kernel {
    use std::io;
    use std::task::{Context, Poll, ready};

    use tokio::io::ReadBuf;
    use tokio::net::TcpStream;

    pub(super) fn poll_read(
        stream: &TcpStream,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        loop {
            ready!(stream.poll_read_ready(cx))?;
            match stream.try_read_buf(buf) {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                result => return Poll::Ready(result.map(drop)),
            }
        }
    }

    pub(super) fn poll_write(
        stream: &TcpStream,
        cx: &mut Context<'_>,
        mut write: impl FnMut(&TcpStream) -> io::Result<usize>,
    ) -> Poll<io::Result<usize>> {
        loop {
            ready!(stream.poll_write_ready(cx))?;
            match write(stream) {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                result => return Poll::Ready(result),
            }
        }
    }
}

impl AsyncRead for TcpStream {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        match &mut self.get_mut().inner {
            Inner::Kernel(stream) => Pin::new(stream).poll_read(cx, buf),
            Inner::Flex(flex) => flex.stream().poll_read(cx, buf),
        }
    }
}

impl AsyncWrite for TcpStream {
    fn poll_write(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        match &mut self.get_mut().inner {
            Inner::Kernel(stream) => Pin::new(stream).poll_write(cx, buf),
            Inner::Flex(flex) => flex.stream().poll_write(cx, buf),
        }
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        match &mut self.get_mut().inner {
            Inner::Kernel(stream) => Pin::new(stream).poll_write_vectored(cx, bufs),
            Inner::Flex(flex) => flex.stream().poll_write_vectored(cx, bufs),
        }
    }

    fn is_write_vectored(&self) -> bool {
        true
    }

    /// TCP has nothing to flush.
    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(self.shutdown_write())
    }
}
