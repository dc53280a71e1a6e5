"""One command's talk with the server: what goes wrong is one message, and the exit code."""

import json
import os
import sys
import time
from collections.abc import Callable
from typing import Self

import typer
from rich.console import Console, RenderableType
from rich.live import Live

from api.cli.client import Client
from api.cli.outcome import CommandError

_EVERY_S = 1.0


class Talk:
    """`command` is what the user typed, for messages."""

    def __init__(self, url: str, command: str, *, as_json: bool) -> None:
        self._url = url
        self._command = command
        self._as_json = as_json
        self.client: Client

    def __enter__(self) -> Self:
        try:
            self.client = Client(self._url, os.environ.get("LLM_EDGE_API_KEY"), say=say)
        except CommandError as exc:
            raise self._ended(exc) from exc
        return self

    def __exit__(self, _kind: object, exc: BaseException | None, _trace: object) -> None:
        self.client.close()
        if isinstance(exc, CommandError):
            raise self._ended(exc) from exc
        if isinstance(exc, KeyboardInterrupt):
            raise typer.Exit(0) from exc  # the way to leave --watch

    def _ended(self, exc: CommandError) -> typer.Exit:
        if self._as_json:
            print(json.dumps(exc.document(), indent=2), flush=True)
        else:
            say(f"{self._command}: {exc.message}")
        return typer.Exit(exc.exit)


def show(view: Callable[[], RenderableType], *, watch: bool) -> None:
    """Once, or refreshed every second until Ctrl-C."""
    console = Console()
    if not watch:
        console.print(view())
        return
    with Live(view(), console=console, auto_refresh=False) as live:
        while True:
            time.sleep(_EVERY_S)
            live.update(view(), refresh=True)


def say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)
