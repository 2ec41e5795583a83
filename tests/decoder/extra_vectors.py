"""Makes tests/vectors/clv1-extra.json: known answers for what clv1.json leaves out.

Run once, when the file was made; it is immutable since (a test holds its hash). Kept to show where the values come
from: the second implementation, not the one under test.
"""

from __future__ import annotations

import json
import pathlib
import random

import claviger_decoder as clv

BUCKET = "vault#000102030405060708090a0b0c0d0e0f"
KEY = "a/b c+é.txt"
WEK = bytes(range(32))
EPOCH_ID, OBJECT_ID = bytes(range(0x20, 0x30)), bytes(range(0x30, 0x40))
KEYSET_ID, GATEWAY_ID = bytes(range(0xC0, 0xD0)), bytes(range(0xD0, 0xE0))
CREATED_MS = 1_750_000_000_000


def salt(byte: int) -> bytes:
    return bytes(range(byte, byte + 16))


def tokens(dek: bytes) -> dict:
    uploads = []
    for algo, kind, upstream_id in [(0, 0, "x"), (4, 2, "2~VmVyeS1sb25n.id_=+/"), (1, 0, "A" * 200), (5, 1, "i-d")]:
        upload = clv.Upload(EPOCH_ID, OBJECT_ID, CREATED_MS + algo, algo, kind, upstream_id)
        text = clv.issue_upload(dek, upload, BUCKET, KEY)
        uploads.append({"expires_ms": upload.expires_ms, "algo": algo, "type": kind, "upstream_id": upstream_id})
        uploads[-1]["text"] = text
    tags = []
    for held, number, length, algo, value in [
        (False, 1, 5_242_880, 0, b""),
        (True, 10_000, 0, 1, bytes(4)),
        (True, 9, 77, 4, bytes(range(32))),
        (False, 300, 5_367_398_608, 7, bytes(range(64))),
    ]:
        etag = f"{number:032x}"
        state = clv.PartState(held, number, length, salt(number % 200), 0x0123456789ABCDEF * number % 2**64, algo, value)
        tags.append(
            {
                "upstream_etag": etag, "held": held, "number": number, "length": length, "salt": state.salt.hex(),
                "crc64": f"{state.crc64:016x}", "algo": algo, "value": value.hex(),
                "text": clv.issue_part_tag(dek, etag, state),
            }
        )
    return {"uploads": uploads, "part_tags": tags}


def records() -> dict:
    first = clv.Root(bytes(range(0x90, 0xB0)), KEYSET_ID, 1)
    second = clv.Root(bytes(range(0x50, 0x70)), KEYSET_ID, 2)
    header = clv.epoch_header(CREATED_MS, EPOCH_ID, GATEWAY_ID, KEYSET_ID)
    epoch = clv.seal_epoch(header, WEK, [(first, GATEWAY_ID), (second, clv.KEY_SERVICE)])
    name_key = bytes(range(0x40, 0x80))
    versions = [(1, 2, first.public_key()), (2, 1, second.public_key())]
    buckets = [BUCKET, "photos#ffffffffffffffffffffffffffffffff"]
    keyset = clv.seal_keyset(clv.keyset_content(KEYSET_ID, versions, buckets), name_key, [first, second])
    return {
        "keyset_id": KEYSET_ID.hex(), "gateway_id": GATEWAY_ID.hex(), "created_ms": CREATED_MS,
        "roots": [{"version": root.version, "secret": root.secret.hex()} for root in (first, second)],
        "epoch_record": epoch.hex(), "wek_commit": clv.wek_commit(WEK, header).hex(),
        "keyset_record": keyset.hex(), "name_key": name_key.hex(), "bucket_ids": buckets, "states": [2, 1],
    }


def envelope(dek: bytes) -> dict:
    metadata = clv.Metadata(
        (salt(0x70), 1 << 40),
        [(1, b"text/plain"), (3, b"attachment; filename=x"), (7, b"/elsewhere")],
        [("colour", b"blue"), ("empty", b""), ("latin", b"\xe9")],
        CREATED_MS,
        (4, 1, bytes(range(32))),
    )
    text = clv.seal_envelope(dek, EPOCH_ID, OBJECT_ID, BUCKET, KEY, metadata, salt=salt(0x60))
    return {"text": text, "salt": salt(0x60).hex(), "body_salt": salt(0x70).hex(), "length": 1 << 40}


def footer(dek: bytes, entries: list[clv.Entry]) -> dict:
    info = clv.Info(CREATED_MS, None, (4, 2, bytes(range(32)), len(entries)))
    data = clv.seal_footer(dek, EPOCH_ID, OBJECT_ID, entries, info, salt=salt(0x50))
    return {
        "salt": salt(0x50).hex(), "hex_without_pad": data[-208 - 40 * len(entries) :].hex(), "footer_len": len(data),
        "composite_value": bytes(range(32)).hex(), "composite_parts": len(entries),
        "entries": [
            {
                "number": e.number, "length": e.length, "salt": e.salt and e.salt.hex(),
                "crc64": None if e.crc64 is None else f"{e.crc64:016x}",
            }
            for e in entries
        ],
    }


def ranges(entries: list[clv.Entry]) -> dict:
    pick = random.Random(1)
    single = []
    for n in (1, 65_535, 65_536, 65_537, 200_000, 5 << 30):
        edges = {0, n // 2, n - 1, min(n - 1, 65_535), min(n - 1, 65_536)} | {pick.randrange(n) for _ in range(4)}
        for first in sorted(edges):
            for last in sorted(edge for edge in edges if edge >= first):
                single.append([n, first, last, *clv.covering_single(n, first, last)])
    n = sum(entry.length for entry in entries)
    starts = [sum(entry.length for entry in entries[:i]) for i in range(len(entries))]
    edges = {0, n - 1} | {s + o for s in starts for o in (-1, 0, 1, 65_535, 65_536, 65_537) if 0 <= s + o < n}
    edges |= {pick.randrange(n) for _ in range(6)}
    multipart = []
    for first in sorted(edges):
        for last in sorted(edge for edge in edges if edge >= first):
            data, header = clv.covering_multipart(entries, first, last)
            multipart.append([first, last, *data, header and header[0]])
    return {"single": single, "multipart": multipart}


def main() -> None:
    dek = clv.dek_of(WEK, EPOCH_ID, OBJECT_ID)
    entries = [
        clv.Entry(1, 5_242_880, salt(1), 0x1111111111111111),
        clv.Entry(2, 5_308_417, None, None),
        clv.Entry(40, 6_000_000, salt(3), None),
        clv.Entry(9_999, 5_242_880, None, 0x2222222222222222),
        clv.Entry(10_000, 70_000, salt(5), 0x3333333333333333),
    ]
    hedge = {"entropy": bytes(range(32)).hex(), "boot_nonce": bytes(range(32, 64)).hex(), "counter": 7, "time_ns": 9}
    hedge["salt"] = clv.hedged_salt(bytes(range(32)), bytes(range(32, 64)), 7, 9).hex()
    fresh = {"entropy": bytes(range(32)).hex(), "seed": bytes(range(64, 96)).hex()}
    fresh["wek"] = clv.fresh_wek(bytes(range(32)), bytes(range(64, 96))).hex()
    vectors = {
        "wek": WEK.hex(), "epoch_id": EPOCH_ID.hex(), "object_id": OBJECT_ID.hex(), "bucket_id": BUCKET, "key": KEY,
        "hedged_salt": hedge, "fresh_wek": fresh, "tokens": tokens(dek), "records": records(),
        "envelope": envelope(dek), "footer": footer(dek, entries), "ranges": ranges(entries),
    }
    path = pathlib.Path(__file__).parent.parent / "vectors" / "clv1-extra.json"
    if path.exists():
        raise SystemExit(f"{path} is immutable")
    path.write_text(json.dumps(vectors, indent=1, ensure_ascii=True) + "\n")


if __name__ == "__main__":
    main()
