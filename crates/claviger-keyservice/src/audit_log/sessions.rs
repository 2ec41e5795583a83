//! When which replica served, as its log tells it by numbers of states: from where it went on, and how far it came.
//!
//! One serves at a time, and whoever is next goes on from where the one before came to. So no session can begin between beginning and end of
//! another one's: whatever the clocks show, there is no order in which both could be. A session that begins where another one began can
//! have been before it; there the clocks of both decide, if they are far enough apart.

use super::states::{ANEW, Told};

/// How far the clocks of two replicas may be apart, in milliseconds.
const CLOCKS_APART_MS: u64 = 10 * 60_000;

/// What a record did before which its replica did not serve.
const BEGINS: [&str; 5] = ["init", "take-over", "unlock", "activate", "complete"];

/// A replica that went on from an older state than one that had been told of.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Back {
    /// The one that did, and the one whose log tells of the later state: places of their folders.
    pub folders: (usize, usize),
    /// Number of the state from which it went on.
    pub from: u64,
    /// Number of the later one.
    pub told: u64,
    /// Whether that can't be by the numbers; else it can't be by the times that both logs show.
    pub by_numbers: bool,
    /// Whether all these records are under the checkpoints that lie in the folders.
    pub is_signed: bool,
}

/// What a log tells of when its replica served.
#[derive(Default)]
pub(super) struct Sessions {
    all: Vec<Session>,
    is_open: bool,
    /// Each state, when it was first told of: the numbers grow.
    growth: Vec<Point>,
    /// The log tells of this one after a later one.
    fallen: Option<(Point, Point)>,
}

#[derive(Debug, Clone, Copy)]
struct Session {
    start: Point,
    end: u64,
    /// How far it came by records that are signed.
    signed_end: Option<u64>,
}

#[derive(Debug, Clone, Copy)]
struct Point {
    number: u64,
    time_ms: u64,
    is_signed: bool,
}

impl Sessions {
    /// Takes the log's next record.
    pub(super) fn take(&mut self, told: &Told<'_>) {
        let Some(number) = told.number else {
            // A process began: locked, or as a standby.
            self.is_open &= told.action != "start";
            return;
        };
        let point = Point { number, time_ms: told.time_ms, is_signed: told.is_signed };
        match self.growth.last() {
            Some(last) if last.number > number => {
                self.fallen.get_or_insert((point, *last));
            }
            Some(last) if last.number == number => {}
            _ => self.growth.push(point),
        }
        match told.action {
            // Seen, not made.
            "join" | "witness" => self.is_open = false,
            "replaced" | "lock" => {
                self.go_on(point);
                self.is_open = false;
            }
            action if BEGINS.contains(&action) || ANEW.contains(&action) => {
                self.is_open = false;
                self.go_on(point);
            }
            _ => self.go_on(point),
        }
    }

    fn go_on(&mut self, point: Point) {
        if !self.is_open {
            self.is_open = true;
            self.all.push(Session { start: point, end: point.number, signed_end: None });
        }
        if let Some(session) = self.all.last_mut() {
            session.end = session.end.max(point.number);
            session.signed_end = if point.is_signed { Some(session.end) } else { session.signed_end };
        }
    }

    /// The first state after this one of which the log told before this moment.
    fn told_before(&self, number: u64, time_ms: u64) -> Option<Point> {
        let later = self.growth.get(self.growth.partition_point(|point| point.number <= number))?;
        (later.time_ms.saturating_add(CLOCKS_APART_MS) < time_ms).then_some(*later)
    }
}

/// Who went back, of these logs by their places; each once.
pub(super) fn backs(logs: &[Sessions]) -> Vec<Back> {
    let mut found = Vec::new();
    for (place, log) in logs.iter().enumerate() {
        if let Some((point, later)) = log.fallen {
            let is_signed = point.is_signed && later.is_signed;
            let (from, told) = (point.number, later.number);
            found.push(Back { folders: (place, place), from, told, by_numbers: true, is_signed });
        }
        let others = || logs.iter().enumerate().filter(move |(other, _)| *other != place);
        let each = log.all.iter().filter_map(|session| {
            let start = session.start;
            let by_numbers = others().find_map(|(other, log)| inside(start, log).map(|back| (other, back)));
            let (other, (told, is_signed, by_numbers)) = match by_numbers {
                Some((other, (told, is_signed))) => (other, (told, is_signed, true)),
                None => others().find_map(|(other, log)| {
                    let later = log.told_before(start.number, start.time_ms)?;
                    Some((other, (later.number, start.is_signed && later.is_signed, false)))
                })?,
            };
            Some(Back { folders: (place, other), from: start.number, told, by_numbers, is_signed })
        });
        found.extend(each);
    }
    found
}

/// Whether this lies between beginning and end of a session: its end, and whether all of that is signed.
fn inside(start: Point, log: &Sessions) -> Option<(u64, bool)> {
    let around = |session: &&Session| session.start.number < start.number && start.number < session.end;
    // One that is signed says it better.
    let is_signed = |session: &Session| {
        start.is_signed && session.start.is_signed && session.signed_end > Some(start.number)
    };
    let mut found = log.all.iter().filter(around);
    let first = *found.next()?;
    let best = std::iter::once(first).chain(found.copied()).find(is_signed).unwrap_or(first);
    Some((best.end, is_signed(&best)))
}

#[cfg(test)]
mod tests {
    use super::*;

    const MINUTE_MS: u64 = 60_000;

    fn log(records: &[(&str, u64, u64)]) -> Sessions {
        let mut sessions = Sessions::default();
        for (action, number, minute) in records {
            let number = (*number > 0).then_some(*number);
            sessions.take(&Told { action, time_ms: minute * MINUTE_MS, number, is_signed: true });
        }
        sessions
    }

    #[test]
    fn where_the_numbers_allow_both_orders_the_clocks_decide() {
        // It was restarted just at state 5, and the copy for the other one was made then.
        let first = || {
            log(&[
                ("init", 1, 0),
                ("bind", 5, 1),
                ("start", 0, 2),
                ("unlock", 5, 2),
                ("freeze", 6, 3),
                ("policy", 8, 4),
            ])
        };
        let back = |minute| backs(&[first(), log(&[("join", 4, 0), ("activate", 5, minute)])]);
        let found = back(60);
        assert_eq!((found.len(), found[0].from, found[0].told, found[0].by_numbers), (1, 5, 6, false));
        assert!(found[0].is_signed);
        assert!(back(2).is_empty(), "it may have been between both");
        assert!(back(12).is_empty(), "clocks differ");
    }

    #[test]
    fn a_change_that_one_wrote_down_and_the_next_one_completed_is_no_way_back() {
        let first = log(&[("init", 1, 0), ("bind", 2, 1), ("freeze", 3, 2)]);
        let second =
            log(&[("join", 1, 0), ("witness", 2, 1), ("complete", 3, 3), ("activate", 3, 3), ("bind", 4, 4)]);
        assert!(backs(&[first, second]).is_empty());
    }

    #[test]
    fn what_is_not_signed_accuses_nobody_as_signed() {
        let mut first = Sessions::default();
        for (number, is_signed) in [(1, true), (5, true), (8, false)] {
            first.take(&Told { action: "bind", time_ms: 0, number: Some(number), is_signed });
        }
        let second = || log(&[("activate", 5, 0)]);
        let found = backs(&[first, second()]);
        assert_eq!((found.len(), found[0].is_signed), (1, false));
        let first = log(&[("bind", 1, 0), ("bind", 5, 0), ("bind", 8, 0)]);
        assert!(backs(&[first, second()])[0].is_signed);
    }
}
