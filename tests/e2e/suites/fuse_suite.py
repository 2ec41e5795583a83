"""s3fs-fuse: the bucket as a folder of the system."""

import os
import subprocess
import sys
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from canary import data
from harness import Suite, command, file_bytes, same

suite = Suite("s3fs-fuse")
step = suite.step
BUCKET = suite.bucket
mount = Path(suite.work("mount", "x")).parent
password = suite.work("password")
Path(password).write_text(f"{suite.access_key}:{suite.secret_key}\n")
os.chmod(password, 0o600)


def bucket(verb):
    command(["curl", "-sf", "-X", verb, "-H", "x-amz-content-sha256: UNSIGNED-PAYLOAD", "--aws-sigv4", f"aws:amz:{suite.region}:s3",
             "--user", f"{suite.access_key}:{suite.secret_key}", f"{suite.endpoint}/{BUCKET}"])


bucket("PUT")
process = subprocess.Popen(
    ["s3fs", BUCKET, str(mount), "-f", "-o", f"url={suite.endpoint},use_path_request_style,endpoint={suite.region},sigv4,"
     f"passwd_file={password},multipart_size=10,parallel_count=4,stat_cache_expire=1,retries=2"],
    stdout=open(suite.work("s3fs.log"), "w"), stderr=subprocess.STDOUT)


@step("mount")
def _():
    for _ in range(100):
        if os.path.ismount(mount):
            return
        time.sleep(0.1)
    raise AssertionError(f"not mounted: {Path(suite.work('s3fs.log')).read_text()[-300:]}")


@step("files are written, listed with their sizes, and read back")
def _():
    (mount / "a").mkdir()
    for blob in ["empty", "small", "large"]:
        (mount / "a" / blob).write_bytes(data(blob))
    same({entry.name: entry.stat().st_size for entry in os.scandir(mount / "a")},
         {blob: len(data(blob)) for blob in ["empty", "small", "large"]}, "the sizes")
    for blob in ["empty", "small", "large"]:
        same(file_bytes(mount / "a" / blob), data(blob), blob)


@step("ranges, and a change in the middle of a file")
def _():
    with open(mount / "a" / "large", "rb") as file:
        file.seek(12_345_678)
        same(file.read(1000), data("large")[12_345_678:12_346_678], "a range")
    with open(mount / "a" / "large", "r+b") as file:
        file.seek(7_000_000)
        file.write(b"changed")
    want = bytearray(data("large"))
    want[7_000_000:7_000_007] = b"changed"
    same(file_bytes(mount / "a" / "large") == bytes(want), True, "the changed file")


@step("rename of a file and of a folder, times and modes")
def _():
    os.rename(mount / "a" / "large", mount / "a" / "renamed")
    os.rename(mount / "a", mount / "b")
    same(sorted(os.listdir(mount / "b")), ["empty", "renamed", "small"], "the folder")
    os.chmod(mount / "b" / "small", 0o640)
    os.utime(mount / "b" / "small", (1_000_000_000, 1_000_000_000))
    status = (mount / "b" / "small").stat()
    same((status.st_mode & 0o777, int(status.st_mtime)), (0o640, 1_000_000_000), "mode and time")
    same(file_bytes(mount / "b" / "small"), data("small"), "small")


@step("remove everything, unmount")
def _():
    command(["rm", "-rf", str(mount / "b")])
    same(os.listdir(mount), [], "the folder")
    command(["fusermount", "-u", str(mount)])
    process.wait(timeout=20)
    bucket("DELETE")


if process.poll() is None:
    subprocess.run(["fusermount", "-uz", str(mount)], check=False)
    process.kill()
