#!/usr/bin/env python3
"""The chapters of docs/operations.md, done as they stand there.

    operations.py --claviger BINARY --provider BINARY --postgres DIR

Every command in a code block of the chapters below is run, in the order of the chapter, with what a reader puts in for names like ID
and FILE; what is to come of it is checked afterwards, with a real client. A command that a chapter gains is run too; one that it
loses is missed here.

Several replicas work with the PostgreSQL that tests/stores/postgres.py started with this DIR. Needs softhsm2. Run it with the Python of the boto3 environment. The last line is `N passed, N failed`.
"""

import argparse
import json
import os
import pathlib
import re
import shlex
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
import urllib.error
import urllib.request

import boto3
import botocore.client
import botocore.exceptions

BOOK = pathlib.Path(__file__).resolve().parents[2] / "docs" / "operations.md"
OPERATORS = ["first", "second", "third", "fourth"]
VERBS = '["inspect", "unlock", "keyset", "enrol", "policy", "freeze", "backup", "disclose"]'
POLICY = "".join(f'[[operator]]\nidentity = "admin:{name}"\nverbs = {VERBS}\n' for name in OPERATORS) + """
[[grant]]
identities = ["gateway:main", "gateway:other"]
keyset = "default"
verbs = ["lease", "write", "read", "head", "copy-source", "continue", "bind"]
[[grant]]
identity = "gateway:auditors"
keyset = "default"
verbs = ["read", "head"]
buckets = ["invoices"]
prefix = "2026/"
[[budget]]
identity = "gateway:main"
keyset = "default"
window_s = 3600
epochs_max = 500
objects_max = 20000
"""
EXPECT = """
[[expect]]
identity = "gateway:main"
keyset = "default"
verb = "lease"
allow = true
"""
CREDENTIALS = """
[[key]]
access_key_id = "OPERATIONSTEST"
secret_access_key = "operations-secret-of-forty-characters-01"
[[key.allow]]
buckets = ["*"]
actions = ["read", "write", "delete", "list", "manage"]
"""


def commands(chapter):
    """The commands in the code blocks of a chapter, without remarks; lines that end in a backslash go on."""
    text = BOOK.read_text()
    begin = text.index(f"\n{chapter}\n")
    end = re.search(r"\n#{2,3} ", text[begin + 2:])
    section = text[begin:begin + 2 + end.start()] if end else text[begin:]
    found = []
    for block in re.findall(r"```\n(.*?)```", section, re.S):
        for line in block.replace("\\\n", " ").splitlines():
            command = re.sub(r"\s+", " ", line.strip()).partition(" # ")[0].strip()
            if command.startswith("claviger "):
                found.append(command)
    assert found, f"{chapter}: no commands"
    return found


def free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


class Site:
    """A key service and a gateway before a store, made by hand in a folder as the book says."""

    def __init__(self, options, home, unlock, more=""):
        self.options, self.home = options, home
        self.running = {}
        self.key_port, self.gateway_port, self.admin_port = free_port(), free_port(), free_port()
        self.environment = {**os.environ, "CLAVIGER_OPERATOR": "FIRST", "CLAVIGER_LOG_FORMAT": "json",
                            "SOFTHSM2_CONF": str(home / "softhsm2.conf")}
        # What the reader puts in.
        self.words = {"/dev/shm": "memory", "/backup": "backups"}
        for folder in ["memory", "backups", "bin"]:
            (home / folder).mkdir()
        (home / "bin/claviger").symlink_to(options.claviger)
        self.environment["PATH"] = f"{home / 'bin'}:{os.environ['PATH']}"
        self.write("policy.toml", POLICY)
        self.write("expect.toml", EXPECT)
        self.write("credentials.toml", CREDENTIALS)
        self.unlock_by(unlock, more)

    def unlock_by(self, unlock, more=""):
        self.write("keyservice.toml", f"""
state_dir = "keyservice"
listen = "127.0.0.1:{self.key_port}"
unlock = "{unlock}"
{'passphrase_file = "passphrase"' if unlock == "passphrase-file" else ""}
{self.witness()}
{more}
""")

    def witness(self):
        """Newer services want to be shown what they wrote last, from a place of its own."""
        return 'checkpoint_file = "witness/checkpoint"' if "checkpoint_file" in (BOOK.parents[1] / "deploy/keyservice.toml").read_text() else ""

    def write(self, name, text):
        path = self.home / name
        path.write_text(text)
        path.chmod(0o600)

    def store(self):
        """A store, and the gateway's configuration for it."""
        ready = self.home / "store.ready"
        self.start("store", [self.options.provider, "--dir", "store", "--listen", "127.0.0.1:0", "--ready-file", str(ready)])
        until(lambda: ready.exists() and ready.read_text().strip(), "the store")
        self.write("upstream.toml", 'access_key_id = "provider"\nsecret_access_key = "provider-secret"\n')
        self.write("gateway.toml", f"""
listen = "127.0.0.1:{self.gateway_port}"
credentials_file = "credentials.toml"
region = "eu-central-1"
[upstream]
endpoint = "{ready.read_text().strip()}"
region = "us-east-1"
credentials_file = "upstream.toml"
[key_service]
endpoint = "https://127.0.0.1:{self.key_port}"
state_dir = "gateway"
[admin]
listen = "127.0.0.1:{self.admin_port}"
""")

    def start(self, name, command):
        log = open(self.home / f"{name}.log", "ab")
        self.running[name] = subprocess.Popen(command, cwd=self.home, env=self.environment, stdout=log, stderr=log)

    def stop(self, name, how=signal.SIGTERM):
        process = self.running.pop(name)
        process.send_signal(how)
        process.wait(60)

    def end(self):
        for name in list(self.running):
            self.stop(name, signal.SIGKILL)

    def run(self, command, wanted=0):
        """Runs one line of the book; gives what it printed. What the first operator proposes, the second approves."""
        for word, meant in sorted(self.words.items(), key=lambda pair: -len(pair[0])):
            command = re.sub(rf"(?<![\w-]){re.escape(word)}(?![\w-])", meant, command)
        arguments = shlex.split(command)
        environment = self.environment
        if command.startswith("claviger keys approve"):
            environment = {**environment, "CLAVIGER_OPERATOR": "SECOND"}
        print(f"         $ {command}", flush=True)
        if arguments[1] in ["keyservice", "gateway"] and not {"--check", "enrol", "join"} & set(arguments):
            self.start("replica" if "b.toml" in arguments else arguments[1], [self.options.claviger, *arguments[1:]])
            return ""
        done = subprocess.run(["bash", "-c", command], cwd=self.home, env=environment, capture_output=True, text=True, timeout=120)
        if done.returncode != wanted:
            raise AssertionError(f"{command}: ended with {done.returncode}\n{done.stdout[-1500:]}{done.stderr[-1500:]}")
        said = done.stdout + done.stderr
        if proposal := re.search(r"claviger keys approve ([0-9a-f]+)", said):
            self.words["ID"] = proposal[1]
        return said

    def chapter(self, title, before=None, after=None, wanted=None):
        """Runs a chapter. `before` and `after` say what else happens around commands that begin so, `wanted` which end they have."""
        before, after, wanted = dict(before or {}), dict(after or {}), dict(wanted or {})
        for command in commands(title):
            def meant(table, command=command):
                key = next((key for key in table if command.startswith(f"claviger {key}")), None)
                return table.pop(key) if key else None
            if (prepare := meant(before)) is not None:
                prepare()
            said = self.run(command, meant(wanted) or 0)
            if (check := meant(after)) is not None:
                check(said)
        left = {**before, **after, **wanted}
        assert not left, f"{title} has no command {sorted(left)}"

    def serving(self, *_):
        until(lambda: "Unlocked" in self.status(), "the key service to be unlocked")

    def status(self, *more):
        done = subprocess.run([self.options.claviger, "keys", "status", *more], cwd=self.home, env=self.environment,
                              capture_output=True, text=True)
        return done.stdout + done.stderr

    def ready(self):
        try:
            url = f"http://127.0.0.1:{self.admin_port}/health/ready"
            return urllib.request.urlopen(url, timeout=5).status == 200
        except (OSError, urllib.error.URLError):
            return False

    def gateway_serves(self, *_):
        until(self.ready, "the gateway to be ready")

    def s3(self):
        return boto3.client(
            "s3", endpoint_url=f"http://127.0.0.1:{self.gateway_port}", region_name="eu-central-1",
            aws_access_key_id="OPERATIONSTEST", aws_secret_access_key="operations-secret-of-forty-characters-01",
            config=botocore.client.Config(s3={"addressing_style": "path"}, retries={"total_max_attempts": 1}))

    def opens(self, key="report"):
        return self.s3().get_object(Bucket="invoices", Key=key)["Body"].read() == b"a sealed report"

    def is_refused(self):
        try:
            return not self.opens()
        except botocore.exceptions.ClientError:
            return True
        except (botocore.exceptions.HTTPClientError, botocore.exceptions.IncompleteReadError):
            # An answer under way is broken off; the next one is refused.
            return False

    def listens(self):
        """Whether the gateway holds its stream: only then it hears of things at once."""
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{self.admin_port}/health/ready", timeout=5) as answer:
                return json.loads(answer.read())["warnings"]["key_service_stream"] is None
        except (OSError, urllib.error.URLError):
            return False

    def is_to_hear(self):
        until(self.listens, "the gateway to hold its stream")

    def reads_again(self):
        until(lambda: not self.is_refused(), "reading to go on")


def until(condition, what, seconds=60):
    deadline = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > deadline:
            raise AssertionError(f"waited in vain for {what}")
        time.sleep(0.1)


def shares(folder):
    return sorted(str(path) for path in folder.iterdir() if path.suffix in ("", ".txt"))


def set_up(site):
    site.store()
    site.words |= {"SHARES": "shares"}
    def made(said):
        site.authority = re.search(r"authority.*?\b([0-9a-f]{64})\b", said, re.S)[1]

    # It is not enrolled yet, which the check says.
    site.chapter("## Set up", after={"keys init": made}, wanted={"gateway --config gateway.toml --check": 2})
    site.serving()


def ceremony(site):
    """A service of its own, as nobody makes one twice."""
    other = Site(site.options, pathlib.Path(tempfile.mkdtemp(dir=site.home)), "passphrase-file")

    def printed(said):
        other.words["FINGERPRINT"] = re.search(r"\b[0-9a-f]{16,64}\b", said.split("root")[1])[0]

    def typed():
        one = shares(other.home / "memory/shares")[0]
        other.words["-"] = one
        files = shares(other.home / "memory/shares")
        other.words["FILE FILE FILE"] = " ".join(files[:3])

    other.chapter("## The ceremony of shares", after={"keys init": printed}, before={"keys share check --some": typed})


def enrolment(site):
    site.words |= {"TOKEN": "token"}
    site.chapter("## Enrolment")
    site.start("gateway", [site.options.claviger, "gateway", "--config", "gateway.toml"])
    site.gateway_serves()
    site.s3().create_bucket(Bucket="invoices")
    site.s3().put_object(Bucket="invoices", Key="report", Body=b"a sealed report")
    assert site.opens()
    (site.home / "token").unlink(missing_ok=True)


def policy(site):
    def shown(_):
        said = (site.home / "policy.toml").read_text()
        assert POLICY in said, said
        site.write("policy.toml", POLICY + "# once more\n")
    site.chapter("## Policy", after={"keys policy show": shown})
    site.run("claviger keys approve ID")
    assert "# once more" in site.run("claviger keys policy show")


def two(site):
    site.run('claviger keys freeze --gateway main --reason "for the chapter"')
    site.run("claviger keys unfreeze --gateway main")
    site.environment["CLAVIGER_OPERATOR"] = "SECOND"
    site.chapter("## What takes two operators")
    site.environment["CLAVIGER_OPERATOR"] = "FIRST"
    site.reads_again()


def freezing(site):
    def stopped(_):
        until(site.is_refused, "the gateway to be refused", 10)
    site.is_to_hear()
    site.chapter("## Freezing", after={"keys freeze": stopped})
    site.run("claviger keys approve ID")
    site.reads_again()


def budgets(site):
    def shown(said):
        assert "gateway:main" in said and "20000" in said.replace(",", ""), said
    site.chapter("## Budgets", after={"keys budgets show": shown})


def handing_out(site):
    """The chapter's object, and one in parts; what the store has is fetched with the provider's account."""
    credentials = re.findall(r'"(.*?)"', (site.home / "upstream.toml").read_text())
    endpoint = re.search(r'endpoint = "(.*?)"', (site.home / "gateway.toml").read_text())[1]
    store = boto3.client("s3", endpoint_url=endpoint, region_name="us-east-1", aws_access_key_id=credentials[0],
                         aws_secret_access_key=credentials[1], config=botocore.client.Config(s3={"addressing_style": "path"}))

    def fetched(key):
        found = store.get_object(Bucket="invoices", Key=key)
        (site.home / f"{key}.sealed").write_bytes(found["Body"].read())
        (site.home / f"{key}.envelope").write_text(found["Metadata"]["claviger"] + "\n")

    def handed_out(said):
        assert "for ever" in said, said
        assert (site.home / "report.key").stat().st_mode & 0o777 == 0o600

    def opened(said):
        assert (site.home / "report.pdf").read_bytes() == b"a sealed report" and "invoices/report: verified" in said, said

    def found(said):
        records = [json.loads(line)["record"] for line in said.splitlines() if line.startswith("{")]
        assert [(r["identity"], r["subject"], r["what"]) for r in records] == [
            ("admin:first", "admin:second", "court of X, file 12/26")], said

    site.words["AUDIT"] = "keyservice/audit"
    site.chapter("## Handing out one object", before={"open": lambda: fetched("report")},
                 after={"keys collect": handed_out, "open": opened, "audit search": found})
    del site.words["AUDIT"]

    content = bytes(5 << 20) + b"the last part"
    begun = site.s3().create_multipart_upload(Bucket="invoices", Key="parts", ContentType="video/test", Metadata={"camera": "north"})
    parts = [site.s3().upload_part(Bucket="invoices", Key="parts", UploadId=begun["UploadId"], PartNumber=number, Body=body)
             for number, body in [(1, content[:5 << 20]), (2, content[5 << 20:])]]
    site.s3().complete_multipart_upload(Bucket="invoices", Key="parts", UploadId=begun["UploadId"], MultipartUpload={
        "Parts": [{"PartNumber": number, "ETag": part["ETag"]} for number, part in enumerate(parts, 1)]})
    fetched("parts")
    site.run("claviger keys disclose invoices/parts --envelope parts.envelope --reason drill")
    site.run("claviger keys approve ID")
    site.run("claviger keys collect ID --key-file parts.key")
    shown = site.run("claviger open --key-file parts.key --object parts.sealed --envelope parts.envelope --out parts.mp4")
    assert (site.home / "parts.mp4").read_bytes() == content and "camera: north" in shown and "video/test" in shown, shown
    # A copy that keeps its envelope, as rclone writes it, needs no other.
    os.setxattr(site.home / "parts.sealed", "user.claviger", (site.home / "parts.envelope").read_bytes().strip())
    site.run("claviger open --key-file parts.key --object parts.sealed --out again.mp4")
    assert (site.home / "again.mp4").read_bytes() == content
    site.run("claviger keys disclose invoices/parts --object parts.sealed --reason drill")
    site.run("claviger keys withdraw ID")
    # Another object's key, another object's envelope, another byte, a file that others can read: nothing comes of them.
    opening = "claviger open --key-file {}.key --object {} --envelope {}.envelope --out nothing"
    site.run(opening.format("report", "parts.sealed", "parts"), wanted=1)
    site.run(opening.format("parts", "parts.sealed", "report"), wanted=1)
    sealed = bytearray((site.home / "parts.sealed").read_bytes())
    sealed[len(sealed) // 2] ^= 1
    (site.home / "damaged.sealed").write_bytes(sealed)
    site.run(opening.format("parts", "damaged.sealed", "parts"), wanted=1)
    (site.home / "parts.key").chmod(0o644)
    site.run(opening.format("parts", "parts.sealed", "parts"), wanted=2)
    assert not list(site.home.glob("nothing*"))
    said = site.run("claviger keys disclose invoices/parts --envelope report.envelope --reason drill", wanted=1)
    assert "another bucket or key" in said, said


def loss_of_an_operator(site):
    site.words |= {"TOKEN": "operator-token"}
    site.run("claviger keys operator enrol third")
    site.run("claviger keys approve ID")
    site.run("claviger keys collect ID --token-file third-token")
    site.run("claviger keys operator accept --token-file third-token --identity THIRD")
    site.words |= {"HASH": site.authority, "keys.example.net:7443": f"127.0.0.1:{site.key_port}", "NAME": "third",
                   "DIR": "THIRD-AGAIN"}
    three = shares(site.home / "shares")[:3]

    def with_shares():
        site.words["--share FILE --share FILE --share FILE"] = " ".join(f"--share {share}" for share in three)

    site.chapter("## Loss of an operator", before={"keys operator recover": with_shares})
    for folder in ["FOURTH", "THIRD-AGAIN"]:
        assert "Unlocked" in site.run(f"claviger keys status --identity {folder}")
    site.run("claviger keys status --identity THIRD", wanted=1)
    for word in ["HASH", "NAME", "DIR", "--share FILE --share FILE --share FILE", "keys.example.net:7443"]:
        del site.words[word]


def rotation(site):
    # A gateway that does not hold its stream seals to the older version for some minutes more.
    site.is_to_hear()
    site.chapter("## Rotation")
    # What is told on the stream takes effect within about two seconds (docs/key-service-api.md).
    time.sleep(3)
    site.s3().put_object(Bucket="invoices", Key="newer", Body=b"a sealed report")
    assert site.opens() and site.opens("newer")


def forgetting(site):
    def closed(_):
        until(site.is_refused, "reading to end", 10)
        try:
            site.opens()
        except botocore.exceptions.ClientError as error:
            assert error.response["Error"]["Code"] == "KMS.KMSInvalidStateException", error.response
        assert site.opens("newer"), "what was sealed since the rotation"

    # It is taken back in time: a certificate is for what was destroyed.
    site.words["DIR"] = "."
    site.is_to_hear()
    site.chapter("## Forgetting what is old", after={"keys approve": closed}, wanted={"keys shred certificate": 1})
    del site.words["DIR"]
    site.reads_again()


def sealing_anew(site):
    site.chapter("## Sealing anew")
    assert "not " in site.run("claviger keys shred plan default --version 1")
    site.run("claviger keys shred propose default --version 1")
    site.run("claviger keys approve ID")
    site.reads_again()
    assert site.opens(), "it opens under the newer version"
    site.run("claviger keys shred cancel default --version 1")


def compromise_of_the_root(site):
    site.is_to_hear()
    site.chapter("## Compromise of the root", after={
        "keys freeze": lambda _: until(site.is_refused, "reading to end", 10)})
    site.reads_again()


def compromise_of_a_gateway(site):
    def enrol(name, folder):
        site.run(f"claviger keys gateway enrol {name} --keyset default")
        site.run("claviger keys approve ID")
        site.run(f"claviger keys collect ID --token-file {name}.token")
        site.run(f"claviger gateway enrol --token-file {name}.token --state-dir {folder}")

    def found(said):
        [site.words["GATEWAY"]] = set(re.findall(r"\b[0-9a-f]{32}\b", said)) & gateways
        site.words["EPOCH"] = next(epoch for epoch in re.findall(r"\b[0-9a-f]{32}\b", said) if epoch not in gateways)
        assert site.is_refused()

    gateways = set(re.findall(r"\b[0-9a-f]{32}\b", site.run("claviger keys gateway list")))
    site.chapter("## Compromise of a gateway", after={"keys epochs quarantine": found})
    until(lambda: not site.ready() or site.is_refused(), "the stolen gateway to lose its keys", 10)
    site.stop("gateway")
    shutil.rmtree(site.home / "gateway")
    enrol("main", "gateway")
    site.start("gateway", [site.options.claviger, "gateway", "--config", "gateway.toml"])
    site.gateway_serves()
    # The rest of what it sealed is as sound as the one epoch, which nobody but this test has touched.
    site.run(f"claviger keys epochs accept --gateway-id {site.words['GATEWAY']}")
    site.run("claviger keys approve ID")
    site.reads_again()
    del site.words["EPOCH"], site.words["GATEWAY"]


def restore(site):
    site.chapter("## Back up")
    site.stop("keyservice")
    shutil.rmtree(site.home / "keyservice")
    newest = shares(site.home / "memory/new-shares")[:3]
    site.words |= dict(zip(["S1", "S2", "S3"], newest))
    # The gateway knows that there was more: the book tells its operator to make it forget.
    shutil.rmtree(site.home / "gateway/logs")
    site.chapter("## Restore", wanted={})
    site.serving()
    for word in ["S1", "S2", "S3"]:
        del site.words[word]
    site.reads_again()


def loss_of_the_site(site):
    site.chapter("## Loss of the site")


def locked_and_unlocked(site):
    """Another way to unlock, and new recovery shares; then the service is locked and unlocked in that way."""
    def is_hsm(command):
        return command.startswith("claviger keys hsm")
    lines = [line for line in commands("## Locked and unlocked") if not is_hsm(line)]
    for command in lines:
        said = site.run(command)
        if command.startswith("claviger keys collect"):
            quorum = shares(site.home / "memory/unlock")
    site.run("claviger keys approve ID")
    site.run("claviger keys collect ID --to memory/reshared")
    site.unlock_by("quorum")
    site.is_to_hear()
    site.run("claviger keys lock")
    until(site.is_refused, "all access to stop", 10)
    for share in quorum[:3]:
        site.run(f"claviger keys unlock --share {share}")
    site.serving()
    site.reads_again()


def auditor(site):
    """With nothing but a copy of the log, its key, and a checkpoint from before."""
    site.words |= {"VKEY": re.search(r"claviger\.invalid/log/\S+", site.run("claviger keys status"))[0], "OPERATOR": "FIRST"}
    site.words["1041"] = "7"
    site.words["1000"] = "5"
    epoch = re.search(r"\b[0-9a-f]{32}\b", site.run("claviger keys epochs list"))
    site.words["00112233445566778899aabbccddeeff"] = epoch[0]

    def copied(_):
        shutil.copytree(site.home / "keyservice/audit", site.home / "audit")
    site.chapter("### For the auditor", after={"keys audit checkpoint": copied})


def loss_of_the_hsm(options, home):
    token = home / "tokens"
    token.mkdir()
    (home / "softhsm2.conf").write_text(f"directories.tokendir = {token}\nobjectstore.backend = file\n")
    environment = {**os.environ, "SOFTHSM2_CONF": str(home / "softhsm2.conf")}
    subprocess.run(["softhsm2-util", "--init-token", "--free", "--label", "claviger", "--pin", "1234", "--so-pin", "5678"],
                   env=environment, check=True, capture_output=True)
    module = next(path for path in pathlib.Path("/usr/lib").rglob("libsofthsm2.so"))
    hsm = f"""
[pkcs11]
module = "{module}"
token = "claviger"
key = "claviger-master"
pin_file = "pin"
"""
    site = Site(options, home, "pkcs11", hsm)
    site.write("pin", "1234\n")
    try:
        for command in commands("## Locked and unlocked"):
            if command.startswith("claviger keys hsm"):
                site.run(command)
        site.run("claviger keys init --config keyservice.toml --policy policy.toml --recovery shares"
                 " --operator first=FIRST --operator second=SECOND")
        site.run("claviger keyservice --config keyservice.toml")
        site.serving()
        site.chapter("## Loss of the HSM",
                     before={"keys status": lambda: gone(site, token), "keys unlock --hsm": lambda: back(site, token)})
        site.unlock_by("quorum", hsm)
        site.run("claviger keys lock")
        for share in shares(home / "memory/unlock-shares")[:2]:
            site.run(f"claviger keys unlock --share {share}")
        site.serving()
    finally:
        site.end()


def gone(site, token):
    token.rename(site.home / "taken")
    # The service looks once a minute.
    until(lambda: "HSM" in site.status(), "the loss of the HSM to be noticed", 120)


def back(site, token):
    site.run("claviger keys lock")
    (site.home / "taken").rename(token)


class Pair:
    """A service unlocked by shares, over PostgreSQL, and a second replica of it on "another machine": b."""

    def __init__(self, options, home):
        server = json.loads((options.postgres / "server.json").read_text())
        psql = ["psql", "-X", "-q", "-h", server["socket"], "-p", str(server["port"]), "-d", "postgres"]
        subprocess.run([*psql, "-c", "DROP DATABASE IF EXISTS operations", "-c", "CREATE DATABASE operations"], check=True)
        self.site = site = Site(options, home, "quorum", f"""
[store.postgres]
socket = "{server['socket']}"
port = {server['port']}
database = "operations"
user = "{server['user']}"
""")
        self.first, self.second = f"127.0.0.1:{site.key_port}", f"127.0.0.1:{free_port()}"
        text = (site.home / "keyservice.toml").read_text()
        for old, new in [(self.first, self.second), ('"keyservice"', '"b"'), ("witness/", "witness-b/")]:
            text = text.replace(old, new)
        site.write("b.toml", text)

    def begin(self):
        site = self.site
        site.run("claviger keys init --config keyservice.toml --policy policy.toml --recovery shares"
                 " --unlock-shares-dir unlock --unlock-shares 3 --unlock-threshold 2"
                 " --operator first=FIRST --operator second=SECOND")
        self.shares = shares(site.home / "unlock")[:2]
        site.words["b.example:PORT"] = self.second
        site.words["-o request"] = "-o request " + " ".join(f"--share {share}" for share in self.shares)
        site.run("claviger keyservice --config keyservice.toml")
        self.unlock(self.first)
        self.says(self.first, "Unlocked")

    def says(self, address, state, seconds=60):
        until(lambda: state in self.site.status("--address", address), f"{address} to say {state}", seconds)

    def is_ready(self, address, seconds=60):
        """It has heard from the one that serves, so that it would take over."""
        self.says(address, "Standby", seconds)
        until(lambda: "can't take over" not in self.site.status("--address", address), f"{address} to be ready", seconds)

    def unlock(self, address):
        self.says(address, "ocked")
        for share in self.shares:
            self.site.run(f"claviger keys unlock --share {share} --address {address}")

    def stands_by(self):
        """Unlocked in advance; one that is locked is so until its people come again."""
        self.unlock(self.second)
        self.says(self.second, "Standby")
        self.site.run(f"claviger keys lock --address {self.second}")
        self.says(self.second, "Locked")
        self.unlock(self.second)
        self.says(self.second, "Standby")

    def takes_over(self, said):
        """Each once, with an auditor who believes only what the other one cosigned."""
        site = self.site
        keys = dict(re.findall(r"^(\S.*?): log.*\n  log key +(\S+)", said, re.M))
        witness = re.search(r"^b: log.*\n.*\n  witness key +(\S+)", said, re.M)[1]
        cosigned = site.home / "keyservice/audit/cosigned"
        until(lambda: cosigned.is_dir() and any(cosigned.iterdir()), "b to cosign")
        site.run(f'claviger audit verify keyservice/audit --key {keys["(the first)"]} --witness {witness}')
        site.run(f'claviger audit verify keyservice/audit --key {keys["(the first)"]} --witness {witness[:-5]}AAAA=', wanted=2)
        self.is_ready(self.second, 240)
        site.stop("keyservice")
        self.says(self.second, "Unlocked", 60)
        site.run("claviger keyservice --config keyservice.toml")
        self.unlock(self.first)
        self.is_ready(self.first)
        site.stop("replica", signal.SIGKILL)
        self.says(self.first, "Unlocked", 90)
        site.run("claviger audit replicas keyservice/audit b/audit")
        site.run(f'claviger audit verify b/audit --key {keys["b"]}')
        self.revokes()

    def revokes(self):
        """What a gateway leased while b served, b's log tells."""
        site = self.site
        site.run("claviger keys gateway enrol stolen --keyset default")
        site.run("claviger keys approve ID")
        site.run("claviger keys collect ID --token-file stolen.token")
        site.run("claviger gateway enrol --token-file stolen.token --state-dir stolen")
        since = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(time.time() - 3600))
        said = site.run(f"claviger keys gateway revoke stolen --since {since}")
        assert "NOT READ: the log of b." in said, said
        said = site.run(f"claviger keys gateway revoke stolen --since {since} --audit-folder b/audit")
        assert "b/audit: verified" in said and "the log of: the first replica, b" in said and "NOT READ" not in said, said
        site.run(f"claviger keys gateway revoke stolen --since {since} --audit-folder keyservice/audit", wanted=1)


def several_replicas(options, home):
    pair = Pair(options, home)
    site = pair.site
    try:
        pair.begin()
        site.chapter("## Several replicas", before={"keys status": pair.stands_by}, after={"keys replica list": pair.takes_over})
        assert "\nb:" not in site.run("claviger keys replica list")
        # Its name is free again.
        shutil.rmtree(home / "b")
        shutil.rmtree(home / "witness-b")
        (home / "request").unlink()
        site.run("claviger keyservice join --config b.toml --name b -o request")
    finally:
        site.end()


CHAPTERS = [
    ("Set up", set_up), ("The ceremony of shares", ceremony), ("Enrolment", enrolment), ("Policy", policy),
    ("What takes two operators", two), ("Freezing", freezing), ("Budgets", budgets),
    ("Handing out one object", handing_out), ("Loss of an operator", loss_of_an_operator), ("Rotation", rotation),
    ("Forgetting what is old", forgetting), ("Sealing anew", sealing_anew), ("Compromise of the root", compromise_of_the_root),
    ("Compromise of a gateway", compromise_of_a_gateway), ("Back up and Restore", restore), ("Loss of the site", loss_of_the_site),
    ("Locked and unlocked", locked_and_unlocked), ("For the auditor", auditor),
]


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--claviger", required=True)
    parser.add_argument("--provider", required=True)
    parser.add_argument("--postgres", required=True, type=lambda text: pathlib.Path(text).absolute(), metavar="DIR")
    options = parser.parse_args()
    options.claviger, options.provider = (str(pathlib.Path(path).resolve()) for path in [options.claviger, options.provider])
    passed = failed = 0

    def attempt(name, step):
        nonlocal passed, failed
        try:
            step()
            passed += 1
            print(f"PASS     operations × {name}", flush=True)
            return True
        except Exception as problem:
            failed += 1
            print(f"FAIL     operations × {name}: {type(problem).__name__}: {problem}", flush=True)
            return False

    with tempfile.TemporaryDirectory(prefix="claviger-operations-") as folder:
        home = pathlib.Path(folder)
        (home / "site").mkdir()
        (home / "hsm").mkdir()
        (home / "pair").mkdir()
        site = Site(options, home / "site", "passphrase-file")
        # What mostly waits.
        besides = [("Loss of the HSM", lambda: loss_of_the_hsm(options, home / "hsm")),
                   ("Several replicas", lambda: several_replicas(options, home / "pair"))]
        threads = [threading.Thread(target=attempt, args=beside) for beside in besides]
        for thread in threads:
            thread.start()
        try:
            for name, chapter in CHAPTERS:
                if not attempt(name, lambda chapter=chapter: chapter(site)):
                    # The chapters build on each other.
                    for log in ["keyservice.log", "gateway.log"]:
                        if (site.home / log).exists():
                            print((site.home / log).read_text()[-1500:], file=sys.stderr)
                    break
        finally:
            site.end()
            for thread in threads:
                thread.join()
    print(f"{passed} passed, {failed} failed")
    raise SystemExit(1 if failed or passed < len(CHAPTERS) + len(besides) else 0)


if __name__ == "__main__":
    main()
