#!/usr/bin/env python3
"""Claviger before a provider that lies: no byte reaches a client that was not written there.

    lying.py --claviger BINARY --liar BINARY [--seed N] [--rounds N]

Starts the lying provider of claviger-testkit and `claviger demo` before it, writes objects, and reads them while lies are told:
each lie by itself at each kind of read, then all of them by a seeded draw. Whatever a client gets before an error has to be a
prefix of the truth, and an answer that ends well has to be all of it. Then faults of writes: what was reported as stored is
there, and nothing is ever a mixture. At the end everything that the provider got is left in --received for the leak check.

Run it with the Python of the boto3 environment. The last line is `N passed, N failed`.
"""

import argparse
import os
import random
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent))

import boto3
import botocore.client
import botocore.exceptions

import canary
from canary import data

BUCKET = "lied-about"
# Lies that change nothing about authenticated bytes or that nobody can tell from the truth; any answer but wrong bytes goes.
# Metadata by HEAD: an older envelope of the same name is a rollback (docs/format.md §5.4).
HEAD_ROLLBACK = "OldEnvelope"
TROUBLE = (botocore.exceptions.BotoCoreError, botocore.exceptions.ClientError, botocore.exceptions.HTTPClientError, OSError)


class Liar:
    def __init__(self, program):
        self.process = subprocess.Popen([program], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, bufsize=1)
        self.endpoint = self.process.stdout.readline().strip()

    def say(self, line):
        self.process.stdin.write(line + "\n")
        answer = self.process.stdout.readline().strip()
        if not answer or answer.startswith("what?"):
            raise SystemExit(f"the liar does not understand {line!r}: {answer!r}")
        return answer

    def told(self):
        return int(self.say("told"))


class Demo:
    def __init__(self, program, folder, upstream):
        credentials = folder / "upstream.toml"
        credentials.write_text('access_key_id = "liar-access-key"\nsecret_access_key = "liar-secret-key-0123456789"\n')
        credentials.chmod(0o600)
        ready = folder / "ready"
        self.log = open(folder / "demo.log", "w")
        self.process = subprocess.Popen(
            [program, "demo", "--dir", str(folder / "demo"), "--listen", "127.0.0.1:0", "--ready-file", str(ready),
             "--upstream", upstream, "--upstream-region", "us-east-1", "--upstream-credentials", str(credentials)],
            stdout=self.log, stderr=self.log)
        deadline = time.monotonic() + 60
        while not ready.exists() or not ready.read_text().strip():
            if self.process.poll() is not None or time.monotonic() > deadline:
                raise SystemExit((folder / "demo.log").read_text()[-2000:])
            time.sleep(0.1)
        lines = (folder / "demo" / "credentials.env").read_text().replace("export ", "").split()
        self.env = dict(line.replace('"', "").replace("'", "").split("=", 1) for line in lines if "=" in line)

    def running(self):
        return self.process.poll() is None

    def stop(self):
        self.process.send_signal(signal.SIGINT)
        return self.process.wait(60)


class NoDemo:
    """The control: the client talks to the liar itself."""

    def __init__(self, upstream):
        self.env = {"AWS_ENDPOINT_URL": upstream, "AWS_REGION": "us-east-1", "AWS_ACCESS_KEY_ID": "liar-access-key",
                    "AWS_SECRET_ACCESS_KEY": "liar-secret-key-0123456789"}

    def running(self):
        return True

    def stop(self):
        return 0


class Checks:
    def __init__(self):
        self.passed = self.failed = 0

    def note(self, name, problem):
        if problem:
            self.failed += 1
            print(f"FAIL     {name}: {problem}", flush=True)
        else:
            self.passed += 1


def read(s3, key, **arguments):
    """Bytes that came, and whether the answer ended well."""
    got = bytearray()
    try:
        answer = s3.get_object(Bucket=BUCKET, Key=key, **arguments)
        declared = answer["ContentLength"]
        while piece := answer["Body"]._raw_stream.read(65_536, decode_content=False):
            got += piece
        return bytes(got), len(got) == declared
    except Exception as error:  # noqa: BLE001 - the client has been told that something is wrong
        if not isinstance(error, TROUBLE) and "urllib3" not in type(error).__module__:
            raise
        return bytes(got), False


def verdict(got, whole, want):
    """What is wrong with what came, if anything."""
    if want[:len(got)] != got:
        at = next((i for i, (a, b) in enumerate(zip(got, want)) if a != b), min(len(got), len(want)))
        return f"wrong bytes at {at} of {len(got)} (the truth has {len(want)})"
    if whole and len(got) != len(want):
        return f"a good end after {len(got)} bytes; the truth has {len(want)}"
    return None


OBJECTS = {
    "small": ["small"],
    "medium": ["medium"],
    "multi": ["part1", "part3", "tail"],
    "empty": ["empty"],
}


def body_of(key):
    return b"".join(data(name) for name in OBJECTS[key])


def prepare(s3):
    s3.create_bucket(Bucket=BUCKET)
    older = {"small": data("small2")[:1500], "medium": data("large")[:1_000_003], "empty": b"x",
             "multi": data("large")[:len(body_of("multi"))]}
    for key, names in OBJECTS.items():
        # An earlier version of the same size, and a stranger of the same size.
        s3.put_object(Bucket=BUCKET, Key=key, Body=older[key], Metadata={"note": "old-" + canary.META})
        s3.put_object(Bucket=BUCKET, Key=f"stranger-{key}", Body=older[key][::-1], Metadata={"note": "other-" + canary.META})
        if len(names) == 1:
            s3.put_object(Bucket=BUCKET, Key=key, Body=body_of(key), Metadata={"note": canary.META})
            continue
        upload = s3.create_multipart_upload(Bucket=BUCKET, Key=key, Metadata={"note": canary.META})["UploadId"]
        parts = [{"PartNumber": number, "ETag": s3.upload_part(Bucket=BUCKET, Key=key, UploadId=upload, PartNumber=number,
                                                              Body=data(name))["ETag"]}
                 for number, name in enumerate(names, 1)]
        s3.complete_multipart_upload(Bucket=BUCKET, Key=key, UploadId=upload, MultipartUpload={"Parts": parts})


def spans(key):
    size = len(body_of(key))
    return [(a, b) for a, b in [(0, 0), (0, 99), (65_530, 65_540), (70_000, 200_000), (5_300_000, 5_300_010),
                                (size - 100, size - 1), (100, size - 1)] if 0 <= a <= b < size]


def each_lie(s3, liar, checks):
    for lie in liar.say("lies").split():
        before = liar.told()
        for key in OBJECTS:
            liar.say(f"always {lie} /{BUCKET}/{key}")
            got, whole = read(s3, key)
            checks.note(f"{lie}, GET {key}", verdict(got, whole, body_of(key)))
            for first, last in spans(key):
                got, whole = read(s3, key, Range=f"bytes={first}-{last}")
                checks.note(f"{lie}, GET {key} {first}-{last}", verdict(got, whole, body_of(key)[first:last + 1]))
            checks.note(f"{lie}, HEAD {key}", head_problem(s3, lie, key))
            checks.note(f"{lie}, copy of {key}", copy_problem(s3, liar, key))
        liar.say("honest")
        told = liar.told() - before
        checks.note(f"{lie} is told at all", None if told else "never told")
        for key in OBJECTS:
            got, whole = read(s3, key)
            checks.note(f"{key} after {lie}", None if whole and got == body_of(key) else "the truth is not served any more")


def head_problem(s3, lie, key):
    try:
        answer = s3.head_object(Bucket=BUCKET, Key=key)
    except TROUBLE:
        return None
    if lie != HEAD_ROLLBACK and answer["Metadata"] != {"note": canary.META}:
        return f"metadata {answer['Metadata']}"
    # Of a multipart object the size is the provider's claim until it is read (docs/format.md §3.8).
    if lie != HEAD_ROLLBACK and key != "multi" and answer["ContentLength"] != len(body_of(key)):
        return f"length {answer['ContentLength']}"
    return None


def copy_problem(s3, liar, key):
    """A copy that was made while the provider lied gives the truth or an error when it is read honestly."""
    try:
        s3.copy_object(Bucket=BUCKET, Key=f"copy-of-{key}", CopySource={"Bucket": BUCKET, "Key": key})
    except TROUBLE:
        return None
    got, whole = read(s3, f"copy-of-{key}")
    return verdict(got, whole, body_of(key))


def drawn_lies(s3, liar, checks, seed, rounds):
    draw = random.Random(seed)
    liar.say(f"reads {seed} 40")
    for number in range(rounds):
        key = draw.choice(list(OBJECTS))
        want = body_of(key)
        if draw.random() < 0.3 or not want:
            got, whole = read(s3, key)
        else:
            first = draw.randrange(len(want))
            last = min(len(want) - 1, first + draw.choice([0, 1, 1000, 65_536, 300_000, 10_000_000]))
            want = want[first:last + 1]
            got, whole = read(s3, key, Range=f"bytes={first}-{last}")
        checks.note(f"seed {seed}, read {number} of {key}", verdict(got, whole, want))
    liar.say("honest")


def write_faults(s3, liar, checks, seed, rounds):
    """Writes under faults: a key holds one of the bodies that were sent to it, and the last one that was acknowledged or a
    later one."""
    draw = random.Random(seed + 1)
    sent, floor = {}, {}
    liar.say(f"faults {seed} 30")
    for number in range(rounds):
        key = f"faulty-{draw.randrange(8)}"
        body = data(draw.choice(["small", "segment1", "medium", "empty", "part1"])) + b"%06d" % number
        sent.setdefault(key, []).append(body)
        try:
            if draw.random() < 0.3:
                upload = s3.create_multipart_upload(Bucket=BUCKET, Key=key)["UploadId"]
                etag = s3.upload_part(Bucket=BUCKET, Key=key, UploadId=upload, PartNumber=1, Body=body)["ETag"]
                s3.complete_multipart_upload(Bucket=BUCKET, Key=key, UploadId=upload,
                                             MultipartUpload={"Parts": [{"PartNumber": 1, "ETag": etag}]})
            else:
                s3.put_object(Bucket=BUCKET, Key=key, Body=body)
            floor[key] = len(sent[key]) - 1
        except TROUBLE:
            pass
    liar.say("honest")
    for key, bodies in sorted(sent.items()):
        got, whole = read(s3, key)
        if not whole and key not in floor:
            checks.note(f"seed {seed}, {key} was never acknowledged", None)
        elif not whole:
            checks.note(f"seed {seed}, {key}", "was acknowledged and can't be read")
        else:
            allowed = bodies[floor.get(key, 0):]
            checks.note(f"seed {seed}, {key}", None if got in allowed else f"{len(got)} bytes that are not what was stored last")


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--claviger", help="the binary; not needed with --control")
    parser.add_argument("--control", action="store_true",
                        help="without Claviger, where wrong bytes have to be seen: exit code 1 if they are NOT")
    parser.add_argument("--liar", required=True)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--rounds", type=int, default=300)
    parser.add_argument("--received", type=Path, help="file for all that the provider got")
    options = parser.parse_args()
    checks = Checks()
    with tempfile.TemporaryDirectory(prefix="claviger-lying-") as folder:
        liar = Liar(options.liar)
        demo = NoDemo(liar.endpoint) if options.control else Demo(options.claviger, Path(folder), liar.endpoint)
        s3 = boto3.client(
            "s3", endpoint_url=demo.env["AWS_ENDPOINT_URL"], region_name=demo.env["AWS_REGION"],
            aws_access_key_id=demo.env["AWS_ACCESS_KEY_ID"], aws_secret_access_key=demo.env["AWS_SECRET_ACCESS_KEY"],
            config=botocore.client.Config(s3={"addressing_style": "path"}, retries={"total_max_attempts": 1},
                                          read_timeout=30, response_checksum_validation="when_required"))
        prepare(s3)
        each_lie(s3, liar, checks)
        drawn_lies(s3, liar, checks, options.seed, options.rounds)
        write_faults(s3, liar, checks, options.seed, options.rounds)
        checks.note("the gateway still runs", None if demo.running() else "ended")
        if options.received:
            options.received.parent.mkdir(parents=True, exist_ok=True)
            liar.say(f"received {options.received}")
        print(f"{liar.told()} lies told")
        checks.note("the demo ends cleanly", None if demo.stop() == 0 else "exit code")
        liar.process.stdin.close()
        liar.process.wait(20)
    print(f"{checks.passed} passed, {checks.failed} failed")
    if options.control:
        sys.exit(0 if checks.failed > 100 else 1)
    sys.exit(1 if checks.failed or not checks.passed else 0)


if __name__ == "__main__":
    main()
