//! The names of the key service's metrics, and what each means.

use metrics::{describe_counter, describe_gauge};

/// Requests by `route` and `status`.
pub(crate) const REQUESTS: &str = "claviger_keyservice_requests_total";
/// Connections that found no place.
pub(crate) const CONNECTIONS_REFUSED: &str = "claviger_keyservice_connections_refused_total";
/// Connections that the service ended before the other end did.
pub(crate) const CONNECTIONS_ENDED: &str = "claviger_keyservice_connections_ended_total";
/// TLS handshakes that failed.
pub(crate) const HANDSHAKES_REFUSED: &str = "claviger_keyservice_handshakes_refused_total";
/// Streams of gateways that are open.
pub(crate) const WATCH_STREAMS: &str = "claviger_keyservice_watch_streams";
/// Lines told on them, by `event`.
pub(crate) const WATCH_EVENTS: &str = "claviger_keyservice_watch_events_total";
/// Streams that were ended because their reader did not read.
pub(crate) const WATCH_CUT_OFF: &str = "claviger_keyservice_watch_cut_off_total";
/// Gateways that were frozen because a budget was used up.
pub(crate) const BUDGET_FREEZES: &str = "claviger_keyservice_budget_freezes_total";

/// 1 if the service is unlocked and nothing is wrong with it, else 0.
pub(crate) const READY: &str = "claviger_keyservice_ready";
/// 1 for each `problem` that there is, 0 for the others.
pub(crate) const PROBLEM: &str = "claviger_keyservice_problem";
/// Key versions that will be destroyed unless an operator cancels that.
pub(crate) const VERSIONS_DOOMED: &str = "claviger_keyservice_versions_doomed";

/// Gives the recorder, if there is one, the help texts.
pub(crate) fn describe() {
    const COUNTERS: [(&str, &str); 7] = [
        (REQUESTS, "Requests of gateways and operators by route and HTTP status"),
        (CONNECTIONS_REFUSED, "Connections that were closed because there was no place for them"),
        (
            CONNECTIONS_ENDED,
            "Connections that were ended because their certificate counts no more, or because there were too many of one identity",
        ),
        (HANDSHAKES_REFUSED, "Connections that failed in the TLS handshake"),
        (WATCH_EVENTS, "Events told to gateways on the streams that they hold open, by event"),
        (
            BUDGET_FREEZES,
            "Gateways that were frozen because they used up a budget: busier than thought, or stolen; `claviger keys status` \
             names them",
        ),
        (WATCH_CUT_OFF, "Streams of gateways that were ended because they were not read"),
    ];
    for (name, help) in COUNTERS {
        describe_counter!(name, help);
    }
    // From the beginning, so that an alert sees the first one.
    metrics::counter!(BUDGET_FREEZES).absolute(0);
    describe_gauge!(
        READY,
        "1 while the service is unlocked and nothing is wrong with it; /ready says what is"
    );
    describe_gauge!(PROBLEM, "1 for each problem that there is; /ready has it in words");
    describe_gauge!(
        VERSIONS_DOOMED,
        "Key versions that open nothing and whose roots will be erased unless an operator cancels that"
    );
    describe_gauge!(
        WATCH_STREAMS,
        "Streams that gateways hold open; fewer than there are gateways means that some learn of a revocation only as their \
         keys run out"
    );
}
