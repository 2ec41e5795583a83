#!/usr/bin/env python3
"""A real Ceph RGW on loopback, for the end-to-end tests. See README.md beside this file.

    rgw.py start --dir DIR [--port N] [--install]   ready when it returns; writes DIR/rgw.env (the first account) and
                                                    DIR/credentials (all of them, as profiles)
    rgw.py stop  --dir DIR                          ends everything that start began
    rgw.py status --dir DIR
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
import uuid
from pathlib import Path

PROGRAMS = ["ceph-mon", "ceph-osd", "radosgw", "radosgw-admin", "monmaptool", "ceph"]
PACKAGES = ["radosgw", "ceph-mon", "ceph-osd", "ceph-common"]
REGION = "us-east-1"
ACCESS_KEY = "RGWTESTACCESSKEY0001"
SECRET_KEY = "rgwtestsecretkey000000000000000000000001"
READY_WITHIN_S = 60

# The store's accounts: profile in DIR/credentials, user id, further arguments of `radosgw-admin user create`, keys.
ACCOUNTS = [
    ("default", "tests", ["--display-name", "tests", "--email", "tests@example.org"], ACCESS_KEY, SECRET_KEY),
    ("alt", "alt", ["--display-name", "alt", "--email", "alt@example.org"],
     "RGWTESTACCESSKEY0002", "rgwtestsecretkey000000000000000000000002"),
    ("tenant", "user", ["--tenant", "other", "--display-name", "other user", "--email", "user@example.org"],
     "RGWTESTACCESSKEY0003", "rgwtestsecretkey000000000000000000000003"),
]

CONF = """\
[global]
fsid = {fsid}
mon host = [v2:127.0.0.1:{mon_port}/0]
mon initial members = a
run dir = {dir}
log file = {dir}/log/$name.log
admin socket =
pid file =
crash dir = {dir}/crash
auth cluster required = none
auth service required = none
auth client required = none
ms cluster mode = crc
ms service mode = crc
ms client mode = crc
ms mon cluster mode = crc
ms mon service mode = crc
ms mon client mode = crc
ms bind ipv6 = false
osd pool default size = 1
osd pool default min size = 1
osd crush chooseleaf type = 0
mon allow pool size one = true
mon warn on pool no redundancy = false
osd pool default pg num = 4
osd pool default pgp num = 4
osd pool default pg autoscale mode = off
mon max pg per osd = 2000
mon allow pool delete = true
paxos propose interval = 0.05
enable experimental unrecoverable data corrupting features = memstore

[mon]
mon data = {dir}/mon
# Its data are some megabytes: the share of the disk that is free says nothing.
mon data avail crit = 0
mon data avail warn = 0

[mon.a]
host = localhost

[osd]
osd data = {dir}/osd
osd objectstore = memstore
memstore device bytes = 8589934592
osd max object name len = 2048
osd max object namespace len = 256

[client]
# What was deleted goes at once: it lies in memory.
rgw gc obj min wait = 5
rgw gc processor period = 5
rgw gc max concurrent io = 64
rgw enable usage log = false
rgw enable ops log = false
rgw verify ssl = false
rgw dns name =
rgw bucket default quota max objects = -1
"""


def log(text):
    print(f"rgw: {text}", file=sys.stderr, flush=True)


def free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def install():
    if all(shutil.which(program) for program in PROGRAMS):
        return
    log("installing " + " ".join(PACKAGES))
    env = dict(os.environ, DEBIAN_FRONTEND="noninteractive")
    root = [] if os.geteuid() == 0 else ["sudo"]
    subprocess.run([*root, "apt-get", "update", "-q"], check=True, env=env, stdout=sys.stderr)
    subprocess.run(
        [*root, "apt-get", "install", "-y", "-q", "--no-install-recommends", *PACKAGES],
        check=True, env=env, stdout=sys.stderr,
    )


def run(folder, *command):
    """Runs one of Ceph's tools against the cluster in `folder`; its output is returned."""
    done = subprocess.run(
        [command[0], "--conf", str(folder / "ceph.conf"), *command[1:]],
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, timeout=READY_WITHIN_S,
    )
    if done.returncode != 0:
        raise SystemExit(f"{' '.join(command)} failed:\n{done.stderr}")
    return done.stdout


class Supervisor:
    """Holds the three daemons; starts radosgw anew when it dies, ends all on SIGTERM."""

    def __init__(self, folder, port):
        self.folder, self.port = folder, port
        self.children = {}
        self.ending = False

    def spawn(self, name, *command):
        output = open(self.folder / "log" / f"{name}.out", "ab")
        self.children[name] = subprocess.Popen(
            [command[0], "--conf", str(self.folder / "ceph.conf"), *command[1:]],
            stdin=subprocess.DEVNULL, stdout=output, stderr=output,
        )

    def spawn_radosgw(self):
        self.spawn(
            "radosgw", "radosgw", "-f", "-n", "client.rgw",
            f"--rgw-frontends=beast endpoint=127.0.0.1:{self.port}",
        )

    def prepare(self):
        for name in ["log", "mon", "osd", "crash"]:
            (self.folder / name).mkdir(parents=True, exist_ok=True)
        fsid, osd_id, mon_port = str(uuid.uuid4()), str(uuid.uuid4()), free_port()
        (self.folder / "ceph.conf").write_text(CONF.format(fsid=fsid, dir=self.folder, mon_port=mon_port))
        run(self.folder, "monmaptool", "--create", "--clobber", "--fsid", fsid,
            "--addv", "a", f"[v2:127.0.0.1:{mon_port}]", str(self.folder / "monmap"))
        run(self.folder, "ceph-mon", "--mkfs", "-i", "a", "--monmap", str(self.folder / "monmap"))
        self.spawn("mon", "ceph-mon", "-f", "-i", "a")
        run(self.folder, "ceph", "osd", "new", osd_id)
        run(self.folder, "ceph-osd", "-i", "0", "--mkfs", "--osd-uuid", osd_id)
        self.spawn("osd", "ceph-osd", "-f", "-i", "0")
        self.spawn_radosgw()
        self.await_http()
        for _, user_id, further, access_key, secret_key in ACCOUNTS:
            run(self.folder, "radosgw-admin", "user", "create", "--uid", user_id, *further,
                "--access-key", access_key, "--secret-key", secret_key, "--max-buckets", "10000")

    def await_http(self):
        deadline = time.monotonic() + READY_WITHIN_S
        while time.monotonic() < deadline:
            for name, child in self.children.items():
                if child.poll() is not None:
                    raise SystemExit(f"{name} ended with {child.returncode}; see {self.folder}/log")
            try:
                urllib.request.urlopen(f"http://127.0.0.1:{self.port}/", timeout=2)
                return
            except urllib.error.HTTPError:
                return
            except OSError:
                time.sleep(0.1)
        raise SystemExit(f"radosgw did not answer within {READY_WITHIN_S} s; see {self.folder}/log")

    def write_env(self):
        lines = {
            "AWS_ENDPOINT_URL": f"http://127.0.0.1:{self.port}",
            "AWS_ACCESS_KEY_ID": ACCESS_KEY,
            "AWS_SECRET_ACCESS_KEY": SECRET_KEY,
            "AWS_REGION": REGION,
            "AWS_DEFAULT_REGION": REGION,
        }
        text = "".join(f"export {name}={value}\n" for name, value in lines.items())
        profiles = (
            f"[{profile}]\naws_access_key_id = {access_key}\naws_secret_access_key = {secret_key}\n"
            for profile, _, _, access_key, secret_key in ACCOUNTS
        )
        credentials = self.folder / "credentials"
        credentials.touch(mode=0o600)
        credentials.write_text("\n".join(profiles))
        partial = self.folder / "rgw.env.partial"
        partial.write_text(text)
        partial.rename(self.folder / "rgw.env")

    def watch(self):
        while not self.ending:
            time.sleep(0.2)
            for name, child in list(self.children.items()):
                code = child.poll()
                if code is None or self.ending:
                    continue
                log(f"{name} ended with {code}")
                if name != "radosgw":
                    return
                self.spawn_radosgw()

    def end(self):
        self.ending = True
        for child in self.children.values():
            if child.poll() is None:
                # Nothing here has to be kept, and an orderly end takes seconds.
                child.kill()
        for child in self.children.values():
            child.wait()


def supervise(folder, port):
    """The body of the detached process."""
    supervisor = Supervisor(folder, port)

    def on_signal(_number, _frame):
        raise SystemExit(0)

    signal.signal(signal.SIGTERM, on_signal)
    try:
        supervisor.prepare()
        supervisor.write_env()
        supervisor.watch()
    finally:
        supervisor.end()


def pid_of(folder):
    try:
        pid = int((folder / "supervisor.pid").read_text())
        os.kill(pid, 0)
        return pid
    except (OSError, ValueError):
        return None


def start(folder, port, may_install):
    if may_install:
        install()
    if pid_of(folder):
        raise SystemExit(f"already running in {folder}")
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    began = time.monotonic()
    with open(folder / "supervisor.log", "ab") as output:
        child = subprocess.Popen(
            [sys.executable, os.path.abspath(__file__), "supervise", "--dir", str(folder), "--port", str(port)],
            stdin=subprocess.DEVNULL, stdout=output, stderr=output, start_new_session=True,
        )
    (folder / "supervisor.pid").write_text(str(child.pid))
    while not (folder / "rgw.env").exists():
        if child.poll() is not None:
            raise SystemExit((folder / "supervisor.log").read_text())
        time.sleep(0.05)
    log(f"ready in {time.monotonic() - began:.1f} s at http://127.0.0.1:{port}, settings in {folder}/rgw.env")


def stop(folder):
    pid = pid_of(folder)
    if pid is None:
        log("not running")
        return
    os.kill(pid, signal.SIGTERM)
    for _ in range(200):
        try:
            os.waitpid(pid, os.WNOHANG)
        except ChildProcessError:
            pass
        if pid_of(folder) is None:
            log("stopped")
            return
        time.sleep(0.05)
    raise SystemExit(f"process {pid} does not end")


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=["start", "stop", "status", "supervise"])
    parser.add_argument("--dir", required=True, type=lambda text: Path(text).absolute())
    parser.add_argument("--port", type=int, default=0, help="0 takes a free one")
    parser.add_argument("--install", action="store_true", help="apt-get install what is missing")
    options = parser.parse_args()
    if options.what == "start":
        start(options.dir, options.port or free_port(), options.install)
    elif options.what == "supervise":
        supervise(options.dir, options.port)
    elif options.what == "stop":
        stop(options.dir)
    else:
        running = pid_of(options.dir)
        log(f"running, process {running}" if running else "not running")
        sys.exit(0 if running else 1)


if __name__ == "__main__":
    main()
