"""`llm-edge up`: everything on one machine, until Ctrl-C."""

import os
import re
import sys
from pathlib import Path
from typing import Annotated

import typer

from api.up.plan import cores
from api.up.stack import Options, bring_up
from shared.config import load_settings
from shared.errors import EdgeError
from shared.worker_command import check_pool

_UNITS = {"": 1, "k": 2**10, "m": 2**20, "g": 2**30}


def up(  # noqa: PLR0913, PLR0917  each is an option of the command line
    port: Annotated[
        int | None,
        typer.Option(
            min=0, max=65535, help="Port of the API; 0 picks a free one. Default: SERVER_PORT, else 8080."
        ),
    ] = None,
    host: Annotated[
        str | None,
        typer.Option(
            help="Address of the API, loopback unless there are API keys. Default: SERVER_HOST, else 127.0.0.1."
        ),
    ] = None,
    workers: Annotated[
        int | None, typer.Option(min=1, max=256, help="Worker processes. Default: one per core.")
    ] = None,
    concurrency: Annotated[
        int | None,
        typer.Option(
            min=1, help="Provider calls in flight per worker. Default: LLM_EDGE_CONCURRENCY, else 64."
        ),
    ] = None,
    pool: Annotated[
        str | None,
        typer.Option(help="Workers' pool: gevent or threads. Default: LLM_EDGE_POOL, else gevent."),
    ] = None,
    folder: Annotated[
        Path, typer.Option("--dir", envvar="LLM_EDGE_DIR", help="Folder of data, password and logs.")
    ] = Path(".llm-edge"),
    maxmemory: Annotated[
        str | None,
        typer.Option(
            envvar="LLM_EDGE_MAXMEMORY",
            help="Memory of the embedded server, e.g. 2gb. Default: half of the machine's.",
        ),
    ] = None,
    grace: Annotated[
        float,
        typer.Option(min=0, help="Seconds that running calls get to end when stopping.", show_default=True),
    ] = 30.0,
    simulate: Annotated[
        str, typer.Option(help="Options for the simulated providers; `llm-edge simulate --help` lists them.")
    ] = "",
    no_simulator: Annotated[
        bool,
        typer.Option("--no-simulator", help="Fail rather than simulate where no provider is configured."),
    ] = False,
    log_level: Annotated[
        str | None, typer.Option(help="Level of the parts' logs. Default: LOG_LEVEL, else info.")
    ] = None,
) -> None:
    """Run everything on this machine: an embedded Valkey, the API and workers.

    Where no provider is configured, providers are simulated. With REDIS_URL set, that server is used.

    Prints `ready URL` once a job could run. Ctrl-C stops it all.

    Started again in the same folder, it goes on with what was unfinished.
    """
    try:
        settings = load_settings()
        options = Options(
            folder=folder,
            host=settings.server_host if host is None else host,
            port=settings.server_port if port is None else port,
            workers=cores() if workers is None else workers,
            grace_s=grace,
            concurrency=concurrency,
            pool=check_pool(pool or settings.pool, "llm-edge up"),
            log_level=log_level,
            maxmemory=None if maxmemory is None else bytes_of(maxmemory),
            simulate=simulate,
            simulator=not no_simulator,
        )
        bring_up(options, settings, os.environ, say)
    except EdgeError as exc:
        print(f"llm-edge up: {exc.message}", file=sys.stderr, flush=True)
        raise typer.Exit(1) from exc


def say(line: str) -> None:
    """A line to whoever watches; a closed terminal or pipe is no reason to stop."""
    try:
        print(line, flush=True)
    except OSError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def bytes_of(size: str) -> int:
    """`2gb`, `512m`, `1048576` in bytes. Raises typer.BadParameter for anything else, and for less than 16 MiB."""
    found = re.fullmatch(r"\s*(\d+)\s*([kmg]?)b?\s*", size.lower())
    if found is None:
        raise typer.BadParameter(
            f"{size!r} is no size; write for example 2gb or 512mb", param_hint="--maxmemory"
        )
    value = int(found[1]) * _UNITS[found[2]]
    if value < 16 * 2**20:
        raise typer.BadParameter("the server needs at least 16mb", param_hint="--maxmemory")
    return value
