//! Patterns for bucket names: `*` for any run of characters, `?` for exactly one.

/// A pattern. Every other character stands for itself; there is no escape, since bucket names hold neither sign.
#[derive(Debug, Clone)]
pub(crate) struct Glob(Box<[u8]>);

impl Glob {
    pub(crate) fn new(pattern: &str) -> Self {
        Self(pattern.as_bytes().into())
    }

    /// Whether the whole of `name` fits. Takes at most `pattern × name` steps: on a mismatch only the last `*` is
    /// tried anew, one byte further.
    pub(crate) fn matches(&self, name: &str) -> bool {
        let (pattern, name) = (&*self.0, name.as_bytes());
        let (mut p, mut n) = (0, 0);
        let mut last_star: Option<(usize, usize)> = None;
        while n < name.len() {
            if pattern.get(p) == Some(&b'*') {
                last_star = Some((p, n));
                p += 1;
            } else if pattern.get(p).is_some_and(|&sign| sign == b'?' || sign == name[n]) {
                p += 1;
                n += 1;
            } else if let Some((star, taken)) = last_star {
                last_star = Some((star, taken + 1));
                (p, n) = (star + 1, taken + 1);
            } else {
                return false;
            }
        }
        pattern[p..].iter().all(|&sign| sign == b'*')
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn patterns_match_whole_names_only() {
        let cases = [
            ("*", "anything", true),
            ("*", "", true),
            ("backup-*", "backup-1", true),
            ("backup-*", "backup-", true),
            ("backup-*", "old-backup-1", false),
            ("*-logs", "eu-logs", true),
            ("*-logs", "eu-logs-2", false),
            ("a*b*c", "axxbyyc", true),
            ("a*b*c", "axxbyy", false),
            ("a?c", "abc", true),
            ("a?c", "ac", false),
            ("exact", "exact", true),
            ("exact", "exactly", false),
            ("exact", "exac", false),
            ("", "x", false),
            ("a*ab", "aaab", true),
            ("**", "x", true),
        ];
        for (pattern, name, expected) in cases {
            assert_eq!(Glob::new(pattern).matches(name), expected, "{pattern} against {name}");
        }
    }

    #[test]
    fn a_hostile_pattern_takes_no_exponential_time() {
        let pattern = "a*".repeat(100) + "b";
        assert!(!Glob::new(&pattern).matches(&"a".repeat(5000)));
    }
}
