"""`llm-edge` as a real process: its exit code, what it says on which stream, and its end with the test."""

import os
import subprocess
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from support.waiting import wait_for

EDGE = (sys.executable, "-m", "api.cli.main")


class Command:
    """One running command. What it says goes to files, so that it never waits for a reader."""

    def __init__(self, folder: Path, words: tuple[str, ...], env: Mapping[str, str]) -> None:
        self._out, self._err = folder / ".stdout", folder / ".stderr"
        with self._out.open("wb") as out, self._err.open("wb") as err:
            self.process = subprocess.Popen(
                [*EDGE, *words], cwd=folder, env=dict(env), stdin=subprocess.DEVNULL, stdout=out, stderr=err
            )

    @property
    def out(self) -> str:
        return self._out.read_text()

    @property
    def err(self) -> str:
        return self._err.read_text()

    def wait_said(self, words: str, timeout_s: float = 30.0) -> None:
        def said() -> bool:
            everything = self.out + self.err
            assert words in everything or self.process.poll() is None, (
                f"ended without {words!r}:\n{everything}"
            )
            return words in everything

        wait_for(said, timeout_s, f"{words!r}")

    def wait(self, timeout_s: float = 60.0) -> int:
        return self.process.wait(timeout_s)


@contextmanager
def running_edge(folder: Path, *words: object, env: Mapping[str, str] | None = None) -> Iterator[Command]:
    command = Command(folder, tuple(map(str, words)), env or os.environ)
    try:
        yield command
    finally:
        if command.process.poll() is None:
            command.process.kill()
        command.process.wait()


def edge(
    folder: Path, *words: object, env: Mapping[str, str] | None = None, timeout_s: float = 60.0
) -> Command:
    """A command run to its end."""
    with running_edge(folder, *words, env=env) as command:
        command.wait(timeout_s)
    return command
