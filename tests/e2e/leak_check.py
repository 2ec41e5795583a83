#!/usr/bin/env python3
"""Searches what went to a store for everything that must not be there.

    leak_check.py [--also FILE] CAPTURE_DIR…      exit code 1 on the first leak's account, 0 if there is none
    leak_check.py --self-test                     shows that each kind of leak would be found
    leak_check.py --expect-leaks CAPTURE_DIR      for a capture without Claviger: exit code 1 if NOTHING is found

Run it with the Python of the boto3 environment, whose awscrt computes two of the checksums. What is searched for comes from
canary.py: the canaries in content, metadata and content headers, samples of the plaintexts themselves, their checksums in
hex, base64 and raw, the clients' user agents. `--also` names a file with further secrets, one in a line (access keys of
clients). Object names are not searched: in plain-name mode they are declared leakage.

The search is done by `grep -F`, which looks for all needles in one pass; the few needles that hold a newline or a NUL are
searched one by one.
"""

import argparse
import mmap
import os
import re
import subprocess
import sys
import tempfile
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent))

import canary

# Shorter ones would be found in ciphertext by chance.
NEEDLE_LEN_MIN = 8
# Hex of fewer digits counts where it stands for itself. Each request carries some two hundred digits that are random (signatures,
# ids): eight given ones are among those of ten thousand requests once in two thousand runs, and 124 needles have eight.
HEX_LEN_ALONE = 16
HEX = b"0123456789abcdef"
# A search over nothing proves nothing.
CAPTURE_LEN_MIN = 1 << 20


def needles(also):
    """All needles: bytes to label."""
    found = {}
    for label, needle in [*canary.text_needles(), *canary.raw_needles()]:
        found.setdefault(needle, label)
    for line in (Path(also).read_text().splitlines() if also else []):
        if line.strip():
            found.setdefault(line.strip().encode(), "a secret of the client side")
    too_short = [label for needle, label in found.items() if len(needle) < NEEDLE_LEN_MIN]
    if too_short:
        raise SystemExit(f"needles too short to mean anything: {too_short}")
    return found


def is_short_hex(needle):
    return len(needle) < HEX_LEN_ALONE and all(byte in HEX for byte in needle)


def stands_alone(needle, file):
    """Whether short hex occurs as more than a piece of longer hex."""
    alone = re.compile(b"(?<![0-9a-f])" + needle + b"(?![0-9a-f])")
    with open(file, "rb") as handle, mmap.mmap(handle.fileno(), 0, access=mmap.ACCESS_READ) as view:
        return alone.search(view) is not None


def search(files, wanted):
    """Labels and places of the needles that occur: (label, file, needle)."""
    plain = [needle for needle in wanted if b"\n" not in needle and b"\0" not in needle]
    hits = set()
    with tempfile.NamedTemporaryFile() as patterns:
        patterns.write(b"\n".join(plain) + b"\n")
        patterns.flush()
        for file in files:
            done = subprocess.run(["grep", "-a", "-o", "-F", "-f", patterns.name, "--", str(file)],
                                  env=dict(os.environ, LC_ALL="C"), stdout=subprocess.PIPE)
            if done.returncode > 1:
                raise SystemExit(f"grep failed on {file}")
            hits |= {(wanted[line], str(file), line) for line in set(done.stdout.split(b"\n")) if line in wanted}
    awkward = [needle for needle in wanted if needle not in set(plain)]
    for file in files:
        if os.path.getsize(file) == 0:
            continue
        with open(file, "rb") as handle, mmap.mmap(handle.fileno(), 0, access=mmap.ACCESS_READ) as view:
            hits |= {(wanted[needle], str(file), needle) for needle in awkward if view.find(needle) >= 0}
    return sorted(hit for hit in hits if not is_short_hex(hit[2]) or stands_alone(hit[2], hit[1]))


def files_under(folders):
    return sorted(path for folder in folders for path in Path(folder).rglob("*") if path.is_file())


def self_test():
    """Hides every needle in noise and wants it found; noise alone must be clean."""
    wanted = needles(None)
    with tempfile.TemporaryDirectory() as folder:
        noise = Path(folder, "noise")
        noise.write_bytes(os.urandom(8 << 20))
        clean = search([noise], wanted)
        full = Path(folder, "full")
        with open(full, "wb") as out:
            for needle in wanted:
                out.write(os.urandom(97) + b"=" + needle + b";" + os.urandom(61))
        found = {needle for _, _, needle in search([full], wanted)}
        signed = Path(folder, "signed")
        signed.write_bytes(b"".join(b"Signature=1f" + needle + b"e0\n" for needle in wanted if is_short_hex(needle)))
        clean += search([signed], wanted)
    # A needle inside a longer one is reported as the longer one.
    missed = [wanted[n] for n in wanted if n not in found and not any(n != other and n in other for other in found)]
    if clean or missed:
        raise SystemExit(f"found in noise: {clean[:3]}; missed: {missed[:5]} ({len(missed)})")
    print(f"self-test: {len(wanted)} needles hidden and found, none in noise")


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folders", nargs="*")
    parser.add_argument("--also", help="file with further secrets, one in a line")
    parser.add_argument("--self-test", action="store_true")
    parser.add_argument("--expect-leaks", action="store_true", help="the control: fail if nothing is found")
    options = parser.parse_args()
    if options.self_test:
        self_test()
        return
    files = files_under(options.folders)
    size = sum(path.stat().st_size for path in files)
    if size < CAPTURE_LEN_MIN:
        raise SystemExit(f"only {size} bytes were captured; that is no evidence")
    wanted = needles(options.also)
    hits = search(files, wanted)
    kinds = {}
    for label, file, needle in hits:
        kinds.setdefault(label.split(" of ")[0], []).append((label, file, needle))
    for kind, found in sorted(kinds.items()):
        label, file, needle = found[0]
        print(f"{kind}: {len(found)} times, such as {label} in {os.path.basename(file)}: {needle[:40]!r}")
    print(f"searched {size} bytes of {len(files)} connections for {len(wanted)} needles: {len(hits)} found")
    if options.expect_leaks:
        sys.exit(0 if hits else 1)
    sys.exit(1 if hits else 0)


if __name__ == "__main__":
    main()
