"""boto3: corners of S3 that programs rely on without knowing. Where the API reference leaves it open, the source stands beside the step."""

import base64
import concurrent.futures
import contextlib
import datetime
import hashlib
import sys
import urllib.parse
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

import boto3
import botocore.auth
import botocore.awsrequest
import botocore.client
import botocore.credentials
import botocore.exceptions
import urllib3

import canary
from canary import data
from harness import Suite, same

suite = Suite("fidelity")
step = suite.step
BUCKET = suite.bucket
# A listing has to go on beyond the tenth page of the largest size.
MANY = 10_050

s3 = boto3.client(
    "s3", endpoint_url=suite.endpoint, region_name=suite.region,
    aws_access_key_id=suite.access_key, aws_secret_access_key=suite.secret_key,
    config=botocore.client.Config(
        signature_version="s3v4", s3={"addressing_style": "path"}, max_pool_connections=32,
        retries={"max_attempts": 3, "mode": "standard"}, parameter_validation=False,
        # Else the SDK asks for checksums by itself.
        response_checksum_validation="when_required",
    ),
)


def put(key, body, **arguments):
    return s3.put_object(Bucket=BUCKET, Key=key, Body=body, **arguments)


def get(key, **arguments):
    return s3.get_object(Bucket=BUCKET, Key=key, **arguments)["Body"].read()


def refused(code, function, *arguments, **named):
    try:
        function(*arguments, **named)
    except botocore.exceptions.ClientError as error:
        got, status = error.response["Error"]["Code"], error.response["ResponseMetadata"]["HTTPStatusCode"]
        if code not in (got, status):
            raise AssertionError(f"refused with {got} ({status}), not {code}") from error
        return error.response
    raise AssertionError(f"went through; expected {code}")


@contextlib.contextmanager
def headers(operation, **values):
    """Sends these headers, signed, with every call of `operation`; underscores stand for dashes."""
    values = {name.replace("_", "-"): value for name, value in values.items()}

    def add(params, **_):
        params["headers"].update(values)

    s3.meta.events.register(f"before-call.s3.{operation}", add)
    try:
        yield
    finally:
        s3.meta.events.unregister(f"before-call.s3.{operation}", add)


def raw(method, path, body=b"", payload=None, **named):
    """A request that no SDK would make: (status, body, headers)."""
    named = {name.replace("_", "-"): value for name, value in named.items()}
    request = botocore.awsrequest.AWSRequest(method, suite.endpoint + path, headers=named, data=body)
    request.context["payload_signing_enabled"] = payload is None
    credentials = botocore.credentials.Credentials(suite.access_key, suite.secret_key)
    auth = botocore.auth.S3SigV4Auth(credentials, "s3", suite.region)
    if payload:
        auth.payload = lambda _: payload
        request.headers["X-Amz-Content-SHA256"] = payload
    auth.add_auth(request)
    pool = urllib3.PoolManager(retries=False, timeout=60)
    sent = {name: value.encode().decode("latin-1") for name, value in request.headers.items()}
    answer = pool.request(method, suite.endpoint + path, headers=sent, body=body)
    return answer.status, answer.data, answer.headers


def code_of(answer):
    return answer[1].decode(errors="replace").partition("<Code>")[2].partition("</Code>")[0]


s3.create_bucket(Bucket=BUCKET, **({"CreateBucketConfiguration": {"LocationConstraint": suite.region}}
                                   if suite.claviger and suite.region != "us-east-1" else {}))
put("small", data("small"))


# --- dates and metadata ------------------------------------------------------------------------------------------------


@step("all three date formats in conditions (RFC 9110 section 5.6.7)")
def _():
    modified = s3.head_object(Bucket=BUCKET, Key="small")["LastModified"]
    forms = ["%a, %d %b %Y %H:%M:%S GMT", "%A, %d-%b-%y %H:%M:%S GMT", "%a %b %e %H:%M:%S %Y"]
    for form in forms:
        earlier = (modified - datetime.timedelta(days=1)).strftime(form)
        same_time = modified.strftime(form)
        for operation, call in [("GetObject", s3.get_object), ("HeadObject", s3.head_object)]:
            with headers(operation, If_Modified_Since=earlier):
                call(Bucket=BUCKET, Key="small")
            with headers(operation, If_Modified_Since=same_time):
                refused(304, call, Bucket=BUCKET, Key="small")
            with headers(operation, If_Unmodified_Since=earlier):
                refused(412, call, Bucket=BUCKET, Key="small")
            with headers(operation, If_Unmodified_Since=same_time):
                call(Bucket=BUCKET, Key="small")
    with headers("GetObject", If_Modified_Since="the day before yesterday"):
        same(get("small"), data("small"), "a condition that is no date counts as none (section 13.1.3)")


@step("Expires is kept as it was sent, also when it is no date")
def _():
    # GetObject's ExpiresString: "The date and time at which the object is no longer cacheable", a string, since S3 keeps
    # what it is sent and SDKs met values that are no date.
    for value in [canary.EXPIRES, "0", "-1", "never"]:
        with headers("PutObject", Expires=value):
            put("expires", data("small"))
        same(s3.head_object(Bucket=BUCKET, Key="expires").get("ExpiresString"), value, "Expires")
        with headers("CreateMultipartUpload", Expires=value):
            upload = s3.create_multipart_upload(Bucket=BUCKET, Key="expires-mp")["UploadId"]
        tag = s3.upload_part(Bucket=BUCKET, Key="expires-mp", UploadId=upload, PartNumber=1, Body=data("small"))["ETag"]
        s3.complete_multipart_upload(Bucket=BUCKET, Key="expires-mp", UploadId=upload,
                                     MultipartUpload={"Parts": [{"PartNumber": 1, "ETag": tag}]})
        same(s3.head_object(Bucket=BUCKET, Key="expires-mp").get("ExpiresString"), value, "Expires of a multipart object")


@step("content encodings and languages are kept, aws-chunked is not")
def _():
    for sent, kept in [("gzip", "gzip"), ("gzip, br", None), ("aws-chunked, gzip", "gzip"), ("identity", "identity")]:
        with headers("PutObject", Content_Encoding=sent):
            s3.put_object(Bucket=BUCKET, Key="encoding", Body=data("small"), ContentLanguage="de, x-canary-lang")
        answer = s3.head_object(Bucket=BUCKET, Key="encoding")
        same(answer["ContentLanguage"], "de, x-canary-lang", "Content-Language")
        if kept:
            same(answer["ContentEncoding"], kept, "Content-Encoding")
        else:
            same(answer["ContentEncoding"].replace(" ", ""), sent.replace(" ", ""), "Content-Encoding")


@step("metadata beyond ASCII travels as RFC 2047 words")
def _():
    # "Working with object metadata": values with characters beyond US-ASCII are decoded as RFC 2047 says before they are
    # stored, and encoded so before they are returned.
    def value_of(key):
        import email.header

        raw_value = s3.head_object(Bucket=BUCKET, Key=key)["Metadata"]["note"]
        raw_value.encode("ascii")
        return "".join(part.decode(name or "ascii") if isinstance(part, bytes) else part
                       for part, name in email.header.decode_header(raw_value))

    text = "grüße, 世界 canary-meta-4be1d2077f"
    word = "=?UTF-8?B?" + base64.b64encode(text.encode()).decode() + "?="
    quoted = "=?UTF-8?Q?" + "".join(chr(b) if chr(b).isalnum() and b < 128 else f"={b:02X}" for b in text.encode()) + "?="
    for sent in [word, quoted]:
        with headers("PutObject", x_amz_meta_note=sent):
            put("unicode", data("small"))
        same(value_of("unicode"), text, f"sent as {sent[:12]}")
    status, _, _ = raw("PUT", f"/{BUCKET}/unicode-raw", data("small"), x_amz_meta_note=text)
    same(status, 200, "the status")
    same(value_of("unicode-raw"), text, "sent as UTF-8")
    s3.copy_object(Bucket=BUCKET, Key="unicode-copy", CopySource={"Bucket": BUCKET, "Key": "unicode-raw"})
    same(value_of("unicode-copy"), text, "copied")


# --- conditional writes and deletes ------------------------------------------------------------------------------------


@step("CopyObject If-None-Match: * and If-Match on the destination")
def _():
    source = {"Bucket": BUCKET, "Key": "small"}
    s3.copy_object(Bucket=BUCKET, Key="copied", CopySource=source, IfNoneMatch="*")
    refused("PreconditionFailed", s3.copy_object, Bucket=BUCKET, Key="copied", CopySource=source, IfNoneMatch="*")
    put("copied", data("small2"))
    tag = s3.head_object(Bucket=BUCKET, Key="copied")["ETag"]
    refused("PreconditionFailed", s3.copy_object, Bucket=BUCKET, Key="copied", CopySource=source, IfMatch='"00000000000000000000000000000000"')
    same(get("copied"), data("small2"), "the object after a refused copy")
    s3.copy_object(Bucket=BUCKET, Key="copied", CopySource=source, IfMatch=tag)
    same(get("copied"), data("small"), "the object after the copy")


@step("DeleteObject If-Match")
def _():
    tag = put("delete-if", data("small"))["ETag"]
    refused("PreconditionFailed", s3.delete_object, Bucket=BUCKET, Key="delete-if", IfMatch='"00000000000000000000000000000000"')
    same(get("delete-if"), data("small"), "the object after a refused delete")
    s3.delete_object(Bucket=BUCKET, Key="delete-if", IfMatch=tag)
    refused("NoSuchKey", get, "delete-if")


@step("DeleteObjects with an ETag for each key")
def _():
    tags = {key: put(key, data("small"))["ETag"] for key in ["many/a", "many/b"]}
    objects = [{"Key": "many/a", "ETag": tags["many/a"]}, {"Key": "many/b", "ETag": '"00000000000000000000000000000000"'}]
    answer = s3.delete_objects(Bucket=BUCKET, Delete={"Objects": objects})
    same([entry["Key"] for entry in answer.get("Deleted", [])], ["many/a"], "Deleted")
    same([(entry["Key"], entry["Code"]) for entry in answer.get("Errors", [])], [("many/b", "PreconditionFailed")], "Errors")
    same(get("many/b"), data("small"), "the object that stays")


@step("DeleteObjects: Quiet, Content-MD5 and checksums, right and wrong")
def _():
    def document(quiet):
        return f"<Delete><Quiet>{quiet}</Quiet><Object><Key>batch/a</Key></Object></Delete>".encode()

    def digest(body, algorithm):
        return base64.b64encode(algorithm(body).digest()).decode()

    for quiet in ["true", "false"]:
        body, other = document(quiet), b"<Delete/>"
        put("batch/a", data("small"))
        same(code_of(raw("POST", f"/{BUCKET}?delete", body, Content_MD5=digest(other, hashlib.md5))), "BadDigest", "wrong MD5")
        wrong = raw("POST", f"/{BUCKET}?delete", body, x_amz_checksum_sha256=digest(other, hashlib.sha256))
        same(code_of(wrong), "BadDigest", "wrong checksum")
        same(get("batch/a"), data("small"), "the object after refused requests")
        for named in [{"Content_MD5": digest(body, hashlib.md5)}, {"x_amz_checksum_sha1": digest(body, hashlib.sha1)},
                      {"x_amz_checksum_sha512": digest(body, hashlib.sha512)}]:
            put("batch/a", data("small"))
            status, answer, _ = raw("POST", f"/{BUCKET}?delete", body, **named)
            same((status, b"<Deleted>" in answer), (200, quiet == "false"), f"{named} {answer}")
            refused("NoSuchKey", get, "batch/a")


# --- bodies --------------------------------------------------------------------------------------------------------------


@step("a trailer on UploadPart, right and wrong")
def _():
    import zlib

    body, upload = data("part1"), s3.create_multipart_upload(Bucket=BUCKET, Key="trailers", ChecksumAlgorithm="CRC32")["UploadId"]
    value = base64.b64encode(zlib.crc32(body).to_bytes(4, "big")).decode()

    def part(checksum):
        chunks = b"".join(b"%x\r\n%s\r\n" % (len(body[at:at + 100_000]), body[at:at + 100_000]) for at in range(0, len(body), 100_000))
        framed = chunks + b"0\r\nx-amz-checksum-crc32:" + checksum.encode() + b"\r\n\r\n"
        path = f"/{BUCKET}/trailers?partNumber=1&uploadId={urllib.parse.quote(upload, safe='')}"
        return raw("PUT", path, framed, payload="STREAMING-UNSIGNED-PAYLOAD-TRAILER", x_amz_trailer="x-amz-checksum-crc32",
                   x_amz_decoded_content_length=str(len(body)), Content_Encoding="aws-chunked")

    same(code_of(part("AAAAAA==")), "BadDigest", "a wrong trailer")
    status, answer, got = part(value)
    same((status, got.get("x-amz-checksum-crc32")), (200, value), answer)
    s3.complete_multipart_upload(Bucket=BUCKET, Key="trailers", UploadId=upload, MultipartUpload={
        "Parts": [{"PartNumber": 1, "ETag": got["ETag"], "ChecksumCRC32": value}]})
    same(get("trailers"), body, "the object")


@step("x-amz-checksum-mode: of a whole object, not of a range; of nothing when it is not asked for")
def _():
    put("mode", data("small"), ChecksumAlgorithm="SHA256")
    want = base64.b64encode(hashlib.sha256(data("small")).digest()).decode()
    for call in [s3.get_object, s3.head_object]:
        same(call(Bucket=BUCKET, Key="mode", ChecksumMode="ENABLED").get("ChecksumSHA256"), want, "asked for")
        same(call(Bucket=BUCKET, Key="mode").get("ChecksumSHA256"), None, "not asked for")
        same(call(Bucket=BUCKET, Key="mode", ChecksumMode="ENABLED", Range="bytes=0-9").get("ChecksumSHA256"), None, "a range")
    same(code_of(raw("GET", f"/{BUCKET}/mode", x_amz_checksum_mode="MAYBE")), "InvalidArgument", "a mode that is none")


@step("response-* overrides of HEAD and of a range")
def _():
    overrides = {"ResponseContentType": canary.RESPONSE_TYPE, "ResponseContentDisposition": canary.RESPONSE_DISPOSITION,
                 "ResponseCacheControl": "no-cache", "ResponseContentLanguage": "eo", "ResponseContentEncoding": "x-aaa"}
    for call, more in [(s3.head_object, {}), (s3.get_object, {"Range": "bytes=3-5"})]:
        answer = call(Bucket=BUCKET, Key="small", **overrides, **more)
        got = [answer[name[len("Response"):]] for name in overrides]
        same(got, list(overrides.values()), call.__name__)


# --- listings ------------------------------------------------------------------------------------------------------------


@step("max-keys at its edges")
def _():
    for value, want in [("0", 0), ("1", 1), ("1000", 3), ("1001", 3), ("2147483647", 3), ("", 3)]:
        for version in ["", "&list-type=2"]:
            status, body, _ = raw("GET", f"/{BUCKET}?max-keys={value}{version}")
            same(status, 200, value)
            same(min(body.count(b"<Contents>"), 3), min(want, 3), f"entries for max-keys={value!r}{version}")
    for value in ["-1", "abc", "1.5", "2147483648"]:
        for version in ["", "&list-type=2"]:
            same(code_of(raw("GET", f"/{BUCKET}?max-keys={value}{version}")), "InvalidArgument", value)


@step("fetch-owner: owners only where they are asked for")
def _():
    v2 = lambda **arguments: s3.list_objects_v2(Bucket=BUCKET, **arguments)["Contents"]  # noqa: E731
    same([entry for entry in v2() if "Owner" in entry], [], "without")
    owners = {entry["Owner"]["ID"] for entry in v2(FetchOwner=True)}
    same(len(owners), 1, "owners")
    same({entry["Owner"]["ID"] for entry in s3.list_objects(Bucket=BUCKET)["Contents"]}, owners, "owners of version 1")


AWKWARD = ["odd/a b", "odd/a+b", "odd/a%2Fb", "odd/ä", "odd/世界", "odd/&<>\"'", "odd//", "odd/\x01", "odd/~*", "odd/" + "k" * 1020]


@step("encoding-type=url in every listing, with names that need it")
def _():
    for key in AWKWARD:
        put(key, b"x")
    for version in ["", "&list-type=2"]:
        status, body, _ = raw("GET", f"/{BUCKET}?prefix=odd%2F&encoding-type=url{version}")
        keys = [urllib.parse.unquote_plus(part.split("</Key>")[0]) for part in body.decode().split("<Key>")[1:]]
        same((status, sorted(keys)), (200, sorted(AWKWARD)), f"listing {version}")
        same(b"<EncodingType>url</EncodingType>" in body, True, "EncodingType")
        same(code_of(raw("GET", f"/{BUCKET}?encoding-type=base64{version}")), "InvalidArgument", "another type")
    uploads = {key: s3.create_multipart_upload(Bucket=BUCKET, Key=key)["UploadId"] for key in AWKWARD[:6]}
    listed = s3.list_multipart_uploads(Bucket=BUCKET, Prefix="odd/")["Uploads"]
    same(sorted(entry["Key"] for entry in listed), sorted(uploads), "uploads")
    for key, upload in uploads.items():
        same(s3.list_parts(Bucket=BUCKET, Key=key, UploadId=upload)["Key"], key, "ListParts")
        s3.abort_multipart_upload(Bucket=BUCKET, Key=key, UploadId=upload)
    for key in AWKWARD:
        s3.delete_object(Bucket=BUCKET, Key=key)


@step(f"prepare {MANY} objects")
def _():
    with concurrent.futures.ThreadPoolExecutor(24) as pool:
        list(pool.map(lambda number: put(f"n/{number:05}", b""), range(MANY), chunksize=50))


NAMES = [f"n/{number:05}" for number in range(MANY)]


def walk(version, **arguments):
    """All keys and prefixes, and the number of pages."""
    name = "list_objects_v2" if version == 2 else "list_objects"
    keys, prefixes, pages = [], [], 0
    for page in s3.get_paginator(name).paginate(Bucket=BUCKET, **arguments):
        keys += [entry["Key"] for entry in page.get("Contents", [])]
        prefixes += [entry["Prefix"] for entry in page.get("CommonPrefixes", [])]
        pages += 1
    return keys, prefixes, pages


@step("more than 10,000 keys, both versions, page after page")
def _():
    for version in [1, 2]:
        keys, _, pages = walk(version, Prefix="n/")
        same((len(keys), keys == NAMES, pages), (MANY, True, 11), f"version {version}")
        keys, prefixes, _ = walk(version, Delimiter="0", Prefix="n/1")
        same((keys, prefixes), (NAMES[10_000:] and [], ["n/10"]), f"version {version} with a delimiter")
        keys, _, pages = walk(version, Prefix="n/09", PaginationConfig={"PageSize": 333})
        same((keys == NAMES[9000:10_000], pages), (True, 4), f"version {version} in pages of 333")


@step("start-after and markers far inside, at a key, between keys and behind the last")
def _():
    for after, want in [("n/09998", NAMES[9999:]), ("n/09998x", NAMES[9999:]), (NAMES[-1], []), ("zzz", []), ("n/", NAMES)]:
        page = s3.list_objects_v2(Bucket=BUCKET, Prefix="n/", StartAfter=after)
        same([entry["Key"] for entry in page.get("Contents", [])], want[:1000], f"start-after {after}")
        page = s3.list_objects(Bucket=BUCKET, Prefix="n/", Marker=after)
        same([entry["Key"] for entry in page.get("Contents", [])], want[:1000], f"marker {after}")


@step("delete them in batches of 1,000")
def _():
    for at in range(0, MANY, 1000):
        objects = [{"Key": key} for key in NAMES[at:at + 1000]]
        answer = s3.delete_objects(Bucket=BUCKET, Delete={"Objects": objects, "Quiet": True})
        same(answer.get("Errors", []), [], "errors")
    same(walk(2, Prefix="n/")[0], [], "what is left")
    too_many = [{"Key": f"n/{number}"} for number in range(1001)]
    refused("MalformedXML", s3.delete_objects, Bucket=BUCKET, Delete={"Objects": too_many})


@step("empty the bucket and delete it")
def _():
    for key in walk(2)[0]:
        s3.delete_object(Bucket=BUCKET, Key=key)
    s3.delete_bucket(Bucket=BUCKET)
