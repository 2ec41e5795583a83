//! `claviger open`: one object, with the key that two operators handed out, and nothing else.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Read as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, anyhow};
use claviger_format::{BucketId, Dek, Envelope, ObjectName};
use claviger_keyapi::disclosure::{KeyFile, ObjectKey};
use claviger_keyservice::files::{parent, read_secret};
use rustix::fs::{CWD, RenameFlags, renameat_with};
use rustix::io::Errno;

use super::dump::Dump;
use super::entry::Entry;
use super::keyring::Origin;
use super::object;
use super::report::shown;
use super::source::{Item, Mark, Source};
use crate::exit::Exit;
use crate::keys_cmd::moment;

/// No envelope is longer (docs/format.md §5.2).
const ENVELOPE_LEN_MAX: u64 = 32 << 10;

/// Open one object with a key file that operators of its key service handed out
///
/// For whoever was given a key file (claviger keys disclose --help): no key service, no gateway and no
/// network is needed. Bring the object as it lies at the store, and its envelope, which is the value of
/// its metadata entry "claviger". With the store's own tools:
///
///   aws s3api head-object --bucket B --key K --query Metadata.claviger --output text > k.envelope
///   aws s3api get-object --bucket B --key K k.sealed
///   claviger open --key-file k.key --object k.sealed --envelope k.envelope --out k
///
/// All of it is verified: that this is the object of exactly the bucket and key that the key file
/// names, complete and unchanged. The new file has its name only then; what fails leaves none, and a
/// file of that name that somebody made meanwhile is left as it is. The new one is
/// plaintext, and the key file opens the object to everybody who has it: guard both.
#[derive(clap::Args)]
#[command(verbatim_doc_comment)]
#[command(after_help = "Exit codes: 0 verified and written, 1 does not verify, 2 wrong usage or files.")]
pub(crate) struct Arguments {
    /// The key file, readable by its owner alone (mode 0600)
    #[arg(long, value_name = "FILE")]
    key_file: PathBuf,

    /// The object as the store has it: ciphertext
    #[arg(long, value_name = "FILE")]
    object: PathBuf,

    /// Its envelope, or a file with it. Not needed if the object's file keeps it (rclone copy --metadata)
    #[arg(long, value_name = "TEXT|FILE")]
    envelope: Option<String>,

    /// New file that takes the content
    #[arg(long, value_name = "FILE")]
    out: PathBuf,
}

/// Runs the command.
///
/// # Errors
/// Exit code 2 for wrong files or usage; 1 if the object does not verify, or can't be written.
pub(crate) async fn run(arguments: Arguments) -> Result<(), Exit> {
    let Arguments { key_file, object, envelope, out } = arguments;
    let key = read_key(&key_file)?;
    if out.exists() {
        return Err(Exit::usage(anyhow!("{} exists already", out.display())));
    }
    let (dump, item) = lone(&object)?;
    let source = Source::Dump(dump);
    let (found, body) =
        source.open(&item).await.with_context(|| object.display().to_string()).map_err(Exit::usage)?;
    let envelope = match envelope {
        Some(given) => envelope_text(&given)?,
        None => found.envelope.clone().ok_or_else(|| no_envelope(&object))?,
    };
    let origin = Origin {
        epoch_id: key.epoch_id.into(),
        keyset_id: key.keyset_id.into(),
        gateway_id: key.sealer_id.into(),
        created_ms: key.epoch_created_ms,
    };
    let name = BucketId::new(key.bucket_id.as_str()).and_then(|id| ObjectName::new(id, key.key.as_str()));
    let name = name.map_err(|_| no_key_file(&key_file))?;
    let dek = Dek::from_slice(key.dek.expose()).map_err(Exit::usage)?;
    let known = object::with_its_key(origin, (key.object_id.into(), dek), &name, &envelope);
    let known = known.map_err(Exit::failed)?;
    let mut unfinished = Unfinished::create(&out).map_err(Exit::usage)?;
    let content = known.read(&source, &item, &found, body, &mut unfinished.file).await;
    let content = content.map_err(Exit::failed)?;
    unfinished.finish(&out).map_err(Exit::failed)?;
    tell(&key, &known.entry(&key.bucket, &item, &content), &out);
    Ok(())
}

fn tell(key: &ObjectKey, entry: &Entry, out: &Path) {
    say!("{}: verified, {} bytes in {}", shown(&key.bucket, &key.key), entry.size, out.display());
    say!("made          {} by gateway {}", moment(entry.created_ms), entry.sealed.gateway_id);
    say!("handed out    {} by proposal {}", moment(key.disclosed_ms), key.proposal.escape_debug());
    for (name, value) in &entry.headers {
        say!("{name}: {}", value.escape_debug());
    }
    for (name, value) in &entry.metadata {
        say!("x-amz-meta-{}: {}", name.escape_debug(), value.escape_debug());
    }
}

fn read_key(path: &Path) -> Result<ObjectKey, Exit> {
    let text = read_secret(path).map_err(Exit::usage)?;
    let file: KeyFile = serde_json::from_str(&text).map_err(|_| no_key_file(path))?;
    Ok(file.key)
}

fn no_key_file(path: &Path) -> Exit {
    Exit::usage(anyhow!(
        "{} is no key file; `claviger keys collect ID --key-file FILE` writes one",
        path.display()
    ))
}

fn no_envelope(path: &Path) -> Exit {
    Exit::usage(anyhow!(
        "{} does not keep the object's envelope: give it with --envelope; it is the value of the metadata entry `claviger`",
        path.display()
    ))
}

/// A file as the only object of a dump.
fn lone(path: &Path) -> Result<(Dump, Item), Exit> {
    let folder = parent(path);
    let name = path.file_name().and_then(|name| name.to_str());
    let name = name.ok_or_else(|| Exit::usage(anyhow!("{} has no name in UTF-8", path.display())))?;
    let dump = Dump::open(folder).with_context(|| folder.display().to_string()).map_err(Exit::usage)?;
    let mark = Mark { stored_len: 0, etag: String::new(), modified_ms: 0 };
    Ok((dump, Item { bucket: String::new(), key: name.to_owned(), version: None, mark }))
}

/// An envelope that was given as it is, or as a file.
///
/// # Errors
/// Exit code 2 if it is none.
pub(crate) fn envelope_text(given: &str) -> Result<String, Exit> {
    if Envelope::parse(given).is_ok() {
        return Ok(given.to_owned());
    }
    let none =
        || format!("{given:.60}: no envelope, and no file with one; it is the value of x-amz-meta-claviger");
    let mut text = String::new();
    let read = File::open(given).and_then(|file| file.take(ENVELOPE_LEN_MAX).read_to_string(&mut text));
    read.with_context(none).map_err(Exit::usage)?;
    let text = text.trim();
    Envelope::parse(text).with_context(none).map_err(Exit::usage)?;
    Ok(text.to_owned())
}

/// The envelope that a file keeps as an extended attribute, as `rclone copy --metadata` writes it.
///
/// # Errors
/// Exit code 2 if it keeps none.
pub(crate) fn envelope_kept_with(path: &Path) -> Result<String, Exit> {
    let (dump, item) = lone(path)?;
    let found = dump.find(&item.bucket, &item.key);
    let found = found.with_context(|| path.display().to_string()).map_err(Exit::usage)?;
    found.envelope.ok_or_else(|| no_envelope(path))
}

/// A file beside the one that is wanted, until all of it has verified. Dropped before, it is gone.
struct Unfinished {
    path: PathBuf,
    file: File,
}

impl Unfinished {
    fn create(out: &Path) -> anyhow::Result<Self> {
        let mut path = out.as_os_str().to_owned();
        path.push(".unfinished");
        let path = PathBuf::from(path);
        let file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(&path);
        let file = file.with_context(|| path.display().to_string())?;
        Ok(Self { path, file })
    }

    /// Gives it its name, unless a file has that by now.
    fn finish(self, out: &Path) -> anyhow::Result<()> {
        self.file.sync_all().with_context(|| self.path.display().to_string())?;
        rename_new(&self.path, out).with_context(|| out.display().to_string())
    }
}

/// Renames a file, and replaces none.
fn rename_new(from: &Path, to: &Path) -> io::Result<()> {
    match renameat_with(CWD, from, CWD, to, RenameFlags::NOREPLACE) {
        // A file system that can't do that has links, or neither.
        Err(Errno::INVAL | Errno::NOSYS | Errno::NOTSUP) => {
            fs::hard_link(from, to)?;
            fs::remove_file(from)
        }
        done => Ok(done?),
    }
}

impl Drop for Unfinished {
    fn drop(&mut self) {
        // It has got its name, or is to go.
        let _ = fs::remove_file(&self.path);
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write as _;

    use super::*;

    #[test]
    fn a_file_that_came_meanwhile_is_left_as_it_is() {
        let folder = tempfile::tempdir().unwrap();
        let out = folder.path().join("report.pdf");
        let write = || {
            let mut unfinished = Unfinished::create(&out).unwrap();
            unfinished.file.write_all(b"mine").unwrap();
            unfinished
        };
        let unfinished = write();
        fs::write(&out, "somebody else's").unwrap();
        assert!(unfinished.finish(&out).is_err());
        assert_eq!(fs::read_to_string(&out).unwrap(), "somebody else's");
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 1, "nothing unfinished is left");
        fs::remove_file(&out).unwrap();
        std::os::unix::fs::symlink("nowhere", &out).unwrap();
        assert!(write().finish(&out).is_err(), "a link that leads nowhere is a name, too");
        fs::remove_file(&out).unwrap();
        write().finish(&out).unwrap();
        assert_eq!(fs::read_to_string(&out).unwrap(), "mine");
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 1);
    }
}
