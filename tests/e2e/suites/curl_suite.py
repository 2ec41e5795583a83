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


def receive(connection, has_body=True):
    """One answer, no more than its Content-Length says, so that the next request follows at once; b"" if there is none."""
    got = b""
    while b"\r\n\r\n" not in got or (has_body and len(got) < answer_len(got)):
        piece = connection.recv(65_536)
        if not piece:
            return got
        got += piece
    return got


def answer_len(got):
    head, _ = got.split(b"\r\n\r\n", 1)
    lengths = [int(line.split(b":")[1]) for line in head.lower().split(b"\r\n") if line.startswith(b"content-length:")]
    return len(head) + 4 + (lengths[0] if lengths else 0)


@step("PUT a bucket, with and without a slash at the end")
def _():
    same(curl("-X", "PUT", URL)[0], 200, "status")
    same(curl("-I", URL + "/")[0], 200, "status of HEAD with a slash")


@step("PUT and GET with Content-Length")
def _():
    same(curl("-T", suite.file("medium"), "-H", f"Content-Type: {canary.CONTENT_TYPE}", f"{URL}/medium")[0], 200, "status")
    same(curl(f"{URL}/medium"), (200, data("medium")), "answer")
    same(curl("-r", "65536-65540", f"{URL}/medium"), (206, data("medium")[65_536:65_541]), "range")


@step("PUT of no declared length is refused if it is long")
def _():
    import subprocess

    done = subprocess.run(["curl", "-s", "-o", "/dev/null", "-w", "%{http_code}", *SIGNED, "-T", "-", f"{URL}/stream"],
                          input=data("large"), stdout=subprocess.PIPE, timeout=30)
    same(done.stdout.decode() in ("411", "501", "400"), True, f"status {done.stdout.decode()}")


@step("unsigned is AccessDenied")
def _():
    status = command(["curl", "-s", "-o", "/dev/null", "-w", "%{http_code}", f"{URL}/medium"])
    same(status, "403", "status")


@step("a refused Expect: 100-continue leaves the connection in step, or ends it")
def _():
    import socket

    host, port = suite.endpoint.split("://")[1].split(":")
    name = f"Host: {host}:{port}\r\n"
    for attempt in range(40):
        with socket.create_connection((host, int(port)), timeout=10) as connection:
            connection.sendall(f"PUT /no-such-bucket-e2e/k HTTP/1.1\r\n{name}Content-Length: 1\r\n"
                               f"Expect: 100-continue\r\n\r\n".encode())
            first = receive(connection)
            assert first.split()[1] in (b"400", b"403", b"404"), first[:100]
            if b"connection: close" in first.lower():
                continue
            # The body of one byte is never sent. A server that still waits for it takes the H of HEAD, and answers to
            # EAD, with a body.
            try:
                connection.sendall(f"HEAD /no-such-bucket-e2e HTTP/1.1\r\n{name}\r\n".encode())
                second = receive(connection, has_body=False)
                connection.settimeout(0.05)
                rest = connection.recv(1000) if second else b""
            except TimeoutError:
                rest = b""
            except OSError:
                continue
            body = second.split(b"\r\n\r\n", 1)[-1] if second else b""
            same(body + rest, b"", f"body of the answer to HEAD at attempt {attempt}")


@step("DELETE")
def _():
    same(curl("-X", "DELETE", f"{URL}/medium")[0], 204, "status")
    same(curl(f"{URL}/medium")[0], 404, "status afterwards")
    same(curl("-X", "DELETE", URL)[0], 204, "status of the bucket")
