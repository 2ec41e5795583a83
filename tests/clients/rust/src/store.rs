//! object_store.

use futures_util::TryStreamExt as _;
use object_store::aws::{AmazonS3, AmazonS3Builder, S3ConditionalPut};
use object_store::path::Path;
use object_store::{
    Attribute, Attributes, GetOptions, GetRange, ObjectStore, ObjectStoreExt as _, PutMode, PutOptions,
    WriteMultipart,
};

use crate::{Outcome, Settings, report, same};

pub async fn run(settings: &Settings) {
    let s = settings;
    let store = match open(s) {
        Ok(store) => store,
        Err(error) => return report("open", Err(error)),
    };
    report("put and get small", small(&store, s).await);
    report("put and get empty", empty(&store).await);
    report("multipart 20 MiB", multipart(&store, s).await);
    report("ranges", ranges(&store, s).await);
    report("list with sizes", list(&store, s).await);
    report("copy and rename", copy(&store, s).await);
    report("create only if absent", create_only(&store).await);
    report("delete", delete(&store).await);
}

fn open(s: &Settings) -> Result<AmazonS3, Box<dyn std::error::Error>> {
    Ok(AmazonS3Builder::new()
        .with_endpoint(&s.endpoint)
        .with_allow_http(true)
        .with_region(&s.region)
        .with_access_key_id(&s.access_key)
        .with_secret_access_key(&s.secret_key)
        .with_bucket_name(&s.bucket)
        .with_conditional_put(S3ConditionalPut::ETagMatch)
        .build()?)
}

async fn fetch(store: &AmazonS3, key: &str) -> Result<Vec<u8>, Box<dyn std::error::Error>> {
    Ok(store.get(&Path::from(key)).await?.bytes().await?.to_vec())
}

async fn small(store: &AmazonS3, s: &Settings) -> Outcome {
    let mut attributes = Attributes::new();
    attributes.insert(Attribute::ContentType, s.content_type.clone().into());
    attributes.insert(Attribute::Metadata("note".into()), s.meta.clone().into());
    let options = PutOptions { attributes, ..PutOptions::default() };
    store.put_opts(&Path::from("os/small"), s.bytes("small.bin").into(), options).await?;
    let got = store.get(&Path::from("os/small")).await?;
    let note = got.attributes.get(&Attribute::Metadata("note".into())).map(|value| value.to_string());
    same("the metadata", note, Some(s.meta.clone()))?;
    let content_type = got.attributes.get(&Attribute::ContentType).map(|value| value.to_string());
    same("the content type", content_type, Some(s.content_type.clone()))?;
    same("the body", got.bytes().await?.to_vec(), s.bytes("small.bin"))
}

async fn empty(store: &AmazonS3) -> Outcome {
    store.put(&Path::from("os/empty"), Vec::new().into()).await?;
    same("the body", fetch(store, "os/empty").await?, Vec::new())
}

async fn multipart(store: &AmazonS3, s: &Settings) -> Outcome {
    let want = s.bytes("large.bin");
    let upload = store.put_multipart(&Path::from("os/large")).await?;
    let mut writer = WriteMultipart::new_with_chunk_size(upload, 5 * 1024 * 1024);
    for piece in want.chunks(1_000_003) {
        writer.write(piece);
    }
    writer.finish().await?;
    same("the body", fetch(store, "os/large").await?, want)
}

async fn ranges(store: &AmazonS3, s: &Settings) -> Outcome {
    let want = s.bytes("large.bin");
    let path = Path::from("os/large");
    let several = store.get_ranges(&path, &[0..10, 65_530..65_550, 20_000_000..20_000_001]).await?;
    same("the first range", several[0].to_vec(), want[0..10].to_vec())?;
    same("the second range", several[1].to_vec(), want[65_530..65_550].to_vec())?;
    same("the third range", several[2].to_vec(), want[20_000_000..20_000_001].to_vec())?;
    let suffix = GetOptions { range: Some(GetRange::Suffix(100)), ..GetOptions::default() };
    let got = store.get_opts(&path, suffix).await?.bytes().await?;
    same("the suffix", got.to_vec(), want[want.len() - 100..].to_vec())
}

async fn list(store: &AmazonS3, s: &Settings) -> Outcome {
    let found: Vec<_> = store.list(Some(&Path::from("os"))).try_collect().await?;
    let size = |name: &str| found.iter().find(|meta| meta.location == Path::from(name)).map(|meta| meta.size);
    same("the size of small", size("os/small"), Some(s.bytes("small.bin").len() as u64))?;
    same("the size of large", size("os/large"), Some(s.bytes("large.bin").len() as u64))?;
    same("the size of empty", size("os/empty"), Some(0))
}

async fn copy(store: &AmazonS3, s: &Settings) -> Outcome {
    store.copy(&Path::from("os/small"), &Path::from("os/copied")).await?;
    store.rename(&Path::from("os/copied"), &Path::from("os/renamed")).await?;
    same("the body", fetch(store, "os/renamed").await?, s.bytes("small.bin"))
}

async fn create_only(store: &AmazonS3) -> Outcome {
    let path = Path::from("os/once");
    let create = || {
        let options = PutOptions { mode: PutMode::Create, ..PutOptions::default() };
        store.put_opts(&path, b"first".to_vec().into(), options)
    };
    create().await?;
    match create().await {
        Err(object_store::Error::AlreadyExists { .. }) => Ok(()),
        other => Err(format!("{other:?}").into()),
    }
}

async fn delete(store: &AmazonS3) -> Outcome {
    let found: Vec<_> = store.list(Some(&Path::from("os"))).try_collect().await?;
    for meta in found {
        store.delete(&meta.location).await?;
    }
    let left: Vec<_> = store.list(Some(&Path::from("os"))).try_collect().await?;
    same("what is left", left.len(), 0)
}
