"""s3cmd: put, get, ls, du, sync, cp, signurl."""

import os
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

import canary
from canary import data
from harness import Suite, command, file_bytes, same

suite = Suite("s3cmd")
step = suite.step
BUCKET = suite.bucket
PROGRAM = os.path.join(os.environ["CLAVIGER_CLIENTS_DIR"], "s3cmd", "bin", "s3cmd")
HOST = suite.endpoint.removeprefix("http://").removeprefix("https://")
CONFIG = suite.work("s3cfg")

with open(CONFIG, "w") as file:
    file.write(f"""[default]
access_key = {suite.access_key}
secret_key = {suite.secret_key}
host_base = {HOST}
host_bucket = {HOST}
bucket_location = {suite.region}
use_https = {suite.endpoint.startswith('https')}
signature_v2 = False
""")


def s3cmd(*arguments, check=True):
    return command([PROGRAM, "-c", CONFIG, "--no-progress", *arguments], check=check)


def down(key):
    path = suite.work("down.bin")
    s3cmd("get", "--force", f"s3://{BUCKET}/{key}", path)
    return file_bytes(path)


@step("mb, ls of buckets, info")
def _():
    s3cmd("mb", f"s3://{BUCKET}")
    assert BUCKET in s3cmd("ls"), "the bucket is not listed"
    s3cmd("info", f"s3://{BUCKET}")


@step("put and get small and empty")
def _():
    for name in ["small", "empty", "segment"]:
        s3cmd("put", suite.file(name), f"s3://{BUCKET}/{name}", "--mime-type", canary.CONTENT_TYPE)
        same(down(name), data(name), f"body of {name}")
    assert canary.CONTENT_TYPE in s3cmd("info", f"s3://{BUCKET}/small"), "the content type is not shown"


@step("put and get 20 MiB in parts")
def _():
    s3cmd("put", "--multipart-chunk-size-mb=5", suite.file("large"), f"s3://{BUCKET}/large",
          f"--add-header=x-amz-meta-note: {canary.META}")
    same(down("large"), data("large"), "body")
    assert canary.META in s3cmd("info", f"s3://{BUCKET}/large"), "the metadata is not shown"


@step("ls and du show the plain sizes")
def _():
    sizes = {line.split("/")[-1]: int(line.split()[2]) for line in s3cmd("ls", f"s3://{BUCKET}").splitlines()}
    for name in ["small", "empty", "large"]:
        same(sizes[name], len(data(name)), f"size of {name}")
    same(int(s3cmd("du", f"s3://{BUCKET}").split()[0]), sum(sizes.values()), "du")


@step("cp, mv, modify")
def _():
    s3cmd("cp", f"s3://{BUCKET}/small", f"s3://{BUCKET}/copied")
    s3cmd("mv", f"s3://{BUCKET}/copied", f"s3://{BUCKET}/moved")
    same(down("moved"), data("small"), "body")
    s3cmd("modify", f"--add-header=x-amz-meta-note: {canary.META}", f"s3://{BUCKET}/moved")
    assert canary.META in s3cmd("info", f"s3://{BUCKET}/moved"), "the metadata is not shown"


@step("sync; a second sync transfers nothing")
def _():
    for name in ["plain", "with space", "with+plus", "ünïcode", "sub/file"]:
        with open(suite.work("tree", name), "wb") as file:
            file.write(name.encode() + data("small"))
    folder = suite.work("tree", "x").removesuffix("x")
    assert "upload:" in s3cmd("sync", folder, f"s3://{BUCKET}/tree/"), "nothing was uploaded"
    assert "upload:" not in s3cmd("sync", folder, f"s3://{BUCKET}/tree/"), "the second sync uploaded something"
    back = suite.work("back", "x").removesuffix("x")
    s3cmd("sync", f"s3://{BUCKET}/tree/", back)
    same(file_bytes(os.path.join(back, "with+plus")), b"with+plus" + data("small"), "body")
    assert "download:" not in s3cmd("sync", f"s3://{BUCKET}/tree/", back), "the second sync downloaded something"


@step("get --continue asks for a range")
def _():
    path = suite.work("half.bin")
    with open(path, "wb") as file:
        file.write(data("large")[:7_000_000])
    s3cmd("get", "--continue", f"s3://{BUCKET}/large", path)
    same(file_bytes(path), data("large"), "body")


@step("del --recursive and rb")
def _():
    s3cmd("del", "--recursive", "--force", f"s3://{BUCKET}")
    same(s3cmd("ls", "--recursive", f"s3://{BUCKET}").strip(), "", "what is left")
    s3cmd("rb", f"s3://{BUCKET}")
