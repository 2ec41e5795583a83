//! `claviger recover`: everything back, from ciphertext and recovery shares alone (docs/format.md §8.1).

/// Writes a line to standard output. Whoever reads it may stop early (`| head`); that is no mistake.
macro_rules! say {
    ($($text:tt)*) => {{
        use std::io::Write as _;
        let _ = writeln!(std::io::stdout(), $($text)*);
    }};
}

mod dump;
mod entry;
mod failure;
mod keyring;
mod object;
pub(crate) mod open;
mod output;
mod place;
mod report;
mod shares;
mod source;

use std::collections::HashSet;
use std::convert::Infallible;
use std::path::PathBuf;
use std::str::FromStr;
use std::sync::Arc;

use anyhow::{Context as _, anyhow};
use claviger_env::SystemClock;
use claviger_format::BucketId;
use claviger_gateway::store_reader::{StoreConfig, StoreReader};
use tokio::sync::Semaphore;
use tokio::task::JoinSet;

use crate::exit::Exit;
use dump::Dump;
use failure::Failure;
use keyring::Keyring;
use output::Output;
use report::{Report, shown, version_of};
use source::{After, Deleted, Item, Page, Source, WAITS, retried};

/// Get everything back with recovery shares: no key service, no database, no HSM, no gateway
///
/// Bring enough recovery shares of each keyset version, and the ciphertext: a store that can be
/// reached, or a dump of its buckets on disk, the system bucket (claviger-system) among them.
///
///   claviger recover --share one.txt --share two.png --share - --store gateway.toml --to /mnt/back
///   claviger recover --share … --dump /mnt/dump --bucket invoices --prefix 2026/ --to /mnt/back
///   claviger recover --share … --store gateway.toml --list          (the yearly drill)
///   claviger recover --share … --store gateway.toml --all-versions --to /mnt/back
///
/// Each object is verified, its bucket and key included. Contents go to DIR/BUCKET/KEY; every name,
/// content header, user metadata, checksum and who sealed it to DIR/_index.jsonl; what failed to
/// DIR/_failed.jsonl, and the rest goes on. A file has its name only once all of it has verified.
/// A second run skips what is there and whole. docs/operations.md tells how keys become file names.
///
/// Of a bucket with versions the newest ones are recovered, or with --all-versions every one, each
/// verified like any object. Which is the newest, when each was written and that something was
/// deleted is the store's word; delete markers are listed in DIR/_deleted.jsonl.
///
/// A dump without metadata (`aws s3 sync`, plain `rclone copy`) has lost the envelopes: contents
/// are proved, names are not, and such files go to DIR/_name-unverified. `rclone copy --metadata`
/// to a file system with extended attributes keeps the envelopes, and names are verified.
///
/// The shares come together in this process: use a machine that you would trust with a ceremony,
/// and re-share afterwards. What lies in DIR is plaintext.
#[derive(clap::Args)]
#[command(verbatim_doc_comment)]
#[command(
    after_help = "Exit codes: 0 everything verified, 1 something failed, 2 wrong usage, shares or files."
)]
pub(crate) struct Arguments {
    /// A recovery share, in any form that `keys share check` takes; `-` reads what you type, to Ctrl-D. Repeat it
    #[arg(long = "share", value_name = "FILE", required = true)]
    shares: Vec<PathBuf>,

    /// The store: a gateway's configuration, or a file with its table upstream (and system_area) alone
    #[arg(long, value_name = "FILE", required_unless_present = "dump", conflicts_with = "dump")]
    store: Option<PathBuf>,

    /// A dump: a folder with one folder for each bucket
    #[arg(long, value_name = "DIR")]
    dump: Option<PathBuf>,

    /// Only this bucket; STORED=NAME where it has another name there than clients knew. Repeat it
    #[arg(long = "bucket", value_name = "NAME")]
    buckets: Vec<Bucket>,

    /// Only keys that begin so
    #[arg(long, value_name = "PREFIX", default_value = "")]
    prefix: String,

    /// Of each key every version that the store has, older ones to DIR/_versions/BUCKET/KEY~ID
    #[arg(long, conflicts_with = "dump")]
    all_versions: bool,

    /// Folder that takes what is recovered: a new one, or that of an earlier run
    #[arg(long, value_name = "DIR", required_unless_present = "list", conflicts_with = "list")]
    to: Option<PathBuf>,

    /// Show what would open (names and footers are verified, contents not read), and write nothing
    #[arg(long)]
    list: bool,

    /// The bucket of epoch and keyset records, if no configuration names it
    #[arg(long, value_name = "NAME")]
    system_bucket: Option<String>,

    /// A bucket's binding id (NAME#32 hex digits; the audit log has it) that the keyset record lacks. Repeat it
    #[arg(long = "bucket-id", value_name = "ID")]
    bucket_ids: Vec<BucketId>,

    /// Objects that are opened at once
    #[arg(long, value_name = "N", default_value_t = 4, value_parser = clap::value_parser!(u32).range(1..=256))]
    jobs: u32,
}

/// A bucket, by its name at the store and the one that clients knew.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Bucket {
    stored: String,
    name: String,
}

impl FromStr for Bucket {
    type Err = Infallible;

    fn from_str(text: &str) -> Result<Self, Infallible> {
        let (stored, name) = text.split_once('=').unwrap_or((text, text));
        Ok(Self { stored: stored.to_owned(), name: name.to_owned() })
    }
}

/// All that who opens an object needs.
struct Recovery {
    source: Source,
    keyring: Keyring,
    output: Option<Output>,
    all_versions: bool,
    report: Report,
}

/// Runs the command.
///
/// # Errors
/// Exit code 2 for wrong shares, files or usage; 1 if anything failed.
pub(crate) async fn run(arguments: Arguments) -> Result<(), Exit> {
    let roots = shares::roots(&arguments.shares)?;
    for root in &roots {
        say!("the shares give the root of keyset {} version {}", root.keyset_id(), root.version());
    }
    let (source, system_bucket) = open_source(&arguments)?;
    let all_versions = arguments.all_versions;
    let output = arguments.to.as_deref().map(Output::open).transpose().map_err(Exit::usage)?;
    let keyring = Keyring::load(&source, &system_bucket, roots, &arguments.bucket_ids).await;
    let keyring = keyring.with_context(|| format!("the system area ({system_bucket}) can't be read"))?;
    for warning in &keyring.warnings {
        say!("warning: {warning}");
    }
    let buckets = match arguments.buckets.is_empty() {
        true => source.buckets(&system_bucket).await.context("the buckets can't be listed")?,
        false => Vec::new(),
    };
    let buckets = buckets.into_iter().map(|name| Bucket { stored: name.clone(), name });
    let buckets: Vec<Bucket> = arguments.buckets.into_iter().chain(buckets).collect();
    let recovery = Arc::new(Recovery { source, keyring, output, all_versions, report: Report::new() });
    let ended = Box::pin(recovery.all(&buckets, &arguments.prefix, arguments.jobs)).await;
    finish(&recovery, ended)
}

fn open_source(arguments: &Arguments) -> Result<(Source, String), Exit> {
    let default = || "claviger-system".to_owned();
    if let Some(folder) = &arguments.dump {
        let dump = Dump::open(folder).with_context(|| folder.display().to_string()).map_err(Exit::usage)?;
        return Ok((Source::Dump(dump), arguments.system_bucket.clone().unwrap_or_else(default)));
    }
    let file =
        arguments.store.as_deref().ok_or_else(|| Exit::usage(anyhow!("--store or --dump is missing")))?;
    let config = StoreConfig::load(file).map_err(|error| Exit::usage(anyhow!("{error}")))?;
    let store = StoreReader::open(&config.upstream, Arc::new(SystemClock)).map_err(Exit::usage)?;
    if arguments.all_versions && !store.has_versions() {
        let text =
            "the store has no versions, by its profile: leave --all-versions out, or mend upstream.profile";
        return Err(Exit::usage(anyhow!(text)));
    }
    let named = arguments.system_bucket.clone();
    Ok((Source::Store(store), named.unwrap_or(config.system_area.bucket)))
}

fn finish(recovery: &Recovery, ended: Result<(), anyhow::Error>) -> Result<(), Exit> {
    let summary = recovery.report.end();
    for line in report::tell(&summary, &recovery.keyring.census(), recovery.output.is_none()) {
        say!("{line}");
    }
    if let Some(output) = &recovery.output {
        output.close(&summary).context("the summary can't be written").map_err(Exit::failed)?;
    }
    ended?;
    match summary.failed {
        0 => Ok(()),
        failed => Err(Exit::failed(anyhow!("{failed} objects did not open; each is named above"))),
    }
}

impl Recovery {
    async fn all(self: &Arc<Self>, buckets: &[Bucket], prefix: &str, jobs: u32) -> anyhow::Result<()> {
        let places = Arc::new(Semaphore::new(jobs as usize));
        let mut tasks: JoinSet<anyhow::Result<()>> = JoinSet::new();
        for bucket in buckets {
            let mut after: Option<After> = None;
            let mut newest = HashSet::new();
            loop {
                let page = async || {
                    self.source.page(&bucket.stored, prefix, after.as_ref(), self.all_versions).await
                };
                let Page { items, deleted, next } = retried(page)
                    .await
                    .with_context(|| format!("bucket {} can't be listed", bucket.stored))?;
                for marker in &deleted {
                    self.deleted(&bucket.name, marker)?;
                }
                for mut item in items {
                    keep_newest(&mut newest, &mut item);
                    let place = Arc::clone(&places).acquire_owned().await?;
                    let (recovery, name) = (Arc::clone(self), bucket.name.clone());
                    tasks.spawn(async move {
                        let _place = place;
                        recovery.one(&name, &item).await
                    });
                    while let Some(done) = tasks.try_join_next() {
                        done??;
                    }
                }
                let Some(next) = next else { break };
                after = Some(next);
            }
        }
        while let Some(done) = tasks.join_next().await {
            done??;
        }
        Ok(())
    }

    /// One object; an error only if nothing can go on.
    async fn one(&self, bucket: &str, item: &Item) -> anyhow::Result<()> {
        let mut outcome = self.attempt(bucket, item).await;
        for wait in WAITS {
            if !outcome.as_ref().is_err_and(Failure::is_passing) {
                break;
            }
            tokio::time::sleep(wait).await;
            outcome = self.attempt(bucket, item).await;
        }
        match outcome {
            Ok(()) => Ok(()),
            Err(Failure::Output(error)) => Err(Failure::Output(error).into()),
            Err(failure) => {
                let why = failure.to_string();
                self.report.failed(bucket, item, &why);
                if let Some(output) = &self.output {
                    output.failed(bucket, item, &why).map_err(Failure::Output)?;
                }
                Ok(())
            }
        }
    }

    /// A delete marker: there is nothing to open.
    fn deleted(&self, bucket: &str, marker: &Deleted) -> Result<(), Failure> {
        self.report.deleted();
        match &self.output {
            Some(output) => output.deleted(bucket, marker).map_err(Failure::Output),
            None => {
                let (name, id) = (shown(bucket, &marker.key), &marker.version.id);
                self.report.line(&format!("deleted  {name}  version {id}"));
                Ok(())
            }
        }
    }

    async fn attempt(&self, bucket: &str, item: &Item) -> Result<(), Failure> {
        match &self.output {
            Some(output) => Box::pin(self.fetch(output, bucket, item)).await,
            None => Box::pin(self.look(bucket, item)).await,
        }
    }

    async fn look(&self, bucket: &str, item: &Item) -> Result<(), Failure> {
        let found = self.source.find(item).await?;
        let known = object::identify(&self.keyring, &self.source, item, bucket, &found).await?;
        let len = known.committed_len(&self.source, item, &found).await?;
        self.report.opened(known.epoch(), known.proof(), item, len);
        let word = match known.proof() {
            entry::Proof::Verified => "opens",
            entry::Proof::Unverified => "opens, name unverified",
        };
        self.report.line(&format!("{word}  {}{}  {len}", shown(bucket, known.key()), version_of(item)));
        Ok(())
    }

    async fn fetch(&self, output: &Output, bucket: &str, item: &Item) -> Result<(), Failure> {
        if output.is_there(bucket, item) {
            self.report.already_there();
            return Ok(());
        }
        let (found, body) = self.source.open(item).await?;
        let known = object::identify(&self.keyring, &self.source, item, bucket, &found).await?;
        let mut part = output.part().map_err(Failure::Output)?;
        let content = known.read(&self.source, item, &found, body, &mut part).await?;
        let entry = known.entry(bucket, item, &content);
        output.place(part, entry, content.crc64).map_err(Failure::Output)?;
        self.report.opened(known.epoch(), known.proof(), item, content.len);
        Ok(())
    }
}

/// Of a key one version is the newest, and lies under its name: the first that the store calls so. However many it does, none takes
/// the place of another.
fn keep_newest(newest: &mut HashSet<[u8; 16]>, item: &mut Item) {
    let key = output::identity("", &item.key, None);
    if let Some(version) = item.version.as_mut().filter(|version| version.is_latest) {
        version.is_latest = newest.insert(key);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use claviger_s3::VersionId;

    use super::source::{Mark, Version};

    #[test]
    fn a_bucket_may_have_another_name_at_the_store() {
        let bucket = |text: &str| text.parse::<Bucket>().unwrap();
        assert_eq!(bucket("a"), Bucket { stored: "a".to_owned(), name: "a".to_owned() });
        assert_eq!(bucket("moved=a"), Bucket { stored: "moved".to_owned(), name: "a".to_owned() });
    }

    #[test]
    fn a_store_that_calls_every_version_the_newest_hides_none_behind_another() {
        let mut newest = HashSet::new();
        let mut is_latest = |key: &str, id: &str, is_latest: bool| {
            let version = Some(Version { id: VersionId::parse(id).unwrap(), is_latest });
            let mark = Mark { stored_len: 1, etag: String::new(), modified_ms: 0 };
            let mut item = Item { bucket: "b".into(), key: key.into(), version, mark };
            keep_newest(&mut newest, &mut item);
            item.older().is_none()
        };
        assert!(!is_latest("a", "v0", false), "one that is none takes nobody's place");
        assert!(is_latest("a", "v3", true));
        assert!(!is_latest("a", "v2", true) && !is_latest("a", "v1", false));
        assert!(is_latest("b", "v2", true));
    }
}
