#!/usr/bin/env python3
"""Clients with accounts of their own, and clients with none, through Claviger before a real Ceph RGW.

    accounts.py --claviger BINARY --rgw DIR        DIR: where tests/stores/rgw.py has started one

Run it with a Python that has boto3. It makes users at the store, gives `claviger demo` their keys as an AWS shared credentials
file, and shows that the store's owners, ACLs and policies mean through Claviger what they mean directly: most steps are done
both ways and compared. The last line is `N passed, N failed`.
"""

import argparse
import base64
import concurrent.futures
import hashlib
import hmac
import http.client
import json
import pathlib
import re
import signal
import socket
import struct
import subprocess
import sys
import tempfile
import threading
import time
import urllib.error
import urllib.parse
import urllib.request
import uuid

import boto3
import botocore
import botocore.config
import botocore.exceptions

from relay import relay

RUN = uuid.uuid4().hex[:8]
ALICE = (f"ALICE{RUN.upper()}", "alice-secret-of-forty-characters-0123456")
ALICE_TOO = (f"ALICETOO{RUN.upper()}", "alice-other-secret-of-forty-characters-01")
BOB = (f"BOB{RUN.upper()}", "bob-secret-of-forty-characters-012345678")
CAROL = (f"CAROL{RUN.upper()}", "carol-secret-of-forty-characters-0123456")
DAVE = ("DAVEOFTHEGATEWAY", "dave-secret-of-forty-characters-01234567", "dave/token+of=the/gateway")
BODY = b"for the eyes of whom the store lets in" * 100
passed, failed = 0, 0


def step(name):
    """Decorator: runs the function now and reports."""

    def run(function):
        global passed, failed
        try:
            function()
            passed += 1
            print(f"PASS     {name}", flush=True)
        except Exception as error:  # noqa: BLE001 - whatever is thrown is the step's failure
            failed += 1
            frame = error.__traceback__.tb_next or error.__traceback__
            print(f"FAIL     {name}: {type(error).__name__} in line {frame.tb_lineno}: {error}", flush=True)

    return run


def same(got, want):
    if got != want:
        raise AssertionError(f"{got!r} is not {want!r}")


def settings(**more):
    return botocore.config.Config(s3={"addressing_style": "path"}, retries={"total_max_attempts": 1}, **more)


def client(endpoint, key, **more):
    if key is None:
        return boto3.client("s3", endpoint_url=endpoint, region_name="us-east-1", config=settings(signature_version=botocore.UNSIGNED))
    return boto3.client("s3", endpoint_url=endpoint, region_name="us-east-1", aws_access_key_id=key[0], aws_secret_access_key=key[1],
                        aws_session_token=key[2] if len(key) > 2 else None, config=settings(**({"signature_version": "s3v4"} | more)))


def outcome(call, **arguments):
    """The error code of a call, or its HTTP status."""
    try:
        return call(**arguments)["ResponseMetadata"]["HTTPStatusCode"]
    except botocore.exceptions.ClientError as error:
        return error.response["Error"]["Code"], error.response["ResponseMetadata"]["HTTPStatusCode"]


def preflight(url):
    """Status and allowed origin of a preflight of a GET."""
    headers = {"Origin": "https://app.example", "Access-Control-Request-Method": "GET"}
    try:
        with urllib.request.urlopen(urllib.request.Request(url, method="OPTIONS", headers=headers), timeout=30) as answer:
            return answer.status, answer.headers.get("Access-Control-Allow-Origin")
    except urllib.error.HTTPError as error:
        return error.code, error.headers.get("Access-Control-Allow-Origin")


def read(s3, bucket, key):
    return s3.get_object(Bucket=bucket, Key=key)["Body"].read()


class Demo:
    def __init__(self, claviger, folder, upstream, credentials):
        self.claviger, self.folder, self.upstream, self.credentials = claviger, folder, upstream, credentials
        self.log, self.process, self.endpoint = folder / "demo.log", None, None

    def start(self, *more):
        ready = self.folder / "ready"
        ready.unlink(missing_ok=True)
        self.process = subprocess.Popen(
            [self.claviger, "demo", "--dir", self.folder / "demo", "--listen", "127.0.0.1:0", "--ready-file", ready,
             "--upstream", self.upstream, "--upstream-credentials", self.credentials, "--log", "info", "--log-format", "json", *more],
            stdout=subprocess.DEVNULL, stderr=open(self.log, "ab"))
        deadline = time.monotonic() + 60
        while not ready.exists():
            if self.process.poll() is not None or time.monotonic() > deadline:
                raise SystemExit(f"claviger demo did not start:\n{self.log.read_text()[-3000:]}")
            time.sleep(0.05)
        self.endpoint = ready.read_text().strip()

    def stop(self):
        if self.process and self.process.poll() is None:
            self.process.send_signal(signal.SIGINT)
            self.process.wait(30)

    def logged(self, **wanted):
        """The fields of the lines of the access log that have these."""
        found = []
        for line in self.log.read_text().splitlines():
            record = json.loads(line) if line.startswith("{") else {}
            fields = record.get("fields", record)
            if all(fields.get(name) == value for name, value in wanted.items()):
                found.append(fields)
        return found


def admin(rgw, what, uid, key, tenant=None, more=()):
    subprocess.run(
        ["radosgw-admin", "--conf", rgw / "ceph.conf", *what, "--uid", f"{uid}-{RUN}", "--access-key", key[0], "--secret-key", key[1],
         *(["--tenant", tenant] if tenant else []), *more],
        check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)


def make_user(rgw, uid, key, tenant=None):
    admin(rgw, ["user", "create"], uid, key, tenant, ["--display-name", uid])


class Slow:
    """Holds back requests to the store that begin so, for two seconds."""

    def __init__(self):
        self.beginning = None

    def __call__(self, piece):
        if self.beginning and piece.startswith(self.beginning):
            time.sleep(2)


def owners(demo, direct):
    """Steps about buckets of two accounts; `direct` is the store's endpoint."""
    alice, bob, carol = (client(demo.endpoint, key) for key in (ALICE, BOB, CAROL))
    direct_alice, direct_bob = client(direct, ALICE), client(direct, BOB)
    bucket, other = f"alice-{RUN}", f"bob-{RUN}"

    @step("a client's own key of the store works as it is, and what it makes is its own")
    def _():
        for s3, name in [(alice, bucket), (bob, other)]:
            s3.create_bucket(Bucket=name)
            s3.put_object(Bucket=name, Key="k", Body=BODY)
            same(read(s3, name, "k"), BODY)
        same(outcome(direct_alice.head_object, Bucket=bucket, Key="k"), 200)
        same(outcome(direct_bob.head_object, Bucket=bucket, Key="k")[1], 403)

    @step("ListBuckets has the account's own buckets and the store's owner")
    def _():
        for through, directly in [(alice, direct_alice), (bob, direct_bob)]:
            ours, theirs = through.list_buckets(), directly.list_buckets()
            same(ours["Owner"], theirs["Owner"])
            same([b["Name"] for b in ours["Buckets"]], [b["Name"] for b in theirs["Buckets"]])

    @step("listings have the owner that the store gives")
    def _():
        ours, theirs = (s3.list_objects(Bucket=bucket)["Contents"][0]["Owner"] for s3 in (alice, direct_alice))
        same(ours, theirs)

    @step("what another account may not do is refused as the store refuses it")
    def _():
        for s3, reference in [(bob, direct_bob)]:
            for call, arguments in [
                ("get_object", {"Key": "k"}), ("head_object", {"Key": "k"}), ("delete_object", {"Key": "k"}),
                ("put_object", {"Key": "new", "Body": BODY}), ("list_objects_v2", {}), ("head_bucket", {}), ("delete_bucket", {}),
                ("create_multipart_upload", {"Key": "new"}), ("list_multipart_uploads", {}),
            ]:
                got = outcome(getattr(s3, call), Bucket=bucket, **arguments)
                want = outcome(getattr(reference, call), Bucket=bucket, **arguments)
                if got != want or got == 200:
                    raise AssertionError(f"{call}: {got} is not {want}")

    @step("a bucket's name is bound once: the store's answer to a second owner, and to its own")
    def _():
        same(outcome(bob.create_bucket, Bucket=bucket), outcome(direct_bob.create_bucket, Bucket=bucket))
        same(outcome(bob.create_bucket, Bucket=bucket), ("BucketAlreadyExists", 409))
        same(outcome(alice.create_bucket, Bucket=bucket), outcome(direct_alice.create_bucket, Bucket=bucket))
        same(read(alice, bucket, "k"), BODY)

    @step("a tenant with names of its own can neither take nor end the binding of another's bucket")
    def _():
        same(outcome(carol.create_bucket, Bucket=bucket), ("BucketAlreadyExists", 409))
        same(outcome(carol.delete_bucket, Bucket=bucket), ("NoSuchBucket", 404))
        same(read(alice, bucket, "k"), BODY)
        # Made behind Claviger's back, it is a bucket of that name all the same.
        client(direct, CAROL).create_bucket(Bucket=bucket)
        same(outcome(carol.delete_bucket, Bucket=bucket), 204)
        same(read(alice, bucket, "k"), BODY)
        carol.create_bucket(Bucket=f"carol-{RUN}")
        carol.put_object(Bucket=f"carol-{RUN}", Key="k", Body=BODY)
        same(read(carol, f"carol-{RUN}", "k"), BODY)

    @step("a preflight about a presigned URL finds the bucket of a tenant; one with another signature does not")
    def _():
        name = f"carol-{RUN}"
        rule = {"AllowedMethods": ["GET"], "AllowedOrigins": ["https://app.example"]}
        carol.put_bucket_cors(Bucket=name, CORSConfiguration={"CORSRules": [rule]})
        url = carol.generate_presigned_url("get_object", Params={"Bucket": name, "Key": "k"})
        same(preflight(url), (200, "https://app.example"))
        same(preflight(url[:-4] + "0000")[0], 404)
        carol.delete_bucket_cors(Bucket=name)

    @step("an ACL that is set through Claviger lets another account read, and no longer when it is gone")
    def _():
        bobs_id = bob.list_buckets()["Owner"]["ID"]
        same(outcome(bob.put_object_acl, Bucket=bucket, Key="k", ACL="public-read"), ("AccessDenied", 403))
        same(outcome(bob.get_bucket_acl, Bucket=bucket), ("AccessDenied", 403))
        alice.put_object_acl(Bucket=bucket, Key="k", GrantRead=f"id={bobs_id}")
        same(read(bob, bucket, "k"), BODY)
        alice.put_object_acl(Bucket=bucket, Key="k", ACL="private")
        same(outcome(bob.get_object, Bucket=bucket, Key="k"), ("AccessDenied", 403))

    @step("copies read with the caller's account")
    def _():
        same(outcome(bob.copy_object, Bucket=other, Key="copy", CopySource=f"{bucket}/k"), ("AccessDenied", 403))
        upload = bob.create_multipart_upload(Bucket=other, Key="parts")["UploadId"]
        same(outcome(bob.upload_part_copy, Bucket=other, Key="parts", UploadId=upload, PartNumber=1, CopySource=f"{bucket}/k"),
             ("AccessDenied", 403))
        bob.abort_multipart_upload(Bucket=other, Key="parts", UploadId=upload)

    @step("a policy of the store lets another account read and copy")
    def _():
        arn = f"arn:aws:s3:::{bucket}"
        direct_alice.put_bucket_policy(Bucket=bucket, Policy=json.dumps({"Version": "2012-10-17", "Statement": [
            {"Effect": "Allow", "Principal": {"AWS": f"arn:aws:iam:::user/bob-{RUN}"}, "Action": ["s3:GetObject", "s3:ListBucket"],
             "Resource": [arn, f"{arn}/*"]}]}))
        same(read(bob, bucket, "k"), BODY)
        bob.copy_object(Bucket=other, Key="copy", CopySource=f"{bucket}/k")
        same(read(bob, other, "copy"), BODY)
        same(outcome(bob.delete_object, Bucket=bucket, Key="k"), ("AccessDenied", 403))
        direct_alice.delete_bucket_policy(Bucket=bucket)
        same(outcome(bob.get_object, Bucket=bucket, Key="k"), ("AccessDenied", 403))

    @step("an upload in parts is its account's")
    def _():
        upload = alice.create_multipart_upload(Bucket=bucket, Key="parts")["UploadId"]
        part = {"Bucket": bucket, "Key": "parts", "UploadId": upload, "PartNumber": 1, "Body": bytes(5 << 20)}
        same(outcome(bob.upload_part, **part), ("AccessDenied", 403))
        etag = alice.upload_part(**part)["ETag"]
        done = {"Bucket": bucket, "Key": "parts", "UploadId": upload, "MultipartUpload": {"Parts": [{"PartNumber": 1, "ETag": etag}]}}
        same(outcome(bob.complete_multipart_upload, **done), ("AccessDenied", 403))
        same(outcome(bob.list_parts, Bucket=bucket, Key="parts", UploadId=upload), ("AccessDenied", 403))
        same(outcome(bob.abort_multipart_upload, Bucket=bucket, Key="parts", UploadId=upload), ("AccessDenied", 403))
        alice.complete_multipart_upload(**done)
        same(len(read(alice, bucket, "parts")), 5 << 20)

    @step("one line of the log has the request ids of both sides")
    def _():
        answer = alice.get_object(Bucket=bucket, Key="k")
        answer["Body"].read()
        time.sleep(0.2)
        lines = demo.logged(request_id=answer["ResponseMetadata"]["RequestId"])
        same(len(lines), 1)
        if not re.match(r"tx[0-9a-f]+-", lines[0].get("store_request_ids", "")):
            raise AssertionError(f"no id of the store in {lines[0]}")
        same(lines[0]["access_key_id"], ALICE[0])


def names(demo, direct, slow, rgw):
    """Steps about several who make and delete buckets of one name; `slow` may hold back what goes to the store."""
    alice, bob, carol = (client(demo.endpoint, key) for key in (ALICE, BOB, CAROL))

    @step("delete and create of a name at once: what was acknowledged can be read")
    def _():
        for number in range(10):
            name = f"race-{RUN}-{number}"
            alice.create_bucket(Bucket=name)
            with concurrent.futures.ThreadPoolExecutor() as pool:
                deleting = pool.submit(outcome, alice.delete_bucket, Bucket=name)
                for _ in range(200):
                    if outcome(bob.create_bucket, Bucket=name) == 200:
                        stored = outcome(bob.put_object, Bucket=name, Key="k", Body=BODY)
                        same(deleting.result(), 204)
                        if stored == 200:
                            same(read(bob, name, "k"), BODY)
                        break
                    if deleting.done():
                        # The name is closing: it can be had when every gateway's answer about it has run out.
                        break

    @step("two accounts that create a name at once do not share it")
    def _():
        for number in range(8):
            name = f"both-{RUN}-{number}"
            with concurrent.futures.ThreadPoolExecutor() as pool:
                made = [pool.submit(outcome, s3.create_bucket, Bucket=name) for s3 in (alice, carol)]
                if [one.result() for one in made].count(200) > 1:
                    raise AssertionError("both have it")

    @step("a CreateBucket that fails adopts nothing")
    def _():
        name, direct_bob = f"foreign-{RUN}", client(direct, BOB)
        direct_bob.create_bucket(Bucket=name)
        direct_bob.put_object(Bucket=name, Key="plain", Body=BODY)
        for s3 in (bob, alice, bob):
            same(outcome(s3.create_bucket, Bucket=name), ("BucketAlreadyExists", 409))
        same(outcome(bob.list_objects_v2, Bucket=name), ("NoSuchBucket", 404))

    @step("CreateBucket once more leaves the bucket as it is, whatever another tenant has made of that name")
    def _():
        name, direct_alice, direct_carol = f"again-{RUN}", client(direct, ALICE), client(direct, CAROL)
        alice.create_bucket(Bucket=name)
        alice.put_bucket_versioning(Bucket=name, VersioningConfiguration={"Status": "Enabled"})
        upload = {"Bucket": name, "Key": "parts", "UploadId": alice.create_multipart_upload(Bucket=name, Key="parts")["UploadId"]}
        alice.upload_part(**upload, PartNumber=1, Body=BODY)
        direct_carol.create_bucket(Bucket=name)
        same(outcome(alice.create_bucket, Bucket=name), outcome(direct_alice.create_bucket, Bucket=name))
        same(direct_alice.get_bucket_versioning(Bucket=name)["Status"], "Enabled")
        same(len(alice.list_parts(**upload)["Parts"]), 1)
        # The name is Alice's; and Carol's bucket is not deleted either.
        same(outcome(carol.create_bucket, Bucket=name), ("BucketAlreadyExists", 409))
        same(outcome(direct_carol.head_bucket, Bucket=name), 200)
        direct_carol.delete_bucket(Bucket=name)
        alice.abort_multipart_upload(**upload)
        same(outcome(alice.delete_bucket, Bucket=name), 204)

    @step("two keys of one user have the same buckets, and are in nobody's way")
    def _():
        name, alice_too = f"too-{RUN}", client(demo.endpoint, ALICE_TOO)
        for key in (alice, alice_too, alice):
            same(outcome(key.create_bucket, Bucket=name), 200)
        alice.put_object(Bucket=name, Key="k", Body=BODY)
        same(outcome(alice_too.create_bucket, Bucket=name), 200)
        same(read(alice_too, name, "k"), BODY)
        alice_too.delete_object(Bucket=name, Key="k")
        same(outcome(alice_too.delete_bucket, Bucket=name), 204)

    @step("a client that leaves during DeleteBucket leaves no name bound")
    def _():
        name, direct_alice = f"left-{RUN}", client(direct, ALICE)
        alice.create_bucket(Bucket=name)
        url = urllib.parse.urlsplit(alice.generate_presigned_url("delete_bucket", Params={"Bucket": name}))
        slow.beginning = f"GET /{name}?".encode()
        leaving = http.client.HTTPConnection(url.netloc, timeout=20)
        leaving.request("DELETE", f"{url.path}?{url.query}")
        while outcome(direct_alice.head_bucket, Bucket=name) == 200:
            time.sleep(0.05)
        leaving.sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        leaving.close()
        slow.beginning = None
        time.sleep(3)
        # What is in a bucket whose name is not bound is nothing of Claviger's.
        direct_alice.create_bucket(Bucket=name)
        direct_alice.put_object(Bucket=name, Key="plain", Body=BODY)
        same(outcome(alice.create_bucket, Bucket=name), ("BucketAlreadyExists", 409))
        direct_alice.delete_object(Bucket=name, Key="plain")
        direct_alice.delete_bucket(Bucket=name)

    @step("many who create one name do not hold up those who create others")
    def _():
        name = f"many-{RUN}"
        slow.beginning = f"GET /{name}?".encode()
        with concurrent.futures.ThreadPoolExecutor(64) as pool:
            same_name = [pool.submit(outcome, client(demo.endpoint, ALICE).create_bucket, Bucket=name) for _ in range(24)]
            time.sleep(0.5)
            begun = time.monotonic()
            others = [pool.submit(outcome, bob.create_bucket, Bucket=f"one-{RUN}-{number}") for number in range(8)]
            same({one.result() for one in others}, {200})
            if time.monotonic() - begun > 10:
                raise AssertionError(f"it took {time.monotonic() - begun:.0f} seconds")
            slow.beginning = None
            same({one.result() for one in same_name}, {200, ("OperationAborted", 409)})

    @step("an account whose key the store has revoked keeps nobody from making and deleting buckets")
    def _():
        name, before = f"revoked-{RUN}", f"revoked-{RUN}-before"
        alice.create_bucket(Bucket=before)
        admin(rgw, ["key", "rm"], "carol", CAROL, "corner")
        try:
            same(outcome(client(direct, CAROL).list_buckets), ("InvalidAccessKeyId", 403))
            for one in (before, name, name):
                same(outcome(alice.create_bucket, Bucket=one), 200)
            for one in (before, name):
                same(outcome(alice.delete_bucket, Bucket=one), 204)
                same(outcome(alice.head_bucket, Bucket=one)[1], 404)
            # Their names stay bound: whether Carol has such a bucket can't be told.
            same(outcome(alice.create_bucket, Bucket=name), ("InternalError", 500))
        finally:
            admin(rgw, ["key", "create"], "carol", CAROL, "corner")
        same(outcome(alice.delete_bucket, Bucket=name), ("NoSuchBucket", 404))
        same(outcome(alice.create_bucket, Bucket=name), 200)
        same(outcome(alice.delete_bucket, Bucket=name), 204)


def nobody(demo, direct):
    """Steps about requests without a signature, which are let in."""
    alice, direct_alice = client(demo.endpoint, ALICE), client(direct, ALICE)
    anyone, direct_anyone = client(demo.endpoint, None), client(direct, None)
    bucket, public = f"alice-{RUN}", f"public-{RUN}"

    @step("without a signature: what is private stays so, with the store's answers")
    def _():
        for call, arguments in [
            ("get_object", {"Key": "k"}), ("head_object", {"Key": "k"}), ("delete_object", {"Key": "k"}), ("list_objects_v2", {}),
            ("put_object", {"Key": "new", "Body": BODY}), ("delete_bucket", {}),
        ]:
            got = outcome(getattr(anyone, call), Bucket=bucket, **arguments)
            same(got, outcome(getattr(direct_anyone, call), Bucket=bucket, **arguments))
            same(got[1], 403)
        same(outcome(anyone.create_bucket, Bucket=f"nobodys-{RUN}"), ("AccessDenied", 403))

    @step("without a signature: ListBuckets is the store's, which knows nobody's buckets")
    def _():
        same(anyone.list_buckets()["Buckets"], direct_anyone.list_buckets()["Buckets"])

    @step("without a signature: an object that the store lets everybody read is opened")
    def _():
        direct_alice.put_object_acl(Bucket=bucket, Key="k", ACL="public-read")
        same(read(anyone, bucket, "k"), BODY)
        same(anyone.get_object(Bucket=bucket, Key="k", Range="bytes=3-9")["Body"].read(), BODY[3:10])
        same(anyone.head_object(Bucket=bucket, Key="k")["ContentLength"], len(BODY))
        line = demo.logged(access_key_id="anonymous", operation="GetObject", status=200)
        if not line:
            raise AssertionError("the log names nobody")

    @step("without a signature: a bucket that everybody may write to takes sealed objects")
    def _():
        alice.create_bucket(Bucket=public)
        direct_alice.put_bucket_acl(Bucket=public, ACL="public-read-write")
        anyone.put_object(Bucket=public, Key="from-anyone", Body=BODY)
        named = {"Bucket": public, "Key": "from-anyone"}
        same(outcome(anyone.get_object, **named), outcome(direct_anyone.get_object, **named))
        ours, theirs = (s3.list_objects_v2(Bucket=public)["Contents"][0] for s3 in (anyone, direct_anyone))
        same((ours["Key"], ours["Size"]), ("from-anyone", len(BODY)))
        if theirs["Size"] <= len(BODY):
            raise AssertionError("what the store has is no longer than the plaintext")
        anyone.delete_object(Bucket=public, Key="from-anyone")

    @step("without a signature: names that are no buckets cost the key service 20 questions a second, and shut nobody out")
    def _():
        begun = time.monotonic()
        answers = [get(f"{demo.endpoint}/random-{RUN}-{number}/k")[0] for number in range(300)]
        seconds = int(time.monotonic() - begun) + 2
        same(set(answers), {404, 503})
        if answers.count(404) > 20 * seconds:
            raise AssertionError(f"{answers.count(404)} questions in {seconds} seconds")
        same(read(anyone, bucket, "k"), BODY)
        same(alice.head_bucket(Bucket=bucket)["ResponseMetadata"]["HTTPStatusCode"], 200)

    @step("without a signature: a signature that is wrong is not nobody's")
    def _():
        wrong = client(demo.endpoint, (ALICE[0], "x" * 40))
        same(outcome(wrong.get_object, Bucket=bucket, Key="k"), ("SignatureDoesNotMatch", 403))
        unknown = client(demo.endpoint, ("NOSUCHKEY", "x" * 40))
        same(outcome(unknown.get_object, Bucket=bucket, Key="k"), ("InvalidAccessKeyId", 403))


def strangers(demo):
    """Steps about many at once who did not sign, and take their time."""
    alice, anyone, bucket = client(demo.endpoint, ALICE), client(demo.endpoint, None), f"strangers-{RUN}"
    alice.create_bucket(Bucket=bucket, ACL="public-read-write")
    alice.put_object(Bucket=bucket, Key="big", Body=bytes(24 << 20), ACL="public-read")
    alice.put_object(Bucket=bucket, Key="small", Body=BODY, ACL="public-read")
    at = urllib.parse.urlsplit(demo.endpoint)
    file_ahead = (b'--xx\r\nContent-Disposition: form-data; name="key"\r\n\r\nfoo\r\n--xx\r\n'
                  b'Content-Disposition: form-data; name="file"; filename="a"\r\n\r\n')

    class Crowd:
        """So many connections that each send the same and read next to nothing."""

        def __init__(self, number, request):
            self.sockets = []
            for _ in range(number):
                one = socket.socket()
                one.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
                one.connect((at.hostname, at.port))
                one.sendall(request.replace(b"HOST", at.netloc.encode()))
                self.sockets.append(one)

        def __enter__(self):
            return self

        def __exit__(self, *_):
            for one in self.sockets:
                one.close()

        def refused(self):
            """How many were answered SlowDown."""
            number, deadline = 0, time.monotonic() + 5
            for one in self.sockets:
                one.settimeout(max(0.01, min(0.2, deadline - time.monotonic())))
                try:
                    number += b" 503 " in one.recv(64)
                except OSError:
                    pass
            return number

    def in_time(call, **arguments):
        begun = time.monotonic()
        same(outcome(call, Bucket=bucket, **arguments), 200)
        if time.monotonic() - begun > 5:
            raise AssertionError(f"{time.monotonic() - begun:.1f} s")

    def the_others_are_served():
        in_time(alice.head_object, Key="small")
        in_time(alice.put_object, Key="other", Body=BODY)
        in_time(alice.get_object, Key="small")

    def the_crowd_is_gone():
        deadline = time.monotonic() + 15
        while outcome(anyone.head_object, Bucket=bucket, Key="small") != 200 and time.monotonic() < deadline:
            time.sleep(0.2)
        same(read(anyone, bucket, "small"), BODY)

    def form(fields=None):
        """The status of a whole form, signed unless fields are given."""
        fields = alice.generate_presigned_post(bucket, "form")["fields"] if fields is None else fields
        body = "".join(f'--zz\r\nContent-Disposition: form-data; name="{name}"\r\n\r\n{value}\r\n' for name, value in fields.items())
        body += '--zz\r\nContent-Disposition: form-data; name="file"; filename="a"\r\n\r\nhello\r\n--zz--\r\n'
        connection = http.client.HTTPConnection(at.netloc, timeout=20)
        connection.request("POST", f"/{bucket}", body, {"Content-Type": "multipart/form-data; boundary=zz"})
        return connection.getresponse().status

    for name, request in [
        ("who read slowly", b"GET /%s/big HTTP/1.1\r\nHost: HOST\r\n\r\n"),
        ("with half a document", b"POST /%s?delete HTTP/1.1\r\nHost: HOST\r\nContent-MD5: 1B2M2Y8AsgTpgAmY7PhCfg==\r\n"
                                 b"Content-Length: 900000\r\n\r\n<"),
        ("with half a form", b"POST /%s HTTP/1.1\r\nHost: HOST\r\nContent-Type: multipart/form-data; boundary=xx\r\n"
                             b"Content-Length: 5200000\r\n\r\n" + file_ahead),
    ]:
        @step(f"strangers {name} have an eighth of the requests, and all others are served")
        def _():
            with Crowd(100, request.replace(b"%s", bucket.encode())) as crowd:
                time.sleep(1)
                the_others_are_served()
                if crowd.refused() < 36:
                    raise AssertionError("more than 64 are served")
            the_crowd_is_gone()

    @step("half a form of nobody knows whom keeps no whole form out; one for a bucket that is none is refused unread")
    def _():
        begun = b"POST /%s HTTP/1.1\r\nHost: HOST\r\nContent-Type: multipart/form-data; boundary=xx\r\nContent-Length: 15000\r\n\r\n--xx\r\n"
        with Crowd(80, begun.replace(b"%s", bucket.encode())):
            time.sleep(1)
            same({form() for _ in range(10)}, {204})
        with Crowd(1, begun.replace(b"%s", f"none-{RUN}".encode())) as crowd:
            crowd.sockets[0].settimeout(5)
            same(crowd.sockets[0].recv(12), b"HTTP/1.1 404")

    @step("a page's preflights are answered while strangers ask about thousands of others")
    def _():
        rule = {"AllowedMethods": ["GET", "PUT"], "AllowedOrigins": ["https://app.example"], "AllowedHeaders": ["*"]}
        alice.put_bucket_cors(Bucket=bucket, CORSConfiguration={"CORSRules": [rule]})
        ended = threading.Event()

        def flood(number):
            connection = http.client.HTTPConnection(at.netloc, timeout=20)
            while not ended.is_set():
                origin = {"Origin": f"https://evil{number}.example", "Access-Control-Request-Method": "GET"}
                try:
                    connection.request("OPTIONS", f"/{bucket}/k", headers=origin)
                    connection.getresponse().read()
                except (OSError, http.client.HTTPException):
                    connection.close()
                number += 1000

        floods = [threading.Thread(target=flood, args=(number,), daemon=True) for number in range(64)]
        for thread in floods:
            thread.start()
        try:
            time.sleep(1)
            same({preflight(f"{demo.endpoint}/{bucket}/k")[0] for _ in range(40)}, {200})
        finally:
            ended.set()
            for thread in floods:
                thread.join(30)

    @step("a change of the rules is in force at once")
    def _():
        url = f"{demo.endpoint}/{bucket}/k"
        same(preflight(url), (200, "https://app.example"))
        alice.delete_bucket_cors(Bucket=bucket)
        same(preflight(url)[0], 403)

    @step("without a signature nobody is answered under a name that is not the gateway's, which a page could have as well")
    def _():
        path = demo.folder / "demo" / "gateway" / "credentials.toml"

        def named(host, method="GET", body=None, **headers):
            connection = http.client.HTTPConnection(at.netloc, timeout=20)
            connection.request(method, f"/{bucket}/small" if method == "GET" else f"/{bucket}", body, {"Host": host} | headers)
            return connection.getresponse().status

        def until(status, host):
            deadline = time.monotonic() + 15
            while named(host) != status and time.monotonic() < deadline:
                time.sleep(0.2)
            same(named(host), status)

        text = path.read_text()
        same(named("evil.example"), 200)  # The demo lists every name.
        path.write_text(text.replace('hosts = ["*"]\n', ""))
        until(403, "evil.example")
        for own in [at.netloc, f"localhost:{at.port}", "[::1]"]:
            same(named(own), 200)
        same(named("evil.example", "POST", file_ahead + b"x\r\n--xx--\r\n", **{"Content-Type": "multipart/form-data; boundary=xx"}), 403)
        path.write_text(text.replace('hosts = ["*"]', 'hosts = ["store.internal"]'))
        until(200, "store.internal:9000")
        same(named("evil.example"), 403)
        path.write_text(text)
        until(200, "evil.example")


def pages(demo):
    """Steps about pages of other origins that ask without a signature; the object is one that everybody may read."""
    alice, bucket = client(demo.endpoint, ALICE), f"alice-{RUN}"
    path, url = demo.folder / "demo" / "gateway" / "credentials.toml", f"{demo.endpoint}/{bucket}/k"
    signed = alice.generate_presigned_url("get_object", Params={"Bucket": bucket, "Key": "k"})
    rule = {"AllowedMethods": ["GET"], "AllowedOrigins": ["https://app.example", "https://other.example"]}
    alice.put_bucket_cors(Bucket=bucket, CORSConfiguration={"CORSRules": [rule]})

    def asked(url, method, origin):
        """Status, allowed origin, and whether Vary names all that a page is judged by."""
        sent = {"Origin": origin} | ({"Access-Control-Request-Method": "GET"} if method == "OPTIONS" else {})
        try:
            answer = urllib.request.urlopen(urllib.request.Request(url, method=method, headers=sent), timeout=30)
        except urllib.error.HTTPError as error:
            answer = error
        with answer:
            vary = {name.strip() for name in answer.headers.get("Vary", "").split(",")}
            judged_by = {"Origin", "Access-Control-Request-Headers", "Access-Control-Request-Method"}
            return answer.status, answer.headers.get("Access-Control-Allow-Origin"), judged_by <= vary

    def listed(origins):
        path.write_text(re.sub(r"origins = .*\n", origins, path.read_text(), count=1))

    @step("pages without a signature: where all origins are listed, the store's rules decide")
    def _():
        for origin in rule["AllowedOrigins"]:
            same(asked(url, "OPTIONS", origin), (200, origin, True))
            same(asked(url, "GET", origin), (200, origin, True))
        same(asked(url, "GET", "https://evil.example")[:2], (200, None))

    @step("pages without a signature: of origins that are not listed none may read, whatever the store says")
    def _():
        listed('origins = ["https://app.example"]\n')
        deadline = time.monotonic() + 15
        while asked(url, "OPTIONS", "https://other.example")[0] != 403 and time.monotonic() < deadline:
            time.sleep(0.2)
        same(asked(url, "OPTIONS", "https://other.example")[:2], (403, None))
        same(asked(url, "GET", "https://other.example")[:2], (200, None))
        for method in ["OPTIONS", "GET"]:
            same(asked(url, method, "https://app.example"), (200, "https://app.example", True))
            same(asked(signed, method, "https://other.example"), (200, "https://other.example", True))

    @step("pages that are not listed may send what they sign in a header, and ask before each request")
    def _():
        def allowed(names):
            headers = {"Origin": "https://other.example", "Access-Control-Request-Method": "GET", "Access-Control-Request-Headers": names}
            connection = http.client.HTTPConnection(urllib.parse.urlsplit(url).netloc, timeout=20)
            connection.request("OPTIONS", urllib.parse.urlsplit(url).path, headers=headers)
            answer = connection.getresponse()
            return answer.status, answer.headers.get("Access-Control-Allow-Origin"), answer.headers.get("Access-Control-Max-Age")

        signing = rule | {"AllowedHeaders": ["*"], "MaxAgeSeconds": 600}
        alice.put_bucket_cors(Bucket=bucket, CORSConfiguration={"CORSRules": [signing]})
        same(allowed("authorization,x-amz-date"), (200, "https://other.example", "0"))
        same(allowed("x-amz-date"), (403, None, None))

    @step("a document of the store's is shown and never run, an error's is not sniffed")
    def _():
        request = alice.generate_presigned_url("get_bucket_cors", Params={"Bucket": bucket})
        with urllib.request.urlopen(request, timeout=30) as answer:
            got = answer.headers.get("Content-Security-Policy"), answer.headers.get("X-Content-Type-Options")
        same(got, ("sandbox; default-src 'none'", "nosniff"))
        try:
            urllib.request.urlopen(f"{demo.endpoint}/{bucket}-none/k", timeout=30)
        except urllib.error.HTTPError as error:
            same((error.code, error.headers.get("X-Content-Type-Options")), (404, "nosniff"))
        else:
            raise AssertionError("a bucket that is none has an object")


def tokens(demo):
    """Steps about a key that has a session token, which is added to the running gateway's file."""
    path = demo.folder / "demo" / "gateway" / "credentials.toml"
    path.write_text(path.read_text() + f"""
[[key]]
access_key_id = "{DAVE[0]}"
secret_access_key = "{DAVE[1]}"
session_token = "{DAVE[2]}"
[[key.allow]]
buckets = ["*"]
actions = ["read", "write", "delete", "list", "manage"]
""")
    dave, bucket = client(demo.endpoint, DAVE), f"dave-{RUN}"

    @step("a key with a session token is taken up, and works with it")
    def _():
        deadline = time.monotonic() + 15
        while outcome(dave.list_buckets) != 200 and time.monotonic() < deadline:
            time.sleep(0.2)
        dave.create_bucket(Bucket=bucket)
        dave.put_object(Bucket=bucket, Key="k", Body=BODY)
        same(read(dave, bucket, "k"), BODY)

    @step("a presigned URL carries the session token")
    def _():
        url = dave.generate_presigned_url("get_object", Params={"Bucket": bucket, "Key": "k"})
        same(get(url), (200, BODY))
        same(get(url.replace("dave%2Ftoken", "eve%2Ftoken"))[0], 403)

    @step("a wrong, a missing and a foreign session token are refused")
    def _():
        same(outcome(client(demo.endpoint, (*DAVE[:2], "wrong")).list_buckets), ("InvalidToken", 400))
        same(outcome(client(demo.endpoint, DAVE[:2]).list_buckets), ("InvalidAccessKeyId", 403))
        same(outcome(client(demo.endpoint, (*ALICE, DAVE[2])).list_buckets), ("InvalidToken", 400))


def version_2(demo):
    """Steps about Signature Version 2, before a store whose profile asks for it."""
    alice, bucket = client(demo.endpoint, ALICE, signature_version="s3"), f"alice-{RUN}"

    @step("version 2: objects, sub-resources, metadata, uploads in parts")
    def _():
        alice.put_object(Bucket=bucket, Key="v2/ä b+c", Body=BODY, ContentType="text/plain", Metadata={"a": "x  y", "b": "z"})
        answer = alice.get_object(Bucket=bucket, Key="v2/ä b+c", ResponseContentType="text/x; a=b")
        same((answer["Body"].read(), answer["ContentType"], answer["Metadata"]), (BODY, "text/x; a=b", {"a": "x  y", "b": "z"}))
        upload = alice.create_multipart_upload(Bucket=bucket, Key="v2/parts")["UploadId"]
        part = alice.upload_part(Bucket=bucket, Key="v2/parts", UploadId=upload, PartNumber=1, Body=BODY)
        alice.complete_multipart_upload(Bucket=bucket, Key="v2/parts", UploadId=upload,
                                        MultipartUpload={"Parts": [{"PartNumber": 1, "ETag": part["ETag"]}]})
        same(read(alice, bucket, "v2/parts"), BODY)
        alice.get_bucket_acl(Bucket=bucket)
        listed = alice.list_objects_v2(Bucket=bucket, Prefix="v2/")["Contents"]
        alice.delete_objects(Bucket=bucket, Delete={"Objects": [{"Key": entry["Key"]} for entry in listed]})
        same(alice.list_objects_v2(Bucket=bucket, Prefix="v2/")["KeyCount"], 0)

    @step("version 2: presigned URLs, and what must not be made of them")
    def _():
        presign = client(demo.endpoint, ALICE, signature_version="s3-query").generate_presigned_url
        url = presign("get_object", Params={"Bucket": bucket, "Key": "k", "ResponseContentType": "text/x"})
        same("AWSAccessKeyId=" in url, True)
        same(get(url), (200, BODY))
        for other in [url + "&acl", url + "&%61cl", url + "&versionId=null", url.replace("text%2Fx", "text%2Fhtml"),
                      re.sub(r"Expires=(\d)", r"Expires=9\1", url)]:
            same(get(other)[0], 403)
        same(get(presign("get_object", Params={"Bucket": bucket, "Key": "k"}, ExpiresIn=-5))[0], 403)

    @step("version 2: an ampersand in the name of a file sets no other header of the answer")
    def _():
        presign = client(demo.endpoint, ALICE, signature_version="s3").generate_presigned_url
        for name in ["a&response-content-type=text/html", '"a&response-content-type=text/html"']:
            params = {"Bucket": bucket, "Key": "k", "ResponseContentDisposition": f"attachment; filename={name}"}
            url = presign("get_object", Params=params)
            split = url.replace("%26response-content-type%3D", "&response-content-type=")
            same(split != url, True)
            same((get(url)[0], get(split)[0]), (403, 403))
        quoted = {"ResponseContentDisposition": 'attachment; filename="a & b"', "ResponseContentType": "text/x"}
        same(get(presign("get_object", Params={"Bucket": bucket, "Key": "k"} | quoted)), (200, BODY))

    @step("version 2: a presigned hash of the body binds in the query as in the header")
    def _():
        def put(body, in_query):
            digest, expires = hashlib.sha256(b"what was presigned").hexdigest(), int(time.time()) + 60
            to_sign = f"PUT\n\n\n{expires}\nx-amz-content-sha256:{digest}\n/{bucket}/v2-hash"
            signature = base64.b64encode(hmac.digest(ALICE[1].encode(), to_sign.encode(), "sha1")).decode()
            query = {"AWSAccessKeyId": ALICE[0], "Expires": expires, "Signature": signature}
            hashed = {"X-Amz-Content-Sha256": digest}
            target = f"/{bucket}/v2-hash?{urllib.parse.urlencode(query | (hashed if in_query else {}))}"
            connection = http.client.HTTPConnection(urllib.parse.urlsplit(demo.endpoint).netloc, timeout=20)
            connection.request("PUT", target, body=body, headers={} if in_query else hashed)
            return connection.getresponse().status

        for in_query in [False, True]:
            same(put(b"what was presigned", in_query), 200)
            same(put(b"something else    ", in_query), 400)
        same(read(alice, bucket, "v2-hash"), b"what was presigned")
        alice.delete_object(Bucket=bucket, Key="v2-hash")

    @step("version 2: a line break in the query turns no presigned request into another")
    def _():
        alice.put_object(Bucket=bucket, Key="v2-secret", Body=BODY)
        name, expires = f'attachment; filename="x"\n/{bucket}/v2-secret', int(time.time()) + 60
        shown = f"/{bucket}/k?response-content-disposition={name}"
        to_sign = f"GET\n\n\n{expires}\nx-amz-user-agent:user\n{shown}"
        signature = base64.b64encode(hmac.digest(ALICE[1].encode(), to_sign.encode(), "sha1")).decode()
        agent = f"user\n{shown}".removesuffix(f"\n/{bucket}/v2-secret")
        query = {"AWSAccessKeyId": ALICE[0], "Expires": expires, "Signature": signature, "x-amz-user-agent": agent}
        same(get(f"{demo.endpoint}/{bucket}/v2-secret?{urllib.parse.urlencode(query)}")[0], 403)
        alice.delete_object(Bucket=bucket, Key="v2-secret")

    @step("version 2: a wrong secret, an unknown key")
    def _():
        wrong = client(demo.endpoint, (ALICE[0], "x" * 40), signature_version="s3")
        same(outcome(wrong.list_buckets), ("SignatureDoesNotMatch", 403))
        unknown = client(demo.endpoint, ("NOSUCHKEY", "x" * 40), signature_version="s3")
        same(outcome(unknown.list_buckets), ("InvalidAccessKeyId", 403))


WRITER = ("WRITEROFTHEGATEWAY", "writer-secret-of-forty-characters-012345")
WORKER = ("WORKEROFTHEGATEWAY", "worker-secret-of-forty-characters-012345")


def grants(demo, own):
    """Steps about what keys that may write must not do by it; `own` is the key of the account that they share."""
    path = demo.folder / "demo" / "gateway" / "credentials.toml"
    path.write_text(path.read_text() + "".join(f"""
[[key]]
access_key_id = "{key[0]}"
secret_access_key = "{key[1]}"
[[key.allow]]
buckets = ["*"]
actions = {json.dumps(actions)}
""" for key, actions in [(WRITER, ["write"]), (WORKER, ["read", "write", "delete", "list"])]))
    owner, writer, worker = (client(demo.endpoint, key) for key in (own, WRITER, WORKER))
    bucket, named = f"locked-{RUN}", {"Bucket": f"locked-{RUN}", "Key": "k"}

    @step("a key that may write can't lift a legal hold")
    def _():
        owner.create_bucket(Bucket=bucket, ObjectLockEnabledForBucket=True)
        version = owner.put_object(**named, Body=BODY, ObjectLockLegalHoldStatus="ON")["VersionId"]
        deadline = time.monotonic() + 15
        while outcome(worker.list_objects_v2, Bucket=bucket) != 200 and time.monotonic() < deadline:
            time.sleep(0.2)
        same(outcome(worker.put_object_legal_hold, **named, LegalHold={"Status": "ON"}), 200)
        for key in (writer, worker):
            same(outcome(key.put_object_legal_hold, **named, LegalHold={"Status": "OFF"}), ("AccessDenied", 403))
        same(outcome(worker.delete_object, **named, VersionId=version), ("AccessDenied", 403))
        same(outcome(owner.put_object_legal_hold, **named, LegalHold={"Status": "OFF"}), 200)
        same(outcome(worker.delete_object, **named, VersionId=version), 204)

    @step("a key that may only write can't lock what others have stored, but what it stores itself")
    def _():
        version = owner.put_object(**named, Body=BODY)["VersionId"]
        held, kept = {"Status": "ON"}, {"Mode": "GOVERNANCE", "RetainUntilDate": time.time() + 3600}
        same(outcome(writer.put_object_legal_hold, **named, LegalHold=held), ("AccessDenied", 403))
        same(outcome(writer.put_object_retention, **named, Retention=kept), ("AccessDenied", 403))
        same(outcome(worker.put_object_retention, **named, Retention=kept), 200)
        same(outcome(owner.delete_object, **named, VersionId=version, BypassGovernanceRetention=True), 204)
        version = writer.put_object(**named, Body=BODY, ObjectLockLegalHoldStatus="ON")["VersionId"]
        same(outcome(owner.delete_object, **named, VersionId=version), ("AccessDenied", 403))
        owner.put_object_legal_hold(**named, LegalHold={"Status": "OFF"})

    @step("a key that may only write can't publish by a tag what it may not read")
    def _():
        owner.put_object(**named, Body=BODY, Tagging="public=no")
        owner.put_bucket_policy(Bucket=bucket, Policy=json.dumps({"Version": "2012-10-17", "Statement": [
            {"Effect": "Allow", "Principal": "*", "Action": ["s3:GetObject"], "Resource": [f"arn:aws:s3:::{bucket}/*"],
             "Condition": {"StringEquals": {"s3:ExistingObjectTag/public": "yes"}}}]}))
        tags = {"TagSet": [{"Key": "public", "Value": "yes"}]}
        same(outcome(writer.put_object_tagging, **named, Tagging=tags), ("AccessDenied", 403))
        same(outcome(writer.delete_object_tagging, **named), ("AccessDenied", 403))
        same(outcome(client(demo.endpoint, None).get_object, **named)[1], 403)
        same(outcome(worker.put_object_tagging, **named, Tagging=tags), 200)
        same(read(client(demo.endpoint, None), bucket, "k"), BODY)
        same(outcome(worker.delete_object_tagging, **named), 204)
        same(outcome(writer.put_object, Bucket=bucket, Key="its-own", Body=BODY, Tagging="public=no"), 200)
        owner.delete_bucket_policy(Bucket=bucket)

    @step("a key that may delete nothing is refused before its list of keys is read")
    def _():
        keys = {"Objects": [{"Key": "k"}]}
        same(outcome(writer.delete_objects, Bucket=bucket, Delete=keys), ("AccessDenied", 403))
        same(outcome(worker.delete_objects, Bucket=bucket, Delete=keys), 200)

    @step("a key that may only write can't publish what it may not read")
    def _():
        owner.put_object(**named, Body=BODY)
        same(outcome(writer.put_object_acl, **named, ACL="public-read"), ("AccessDenied", 403))
        same(outcome(client(demo.endpoint, None).get_object, **named)[1], 403)
        same(outcome(worker.put_object_acl, **named, ACL="public-read"), 200)

    @step("without a signature nobody chooses the headers of an answer")
    def _():
        url = f"{demo.endpoint}/{bucket}/k"
        same(get(url)[0], 200)
        same(get(f"{url}?response-content-type=text/html")[0], 400)


def get(url):
    parts = urllib.parse.urlsplit(url)
    connection = http.client.HTTPConnection(parts.netloc, timeout=20)
    connection.request("GET", f"{parts.path}?{parts.query}")
    response = connection.getresponse()
    return response.status, response.read()


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--claviger", required=True)
    parser.add_argument("--rgw", required=True, type=pathlib.Path)
    options = parser.parse_args()
    env = dict(re.findall(r"export (\w+)=(.*)", (options.rgw / "rgw.env").read_text()))
    direct = env["AWS_ENDPOINT_URL"]
    for uid, key, tenant in [("alice", ALICE, None), ("bob", BOB, None), ("carol", CAROL, "corner")]:
        make_user(options.rgw, uid, key, tenant)
    admin(options.rgw, ["key", "create"], "alice", ALICE_TOO)
    slow, store = Slow(), urllib.parse.urlsplit(direct)
    host, port = relay(("127.0.0.1", 0), (store.hostname, store.port), slow)
    with tempfile.TemporaryDirectory(prefix="claviger-accounts-") as folder:
        folder = pathlib.Path(folder)
        credentials = folder / "credentials"
        profiles = [("default", (env["AWS_ACCESS_KEY_ID"], env["AWS_SECRET_ACCESS_KEY"])), ("alice", ALICE), ("alice-too", ALICE_TOO), ("bob", BOB), ("carol", CAROL)]
        credentials.touch(mode=0o600)
        credentials.write_text("".join(
            f"[{name}]\naws_access_key_id = {key[0]}\naws_secret_access_key = {key[1]}\n" for name, key in profiles))
        demo = Demo(options.claviger, folder, f"http://{host}:{port}", credentials)
        try:
            demo.start("--anonymous", "--plain-tags", "--upstream-profile", "ceph-rgw")
            owners(demo, direct)
            names(demo, direct, slow, options.rgw)
            nobody(demo, direct)
            strangers(demo)
            version_2(demo)
            tokens(demo)
            grants(demo, (env["AWS_ACCESS_KEY_ID"], env["AWS_SECRET_ACCESS_KEY"]))
            pages(demo)
            demo.stop()
            demo.start("--upstream-profile", "generic")

            @step("nobody is let in unasked")
            def _():
                same(outcome(client(demo.endpoint, None).get_object, Bucket=f"alice-{RUN}", Key="k"), ("AccessDenied", 403))
                same(read(client(demo.endpoint, ALICE), f"alice-{RUN}", "k"), BODY)

            @step("version 2 is refused in words where the profile does not ask for it")
            def _():
                answer = outcome(client(demo.endpoint, ALICE, signature_version="s3").list_buckets)
                same(answer, ("InvalidRequest", 400))
        finally:
            demo.stop()
    print(f"{passed} passed, {failed} failed")
    sys.exit(1 if failed else 0)


if __name__ == "__main__":
    main()
