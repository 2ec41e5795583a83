#!/usr/bin/env python3
"""Prints what each client's steps came to, for docs/s3-compatibility.md, from the summaries of runs.

    table.py embedded.json rgw-1.json rgw-2.json …             prints the table
    table.py --into docs/s3-compatibility.md embedded.json …   and replaces what stands between its markers
"""

import argparse
import json
import sys
from pathlib import Path

HEADINGS = {"claviger": "before the embedded provider", "claviger-rgw": "before Ceph RGW 16.2"}
BEGIN = "<!-- From here to the end of the table printed by: tests/e2e/table.py -->\n"
END = "<!-- end of the table -->\n"


def read(paths):
    """{client: {step: {target: (state, reason)}}}, clients and steps in the order of the runs."""
    clients = {}
    for path in paths:
        summary = json.loads(Path(path).read_text())
        for row in summary["steps"]:
            steps = clients.setdefault(row["client"], {})
            steps.setdefault(row["step"], {})[summary["target"]] = (row["state"], row["reason"])
    return clients


def cell(steps, target):
    states = [results[target] for results in steps.values() if target in results]
    if not states:
        return "not run"
    passed = sum(1 for state, _ in states if state == "PASS")
    return f"{passed} of {len(states)}"


def exceptions(steps, target):
    for step, results in steps.items():
        state, reason = results.get(target, ("PASS", ""))
        if state != "PASS":
            yield step, reason.partition(" [")[0]


def text(value):
    return value.replace("|", "\\|").replace("<", "&lt;").replace("*", "\\*").replace("$", "\\$")


def table(clients):
    lines = ["| client | " + " | ".join(HEADINGS.values()) + " | steps |", "|---|" + "---|" * (len(HEADINGS) + 1)]
    for client, steps in sorted(clients.items()):
        cells = " | ".join(cell(steps, target) for target in HEADINGS)
        lines.append(f"| {client} | {cells} | {text('; '.join(steps))} |")
    lines += ["", "Steps that a store can't do, with Claviger before it:", "", "| store | client | step | why |", "|---|---|---|---|"]
    for target, heading in HEADINGS.items():
        for client, steps in sorted(clients.items()):
            for step, why in exceptions(steps, target):
                lines.append(f"| {heading.removeprefix('before ')} | {client} | {text(step)} | {text(why)} |")
    return "\n".join(lines) + "\n"


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("summaries", nargs="+")
    parser.add_argument("--into", type=Path)
    options = parser.parse_args()
    clients = read(options.summaries)
    failed = [(client, step) for client, steps in clients.items() for step, results in steps.items()
              if any(state == "FAIL" for state, _ in results.values())]
    if failed:
        sys.exit(f"no table of a run that failed: {failed}")
    out = table(clients)
    if not options.into:
        print(out, end="")
        return
    document = options.into.read_text()
    before, marker, rest = document.partition(BEGIN)
    after = rest.partition(END)[2]
    if not marker or not after:
        sys.exit(f"{options.into} has no markers")
    options.into.write_text(before + BEGIN + "\n" + out + "\n" + END + after)


if __name__ == "__main__":
    main()
