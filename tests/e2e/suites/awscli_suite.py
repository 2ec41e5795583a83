"""aws-cli: `aws s3` and `aws s3api`, as scripts use them."""

import json
import os
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

import canary
from canary import data
from harness import Suite, command, file_bytes, same

suite = Suite("awscli")
step = suite.step
BUCKET = suite.bucket
AWS = os.path.join(os.environ["CLAVIGER_CLIENTS_DIR"], "awscli", "bin", "aws")


# The stores by themselves are asked in a region in which `presign` of this client signs with version 2, which no current
# endpoint has to take. Claviger's demo names another region, so that nothing has to be configured.
version = "" if suite.target.startswith("claviger") else "  signature_version = s3v4\n"
with open(suite.work("config"), "w") as file:
    file.write(f"[default]\ns3 =\n{version}  addressing_style = path\n")
os.environ["AWS_CONFIG_FILE"] = suite.work("config")


def aws(*arguments, check=True):
    return command([AWS, *arguments], check=check)


def down(key, name="down.bin"):
    path = suite.work(name)
    aws("s3", "cp", f"s3://{BUCKET}/{key}", path, "--quiet")
    return file_bytes(path)


def head(key):
    return json.loads(aws("s3api", "head-object", "--bucket", BUCKET, "--key", key, "--output", "json"))


@step("mb, and ls of buckets")
def _():
    aws("s3", "mb", f"s3://{BUCKET}")
    assert BUCKET in aws("s3", "ls"), "the bucket is not listed"


@step("cp small, up and down")
def _():
    for name in ["small", "segment1"]:
        aws("s3", "cp", suite.file(name), f"s3://{BUCKET}/{name}", "--quiet")
        same(down(name), data(name), f"body of {name}")


@step("cp empty, up and down")
def _():
    # The client asks for a range also of what is empty, and has to understand the 416.
    aws("s3", "cp", suite.file("empty"), f"s3://{BUCKET}/empty", "--quiet")
    same(down("empty"), b"", "body")


@step("cp 20 MiB in parts, up and down")
def _():
    aws("s3", "cp", suite.file("large"), f"s3://{BUCKET}/large", "--quiet",
        "--content-type", canary.CONTENT_TYPE, "--metadata", f"note={canary.META}")
    same(down("large"), data("large"), "body")
    same(head("large")["ContentType"], canary.CONTENT_TYPE, "content type")
    same(head("large")["Metadata"], {"note": canary.META}, "metadata")


@step("cp from standard input and to standard output")
def _():
    import subprocess

    with open(suite.file("part3"), "rb") as source:
        subprocess.run([AWS, "s3", "cp", "-", f"s3://{BUCKET}/stdin"], stdin=source, check=True, timeout=120,
                       stdout=subprocess.DEVNULL)
    out = subprocess.run([AWS, "s3", "cp", f"s3://{BUCKET}/stdin", "-"], check=True, timeout=120, stdout=subprocess.PIPE)
    same(out.stdout, data("part3"), "body")


@step("ls shows the plain sizes")
def _():
    sizes = {line.split()[3]: int(line.split()[2]) for line in aws("s3", "ls", f"s3://{BUCKET}/").splitlines()}
    for name in ["small", "empty", "large"]:
        same(sizes[name], len(data(name)), f"size of {name}")
    total = aws("s3", "ls", f"s3://{BUCKET}", "--recursive", "--summarize")
    same(int(total.split("Total Size:")[1].split()[0]), sum(sizes.values()), "total size")


@step("cp between keys: whole, and in parts")
def _():
    aws("s3", "cp", f"s3://{BUCKET}/small", f"s3://{BUCKET}/copied", "--quiet")
    same(down("copied"), data("small"), "body")
    # 20 MiB is above the threshold: the client asks for tags, then copies part by part.
    aws("s3", "cp", f"s3://{BUCKET}/large", f"s3://{BUCKET}/copied-large", "--quiet")
    same(down("copied-large"), data("large"), "body")


@step("mv")
def _():
    aws("s3", "mv", f"s3://{BUCKET}/copied", f"s3://{BUCKET}/moved", "--quiet")
    same(down("moved"), data("small"), "body")
    assert aws("s3", "ls", f"s3://{BUCKET}/copied", check=False).returncode in (0, 1)
    same(aws("s3api", "head-object", "--bucket", BUCKET, "--key", "copied", check=False).returncode != 0, True, "source gone")


NAMES = ["plain", "with space", "with+plus", "per%cent", "ünïcode", "sub/dir/file", "sub/dir.d/file", "a&b=c"]


@step("sync up; a second sync transfers nothing")
def _():
    for name in NAMES:
        path = suite.work("tree", name)
        with open(path, "wb") as file:
            file.write(name.encode() + data("small"))
    with open(suite.work("tree", "big"), "wb") as file:
        file.write(data("large"))
    folder = suite.work("tree", "x").removesuffix("/x")
    first = aws("s3", "sync", folder, f"s3://{BUCKET}/tree", "--no-progress")
    same(first.count("upload:"), len(NAMES) + 1, "uploads")
    same(aws("s3", "sync", folder, f"s3://{BUCKET}/tree", "--no-progress").strip(), "", "second sync")


@step("sync down; a second sync transfers nothing")
def _():
    folder = suite.work("back", "x").removesuffix("/x")
    aws("s3", "sync", f"s3://{BUCKET}/tree", folder, "--no-progress")
    for name in NAMES:
        same(file_bytes(os.path.join(folder, name)), name.encode() + data("small"), f"body of {name}")
    same(file_bytes(os.path.join(folder, "big")), data("large"), "body of big")
    same(aws("s3", "sync", f"s3://{BUCKET}/tree", folder, "--no-progress").strip(), "", "second sync")


@step("sync --delete removes what is gone, and only that")
def _():
    folder = suite.work("tree", "x").removesuffix("/x")
    os.remove(os.path.join(folder, "plain"))
    out = aws("s3", "sync", folder, f"s3://{BUCKET}/tree", "--delete", "--no-progress")
    same([line.split("/")[-1] for line in out.splitlines()], ["plain"], "deleted")


@step("s3api put-object and get-object with a range and a checksum")
def _():
    aws("s3api", "put-object", "--bucket", BUCKET, "--key", "api", "--body", suite.file("part3"),
        "--checksum-algorithm", "SHA256")
    path = suite.work("range.bin")
    aws("s3api", "get-object", "--bucket", BUCKET, "--key", "api", "--range", "bytes=1000000-1999999", path)
    same(file_bytes(path), data("part3")[1_000_000:2_000_000], "range")


@step("presign")
def _():
    url = aws("s3", "presign", f"s3://{BUCKET}/tree/with space").strip()
    same(command(["curl", "-sf", url, "-o", suite.work("presigned.bin")]), "", "curl")
    same(file_bytes(suite.work("presigned.bin")), b"with space" + data("small"), "body")


@step("rm --recursive and rb")
def _():
    aws("s3", "rm", f"s3://{BUCKET}/", "--recursive", "--quiet")
    same(aws("s3", "ls", f"s3://{BUCKET}/", check=False).stdout.strip(), "", "what is left")
    aws("s3", "rb", f"s3://{BUCKET}")
