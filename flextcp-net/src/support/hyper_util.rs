//! Connectors for hyper-util's client and tonic's channel.

use std::future::Future;
use std::io;
use std::pin::Pin;
use std::task::{Context, Poll};

use http::Uri;
use hyper_util::rt::TokioIo;
use tower::Service;

use crate::TcpStream;

#[cfg(all(target_os = "linux", not(feature = "kernel")))]
impl hyper_util::client::legacy::connect::Connection for TcpStream {
    fn connected(&self) -> hyper_util::client::legacy::connect::Connected {
        hyper_util::client::legacy::connect::Connected::new()
    }
}

/// Connects to an URI's host and port over [`TcpStream`], without TLS: what `HttpConnector` is for tokio's stream.
#[derive(Clone, Debug)]
pub struct FlexConnector {
    nodelay: bool,
}

impl FlexConnector {
    /// A connector that turns Nagle's algorithm off.
    pub const fn new() -> Self {
        Self { nodelay: true }
    }

    /// Whether connections have Nagle's algorithm off.
    #[must_use]
    pub const fn nodelay(mut self, nodelay: bool) -> Self {
        self.nodelay = nodelay;
        self
    }
}

impl Default for FlexConnector {
    fn default() -> Self {
        Self::new()
    }
}

/// Host, without an IPv6 address's brackets, and port.
fn target(uri: &Uri) -> io::Result<(String, u16)> {
    let host = uri.host().ok_or_else(|| {
        io::Error::new(
            io::ErrorKind::InvalidInput,
            format!("no host to connect to in {uri}"),
        )
    })?;
    let host = host
        .strip_prefix('[')
        .and_then(|host| host.strip_suffix(']'))
        .unwrap_or(host);
    let scheme_port = if uri.scheme_str() == Some("https") {
        443
    } else {
        80
    };
    let port = uri.port_u16().unwrap_or(scheme_port);
    Ok((host.to_owned(), port))
}

impl Service<Uri> for FlexConnector {
    type Response = TokioIo<TcpStream>;
    type Error = io::Error;
    type Future = Pin<Box<dyn Future<Output = io::Result<Self::Response>> + Send>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, uri: Uri) -> Self::Future {
        let nodelay = self.nodelay;
        Box::pin(async move {
            let stream = TcpStream::connect(target(&uri)?).await?;
            stream.set_nodelay(nodelay)?;
            Ok(TokioIo::new(stream))
        })
    }
}

#[cfg(test)]
mod tests {
    use super::target;

    #[test]
    fn an_uri_gives_host_and_port() {
        let of = |uri: &str| target(&uri.parse().unwrap()).unwrap();
        assert_eq!(of("http://example.org/a"), ("example.org".to_owned(), 80));
        assert_eq!(of("https://example.org"), ("example.org".to_owned(), 443));
        assert_eq!(of("http://[::1]:8080"), ("::1".to_owned(), 8080));
        assert!(target(&"/path".parse().unwrap()).is_err());
    }
}
