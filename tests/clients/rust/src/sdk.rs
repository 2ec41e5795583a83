//! aws-sdk-s3.

use aws_sdk_s3::Client;
use aws_sdk_s3::config::{BehaviorVersion, Credentials, Region};
use aws_sdk_s3::primitives::ByteStream;
use aws_sdk_s3::types::{
    ChecksumAlgorithm, ChecksumMode, CompletedMultipartUpload, CompletedPart, Delete, ObjectIdentifier,
};

use crate::{Outcome, Settings, report, same};

pub async fn run(settings: &Settings) {
    let client = client(settings);
    let s = settings;
    report("put small from memory", put_small(&client, s).await);
    report("put empty", put_empty(&client, s).await);
    for algorithm in [
        ChecksumAlgorithm::Crc32,
        ChecksumAlgorithm::Crc32C,
        ChecksumAlgorithm::Crc64Nvme,
        ChecksumAlgorithm::Sha1,
        ChecksumAlgorithm::Sha256,
    ] {
        let step = format!("put 20 MiB from a file, signed trailer {}", algorithm.as_str());
        report(&step, put_file(&client, s, algorithm).await);
    }
    report("ranges", ranges(&client, s).await);
    report("multipart from files", multipart(&client, s).await);
    report("copy", copy(&client, s).await);
    report("create only if absent", create_only(&client, s).await);
    report("list", list(&client, s).await);
    report("delete", delete(&client, s).await);
}

fn client(settings: &Settings) -> Client {
    let credentials = Credentials::new(&settings.access_key, &settings.secret_key, None, None, "suite");
    let config = aws_sdk_s3::Config::builder()
        .behavior_version(BehaviorVersion::latest())
        .region(Region::new(settings.region.clone()))
        .endpoint_url(&settings.endpoint)
        .force_path_style(true)
        .credentials_provider(credentials)
        .http_client(aws_smithy_http_client::Builder::new().build_http())
        .build();
    Client::from_conf(config)
}

async fn fetch(
    client: &Client,
    s: &Settings,
    key: &str,
    range: Option<&str>,
) -> Result<Vec<u8>, Box<dyn std::error::Error>> {
    let request = client.get_object().bucket(&s.bucket).key(key).set_range(range.map(ToOwned::to_owned));
    let answer = request.checksum_mode(ChecksumMode::Enabled).send().await?;
    Ok(answer.body.collect().await?.to_vec())
}

async fn put_small(client: &Client, s: &Settings) -> Outcome {
    let body = s.bytes("small.bin");
    let request = client.put_object().bucket(&s.bucket).key("sdk/small").body(ByteStream::from(body.clone()));
    request.content_type(&s.content_type).metadata("note", &s.meta).send().await?;
    same("the body", fetch(client, s, "sdk/small", None).await?, body.clone())?;
    let head = client.head_object().bucket(&s.bucket).key("sdk/small").send().await?;
    same("the content type", head.content_type(), Some(s.content_type.as_str()))?;
    same("the metadata", head.metadata().and_then(|m| m.get("note")), Some(&s.meta))?;
    same("the size", head.content_length(), Some(body.len() as i64))
}

async fn put_empty(client: &Client, s: &Settings) -> Outcome {
    client.put_object().bucket(&s.bucket).key("sdk/empty").body(ByteStream::from_static(b"")).send().await?;
    same("the body", fetch(client, s, "sdk/empty", None).await?, Vec::new())
}

async fn put_file(client: &Client, s: &Settings, algorithm: ChecksumAlgorithm) -> Outcome {
    let key = format!("sdk/large-{}", algorithm.as_str());
    let body = ByteStream::from_path(s.file("large.bin")).await?;
    client.put_object().bucket(&s.bucket).key(&key).body(body).checksum_algorithm(algorithm).send().await?;
    same("the body", fetch(client, s, &key, None).await?, s.bytes("large.bin"))
}

async fn ranges(client: &Client, s: &Settings) -> Outcome {
    let want = s.bytes("large.bin");
    let n = want.len();
    for (range, from, to) in [
        ("bytes=0-", 0, n),
        ("bytes=0-0", 0, 1),
        ("bytes=65535-65536", 65_535, 65_537),
        ("bytes=1000000-9999999", 1_000_000, 10_000_000),
        ("bytes=-17", n - 17, n),
        ("bytes=20000000-99999999", 20_000_000, n),
    ] {
        same(range, fetch(client, s, "sdk/large-CRC32", Some(range)).await?, want[from..to].to_vec())?;
    }
    let beyond = client
        .get_object()
        .bucket(&s.bucket)
        .key("sdk/large-CRC32")
        .range(format!("bytes={n}-"))
        .send()
        .await;
    same(
        "the status beyond the end",
        beyond.err().and_then(|e| e.raw_response().map(|r| r.status().as_u16())),
        Some(416),
    )
}

async fn multipart(client: &Client, s: &Settings) -> Outcome {
    let key = "sdk/multipart";
    let created = client
        .create_multipart_upload()
        .bucket(&s.bucket)
        .key(key)
        .content_type(&s.content_type)
        .metadata("note", &s.meta)
        .checksum_algorithm(ChecksumAlgorithm::Crc32)
        .send()
        .await?;
    let id = created.upload_id().ok_or("no upload id")?;
    let mut completed = Vec::new();
    let mut want = Vec::new();
    for (number, name) in [(1, "part1.bin"), (2, "part2.bin"), (5, "small.bin")] {
        let body = ByteStream::from_path(s.file(name)).await?;
        let part = client.upload_part().bucket(&s.bucket).key(key).upload_id(id).part_number(number);
        let part = part.body(body).checksum_algorithm(ChecksumAlgorithm::Crc32).send().await?;
        completed.push(
            CompletedPart::builder()
                .part_number(number)
                .set_e_tag(part.e_tag().map(ToOwned::to_owned))
                .set_checksum_crc32(part.checksum_crc32().map(ToOwned::to_owned))
                .build(),
        );
        want.extend(s.bytes(name));
    }
    let upload = CompletedMultipartUpload::builder().set_parts(Some(completed)).build();
    client
        .complete_multipart_upload()
        .bucket(&s.bucket)
        .key(key)
        .upload_id(id)
        .multipart_upload(upload)
        .send()
        .await?;
    same("the body", fetch(client, s, key, None).await?, want.clone())?;
    let head = client.head_object().bucket(&s.bucket).key(key).send().await?;
    same("the size", head.content_length(), Some(want.len() as i64))?;
    same("the metadata", head.metadata().and_then(|m| m.get("note")), Some(&s.meta))
}

async fn copy(client: &Client, s: &Settings) -> Outcome {
    let source = format!("{}/sdk/small", s.bucket);
    client.copy_object().bucket(&s.bucket).key("sdk/copied").copy_source(source).send().await?;
    same("the body", fetch(client, s, "sdk/copied", None).await?, s.bytes("small.bin"))
}

async fn create_only(client: &Client, s: &Settings) -> Outcome {
    let put = || {
        let body = ByteStream::from_static(b"first");
        client.put_object().bucket(&s.bucket).key("sdk/once").if_none_match("*").body(body).send()
    };
    put().await?;
    same(
        "the status",
        put().await.err().and_then(|e| e.raw_response().map(|r| r.status().as_u16())),
        Some(412),
    )
}

async fn list(client: &Client, s: &Settings) -> Outcome {
    let page = client.list_objects_v2().bucket(&s.bucket).prefix("sdk/").send().await?;
    let found =
        page.contents().iter().find(|object| object.key() == Some("sdk/large-CRC32")).ok_or("not listed")?;
    same("the listed size", found.size(), Some(s.bytes("large.bin").len() as i64))
}

async fn delete(client: &Client, s: &Settings) -> Outcome {
    let page = client.list_objects_v2().bucket(&s.bucket).prefix("sdk/").send().await?;
    let named = page.contents().iter().filter_map(|object| object.key());
    let named: Result<Vec<_>, _> = named.map(|key| ObjectIdentifier::builder().key(key).build()).collect();
    let delete = Delete::builder().set_objects(Some(named?)).build()?;
    client.delete_objects().bucket(&s.bucket).delete(delete).send().await?;
    let left = client.list_objects_v2().bucket(&s.bucket).prefix("sdk/").send().await?;
    same("what is left", left.contents().len(), 0)
}
