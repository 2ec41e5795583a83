//! What kinds of stores there are, and in what they differ where the gateway has to know: one row each, in `table`.
//!
//! The code asks a row's fields and never its name. Facts that only a reader needs (which features a store has at all)
//! stand here too, so that the table in docs/s3-compatibility.md has one origin; `cargo run -q -p claviger-gateway
//! --example store_table` prints it. Path-style addressing works with every one of them.

mod table;

use claviger_s3::error::ErrorCode;

use crate::config::UpstreamProfile;

pub use table::PROFILES;

/// One kind of store.
#[derive(Debug)]
pub struct Profile {
    /// The setting that chooses it.
    pub kind: UpstreamProfile,
    /// Its name in `upstream.profile` and `--upstream-profile`.
    pub name: &'static str,
    /// Its name for people.
    pub store: &'static str,
    /// What the row is based on.
    pub shown_by: ShownBy,
    /// Whether CreateBucket names the region.
    pub location: Location,
    /// The regions that requests may be signed for; empty: whichever the store was set up with.
    pub regions: &'static [&'static str],
    /// Bytes of user metadata (names and values) that the store takes; `upstream.metadata_bytes_max` may go so far.
    pub metadata_bytes_max: usize,
    /// Bytes that one PUT may hold.
    pub put_bytes_max: u64,
    /// All parts of an upload but the last have to be of one size as stored, and the last not larger.
    pub equal_parts: bool,
    /// How the entity tag of a condition on PutObject has to be written.
    pub tag_on_put: TagForm,
    /// What becomes of conditional writes.
    pub conditions: Conditions,
    /// Whether DeleteObjects exists.
    pub delete_objects: DeleteObjects,
    /// Whether clients of this store may still sign with version 2, which the gateway then verifies.
    pub signature_v2: bool,
    /// A PutObject carries a checksum of its ciphertext behind its body. Buckets with Object Lock want a digest with
    /// every write, and nobody tells the gateway which buckets these are.
    pub checksum_behind_puts: bool,
    /// CompleteMultipartUpload fails unless it names every part that was uploaded.
    pub complete_wants_all_parts: bool,
    /// A marker of ListObjects that is a common prefix is followed by what comes after that prefix, as S3 does. Where it is
    /// not, the gateway asks from behind the prefix's last possible key, or the listing would never end.
    pub marker_skips_prefix: bool,
    /// What a read of a part number beyond the object's parts is answered; the gateway answers in the store's stead.
    pub no_such_part: ErrorCode,
    /// CopyObject takes the copy's tags from its headers. Where it does not they are set when the copy is made.
    pub copy_takes_tags: bool,
    /// What else of S3 the store has.
    pub features: Features,
    /// Storage classes that it knows; empty: only the standard one, or none is documented.
    pub storage_classes: &'static [&'static str],
    /// Where the facts are from.
    pub sources: &'static [&'static str],
}

/// How it is known that the gateway works with a store.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ShownBy {
    /// The store itself runs in the project's continuous integration.
    TheStore,
    /// The store itself, in a run that has to be asked for.
    TheStoreOnDemand,
    /// A double that keeps the rules which the provider documents. The provider itself has not been asked.
    ADouble,
    /// Nothing: what every store is thought to understand.
    Nothing,
}

/// Whether CreateBucket says where.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Location {
    /// Never: the endpoint is in one place.
    Unnamed,
    /// In a document, except in `us-east-1`, where it may not be named.
    OutsideUsEast1,
    /// In a document, if it is not `auto`.
    UnlessAuto,
}

/// How an entity tag is written in a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TagForm {
    /// `"tag"`, as RFC 9110 §8.8.3 has it.
    Quoted,
    /// Without quotes: the store compares the header as it is with the tag.
    Bare,
}

impl TagForm {
    /// A tag, given bare, in this form.
    pub(super) fn write(self, tag: &str) -> String {
        match self {
            Self::Quoted => format!("\"{tag}\""),
            Self::Bare => tag.to_owned(),
        }
    }
}

/// What becomes of a condition on a write.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Condition {
    /// The store keeps it.
    Kept,
    /// The store takes the request and ignores the condition. It is passed on all the same: through the gateway a
    /// request means what it means directly.
    Ignored,
    /// The store answers with an error, which is passed on.
    Refused,
    /// Not known of this store.
    Unknown,
    /// The store has conditions of its own in place of S3's. The gateway answers `NotImplemented`, and nothing is sent.
    NotSent,
}

/// Conditions on writes, by operation.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Conditions {
    /// `If-None-Match: *` on PutObject.
    pub put_if_none_match: Condition,
    /// `If-Match` on PutObject.
    pub put_if_match: Condition,
    /// Either on CompleteMultipartUpload.
    pub complete: Condition,
    /// `If-Match` on DeleteObject.
    pub delete: Condition,
}

impl Conditions {
    /// The same for every operation.
    const fn all(of_all: Condition) -> Self {
        Self { put_if_none_match: of_all, put_if_match: of_all, complete: of_all, delete: of_all }
    }
}

/// How many objects are deleted at once.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum DeleteObjects {
    /// By the store, in one request.
    Together,
    /// By the gateway, with a DeleteObject for each: the store has no such request.
    OneByOne,
}

/// Features that the gateway passes through where the store has them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Features {
    /// Versions of objects.
    pub versioning: bool,
    /// Tags of objects.
    pub tagging: bool,
    /// ACLs beyond the owner's.
    pub acl: bool,
    /// Object Lock.
    pub object_lock: bool,
    /// Bucket policies.
    pub policy: bool,
}

impl Features {
    const ALL: Self = Self { versioning: true, tagging: true, acl: true, object_lock: true, policy: true };
    const NONE: Self =
        Self { versioning: false, tagging: false, acl: false, object_lock: false, policy: false };
}

impl Profile {
    /// The row of a kind of store.
    #[must_use]
    pub fn of(kind: UpstreamProfile) -> &'static Self {
        // Every kind has a row; a test says so.
        PROFILES.iter().find(|profile| profile.kind == kind).unwrap_or(&table::GENERIC)
    }

    /// The row of this name.
    #[must_use]
    pub fn named(name: &str) -> Option<&'static Self> {
        PROFILES.iter().find(|profile| profile.name == name)
    }

    /// Whether a new bucket's region has to be named in CreateBucket, for requests signed for `region`.
    pub(crate) fn names_location(&self, region: &str) -> bool {
        match self.location {
            Location::Unnamed => false,
            Location::OutsideUsEast1 => region != "us-east-1",
            Location::UnlessAuto => region != "auto",
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_kind_of_store_has_one_row_and_its_name_is_the_setting() {
        for profile in PROFILES {
            let kind: UpstreamProfile = toml::Value::String(profile.name.to_owned()).try_into().unwrap();
            assert_eq!(kind, profile.kind, "{}", profile.name);
            assert!(std::ptr::eq(Profile::of(kind), profile) && Profile::named(profile.name).is_some());
        }
        let kinds: std::collections::HashSet<_> = PROFILES.iter().map(|profile| profile.name).collect();
        assert_eq!(kinds.len(), PROFILES.len());
        assert_eq!(PROFILES.len(), UpstreamProfile::COUNT);
    }

    #[test]
    fn every_row_but_the_generic_ones_says_where_its_facts_are_from() {
        for profile in PROFILES.iter().filter(|profile| profile.shown_by == ShownBy::ADouble) {
            assert!(!profile.sources.is_empty(), "{}", profile.name);
        }
    }

    #[test]
    fn the_longest_put_that_goes_out_in_one_piece_is_the_formats_unless_the_store_takes_less() {
        use claviger_format::layout::{SINGLE_PUT_LEN_MAX, g};
        let put_max = |name: &str| Profile::named(name).unwrap().put_bytes_max;
        let fits = |name: &str, length: u64| g(length).is_some_and(|sealed_len| sealed_len <= put_max(name));
        assert!(fits("aws", SINGLE_PUT_LEN_MAX) && !fits("aws", SINGLE_PUT_LEN_MAX + 1));
        assert!(!fits("r2", SINGLE_PUT_LEN_MAX));
    }

    #[test]
    fn a_location_is_named_where_the_store_wants_it() {
        let names = |name: &str, region: &str| Profile::named(name).unwrap().names_location(region);
        assert!(!names("aws", "us-east-1") && names("aws", "eu-central-1"));
        assert!(!names("ceph-rgw", "eu") && !names("garage", "garage"));
        assert!(!names("r2", "auto"));
    }
}
