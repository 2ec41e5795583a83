"""POST Object: HTML forms as a browser sends them, signed by boto3's generate_presigned_post, sent by urllib3."""

import base64
import contextlib
import datetime
import hashlib
import hmac
import json
import socket
import sys
import time
from pathlib import Path
from urllib.parse import quote, urlsplit

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

import boto3
import botocore.client
import urllib3

import canary
from canary import data
from harness import Suite, same

suite = Suite("forms")
step = suite.step
BUCKET = suite.bucket
URL = f"{suite.endpoint}/{BUCKET}"
http = urllib3.PoolManager(retries=False, timeout=60)

s3 = boto3.client(
    "s3", endpoint_url=suite.endpoint, region_name=suite.region,
    aws_access_key_id=suite.access_key, aws_secret_access_key=suite.secret_key,
    config=botocore.client.Config(signature_version="s3v4", s3={"addressing_style": "path"}),
)


def signed(key, fields=None, conditions=None, **arguments):
    """The fields of a form; each of `fields` gets its condition."""
    conditions = (conditions or []) + [{name: value} for name, value in (fields or {}).items()]
    return s3.generate_presigned_post(BUCKET, key, Fields=fields, Conditions=conditions, **arguments)["fields"]


def send(fields, body, filename="file.bin", after=(), url=URL):
    """A form: fields, the file, and maybe fields behind it. Redirects are not followed."""
    parts = [*fields.items(), ("file", (filename, body, "application/octet-stream")), *after]
    return http.request("POST", url, fields=parts, redirect=False)


def refused(answer, status, code=None):
    same(answer.status, status, "the status")
    if code:
        same(answer.data.decode().partition("<Code>")[2].partition("</Code>")[0], code, "the code")


def absent(key):
    same([entry["Key"] for entry in s3.list_objects_v2(Bucket=BUCKET, Prefix=key).get("Contents", [])], [], "the listing")


def stored(key, body):
    answer = s3.get_object(Bucket=BUCKET, Key=key)
    same(answer["Body"].read(), body, "the object")
    return answer


def policy(conditions, seconds=600):
    """A policy signed with version 4 whose conditions are exactly these, beside those of the signature."""
    now = datetime.datetime.now(datetime.timezone.utc)
    date, stamp = now.strftime("%Y%m%d"), now.strftime("%Y%m%dT%H%M%SZ")
    credential = f"{suite.access_key}/{date}/{suite.region}/s3/aws4_request"
    fields = {"x-amz-algorithm": "AWS4-HMAC-SHA256", "x-amz-credential": credential, "x-amz-date": stamp}
    expiration = (now + datetime.timedelta(seconds=seconds)).strftime("%Y-%m-%dT%H:%M:%SZ")
    document = {"expiration": expiration, "conditions": conditions + [{name: value} for name, value in fields.items()]}
    return sign(document, fields, date)


def sign(document, fields, date):
    text = base64.b64encode(json.dumps(document).encode())
    key = ("AWS4" + suite.secret_key).encode()
    for message in [date, suite.region, "s3", "aws4_request", text.decode()]:
        key = hmac.new(key, message.encode(), hashlib.sha256).digest()
    return fields | {"policy": text.decode(), "x-amz-signature": key.hex()}


s3.create_bucket(Bucket=BUCKET, **({} if suite.region == "us-east-1" else {
    "CreateBucketConfiguration": {"LocationConstraint": suite.region}} if suite.claviger else {}))


@step("a small form: 204, ETag, Location, one size everywhere")
def small():
    answer = send(signed("form/small"), data("small"))
    same(answer.status, 204, "the status")
    got = stored("form/small", data("small"))
    listed = s3.list_objects_v2(Bucket=BUCKET, Prefix="form/small")["Contents"][0]
    same((listed["Size"], listed["ETag"]), (len(data("small")), got["ETag"]), "the listing")
    same(answer.headers.get("ETag"), got["ETag"], "the ETag")
    same(answer.headers.get("Location"), f"{URL}/form/small", "Location")


@step("an empty file, and one of 20 MiB")
def sizes():
    for name, body in [("empty", b""), ("20m", data("large"))]:
        same(send(signed(f"form/{name}"), body).status, 204, name)
        stored(f"form/{name}", body)


@step("files around the size that is held in memory, with and without a submit button behind them")
def edges():
    for length in [5 << 20, (5 << 20) + 20_000, (5 << 20) + 20_480, (5 << 20) + 20_700, (5 << 20) + 41_000]:
        body = data("large")[:length]
        for after in [(), [("submit", "Upload to the archive")]]:
            same(send(signed("form/edge"), body, after=after).status, 204, f"{length} {after}")
            stored("form/edge", body)


@step("a file that looks like the end of a form")
def delimiters():
    body = b"\r\n--\r\n----\r\nContent-Disposition: form-data; name=\"key\"\r\n\r\nother\r\n--" * 100
    same(send(signed("form/delimiters"), body).status, 204, "the status")
    stored("form/delimiters", body)


@step("headers and metadata from fields")
def headers():
    fields = {
        "Content-Type": canary.CONTENT_TYPE, "Cache-Control": canary.CACHE_CONTROL,
        "Content-Disposition": canary.CONTENT_DISPOSITION, "Content-Language": canary.CONTENT_LANGUAGE,
        "x-amz-meta-note": canary.META, "acl": "private",
    }
    same(send(signed("form/headers", fields), data("small")).status, 204, "the status")
    got = stored("form/headers", data("small"))
    same(got["ContentType"], canary.CONTENT_TYPE, "the type")
    same(got["CacheControl"], canary.CACHE_CONTROL, "Cache-Control")
    same(got["ContentDisposition"], canary.CONTENT_DISPOSITION, "Content-Disposition")
    same(got["ContentLanguage"], canary.CONTENT_LANGUAGE, "Content-Language")
    same(got["Metadata"], {"note": canary.META}, "the metadata")


@step("${filename} in the key")
def filename():
    same(send(signed("form/names/${filename}"), b"x", filename="C:\\docs\\über mich.txt").status, 204, "the status")
    stored("form/names/über mich.txt", b"x")


@step("success_action_status 200 and 201, with the document")
def statuses():
    for status in ["200", "201", "204"]:
        answer = send(signed("form/a b", {"success_action_status": status}), b"x")
        same(answer.status, int(status), "the status")
        text = answer.data.decode()
        if status == "201":
            for part in [f"<Bucket>{BUCKET}</Bucket>", "<Key>form/a b</Key>", "<Location>http"]:
                same(part in text, True, f"{part} in {text}")
        else:
            same(text, "", "the body")


@step("success_action_redirect, with bucket, key and ETag")
def redirect():
    target = "http://127.0.0.1:9/done"
    answer = send(signed("form/to/where", {"success_action_redirect": target}), b"x")
    same(answer.status, 303, "the status")
    etag = s3.head_object(Bucket=BUCKET, Key="form/to/where")["ETag"].strip('"')
    expected = f"{target}?bucket={BUCKET}&key={quote('form/to/where', safe='')}&etag=%22{etag}%22"
    same(answer.headers["Location"], expected, "Location")


@step("names and operators of conditions in any case")
def case():
    fields = policy([{"bUcKeT": BUCKET}, ["StArTs-WiTh", "$KeY", "form/"], {"AcL": "private"}, ["EQ", "$Content-TYPE", "a/b"]])
    same(send(fields | {"kEy": "form/case", "aCl": "private", "content-type": "a/b"}, b"x").status, 204, "the status")
    stored("form/case", b"x")


@step("fields that the policy ignores")
def ignored():
    same(send(signed("form/ignored") | {"x-ignore-this": "1"}, b"x").status, 204, "the status")


@step("a form that its policy does not cover is AccessDenied and stores nothing")
def uncovered():
    base = [{"bucket": BUCKET}, ["starts-with", "$key", "form/no"]]
    refused(send(signed("form/no1") | {"key": "form/other"}, b"x"), 403, "AccessDenied")
    refused(send(policy(base) | {"key": "form/no2", "acl": "private"}, b"x"), 403, "AccessDenied")
    refused(send(policy(base[1:]) | {"key": "form/no3"}, b"x"), 403, "AccessDenied")
    refused(send(policy([{"bucket": "another"}, base[1]]) | {"key": "form/no4"}, b"x"), 403, "AccessDenied")
    refused(send(policy(base + [{"x-amz-meta-a": "1"}]) | {"key": "form/no5"}, b"x"), 403, "AccessDenied")
    refused(send(policy(base, seconds=-10) | {"key": "form/no6"}, b"x"), 403, "AccessDenied")
    absent("form/no")
    absent("form/other")


@step("a document that is no policy is refused")
def no_policy():
    fields = policy([{"bucket": BUCKET}])
    date = fields["x-amz-date"][:8]
    plain = {name: fields[name] for name in ["x-amz-algorithm", "x-amz-credential", "x-amz-date"]}
    for document in [{}, {"conditions": []}, {"expiration": "2099-01-01T00:00:00Z", "conditions": [{}]},
                     {"expiration": "tomorrow", "conditions": []}, {"expiration": "2099-01-01T00:00:00Z"}]:
        refused(send(sign(document, plain, date) | {"key": "form/bad"}, b"x"), 400)
    absent("form/bad")


@step("a signature that is wrong, missing, or of an unknown key is refused")
def signatures():
    fields = signed("form/bad")
    refused(send(fields | {"x-amz-signature": "0" * 64}, b"x"), 403, "SignatureDoesNotMatch")
    foreign = fields["x-amz-credential"].replace(suite.access_key, "NOBODYSKEY")
    refused(send(fields | {"x-amz-credential": foreign}, b"x"), 403, "InvalidAccessKeyId")
    refused(send({"key": "form/bad"}, b"x"), 403, "AccessDenied")
    del fields["x-amz-signature"]
    refused(send(fields, b"x"), 400 if suite.claviger else 403)
    absent("form/bad")


@step("content-length-range: too small, too large, just right")
def ranges():
    conditions = [["content-length-range", 10, 1000]]
    refused(send(signed("form/range", conditions=conditions), b"x" * 9), 400, "EntityTooSmall")
    refused(send(signed("form/range", conditions=conditions), b"x" * 1001), 400, "EntityTooLarge")
    if suite.target != "provider":
        # By itself the embedded provider ends the connection while the file is still coming.
        refused(send(signed("form/range", conditions=conditions), data("large")), 400, "EntityTooLarge")
    absent("form/range")
    for length in [10, 1000]:
        same(send(signed("form/range", conditions=conditions), b"x" * length).status, 204, "the status")
    length = (6 << 20) + 1
    if suite.target == "provider":
        return
    for low, high, code in [(length + 1, 1 << 30, "EntityTooSmall"), (0, length - 1, "EntityTooLarge"), (length, length, None)]:
        answer = send(signed("form/range6", conditions=[["content-length-range", low, high]]), data("large")[:length])
        same(answer.status, 400 if code else 204, code)
    stored("form/range6", data("large")[:length])


@step("a checksum and Content-MD5 as fields: right and wrong")
def checksums():
    for length in [1000, 6 << 20]:
        body = data("large")[:length]
        for name, digest in [("x-amz-checksum-sha256", hashlib.sha256(body)), ("Content-MD5", hashlib.md5(body))]:
            value = base64.b64encode(digest.digest()).decode()
            key = f"form/sum/{name}/{length}"
            refused(send(signed(key, {name: value}), body[:-1] + b"!"), 400, "BadDigest")
            absent(key)
            same(send(signed(key, {name: value}), body).status, 204, "the status")
            stored(key, body)
            if name.startswith("x-amz"):
                same(s3.head_object(Bucket=BUCKET, Key=key, ChecksumMode="ENABLED")["ChecksumSHA256"], value, "the checksum")


@step("no upload is left behind by a form that failed")
def left_behind():
    same(s3.list_multipart_uploads(Bucket=BUCKET).get("Uploads", []), [], "uploads")


@step("what is no form is refused before anything is stored")
def malformed():
    def raw(body, content_type="multipart/form-data; boundary=b", **headers):
        return http.request("POST", URL, body=body, headers={"Content-Type": content_type, **headers})

    refused(raw(b"key=form/bad", "application/x-www-form-urlencoded"), 412, "PreconditionFailed")
    refused(raw(b"", "multipart/form-data"), 400, "MalformedPOSTRequest")
    refused(raw(b"no form"), 400, "MalformedPOSTRequest")
    refused(raw(b"--b\r\nContent-Disposition: form-data; name=\"key\"\r\n\r\nform/bad\r\n--b--\r\n"), 400, "InvalidArgument")
    long = b"--b\r\nContent-Disposition: form-data; name=\"key\"\r\n\r\n" + b"k" * 30_000 + b"\r\n--b--\r\n"
    refused(raw(long), 400, "MaxPostPreDataLengthExceeded")
    absent("form/bad")


if suite.claviger:
    @step("half forms of strangers take no place from those who sign, nor from forms to come")
    def half_forms():
        target = urlsplit(URL)
        head = (f"POST {target.path} HTTP/1.1\r\nHost: {target.netloc}\r\nContent-Type: multipart/form-data; boundary=b\r\n"
                "Content-Length: 20000\r\n\r\n--b\r\n").encode()
        with contextlib.ExitStack() as stack:
            for _ in range(600):
                stranger = stack.enter_context(socket.create_connection((target.hostname, target.port), timeout=20))
                stranger.sendall(head)
            same(stranger.recv(12), b"HTTP/1.1 503", "the answer to one too many")
            read = s3.generate_presigned_url("list_objects_v2", Params={"Bucket": BUCKET})
            same(http.request("GET", read).status, 200, "the status of a request that is signed")
        for _ in range(50):
            answer = send(signed("form/after"), data("small"))
            if answer.status != 503:
                break
            time.sleep(0.1)
        same(answer.status, 204, "the status of a form afterwards")


@step("empty the bucket and delete it")
def clean():
    for page in s3.get_paginator("list_objects_v2").paginate(Bucket=BUCKET):
        for entry in page.get("Contents", []):
            s3.delete_object(Bucket=BUCKET, Key=entry["Key"])
    s3.delete_bucket(Bucket=BUCKET)
