//! What the key service tells a gateway by itself, on the stream that the gateway holds open ([`crate::routes::WATCH`]).
//!
//! The stream is a hint that makes things quick, and never what they hang on: whoever does not hear it loses what it holds
//! when the lifetimes run out.

use futures_util::stream::BoxStream;
use serde::{Deserialize, Serialize};

use crate::error::KeyServiceError;
use crate::wire::Id16;

/// Longest line, in bytes, its line feed included.
pub const WATCH_LINE_LEN_MAX: usize = 64 << 10;
/// Something is sent at least this often, in seconds.
pub const WATCH_BEAT_S: u64 = 10;
/// Most names in one [`WatchEvent::Bindings`].
pub const WATCH_BUCKETS_MAX: usize = 256;

/// One line of the stream: a JSON object whose member `event` says which.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "event", rename_all = "snake_case", deny_unknown_fields)]
pub enum WatchEvent {
    /// The first line.
    Hello {
        /// Digest of everything that the caller may do now. Another one than the caller heard last means that something
        /// changed while it did not listen.
        state: Id16,
    },
    /// What the caller may do changed, or a keyset of its has another newest version: the session has to be asked again.
    Policy {
        /// The new digest.
        state: Id16,
        /// Something was taken away: keys that are held may be such as would not be released any more.
        less: bool,
    },
    /// The caller, one of its keysets, or everything was frozen.
    Frozen {
        /// The new digest.
        state: Id16,
    },
    /// Other epochs than before are in quarantine.
    Quarantined {
        /// The new digest.
        state: Id16,
    },
    /// Buckets that the caller may see were bound or unbound.
    Bindings {
        /// Their names, up to [`WATCH_BUCKETS_MAX`]; `None` if there were too many: any may be meant.
        buckets: Option<Vec<String>>,
    },
    /// An operator locked the service. The last line.
    Locked,
    /// The caller was revoked. The last line.
    Revoked,
    /// Nothing happened; the stream lives.
    Beat,
    /// Something that this version does not know. To be taken for the worst that leaves the stream open: that something was
    /// taken away.
    #[serde(other)]
    Unknown,
}

impl WatchEvent {
    /// What stands in its line as `event`; for logs and metrics.
    #[must_use]
    pub fn name(&self) -> &'static str {
        match self {
            Self::Hello { .. } => "hello",
            Self::Policy { .. } => "policy",
            Self::Frozen { .. } => "frozen",
            Self::Quarantined { .. } => "quarantined",
            Self::Bindings { .. } => "bindings",
            Self::Locked => "locked",
            Self::Revoked => "revoked",
            Self::Beat => "beat",
            Self::Unknown => "unknown",
        }
    }
}

/// The stream as its reader sees it. It ends when the service ends it; an error is its last item.
pub type Watch = BoxStream<'static, Result<WatchEvent, KeyServiceError>>;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_is_an_object_that_names_its_event() {
        let policy = WatchEvent::Policy { state: Id16([7; 16]), less: true };
        let line = serde_json::to_string(&policy).unwrap();
        assert_eq!(
            line,
            "{\"event\":\"policy\",\"state\":\"07070707070707070707070707070707\",\"less\":true}"
        );
        assert_eq!(serde_json::from_str::<WatchEvent>(&line).unwrap(), policy);
        assert_eq!(serde_json::to_string(&WatchEvent::Beat).unwrap(), "{\"event\":\"beat\"}");
    }

    #[test]
    fn an_event_of_a_later_version_is_unknown_and_not_an_error() {
        let line = "{\"event\":\"thawed\",\"epochs\":[1,2]}";
        assert_eq!(serde_json::from_str::<WatchEvent>(line).unwrap(), WatchEvent::Unknown);
        assert!(serde_json::from_str::<WatchEvent>("{\"state\":\"x\"}").is_err());
        assert!(serde_json::from_str::<WatchEvent>("[]").is_err());
    }

    #[test]
    fn the_longest_list_of_buckets_fits_a_line() {
        let buckets = Some(vec!["b".repeat(63); WATCH_BUCKETS_MAX]);
        let line = serde_json::to_vec(&WatchEvent::Bindings { buckets }).unwrap();
        assert!(line.len() < WATCH_LINE_LEN_MAX);
    }
}
