//! Known answers of our own, made by the second implementation (tests/decoder): tokens, records with two recipients,
//! a full envelope, a composite checksum, range mapping. And the guard that no vector ever changes.
#![allow(missing_docs, clippy::unwrap_used, reason = "a test fails by panicking")]

use claviger_format::layout::covering_single;
use claviger_format::*;
use serde_json::Value;
use sha2::{Digest, Sha256};

const EXTRA: &str = include_str!("../../../tests/vectors/clv1-extra.json");

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|b| format!("{b:02x}")).collect()
}

fn bytes(value: &Value) -> Vec<u8> {
    let text = value.as_str().unwrap();
    (0..text.len()).step_by(2).map(|i| u8::from_str_radix(&text[i..i + 2], 16).unwrap()).collect()
}

fn int(value: &Value) -> u64 {
    value.as_u64().unwrap()
}

fn crc(value: &Value) -> Option<u64> {
    value.as_str().map(|text| u64::from_str_radix(text, 16).unwrap())
}

fn salt(value: &Value) -> Salt {
    Salt::from_slice(&bytes(value)).unwrap()
}

struct Extra {
    json: Value,
    wek: Wek,
    dek: Dek,
    epoch_id: EpochId,
    object_id: ObjectId,
    name: ObjectName,
}

fn extra() -> Extra {
    let json: Value = serde_json::from_str(EXTRA).unwrap();
    let wek = Wek::from_slice(&bytes(&json["wek"])).unwrap();
    let epoch_id = EpochId::from_slice(&bytes(&json["epoch_id"])).unwrap();
    let object_id = ObjectId::from_slice(&bytes(&json["object_id"])).unwrap();
    let bucket_id = BucketId::new(json["bucket_id"].as_str().unwrap()).unwrap();
    let name = ObjectName::new(bucket_id, json["key"].as_str().unwrap()).unwrap();
    let dek = wek.dek(epoch_id, object_id);
    Extra { json, wek, dek, epoch_id, object_id, name }
}

#[test]
fn the_vectors_have_not_changed_since_they_were_frozen() {
    let main = Sha256::digest(include_bytes!("../../../tests/vectors/clv1.json"));
    assert_eq!(hex(&main), "d511bf001fae6f5ace3fe2e97c5e73e618dc904f19389d64bb45dd31b5523daf");
    assert_eq!(
        hex(&Sha256::digest(EXTRA)),
        "a4bd095ebe4b006bd4b6866dd4f1b75295b7d7eba3631574d0ab91ab46bc955d"
    );
}

/// Gives the bytes of a vector where the operating system would give random ones.
struct Scripted {
    entropy: Vec<u8>,
    hedge: Hedge,
}

impl Random for Scripted {
    fn fill(&self, out: &mut [u8]) -> Result<(), RandomError> {
        out.copy_from_slice(&self.entropy);
        Ok(())
    }

    fn hedge(&self) -> Hedge {
        self.hedge
    }
}

#[test]
fn salts_and_epoch_keys_are_drawn_as_specified() {
    let json = extra().json;
    let vector = &json["hedged_salt"];
    let hedge = Hedge {
        boot_nonce: bytes(&vector["boot_nonce"]).try_into().unwrap(),
        counter: int(&vector["counter"]),
        time_ns: int(&vector["time_ns"]),
    };
    let rng = Scripted { entropy: bytes(&vector["entropy"]), hedge };
    assert_eq!(Salt::draw(&rng).unwrap(), salt(&vector["salt"]));
    let seed = bytes(&json["fresh_wek"]["seed"]).try_into().unwrap();
    let wek = Wek::generate(&rng, &seed).unwrap();
    assert_eq!(wek.expose()[..], bytes(&json["fresh_wek"]["wek"]));
}

#[test]
fn upload_tokens_are_the_known_ones() {
    let Extra { json, dek, epoch_id, object_id, name, .. } = extra();
    for vector in json["tokens"]["uploads"].as_array().unwrap() {
        let algo = Algo::from_code(u8::try_from(int(&vector["algo"])).unwrap()).ok();
        let ty = ChecksumType::from_code(u8::try_from(int(&vector["type"])).unwrap()).ok();
        let fields = UploadFields {
            epoch_id,
            object_id,
            expires_ms: int(&vector["expires_ms"]),
            checksum: algo.map(|algo| (algo, ty)),
            upstream_upload_id: vector["upstream_id"].as_str().unwrap().to_owned(),
        };
        let text = vector["text"].as_str().unwrap();
        let parsed = UploadToken::parse(text).unwrap();
        assert_eq!(parsed.fields(), &fields);
        parsed.verify(&dek.upload_key(), &name).unwrap();
        assert_eq!(UploadToken::issue(&dek.upload_key(), fields, &name).unwrap().to_text(), text);
    }
}

#[test]
fn part_etags_are_the_known_ones() {
    let Extra { json, dek, .. } = extra();
    for vector in json["tokens"]["part_tags"].as_array().unwrap() {
        let algo = Algo::from_code(u8::try_from(int(&vector["algo"])).unwrap()).ok();
        let part = PartState {
            number: u16::try_from(int(&vector["number"])).unwrap(),
            length: int(&vector["length"]),
            salt: salt(&vector["salt"]),
            crc64: crc(&vector["crc64"]).unwrap(),
        };
        let held = vector["held"].as_bool().unwrap();
        let state = PartTagState { held, part, checksum: algo.map(|algo| (algo, bytes(&vector["value"]))) };
        let (etag, text) = (vector["upstream_etag"].as_str().unwrap(), vector["text"].as_str().unwrap());
        assert_eq!(PartTag::parse(text).unwrap().verify(&dek.etag_key()).unwrap(), Some(&state));
        assert_eq!(PartTag::issue(&dek.etag_key(), etag, state).unwrap().to_text(), text);
    }
}

#[test]
fn records_with_two_recipients_open_under_both_roots() {
    let Extra { json, wek, epoch_id, .. } = extra();
    let vector = &json["records"];
    let keyset_id = KeysetId::from_slice(&bytes(&vector["keyset_id"])).unwrap();
    let gateway_id = SealerId::from_slice(&bytes(&vector["gateway_id"])).unwrap();
    let epoch = EpochRecord::parse(&bytes(&vector["epoch_record"])).unwrap();
    let header = EpochHeader { created_ms: int(&vector["created_ms"]), epoch_id, gateway_id, keyset_id };
    assert_eq!(epoch.header(), &header);
    assert_eq!(epoch.wek_commit()[..], bytes(&vector["wek_commit"]));
    assert_eq!(wek_commit(&wek, &header)[..], bytes(&vector["wek_commit"]));
    let sealers: Vec<_> = epoch.recipients().collect();
    assert_eq!(sealers, [(1, gateway_id), (2, SealerId::KEY_SERVICE)]);
    let keyset = KeysetRecord::parse(&bytes(&vector["keyset_record"])).unwrap();
    assert_eq!(keyset.to_bytes().unwrap(), bytes(&vector["keyset_record"]));
    let states: Vec<u64> = keyset.versions().iter().map(|version| version.state as u64).collect();
    assert_eq!(Value::from(states), vector["states"]);
    let buckets: Vec<&str> = keyset.bucket_ids().iter().map(BucketId::as_str).collect();
    assert_eq!(Value::from(buckets), vector["bucket_ids"]);
    for root in vector["roots"].as_array().unwrap() {
        let secret = RootSecret::from_slice(&bytes(&root["secret"])).unwrap();
        let root = Root::new(secret, keyset_id, u32::try_from(int(&root["version"])).unwrap());
        assert_eq!(epoch.open(&root).unwrap().expose(), wek.expose());
        assert_eq!(keyset.open(&root).unwrap().expose()[..], bytes(&vector["name_key"]));
    }
}

#[test]
fn an_envelope_with_every_field_opens() {
    let Extra { json, dek, name, .. } = extra();
    let vector = &json["envelope"];
    let envelope = Envelope::parse(vector["text"].as_str().unwrap()).unwrap();
    let opened = envelope.open(&dek, &name).unwrap();
    let layout = Layout::Single { salt: salt(&vector["body_salt"]), length: int(&vector["length"]) };
    let text = |text: &str| text.as_bytes().to_vec();
    let metadata = Metadata {
        system: vec![
            (SystemHeader::ContentType, text("text/plain")),
            (SystemHeader::ContentDisposition, text("attachment; filename=x")),
            (SystemHeader::WebsiteRedirect, text("/elsewhere")),
        ],
        user: vec![
            ("colour".to_owned(), text("blue")),
            ("empty".to_owned(), vec![]),
            ("latin".to_owned(), vec![0xe9]),
        ],
        created_ms: Some(1_750_000_000_000),
        checksum: Some(Checksum::full_object(Algo::Sha256, (0..32).collect::<Vec<u8>>()).unwrap()),
    };
    assert_eq!((opened.layout, &opened.metadata), (layout, &metadata));
    let header = UnitHeader::parse(&envelope.header_bytes()).unwrap();
    let keys = envelope::verify_binding(&envelope.header_bytes(), &dek, &name).unwrap();
    let grant = UnitGrant::new(header.context, keys).unwrap();
    let sealed = envelope::seal_granted(grant, &layout, &metadata).unwrap();
    assert_eq!(sealed, vector["text"].as_str().unwrap(), "byte for byte");
}

fn manifest(extra: &Extra) -> Manifest {
    let vector = &extra.json["footer"];
    let footer = bytes(&vector["hex_without_pad"]);
    let lengths = vector["entries"].as_array().unwrap().iter().map(|entry| int(&entry["length"]));
    let size = layout::g(lengths.sum()).unwrap();
    match footer::open(&extra.dek, extra.epoch_id, extra.object_id, &footer, size).unwrap() {
        FooterRead::Verified(manifest) => manifest,
        FooterRead::NeedMore { .. } => panic!("the vector is a whole footer"),
    }
}

#[test]
fn a_footer_with_gaps_unbound_entries_and_a_composite_checksum_opens() {
    let extra = extra();
    let vector = &extra.json["footer"];
    let manifest = manifest(&extra);
    let value = bytes(&vector["composite_value"]);
    let parts = u32::try_from(int(&vector["composite_parts"])).unwrap();
    let checksum = Some(Checksum::composite(Algo::Sha256, value, parts).unwrap());
    assert_eq!(manifest.info(), &FooterInfo { created_ms: 1_750_000_000_000, crc64: None, checksum });
    assert_eq!(manifest.footer_len(), int(&vector["footer_len"]));
    for (entry, known) in manifest.entries().iter().zip(vector["entries"].as_array().unwrap()) {
        let known = Entry {
            number: u16::try_from(int(&known["number"])).unwrap(),
            length: int(&known["length"]),
            salt: known["salt"].as_str().map(|_| salt(&known["salt"])),
            crc64: crc(&known["crc64"]),
        };
        assert_eq!(entry, &known);
    }
    assert_eq!(manifest.entries().len(), vector["entries"].as_array().unwrap().len());
}

#[test]
fn ranges_map_to_the_known_ciphertext() {
    let extra = extra();
    for row in extra.json["ranges"]["single"].as_array().unwrap() {
        let [n, first, last, from, to] = [0, 1, 2, 3, 4].map(|i| int(&row[i]));
        let covering = covering_single(n, PlainRange::new(first, last).unwrap()).unwrap();
        assert_eq!((covering.first, covering.last), (from, to), "{first}-{last} of {n}");
    }
    let manifest = manifest(&extra);
    for row in extra.json["ranges"]["multipart"].as_array().unwrap() {
        let [first, last, from, to] = [0, 1, 2, 3].map(|i| int(&row[i]));
        let covering = manifest.covering(PlainRange::new(first, last).unwrap()).unwrap();
        assert_eq!((covering.data.first, covering.data.last), (from, to), "{first}-{last}");
        let header = covering.first_header.map(|range| {
            assert_eq!(range.len(), 96);
            range.first
        });
        assert_eq!(header, row[4].as_u64(), "{first}-{last}");
    }
    assert!(PlainRange::new(2, 1).is_err());
    assert!(covering_single(10, PlainRange::new(0, 10).unwrap()).is_err());
    assert!(manifest.covering(PlainRange::new(0, manifest.length()).unwrap()).is_err());
}
