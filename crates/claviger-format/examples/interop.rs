//! Exchanges files with the second implementation in `tests/decoder`.
//!
//! `interop write DIR` seals a set of everything that the format knows; `interop open DIR` opens a set that the other
//! side wrote, and fails loudly on any difference.

use claviger_format::*;
use serde_json::{Value, json};
use sha2::{Digest, Sha256};
use std::error::Error as StdError;
use std::fs;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

type Outcome<T> = std::result::Result<T, Box<dyn StdError>>;
type Aead = RustCryptoAes256Gcm;

const PART_LEN_MIN: usize = 5 * 1024 * 1024;
const BUCKET: &str = "vault#000102030405060708090a0b0c0d0e0f";

/// Seeded: a test set needs no secrecy, and should be the same at every run.
struct Seeded(AtomicU64);

impl Random for Seeded {
    fn fill(&self, out: &mut [u8]) -> std::result::Result<(), RandomError> {
        for chunk in out.chunks_mut(32) {
            let block = Sha256::digest(self.0.fetch_add(1, Ordering::Relaxed).to_be_bytes());
            chunk.copy_from_slice(&block[..chunk.len()]);
        }
        Ok(())
    }

    fn hedge(&self) -> Hedge {
        Hedge { boot_nonce: [3; 32], counter: self.0.fetch_add(1, Ordering::Relaxed), time_ns: 1 }
    }
}

fn main() -> Outcome<()> {
    let arguments: Vec<String> = std::env::args().collect();
    match arguments.iter().map(String::as_str).collect::<Vec<_>>()[..] {
        [_, "write", dir] => Writer::new(dir)?.write(),
        [_, "open", dir] => open(Path::new(dir)),
        _ => Err("usage: interop write|open DIR".into()),
    }
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|b| format!("{b:02x}")).collect()
}

fn unhex(value: &Value) -> Outcome<Vec<u8>> {
    let text = value.as_str().ok_or("a hex text is missing")?;
    let pairs = (0..text.len()).step_by(2).map(|i| text.get(i..i + 2).ok_or("odd hex"));
    pairs.map(|pair| Ok(u8::from_str_radix(pair?, 16)?)).collect()
}

fn text(value: &Value) -> Outcome<&str> {
    Ok(value.as_str().ok_or("a text is missing")?)
}

fn check(condition: bool, what: &str) -> Outcome<()> {
    if condition { Ok(()) } else { Err(what.into()) }
}

/// The same bytes as the other side makes.
fn plaintext(len: usize, seed: usize) -> Vec<u8> {
    (0..len).map(|i| u8::try_from((i * 31 + (i >> 8) + seed) % 251).unwrap_or(0)).collect()
}

fn metadata() -> Metadata {
    Metadata {
        system: vec![
            (SystemHeader::ContentType, b"image/png".to_vec()),
            (SystemHeader::Expires, b"0".to_vec()),
        ],
        user: vec![("owner".to_owned(), b"r\xc3\xa9a".to_vec())],
        created_ms: Some(1_750_000_000_123),
        checksum: None,
    }
}

struct Writer {
    dir: std::path::PathBuf,
    rng: Seeded,
    wek: Wek,
    epoch_id: EpochId,
    objects: Vec<Value>,
}

impl Writer {
    fn new(dir: &str) -> Outcome<Self> {
        fs::create_dir_all(dir)?;
        let rng = Seeded(AtomicU64::new(1));
        let wek = Wek::generate(&rng, &[5; 32])?;
        let epoch_id = EpochId::draw(&rng)?;
        Ok(Self { dir: dir.into(), rng, wek, epoch_id, objects: Vec::new() })
    }

    fn write(mut self) -> Outcome<()> {
        for len in [0, 1, 5, 65_535, 65_536, 65_537, 200_000] {
            self.single(len)?;
        }
        self.multipart(&[(3, 0, true)])?;
        self.multipart(&[(1, PART_LEN_MIN, true), (7, 70_000, true)])?;
        self.multipart(&[(2, PART_LEN_MIN + 65_537, false), (3, PART_LEN_MIN, true), (10_000, 0, false)])?;
        let records = self.records()?;
        let tokens = self.tokens()?;
        let index = json!({
            "wek": hex(self.wek.expose()), "objects": self.objects, "records": records, "tokens": tokens,
        });
        fs::write(self.dir.join("index.json"), serde_json::to_vec_pretty(&index)?)?;
        Ok(())
    }

    fn object(&self) -> Outcome<(ObjectId, Dek, ObjectName)> {
        let object_id = ObjectId::draw(&self.rng)?;
        let key = format!("dir/ob ject {}é", self.objects.len());
        let name = ObjectName::new(BucketId::new(BUCKET)?, key)?;
        Ok((object_id, self.wek.dek(self.epoch_id, object_id), name))
    }

    fn store(
        &mut self,
        object: (ObjectId, Dek, ObjectName),
        layout: Layout,
        body: &[u8],
        text: &[u8],
    ) -> Outcome<()> {
        let (object_id, dek, name) = object;
        let max = envelope::TLV_LEN_MAX_S3;
        let metadata = metadata();
        let envelope =
            envelope::seal(&dek, self.epoch_id, object_id, &name, &layout, &metadata, max, &self.rng)?;
        let file = format!("object-{}", self.objects.len());
        fs::write(self.dir.join(&file), body)?;
        let sha256 = hex(&Sha256::digest(text));
        let bucket_id = name.bucket_id().as_str();
        self.objects.push(json!({
            "file": file, "bucket_id": bucket_id, "key": name.key(), "envelope": envelope, "sha256": sha256,
        }));
        Ok(())
    }

    fn single(&mut self, len: usize) -> Outcome<()> {
        let object = self.object()?;
        let text = plaintext(len, len);
        let length = len as u64;
        let mut writer = BodyWriter::<Aead>::begin(&object.1, self.epoch_id, object.0, length, &self.rng)?;
        let mut body = Vec::new();
        for piece in text.chunks(50_021) {
            writer.push(piece, &mut body)?;
        }
        let checksum = Checksum::full_object(Algo::Sha256, Sha256::digest(&text).to_vec())?;
        let salt = writer.finish(1_750_000_000_000, Some(checksum), &mut body)?.salt;
        self.store(object, Layout::Single { salt, length }, &body, &text)
    }

    fn multipart(&mut self, parts: &[(u16, usize, bool)]) -> Outcome<()> {
        let object = self.object()?;
        let (mut body, mut whole, mut entries) = (Vec::new(), Vec::new(), Vec::new());
        for (number, len, bound) in parts {
            let text = plaintext(*len, usize::from(*number));
            let length = text.len() as u64;
            let mut writer =
                PartWriter::<Aead>::begin(&object.1, self.epoch_id, object.0, *number, length, &self.rng)?;
            writer.push(&text, &mut body)?;
            let entry = writer.finish(&mut body)?.entry();
            entries.push(if *bound { entry } else { Entry { salt: None, crc64: None, ..entry } });
            whole.extend_from_slice(&text);
        }
        let crc64 = parts.iter().all(|part| part.2).then(|| crc64::crc64(&whole));
        let info = FooterInfo { created_ms: 9, crc64, checksum: None };
        body.extend(footer::seal(&object.1, self.epoch_id, object.0, &entries, &info, &self.rng)?);
        self.store(object, Layout::Multipart, &body, &whole)
    }

    fn records(&self) -> Outcome<Value> {
        let keyset_id = KeysetId::draw(&self.rng)?;
        let gateway_id = SealerId::draw(&self.rng)?;
        let root = Root::new(RootSecret::draw(&self.rng)?, keyset_id, 4);
        let (public_key, psk) = (root.public_key()?, root.psk(gateway_id));
        let to = SealTo { version: 4, public_key: &public_key, sealer_id: gateway_id, psk: &psk };
        let header = EpochHeader { created_ms: 7, epoch_id: self.epoch_id, gateway_id, keyset_id };
        let epoch = EpochRecord::seal(&header, &self.wek, &to, &self.rng)?;
        let name_key = NameKey::draw(&self.rng)?;
        let state = KeyVersionState::Active;
        let versions = vec![KeyVersion { version: 4, state, public_key: public_key.clone() }];
        let bucket_id = BucketId::new(BUCKET)?;
        let buckets = vec![bucket_id.clone()];
        let keyset = KeysetRecord::seal(keyset_id, versions, buckets, &name_key, &[&root], &self.rng)?;
        let mut names = serde_json::Map::new();
        for key in ["a", "a/b", "a//b/", "über/straße/…", "/x"] {
            names.insert(key.to_owned(), name::seal_key(&name_key, &bucket_id, key)?.into());
        }
        Ok(json!({
            "root": hex(root.secret().expose()), "keyset_id": keyset_id.to_string(), "version": 4,
            "epoch_record": hex(&epoch.to_bytes()), "keyset_record": hex(&keyset.to_bytes()?),
            "name_key": hex(name_key.expose()), "bucket_id": BUCKET, "names": names,
        }))
    }

    fn tokens(&self) -> Outcome<Value> {
        let (object_id, dek, name) = self.object()?;
        let fields = UploadFields {
            epoch_id: self.epoch_id,
            object_id,
            expires_ms: 77,
            checksum: Some((Algo::Crc64Nvme, Some(ChecksumType::FullObject))),
            upstream_upload_id: "upstream~id-1".to_owned(),
        };
        let upload = UploadToken::issue(&dek.upload_key(), fields, &name)?.to_text();
        let part = PartState { number: 12, length: 34, salt: Salt::draw(&self.rng)?, crc64: 56 };
        let state = PartTagState { held: true, part, checksum: Some((Algo::Crc32c, vec![1, 2, 3, 4])) };
        let part_tag = PartTag::issue(&dek.etag_key(), "0123456789abcdef", state)?.to_text();
        Ok(json!({
            "object_id": object_id.to_string(), "epoch_id": self.epoch_id.to_string(), "bucket_id": BUCKET,
            "key": name.key(), "upload": upload, "upstream_id": "upstream~id-1", "expires_ms": 77,
            "part_tag": part_tag, "number": 12, "length": 34, "crc64": 56, "salt": part.salt.to_string(),
        }))
    }
}

fn open(dir: &Path) -> Outcome<()> {
    let index: Value = serde_json::from_slice(&fs::read(dir.join("index.json"))?)?;
    let wek = open_records(&index["records"])?;
    check(wek.expose()[..] == unhex(&index["wek"])?, "the epoch record holds another key")?;
    let objects = index["objects"].as_array().ok_or("objects are missing")?;
    check(objects.len() >= 8, "too few objects")?;
    for object in objects {
        open_object(dir, &wek, object).map_err(|error| format!("{object}: {error}"))?;
    }
    open_tokens(&wek, &index["tokens"])
}

fn open_object(dir: &Path, wek: &Wek, object: &Value) -> Outcome<()> {
    let body = fs::read(dir.join(text(&object["file"])?))?;
    let name = ObjectName::new(BucketId::new(text(&object["bucket_id"])?)?, text(&object["key"])?)?;
    let envelope = Envelope::parse(text(&object["envelope"])?)?;
    let dek = wek.dek(envelope.epoch_id(), envelope.object_id());
    let envelope = envelope.open(&dek, &name)?;
    check(envelope.metadata == metadata(), "metadata differs")?;
    let size = body.len() as u64;
    let suffix = &body[body.len() - body.len().min(65_536)..];
    let FooterRead::Verified(manifest) =
        footer::open(&dek, envelope.epoch_id, envelope.object_id, suffix, size)?
    else {
        return Err("the footer is longer than expected".into());
    };
    let mut reader = match envelope.layout {
        Layout::Single { .. } => ObjectReader::<Aead>::single(&dek, &envelope, size)?,
        Layout::Multipart => ObjectReader::multipart(&dek, &Arc::new(manifest))?,
    };
    let mut plaintext = Vec::new();
    for piece in body.chunks(70_001) {
        reader.push(piece, &mut plaintext)?;
    }
    reader.finish()?;
    check(hex(&Sha256::digest(&plaintext)) == text(&object["sha256"])?, "plaintext differs")
}

fn open_records(records: &Value) -> Outcome<Wek> {
    let keyset_id: KeysetId = text(&records["keyset_id"])?.parse()?;
    let version = u32::try_from(records["version"].as_u64().ok_or("no version")?)?;
    let root = Root::new(RootSecret::from_slice(&unhex(&records["root"])?)?, keyset_id, version);
    let name_key = KeysetRecord::parse(&unhex(&records["keyset_record"])?)?.open(&root)?;
    check(name_key.expose()[..] == unhex(&records["name_key"])?, "name key differs")?;
    let bucket_id = BucketId::new(text(&records["bucket_id"])?)?;
    for (key, sealed) in records["names"].as_object().ok_or("no names")? {
        check(&name::open_key(&name_key, &bucket_id, text(sealed)?)? == key, "name differs")?;
    }
    Ok(EpochRecord::parse(&unhex(&records["epoch_record"])?)?.open(&root)?)
}

fn open_tokens(wek: &Wek, tokens: &Value) -> Outcome<()> {
    let object_id: ObjectId = text(&tokens["object_id"])?.parse()?;
    let name = ObjectName::new(BucketId::new(text(&tokens["bucket_id"])?)?, text(&tokens["key"])?)?;
    let dek = wek.dek(text(&tokens["epoch_id"])?.parse()?, object_id);
    let upload = UploadToken::parse(text(&tokens["upload"])?)?;
    upload.verify(&dek.upload_key(), &name)?;
    let fields = upload.fields();
    check(fields.object_id == object_id, "object id differs")?;
    check(fields.upstream_upload_id == text(&tokens["upstream_id"])?, "upstream id differs")?;
    check(Some(fields.expires_ms) == tokens["expires_ms"].as_u64(), "expiry differs")?;
    let tag = PartTag::parse(text(&tokens["part_tag"])?)?;
    let part = tag.verify(&dek.etag_key())?.ok_or("a bare tag")?.part;
    check(Some(u64::from(part.number)) == tokens["number"].as_u64(), "number differs")?;
    check(Some(part.length) == tokens["length"].as_u64(), "length differs")?;
    check(Some(part.crc64) == tokens["crc64"].as_u64(), "crc differs")?;
    check(part.salt.to_string() == text(&tokens["salt"])?, "salt differs")
}
