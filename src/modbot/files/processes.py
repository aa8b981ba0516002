"""Whether a process that left its name on a shared disk still lives."""

from __future__ import annotations

import hashlib
import os
import secrets
import socket
from functools import cache
from pathlib import Path


@cache
def process_table() -> str | None:
    """Names the process table that this process's id is an entry of: this machine, this boot, this container.

    None where that cannot be told (no /proc): then a process id on a shared disk means nothing.
    """
    try:
        boot = Path("/proc/sys/kernel/random/boot_id").read_bytes()
        namespace = bytes(Path("/proc/self/ns/pid").readlink())
    except OSError:
        return None
    return hashlib.sha256(socket.gethostname().encode() + boot + namespace).hexdigest()[:12]


@cache
def own_name() -> str:
    """As `process_table`; where that cannot be told, a name that no other process has."""
    return process_table() or secrets.token_hex(6)


def started(pid: int) -> str | None:
    """When the process started, in ticks since boot: tells it from a later one of the same id.

    None if there is no such process, or it has ended and is only waited for.
    """
    try:
        stat = Path(f"/proc/{pid}/stat").read_text(encoding="ascii", errors="replace")
    except OSError:
        return None
    state, *rest = stat.rpartition(")")[2].split()
    return None if state in {"Z", "X"} else rest[18]


def owner() -> str:
    """This process, to be a part of a file's name: `<process table>.<pid>.<start>`."""
    pid = os.getpid()
    return f"{own_name()}.{pid}.{started(pid)}"


def lives(name: str) -> bool | None:
    """Whether the process that `owner()` gave this name lives; None if that cannot be told from here."""
    table, pid, start = name.split(".")
    return started(int(pid)) == start if table == process_table() else None
