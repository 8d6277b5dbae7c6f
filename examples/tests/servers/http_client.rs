//! A small HTTP client: hyper over a tokio socket.

use std::net::SocketAddr;
use std::sync::Arc;

use bytes::Bytes;
use http_body_util::{BodyExt, Full};
use hyper::client::conn::{http1, http2};
use hyper::{Method, Request, Response};
use hyper_util::rt::{TokioExecutor, TokioIo};
use rustls::pki_types::{CertificateDer, ServerName};
use rustls::{ClientConfig, RootCertStore};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

pub(crate) enum Client {
    Http1(http1::SendRequest<Full<Bytes>>),
    Http2(http2::SendRequest<Full<Bytes>>),
}

impl Client {
    pub(crate) async fn http1(address: SocketAddr) -> Self {
        Self::http1_over(TcpStream::connect(address).await.unwrap()).await
    }

    pub(crate) async fn http2(address: SocketAddr) -> Self {
        Self::http2_over(TcpStream::connect(address).await.unwrap()).await
    }

    pub(crate) async fn http1_over(
        stream: impl AsyncRead + AsyncWrite + Send + Unpin + 'static,
    ) -> Self {
        let (client, connection) = http1::handshake(TokioIo::new(stream)).await.unwrap();
        tokio::spawn(connection);
        Self::Http1(client)
    }

    pub(crate) async fn http2_over(
        stream: impl AsyncRead + AsyncWrite + Send + Unpin + 'static,
    ) -> Self {
        let (client, connection) = http2::handshake(TokioExecutor::new(), TokioIo::new(stream))
            .await
            .unwrap();
        tokio::spawn(connection);
        Self::Http2(client)
    }

    /// Sends one request; the body comes back whole.
    pub(crate) async fn send(
        &mut self,
        method: Method,
        path: &str,
        body: impl Into<Bytes>,
    ) -> hyper::Result<Response<Bytes>> {
        // HTTP/2 takes scheme and authority from the URI, HTTP/1.1 wants the path there.
        let request = match self {
            Self::Http1(_) => Request::builder().uri(path).header("host", "localhost"),
            Self::Http2(_) => Request::builder().uri(format!("http://localhost{path}")),
        };
        let request = request.method(method).body(Full::new(body.into())).unwrap();
        let response = match self {
            Self::Http1(client) => {
                client.ready().await?;
                client.send_request(request).await?
            }
            Self::Http2(client) => {
                client.ready().await?;
                client.send_request(request).await?
            }
        };
        let (head, body) = response.into_parts();
        Ok(Response::from_parts(head, body.collect().await?.to_bytes()))
    }

    pub(crate) async fn get(&mut self, path: &str) -> Response<Bytes> {
        self.send(Method::GET, path, "").await.unwrap()
    }

    pub(crate) async fn get_json(&mut self, path: &str) -> serde_json::Value {
        let response = self.get(path).await;
        assert_eq!(response.status(), 200);
        serde_json::from_slice(response.body()).unwrap()
    }
}

/// Connects with TLS, offering `alpn` and trusting only `certificate`.
pub(crate) async fn tls(
    address: SocketAddr,
    certificate: CertificateDer<'static>,
    alpn: &[&str],
) -> TlsStream<TcpStream> {
    let mut roots = RootCertStore::empty();
    roots.add(certificate).unwrap();
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let mut config = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_root_certificates(roots)
        .with_no_client_auth();
    config.alpn_protocols = alpn.iter().map(|name| name.as_bytes().to_vec()).collect();
    let stream = TcpStream::connect(address).await.unwrap();
    TlsConnector::from(Arc::new(config))
        .connect(ServerName::try_from("localhost").unwrap(), stream)
        .await
        .unwrap()
}
