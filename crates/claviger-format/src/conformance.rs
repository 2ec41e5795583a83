//! Known answers that every [`SegmentAead`] backend must give: `tests/vectors/clv1.json`, byte for byte.
//!
//! Behind the `conformance` feature, so that a backend outside of this crate runs the very same checks. The vectors
//! reuse salts on purpose, which nothing outside of this module can do.

use crate::encoding::hex;
use crate::object::{BodyWriter, ObjectReader, PartWriter};
use crate::segment::to_usize;
use crate::unit::{UnitHeader, UnitRequest};
use crate::{
    BucketId, Dek, Entry, Envelope, EpochId, EpochRecord, FooterInfo, FooterRead, KeysetId, Layout, Manifest,
    Metadata, NameKey, ObjectId, ObjectName, OpenedEnvelope, PlainRange, Root, RootSecret, Salt, SealerId,
    SegmentAead, SystemHeader, Wek, envelope, footer, layout, name,
};
use serde_json::Value;
use std::sync::Arc;

/// The frozen vectors.
pub const VECTORS: &str = include_str!("../../../tests/vectors/clv1.json");

/// Runs every check.
///
/// # Panics
/// On the first value that differs.
pub fn run<A: SegmentAead>() {
    let known = Known::load();
    known.keys();
    known.single_objects::<A>();
    known.multipart_object::<A>();
    known.sizes();
    known.names();
    known.epoch_record();
}

struct Known {
    json: Value,
    wek: Wek,
    dek: Dek,
    epoch_id: EpochId,
    object_id: ObjectId,
    name: ObjectName,
}

/// `byte i = i mod 251`
fn pattern(len: u64) -> Vec<u8> {
    (0..len).map(|i| u8::try_from(i % 251).expect("a remainder of 251 is a byte")).collect()
}

fn text<'a>(value: &'a Value, field: &str) -> &'a str {
    value[field].as_str().unwrap_or_else(|| panic!("the vectors have a text {field}"))
}

fn number(value: &Value) -> u64 {
    value.as_u64().expect("the vectors have a number here")
}

fn bytes(value: &Value, field: &str) -> Vec<u8> {
    unhex(text(value, field))
}

fn unhex(text: &str) -> Vec<u8> {
    let digits: Vec<u8> =
        text.chars().map(|c| c.to_digit(16).and_then(|d| u8::try_from(d).ok()).expect("hex")).collect();
    digits.chunks_exact(2).map(|pair| pair[0] << 4 | pair[1]).collect()
}

impl Known {
    fn load() -> Self {
        let json: Value = serde_json::from_str(VECTORS).expect("the vectors are JSON");
        let wek = Wek::from_slice(&bytes(&json, "wek")).expect("32 bytes");
        let epoch_id = EpochId::from_slice(&bytes(&json, "epoch_id")).expect("16 bytes");
        let object_id = ObjectId::from_slice(&bytes(&json, "object_id")).expect("16 bytes");
        let dek = wek.dek(epoch_id, object_id);
        let bucket_id = BucketId::new(text(&json, "bucket")).expect("a bucket id");
        let name = ObjectName::new(bucket_id, text(&json, "key")).expect("a key");
        Self { json, wek, dek, epoch_id, object_id, name }
    }

    fn salt(&self, field: &str) -> Salt {
        Salt::from_slice(&bytes(&self.json, field)).expect("16 bytes")
    }

    fn created_ms(&self) -> u64 {
        number(&self.json["created_ms"])
    }

    fn keys(&self) {
        assert_eq!(hex(self.dek.expose()), text(&self.json, "dek"));
        let request = UnitRequest::single(self.epoch_id, self.object_id, 5);
        let grant = request.with_salt(&self.dek, self.salt("part_salt")).expect("5 bytes are a body");
        assert_eq!(hex(grant.keys().key()), text(&self.json, "hello_part_key"));
        assert_eq!(hex(grant.keys().base_nonce()), text(&self.json, "hello_part_nonce0"));
        assert_eq!(hex(&grant.header().encode()), text(&self.json, "hello_part_header"));
        let header = UnitHeader::parse(&bytes(&self.json, "hello_part_header")).expect("a header");
        assert_eq!(header, grant.header());
    }

    fn seal_single<A: SegmentAead>(&self, plaintext: &[u8], piece_len: usize) -> Vec<u8> {
        let length = plaintext.len() as u64;
        let body = UnitRequest::single(self.epoch_id, self.object_id, length);
        let body = body.with_salt(&self.dek, self.salt("part_salt")).expect("a body");
        let footer = UnitRequest::footer(self.epoch_id, self.object_id, 1, length);
        let footer = footer.with_salt(&self.dek, self.salt("footer_salt")).expect("a footer");
        let mut writer = BodyWriter::<A>::with_grants(body, footer).expect("a writer");
        let mut out = Vec::new();
        for piece in plaintext.chunks(piece_len) {
            let emits = out.len() as u64 + writer.emits(piece.len() as u64);
            writer.push(piece, &mut out).expect("within the length");
            assert_eq!(out.len() as u64, emits);
        }
        writer.finish(self.created_ms(), None, &mut out).expect("a whole body");
        out
    }

    fn single_objects<A: SegmentAead>(&self) {
        for vector in self.json["single"].as_array().expect("a list") {
            let n = number(&vector["n"]);
            let plaintext = if n == 5 { b"hello".to_vec() } else { pattern(n) };
            assert_eq!(format!("{:016x}", crate::crc64::crc64(&plaintext)), text(vector, "crc64nvme"));
            for piece_len in [1_000_000, 70_001, 65_536, 4_099] {
                let object = self.seal_single::<A>(&plaintext, piece_len);
                assert_eq!(object.len() as u64, number(&vector["size"]));
                assert_eq!(hex(&crate::kdf::sha256(&[&object])), text(vector, "sha256_body"));
                if let Some(known) = vector["body_hex"].as_str() {
                    assert_eq!(hex(&object), known);
                }
                self.read_single::<A>(vector, &object, &plaintext, piece_len);
            }
            if n == 5 {
                let object = self.seal_single::<A>(&plaintext, 5);
                assert_eq!(hex(&object[96..117]), text(&self.json, "hello_segment0"));
            }
        }
    }

    fn check_envelope(&self, known: &str, layout: Layout, content_type: Option<&str>) -> OpenedEnvelope {
        let content_type = content_type.map(|value| (SystemHeader::ContentType, value.as_bytes().to_vec()));
        let metadata = Metadata { system: content_type.into_iter().collect(), ..Metadata::default() };
        let tlv_len = envelope::tlv_len(&layout, &metadata).expect("small") as u64;
        let request = UnitRequest::envelope(self.epoch_id, self.object_id, &self.name, tlv_len);
        let grant = request.with_salt(&self.dek, self.salt("meta_salt")).expect("an envelope");
        assert_eq!(envelope::seal_granted(grant, &layout, &metadata).expect("sealed"), known);
        let envelope = Envelope::parse(known).expect("an envelope");
        assert_eq!(envelope.to_text(), known);
        let opened = envelope.open(&self.dek, &self.name).expect("opens under its name");
        assert_eq!((opened.layout, &opened.metadata), (layout, &metadata));
        opened
    }

    fn read_single<A: SegmentAead>(&self, vector: &Value, object: &[u8], plaintext: &[u8], piece_len: usize) {
        let length = plaintext.len() as u64;
        let layout = Layout::Single { salt: self.salt("part_salt"), length };
        let envelope = self.check_envelope(text(vector, "envelope"), layout, Some("text/plain"));
        let size = object.len() as u64;
        let mut reader = ObjectReader::<A>::single(&self.dek, &envelope, size).expect("a reader");
        let mut out = Vec::new();
        for piece in object.chunks(piece_len) {
            reader.push(piece, &mut out).expect("authentic");
        }
        reader.finish().expect("complete");
        assert_eq!(out, plaintext);
        let manifest = self.open_footer(object);
        if length > 0 {
            let range = PlainRange::new(length / 3, length - 1).expect("a range");
            let reader = ObjectReader::<A>::single_range(&self.dek, &envelope, &manifest, range);
            assert_eq!(read_range(reader.expect("a reader"), object), &plaintext[to_usize(length / 3)..]);
        }
    }

    fn open_footer(&self, object: &[u8]) -> Manifest {
        let suffix = &object[object.len() - object.len().min(65_536)..];
        let size = object.len() as u64;
        match footer::open(&self.dek, self.epoch_id, self.object_id, suffix, size) {
            Ok(FooterRead::Verified(manifest)) => manifest,
            other => panic!("the footer verifies: {other:?}"),
        }
    }

    fn multipart_object<A: SegmentAead>(&self) {
        let vector = &self.json["multipart"];
        let salt = |text: &str| Salt::from_slice(&unhex(text)).expect("16 bytes");
        let (bound, unbound) =
            (salt("707172737475767778797a7b7c7d7e7f"), salt("808182838485868788898a8b8c8d8e8f"));
        let plaintext = [&pattern(layout::PART_LEN_MIN)[..], b"tail"].concat();
        let (first, last) = plaintext.split_at(to_usize(layout::PART_LEN_MIN));
        let mut object = Vec::new();
        let mut states = Vec::new();
        for (number, salt, part) in [(1, bound, first), (7, unbound, last)] {
            let request = UnitRequest::part(self.epoch_id, self.object_id, number, part.len() as u64);
            let grant = request.with_salt(&self.dek, salt).expect("a part");
            let mut writer = PartWriter::<A>::begin_granted(grant).expect("a writer");
            writer.push(part, &mut object).expect("within the length");
            states.push(writer.finish(&mut object).expect("a whole part"));
        }
        let unbound = Entry { salt: None, crc64: None, ..states[1].entry() };
        let entries = [states[0].entry(), unbound];
        let info = FooterInfo { created_ms: self.created_ms(), crc64: None, checksum: None };
        let request = UnitRequest::footer(self.epoch_id, self.object_id, 2, plaintext.len() as u64);
        let grant = request.with_salt(&self.dek, self.salt("footer_salt")).expect("a footer");
        let footer = footer::seal_granted(grant, &entries, &info).expect("a footer");
        assert_eq!(hex(&footer), text(vector, "footer_hex"));
        object.extend_from_slice(&footer);
        assert_eq!(object.len() as u64, number(&vector["size"]));
        assert_eq!(hex(&crate::kdf::sha256(&[&object])), text(vector, "sha256_body"));
        self.check_envelope(text(vector, "envelope"), Layout::Multipart, None);
        self.read_multipart::<A>(&object, &plaintext, &entries);
    }

    fn read_multipart<A: SegmentAead>(&self, object: &[u8], plaintext: &[u8], entries: &[Entry]) {
        let manifest = Arc::new(self.open_footer(object));
        assert_eq!(manifest.entries(), entries);
        let reader = ObjectReader::<A>::multipart(&self.dek, &manifest).expect("a reader");
        assert_eq!(read_range(reader, object), plaintext);
        let last = plaintext.len() as u64 - 1;
        for (first, last) in
            [(1, 1), (65_535, 65_536), (last - 4, last), (last - 3, last), (last - 1, last - 1)]
        {
            let range = PlainRange::new(first, last).expect("a range");
            let reader =
                ObjectReader::<A>::multipart_range(&self.dek, &manifest, range, None).expect("a reader");
            assert_eq!(read_range(reader, object), &plaintext[to_usize(first)..=to_usize(last)]);
        }
    }

    fn sizes(&self) {
        for (n, size) in self.json["g"].as_object().expect("a map") {
            let (n, size) = (n.parse().expect("a number"), number(size));
            assert_eq!(layout::g(n), Some(size));
            assert_eq!(layout::g_inverse(size), Some(n));
        }
        for size in self.json["g_invalid"].as_array().expect("a list") {
            assert_eq!(layout::g_inverse(number(size)), None);
        }
    }

    fn names(&self) {
        let name_key = NameKey::from_slice(&bytes(&self.json, "name_key")).expect("64 bytes");
        let bucket_id = self.name.bucket_id();
        for (key, sealed) in self.json["names"].as_object().expect("a map") {
            let sealed = sealed.as_str().expect("a name");
            assert_eq!(name::seal_key(&name_key, bucket_id, key).expect("short"), sealed);
            assert_eq!(&name::open_key(&name_key, bucket_id, sealed).expect("authentic"), key);
        }
    }

    fn epoch_record(&self) {
        let vector = &self.json["epoch"];
        let keyset_id = KeysetId::from_slice(&bytes(vector, "keyset_id")).expect("16 bytes");
        let gateway_id = SealerId::from_slice(&bytes(vector, "gateway_id")).expect("16 bytes");
        let secret = RootSecret::from_slice(&bytes(vector, "root_secret")).expect("32 bytes");
        let version = u32::try_from(number(&vector["version"])).expect("a version");
        let root = Root::new(secret, keyset_id, version);
        assert_eq!(hex(root.kem_seed().expose()), text(vector, "kem_seed"));
        assert_eq!(hex(root.psk(gateway_id).expose()), text(vector, "psk"));
        assert_eq!(hex(&root.public_key().expect("a key").fingerprint()), text(vector, "pk_sha256"));
        let bytes = bytes(vector, "record_hex");
        assert_eq!(bytes.len() as u64, number(&vector["record_len"]));
        let record = EpochRecord::parse(&bytes).expect("a record");
        assert_eq!(record.to_bytes(), bytes);
        assert_eq!(hex(record.wek_commit()), text(vector, "commit"));
        assert_eq!(record.header().gateway_id, gateway_id);
        assert_eq!(record.open(&root).expect("opens").expose(), self.wek.expose());
    }
}

fn read_range<A: SegmentAead>(mut reader: ObjectReader<A>, object: &[u8]) -> Vec<u8> {
    let range = reader.cipher_range();
    let mut out = Vec::new();
    for piece in object[to_usize(range.first)..=to_usize(range.last)].chunks(10_007) {
        reader.push(piece, &mut out).expect("authentic");
    }
    reader.finish().expect("complete");
    out
}
