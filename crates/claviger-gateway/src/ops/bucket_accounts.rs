//! What the accounts of this gateway have of a bucket's name. Some stores keep a space of names for each tenant or key;
//! here a name is bound once. A second bucket of the name must not come to share the binding of the first, and its end
//! must not end that binding. Two accounts may as well have the same bucket: they are two keys of one owner. Nothing
//! is asked of others where there is one account.

use std::sync::Arc;

use claviger_s3::error::ErrorCode;
use http::StatusCode;

use crate::dispatch::Call;
use crate::error::GatewayError;
use crate::upstream::Upstream;
use crate::upstream::list::ListWhat;

/// A bucket that nobody has: an account that is denied even this is let in nowhere.
const NO_BUCKET: &str = "claviger-there-is-no-such-bucket-5b0e7d1c";

/// The store through the caller's account, and through each other one of this gateway.
pub(super) struct Accounts {
    /// The caller's.
    pub own: Upstream,
    others: Vec<Upstream>,
}

/// What an account is told of a bucket.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Sight {
    /// That there is none.
    Nothing,
    /// That nothing is in it.
    Empty,
    /// That something is in it, or that this account may not know.
    Filled,
}

/// A bucket as an account lists it.
struct Listed {
    owner_id: String,
    creation_ms: u64,
}

impl Accounts {
    /// Those of the gateway that serves `call`.
    pub(super) fn of(call: &Call<'_>) -> Self {
        let own = call.upstream.account();
        let others = call.gateway.accounts().filter(|other| !Arc::ptr_eq(other, own));
        let others = others.map(|other| call.upstream.with_account(other.clone())).collect();
        Self { own: call.upstream.clone(), others }
    }

    /// What the caller is told of a bucket of this name, his own or not.
    ///
    /// # Errors
    /// The provider's.
    pub(super) async fn own_sight(&self, bucket: &str) -> Result<Sight, GatewayError> {
        match look(&self.own, bucket).await {
            Err(error) if is_denied(&error) => Ok(Sight::Filled),
            seen => seen,
        }
    }

    /// Whether another account than the caller's is told that a bucket of this name exists. `is_bound` says whether
    /// one can have been made through Claviger.
    ///
    /// # Errors
    /// The provider's. Of an account that the store does not let in any more it can't be told what it has; that is no
    /// error for a name that was not bound.
    pub(super) async fn others_see(&self, bucket: &str, is_bound: bool) -> Result<bool, GatewayError> {
        for other in &self.others {
            match look(other, bucket).await {
                Ok(Sight::Nothing) => {}
                Ok(_) => return Ok(true),
                Err(error) if is_denied(&error) && is_let_in(other).await => return Ok(true),
                Err(error) => {
                    tracing::warn!(account = ?other.account(), %error, "an account can't be asked whether it has a bucket");
                    if is_bound || !is_shut_out(&error) {
                        return Err(error);
                    }
                }
            }
        }
        Ok(false)
    }

    /// Whether any account of this gateway is told that a bucket of this name exists.
    ///
    /// # Errors
    /// As [`Self::others_see`] of a name that is bound.
    pub(super) async fn any_sees(&self, bucket: &str) -> Result<bool, GatewayError> {
        Ok(self.own_sight(bucket).await? != Sight::Nothing || self.others_see(bucket, true).await?)
    }

    /// Whether another account has a bucket of this name that is not the caller's, and older: then the name is that
    /// one's. Of two who make one at once, one is told so. `false` where it can't be told: where an account may not list
    /// its buckets, or lists none of the name.
    pub(super) async fn another_is_older(&self, bucket: &str) -> bool {
        if self.others.is_empty() {
            return false;
        }
        let Some(own) = listed(&self.own, bucket).await else { return false };
        for other in &self.others {
            if listed(other, bucket).await.is_some_and(|other| other.is_another_before(&own)) {
                return true;
            }
        }
        false
    }
}

impl Listed {
    /// One bucket has one date of creation; and an owner has one bucket of a name.
    fn is_another_before(&self, own: &Self) -> bool {
        let is_of_one_owner = !own.owner_id.is_empty() && self.owner_id == own.owner_id;
        !is_of_one_owner && self.creation_ms < own.creation_ms
    }
}

async fn look(upstream: &Upstream, bucket: &str) -> Result<Sight, GatewayError> {
    let what = ListWhat { prefix: "", delimiter: None, max_keys: 1 };
    match upstream.list_objects_v2(bucket, what, None, None, false).await {
        Ok(document) if document.page()?.contents.is_empty() => Ok(Sight::Empty),
        Ok(_) => Ok(Sight::Filled),
        Err(error) => match error.upstream_code() {
            Some(ErrorCode::NoSuchBucket) => Ok(Sight::Nothing),
            _ => Err(error),
        },
    }
}

fn is_denied(error: &GatewayError) -> bool {
    error.upstream_code() == Some(ErrorCode::AccessDenied)
}

/// Whether the store denies an account something, and not everything: some say the same of a key that they don't know.
async fn is_let_in(upstream: &Upstream) -> bool {
    upstream.list_buckets().await.is_ok() || matches!(look(upstream, NO_BUCKET).await, Ok(Sight::Nothing))
}

/// Whether the store refuses the account itself; where it denied something, [`is_let_in`] was asked.
fn is_shut_out(error: &GatewayError) -> bool {
    let GatewayError::Upstream(error) = error else { return false };
    error.status == StatusCode::FORBIDDEN
}

/// The bucket of this name as an account lists it; none where it does not, or may not list.
async fn listed(upstream: &Upstream, bucket: &str) -> Option<Listed> {
    let all = match upstream.list_buckets().await {
        Ok(all) => all,
        Err(error) => {
            tracing::debug!(account = ?upstream.account(), %error, "an account can't be asked for its buckets");
            return None;
        }
    };
    let found = all.buckets.iter().find(|listed| listed.name == bucket)?;
    Some(Listed { owner_id: all.owner.id.into_owned(), creation_ms: found.creation_ms })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::upstream::double;

    fn error(status: u16, code: &str) -> String {
        double::answer(status, &[], &format!("<Error><Code>{code}</Code></Error>"))
    }

    /// The listing of an account that has the bucket `b` since this second.
    fn has(owner: &str, second: u32) -> String {
        double::answer(
            200,
            &[],
            &format!(
                "<ListAllMyBucketsResult><Owner><ID>{owner}</ID></Owner><Buckets><Bucket><Name>b</Name>\
                 <CreationDate>2026-11-22T00:00:{second:02}.000Z</CreationDate></Bucket></Buckets>\
                 </ListAllMyBucketsResult>"
            ),
        )
    }

    /// Accounts of a store that answers each of them so, whatever it is asked; the first one is the caller's.
    async fn accounts(answers: &[String]) -> Accounts {
        let always = |answer: &String| {
            let answer = answer.clone();
            move |_: &str| answer.clone()
        };
        accounts_that_hear(answers.iter().map(always)).await
    }

    async fn accounts_that_hear(
        answers: impl IntoIterator<Item = impl Fn(&str) -> String + Send + 'static>,
    ) -> Accounts {
        let mut upstreams = Vec::new();
        for answer in answers {
            upstreams.push(double::store("ceph-rgw", answer).await.upstream);
        }
        Accounts { own: upstreams.remove(0), others: upstreams }
    }

    #[tokio::test]
    async fn an_older_bucket_of_another_owner_has_the_name() {
        let is_older = async |answers: &[String]| accounts(answers).await.another_is_older("b").await;
        assert!(is_older(&[has("a", 5), has("t", 4)]).await);
        assert!(is_older(&[has("a", 5), error(403, "AccessDenied"), has("t", 4)]).await);
        assert!(!is_older(&[has("t", 4), has("a", 5)]).await);
    }

    #[tokio::test]
    async fn two_accounts_that_list_the_same_bucket_are_not_at_odds() {
        // One owner's bucket, whatever the dates say; and one bucket that two owners may use.
        for other in [has("a", 4), has("a", 5), has("t", 5)] {
            assert!(!accounts(&[has("a", 5), other]).await.another_is_older("b").await);
        }
    }

    #[tokio::test]
    async fn an_account_that_may_not_list_its_buckets_is_in_nobodys_way() {
        for denied in
            [error(403, "AccessDenied"), error(403, "InvalidAccessKeyId"), error(500, "InternalError")]
        {
            assert!(!accounts(&[has("a", 5), denied.clone()]).await.another_is_older("b").await);
            assert!(!accounts(&[denied, has("t", 4)]).await.another_is_older("b").await);
        }
    }

    #[tokio::test]
    async fn what_an_account_that_is_shut_out_has_can_only_be_told_of_a_name_that_was_never_bound() {
        // Garage says AccessDenied of a key that it does not know.
        for code in ["InvalidAccessKeyId", "AccessDenied"] {
            let accounts = accounts(&[error(404, "NoSuchBucket"), error(403, code)]).await;
            assert!(!accounts.others_see("b", false).await.unwrap(), "{code}");
            assert!(accounts.others_see("b", true).await.is_err(), "{code}");
            assert!(accounts.any_sees("b").await.is_err(), "{code}");
        }
    }

    #[tokio::test]
    async fn a_bucket_that_another_account_may_not_look_into_is_there() {
        // One that may list its buckets, and one that may not.
        let lists = |request: &str| match request.starts_with("GET / ") {
            true => has("t", 4),
            false => error(403, "AccessDenied"),
        };
        let looks = |request: &str| match request.contains(NO_BUCKET) {
            true => error(404, "NoSuchBucket"),
            false => error(403, "AccessDenied"),
        };
        let nothing = |_: &str| error(404, "NoSuchBucket");
        for (other, is_seen) in [(lists as fn(&str) -> String, true), (looks, true), (nothing, false)] {
            let accounts = accounts_that_hear([nothing, other]).await;
            assert_eq!(accounts.others_see("b", false).await.unwrap(), is_seen);
            assert_eq!(accounts.any_sees("b").await.unwrap(), is_seen);
        }
    }
}
