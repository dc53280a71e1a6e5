"""The demo's own `llm-edge up`: started in a folder of its own, and gone again however the demo ends."""

import os
import shutil
import signal
import sys
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from pathlib import Path
from types import FrameType

from api.cli.outcome import CommandError
from api.up.folder import Folder
from api.up.guard import Guard, ending
from api.up.parts import Part, Role
from api.up.process import Process

START_S = 120.0
GRACE_S = 5
STOP_S = 60.0
"""More than the graces of all parts together."""
_POLL_S = 0.05

_NOT_PASSED_ON = frozenset(
    {
        "REDIS_URL",
        "BROKER_URL",
        "SERVER_HOST",
        "SERVER_PORT",
        "LLM_EDGE_DIR",
        "LLM_EDGE_CONFIG",
        "LLM_EDGE_API_KEYS",
        "LLM_EDGE_API_KEYS_FILE",
        "METRICS_HOST",
        "METRICS_PORT",
        "METRICS_TOKEN",
    }
)
"""The demo touches no server, no fleet and no provider of the user's that it was not told to."""

_IN_FOLDER = 'cd "$0" && exec "$@"'


def prepare(path: Path, say: Callable[[str], None]) -> Folder:
    """The demo's folder, without the data of an earlier demo: what a killed one left unfinished must not go on.

    Raises UpError where the folder is in use or cannot be, CommandError where it is another stack's.
    """
    path = path.absolute()
    for missing in [p for p in [path, *path.parents] if not p.exists()][::-1]:
        with suppress(OSError):  # `prepare` reports it
            missing.mkdir(mode=0o700)
    folder = Folder(path)
    marker = path / "demo"
    if folder.data.exists() and not marker.exists():
        raise CommandError(
            f"{path} holds the data of another stack; give the demo a folder of its own with --dir."
        )
    folder.prepare()
    lock = folder.lock(say)
    try:
        folder.end_leftovers()
        marker.touch()
        shutil.rmtree(folder.data)
        for log in folder.logs.glob("*.log"):
            log.unlink()
    finally:
        os.close(lock)
    return folder


class DemoStack:
    """One `llm-edge up`, watched by a janitor of its own, so that not even kill -9 on the demo leaves it running."""

    def __init__(
        self, folder: Folder, environ: Mapping[str, str], providers: Path | None, workers: int | None
    ) -> None:
        """`providers`: the providers file; None simulates some."""
        words = [sys.executable, "-m", "api.cli.main", "up", "--port", "0", "--dir", str(folder.path)]
        words += ["--grace", str(GRACE_S), *(["--workers", str(workers)] if workers else [])]
        env = {name: value for name, value in environ.items() if name not in _NOT_PASSED_ON}
        env |= {"PYTHONUNBUFFERED": "1", "PYTHONSAFEPATH": "1", "LLM_EDGE_API_GRACE_S": str(GRACE_S)}
        if providers is None:  # from an empty folder, in which no providers file can be found
            home = folder.path / "home"
            home.mkdir(mode=0o700, exist_ok=True)
            words = ["/bin/sh", "-c", _IN_FOLDER, str(home), *words]
        else:
            env["LLM_EDGE_CONFIG"] = str(providers)
        self.log = folder.log("up")
        self._folder = folder
        self._process = Process(Part("up", Role.API, tuple(words), env, GRACE_S))
        self._guard = Guard(folder.path / "demo-lock", folder.path / "demo-parts.json")

    def start(self, say: Callable[[str], None]) -> str:
        """The URL of its API, once a job could run. Raises CommandError where it does not come up."""
        self._guard.start()
        self._process.start(self.log, self._publish)
        deadline_s = time.monotonic() + START_S
        while True:
            ended = self._process.collect()
            said = self._said()
            url = next((line.split()[1] for line in said if line.startswith("ready http")), None)
            if ended or time.monotonic() > deadline_s:
                how = ending(self._process.ended or 0) if ended else f"was not ready within {START_S:g} s"
                raise CommandError(
                    f"the stack did not start ({how}). It said:\n{self._folder.last_lines('up')}\n"
                    f"More is in {self._folder.logs}."
                )
            if url is not None:
                for line in said:
                    if line.startswith("warning:"):
                        say(line)
                return url
            time.sleep(_POLL_S)

    def stop(self, say: Callable[[str], None]) -> None:
        """SIGTERM, and wait; signals meanwhile only hurry it. Nothing of it runs afterwards."""
        asked = 1

        def ask_again(_number: int, _frame: FrameType | None) -> None:
            nonlocal asked
            asked += 1

        before = {number: signal.signal(number, ask_again) for number in (signal.SIGINT, signal.SIGTERM)}
        try:
            if self._process.running:
                say("stopping the stack ...")
            self._end(lambda: asked)
            self._guard.stop()
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)

    def _end(self, asked: Callable[[], int]) -> None:
        passed_on = 0
        kill_at_s = time.monotonic() + STOP_S
        while self._process.running:
            if asked() > passed_on:
                passed_on = asked()
                self._process.signal(signal.SIGTERM)
            if time.monotonic() > kill_at_s:
                self._process.signal(signal.SIGKILL)  # its own janitor ends its parts
            time.sleep(_POLL_S)
            self._process.collect()

    def _publish(self) -> None:
        group = self._process.group
        self._guard.publish([] if group is None else [group])

    def _said(self) -> list[str]:
        try:
            return self.log.read_text(encoding="utf-8", errors="replace").splitlines()
        except OSError:
            return []
