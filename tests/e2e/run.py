#!/usr/bin/env python3
"""Runs the clients' suites against one S3 endpoint and sums up.

    run.py --target provider|rgw|claviger|claviger-rgw [--clients boto3,rclone,…] [--only REGEX] [--summary FILE]

The endpoint comes from AWS_ENDPOINT_URL, AWS_ACCESS_KEY_ID, AWS_SECRET_ACCESS_KEY and AWS_REGION. `--target` says what is
behind it, which decides what of tests/e2e/quirks.py applies: a step that a store itself can't do is declared there with its
reason and counted as declared, never left out. A declared step that works is a failure too: the table has to be true.

The last line is `N passed, N failed`; the exit code is 0 only if nothing failed.
"""

import argparse
import concurrent.futures
import json
import os
import shutil
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path

HERE = Path(__file__).resolve().parent
ROOT = HERE.parent.parent
CLIENTS_DIR = Path(os.environ.get("CLAVIGER_CLIENTS_DIR", ROOT / "target" / "clients"))
sys.path.insert(0, str(HERE))

import canary  # noqa: E402
import quirks  # noqa: E402

SUITE_TIMEOUT_S = 1200


def python(environment):
    return str(CLIENTS_DIR / environment / "bin" / "python")


def suite(name):
    return str(HERE / "suites" / name)


# Client: the program that runs its steps.
CLIENTS = {
    "boto3": [python("boto3"), suite("boto3_suite.py")],
    "signatures": [sys.executable, suite("signatures_suite.py")],
    "configuration": [python("boto3"), suite("configuration_suite.py")],
    "versions": [python("boto3"), suite("versions_suite.py")],
    "fidelity": [python("boto3"), suite("fidelity_suite.py")],
    "forms": [python("boto3"), suite("forms_suite.py")],
    "awscli": [sys.executable, suite("awscli_suite.py")],
    "s3cmd": [sys.executable, suite("s3cmd_suite.py")],
    "s5cmd": [sys.executable, suite("s5cmd_suite.py")],
    "rclone": [sys.executable, suite("rclone_suite.py")],
    "restic": [sys.executable, suite("restic_suite.py")],
    "minio": [python("minio"), suite("minio_suite.py")],
    "pyarrow": [python("pyarrow"), suite("pyarrow_suite.py")],
    "node": ["node", str(CLIENTS_DIR / "node" / "suite.mjs")],
    "rust-sdk": [str(CLIENTS_DIR / "rust" / "debug" / "claviger-rust-clients"), "sdk"],
    "rust-object-store": [str(CLIENTS_DIR / "rust" / "debug" / "claviger-rust-clients"), "object_store"],
    "boto3-crt": [python("boto3"), suite("crt_suite.py"), "boto3"],
    "awscli-crt": [sys.executable, suite("crt_suite.py"), "awscli"],
    "s3fs": [python("duckdb"), suite("tables_suite.py"), "s3fs"],
    "polars": [python("polars"), suite("tables_suite.py"), "polars"],
    "duckdb": [python("duckdb"), suite("tables_suite.py"), "duckdb"],
    "hadoop": [python("boto3"), suite("patterns_suite.py"), "hadoop"],
    "registry": [python("boto3"), suite("patterns_suite.py"), "registry"],
    "terraform": [python("boto3"), suite("patterns_suite.py"), "terraform"],
    "duplicity": [sys.executable, suite("duplicity_suite.py")],
    "barman": [sys.executable, suite("barman_suite.py")],
    "s3fs-fuse": [sys.executable, suite("fuse_suite.py")],
    "curl": [sys.executable, suite("curl_suite.py")],
}
# These don't make their bucket themselves.
NEED_BUCKET = {"rust-sdk", "rust-object-store", "polars"}

printing = threading.Lock()


def say(text):
    with printing:
        print(text, flush=True)


class Results:
    def __init__(self, target):
        self.target = target
        self.rows = []

    def add(self, client, step, passed, reason=""):
        declared = quirks.reason(self.target, client, step)
        if passed and declared:
            state, reason = "FAIL", f"works, but is declared not to: {declared}"
        elif passed:
            state = "PASS"
        elif declared:
            state, reason = "DECLARED", f"{declared} [{reason[:160]}]"
        else:
            state = "FAIL"
        self.rows.append({"client": client, "step": step, "state": state, "reason": reason})
        say(f"{state:8} {client} × {step}" + (f": {reason}" if reason else ""))

    def count(self, state):
        return sum(1 for row in self.rows if row["state"] == state)


def environment(client, work, data, options):
    env = {name: value for name, value in os.environ.items() if not name.startswith("AWS_")}
    for name in ["AWS_ENDPOINT_URL", "AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"]:
        env[name] = os.environ[name]
    env["AWS_REGION"] = env["AWS_DEFAULT_REGION"] = os.environ.get("AWS_REGION", "us-east-1")
    env["AWS_EC2_METADATA_DISABLED"] = "true"
    env["AWS_CONFIG_FILE"] = env["AWS_SHARED_CREDENTIALS_FILE"] = "/dev/null"
    env["HOME"] = str(work)
    env["NO_PROXY"] = "127.0.0.1,localhost"
    env["PYTHONDONTWRITEBYTECODE"] = "1"
    env["CLAVIGER_CLIENTS_DIR"] = str(CLIENTS_DIR)
    env["CLAVIGER_E2E_TARGET"] = options.target
    env["CLAVIGER_E2E_DATA"] = str(data)
    env["CLAVIGER_E2E_WORK"] = str(work)
    env["CLAVIGER_E2E_BUCKET"] = f"e2e-{client.replace('_', '-')}-{options.run_id}"
    env["CLAVIGER_E2E_META"] = canary.META
    env["CLAVIGER_E2E_TYPE"] = canary.CONTENT_TYPE
    env["CLAVIGER_E2E_ONLY"] = options.only
    for name, value in quirks.client_environment(options.target, client).items():
        env[name] = value
    return env


def make_bucket(env, verb):
    """Makes or removes the bucket of a client that can't; with curl, which everything here has."""
    subprocess.run(
        ["curl", "-sf", "-X", verb, "-H", "x-amz-content-sha256: UNSIGNED-PAYLOAD", "--aws-sigv4", f"aws:amz:{env['AWS_REGION']}:s3",
         "--user", f"{env['AWS_ACCESS_KEY_ID']}:{env['AWS_SECRET_ACCESS_KEY']}",
         f"{env['AWS_ENDPOINT_URL']}/{env['CLAVIGER_E2E_BUCKET']}"],
        check=True, stdout=subprocess.DEVNULL,
    )


def run_client(client, results, work, data, options):
    program = CLIENTS[client]
    folder = work / client
    folder.mkdir()
    env = environment(client, folder, data, options)
    if not (shutil.which(program[0]) and (len(program) == 1 or not program[1].endswith("mjs") or Path(program[1]).exists())):
        results.add(client, "set up", False, f"{program[0]} is missing; run tests/clients/setup.sh")
        return
    began = time.monotonic()
    try:
        if client in NEED_BUCKET:
            make_bucket(env, "PUT")
    except subprocess.CalledProcessError as error:
        results.add(client, "set up", False, f"the bucket can't be made: {error}")
        return
    errors = open(folder / "stderr.txt", "w+")
    process = subprocess.Popen(program, env=env, cwd=folder, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
                               stderr=errors, text=True, errors="replace")
    watchdog = threading.Timer(SUITE_TIMEOUT_S, process.kill)
    watchdog.start()
    steps = 0
    for line in process.stdout:
        fields = line.rstrip("\n").split("\t")
        if fields[0] in ("PASS", "FAIL") and len(fields) >= 2:
            steps += 1
            results.add(client, fields[1], fields[0] == "PASS", " ".join(fields[2:]))
    code = process.wait()
    watchdog.cancel()
    if code != 0 or steps == 0:
        errors.seek(0)
        words = errors.read().strip().replace("\n", " | ")[-400:]
        results.add(client, "the suite ends", False, f"exit code {code} after {steps} steps: {words}")
    elif client in NEED_BUCKET and not options.only:
        try:
            make_bucket(env, "DELETE")
            results.add(client, "the bucket is empty at the end and can be deleted", True)
        except subprocess.CalledProcessError as error:
            results.add(client, "the bucket is empty at the end and can be deleted", False, str(error))
    say(f"         {client}: {steps} steps in {time.monotonic() - began:.0f} s")


def write_data(folder):
    folder.mkdir()
    for name in canary.BLOBS:
        (folder / f"{name}.bin").write_bytes(canary.data(name))


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--target", required=True, choices=quirks.TARGETS)
    parser.add_argument("--clients", default=",".join(CLIENTS), help="comma-separated; default all")
    parser.add_argument("--only", default="", help="run only steps whose name this regular expression finds")
    parser.add_argument("--jobs", type=int, default=2, help="clients at the same time")
    parser.add_argument("--summary", type=Path, help="write a JSON summary here")
    parser.add_argument("--keep", action="store_true", help="keep the work folder")
    options = parser.parse_args()
    options.run_id = f"{int(time.time()) % 1_000_000:06}"
    clients = options.clients.split(",")
    unknown = [client for client in clients if client not in CLIENTS]
    if unknown:
        parser.error(f"unknown clients {unknown}; there are {list(CLIENTS)}")

    work = Path(tempfile.mkdtemp(prefix="claviger-e2e-"))
    results = Results(options.target)
    try:
        write_data(work / "data")
        with concurrent.futures.ThreadPoolExecutor(options.jobs) as pool:
            runs = [pool.submit(run_client, client, results, work, work / "data", options) for client in clients]
            for run in runs:
                run.result()
    finally:
        if options.keep:
            say(f"work folder: {work}")
        else:
            shutil.rmtree(work, ignore_errors=True)
    counts = {state.lower(): results.count(state) for state in ["PASS", "FAIL", "DECLARED"]}
    if options.summary:
        summary = {"target": options.target, "counts": counts, "steps": results.rows}
        options.summary.parent.mkdir(parents=True, exist_ok=True)
        options.summary.write_text(json.dumps(summary, indent=1, ensure_ascii=False) + "\n")
    for row in results.rows:
        if row["state"] == "FAIL":
            say(f"FAILED   {row['client']} × {row['step']}: {row['reason']}")
    say(f"{counts['declared']} declared not to work on {options.target}")
    say(f"{counts['pass']} passed, {counts['fail']} failed")
    sys.exit(1 if counts["fail"] or not counts["pass"] else 0)


if __name__ == "__main__":
    main()
