// The AWS SDK for JavaScript v3: commands, lib-storage's Upload, presigned URLs.
// Prints PASS<TAB>step or FAIL<TAB>step<TAB>reason; settings as in tests/e2e/harness.py.

import { Buffer } from "node:buffer";
import { createReadStream, readFileSync } from "node:fs";
import { join } from "node:path";
import * as sdk from "@aws-sdk/client-s3";
import { Upload } from "@aws-sdk/lib-storage";
import { getSignedUrl } from "@aws-sdk/s3-request-presigner";

const env = process.env;
const Bucket = env.CLAVIGER_E2E_BUCKET;
const s3 = new sdk.S3Client({
  endpoint: env.AWS_ENDPOINT_URL,
  region: env.AWS_REGION,
  forcePathStyle: true,
  maxAttempts: 2,
  credentials: { accessKeyId: env.AWS_ACCESS_KEY_ID, secretAccessKey: env.AWS_SECRET_ACCESS_KEY },
});

const path = (name) => join(env.CLAVIGER_E2E_DATA, `${name}.bin`);
const data = (name) => readFileSync(path(name));

async function step(name, run) {
  if (env.CLAVIGER_E2E_ONLY && !new RegExp(env.CLAVIGER_E2E_ONLY).test(name)) return;
  try {
    await run();
    console.log(`PASS\t${name}`);
  } catch (error) {
    console.log(`FAIL\t${name}\t${`${error.name}: ${error.message}`.replace(/\s+/g, " ").slice(0, 400)}`);
  }
}

function same(got, want, what) {
  const equal = Buffer.isBuffer(want) ? Buffer.compare(got, want) === 0 : got === want;
  if (!equal) {
    const show = (value) => (Buffer.isBuffer(value) ? `${value.length} bytes` : JSON.stringify(value));
    throw new Error(`${what} is ${show(got)}, not ${show(want)}`);
  }
}

async function refused(code, command) {
  try {
    await s3.send(command);
  } catch (error) {
    if (error.name !== code && error.$metadata?.httpStatusCode !== code) throw error;
    return;
  }
  throw new Error(`went through; expected ${code}`);
}

const put = (Key, Body, more = {}) => s3.send(new sdk.PutObjectCommand({ Bucket, Key, Body, ...more }));
const head = (Key) => s3.send(new sdk.HeadObjectCommand({ Bucket, Key }));
async function get(Key, more = {}) {
  const answer = await s3.send(new sdk.GetObjectCommand({ Bucket, Key, ...more }));
  return Buffer.from(await answer.Body.transformToByteArray());
}

await step("CreateBucket and ListBuckets", async () => {
  await s3.send(new sdk.CreateBucketCommand({ Bucket }));
  const { Buckets } = await s3.send(new sdk.ListBucketsCommand({}));
  same(Buckets.some((bucket) => bucket.Name === Bucket), true, "listed");
});

await step("small and empty, with metadata", async () => {
  await put("small", data("small"), { ContentType: env.CLAVIGER_E2E_TYPE, Metadata: { note: env.CLAVIGER_E2E_META } });
  same(await get("small"), data("small"), "body");
  const answer = await head("small");
  same(answer.ContentType, env.CLAVIGER_E2E_TYPE, "content type");
  same(answer.Metadata.note, env.CLAVIGER_E2E_META, "metadata");
  same(answer.ContentLength, data("small").length, "length");
  await put("empty", "");
  same(await get("empty"), Buffer.alloc(0), "body");
});

await step("a stream of 20 MiB in one PUT", async () => {
  await put("stream", createReadStream(path("large")), { ContentLength: data("large").length });
  same(await get("stream"), data("large"), "body");
});

for (const ChecksumAlgorithm of ["CRC32", "CRC32C", "SHA1", "SHA256"]) {
  await step(`checksum ${ChecksumAlgorithm}`, async () => {
    await put("sum", data("medium"), { ChecksumAlgorithm });
    same(await get("sum", { ChecksumMode: "ENABLED" }), data("medium"), "body");
  });
}

await step("lib-storage Upload of 20 MiB from a stream", async () => {
  const upload = new Upload({
    client: s3,
    partSize: 5 * 1024 * 1024,
    queueSize: 3,
    params: { Bucket, Key: "large", Body: createReadStream(path("large")), Metadata: { note: env.CLAVIGER_E2E_META } },
  });
  await upload.done();
  same(await get("large"), data("large"), "body");
  same((await head("large")).Metadata.note, env.CLAVIGER_E2E_META, "metadata");
});

await step("ranges", async () => {
  const want = data("large");
  for (const [range, from, to] of [
    ["bytes=0-", 0, want.length],
    ["bytes=-7", want.length - 7, want.length],
    ["bytes=65535-65536", 65535, 65537],
    ["bytes=5242870-5242890", 5242870, 5242891],
  ]) {
    same(await get("large", { Range: range }), want.subarray(from, to), range);
  }
  await refused("InvalidRange", new sdk.GetObjectCommand({ Bucket, Key: "large", Range: `bytes=${want.length}-` }));
});

await step("copy and list with sizes", async () => {
  await s3.send(new sdk.CopyObjectCommand({ Bucket, Key: "copied ü+", CopySource: `${Bucket}/small` }));
  same(await get("copied ü+"), data("small"), "body");
  const { Contents } = await s3.send(new sdk.ListObjectsV2Command({ Bucket }));
  const sizes = Object.fromEntries(Contents.map((entry) => [entry.Key, entry.Size]));
  same(sizes["large"], data("large").length, "size of large");
  same(sizes["copied ü+"], data("small").length, "size of the copy");
  same(sizes["empty"], 0, "size of empty");
});

await step("presigned GET and PUT", async () => {
  const to = await getSignedUrl(s3, new sdk.PutObjectCommand({ Bucket, Key: "pre signed+" }), { expiresIn: 300 });
  const answer = await fetch(to, { method: "PUT", body: data("small") });
  same(answer.status, 200, `status of PUT (${(await answer.text()).slice(0, 200)})`);
  const from = await getSignedUrl(s3, new sdk.GetObjectCommand({ Bucket, Key: "pre signed+" }), { expiresIn: 300 });
  same(Buffer.from(await (await fetch(from)).arrayBuffer()), data("small"), "body");
});

await step("presigned PUT with hoisted metadata", async () => {
  const command = new sdk.PutObjectCommand({ Bucket, Key: "hoisted", Metadata: { note: env.CLAVIGER_E2E_META } });
  const url = await getSignedUrl(s3, command, { expiresIn: 300 });
  const answer = await fetch(url, { method: "PUT", body: data("small") });
  same(answer.status, 200, `status (${(await answer.text()).slice(0, 200)})`);
  same((await head("hoisted")).Metadata.note, env.CLAVIGER_E2E_META, "metadata");
});

await step("errors have their codes", async () => {
  await refused("NoSuchKey", new sdk.GetObjectCommand({ Bucket, Key: "none" }));
  await refused("NotFound", new sdk.HeadObjectCommand({ Bucket, Key: "none" }));
  await refused("NoSuchBucket", new sdk.GetObjectCommand({ Bucket: "no-such-bucket-e2e", Key: "none" }));
  await refused("BucketNotEmpty", new sdk.DeleteBucketCommand({ Bucket }));
});

await step("DeleteObjects and DeleteBucket", async () => {
  const { Contents } = await s3.send(new sdk.ListObjectsV2Command({ Bucket }));
  const Objects = Contents.map(({ Key }) => ({ Key }));
  await s3.send(new sdk.DeleteObjectsCommand({ Bucket, Delete: { Objects } }));
  await s3.send(new sdk.DeleteBucketCommand({ Bucket }));
});
