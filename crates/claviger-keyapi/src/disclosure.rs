//! The key of one object, handed out by two operators ([`crate::proposals::Action::Disclose`]): what they get, and the file that
//! `claviger open` takes.

use serde::{Deserialize, Serialize};

use crate::secret::DekBytes;
use crate::wire::Id16;

/// Longest reason, in bytes: it stands in the proposal and in the audit log.
pub const REASON_LEN_MAX: usize = 500;

/// Longest id of a version at a store, in bytes: what S3 allows.
pub const VERSION_LEN_MAX: usize = 1024;

/// The key of one object, with all that it takes to open that object without a key service.
#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ObjectKey {
    /// Name of the bucket.
    pub bucket: String,
    /// Its binding id, under which the object was sealed (docs/format.md §5.1).
    pub bucket_id: String,
    /// The object's key, as clients write it.
    pub key: String,
    /// The keyset.
    pub keyset_id: Id16,
    /// The epoch.
    pub epoch_id: Id16,
    /// When the epoch began, as its sealer says, Unix milliseconds.
    pub epoch_created_ms: u64,
    /// Which gateway sealed it.
    pub sealer_id: Id16,
    /// The object version; a copy that was made within the store has the same.
    pub object_id: Id16,
    /// The key of this object version.
    pub dek: DekBytes,
    /// The proposal by which it was handed out.
    pub proposal: String,
    /// When, Unix milliseconds.
    pub disclosed_ms: u64,
}

/// A file with the key of one object: JSON, secret.
#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct KeyFile {
    /// Its only member; another form would have another name.
    #[serde(rename = "claviger_object_key_1")]
    pub key: ObjectKey,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_file_has_one_spelling_and_never_prints_its_key() {
        let id = "00112233445566778899aabbccddeeff";
        let text = format!(
            "{{\"claviger_object_key_1\":{{\"bucket\":\"b\",\"bucket_id\":\"b#1\",\"key\":\"k\",\"keyset_id\":\"{id}\",\
             \"epoch_id\":\"{id}\",\"epoch_created_ms\":1,\"sealer_id\":\"{id}\",\"object_id\":\"{id}\",\
             \"dek\":\"BwcHBwcHBwcHBwcHBwcHBwcHBwcHBwcHBwcHBwcHBwc=\",\"proposal\":\"00ff\",\"disclosed_ms\":2}}}}"
        );
        let file: KeyFile = serde_json::from_str(&text).unwrap();
        assert_eq!(serde_json::to_string(&file).unwrap(), text);
        assert_eq!(file.key.dek.expose(), &[7; 32]);
        assert!(!format!("{file:?}").contains("BwcH"));
        assert!(serde_json::from_str::<KeyFile>(&text.replace("_1\"", "_2\"")).is_err());
    }
}
