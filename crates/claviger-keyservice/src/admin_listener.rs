//! Health and metrics, on a loopback address of their own: `/live`, `/ready`, `/metrics`. Nothing here is secret and nothing
//! can be changed.

use std::future::Future;
use std::sync::Arc;

use bytes::Bytes;
use claviger_keyapi::ServiceState;
use http::{Request, Response, StatusCode};
use http_body_util::Full;
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::server::graceful::GracefulShutdown;
use tokio::net::TcpListener;

use crate::KeyService;

/// Renders the process's metrics in Prometheus's text format.
pub type Metrics = Arc<dyn Fn() -> String + Send + Sync>;

const CONNECTION_TIME_MAX: std::time::Duration = std::time::Duration::from_secs(10);

/// Serves until `shutdown` is ready. `notes` stand on `/ready` for as long as it is ready, beside those of the service itself.
pub async fn serve(
    service: KeyService,
    listener: TcpListener,
    metrics: Metrics,
    notes: Vec<String>,
    shutdown: impl Future<Output = ()> + Send,
) {
    let graceful = GracefulShutdown::new();
    let notes: Arc<[String]> = notes.into();
    let mut shutdown = std::pin::pin!(shutdown);
    loop {
        let accepted = tokio::select! {
            () = &mut shutdown => return,
            accepted = listener.accept() => accepted,
        };
        let Ok((stream, _)) = accepted else {
            tokio::time::sleep(std::time::Duration::from_millis(50)).await;
            continue;
        };
        let (service, metrics, notes) = (service.clone(), Arc::clone(&metrics), Arc::clone(&notes));
        let handler = service_fn(move |request: Request<Incoming>| {
            let reply = answer(&service, &metrics, &notes, request.uri().path());
            async move { Ok::<_, std::convert::Infallible>(reply) }
        });
        let connection = hyper::server::conn::http1::Builder::new()
            .timer(TokioTimer::new())
            .keep_alive(false)
            .serve_connection(TokioIo::new(stream), handler);
        let connection = graceful.watch(connection);
        tokio::spawn(async move {
            // A probe that went away or dawdles has nothing to be told.
            let _ = tokio::time::timeout(CONNECTION_TIME_MAX, connection).await;
        });
    }
}

fn answer(service: &KeyService, metrics: &Metrics, notes: &[String], path: &str) -> Response<Full<Bytes>> {
    let (status, text) = match path {
        "/live" => (StatusCode::OK, "live\n".to_owned()),
        "/ready" => ready(service, notes),
        "/metrics" => {
            service.show_health();
            (StatusCode::OK, metrics())
        }
        _ => (StatusCode::NOT_FOUND, "/live, /ready, /metrics\n".to_owned()),
    };
    let mut response = Response::new(Full::new(Bytes::from(text)));
    *response.status_mut() = status;
    response
}

fn ready(service: &KeyService, notes: &[String]) -> (StatusCode, String) {
    let (state, problems) = service.health();
    if state == ServiceState::Unlocked && problems.is_empty() {
        let of_service = service.notes();
        let notes = of_service.iter().chain(notes).map(|note| format!("note: {note}\n")).collect::<String>();
        return (StatusCode::OK, format!("ready\n{notes}"));
    }
    if state == ServiceState::Standby && problems.is_empty() {
        return (StatusCode::SERVICE_UNAVAILABLE, "standby: another replica serves\n".to_owned());
    }
    (StatusCode::SERVICE_UNAVAILABLE, problems.iter().map(|problem| format!("{problem}\n")).collect())
}
