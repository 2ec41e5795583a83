//! The operators' listener: is it alive, is it ready and if not why, and its metrics.
//!
//! ```text
//! GET /health/live    200 {"live":true} while the process answers at all
//! GET /health/ready   200 or 503 {"ready":false,"components":{"key_service":"connection refused", "store":null},
//!                                "warnings":{"key_service_stream":null}}
//! GET /metrics        Prometheus' text format
//! ```
//!
//! It has no authentication and tells nothing secret; bind it to loopback or to a management network.

use std::collections::BTreeMap;
use std::convert::Infallible;
use std::future::Future;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use http::{Method, Request, Response, StatusCode, header};
use http_body_util::Full;
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use metrics::gauge;
use tokio::net::TcpListener;
use tokio::task::JoinSet;

use crate::metrics::READY;

const HEADER_READ_TIMEOUT: Duration = Duration::from_secs(10);
const CONNECTIONS_MAX: usize = 64;
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// What every component says about itself. Cloning gives another handle on the same registry.
#[derive(Debug, Clone, Default)]
pub struct Readiness {
    components: Arc<Mutex<Reasons>>,
    warnings: Arc<Mutex<Reasons>>,
}

type Reasons = BTreeMap<&'static str, Option<String>>;

/// The place of something that works or not, and whose failure does not keep requests from being served.
#[derive(Debug)]
pub struct Warning {
    name: &'static str,
    registry: Readiness,
}

/// One component's place in the registry. Not ready until it says otherwise; not ready again once dropped.
#[derive(Debug)]
pub struct Component {
    name: &'static str,
    registry: Readiness,
}

impl Readiness {
    /// An empty registry. It is not ready as long as no component has registered.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Registers a component, which is "starting" at first. A second one of the same name takes the first's place.
    #[must_use]
    pub fn register(&self, name: &'static str) -> Component {
        let component = Component { name, registry: self.clone() };
        component.not_ready("starting");
        component
    }

    /// Registers something that operators should hear of, but that does not count for readiness. Nothing is wrong at first.
    #[must_use]
    pub fn warning(&self, name: &'static str) -> Warning {
        let warning = Warning { name, registry: self.clone() };
        warning.clear();
        warning
    }

    /// Each of these with what is wrong, if something is.
    #[must_use]
    pub fn warnings(&self) -> BTreeMap<&'static str, Option<String>> {
        self.warnings.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Whether every component is ready.
    #[must_use]
    pub fn is_ready(&self) -> bool {
        let components = self.lock();
        !components.is_empty() && components.values().all(Option::is_none)
    }

    /// Each component with the reason why it is not ready, if it is not.
    #[must_use]
    pub fn snapshot(&self) -> BTreeMap<&'static str, Option<String>> {
        self.lock().clone()
    }

    fn set(&self, name: &'static str, reason: Option<String>) {
        gauge!(READY, "component" => name).set(if reason.is_none() { 1.0 } else { 0.0 });
        self.lock().insert(name, reason);
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<&'static str, Option<String>>> {
        self.components.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Warning {
    /// Says what is wrong: a short text for operators, without secrets.
    pub fn raise(&self, reason: impl Into<String>) {
        self.set(Some(reason.into()));
    }

    /// Says that nothing is.
    pub fn clear(&self) {
        self.set(None);
    }

    fn set(&self, reason: Option<String>) {
        self.registry.warnings.lock().unwrap_or_else(PoisonError::into_inner).insert(self.name, reason);
    }
}

impl Component {
    /// Says that the component works.
    pub fn ready(&self) {
        self.registry.set(self.name, None);
    }

    /// Says that it doesn't, and why: a short text for operators, without secrets.
    pub fn not_ready(&self, reason: impl Into<String>) {
        self.registry.set(self.name, Some(reason.into()));
    }
}

impl Drop for Component {
    fn drop(&mut self) {
        self.not_ready("stopped");
    }
}

/// What the listener shows.
pub struct AdminPages {
    /// The registry behind `/health/ready`.
    pub readiness: Readiness,
    /// Gives the text of `/metrics`.
    pub render_metrics: Box<dyn Fn() -> String + Send + Sync>,
}

impl std::fmt::Debug for AdminPages {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("AdminPages").field("readiness", &self.readiness).finish_non_exhaustive()
    }
}

/// Answers on `listener` until `shutdown` resolves; open connections are then closed.
pub async fn serve_admin(listener: TcpListener, pages: Arc<AdminPages>, shutdown: impl Future<Output = ()>) {
    let mut connections = JoinSet::new();
    let mut shutdown = std::pin::pin!(shutdown);
    loop {
        let stream = tokio::select! {
            () = &mut shutdown => return,
            Some(_) = connections.join_next() => continue,
            accepted = listener.accept(), if connections.len() < CONNECTIONS_MAX => match accepted {
                Ok((stream, _)) => stream,
                Err(error) => {
                    tracing::warn!(%error, "the admin listener can't accept");
                    tokio::time::sleep(ACCEPT_PAUSE).await;
                    continue;
                }
            },
        };
        let pages = Arc::clone(&pages);
        connections.spawn(async move {
            let service = service_fn(move |request| {
                let response = answer(&request, &pages);
                async move { Ok::<_, Infallible>(response) }
            });
            let connection = hyper::server::conn::http1::Builder::new()
                .timer(TokioTimer::new())
                .header_read_timeout(HEADER_READ_TIMEOUT)
                .serve_connection(TokioIo::new(stream), service);
            if let Err(error) = connection.await {
                tracing::debug!(%error, "an admin connection ended badly");
            }
        });
    }
}

fn answer(request: &Request<Incoming>, pages: &AdminPages) -> Response<Full<Bytes>> {
    if !matches!(*request.method(), Method::GET | Method::HEAD) {
        return text(StatusCode::METHOD_NOT_ALLOWED, "text/plain; charset=utf-8", "only GET\n".to_owned());
    }
    match request.uri().path() {
        "/health/live" => json(StatusCode::OK, &serde_json::json!({ "live": true })),
        "/health/ready" => {
            let ready = pages.readiness.is_ready();
            let status = if ready { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE };
            let (components, warnings) = (pages.readiness.snapshot(), pages.readiness.warnings());
            json(
                status,
                &serde_json::json!({ "ready": ready, "components": components, "warnings": warnings }),
            )
        }
        "/metrics" => {
            text(StatusCode::OK, "text/plain; version=0.0.4; charset=utf-8", (pages.render_metrics)())
        }
        _ => text(
            StatusCode::NOT_FOUND,
            "text/plain; charset=utf-8",
            "there is /health/live, /health/ready and /metrics\n".to_owned(),
        ),
    }
}

fn json(status: StatusCode, value: &serde_json::Value) -> Response<Full<Bytes>> {
    text(status, "application/json", format!("{value}\n"))
}

fn text(status: StatusCode, content_type: &'static str, body: String) -> Response<Full<Bytes>> {
    let mut response = Response::new(Full::new(Bytes::from(body)));
    *response.status_mut() = status;
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_TYPE, http::HeaderValue::from_static(content_type));
    headers.insert(header::CACHE_CONTROL, http::HeaderValue::from_static("no-store"));
    response
}

#[cfg(test)]
mod tests;
