"""boto3: the widest suite; everything that S3's own SDK can say."""

import base64
import concurrent.futures
import io
import sys
import time
import urllib.error
import urllib.request
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

import boto3
import botocore.client
import botocore.exceptions
from boto3.s3.transfer import TransferConfig

import canary
from canary import data
from harness import Suite, same

suite = Suite("boto3")
step = suite.step
BUCKET = suite.bucket
S3_OPTIONS = {"addressing_style": "path"}


def client(**config):
    return boto3.client(
        "s3", endpoint_url=suite.endpoint, region_name=suite.region,
        aws_access_key_id=suite.access_key, aws_secret_access_key=suite.secret_key,
        config=botocore.client.Config(
            signature_version="s3v4", s3=S3_OPTIONS, retries={"max_attempts": 2, "mode": "standard"},
            read_timeout=60, max_pool_connections=32, **config,
        ),
    )


# Against a store that can't take trailers, its own comparison run turns the SDK's default checksums off.
s3 = client()


def get(key, **arguments):
    return s3.get_object(Bucket=BUCKET, Key=key, **arguments)["Body"].read()


def put(key, body, **arguments):
    return s3.put_object(Bucket=BUCKET, Key=key, Body=body, **arguments)


def head(key, **arguments):
    return s3.head_object(Bucket=BUCKET, Key=key, **arguments)


def refused(code, function, *arguments, **named):
    """The call has to fail with this error code, or this status where the answer has no body."""
    try:
        function(*arguments, **named)
    except botocore.exceptions.ClientError as error:
        got, status = error.response["Error"]["Code"], error.response["ResponseMetadata"]["HTTPStatusCode"]
        codes = code if isinstance(code, (tuple, list)) else (code,)
        if got not in codes and status not in codes:
            raise AssertionError(f"refused with {got} ({status}), not {code}")
        return error.response
    raise AssertionError(f"went through; expected {code}")


def listed(prefix):
    pages = s3.get_paginator("list_objects_v2").paginate(Bucket=BUCKET, Prefix=prefix)
    return {entry["Key"]: entry for page in pages for entry in page.get("Contents", [])}


def multipart(key, parts, names=None, order=None, **arguments):
    """Uploads {number: body}, in the given order; completes all; gives Complete's answer."""
    upload = s3.create_multipart_upload(Bucket=BUCKET, Key=key, **arguments)["UploadId"]
    done = {}
    for number in order or sorted(parts):
        done[number] = s3.upload_part(Bucket=BUCKET, Key=key, UploadId=upload, PartNumber=number, Body=parts[number])
    return complete(key, upload, {number: done[number]["ETag"] for number in names or sorted(parts)})


def complete(key, upload, etags, **arguments):
    parts = [{"PartNumber": number, "ETag": etag} for number, etag in sorted(etags.items())]
    return s3.complete_multipart_upload(
        Bucket=BUCKET, Key=key, UploadId=upload, MultipartUpload={"Parts": parts}, **arguments
    )


def fetch(url, method="GET", body=None, headers=None):
    request = urllib.request.Request(url, data=body, method=method, headers=headers or {})
    try:
        with urllib.request.urlopen(request, timeout=60) as answer:
            return answer.status, answer.read(), lower(answer.headers)
    except urllib.error.HTTPError as error:
        return error.code, error.read(), lower(error.headers)


def lower(headers):
    return {name.lower(): value for name, value in headers.items()}


def pages(limit=200):
    """Counts the pages of a listing, so that a store that starts over does not hold the suite up."""
    for _ in range(limit):
        yield
    raise AssertionError(f"no end after {limit} pages")


HEADERS = {
    "ContentType": canary.CONTENT_TYPE,
    "CacheControl": canary.CACHE_CONTROL,
    "ContentDisposition": canary.CONTENT_DISPOSITION,
    "ContentLanguage": canary.CONTENT_LANGUAGE,
    "ContentEncoding": canary.CONTENT_ENCODING,
    "Expires": canary.EXPIRES,
}
METADATA = {"note": canary.META, "second-note": canary.META_SECOND}


def check_headers(answer, metadata=METADATA, **headers):
    for name, value in (headers or HEADERS).items():
        got = answer.get("ExpiresString") if name == "Expires" else answer.get(name)
        same(got, value, name)
    same(answer["Metadata"], metadata, "Metadata")


# --- buckets -----------------------------------------------------------------------------------------------------------


@step("create, head, locate and list buckets")
def _():
    s3.create_bucket(Bucket=BUCKET)
    s3.head_bucket(Bucket=BUCKET)
    s3.get_bucket_location(Bucket=BUCKET)
    assert BUCKET in [bucket["Name"] for bucket in s3.list_buckets()["Buckets"]], "the bucket is not listed"


@step("an unknown bucket is NoSuchBucket")
def _():
    refused("NoSuchBucket", s3.get_object, Bucket="no-such-bucket-e2e", Key="k")
    refused("NoSuchBucket", s3.list_objects_v2, Bucket="no-such-bucket-e2e")
    refused("NoSuchBucket", s3.put_object, Bucket="no-such-bucket-e2e", Key="k", Body=b"x")
    refused(404, s3.head_bucket, Bucket="no-such-bucket-e2e")


# --- whole objects -----------------------------------------------------------------------------------------------------


@step("small object round trip, one ETag and one size everywhere")
def _():
    etag = put("small", data("small"))["ETag"]
    answer = s3.get_object(Bucket=BUCKET, Key="small")
    same(answer["Body"].read(), data("small"), "body")
    same(answer["ContentLength"], len(data("small")), "GET length")
    same(answer["ETag"], etag, "GET ETag")
    same(head("small")["ETag"], etag, "HEAD ETag")
    same(head("small")["ContentLength"], len(data("small")), "HEAD length")
    entry = listed("small")["small"]
    same((entry["ETag"], entry["Size"]), (etag, len(data("small"))), "LIST entry")


@step("empty object")
def _():
    put("empty", b"")
    same(get("empty"), b"", "body")
    same(head("empty")["ContentLength"], 0, "HEAD length")
    same(listed("empty")["empty"]["Size"], 0, "LIST size")


@step("sizes around the segment edge")
def _():
    for size in [1, 15, 16, 17, 65_535, 65_536, 65_537, 131_072, 131_073]:
        key = f"edge/{size}"
        put(key, data("medium")[:size])
        same(get(key), data("medium")[:size], f"body of {size}")
        same(head(key)["ContentLength"], size, "HEAD length")


@step("20 MiB in one PUT")
def _():
    put("large-single", data("large"))
    same(get("large-single"), data("large"), "body")


@step("overwrite shows the new bytes")
def _():
    put("again", data("small"))
    put("again", data("small2"))
    same(get("again"), data("small2"), "body")
    same(head("again")["ContentLength"], len(data("small2")), "HEAD length")


@step("a body of unseekable stream")
def _():
    class Once(io.RawIOBase):
        def __init__(self, blob):
            self.inner = io.BytesIO(blob)

        def readable(self):
            return True

        def read(self, size=-1):
            return self.inner.read(size)

    s3.upload_fileobj(Once(data("part3")), BUCKET, "unseekable")
    same(get("unseekable"), data("part3"), "body")


@step("20 MiB managed multipart up and down")
def _():
    config = TransferConfig(multipart_threshold=8 * canary.MIB, multipart_chunksize=8 * canary.MIB,
                            preferred_transfer_client="classic")
    extra = {"ContentType": canary.CONTENT_TYPE, "Metadata": METADATA}
    s3.upload_fileobj(io.BytesIO(data("large")), BUCKET, "large", ExtraArgs=extra, Config=config)
    # The download makes ranged requests with If-Match.
    into = io.BytesIO()
    s3.download_fileobj(BUCKET, "large", into, Config=config)
    same(into.getvalue(), data("large"), "body")
    same(head("large")["ContentType"], canary.CONTENT_TYPE, "content type")
    same(listed("large")["large"]["Size"], len(data("large")), "LIST size")
    assert "-" in head("large")["ETag"], "the ETag of a multipart object looks like an MD5"


# --- multipart ---------------------------------------------------------------------------------------------------------


@step("uneven part sizes, in any order")
def _():
    parts = {1: data("part1"), 2: data("part3"), 3: data("part2"), 4: data("part4"), 5: data("tail")}
    multipart("uneven", parts, order=[3, 5, 1, 4, 2])
    want = b"".join(parts[n] for n in sorted(parts))
    same(get("uneven"), want, "body")
    same(head("uneven")["ContentLength"], len(want), "HEAD length")
    same(listed("uneven")["uneven"]["Size"], len(want), "LIST size")


@step("part sizes of 5,300,001 bytes, four of them")
def _():
    multipart("uneven-equal", {n: data("part1") for n in range(1, 5)})
    same(get("uneven-equal"), data("part1") * 4, "body")


@step("a part uploaded again with other data counts as uploaded last")
def _():
    upload = s3.create_multipart_upload(Bucket=BUCKET, Key="again-part")["UploadId"]
    send = lambda number, body: s3.upload_part(  # noqa: E731
        Bucket=BUCKET, Key="again-part", UploadId=upload, PartNumber=number, Body=body)["ETag"]
    send(1, data("part1"))
    send(2, data("small"))
    etags = {1: send(1, data("other")), 2: send(2, data("small2"))}
    complete("again-part", upload, etags)
    same(get("again-part"), data("other") + data("small2"), "body")


@step("the ETag of a replaced part is InvalidPart")
def _():
    upload = s3.create_multipart_upload(Bucket=BUCKET, Key="stale")["UploadId"]
    send = lambda body: s3.upload_part(  # noqa: E731
        Bucket=BUCKET, Key="stale", UploadId=upload, PartNumber=1, Body=body)["ETag"]
    first = send(data("part1"))
    second = send(data("other"))
    refused("InvalidPart", complete, "stale", upload, {1: first})
    complete("stale", upload, {1: second})
    same(get("stale"), data("other"), "body")


@step("gaps in part numbers, and part 10,000")
def _():
    multipart("gaps", {3: data("part2"), 77: data("part1"), 10_000: data("tail")})
    same(get("gaps"), data("part2") + data("part1") + data("tail"), "body")


@step("a large part 10,000")
def _():
    multipart("gaps-large", {1: data("part2"), 10_000: data("part3")})
    same(get("gaps-large"), data("part2") + data("part3"), "body")


@step("one part only: small, and empty")
def _():
    multipart("one-small", {1: data("small")})
    same(get("one-small"), data("small"), "body")
    multipart("one-empty", {1: b""})
    same(get("one-empty"), b"", "body")
    same(head("one-empty")["ContentLength"], 0, "HEAD length")
    multipart("last-empty", {1: data("part2"), 2: b""})
    same(get("last-empty"), data("part2"), "body")


@step("some uploaded parts left out of Complete")
def _():
    parts = {1: data("part1"), 2: data("part2"), 3: data("part3"), 4: data("small")}
    multipart("chosen", parts, names=[1, 3])
    same(get("chosen"), data("part1") + data("part3"), "body")


@step("a small part that is not last is EntityTooSmall")
def _():
    refused("EntityTooSmall", multipart, "too-small", {1: data("small"), 2: data("part1")})
    refused("EntityTooSmall", multipart, "too-small", {1: data("part1")[:5_000_001], 2: data("part1")[:5_000_001]})


@step("wrong order, unknown parts, unknown uploads")
def _():
    upload = s3.create_multipart_upload(Bucket=BUCKET, Key="wrong")["UploadId"]
    etag = s3.upload_part(Bucket=BUCKET, Key="wrong", UploadId=upload, PartNumber=2, Body=data("part1"))["ETag"]
    last = s3.upload_part(Bucket=BUCKET, Key="wrong", UploadId=upload, PartNumber=3, Body=b"end")["ETag"]
    wrong = [{"PartNumber": 3, "ETag": last}, {"PartNumber": 2, "ETag": etag}]
    refused("InvalidPartOrder", s3.complete_multipart_upload, Bucket=BUCKET, Key="wrong", UploadId=upload,
            MultipartUpload={"Parts": wrong})
    refused("InvalidPart", complete, "wrong", upload, {2: etag, 4: last})
    refused("NoSuchUpload", s3.upload_part, Bucket=BUCKET, Key="wrong", UploadId="nosuchupload", PartNumber=1, Body=b"x")
    refused("NoSuchUpload", complete, "wrong", "nosuchupload", {2: etag})
    refused("NoSuchUpload", s3.abort_multipart_upload, Bucket=BUCKET, Key="wrong", UploadId="nosuchupload")
    s3.abort_multipart_upload(Bucket=BUCKET, Key="wrong", UploadId=upload)


@step("ListParts shows plain sizes and pages")
def _():
    upload = s3.create_multipart_upload(Bucket=BUCKET, Key="parts")["UploadId"]
    sizes = {1: data("part1"), 2: data("part2"), 3: data("part3"), 9: data("small")}
    for number, body in sizes.items():
        s3.upload_part(Bucket=BUCKET, Key="parts", UploadId=upload, PartNumber=number, Body=body)
    parts = s3.list_parts(Bucket=BUCKET, Key="parts", UploadId=upload)
    same({p["PartNumber"]: p["Size"] for p in parts["Parts"]}, {n: len(b) for n, b in sizes.items()}, "parts")
    same(parts["IsTruncated"], False, "IsTruncated")
    page = s3.list_parts(Bucket=BUCKET, Key="parts", UploadId=upload, MaxParts=2)
    same(([p["PartNumber"] for p in page["Parts"]], page["IsTruncated"]), ([1, 2], True), "first page")
    page = s3.list_parts(Bucket=BUCKET, Key="parts", UploadId=upload, PartNumberMarker=page["NextPartNumberMarker"])
    same(([p["PartNumber"] for p in page["Parts"]], page["IsTruncated"]), ([3, 9], False), "second page")
    s3.abort_multipart_upload(Bucket=BUCKET, Key="parts", UploadId=upload)


@step("resume from ListMultipartUploads and ListParts")
def _():
    began = s3.create_multipart_upload(Bucket=BUCKET, Key="resume/me", ContentType=canary.CONTENT_TYPE)["UploadId"]
    s3.upload_part(Bucket=BUCKET, Key="resume/me", UploadId=began, PartNumber=1, Body=data("part1"))
    uploads = s3.list_multipart_uploads(Bucket=BUCKET, Prefix="resume/")["Uploads"]
    same([u["Key"] for u in uploads], ["resume/me"], "listed uploads")
    upload = uploads[0]["UploadId"]
    s3.upload_part(Bucket=BUCKET, Key="resume/me", UploadId=upload, PartNumber=2, Body=data("part3"))
    s3.upload_part(Bucket=BUCKET, Key="resume/me", UploadId=upload, PartNumber=3, Body=data("tail"))
    parts = s3.list_parts(Bucket=BUCKET, Key="resume/me", UploadId=upload)["Parts"]
    complete("resume/me", upload, {p["PartNumber"]: p["ETag"] for p in parts})
    same(get("resume/me"), data("part1") + data("part3") + data("tail"), "body")
    same(head("resume/me")["ContentType"], canary.CONTENT_TYPE, "content type")
    same(s3.list_multipart_uploads(Bucket=BUCKET, Prefix="resume/").get("Uploads", []), [], "uploads left")


@step("ListMultipartUploads pages, prefixes and delimiters")
def _():
    keys = [f"mpl/{c}/{n}" for c in "ab" for n in range(2)] + ["mpl/top"]
    ids = {key: s3.create_multipart_upload(Bucket=BUCKET, Key=key)["UploadId"] for key in keys}
    answer = s3.list_multipart_uploads(Bucket=BUCKET, Prefix="mpl/", Delimiter="/")
    same([u["Key"] for u in answer["Uploads"]], ["mpl/top"], "uploads at this level")
    same([p["Prefix"] for p in answer["CommonPrefixes"]], ["mpl/a/", "mpl/b/"], "prefixes")
    found, arguments = [], {}
    for _ in pages():
        page = s3.list_multipart_uploads(Bucket=BUCKET, Prefix="mpl/", MaxUploads=2, **arguments)
        found += [u["Key"] for u in page.get("Uploads", [])]
        if not page["IsTruncated"]:
            break
        arguments = {"KeyMarker": page["NextKeyMarker"], "UploadIdMarker": page["NextUploadIdMarker"]}
    same(found, keys, "keys over all pages")
    for key, upload in ids.items():
        s3.abort_multipart_upload(Bucket=BUCKET, Key=key, UploadId=upload)


@step("ListMultipartUploads gives keys as they were written")
def _():
    keys = [f"as written/{name}" for name in ["%41", "a&b<c>", "plus+and space", "ü %2F"]]
    ids = {key: s3.create_multipart_upload(Bucket=BUCKET, Key=key)["UploadId"] for key in keys}
    listed_keys = [u["Key"] for u in s3.list_multipart_uploads(Bucket=BUCKET, Prefix="as written/")["Uploads"]]
    same(listed_keys, keys, "all")
    for key, upload in ids.items():
        same([u["Key"] for u in s3.list_multipart_uploads(Bucket=BUCKET, Prefix=key)["Uploads"]], [key], "by its key")
        s3.abort_multipart_upload(Bucket=BUCKET, Key=key, UploadId=upload)


@step("abort removes the upload")
def _():
    upload = s3.create_multipart_upload(Bucket=BUCKET, Key="aborted")["UploadId"]
    s3.upload_part(Bucket=BUCKET, Key="aborted", UploadId=upload, PartNumber=1, Body=data("part1"))
    s3.upload_part(Bucket=BUCKET, Key="aborted", UploadId=upload, PartNumber=2, Body=data("small"))
    s3.abort_multipart_upload(Bucket=BUCKET, Key="aborted", UploadId=upload)
    refused("NoSuchUpload", s3.upload_part, Bucket=BUCKET, Key="aborted", UploadId=upload, PartNumber=2, Body=b"x")
    refused("NoSuchUpload", s3.list_parts, Bucket=BUCKET, Key="aborted", UploadId=upload)
    refused("NoSuchKey", get, "aborted")
    same(s3.list_multipart_uploads(Bucket=BUCKET, Prefix="aborted").get("Uploads", []), [], "uploads left")


@step("parts uploaded side by side")
def _():
    upload = s3.create_multipart_upload(Bucket=BUCKET, Key="beside")["UploadId"]
    bodies = {n: data(["part1", "part2", "part3", "part4"][n % 4]) for n in range(1, 9)}
    with concurrent.futures.ThreadPoolExecutor(8) as pool:
        send = lambda n: (n, s3.upload_part(  # noqa: E731
            Bucket=BUCKET, Key="beside", UploadId=upload, PartNumber=n, Body=bodies[n])["ETag"])
        etags = dict(pool.map(send, bodies))
    complete("beside", upload, etags)
    same(get("beside"), b"".join(bodies[n] for n in sorted(bodies)), "body")


# --- ranges ------------------------------------------------------------------------------------------------------------


def ranges(key, want):
    size = len(want)
    cases = ["bytes=0-", "bytes=0-0", "bytes=-1", "bytes=-100000", f"bytes=-{size + 10}", "bytes=1-1",
             "bytes=65535-65536", "bytes=65536-131071", "bytes=100-200", f"bytes={size - 1}-", f"bytes={size // 2}-",
             f"bytes={size - 5}-{size + 500}", "bytes=5242879-5242881", "bytes=5300000-5300001", "bytes=300000-7999999"]
    for text in cases:
        first, last = text.removeprefix("bytes=").split("-")
        if not first:
            start, end = max(0, size - int(last)), size
        else:
            start, end = int(first), min(size, int(last) + 1 if last else size)
        if start >= size:
            continue
        answer = s3.get_object(Bucket=BUCKET, Key=key, Range=text)
        same(answer["Body"].read(), want[start:end], f"{text} of {key}")
        same(answer["ContentRange"], f"bytes {start}-{end - 1}/{size}", f"Content-Range of {text}")
        same(answer["ContentLength"], end - start, f"length of {text}")
        same(answer["ResponseMetadata"]["HTTPStatusCode"], 206, f"status of {text}")
    for text in [f"bytes={size}-", f"bytes={size + 5}-{size + 9}", "bytes=-0"]:
        refused("InvalidRange", s3.get_object, Bucket=BUCKET, Key=key, Range=text)


@step("ranges of a single object")
def _():
    ranges("large-single", data("large"))
    ranges("small", data("small"))


@step("ranges of a multipart object")
def _():
    ranges("uneven", data("part1") + data("part3") + data("part2") + data("part4") + data("tail"))


@step("ranges of an empty object")
def _():
    refused("InvalidRange", s3.get_object, Bucket=BUCKET, Key="empty", Range="bytes=0-")


@step("ranges with If-Match, side by side")
def _():
    etag = head("large")["ETag"]
    spans = [(a, min(a + 1_500_000, len(data("large")))) for a in range(0, len(data("large")), 1_500_000)]
    with concurrent.futures.ThreadPoolExecutor(8) as pool:
        got = list(pool.map(lambda s: get("large", Range=f"bytes={s[0]}-{s[1] - 1}", IfMatch=etag), spans))
    same(b"".join(got), data("large"), "joined body")


@step("GET and HEAD by part number")
def _():
    answer = s3.get_object(Bucket=BUCKET, Key="uneven", PartNumber=2)
    same(answer["Body"].read(), data("part3"), "part 2")
    same(answer["PartsCount"], 5, "PartsCount")
    same(head("uneven", PartNumber=5)["ContentLength"], len(data("tail")), "length of part 5")
    same(get("small", PartNumber=1), data("small"), "part 1 of a single object")


# --- headers and metadata ----------------------------------------------------------------------------------------------


@step("content headers and metadata: PUT")
def _():
    put("headers", data("small"), Metadata=METADATA, **HEADERS)
    check_headers(head("headers"))
    answer = s3.get_object(Bucket=BUCKET, Key="headers")
    check_headers(answer)
    same(answer["Body"].read(), data("small"), "body")


@step("content headers and metadata: multipart")
def _():
    multipart("headers-mp", {1: data("part1"), 2: data("small")}, Metadata=METADATA, **HEADERS)
    check_headers(head("headers-mp"))


@step("no internal header or metadata shows")
def _():
    raw = head("headers")["ResponseMetadata"]["HTTPHeaders"]
    shown = [name for name in raw if name.startswith("x-amz-meta-")]
    same(sorted(shown), ["x-amz-meta-note", "x-amz-meta-second-note"], "metadata headers")
    bare = head("small")["ResponseMetadata"]["HTTPHeaders"]
    same([name for name in bare if name.startswith("x-amz-meta-")], [], "metadata headers of a bare object")


@step("metadata of 1,000 bytes")
def _():
    long = (canary.META + "-") * 40
    put("meta-long", b"x", Metadata={"long": long[:1000]})
    same(head("meta-long")["Metadata"], {"long": long[:1000]}, "metadata")


@step("metadata of 3,000 bytes is MetadataTooLarge")
def _():
    refused("MetadataTooLarge", put, "meta-too-long", b"x", Metadata={"long": "x" * 3000})
    refused("NoSuchKey", get, "meta-too-long")


@step("response-* overrides")
def _():
    answer = s3.get_object(Bucket=BUCKET, Key="headers", ResponseContentType=canary.RESPONSE_TYPE,
                           ResponseContentDisposition=canary.RESPONSE_DISPOSITION, ResponseCacheControl="no-cache")
    same(answer["ContentType"], canary.RESPONSE_TYPE, "content type")
    same(answer["ContentDisposition"], canary.RESPONSE_DISPOSITION, "content disposition")
    same(answer["CacheControl"], "no-cache", "cache control")


# --- copies ------------------------------------------------------------------------------------------------------------


@step("copy keeps headers and metadata")
def _():
    s3.copy_object(Bucket=BUCKET, Key="copied", CopySource={"Bucket": BUCKET, "Key": "headers"})
    check_headers(head("copied"))
    same(get("copied"), data("small"), "body")


@step("copy replaces headers and metadata")
def _():
    s3.copy_object(Bucket=BUCKET, Key="copied2", CopySource={"Bucket": BUCKET, "Key": "headers"},
                   MetadataDirective="REPLACE", Metadata={"note": canary.META}, ContentType=canary.RESPONSE_TYPE)
    answer = head("copied2")
    same(answer["Metadata"], {"note": canary.META}, "metadata")
    same(answer["ContentType"], canary.RESPONSE_TYPE, "content type")
    same(answer.get("CacheControl"), None, "cache control")
    same(get("copied2"), data("small"), "body")


@step("copy onto itself changes metadata")
def _():
    s3.copy_object(Bucket=BUCKET, Key="copied2", CopySource={"Bucket": BUCKET, "Key": "copied2"},
                   MetadataDirective="REPLACE", Metadata={"note": canary.META_SECOND})
    same(head("copied2")["Metadata"], {"note": canary.META_SECOND}, "metadata")
    same(get("copied2"), data("small"), "body")
    refused("InvalidRequest", s3.copy_object, Bucket=BUCKET, Key="copied2",
            CopySource={"Bucket": BUCKET, "Key": "copied2"})


@step("copy of a multipart object")
def _():
    s3.copy_object(Bucket=BUCKET, Key="copied-mp", CopySource={"Bucket": BUCKET, "Key": "headers-mp"})
    same(get("copied-mp"), data("part1") + data("small"), "body")
    check_headers(head("copied-mp"))
    same(get("copied-mp", Range="bytes=5300000-5300002"), (data("part1") + data("small"))[5300000:5300003], "range")


@step("the copy outlives its source")
def _():
    put("source", data("small"))
    s3.copy_object(Bucket=BUCKET, Key="outlives", CopySource={"Bucket": BUCKET, "Key": "source"})
    s3.delete_object(Bucket=BUCKET, Key="source")
    same(get("outlives"), data("small"), "body")


@step("copy to another bucket, and a managed copy with parts")
def _():
    other = BUCKET + "-other"
    s3.create_bucket(Bucket=other)
    s3.copy_object(Bucket=other, Key="from", CopySource={"Bucket": BUCKET, "Key": "headers"})
    same(s3.get_object(Bucket=other, Key="from")["Body"].read(), data("small"), "body")
    config = TransferConfig(multipart_threshold=8 * canary.MIB, multipart_chunksize=8 * canary.MIB)
    s3.copy({"Bucket": BUCKET, "Key": "large"}, other, "managed", Config=config)
    same(s3.get_object(Bucket=other, Key="managed")["Body"].read(), data("large"), "body")
    for key in ["from", "managed"]:
        s3.delete_object(Bucket=other, Key=key)
    s3.delete_bucket(Bucket=other)


@step("copy sources with awkward names")
def _():
    for name in ["with space", "with+plus", "ünïcode", "a%20b", "q?mark&more", "dir//double"]:
        put(f"src/{name}", data("small"))
        s3.copy_object(Bucket=BUCKET, Key=f"dst/{name}", CopySource={"Bucket": BUCKET, "Key": f"src/{name}"})
        same(get(f"dst/{name}"), data("small"), f"copy of {name}")


@step("copy conditions")
def _():
    etag = head("small")["ETag"]
    source = {"Bucket": BUCKET, "Key": "small"}
    s3.copy_object(Bucket=BUCKET, Key="cond-copy", CopySource=source, CopySourceIfMatch=etag)
    refused("PreconditionFailed", s3.copy_object, Bucket=BUCKET, Key="cond-copy", CopySource=source,
            CopySourceIfNoneMatch=etag)
    refused("PreconditionFailed", s3.copy_object, Bucket=BUCKET, Key="cond-copy", CopySource=source,
            CopySourceIfMatch='"0123456789abcdef0123456789abcdef"')
    refused("NoSuchKey", s3.copy_object, Bucket=BUCKET, Key="cond-copy", CopySource={"Bucket": BUCKET, "Key": "none"})


@step("UploadPartCopy, whole and by range")
def _():
    upload = s3.create_multipart_upload(Bucket=BUCKET, Key="part-copied")["UploadId"]
    copy = lambda number, **named: s3.upload_part_copy(  # noqa: E731
        Bucket=BUCKET, Key="part-copied", UploadId=upload, PartNumber=number, **named)["CopyPartResult"]["ETag"]
    large = {"Bucket": BUCKET, "Key": "large"}
    etags = {
        1: copy(1, CopySource={"Bucket": BUCKET, "Key": "uneven-equal"}, CopySourceRange="bytes=0-5300000"),
        2: copy(2, CopySource=large, CopySourceRange="bytes=1000000-6999999"),
        3: s3.upload_part(Bucket=BUCKET, Key="part-copied", UploadId=upload, PartNumber=3,
                          Body=data("part1"))["ETag"],
        4: copy(4, CopySource={"Bucket": BUCKET, "Key": "small"}),
    }
    complete("part-copied", upload, etags)
    want = data("part1") + data("large")[1_000_000:7_000_000] + data("part1") + data("small")
    same(get("part-copied"), want, "body")


# --- delete ------------------------------------------------------------------------------------------------------------


@step("delete, twice")
def _():
    put("gone", b"x")
    s3.delete_object(Bucket=BUCKET, Key="gone")
    refused("NoSuchKey", get, "gone")
    refused(404, head, "gone")
    s3.delete_object(Bucket=BUCKET, Key="gone")


@step("DeleteObjects, with and without Quiet")
def _():
    keys = [f"many/{n}" for n in range(30)] + ["many/with space", "many/ü+%", "many/<&>"]
    for key in keys:
        put(key, b"x")
    answer = s3.delete_objects(Bucket=BUCKET, Delete={"Objects": [{"Key": key} for key in keys[:10]]})
    same(sorted(d["Key"] for d in answer["Deleted"]), sorted(keys[:10]), "deleted")
    answer = s3.delete_objects(Bucket=BUCKET, Delete={"Objects": [{"Key": key} for key in keys[10:]], "Quiet": True})
    same((answer.get("Deleted", []), answer.get("Errors", [])), ([], []), "quiet answer")
    same(list(listed("many/")), [], "what is left")


# --- names -------------------------------------------------------------------------------------------------------------

NAMES = ["with space", "trailing space ", "plus+plus", "per%cent", "a%20b", "a%2Fb", "ünïcødé/名前/🔑", "semi;colon",
         "amp&ersand", "eq=uals", "quo'te", 'double"quote', "co,mma", "col:on", "at@at", "ha#sh", "que?stion", "ti~lde",
         "star*", "paren(s)", "bang!", "dollar$", "back\\slash", "pipe|", "brackets[]", "caret^", "back`tick",
         "a", "a/b", "a/", "dir//double", "dir///triple", "ends/", "x" * 1000, "deep/" * 100 + "leaf",
         ".hidden", "...", "a.b.c", "-dash", "_under", "UPPER", "upper"]


@step("names: put, get, list, delete")
def _():
    for name in NAMES:
        key = f"names/{name}" if len(name) < 1000 else name
        put(key, name.encode()[:50] + data("one"))
    for name in NAMES:
        key = f"names/{name}" if len(name) < 1000 else name
        same(get(key), name.encode()[:50] + data("one"), f"body of {name[:40]!r}")
    want = sorted(f"names/{name}" for name in NAMES if len(name) < 1000)
    got = list(listed("names/"))
    same(got, sorted(want, key=lambda k: k.encode()), "listed names")


@step("names: leading slash and double slash")
def _():
    for key in ["/leading", "//leading2", "names2//x", "names2/"]:
        put(key, key.encode())
    for key in ["/leading", "//leading2", "names2//x", "names2/"]:
        same(get(key), key.encode(), f"body of {key!r}")
    assert {"/leading", "//leading2"} <= set(listed("/")), "names with a leading slash are not listed"
    for key in ["/leading", "//leading2", "names2//x", "names2/"]:
        s3.delete_object(Bucket=BUCKET, Key=key)


@step("names: dot components")
def _():
    # urllib3, beneath boto3, resolves `..` in paths, but not when they are percent-encoded: keys with dots inside names.
    for key in ["dots/a..b", "dots/..a", "dots/a..", "dots/..."]:
        put(key, key.encode())
        same(get(key), key.encode(), f"body of {key!r}")


@step("a key of 1,024 bytes works, one of 1,025 is KeyTooLongError")
def _():
    put("k" * 1024, b"x")
    same(get("k" * 1024), b"x", "body")
    s3.delete_object(Bucket=BUCKET, Key="k" * 1024)
    refused("KeyTooLongError", put, "k" * 1025, b"x")


# --- listings ----------------------------------------------------------------------------------------------------------

TREE = sorted(["t/a", "t/a/b", "t/a/c/d", "t/a/c/e", "t/a//f", "t/b+c", "t/b c", "t/b%c", "t/ü", "t/z", "t/z/", "t/z/1",
               "t/z/2", "t/zz"] + [f"t/n/{n:03}" for n in range(25)], key=str.encode)


def model(prefix, delimiter):
    keys, prefixes = [], []
    for key in TREE:
        if not key.startswith(prefix):
            continue
        rest = key[len(prefix):]
        if delimiter and delimiter in rest:
            common = prefix + rest[:rest.index(delimiter) + len(delimiter)]
            if common not in prefixes:
                prefixes.append(common)
        else:
            keys.append(key)
    return keys, prefixes


@step("prepare a tree to list")
def _():
    with concurrent.futures.ThreadPoolExecutor(8) as pool:
        list(pool.map(lambda key: put(key, key.encode()), TREE))


@step("ListObjectsV2 over prefixes, delimiters and page sizes")
def _():
    for prefix, delimiter in [("t/", ""), ("t/", "/"), ("t/a", "/"), ("t/a/", "/"), ("t/n/", ""), ("t/z", "/"),
                              ("t/b", ""), ("t/", "b"), ("none/", "/")]:
        for size in [1, 2, 3, 7, 1000]:
            keys, prefixes, token = [], [], {}
            for _ in pages():
                page = s3.list_objects_v2(Bucket=BUCKET, Prefix=prefix, Delimiter=delimiter, MaxKeys=size, **token)
                keys += [e["Key"] for e in page.get("Contents", [])]
                prefixes += [p["Prefix"] for p in page.get("CommonPrefixes", [])]
                same(page["KeyCount"], len(page.get("Contents", [])) + len(page.get("CommonPrefixes", [])), "KeyCount")
                assert page["KeyCount"] <= size, "a page is longer than asked"
                if not page["IsTruncated"]:
                    break
                token = {"ContinuationToken": page["NextContinuationToken"]}
            same((keys, prefixes), model(prefix, delimiter), f"V2 {prefix!r} {delimiter!r} by {size}")


@step("ListObjects (V1) over prefixes, delimiters and page sizes")
def _():
    for prefix, delimiter in [("t/", ""), ("t/", "/"), ("t/a", "/"), ("t/z", "/"), ("t/n/", "")]:
        for size in [1, 3, 1000]:
            keys, prefixes, marker = [], [], ""
            for _ in pages():
                page = s3.list_objects(Bucket=BUCKET, Prefix=prefix, Delimiter=delimiter, MaxKeys=size, Marker=marker)
                keys += [e["Key"] for e in page.get("Contents", [])]
                prefixes += [p["Prefix"] for p in page.get("CommonPrefixes", [])]
                if not page["IsTruncated"]:
                    break
                marker = page.get("NextMarker") or page["Contents"][-1]["Key"]
            same((keys, prefixes), model(prefix, delimiter), f"V1 {prefix!r} {delimiter!r} by {size}")


@step("listed sizes are the plain sizes")
def _():
    same({k: e["Size"] for k, e in listed("t/").items()}, {k: len(k.encode()) for k in TREE}, "sizes")


@step("start-after, and MaxKeys 0")
def _():
    page = s3.list_objects_v2(Bucket=BUCKET, Prefix="t/n/", StartAfter="t/n/020")
    same([e["Key"] for e in page["Contents"]], [f"t/n/{n:03}" for n in range(21, 25)], "keys")
    page = s3.list_objects_v2(Bucket=BUCKET, Prefix="t/", MaxKeys=0)
    same((page.get("Contents", []), page["IsTruncated"]), ([], False), "page of nothing")


@step("listing without encoding-type")
def _():
    plain = client()
    plain.meta.events.unregister("before-parameter-build.s3.ListObjectsV2",
                                 botocore.handlers.set_list_objects_encoding_type_url)
    page = plain.list_objects_v2(Bucket=BUCKET, Prefix="t/b")
    same([e["Key"] for e in page["Contents"]], ["t/b c", "t/b%c", "t/b+c"], "keys")
    same(page.get("EncodingType"), None, "EncodingType")


# --- presigned ---------------------------------------------------------------------------------------------------------


@step("presigned GET, with range and overrides")
def _():
    url = s3.generate_presigned_url("get_object", Params={"Bucket": BUCKET, "Key": "names/with space"})
    status, body, _ = fetch(url)
    same((status, body), (200, b"with space" + data("one")), "answer")
    url = s3.generate_presigned_url("get_object", Params={
        "Bucket": BUCKET, "Key": "large", "ResponseContentType": canary.RESPONSE_TYPE,
        "ResponseContentDisposition": canary.RESPONSE_DISPOSITION})
    status, body, headers = fetch(url, headers={"Range": "bytes=100-299999"})
    same((status, body), (206, data("large")[100:300_000]), "answer")
    same(headers["content-type"], canary.RESPONSE_TYPE, "content type")
    status, _, headers = fetch(s3.generate_presigned_url("head_object", Params={"Bucket": BUCKET, "Key": "large"}), "HEAD")
    same((status, headers["content-length"]), (200, str(len(data("large")))), "HEAD")


@step("presigned PUT, with metadata and content type")
def _():
    url = s3.generate_presigned_url("put_object", Params={
        "Bucket": BUCKET, "Key": "presigned", "Metadata": {"note": canary.META}, "ContentType": canary.CONTENT_TYPE})
    signed = {"Content-Type": canary.CONTENT_TYPE}
    if "x-amz-meta-note" in url.split("SignedHeaders=")[-1].split("&")[0]:
        signed["x-amz-meta-note"] = canary.META
    status, body, _ = fetch(url, "PUT", data("small"), signed)
    same(status, 200, f"status ({body[:200]!r})")
    same(get("presigned"), data("small"), "body")
    same(head("presigned")["Metadata"], {"note": canary.META}, "metadata")
    same(head("presigned")["ContentType"], canary.CONTENT_TYPE, "content type")


@step("a PUT without a length: a small body is counted, a long one refused")
def _():
    def send(key, body):
        # urllib sends an iterable in HTTP's own chunks.
        url = s3.generate_presigned_url("put_object", Params={"Bucket": BUCKET, "Key": key})
        return fetch(url, "PUT", iter([body[:7], body[7:]]), {"Content-Type": "text/plain"})
    status, body, _ = send("uncounted", data("one"))
    same(status, 200, f"status ({body[:200]!r})")
    same(get("uncounted"), data("one"), "body")
    status, body, _ = send("uncounted-long", data("large")[: (1 << 20) + 1])
    same((status, b"MissingContentLength" in body), (411, True), f"long body ({body[:200]!r})")
    refused(404, head, "uncounted-long")


@step("presigned UploadPart and DELETE")
def _():
    upload = s3.create_multipart_upload(Bucket=BUCKET, Key="presigned-mp")["UploadId"]
    url = s3.generate_presigned_url("upload_part", Params={
        "Bucket": BUCKET, "Key": "presigned-mp", "UploadId": upload, "PartNumber": 1})
    status, _, headers = fetch(url, "PUT", data("part1"), {"Content-Type": ""})
    same(status, 200, "status of the part")
    complete("presigned-mp", upload, {1: headers["etag"]})
    same(get("presigned-mp"), data("part1"), "body")
    status, _, _ = fetch(s3.generate_presigned_url("delete_object", Params={"Bucket": BUCKET, "Key": "presigned-mp"}), "DELETE")
    same(status, 204, "status of DELETE")


@step("a presigned URL that expired or was altered is refused")
def _():
    url = s3.generate_presigned_url("get_object", Params={"Bucket": BUCKET, "Key": "small"}, ExpiresIn=1)
    same(fetch(url.replace("small", "empty"))[0], 403, "status of another key")
    time.sleep(3)
    same(fetch(url)[0], 403, "status after expiry")


@step("a request with a wrong secret is refused")
def _():
    stranger = boto3.client("s3", endpoint_url=suite.endpoint, region_name=suite.region,
                            aws_access_key_id=suite.access_key, aws_secret_access_key="wrong-" + suite.secret_key[6:],
                            config=botocore.client.Config(s3=S3_OPTIONS, retries={"max_attempts": 1}))
    refused("SignatureDoesNotMatch", stranger.get_object, Bucket=BUCKET, Key="small")
    refused("SignatureDoesNotMatch", stranger.put_object, Bucket=BUCKET, Key="intruder", Body=b"x")
    refused("NoSuchKey", get, "intruder")
    same(fetch(f"{suite.endpoint}/{BUCKET}/small")[0], 403, "status without a signature")


# --- checksums ---------------------------------------------------------------------------------------------------------

# Of MD5 the SDK computes nothing: it takes a value that the caller gives.
ALGORITHMS = ["CRC32", "CRC32C", "CRC64NVME", "SHA1", "SHA256", "SHA512", "XXHASH64", "XXHASH3", "XXHASH128"]


def checksum(algorithm, blob):
    return base64.b64encode(canary.checksums(blob)[algorithm.lower()]).decode()


for algorithm in ALGORITHMS:

    @step(f"checksum {algorithm}: computed by the SDK, verified, given back")
    def _(algorithm=algorithm):
        field = f"Checksum{algorithm}"
        want = checksum(algorithm, data("medium"))
        answer = put(f"sum/{algorithm}", data("medium"), ChecksumAlgorithm=algorithm)
        same(answer.get(field), want, "PUT's answer")
        same(head(f"sum/{algorithm}", ChecksumMode="ENABLED").get(field), want, "HEAD's answer")
        answer = s3.get_object(Bucket=BUCKET, Key=f"sum/{algorithm}", ChecksumMode="ENABLED")
        same(answer["Body"].read(), data("medium"), "body")

    @step(f"checksum {algorithm}: given as a header")
    def _(algorithm=algorithm):
        put(f"sum/{algorithm}-header", data("small"), **{f"Checksum{algorithm}": checksum(algorithm, data("small"))})
        same(get(f"sum/{algorithm}-header"), data("small"), "body")

    @step(f"checksum {algorithm}: a wrong one is refused and nothing is stored")
    def _(algorithm=algorithm):
        wrong = {f"Checksum{algorithm}": checksum(algorithm, data("small2"))}
        refused(("BadDigest", "InvalidRequest", "XAmzContentChecksumMismatch"), put, f"sum/{algorithm}-wrong",
                data("small"), **wrong)
        refused("NoSuchKey", get, f"sum/{algorithm}-wrong")

    @step(f"checksum {algorithm}: multipart")
    def _(algorithm=algorithm):
        key, field = f"sum/{algorithm}-mp", f"Checksum{algorithm}"
        # The CRC of 64 bits is only defined over the whole object; the others combine by default.
        upload = s3.create_multipart_upload(Bucket=BUCKET, Key=key, ChecksumAlgorithm=algorithm)["UploadId"]
        bodies, parts = {1: data("part1"), 2: data("part3"), 3: data("small")}, []
        for number, body in bodies.items():
            answer = s3.upload_part(Bucket=BUCKET, Key=key, UploadId=upload, PartNumber=number, Body=body,
                                    ChecksumAlgorithm=algorithm)
            same(answer.get(field), checksum(algorithm, body), "UploadPart's answer")
            parts.append({"PartNumber": number, "ETag": answer["ETag"], field: answer[field]})
        whole = b"".join(bodies.values())
        if algorithm == "CRC64NVME":
            want = checksum(algorithm, whole)
        else:
            digests = b"".join(canary.checksums(body)[algorithm.lower()] for body in bodies.values())
            want = f"{checksum(algorithm, digests)}-{len(bodies)}"
        answer = s3.complete_multipart_upload(Bucket=BUCKET, Key=key, UploadId=upload, MultipartUpload={"Parts": parts})
        same(answer.get(field), want, "Complete's answer")
        same(head(key, ChecksumMode="ENABLED").get(field), want, "HEAD's answer")
        same(get(key), whole, "body")


@step("checksum MD5: given, computed of parts, given back, and a wrong one")
def _():
    put("sum/MD5", data("small"), ChecksumMD5=checksum("MD5", data("small")))
    same(head("sum/MD5", ChecksumMode="ENABLED").get("ChecksumMD5"), checksum("MD5", data("small")), "HEAD's answer")
    refused(("BadDigest", "InvalidRequest"), put, "sum/MD5-wrong", data("small"), ChecksumMD5=checksum("MD5", data("small2")))
    refused("NoSuchKey", get, "sum/MD5-wrong")
    key = "sum/MD5-mp"
    upload = s3.create_multipart_upload(Bucket=BUCKET, Key=key, ChecksumAlgorithm="MD5")["UploadId"]
    sums = [checksum("MD5", data("part1")), checksum("MD5", data("small"))]
    tags = [s3.upload_part(Bucket=BUCKET, Key=key, UploadId=upload, PartNumber=number, Body=data(blob), ChecksumMD5=value)["ETag"]
            for number, blob, value in [(1, "part1", sums[0]), (2, "small", sums[1])]]
    parts = [{"PartNumber": number, "ETag": tag, "ChecksumMD5": value} for number, (tag, value) in enumerate(zip(tags, sums), 1)]
    answer = s3.complete_multipart_upload(Bucket=BUCKET, Key=key, UploadId=upload, MultipartUpload={"Parts": parts})
    want = f"{checksum('MD5', b''.join(base64.b64decode(value) for value in sums))}-2"
    same(answer.get("ChecksumMD5"), want, "Complete's answer")
    got = s3.get_object_attributes(Bucket=BUCKET, Key=key, ObjectAttributes=["Checksum", "ObjectParts"])
    same(got["Checksum"].get("ChecksumMD5"), want, "the attributes")
    same([part["Size"] for part in got["ObjectParts"]["Parts"]], [len(data("part1")), len(data("small"))], "the parts")


@step("checksum FULL_OBJECT over a multipart upload")
def _():
    key = "sum/full-object"
    upload = s3.create_multipart_upload(Bucket=BUCKET, Key=key, ChecksumAlgorithm="CRC32",
                                        ChecksumType="FULL_OBJECT")["UploadId"]
    bodies, parts = {1: data("part1"), 2: data("small")}, []
    for number, body in bodies.items():
        answer = s3.upload_part(Bucket=BUCKET, Key=key, UploadId=upload, PartNumber=number, Body=body,
                                ChecksumAlgorithm="CRC32")
        parts.append({"PartNumber": number, "ETag": answer["ETag"], "ChecksumCRC32": answer["ChecksumCRC32"]})
    whole = b"".join(bodies.values())
    finish = lambda value: s3.complete_multipart_upload(  # noqa: E731
        Bucket=BUCKET, Key=key, UploadId=upload, MultipartUpload={"Parts": parts}, ChecksumCRC32=value,
        ChecksumType="FULL_OBJECT")
    refused("BadDigest", finish, checksum("CRC32", data("small2")))
    finish(checksum("CRC32", whole))
    same(head(key, ChecksumMode="ENABLED").get("ChecksumCRC32"), checksum("CRC32", whole), "HEAD's answer")
    same(head(key, ChecksumMode="ENABLED").get("ChecksumType"), "FULL_OBJECT", "ChecksumType")


@step("no object checksum on a ranged GET")
def _():
    answer = s3.get_object(Bucket=BUCKET, Key="sum/SHA256", Range="bytes=0-99", ChecksumMode="ENABLED")
    same(answer.get("ChecksumSHA256"), None, "ChecksumSHA256")
    same(answer["Body"].read(), data("medium")[:100], "body")


@step("Content-MD5: right and wrong")
def _():
    digest = lambda blob: base64.b64encode(canary.checksums(blob)["md5"]).decode()  # noqa: E731
    put("md5", data("small"), ContentMD5=digest(data("small")))
    refused("BadDigest", put, "md5-wrong", data("small"), ContentMD5=digest(data("small2")))
    refused(("InvalidDigest", "InvalidArgument"), put, "md5-wrong", data("small"), ContentMD5="short")
    refused("NoSuchKey", get, "md5-wrong")


@step("no checksums at all (when_required)")
def _():
    plain = client(request_checksum_calculation="when_required", response_checksum_validation="when_required")
    plain.put_object(Bucket=BUCKET, Key="plain", Body=data("medium"))
    same(plain.get_object(Bucket=BUCKET, Key="plain")["Body"].read(), data("medium"), "body")


# --- conditions --------------------------------------------------------------------------------------------------------


@step("conditional GET and HEAD")
def _():
    answer = head("small")
    etag, modified = answer["ETag"], answer["LastModified"]
    same(get("small", IfMatch=etag), data("small"), "body")
    refused(412, get, "small", IfMatch='"0123456789abcdef0123456789abcdef"')
    refused(304, get, "small", IfNoneMatch=etag)
    same(get("small", IfNoneMatch='"0123456789abcdef0123456789abcdef"'), data("small"), "body")
    refused(304, get, "small", IfModifiedSince=modified)
    same(get("small", IfUnmodifiedSince=modified), data("small"), "body")
    refused(304, head, "small", IfNoneMatch=etag)
    refused(412, head, "small", IfMatch='"0123456789abcdef0123456789abcdef"')


@step("conditional GET of a multipart object")
def _():
    etag = head("large")["ETag"]
    refused(304, get, "large", IfNoneMatch=etag)
    same(get("large", IfMatch=etag, Range="bytes=0-9"), data("large")[:10], "range")


@step("PUT If-None-Match: *")
def _():
    put("only-once", data("small"), IfNoneMatch="*")
    refused("PreconditionFailed", put, "only-once", data("small2"), IfNoneMatch="*")
    same(get("only-once"), data("small"), "body")


@step("PUT If-Match")
def _():
    etag = put("swap", data("small"))["ETag"]
    second = put("swap", data("small2"), IfMatch=etag)["ETag"]
    refused("PreconditionFailed", put, "swap", data("small"), IfMatch=etag)
    put("swap", data("small"), IfMatch=second)
    same(get("swap"), data("small"), "body")


@step("Complete If-None-Match: *")
def _():
    for code in [None, "PreconditionFailed"]:
        upload = s3.create_multipart_upload(Bucket=BUCKET, Key="complete-once")["UploadId"]
        etag = s3.upload_part(Bucket=BUCKET, Key="complete-once", UploadId=upload, PartNumber=1, Body=data("small"))["ETag"]
        if code is None:
            complete("complete-once", upload, {1: etag}, IfNoneMatch="*")
        else:
            refused(code, complete, "complete-once", upload, {1: etag}, IfNoneMatch="*")


@step("of eight writers with If-None-Match: * one wins")
def _():
    def attempt(number):
        try:
            put("race", b"%d" % number, IfNoneMatch="*")
            return 1
        except botocore.exceptions.ClientError as error:
            same(error.response["Error"]["Code"] in ("PreconditionFailed", "ConditionalRequestConflict"), True,
                 f"refusal {error.response['Error']['Code']}")
            return 0

    with concurrent.futures.ThreadPoolExecutor(8) as pool:
        same(sum(pool.map(attempt, range(8))), 1, "winners")


# --- attributes, tags, what is refused ---------------------------------------------------------------------------------


@step("GetObjectAttributes of a single object")
def _():
    wanted = ["ETag", "ObjectSize", "StorageClass", "Checksum", "ObjectParts"]
    answer = s3.get_object_attributes(Bucket=BUCKET, Key="sum/SHA256", ObjectAttributes=wanted)
    same(answer["ObjectSize"], len(data("medium")), "ObjectSize")
    same(answer["ETag"], head("sum/SHA256")["ETag"].strip('"'), "ETag")
    same(answer["Checksum"]["ChecksumSHA256"], checksum("SHA256", data("medium")), "checksum")


@step("GetObjectAttributes of a multipart object")
def _():
    answer = s3.get_object_attributes(Bucket=BUCKET, Key="sum/SHA256-mp", ObjectAttributes=["ObjectSize", "ObjectParts"])
    same(answer["ObjectParts"]["TotalPartsCount"], 3, "TotalPartsCount")
    same([part["Size"] for part in answer["ObjectParts"]["Parts"]],
         [len(data(name)) for name in ["part1", "part3", "small"]], "part sizes")


@step("GetObjectTagging answers an empty set")
def _():
    same(s3.get_object_tagging(Bucket=BUCKET, Key="small")["TagSet"], [], "TagSet")


if suite.claviger:

    @step("what would carry plaintext past the gateway is NotImplemented")
    def _():
        # Where tags are allowed, which the demonstration before a real store is told to, another suite writes them.
        if suite.target == "claviger":
            refused("AccessDenied", put, "tagged", b"x", Tagging="a=b")
            refused("AccessDenied", s3.put_object_tagging, Bucket=BUCKET, Key="small",
                    Tagging={"TagSet": [{"Key": "a", "Value": "b"}]})
        refused("NotImplemented", put, "sse-c", b"x", SSECustomerAlgorithm="AES256", SSECustomerKey="0" * 32)
        refused("NotImplemented", s3.put_bucket_website, Bucket=BUCKET,
                WebsiteConfiguration={"IndexDocument": {"Suffix": "index.html"}})
        for query in ["renameObject", "annotation", "metadataConfiguration", "unknown"]:
            url = s3.generate_presigned_url("put_object", Params={"Bucket": BUCKET, "Key": "small"})
            same(fetch(url + f"&{query}", "PUT", b"")[0] in (403, 501), True, f"refusal of ?{query}")
        same(get("small"), data("small"), "body afterwards")

    @step("the system area does not show")
    def _():
        refused(("AccessDenied", "NoSuchBucket", "NoSuchKey", "InvalidArgument", "InvalidRequest", "NotImplemented"),
                put, ".claviger/epochs/00/00", b"x") if ".claviger" in "".join(listed(".claviger/")) else None
        same(list(listed(".claviger/")), [], "listed")


# --- end ---------------------------------------------------------------------------------------------------------------


@step("many small objects side by side")
def _():
    with concurrent.futures.ThreadPoolExecutor(16) as pool:
        list(pool.map(lambda n: put(f"crowd/{n}", b"%d" % n + data("small")), range(200)))
        bodies = list(pool.map(lambda n: get(f"crowd/{n}"), range(200)))
    same(bodies, [b"%d" % n + data("small") for n in range(200)], "bodies")


@step("a bucket with objects is BucketNotEmpty")
def _():
    refused("BucketNotEmpty", s3.delete_bucket, Bucket=BUCKET)


@step("empty the bucket and delete it")
def _():
    for upload in s3.list_multipart_uploads(Bucket=BUCKET).get("Uploads", []):
        s3.abort_multipart_upload(Bucket=BUCKET, Key=upload["Key"], UploadId=upload["UploadId"])
    keys = list(listed(""))
    for at in range(0, len(keys), 500):
        answer = s3.delete_objects(Bucket=BUCKET, Delete={"Objects": [{"Key": k} for k in keys[at:at + 500]]})
        same(answer.get("Errors", []), [], "errors")
    same(list(listed("")), [], "what is left")
    s3.delete_bucket(Bucket=BUCKET)
    refused(404, s3.head_bucket, Bucket=BUCKET)
