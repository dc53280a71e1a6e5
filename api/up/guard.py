"""`up`'s side of the janitor: starts it, tells it what runs, and starts it again when it dies."""

import os
import subprocess
import sys
import time
from collections.abc import Iterable, Sequence
from contextlib import suppress
from pathlib import Path

from api.up import janitor
from api.up.janitor import Group

_QUICK_S = 1.0
"""A janitor that dies sooner is started again only after this long, lest a broken machine spin."""


class Guard:
    """Keeps one janitor alive and informed.

    What runs is also written to `record`: should `up` and the janitor be killed in the same instant, the next `up` of
    the folder ends what they left (`leftovers`).
    """

    def __init__(self, lock_file: Path, record: Path, *, lock_fd: int | None = None) -> None:
        self._lock_file = lock_file
        self._record = record
        self._lock_fd = lock_fd
        self._line = janitor.dump([])
        self._process: subprocess.Popen[bytes] | None = None
        self._started_s = 0.0

    @property
    def pid(self) -> int | None:
        return None if self._process is None else self._process.pid

    @property
    def alive(self) -> bool:
        return self._process is not None and self._process.poll() is None

    def start(self) -> None:
        """Start the janitor and tell it what runs now."""
        command = [sys.executable, "-I", "-S", janitor.__file__, str(self._lock_file)]
        self._process = subprocess.Popen(  # noqa: S603  our own script
            command,
            stdin=subprocess.PIPE,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            bufsize=0,
            start_new_session=True,
            pass_fds=() if self._lock_fd is None else (self._lock_fd,),
        )
        if self._process.stdin is not None:
            # a janitor that does not read (SIGSTOP) is replaced; it must never block us
            os.set_blocking(self._process.stdin.fileno(), False)
        self._started_s = time.monotonic()
        self._tell()

    def publish(self, groups: Iterable[Group]) -> None:
        """These run now, and no others. Written down before a part is let loose, so that none can escape."""
        self._line = janitor.dump(groups)
        with suppress(OSError):  # a full disk costs only the second safety
            self._record.write_bytes(self._line)
        self._tell()

    def tend(self) -> str | None:
        """Starts a dead janitor again, and says so."""
        process = self._process
        if process is None or process.poll() is None or time.monotonic() - self._started_s < _QUICK_S:
            return None
        status = process.returncode
        self._close()
        self.start()
        return f"janitor ended ({ending(status)}); started again"

    def stop(self) -> None:
        """All parts are gone: so goes the janitor."""
        self.publish([])
        self._close()
        self._record.unlink(missing_ok=True)

    def _tell(self) -> None:
        process = self._process
        if process is None or process.stdin is None or process.poll() is not None:
            return
        try:
            written = process.stdin.write(self._line)
        except (BrokenPipeError, BlockingIOError):
            written = None
        if written != len(self._line):
            process.kill()  # `tend` starts another and tells it anew

    def _close(self) -> None:
        process, self._process = self._process, None
        if process is None:
            return
        if process.stdin is not None:
            process.stdin.close()
        try:
            process.wait(2)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def leftovers(record: Path) -> Sequence[Group]:
    """Groups of an earlier `up` that still run: it and its janitor were killed together."""
    try:
        line = record.read_bytes()
    except OSError:
        return []
    ours = [group for group in janitor.parse(line) if group.born and janitor.born(group.pgid) == group.born]
    return [group for group in ours if janitor.runs(group.pgid)]


def ending(status: int) -> str:
    """`exit code 1` or `signal 9`, from what Popen calls the return code."""
    return f"signal {-status}" if status < 0 else f"exit code {status}"
