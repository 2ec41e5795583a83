"""What a process holds, every few seconds: memory, descriptors, threads, sockets, and what it counts itself."""

import csv
import os
import re
import threading
import time
import urllib.request

FIELDS = ["time_s", "rss_kib", "fds", "threads", "client_sockets", "store_sockets", "close_wait", "requests", "in_flight",
          "buffered_bytes", "connections", "errors", "errors_internal", "aborted", "integrity_failures", "panics"]
ESTABLISHED, CLOSE_WAIT = "01", "08"


def metrics_of(address):
    """Samples of Prometheus' text format: (name, labels) to value."""
    with urllib.request.urlopen(f"http://{address}/metrics", timeout=10) as answer:
        text = answer.read().decode()
    samples = {}
    for line in text.splitlines():
        match = re.fullmatch(r"(\w+)(?:\{(.*)\})? (\S+)", line)
        if match:
            samples[match[1], match[2] or ""] = float(match[3])
    return samples


def total(samples, name, label=""):
    """Sum over the labels that contain `label`."""
    return sum(value for (other, labels), value in samples.items() if other == name and label in labels)


def sockets_of(pid):
    """TCP sockets of a process: (local port, remote port, state) each."""
    inodes = set()
    for descriptor in os.listdir(f"/proc/{pid}/fd"):
        try:
            target = os.readlink(f"/proc/{pid}/fd/{descriptor}")
        except OSError:
            continue  # closed meanwhile
        if target.startswith("socket:["):
            inodes.add(target[8:-1])
    found = []
    for table in ["tcp", "tcp6"]:
        with open(f"/proc/{pid}/net/{table}") as lines:
            next(lines)
            for line in lines:
                fields = line.split()
                if fields[9] in inodes:
                    found.append((int(fields[1].split(":")[1], 16), int(fields[2].split(":")[1], 16), fields[3]))
    return found


class Sampler(threading.Thread):
    """Writes a row to a CSV file every few seconds and keeps them."""

    def __init__(self, pid, client_port, admin, path, every_s=2.0):
        super().__init__(name="sampler", daemon=True)
        self.pid, self.client_port, self.admin, self.every_s = pid, client_port, admin, every_s
        self.rows, self.problems, self.ended = [], [], threading.Event()
        self.began = time.monotonic()
        self.file = open(path, "w", newline="")
        self.writer = csv.DictWriter(self.file, FIELDS)
        self.writer.writeheader()

    def sample(self):
        """One row, now."""
        with open(f"/proc/{self.pid}/status") as lines:
            status = dict(line.rstrip("\n").split(":\t", 1) for line in lines if ":\t" in line)
        sockets, metrics = sockets_of(self.pid), metrics_of(self.admin)
        live = [(local, remote) for local, remote, state in sockets if state == ESTABLISHED]
        clients = sum(local == self.client_port for local, _ in live)
        return {
            "time_s": round(time.monotonic() - self.began, 1),
            "rss_kib": int(status["VmRSS"].split()[0]),
            "fds": len(os.listdir(f"/proc/{self.pid}/fd")),
            "threads": int(status["Threads"]),
            "client_sockets": clients,
            "store_sockets": len(live) - clients,
            "close_wait": sum(state == CLOSE_WAIT for _, _, state in sockets),
            "requests": int(total(metrics, "claviger_requests_total")),
            "in_flight": int(total(metrics, "claviger_requests_in_flight")),
            "buffered_bytes": int(total(metrics, "claviger_buffered_bytes")),
            "connections": int(total(metrics, "claviger_connections")),
            "errors": int(total(metrics, "claviger_errors_total")),
            "errors_internal": int(total(metrics, "claviger_errors_total", 'blame="internal"')),
            "aborted": int(total(metrics, "claviger_transfers_aborted_total")),
            "integrity_failures": int(total(metrics, "claviger_integrity_failures_total")),
            "panics": int(total(metrics, "claviger_handler_panics_total")),
        }

    def run(self):
        while not self.ended.wait(self.every_s):
            try:
                row = self.sample()
            except (OSError, ValueError) as error:
                self.problems.append(f"no sample after {time.monotonic() - self.began:.0f} s: {error}")
                continue
            self.rows.append(row)
            self.writer.writerow(row)
            self.file.flush()

    def end(self):
        self.ended.set()
        self.join()
        self.file.close()
