#!/usr/bin/env python3
"""An hour of everything at once through `claviger demo`: does it hold, and does it leave nothing behind? See README.md.

    soak.py --claviger BINARY [--minutes 60] [--seed N] [--upstream URL --upstream-credentials FILE] [--out DIR]

Run it with the Python of the boto3 environment. Exit code 0 if all of it held.
"""

import argparse
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent))

from judge import judge, plot
from leftovers import clear, look, prove_sight, system_keys
from load import Huge, Mixed, World, client_of
from rude import Rude, Slow
from sampler import Sampler
from stop import stop_in_the_middle

ROOT = Path(__file__).resolve().parents[2]
READY_WITHIN_S, QUIET_WITHIN_S, END_WITHIN_S = 60, 60, 25
# What a step may last when the load is told to end.
STEP_WITHIN_S = 300


def say(text):
    print(f"== {text}", file=sys.stderr, flush=True)


class Gateway:
    """`claviger demo` as a process, with what it stores where."""

    def __init__(self, options, out):
        self.folder, self.log, ready = out / "demo", out / "claviger.log", out / "ready"
        ready.unlink(missing_ok=True)
        self.admin = f"127.0.0.1:{free_port()}"
        command = [options.claviger, "--log-format", "json", "--log", "warn", "demo", "--dir", self.folder, "--listen", "127.0.0.1:0",
                   "--ready-file", ready, "--admin", self.admin]
        if options.upstream:
            command += ["--upstream", options.upstream, "--upstream-region", options.upstream_region,
                        "--upstream-credentials", options.upstream_credentials]
        self.process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=open(self.log, "ab"))
        deadline = time.monotonic() + READY_WITHIN_S
        while not ready.exists():
            if self.process.poll() is not None or time.monotonic() > deadline:
                sys.exit(f"claviger demo did not come up; its log: {self.log}")
            time.sleep(0.05)
        state = json.loads((self.folder / "demo.json").read_text())
        run = state["run"]
        self.account = account(run["endpoint"], run["region"], state["user"])
        self.store = account(run["upstream"], run["upstream_region"], run["upstream_key"])

    def stop(self):
        """SIGTERM; gives problems."""
        began = time.monotonic()
        self.process.send_signal(signal.SIGTERM)
        try:
            code = self.process.wait(END_WITHIN_S)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
            return [f"the process did not end within {END_WITHIN_S} s of SIGTERM"]
        say(f"ended {time.monotonic() - began:.1f} s after SIGTERM, exit code {code}")
        return [f"exit code {code}"] if code else []

    def kill(self):
        """For a run that has failed: nothing may stay behind."""
        if self.process.poll() is None:
            self.process.kill()
            self.process.wait()

    def complaints(self):
        """Errors of the log, and how often what was warned of."""
        errors, warnings = [], {}
        with open(self.log, errors="replace") as lines:
            for line in lines:
                if '"level":"ERROR"' in line:
                    errors.append(f"log: {line.strip()[:300]}")
                elif '"level":"WARN"' in line:
                    message = json.loads(line).get("message", "")
                    warnings[message] = warnings.get(message, 0) + 1
        return errors[:5], warnings


def account(endpoint, region, key):
    return {"endpoint": endpoint, "region": region, "access_key": key["access_key_id"], "secret_key": key["secret_access_key"]}


def free_port():
    import socket

    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def put_under_load(world, options, sampler):
    """Runs all clients for the time that was asked for; gives them."""
    clients = [Mixed(world, f"mixed{n}") for n in range(options.clients)]
    clients += [Rude(world, f"rude{n}") for n in range(max(1, options.clients // 3))]
    clients += [Slow(world, f"slow{n}") for n in range(max(2, options.clients // 3))]
    clients += [Huge(world, "huge")]
    for client in clients:
        client.start()
    deadline, told = time.monotonic() + options.minutes * 60, time.monotonic()
    while time.monotonic() < deadline and not world.stop.wait(1):
        if time.monotonic() - told > 60 and sampler.rows:
            told, row = time.monotonic(), sampler.rows[-1]
            say(f"{row['time_s']:.0f} s: {row['requests']} requests, {row['rss_kib'] // 1024} MiB, {row['fds']} descriptors, "
                f"{len(world.failures)} failures")
    world.stop.set()
    for client in clients:
        client.join(STEP_WITHIN_S)
        if client.is_alive():
            world.fail(client.name, "end", AssertionError(f"a step lasts longer than {STEP_WITHIN_S} s"))
    return clients


def become_quiet(clients, sampler):
    """Closes the clients' connections and waits until the gateway has nothing to do. Problems."""
    for client in clients:
        client.s3.close()
    row, deadline = sampler.sample(), time.monotonic() + QUIET_WITHIN_S
    while row["in_flight"] or row["buffered_bytes"] or row["connections"] or row["client_sockets"] or row["close_wait"]:
        if time.monotonic() > deadline:
            kept = {field: row[field] for field in ["in_flight", "buffered_bytes", "connections", "client_sockets", "close_wait"]}
            return [f"{QUIET_WITHIN_S} s after the last client has gone the gateway still holds {kept}"]
        time.sleep(0.5)
        row = sampler.sample()
    counts = {field: row[field] for field in ["integrity_failures", "panics", "errors_internal"] if row[field]}
    return [f"counted by the gateway: {counts}"] if counts else []


def look_back(world, clients, store, before, hours):
    """All that was written is there, and nothing else. Problems."""
    for client in clients:
        client.s3 = client_of(world.account)
        while client.gone:
            client.take("put_away_next")
        for key in client.objects:
            try:
                client.verify(key)
            except Exception as error:  # noqa: BLE001 - every object is looked at
                world.fail(client.name, "at the end", error)
    expected = {key for client in clients for key in client.objects}
    through = client_of(world.account)

    def look_again():
        return look(through, store, world.bucket, expected, before, hours)

    problems = look_again()
    if not problems:
        problems = prove_sight(store, world.bucket, look_again)
        clear(through, world.bucket)
    through.close()
    say(f"{len(expected)} objects verified at the end")
    return problems


def arguments():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--claviger", required=True, help="the binary")
    parser.add_argument("--minutes", type=float, default=60)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--clients", type=int, default=6, help="clients with small objects; the others are counted by them")
    parser.add_argument("--huge-mib", type=int, default=1024, help="size of the huge objects")
    parser.add_argument("--upstream", help="a real store in place of the embedded provider")
    parser.add_argument("--upstream-region", default="us-east-1")
    parser.add_argument("--upstream-credentials", help="file as claviger demo takes it")
    parser.add_argument("--out", type=Path, default=ROOT / "target/soak", help="folder for samples, plot and log; emptied")
    return parser.parse_args()


def empty(out):
    import shutil

    for name in ["demo", "claviger.log", "samples.csv", "soak.svg", "summary.json"]:
        path = out / name
        if path.is_dir():
            shutil.rmtree(path)
        else:
            path.unlink(missing_ok=True)
    out.mkdir(parents=True, exist_ok=True)


def soak(options, gateway, world):
    """The load and everything that is looked at. Problems, figures and the samples."""
    store = client_of(gateway.store)
    before = system_keys(store)
    client_of(world.account).create_bucket(Bucket=world.bucket)
    port = int(gateway.account["endpoint"].rsplit(":", 1)[1])
    sampler = Sampler(gateway.process.pid, port, gateway.admin, options.out / "samples.csv", 2.0 if options.minutes > 5 else 1.0)
    began = time.monotonic()
    sampler.start()
    clients = put_under_load(world, options, sampler)
    sampler.end()
    load_s = time.monotonic() - began
    problems, figures = judge([row for row in sampler.rows if row["time_s"] <= options.minutes * 60], load_s)
    plot(sampler.rows, options.out / "soak.svg", f"Claviger under mixed load for {load_s / 60:.1f} minutes, seed {options.seed}")
    problems += sampler.problems + become_quiet(clients, sampler)
    problems += look_back(world, clients, store, before, load_s / 3600)
    problems += become_quiet(clients, sampler)
    return problems, figures


def main():
    options = arguments()
    empty(options.out)
    gateway = Gateway(options, options.out)
    world = World(gateway.account, f"soak-{int(time.time())}", options.seed, options.huge_mib << 20)
    try:
        problems, figures = soak(options, gateway, world)
        if not problems:
            problems = stop_in_the_middle(gateway, world, lambda: Gateway(options, options.out))
    finally:
        gateway.kill()
    errors, warnings = gateway.complaints()
    problems = world.failures + problems + errors
    summary = {"minutes": options.minutes, "seed": options.seed, "steps": dict(sorted(world.done.items())),
               "written_gib": round(world.written_len / 2**30, 2), "verified_gib": round(world.read_len / 2**30, 2),
               "figures": figures, "warnings": warnings, "problems": problems}
    (options.out / "summary.json").write_text(json.dumps(summary, indent=1, ensure_ascii=False) + "\n")
    for name, number in sorted(world.done.items()):
        say(f"{number:7} {name}")
    for line in filter(None, figures):
        say(line)
    for message, number in sorted(warnings.items()):
        say(f"warned {number} times: {message}")
    say(f"{summary['written_gib']} GiB written, {summary['verified_gib']} GiB read and compared; samples and plot in {options.out}")
    for problem in problems:
        say(f"PROBLEM  {problem}")
    say("it did not hold" if problems else "it held")
    sys.exit(1 if problems else 0)


if __name__ == "__main__":
    main()
