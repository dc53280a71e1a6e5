"""The janitor: a tiny process that ends the parts when `llm-edge up` is gone without having done so (kill -9).

Its standard input is a pipe whose other end only `up` holds. Each line read is the list of process groups that run
now, as JSON (see `Group`); the last complete line counts. At the end of the pipe it ends what that line names. A clean
`up` sends an empty list first. The folder's lock is inherited, so the folder stays locked until all is gone.

Runs as a script on the standard library alone (`python -I -S janitor.py LOCK_FILE`), so that it is small and always starts.
"""

import json
import os
import signal
import sys
import time
from collections.abc import Callable, Iterable
from contextlib import suppress
from typing import NamedTuple

GRACE_S = 5.0
"""What parts get between SIGTERM and SIGKILL here. Their running jobs lose nothing: the leases expire."""
LAST_GRACE_S = 10.0
"""The same for the server, which writes its data down meanwhile."""
_POLL_S = 0.05
_PROC = os.path.exists("/proc/self/stat")  # noqa: PTH110  pathlib costs start-up time


class Group(NamedTuple):
    """A part's process group. `born` tells its leader from another process that got the same number later."""

    pgid: int
    name: str
    born: str
    last: bool
    """Ended after all others: the server that they write to."""


def dump(groups: Iterable[Group]) -> bytes:
    """One line of JSON."""
    return json.dumps([list(group) for group in groups]).encode() + b"\n"


def parse(line: bytes) -> list[Group]:
    """What `dump` wrote; nothing where the line is damaged."""
    try:
        return [
            Group(int(pgid), str(name), str(born), bool(last)) for pgid, name, born, last in json.loads(line)
        ]
    except (ValueError, TypeError):
        return []


def born(pid: int) -> str:
    """When the process began, in a form that no later process of the same number shares; empty where there is none."""
    if _PROC:
        fields = _stat(pid)
        return f"{_boot()}:{fields[19]}" if fields else ""
    import subprocess  # noqa: PLC0415  only here, and it is half of this process' memory

    command = ["/bin/ps", "-o", "lstart=", "-p", str(pid)]
    shown = subprocess.run(command, capture_output=True, text=True, check=False)  # noqa: S603  a number
    return " ".join(shown.stdout.split())


def _stat(pid: int) -> list[str]:
    """The fields of /proc/PID/stat from the state on (the name before it may hold anything)."""
    try:
        with open(f"/proc/{pid}/stat", encoding="utf-8", errors="replace") as stat:  # noqa: PTH123  pathlib costs start-up time
            return stat.read().rpartition(")")[2].split()
    except OSError:
        return []


def _boot() -> str:
    try:
        with open("/proc/sys/kernel/random/boot_id", encoding="ascii") as boot:  # noqa: PTH123  as above
            return boot.read().strip()
    except OSError:
        return ""


def is_ours(group: Group) -> bool:
    """False where the number has passed to a stranger. A leader that is gone leaves its number to its group alone."""
    now = born(group.pgid)
    return not now or not group.born or now == group.born


def runs(pgid: int) -> bool:
    """Whether any process of the group lives; one that is dead and not yet collected does not."""
    if _PROC:
        return any(_in_group(name, pgid) for name in os.listdir("/proc") if name.isdecimal())  # noqa: PTH208  as above
    try:
        os.killpg(pgid, 0)
    except (ProcessLookupError, PermissionError):  # macOS says the latter where all members are dead
        return False
    return True


def _in_group(name: str, pgid: int) -> bool:
    fields = _stat(int(name))
    return bool(fields) and fields[2] == str(pgid) and fields[0] not in "ZX"


def send(pgid: int, number: int) -> None:
    """The signal to the whole group; nothing where it is gone."""
    with suppress(ProcessLookupError, PermissionError):
        os.killpg(pgid, number)


def end_all(groups: Iterable[Group], *, grace_s: float = GRACE_S, last_grace_s: float = LAST_GRACE_S) -> None:
    """SIGTERM, the grace in seconds, SIGKILL: first to all but the last, then to those. Returns when none runs."""
    ours = [group for group in groups if is_ours(group)]
    _end([group.pgid for group in ours if not group.last], grace_s)
    _end([group.pgid for group in ours if group.last], last_grace_s)


def _end(pgids: list[int], grace_s: float) -> None:
    for pgid in pgids:
        send(pgid, signal.SIGTERM)
        send(pgid, signal.SIGCONT)  # a stopped process would not hear the first
    if _wait(lambda: not any(runs(pgid) for pgid in pgids), grace_s):
        return
    for pgid in pgids:
        send(pgid, signal.SIGKILL)
    _wait(lambda: not any(runs(pgid) for pgid in pgids), 2.0)


def _wait(done: Callable[[], bool], timeout_s: float) -> bool:
    deadline = time.monotonic() + timeout_s
    while not done():
        if time.monotonic() > deadline:
            return False
        time.sleep(_POLL_S)
    return True


def main(lock_file: str) -> None:
    """Watch the pipe on standard input until its end, then clean up."""
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGQUIT):
        signal.signal(number, signal.SIG_IGN)
    groups: list[Group] = []
    for line in sys.stdin.buffer:
        if line.endswith(b"\n"):
            groups = parse(line)
    if groups:
        with suppress(OSError), open(lock_file, "w", encoding="ascii") as lock:  # noqa: PTH123  as above
            lock.write(f"cleaning {os.getpid()}\n")
        end_all(groups)


if __name__ == "__main__":
    main(sys.argv[1])
