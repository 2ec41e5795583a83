//! What an identity may do, as values that prove it.
//!
//! A function that touches the store takes a [`Permit`], and only [`Identity::permit`] makes one: the check can't be
//! forgotten, nor be made for another name than the one used. Permits are per key: DeleteObjects needs one for each
//! key in its list, a copy one for its source and one for its target.
//!
//! | permit | needs a grant whose buckets match and that allows |
//! |---|---|
//! | [`ReadObject`] | `read`, the key starting with the grant's prefix |
//! | [`WriteObject`] | `write`, likewise; all multipart calls are writes |
//! | [`DeleteObject`] | `delete`, likewise |
//! | [`ListObjects`] | `list`, the listing's prefix starting with the grant's |
//! | [`ManageBucket`] | `manage` |
//! | [`ReadBucket`] | anything |

use std::marker::PhantomData;

use claviger_s3::{ErrorCode, S3Error};

use crate::credentials::Identity;

mod glob;

pub(crate) use glob::Glob;
pub(crate) use sealed::Actions;

/// One `[[key.allow]]`.
#[derive(Debug)]
pub(crate) struct Grant {
    pub(crate) buckets: Vec<Glob>,
    pub(crate) prefix: String,
    pub(crate) actions: Actions,
}

/// Reading one object: content, metadata, attributes, tags, ACL.
#[derive(Debug)]
pub enum ReadObject {}
/// Writing one object, at once or in parts, and its ACL.
#[derive(Debug)]
pub enum WriteObject {}
/// Deleting one object.
#[derive(Debug)]
pub enum DeleteObject {}
/// Listing the objects or uploads of a bucket under a prefix.
#[derive(Debug)]
pub enum ListObjects {}
/// Creating or deleting a bucket, and changing its configuration: ACL, policy, rules.
#[derive(Debug)]
pub enum ManageBucket {}
/// Knowing that a bucket exists, where it is and how it is configured.
#[derive(Debug)]
pub enum ReadBucket {}

/// What a permit can be for. Sealed: the six markers of this module are all there are.
pub trait Action: sealed::Action {}

mod sealed {
    #[derive(Debug, Clone, Copy, Default)]
    pub struct Actions {
        pub read: bool,
        pub write: bool,
        pub delete: bool,
        pub list: bool,
        pub manage: bool,
    }

    pub trait Action {
        const VERB: &'static str;
        /// Whether an action of this kind concerns the bucket alone, so that a grant's prefix says nothing about it.
        const WHOLE_BUCKET: bool;
        fn allowed_by(actions: Actions) -> bool;
    }
}

macro_rules! actions {
    ($($marker:ident, $verb:literal, $whole_bucket:literal, $allowed:expr;)*) => {$(
        impl sealed::Action for $marker {
            const VERB: &'static str = $verb;
            const WHOLE_BUCKET: bool = $whole_bucket;
            fn allowed_by(actions: Actions) -> bool {
                let allowed: fn(Actions) -> bool = $allowed;
                allowed(actions)
            }
        }
        impl Action for $marker {}
    )*};
}

actions! {
    ReadObject, "read", false, |actions| actions.read;
    WriteObject, "write", false, |actions| actions.write;
    DeleteObject, "delete", false, |actions| actions.delete;
    ListObjects, "list", false, |actions| actions.list;
    ManageBucket, "manage", true, |actions| actions.manage;
    ReadBucket, "see", true, |_| true;
}

/// Proof that an identity may do `A` to one name. Made by [`Identity::permit`] only.
pub struct Permit<A: Action> {
    bucket: String,
    key: String,
    action: PhantomData<fn() -> A>,
}

impl<A: Action> Permit<A> {
    /// The bucket that it is for.
    #[must_use]
    pub fn bucket(&self) -> &str {
        &self.bucket
    }
}

macro_rules! with_key {
    ($($marker:ident)*) => {$(
        impl Permit<$marker> {
            /// The object key that it is for.
            #[must_use]
            pub fn key(&self) -> &str {
                &self.key
            }
        }
    )*};
}

with_key! { ReadObject WriteObject DeleteObject }

impl Permit<ListObjects> {
    /// The prefix that the listing is for: nothing outside it may be shown.
    #[must_use]
    pub fn prefix(&self) -> &str {
        &self.key
    }
}

impl<A: Action> std::fmt::Debug for Permit<A> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Permit({} {}/{})", A::VERB, self.bucket, self.key)
    }
}

/// An action that no grant allows.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("access key {access_key_id} has no grant to {verb} {resource}")]
pub struct Denied {
    access_key_id: String,
    verb: &'static str,
    resource: String,
}

impl From<Denied> for S3Error {
    fn from(denied: Denied) -> Self {
        let resource = denied.resource.clone();
        S3Error::new(ErrorCode::AccessDenied)
            .with_message(format!("Access Denied: {denied}."))
            .with_resource(resource)
    }
}

impl Identity {
    /// Proof that this identity may do `A` to `key` in `bucket`. `key` is the object's key for the object actions,
    /// the listing's prefix for [`ListObjects`], and empty for the bucket actions.
    ///
    /// # Errors
    /// [`Denied`], which becomes S3's `AccessDenied`, when no grant allows it.
    pub fn permit<A: Action>(&self, bucket: &str, key: &str) -> Result<Permit<A>, Denied> {
        let allows = |grant: &Grant| {
            A::allowed_by(grant.actions)
                && grant.covers_bucket(bucket)
                && (A::WHOLE_BUCKET || key.starts_with(&grant.prefix))
        };
        if self.grants.iter().any(allows) {
            return Ok(Permit { bucket: bucket.to_owned(), key: key.to_owned(), action: PhantomData });
        }
        let resource = if key.is_empty() { format!("/{bucket}") } else { format!("/{bucket}/{key}") };
        Err(Denied { access_key_id: self.access_key_id().to_owned(), verb: A::VERB, resource })
    }

    /// Whether this identity may do `A` to anything in `bucket`.
    ///
    /// # Errors
    /// [`Denied`] when no grant allows it for any key.
    pub(crate) fn permit_some<A: Action>(&self, bucket: &str) -> Result<(), Denied> {
        let allows = |grant: &Grant| A::allowed_by(grant.actions) && grant.covers_bucket(bucket);
        if self.grants.iter().any(allows) {
            return Ok(());
        }
        let access_key_id = self.access_key_id().to_owned();
        Err(Denied { access_key_id, verb: A::VERB, resource: format!("/{bucket}") })
    }

    /// Whether ListBuckets shows this bucket: some grant, for whatever action, covers it.
    #[must_use]
    pub fn may_see_bucket(&self, bucket: &str) -> bool {
        self.grants.iter().any(|grant| grant.covers_bucket(bucket))
    }
}

impl Grant {
    fn covers_bucket(&self, bucket: &str) -> bool {
        self.buckets.iter().any(|glob| glob.matches(bucket))
    }
}

#[cfg(test)]
mod tests;
