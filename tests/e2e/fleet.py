#!/usr/bin/env python3
"""Several gateways and one key service as processes of their own, before one real store.

    fleet.py --claviger BINARY --endpoint URL --access-key-id ID --secret-access-key SECRET [--region R] [--postgres DIR]

With --postgres the key service's rows lie in the PostgreSQL that tests/stores/postgres.py started with this DIR.

Run it with a Python that has boto3. It makes a key service and five gateways with different rights in a folder of its own:

    north, south   lease the whole keyset: reads, writes, copies, multipart
    west           the same, but reaches the key service by a way that can be cut
    reader         no lease: every object is released by itself, after the key service has verified its name
    camera         writes only

and shows what issue texts promise of a fleet: uploads that go through two gateways, restarts, rights, an outage of the key
service, what stays refused, and malformed requests. The last line is `N passed, N failed`.
"""

import argparse
import base64
import http.client
import json
import os
import pathlib
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
import urllib.error
import urllib.parse
import urllib.request

import boto3
import botocore.auth
import botocore.awsrequest
import botocore.config
import botocore.credentials
import botocore.exceptions

from relay import relay

MIB = 1 << 20
POLICY = """
[[operator]]
identity = "admin:first"
verbs = ["inspect", "unlock", "keyset", "enrol", "policy", "freeze"]
[[operator]]
identity = "admin:second"
verbs = ["inspect", "unlock", "keyset", "enrol", "policy", "freeze"]
""" + "".join(f"""
[[grant]]
identity = "gateway:{name}"
keyset = "default"
verbs = {verbs}
""" for name, verbs in [
    ("north", '["lease", "write", "read", "head", "copy-source", "continue", "bind"]'),
    ("south", '["lease", "write", "read", "head", "copy-source", "continue", "bind"]'),
    ("west", '["lease", "write", "read", "head", "copy-source", "continue", "bind"]'),
    ("reader", '["read", "head", "copy-source", "write"]'),
    ("camera", '["write", "continue"]'),
])
CREDENTIALS = """
[[key]]
access_key_id = "FLEETTESTALICE"
secret_access_key = "alice-secret-of-forty-characters-0123456"
[[key.allow]]
buckets = ["*"]
actions = ["read", "write", "delete", "list", "manage"]

[[key]]
access_key_id = "FLEETTESTNARROW"
secret_access_key = "narrow-secret-of-forty-characters-012345"
[[key.allow]]
buckets = ["fleet-*"]
prefix = "team/"
actions = ["read", "write", "list"]
"""
ALICE = ("FLEETTESTALICE", "alice-secret-of-forty-characters-0123456")
NARROW = ("FLEETTESTNARROW", "narrow-secret-of-forty-characters-012345")
STEPS = []


def step(name):
    def add(function):
        STEPS.append((name, function))
        return function
    return add


def free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def postgres_table(folder):
    """The key service's table for a database of its own on that server; nothing for SQLite."""
    if folder is None:
        return ""
    server = json.loads((folder / "server.json").read_text())
    subprocess.run(["psql", "-X", "-q", "-h", server["socket"], "-p", str(server["port"]), "-d", "postgres",
                    "-c", "DROP DATABASE IF EXISTS fleet", "-c", "CREATE DATABASE fleet"], check=True)
    return f"""[store.postgres]
socket = "{server['socket']}"
port = {server['port']}
database = "fleet"
user = "{server['user']}"
"""


class Fleet:
    def __init__(self, options, home):
        self.options, self.home = options, home
        self.running, self.ports, self.admin = {}, {}, {}
        self.key_port = free_port()
        self.write("policy.toml", POLICY)
        self.write("keyservice.toml", f"""
state_dir = "keyservice"
listen = "127.0.0.1:{self.key_port}"
unlock = "passphrase-file"
passphrase_file = "passphrase"
{postgres_table(options.postgres)}
[limits]
lease_ttl_s = 5
derive_ttl_s = 5
binding_ttl_s = 5
session_ttl_s = 30
""")
        self.write("upstream.toml", f"""access_key_id = "{options.access_key_id}"
secret_access_key = "{options.secret_access_key}"
""")
        self.write("credentials.toml", CREDENTIALS)
        self.claviger("keys init --config keyservice.toml --policy policy.toml --recovery recovery"
                      " --operator first=operator --operator second=second-operator")
        self.start_key_service()
        for name in ["north", "south", "reader", "camera"]:
            self.by_two(f"keys gateway enrol {name} --keyset default", f"--token-file {name}.token")
            self.claviger(f"gateway enrol --token-file {name}.token --state-dir {name}")
            self.start_gateway(name)

    def write(self, name, text):
        path = self.home / name
        path.write_text(text)
        path.chmod(0o600)

    def command(self, arguments):
        return [self.options.claviger, *arguments.split()]

    def environment(self):
        return {**os.environ, "CLAVIGER_OPERATOR": str(self.home / "operator"), "CLAVIGER_LOG_FORMAT": "json"}

    def claviger(self, arguments):
        done = subprocess.run(self.command(arguments), cwd=self.home, env=self.environment(), capture_output=True, text=True)
        if done.returncode:
            raise RuntimeError(f"claviger {arguments}: {done.stderr[-2000:]}")
        return done.stdout

    def by_two(self, arguments, collect=None):
        """One operator proposes, the other approves, and the first collects what there is to collect."""
        proposal = self.claviger(arguments).split()[2].rstrip(",")
        self.claviger(f"keys approve {proposal} --identity second-operator")
        if collect:
            self.claviger(f"keys collect {proposal} {collect}")

    def start(self, name, arguments):
        log = open(self.home / f"{name}.log", "ab")
        self.running[name] = subprocess.Popen(
            self.command(arguments), cwd=self.home, env=self.environment(), stdout=log, stderr=log)

    def stop(self, name, how=signal.SIGTERM):
        process = self.running.pop(name)
        process.send_signal(how)
        process.wait(60)

    def start_key_service(self):
        self.start("service", "keyservice --config keyservice.toml")
        for _ in range(300):
            status = subprocess.run(self.command("keys status"), cwd=self.home, env=self.environment(), capture_output=True,
                                    text=True)
            if "Unlocked" in status.stdout:
                return
            time.sleep(0.1)
        raise RuntimeError(f"the key service did not come up: {status.stderr}")

    def start_gateway(self, name, key_port=None):
        self.ports.setdefault(name, free_port())
        self.admin.setdefault(name, free_port())
        self.write(f"{name}.toml", f"""
listen = "127.0.0.1:{self.ports[name]}"
credentials_file = "credentials.toml"
region = "eu-central-1"
virtual_hosts = ["s3.fleet.test"]
{'host_aliases = ["s3.fleet.test", "s3.fleet.test:8443"]' if name == "north" else ""}
[upstream]
endpoint = "{self.options.endpoint}"
region = "{self.options.region}"
credentials_file = "upstream.toml"
[key_service]
endpoint = "https://127.0.0.1:{key_port or self.key_port}"
state_dir = "{name}"
[system_area]
bucket = "fleet-system"
[admin]
listen = "127.0.0.1:{self.admin[name]}"
""")
        self.start(name, f"gateway --config {name}.toml")
        self.await_ready(name, True)

    def ready(self, name):
        try:
            url = f"http://127.0.0.1:{self.admin[name]}/health/ready"
            return urllib.request.urlopen(url, timeout=5).status == 200
        except (OSError, urllib.error.URLError):
            return False

    def metric(self, name, metric):
        text = urllib.request.urlopen(f"http://127.0.0.1:{self.admin[name]}/metrics", timeout=5).read().decode()
        return sum(float(line.split()[-1]) for line in text.splitlines() if line.startswith(metric))

    def await_metric(self, name, metric, wanted, seconds=10.0):
        until = time.monotonic() + seconds
        while self.metric(name, metric) != wanted:
            if time.monotonic() > until:
                raise AssertionError(f"{metric} of {name} is {self.metric(name, metric)}, not {wanted}")
            time.sleep(0.05)

    def await_ready(self, name, wanted):
        for _ in range(300):
            if self.ready(name) == wanted:
                return
            if self.running[name].poll() is not None:
                break
            time.sleep(0.1)
        log = (self.home / f"{name}.log").read_text()[-2000:]
        raise RuntimeError(f"{name} is not {'ready' if wanted else 'unready'}: {log}")

    def s3(self, name, key=ALICE):
        return client(f"http://127.0.0.1:{self.ports[name]}", "eu-central-1", key)

    def store(self):
        options = self.options
        return client(options.endpoint, options.region, (options.access_key_id, options.secret_access_key))

    def end(self):
        for name in list(self.running):
            try:
                self.stop(name)
            except subprocess.TimeoutExpired:
                self.running.get(name, None)


def client(endpoint, region, key, read_timeout=120):
    config = botocore.config.Config(retries={"total_max_attempts": 1}, s3={"addressing_style": "path"}, read_timeout=read_timeout,
                                    request_checksum_calculation="when_required",
                                    response_checksum_validation="when_required")
    return boto3.client("s3", endpoint_url=endpoint, region_name=region, aws_access_key_id=key[0],
                        aws_secret_access_key=key[1], config=config)


def same(got, want, what):
    if got != want:
        raise AssertionError(f"{what}: {str(got)[:80]!r}, not {str(want)[:80]!r}")


def refused(codes, call, *arguments, **named):
    try:
        call(*arguments, **named)
    except botocore.exceptions.ClientError as error:
        code = error.response["Error"]["Code"]
        if code not in codes.split():
            raise AssertionError(f"{code}, not {codes}") from error
        return error.response
    raise AssertionError(f"went through; expected {codes}")


def body(s3, key, bucket="fleet-one", **named):
    return s3.get_object(Bucket=bucket, Key=key, **named)["Body"].read()


def data(seed, length):
    import hashlib
    block = b"".join(hashlib.sha256(f"{seed}/{i}".encode()).digest() for i in range(2048))
    return (block * (length // len(block) + 1))[:length]


PARTS = [data("a", 5 * MIB + 1), data("b", 6 * MIB), data("c", 70_000)]


@step("one gateway makes a bucket, the other writes, both read")
def _(fleet):
    north, south = fleet.s3("north"), fleet.s3("south")
    north.create_bucket(Bucket="fleet-one")
    south.put_object(Bucket="fleet-one", Key="team/a", Body=b"from the south", Metadata={"by": "south"})
    same(body(north, "team/a"), b"from the south", "body")
    same(north.head_object(Bucket="fleet-one", Key="team/a")["Metadata"], {"by": "south"}, "metadata")
    same([b["Name"] for b in south.list_buckets()["Buckets"]], ["fleet-one"], "buckets")


@step("the provider has ciphertext and an envelope, and nothing of what the client said")
def _(fleet):
    raw = fleet.store().get_object(Bucket="fleet-one", Key="team/a")
    stored = raw["Body"].read()
    assert b"from the south" not in stored and stored[:4] == b"CLV\x01", stored[:16]
    same(sorted(raw["Metadata"]), ["claviger"], "metadata at the provider")
    same(raw["ContentType"], "application/octet-stream", "content type at the provider")


@step("parts through two gateways, completed by a third that began neither")
def _(fleet):
    north, south = fleet.s3("north"), fleet.s3("south")
    upload = north.create_multipart_upload(Bucket="fleet-one", Key="big", ContentType="text/x-fleet")["UploadId"]
    etags = []
    for number, (s3, part) in enumerate(zip([north, south, south], PARTS), 1):
        etags.append(s3.upload_part(Bucket="fleet-one", Key="big", UploadId=upload, PartNumber=number, Body=part)["ETag"])
    parts = [{"PartNumber": number, "ETag": etag} for number, etag in enumerate(etags, 1)]
    camera = fleet.s3("camera")
    camera.complete_multipart_upload(Bucket="fleet-one", Key="big", UploadId=upload, MultipartUpload={"Parts": parts})
    whole = b"".join(PARTS)
    for name in ["north", "south", "reader"]:
        s3 = fleet.s3(name)
        same(body(s3, "big"), whole, f"body through {name}")
        same(body(s3, "big", Range="bytes=5242870-5242900"), whole[5242870:5242901], f"range through {name}")
        same(s3.head_object(Bucket="fleet-one", Key="big")["ContentType"], "text/x-fleet", "content type")


@step("an upload goes on after a restart of its gateway and of the key service, from a listing")
def _(fleet):
    north = fleet.s3("north")
    upload = north.create_multipart_upload(Bucket="fleet-one", Key="resumed")["UploadId"]
    north.upload_part(Bucket="fleet-one", Key="resumed", UploadId=upload, PartNumber=1, Body=PARTS[0])
    fleet.stop("service", signal.SIGKILL)
    fleet.stop("north", signal.SIGKILL)
    fleet.start_key_service()
    fleet.start_gateway("north")
    listed = north.list_multipart_uploads(Bucket="fleet-one")["Uploads"]
    same([u["Key"] for u in listed], ["resumed"], "uploads")
    upload = listed[0]["UploadId"]
    north.upload_part(Bucket="fleet-one", Key="resumed", UploadId=upload, PartNumber=2, Body=PARTS[2])
    parts = north.list_parts(Bucket="fleet-one", Key="resumed", UploadId=upload)["Parts"]
    same([p["Size"] for p in parts], [len(PARTS[0]), len(PARTS[2])], "sizes")
    named = [{"PartNumber": p["PartNumber"], "ETag": p["ETag"]} for p in parts]
    north.complete_multipart_upload(Bucket="fleet-one", Key="resumed", UploadId=upload, MultipartUpload={"Parts": named})
    same(body(fleet.s3("south"), "resumed"), PARTS[0] + PARTS[2], "body")
    same(body(north, "team/a"), b"from the south", "an older body")


@step("one key for each object: read, head, range and copy without a lease, each in the audit log by its name")
def _(fleet):
    reader = fleet.s3("reader")
    same(body(reader, "team/a"), b"from the south", "body")
    same(reader.head_object(Bucket="fleet-one", Key="team/a")["Metadata"], {"by": "south"}, "metadata")
    reader.copy_object(Bucket="fleet-one", Key="copied", CopySource="fleet-one/team/a")
    reader.copy_object(Bucket="fleet-one", Key="replaced", CopySource="fleet-one/big", MetadataDirective="REPLACE",
                       Metadata={"new": "1"})
    same(body(fleet.s3("north"), "copied"), b"from the south", "body of the copy")
    same(fleet.s3("north").head_object(Bucket="fleet-one", Key="replaced")["Metadata"], {"new": "1"}, "metadata")
    same(body(reader, "replaced"), b"".join(PARTS), "body of the replaced copy")
    tail = fleet.claviger("keys audit tail -n 200")
    for wanted in ["gateway:reader", "team/a", "FLEETTESTALICE"]:
        assert wanted in tail, f"{wanted} is not in the audit log"


def passed_on(fleet, name, signed_host, sent_host, path="/fleet-one/team/a", **more):
    """What a gateway answers when a load balancer has put `sent_host` where the client signed `signed_host`."""
    request = botocore.awsrequest.AWSRequest("GET", f"http://{signed_host}{path}")
    request.headers["Host"] = signed_host
    botocore.auth.S3SigV4Auth(botocore.credentials.Credentials(*ALICE), "s3", "eu-central-1").add_auth(request)
    connection = http.client.HTTPConnection("127.0.0.1", fleet.ports[name], timeout=30)
    connection.request("GET", path, headers={**dict(request.headers), "Host": sent_host, **more})
    response = connection.getresponse()
    return response.status, response.read()


@step("behind a load balancer that rewrites Host, what was signed for a configured name is served, and for that name only")
def _(fleet):
    served = (200, b"from the south")
    inner = f"127.0.0.1:{fleet.ports['north']}"
    for signed_host in ["s3.fleet.test", "s3.fleet.test:8443", inner]:
        same(passed_on(fleet, "north", signed_host, inner), served, f"signed for {signed_host}")
    # The bucket of a virtual host is the one that was signed, not one that stands in the name which arrives.
    same(passed_on(fleet, "north", "s3.fleet.test", "fleet-two.s3.fleet.test"), served, "with another bucket in Host")
    same(passed_on(fleet, "north", "fleet-one.s3.fleet.test", "fleet-one.s3.fleet.test", "/team/a"), served, "a virtual host")
    for name, signed_host, more in [
        ("north", "elsewhere.test", {"X-Forwarded-Host": "elsewhere.test"}), ("north", "fleet-one.s3.fleet.test", {}),
        ("south", "s3.fleet.test", {"X-Forwarded-Host": "s3.fleet.test"}),
    ]:
        status, answer = passed_on(fleet, name, signed_host, f"127.0.0.1:{fleet.ports[name]}", **more)
        same((status, b"SignatureDoesNotMatch" in answer), (403, True), f"signed for {signed_host}, to {name}")


@step("a write-only gateway stores, also in parts, and is told clearly what it can't do")
def _(fleet):
    camera = fleet.s3("camera")
    camera.put_object(Bucket="fleet-one", Key="frame", Body=b"frame 1", ContentType="image/x-frame")
    upload = camera.create_multipart_upload(Bucket="fleet-one", Key="film")["UploadId"]
    etags = [camera.upload_part(Bucket="fleet-one", Key="film", UploadId=upload, PartNumber=n, Body=p)["ETag"]
             for n, p in [(1, PARTS[0]), (2, PARTS[2])]]
    camera.complete_multipart_upload(Bucket="fleet-one", Key="film", UploadId=upload, MultipartUpload={
        "Parts": [{"PartNumber": n, "ETag": e} for n, e in enumerate(etags, 1)]})
    head = camera.head_object(Bucket="fleet-one", Key="frame")
    same((head["ContentLength"], head["ContentType"]), (7, "application/octet-stream"), "unverified HEAD")
    same(head["ResponseMetadata"]["HTTPHeaders"]["x-claviger-sealed"], "1", "mark")
    answer = refused("AccessDenied", camera.get_object, Bucket="fleet-one", Key="frame")
    assert "write-only" in answer["Error"]["Message"], answer["Error"]
    refused("AccessDenied", camera.copy_object, Bucket="fleet-one", Key="x", CopySource="fleet-one/frame")
    refused("AccessDenied", camera.create_bucket, Bucket="fleet-camera")
    same(body(fleet.s3("north"), "frame"), b"frame 1", "body")
    same(body(fleet.s3("north"), "film"), PARTS[0] + PARTS[2], "body of the film")


@step("a client with a narrow policy stays inside it")
def _(fleet):
    narrow, alice = fleet.s3("north", NARROW), fleet.s3("north")
    same(body(narrow, "team/a"), b"from the south", "inside")
    narrow.put_object(Bucket="fleet-one", Key="team/b", Body=b"b")
    refused("AccessDenied", narrow.get_object, Bucket="fleet-one", Key="copied")
    refused("AccessDenied", narrow.put_object, Bucket="fleet-one", Key="elsewhere", Body=b"x")
    refused("AccessDenied", narrow.list_objects_v2, Bucket="fleet-one")
    refused("AccessDenied", narrow.delete_object, Bucket="fleet-one", Key="team/b")
    refused("AccessDenied", narrow.copy_object, Bucket="fleet-one", Key="team/c", CopySource="fleet-one/copied")
    refused("AccessDenied", narrow.create_bucket, Bucket="fleet-narrow")
    listed = narrow.list_objects_v2(Bucket="fleet-one", Prefix="team/")["Contents"]
    same([o["Key"] for o in listed], ["team/a", "team/b"], "listing")
    answer = alice.delete_objects(Bucket="fleet-one", Delete={"Objects": [{"Key": "team/b"}, {"Key": "not there"}]})
    same(sorted(d["Key"] for d in answer["Deleted"]), ["not there", "team/b"], "deleted")


@step("an object that Claviger did not write, or whose envelope is gone or another's, is refused")
def _(fleet):
    north, store = fleet.s3("north"), fleet.store()
    store.put_object(Bucket="fleet-one", Key="foreign", Body=b"plain text from elsewhere")
    refused("InvalidObjectState", north.get_object, Bucket="fleet-one", Key="foreign")
    for key, metadata in [("team/a", {}), ("team/a", {"claviger": "AAAA"})]:
        raw = store.get_object(Bucket="fleet-one", Key=key)["Body"].read()
        store.put_object(Bucket="fleet-one", Key="stripped", Body=raw, Metadata=metadata)
        refused("InvalidObjectState", north.get_object, Bucket="fleet-one", Key="stripped")
    raw = store.get_object(Bucket="fleet-one", Key="team/a")
    store.put_object(Bucket="fleet-one", Key="renamed", Body=raw["Body"].read(), Metadata=raw["Metadata"])
    refused("InternalError", north.get_object, Bucket="fleet-one", Key="renamed")
    for name in ["north", "reader"]:
        s3 = fleet.s3(name)
        try:
            s3.head_object(Bucket="fleet-one", Key="renamed")
        except botocore.exceptions.ClientError as error:
            same(error.response["ResponseMetadata"]["HTTPStatusCode"], 500, f"status of HEAD through {name}")
        else:
            raise AssertionError("HEAD of a renamed object went through")
    for key in ["foreign", "stripped", "renamed"]:
        north.delete_object(Bucket="fleet-one", Key=key)


@step("with the key service away writes go on, reads until the lease ends, then 503 with Retry-After; then all is well")
def _(fleet):
    north = fleet.s3("north")
    north.put_object(Bucket="fleet-one", Key="before", Body=b"before")
    same(body(north, "before"), b"before", "body")
    fleet.stop("service")
    north.put_object(Bucket="fleet-one", Key="during", Body=b"during")
    same(body(north, "before"), b"before", "body under the lease")
    time.sleep(6)
    north.put_object(Bucket="fleet-one", Key="during-2", Body=b"during 2")
    answer = refused("ServiceUnavailable SlowDown", north.get_object, Bucket="fleet-one", Key="before")
    assert int(answer["ResponseMetadata"]["HTTPHeaders"]["retry-after"]) >= 1, answer
    refused("ServiceUnavailable SlowDown", fleet.s3("reader").get_object, Bucket="fleet-one", Key="before")
    fleet.await_ready("north", False)
    stored = fleet.store().get_object(Bucket="fleet-one", Key="during-2")["Body"].read()
    assert stored[:4] == b"CLV\x01" and b"during" not in stored, "something was stored unsealed"
    fleet.start_key_service()
    fleet.await_ready("north", True)
    for key, want in [("before", b"before"), ("during", b"during"), ("during-2", b"during 2")]:
        same(body(north, key), want, key)


@step("a bucket made again under an old name takes none of the old objects")
def _(fleet):
    north, store = fleet.s3("north"), fleet.store()
    north.create_bucket(Bucket="fleet-two")
    north.put_object(Bucket="fleet-two", Key="k", Body=b"old")
    old = store.get_object(Bucket="fleet-two", Key="k")
    raw, metadata = old["Body"].read(), old["Metadata"]
    refused("BucketNotEmpty", north.delete_bucket, Bucket="fleet-two")
    north.delete_object(Bucket="fleet-two", Key="k")
    north.delete_bucket(Bucket="fleet-two")
    refused("NoSuchBucket", fleet.s3("north").list_objects_v2, Bucket="fleet-two")
    for _ in range(40):
        try:
            north.create_bucket(Bucket="fleet-two")
            break
        except botocore.exceptions.ClientError as error:
            same(error.response["Error"]["Code"], "OperationAborted", "while the old binding closes")
            time.sleep(0.5)
    store.put_object(Bucket="fleet-two", Key="k", Body=raw, Metadata=metadata)
    refused("InternalError", north.get_object, Bucket="fleet-two", Key="k")
    north.delete_object(Bucket="fleet-two", Key="k")
    north.delete_bucket(Bucket="fleet-two")


@step("a foreign bucket of the account with objects in it is not adopted")
def _(fleet):
    store = fleet.store()
    store.create_bucket(Bucket="fleet-foreign")
    store.put_object(Bucket="fleet-foreign", Key="k", Body=b"somebody's")
    refused("BucketAlreadyExists", fleet.s3("north").create_bucket, Bucket="fleet-foreign")
    refused("NoSuchBucket", fleet.s3("north").list_objects_v2, Bucket="fleet-foreign")
    store.delete_object(Bucket="fleet-foreign", Key="k")
    store.delete_bucket(Bucket="fleet-foreign")


@step("a PUT that outlives its bucket is not acknowledged, and is not read in the successor")
def _(fleet):
    north = fleet.s3("north")
    north.create_bucket(Bucket="fleet-slow")
    url = urllib.parse.urlsplit(north.generate_presigned_url("put_object", {"Bucket": "fleet-slow", "Key": "slow"}))
    connection = http.client.HTTPConnection(url.netloc, timeout=60)
    connection.putrequest("PUT", f"{url.path}?{url.query}")
    connection.putheader("Content-Length", "10")
    connection.endheaders()
    connection.send(b"01234")
    time.sleep(0.5)
    north.delete_bucket(Bucket="fleet-slow")
    for _ in range(40):
        try:
            north.create_bucket(Bucket="fleet-slow")
            break
        except botocore.exceptions.ClientError as error:
            same(error.response["Error"]["Code"], "OperationAborted", "while the old binding closes")
            time.sleep(0.5)
    connection.send(b"56789")
    answer = connection.getresponse()
    text = answer.read()
    # RGW itself may refuse a PUT whose bucket was deleted under it; what must not come is a 200.
    assert answer.status in (404, 409), (answer.status, text)
    # RGW keeps no condition on DELETE: what it stored stays, unreadable, until something replaces it.
    try:
        north.get_object(Bucket="fleet-slow", Key="slow")
        raise AssertionError("it can be read")
    except botocore.exceptions.ClientError as error:
        assert error.response["Error"]["Code"] in ("NoSuchKey", "InternalError"), error
    north.put_object(Bucket="fleet-slow", Key="slow", Body=b"new")
    same(body(north, "slow", bucket="fleet-slow"), b"new", "body")
    north.delete_object(Bucket="fleet-slow", Key="slow")
    north.delete_bucket(Bucket="fleet-slow")


@step("an envelope of an epoch that nobody knows is a failure and not a missing object")
def _(fleet):
    import base64
    north, store = fleet.s3("north"), fleet.store()
    north.put_object(Bucket="fleet-one", Key="epoch", Body=b"e")
    stored = store.get_object(Bucket="fleet-one", Key="epoch")
    text = stored["Metadata"]["claviger"]
    raw = bytearray(base64.urlsafe_b64decode(text + "=" * (-len(text) % 4)))
    raw[20] ^= 1
    flipped = base64.urlsafe_b64encode(bytes(raw)).decode().rstrip("=")
    store.put_object(Bucket="fleet-one", Key="epoch", Body=stored["Body"].read(), Metadata={"claviger": flipped})
    refused("InternalError", north.get_object, Bucket="fleet-one", Key="epoch")
    same(refused("500", north.head_object, Bucket="fleet-one", Key="epoch")["ResponseMetadata"]["HTTPStatusCode"], 500, "HEAD")
    north.delete_object(Bucket="fleet-one", Key="epoch")


@step("a rotated secret is refused at once, and the new one taken")
def _(fleet):
    same(body(fleet.s3("north", NARROW), "team/a"), b"from the south", "before")
    rotated = (NARROW[0], "rotated-secret-of-forty-characters-01234")
    fleet.write("credentials.toml", CREDENTIALS.replace(NARROW[1], rotated[1]))
    time.sleep(3.5)
    refused("SignatureDoesNotMatch", fleet.s3("north", NARROW).get_object, Bucket="fleet-one", Key="team/a")
    same(body(fleet.s3("north", rotated), "team/a"), b"from the south", "after")
    fleet.write("credentials.toml", CREDENTIALS)
    time.sleep(3.5)


@step("the system area is nobody's")
def _(fleet):
    north = fleet.s3("north")
    refused("AccessDenied", north.list_objects_v2, Bucket="fleet-system")
    refused("AccessDenied", north.put_object, Bucket="fleet-system", Key="x", Body=b"x")
    refused("AccessDenied", north.copy_object, Bucket="fleet-one", Key="x", CopySource="fleet-system/x")
    assert "fleet-system" not in [b["Name"] for b in north.list_buckets()["Buckets"]]


class Slowly:
    """Reads one large object, a little at a time, in a thread of its own, for as long as it comes."""

    def __init__(self, s3, key, pause):
        self.stream, self.pause, self.broken, self.got = s3.get_object(Bucket="fleet-one", Key=key)["Body"], pause, None, 0
        self.thread = threading.Thread(target=self.read, daemon=True)
        self.thread.start()

    def read(self):
        try:
            while piece := self.stream.read(MIB):
                self.got += len(piece)
                time.sleep(self.pause)
        except Exception as error:  # noqa: BLE001 - however it breaks off
            self.broken = error

    def is_broken_within(self, seconds):
        self.thread.join(seconds)
        return not self.thread.is_alive() and self.broken is not None


def await_refusal(s3, seconds, key="before"):
    """Reads again and again until that is refused; gives how long it took."""
    begun = time.monotonic()
    while True:
        try:
            body(s3, key)
        except botocore.exceptions.ClientError as error:
            assert error.response["Error"]["Code"] in ("ServiceUnavailable", "AccessDenied"), error
            return time.monotonic() - begun
        assert time.monotonic() - begun < seconds, f"still read after {seconds} s"
        time.sleep(0.02)


LONG = data("long", 200 * MIB)


@step("where a keyset is shredded by era, a copy lies under the newest version and outlives that of its source")
def _(fleet):
    north, south, reader = fleet.s3("north"), fleet.s3("south"), fleet.s3("reader")
    source, content = {"Bucket": "fleet-one", "Key": "team/2024"}, data("era", 200_000)
    policy = (fleet.home / "policy.toml").read_text()
    reads = 'verbs = ["read", "head", "copy-source", "write"]'
    assert reads in policy
    era = policy + '\n[[keyset]]\nname = "default"\nera_shred = true\n'

    def copy(s3, key, **more):
        return s3.copy_object(Bucket="fleet-one", Key=key, CopySource=source, **more)

    def in_force(text):
        fleet.write("policy-next.toml", text)
        fleet.by_two("keys policy propose policy-next.toml")

    def until(what, condition):
        deadline = time.monotonic() + 20
        while not condition():
            assert time.monotonic() < deadline, what
            time.sleep(0.2)

    def sealed_as(key):
        """Epoch and object id, as the stored envelope tells them."""
        envelope = fleet.store().head_object(Bucket="fleet-one", Key=key)["Metadata"]["claviger"]
        return base64.urlsafe_b64decode(envelope + "=" * (-len(envelope) % 4))[16:48]

    for name in ["north", "south", "reader"]:
        fleet.await_metric(name, "claviger_key_service_stream", 1, 40)
    north.put_object(Bucket="fleet-one", Key="team/2024", Body=content, Metadata={"year": "2024"})
    begun = north.create_multipart_upload(Bucket="fleet-one", Key="team/in-parts")
    in_force(era)
    assert "shredded by era" in fleet.claviger("keys keyset list")
    for s3, key in [(north, "team/same-era"), (reader, "team/same-era-too")]:
        copy(s3, key)
        same(sealed_as(key), sealed_as("team/2024"), "a copy under the same version, which stays in the store")
    fleet.by_two("keys keyset rotate default --shares 3 --threshold 2", "--to rotated --shares-format text")

    def is_sealed_anew(s3, key, **more):
        copy(s3, key, **more)
        return sealed_as(key) != sealed_as("team/2024")

    until("a gateway that leases to encrypt anew", lambda: is_sealed_anew(north, "team/kept"))
    until("a gateway that derives to encrypt anew", lambda: is_sealed_anew(reader, "team/kept-too"))
    until("another to do so", lambda: is_sealed_anew(south, "team/touched", Metadata={"year": "2026"}, MetadataDirective="REPLACE"))
    part = {"Bucket": "fleet-one", "Key": "team/in-parts", "PartNumber": 1, "CopySource": source}
    refused("NoSuchUpload", north.upload_part_copy, UploadId=begun["UploadId"], **part)
    refused("NoSuchUpload", south.upload_part_copy, UploadId=begun["UploadId"], **part)
    north.abort_multipart_upload(Bucket="fleet-one", Key="team/in-parts", UploadId=begun["UploadId"])
    begun = north.create_multipart_upload(Bucket="fleet-one", Key="team/in-parts")
    copied = south.upload_part_copy(UploadId=begun["UploadId"], **part)["CopyPartResult"]["ETag"]
    north.complete_multipart_upload(Bucket="fleet-one", Key="team/in-parts", UploadId=begun["UploadId"],
                                    MultipartUpload={"Parts": [{"PartNumber": 1, "ETag": copied}]})
    same(south.head_object(Bucket="fleet-one", Key="team/kept")["Metadata"], {"year": "2024"}, "metadata")

    # Who may copy and not read can't encrypt anew, and the client is told so.
    in_force(era.replace(reads, 'verbs = ["head", "copy-source", "write"]'))
    until("the reader to read no more", lambda: "shredded by era" in said(copy, reader, "team/not"))
    in_force(era)
    until("the reader to read again", lambda: said(copy, reader, "team/kept-three") == "")

    # The era ends: what was copied stays.
    fleet.by_two("keys shred propose default --version 1 --wait-days 3")
    until("the era to end", lambda: "KMS.KMSInvalidStateException" in said(north.get_object, Bucket="fleet-one", Key="team/2024"))
    for key in ["team/same-era", "team/same-era-too"]:
        refused("KMS.KMSInvalidStateException", north.get_object, Bucket="fleet-one", Key=key)
    for key in ["team/kept", "team/kept-too", "team/kept-three", "team/touched", "team/in-parts"]:
        same(body(north, key), content, key)
    fleet.claviger("keys shred cancel default --version 1")
    until("the era to be back", lambda: said(north.get_object, Bucket="fleet-one", Key="team/2024") == "")
    in_force(policy)


def said(call, *arguments, **named):
    """What a client is told when it is refused; nothing if it is not."""
    try:
        call(*arguments, **named)
        return ""
    except botocore.exceptions.ClientError as error:
        return f"{error.response['Error']['Code']}: {error.response['Error']['Message']}"


@step("a lock by one operator stops every gateway within two seconds, what is being sent included; unlocked, all is well")
def _(fleet):
    north, south = fleet.s3("north"), fleet.s3("south")
    north.put_object(Bucket="fleet-one", Key="long", Body=LONG)
    same(body(south, "before"), b"before", "body")
    for name in ["north", "south", "reader"]:
        fleet.await_metric(name, "claviger_key_service_stream", 1)
    transfer = Slowly(south, "long", 0.05)
    time.sleep(0.5)
    fleet.claviger("keys lock")
    for name in ["north", "south", "reader"]:
        took = await_refusal(fleet.s3(name), 2)
        assert took < 2, f"{name} read for {took} s"
    assert transfer.is_broken_within(10), f"a transfer went on; it has {transfer.got} bytes"
    assert transfer.got < len(LONG)
    refused("ServiceUnavailable", north.put_object, Bucket="fleet-one", Key="locked", Body=b"x")
    fleet.claviger("keys unlock --passphrase-file passphrase")
    for name in ["north", "south", "reader"]:
        fleet.await_ready(name, True)
        same(body(fleet.s3(name), "before"), b"before", f"body through {name}")
        fleet.await_metric(name, "claviger_key_service_stream", 1, 40)
    north.put_object(Bucket="fleet-one", Key="locked", Body=b"x")


@step("a gateway that is revoked in the middle of its reads opens nothing more within two seconds; the others go on")
def _(fleet):
    reader = fleet.s3("reader")
    fleet.await_metric("reader", "claviger_key_service_stream", 1, 40)
    same(body(reader, "before"), b"before", "body")
    transfer, other = Slowly(reader, "long", 0.05), Slowly(fleet.s3("north"), "long", 0.02)
    time.sleep(0.5)
    fleet.claviger("keys gateway revoke reader")
    took = await_refusal(reader, 2)
    assert took < 2, f"it read for {took} s"
    assert transfer.is_broken_within(10), f"a transfer went on; it has {transfer.got} bytes"
    same(body(fleet.s3("north"), "before"), b"before", "the others go on")
    other.thread.join(60)
    same((other.broken, other.got), (None, len(LONG)), "a transfer through another gateway")
    refused("ServiceUnavailable", reader.put_object, Bucket="fleet-one", Key="revoked", Body=b"x")
    same(fleet.metric("reader", "claviger_keys_dropped_total{cause=\"revoked\"}"), 1.0, "metric")


@step("whose stream is cut without a word reads no longer than its keys last, and health says that the stream is not held")
def _(fleet):
    passes = threading.Event()
    passes.set()
    port = relay(("127.0.0.1", 0), ("127.0.0.1", fleet.key_port), lambda _: passes.wait(), lambda _: passes.wait())[1]
    fleet.by_two("keys gateway enrol west --keyset default", "--token-file west.token")
    fleet.claviger("gateway enrol --token-file west.token --state-dir west")
    fleet.start_gateway("west", port)
    fleet.await_metric("west", "claviger_key_service_stream", 1)
    west = client(f"http://127.0.0.1:{fleet.ports['west']}", "eu-central-1", ALICE, read_timeout=2)
    same(body(west, "before"), b"before", "body")
    passes.clear()
    fleet.claviger("keys gateway revoke west")
    begun, reads = time.monotonic(), 0
    try:
        # The lease lasts 5 s. Then the gateway waits for an answer, and so does whoever reads.
        while time.monotonic() - begun < 12:
            asked = time.monotonic() - begun
            body(west, "before")
            reads += 1
            assert asked < 5.5, f"read {asked} s after the revocation"
            time.sleep(0.1)
    except (botocore.exceptions.ReadTimeoutError, botocore.exceptions.ClientError):
        pass
    else:
        raise AssertionError("nothing was refused")
    assert reads > 0, "the keys that it had did not last"
    passes.set()
    await_refusal(fleet.s3("west"), 5)
    fleet.await_metric("west", "claviger_key_service_stream", 0, 40)
    health = json.loads(urllib.request.urlopen(f"http://127.0.0.1:{fleet.admin['north']}/health/ready").read())
    same(health["warnings"], {"key_service_stream": None, "key_service_log": None}, "where the stream is held")
    fleet.await_ready("west", False)
    try:
        urllib.request.urlopen(f"http://127.0.0.1:{fleet.admin['west']}/health/ready")
        raise AssertionError("a revoked gateway is ready")
    except urllib.error.HTTPError as error:
        health = json.loads(error.read())
    assert "as keys run out" in health["warnings"]["key_service_stream"], health


def raw_request(fleet, request, wait=10):
    with socket.create_connection(("127.0.0.1", fleet.ports["north"]), timeout=wait) as connection:
        connection.sendall(request)
        answer = b""
        try:
            while piece := connection.recv(65536):
                answer += piece
                if len(answer) > 1 << 20:
                    break
        except (TimeoutError, ConnectionResetError):
            pass
        return answer


@step("malformed and unsigned requests get the code that S3 gives, and the gateway goes on")
def _(fleet):
    host = f"127.0.0.1:{fleet.ports['north']}"
    cases = [
        (b"GARBAGE\r\n\r\n", b" 400 "),
        (b"GET / HTTP/1.1\r\nHost: %s\r\nConnection: close\r\n\r\n", b"AccessDenied"),
        (b"GET /fleet-one/x HTTP/1.1\r\nHost: %s\r\nAuthorization: AWS4-HMAC-SHA256 nonsense\r\nConnection: close\r\n\r\n",
         b"AuthorizationHeaderMalformed"),
        (b"GET /fleet-one/x HTTP/1.1\r\nHost: %s\r\nAuthorization: AWS FLEETTESTALICE:c2lnbmF0dXJl\r\nConnection: close\r\n\r\n",
         b"<Code>"),
        (b"GET /%%ff%%zz HTTP/1.1\r\nHost: %s\r\nConnection: close\r\n\r\n", b"<Code>"),
        (b"GET / HTTP/1.1\r\nHost: %s\r\nX-Big: " + b"a" * 200_000 + b"\r\n\r\n", b" 4"),
    ]
    for request, wanted in cases:
        answer = raw_request(fleet, request.replace(b"%s", host.encode()).replace(b"%%", b"%"))
        assert wanted in answer, (request[:60], answer[:300])
    # Half-closed, and silent ones: nobody else notices.
    silent = [socket.create_connection(("127.0.0.1", fleet.ports["north"])) for _ in range(20)]
    for connection in silent[:10]:
        connection.sendall(b"PUT /fleet-one/half HTTP/1.1\r\nHost: x\r\nContent-Le")
        connection.shutdown(socket.SHUT_WR)
    same(body(fleet.s3("north"), "before"), b"before", "body")
    for connection in silent:
        connection.close()


def presigned_put(fleet, key, headers, payload, declared):
    s3 = fleet.s3("north")
    url = urllib.parse.urlsplit(s3.generate_presigned_url("put_object", {"Bucket": "fleet-one", "Key": key}))
    connection = http.client.HTTPConnection(url.netloc, timeout=30)
    connection.putrequest("PUT", f"{url.path}?{url.query}")
    for name, value in headers.items():
        connection.putheader(name, value)
    connection.putheader("Content-Length", str(declared))
    connection.endheaders()
    connection.send(payload)
    if len(payload) < declared:
        connection.sock.shutdown(socket.SHUT_WR)
    try:
        answer = connection.getresponse()
        return answer.status, answer.read()
    except (http.client.HTTPException, ConnectionError) as error:
        return 0, repr(error).encode()


@step("a body shorter than declared stores nothing; wrong checksums store nothing")
def _(fleet):
    north = fleet.s3("north")
    status, _ = presigned_put(fleet, "short", {}, b"x" * 1000, 2000)
    assert status in (0, 400), status
    status, answer = presigned_put(fleet, "digest", {"Content-MD5": "1B2M2Y8AsgTpgAmY7PhCfg=="}, b"not empty", 9)
    assert status == 400 and (b"BadDigest" in answer or b"SignatureDoesNotMatch" in answer), (status, answer)
    for key in ["short", "digest"]:
        refused("404 NoSuchKey", north.head_object, Bucket="fleet-one", Key=key)
    stored = [o["Key"] for o in fleet.store().list_objects_v2(Bucket="fleet-one").get("Contents", [])]
    assert not {"short", "digest"} & set(stored), stored


@step("what the gateway does not know never reaches the store")
def _(fleet):
    north = fleet.s3("north")
    refused("AccessDenied", north.put_object_tagging, Bucket="fleet-one", Key="before", Tagging={
        "TagSet": [{"Key": "secret", "Value": "plain"}]})
    refused("AccessDenied", north.put_object, Bucket="fleet-one", Key="t", Body=b"x", Tagging="secret=plain")
    refused("NotImplemented", north.put_bucket_website, Bucket="fleet-one", WebsiteConfiguration={"IndexDocument": {"Suffix": "i"}})
    refused("NotImplemented", north.put_object, Bucket="fleet-one", Key="t", Body=b"x", WebsiteRedirectLocation="/x")


@step("virtual-host style")
def _(fleet):
    config = botocore.config.Config(s3={"addressing_style": "virtual"}, retries={"total_max_attempts": 1})
    port = fleet.ports["north"]
    s3 = boto3.client("s3", endpoint_url=f"http://s3.fleet.test:{port}", region_name="eu-central-1",
                      aws_access_key_id=ALICE[0], aws_secret_access_key=ALICE[1], config=config)
    url = urllib.parse.urlsplit(s3.generate_presigned_url("get_object", {"Bucket": "fleet-one", "Key": "before"}))
    same(url.hostname, "fleet-one.s3.fleet.test", "host of the URL")
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=30)
    connection.request("GET", f"{url.path}?{url.query}", headers={"Host": url.netloc})
    answer = connection.getresponse()
    same((answer.status, answer.read()), (200, b"before"), "answer")


@step("health tells reasons, metrics have help, logs are JSON with request ids and no secret")
def _(fleet):
    base = f"http://127.0.0.1:{fleet.admin['north']}"
    same(urllib.request.urlopen(f"{base}/health/live").status, 200, "live")
    metrics = urllib.request.urlopen(f"{base}/metrics").read().decode()
    for name in ["claviger_requests_total", "claviger_upstream_requests_total", "claviger_key_service_calls_total"]:
        assert f"# HELP {name} " in metrics, name
    lines = [json.loads(line) for line in (fleet.home / "north.log").read_text().splitlines() if line.startswith("{")]
    assert any("request_id" in str(line) for line in lines), "no request ids in the log"
    everything = (fleet.home / "north.log").read_text() + metrics
    for secret in [ALICE[1], NARROW[1], fleet.options.secret_access_key]:
        assert secret not in everything, "a secret is in the log or the metrics"


@step("SIGTERM lets a running transfer finish")
def _(fleet):
    south = fleet.s3("south")
    large = data("drain", 40 * MIB)
    south.put_object(Bucket="fleet-one", Key="drain", Body=large)
    stream = south.get_object(Bucket="fleet-one", Key="drain")["Body"]
    got = [stream.read(MIB)]
    fleet.running["south"].send_signal(signal.SIGTERM)
    time.sleep(0.5)
    while piece := stream.read(4 * MIB):
        got.append(piece)
    same(b"".join(got) == large, True, "the body is whole")
    same(fleet.running.pop("south").wait(60), 0, "exit code")


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    for name in ["claviger", "endpoint", "access-key-id", "secret-access-key"]:
        parser.add_argument(f"--{name}", required=True)
    parser.add_argument("--region", default="us-east-1")
    parser.add_argument("--postgres", type=lambda text: pathlib.Path(text).absolute(), metavar="DIR")
    parser.add_argument("--keep", action="store_true", help="keep the folder with configurations and logs")
    options = parser.parse_args()
    options.claviger = str(pathlib.Path(options.claviger).resolve())
    home = pathlib.Path(tempfile.mkdtemp(prefix="claviger-fleet-"))
    failed = 0
    fleet = Fleet(options, home)
    try:
        for name, function in STEPS:
            begun = time.monotonic()
            try:
                function(fleet)
                print(f"PASS     fleet × {name} ({time.monotonic() - begun:.1f} s)", flush=True)
            except Exception as error:  # noqa: BLE001 - every kind of failure is a failed step
                failed += 1
                line = error.__traceback__.tb_next.tb_lineno if error.__traceback__.tb_next else 0
                print(f"FAIL     fleet × {name}: {type(error).__name__}: {error} (line {line})", flush=True)
    finally:
        fleet.end()
        if failed or options.keep:
            print(f"configurations and logs: {home}", flush=True)
        else:
            subprocess.run(["rm", "-rf", str(home)], check=True)
    print(f"{len(STEPS) - failed} passed, {failed} failed")
    sys.exit(1 if failed else 0)


if __name__ == "__main__":
    main()
