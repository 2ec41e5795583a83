//! What replicas tell each other of the present. The database decides what a standby sees: one that shows it the rows of an earlier
//! day, and says that somebody else serves, for as long as it likes, can't be told from an honest one by its rows.
//!
//! So every unlocked replica says every two seconds, under a MAC that only a holder of the master can make: which state of the
//! ledger it knows, whether it serves, a question (a number that it has just drawn), and the questions of the others that it has seen. A
//! word that answers one's own question was said after that was asked, whatever any clock shows, and however the word came here.
//! The database is the courier. It can keep words back, and then this replica is not certain of the present; it can't make older
//! ones answer.
//!
//! Whoever opens the rows of a service with several logs needs one of these, each not older than some seconds:
//!
//! 1. a word of the replica that served;
//! 2. words of all other replicas that are registered: whatever was done, one of them or this one did it;
//! 3. that it served itself (`served` in its state folder, which counts for one boot of the machine);
//! 4. or two operators who say that these rows are the ones to go on with.
//!
//! In each case the rows must not be behind any state that any word ever named.

use std::collections::{BTreeMap, VecDeque};
use std::fs::{self, OpenOptions};
use std::io::Write as _;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use claviger_keyapi::Id16;
use claviger_keyapi::wire::Blob;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use super::Core;
use crate::ServiceError;
use crate::audit_record::{Outcome, Record, RequestInfo};
use crate::custody::Master;
use crate::ledger::{Mark, Rows};
use crate::log_key::{LogInfo, registered};
use crate::store::{Kind, Notice};

/// As what the database holds a word, in the place of a log's id.
const NOTICE: &str = "word";
/// What the MAC of a word says that it is, and that of the file; no kind of rows has such a name.
const WORD: &str = "word of a replica";
const SERVED: &str = "last word of this replica";
const SERVED_FILE: &str = "served";
const SERVED_LEN_MAX: u64 = 4 << 10;
/// Questions that may still be answered.
const QUESTIONS_MAX: usize = 64;
/// Time for a takeover between the last look of a standby and its opening of the rows, besides what it waits for.
const SLACK_MS: u64 = 15_000;

/// What this process has asked and heard.
#[derive(Default)]
pub(crate) struct Words {
    inner: Mutex<Inner>,
    /// Whether the one that serves is at it: its database may hang.
    is_busy: AtomicBool,
}

#[derive(Default)]
struct Inner {
    /// Questions, and when each was drawn, on the boot-time clock; oldest first.
    asked: VecDeque<(Id16, u64)>,
    /// Of each log's replica, when the newest of its questions was drawn that it answered.
    heard: BTreeMap<Id16, u64>,
    /// The same of whoever served then.
    served: Option<(Id16, u64)>,
    /// What another replica knows and this one, which serves, does not.
    problem: Option<String>,
}

/// What lies in the database, and in the file.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Sealed {
    /// JSON.
    said: String,
    mac: Blob,
}

/// A word.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Said {
    log: Id16,
    /// The newest state of the ledger that it knows.
    mark: Mark,
    /// It works with the rows, and that is the state that they are in.
    serves: bool,
    /// Records in its log, and what its wall clock shows: for people.
    records: u64,
    time_ms: u64,
    asks: Id16,
    /// Logs, and the last question that was seen of each one's replica.
    answers: Vec<(Id16, Id16)>,
}

/// That this replica served.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Served {
    boot: String,
    boot_ms: u64,
}

impl Words {
    fn inner(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What another replica says that can't be, if this one is right.
    pub(crate) fn problem(&self) -> Option<String> {
        self.inner().problem.clone()
    }
}

impl Inner {
    fn ask(&mut self, question: Id16, now_boot_ms: u64) {
        self.asked.push_back((question, now_boot_ms));
        if self.asked.len() > QUESTIONS_MAX {
            self.asked.pop_front();
        }
    }

    /// Takes a word. Which question it answers says when it was said at the earliest.
    fn hear(&mut self, me: Id16, said: &Said) {
        let answer = said.answers.iter().find(|(log, _)| *log == me).map(|(_, question)| *question);
        let asked = self.asked.iter().find(|(question, _)| Some(*question) == answer);
        let Some(asked_ms) = asked.map(|(_, asked_ms)| *asked_ms) else { return };
        let heard = self.heard.entry(said.log).or_insert(asked_ms);
        *heard = asked_ms.max(*heard);
        if said.serves && self.served.is_none_or(|(_, known_ms)| known_ms <= asked_ms) {
            self.served = Some((said.log, asked_ms));
        }
    }

    /// Whether words that are not older than this bear out the present.
    fn bear_out(&self, others: &[&LogInfo], now_boot_ms: u64, age_max_ms: u64) -> bool {
        let is_new = |at_ms: u64| now_boot_ms.saturating_sub(at_ms) <= age_max_ms;
        let by_one = self
            .served
            .is_some_and(|(log, at_ms)| is_new(at_ms) && others.iter().any(|other| other.log_id == log));
        let by_all = || {
            !others.is_empty()
                && others
                    .iter()
                    .all(|other| self.heard.get(&other.log_id).is_some_and(|at_ms| is_new(*at_ms)))
        };
        by_one || by_all()
    }

    fn in_words(&self, others: &[&LogInfo], now_boot_ms: u64) -> String {
        let each = others.iter().map(|other| {
            let title = other.title();
            self.heard.get(&other.log_id).map_or_else(
                || format!("{title} was never heard"),
                |at_ms| format!("{title} was heard {} s ago", now_boot_ms.saturating_sub(*at_ms) / 1000),
            )
        });
        each.collect::<Vec<_>>().join(", ")
    }
}

impl Core {
    /// Hears the others and says its own word, if it serves. To be called every two seconds; blocks.
    pub(crate) fn exchange_words(&self) {
        if self.words.is_busy.swap(true, Ordering::AcqRel) {
            return;
        }
        if let Err(error) = self.exchange_serving() {
            tracing::warn!(%error, "the other replicas are not told of the present; they can't take over for long");
        }
        self.words.is_busy.store(false, Ordering::Release);
    }

    fn exchange_serving(&self) -> Result<(), ServiceError> {
        let (Some(_), Some(me)) = (self.config.store.word_ms(), self.log_id()) else { return Ok(()) };
        let Ok(vault) = self.vault() else { return Ok(()) };
        // Who may have been replaced knows nothing of the present.
        if self.store.check_ours().is_err() {
            return Ok(());
        }
        self.keep_served(&vault.master, me)?;
        let logs = vault.logs();
        if logs.len() < 2 {
            return Ok(());
        }
        let words = self.hear(&vault.master, me, &logs)?;
        // The state is read after the questions that are answered with it, and while nobody changes it. Hearing took as long as the
        // database liked: who was replaced meanwhile has nothing to say that is newer than what was asked.
        let changes = self.changes();
        if self.store.check_ours().is_err() || !self.vault().is_ok_and(|now| Arc::ptr_eq(&now, &vault)) {
            return Ok(());
        }
        let mark = vault.mark();
        self.compare_with(&mark, &logs, &words);
        drop(changes);
        self.say(&vault.master, me, mark, true, &words)
    }

    /// The same for an unlocked standby. What it hears of counts as seen.
    ///
    /// # Errors
    /// Those of the database; [`ServiceError::Tampered`] if another replica tells of another state under the number of one that this
    /// one remembers.
    pub(super) fn exchange_standing_by(&self, master: &Master) -> Result<(), ServiceError> {
        let (Some(_), Some(me)) = (self.config.store.word_ms(), self.log_id()) else { return Ok(()) };
        let logs = registered(master, &Rows::read(master, &*self.store, &[Kind::Log])?)?;
        let words = self.hear(master, me, &logs)?;
        let mut newest = None;
        for said in &words {
            newest = Some(self.heard_of(&said.mark)?);
        }
        let newest = newest.or_else(|| self.newest_known());
        newest.map_or(Ok(()), |mark| self.say(master, me, mark, false, &words))
    }

    /// Words of others that are genuine, new or old.
    fn hear(&self, master: &Master, me: Id16, logs: &[LogInfo]) -> Result<Vec<Said>, ServiceError> {
        let of_words = |notice: &Notice| notice.log == NOTICE && notice.author != me.to_string();
        let words = self.store.notices()?.into_iter().filter(of_words).filter_map(|notice| {
            let said: Said = open(master, WORD, &notice.author, &notice.body)?;
            let is_known = logs.iter().any(|log| log.log_id == said.log);
            (said.log.to_string() == notice.author && is_known).then_some(said)
        });
        let words: Vec<Said> = words.collect();
        let mut inner = self.words.inner();
        words.iter().for_each(|said| inner.hear(me, said));
        Ok(words)
    }

    /// The largest number of a state of which this replica knows, or of which any word in the database tells, old or new.
    ///
    /// # Errors
    /// Those of the database.
    pub(super) fn largest_number_known(&self, master: &Master) -> Result<u64, ServiceError> {
        let known = self.newest_known().map_or(0, |mark| mark.seq);
        if self.config.store.word_ms().is_none() {
            return Ok(known);
        }
        Ok(known.max(largest_named(master, &self.store.notices()?)))
    }

    fn say(
        &self,
        master: &Master,
        me: Id16,
        mark: Mark,
        serves: bool,
        words: &[Said],
    ) -> Result<(), ServiceError> {
        let mut asks = [0; 16];
        self.random.fill(&mut asks)?;
        let asks = Id16(asks);
        // Before it can be seen: the answer must never seem newer than it is.
        self.words.inner().ask(asks, self.clock.boot_ms());
        let answers = words.iter().map(|said| (said.log, said.asks)).collect();
        let (records, time_ms) = (self.audit.records(), self.clock.now_ms());
        let said = Said { log: me, mark, serves, records, time_ms, asks, answers };
        let author = me.to_string();
        let body = seal(master, WORD, &author, &said);
        self.store.put_notice(&Notice { log: NOTICE.to_owned(), author, body })
    }

    /// Of the one that serves: whether another one knows of a state that was made since, or instead.
    fn compare_with(&self, mine: &Mark, logs: &[LogInfo], words: &[Said]) {
        let contradicts = |said: &&Said| {
            said.mark.seq > mine.seq || (said.mark.seq == mine.seq && said.mark.state != mine.state)
        };
        let problem = words.iter().find(contradicts).map(|said| {
            let whose = logs.iter().find(|log| log.log_id == said.log).map(LogInfo::title).unwrap_or_default();
            format!(
                "the replica {whose} knows state {} of what the service knows, and this one serves state {}, which is not what \
                 followed: the database has shown them different pasts. Hold their logs against each other: claviger audit replicas",
                said.mark.seq, mine.seq
            )
        });
        let before = std::mem::replace(&mut self.words.inner().problem, problem.clone());
        if let Some(problem) = problem.filter(|problem| before.as_ref() != Some(problem)) {
            self.tell_of_contradiction(problem);
        }
    }

    /// Whether it is certain of the present; else what to say of that.
    pub(super) fn bear_out(
        &self,
        master: &Master,
        logs: &[LogInfo],
        age_max_ms: u64,
    ) -> Result<(), ServiceError> {
        let Some(me) = self.log_id().filter(|_| logs.len() > 1) else { return Ok(()) };
        let others: Vec<&LogInfo> = logs.iter().filter(|log| log.log_id != me).collect();
        let now_boot_ms = self.clock.boot_ms();
        let has_served = || {
            let served = self.read_served(master, me);
            served.is_some_and(|at_ms| at_ms <= now_boot_ms && now_boot_ms - at_ms <= age_max_ms)
        };
        let inner = self.words.inner();
        if inner.bear_out(&others, now_boot_ms, age_max_ms) || has_served() {
            return Ok(());
        }
        let heard = inner.in_words(&others, now_boot_ms);
        Err(ServiceError::Unvouched {
            problem: format!(
                "this replica can't be certain that the database shows it the present: it has to have heard within {} s from the \
                 one that served, or from all others ({heard})",
                age_max_ms / 1000
            ),
            remedy: "unlock the other replicas, and see that they reach the database; `claviger keys replica remove` those that are gone \
                     for good, while one serves. If nobody else is left who could know, two operators, at this replica: claviger \
                     keys unlock --accept-rollback; then repeat every revocation, freeze and policy that is missing",
        })
    }

    /// The same of one that opens the rows, with the record of it if operators had to accept them.
    pub(super) fn check_present(
        &self,
        master: &Master,
        rows: &Rows,
        info: &RequestInfo,
    ) -> Result<Option<Record>, ServiceError> {
        let Some(word_ms) = self.config.store.word_ms() else { return Ok(None) };
        let logs = registered(master, rows)?;
        let age_max_ms = word_ms + self.config.store.take_over_ms() + SLACK_MS;
        match self.bear_out(master, &logs, age_max_ms) {
            Err(ServiceError::Unvouched { problem, remedy }) => {
                let record = info.record("present-accepted", Outcome::Done);
                self.accepted_by_two(rows, record, problem, remedy).map(Some)
            }
            other => other.map(|()| None),
        }
    }

    /// This replica begins to serve: its next process knows of it, also if this one says no word any more.
    pub(super) fn begins_to_serve(&self, master: &Master) {
        let (Some(_), Some(me)) = (self.config.store.word_ms(), self.log_id()) else { return };
        if let Err(error) = self.keep_served(master, me) {
            tracing::warn!(%error, "this replica will not know that it served, if it is restarted at once");
        }
    }

    /// Writes down that this replica serves, for its next process. It need not outlive the machine's boot.
    fn keep_served(&self, master: &Master, me: Id16) -> Result<(), ServiceError> {
        let path = self.config.state_dir.join(SERVED_FILE);
        let served = Served { boot: boot_id()?, boot_ms: self.clock.boot_ms() };
        let fresh = self.config.state_dir.join(format!("{SERVED_FILE}.new"));
        let write = || {
            let mut file =
                OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(&fresh)?;
            file.write_all(&seal(master, SERVED, &me.to_string(), &served))?;
            fs::rename(&fresh, &path)
        };
        write().map_err(|error| ServiceError::io(&path, error))
    }

    /// When this replica served last, in this boot of the machine. What can't be read says nothing.
    fn read_served(&self, master: &Master, me: Id16) -> Option<u64> {
        let path = self.config.state_dir.join(SERVED_FILE);
        let is_short = fs::metadata(&path).ok()?.len() <= SERVED_LEN_MAX;
        let bytes = fs::read(&path).ok().filter(|_| is_short)?;
        let served: Served = open(master, SERVED, &me.to_string(), &bytes)?;
        (served.boot == boot_id().ok()?).then_some(served.boot_ms)
    }
}

fn seal<T: Serialize>(master: &Master, what: &str, id: &str, said: &T) -> Vec<u8> {
    // Texts and numbers: there is nothing that could fail.
    let said = serde_json::to_string(said).expect("plain fields serialise");
    let mac = Blob(master.row_mac(what, id, said.as_bytes()).to_vec());
    serde_json::to_vec(&Sealed { said, mac }).expect("plain fields serialise")
}

/// What a holder of the master said; anything else is nothing.
fn open<T: DeserializeOwned>(master: &Master, what: &str, id: &str, body: &[u8]) -> Option<T> {
    let Sealed { said, mac } = serde_json::from_slice(body).ok()?;
    let is_ours = master.row_is_ours(what, id, said.as_bytes(), &mac.0);
    is_ours.then(|| serde_json::from_str(&said).ok()).flatten()
}

/// The largest number of a state that genuine words tell of, whoever said them and when.
fn largest_named(master: &Master, notices: &[Notice]) -> u64 {
    let words = notices.iter().filter(|notice| notice.log == NOTICE);
    let said = words.filter_map(|word| open::<Said>(master, WORD, &word.author, &word.body));
    said.map(|said| said.mark.seq).max().unwrap_or(0)
}

fn boot_id() -> Result<String, ServiceError> {
    const BOOT_ID: &str = "/proc/sys/kernel/random/boot_id";
    let id = fs::read_to_string(BOOT_ID).map_err(|error| ServiceError::io(Path::new(BOOT_ID), error))?;
    Ok(id.trim().to_owned())
}

#[cfg(test)]
mod tests {
    use claviger_audit::SigningKey;
    use claviger_audit::note::KeyKind;

    use super::*;

    const ME: Id16 = Id16([0xa; 16]);
    const OTHER: Id16 = Id16([0xb; 16]);
    const THIRD: Id16 = Id16([0xc; 16]);
    const AGE_MAX_MS: u64 = 25_000;

    fn log(log_id: Id16) -> LogInfo {
        let key = SigningKey::from_seed("claviger.invalid/log/x", KeyKind::Log, &[1; 32]).unwrap();
        LogInfo { log_id, key: key.verifier().clone(), witness: None, replica: None, since_ms: 0 }
    }

    fn said(log: Id16, serves: bool, answers: &[Id16]) -> Said {
        let answers = answers.iter().map(|question| (ME, *question)).collect();
        let mark = Mark { seq: 5, state: "00".repeat(32) };
        Said { log, mark, serves, records: 0, time_ms: 0, asks: Id16([9; 16]), answers }
    }

    #[test]
    fn only_a_word_that_answers_a_new_question_bears_out_the_present_however_late_it_comes() {
        let (question, older) = (Id16([1; 16]), Id16([2; 16]));
        let (other, third) = (log(OTHER), log(THIRD));
        let others = [&other, &third];
        let mut inner = Inner::default();
        inner.ask(older, 1_000);
        inner.ask(question, 100_000);
        assert!(!inner.bear_out(&others, 100_000, AGE_MAX_MS));
        // Somebody shows again what was said long ago, or to somebody else.
        inner.hear(ME, &said(OTHER, true, &[older]));
        inner.hear(ME, &said(OTHER, true, &[Id16([3; 16])]));
        inner.hear(ME, &said(OTHER, true, &[]));
        assert!(!inner.bear_out(&others, 100_000, AGE_MAX_MS));
        // A standby's word alone is not enough, those of all are.
        inner.hear(ME, &said(OTHER, false, &[question]));
        assert!(!inner.bear_out(&others, 101_000, AGE_MAX_MS));
        inner.hear(ME, &said(THIRD, false, &[question]));
        assert!(inner.bear_out(&others, 101_000, AGE_MAX_MS));
        assert!(
            inner.bear_out(&others, 125_000, AGE_MAX_MS) && !inner.bear_out(&others, 125_001, AGE_MAX_MS)
        );
        // That of the one that served is, and an older one after it changes nothing.
        inner.heard.clear();
        inner.hear(ME, &said(OTHER, true, &[question]));
        inner.hear(ME, &said(OTHER, true, &[older]));
        assert!(
            inner.bear_out(&others, 125_000, AGE_MAX_MS) && !inner.bear_out(&others, 125_001, AGE_MAX_MS)
        );
        assert!(!inner.bear_out(&[&third], 125_000, AGE_MAX_MS), "its replica was removed");
        assert!(!inner.bear_out(&[], 125_000, AGE_MAX_MS), "rows that hide all logs");
    }

    #[test]
    fn a_question_too_old_to_be_remembered_is_none() {
        let mut inner = Inner::default();
        (0..=u8::try_from(QUESTIONS_MAX).unwrap()).for_each(|n| inner.ask(Id16([n; 16]), 0));
        inner.hear(ME, &said(OTHER, true, &[Id16([0; 16])]));
        assert!(inner.heard.is_empty());
        inner.hear(ME, &said(OTHER, true, &[Id16([1; 16])]));
        assert_eq!(inner.heard.len(), 1);
    }

    #[test]
    fn who_begins_anew_does_so_above_whatever_genuine_words_tell_of() {
        let master = Master::new(&[1; 32]);
        let word = |master: &Master, log: Id16, seq: u64| {
            let said = Said { mark: Mark { seq, state: "00".repeat(32) }, ..said(log, false, &[]) };
            let author = log.to_string();
            Notice { log: NOTICE.to_owned(), body: seal(master, WORD, &author, &said), author }
        };
        let words = [
            word(&master, OTHER, 1_900_000_000_000),
            word(&master, ME, 7),
            word(&Master::new(&[2; 32]), THIRD, u64::MAX),
            Notice { log: OTHER.to_string(), ..word(&master, THIRD, u64::MAX) },
        ];
        assert_eq!(largest_named(&master, &words), 1_900_000_000_000);
        assert_eq!(largest_named(&master, &[]), 0);
    }

    #[test]
    fn nobody_without_the_master_can_say_or_alter_a_word() {
        let (master, id) = (Master::new(&[1; 32]), OTHER.to_string());
        let body = seal(&master, WORD, &id, &said(OTHER, true, &[]));
        let opened = |master: &Master, what: &str, id: &str, body: &[u8]| {
            open::<Said>(master, what, id, body).is_some()
        };
        assert!(opened(&master, WORD, &id, &body));
        assert!(!opened(&Master::new(&[2; 32]), WORD, &id, &body));
        assert!(!opened(&master, SERVED, &id, &body) && !opened(&master, WORD, &ME.to_string(), &body));
        for at in 0..body.len() {
            let mut altered = body.clone();
            altered[at] ^= 1;
            assert!(!opened(&master, WORD, &id, &altered), "byte {at}");
        }
    }
}
