#!/usr/bin/env python3
"""A real PostgreSQL in a folder of its own, for the key service's tests. See README.md beside this file.

    postgres.py serve [--install]                   lives until standard input ends; for tests that hold the pipe
    postgres.py start --dir DIR [--install]         ready when it returns; writes DIR/server.json. Its data lie in a folder of
                                                    their own, which the server's user can reach
    postgres.py stop  --dir DIR                     ends it and removes its data
    postgres.py kill  --dir DIR                     SIGKILL to every process of the server, as a crash would
    postgres.py again --dir DIR                     starts it anew after `kill`, over the same data

`serve` writes one line of JSON when the server is ready, and then answers each line that it reads, `kill` or `again`, with
`done`. Whoever runs this is the database's superuser by the Unix socket (peer authentication). Over TCP there is TLS and
SCRAM only; `ca_file` is the CA of the server's certificate.
"""

import argparse
import json
import os
import pwd
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from pathlib import Path

READY_WITHIN_S = 60
DEBIAN_SERVERS = Path("/usr/lib/postgresql")

# fsync stays on: the key service refuses a server without it.
CONF = """
listen_addresses = '127.0.0.1'
port = {port}
unix_socket_directories = '{dir}/socket'
unix_socket_permissions = 0777
ssl = on
ssl_cert_file = '{dir}/tls/server.crt'
ssl_key_file = '{dir}/tls/server.key'
max_connections = 60
shared_buffers = 16MB
# In the folder, so that a server that is killed leaves nothing behind elsewhere.
dynamic_shared_memory_type = mmap
wal_level = minimal
max_wal_senders = 0
jit = off
"""
HBA = """
local   all all              peer
hostssl all all 127.0.0.1/32 scram-sha-256
"""


def log(text):
    print(f"postgres: {text}", file=sys.stderr, flush=True)


def programs():
    """The folder of the newest server's programs, or None."""
    if not DEBIAN_SERVERS.is_dir():
        return None
    versions = [folder for folder in DEBIAN_SERVERS.iterdir() if (folder / "bin" / "initdb").exists()]
    return max(versions, key=lambda folder: float(folder.name)) / "bin" if versions else None


def install():
    if programs() and shutil.which("psql") and shutil.which("openssl"):
        return
    log("installing Debian's postgresql")
    env = dict(os.environ, DEBIAN_FRONTEND="noninteractive")
    root = [] if os.geteuid() == 0 else ["sudo"]

    def apt(*arguments):
        subprocess.run([*root, "apt-get", *arguments], check=True, env=env, stdout=sys.stderr)

    apt("update", "-q")
    # In two steps, so that the package makes no server of its own.
    apt("install", "-y", "-q", "--no-install-recommends", "postgresql-common", "openssl")
    subprocess.run([*root, "sed", "-i", "s/^#*create_main_cluster.*/create_main_cluster = false/",
                    "/etc/postgresql-common/createcluster.conf"], check=True)
    apt("install", "-y", "-q", "--no-install-recommends", "postgresql")


class Server:
    """The server does not run as root: there it becomes Debian's user postgres."""

    def __init__(self, folder):
        self.folder = folder
        self.user = "postgres" if os.geteuid() == 0 else None
        self.child = None

    def as_user(self):
        return {"user": self.user, "group": self.user, "extra_groups": []} if self.user else {}

    def run(self, *command):
        done = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
                              cwd=self.folder, timeout=READY_WITHIN_S, check=False, **self.as_user())
        if done.returncode != 0:
            raise SystemExit(f"{' '.join(map(str, command))} failed:\n{done.stdout}")

    def make(self):
        owner = pwd.getpwnam(self.user) if self.user else None
        self.folder.mkdir(parents=True, exist_ok=True)
        self.folder.chmod(0o755)
        for name in ["socket", "tls"]:
            (self.folder / name).mkdir()
        if owner:
            for path in [self.folder, self.folder / "socket", self.folder / "tls"]:
                os.chown(path, owner.pw_uid, owner.pw_gid)
        self.certificates()
        superuser = pwd.getpwuid(os.geteuid()).pw_name
        self.run(programs() / "initdb", "--no-sync", "-D", self.folder / "data", "-U", superuser, "-A", "peer",
                 "-E", "UTF8", "--locale=C.UTF-8")
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            port = probe.getsockname()[1]
        with open(self.folder / "data" / "postgresql.conf", "a", encoding="ascii") as conf:
            conf.write(CONF.format(dir=self.folder, port=port))
        (self.folder / "data" / "pg_hba.conf").write_text(HBA, encoding="ascii")
        self.info = {"folder": str(self.folder), "socket": str(self.folder / "socket"), "port": port, "user": superuser,
                     "ca_file": str(self.folder / "tls" / "ca.crt"), "log": str(self.folder / "server.log")}

    def certificates(self):
        tls = self.folder / "tls"
        key = ["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes"]
        self.run("openssl", "req", "-x509", *key, "-keyout", tls / "ca.key", "-out", tls / "ca.crt", "-days", "30",
                 "-subj", "/CN=test ca", "-addext", "keyUsage=critical,keyCertSign")
        self.run("openssl", "req", *key, "-keyout", tls / "server.key", "-out", tls / "server.csr", "-subj",
                 "/CN=localhost")
        (tls / "names").write_text("subjectAltName=DNS:localhost,IP:127.0.0.1\n", encoding="ascii")
        self.run("openssl", "x509", "-req", "-in", tls / "server.csr", "-CA", tls / "ca.crt", "-CAkey",
                 tls / "ca.key", "-CAcreateserial", "-out", tls / "server.crt", "-days", "30", "-extfile",
                 tls / "names")

    def start(self):
        with open(self.folder / "server.log", "ab") as output:
            self.child = subprocess.Popen(
                [programs() / "postgres", "-D", self.folder / "data"], stdin=subprocess.DEVNULL, stdout=output,
                stderr=output, start_new_session=True, cwd=self.folder, **self.as_user())
        self.info["pid"] = self.child.pid
        deadline = time.monotonic() + READY_WITHIN_S
        while time.monotonic() < deadline:
            if self.child.poll() is not None:
                raise SystemExit(f"the server ended:\n{(self.folder / 'server.log').read_text()}")
            ready = subprocess.run([programs() / "pg_isready", "-q", "-h", self.info["socket"], "-p",
                                    str(self.info["port"])], check=False)
            if ready.returncode == 0:
                return
            time.sleep(0.05)
        raise SystemExit(f"the server is not ready after {READY_WITHIN_S} s; see {self.folder}/server.log")

    def kill(self):
        """All of its processes: they share a session of their own, and each has a process group of its own in it."""
        kill_session(self.info["pid"])
        if self.child:
            self.child.wait()


def kill_session(leader):
    for _ in range(200):
        members = []
        for entry in Path("/proc").iterdir():
            if not entry.name.isdigit():
                continue
            try:
                fields = (entry / "stat").read_text().rsplit(")", 1)[1].split()
            except OSError:
                continue
            # State, parent, group, session.
            if int(fields[3]) == leader and fields[0] != "Z":
                members.append(int(entry.name))
        if not members:
            return
        for pid in members:
            try:
                os.kill(pid, signal.SIGKILL)
            except ProcessLookupError:
                pass
        time.sleep(0.02)
    raise SystemExit(f"processes {members} do not end")


def serve():
    folder = Path(tempfile.mkdtemp(prefix="claviger-pg-"))
    # Whoever holds the pipe decides when it ends, not the terminal.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    server = Server(folder)
    try:
        server.make()
        server.start()
        print(json.dumps(server.info), flush=True)
        for line in sys.stdin:
            {"kill": server.kill, "again": server.start}[line.strip()]()
            print("done", flush=True)
    finally:
        if server.child:
            server.kill()
        shutil.rmtree(folder, ignore_errors=True)


def load(folder):
    info = json.loads((folder / "server.json").read_text())
    server = Server(Path(info["folder"]))
    server.info = info
    return server


def save(server, folder):
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "server.json").write_text(json.dumps(server.info))


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=["serve", "start", "stop", "kill", "again"])
    parser.add_argument("--dir", type=lambda text: Path(text).absolute())
    parser.add_argument("--install", action="store_true", help="apt-get install what is missing")
    options = parser.parse_args()
    if options.install:
        install()
    if not programs():
        raise SystemExit("no PostgreSQL server; give --install, or: apt-get install postgresql")
    if options.what == "serve":
        serve()
        return
    if options.dir is None:
        parser.error("--dir is missing")
    if options.what == "start":
        server = Server(Path(tempfile.mkdtemp(prefix="claviger-pg-")))
        server.make()
        server.start()
        save(server, options.dir)
        log(f"ready, settings in {options.dir}/server.json")
    elif options.what == "again":
        server = load(options.dir)
        server.start()
        save(server, options.dir)
    else:
        server = load(options.dir)
        server.kill()
        if options.what == "stop":
            shutil.rmtree(server.folder)
            (options.dir / "server.json").unlink()


if __name__ == "__main__":
    main()
