"""What the suites of the clients share: steps, settings, and how they report.

A suite is a program that prints one line for each step: PASS<TAB>step, or FAIL<TAB>step<TAB>reason. run.py reads them.
"""

import os
import re
import sys
import traceback


class Skip(Exception):
    """The step does not apply here; the reason is printed and run.py checks that it is declared."""


class Suite:
    """Runs steps in order. A step that fails does not end the suite."""

    def __init__(self, client):
        self.client = client
        self.endpoint = os.environ["AWS_ENDPOINT_URL"]
        self.access_key = os.environ["AWS_ACCESS_KEY_ID"]
        self.secret_key = os.environ["AWS_SECRET_ACCESS_KEY"]
        self.region = os.environ.get("AWS_REGION", "us-east-1")
        self.target = os.environ.get("CLAVIGER_E2E_TARGET", "claviger")
        self.data_dir = os.environ["CLAVIGER_E2E_DATA"]
        self.work_dir = os.environ["CLAVIGER_E2E_WORK"]
        self.bucket = os.environ["CLAVIGER_E2E_BUCKET"]
        # Behind Claviger; else the suite talks to a store directly.
        self.claviger = self.target.startswith("claviger")
        self.only = os.environ.get("CLAVIGER_E2E_ONLY", "")

    def file(self, name):
        """Path of a blob of canary.BLOBS as a file."""
        return os.path.join(self.data_dir, f"{name}.bin")

    def work(self, *parts):
        """A path in the suite's own folder; parents are made."""
        path = os.path.join(self.work_dir, *parts)
        os.makedirs(os.path.dirname(path), exist_ok=True)
        return path

    def step(self, name):
        """Decorator: runs the function now and reports."""

        def run(function):
            if self.only and not re.search(self.only, name):
                return function
            try:
                function()
                line = f"PASS\t{name}"
            except Exception as error:  # noqa: BLE001 - whatever a client throws is the step's failure
                frames = [f for f in traceback.extract_tb(error.__traceback__) if "/tests/e2e/" in f.filename]
                where = f" (line {' > '.join(str(frame.lineno) for frame in frames[1:])})" if frames else ""
                reason = f"{type(error).__name__}: {error}{where}".replace("\n", " ").replace("\t", " ")
                line = f"FAIL\t{name}\t{reason[:500]}"
            print(line, flush=True)
            return function

        return run


def same(got, want, what="value"):
    """Raises unless equal; long values are abridged."""
    if got != want:
        raise AssertionError(f"{what} is {abridged(got)}, not {abridged(want)}")


def abridged(value):
    text = repr(value)
    if isinstance(value, (bytes, bytearray)):
        return f"{len(value)} bytes {bytes(value[:24])!r}"
    return text if len(text) <= 200 else text[:200] + "…"


def command(arguments, env=None, cwd=None, check=True, timeout=300):
    """Runs a program; its standard output, or an AssertionError with its last words."""
    import subprocess

    done = subprocess.run(
        arguments, env=env, cwd=cwd, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
        timeout=timeout, text=True, errors="replace",
    )
    if check and done.returncode != 0:
        words = (done.stderr.strip() or done.stdout.strip()).replace("\n", " | ")
        raise AssertionError(f"{os.path.basename(arguments[0])} {arguments[1:4]} ended with {done.returncode}: {words[-350:]}")
    return done.stdout if check else done


def file_bytes(path):
    with open(path, "rb") as file:
        return file.read()


def fail(reason):
    print(reason, file=sys.stderr)
    sys.exit(2)
