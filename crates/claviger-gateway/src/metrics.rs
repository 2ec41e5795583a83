//! The names of all metrics, what each means, and the recorder that collects them.
//!
//! Labels come from closed sets (operations, codes, outcomes): never a bucket, key or access key, which would make
//! the numbers unbounded and tell an operator's dashboard what the objects are called.

use std::cell::{OnceCell, RefCell};
use std::collections::HashMap;
use std::sync::OnceLock;

use metrics::{
    Counter, Gauge, Histogram, Unit, counter, describe_counter, describe_gauge, describe_histogram, gauge,
    histogram,
};
use metrics_exporter_prometheus::{Matcher, PrometheusBuilder, PrometheusHandle};

/// Requests by `operation` and `status`.
pub const REQUESTS: &str = "claviger_requests_total";
/// Seconds from a request's headers to the last byte of its answer, by `operation`.
pub const REQUEST_SECONDS: &str = "claviger_request_duration_seconds";
/// Requests being answered now.
pub const REQUESTS_IN_FLIGHT: &str = "claviger_requests_in_flight";
/// Requests answered 503 because `concurrent_requests_max` was reached.
pub const REQUESTS_SHED: &str = "claviger_requests_shed_total";
/// Error answers by S3 `code` and `blame` (client, upstream, key_service, internal).
pub const ERRORS: &str = "claviger_errors_total";
/// Answers whose body ended early, by `cause` (client: it went away; server: the transfer was broken off).
pub const TRANSFERS_ABORTED: &str = "claviger_transfers_aborted_total";
/// Handlers that panicked: each is a bug.
pub const PANICS: &str = "claviger_handler_panics_total";
/// Open client connections.
pub const CONNECTIONS: &str = "claviger_connections";
/// Client connections accepted since the start.
pub const CONNECTIONS_ACCEPTED: &str = "claviger_connections_accepted_total";
/// Client connections that ended in a failed TLS handshake.
pub const TLS_FAILURES: &str = "claviger_tls_handshake_failures_total";
/// Bytes read from clients, headers included, TLS excluded.
pub const RECEIVED_BYTES: &str = "claviger_received_bytes_total";
/// Bytes of answers' bodies sent to clients.
pub const SENT_BYTES: &str = "claviger_sent_bytes_total";
/// Access keys in force.
pub const CREDENTIALS_KEYS: &str = "claviger_credentials_keys";
/// Reloads of the file of access keys, by `outcome` (applied, refused).
pub const CREDENTIALS_RELOADS: &str = "claviger_credentials_reloads_total";
/// Reloads of the certificate for clients' connections, by `outcome` (applied, refused).
pub const TLS_RELOADS: &str = "claviger_tls_certificate_reloads_total";
/// 1 while a `component` is ready, else 0.
pub const READY: &str = "claviger_ready";

/// Objects refused because their bytes, envelope or name did not authenticate, by `kind`.
pub const INTEGRITY_FAILURES: &str = "claviger_integrity_failures_total";
/// Objects refused because Claviger did not write them.
pub const FOREIGN_OBJECTS: &str = "claviger_foreign_objects_total";
/// Listed objects whose size no sealed object can have.
pub const FOREIGN_SIZES: &str = "claviger_foreign_sizes_total";
/// Requests to the store, by `operation` and `status` (a number, or `failed` for no answer).
pub const UPSTREAM_REQUESTS: &str = "claviger_upstream_requests_total";
/// Seconds from a request to the store to its answer's headers, by `operation`.
pub const UPSTREAM_SECONDS: &str = "claviger_upstream_request_duration_seconds";
/// Bytes of object data that running transfers may hold in memory.
pub const BUFFERED_BYTES: &str = "claviger_buffered_bytes";
/// Calls of the key service, by `call` and `outcome` (ok, refused, unavailable).
pub const KEY_SERVICE_CALLS: &str = "claviger_key_service_calls_total";
/// Seconds per call of the key service, by `call`.
pub const KEY_SERVICE_SECONDS: &str = "claviger_key_service_call_duration_seconds";
/// Uses of a bucket binding older than its time, because the key service could not be asked.
pub const STALE_BINDINGS: &str = "claviger_stale_bindings_total";
/// Epoch keys leased for reading.
pub const LEASES: &str = "claviger_leases_total";
/// Keys of single objects that the key service released.
pub const DERIVED_KEYS: &str = "claviger_derived_keys_total";
/// Write epochs begun.
pub const EPOCHS_BEGUN: &str = "claviger_epochs_begun_total";
/// What the key service told on its stream, by `event`.
pub const KEY_SERVICE_EVENTS: &str = "claviger_key_service_events_total";
/// Times that all keys were dropped, by `cause` (revoked, locked, less, unknown, distrusted, unseen).
pub const KEYS_DROPPED: &str = "claviger_keys_dropped_total";
/// 1 while the key service's stream is held, else 0.
pub const KEY_SERVICE_STREAM: &str = "claviger_key_service_stream";
/// Records of the key service's audit log that the newest checkpoint covers which this gateway believed.
pub const KEY_SERVICE_LOG_RECORDS: &str = "claviger_key_service_log_records";
/// Looks at the key service's audit log, by `outcome` (ok, away, failed, contradiction).
pub const KEY_SERVICE_LOOKS: &str = "claviger_key_service_looks_total";
/// 1 while the key service is not used because its audit log contradicts what is remembered of it, else 0.
pub const KEY_SERVICE_CONTRADICTION: &str = "claviger_key_service_contradiction";
/// Epochs that the key service has not registered yet.
pub const EPOCHS_UNREGISTERED: &str = "claviger_epochs_unregistered";

/// Upper bounds in seconds: from a cached HEAD to a transfer of minutes.
const SECONDS_BUCKETS: [f64; 15] =
    [0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 60.0, 300.0];

static RECORDER: OnceLock<Option<PrometheusHandle>> = OnceLock::new();

/// Another recorder was installed in this process before.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("another metrics recorder is installed in this process already")]
pub struct RecorderInstalled;

/// Installs the process's recorder, once; later calls give the same handle. [`PrometheusHandle::render`] is the text
/// for `/metrics`.
///
/// # Errors
/// [`RecorderInstalled`] when someone else's recorder is in place.
pub fn install() -> Result<PrometheusHandle, RecorderInstalled> {
    RECORDER.get_or_init(install_once).clone().ok_or(RecorderInstalled)
}

fn install_once() -> Option<PrometheusHandle> {
    let recorder = PrometheusBuilder::new()
        .set_buckets_for_metric(Matcher::Suffix("_seconds".to_owned()), &SECONDS_BUCKETS)
        .expect("the list of buckets is not empty")
        .build_recorder();
    let handle = recorder.handle();
    metrics::set_global_recorder(recorder).ok()?;
    describe();
    Some(handle)
}

fn describe() {
    const COUNTERS: [(&str, &str); 23] = [
        (REQUESTS, "Requests by operation and HTTP status"),
        (REQUESTS_SHED, "Requests answered 503 because the limit of concurrent requests was reached"),
        (ERRORS, "Error answers by S3 code and by whose turn it is to change something"),
        (TRANSFERS_ABORTED, "Answers whose body ended early, by who ended it"),
        (PANICS, "Handlers that panicked; each is a bug to report"),
        (CONNECTIONS_ACCEPTED, "Client connections accepted"),
        (TLS_FAILURES, "Client connections that failed in the TLS handshake"),
        (RECEIVED_BYTES, "Bytes read from clients, headers included"),
        (SENT_BYTES, "Bytes of answers' bodies sent to clients"),
        (TLS_RELOADS, "Reloads of the certificate for clients' connections by outcome"),
        (CREDENTIALS_RELOADS, "Reloads of the file of access keys by outcome"),
        (INTEGRITY_FAILURES, "Objects refused because something did not authenticate"),
        (FOREIGN_OBJECTS, "Objects refused because Claviger did not write them"),
        (FOREIGN_SIZES, "Listed objects whose size no sealed object can have"),
        (UPSTREAM_REQUESTS, "Requests to the store by operation and status"),
        (KEY_SERVICE_CALLS, "Calls of the key service by outcome"),
        (
            STALE_BINDINGS,
            "Uses of a bucket binding older than its time, because the key service could not be asked",
        ),
        (LEASES, "Epoch keys leased for reading"),
        (DERIVED_KEYS, "Keys of single objects that the key service released"),
        (EPOCHS_BEGUN, "Write epochs begun"),
        (KEY_SERVICE_LOOKS, "Looks at the key service's audit log by outcome"),
        (KEY_SERVICE_EVENTS, "What the key service told on its stream, by event"),
        (
            KEYS_DROPPED,
            "Times that all keys were dropped because the key service took something back, by cause",
        ),
    ];
    const GAUGES: [(&str, &str); 9] = [
        (REQUESTS_IN_FLIGHT, "Requests being answered"),
        (CONNECTIONS, "Open client connections"),
        (CREDENTIALS_KEYS, "Access keys in force"),
        (READY, "Whether a component is ready (1) or not (0)"),
        (BUFFERED_BYTES, "Bytes of object data held in memory"),
        (
            KEY_SERVICE_STREAM,
            "Whether the key service's stream is held (1) or not (0): without it a revocation takes effect only as keys run out",
        ),
        (
            KEY_SERVICE_LOG_RECORDS,
            "Records of the key service's audit log under the newest checkpoint that was believed",
        ),
        (
            KEY_SERVICE_CONTRADICTION,
            "Whether the key service is not used (1) because its audit log contradicts what is remembered of it",
        ),
        (EPOCHS_UNREGISTERED, "Epochs that the key service has not registered yet"),
    ];
    for (name, help) in COUNTERS {
        describe_counter!(name, help);
    }
    for (name, help) in GAUGES {
        describe_gauge!(name, help);
    }
    describe_histogram!(
        REQUEST_SECONDS,
        Unit::Seconds,
        "From a request's headers to the last byte of its answer"
    );
    describe_histogram!(
        UPSTREAM_SECONDS,
        Unit::Seconds,
        "From a request to the store to its answer's headers"
    );
    describe_histogram!(KEY_SERVICE_SECONDS, Unit::Seconds, "Calls of the key service");
}

/// A counter and a histogram that belong together.
type Pair = (Counter, Histogram);

thread_local! {
    /// What was counted by this thread before, so that a request finds its series without writing labels first. Bounded, since
    /// operations and statuses are.
    static PAIRS: RefCell<HashMap<(&'static str, &'static str, u16), Pair>> = RefCell::default();
    static TOTALS: OnceCell<Totals> = const { OnceCell::new() };
}

/// Before the recorder is there, series lead nowhere: they must not be kept.
fn is_installed() -> bool {
    RECORDER.get().is_some_and(Option::is_some)
}

/// Counts one more in `counted` by operation and status, and its duration in `timed` by operation. `status` 0 stands for no
/// answer.
fn count_and_time(
    (counted, timed): (&'static str, &'static str),
    operation: &'static str,
    status: u16,
    seconds: f64,
) {
    let look_up = || {
        let text = if status == 0 { "failed".to_owned() } else { status.to_string() };
        let counter = counter!(counted, "operation" => operation, "status" => text);
        (counter, histogram!(timed, "operation" => operation))
    };
    let record = |(counter, histogram): &Pair| {
        counter.increment(1);
        histogram.record(seconds);
    };
    if !is_installed() {
        return record(&look_up());
    }
    PAIRS.with_borrow_mut(|pairs| record(pairs.entry((counted, operation, status)).or_insert_with(look_up)));
}

/// One finished request.
pub(crate) fn request_done(operation: &'static str, status: u16, seconds: f64) {
    count_and_time((REQUESTS, REQUEST_SECONDS), operation, status, seconds);
}

/// One request to the store; `status` is `None` where no answer came.
pub(crate) fn store_asked(operation: &'static str, status: Option<u16>, seconds: f64) {
    count_and_time((UPSTREAM_REQUESTS, UPSTREAM_SECONDS), operation, status.unwrap_or(0), seconds);
}

/// One error answer.
pub(crate) fn error_answered(code: &'static str, blame: &'static str) {
    counter!(ERRORS, "code" => code, "blame" => blame).increment(1);
}

/// The number of access keys after a load.
pub(crate) fn credentials_in_force(keys: usize) {
    // Exact up to 2^53 keys.
    #[allow(clippy::cast_precision_loss, reason = "a gauge is a float")]
    gauge!(CREDENTIALS_KEYS).set(keys as f64);
}

/// One reload of the file of access keys.
pub(crate) fn credentials_reloaded(applied: bool) {
    let outcome = if applied { "applied" } else { "refused" };
    counter!(CREDENTIALS_RELOADS, "outcome" => outcome).increment(1);
}

/// What is counted with every request, by this thread.
struct Totals {
    in_flight: Gauge,
    buffered: Gauge,
    received: Counter,
    sent: Counter,
}

impl Totals {
    fn look_up() -> Self {
        Self {
            in_flight: gauge!(REQUESTS_IN_FLIGHT),
            buffered: gauge!(BUFFERED_BYTES),
            received: counter!(RECEIVED_BYTES),
            sent: counter!(SENT_BYTES),
        }
    }

    fn with<T>(take: impl FnOnce(&Self) -> T) -> T {
        match is_installed() {
            true => TOTALS.with(|totals| take(totals.get_or_init(Self::look_up))),
            false => take(&Self::look_up()),
        }
    }
}

/// Bytes that came in with a request and went out with its answer.
pub(crate) fn transferred(received_len: u64, sent_len: u64) {
    Totals::with(|totals| {
        totals.received.increment(received_len);
        totals.sent.increment(sent_len);
    });
}

/// Changes the gauge of bytes that are held in memory.
pub(crate) fn buffered(change: impl FnOnce(&Gauge)) {
    Totals::with(|totals| change(&totals.buffered));
}

/// A gauge that goes up by one now and down again on drop.
pub(crate) struct Raised(Gauge);

impl Raised {
    /// One more request that is being answered.
    pub(crate) fn request() -> Self {
        Self::by_one(Totals::with(|totals| totals.in_flight.clone()))
    }

    /// One more open connection.
    pub(crate) fn connection() -> Self {
        Self::by_one(gauge!(CONNECTIONS))
    }

    fn by_one(gauge: Gauge) -> Self {
        gauge.increment(1.0);
        Self(gauge)
    }
}

impl Drop for Raised {
    fn drop(&mut self) {
        self.0.decrement(1.0);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_rendered_text_has_help_and_labels() {
        let handle = install().unwrap();
        assert!(install().is_ok(), "a second installation gives the same recorder");
        request_done("GetObject", 200, 0.004);
        credentials_reloaded(false);
        let text = handle.render();
        assert!(
            text.contains("# HELP claviger_requests_total Requests by operation and HTTP status"),
            "{text}"
        );
        assert!(text.contains("claviger_requests_total{operation=\"GetObject\",status=\"200\"}"), "{text}");
        store_asked("GetObject", None, 0.1);
        store_asked("GetObject", None, 0.1);
        let text_of_store = handle.render();
        let failed = "claviger_upstream_requests_total{operation=\"GetObject\",status=\"failed\"} 2";
        assert!(text_of_store.contains(failed), "{text_of_store}");
        assert!(
            text.contains("claviger_request_duration_seconds_bucket{operation=\"GetObject\",le=\"0.005\"}"),
            "{text}"
        );
        assert!(text.contains("claviger_credentials_reloads_total{outcome=\"refused\"}"), "{text}");
    }
}
