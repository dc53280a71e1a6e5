"""Keeps the parts running, says what happens, and takes everything down in order. One thread, no polling while all is well."""

import math
import os
import select
import signal
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from types import FrameType

from api.up.errors import UpError
from api.up.folder import Folder
from api.up.guard import Guard, ending
from api.up.parts import Part, Role
from api.up.process import Process

SHORT_GRACE_S = 1.0
"""What every part still gets after a second Ctrl-C."""
_STARTING_POLL_S = 0.1
_IDLE_S = 30.0
_WORD_AFTER_S = 15.0
"""A stack that is not ready after so long says what it waits for."""


@dataclass(frozen=True)
class Hooks:
    """What the supervisor asks and tells."""

    why_not_ready: Callable[[], str | None]
    """Asked until it returns None."""
    on_server: Callable[[], None]
    """Called once, when the server answers and nobody uses it yet."""
    on_ready: Callable[[], None]
    """Called once."""
    say: Callable[[str], None]


class Supervisor:
    """Runs `parts` until a signal asks for the end, or one of them proves hopeless."""

    def __init__(self, parts: Sequence[Part], folder: Folder, guard: Guard, hooks: Hooks) -> None:
        self._processes = [Process(part) for part in parts]
        self._folder = folder
        self._guard = guard
        self._hooks = hooks
        self._say = hooks.say
        self._server_up = all(part.role is not Role.SERVER for part in parts)
        self._ready = False
        self._asked = 0
        self._wakeup = -1

    def run(self) -> None:
        """Returns after a signal, with nothing left running. Raises UpError, likewise, where a part will not start."""
        with self._signals():
            self._guard.start()
            next_word_s, every_s = time.monotonic() + _WORD_AFTER_S, _WORD_AFTER_S
            try:
                while not self._asked:
                    self._tend()
                    reason = self._progress()
                    if reason and time.monotonic() > next_word_s:
                        every_s *= 2
                        next_word_s = time.monotonic() + every_s
                        self._say(f"not ready yet: {reason}; the logs are in {self._folder.logs}")
                    self._sleep(self._pause_s())
            finally:
                self._stop()

    # while it runs

    def _tend(self) -> None:
        """Collect the dead, start what is due."""
        if word := self._guard.tend():
            self._say(word)
        ended = [process for process in self._processes if process.collect()]
        if ended:
            self._publish()
        for process in ended:
            if process.life.hopeless and not self._ready:
                raise self._hopeless(process)
        for process in self._processes:
            if self._asked:
                return
            if process.due_s is not None and process.due_s <= time.monotonic() and self._may_start(process):
                self._start(process)

    def _may_start(self, process: Process) -> bool:
        return self._server_up or process.part.role is Role.SERVER

    def _start(self, process: Process) -> None:
        part, ended = process.part, process.ended
        self._folder.trim_log(part.name)
        try:
            process.start(self._folder.log(part.name), self._publish)
        except OSError as exc:  # no memory or no process to be had: that may pass
            process.not_started()
            self._say(
                f"{part.name} could not be started ({exc.strerror}); trying again in {process.life.delay_s:g} s"
            )
            return
        if ended is not None:
            self._say(f"{part.name} ended ({ending(ended)}); started again")

    def _publish(self) -> None:
        self._guard.publish(group for process in self._processes if (group := process.group) is not None)

    def _progress(self) -> str | None:
        """Moves on from server to all parts to ready; what it still waits for, or None."""
        if not self._server_up:
            if reason := self._silent(Role.SERVER):
                return reason
            self._hooks.on_server()
            self._server_up = True
            self._tend()
        if not self._ready:
            if reason := self._silent(Role.SIMULATOR) or self._hooks.why_not_ready():
                return reason
            self._ready = True
            self._hooks.on_ready()
        return None

    def _silent(self, role: Role) -> str | None:
        """Which part of that role does not answer yet, in words."""
        for process in self._processes:
            part = process.part
            if part.role is role and not (process.running and (part.answers is None or part.answers())):
                return f"{part.name} does not answer yet"
        return None

    def _hopeless(self, process: Process) -> UpError:
        name, status = process.part.name, process.ended or 0
        return UpError(
            f"{name} does not start: it ended with {ending(status)}. "
            f"The end of its log, {self._folder.log(name)}:\n{self._folder.last_lines(name)}"
        )

    def _pause_s(self) -> float:
        if not self._ready:
            return _STARTING_POLL_S
        for process in self._processes:
            self._folder.trim_log(process.part.name)
        due = [process.due_s for process in self._processes if process.due_s is not None]
        guard_due = [] if self._guard.alive else [time.monotonic() + 1.0]
        return max(0.0, min([*due, *guard_due, time.monotonic() + _IDLE_S]) - time.monotonic())

    # the end

    def _stop(self) -> None:
        """Role by role, each with its grace; then the janitor. Nothing of ours runs afterwards."""
        self._say("stopping: running calls may end first (Ctrl-C again: at once)")
        for role in Role:
            self._stop_all([process for process in self._processes if process.part.role is role])
        self._guard.stop()

    def _stop_all(self, processes: Sequence[Process]) -> None:
        for process in processes:
            process.signal(signal.SIGTERM)
            process.signal(signal.SIGCONT)  # one that was paused would not hear the first
        deadlines = {process.part.name: time.monotonic() + process.part.grace_s for process in processes}
        hurried = False
        while any(process.running for process in processes):
            if self._asked > 1 and not hurried:
                hurried, soon_s = True, time.monotonic() + SHORT_GRACE_S
                deadlines = {name: min(deadline_s, soon_s) for name, deadline_s in deadlines.items()}
            for process in processes:
                if process.running and time.monotonic() > deadlines[process.part.name]:
                    self._say(f"{process.part.name} did not end within its grace: killed")
                    process.signal(signal.SIGKILL, group=True)
                    deadlines[process.part.name] = math.inf
            self._sleep(_STARTING_POLL_S)
            for process in processes:
                process.collect()
        self._publish()

    # signals

    @contextmanager
    def _signals(self) -> Iterator[None]:
        """Signals wake the loop through a pipe, so that it need not poll."""
        reader, writer = os.pipe()
        os.set_blocking(reader, False)
        os.set_blocking(writer, False)
        self._wakeup = reader
        numbers = [signal.SIGINT, signal.SIGTERM]
        if signal.getsignal(signal.SIGHUP) is not signal.SIG_IGN:  # nohup wants us to stay
            numbers.append(signal.SIGHUP)
        before = {number: signal.signal(number, self._on_signal) for number in numbers}
        before[signal.SIGCHLD] = signal.signal(signal.SIGCHLD, lambda _number, _frame: None)
        wakeup_before = signal.set_wakeup_fd(writer, warn_on_full_buffer=False)
        try:
            yield
        finally:
            signal.set_wakeup_fd(wakeup_before)
            for number, handler in before.items():
                signal.signal(number, handler)
            os.close(reader)
            os.close(writer)

    def _on_signal(self, _number: int, _frame: FrameType | None) -> None:
        self._asked += 1  # and no more: printing here could break into a print under way

    def _sleep(self, timeout_s: float) -> None:
        """Until a signal arrives, a child's end included, or `timeout_s` has passed."""
        if select.select([self._wakeup], [], [], timeout_s)[0]:
            os.read(self._wakeup, 4096)
