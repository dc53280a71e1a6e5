"""`llm-edge providers`: their condition as the fleet sees it, as a table that may refresh; enable, disable and drain them."""

import json
import time
from collections.abc import Mapping, Sequence
from typing import Annotated, Any

import typer
from rich.console import Group
from rich.table import Table
from rich.text import Text

from api.cli.client import DEFAULT_URL
from api.cli.limit_lines import limit_lines
from api.cli.outcome import ANSWER_CODES
from api.cli.talk import Talk, show
from api.cli.words import count, duration, printable

app = typer.Typer(
    help="Show the providers' condition; enable, disable and drain them.", invoke_without_command=True
)

AsJson = Annotated[bool, typer.Option("--json", help="One JSON document on standard output.")]
ProviderId = Annotated[str, typer.Argument(help="The provider's id in the providers file.")]
_COMMAND = "llm-edge providers"
_COLUMNS = ("provider", "state", "ok", "avg", "p50", "p95", "p99", "calls", "failed", "now", "why")


@app.callback()
def _show(
    ctx: typer.Context,
    url: Annotated[
        str, typer.Option(envvar="LLM_EDGE_URL", help="The server. A key is read from LLM_EDGE_API_KEY.")
    ] = DEFAULT_URL,
    watch: Annotated[bool, typer.Option("--watch", help="Refresh every second until Ctrl-C.")] = False,
    as_json: AsJson = False,
) -> None:
    """Show the providers' condition. It needs a key for administration where the server has keys."""
    ctx.obj = url
    if ctx.invoked_subcommand is not None:
        return
    with Talk(url, _COMMAND, as_json=as_json) as talk:
        if as_json:
            print(json.dumps(talk.client.providers(), indent=2))
            return
        show(lambda: view(talk.client.providers(), time.time()), watch=watch)


@app.command(epilog=ANSWER_CODES)
def enable(ctx: typer.Context, provider_id: ProviderId, as_json: AsJson = False) -> None:
    """Let a provider serve again: jobs that wait for it come back, and an open breaker probes at once."""
    _change(ctx, provider_id, "enable", as_json=as_json)


@app.command(epilog=ANSWER_CODES)
def disable(ctx: typer.Context, provider_id: ProviderId, as_json: AsJson = False) -> None:
    """Begin no more calls to a provider, from any worker, until it is enabled."""
    _change(ctx, provider_id, "disable", as_json=as_json)


@app.command(epilog=ANSWER_CODES)
def drain(ctx: typer.Context, provider_id: ProviderId, as_json: AsJson = False) -> None:
    """Disable a provider, and show when the calls under way there have ended: `draining`, then `drained`."""
    _change(ctx, provider_id, "drain", as_json=as_json)


def _change(ctx: typer.Context, provider_id: str, action: str, *, as_json: bool) -> None:
    with Talk(ctx.obj, _COMMAND, as_json=as_json) as talk:
        found = talk.client.change_provider(provider_id, action)
        if as_json:
            print(json.dumps(found, indent=2))
            return
        done = f"{action}d" if action != "drain" else "disabled"
        if action == "enable" and not found.get("enabled"):
            done = "still disabled: the providers file says `enabled: false`"
        print(", ".join(filter(None, [f"{provider_id}  {done}", why(found, time.time())])))


def view(found: Mapping[str, Any], now: float) -> Group:
    """The table, and under it the limits in use, and which providers file is in force."""
    lines = [*limit_lines(found), *config_lines(found.get("config") or [], now)]
    return Group(table(found, now), *(Text(line) for line in lines))


def config_lines(config: Sequence[Mapping[str, Any]], now: float) -> list[str]:
    """One line where all processes agree; a line each where they differ, or one of them refuses what lies there now."""
    told = {(each.get("version"), each.get("fault")) for each in config}
    if not config or told == {(None, None)}:
        return []
    if len(told) == 1 and config[0].get("fault") is None:
        where = "1 process" if len(config) == 1 else f"all {len(config):,} processes"
        latest = max(each.get("loaded_at") or 0 for each in config)
        return [f"providers file {config[0].get('version')} in {where}, loaded {_ago(latest, now)}"]
    return [_config_line(each, now) for each in config]


def _config_line(each: Mapping[str, Any], now: float) -> str:
    loaded_at, fault = each.get("loaded_at"), each.get("fault")
    loaded = f", loaded {_ago(loaded_at, now)}" if loaded_at else ""
    refused = f"; what lies there now is refused: {fault}" if fault else ""
    line = f"{each.get('part')} {each.get('process')}: providers file {each.get('version') or 'unknown'}{loaded}{refused}"
    return printable(line, 500)


def _ago(at: float, now: float) -> str:
    return f"{duration(max(0, round(now - at)))} ago"


def table(page: Mapping[str, Any], now: float) -> Table:
    """The providers' page as a table. Tolerant of what a server leaves out."""
    shown = Table(box=None, header_style="bold", pad_edge=False)
    for column in _COLUMNS:
        words = column in {"provider", "state", "why"}
        shown.add_column(
            column, justify="left" if words else "right", no_wrap=column != "why", overflow="ellipsis"
        )
    for provider in page.get("data") or []:
        shown.add_row(*row(provider, now))
    return shown


def row(provider: Mapping[str, Any], now: float) -> list[str]:
    health = provider.get("health") or {}
    return [
        printable(str(provider.get("id")), 64),
        _state(provider),
        _share(health.get("success_rate")),
        *(_seconds(health.get(name)) for name in ("latency_s", "p50_s", "p95_s", "p99_s")),
        f"{health.get('calls', 0):,}",
        f"{health.get('failures', 0):,}",
        f"{provider.get('in_flight', 0):,}",
        why(provider, now),
    ]


def _state(provider: Mapping[str, Any]) -> str:
    if provider.get("drain"):
        return printable(str(provider["drain"]), 20)
    if not provider.get("enabled"):
        return "disabled"
    if provider.get("out_of_service") and not provider.get("serving"):
        return "out of service"
    return "serving" if provider.get("serving") else printable(str(provider.get("state")), 20)


def why(provider: Mapping[str, Any], now: float) -> str:
    """In words, what keeps jobs from a provider; else its last error, if that was its last word."""
    if provider.get("drain") or not provider.get("enabled"):
        return _drain(provider) if provider.get("drain") else ""
    if outs := provider.get("out_of_service"):
        return _out_of_service(outs, now)
    for breaker in provider.get("breakers") or []:
        if breaker.get("next_probe_s") is not None:
            return printable(
                f"{breaker.get('reason')}, tried again in {round(breaker['next_probe_s'])} s", 100
            )
    if provider.get("cools_down_until"):
        return f"cools down for {max(0, round(provider['cools_down_until'] - now))} s"
    health = provider.get("health") or {}
    error = health.get("last_error")
    if error and health.get("consecutive_failures"):
        return printable(f"{health['consecutive_failures']} failures in a row: {error.get('code')}", 100)
    return "serving" if provider.get("serving") else ""


def _out_of_service(outs: Sequence[Mapping[str, Any]], now: float) -> str:
    """The first of them, where it is, and how many there are besides."""
    out, others = outs[0], len(outs) - 1
    what = f"model {out.get('model')}" if out.get("model") else "key"
    where = f" at {out.get('endpoint')}" if out.get("endpoint") else ""
    again = max(0, round(out.get("next_probe_at", now) - now))
    more = f"; and {others} more" if others else ""
    return printable(f"{what} refused{where} ({out.get('code')}), tried again in {again} s{more}", 120)


def _drain(provider: Mapping[str, Any]) -> str:
    if provider["drain"] == "drained":
        return "no call is under way there: it may be taken away"
    calls = provider.get("in_flight", 0)
    return f"{count(calls, 'call')} under way there" if calls else "not every worker has reported since"


def _share(value: Any) -> str:
    return f"{100 * value:.1f} %" if isinstance(value, float | int) else "-"


def _seconds(value: Any) -> str:
    return f"{value:.2f} s" if isinstance(value, float | int) else "-"
