"""rclone: sync, check, copy, mount-like ranged reads, modification times as metadata."""

import os
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from canary import data
from harness import Suite, command, file_bytes, same

suite = Suite("rclone")
step = suite.step
BUCKET = suite.bucket
CONFIG = suite.work("rclone.conf")

with open(CONFIG, "w") as file:
    file.write(f"""[s3]
type = s3
provider = Other
access_key_id = {suite.access_key}
secret_access_key = {suite.secret_key}
endpoint = {suite.endpoint}
region = {suite.region}
force_path_style = true
chunk_size = 5Mi
upload_cutoff = 8Mi
""")


def rclone(*arguments, check=True):
    return command(["rclone", "--config", CONFIG, "--retries", "1", *arguments], check=check)


NAMES = ["plain", "with space", "with+plus", "per%cent", "ünïcode", "sub/dir/file", "a&b", "empty"]
FOLDER = suite.work("tree", "x").removesuffix("/x")


@step("mkdir and lsd")
def _():
    rclone("mkdir", f"s3:{BUCKET}")
    assert BUCKET in rclone("lsd", "s3:"), "the bucket is not listed"


@step("sync up")
def _():
    for name in NAMES:
        with open(suite.work("tree", name), "wb") as file:
            file.write(b"" if name == "empty" else name.encode() + data("small"))
        os.utime(suite.work("tree", name), (1_600_000_000, 1_600_000_000.25))
    with open(suite.work("tree", "large"), "wb") as file:
        file.write(data("large"))
    rclone("sync", FOLDER, f"s3:{BUCKET}/tree")


@step("a second sync transfers nothing")
def _():
    done = rclone("sync", "-v", "--stats-one-line", FOLDER, f"s3:{BUCKET}/tree", check=False)
    same(done.returncode, 0, "exit code")
    same([line for line in done.stderr.splitlines() if "Copied" in line or "Updated" in line], [], "transfers")


@step("check, by size and by download")
def _():
    rclone("check", FOLDER, f"s3:{BUCKET}/tree")
    rclone("check", "--download", FOLDER, f"s3:{BUCKET}/tree")


@step("modification times come back")
def _():
    line = [line for line in rclone("lsl", f"s3:{BUCKET}/tree").splitlines() if line.endswith(" plain")][0]
    assert "2020-09-13" in line, line
    same(int(line.split()[0]), len(b"plain" + data("small")), "size")


@step("touch changes metadata by a copy onto itself")
def _():
    rclone("touch", "--timestamp", "2021-02-03T04:05:06", f"s3:{BUCKET}/tree/plain")
    line = [line for line in rclone("lsl", f"s3:{BUCKET}/tree").splitlines() if line.endswith(" plain")][0]
    assert "2021-02-03" in line, line
    rclone("touch", "--timestamp", "2020-09-13T12:26:40", f"s3:{BUCKET}/tree/plain")


@step("size shows the plain sizes")
def _():
    want = sum(os.path.getsize(os.path.join(folder, name)) for folder, _, names in os.walk(FOLDER) for name in names)
    assert f"({want} B" in rclone("size", f"s3:{BUCKET}/tree"), rclone("size", f"s3:{BUCKET}/tree")


@step("sync down, server-side copy and move")
def _():
    rclone("copy", f"s3:{BUCKET}/tree", f"s3:{BUCKET}/tree2")
    rclone("moveto", f"s3:{BUCKET}/tree2/plain", f"s3:{BUCKET}/tree2/moved")
    rclone("check", "--download", "--one-way", "--exclude", "plain", FOLDER, f"s3:{BUCKET}/tree2")
    back = suite.work("back", "x").removesuffix("/x")
    rclone("sync", f"s3:{BUCKET}/tree", back)
    for name in NAMES[:-1]:
        same(file_bytes(os.path.join(back, name)), name.encode() + data("small"), f"body of {name}")
    same(file_bytes(os.path.join(back, "large")), data("large"), "body of large")


@step("cat with an offset is a ranged read")
def _():
    import subprocess

    out = subprocess.run(["rclone", "--config", CONFIG, "cat", "--offset", "1000000", "--count", "70000",
                          f"s3:{BUCKET}/tree/large"], check=True, stdout=subprocess.PIPE, timeout=60).stdout
    same(out, data("large")[1_000_000:1_070_000], "range")


@step("rcat streams an unknown length in parts")
def _():
    import subprocess

    with open(suite.file("part3"), "rb") as source:
        subprocess.run(["rclone", "--config", CONFIG, "rcat", f"s3:{BUCKET}/rcat"], stdin=source, check=True, timeout=120)
    path = suite.work("rcat.bin")
    rclone("copyto", f"s3:{BUCKET}/rcat", path)
    same(file_bytes(path), data("part3"), "body")


@step("delete and purge")
def _():
    rclone("delete", f"s3:{BUCKET}/tree2")
    rclone("purge", f"s3:{BUCKET}")
    assert BUCKET not in rclone("lsd", "s3:"), "the bucket is still listed"
