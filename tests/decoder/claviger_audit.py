"""A second verifier of the key service's audit log, from its description alone (docs/key-service-api.md, "Audit log").

    python claviger_audit.py verify DIR --key VKEY [--checkpoint FILE]...
    python claviger_audit.py check-proof FILE --key VKEY

Needs nothing but Python: an auditor can read it in an hour and run it anywhere. Exit code 0: everything verified.
"""

from __future__ import annotations

import argparse
import base64
import hashlib
import json
import pathlib
import re
import sys

WIDTH = 256
LINE = re.compile(rb'\{"index":(0|[1-9][0-9]*),"salt":"([0-9a-f]{32})","record":(\{.*\})\}', re.DOTALL)
PRUNED = re.compile(rb'\{"index":(0|[1-9][0-9]*),"pruned":"([0-9a-f]{64})"\}')
SEALED = re.compile(rb'\{.*,"seal":"[0-9a-f]{32}"\}', re.DOTALL)
RETENTION_S = 10 * 365 * 86_400
TILE = re.compile(r"tile/(entries|[0-9]|[1-5][0-9]|6[0-3])/((?:x[0-9]{3}/)*[0-9]{3})(?:\.p/([1-9][0-9]*))?")


class Rejected(Exception):
    """The log, or a part of it, is not what it should be."""


def demand(holds: bool, what: str) -> None:
    if not holds:
        raise Rejected(what)


# Ed25519 (RFC 8032 §5.1), verification only: nothing here is secret.

P = 2**255 - 19
ORDER = 2**252 + 27742317777372353535851937790883648493
D = -121665 * pow(121666, P - 2, P) % P
ROOT_OF_MINUS_ONE = pow(2, (P - 1) // 4, P)


def add(p, q):
    a = (p[1] - p[0]) * (q[1] - q[0]) % P
    b = (p[1] + p[0]) * (q[1] + q[0]) % P
    c = 2 * p[3] * q[3] * D % P
    d = 2 * p[2] * q[2] % P
    e, f, g, h = b - a, d - c, d + c, b + a
    return e * f % P, g * h % P, f * g % P, e * h % P


def times(n: int, p):
    result = (0, 1, 1, 0)
    while n:
        if n & 1:
            result = add(result, p)
        p = add(p, p)
        n >>= 1
    return result


def point(encoded: bytes):
    y = int.from_bytes(encoded, "little")
    sign, y = y >> 255, y & (2**255 - 1)
    demand(y < P, "a point that is none")
    square = (y * y - 1) * pow(D * y * y + 1, P - 2, P) % P
    x = pow(square, (P + 3) // 8, P)
    if (x * x - square) % P:
        x = x * ROOT_OF_MINUS_ONE % P
    demand((x * x - square) % P == 0 and not (x == 0 and sign), "a point that is none")
    if x & 1 != sign:
        x = P - x
    return x, y, 1, x * y % P


BASE = point((4 * pow(5, P - 2, P) % P).to_bytes(32, "little"))


def verify_signature(public: bytes, message: bytes, signature: bytes) -> None:
    demand(len(public) == 32 and len(signature) == 64, "a signature of another kind")
    s = int.from_bytes(signature[32:], "little")
    demand(s < ORDER, "a signature that is none")
    k = int.from_bytes(hashlib.sha512(signature[:32] + public + message).digest(), "little") % ORDER
    left, right = times(s, BASE), add(point(signature[:32]), times(k, point(public)))
    same = (left[0] * right[2] - right[0] * left[2]) % P == 0 and (left[1] * right[2] - right[1] * left[2]) % P == 0
    demand(same, "a signature that is not of this key")


# Notes and checkpoints (C2SP signed-note, tlog-checkpoint).


def unbase64(text: str) -> bytes:
    try:
        data = base64.b64decode(text, validate=True)
    except ValueError:
        raise Rejected("base64 that is none") from None
    demand(base64.b64encode(data).decode() == text, "base64 in another form")
    return data


def number(text: str) -> int:
    demand(re.fullmatch("0|[1-9][0-9]*", text) is not None, "a number in another form")
    return int(text)


class Key:
    def __init__(self, vkey: str):
        self.name, hash_hex, encoded = vkey.split("+", 2)
        data = unbase64(encoded)
        demand(data[:1] == b"\x01" and len(data) == 33, "a key of another kind")
        self.id = hashlib.sha256(self.name.encode() + b"\n" + data).digest()[:4]
        demand(self.id.hex() == hash_hex, "a key with a wrong hash")
        self.public = data[1:]


class Checkpoint:
    """Opened with the log's key: origin, size and root are what it signed."""

    def __init__(self, note: bytes, key: Key):
        try:
            text, _, signatures = note.decode().rpartition("\n\n")
        except UnicodeDecodeError:
            raise Rejected("a note that is no text") from None
        text += "\n"
        demand(signatures.endswith("\n"), "a note without signatures")
        found = 0
        for line in signatures[:-1].split("\n"):
            parts = line.split(" ")
            demand(len(parts) == 3 and parts[0] == "\u2014", "a line that is no signature")
            data = unbase64(parts[2])
            if parts[1] == key.name and data[:4] == key.id:
                verify_signature(key.public, text.encode(), data[4:])
                found += 1
        demand(found > 0, "a note that this key did not sign")
        lines = text.split("\n")
        demand(len(lines) == 4 and lines[0] == key.name, "a checkpoint of another log")
        self.size, self.root = number(lines[1]), unbase64(lines[2])


# The tree (RFC 6962 §2.1) and its tiles (C2SP tlog-tiles).


def leaf_hash(entry: bytes) -> bytes:
    return hashlib.sha256(b"\x00" + entry).digest()


def node_hash(left: bytes, right: bytes) -> bytes:
    return hashlib.sha256(b"\x01" + left + right).digest()


def root_of(leaves: list[bytes]) -> bytes:
    """MTH, level by level: a node without a sibling moves up as it is."""
    level = list(leaves)
    if not level:
        return hashlib.sha256(b"").digest()
    while len(level) > 1:
        pairs = [node_hash(level[i], level[i + 1]) for i in range(0, len(level) - 1, 2)]
        level = pairs + ([level[-1]] if len(level) % 2 else [])
    return level[0]


def parse_line(line: bytes) -> tuple[int, bytes, bytes]:
    """Index, entry and record of a line without its end."""
    match = LINE.fullmatch(line)
    demand(match is not None, "a line that is no record")
    try:
        json.loads(match[3])
    except ValueError:
        raise Rejected("a record that is no JSON") from None
    return int(match[1]), hashlib.sha256(bytes.fromhex(match[2].decode()) + match[3]).digest(), match[3]


class Pruning:
    """Which records may be missing: those that a signed record `prune` covers, once the retention of the first record is over.

    Only one of what was done, by a proposal, with a seal at its end: what somebody adds while the service is down has none. Where
    seals have begun, the time of a record without one does not count either.
    """

    def __init__(self, signed: int):
        self.signed, self.retention_ms = signed, RETENTION_S * 1000
        self.open: tuple[int, int] | None = None  # first and last pruned line that nothing allows yet
        self.neighbour_ms = self.kept_ms = 0
        self.sealed = False  # there was a record with a seal

    def gone(self, index: int) -> None:
        self.open = (self.open[0] if self.open else index, index)
        self.neighbour_ms = max(self.neighbour_ms, self.kept_ms)

    def kept(self, index: int, record: bytes) -> None:
        fields = json.loads(record)
        has_seal = SEALED.fullmatch(record) is not None
        self.sealed |= has_seal
        if has_seal or not self.sealed:
            self.kept_ms = fields.get("time_ms", 0)
        if index == 0 and "retention_s" in fields:
            self.retention_ms = fields["retention_s"] * 1000
        if fields.get("action") != "prune" or fields.get("outcome") != "done" or fields.get("proposal") is None:
            return
        if not has_seal or index >= self.signed or self.open is None:
            return
        before, end = fields.get("before_ms", 0), fields.get("pruned_before", 0)
        is_old = before + self.retention_ms <= fields["time_ms"]
        if is_old and self.open[1] < end <= index and self.neighbour_ms < before:
            self.open, self.neighbour_ms = None, 0


def read_entries(folder: pathlib.Path, signed: int) -> list[bytes]:
    entries: list[bytes] = []
    pruning = Pruning(signed)
    files = sorted(folder.glob("*.jsonl"))
    for file in files:
        demand(file.stem == f"{len(entries):020}", f"{file.name} does not follow the files before it")
        data = file.read_bytes()
        whole, end, unfinished = data.rpartition(b"\n")
        demand(not unfinished or file == files[-1], f"{file.name} ends in the middle of a record")
        for line in (whole + end).splitlines(keepends=True):
            demand(line.endswith(b"\n"), f"{file.name} has a line with another end")
            if match := PRUNED.fullmatch(line[:-1]):
                index, entry = int(match[1]), bytes.fromhex(match[2].decode())
                pruning.gone(index)
            else:
                index, entry, record = parse_line(line[:-1])
                pruning.kept(index, record)
            demand(index == len(entries), f"record {index} stands where record {len(entries)} should")
            entries.append(entry)
    demand(pruning.open is None, f"record {pruning.open and pruning.open[0]} was removed, and nothing signed allows it")
    return entries


def tile_levels(leaves: list[bytes]) -> list[list[bytes]]:
    """For each level of tiles all of its hashes."""
    levels = [leaves]
    while len(levels[-1]) >= WIDTH:
        below = levels[-1]
        full = len(below) // WIDTH
        levels.append([root_of(below[n * WIDTH : (n + 1) * WIDTH]) for n in range(full)])
    return levels


def check_tiles(folder: pathlib.Path, entries: list[bytes], levels: list[list[bytes]], signed: int) -> int:
    files = {str(path.relative_to(folder)): path for path in (folder / "tile").rglob("*") if path.is_file()}
    for name, path in files.items():
        match = TILE.fullmatch(name)
        demand(match is not None, f"{name} is no tile")
        width = int(match[3] or WIDTH)
        index = int(match[2].replace("x", "").replace("/", ""))
        demand(tile_name(match[1], index, width) == name, f"{name} is no tile")
        level = 0 if match[1] == "entries" else int(match[1])
        hashes = (entries if match[1] == "entries" else levels[level]) if level < len(levels) else []
        part = hashes[index * WIDTH : index * WIDTH + width]
        prefix = b"\x00\x20" if match[1] == "entries" else b""
        known = b"".join(prefix + value for value in part)
        demand(len(part) == width and path.read_bytes() == known, f"{name} is not the tile of these records")
    for name in needed_tiles(signed):
        full = name.partition(".p/")[0]
        demand(name in files or full in files, f"{name} is missing")
    return len(files)


def tile_name(level: str, index: int, width: int) -> str:
    parts = [f"{index % 1000:03}"]
    while index := index // 1000:
        parts.insert(0, f"x{index % 1000:03}")
    return f"tile/{level}/{'/'.join(parts)}" + (f".p/{width}" if width != WIDTH else "")


def needed_tiles(size: int) -> list[str]:
    names, level, count = [], 0, size
    while count:
        for kind in (["0", "entries"] if level == 0 else [str(level)]):
            names += [tile_name(kind, index, WIDTH) for index in range(count // WIDTH)]
            if count % WIDTH:
                names.append(tile_name(kind, count // WIDTH, count % WIDTH))
        level, count = level + 1, count // WIDTH
    return names


def verify(folder: pathlib.Path, key: Key, remembered: list[pathlib.Path]) -> tuple[int, int, int]:
    """Records, how many of them the log's checkpoint covers, and tiles."""
    demand((folder / "checkpoint").is_file(), "there is no checkpoint")
    own = Checkpoint((folder / "checkpoint").read_bytes(), key)
    entries = read_entries(folder, own.size)
    leaves = [leaf_hash(entry) for entry in entries]
    for path in [folder / "checkpoint", *remembered]:
        checkpoint = Checkpoint(path.read_bytes(), key)
        demand(checkpoint.size <= len(leaves), f"{path} covers {checkpoint.size} records, there are {len(leaves)}")
        demand(root_of(leaves[: checkpoint.size]) == checkpoint.root, f"{path} was signed for other records")
    tiles = check_tiles(folder, entries, tile_levels(leaves), own.size)
    return len(entries), own.size, tiles


# Proofs (C2SP tlog-proof).


def check_proof(data: bytes, key: Key) -> tuple[int, str]:
    """Index and record that the proof proves."""
    header, _, rest = data.partition(b"\n")
    demand(header == b"c2sp.org/tlog-proof@v1", "a file that is no proof")
    head, _, note = rest.partition(b"\n\n")
    lines = head.decode(errors="replace").split("\n")
    demand(len(lines) >= 2 and lines[0].startswith("extra ") and lines[1].startswith("index "), "a proof without record")
    index, hashes = number(lines[1][6:]), [unbase64(line) for line in lines[2:]]
    line_index, entry, record = parse_line(unbase64(lines[0][6:]))
    demand(line_index == index, "a proof of another record than it holds")
    checkpoint = Checkpoint(note, key)
    root = root_from(leaf_hash(entry), index, checkpoint.size, hashes)
    demand(root == checkpoint.root, "hashes that don't lead to the checkpoint")
    return index, record.decode()


def root_from(leaf: bytes, index: int, size: int, hashes: list[bytes]) -> bytes:
    """RFC 6962 §2.1.1 read backwards: the last hash is the root's child, so the tree is divided from above."""
    demand(index < size, "an index beyond the log")
    if size == 1:
        demand(not hashes, "a proof that is too long")
        return leaf
    demand(bool(hashes), "a proof that is too short")
    left = 1 << ((size - 1).bit_length() - 1)
    if index < left:
        return node_hash(root_from(leaf, index, left, hashes[:-1]), hashes[-1])
    return node_hash(hashes[-1], root_from(leaf, index - left, size - left, hashes[:-1]))


def main() -> int:
    parser = argparse.ArgumentParser(description="Verify a Claviger audit log, or a proof from one.")
    commands = parser.add_subparsers(dest="command", required=True)
    whole = commands.add_parser("verify", help="a log's folder")
    whole.add_argument("dir", type=pathlib.Path)
    whole.add_argument("--checkpoint", type=pathlib.Path, action="append", default=[])
    one = commands.add_parser("check-proof", help="a proof of one record")
    one.add_argument("file", type=pathlib.Path)
    for command in (whole, one):
        command.add_argument("--key", required=True)
    arguments = parser.parse_args()
    try:
        key = Key(arguments.key)
        if arguments.command == "verify":
            records, signed, tiles = verify(arguments.dir, key, arguments.checkpoint)
            print(f"verified: {records} records, {signed} of them under the checkpoint, {tiles} tiles")
        else:
            index, record = check_proof(arguments.file.read_bytes(), key)
            print(f"record {index} of {key.name}:\n{record}")
            if SEALED.fullmatch(record.encode()) is None:
                print("it has no seal: anybody who could write the log's folder can have added it while the service was down")
    except Rejected as reason:
        print(f"not verified: {reason}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
