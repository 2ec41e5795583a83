"""restic: a repository, two backups, restore, check, prune."""

import os
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

import canary
from canary import data
from harness import Suite, command, file_bytes, same

suite = Suite("restic")
step = suite.step
BUCKET = suite.bucket
ENV = dict(os.environ, RESTIC_PASSWORD=canary.RESTIC_PASSWORD, RESTIC_REPOSITORY=f"s3:{suite.endpoint}/{BUCKET}/repo",
           RESTIC_CACHE_DIR=suite.work("cache"))
FOLDER = suite.work("tree", "x").removesuffix("/x")


def restic(*arguments):
    return command(["restic", *arguments], env=ENV)


@step("init makes the bucket")
def _():
    restic("init")


@step("backup")
def _():
    for name in ["small", "large", "part3", "empty"]:
        with open(suite.work("tree", name), "wb") as file:
            file.write(data(name))
    restic("backup", "--no-cache", FOLDER)


@step("a second backup adds almost nothing")
def _():
    with open(suite.work("tree", "small2"), "wb") as file:
        file.write(data("small2"))
    assert "unmodified" in restic("backup", FOLDER)


@step("check --read-data")
def _():
    assert "no errors were found" in restic("check", "--read-data")


@step("restore")
def _():
    target = suite.work("restored", "x").removesuffix("/x")
    restic("restore", "latest", "--target", target)
    for name in ["small", "large", "part3", "empty", "small2"]:
        same(file_bytes(target + FOLDER + "/" + name), data(name), f"body of {name}")


@step("forget and prune, then check again")
def _():
    restic("forget", "--keep-last", "1", "--prune")
    assert "no errors were found" in restic("check")
