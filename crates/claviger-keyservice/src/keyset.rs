//! A keyset: its versions, each with a root of its own, and what each version is good for.
//!
//! ```text
//! prepared ──shares proved──▶ active ──a newer one, or by hand──▶ retired ──two operators──▶ doomed ──in time──▶ destroyed
//!                                                                    ▲                     │
//!                                                                    └────one operator─────┘
//! ```
//! New epochs are sealed to the newest active version; active and retired ones open (docs/format.md §2.1). A doomed one has its
//! root still, and opens nothing.

use std::sync::{Mutex, PoisonError};

use claviger_format::{
    BucketId, KemPublicKey, KeyVersion, KeyVersionState, KeysetId, KeysetRecord, NameKey, Random, Root,
    RootSecret,
};
use claviger_keyapi::Id16;
use claviger_keyapi::lifecycle::DoomInfo;
use claviger_keyapi::wire::Blob;
use serde::{Deserialize, Serialize};
use zeroize::Zeroizing;

use crate::ServiceError;
use crate::custody::Master;
use crate::proposals::Person;
use crate::store::{Change, Kind};
use crate::vault::row;
use crate::wording::moment;

/// Most versions of one keyset: with its 10,000 buckets its record then still fits into the mebibyte that gateways read.
pub(crate) const VERSIONS_MAX: usize = 40;
/// Most roots that a keyset record is sealed to (docs/format.md §2.5).
const RECORD_ROOTS_MAX: usize = 8;

/// A keyset with its secrets.
pub(crate) struct Keyset {
    pub(crate) id: KeysetId,
    pub(crate) name: String,
    pub(crate) versions: Vec<Version>,
    pub(crate) name_key: NameKey,
    /// The keyset record for the buckets it was made for; sealing draws randomness, so it is kept.
    record: Mutex<Option<(Vec<String>, Vec<u8>)>>,
}

/// One version of a keyset.
pub(crate) struct Version {
    pub(crate) number: u32,
    pub(crate) state: KeyVersionState,
    /// `None` once it was destroyed.
    root: Option<Root>,
    pub(crate) public_key: KemPublicKey,
    pub(crate) shares: u8,
    pub(crate) threshold: u8,
    pub(crate) set: Option<String>,
    pub(crate) earlier_sets: Vec<EarlierSet>,
    pub(crate) retired_ms: Option<u64>,
    pub(crate) doom: Option<Doom>,
    pub(crate) destroyed_ms: Option<u64>,
}

/// A keyset as it stands in the database.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct KeysetRow {
    pub(crate) keyset_id: Id16,
    pub(crate) name: String,
    pub(crate) versions: Vec<VersionRow>,
    /// NK under the master.
    pub(crate) name_key: Blob,
}

#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct VersionRow {
    pub(crate) number: u32,
    /// `false` until its recovery shares came back.
    #[serde(rename = "active")]
    pub(crate) is_proved: bool,
    /// RS_v under the master; nothing once it was destroyed.
    pub(crate) root: Blob,
    pub(crate) shares: u8,
    pub(crate) threshold: u8,
    /// Which set of shares that is; unknown for keysets of a release before.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) set: Option<String>,
    /// Sets that were replaced. On paper they are as good as ever.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub(crate) earlier_sets: Vec<EarlierSet>,
    /// Since when nothing new is sealed to it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) retired_ms: Option<u64>,
    /// Its destruction, while it is decided and not done.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) doom: Option<Doom>,
    /// The permission to seal its epochs to a newer version as well, until that is done.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) reseal: Option<Permit>,
    /// What is left of it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) destroyed: Option<Destroyed>,
}

/// The decision of two operators that a version is to be destroyed.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Doom {
    pub(crate) proposal: String,
    pub(crate) info: DoomInfo,
}

/// What two operators permitted. It ends like a proposal: with its time, and with the office of either of them.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Permit {
    pub(crate) proposal: String,
    pub(crate) proposer: Person,
    pub(crate) approver: Person,
    pub(crate) until_ms: u64,
}

/// A version without its root.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Destroyed {
    pub(crate) destroyed_ms: u64,
    /// It stays in the keyset record.
    pub(crate) public_key: Blob,
}

/// A set of recovery shares that was replaced by another of the same root.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct EarlierSet {
    pub(crate) set: Option<String>,
    pub(crate) shares: u8,
    pub(crate) threshold: u8,
    pub(crate) replaced_ms: u64,
}

impl VersionRow {
    /// A version whose root is sealed under the master.
    pub(crate) fn new(
        master: &Master,
        root: &Root,
        (threshold, shares): (u8, u8),
        random: &dyn Random,
    ) -> Result<Self, ServiceError> {
        let name = root_name(root.keyset_id().into(), root.version());
        Ok(Self {
            number: root.version(),
            is_proved: false,
            root: Blob(master.seal(&name, root.secret().expose(), random)?),
            shares,
            threshold,
            set: None,
            earlier_sets: Vec::new(),
            retired_ms: None,
            doom: None,
            reseal: None,
            destroyed: None,
        })
    }

    fn state(&self) -> KeyVersionState {
        if self.destroyed.is_some() {
            KeyVersionState::Destroyed
        } else if !self.is_proved {
            KeyVersionState::Prepared
        } else if self.retired_ms.is_some() {
            KeyVersionState::Retired
        } else {
            KeyVersionState::Active
        }
    }
}

impl KeysetRow {
    /// From now on nothing new is sealed to the versions that there are; which ones that concerned.
    pub(crate) fn retire(&mut self, now_ms: u64) -> Vec<u32> {
        let active = self.versions.iter_mut().filter(|version| version.state() == KeyVersionState::Active);
        active
            .map(|version| {
                version.retired_ms = Some(now_ms);
                version.number
            })
            .collect()
    }
}

impl Version {
    /// The root if it may open what was sealed under it.
    pub(crate) fn opens(&self) -> Option<&Root> {
        let may = matches!(self.state, KeyVersionState::Active | KeyVersionState::Retired);
        self.root.as_ref().filter(|_| may && self.doom.is_none())
    }

    /// The root, whatever the version is good for; none once it was destroyed.
    pub(crate) fn root(&self) -> Option<&Root> {
        self.root.as_ref()
    }

    /// Why it opens nothing, if that is because it was or will be destroyed.
    fn end(&self, keyset: &str) -> Option<String> {
        let version = self.number;
        if let Some(destroyed_ms) = self.destroyed_ms {
            let when = moment(destroyed_ms);
            return Some(format!(
                "version {version} of keyset {keyset} was destroyed {when}: nothing opens this any more"
            ));
        }
        let due = moment(self.doom.as_ref()?.info.due_ms);
        Some(format!(
            "version {version} of keyset {keyset} opens nothing and will be destroyed {due}; until then an operator of the key \
             service can cancel that"
        ))
    }
}

impl Keyset {
    /// The newest active version: what new epochs are sealed to. None if the keyset is read only.
    pub(crate) fn newest(&self) -> Option<&Version> {
        self.versions.iter().rev().find(|version| version.state == KeyVersionState::Active)
    }

    /// The newest version that opens.
    pub(crate) fn newest_open(&self) -> Option<(&Version, &Root)> {
        self.versions.iter().rev().find_map(|version| Some((version, version.opens()?)))
    }

    /// Roots that open, newest first.
    pub(crate) fn open_roots(&self) -> impl Iterator<Item = &Root> {
        self.versions.iter().rev().filter_map(Version::opens)
    }

    /// Why nothing opens what was sealed to these versions, if that is because one was or will be destroyed.
    pub(crate) fn end_of(&self, versions: impl Iterator<Item = u32>) -> Option<String> {
        versions.filter_map(|number| self.version(number)?.end(&self.name)).last()
    }

    pub(crate) fn version(&self, number: u32) -> Option<&Version> {
        self.versions.iter().find(|version| version.number == number)
    }

    /// Whether this version opens.
    pub(crate) fn opens(&self, number: u32) -> bool {
        self.version(number).and_then(Version::opens).is_some()
    }

    /// Whether its first recovery shares ever came back.
    pub(crate) fn is_proved(&self) -> bool {
        self.versions.iter().any(|version| version.state != KeyVersionState::Prepared)
    }

    pub(crate) fn public_id(&self) -> Id16 {
        self.id.into()
    }

    /// The keyset record (docs/format.md §2.5) for these bucket ids.
    pub(crate) fn record(
        &self,
        bucket_ids: Vec<String>,
        random: &dyn Random,
    ) -> Result<Vec<u8>, ServiceError> {
        let mut kept = self.record.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some((for_ids, bytes)) = &*kept
            && *for_ids == bucket_ids
        {
            return Ok(bytes.clone());
        }
        let proved = self.versions.iter().filter(|version| version.state != KeyVersionState::Prepared);
        let listed = proved.map(|version| KeyVersion {
            version: version.number,
            state: version.state,
            public_key: version.public_key.clone(),
        });
        let ids = bucket_ids.iter().map(|id| BucketId::new(id.as_str())).collect::<Result<Vec<_>, _>>()?;
        let roots: Vec<&Root> = self.open_roots().take(RECORD_ROOTS_MAX).collect();
        let record = KeysetRecord::seal(self.id, listed.collect(), ids, &self.name_key, &roots, random)?;
        let bytes = record.to_bytes()?;
        *kept = Some((bucket_ids, bytes.clone()));
        Ok(bytes)
    }
}

fn root_name(keyset_id: Id16, version: u32) -> String {
    format!("root/{keyset_id}/{version}")
}

fn names_name(keyset_id: Id16) -> String {
    format!("names/{keyset_id}")
}

/// A keyset of which every secret opened.
pub(crate) fn open_keyset(master: &Master, row: KeysetRow) -> Result<Keyset, ServiceError> {
    let versions = row.versions.iter().map(|version| open_version(master, row.keyset_id, version));
    let versions = versions.collect::<Result<Vec<_>, _>>()?;
    let name_key = unsealed(master, &names_name(row.keyset_id), &row.name_key)?;
    Ok(Keyset {
        id: row.keyset_id.into(),
        name: row.name,
        versions,
        name_key: NameKey::from_slice(&name_key)?,
        record: Mutex::new(None),
    })
}

fn open_version(master: &Master, keyset_id: Id16, row: &VersionRow) -> Result<Version, ServiceError> {
    let (root, public_key) = match &row.destroyed {
        Some(destroyed) => (None, KemPublicKey::from_slice(&destroyed.public_key.0)?),
        None => {
            let secret = unsealed(master, &root_name(keyset_id, row.number), &row.root)?;
            let root = Root::new(RootSecret::from_slice(&secret)?, keyset_id.into(), row.number);
            let public_key = root.public_key()?;
            (Some(root), public_key)
        }
    };
    Ok(Version {
        number: row.number,
        state: row.state(),
        public_key,
        root,
        shares: row.shares,
        threshold: row.threshold,
        set: row.set.clone(),
        earlier_sets: row.earlier_sets.clone(),
        retired_ms: row.retired_ms,
        doom: row.doom.clone(),
        destroyed_ms: row.destroyed.as_ref().map(|destroyed| destroyed.destroyed_ms),
    })
}

fn unsealed(master: &Master, name: &str, sealed: &Blob) -> Result<Zeroizing<Vec<u8>>, ServiceError> {
    master.open(name, &sealed.0).ok_or(ServiceError::Damaged("root"))
}

/// A keyset that is being made: its row with version 1 prepared, not yet active, and the root for splitting.
pub(crate) fn prepare_keyset(
    master: &Master,
    name: &str,
    shares: u8,
    threshold: u8,
    random: &dyn Random,
) -> Result<(KeysetRow, Root), ServiceError> {
    let keyset_id = Id16::from(KeysetId::draw(random)?);
    let root = Root::new(RootSecret::draw(random)?, keyset_id.into(), 1);
    let name_key = NameKey::draw(random)?;
    let row = KeysetRow {
        keyset_id,
        name: name.to_owned(),
        versions: vec![VersionRow::new(master, &root, (threshold, shares), random)?],
        name_key: Blob(master.seal(&names_name(keyset_id), name_key.expose(), random)?),
    };
    Ok((row, root))
}

/// The change that stores a keyset.
pub(crate) fn keyset_change(master: &Master, keyset: &KeysetRow) -> Change {
    Change::Put(Kind::Keyset, row(master, Kind::Keyset, &keyset.keyset_id.to_string(), keyset))
}
