"""A second implementation of Claviger's at-rest format, version 1 (docs/format.md).

Written from the specification alone, on the package `cryptography` and the standard library. It shares no code with
the Rust crate, so that an error has to be made twice to go unnoticed. Clear rather than fast.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
import os
import struct
from dataclasses import dataclass, field

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric.mlkem import MLKEM768PrivateKey, MLKEM768PublicKey
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey, X25519PublicKey
from cryptography.hazmat.primitives.ciphers.aead import AESGCM, AESSIV
from cryptography.hazmat.primitives.kdf.hkdf import HKDFExpand

SEGMENT = 65_536
PART_MIN = 5 * 1024 * 1024
TAG = 16
SINGLE, PART, FOOTER, ENVELOPE = 1, 2, 3, 4
KEY_SERVICE = bytes(16)


class Rejected(Exception):
    """The bytes are not what they claim to be."""


def require(condition: bool, what: str) -> None:
    if not condition:
        raise Rejected(what)


# --- keys (§2) ------------------------------------------------------------------------------------------------------


def expand(prk: bytes, info: bytes, length: int = 32) -> bytes:
    return HKDFExpand(hashes.SHA256(), length, info).derive(prk)


def mac(key: bytes, message: bytes) -> bytes:
    return hmac.new(key, message, hashlib.sha256).digest()


def dek_of(wek: bytes, epoch_id: bytes, object_id: bytes) -> bytes:
    return expand(wek, b"clv1 dek\0" + b"\x01" + epoch_id + object_id)


def wek_commit(wek: bytes, epoch_header: bytes) -> bytes:
    return expand(wek, b"clv1 epoch\0" + epoch_header)


def upload_key(dek: bytes) -> bytes:
    return expand(dek, b"clv1 upload\0")


def etag_key(dek: bytes) -> bytes:
    return expand(dek, b"clv1 etag\0")


def hedged_salt(entropy: bytes, boot_nonce: bytes, counter: int, time_ns: int) -> bytes:
    return hashlib.sha256(b"clv1 salt\0" + entropy + boot_nonce + struct.pack(">QQ", counter, time_ns)).digest()[:16]


def fresh_wek(entropy: bytes, seed: bytes) -> bytes:
    return hashlib.sha256(b"clv1 wek\0" + entropy + seed).digest()


@dataclass
class Root:
    secret: bytes
    keyset_id: bytes
    version: int

    @property
    def context(self) -> bytes:
        return self.keyset_id + struct.pack(">I", self.version)

    def kem_seed(self) -> bytes:
        return expand(self.secret, b"clv1 root kem\0" + self.context)

    def psk(self, sealer_id: bytes) -> bytes:
        auth = expand(self.secret, b"clv1 root auth\0" + self.context)
        return expand(auth, b"clv1 psk\0" + self.keyset_id + sealer_id)

    def public_key(self) -> bytes:
        return xwing_public_key(self.kem_seed())


# --- X-Wing and HPKE mode_psk (§2.3) --------------------------------------------------------------------------------

XWING_LABEL = b"\\.//^\\"
HPKE_SUITE = b"HPKE" + struct.pack(">HHH", 0x647A, 0x0001, 0x0002)
MODE_PSK = b"\x01"


def xwing_expand(seed: bytes) -> tuple[MLKEM768PrivateKey, X25519PrivateKey]:
    material = hashlib.shake_256(seed).digest(96)
    return MLKEM768PrivateKey.from_seed_bytes(material[:64]), X25519PrivateKey.from_private_bytes(material[64:])


def xwing_public_key(seed: bytes) -> bytes:
    mlkem, x25519 = xwing_expand(seed)
    return mlkem.public_key().public_bytes_raw() + x25519.public_key().public_bytes_raw()


def xwing_combine(mlkem_secret: bytes, x25519_secret: bytes, ephemeral: bytes, public: bytes) -> bytes:
    return hashlib.sha3_256(mlkem_secret + x25519_secret + ephemeral + public + XWING_LABEL).digest()


def xwing_encapsulate(public_key: bytes) -> tuple[bytes, bytes]:
    require(len(public_key) == 1216, "X-Wing public key length")
    mlkem_secret, mlkem_ct = MLKEM768PublicKey.from_public_bytes(public_key[:1184]).encapsulate()
    ephemeral = X25519PrivateKey.generate()
    ephemeral_public = ephemeral.public_key().public_bytes_raw()
    x25519_secret = ephemeral.exchange(X25519PublicKey.from_public_bytes(public_key[1184:]))
    secret = xwing_combine(mlkem_secret, x25519_secret, ephemeral_public, public_key[1184:])
    return secret, mlkem_ct + ephemeral_public


def xwing_decapsulate(seed: bytes, enc: bytes) -> bytes:
    require(len(enc) == 1120, "X-Wing ciphertext length")
    mlkem, x25519 = xwing_expand(seed)
    x25519_secret = x25519.exchange(X25519PublicKey.from_public_bytes(enc[1088:]))
    public = x25519.public_key().public_bytes_raw()
    return xwing_combine(mlkem.decapsulate(enc[:1088]), x25519_secret, enc[1088:], public)


def labeled_extract(salt: bytes, label: bytes, ikm: bytes) -> bytes:
    return mac(salt or bytes(32), b"HPKE-v1" + HPKE_SUITE + label + ikm)


def labeled_expand(prk: bytes, label: bytes, info: bytes, length: int) -> bytes:
    return expand(prk, struct.pack(">H", length) + b"HPKE-v1" + HPKE_SUITE + label + info, length)


def hpke_key(shared_secret: bytes, info: bytes, psk: bytes, psk_id: bytes) -> tuple[bytes, bytes]:
    context = MODE_PSK + labeled_extract(b"", b"psk_id_hash", psk_id) + labeled_extract(b"", b"info_hash", info)
    secret = labeled_extract(shared_secret, b"secret", psk)
    return labeled_expand(secret, b"key", context, 32), labeled_expand(secret, b"base_nonce", context, 12)


def psk_id_of(keyset_id: bytes, version: int, sealer_id: bytes) -> bytes:
    return b"clv1 psk id\0" + keyset_id + struct.pack(">I", version) + sealer_id


def seal_recipient(label: bytes, content: bytes, root: Root, sealer_id: bytes, plaintext: bytes) -> bytes:
    shared_secret, enc = xwing_encapsulate(root.public_key())
    info = label + content + struct.pack(">I", root.version) + sealer_id
    key, nonce = hpke_key(shared_secret, info, root.psk(sealer_id), psk_id_of(root.keyset_id, root.version, sealer_id))
    ct = AESGCM(key).encrypt(nonce, plaintext, b"")
    head = struct.pack(">IBBH", root.version, 1, 1, 0) + sealer_id
    return head + struct.pack(">H", len(enc)) + enc + struct.pack(">H", len(ct)) + ct


def open_recipients(label: bytes, content: bytes, recipients: bytes, ct_len: int, root: Root) -> bytes:
    reader = Reader(recipients)
    count = reader.number("B")
    require(1 <= count <= 8, "recipient count")
    opened = None
    for _ in range(count):
        version, suite, mode, reserved = struct.unpack(">IBBH", reader.take(8))
        require((suite, mode, reserved) == (1, 1, 0), "recipient suite")
        sealer_id = reader.take(16)
        require(reader.number("H") == 1120, "enc length")
        enc = reader.take(1120)
        require(reader.number("H") == ct_len, "ct length")
        ct = reader.take(ct_len)
        if version == root.version:
            info = label + content + struct.pack(">I", version) + sealer_id
            psk_id = psk_id_of(root.keyset_id, version, sealer_id)
            key, nonce = hpke_key(xwing_decapsulate(root.kem_seed(), enc), info, root.psk(sealer_id), psk_id)
            opened = decrypt(key, nonce, ct)
    reader.end()
    require(opened is not None, "no recipient for this version")
    return opened


def decrypt(key: bytes, nonce: bytes, sealed: bytes) -> bytes:
    try:
        return AESGCM(key).decrypt(nonce, sealed, b"")
    except InvalidTag as error:
        raise Rejected("tag") from error


# --- parsing --------------------------------------------------------------------------------------------------------


class Reader:
    def __init__(self, data: bytes):
        self.data, self.at = data, 0

    def take(self, length: int) -> bytes:
        require(self.at + length <= len(self.data), "too short")
        self.at += length
        return self.data[self.at - length : self.at]

    def number(self, code: str) -> int:
        return struct.unpack(">" + code, self.take(struct.calcsize(">" + code)))[0]

    def zeros(self, length: int) -> None:
        require(self.take(length) == bytes(length), "reserved bytes")

    def rest(self) -> bytes:
        return self.take(len(self.data) - self.at)

    def end(self) -> None:
        require(self.at == len(self.data), "trailing bytes")


def b64(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).decode().rstrip("=")


def unb64(text: str) -> bytes:
    require("=" not in text and text.isascii(), "padding")
    data = base64.urlsafe_b64decode(text + "=" * (-len(text) % 4))
    require(b64(data) == text, "not canonical base64url")
    return data


# --- records (§2.3, §2.5) -------------------------------------------------------------------------------------------


def epoch_header(created_ms: int, epoch_id: bytes, gateway_id: bytes, keyset_id: bytes) -> bytes:
    return b"CLE\x01" + b"\x01" + bytes(3) + struct.pack(">Q", created_ms) + epoch_id + gateway_id + keyset_id


def seal_epoch(header: bytes, wek: bytes, recipients: list[tuple[Root, bytes]]) -> bytes:
    content = header + wek_commit(wek, header)
    sealed = [seal_recipient(b"clv1 epoch seal\0", content, root, sealer, wek) for root, sealer in recipients]
    return content + bytes([len(sealed)]) + b"".join(sealed)


def open_epoch(record: bytes, root: Root) -> bytes:
    reader = Reader(record)
    require(reader.take(5) == b"CLE\x01\x01", "magic, version, suite")
    reader.zeros(3)
    require(record[48:64] == root.keyset_id, "another keyset")
    wek = open_recipients(b"clv1 epoch seal\0", record[:96], record[96:], 48, root)
    require(hmac.compare_digest(wek_commit(wek, record[:64]), record[64:96]), "commitment")
    return wek


def keyset_content(keyset_id: bytes, versions: list[tuple[int, int, bytes]], buckets: list[str]) -> bytes:
    out = b"CLK\x01" + b"\x01" + bytes(3) + keyset_id + struct.pack(">H", len(versions))
    for version, state, public_key in versions:
        out += struct.pack(">IB", version, state) + bytes(3) + public_key
    out += struct.pack(">H", len(buckets))
    return out + b"".join(prefixed(bucket.encode()) for bucket in buckets)


def seal_keyset(content: bytes, name_key: bytes, roots: list[Root]) -> bytes:
    digest = hashlib.sha256(content).digest()
    sealed = [seal_recipient(b"clv1 keyset seal\0", digest, root, KEY_SERVICE, name_key) for root in roots]
    return content + bytes([len(sealed)]) + b"".join(sealed)


def open_keyset(record: bytes, root: Root) -> tuple[bytes, list[tuple[int, int, bytes]], list[str]]:
    reader = Reader(record)
    require(reader.take(5) == b"CLK\x01\x01", "magic, version, suite")
    reader.zeros(3)
    require(reader.take(16) == root.keyset_id, "another keyset")
    versions = []
    for _ in range(reader.number("H")):
        version, state = reader.number("I"), reader.number("B")
        reader.zeros(3)
        versions.append((version, state, reader.take(1216)))
    buckets = [reader.take(reader.number("H")).decode() for _ in range(reader.number("H"))]
    require(any(v == root.version and pk == root.public_key() for v, _, pk in versions), "public key")
    content, rest = record[: reader.at], record[reader.at :]
    name_key = open_recipients(b"clv1 keyset seal\0", hashlib.sha256(content).digest(), rest, 80, root)
    return name_key, versions, buckets


# --- units (§3.1) ---------------------------------------------------------------------------------------------------


@dataclass
class Unit:
    kind: int
    number: int
    length: int
    epoch_id: bytes
    object_id: bytes
    salt: bytes = field(default_factory=lambda: os.urandom(16))

    def context(self) -> bytes:
        head = b"CLV\x01" + struct.pack(">BBHQ", 1, self.kind, self.number, self.length)
        return head + self.epoch_id + self.object_id + self.salt

    def keys(self, dek: bytes, extra: bytes = b"") -> tuple[bytes, bytes, bytes]:
        out = expand(dek, b"clv1 unit\0" + self.context() + extra, 76)
        return out[:32], out[32:64], out[64:]


def parse_header(header: bytes) -> tuple[Unit, bytes]:
    reader = Reader(header)
    require(reader.take(5) == b"CLV\x01\x01", "magic, version, suite")
    kind, number, length = reader.number("B"), reader.number("H"), reader.number("Q")
    require(kind in (SINGLE, PART, FOOTER, ENVELOPE), "kind")
    unit = Unit(kind, number, length, reader.take(16), reader.take(16), reader.take(16))
    commitment = reader.take(32)
    reader.end()
    return unit, commitment


def verified_keys(dek: bytes, unit: Unit, commitment: bytes, extra: bytes = b"") -> tuple[bytes, bytes]:
    key, expected, base_nonce = unit.keys(dek, extra)
    require(hmac.compare_digest(expected, commitment), "commitment")
    return key, base_nonce


def nonce(base: bytes, index: int) -> bytes:
    return (int.from_bytes(base, "big") ^ index).to_bytes(12, "big")


def seal_unit(dek: bytes, unit: Unit, plaintext: bytes) -> bytes:
    """Header and segments of a body or part."""
    key, commitment, base = unit.keys(dek)
    aead = AESGCM(key)
    cut = [plaintext[at : at + SEGMENT] for at in range(0, len(plaintext), SEGMENT)]
    segments = [aead.encrypt(nonce(base, i), segment, b"") for i, segment in enumerate(cut)]
    return unit.context() + commitment + b"".join(segments)


def open_segments(key: bytes, base: bytes, length: int, sealed: bytes) -> bytes:
    require(len(sealed) == length + TAG * ceil_div(length, SEGMENT), "unit length")
    step = SEGMENT + TAG
    cut = [sealed[at : at + step] for at in range(0, len(sealed), step)]
    return b"".join(decrypt(key, nonce(base, i), segment) for i, segment in enumerate(cut))


def seal_message(dek: bytes, unit: Unit, plaintext: bytes, extra: bytes = b"") -> tuple[bytes, bytes]:
    key, commitment, base = unit.keys(dek, extra)
    return unit.context() + commitment, AESGCM(key).encrypt(base, plaintext, b"")


# --- sizes (§4) -----------------------------------------------------------------------------------------------------


def ceil_div(a: int, b: int) -> int:
    return -(-a // b)


def g(n: int) -> int:
    return n + 16 * ceil_div(n, SEGMENT) + 344 + 152 * min(n // PART_MIN, 9999)


def h(p: int) -> int:
    return 96 + p + 16 * ceil_div(p, SEGMENT)


def covering_single(n: int, first: int, last: int) -> tuple[int, int]:
    end = 96 + (last // SEGMENT + 1) * (SEGMENT + TAG) - 1
    return 96 + first // SEGMENT * (SEGMENT + TAG), min(end, h(n) - 1)


def covering_multipart(entries: list["Entry"], first: int, last: int) -> tuple[tuple[int, int], tuple[int, int] | None]:
    """Bytes to fetch, and the first part's header if it must be fetched as well."""
    plain = cipher = 0
    start = header = end = None
    for entry in entries:
        if start is None and first < plain + entry.length:
            segment = (first - plain) // SEGMENT
            start = cipher + 96 + segment * (SEGMENT + TAG)
            if entry.salt is None and segment == 0:
                start = cipher
            elif entry.salt is None:
                header = (cipher, cipher + 95)
        if end is None and last < plain + entry.length:
            segment = (last - plain) // SEGMENT
            end = cipher + min(96 + (segment + 1) * (SEGMENT + TAG), h(entry.length)) - 1
        plain, cipher = plain + entry.length, cipher + h(entry.length)
    return (start, end), header


# --- footer (§3.4, §3.5) --------------------------------------------------------------------------------------------

CHECKSUM_LEN = {1: 4, 2: 4, 3: 20, 4: 32, 5: 8, 6: 16, 7: 64, 8: 8, 9: 8, 10: 16}


@dataclass
class Entry:
    number: int
    length: int
    salt: bytes | None
    crc64: int | None


@dataclass
class Info:
    created_ms: int
    crc64: int | None = None
    checksum: tuple[int, int, bytes, int] | None = None  # algo, type, value, composite part count


def encode_manifest(info: Info, entries: list[Entry]) -> bytes:
    algo, kind, value, parts = info.checksum or (0, 0, b"", 0)
    out = struct.pack(">QQB", info.created_ms, info.crc64 or 0, info.crc64 is not None)
    out += struct.pack(">BBBI", algo, kind, len(value), parts) + value.ljust(64, b"\0") + bytes(8)
    for entry in entries:
        flags = (entry.salt is not None) | (entry.crc64 is not None) << 1
        out += struct.pack(">HHIQ", entry.number, flags, 0, entry.length) + (entry.salt or bytes(16))
        out += struct.pack(">Q", entry.crc64 or 0)
    return out


def decode_manifest(data: bytes) -> tuple[Info, list[Entry]]:
    reader = Reader(data)
    created_ms, crc64, flags = struct.unpack(">QQB", reader.take(17))
    require(flags <= 1 and (flags or crc64 == 0), "info flags")
    algo, kind, length, parts = struct.unpack(">BBBI", reader.take(7))
    value = reader.take(64)
    require(value[length:] == bytes(64 - length), "checksum padding")
    reader.zeros(8)
    checksum = None
    if algo:
        require(CHECKSUM_LEN.get(algo) == length and kind in (1, 2), "checksum")
        checksum = (algo, kind, value[:length], parts)
    else:
        require((kind, length, parts) == (0, 0, 0), "no checksum")
    entries = []
    while reader.at < len(data):
        number, entry_flags, reserved, part_length = struct.unpack(">HHIQ", reader.take(16))
        salt, part_crc = reader.take(16), reader.number("Q")
        require(entry_flags <= 3 and reserved == 0, "entry flags")
        require(entry_flags & 1 or salt == bytes(16), "salt of an unbound entry")
        require(entry_flags & 2 or part_crc == 0, "absent crc")
        entry = Entry(number, part_length, salt if entry_flags & 1 else None, part_crc if entry_flags & 2 else None)
        entries.append(entry)
    return Info(created_ms, crc64 if flags else None, checksum), entries


def seal_footer(dek: bytes, epoch_id: bytes, object_id: bytes, entries: list[Entry], info: Info, **salt) -> bytes:
    n = sum(entry.length for entry in entries)
    unit = Unit(FOOTER, len(entries), n, epoch_id, object_id, **salt)
    header, sealed = seal_message(dek, unit, encode_manifest(info, entries))
    pad = g(n) - sum(h(entry.length) for entry in entries) - len(sealed) - len(header)
    require(pad >= 0, "part list")
    return bytes(pad) + sealed + header


def open_footer(dek: bytes, epoch_id: bytes, object_id: bytes, body: bytes) -> tuple[Info, list[Entry], int]:
    """Info, entries and the offset of the pad."""
    require(len(body) >= 344, "too short for an object")
    unit, commitment = parse_header(body[-96:])
    require((unit.kind, unit.epoch_id, unit.object_id) == (FOOTER, epoch_id, object_id), "foreign footer")
    key, base = verified_keys(dek, unit, commitment)
    require(1 <= unit.number <= 10_000 and g(unit.length) == len(body), "size")
    bare = 208 + 40 * unit.number
    info, entries = decode_manifest(decrypt(key, base, body[-bare:-96]))
    numbers = [entry.number for entry in entries]
    require(len(entries) == unit.number and numbers == sorted(set(numbers)), "part order")
    require(1 <= numbers[0] and numbers[-1] <= 10_000, "part numbers")
    require(all(entry.length >= PART_MIN for entry in entries[:-1]), "short part")
    require(sum(entry.length for entry in entries) == unit.length, "sum of lengths")
    pad_at = sum(h(entry.length) for entry in entries)
    require(len(body) - pad_at >= bare, "footer size")
    require(not any(body[pad_at:-bare]), "pad")
    return info, entries, pad_at


# --- envelope (§5.1) ------------------------------------------------------------------------------------------------


def prefixed(data: bytes) -> bytes:
    return struct.pack(">H", len(data)) + data


def name_extra(bucket_id: str, key: str) -> bytes:
    return prefixed(bucket_id.encode()) + prefixed(key.encode())


@dataclass
class Metadata:
    layout: tuple[bytes, int] | None  # salt and length of a single body; None for multipart
    system: list[tuple[int, bytes]] = field(default_factory=list)
    user: list[tuple[str, bytes]] = field(default_factory=list)
    created_ms: int | None = None
    checksum: tuple[int, int, bytes] | None = None

    def encode(self) -> bytes:
        def tlv(kind: int, value: bytes) -> bytes:
            return bytes([kind]) + prefixed(value)

        out = tlv(2, b"") if self.layout is None else tlv(1, self.layout[0] + struct.pack(">Q", self.layout[1]))
        for header, value in self.system:
            out += tlv(0x10, bytes([header]) + value)
        for name, value in self.user:
            out += tlv(0x11, bytes([len(name.encode())]) + name.encode() + value)
        if self.created_ms is not None:
            out += tlv(0x20, struct.pack(">Q", self.created_ms))
        if self.checksum is not None:
            out += tlv(0x21, bytes(self.checksum[:2]) + self.checksum[2])
        return out

    @classmethod
    def decode(cls, data: bytes) -> "Metadata":
        reader = Reader(data)
        kind, first = reader.number("B"), Reader(reader.take(reader.number("H")))
        require(kind in (1, 2), "layout")
        found = cls((first.take(16), first.number("Q")) if kind == 1 else None)
        first.end()
        previous = 2
        while reader.at < len(data):
            kind, value = reader.number("B"), Reader(reader.take(reader.number("H")))
            require(kind >= previous and kind > 2, "order")
            require(kind < 0x80, "critical type")
            require(kind != previous or kind not in (0x20, 0x21), "duplicate")
            previous = kind
            if kind == 0x10:
                found.system.append((value.number("B"), value.rest()))
            elif kind == 0x11:
                found.user.append((value.take(value.number("B")).decode(), value.rest()))
            elif kind == 0x20:
                found.created_ms = value.number("Q")
                value.end()
            elif kind == 0x21:
                found.checksum = (value.number("B"), value.number("B"), value.rest())
        return found


def seal_envelope(
    dek: bytes, epoch_id: bytes, object_id: bytes, bucket_id: str, key: str, metadata: Metadata, **salt
) -> str:
    tlvs = metadata.encode()
    unit = Unit(ENVELOPE, 0, len(tlvs), epoch_id, object_id, **salt)
    return b64(b"".join(seal_message(dek, unit, tlvs, name_extra(bucket_id, key))))


def open_envelope(text: str, dek: bytes, bucket_id: str, key: str) -> tuple[Unit, Metadata]:
    data = unb64(text)
    unit, commitment = parse_header(data[:96])
    require(unit.kind == ENVELOPE and unit.number == 0 and len(data) == 112 + unit.length, "envelope")
    aead_key, base = verified_keys(dek, unit, commitment, name_extra(bucket_id, key))
    return unit, Metadata.decode(decrypt(aead_key, base, data[96:]))


# --- objects (§3.2, §3.3, §3.6) -------------------------------------------------------------------------------------


def seal_single(dek: bytes, epoch_id: bytes, object_id: bytes, plaintext: bytes, info: Info) -> tuple[bytes, bytes]:
    """The stored bytes and the body's salt."""
    unit = Unit(SINGLE, 1, len(plaintext), epoch_id, object_id)
    crc = crc64nvme(plaintext)
    info.crc64 = crc
    entry = Entry(1, len(plaintext), unit.salt, crc)
    footer = seal_footer(dek, epoch_id, object_id, [entry], info)
    return seal_unit(dek, unit, plaintext) + footer, unit.salt


def seal_multipart(
    dek: bytes, epoch_id: bytes, object_id: bytes, parts: list[tuple[int, bytes, bool]], info: Info
) -> bytes:
    body, entries = b"", []
    for number, plaintext, bound in parts:
        unit = Unit(PART, number, len(plaintext), epoch_id, object_id)
        body += seal_unit(dek, unit, plaintext)
        crc = crc64nvme(plaintext) if bound else None
        entries.append(Entry(number, len(plaintext), unit.salt if bound else None, crc))
    if all(bound for _, _, bound in parts):
        info.crc64 = crc64nvme(b"".join(plaintext for _, plaintext, _ in parts))
    return body + seal_footer(dek, epoch_id, object_id, entries, info)


def open_object(wek: bytes, body: bytes, envelope: str, bucket_id: str, key: str) -> tuple[bytes, Metadata, Info]:
    unit, _ = parse_header(unb64(envelope)[:96])
    dek = dek_of(wek, unit.epoch_id, unit.object_id)
    unit, metadata = open_envelope(envelope, dek, bucket_id, key)
    info, entries, _ = open_footer(dek, unit.epoch_id, unit.object_id, body)
    kind = SINGLE if metadata.layout else PART
    if metadata.layout:
        salt, length = metadata.layout
        require(entries == [Entry(1, length, salt, entries[0].crc64)], "single entry")
    plaintext, at = b"", 0
    for entry in entries:
        header, commitment = parse_header(body[at : at + 96])
        expected = Unit(kind, entry.number, entry.length, unit.epoch_id, unit.object_id, entry.salt or header.salt)
        require(header == expected, "part header")
        aead_key, base = verified_keys(dek, header, commitment)
        piece = open_segments(aead_key, base, entry.length, body[at + 96 : at + h(entry.length)])
        require(entry.crc64 in (None, crc64nvme(piece)), "crc of a part")
        plaintext, at = plaintext + piece, at + h(entry.length)
    require(info.crc64 in (None, crc64nvme(plaintext)), "crc of the object")
    return plaintext, metadata, info


def _crc_table() -> list[list[int]]:
    rows = [[]]
    for byte in range(256):
        crc = byte
        for _ in range(8):
            crc = crc >> 1 ^ (0x9A6C9329AC4BC9B5 if crc & 1 else 0)
        rows[0].append(crc)
    for _ in range(7):
        rows.append([rows[0][crc & 255] ^ crc >> 8 for crc in rows[-1]])
    return rows


CRC_TABLE = _crc_table()


def crc64nvme(data: bytes) -> int:
    """Reflected, polynomial 0xad93d23594c93659, all ones in and out; eight bytes at a step."""
    t0, t1, t2, t3, t4, t5, t6, t7 = CRC_TABLE
    crc = 0xFFFFFFFFFFFFFFFF
    whole = len(data) // 8
    for word in struct.unpack(f"<{whole}Q", data[: whole * 8]):
        x = crc ^ word
        crc = (
            t7[x & 255] ^ t6[x >> 8 & 255] ^ t5[x >> 16 & 255] ^ t4[x >> 24 & 255]
            ^ t3[x >> 32 & 255] ^ t2[x >> 40 & 255] ^ t1[x >> 48 & 255] ^ t0[x >> 56]
        )
    for byte in data[whole * 8 :]:
        crc = t0[(crc ^ byte) & 255] ^ crc >> 8
    return crc ^ 0xFFFFFFFFFFFFFFFF


# --- names (§6) -----------------------------------------------------------------------------------------------------


def component_ad(bucket_id: str, parent: str, directory: bool) -> bytes:
    return b"clv1 name\0" + bytes([directory]) + prefixed(bucket_id.encode()) + parent.encode()


def seal_name(name_key: bytes, bucket_id: str, key: str) -> str:
    siv, out, parent = AESSIV(name_key), [], ""
    components = key.split("/")
    for index, component in enumerate(components):
        directory = index + 1 < len(components)
        padded = component.encode() + b"\x80"
        padded += bytes(-len(padded) % 16)
        out.append(b64(siv.encrypt(padded, [component_ad(bucket_id, parent, directory)])) if component else "")
        parent += component + "/"
    return "/".join(out)


def open_name(name_key: bytes, bucket_id: str, sealed: str) -> str:
    siv, out, parent = AESSIV(name_key), [], ""
    components = sealed.split("/")
    for index, component in enumerate(components):
        plain = ""
        if component:
            directory = index + 1 < len(components)
            try:
                padded = siv.decrypt(unb64(component), [component_ad(bucket_id, parent, directory)])
            except InvalidTag as error:
                raise Rejected("name") from error
            raw = padded.rstrip(b"\0")
            require(raw[-1:] == b"\x80" and len(padded) - len(raw) < 16, "name padding")
            plain = raw[:-1].decode()
        out.append(plain)
        parent += plain + "/"
    return "/".join(out)


# --- tokens (§7) ----------------------------------------------------------------------------------------------------


@dataclass
class Upload:
    epoch_id: bytes
    object_id: bytes
    expires_ms: int
    algo: int
    kind: int
    upstream_id: str

    def encode(self) -> bytes:
        numbers = struct.pack(">QBB", self.expires_ms, self.algo, self.kind)
        return b"\x01" + self.epoch_id + self.object_id + numbers + self.upstream_id.encode()


def issue_upload(dek: bytes, upload: Upload, bucket_id: str, key: str) -> str:
    body = upload.encode()
    return b64(body + mac(upload_key(dek), body + name_extra(bucket_id, key)))


def open_upload(text: str, wek: bytes, bucket_id: str, key: str) -> Upload:
    data = unb64(text)
    reader = Reader(data[:-32])
    require(reader.number("B") == 1, "token version")
    epoch_id, object_id = reader.take(16), reader.take(16)
    upload = Upload(epoch_id, object_id, *struct.unpack(">QBB", reader.take(10)), reader.rest().decode())
    expected = mac(upload_key(dek_of(wek, epoch_id, object_id)), data[:-32] + name_extra(bucket_id, key))
    require(hmac.compare_digest(expected, data[-32:]), "token mac")
    return upload


@dataclass
class PartState:
    held: bool
    number: int
    length: int
    salt: bytes
    crc64: int
    algo: int = 0
    value: bytes = b""

    def encode(self) -> bytes:
        head = struct.pack(">BBHQ", 1, self.held, self.number, self.length) + self.salt
        return head + struct.pack(">QBB", self.crc64, self.algo, len(self.value)) + self.value


def issue_part_tag(dek: bytes, upstream_etag: str, state: PartState) -> str:
    code = mac(etag_key(dek), upstream_etag.encode() + b"\0" + state.encode())[:16]
    return upstream_etag + "-" + b64(state.encode() + code).replace("-", ".")


def open_part_tag(text: str, dek: bytes) -> tuple[str, PartState | None]:
    upstream_etag, _, rest = text.rpartition("-")
    require(bool(upstream_etag), "no dash")
    if rest == "0":
        return upstream_etag, None
    data = unb64(rest.replace(".", "-"))
    reader = Reader(data[:-16])
    version, held, number, length = struct.unpack(">BBHQ", reader.take(12))
    require(version == 1 and held <= 1, "tag version and flags")
    salt = reader.take(16)
    crc64, algo, value_len = struct.unpack(">QBB", reader.take(10))
    state = PartState(bool(held), number, length, salt, crc64, algo, reader.take(value_len))
    reader.end()
    expected = mac(etag_key(dek), upstream_etag.encode() + b"\0" + data[:-16])[:16]
    require(hmac.compare_digest(expected, data[-16:]), "tag mac")
    return upstream_etag, state
