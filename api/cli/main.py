"""`llm-edge`, the command line. This file only lists the commands: each is imported when it is called, so that help is quick."""

import importlib
from importlib.metadata import version
from typing import Annotated, Any

import typer
from typer.core import TyperGroup

from api.cli import parts

_ELSEWHERE = {
    "up": ("api.cli.up:up", "Run everything on this machine: Valkey, API, workers, simulated providers."),
    "demo": ("api.cli.demo:demo", "Run a batch of 1,000 jobs on a stack of its own, show it, and clean up."),
    "batch": ("api.cli.batch:app", "Submit batches, watch them, fetch their answers."),
    "providers": ("api.cli.providers:app", "Show the providers' condition; enable, disable and drain them."),
    "workers": ("api.cli.workers:workers", "Show the workers that are alive."),
    "init": ("api.cli.init:init", "Write ./providers.yaml from the provider keys in the environment."),
    "keys": ("api.cli.keys:app", "Make API keys for those who may call."),
    "config": ("api.cli.config:app", "Look at the configuration."),
}
"""Command -> where it is, and its line in the list of commands."""


class _Group(TyperGroup):
    """Lists commands without importing them."""

    def resolve_command(self, ctx: Any, args: list[str]) -> tuple[str | None, Any, list[str]]:
        name, command, rest = super().resolve_command(ctx, args)
        return name, _load(name) if name in _ELSEWHERE else command, rest


def _load(name: str) -> Any:
    """The command itself, from a function or a group of commands."""
    module, _, attribute = _ELSEWHERE[name][0].partition(":")
    found = getattr(importlib.import_module(module), attribute)
    if isinstance(found, typer.Typer):
        return typer.main.get_command(found)
    alone = typer.Typer(add_completion=False)
    alone.command(name)(found)
    return typer.main.get_command(alone)


app = typer.Typer(
    cls=_Group,
    name="llm-edge",
    help="Submit LLM completions, one batch of fifty thousand or a handful, and run the fleet that completes them.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,  # its tracebacks show local variables, and with them prompts and keys
)


def _show_version(asked: bool) -> None:
    if asked:
        print(f"llm-edge {version('llm-edge-agent')}")
        raise typer.Exit


@app.callback()
def _group(
    _version: Annotated[
        bool,
        typer.Option("--version", callback=_show_version, is_eager=True, help="Print the version and end."),
    ] = False,
) -> None:
    """What stands before any command."""


def _stand_in() -> None:
    """Never called: `_Group` puts the real command in its place."""


for _name, (_, _help) in _ELSEWHERE.items():
    app.command(_name, help=_help)(_stand_in)

app.command("api")(parts.api)
app.command("worker")(parts.worker)
app.command("simulate", add_help_option=False, context_settings=parts.PASSED_THROUGH)(parts.simulate)


if __name__ == "__main__":
    app()
