"""One part's process: started behind a gate, in a session of its own, its output in a log file."""

import subprocess
import time
from collections.abc import Callable
from pathlib import Path

from api.up import janitor
from api.up.janitor import Group
from api.up.parts import Life, Part, Role

_GATE = 'read -r go && exec "$@" </dev/null'
"""The part becomes its program only when told to, after the janitor knows it. Were `up` killed in between, the read would
meet the end of the pipe and the part would end by itself. Plain sh: the same on Linux and macOS, and gone after exec."""


class Process:
    """A part over its lives. Not started, running, or waiting until `due_s` to be started again."""

    def __init__(self, part: Part) -> None:
        self.part = part
        self.life = Life()
        self.due_s: float | None = 0.0
        self.ended: int | None = None
        """How the last life ended, as Popen's return code."""
        self._popen: subprocess.Popen[bytes] | None = None
        self._born = ""
        self._started_s = 0.0

    @property
    def running(self) -> bool:
        return self._popen is not None

    @property
    def pid(self) -> int | None:
        return None if self._popen is None else self._popen.pid

    @property
    def group(self) -> Group | None:
        """What the janitor has to know; None while nothing runs."""
        if self._popen is None:
            return None
        return Group(self._popen.pid, self.part.name, self._born, self.part.role is Role.SERVER)

    def start(self, log: Path, register: Callable[[], None]) -> None:
        """Start it behind its gate, `register()`, then let it loose. `group` is set when `register` is called."""
        log.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        with log.open("ab") as out:
            popen = subprocess.Popen(  # noqa: S603  the parts' commands are ours
                ["/bin/sh", "-c", _GATE, "gate", *self.part.argv],
                stdin=subprocess.PIPE,
                stdout=out,
                stderr=out,
                env=dict(self.part.env),
                start_new_session=True,
                bufsize=0,
            )
        self._popen, self._born, self._started_s = popen, janitor.born(popen.pid), time.monotonic()
        self.due_s = None
        register()
        if popen.stdin is not None:
            try:
                popen.stdin.write(b"go\n")
            except BrokenPipeError:  # killed at the gate: collected like any other end
                pass
            finally:
                popen.stdin.close()

    def collect(self) -> bool:
        """Whether it has just ended. Then `ended` and `due_s` are set, and nothing of its group is left."""
        popen = self._popen
        if popen is None or popen.poll() is None:
            return False
        janitor.send(popen.pid, 9)  # its own children, if it had any, must not outlive it
        now_s = time.monotonic()
        self.life = self.life.after_end(now_s - self._started_s, popen.returncode)
        self.ended, self.due_s, self._popen = popen.returncode, now_s + self.life.delay_s, None
        return True

    def not_started(self) -> None:
        """Starting it failed: wait, as after a life that ended at once."""
        self.life = self.life.after_end(0.0)
        self.due_s = time.monotonic() + self.life.delay_s

    def signal(self, number: int, *, group: bool = False) -> None:
        """To the program itself, or to all of its group."""
        if self._popen is None:
            return
        if group:
            janitor.send(self._popen.pid, number)
        else:
            self._popen.send_signal(number)
