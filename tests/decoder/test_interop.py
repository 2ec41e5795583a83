"""Rust writes and Python reads, Python writes and Rust reads; and the frozen vectors.

    python test_interop.py [--interop PROGRAM]

PROGRAM is the built example `interop` of claviger-format; without it, cargo builds and runs it. Exit code 0 means that
everything agreed.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import pathlib
import subprocess
import sys
import tempfile

import claviger_decoder as clv

TOP = pathlib.Path(__file__).resolve().parent.parent.parent
VECTORS = TOP / "tests" / "vectors"
BUCKET = "vault#000102030405060708090a0b0c0d0e0f"
METADATA = {"system": [(1, b"image/png"), (6, b"0")], "user": [("owner", "réa".encode())]}
CREATED_MS = 1_750_000_000_123


def plaintext(length: int, seed: int) -> bytes:
    return bytes((i * 31 + (i >> 8) + seed) % 251 for i in range(length))


def equal(found, known, what: str) -> None:
    if found != known:
        raise AssertionError(f"{what}: {found!r} is not {known!r}")


def rejected(what: str, call) -> None:
    try:
        call()
    except clv.Rejected:
        return
    raise AssertionError(f"accepted: {what}")


def open_set(directory: pathlib.Path) -> None:
    index = json.loads((directory / "index.json").read_text())
    wek = bytes.fromhex(index["wek"])
    for item in index["objects"]:
        body = (directory / item["file"]).read_bytes()
        opened = clv.open_object(wek, body, item["envelope"], item["bucket_id"], item["key"])
        equal(hashlib.sha256(opened[0]).hexdigest(), item["sha256"], item["key"])
        found = opened[1]
        equal((found.system, found.user), (METADATA["system"], METADATA["user"]), "metadata")
        equal(found.created_ms, CREATED_MS, "created_ms")
        for at in (0, 70, 96, len(body) - 97, len(body) - 1):
            bad = bytearray(body)
            bad[at] ^= 1
            arguments = (wek, bytes(bad), item["envelope"], item["bucket_id"], item["key"])
            rejected(f"byte {at} of {item['file']}", lambda: clv.open_object(*arguments))
        rejected("another name", lambda: clv.open_object(wek, body, item["envelope"], item["bucket_id"], "other"))
    open_records(index["records"], wek)
    open_tokens(index["tokens"], wek)


def open_records(records: dict, wek: bytes) -> None:
    root = clv.Root(bytes.fromhex(records["root"]), bytes.fromhex(records["keyset_id"]), records["version"])
    equal(clv.open_epoch(bytes.fromhex(records["epoch_record"]), root), wek, "epoch record")
    name_key, versions, buckets = clv.open_keyset(bytes.fromhex(records["keyset_record"]), root)
    equal(name_key.hex(), records["name_key"], "name key")
    equal([(version, state) for version, state, _ in versions], [(records["version"], 1)], "versions")
    equal(buckets, [records["bucket_id"]], "buckets")
    for key, sealed in records["names"].items():
        equal(clv.open_name(name_key, records["bucket_id"], sealed), key, "name")
        equal(clv.seal_name(name_key, records["bucket_id"], key), sealed, "sealed name")


def open_tokens(tokens: dict, wek: bytes) -> None:
    upload = clv.open_upload(tokens["upload"], wek, tokens["bucket_id"], tokens["key"])
    equal(upload.object_id.hex(), tokens["object_id"], "object id")
    equal((upload.upstream_id, upload.expires_ms), (tokens["upstream_id"], tokens["expires_ms"]), "upload token")
    dek = clv.dek_of(wek, bytes.fromhex(tokens["epoch_id"]), bytes.fromhex(tokens["object_id"]))
    _, state = clv.open_part_tag(tokens["part_tag"], dek)
    found = (state.number, state.length, state.crc64, state.salt.hex())
    equal(found, tuple(tokens[field] for field in ("number", "length", "crc64", "salt")), "part tag")


class SetWriter:
    def __init__(self, directory: pathlib.Path):
        self.directory = directory
        self.wek, self.epoch_id = os.urandom(32), os.urandom(16)
        self.objects: list[dict] = []

    def write(self) -> None:
        for length in (0, 1, 5, 65_535, 65_536, 65_537, 200_000):
            self.single(length)
        self.multipart([(3, 0, True)])
        self.multipart([(1, clv.PART_MIN, True), (7, 70_000, True)])
        self.multipart([(2, clv.PART_MIN + 65_537, False), (3, clv.PART_MIN, True), (10_000, 0, False)])
        index = {"wek": self.wek.hex(), "objects": self.objects, "records": self.records(), "tokens": self.tokens()}
        (self.directory / "index.json").write_text(json.dumps(index))

    def store(self, object_id: bytes, dek: bytes, body: bytes, layout: tuple[bytes, int] | None, text: bytes) -> None:
        key, file = f"clé {len(self.objects)}", f"object-{len(self.objects)}"
        metadata = clv.Metadata(layout, METADATA["system"], METADATA["user"], CREATED_MS)
        envelope = clv.seal_envelope(dek, self.epoch_id, object_id, BUCKET, key, metadata)
        (self.directory / file).write_bytes(body)
        sha256 = hashlib.sha256(text).hexdigest()
        self.objects.append({"file": file, "bucket_id": BUCKET, "key": key, "envelope": envelope, "sha256": sha256})

    def single(self, length: int) -> None:
        object_id, text = os.urandom(16), plaintext(length, length)
        dek = clv.dek_of(self.wek, self.epoch_id, object_id)
        info = clv.Info(5, None, (4, 1, hashlib.sha256(text).digest(), 0))
        body, salt = clv.seal_single(dek, self.epoch_id, object_id, text, info)
        self.store(object_id, dek, body, (salt, length), text)

    def multipart(self, parts: list[tuple[int, int, bool]]) -> None:
        object_id = os.urandom(16)
        dek = clv.dek_of(self.wek, self.epoch_id, object_id)
        texts = [(number, plaintext(length, number), bound) for number, length, bound in parts]
        body = clv.seal_multipart(dek, self.epoch_id, object_id, texts, clv.Info(5))
        self.store(object_id, dek, body, None, b"".join(text for _, text, _ in texts))

    def records(self) -> dict:
        root, gateway_id, name_key = clv.Root(os.urandom(32), os.urandom(16), 9), os.urandom(16), os.urandom(64)
        header = clv.epoch_header(7, self.epoch_id, gateway_id, root.keyset_id)
        content = clv.keyset_content(root.keyset_id, [(9, 1, root.public_key())], [BUCKET])
        names = ("a", "a/b", "a//b/", "über/straße/…", "/x")
        return {
            "root": root.secret.hex(), "keyset_id": root.keyset_id.hex(), "version": 9, "bucket_id": BUCKET,
            "epoch_record": clv.seal_epoch(header, self.wek, [(root, gateway_id)]).hex(),
            "keyset_record": clv.seal_keyset(content, name_key, [root]).hex(), "name_key": name_key.hex(),
            "names": {key: clv.seal_name(name_key, BUCKET, key) for key in names},
        }

    def tokens(self) -> dict:
        object_id, key = os.urandom(16), "some/key"
        dek = clv.dek_of(self.wek, self.epoch_id, object_id)
        upload = clv.Upload(self.epoch_id, object_id, 123, 2, 1, "2~id")
        state = clv.PartState(False, 10_000, 99, os.urandom(16), 2**63 + 1, 1, bytes(4))
        return {
            "object_id": object_id.hex(), "epoch_id": self.epoch_id.hex(), "bucket_id": BUCKET, "key": key,
            "upload": clv.issue_upload(dek, upload, BUCKET, key), "upstream_id": "2~id", "expires_ms": 123,
            "part_tag": clv.issue_part_tag(dek, "abc", state), "number": 10_000, "length": 99,
            "crc64": state.crc64, "salt": state.salt.hex(),
        }


def check_vectors() -> None:
    vectors = json.loads((VECTORS / "clv1.json").read_text())
    wek, name = bytes.fromhex(vectors["wek"]), (vectors["bucket"], vectors["key"])
    ids = bytes.fromhex(vectors["epoch_id"]), bytes.fromhex(vectors["object_id"])
    dek = clv.dek_of(wek, *ids)
    equal(dek.hex(), vectors["dek"], "dek")
    for vector in vectors["single"]:
        n = vector["n"]
        text = b"hello" if n == 5 else bytes(i % 251 for i in range(n))
        unit = clv.Unit(clv.SINGLE, 1, n, *ids, bytes.fromhex(vectors["part_salt"]))
        crc = clv.crc64nvme(text)
        equal(f"{crc:016x}", vector["crc64nvme"], "crc")
        entry, info = clv.Entry(1, n, unit.salt, crc), clv.Info(vectors["created_ms"], crc)
        footer = clv.seal_footer(dek, *ids, [entry], info, salt=bytes.fromhex(vectors["footer_salt"]))
        body = clv.seal_unit(dek, unit, text) + footer
        equal(hashlib.sha256(body).hexdigest(), vector["sha256_body"], f"object of {n} bytes")
        equal(clv.open_object(wek, body, vector["envelope"], *name)[0], text, f"object of {n} bytes")
    for n, size in vectors["g"].items():
        equal(clv.g(int(n)), size, f"g({n})")
    epoch = vectors["epoch"]
    root = clv.Root(bytes.fromhex(epoch["root_secret"]), bytes.fromhex(epoch["keyset_id"]), epoch["version"])
    equal(clv.open_epoch(bytes.fromhex(epoch["record_hex"]), root), wek, "epoch record")
    for key, sealed in vectors["names"].items():
        equal(clv.seal_name(bytes.fromhex(vectors["name_key"]), vectors["bucket"], key), sealed, key)


def main() -> int:
    parser = argparse.ArgumentParser()
    parser.add_argument("--interop", help="the built example")
    chosen = parser.parse_args().interop
    cargo = ["cargo", "run", "--quiet", "--package", "claviger-format", "--example", "interop", "--"]
    program = [chosen] if chosen else cargo
    check_vectors()
    with tempfile.TemporaryDirectory() as scratch:
        rust, python = pathlib.Path(scratch, "rust"), pathlib.Path(scratch, "python")
        subprocess.run([*program, "write", str(rust)], check=True, cwd=TOP)
        open_set(rust)
        python.mkdir()
        SetWriter(python).write()
        open_set(python)
        subprocess.run([*program, "open", str(python)], check=True, cwd=TOP)
    print("both implementations agree: vectors, Rust to Python, Python to Rust")
    return 0


if __name__ == "__main__":
    sys.exit(main())
