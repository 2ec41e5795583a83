#!/usr/bin/env python3
"""A real Garage on loopback, for the end-to-end and conformance tests. See README.md beside this file.

    garage.py start --dir DIR [--port N] [--garage BIN]   ready when it returns; writes DIR/garage.env (the first
                                                          account) and DIR/credentials (all of them, as profiles)
    garage.py stop  --dir DIR

BIN is what `cargo install garage --locked` builds (minutes); it is not built here.
"""

import argparse
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from pathlib import Path

REGION = "us-east-1"
READY_WITHIN_S = 30
# Profile in DIR/credentials, access key, secret key: Garage's form is GK and 24 hexadecimal digits, and 64 digits.
ACCOUNTS = [
    ("default", "GK" + "0" * 23 + "1", "0" * 63 + "1"),
    ("alt", "GK" + "0" * 23 + "2", "0" * 63 + "2"),
    ("tenant", "GK" + "0" * 23 + "3", "0" * 63 + "3"),
]

CONF = """\
metadata_dir = "{dir}/meta"
data_dir = "{dir}/data"
db_engine = "sqlite"
replication_factor = 1
rpc_bind_addr = "127.0.0.1:{rpc_port}"
rpc_public_addr = "127.0.0.1:{rpc_port}"
rpc_secret = "{rpc_secret}"

[s3_api]
s3_region = "{region}"
api_bind_addr = "127.0.0.1:{port}"
"""


def log(text):
    print(f"garage: {text}", file=sys.stderr, flush=True)


def free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def run(options, *arguments, attempts=1):
    """Runs Garage's own command line against the daemon."""
    for attempt in range(attempts):
        done = subprocess.run(
            [options.garage, "--config", str(options.dir / "garage.toml"), *arguments],
            stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, timeout=READY_WITHIN_S, check=False,
        )
        if done.returncode == 0:
            return done.stdout
        if attempt + 1 < attempts:
            time.sleep(0.2)
    raise SystemExit(f"garage {' '.join(arguments)} failed:\n{done.stderr}")


def await_http(port, child):
    deadline = time.monotonic() + READY_WITHIN_S
    while time.monotonic() < deadline:
        if child.poll() is not None:
            raise SystemExit(f"garage ended with {child.returncode}")
        try:
            urllib.request.urlopen(f"http://127.0.0.1:{port}/", timeout=2)
            return
        except urllib.error.HTTPError:
            return
        except OSError:
            time.sleep(0.1)
    raise SystemExit(f"garage did not answer within {READY_WITHIN_S} s")


def write_settings(folder, port):
    profiles = (
        f"[{profile}]\naws_access_key_id = {access_key}\naws_secret_access_key = {secret_key}\n"
        for profile, access_key, secret_key in ACCOUNTS
    )
    credentials = folder / "credentials"
    credentials.touch(mode=0o600)
    credentials.write_text("\n".join(profiles))
    _, access_key, secret_key = ACCOUNTS[0]
    lines = {
        "AWS_ENDPOINT_URL": f"http://127.0.0.1:{port}",
        "AWS_ACCESS_KEY_ID": access_key,
        "AWS_SECRET_ACCESS_KEY": secret_key,
        "AWS_REGION": REGION,
        "AWS_DEFAULT_REGION": REGION,
    }
    (folder / "garage.env").write_text("".join(f"export {name}={value}\n" for name, value in lines.items()))


def start(options):
    if not shutil.which(options.garage):
        raise SystemExit("no garage program; build it once: cargo install garage --locked, then give --garage BIN")
    stop(options)
    shutil.rmtree(options.dir, ignore_errors=True)
    options.dir.mkdir(parents=True)
    port = options.port or free_port()
    (options.dir / "garage.toml").write_text(CONF.format(
        dir=options.dir, port=port, rpc_port=free_port(), rpc_secret=os.urandom(32).hex(), region=REGION))
    (options.dir / "garage.toml").chmod(0o600)
    with open(options.dir / "garage.log", "ab") as output:
        child = subprocess.Popen(
            [options.garage, "--config", str(options.dir / "garage.toml"), "server"],
            stdin=subprocess.DEVNULL, stdout=output, stderr=output, start_new_session=True,
        )
    (options.dir / "garage.pid").write_text(str(child.pid))
    await_http(port, child)
    node = run(options, "node", "id", "-q", attempts=20).strip().split("@")[0]
    run(options, "layout", "assign", "-z", "one", "-c", "10G", node, attempts=20)
    run(options, "layout", "apply", "--version", "1")
    for profile, access_key, secret_key in ACCOUNTS:
        run(options, "key", "import", "--yes", "-n", profile, access_key, secret_key, attempts=20)
        run(options, "key", "allow", "--create-bucket", access_key)
    write_settings(options.dir, port)
    log(f"ready at http://127.0.0.1:{port}, settings in {options.dir}/garage.env")


def stop(options):
    try:
        pid = int((options.dir / "garage.pid").read_text())
        os.kill(pid, signal.SIGTERM)
    except (OSError, ValueError):
        return
    for _ in range(600):
        try:
            os.waitpid(pid, os.WNOHANG)
        except ChildProcessError:
            pass
        try:
            os.kill(pid, 0)
        except OSError:
            log("stopped")
            return
        time.sleep(0.05)
    raise SystemExit(f"process {pid} does not end")


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=["start", "stop"])
    parser.add_argument("--dir", required=True, type=lambda text: Path(text).absolute())
    parser.add_argument("--port", type=int, default=0, help="0 takes a free one")
    parser.add_argument("--garage", default="garage", help="the program, if it is not on the PATH")
    options = parser.parse_args()
    start(options) if options.what == "start" else stop(options)


if __name__ == "__main__":
    main()
