//! Buckets whose names are only said to be there: `names-1000000` lists a million, and holds none of them.

use super::buckets::Page;

/// What a name ends with, and begins with.
const BEGIN: &str = "2026/11/scan-";
const END: &str = ".dcm";
/// Bytes at the store of an object of 1,024 that Claviger sealed.
pub(super) const STORED_LEN: u64 = 1384;

/// So many names, in order; their numbers begin at 0.
#[derive(Clone, Copy)]
pub(super) struct Names(u64);

impl Names {
    /// If the bucket is called `names-NUMBER`, or that with anything behind another hyphen.
    pub(super) fn of_bucket(bucket: &str) -> Option<Self> {
        let number = bucket.strip_prefix("names-")?.split('-').next()?;
        Some(Self(number.parse().ok()?))
    }

    pub(super) fn name(number: u64) -> String {
        format!("{BEGIN}{number:010}{END}")
    }

    /// The number of the first name for which `is_behind` holds. It holds for all that follow.
    fn first(self, is_behind: impl Fn(&str) -> bool) -> u64 {
        let (mut low, mut high) = (0, self.0);
        while low < high {
            let middle = low.midpoint(high);
            if is_behind(&Self::name(middle)) {
                high = middle;
            } else {
                low = middle + 1;
            }
        }
        low
    }

    /// A page as [`super::buckets::Buckets::page`] gives it.
    pub(super) fn page(self, prefix: &str, after: &str, max: usize) -> Page {
        let begin = self.first(|name| name > after && name >= prefix);
        let end = self.first(|name| name > prefix && !name.starts_with(prefix)).max(begin);
        let last = end.min(begin + max as u64);
        let entry = |number| (Self::name(number), STORED_LEN, format!("{:032x}", number + (1 << 60)));
        let next = (last < end && last > begin).then(|| Self::name(last - 1));
        Page { entries: (begin..last).map(entry).collect(), prefixes: Vec::new(), next }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_walk_gives_every_name_once_and_in_order() {
        let names = Names::of_bucket("names-2500-sealed").unwrap();
        let (mut found, mut after) = (Vec::new(), String::new());
        loop {
            let page = names.page("", &after, 1000);
            found.extend(page.entries.into_iter().map(|(name, ..)| name));
            let Some(next) = page.next else { break };
            after = next;
        }
        assert_eq!(found, (0..2500).map(Names::name).collect::<Vec<_>>());
        assert!(found.is_sorted());
    }

    #[test]
    fn pages_keep_to_their_prefix_and_begin_behind_what_was_named() {
        let names = Names::of_bucket("names-1000").unwrap();
        let page = names.page("2026/11/scan-000000012", "2026/11/scan-0000000123.dcm", 3);
        let found: Vec<_> = page.entries.into_iter().map(|(name, ..)| name).collect();
        assert_eq!(found, [124, 125, 126].map(Names::name));
        assert_eq!(page.next.as_deref(), Some("2026/11/scan-0000000126.dcm"));
        let page = names.page("2026/11/scan-000000012", "2026/11/scan-0000000126.dcm", 3);
        assert_eq!((page.entries.len(), page.next), (3, None));
        assert!(
            names.page("2027", "", 10).entries.is_empty() && names.page("2025", "", 10).entries.is_empty()
        );
        assert!(names.page("", &Names::name(999), 10).entries.is_empty());
        assert_eq!(names.page("", &Names::name(998), 10).entries.len(), 1);
    }

    #[test]
    fn other_buckets_are_what_they_hold() {
        for bucket in ["bench", "names", "names-", "names-many", "name-5"] {
            assert!(Names::of_bucket(bucket).is_none(), "{bucket}");
        }
    }

    #[test]
    fn sizes_are_those_of_sealed_objects() {
        assert_eq!(claviger_format::layout::g_inverse(STORED_LEN), Some(1024));
    }
}
