//! What a lying provider can do, and when it does it.

use crate::SeededRandom;

/// One deviation from the truth. Lies about reads change what a GET (or HEAD, or listing) answers; faults change what
/// becomes of a write.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Lie {
    /// One bit of the body, anywhere.
    FlipBit,
    /// One bit of the body's first 96 bytes: where a unit header lies.
    FlipBitAtStart,
    /// One bit of the body's last 200 bytes: where the footer lies.
    FlipBitAtEnd,
    /// A shorter body whose Content-Length agrees with it.
    Truncate,
    /// A shorter body by one whole segment (65,552 bytes) from its middle, or half of it if it is small.
    CutSegment,
    /// A longer body.
    Extend,
    /// Two segments of 65,552 bytes exchanged; in a small body its two halves.
    SwapSegments,
    /// Zeros instead of the body.
    Zeros,
    /// Another object of the bucket, whole: its body, its envelope, its ETag.
    OtherObject,
    /// Another object's body under this object's headers.
    OtherBody,
    /// Another object's envelope over this object's body.
    OtherEnvelope,
    /// The envelope header is left out.
    NoEnvelope,
    /// One character of the envelope is changed.
    FlipEnvelope,
    /// An earlier envelope of this key over the present body.
    OldEnvelope,
    /// The body that belonged to an earlier envelope, under the present one.
    OldBody,
    /// A different range than was asked for, said to be the one asked for.
    OtherRange,
    /// A shorter range than was asked for, and said so.
    ShorterRange,
    /// The whole object with 200 where a range was asked for.
    WholeObject,
    /// A Content-Range (or on HEAD a Content-Length) with another total size.
    OtherSize,
    /// Another ETag than in the answer before.
    OtherEtag,
    /// 304 to a request without a condition.
    NotModified,
    /// 404: the object is hidden.
    Hidden,
    /// The connection breaks off in the middle of the body.
    BreakOff,
    /// The entries of a listing in reverse.
    ReversedList,
    /// Other sizes in a listing.
    ListedSizes,
    /// A write is answered 500 and was not done.
    FailedNotDone,
    /// A write is answered 500 and was done.
    FailedButDone,
    /// The connection breaks off before a write is done; nothing is answered.
    ResetNotDone,
    /// A write is done, and the connection breaks off before the answer.
    ResetButDone,
    /// A Complete or Copy is answered 200 with an `<Error>` in the body, and was not done.
    ErrorIn200,
}

/// The kinds of request that a lie is about.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Subject {
    /// GET of an object.
    Get,
    /// HEAD of an object.
    Head,
    /// A listing of objects.
    List,
    /// PUT of an object or a part, copies among them.
    Put,
    /// POST of CompleteMultipartUpload.
    Complete,
    /// DELETE of an object or an upload.
    Delete,
    /// Everything else.
    Other,
}

/// Lies that change what a read of an object gives: the ones that authentication has to catch.
pub const READ_LIES: [Lie; 23] = [
    Lie::FlipBit,
    Lie::FlipBitAtStart,
    Lie::FlipBitAtEnd,
    Lie::Truncate,
    Lie::CutSegment,
    Lie::Extend,
    Lie::SwapSegments,
    Lie::Zeros,
    Lie::OtherObject,
    Lie::OtherBody,
    Lie::OtherEnvelope,
    Lie::NoEnvelope,
    Lie::FlipEnvelope,
    Lie::OldEnvelope,
    Lie::OldBody,
    Lie::OtherRange,
    Lie::ShorterRange,
    Lie::WholeObject,
    Lie::OtherSize,
    Lie::OtherEtag,
    Lie::NotModified,
    Lie::Hidden,
    Lie::BreakOff,
];

/// What can become of a write.
pub const WRITE_FAULTS: [Lie; 5] =
    [Lie::FailedNotDone, Lie::FailedButDone, Lie::ResetNotDone, Lie::ResetButDone, Lie::ErrorIn200];

/// Lies about listings: of these, sizes and order are the provider's claims (docs/format.md §3.8).
pub const LIST_LIES: [Lie; 2] = [Lie::ReversedList, Lie::ListedSizes];

impl Lie {
    /// The lie of that name, as `Debug` writes it.
    pub fn named(name: &str) -> Option<Self> {
        let all = READ_LIES.iter().chain(&WRITE_FAULTS).chain(&LIST_LIES);
        all.copied().find(|lie| format!("{lie:?}") == name)
    }

    /// Whether the lie can be told about such a request.
    pub fn is_about(self, subject: Subject) -> bool {
        match self {
            Self::ReversedList | Self::ListedSizes => subject == Subject::List,
            Self::FailedNotDone | Self::FailedButDone | Self::ResetNotDone | Self::ResetButDone => {
                matches!(subject, Subject::Put | Subject::Complete | Subject::Delete)
            }
            Self::ErrorIn200 => subject == Subject::Complete,
            Self::OtherObject
            | Self::OtherEnvelope
            | Self::NoEnvelope
            | Self::FlipEnvelope
            | Self::OldEnvelope
            | Self::OtherSize
            | Self::OtherEtag
            | Self::NotModified
            | Self::Hidden => matches!(subject, Subject::Get | Subject::Head),
            _ => subject == Subject::Get,
        }
    }
}

/// When to lie.
#[derive(Debug)]
pub enum Script {
    /// Never.
    Honest,
    /// This lie at every request that it is about and whose path contains the text.
    Always(Lie, String),
    /// This lie once, at the request after `after` others that it is about and whose path contains the text.
    Once {
        /// The lie.
        lie: Lie,
        /// Text in the path of the request, still percent-encoded.
        path: String,
        /// Requests that it lets pass first.
        after: u32,
    },
    /// One of the lies, drawn anew each time, at some percent of the requests.
    Seeded {
        /// Where the draws come from.
        random: SeededRandom,
        /// The lies to draw from.
        lies: Vec<Lie>,
        /// How often, 0 to 100.
        percent: u64,
    },
}

impl Script {
    /// One of [`READ_LIES`] at some percent of the reads.
    pub fn seeded_reads(seed: u64, percent: u64) -> Self {
        Self::Seeded { random: SeededRandom::new(seed), lies: READ_LIES.to_vec(), percent }
    }

    /// One of [`WRITE_FAULTS`] at some percent of the writes.
    pub fn seeded_faults(seed: u64, percent: u64) -> Self {
        Self::Seeded { random: SeededRandom::new(seed), lies: WRITE_FAULTS.to_vec(), percent }
    }

    /// What to do about the next request.
    pub(super) fn next(&mut self, subject: Subject, path: &str) -> Option<Lie> {
        match self {
            Self::Honest => None,
            Self::Always(lie, text) => {
                (lie.is_about(subject) && path.contains(text.as_str())).then_some(*lie)
            }
            Self::Once { lie, path: text, after } => {
                let lie = *lie;
                if !lie.is_about(subject) || !path.contains(text.as_str()) {
                    return None;
                }
                if *after > 0 {
                    *after -= 1;
                    return None;
                }
                *self = Self::Honest;
                Some(lie)
            }
            Self::Seeded { random, lies, percent } => {
                let fitting: Vec<Lie> = lies.iter().copied().filter(|lie| lie.is_about(subject)).collect();
                if fitting.is_empty() || random.below(100) >= *percent {
                    return None;
                }
                let drawn = random.below(fitting.len() as u64);
                usize::try_from(drawn).ok().and_then(|drawn| fitting.get(drawn)).copied()
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_lie_told_once_is_told_at_the_right_request_and_never_again() {
        let mut script = Script::Once { lie: Lie::FlipBit, path: "/k".to_owned(), after: 1 };
        let told: Vec<_> =
            ["/b/k", "/b/x", "/b/k", "/b/k"].map(|path| script.next(Subject::Get, path)).into();
        assert_eq!(told, [None, None, Some(Lie::FlipBit), None]);
    }

    #[test]
    fn a_seeded_script_tells_the_same_story_twice_and_every_lie_in_time() {
        let story = |seed| {
            let mut script = Script::seeded_reads(seed, 50);
            (0..2000).map(|_| script.next(Subject::Get, "/b/k")).collect::<Vec<_>>()
        };
        assert_eq!(story(1), story(1));
        assert_ne!(story(1), story(2));
        assert!(READ_LIES.iter().all(|lie| story(3).contains(&Some(*lie))));
    }

    #[test]
    fn no_read_lie_is_told_about_a_write() {
        let mut script = Script::seeded_reads(1, 100);
        assert!((0..100).all(|_| script.next(Subject::Put, "/b/k").is_none()));
    }
}
