//! The preflight of browsers: may a page of this origin send such a request? The bucket's CORS rules at the store say so.
//!
//! Browsers have no signature to give, so strangers can ask as well, as often as they like. What the store said is remembered
//! for some seconds, and the pages in use cost nothing while others ask about thousands that are not.

use std::future::Future;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use claviger_s3::cors::CrossOrigin;
use claviger_s3::error::{ErrorCode, S3Error};
use claviger_s3::operation::BucketOnly;
use http::{HeaderMap, Response, StatusCode};
use moka::sync::Cache;
use tokio::sync::{Semaphore, SemaphorePermit};

use super::reply;
use crate::error::GatewayError;
use crate::gateway::Gateway;
use crate::server::ResponseBody;
use crate::upstream::Upstream;
use crate::upstream::observed::Observed;

/// Preflights of people who proved nothing that may be on their way at once. The store takes some ms for each.
const STRANGERS_MAX: usize = 16;
/// Those that may wait for that, at most; and at most one in so many of the requests in flight.
const WAITING_MAX: usize = 128;
const REQUESTS_PER_WAITING: usize = 4;
/// How long one waits. Browsers don't ask again.
const WAIT: Duration = Duration::from_secs(2);
/// How long an answer of the store holds.
const REMEMBERED: Duration = Duration::from_secs(5);
/// Bytes of remembered questions and answers.
const REMEMBERED_LEN_MAX: u64 = 4 << 20;
/// What an entry takes beside its texts.
const ENTRY_LEN: usize = 512;

/// What is asked without a signature, which is all that the store hears.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(crate) struct Question {
    bucket: String,
    page: CrossOrigin,
    /// How often rules had been changed through this gateway.
    rules: u64,
}

/// What the store said.
#[derive(Debug, Clone)]
pub(crate) struct Judgement {
    headers: HeaderMap,
    refused: Option<ErrorCode>,
}

/// Bounds what people who proved nothing can have asked at the store at once, and remembers the answers.
#[derive(Debug)]
pub(crate) struct StrangerPreflights {
    places: Semaphore,
    waiting: Semaphore,
    answers: Cache<Question, Judgement>,
    rules: AtomicU64,
}

impl StrangerPreflights {
    /// With all places free, for a gateway that serves `requests_max` requests at once.
    pub(crate) fn new(requests_max: usize) -> Self {
        let answers = Cache::builder()
            .weigher(|question: &Question, judgement: &Judgement| {
                let headers = judgement.headers.iter().map(|(name, value)| name.as_str().len() + value.len());
                let len = ENTRY_LEN + question.bucket.len() + question.page.bytes_len();
                u32::try_from(len + headers.sum::<usize>()).unwrap_or(u32::MAX)
            })
            .max_capacity(REMEMBERED_LEN_MAX)
            .time_to_live(REMEMBERED)
            .build();
        Self {
            places: Semaphore::new(STRANGERS_MAX),
            waiting: Semaphore::new((requests_max / REQUESTS_PER_WAITING).clamp(1, WAITING_MAX)),
            answers,
            rules: AtomicU64::new(0),
        }
    }

    /// Forgets all answers: some bucket's rules are others now. Those that are on their way are not remembered either.
    pub(crate) fn rules_changed(&self) {
        self.rules.fetch_add(1, Ordering::SeqCst);
    }

    fn question(&self, bucket: &str, page: CrossOrigin) -> Question {
        Question { bucket: bucket.to_owned(), page, rules: self.rules.load(Ordering::SeqCst) }
    }

    /// The answer to a question: what is remembered, or what `asking` finds.
    ///
    /// # Errors
    /// Those of `asking`, and [`GatewayError::Busy`].
    async fn judge(
        &self,
        question: Question,
        asking: impl Future<Output = Result<Judgement, GatewayError>>,
    ) -> Result<Judgement, GatewayError> {
        if let Some(known) = self.answers.get(&question) {
            return Ok(known);
        }
        let _place = self.place().await?;
        // Somebody else may have asked meanwhile.
        if let Some(known) = self.answers.get(&question) {
            return Ok(known);
        }
        let judgement = asking.await?;
        self.answers.insert(question, judgement.clone());
        Ok(judgement)
    }

    /// A place, held until it is dropped. One waits a while for it, in the order of arrival.
    async fn place(&self) -> Result<SemaphorePermit<'_>, GatewayError> {
        let busy =
            || GatewayError::Busy("too many ask, without a signature, what pages of other origins may do");
        if let Ok(place) = self.places.try_acquire() {
            return Ok(place);
        }
        let _waiting = self.waiting.try_acquire().map_err(|_| busy())?;
        let place = tokio::time::timeout(WAIT, self.places.acquire()).await;
        place.ok().and_then(Result::ok).ok_or_else(busy)
    }
}

/// A preflight.
pub(crate) struct Asked<'a> {
    /// The bucket that it is about.
    pub op: &'a BucketOnly,
    /// What it lacks.
    pub complete: Result<(), S3Error>,
    /// What it says, where nobody's signature is in the URL.
    pub stranger: Option<CrossOrigin>,
}

/// Serves a preflight. It comes without a signature, since browsers have none to give, and goes to the store without one;
/// `upstream` carries the three headers that it consists of, and `observed` collects those of its answer.
///
/// # Errors
/// `NoSuchBucket`, what is not complete, the store's refusal, or that too many ask.
pub(crate) async fn answer(
    gateway: &Gateway,
    (upstream, observed): (&Upstream, &Observed),
    asked: Asked<'_>,
) -> Result<Response<ResponseBody>, GatewayError> {
    let bucket = asked.op.bucket.as_str();
    if bucket == gateway.system.bucket() {
        return Err(S3Error::new(ErrorCode::AccessDenied).into());
    }
    gateway.bindings.known_to_anyone(bucket).await?;
    asked.complete?;
    match asked.stranger {
        None => upstream.preflight(bucket).await?,
        Some(page) => {
            let preflights = &gateway.stranger_preflights;
            let asking = ask_store(upstream, observed, bucket);
            let judgement = preflights.judge(preflights.question(bucket, page), asking).await?;
            observed.judged(judgement.headers);
            if let Some(code) = judgement.refused {
                return Err(S3Error::new(code).into());
            }
        }
    }
    Ok(reply::empty(StatusCode::OK))
}

/// The store's yes or no; other failures are errors.
async fn ask_store(
    upstream: &Upstream,
    observed: &Observed,
    bucket: &str,
) -> Result<Judgement, GatewayError> {
    let refused = match upstream.preflight(bucket).await {
        Ok(()) => None,
        Err(GatewayError::Upstream(error)) if error.status == StatusCode::FORBIDDEN => {
            Some(error.code.unwrap_or(ErrorCode::AccessForbidden))
        }
        Err(error) => return Err(error),
    };
    Ok(Judgement { headers: observed.told(), refused })
}

#[cfg(test)]
mod tests {
    use std::future::pending;
    use std::sync::Arc;

    use claviger_s3::operation::Accompanying;
    use claviger_s3::{RequestHead, VirtualHosts, classify};
    use futures_util::FutureExt as _;
    use http::{HeaderValue, Method};

    use super::*;
    use crate::upstream::along::Along;
    use crate::upstream::double;

    fn page(origin: &str) -> CrossOrigin {
        let mut headers = HeaderMap::new();
        headers.insert("origin", HeaderValue::from_str(origin).unwrap());
        headers.insert("access-control-request-method", HeaderValue::from_static("PUT"));
        CrossOrigin::read(&headers).unwrap().unwrap()
    }

    fn yes() -> Judgement {
        Judgement { headers: HeaderMap::new(), refused: None }
    }

    /// Asks a store as the gateway does; gives the allowed origin, or the code of a refusal.
    async fn asked(preflights: &StrangerPreflights, store: &double::Double, origin: &str) -> String {
        let observed = Arc::new(Observed::default());
        let uri = "/bucket/k".parse().unwrap();
        let operation =
            classify(&RequestHead::new(&Method::OPTIONS, &uri, &HeaderMap::new()), &VirtualHosts::default());
        let said = Accompanying { cross_origin: Some(page(origin)), ..Accompanying::default() };
        let along = Along::of(&Method::OPTIONS, &operation.unwrap(), said);
        let account = store.upstream.account().clone();
        let upstream = store.upstream.on_behalf_of(account, Arc::new(along), observed.clone());
        let asking = ask_store(&upstream, &observed, "bucket");
        let judgement = preflights.judge(preflights.question("bucket", page(origin)), asking).await.unwrap();
        let allowed = judgement.headers.get("access-control-allow-origin");
        match judgement.refused {
            Some(code) => code.as_str().to_owned(),
            None => allowed.unwrap().to_str().unwrap().to_owned(),
        }
    }

    #[tokio::test]
    async fn the_store_is_asked_once_for_each_page_until_rules_change() {
        let store = double::store("ceph-rgw", |request| {
            if request.contains("origin: https://app") {
                return double::answer(200, &[("access-control-allow-origin", "https://app")], "");
            }
            double::answer(403, &[], "<Error><Code>AccessForbidden</Code></Error>")
        })
        .await;
        let preflights = StrangerPreflights::new(512);
        for _ in 0..3 {
            assert_eq!(asked(&preflights, &store, "https://app").await, "https://app");
            assert_eq!(asked(&preflights, &store, "https://evil").await, "AccessForbidden");
        }
        assert_eq!(store.lines(), ["OPTIONS /bucket", "OPTIONS /bucket"]);
        preflights.rules_changed();
        assert_eq!(asked(&preflights, &store, "https://app").await, "https://app");
        assert_eq!(store.lines().len(), 3);
    }

    #[tokio::test(start_paused = true)]
    async fn a_page_that_is_in_use_is_answered_while_strangers_hold_all_places() {
        let preflights = StrangerPreflights::new(512);
        let ask = |origin: &str| preflights.judge(preflights.question("b", page(origin)), pending());
        preflights.judge(preflights.question("b", page("https://app")), async { Ok(yes()) }).await.unwrap();
        let mut floods: Vec<_> =
            (0..STRANGERS_MAX).map(|n| Box::pin(ask(&format!("https://evil{n}")))).collect();
        for flood in &mut floods {
            assert!(flood.now_or_never().is_none());
        }
        assert!(ask("https://app").now_or_never().unwrap().is_ok());
        // Any other waits, and is answered when one of the places is free.
        let question = preflights.question("b", page("https://other"));
        let mut waiting = Box::pin(preflights.judge(question, async { Ok(yes()) }));
        assert!((&mut waiting).now_or_never().is_none());
        floods.pop();
        assert!(waiting.now_or_never().unwrap().is_ok());
    }

    #[tokio::test(start_paused = true)]
    async fn only_so_many_preflights_of_strangers_wait_and_not_for_long() {
        let preflights = StrangerPreflights::new(64);
        let ask = |n: usize| {
            preflights.judge(preflights.question("b", page(&format!("https://evil{n}"))), pending())
        };
        let mut floods: Vec<_> =
            (0..STRANGERS_MAX + 64 / REQUESTS_PER_WAITING).map(|n| Box::pin(ask(n))).collect();
        for flood in &mut floods {
            assert!(flood.now_or_never().is_none());
        }
        assert!(matches!(ask(1000).now_or_never(), Some(Err(GatewayError::Busy(_)))));
        let begun = tokio::time::Instant::now();
        let given_up = floods.pop().unwrap().await;
        assert!(matches!(given_up, Err(GatewayError::Busy(_))));
        assert_eq!(begun.elapsed(), WAIT);
    }
}
