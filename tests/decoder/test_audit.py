"""The second verifier against a log that the key service's own code wrote, and against what it must not accept.

    python test_audit.py [--writer PROGRAM]

PROGRAM is the built example `audit_folder` of claviger-keyservice; without it, cargo builds and runs it. Exit code 0 means
that good logs and proofs verified and every tampered one was rejected.
"""

from __future__ import annotations

import argparse
import pathlib
import random
import shutil
import subprocess
import sys
import tempfile

import claviger_audit as audit

TOP = pathlib.Path(__file__).resolve().parent.parent.parent
RECORDS, UNSIGNED = 1300, 7


def rejected(what: str, call) -> None:
    try:
        call()
    except audit.Rejected:
        return
    raise AssertionError(f"accepted: {what}")


def known_answers() -> None:
    """RFC 8032 §7.1, tests 1 to 3, and the note of C2SP signed-note's reference implementation."""
    for public, message, signature in [
        ("d75a980182b10ab7d54bfed3c964073a0ee172f3daa62325af021a68f707511a", "",
         "e5564300c360ac729086e2cc806e828a84877f1eb8e5d974d873e06522490155"
         "5fb8821590a33bacc61e39701cf9b46bd25bf5f0595bbe24655141438e7a100b"),
        ("3d4017c3e843895a92b70aa74d1b7ebc9c982ccf2ec4968cc0cd55f12af4660c", "72",
         "92a009a9f0d4cab8720e820b5f642540a2b27b5416503f8fb3762223ebdb69da"
         "085ac1e43e15996e458f3613d0f11d8c387b2eaeb4302aeeb00d291612bb0c00"),
        ("fc51cd8e6218a1a38da47ed00230f0580816ed13ba3303ac5deb911548908025", "af82",
         "6291d657deec24024827e69c3abe01a30ce548a284743a445e3680d7db5ac3ac"
         "18ff9b538d16f290ae67f760984dc6594a7c15e9716ed28dc027beceea1ec40a"),
    ]:
        arguments = bytes.fromhex(public), bytes.fromhex(message), bytes.fromhex(signature)
        audit.verify_signature(*arguments)
        rejected("another message", lambda: audit.verify_signature(arguments[0], b"other", arguments[2]))
        for bit in (0, 255, 256, 511):
            bad = bytearray(arguments[2])
            bad[bit // 8] ^= 1 << bit % 8
            rejected(f"bit {bit} of a signature", lambda: audit.verify_signature(*arguments[:2], bytes(bad)))
    key = audit.Key("PeterNeumann+c74f20a3+ARpc2QcUPDhMQegwxbzhKqiBfsVkmqq/LDE4izWy10TW")
    assert key.name == "PeterNeumann"


def good(folder: pathlib.Path, key: audit.Key, proofs: list[pathlib.Path]) -> None:
    records, signed, tiles = audit.verify(folder, key, [])
    assert (records, signed) == (RECORDS, RECORDS - UNSIGNED), (records, signed)
    assert tiles > 12, tiles
    for proof in proofs:
        index, record = audit.check_proof(proof.read_bytes(), key)
        assert f'"n":{index}' in record, record


def tampered(folder: pathlib.Path, key: audit.Key, proofs: list[pathlib.Path]) -> None:
    """One changed byte anywhere in what is signed, one missing file, one record more or less."""
    draw = random.Random(1)
    partials = [name for name in audit.needed_tiles(RECORDS - UNSIGNED) if ".p/" in name]
    assert len(partials) == 3 and all((folder / name).is_file() for name in partials), partials
    lines = sorted(folder.glob("*.jsonl"))
    unsigned = sum(len(line) for line in lines[-1].read_bytes().splitlines(keepends=True)[-UNSIGNED:])
    for path in [path for path in folder.rglob("*") if path.is_file()]:
        whole = path.read_bytes()
        length = len(whole) - (unsigned if path == lines[-1] else 0)
        for at in [draw.randrange(length) for _ in range(6)]:
            bad = bytearray(whole)
            bad[at] ^= 1 << draw.randrange(8)
            path.write_bytes(bad)
            rejected(f"byte {at} of {path}", lambda: audit.verify(folder, key, []))
        path.unlink()
        # Partial tiles of checkpoints before the last one may lie there and need not.
        if ".p" not in str(path) or str(path.relative_to(folder)) in audit.needed_tiles(RECORDS - UNSIGNED):
            rejected(f"without {path}", lambda: audit.verify(folder, key, []))
        path.write_bytes(whole)
    whole = lines[0].read_bytes()
    records = whole.splitlines(keepends=True)
    for what, changed in [
        ("a record less", records[:5] + records[6:]),
        ("a record twice", records[:6] + records[5:]),
        ("two records in the other order", records[:5] + [records[6], records[5]] + records[7:]),
        ("spaces", [records[0].replace(b'"record":', b'"record": ')] + records[1:]),
    ]:
        lines[0].write_bytes(b"".join(changed))
        rejected(what, lambda: audit.verify(folder, key, []))
    lines[0].write_bytes(whole)
    for proof in proofs:
        whole = proof.read_bytes()
        for at in [draw.randrange(len(whole)) for _ in range(40)]:
            bad = bytearray(whole)
            bad[at] ^= 1 << draw.randrange(8)
            rejected(f"byte {at} of {proof}", lambda: audit.check_proof(bytes(bad), key))


def replaced(folder: pathlib.Path, key: audit.Key, other: pathlib.Path) -> None:
    """Another log of the same key, and this one as it was before: only a checkpoint kept elsewhere tells."""
    audit.verify(other, key, [])
    rejected("another log", lambda: audit.verify(other, key, [folder / "checkpoint"]))
    audit.verify(folder, key, [folder / "checkpoint"])


def pruned(folder: pathlib.Path, key: audit.Key) -> None:
    """Records may be gone where the log's record `prune` says so, and nowhere else."""
    whole = {path: path.read_bytes() for path in folder.glob("*.jsonl")}

    def without(first: int, last: int) -> None:
        for path, data in whole.items():
            lines = []
            for line in data.splitlines(keepends=True):
                index, entry, _ = audit.parse_line(line[:-1])
                gone = b'{"index":%d,"pruned":"%s"}\n' % (index, entry.hex().encode())
                lines.append(gone if first <= index <= last else line)
            path.write_bytes(b"".join(lines))

    without(1, 499)
    assert audit.verify(folder, key, [])[0] == RECORDS
    for first, last in [(0, 499), (1, 500), (700, 700), (RECORDS - 1, RECORDS - 1), (1, RECORDS - UNSIGNED - 1)]:
        without(first, last)
        rejected(f"records {first} to {last} pruned", lambda: audit.verify(folder, key, []))
    without(1, 499)
    path = min(whole)
    data = bytearray(path.read_bytes())
    at = data.index(b'"pruned":"') + 12
    data[at] = ord("0") if data[at] != ord("0") else ord("1")
    path.write_bytes(data)
    rejected("another entry", lambda: audit.verify(folder, key, []))
    for path, data in whole.items():
        path.write_bytes(data)


def times_that_count() -> None:
    """What has no seal makes no neighbour younger, once there was a record with one."""
    day = 86_400_000

    def verdict(neighbour: dict, sealed_neighbour: bool, sealed_first: bool) -> bool:
        def record(is_sealed: bool, **fields) -> bytes:
            seal = {"seal": "0f" * 16} if is_sealed else {}
            return audit.json.dumps(fields | seal, separators=(",", ":")).encode()

        pruning = audit.Pruning(1000)
        pruning.kept(0, record(sealed_first, action="init", time_ms=day, retention_s=90 * 86_400))
        pruning.gone(1)
        pruning.kept(2, record(sealed_neighbour, action="start", outcome="done", **neighbour))
        pruning.gone(3)
        prune = {"action": "prune", "outcome": "done", "proposal": "1", "time_ms": 200 * day, "before_ms": 100 * day}
        pruning.kept(4, record(True, **prune, pruned_before=4))
        return pruning.open is None

    for sealed_first in (True, False):
        assert verdict({"time_ms": 5 * day}, False, sealed_first)
        assert verdict({"time_ms": 9_000_000_000_000}, False, sealed_first) == sealed_first
        assert not verdict({"time_ms": 100 * day}, True, sealed_first)


def main() -> int:
    parser = argparse.ArgumentParser()
    parser.add_argument("--writer")
    chosen = parser.parse_args().writer
    cargo = ["cargo", "run", "--quiet", "--package", "claviger-keyservice", "--example", "audit_folder", "--"]
    program = [chosen] if chosen else cargo
    known_answers()
    times_that_count()
    with tempfile.TemporaryDirectory() as scratch:
        first, second = pathlib.Path(scratch, "first"), pathlib.Path(scratch, "second")
        written = subprocess.run([*program, first, str(RECORDS), str(UNSIGNED)], check=True, cwd=TOP, stdout=subprocess.PIPE)
        subprocess.run([*program, second, str(RECORDS), str(UNSIGNED)], check=True, cwd=TOP, stdout=subprocess.PIPE)
        key = audit.Key(written.stdout.decode().strip())
        proofs = sorted(first.glob("*.tlog-proof"))
        assert len(proofs) == 4, proofs
        good(first / "audit", key, proofs)
        tampered(first / "audit", key, proofs)
        replaced(first / "audit", key, second / "audit")
        pruned(first / "audit", key)
        good(first / "audit", key, proofs)
        shutil.rmtree(first)
    print("the second verifier agrees: good logs and proofs verify, tampered ones don't")
    return 0


if __name__ == "__main__":
    sys.exit(main())
