//! By what an object is known again as the one that a request wrote.

use claviger_format::ObjectId;
use claviger_format::envelope::Envelope;

use super::object::StoredHead;

/// What only the object has that a request wrote. Its entity tag says too little: the tag of a copy is that of every
/// copy of the same source.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Mark<'a> {
    /// The envelope that was sent with it. Each is sealed under a salt of its own (docs/format.md §3.1).
    Envelope(&'a str),
    /// The object id of the upload that it was made of.
    Upload(ObjectId),
}

impl Mark<'_> {
    /// Whether an answer is about the marked object.
    pub(crate) fn is_on(self, head: &StoredHead) -> bool {
        let Some(found) = head.envelope.as_deref() else { return false };
        match self {
            Self::Envelope(sent) => found == sent,
            Self::Upload(object_id) => {
                Envelope::parse(found).is_ok_and(|envelope| envelope.object_id() == object_id)
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use claviger_env::{OsRandom, SystemClock};
    use claviger_format::metadata::{Layout, Metadata};
    use claviger_format::{BucketId, EpochId, ObjectName, Wek, envelope};

    use super::*;
    use crate::upstream::ENVELOPE_HEADER;
    use crate::upstream::double;
    use crate::upstream::object::Which;

    async fn shown(headers: &[(&str, &str)]) -> StoredHead {
        let answer = double::object(headers);
        let store = double::store("ceph-rgw", move |_| answer.clone()).await;
        store.upstream.head_object("b", "k", Which::default()).await.unwrap()
    }

    #[tokio::test]
    async fn an_object_is_known_by_its_uploads_object_id_or_by_its_very_envelope() {
        let random = OsRandom::new(Arc::new(SystemClock)).unwrap();
        let wek = Wek::generate(&random, &[9; 32]).unwrap();
        let epoch_id = EpochId::draw(&random).unwrap();
        let [object_id, other_id] = [(); 2].map(|()| ObjectId::draw(&random).unwrap());
        let bucket_id = BucketId::new("b#000102030405060708090a0b0c0d0e0f").unwrap();
        let name = ObjectName::new(bucket_id, "k").unwrap();
        let seal = || {
            let dek = wek.dek(epoch_id, object_id);
            let metadata = Metadata::default();
            envelope::seal(&dek, epoch_id, object_id, &name, &Layout::Multipart, &metadata, 999, &random)
                .unwrap()
        };
        let (first, second) = (seal(), seal());
        let head = shown(&[(ENVELOPE_HEADER, &first)]).await;
        assert!(Mark::Upload(object_id).is_on(&head) && Mark::Envelope(&first).is_on(&head));
        assert!(!Mark::Upload(other_id).is_on(&head) && !Mark::Envelope(&second).is_on(&head));
        for foreign in [shown(&[]).await, shown(&[(ENVELOPE_HEADER, "none of ours")]).await] {
            assert!(!Mark::Upload(object_id).is_on(&foreign) && !Mark::Envelope(&first).is_on(&foreign));
        }
    }
}
