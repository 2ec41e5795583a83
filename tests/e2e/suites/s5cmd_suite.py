"""s5cmd: many transfers at once, parts of its own size."""

import os
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from canary import data
from harness import Suite, command, file_bytes, same

suite = Suite("s5cmd")
step = suite.step
BUCKET = suite.bucket
PROGRAM = os.path.join(os.environ["CLAVIGER_CLIENTS_DIR"], "s5cmd", "bin", "s5cmd")


def s5cmd(*arguments, check=True):
    return command([PROGRAM, "--endpoint-url", suite.endpoint, *arguments], check=check)


@step("mb and ls")
def _():
    s5cmd("mb", f"s3://{BUCKET}")
    assert BUCKET in s5cmd("ls"), "the bucket is not listed"


@step("cp small, empty and 20 MiB in parts of 5 MiB")
def _():
    for name in ["small", "empty", "large"]:
        s5cmd("cp", "--part-size", "5", "--concurrency", "4", suite.file(name), f"s3://{BUCKET}/{name}")
        path = suite.work("down.bin")
        s5cmd("cp", "--part-size", "5", "--concurrency", "4", f"s3://{BUCKET}/{name}", path)
        same(file_bytes(path), data(name), f"body of {name}")


@step("ls and du show the plain sizes")
def _():
    sizes = {line.split()[-1]: int(line.split()[-2]) for line in s5cmd("ls", f"s3://{BUCKET}/").splitlines()}
    for name in ["small", "empty", "large"]:
        same(sizes[name], len(data(name)), f"size of {name}")
    same(int(s5cmd("du", f"s3://{BUCKET}/*").split()[0]), sum(sizes.values()), "du")


@step("200 files side by side, then a second sync transfers nothing")
def _():
    for number in range(200):
        with open(suite.work("tree", f"{number % 7}", f"file {number}"), "wb") as file:
            file.write(b"%d" % number + data("small"))
    folder = suite.work("tree", "x").removesuffix("x")
    same(len(s5cmd("sync", folder, f"s3://{BUCKET}/tree/").splitlines()), 200, "transfers")
    same(s5cmd("sync", folder, f"s3://{BUCKET}/tree/").strip(), "", "second sync")
    back = suite.work("back", "x").removesuffix("x")
    s5cmd("cp", f"s3://{BUCKET}/tree/*", back)
    for number in [0, 13, 199]:
        same(file_bytes(os.path.join(back, f"{number % 7}", f"file {number}")), b"%d" % number + data("small"), "body")


@step("cp between keys, mv, cat")
def _():
    s5cmd("cp", f"s3://{BUCKET}/small", f"s3://{BUCKET}/copied")
    s5cmd("mv", f"s3://{BUCKET}/copied", f"s3://{BUCKET}/moved")
    path = suite.work("moved.bin")
    s5cmd("cp", f"s3://{BUCKET}/moved", path)
    same(file_bytes(path), data("small"), "body")


@step("rm and rb")
def _():
    s5cmd("rm", f"s3://{BUCKET}/*")
    same(s5cmd("ls", f"s3://{BUCKET}/", check=False).stdout.strip(), "", "what is left")
    s5cmd("rb", f"s3://{BUCKET}")
