#!/usr/bin/python3
"""Runs a program under what a unit file of deploy/systemd makes of the kernel's seccomp, where systemd itself does not run.

    under_filter.py UNIT PROGRAM [ARGUMENT…]

Of the unit it reads SystemCallFilter, MemoryDenyWriteExecute, RestrictAddressFamilies and RestrictNamespaces, and does what
systemd.exec(5) says of them: calls outside of the list end the process (SIGSYS), the others fail. What the groups (@system-service …)
hold is what the installed systemd says. Needs Debian's python3-seccomp.
"""

import errno
import os
import socket
import subprocess
import sys

import seccomp
from seccomp import ALLOW, ERRNO, GE, KILL_PROCESS, MASKED_EQ, EQ, Arg, SyscallFilter

PROT_WRITE, PROT_EXEC = 2, 4
NAMESPACES = [0x00020000, 0x02000000, 0x04000000, 0x08000000, 0x10000000, 0x20000000, 0x40000000, 0x00000080]
FAMILIES_MAX = 64


def groups():
    text = subprocess.run(["systemd-analyze", "--no-pager", "syscall-filter"], check=True, capture_output=True, text=True)
    found, own = {}, None
    for line in text.stdout.splitlines():
        if line.startswith("@"):
            own = found.setdefault(line.strip(), [])
        elif line.startswith(" ") and not line.strip().startswith("#") and own is not None:
            own.append(line.strip())
        elif line.startswith("#"):
            own = None
    return found


def expand(names, known):
    calls = set()
    for name in names:
        calls |= expand(known[name], known) if name.startswith("@") else {name}
    return calls


def settings(unit):
    found = {}
    with open(unit, encoding="utf-8") as lines:
        for line in lines:
            name, sign, value = line.strip().partition("=")
            if sign:
                found.setdefault(name, []).append(value)
    return found


def allowed_calls(values):
    known = groups()
    allowed = expand(["@default"], known)
    for value in values:
        names = expand(value.lstrip("~").split(), known)
        allowed = allowed - names if value.startswith("~") else allowed | names
    return allowed


def deny_write_execute():
    rules = SyscallFilter(ALLOW)
    both, denied = PROT_WRITE | PROT_EXEC, ERRNO(errno.EPERM)
    rules.add_rule(denied, "mmap", Arg(2, MASKED_EQ, both, both))
    rules.add_rule(denied, "mprotect", Arg(2, MASKED_EQ, PROT_EXEC, PROT_EXEC))
    rules.add_rule(denied, "pkey_mprotect", Arg(2, MASKED_EQ, PROT_EXEC, PROT_EXEC))
    rules.load()


def restrict_families(names):
    allowed = {int(getattr(socket, name)) for name in names}
    rules = SyscallFilter(ALLOW)
    for family in set(range(FAMILIES_MAX)) - allowed:
        rules.add_rule(ERRNO(errno.EAFNOSUPPORT), "socket", Arg(0, EQ, family))
    rules.add_rule(ERRNO(errno.EAFNOSUPPORT), "socket", Arg(0, GE, FAMILIES_MAX))
    rules.load()


def restrict_namespaces():
    rules = SyscallFilter(ALLOW)
    for flag in NAMESPACES:
        for call in ["clone", "unshare"]:
            rules.add_rule(ERRNO(errno.EPERM), call, Arg(0, MASKED_EQ, flag, flag))
    rules.add_rule(ERRNO(errno.EPERM), "setns")
    # Its flags lie in memory, where no filter sees them; the C library then takes clone.
    rules.add_rule(ERRNO(errno.ENOSYS), "clone3")
    rules.load()


def restrict_calls(values):
    rules = SyscallFilter(KILL_PROCESS)
    for call in allowed_calls(values):
        try:
            rules.add_rule(ALLOW, call)
        except (RuntimeError, ValueError):
            # One that this architecture does not have.
            continue
    rules.load()


def main():
    unit, program = sys.argv[1], sys.argv[2:]
    of_unit = settings(unit)
    assert of_unit["MemoryDenyWriteExecute"] == ["yes"] and of_unit["RestrictNamespaces"] == ["yes"]
    calls = of_unit["SystemCallFilter"]
    assert seccomp.get_api() >= 3 and not calls[0].startswith("~")
    deny_write_execute()
    restrict_families(of_unit["RestrictAddressFamilies"][0].split())
    restrict_namespaces()
    restrict_calls(calls)
    os.execvp(program[0], program)


main()
