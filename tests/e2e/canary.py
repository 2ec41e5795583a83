"""The one list of secrets that the end-to-end tests put through Claviger, and what of them must not reach a store.

All data comes from a fixed seed. The suites take data, metadata and headers from here and nowhere else, so that the leak
check knows every plaintext. Object names are not secrets here: in plain-name mode they are declared leakage.
"""

import base64
import functools
import hashlib
import random
import struct

# In the content, at the start of every 4 KiB.
CONTENT = b"CANARY-CONTENT-7f3a9c51e2"
# User metadata: names that no Claviger header has, and values.
META_NAMES = ["note", "second-note", "mtime", "s3cmd-attrs", "s3b-last-modified", "md5chksum"]
META = "canary-meta-4be1d2077f"
META_SECOND = "canary-meta-second-0c6619, with a comma and 100% of the signs"
# Content headers.
CONTENT_TYPE = "application/x-canary-9d02ee"
CACHE_CONTROL = "max-age=31337, x-canary-71c0"
CONTENT_DISPOSITION = 'attachment; filename="canary-83aa.bin"'
CONTENT_LANGUAGE = "x-canary-lang"
CONTENT_ENCODING = "x-canary-enc"
EXPIRES = "Wed, 21 Oct 2037 07:28:00 GMT"
RESPONSE_TYPE = "text/x-canary-response-55"
RESPONSE_DISPOSITION = "inline; filename=canary-response-66"
RESTIC_PASSWORD = "canary-restic-password-1f"
# How the clients present themselves.
USER_AGENTS = ["Boto3/", "Botocore/", "aws-cli/", "aws-sdk-", "rclone/", "restic", "MinIO (", "minio-py", "s3cmd",
               "s5cmd", "object_store/", "Python-urllib", "AWS SDK", "aws-arrow", "aiobotocore/", "CRTS3", "s3fs/1", "python-urllib3/"]

MIB = 1024 * 1024
# Every blob that a suite may send: name and size.
BLOBS = {
    "empty": 0,
    "one": 1,
    "small": 1_500,
    "small2": 2_501,
    "segment": 65_536,
    "segment1": 65_537,
    "medium": 1_000_003,
    "large": 20 * MIB,
    "part1": 5_300_001,
    "part2": 5 * MIB,
    "part3": 7_000_003,
    "part4": 6 * MIB + 1,
    "other": 5_300_001,
    "tail": 77_777,
}
# Sizes of the pieces in which clients cut a blob into parts; the last may be shorter.
CUTS = [5 * MIB, 5_300_001, 6 * MIB, 8 * MIB, 10 * MIB, 15 * MIB, 16 * MIB]
# aws-chunked bodies and SDK buffers; their digests travel too.
SMALL_CUTS = [65_536, MIB]


@functools.lru_cache(maxsize=None)
def data(name):
    """The bytes of a blob: random but for the canary at the start of each 4 KiB."""
    size = BLOBS[name]
    source = random.Random(f"claviger-e2e-{name}")
    out = bytearray()
    block = 0
    while len(out) < size:
        head = CONTENT + b"-" + name.encode() + b"-%06d-" % block
        out += head + source.randbytes(4096 - len(head))
        block += 1
    return bytes(out[:size])


def checksums(piece):
    """All digests of a piece as raw bytes, by name. Needs awscrt for some of them."""
    import zlib

    from awscrt import checksums as crt

    return {
        "md5": hashlib.md5(piece).digest(),
        "sha1": hashlib.sha1(piece).digest(),
        "sha256": hashlib.sha256(piece).digest(),
        "crc32": struct.pack(">I", zlib.crc32(piece)),
        "crc32c": struct.pack(">I", crt.crc32c(piece)),
        "crc64nvme": struct.pack(">Q", crt.crc64nvme(piece)),
        "sha512": hashlib.sha512(piece).digest(),
        "xxhash64": xxhash(crt.XXHash.new_xxhash64(), piece),
        "xxhash3": xxhash(crt.XXHash.new_xxhash3_64(), piece),
        "xxhash128": xxhash(crt.XXHash.new_xxhash3_128(), piece),
    }


def xxhash(hasher, piece):
    hasher.update(piece)
    return hasher.finalize()


def pieces(name):
    """A blob and the pieces that clients cut it into, each with a label."""
    blob = data(name)
    yield name, blob
    for cut in CUTS:
        if len(blob) > cut:
            for at in range(0, len(blob), cut):
                yield f"{name}[{at}..+{cut}]", blob[at:at + cut]
    for cut in SMALL_CUTS:
        if len(blob) > cut:
            yield f"{name}[0..+{cut}]", blob[:cut]


def text_needles():
    """Everything that must not appear, in text: (label, bytes)."""
    yield "content", CONTENT
    yield "content, base64", base64.b64encode(CONTENT)[:-4]
    yield "content, hex", CONTENT.hex().encode()
    for label, value in [
        ("metadata", META), ("metadata", META_SECOND), ("content type", CONTENT_TYPE),
        ("cache control", CACHE_CONTROL), ("content disposition", CONTENT_DISPOSITION),
        ("content language", CONTENT_LANGUAGE), ("content encoding", CONTENT_ENCODING), ("expires", EXPIRES),
        ("response override", RESPONSE_TYPE), ("response override", RESPONSE_DISPOSITION),
        ("restic password", RESTIC_PASSWORD),
    ]:
        raw = value.encode()
        yield label, raw
        yield f"{label}, base64", base64.b64encode(raw)[: len(raw) // 3 * 4]
        yield f"{label}, hex", raw.hex().encode()
        yield f"{label}, percent", percent(value)
    for name in META_NAMES:
        yield "metadata name", f"x-amz-meta-{name}".encode()
        yield "metadata name", f"X-Amz-Meta-{name.title()}".encode()
    for agent in USER_AGENTS:
        yield "user agent", f"User-Agent: {agent}".encode()
        yield "user agent", f"user-agent: {agent}".encode()
    for name in BLOBS:
        if BLOBS[name] > 1:
            for label, piece in pieces(name):
                for algorithm, digest in checksums(piece).items():
                    yield f"{algorithm} of {label}, hex", digest.hex().encode()
                    yield f"{algorithm} of {label}, base64", base64.b64encode(digest)


def raw_needles():
    """Plaintext samples and raw digests: (label, bytes)."""
    for name, size in BLOBS.items():
        blob = data(name)
        for at in range(0, size - 64, 131_072 + 4096):
            # Past the canary of the 4 KiB block.
            sample = blob[at + 64:at + 96]
            if len(sample) == 32:
                yield f"plaintext of {name} at {at + 64}", sample
        if size > 1:
            for label, piece in pieces(name):
                for algorithm, digest in checksums(piece).items():
                    if len(digest) >= 16:
                        yield f"{algorithm} of {label}, raw", digest


def percent(text):
    """Percent-encoded as in a query."""
    return "".join(c if c.isalnum() or c in "-_.~" else "".join(f"%{b:02X}" for b in c.encode()) for c in text).encode()
