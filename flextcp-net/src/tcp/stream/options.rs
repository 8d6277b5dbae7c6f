//! Options of a stream.

use std::io;
use std::time::Duration;

use flextcp_rt::options::SocketOption;
use socket2::SockRef;

use super::super::hop_limit;
use super::super::shadow::linger_seconds;
use super::{Inner, TcpStream};

impl TcpStream {
    /// `TCP_NODELAY`: whether Nagle's algorithm is off.
    ///
    /// # Errors
    /// The option could not be read.
    ///
    /// # Examples
    /// ```no_run
    /// # async fn example() -> std::io::Result<()> {
    /// use flextcp_net::TcpStream;
    ///
    /// let stream = TcpStream::connect("192.0.2.1:80").await?;
    /// assert!(!stream.nodelay()?);
    /// # Ok(())
    /// # }
    /// ```
    pub fn nodelay(&self) -> io::Result<bool> {
        match &self.inner {
            Inner::Kernel(stream) => stream.nodelay(),
            Inner::Flex(flex) => Ok(flex.stream().nodelay()),
        }
    }

    /// Sets `TCP_NODELAY`: segments are sent as soon as possible, also short ones.
    ///
    /// # Errors
    /// The option could not be set.
    ///
    /// # Examples
    /// ```no_run
    /// # async fn example() -> std::io::Result<()> {
    /// use flextcp_net::TcpStream;
    ///
    /// let stream = TcpStream::connect("192.0.2.1:80").await?;
    /// stream.set_nodelay(true)?;
    /// # Ok(())
    /// # }
    /// ```
    pub fn set_nodelay(&self, nodelay: bool) -> io::Result<()> {
        match &self.inner {
            Inner::Kernel(stream) => stream.set_nodelay(nodelay)?,
            Inner::Flex(flex) => flex.set(SocketOption::NoDelay(nodelay)),
        }
        Ok(())
    }

    /// `TCP_QUICKACK`: whether acknowledgements are sent at once.
    ///
    /// # Errors
    /// The option could not be read.
    pub fn quickack(&self) -> io::Result<bool> {
        match &self.inner {
            Inner::Kernel(stream) => stream.quickack(),
            Inner::Flex(flex) => Ok(flex.stream().quickack()),
        }
    }

    /// Sets `TCP_QUICKACK`. It is not permanent: the stack may leave the mode by itself.
    ///
    /// # Errors
    /// The option could not be set.
    ///
    /// # Examples
    /// ```no_run
    /// # async fn example() -> std::io::Result<()> {
    /// use flextcp_net::TcpStream;
    ///
    /// let stream = TcpStream::connect("192.0.2.1:80").await?;
    /// stream.set_quickack(true)?;
    /// # Ok(())
    /// # }
    /// ```
    pub fn set_quickack(&self, quickack: bool) -> io::Result<()> {
        match &self.inner {
            Inner::Kernel(stream) => stream.set_quickack(quickack)?,
            Inner::Flex(flex) => flex.set(SocketOption::QuickAck(quickack)),
        }
        Ok(())
    }

    /// `SO_LINGER`.
    ///
    /// # Errors
    /// The option could not be read.
    pub fn linger(&self) -> io::Result<Option<Duration>> {
        match &self.inner {
            Inner::Kernel(stream) => stream.linger(),
            Inner::Flex(flex) => Ok(flex.stream().linger()),
        }
    }

    /// Sets `SO_LINGER`, in whole seconds.
    ///
    /// # Errors
    /// The option could not be set.
    #[deprecated = "`SO_LINGER` causes the socket to block the thread on drop"]
    pub fn set_linger(&self, dur: Option<Duration>) -> io::Result<()> {
        match &self.inner {
            Inner::Kernel(stream) => SockRef::from(stream).set_linger(dur)?,
            Inner::Flex(flex) => flex.set(SocketOption::Linger(linger_seconds(dur))),
        }
        Ok(())
    }

    /// Makes dropping the stream a reset: what was not sent yet is lost.
    ///
    /// # Errors
    /// The option could not be set.
    ///
    /// # Examples
    /// ```no_run
    /// # async fn example() -> std::io::Result<()> {
    /// use flextcp_net::TcpStream;
    ///
    /// let stream = TcpStream::connect("192.0.2.1:80").await?;
    /// // The peer sees a reset, not an end.
    /// stream.set_zero_linger()?;
    /// drop(stream);
    /// # Ok(())
    /// # }
    /// ```
    pub fn set_zero_linger(&self) -> io::Result<()> {
        match &self.inner {
            Inner::Kernel(stream) => stream.set_zero_linger()?,
            Inner::Flex(flex) => flex.set(SocketOption::Linger(Some(Duration::ZERO))),
        }
        Ok(())
    }

    /// `IP_TTL`.
    ///
    /// # Errors
    /// The option could not be read.
    pub fn ttl(&self) -> io::Result<u32> {
        match &self.inner {
            Inner::Kernel(stream) => stream.ttl(),
            Inner::Flex(flex) => Ok(flex.stream().ttl()),
        }
    }

    /// Sets `IP_TTL`, the hop limit of every packet sent.
    ///
    /// # Errors
    /// `InvalidInput` outside of 1 to 255.
    ///
    /// # Examples
    /// ```no_run
    /// # async fn example() -> std::io::Result<()> {
    /// use flextcp_net::TcpStream;
    ///
    /// let stream = TcpStream::connect("192.0.2.1:80").await?;
    /// // To the next router and no further.
    /// stream.set_ttl(1)?;
    /// # Ok(())
    /// # }
    /// ```
    pub fn set_ttl(&self, ttl: u32) -> io::Result<()> {
        match &self.inner {
            Inner::Kernel(stream) => stream.set_ttl(ttl)?,
            Inner::Flex(flex) => flex.set(SocketOption::Ttl(hop_limit(ttl)?)),
        }
        Ok(())
    }
}
