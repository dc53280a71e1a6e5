"""`llm-edge workers`: those that are alive, as their heartbeats tell, as a table that may refresh."""

import json
import time
from collections.abc import Mapping
from typing import Annotated, Any

import typer
from rich.table import Table

from api.cli.client import DEFAULT_URL
from api.cli.talk import Talk, show
from api.cli.words import duration, printable

_COLUMNS = ("worker", "pool", "version", "calls", "of", "lag", "up", "heard", "providers file")
_WORDS = frozenset({"worker", "pool", "version", "providers file"})


def workers(
    url: Annotated[
        str, typer.Option(envvar="LLM_EDGE_URL", help="The server. A key is read from LLM_EDGE_API_KEY.")
    ] = DEFAULT_URL,
    watch: Annotated[bool, typer.Option("--watch", help="Refresh every second until Ctrl-C.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="One JSON document on standard output.")] = False,
) -> None:
    """Show the workers that are alive. It needs a key for administration where the server has keys."""
    with Talk(url, "llm-edge workers", as_json=as_json) as talk:
        if as_json:
            print(json.dumps(talk.client.workers(), indent=2))
            return
        show(lambda: table(talk.client.workers(), time.time()), watch=watch)


def table(page: Mapping[str, Any], now: float) -> Table:
    """The page as a table. Tolerant of what a server leaves out."""
    shown = Table(box=None, header_style="bold", pad_edge=False)
    for column in _COLUMNS:
        shown.add_column(column, justify="left" if column in _WORDS else "right", overflow="fold")
    for worker in page.get("data") or []:
        shown.add_row(*row(worker, now))
    if not page.get("data"):
        shown.caption = "no worker is alive: start one with `llm-edge worker`"
    return shown


def row(worker: Mapping[str, Any], now: float) -> list[str]:
    file, fault = worker.get("providers_file"), worker.get("providers_file_fault")
    return [
        printable(str(worker.get("id")), 100),
        printable(str(worker.get("pool")), 20),
        printable(str(worker.get("version")), 20),
        f"{worker.get('in_flight', 0):,}",
        f"{worker.get('concurrency', 0):,}",
        f"{1000 * worker.get('loop_lag_s', 0.0):.0f} ms",
        duration(max(0, round(now - worker.get("started_at", now)))),
        f"{max(0.0, now - worker.get('heard_at', now)):.1f} s ago",
        printable(f"{file or '-'}{f': what lies there now is refused: {fault}' if fault else ''}", 300),
    ]
