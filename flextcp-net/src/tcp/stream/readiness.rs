//! When a stream may be read and written.

use std::io;
use std::task::{Context, Poll};

use tokio::io::{Interest, Ready};

use super::{Inner, TcpStream, either};

impl TcpStream {
    /// Waits for any of `interest`. The result may be a false positive: an operation after it may say `WouldBlock`.
    ///
    /// # Errors
    /// The runtime is being shut down.
    ///
    /// # Cancel safety
    /// Safe: once ready, it stays ready until an operation says `WouldBlock`.
    ///
    /// # Examples
    /// ```no_run
    /// # async fn example() -> std::io::Result<()> {
    /// use flextcp_net::TcpStream;
    /// use tokio::io::Interest;
    ///
    /// let stream = TcpStream::connect("192.0.2.1:80").await?;
    /// let ready = stream.ready(Interest::READABLE | Interest::WRITABLE).await?;
    /// if ready.is_read_closed() {
    ///     println!("the peer has sent its last byte");
    /// }
    /// # Ok(())
    /// # }
    /// ```
    pub async fn ready(&self, interest: Interest) -> io::Result<Ready> {
        either!(self, stream => stream.ready(interest).await)
    }

    /// Waits until the stream may be readable.
    ///
    /// # Errors
    /// The runtime is being shut down.
    ///
    /// # Cancel safety
    /// Safe, as [`ready`](Self::ready).
    ///
    /// # Examples
    /// ```no_run
    /// # async fn example() -> std::io::Result<()> {
    /// use flextcp_net::TcpStream;
    /// use std::io::ErrorKind;
    ///
    /// let stream = TcpStream::connect("192.0.2.1:80").await?;
    /// let mut buf = [0; 4096];
    /// loop {
    ///     stream.readable().await?;
    ///     match stream.try_read(&mut buf) {
    ///         Ok(0) => break,
    ///         Ok(n) => println!("{n} bytes"),
    ///         Err(error) if error.kind() == ErrorKind::WouldBlock => continue,
    ///         Err(error) => return Err(error),
    ///     }
    /// }
    /// # Ok(())
    /// # }
    /// ```
    pub async fn readable(&self) -> io::Result<()> {
        self.ready(Interest::READABLE).await?;
        Ok(())
    }

    /// Polls for read readiness. Only the last caller of a polling read method is woken.
    pub fn poll_read_ready(&self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        either!(self, stream => stream.poll_read_ready(cx))
    }

    /// Waits until the stream may be writable.
    ///
    /// # Errors
    /// The runtime is being shut down.
    ///
    /// # Cancel safety
    /// Safe, as [`ready`](Self::ready).
    ///
    /// # Examples
    /// ```no_run
    /// # async fn example() -> std::io::Result<()> {
    /// use flextcp_net::TcpStream;
    /// use std::io::ErrorKind;
    ///
    /// let stream = TcpStream::connect("192.0.2.1:80").await?;
    /// let n = loop {
    ///     stream.writable().await?;
    ///     match stream.try_write(b"hello") {
    ///         Err(error) if error.kind() == ErrorKind::WouldBlock => continue,
    ///         result => break result?,
    ///     }
    /// };
    /// # let _ = n;
    /// # Ok(())
    /// # }
    /// ```
    pub async fn writable(&self) -> io::Result<()> {
        self.ready(Interest::WRITABLE).await?;
        Ok(())
    }

    /// Polls for write readiness. Only the last caller of a polling write method is woken.
    pub fn poll_write_ready(&self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        either!(self, stream => stream.poll_write_ready(cx))
    }

    /// Runs `f` if the stream is ready for `interest`, and forgets the readiness when it says `WouldBlock`.
    ///
    /// # Errors
    /// `WouldBlock` when not ready, else those of `f`.
    pub fn try_io<R>(
        &self,
        interest: Interest,
        f: impl FnOnce() -> io::Result<R>,
    ) -> io::Result<R> {
        match &self.inner {
            Inner::Kernel(stream) => stream.try_io(interest, f),
            Inner::Flex(flex) => flex.stream().try_io(interest, || flex.shadow.run(f)),
        }
    }

    /// Runs `f` when the stream is ready for `interest`, again as long as it says `WouldBlock`.
    ///
    /// # Errors
    /// Those of `f`; the runtime is being shut down.
    ///
    /// # Cancel safety
    /// As `f`: it runs between awaits.
    ///
    /// # Examples
    /// ```no_run
    /// # async fn example() -> std::io::Result<()> {
    /// use flextcp_net::TcpStream;
    /// use tokio::io::Interest;
    ///
    /// let stream = TcpStream::connect("192.0.2.1:80").await?;
    /// let mut buf = [0; 4096];
    /// let n = stream
    ///     .async_io(Interest::READABLE, || stream.try_read(&mut buf))
    ///     .await?;
    /// # let _ = n;
    /// # Ok(())
    /// # }
    /// ```
    pub async fn async_io<R>(
        &self,
        interest: Interest,
        mut f: impl FnMut() -> io::Result<R>,
    ) -> io::Result<R> {
        match &self.inner {
            Inner::Kernel(stream) => stream.async_io(interest, f).await,
            Inner::Flex(flex) => {
                let operation = || flex.shadow.run(&mut f);
                flex.stream().async_io(interest, operation).await
            }
        }
    }
}
