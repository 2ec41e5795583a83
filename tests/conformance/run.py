#!/usr/bin/env python3
"""Runs the public S3 conformance tests (ceph/s3-tests) on a store, directly and through Claviger, and compares.

    run.py --suite DIR --python VENV/bin/python --claviger BIN --credentials FILE --store URL --out DIR

DIR of --suite is a checkout of the tests; they are not part of this repository. See README.md beside this file.
The measure is: of the tests that pass directly, how many pass through Claviger. Exit code 0 when at least --at-least
per cent do and every exception is one that exceptions.txt names.
"""

import argparse
import configparser
import json
import os
import subprocess
import sys
import time
import xml.etree.ElementTree as ElementTree
from pathlib import Path

HERE = Path(__file__).resolve().parent
READY_WITHIN_S = 60
# Marks of tests that do not concern a gateway: they are about the store's own services.
MARKS = (
    "not encryption and not sse_s3 and not s3website and not bucket_logging and not lifecycle_expiration "
    "and not lifecycle_transition and not cloud_transition and not cloud_restore and not iam_account "
    "and not iam_user and not iam_tenant and not iam_role and not iam_cross_account and not sns and not s3select"
)
# What the suite wants to know of the accounts. The store's own names of them, which it answers as owners.
ACCOUNTS = {
    "s3 main": ("default", {"user_id": "tests", "display_name": "tests", "email": "tests@example.org"}),
    "s3 alt": ("alt", {"user_id": "alt", "display_name": "alt", "email": "alt@example.org"}),
    "s3 tenant": (
        "tenant",
        {"user_id": "other$user", "display_name": "other user", "email": "user@example.org", "tenant": "other"},
    ),
    "iam": ("default", {"user_id": "tests", "display_name": "tests", "email": "tests@example.org"}),
    "iam root": ("default", {"user_id": "tests", "email": "tests@example.org"}),
    "iam alt root": ("alt", {"user_id": "alt", "email": "alt@example.org"}),
}


def suite_config(path, endpoint, credentials, api_name):
    """Writes the suite's own configuration for one endpoint."""
    host, port = endpoint.removeprefix("http://").rstrip("/").split(":")
    config = configparser.RawConfigParser()
    config["DEFAULT"] = {"host": host, "port": port, "is_secure": "False", "ssl_verify": "False"}
    config["fixtures"] = {"bucket prefix": "conf-{random}-"}
    for section, (profile, names) in ACCOUNTS.items():
        keys = credentials[profile] if profile in credentials else credentials["default"]
        config[section] = {
            **names,
            "access_key": keys["aws_access_key_id"],
            "secret_key": keys["aws_secret_access_key"],
        }
    config["s3 main"]["api_name"] = api_name
    with open(path, "w", encoding="utf-8") as file:
        config.write(file)


def run_suite(options, name, endpoint, credentials):
    """Runs the suite against one endpoint; gives {test: outcome}."""
    out = options.out / name
    out.mkdir(parents=True, exist_ok=True)
    suite_config(out / "s3tests.conf", endpoint, credentials, options.api_name)
    report = out / "report.xml"
    report.unlink(missing_ok=True)
    command = [
        options.python, "-m", "pytest", "-q", "-n", str(options.jobs), "--timeout", str(options.timeout),
        "-m", MARKS, "--junitxml", str(report), "--tb", "short", "-p", "no:cacheprovider",
        *([f"-k={options.only}"] if options.only else []),
        *(str(options.suite / "s3tests" / "functional" / module) for module in ["test_s3.py", "test_headers.py"]),
    ]
    environment = dict(os.environ, S3TEST_CONF=str(out / "s3tests.conf"))
    for variable in [variable for variable in environment if variable.startswith("AWS_")]:
        del environment[variable]
    began = time.monotonic()
    with open(out / "pytest.log", "w", encoding="utf-8") as log:
        subprocess.run(command, cwd=options.suite, env=environment, stdout=log, stderr=log, check=False)
    if not report.exists():
        raise SystemExit(f"the suite did not run; see {out}/pytest.log")
    outcomes = {}
    for case in ElementTree.parse(report).iter("testcase"):
        outcome = "passed"
        for child in case:
            if child.tag in ("failure", "error"):
                outcome = "failed"
            elif child.tag == "skipped":
                outcome = "skipped"
        test = f"{case.get('classname').rsplit('.', 1)[-1]}::{case.get('name')}"
        if outcomes.get(test) != "failed":
            outcomes[test] = outcome
    counted = {outcome: list(outcomes.values()).count(outcome) for outcome in ("passed", "failed", "skipped")}
    print(f"{name}: {len(outcomes)} tests, {counted} in {time.monotonic() - began:.0f} s", flush=True)
    (out / "outcomes.json").write_text(json.dumps(outcomes, indent=1, sort_keys=True))
    return outcomes


class Claviger:
    """`claviger demo` before the store, with the store's accounts, anonymous access and plain tags."""

    def __init__(self, options):
        folder = options.out / "demo"
        ready = options.out / "demo.ready"
        ready.unlink(missing_ok=True)
        command = [
            options.claviger, "demo", "--dir", str(folder), "--listen", options.listen, "--ready-file", str(ready),
            "--upstream", options.store, "--upstream-region", options.region,
            "--upstream-credentials", str(options.credentials), *options.demo_arguments.split(),
        ]
        with open(options.out / "demo.log", "w", encoding="utf-8") as log:
            self.process = subprocess.Popen(command, stdout=log, stderr=log)
        deadline = time.monotonic() + READY_WITHIN_S
        while not ready.exists():
            if self.process.poll() is not None or time.monotonic() > deadline:
                raise SystemExit(f"claviger is not ready; see {options.out}/demo.log")
            time.sleep(0.05)

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.process.terminate()
        self.process.wait(timeout=30)


def exceptions():
    """{test: reason} of exceptions.txt."""
    lines = (HERE / "exceptions.txt").read_text(encoding="utf-8").splitlines()
    pairs = (line.split(None, 1) for line in lines if line.strip() and not line.startswith("#"))
    return {test: reason for test, reason in pairs}


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--suite", required=True, type=Path, help="a checkout of ceph/s3-tests")
    parser.add_argument("--python", required=True, help="a Python with the suite's requirements, pytest-xdist and pytest-timeout")
    parser.add_argument("--claviger", help="the binary; without it only the direct run is made")
    parser.add_argument("--store", required=True, help="http://host:port of the store")
    parser.add_argument("--region", default="us-east-1")
    parser.add_argument("--api-name", default="", help="the store's name of its default location")
    parser.add_argument("--credentials", required=True, type=Path, help="AWS shared-credentials file: default, alt, tenant")
    parser.add_argument("--out", required=True, type=lambda text: Path(text).absolute())
    parser.add_argument("--listen", default="127.0.0.1:9711")
    parser.add_argument("--demo-arguments", default="--anonymous --plain-tags")
    parser.add_argument("--direct", type=Path, help="outcomes.json of an earlier direct run, to save its time")
    parser.add_argument("--jobs", type=int, default=2)
    parser.add_argument("--timeout", type=int, default=120, help="seconds for one test")
    parser.add_argument("--only", help="pytest's -k")
    parser.add_argument("--at-least", type=float, default=98.0, metavar="PER_CENT")
    options = parser.parse_args()
    options.out.mkdir(parents=True, exist_ok=True)
    options.suite = options.suite.absolute()
    credentials = configparser.RawConfigParser()
    credentials.read(options.credentials)
    if options.direct:
        direct = json.loads(options.direct.read_text())
    else:
        direct = run_suite(options, "direct", options.store, credentials)
    if not options.claviger:
        return
    with Claviger(options):
        through = run_suite(options, "claviger", f"http://{options.listen}", credentials)
    sys.exit(compare(direct, through, options))


def compare(direct, through, options):
    passing = [test for test, outcome in direct.items() if outcome == "passed" and (not options.only or test in through)]
    kept = [test for test in passing if through.get(test) == "passed"]
    explained = exceptions()
    lost = sorted(set(passing) - set(kept))
    gained = sorted(test for test, outcome in through.items() if outcome == "passed" and direct.get(test) == "failed")
    share = 100 * len(kept) / max(len(passing), 1)
    for test in lost:
        print(f"lost: {test}: {explained.get(test, 'NOT EXPLAINED in exceptions.txt')}")
    for test in gained:
        print(f"passes only through Claviger: {test}")
    print(f"{len(passing)} pass directly, {len(kept)} of them through Claviger: {share:.1f} %")
    unexplained = [test for test in lost if test not in explained]
    return 0 if share >= options.at_least and not unexplained else 1


if __name__ == "__main__":
    main()
