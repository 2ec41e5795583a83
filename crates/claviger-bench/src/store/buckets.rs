//! What the store has.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, PoisonError, RwLock};

use http::HeaderMap;

use super::content::Content;

/// One object.
pub(super) struct Object {
    /// `Content-Type` and user metadata, as they came.
    pub(super) headers: HeaderMap,
    pub(super) content: Content,
    pub(super) etag: String,
}

type Objects = BTreeMap<String, Arc<Object>>;

/// One upload, and what is kept of its parts (nothing where their bodies are forgotten).
#[derive(Default)]
pub(super) struct Upload {
    pub(super) headers: HeaderMap,
    pub(super) parts: BTreeMap<u32, Content>,
}

/// All buckets, and uploads under way.
#[derive(Default)]
pub(super) struct Buckets {
    objects: RwLock<BTreeMap<String, Objects>>,
    uploads: RwLock<BTreeMap<String, Upload>>,
    made: AtomicU64,
}

/// A page of a listing.
pub(super) struct Page {
    pub(super) entries: Vec<(String, u64, String)>,
    pub(super) prefixes: Vec<String>,
    /// The last name of the page, where more follow.
    pub(super) next: Option<String>,
}

impl Buckets {
    /// 32 hexadecimal digits that have not been given out before.
    pub(super) fn new_id(&self) -> String {
        format!("{:032x}", self.made.fetch_add(1, Ordering::Relaxed) + (1 << 60))
    }

    pub(super) fn create(&self, bucket: &str) -> bool {
        let mut buckets = self.objects.write().unwrap_or_else(PoisonError::into_inner);
        let is_new = !buckets.contains_key(bucket);
        buckets.entry(bucket.to_owned()).or_default();
        is_new
    }

    pub(super) fn names(&self) -> Vec<String> {
        self.objects.read().unwrap_or_else(PoisonError::into_inner).keys().cloned().collect()
    }

    pub(super) fn has(&self, bucket: &str) -> bool {
        self.objects.read().unwrap_or_else(PoisonError::into_inner).contains_key(bucket)
    }

    pub(super) fn remove_bucket(&self, bucket: &str) {
        self.objects.write().unwrap_or_else(PoisonError::into_inner).remove(bucket);
    }

    pub(super) fn get(&self, bucket: &str, key: &str) -> Option<Arc<Object>> {
        self.objects.read().unwrap_or_else(PoisonError::into_inner).get(bucket)?.get(key).cloned()
    }

    /// False if there is no such bucket.
    pub(super) fn put(&self, bucket: &str, key: &str, object: Object) -> bool {
        let mut buckets = self.objects.write().unwrap_or_else(PoisonError::into_inner);
        let Some(objects) = buckets.get_mut(bucket) else { return false };
        objects.insert(key.to_owned(), Arc::new(object));
        true
    }

    pub(super) fn delete(&self, bucket: &str, key: &str) {
        if let Some(objects) = self.objects.write().unwrap_or_else(PoisonError::into_inner).get_mut(bucket) {
            objects.remove(key);
        }
    }

    pub(super) fn begin_upload(&self, headers: HeaderMap) -> String {
        let id = self.new_id();
        let upload = Upload { headers, ..Upload::default() };
        self.uploads.write().unwrap_or_else(PoisonError::into_inner).insert(id.clone(), upload);
        id
    }

    /// False if there is no such upload.
    pub(super) fn add_part(&self, id: &str, number: u32, content: Content) -> bool {
        let mut uploads = self.uploads.write().unwrap_or_else(PoisonError::into_inner);
        let Some(upload) = uploads.get_mut(id) else { return false };
        upload.parts.insert(number, content);
        true
    }

    pub(super) fn end_upload(&self, id: &str) -> Option<Upload> {
        self.uploads.write().unwrap_or_else(PoisonError::into_inner).remove(id)
    }

    /// A page of at most `max` names and prefixes behind `after`.
    pub(super) fn page(
        &self,
        bucket: &str,
        prefix: &str,
        delimiter: &str,
        after: &str,
        max: usize,
    ) -> Option<Page> {
        let buckets = self.objects.read().unwrap_or_else(PoisonError::into_inner);
        let objects = buckets.get(bucket)?;
        let mut page = Page { entries: Vec::new(), prefixes: Vec::new(), next: None };
        let from = prefix.max(after).to_owned();
        let mut last = String::new();
        for (key, object) in objects.range(from..) {
            if !key.starts_with(prefix) {
                break;
            }
            if key.as_str() <= after
                || (!delimiter.is_empty() && after.ends_with(delimiter) && key.starts_with(after))
            {
                continue;
            }
            let common = common_prefix(key, prefix, delimiter);
            if common.is_some_and(|common| page.prefixes.last().is_some_and(|last| last == common)) {
                continue;
            }
            if page.entries.len() + page.prefixes.len() == max {
                page.next = Some(last);
                break;
            }
            if let Some(common) = common {
                last = common.to_owned();
                page.prefixes.push(common.to_owned());
            } else {
                last = key.clone();
                page.entries.push((key.clone(), object.content.len(), object.etag.clone()));
            }
        }
        Some(page)
    }
}

fn common_prefix<'a>(key: &'a str, prefix: &str, delimiter: &str) -> Option<&'a str> {
    if delimiter.is_empty() {
        return None;
    }
    let at = key[prefix.len()..].find(delimiter)?;
    Some(&key[..prefix.len() + at + delimiter.len()])
}
