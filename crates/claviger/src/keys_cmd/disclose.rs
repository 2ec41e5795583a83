use std::path::{Path, PathBuf};
use std::sync::Arc;

use anyhow::{Context as _, anyhow};
use claviger_env::SystemClock;
use claviger_format::Envelope;
use claviger_gateway::store_reader::{StoreConfig, StoreReader};
use claviger_keyapi::EnvelopeHeader;
use claviger_keyapi::disclosure::KeyFile;
use claviger_keyapi::proposals::{self, Action, Collected, ProposalRequest};
use claviger_keyapi::wiping;
use claviger_keyservice::files::{parent, write_secret_new};
use claviger_s3::VersionId;

use super::Operator;
use super::connection::Connection;
use super::proposals::propose;
use crate::exit::Exit;
use crate::recover::open::{envelope_kept_with, envelope_text};

/// Propose to hand out the key of one object, to somebody who has no gateway and no access key
///
/// For a court, an auditor, a patient. Two operators with the verb "disclose": one names the object and
/// says why, another one approves, the first collects a file with the key of that one object:
///   claviger keys disclose BUCKET/KEY --store gateway.toml --reason "court of X, file 12/26"
///   claviger keys approve ID
///   claviger keys collect ID --key-file FILE
/// Whoever has that file, the stored object and its envelope opens it with `claviger open`, without
/// any service.
///
/// The other operator is told when the object was sealed (by its epoch), and which version of it you say
/// that is: the newest one, or --version-id. The service can check the time and not the version: a store
/// can show an older one under the right name.
///
/// The service releases the key only if the object was sealed under exactly this bucket and key, and
/// nothing of it is frozen, in quarantine, or under a key version that opens nothing any more; that is
/// asked at each step. The audit log has the object, the reason and both operators before the key
/// leaves (claviger audit search --object KEY).
///
/// What was handed out stays handed out: nothing takes the key back, neither freezing nor revoking nor
/// a new key version. It opens this object version for ever, and copies of it that were made within
/// the store. Who has it and can write to the store can put other content in the place of the object
/// or of these copies. To end that, write the object anew through a gateway, and delete the old one.
///
/// The reason stays in the log for ever: give the number of a file rather than anybody's name.
/// No command hands out more than one object, or a root: for that there are grants of a gateway, and
/// recovery shares.
#[derive(clap::Args)]
#[command(verbatim_doc_comment)]
pub(super) struct DiscloseArguments {
    /// The object, as clients name it
    #[arg(value_name = "BUCKET/KEY")]
    object: String,

    #[command(flatten)]
    place: EnvelopePlace,

    /// Which version of it, in a bucket with versions: the store's id. Without it, the newest
    #[arg(long, value_name = "ID")]
    version_id: Option<String>,

    /// Why, and to whom; for the other operator and the log
    #[arg(long, value_name = "TEXT")]
    reason: String,

    #[command(flatten)]
    operator: Operator,
}

/// Where the object's envelope is.
#[derive(clap::Args)]
#[group(required = true, multiple = false)]
struct EnvelopePlace {
    /// Ask the store for its envelope: a gateway's configuration, or a file with its table upstream alone
    #[arg(long, value_name = "FILE")]
    store: Option<PathBuf>,

    /// Its envelope (the value of x-amz-meta-claviger), or a file with it
    #[arg(long, value_name = "TEXT|FILE")]
    envelope: Option<String>,

    /// A copy of the stored object that keeps its envelope (rclone copy --metadata)
    #[arg(long = "object", value_name = "FILE")]
    copy: Option<PathBuf>,
}

pub(super) async fn run(arguments: DiscloseArguments) -> Result<(), Exit> {
    let DiscloseArguments { object, place, version_id, reason, operator } = arguments;
    let (bucket, key) = split(&object)?;
    let envelope = Envelope::parse(&find(place, (bucket, key), version_id.as_deref()).await?);
    let envelope = envelope.context("the object's envelope").map_err(Exit::usage)?;
    let action = Action::Disclose {
        bucket: bucket.to_owned(),
        key: key.to_owned(),
        header: EnvelopeHeader::new(&envelope.header_bytes()),
        version: version_id,
        reason,
    };
    propose(&operator, action).await.map(drop)
}

async fn find(place: EnvelopePlace, object: (&str, &str), version: Option<&str>) -> Result<String, Exit> {
    match (place.envelope, place.copy, place.store) {
        (Some(given), ..) => envelope_text(&given),
        (None, Some(path), _) => envelope_kept_with(&path),
        (None, None, Some(file)) => at_store(&file, object, version).await,
        (None, None, None) => Err(Exit::usage(anyhow!("say where its envelope is: --store or --envelope"))),
    }
}

async fn at_store(file: &Path, (bucket, key): (&str, &str), version: Option<&str>) -> Result<String, Exit> {
    let config = StoreConfig::load(file).map_err(|error| Exit::usage(anyhow!("{error}")))?;
    let store = StoreReader::open(&config.upstream, Arc::new(SystemClock)).map_err(Exit::usage)?;
    let version = version.map(VersionId::parse).transpose();
    let version = version.map_err(|_| Exit::usage(anyhow!("that is no id of a version")))?;
    let object =
        store.head(bucket, key, version.as_ref()).await.context("the store").map_err(Exit::failed)?;
    object.envelope.ok_or_else(|| Exit::failed(anyhow!("the store has no envelope with this object")))
}

/// Bucket and key; keys may begin with a slash.
fn split(object: &str) -> Result<(&str, &str), Exit> {
    let named = object.strip_prefix("s3://").unwrap_or(object).split_once('/');
    named
        .filter(|(bucket, key)| !bucket.is_empty() && !key.is_empty())
        .ok_or_else(|| Exit::usage(anyhow!("{object:?} is not of the form BUCKET/KEY")))
}

/// Takes the key of an object that was approved, into a new file.
pub(super) async fn collect(
    connection: &Connection,
    request: &ProposalRequest,
    file: &Path,
) -> Result<(), Exit> {
    // Before asking: a result is handed out once.
    let folder = parent(file);
    if !folder.is_dir() {
        return Err(Exit::usage(anyhow!("there is no folder {}", folder.display())));
    }
    if file.exists() {
        return Err(Exit::usage(anyhow!("{} exists already", file.display())));
    }
    let Collected::ObjectKey(key) = connection.ask(proposals::COLLECT, request).await? else {
        return Err(Exit::failed(anyhow!("it is no key of an object")));
    };
    let key_file = KeyFile { key };
    let mut text = wiping::to_json(&key_file).map_err(Exit::failed)?;
    text.push(b'\n');
    write_secret_new(file, &text).map_err(Exit::failed)?;
    let name = format!("{}/{}", key_file.key.bucket, key_file.key.key);
    say!(
        "The key of {} is in {}. Whoever has it opens that object, for ever.",
        name.escape_debug(),
        file.display()
    );
    say!(
        "With the stored object and its envelope: claviger open --key-file FILE --object FILE --envelope FILE --out FILE"
    );
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_object_is_a_bucket_and_whatever_follows_the_first_slash() {
        assert_eq!(split("invoices/2026/a b.pdf").unwrap(), ("invoices", "2026/a b.pdf"));
        assert_eq!(split("s3://invoices//a").unwrap(), ("invoices", "/a"));
        for wrong in ["invoices", "invoices/", "/a", ""] {
            assert!(split(wrong).is_err(), "{wrong}");
        }
    }
}
