#!/usr/bin/env python3
"""Every version back from ciphertext and recovery shares.

    recover_versions.py --claviger BINARY --endpoint URL --access-key-id ID --secret-access-key SECRET [--region R]

Starts `claviger demo` before a store that has versions (Ceph RGW). boto3 writes keys in several versions, deletes some, and overwrites
others; then the demo is stopped and its folder, key service and all, is deleted but for the recovery shares. `claviger recover
--all-versions` has to give back every version, byte for byte, each where a person finds it, and to name what was deleted.

Run it with the Python of the boto3 environment. The last line is `N passed, N failed`.
"""

import argparse
import json
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from types import SimpleNamespace

import boto3
import botocore.client

from doubles import Demo, same
from recover import MIB, SHARES, data

BUCKET, SYSTEM = "recovered-versions", "claviger-system"


class World:
    """A store with versions of ciphertext, and shares."""

    def __init__(self, options, home):
        self.claviger, self.home = options.claviger, home
        self.store = SimpleNamespace(endpoint=options.endpoint, region=options.region, access_key=options.access_key_id,
                                     secret_key=options.secret_access_key)
        self.s3 = boto3.client(
            "s3", endpoint_url=options.endpoint, region_name=options.region, aws_access_key_id=options.access_key_id,
            aws_secret_access_key=options.secret_access_key, config=botocore.client.Config(
                signature_version="s3v4", s3={"addressing_style": "path"}, request_checksum_calculation="when_required"))
        # Content by key and version; which version of a key is the newest; delete markers.
        self.written, self.newest, self.markers = {}, {}, set()

    def fill(self):
        """Writes through Claviger, and removes the key service."""
        demo = Demo(self.claviger, self.home, "ceph-rgw", self.store)
        try:
            self.write(demo.s3)
        finally:
            demo.stop()
        # Gateways store the record that names a new bucket at their start.
        demo = Demo(self.claviger, self.home, "ceph-rgw", self.store)
        try:
            self.await_keyset_record()
        finally:
            demo.stop()
        self.shares = [self.home / f"share-{number}.txt" for number in range(1, 6)]
        for share, place in zip(SHARES, self.shares):
            shutil.move(self.home / "demo" / share, place)
        shutil.rmtree(self.home / "demo")
        credentials = self.home / "store-credentials.toml"
        credentials.touch(mode=0o600)
        credentials.write_text(f'access_key_id = "{self.store.access_key}"\nsecret_access_key = "{self.store.secret_key}"\n')
        (self.home / "store.toml").write_text(f"""[upstream]
endpoint = "{self.store.endpoint}"
region = "{self.store.region}"
profile = "ceph-rgw"
credentials_file = "store-credentials.toml"
""")

    def write(self, s3):
        s3.create_bucket(Bucket=BUCKET)
        self.put(s3, "old", b"from before there were versions")
        s3.put_bucket_versioning(Bucket=BUCKET, VersioningConfiguration={"Status": "Enabled"})
        for number in range(1, 4):
            self.put(s3, "report.pdf", data(f"report {number}", 70_000 * number))
        self.put(s3, "old", b"and after")
        self.put(s3, "old~null", b"a key that looks like a version")
        self.put(s3, "2026/\u00fcbung/ a b", b"once")
        self.put(s3, "a", b"beside")
        self.put(s3, "a/b", b"a folder of the same name")
        self.put(s3, "a", b"beside it")
        begun = s3.create_multipart_upload(Bucket=BUCKET, Key="report.pdf")["UploadId"]
        parts = []
        for number, size in [(1, 5 * MIB), (2, 1_234_567)]:
            part = s3.upload_part(Bucket=BUCKET, Key="report.pdf", UploadId=begun, PartNumber=number, Body=data(str(number), size))
            parts.append({"PartNumber": number, "ETag": part["ETag"]})
        done = s3.complete_multipart_upload(Bucket=BUCKET, Key="report.pdf", UploadId=begun, MultipartUpload={"Parts": parts})
        self.note("report.pdf", done["VersionId"], data("1", 5 * MIB) + data("2", 1_234_567))
        self.put(s3, "report.pdf", b"the newest")
        self.put(s3, "gone", b"one")
        self.put(s3, "gone", b"two")
        self.delete(s3, "gone")
        self.put(s3, "back", b"one")
        self.delete(s3, "back")
        self.put(s3, "back", b"again")

    def put(self, s3, key, body):
        answer = s3.put_object(Bucket=BUCKET, Key=key, Body=body)
        self.note(key, answer.get("VersionId", "null"), body)

    def note(self, key, version, body):
        self.written[key, version], self.newest[key] = body, version

    def delete(self, s3, key):
        self.markers.add((key, s3.delete_object(Bucket=BUCKET, Key=key)["VersionId"]))
        self.newest[key] = None

    def await_keyset_record(self):
        deadline = time.monotonic() + 100
        while True:
            listed = self.s3.list_objects_v2(Bucket=SYSTEM, Prefix=".claviger/keyset/").get("Contents", [])
            records = [self.s3.get_object(Bucket=SYSTEM, Key=entry["Key"])["Body"].read() for entry in listed]
            if any(f"{BUCKET}#".encode() in record for record in records):
                return
            if time.monotonic() > deadline:
                raise AssertionError("no keyset record names the bucket")
            time.sleep(0.5)

    def recover(self, *arguments, code=0):
        command = [self.claviger, "recover", "--store", str(self.home / "store.toml"), "--bucket", BUCKET]
        for share in self.shares[:3]:
            command += ["--share", str(share)]
        done = subprocess.run([*command, *map(str, arguments)], stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=300)
        said = done.stdout + done.stderr
        if done.returncode != code:
            raise AssertionError(f"ended with {done.returncode}, not {code}: {said[-1500:]}")
        return said

    def index(self, folder):
        """The last line for each version, as whoever reads the index does it."""
        lines = [json.loads(line) for line in (folder / "_index.jsonl").read_text().splitlines()]
        return {(line["key"], line.get("version")): line for line in lines}


def lines_of(path):
    return [json.loads(line) for line in path.read_text().splitlines()]


def every_version_comes_back_where_a_person_finds_it(world):
    folder = world.home / "all"
    said = world.recover("--all-versions", "--to", folder)
    index = world.index(folder)
    same(sorted(index), sorted(world.written), "what was recovered")
    for (key, version), content in world.written.items():
        line = index[key, version]
        same((folder / line["file"]).read_bytes(), content, f"version {version} of {key}")
        is_newest = world.newest[key] == version
        same(line.get("is_older", False), not is_newest, f"whether {version} of {key} is an older one")
        if "%sha256" not in line["file"]:
            suffix = f"~{version}".replace("+", "%2B")
            same(line["file"], f"{BUCKET}/{key}" if is_newest else f"_versions/{BUCKET}/{key}{suffix}", "its file")
    same(len({line["file"] for line in index.values()}), len(world.written), "files")
    # What clients saw last, and nothing else, lies under the bucket's name.
    current = {path.relative_to(folder / BUCKET) for path in (folder / BUCKET).rglob("*") if path.is_file()}
    same(len(current), sum(version is not None for version in world.newest.values()), "newest objects")
    same((folder / BUCKET / "gone").exists(), False, "what was deleted")
    markers = lines_of(folder / "_deleted.jsonl")
    same({(line["key"], line["version"]) for line in markers}, world.markers, "delete markers")
    same([line["key"] for line in markers if line["is_latest"]], ["gone"], "what is deleted now")
    summary = json.loads((folder / "_summary.json").read_text())
    older = sum(world.newest[key] != version for key, version in world.written)
    same((summary["older_versions"], summary["delete_markers"]), (older, len(world.markers)), "counts")
    if f"{older} of them are older versions" not in said or "2 delete markers" not in said:
        raise AssertionError(said)


def a_second_run_skips_what_is_whole_and_mends_the_rest(world):
    folder = world.home / "all"
    index = world.index(folder)
    older = [line for line in index.values() if line.get("is_older")]
    (folder / older[0]["file"]).unlink()
    (folder / older[1]["file"]).write_bytes(b"damaged")
    said = world.recover("--all-versions", "--to", folder)
    if f"{len(world.written) - 2} objects were there" not in said:
        raise AssertionError(said)
    for (key, version), line in world.index(folder).items():
        same((folder / line["file"]).read_bytes(), world.written[key, version], f"version {version} of {key}")


def a_list_names_versions_and_markers(world):
    said = world.recover("--all-versions", "--list")
    for key, version in world.written:
        if f"{BUCKET}/{key}  version {version}  {len(world.written[key, version])}\n" not in said:
            raise AssertionError(f"{key} {version}: {said[-1500:]}")
    for key, version in world.markers:
        if f"deleted  {BUCKET}/{key}  version {version}\n" not in said:
            raise AssertionError(said[-1500:])


def without_the_option_the_newest_ones_come_back_and_a_run_with_it_goes_on_from_there(world):
    folder = world.home / "newest"
    world.recover("--to", folder)
    newest = {key: world.written[key, version] for key, version in world.newest.items() if version}
    same(sorted(key for key, _ in world.index(folder)), sorted(newest), "what was recovered")
    same((folder / "_versions").exists(), False, "older versions")
    world.recover("--all-versions", "--prefix", "report", "--to", folder)
    reports = {version for key, version in world.written if key == "report.pdf"}
    found = {version for key, version in world.index(folder) if key == "report.pdf" and version}
    same(found | {world.newest["report.pdf"]}, reports, "its versions")


def a_version_that_does_not_verify_is_named_and_the_others_come_back(world):
    got = world.s3.get_object(Bucket=BUCKET, Key="report.pdf")
    body = bytearray(got["Body"].read())
    body[len(body) // 3] ^= 1
    version = world.s3.put_object(Bucket=BUCKET, Key="report.pdf", Body=bytes(body), Metadata=got["Metadata"])["VersionId"]
    folder = world.home / "damaged"
    world.recover("--all-versions", "--to", folder, code=1)
    failed, = lines_of(folder / "_failed.jsonl")
    same((failed["key"], failed["version"]), ("report.pdf", version), "what failed")
    index = world.index(folder)
    same(sorted(index), sorted(world.written), "what was recovered")
    # It has the name of the newest, which is the store's word, and is nowhere.
    same((folder / BUCKET / "report.pdf").exists(), False, "a file of what failed")
    same(index["report.pdf", world.newest["report.pdf"]]["is_older"], True, "the one before it")


def a_store_without_versions_is_no_place_to_ask(world):
    (world.home / "embedded.toml").write_text((world.home / "store.toml").read_text().replace('"ceph-rgw"', '"embedded"'))
    done = subprocess.run([world.claviger, "recover", "--store", world.home / "embedded.toml", "--all-versions", "--list",
                           "--share", world.shares[0], "--share", world.shares[1], "--share", world.shares[2]],
                          stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=60)
    same((done.returncode, "no versions" in done.stderr), (2, True), done.stderr)


STEPS = [
    every_version_comes_back_where_a_person_finds_it, a_second_run_skips_what_is_whole_and_mends_the_rest,
    a_list_names_versions_and_markers, without_the_option_the_newest_ones_come_back_and_a_run_with_it_goes_on_from_there,
    a_version_that_does_not_verify_is_named_and_the_others_come_back, a_store_without_versions_is_no_place_to_ask,
]


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    for name in ["claviger", "endpoint", "access-key-id", "secret-access-key"]:
        parser.add_argument(f"--{name}", required=True)
    parser.add_argument("--region", default="us-east-1")
    options = parser.parse_args()
    passed = failed = 0
    with tempfile.TemporaryDirectory(prefix="claviger-recover-versions-") as home:
        world = World(options, Path(home))
        world.fill()
        for step in STEPS:
            try:
                step(world)
                passed += 1
                print(f"PASS\t{step.__name__.replace('_', ' ')}", flush=True)
            except Exception as error:  # noqa: BLE001 - whatever happens is the step's failure
                failed += 1
                print(f"FAIL\t{step.__name__.replace('_', ' ')}\t{type(error).__name__}: {error}", flush=True)
    print(f"{passed} passed, {failed} failed")
    sys.exit(1 if failed or not passed else 0)


if __name__ == "__main__":
    main()
