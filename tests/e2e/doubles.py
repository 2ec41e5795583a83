#!/usr/bin/env python3
"""Claviger before doubles of the providers that can't be run here.

    doubles.py --claviger BINARY --double BINARY [--only NAME,NAME]

Starts, for each provider, the double of claviger-testkit (an S3 store that refuses what the provider documents to refuse) and
`claviger demo` before it with the provider's profile, and goes through what an application does: objects, listings, copies,
multipart uploads in several shapes, conditional writes, batches of deletions. What a provider can't do has to end in its error and
store nothing. That a double accepts something does not prove that the provider does.

Run it with the Python of the boto3 environment. The last line is `N passed, N failed`.
"""

import argparse
import concurrent.futures
import datetime
import io
import random
import signal
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.parse
import urllib.request
from pathlib import Path

import boto3
import botocore.client
import botocore.exceptions
from boto3.s3.transfer import TransferConfig

from relay import relay

BUCKET = "an-application"
MIB = 1 << 20
# What the providers document, for the answers that a client is to see. Conditions: kept, or refused with NotImplemented.
EXPECTED = {
    "aws": {"locked parts": "InvalidRequest"},
    "minio": {},
    "gcs": {"conditions": "refused", "lock": "NotImplemented"},
    "ovhcloud": {"lock": "InvalidRequest", "locked": "InvalidRequest", "locked parts": "InvalidRequest"},
    "r2": {"uneven": "InvalidPart", "lock": "NotImplemented"},
    "b2": {"conditions": "refused"},
    "wasabi": {"lock": "InvalidRequest", "locked": "InvalidRequest", "locked parts": "InvalidRequest"},
}


def data(name, size):
    return random.Random(name).randbytes(size)


# With another profile than their provider's these steps have to fail: the doubles do refuse, and the profiles make up for it.
CONTROL = {
    ("aws", "wasabi"): {"a_bucket_with_a_default_retention"},
    ("r2", "generic"): {"a_last_part_of_more_than_5_mib", "a_last_part_nearly_as_long_as_the_others"},
    ("gcs", "generic"): {"deletions", "conditional_writes"},
}


class Double:
    def __init__(self, program, name):
        self.process = subprocess.Popen([program, name], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        endpoint, self.region, self.access_key, self.secret_key = (
            self.process.stdout.readline().strip() for _ in range(4))
        self.gets = self.connections = 0
        host, port = urllib.parse.urlsplit(endpoint).netloc.split(":")
        here = relay(("127.0.0.1", 0), (host, int(port)), before=self.sent, accepted=self.accepted)
        self.endpoint = "http://{}:{}".format(*here)

    def sent(self, piece):
        # A request without a body is sent in one piece.
        self.gets += piece.startswith(b"GET ")

    def accepted(self):
        self.connections += 1

    def stop(self):
        self.process.stdin.close()
        self.process.wait(20)


class Demo:
    def __init__(self, program, folder, profile, double):
        credentials = folder / "upstream.toml"
        credentials.touch(mode=0o600)
        credentials.write_text(f'access_key_id = "{double.access_key}"\nsecret_access_key = "{double.secret_key}"\n')
        ready = folder / "ready"
        with open(folder / "demo.log", "w") as log:
            self.process = subprocess.Popen(
                [program, "demo", "--dir", str(folder / "demo"), "--listen", "127.0.0.1:0", "--ready-file", str(ready),
                 "--upstream", double.endpoint, "--upstream-region", double.region, "--upstream-profile", profile,
                 "--upstream-credentials", str(credentials)], stdout=log, stderr=log)
        deadline = time.monotonic() + 60
        while not ready.exists() or not ready.read_text().strip():
            if self.process.poll() is not None or time.monotonic() > deadline:
                raise SystemExit((folder / "demo.log").read_text()[-2000:])
            time.sleep(0.05)
        lines = (folder / "demo" / "credentials.env").read_text().replace("export ", "").split()
        env = dict(line.replace('"', "").replace("'", "").split("=", 1) for line in lines if "=" in line)
        self.s3 = boto3.client(
            "s3", endpoint_url=env["AWS_ENDPOINT_URL"], region_name=env["AWS_REGION"],
            aws_access_key_id=env["AWS_ACCESS_KEY_ID"], aws_secret_access_key=env["AWS_SECRET_ACCESS_KEY"],
            config=botocore.client.Config(signature_version="s3v4", s3={"addressing_style": "path"}, retries={"max_attempts": 1},
                                          read_timeout=60, max_pool_connections=16))

    def stop(self):
        self.process.send_signal(signal.SIGINT)
        if self.process.wait(60) != 0:
            raise AssertionError(f"claviger demo ended with {self.process.returncode}")


def same(got, want, what):
    if got != want:
        raise AssertionError(f"{what} is {str(got)[:120]!r}, not {str(want)[:120]!r}")


def refused(code, function, **arguments):
    try:
        function(**arguments)
    except botocore.exceptions.ClientError as error:
        same(error.response["Error"]["Code"], code, "the error")
        return
    raise AssertionError(f"went through; expected {code}")


class Steps:
    """What an application does."""

    def __init__(self, s3, expected, double):
        self.s3, self.expected, self.double = s3, expected, double

    def get(self, key, **arguments):
        return self.s3.get_object(Bucket=BUCKET, Key=key, **arguments)["Body"].read()

    def put(self, key, body, **arguments):
        return self.s3.put_object(Bucket=BUCKET, Key=key, Body=body, **arguments)

    def keys(self, prefix=""):
        pages = self.s3.get_paginator("list_objects_v2").paginate(Bucket=BUCKET, Prefix=prefix)
        return {entry["Key"]: entry["Size"] for page in pages for entry in page.get("Contents", [])}

    def multipart(self, key, sizes, order=None):
        """Uploads parts of these sizes; gives their bytes and what completes the upload."""
        bodies = {number: data(f"{key}-{number}", size) for number, size in enumerate(sizes, 1)}
        upload = self.s3.create_multipart_upload(Bucket=BUCKET, Key=key)["UploadId"]
        where = {"Bucket": BUCKET, "Key": key, "UploadId": upload}
        tags = {number: self.s3.upload_part(PartNumber=number, Body=bodies[number], **where)["ETag"] for number in order or bodies}
        parts = [{"PartNumber": number, "ETag": tags[number]} for number in sorted(tags)]
        return b"".join(bodies.values()), {"MultipartUpload": {"Parts": parts}, **where}

    def joined(self, key, sizes, order=None):
        whole, completion = self.multipart(key, sizes, order)
        self.s3.complete_multipart_upload(**completion)
        head = self.s3.head_object(Bucket=BUCKET, Key=key)
        same(head["ContentLength"], len(whole), "the size")
        same(self.keys(key)[key], len(whole), "the listed size")
        same(self.get(key) == whole, True, "the content is the same")
        middle = len(whole) - 2 * MIB
        same(self.get(key, Range=f"bytes={middle}-{middle + 99}"), whole[middle:middle + 100], "a range")

    # --- steps, in order

    def the_double_marks_itself(self):
        try:
            urllib.request.urlopen(self.double.endpoint, timeout=20)
        except urllib.error.HTTPError as error:
            assert error.headers["Server"].startswith("claviger-store-double/"), error.headers["Server"]

    def buckets(self):
        self.s3.create_bucket(Bucket=BUCKET)
        self.s3.head_bucket(Bucket=BUCKET)
        assert BUCKET in [bucket["Name"] for bucket in self.s3.list_buckets()["Buckets"]]

    def objects(self):
        body = data("object", 300_000)
        self.put("dir/object", body, ContentType="text/x-note", Metadata={"note": "of mine"}, CacheControl="no-store")
        got = self.s3.get_object(Bucket=BUCKET, Key="dir/object")
        same(got["Body"].read() == body, True, "the content is the same")
        same((got["ContentType"], got["Metadata"], got["CacheControl"]), ("text/x-note", {"note": "of mine"}, "no-store"), "headers")
        same(self.get("dir/object", Range="bytes=65530-65545"), body[65530:65546], "a range")
        self.put("empty", b"")
        same(self.get("empty"), b"", "an empty object")
        refused("MetadataTooLarge", self.put, key="too-much", body=b"x", Metadata={"note": "x" * 2048})

    def listings(self):
        for number in range(5):
            self.put(f"list/{number} +%/a", b"12345")
        same(self.keys("list/"), {f"list/{number} +%/a": 5 for number in range(5)}, "the listing")
        page = self.s3.list_objects_v2(Bucket=BUCKET, Prefix="list/", Delimiter="/", MaxKeys=3)
        same([entry["Prefix"] for entry in page["CommonPrefixes"]], [f"list/{number} +%/" for number in range(3)], "a page")
        page = self.s3.list_objects(Bucket=BUCKET, Prefix="list/", MaxKeys=2)
        same([entry["Size"] for entry in page["Contents"]], [5, 5], "a page of version 1")

    def copies(self):
        self.s3.copy_object(Bucket=BUCKET, Key="dir/copy", CopySource={"Bucket": BUCKET, "Key": "dir/object"})
        same(self.get("dir/copy") == self.get("dir/object"), True, "the copy is the same")
        self.s3.copy_object(Bucket=BUCKET, Key="dir/copy", CopySource={"Bucket": BUCKET, "Key": "dir/copy"},
                            MetadataDirective="REPLACE", Metadata={"note": "another"})
        same(self.s3.head_object(Bucket=BUCKET, Key="dir/copy")["Metadata"], {"note": "another"}, "new metadata")

    def storage_class(self):
        self.put("standard", b"x", StorageClass="STANDARD")
        same(self.get("standard"), b"x", "the object")

    def parts_of_one_size_and_a_short_last_one(self):
        self.joined("mp/short-last", [6 * MIB, 6 * MIB, 1000])

    def a_last_part_of_more_than_5_mib(self):
        self.joined("mp/long-last", [6 * MIB, 6 * MIB, 6 * MIB - 500_000])

    def a_last_part_nearly_as_long_as_the_others(self):
        self.joined("mp/nearly", [6 * MIB, 6 * MIB, 6 * MIB - 100])

    def parts_all_of_one_size(self):
        self.joined("mp/even", [6 * MIB, 6 * MIB])

    def one_part_only(self):
        self.joined("mp/one", [6 * MIB])

    def parts_in_any_order(self):
        self.joined("mp/order", [6 * MIB, 6 * MIB, 6 * MIB, 5 * MIB + 7], order=[4, 3, 1, 2])

    def parts_side_by_side(self):
        body = data("side by side", 23 * MIB + 123_456)
        config = TransferConfig(multipart_threshold=5 * MIB, multipart_chunksize=6 * MIB, max_concurrency=6)
        self.s3.upload_fileobj(io.BytesIO(body), BUCKET, "mp/managed", Config=config)
        same(self.get("mp/managed") == body, True, "the content is the same")

    def uneven_parts(self):
        whole, completion = self.multipart("mp/uneven", [6 * MIB, 7 * MIB, 1000])
        code = self.expected.get("uneven")
        if code is None:
            self.s3.complete_multipart_upload(**completion)
            same(self.get("mp/uneven") == whole, True, "the content is the same")
            return
        refused(code, self.s3.complete_multipart_upload, **completion)
        assert "mp/uneven" not in self.keys("mp/")
        self.s3.abort_multipart_upload(**{name: completion[name] for name in ["Bucket", "Key", "UploadId"]})

    def ranges_of_what_has_parts(self):
        key = "mp/ranges"
        spans = [(0, 99), (6 * MIB - 10, 6 * MIB + 10), (7 * MIB, 9 * MIB), (11 * MIB, 11 * MIB + 8)]

        def read(whole, first, last):
            same(self.get(key, Range=f"bytes={first}-{last}") == whole[first:last + 1], True, f"the content of {first}-{last} is the same")

        for shape in [[6 * MIB, 5 * MIB + 9], [5 * MIB, 5 * MIB, 2 * MIB]]:
            whole, completion = self.multipart(key, shape)
            self.s3.complete_multipart_upload(**completion)
            # Here neither an object without parts has its bytes, nor the one before: this finds what there is now.
            read(whole, *spans[1])
            before = (self.double.gets, self.double.connections)
            for first, last in spans * 5:
                read(whole, first, last)
            read(whole, 10 * MIB, len(whole) + 5)
            same(self.get(key, Range=f"bytes={8 * MIB}-") == whole[8 * MIB:], True, "the rest is the same")
            after = (self.double.gets - before[0], self.double.connections - before[1])
            same(after, (5 * len(spans) + 2, 0), "the number of requests, and of further connections")
        whole = data("without parts", 12 * MIB)
        self.put(key, whole)
        for first, last in spans:
            read(whole, first, last)

    def copied_parts(self):
        upload = self.s3.create_multipart_upload(Bucket=BUCKET, Key="mp/copied")["UploadId"]
        where = {"Bucket": BUCKET, "Key": "mp/copied", "UploadId": upload}
        source = {"Bucket": BUCKET, "Key": "mp/even"}
        parts = []
        for number, span in [(1, f"0-{6 * MIB - 1}"), (2, f"{6 * MIB}-{11 * MIB + 99}")]:
            done = self.s3.upload_part_copy(PartNumber=number, CopySource=source, CopySourceRange=f"bytes={span}", **where)
            parts.append({"PartNumber": number, "ETag": done["CopyPartResult"]["ETag"]})
        self.s3.complete_multipart_upload(MultipartUpload={"Parts": parts}, **where)
        same(self.get("mp/copied") == self.get("mp/even")[:11 * MIB + 100], True, "the content is the same")

    def conditional_writes(self):
        if self.expected.get("conditions") == "refused":
            refused("NotImplemented", self.put, key="cond", body=b"1", IfNoneMatch="*")
            assert "cond" not in self.keys("cond"), "stored in spite of its condition"
            tag = self.put("cond", b"1")["ETag"]
            refused("NotImplemented", self.put, key="cond", body=b"2", IfMatch=tag)
            same(self.get("cond"), b"1", "the object")
            return
        tag = self.put("cond", b"1", IfNoneMatch="*")["ETag"]
        refused("PreconditionFailed", self.put, key="cond", body=b"2", IfNoneMatch="*")
        tag = self.put("cond", b"3", IfMatch=tag)["ETag"]
        other = self.put("other", b"other")["ETag"]
        refused("PreconditionFailed", self.put, key="cond", body=b"4", IfMatch=other)
        same(self.get("cond"), b"3", "the object")
        with concurrent.futures.ThreadPoolExecutor(6) as pool:
            def attempt(number):
                try:
                    return bool(self.put("race", str(number).encode(), IfNoneMatch="*"))
                except botocore.exceptions.ClientError:
                    return False
            same(sum(pool.map(attempt, range(6))), 1, "the number of winners")

    def deletions(self):
        keys = [f"del/{number}" for number in range(40)]
        with concurrent.futures.ThreadPoolExecutor(8) as pool:
            list(pool.map(lambda key: self.put(key, b"x"), keys))
        self.s3.delete_object(Bucket=BUCKET, Key=keys[0])
        answer = self.s3.delete_objects(Bucket=BUCKET, Delete={"Objects": [{"Key": key} for key in keys[:30] + ["del/none"]]})
        same(sorted(entry["Key"] for entry in answer["Deleted"]), sorted(keys[:30] + ["del/none"]), "the deleted keys")
        same(answer.get("Errors"), None, "the errors")
        quiet = {"Objects": [{"Key": key} for key in keys[30:]], "Quiet": True}
        same(self.s3.delete_objects(Bucket=BUCKET, Delete=quiet).get("Deleted"), None, "a quiet answer")
        same(self.keys("del/"), {}, "what is left")

    def a_locked_object(self):
        until = datetime.datetime(2030, 1, 1, tzinfo=datetime.timezone.utc)
        lock = {"ObjectLockMode": "GOVERNANCE", "ObjectLockRetainUntilDate": until}
        if code := self.expected.get("lock"):
            refused(code, self.put, key="lock", body=b"locked", **lock)
            assert "lock" not in self.keys("lock"), "stored without its lock"
        else:
            self.put("lock", b"locked", **lock)
            same(self.get("lock"), b"locked", "the object")

    def a_bucket_with_a_default_retention(self):
        # The doubles take it from the name; what it wants is a digest with every write.
        locked = {"Bucket": BUCKET + "-locked", "Key": "k"}
        self.s3.create_bucket(Bucket=locked["Bucket"])
        for body in [b"", b"short", data("locked", 3 * MIB + 17)]:
            if code := self.expected.get("locked"):
                refused(code, self.s3.put_object, Body=body, **locked)
            else:
                self.s3.put_object(Body=body, **locked)
                same(self.s3.get_object(**locked)["Body"].read() == body, True, "the content is the same")
        upload = self.s3.create_multipart_upload(**locked)["UploadId"]
        part = {"UploadId": upload, "PartNumber": 1, "Body": data("locked part", 5 * MIB), **locked}
        if code := self.expected.get("locked parts"):
            refused(code, self.s3.upload_part, **part)
        else:
            self.s3.upload_part(**part)
        self.s3.abort_multipart_upload(UploadId=upload, **locked)
        self.s3.delete_object(**locked)
        self.s3.delete_bucket(Bucket=locked["Bucket"])

    def the_end(self):
        self.s3.delete_objects(Bucket=BUCKET, Delete={"Objects": [{"Key": key} for key in self.keys()]})
        same(self.s3.list_multipart_uploads(Bucket=BUCKET).get("Uploads"), None, "open uploads")
        self.s3.delete_bucket(Bucket=BUCKET)


STEPS = [name for name in vars(Steps) if not name.startswith("_") and name not in {"get", "put", "keys", "multipart", "joined"}]


def run(options, name, profile, results):
    with tempfile.TemporaryDirectory(prefix="claviger-double-") as folder:
        double = Double(options.double, name)
        demo = Demo(options.claviger, Path(folder), profile, double)
        try:
            steps = Steps(demo.s3, EXPECTED[name], double)
            for step in STEPS:
                problem = None
                try:
                    getattr(steps, step)()
                except Exception as error:  # noqa: BLE001 - whatever is thrown is the step's failure
                    problem = f"{type(error).__name__}: {error}"
                results.append((name, step, problem))
                if problem and profile == name:
                    print(f"FAIL     {name} × {step.replace('_', ' ')}: {problem[:300]}", flush=True)
            demo.stop()
        finally:
            if demo.process.poll() is None:
                demo.process.kill()
            double.stop()


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--claviger", required=True)
    parser.add_argument("--double", required=True)
    parser.add_argument("--only", default="")
    options = parser.parse_args()
    there_are = subprocess.run([options.double], stdout=subprocess.PIPE, text=True, check=True).stdout.split()
    same(sorted(there_are), sorted(EXPECTED), "the list of doubles")
    results = []
    for name in options.only.split(",") if options.only else there_are:
        began = time.monotonic()
        run(options, name, name, results)
        print(f"         {name}: {len(STEPS)} steps in {time.monotonic() - began:.0f} s", flush=True)
    for (name, profile), steps in CONTROL.items() if not options.only else ():
        control = []
        run(options, name, profile, control)
        really = {step for _, step, problem in control if problem}
        problem = None if steps <= really else f"{sorted(steps - really)} went through with the profile {profile}"
        results.append((name, "control", problem))
        if problem:
            print(f"FAIL     {name} × control: {problem}", flush=True)
    failed = sum(1 for _, _, problem in results if problem)
    print(f"{len(results) - failed} passed, {failed} failed")
    sys.exit(1 if failed else 0)


if __name__ == "__main__":
    main()
