//! What the server answers.

use std::sync::Arc;
use std::time::Instant;

use axum::body::Body;
use axum::extract::{Path, State};
use axum::response::{Html, IntoResponse, Response};
use axum::routing::{get, post, put};
use axum::{Extension, Json, Router};
use http::{HeaderValue, Request, StatusCode, Version, header};
use http_body_util::BodyExt;
use serde::Serialize;
use serde_json::Value;
use sha2::{Digest, Sha256};

use super::body::PatternBody;
use super::connection::Connection;
use super::page;
use crate::listener::Transport;
use crate::stats;
use crate::stop::Stop;

const PATHS: &str = "\
GET  /            what is running
POST /echo        your body, back
GET  /bytes/{n}   n bytes
PUT  /upload      size and SHA-256 of your body
GET  /stats       counters as JSON
GET  /metrics     counters as Prometheus reads them
GET  /connections listeners and connections, a line each
";

/// What the handlers know of the server.
#[derive(Debug, Clone)]
pub struct ServerInfo {
    transport: Transport,
    stop: Stop,
    started: Instant,
}

impl ServerInfo {
    /// Of a server that starts now and ends by `stop`.
    #[must_use]
    pub fn new(transport: Transport, stop: Stop) -> Self {
        Self {
            transport,
            stop,
            started: Instant::now(),
        }
    }
}

/// All routes. Requests need a `Connection` in their extensions, which [`super::serve`] adds.
pub fn router(server: ServerInfo) -> Router {
    Router::new()
        .route("/", get(index))
        .route("/echo", post(echo))
        .route("/bytes/{n}", get(bytes))
        .route("/upload", put(upload).post(upload))
        .route("/stats", get(stats))
        .route("/metrics", get(metrics))
        .route("/connections", get(connections))
        .fallback(not_found)
        .with_state(server)
}

async fn index(
    Extension(connection): Extension<Arc<Connection>>,
    version: Version,
) -> Html<String> {
    Html(page::render(&ThisConnection::new(&connection, version)))
}

async fn echo(request: Request<Body>) -> Response {
    let (head, body) = request.into_parts();
    let mut response = Response::new(body);
    let kind = head
        .headers
        .get(header::CONTENT_TYPE)
        .cloned()
        .unwrap_or(HeaderValue::from_static("application/octet-stream"));
    response.headers_mut().insert(header::CONTENT_TYPE, kind);
    response
}

async fn bytes(Path(n): Path<String>) -> Response {
    let Ok(len) = n.parse() else {
        let hint = "/bytes/{n} wants a whole number of bytes, like /bytes/1048576\n";
        return (StatusCode::BAD_REQUEST, hint).into_response();
    };
    let mut response = Response::new(Body::new(PatternBody::new(len)));
    response.headers_mut().insert(
        header::CONTENT_TYPE,
        HeaderValue::from_static("application/octet-stream"),
    );
    response
}

#[derive(Debug, Serialize)]
struct Uploaded {
    size: u64,
    sha256: String,
}

async fn upload(body: Body) -> Response {
    let mut body = body;
    let mut size = 0_u64;
    let mut hash = Sha256::new();
    while let Some(frame) = body.frame().await {
        let data = match frame.map(|frame| frame.into_data()) {
            Ok(Ok(data)) => data,
            Ok(Err(_trailers)) => continue,
            Err(error) => {
                let text = format!("the upload ended early, after {size} bytes: {error}\n");
                return (StatusCode::BAD_REQUEST, text).into_response();
            }
        };
        size += data.len() as u64;
        hash.update(&data);
    }
    let sha256 = hash.finalize().iter().map(|b| format!("{b:02x}")).collect();
    Json(Uploaded { size, sha256 }).into_response()
}

#[derive(Debug, Serialize)]
struct StatsReport {
    server: ServerReport,
    #[serde(flatten)]
    stats: Value,
    this_connection: ThisConnection,
}

#[derive(Debug, Serialize)]
struct ServerReport {
    version: &'static str,
    uptime_seconds: u64,
}

/// The connection that a request came over.
#[derive(Debug, Serialize)]
pub(super) struct ThisConnection {
    pub(super) offloaded: bool,
    pub(super) accelerated: bool,
    pub(super) transport: &'static str,
    pub(super) http: String,
    pub(super) tls: Option<&'static str>,
    pub(super) peer: String,
    pub(super) local: Option<String>,
}

impl ThisConnection {
    fn new(connection: &Connection, version: Version) -> Self {
        Self {
            offloaded: connection.offload.get(),
            accelerated: connection.accelerated,
            transport: match connection.transport {
                Transport::FlexTcp => "flextcp",
                Transport::Kernel => "kernel",
            },
            http: format!("{version:?}"),
            tls: connection.tls,
            peer: connection.peer.to_string(),
            local: connection.local.map(|local| local.to_string()),
        }
    }
}

async fn stats(
    State(server): State<ServerInfo>,
    Extension(connection): Extension<Arc<Connection>>,
    version: Version,
) -> Response {
    if connection.accelerated {
        connection.offload.settled().await;
    }
    let report = StatsReport {
        server: ServerReport {
            version: env!("CARGO_PKG_VERSION"),
            uptime_seconds: server.started.elapsed().as_secs(),
        },
        stats: stats::snapshot(server.transport, &server.stop),
        this_connection: ThisConnection::new(&connection, version),
    };
    // For eyes as well as for programs.
    let text = serde_json::to_string_pretty(&report).unwrap_or_default() + "\n";
    fresh("application/json", text)
}

async fn metrics(State(server): State<ServerInfo>) -> Response {
    fresh(
        "text/plain; version=0.0.4",
        stats::prometheus(server.transport),
    )
}

async fn connections(State(server): State<ServerInfo>) -> Response {
    fresh("text/plain", stats::connections(server.transport))
}

/// A text that is true for this moment only.
fn fresh(kind: &'static str, text: String) -> Response {
    let headers = [
        (header::CONTENT_TYPE, kind),
        (header::CACHE_CONTROL, "no-store"),
    ];
    (headers, text).into_response()
}

async fn not_found() -> Response {
    (
        StatusCode::NOT_FOUND,
        format!("no such path; there are:\n\n{PATHS}"),
    )
        .into_response()
}
