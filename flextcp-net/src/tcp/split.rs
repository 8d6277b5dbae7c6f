//! Halves that borrow the stream.

use std::future::poll_fn;
use std::io::{self, IoSlice, IoSliceMut};
use std::net::SocketAddr;
use std::pin::Pin;
use std::task::{Context, Poll};

use bytes::BufMut;
use tokio::io::{AsyncRead, AsyncWrite, Interest, ReadBuf, Ready};

use super::stream::TcpStream;

/// The reading half of a [`TcpStream`], from [`split`](TcpStream::split).
#[derive(Debug)]
pub struct ReadHalf<'a>(pub(super) &'a TcpStream);

/// The writing half of a [`TcpStream`], from [`split`](TcpStream::split). Shutting it down shuts the stream's write
/// direction down; dropping it does not.
#[derive(Debug)]
pub struct WriteHalf<'a>(pub(super) &'a TcpStream);

macro_rules! read_half {
    ($type:ty, $self:ident => $stream:expr) => {
        impl $type {
            /// [`TcpStream::poll_peek`].
            pub fn poll_peek(
                &mut $self,
                cx: &mut Context<'_>,
                buf: &mut ReadBuf<'_>,
            ) -> Poll<io::Result<usize>> {
                $stream.poll_peek(cx, buf)
            }

            /// [`TcpStream::peek`].
            ///
            /// # Errors
            /// The connection's error.
            ///
            /// # Cancel safety
            /// Safe: nothing is taken.
            pub async fn peek(&mut $self, buf: &mut [u8]) -> io::Result<usize> {
                let mut buf = ReadBuf::new(buf);
                poll_fn(|cx| $stream.poll_peek(cx, &mut buf)).await
            }

            /// [`TcpStream::ready`].
            ///
            /// # Errors
            /// The runtime is being shut down.
            ///
            /// # Cancel safety
            /// Safe: once ready, it stays ready until an operation says `WouldBlock`.
            pub async fn ready(&$self, interest: Interest) -> io::Result<Ready> {
                $stream.ready(interest).await
            }

            /// [`TcpStream::readable`].
            ///
            /// # Errors
            /// The runtime is being shut down.
            ///
            /// # Cancel safety
            /// Safe, as [`ready`](Self::ready).
            pub async fn readable(&$self) -> io::Result<()> {
                $stream.readable().await
            }

            /// [`TcpStream::try_read`].
            ///
            /// # Errors
            /// `WouldBlock` when nothing is there.
            pub fn try_read(&$self, buf: &mut [u8]) -> io::Result<usize> {
                $stream.try_read(buf)
            }

            /// [`TcpStream::try_read_vectored`].
            ///
            /// # Errors
            /// `WouldBlock` when nothing is there.
            pub fn try_read_vectored(&$self, bufs: &mut [IoSliceMut<'_>]) -> io::Result<usize> {
                $stream.try_read_vectored(bufs)
            }

            /// [`TcpStream::try_read_buf`].
            ///
            /// # Errors
            /// `WouldBlock` when nothing is there.
            pub fn try_read_buf<B: BufMut>(&$self, buf: &mut B) -> io::Result<usize> {
                $stream.try_read_buf(buf)
            }

            /// [`TcpStream::peer_addr`].
            ///
            /// # Errors
            /// `NotConnected` once the connection was reset.
            pub fn peer_addr(&$self) -> io::Result<SocketAddr> {
                $stream.peer_addr()
            }

            /// [`TcpStream::local_addr`].
            ///
            /// # Errors
            /// Those of `getsockname`.
            pub fn local_addr(&$self) -> io::Result<SocketAddr> {
                $stream.local_addr()
            }
        }

        impl AsyncRead for $type {
            fn poll_read(
                $self: Pin<&mut Self>,
                cx: &mut Context<'_>,
                buf: &mut ReadBuf<'_>,
            ) -> Poll<io::Result<()>> {
                $stream.poll_read_shared(cx, buf)
            }
        }

        impl AsRef<TcpStream> for $type {
            fn as_ref(&$self) -> &TcpStream {
                &$stream
            }
        }
    };
}

macro_rules! write_half {
    ($type:ty, $self:ident => $stream:expr) => {
        impl $type {
            /// [`TcpStream::ready`].
            ///
            /// # Errors
            /// The runtime is being shut down.
            ///
            /// # Cancel safety
            /// Safe: once ready, it stays ready until an operation says `WouldBlock`.
            pub async fn ready(&$self, interest: Interest) -> io::Result<Ready> {
                $stream.ready(interest).await
            }

            /// [`TcpStream::writable`].
            ///
            /// # Errors
            /// The runtime is being shut down.
            ///
            /// # Cancel safety
            /// Safe, as [`ready`](Self::ready).
            pub async fn writable(&$self) -> io::Result<()> {
                $stream.writable().await
            }

            /// [`TcpStream::try_write`].
            ///
            /// # Errors
            /// `WouldBlock` when nothing fits; `BrokenPipe` after a shutdown.
            pub fn try_write(&$self, buf: &[u8]) -> io::Result<usize> {
                $stream.try_write(buf)
            }

            /// [`TcpStream::try_write_vectored`].
            ///
            /// # Errors
            /// As [`try_write`](Self::try_write).
            pub fn try_write_vectored(&$self, bufs: &[IoSlice<'_>]) -> io::Result<usize> {
                $stream.try_write_vectored(bufs)
            }

            /// [`TcpStream::peer_addr`].
            ///
            /// # Errors
            /// `NotConnected` once the connection was reset.
            pub fn peer_addr(&$self) -> io::Result<SocketAddr> {
                $stream.peer_addr()
            }

            /// [`TcpStream::local_addr`].
            ///
            /// # Errors
            /// Those of `getsockname`.
            pub fn local_addr(&$self) -> io::Result<SocketAddr> {
                $stream.local_addr()
            }
        }

        impl AsRef<TcpStream> for $type {
            fn as_ref(&$self) -> &TcpStream {
                &$stream
            }
        }
    };
}

pub(super) use {read_half, write_half};

read_half!(ReadHalf<'_>, self => *self.0);
write_half!(WriteHalf<'_>, self => *self.0);

impl AsyncWrite for WriteHalf<'_> {
    fn poll_write(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        self.0.poll_write_shared(cx, buf)
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        self.0.poll_write_vectored_shared(cx, bufs)
    }

    fn is_write_vectored(&self) -> bool {
        true
    }

    /// TCP has nothing to flush.
    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    /// Shuts the stream's write direction down.
    fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(self.0.shutdown_write())
    }
}
