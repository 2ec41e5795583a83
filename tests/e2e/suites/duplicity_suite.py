"""duplicity: full and incremental backups, verified and restored. Its own encryption is off: the gateway's is what is tested."""

import os
import shutil
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from canary import data
from harness import Suite, command, file_bytes, same

suite = Suite("duplicity")
step = suite.step
URL = f"boto3+s3://{suite.bucket}/backups"
# Debian's duplicity comes with an SDK that knows no defaults for checksums.
ENV = os.environ | {"BOTO_CONFIG": "/dev/null", "AWS_DEFAULT_REGION": suite.region}


def duplicity(*arguments):
    return command(["duplicity", "--no-encryption", "--archive-dir", suite.work("cache", "x").rsplit("/", 1)[0], "--name", "e2e",
                    "--s3-endpoint-url", suite.endpoint, "--s3-region-name", suite.region, "--volsize", "7",
                    "--allow-source-mismatch", *arguments], env=ENV)


command(["curl", "-sf", "-X", "PUT", "-H", "x-amz-content-sha256: UNSIGNED-PAYLOAD", "--aws-sigv4", f"aws:amz:{suite.region}:s3",
         "--user", f"{suite.access_key}:{suite.secret_key}", f"{suite.endpoint}/{suite.bucket}"])
source = Path(suite.work("source", "x")).parent
for blob in ["empty", "small", "medium", "large"]:
    shutil.copy(suite.file(blob), source / blob)


def restored(*arguments):
    target = suite.work("restored")
    shutil.rmtree(target, ignore_errors=True)
    duplicity("restore", *arguments, URL, target)
    return Path(target)


@step("full backup in volumes, then status and listing")
def _():
    duplicity("full", str(source), URL)
    same("Full" in duplicity("collection-status", URL), True, "the chain")
    same("large" in duplicity("list-current-files", URL), True, "the listing")


@step("incremental backup of a change, verify against the source")
def _():
    (source / "small").write_bytes(data("small2"))
    (source / "new").write_bytes(data("tail"))
    duplicity("incremental", str(source), URL)
    same("0 differences found" in duplicity("verify", "--compare-data", URL, str(source)), True, "verify")


@step("restore, from a cache that is lost")
def _():
    shutil.rmtree(suite.work("cache", "x").rsplit("/", 1)[0])
    target = restored()
    for blob, name in [("large", "large"), ("small2", "small"), ("tail", "new"), ("empty", "empty")]:
        same(file_bytes(target / name), data(blob), name)


@step("old chains are removed")
def _():
    duplicity("full", str(source), URL)
    duplicity("remove-all-but-n-full", "1", "--force", URL)
    same(duplicity("collection-status", URL).count("Incremental "), 0, "increments")
    same(file_bytes(restored() / "large"), data("large"), "large")
