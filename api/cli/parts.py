"""`llm-edge api`, `worker`, `simulate`: one part of the fleet each, run in the foreground."""

import os
import sys
from typing import Annotated, Any, NoReturn

import typer

# what is heavy is imported by the command that needs it: this module is loaded for every `llm-edge --help`

PASSED_THROUGH: dict[str, Any] = {"allow_extra_args": True, "ignore_unknown_options": True}
"""Context settings of a command whose words all belong to another program."""


def api() -> None:
    """Serve the HTTP API at SERVER_HOST:SERVER_PORT (default 127.0.0.1:8080) until SIGTERM or Ctrl-C."""
    from api.server import serve  # noqa: PLC0415  heavy
    from shared.config import load_settings  # noqa: PLC0415  heavy
    from shared.errors import EdgeError  # noqa: PLC0415  heavy

    try:
        serve(load_settings())
    except EdgeError as exc:
        _refuse("api", exc.message, code=1)


def worker(
    concurrency: Annotated[
        int | None,
        typer.Option(
            min=1, max=10_000, help="Provider calls in flight. Default: LLM_EDGE_CONCURRENCY, else 64."
        ),
    ] = None,
    name: Annotated[
        str | None, typer.Option(help="Celery's name of the worker. Default: w@HOST-PID.", metavar="w@HOST-1")
    ] = None,
    pool: Annotated[
        str | None, typer.Option(help="gevent or threads. Default: LLM_EDGE_POOL, else gevent.")
    ] = None,
    loglevel: Annotated[
        str | None,
        typer.Option(
            "--loglevel", help="Also per module: info,workers=debug. Default: LOG_LEVEL, else info."
        ),
    ] = None,
) -> None:
    """Run one worker process: plain Celery (`celery -A workers.app worker`), with the options that fit it.

    For more cores run more of them. The first Ctrl-C or SIGTERM lets running calls end.
    """
    from shared.config import load_settings  # noqa: PLC0415  heavy
    from shared.errors import ConfigError  # noqa: PLC0415  heavy
    from shared.worker_command import worker_command  # noqa: PLC0415  with what it imports

    environ = dict(os.environ)
    if concurrency is not None:
        environ["LLM_EDGE_CONCURRENCY"] = str(concurrency)
    if loglevel is not None:
        environ["LOG_LEVEL"] = loglevel
    try:
        settings = load_settings(environ)  # every fault at once, before Celery meets the first
    except ConfigError as exc:
        _refuse("worker", exc.message, code=1)
    try:
        command = worker_command(name=name, pool=pool or settings.pool)
    except ConfigError as exc:
        _refuse("worker", exc.message, code=2)
    _become(command, environ)


def simulate(ctx: typer.Context) -> None:
    """Run the provider simulator. Its own options: `llm-edge simulate --help`."""
    _become([sys.executable, "-m", "workers.simulator", *ctx.args], dict(os.environ))


def _become(command: list[str], environ: dict[str, str]) -> NoReturn:
    """Go on as that program: the same process, with its signals and its exit code."""
    sys.stdout.flush()
    sys.stderr.flush()
    os.execvpe(command[0], command, environ)  # noqa: S606  our own programs, and no shell between


def _refuse(command: str, message: str, *, code: int) -> NoReturn:
    print(f"llm-edge {command}: {message}", file=sys.stderr, flush=True)
    raise typer.Exit(code)
