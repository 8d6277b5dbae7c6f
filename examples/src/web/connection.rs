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

const TLS_HANDSHAKE_LIMIT: Duration = Duration::from_secs(10);

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
    match timeout(TLS_HANDSHAKE_LIMIT, acceptor.accept(stream)).await {
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
    builder
        .http1()
        .half_close(true)
        .pipeline_flush(true)
        .header_read_timeout(idle);
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
