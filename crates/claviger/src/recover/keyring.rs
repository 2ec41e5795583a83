//! What the roots open: keyset records, epoch records, and with them the key of every object (docs/format.md §8.1).

use std::collections::{BTreeMap, HashMap, HashSet};

use claviger_format::{
    BucketId, Dek, EpochId, EpochRecord, KeysetId, KeysetRecord, NameKey, ObjectId, Root, SealerId, Wek,
};
use futures_util::{StreamExt as _, stream};

use super::failure::Failure;
use super::source::Source;

const EPOCHS_PREFIX: &str = ".claviger/epochs/";
/// Records that are fetched at once.
const FETCHES: usize = 16;

/// All keys that the shares give.
pub(super) struct Keyring {
    roots: Vec<Root>,
    keysets: HashMap<KeysetId, Keyset>,
    epochs: HashMap<EpochId, Epoch>,
    shut: HashMap<EpochId, String>,
    /// What is wrong with records, for people.
    pub(super) warnings: Vec<String>,
}

/// What an authentic keyset record says.
#[derive(Default)]
struct Keyset {
    bucket_ids: Vec<BucketId>,
    name_key: Option<NameKey>,
}

/// An epoch that opened.
pub(super) struct Epoch {
    wek: Wek,
    pub(super) origin: Origin,
}

/// Which epoch it is, and whose.
#[derive(Debug, Clone, Copy)]
pub(super) struct Origin {
    pub(super) epoch_id: EpochId,
    pub(super) keyset_id: KeysetId,
    pub(super) gateway_id: SealerId,
    pub(super) created_ms: u64,
}

impl Keyring {
    /// Reads the system area.
    ///
    /// # Errors
    /// When it can't be read at all; single records that are wrong are warnings.
    pub(super) async fn load(
        source: &Source,
        system_bucket: &str,
        roots: Vec<Root>,
        bucket_ids: &[BucketId],
    ) -> Result<Self, Failure> {
        let mut keyring = Self {
            roots,
            keysets: HashMap::new(),
            epochs: HashMap::new(),
            shut: HashMap::new(),
            warnings: Vec::new(),
        };
        let keyset_ids: HashSet<KeysetId> = keyring.roots.iter().map(Root::keyset_id).collect();
        for keyset_id in keyset_ids {
            let record = source.record(system_bucket, &keyset_id.storage_key()).await?;
            let mut keyset = keyring.keyset(keyset_id, record.as_deref());
            keyset.bucket_ids.extend_from_slice(bucket_ids);
            keyring.keysets.insert(keyset_id, keyset);
        }
        keyring.load_epochs(source, system_bucket).await?;
        Ok(keyring)
    }

    fn keyset(&mut self, keyset_id: KeysetId, record: Option<&[u8]>) -> Keyset {
        let without = "without it the names of its buckets are not known: give them with --bucket-id";
        let Some(record) = record else {
            self.warnings
                .push(format!("the record of keyset {keyset_id} is not in the system area; {without}"));
            return Keyset::default();
        };
        let opened = KeysetRecord::parse(record).map(|record| {
            let roots = self.roots.iter().filter(|root| root.keyset_id() == keyset_id);
            let name_key = roots.map(|root| record.open(root)).find_map(Result::ok);
            (record, name_key)
        });
        match opened {
            Ok((record, Some(name_key))) => {
                Keyset { bucket_ids: record.bucket_ids().to_vec(), name_key: Some(name_key) }
            }
            Ok((_, None)) | Err(_) => {
                self.warnings.push(format!(
                    "the record of keyset {keyset_id} is not what these roots generate, and is not believed; {without}"
                ));
                Keyset::default()
            }
        }
    }

    async fn load_epochs(&mut self, source: &Source, system_bucket: &str) -> Result<(), Failure> {
        let mut after = None;
        loop {
            let (items, next) = source.list(system_bucket, EPOCHS_PREFIX, after.as_deref()).await?;
            let fetches = items.into_iter().map(async |item| {
                let record = source.record(system_bucket, &item.key).await;
                (item.key, record)
            });
            let mut fetched = stream::iter(fetches).buffer_unordered(FETCHES);
            while let Some((key, record)) = fetched.next().await {
                self.take_epoch(&key, record);
            }
            let Some(next) = next else { return Ok(()) };
            after = Some(next);
        }
    }

    fn take_epoch(&mut self, key: &str, record: Result<Option<Vec<u8>>, Failure>) {
        let record = match record {
            Ok(Some(record)) => EpochRecord::parse(&record).map_err(Failure::Damaged),
            // Gone since it was listed.
            Ok(None) => return,
            Err(failure) => Err(failure),
        };
        let record = match record {
            Ok(record) if record.header().epoch_id.storage_key() == key => record,
            Ok(_) => {
                self.warnings.push(format!("{key} is the record of another epoch, and is not believed"));
                return;
            }
            Err(failure) => {
                self.warnings.push(format!("{key} is no epoch record: {failure}"));
                return;
            }
        };
        let header = *record.header();
        let opened = self.roots.iter().map(|root| record.open(root)).find_map(Result::ok);
        let Some(wek) = opened else {
            self.shut.insert(header.epoch_id, self.why_shut(&record));
            return;
        };
        let origin = Origin {
            epoch_id: header.epoch_id,
            keyset_id: header.keyset_id,
            gateway_id: header.gateway_id,
            created_ms: header.created_ms,
        };
        self.epochs.insert(header.epoch_id, Epoch { wek, origin });
    }

    fn why_shut(&self, record: &EpochRecord) -> String {
        let keyset_id = record.header().keyset_id;
        let sealed_to: Vec<u32> = record.recipients().map(|(version, _)| version).collect();
        let ours = |root: &&Root| root.keyset_id() == keyset_id && sealed_to.contains(&root.version());
        if self.roots.iter().any(|root| ours(&root)) {
            return "no gateway of this keyset made it, or it is damaged".to_owned();
        }
        let versions = sealed_to.iter().map(u32::to_string).collect::<Vec<_>>().join(" or ");
        format!("bring shares of keyset {keyset_id} version {versions}")
    }

    /// The epoch of an object, and the object's key.
    ///
    /// # Errors
    /// That the epoch's record is missing, or shut.
    pub(super) fn dek(&self, epoch_id: EpochId, object_id: ObjectId) -> Result<(&Epoch, Dek), Failure> {
        match (self.epochs.get(&epoch_id), self.shut.get(&epoch_id)) {
            (Some(epoch), _) => Ok((epoch, epoch.wek.dek(epoch_id, object_id))),
            (None, Some(why)) => Err(Failure::EpochShut(epoch_id, why.clone())),
            (None, None) => Err(Failure::NoEpoch(epoch_id)),
        }
    }

    /// The bindings of buckets of an epoch's keyset, and its name key.
    pub(super) fn bindings(&self, epoch: &Epoch) -> (&[BucketId], Option<&NameKey>) {
        let keyset = self.keysets.get(&epoch.origin.keyset_id);
        keyset.map_or((&[], None), |keyset| (&keyset.bucket_ids, keyset.name_key.as_ref()))
    }

    /// How many epochs each sealer made that opened, and how many records stayed shut.
    pub(super) fn census(&self) -> (BTreeMap<SealerId, usize>, usize) {
        let mut sealers = BTreeMap::new();
        for epoch in self.epochs.values() {
            *sealers.entry(epoch.origin.gateway_id).or_insert(0) += 1;
        }
        (sealers, self.shut.len())
    }
}
