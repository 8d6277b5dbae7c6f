//! One HTTP connection, with or without TLS, from accept to its graceful end.

use std::convert::Infallible;
use std::fmt;
use std::net::SocketAddr;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::body::Body;
use http::{HeaderValue, Request, Response, Version, header};
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use hyper_util::server::conn::auto;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::time::timeout;
use tokio_rustls::TlsAcceptor;
use tower::Service;
use tracing::debug;

use crate::listener::{OffloadFlag, Stream, Transport};
use crate::server::QUIET;
use crate::stop::Stop;

/// A TLS handshake may take two of these. A machine that stands still in between uses up one at most: what its peers
/// have sent meanwhile still counts.
const TLS_HANDSHAKE_HALF: Duration = Duration::from_secs(5);

/// How connections are served.
#[derive(Clone)]
pub struct Options {
    /// Wraps every connection in TLS.
    pub tls: Option<TlsAcceptor>,
    /// Closes a connection on which no request arrives for this long.
    pub idle: Option<Duration>,
}

impl fmt::Debug for Options {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Options")
            .field("tls", &self.tls.is_some())
            .field("idle", &self.idle)
            .finish()
    }
}

/// What a request handler may know of its connection; in the request's extensions.
#[derive(Debug)]
pub(super) struct Connection {
    pub(super) transport: Transport,
    pub(super) offload: OffloadFlag,
    /// Whether FlexTCP has it, on the NIC or in the slow path.
    pub(super) accelerated: bool,
    pub(super) peer: SocketAddr,
    pub(super) local: Option<SocketAddr>,
    /// The TLS version, if any.
    pub(super) tls: Option<&'static str>,
}

/// Serves one connection until it ends, or until `stop` is asked for and what it has asked for
/// is answered.
pub async fn serve(stream: Stream, router: Router, options: Options, stop: Stop) {
    let mut connection = Connection {
        transport: stream.transport(),
        offload: stream.offload_flag(),
        accelerated: stream.is_accelerated(),
        peer: stream.peer_addr(),
        local: stream.local_addr().ok(),
        tls: None,
    };
    let Some(acceptor) = &options.tls else {
        return serve_http(stream, connection, router, &options, stop).await;
    };
    let mut handshake = pin!(acceptor.accept(stream));
    let mut result = timeout(TLS_HANDSHAKE_HALF, handshake.as_mut()).await;
    if result.is_err() {
        result = timeout(TLS_HANDSHAKE_HALF, handshake).await;
    }
    match result {
        Ok(Ok(stream)) => {
            connection.tls = match stream.get_ref().1.protocol_version() {
                Some(rustls::ProtocolVersion::TLSv1_3) => Some("TLS 1.3"),
                Some(rustls::ProtocolVersion::TLSv1_2) => Some("TLS 1.2"),
                _ => Some("TLS"),
            };
            serve_http(stream, connection, router, &options, stop).await;
        }
        Ok(Err(error)) => debug!(peer = %connection.peer, %error, "TLS handshake failed"),
        Err(_) => debug!(peer = %connection.peer, "TLS handshake took too long"),
    }
}

async fn serve_http<S>(
    stream: S,
    connection: Connection,
    router: Router,
    options: &Options,
    stop: Stop,
) where
    S: AsyncRead + AsyncWrite + Send + Unpin + 'static,
{
    let peer = connection.peer;
    let connection = Arc::new(connection);
    let service = service_fn({
        let stop = stop.clone();
        move |request| {
            let response = answer(router.clone(), request, &connection);
            let stop = stop.clone();
            async move {
                let (version, response) = response.await?;
                Ok::<_, Infallible>(last_if_stopping(response, version, &stop))
            }
        }
    });

    let builder = builder(options.idle);
    let mut http = pin!(builder.serve_connection(TokioIo::new(stream), service));
    let result = match stop.watch().race(&mut http).await {
        Some(result) => result,
        // A request may be on its way: hyper would close an idle connection without a look.
        None => match timeout(QUIET, http.as_mut()).await {
            Ok(result) => result,
            Err(_) => {
                http.as_mut().graceful_shutdown();
                http.await
            }
        },
    };
    if let Err(error) = result {
        debug!(%peer, %error, "connection ended with an error");
    }
}

fn builder(idle: Option<Duration>) -> auto::Builder<TokioExecutor> {
    let mut builder = auto::Builder::new(TokioExecutor::new());
    // Not `pipeline_flush`: with it hyper takes in the whole body of a response, however slow its reader is.
    builder.http1().half_close(true).header_read_timeout(idle);
    builder
        .http2()
        .initial_stream_window_size(1 << 20)
        .initial_connection_window_size(4 << 20)
        .max_concurrent_streams(1000);
    if let Some(idle) = idle {
        builder.http1().timer(TokioTimer::new());
        builder
            .http2()
            .timer(TokioTimer::new())
            .keep_alive_interval(idle)
            .keep_alive_timeout(idle);
    }
    builder
}

fn answer(
    mut router: Router,
    request: Request<Incoming>,
    connection: &Arc<Connection>,
) -> impl Future<Output = Result<(Version, Response<Body>), Infallible>> + use<> {
    let version = request.version();
    let mut request = request.map(Body::new);
    request.extensions_mut().insert(Arc::clone(connection));
    let response = router.call(request);
    async move { Ok((version, response.await?)) }
}

/// Tells an HTTP/1 client that this was the connection's last response. HTTP/2 has its own way
/// (GOAWAY) and forbids the header: RFC 9113 section 8.2.2.
fn last_if_stopping(mut response: Response<Body>, version: Version, stop: &Stop) -> Response<Body> {
    if version < Version::HTTP_2 && stop.is_requested() {
        response
            .headers_mut()
            .insert(header::CONNECTION, HeaderValue::from_static("close"));
    }
    response
}

#[cfg(test)]
mod tests {
    use std::pin::Pin;
    use std::sync::atomic::{AtomicU64, Ordering};
    use std::task::{Context, Poll};

    use bytes::Bytes;
    use hyper::body::Frame;
    use tokio::io::AsyncWriteExt as _;

    use super::*;

    const CHUNK: u64 = 256 << 10;

    /// A body without an end worth waiting for, that counts what is taken of it.
    struct Endless(Arc<AtomicU64>);

    impl hyper::body::Body for Endless {
        type Data = Bytes;
        type Error = Infallible;

        fn poll_frame(
            self: Pin<&mut Self>,
            _: &mut Context<'_>,
        ) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
            if self.0.fetch_add(CHUNK, Ordering::Relaxed) >= 1 << 30 {
                return Poll::Ready(None);
            }
            let chunk = Bytes::from_static(&[0; CHUNK as usize]);
            Poll::Ready(Some(Ok(Frame::data(chunk))))
        }
    }

    #[tokio::test]
    async fn a_reader_that_does_not_read_makes_nobody_take_in_the_body() {
        let taken = Arc::new(AtomicU64::new(0));
        let (mut client, server) = tokio::io::duplex(64 << 10);
        let count = Arc::clone(&taken);
        let service = service_fn(move |_: Request<Incoming>| {
            let body = Endless(Arc::clone(&count));
            async move { Ok::<_, Infallible>(Response::new(body)) }
        });
        let served = tokio::spawn(async move {
            let builder = builder(None);
            let served = builder.serve_connection(TokioIo::new(server), service);
            served.await.map_err(|error| error.to_string())
        });
        let request = b"GET / HTTP/1.1\r\nHost: here\r\n\r\n";
        client.write_all(request).await.unwrap();
        while taken.load(Ordering::Relaxed) == 0 {
            tokio::task::yield_now().await;
        }
        for _ in 0..1000 {
            tokio::task::yield_now().await;
        }
        let taken = taken.load(Ordering::Relaxed);
        assert!(taken <= 8 << 20, "{taken} bytes for a pipe of 64 KiB");
        served.abort();
    }
}
