#!/usr/bin/env python3
"""Everything back from ciphertext and recovery shares.

    recover.py --claviger BINARY --provider BINARY

Starts the embedded provider as a store of its own and `claviger demo` before it. boto3 writes objects of many kinds; then the demo is
stopped and its folder, key service and all, is deleted but for the recovery shares. `claviger recover` has to give every object back,
byte for byte and by its name, and of damaged, moved and foreign ones nothing but a complaint.

Run it with the Python of the boto3 environment. The last line is `N passed, N failed`.
"""

import argparse
import base64
import hashlib
import json
import os
import random
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import boto3
import botocore.client

from doubles import Demo, same

MIB = 1 << 20
BUCKET, OTHER = "recovered", "another"
UMLAUTS = "übung/日本語/🔑 key.txt"
LONG = "long/" + "k" * 1019
SHARES = [f"recovery/default-v1-share-{number}.txt" for number in range(1, 6)]


def data(name, size):
    return random.Random(name).randbytes(size)


class Provider:
    """The embedded provider, as a store of its own."""

    region, access_key, secret_key = "us-east-1", "PROVIDERRECOVER", "provider-secret-of-forty-characters-01234"

    def __init__(self, program, folder):
        ready = folder / "provider.ready"
        self.process = subprocess.Popen([program, "--dir", str(folder / "provider"), "--listen", "127.0.0.1:0",
                                         "--access-key-id", self.access_key, "--secret-access-key", self.secret_key,
                                         "--ready-file", str(ready)], stdout=subprocess.DEVNULL)
        deadline = time.monotonic() + 30
        while not ready.exists():
            if self.process.poll() is not None or time.monotonic() > deadline:
                raise SystemExit("the provider does not start")
            time.sleep(0.05)
        self.endpoint = ready.read_text().strip()
        self.s3 = boto3.client(
            "s3", endpoint_url=self.endpoint, region_name=self.region, aws_access_key_id=self.access_key,
            aws_secret_access_key=self.secret_key, config=botocore.client.Config(
                signature_version="s3v4", s3={"addressing_style": "path"}, request_checksum_calculation="when_required"))


def upload(s3, key, parts):
    """A multipart upload of these part numbers and lengths."""
    begun = s3.create_multipart_upload(Bucket=BUCKET, Key=key, ContentType="video/test", Metadata={"camera": "north"})
    done = []
    for number, size in parts:
        part = s3.upload_part(Bucket=BUCKET, Key=key, UploadId=begun["UploadId"], PartNumber=number, Body=data(f"{key}{number}", size))
        done.append({"PartNumber": number, "ETag": part["ETag"]})
    s3.complete_multipart_upload(Bucket=BUCKET, Key=key, UploadId=begun["UploadId"], MultipartUpload={"Parts": done})
    return b"".join(data(f"{key}{number}", size) for number, size in parts)


def write_all(s3):
    """What is written through Claviger: content by bucket and key."""
    written = {}

    def put(bucket, key, size, **more):
        s3.put_object(Bucket=bucket, Key=key, Body=data(key, size), **more)
        written[bucket, key] = data(key, size)

    for bucket in (BUCKET, OTHER):
        s3.create_bucket(Bucket=bucket)
    put(BUCKET, "overwritten", 70_000)
    s3.put_object(Bucket=BUCKET, Key="overwritten", Body=b"the newer one")
    written[BUCKET, "overwritten"] = b"the newer one"
    put(BUCKET, "small.txt", 1_500, ContentType="text/plain; charset=utf-8", CacheControl="max-age=7",
        Metadata={"owner": "mueller", "note": "two words"}, ChecksumAlgorithm="SHA256")
    put(BUCKET, "empty", 0)
    put(BUCKET, "folder/", 0)
    put(BUCKET, "segment", 65_536)
    put(BUCKET, "three mib", 3 * MIB + 17)
    put(BUCKET, UMLAUTS, 5_000)
    put(BUCKET, LONG, 333)
    put(BUCKET, "a", 10)
    put(BUCKET, "a/b", 11)
    put(BUCKET, "a//b", 12)
    put(BUCKET, "100%25/..%2f", 13)
    for key in ("../x", "up/../../x", "./dot"):
        put(BUCKET, key, 14)
    written[BUCKET, "multipart"] = upload(s3, "multipart", [(1, 5 * MIB), (3, 6 * MIB + 12_345), (7, 8 * MIB + 1), (9999, 77)])
    written[BUCKET, "one part"] = upload(s3, "one part", [(5, 1)])
    s3.copy_object(Bucket=BUCKET, Key="copies/multipart", CopySource={"Bucket": BUCKET, "Key": "multipart"},
                   MetadataDirective="REPLACE", ContentType="video/copied", Metadata={"camera": "south"})
    written[BUCKET, "copies/multipart"] = written[BUCKET, "multipart"]
    s3.copy_object(Bucket=OTHER, Key="copied", CopySource={"Bucket": BUCKET, "Key": "small.txt"})
    written[OTHER, "copied"] = written[BUCKET, "small.txt"]
    put(OTHER, "small.txt", 1_501)
    put(OTHER, "later", 9)
    return written


class World:
    """A store full of ciphertext, and shares."""

    def __init__(self, options, home):
        self.options, self.claviger, self.home, self.started = options, options.claviger, home, []
        self.provider = self.start(Provider(options.provider, home))

    def fill(self):
        """Writes through Claviger, and removes the key service."""
        home = self.home
        demo = self.demo(self.provider)
        self.written = write_all(demo.s3)
        demo.stop()
        # And an epoch of its own, which is to be lost.
        before = set(self.system("epochs/"))
        demo = self.demo(self.provider)
        demo.s3.put_object(Bucket=OTHER, Key="of the last epoch", Body=b"last")
        self.await_keyset_record()
        demo.stop()
        self.last_epoch = set(self.system("epochs/")) - before
        self.shares = [home / f"share-{number}.txt" for number in range(1, 6)]
        for share, place in zip(SHARES, self.shares):
            shutil.move(home / "demo" / share, place)
        # A key service of somebody else, whose shares open nothing here.
        shutil.rmtree(home / "demo")
        (home / "ready").unlink(missing_ok=True)
        (home / "foreign").mkdir()
        self.demo(self.start(Provider(self.options.provider, home / "foreign"))).stop()
        self.foreign = [home / f"foreign-{number}.txt" for number in range(1, 6)]
        for share, place in zip(SHARES, self.foreign):
            shutil.move(home / "demo" / share, place)
        shutil.rmtree(home / "demo")
        credentials = home / "store-credentials.toml"
        credentials.touch(mode=0o600)
        credentials.write_text(f'access_key_id = "{Provider.access_key}"\nsecret_access_key = "{Provider.secret_key}"\n')
        (home / "store.toml").write_text(f"""[upstream]
endpoint = "{self.provider.endpoint}"
profile = "embedded"
credentials_file = "store-credentials.toml"
""")

    def await_keyset_record(self):
        """Gateways store the record that names a new bucket at their next look, at the start or a minute later."""
        deadline = time.monotonic() + 100
        while True:
            records = [self.raw("claviger-system", key)[0] for key in self.system("keyset/")]
            if any(f"{BUCKET}#".encode() in record and f"{OTHER}#".encode() in record for record in records):
                return
            if time.monotonic() > deadline:
                raise AssertionError("no keyset record names the buckets")
            time.sleep(0.5)

    def start(self, started):
        self.started.append(started)
        return started

    def demo(self, provider):
        return self.start(Demo(self.claviger, self.home, "embedded", provider))

    def end(self):
        for started in self.started:
            if started.process.poll() is None:
                started.process.terminate()
                started.process.wait(30)

    def system(self, prefix):
        listed = self.provider.s3.list_objects_v2(Bucket="claviger-system", Prefix=f".claviger/{prefix}")
        return [entry["Key"] for entry in listed.get("Contents", [])]

    def recover(self, *arguments, code, shares=None, source=None):
        shares = self.shares[1:4] if shares is None else shares
        command = [self.claviger, "recover"]
        for share in shares:
            command += ["--share", str(share)]
        command += source or ["--store", str(self.home / "store.toml")]
        done = subprocess.run([*command, *map(str, arguments)], stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=300)
        said = done.stdout + done.stderr
        if done.returncode != code:
            raise AssertionError(f"ended with {done.returncode}, not {code}: {said[-1500:]}")
        for line in (share.read_text().splitlines()[-1] for share in self.shares):
            if line.strip() and line.strip() in said:
                raise AssertionError("a share is shown")
        return said

    def index(self, folder, proof="verified"):
        lines = [json.loads(line) for line in (folder / "_index.jsonl").read_text().splitlines()]
        return {(line["bucket"], line["key"]): line for line in lines if line["name"] == proof}

    def raw(self, bucket, key):
        """An object as the store has it: body and envelope."""
        got = self.provider.s3.get_object(Bucket=bucket, Key=key)
        return got["Body"].read(), got["Metadata"]

    def put_raw(self, bucket, key, body, metadata):
        self.provider.s3.put_object(Bucket=bucket, Key=key, Body=body, Metadata=metadata)


def check_contents(folder, index, written):
    same(sorted(index), sorted(written), "what was recovered")
    for name, content in written.items():
        path = folder / index[name]["file"]
        if folder.resolve() not in path.resolve().parents:
            raise AssertionError(f"{name} lies outside: {path}")
        if path.read_bytes() != content:
            raise AssertionError(f"the content of {name} is another: {path.stat().st_size} bytes, not {len(content)}")
        same(index[name]["size"], len(content), f"the size of {name}")
        same(path.stat().st_mode & 0o777, 0o600, f"the mode of {name}")


def all_of_it(world):
    return {**world.written, (OTHER, "of the last epoch"): b"last"}


def everything_comes_back(world):
    folder = world.home / "back"
    said = world.recover("--to", folder, code=0)
    index = world.index(folder)
    check_contents(folder, index, all_of_it(world))
    same((folder / BUCKET / UMLAUTS).read_bytes(), world.written[BUCKET, UMLAUTS], "a file by its key")
    same((folder / BUCKET / "%2E%2E" / "x").read_bytes(), world.written[BUCKET, "../x"], "a key that leads upwards")
    small = index[BUCKET, "small.txt"]
    same(small["headers"]["content-type"], "text/plain; charset=utf-8", "the content type")
    same(small["headers"]["cache-control"], "max-age=7", "another header")
    same(small["metadata"]["note"], "two words", "user metadata")
    same(small["checksum"]["algorithm"], "SHA256", "the checksum")
    digest = hashlib.sha256(world.written[BUCKET, "small.txt"]).digest()
    same(small["checksum"]["value"], base64.b64encode(digest).decode(), "the checksum")
    same(index[BUCKET, "multipart"]["metadata"], {"camera": "north"}, "metadata of an upload")
    same(index[BUCKET, "copies/multipart"]["headers"]["content-type"], "video/copied", "the copy's own header")
    if "0 objects FAILED" not in said or "revoked" not in said or "sealed by gateway" not in said:
        raise AssertionError(said)
    summary = json.loads((folder / "_summary.json").read_text())
    same(summary["verified"]["objects"], len(all_of_it(world)), "the count")
    (gateway, epochs), = summary["sealed_by"].items()
    same(gateway, small["sealed"]["gateway_id"], "who sealed")
    same(len(epochs), 2, "epochs")
    same((folder / "_failed.jsonl").read_text(), "", "failures")


def a_second_run_skips_what_is_whole_and_mends_the_rest(world):
    folder = world.home / "back"
    index = world.index(folder)
    damaged, gone = folder / index[BUCKET, "three mib"]["file"], folder / index[BUCKET, "a/b"]["file"]
    with open(damaged, "r+b") as file:
        file.seek(1_000_000)
        file.write(b"x")
    gone.unlink()
    with open(folder / "_index.jsonl", "a") as file:
        file.write('{"bucket":"torn')
    said = world.recover("--to", folder, code=0)
    if f"{len(all_of_it(world)) - 2} objects were there" not in said:
        raise AssertionError(said)
    check_contents(folder, world.index(folder), all_of_it(world))


def a_part_of_it_by_bucket_and_prefix(world):
    folder = world.home / "some"
    world.recover("--to", folder, "--bucket", BUCKET, "--prefix", "a/", code=0)
    check_contents(folder, world.index(folder), {name: body for name, body in world.written.items() if name[1].startswith("a/")})


def a_list_writes_nothing(world):
    said = world.recover("--list", code=0)
    if f"opens  {BUCKET}/multipart  {len(world.written[BUCKET, 'multipart'])}" not in said:
        raise AssertionError(said)


def one_share_too_few(world):
    folder = world.home / "few"
    said = world.recover("--to", folder, shares=world.shares[:2], code=2)
    if "2 given, 3 are needed: bring 1 more" not in said:
        raise AssertionError(said)
    same(folder.exists(), False, "a folder that was made for nothing")


def the_same_share_twice(world):
    said = world.recover("--list", shares=[*world.shares[:2], world.shares[1]], code=2)
    if "twice" not in said:
        raise AssertionError(said)


def a_share_of_another_service_among_them(world):
    said = world.recover("--list", shares=[*world.shares[:2], world.foreign[2]], code=2)
    if "bring 1 more" not in said or "bring 2 more" not in said:
        raise AssertionError(said)


def a_mistyped_share(world):
    wrong = world.home / "mistyped.txt"
    line = next(line for line in world.shares[0].read_text().splitlines() if line.startswith("clv-share-1"))
    wrong.write_text(line[:-12] + ("0" if line[-12] != "0" else "1") + line[-11:] + "\n")
    wrong.chmod(0o600)
    said = world.recover("--list", shares=[wrong, *world.shares[1:3]], code=2)
    if "mistyped" not in said:
        raise AssertionError(said)


def shares_of_another_service_open_nothing(world):
    folder = world.home / "foreign-back"
    world.recover("--to", folder, shares=world.foreign[:3], code=1)
    same(world.index(folder), {}, "what others' shares open")


def shares_of_two_services_open_each_its_own(world):
    folder = world.home / "both"
    world.recover("--to", folder, "--bucket", OTHER, shares=[*world.foreign[:3], *world.shares[2:]], code=0)
    check_contents(folder, world.index(folder), {name: body for name, body in all_of_it(world).items() if name[0] == OTHER})


def dump(world, name, with_envelopes):
    """What rclone writes."""
    folder = world.home / name
    env = {name: value for name, value in os.environ.items() if not name.startswith("AWS_")}
    env |= {"RCLONE_CONFIG_S_TYPE": "s3", "RCLONE_CONFIG_S_PROVIDER": "Other", "RCLONE_CONFIG_S_ENDPOINT": world.provider.endpoint,
           "RCLONE_CONFIG_S_ACCESS_KEY_ID": Provider.access_key, "RCLONE_CONFIG_S_SECRET_ACCESS_KEY": Provider.secret_key,
           "RCLONE_CONFIG": "/dev/null"}
    for bucket in (OTHER, "claviger-system"):
        done = subprocess.run(["rclone", "copy", f"s:{bucket}", str(folder / bucket), *(["--metadata"] if with_envelopes else [])],
                              env=env, capture_output=True, text=True, timeout=120)
        same(done.returncode, 0, f"rclone: {done.stderr[-500:]}")
    return folder


def a_plain_dump_gives_contents_whose_names_are_unverified(world):
    folder = world.home / "from-dump"
    said = world.recover("--to", folder, source=["--dump", str(dump(world, "dump", False))], code=0)
    if "name and metadata UNVERIFIED" not in said:
        raise AssertionError(said)
    same(world.index(folder), {}, "names that were taken for verified")
    check_contents(folder, world.index(folder, "unverified"), {name: body for name, body in all_of_it(world).items() if name[0] == OTHER})
    same((folder / OTHER).exists(), False, "an unverified name among the verified")


def a_multipart_object_as_a_plain_file(world):
    source = world.home / "files"
    shutil.copytree(world.home / "dump" / "claviger-system", source / "claviger-system")
    (source / BUCKET).mkdir()
    body, _ = world.raw(BUCKET, "multipart")
    (source / BUCKET / "any name").write_bytes(body)
    (source / BUCKET / "cut").write_bytes(body[:-1])
    (source / BUCKET / "not ours").write_bytes(b"x" * 500)
    folder = world.home / "from-files"
    said = world.recover("--to", folder, source=["--dump", str(source)], code=1)
    check_contents(folder, world.index(folder, "unverified"), {(BUCKET, "any name"): world.written[BUCKET, "multipart"]})
    if "not ours  no object of Claviger" not in said:
        raise AssertionError(said)


def a_dump_with_metadata_gives_verified_names(world):
    folder = world.home / "from-metadata"
    world.recover("--to", folder, source=["--dump", str(dump(world, "dump-metadata", True))], code=0)
    check_contents(folder, world.index(folder), {name: body for name, body in all_of_it(world).items() if name[0] == OTHER})


def damage(world):
    """What a store may do; the key of each, and what is said of it."""
    body, meta = world.raw(BUCKET, "three mib")
    flipped = bytearray(body)
    flipped[2 * MIB] ^= 1
    world.put_raw(BUCKET, "three mib", bytes(flipped), meta)
    body, meta = world.raw(BUCKET, "multipart")
    flipped = bytearray(body)
    flipped[6 * MIB] ^= 0x80
    world.put_raw(BUCKET, "multipart", bytes(flipped), meta)
    body, meta = world.raw(BUCKET, "one part")
    world.put_raw(BUCKET, "one part", body[:-1], meta)
    body, meta = world.raw(BUCKET, "small.txt")
    world.put_raw(BUCKET, "moved.txt", body, meta)
    world.put_raw(OTHER, "small.txt", body, meta)
    _, envelope = world.raw(BUCKET, "segment")
    world.put_raw(BUCKET, "empty", world.raw(BUCKET, "overwritten")[0], envelope)
    world.put_raw(BUCKET, "stranger", b"not sealed at all", {})
    body, meta = world.raw(BUCKET, "a")
    text = meta["claviger"]
    world.put_raw(BUCKET, "a", body, {"claviger": text[:-3] + ("A" if text[-3] != "A" else "B") + text[-2:]})
    for key in world.last_epoch:
        world.provider.s3.delete_object(Bucket="claviger-system", Key=key)
    return {
        (BUCKET, "three mib"): "damaged", (BUCKET, "multipart"): "damaged", (BUCKET, "one part"): "damaged",
        (BUCKET, "moved.txt"): "another bucket or key", (OTHER, "small.txt"): f"another bucket: {BUCKET}#",
        (BUCKET, "empty"): "another bucket or key", (BUCKET, "stranger"): "no object of Claviger", (BUCKET, "a"): "damaged",
        (OTHER, "of the last epoch"): "is not in the system area",
    }


def what_a_store_does_to_objects_is_told_and_the_rest_comes_back(world):
    expected = damage(world)
    folder = world.home / "damaged"
    world.recover("--to", folder, code=1)
    check_contents(folder, world.index(folder), {name: body for name, body in all_of_it(world).items() if name not in expected})
    failed = {}
    for line in (folder / "_failed.jsonl").read_text().splitlines():
        line = json.loads(line)
        failed[line["bucket"], line["key"]] = line["why"]
    same(sorted(failed), sorted(expected), "what failed")
    for name, words in expected.items():
        if words not in failed[name]:
            raise AssertionError(f"of {name} it says {failed[name]!r}, not {words!r}")
    same((folder / "_partial").exists(), False, "what was half written")
    written = {path for path in folder.rglob("*") if path.is_file() and not path.name.startswith("_")}
    same(written, {folder / line["file"] for line in world.index(folder).values()}, "the files")


def what_was_whole_before_stays_when_the_store_damages_it(world):
    folder = world.home / "back"
    world.recover("--to", folder, code=1)
    index = world.index(folder)
    for name in [(BUCKET, "three mib"), (BUCKET, "multipart"), (OTHER, "of the last epoch")]:
        same((folder / index[name]["file"]).read_bytes(), all_of_it(world)[name], f"what was recovered of {name}")


def a_keyset_record_that_is_none_is_not_believed(world):
    key, = world.system("keyset/")
    record, meta = world.raw("claviger-system", key)
    bucket_id = world.index(world.home / "back")[OTHER, "copied"]["sealed"]["bucket_id"]
    flipped = bytearray(record)
    flipped[record.index(bucket_id.encode()) + len(bucket_id) - 1] ^= 1
    world.put_raw("claviger-system", key, bytes(flipped), meta)
    said = world.recover("--list", "--bucket", OTHER, code=1)
    if "is not believed" not in said or "the keyset record names no bucket" not in said:
        raise AssertionError(said)
    said = world.recover("--list", "--bucket", OTHER, "--prefix", "copied", "--bucket-id", bucket_id, code=0)
    world.put_raw("claviger-system", key, record, meta)


STEPS = [
    everything_comes_back, a_second_run_skips_what_is_whole_and_mends_the_rest, a_part_of_it_by_bucket_and_prefix, a_list_writes_nothing,
    one_share_too_few, the_same_share_twice, a_share_of_another_service_among_them, a_mistyped_share,
    shares_of_another_service_open_nothing, shares_of_two_services_open_each_its_own,
    a_plain_dump_gives_contents_whose_names_are_unverified, a_multipart_object_as_a_plain_file, a_dump_with_metadata_gives_verified_names,
    what_a_store_does_to_objects_is_told_and_the_rest_comes_back, what_was_whole_before_stays_when_the_store_damages_it,
    a_keyset_record_that_is_none_is_not_believed,
]


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--claviger", required=True)
    parser.add_argument("--provider", required=True)
    options = parser.parse_args()
    passed = failed = 0
    with tempfile.TemporaryDirectory(prefix="claviger-recover-") as home:
        world = World(options, Path(home))
        try:
            world.fill()
            for step in STEPS:
                try:
                    step(world)
                    passed += 1
                    print(f"PASS\t{step.__name__.replace('_', ' ')}", flush=True)
                except Exception as error:  # noqa: BLE001 - whatever happens is the step's failure
                    failed += 1
                    print(f"FAIL\t{step.__name__.replace('_', ' ')}\t{type(error).__name__}: {error}", flush=True)
        finally:
            world.end()
    print(f"{passed} passed, {failed} failed")
    sys.exit(1 if failed or not passed else 0)


if __name__ == "__main__":
    main()
