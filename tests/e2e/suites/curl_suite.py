"""curl --aws-sigv4: no SDK at all."""

import os
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

import canary
from canary import data
from harness import Suite, command, file_bytes, same

suite = Suite("curl")
step = suite.step
URL = f"{suite.endpoint}/{suite.bucket}"
# Debian's curl does not say by itself that it does not sign the body.
SIGNED = ["-H", "x-amz-content-sha256: UNSIGNED-PAYLOAD", "--aws-sigv4", f"aws:amz:{suite.region}:s3", "--user", f"{suite.access_key}:{suite.secret_key}"]


def curl(*arguments):
    """Status code of the request; the body goes to the file `out`."""
    out = suite.work("out.bin")
    if os.path.exists(out):
        os.remove(out)
    status = command(["curl", "-s", "-o", out, "-w", "%{http_code}", *SIGNED, *arguments])
    return int(status), file_bytes(out) if os.path.exists(out) else b""


@step("PUT a bucket, with and without a slash at the end")
def _():
    same(curl("-X", "PUT", URL)[0], 200, "status")
    same(curl("-I", URL + "/")[0], 200, "status of HEAD with a slash")


@step("PUT and GET with Content-Length")
def _():
    same(curl("-T", suite.file("medium"), "-H", f"Content-Type: {canary.CONTENT_TYPE}", f"{URL}/medium")[0], 200, "status")
    same(curl(f"{URL}/medium"), (200, data("medium")), "answer")
    same(curl("-r", "65536-65540", f"{URL}/medium"), (206, data("medium")[65_536:65_541]), "range")


@step("PUT of no declared length is refused")
def _():
    import subprocess

    done = subprocess.run(["curl", "-s", "-o", "/dev/null", "-w", "%{http_code}", *SIGNED, "-T", "-", f"{URL}/stream"],
                          input=data("small"), stdout=subprocess.PIPE, timeout=30)
    same(done.stdout.decode() in ("411", "501", "400"), True, f"status {done.stdout.decode()}")


@step("unsigned is AccessDenied")
def _():
    status = command(["curl", "-s", "-o", "/dev/null", "-w", "%{http_code}", f"{URL}/medium"])
    same(status, "403", "status")


@step("DELETE")
def _():
    same(curl("-X", "DELETE", f"{URL}/medium")[0], 204, "status")
    same(curl(f"{URL}/medium")[0], 404, "status afterwards")
    same(curl("-X", "DELETE", URL)[0], 204, "status of the bucket")
