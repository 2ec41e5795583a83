#!/usr/bin/env python3
"""Uploads whose end is told twice.

    uploads.py --claviger BINARY --double BINARY

Starts a store double of claviger-testkit, a relay that delays what Claviger removes after an upload, and `claviger demo` before it. A
client that does not hear the answer to CompleteMultipartUpload repeats it: it has to hear the same, whenever it comes, and success
only of an object that it can read.

Run it with the Python of the boto3 environment. The last line is `N passed, N failed`.
"""

import argparse
import tempfile
import threading
import time
import urllib.parse
from pathlib import Path

import boto3
import botocore.client
import botocore.exceptions

from doubles import Demo, Double
from relay import relay

BUCKET = "told-twice"
CLEANING_S = 3


class Store:
    """The double, reached over a relay that makes Claviger wait for the removal of its own records."""

    def __init__(self, double):
        target = urllib.parse.urlsplit(double.endpoint)

        def before(piece):
            if piece.startswith(b"DELETE /claviger-system"):
                time.sleep(CLEANING_S)

        host, port = relay(("127.0.0.1", 0), (target.hostname, target.port), before)
        self.endpoint = f"http://{host}:{port}"
        self.region, self.access_key, self.secret_key = double.region, double.access_key, double.secret_key
        self.direct = boto3.client(
            "s3", endpoint_url=double.endpoint, region_name=double.region, aws_access_key_id=double.access_key,
            aws_secret_access_key=double.secret_key,
            config=botocore.client.Config(signature_version="s3v4", s3={"addressing_style": "path"}))


def uploaded(s3, key, times):
    """An upload whose only part, a short one, is sent so many times; what Complete takes, with the first tag."""
    upload = s3.create_multipart_upload(Bucket=BUCKET, Key=key)["UploadId"]
    part = dict(Bucket=BUCKET, Key=key, UploadId=upload, PartNumber=1)
    tags = [s3.upload_part(**part, Body=b"x" * 1000)["ETag"] for _ in range(times)]
    parts = {"Parts": [{"PartNumber": 1, "ETag": tags[0]}]}
    return dict(Bucket=BUCKET, Key=key, UploadId=upload, MultipartUpload=parts)


def outcome(s3, complete):
    try:
        s3.complete_multipart_upload(**complete)
        return "completed"
    except botocore.exceptions.ClientError as error:
        return error.response["Error"]["Code"]


def repeated_while_the_first_cleans_up(s3, _, times):
    complete = uploaded(s3, f"sent {times} times", times)
    heard = {}
    first = threading.Thread(target=lambda: heard.update(first=outcome(s3, complete)))
    first.start()
    # The object is there, and what belonged to the upload is being removed.
    deadline = time.monotonic() + 30
    while "Contents" not in s3.list_objects_v2(Bucket=BUCKET, Prefix=complete["Key"]):
        assert time.monotonic() < deadline, "the object did not appear"
        time.sleep(0.05)
    heard["meanwhile"] = outcome(s3, complete)
    first.join()
    heard["afterwards"] = outcome(s3, complete)
    assert set(heard.values()) == {"completed"}, heard
    assert s3.get_object(Bucket=BUCKET, Key=complete["Key"])["Body"].read() == b"x" * 1000


def an_object_of_an_earlier_bucket(s3, store, key="left behind"):
    for item in s3.list_objects_v2(Bucket=BUCKET).get("Contents", []):
        s3.delete_object(Bucket=BUCKET, Key=item["Key"])
    complete = uploaded(s3, key, 1)
    assert outcome(s3, complete) == "completed"
    [at_store] = store.direct.list_objects_v2(Bucket=BUCKET)["Contents"]
    sealed = store.direct.get_object(Bucket=BUCKET, Key=at_store["Key"])
    body = sealed["Body"].read()
    s3.delete_object(Bucket=BUCKET, Key=key)
    s3.delete_bucket(Bucket=BUCKET)
    s3.create_bucket(Bucket=BUCKET)
    # As if it had come a moment later than the deletion of its bucket.
    store.direct.put_object(Bucket=BUCKET, Key=at_store["Key"], Body=body, Metadata=sealed["Metadata"])
    try:
        s3.get_object(Bucket=BUCKET, Key=key)["Body"].read()
        raise AssertionError("an object of another bucket of this name was opened")
    except botocore.exceptions.ClientError:
        pass
    heard = outcome(s3, complete)
    assert heard == "NoSuchUpload", heard


STEPS = [
    ("Complete, repeated while the first cleans up", lambda *at: repeated_while_the_first_cleans_up(*at, 1)),
    ("the same, with the first tag of a part that was sent twice", lambda *at: repeated_while_the_first_cleans_up(*at, 2)),
    ("Complete, repeated in a later bucket of the name, is no success", an_object_of_an_earlier_bucket),
]


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--claviger", required=True)
    parser.add_argument("--double", required=True)
    options = parser.parse_args()
    failed = 0
    with tempfile.TemporaryDirectory(prefix="claviger-uploads-") as folder:
        double = Double(options.double, "minio")
        store = Store(double)
        demo = Demo(options.claviger, Path(folder), "generic", store)
        try:
            demo.s3.create_bucket(Bucket=BUCKET)
            for name, step in STEPS:
                try:
                    step(demo.s3, store)
                    print(f"PASS     uploads × {name}", flush=True)
                except Exception as problem:
                    failed += 1
                    print(f"FAIL     uploads × {name}: {type(problem).__name__}: {problem}", flush=True)
            demo.stop()
        finally:
            demo.process.kill()
            double.stop()
    print(f"{len(STEPS) - failed} passed, {failed} failed")
    raise SystemExit(1 if failed else 0)


if __name__ == "__main__":
    main()
