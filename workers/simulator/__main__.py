"""`python -m workers.simulator`, alias `llm-edge simulate`: the simulator's command line."""

from contextlib import closing
from pathlib import Path
from typing import Annotated, Any

import typer

from shared.errors import ConfigError
from workers.simulator.app import App
from workers.simulator.behaviour import Behaviour
from workers.simulator.counts import read_counts
from workers.simulator.options import read_behaviours
from workers.simulator.server import listen, serve
from workers.simulator.witness import DEFAULT_SIZE, Witness

PROGRAM = "llm-edge simulate"

_PROCESS, _PACE, _LIMITS, _FAULTS = "Process", "Pace and length", "Limits", "Faults"


def _option(group: str, text: str, **more: Any) -> Any:
    return typer.Option(help=text, rich_help_panel=group, show_default=False, **more)


Port = Annotated[
    int, _option(_PROCESS, "Port to listen on; 0 picks a free one. Default: 8090.", min=0, max=65535)
]
Host = Annotated[str, _option(_PROCESS, "Address to listen on. Default: 127.0.0.1.")]
PersonaTexts = Annotated[
    list[str] | None,
    _option(
        _PROCESS,
        "NAME:setting=value,… or NAME:{JSON}: a provider of its own under /p/NAME/v1. It has the settings below except"
        " those named here. Lists are joined by +, as in error_statuses=500+503. Repeatable.",
        metavar="NAME:SETTINGS",
    ),
]
Seed = Annotated[int, _option(_PROCESS, "The same seed gives the same outcomes. Default: 0.")]
Log = Annotated[
    Path | None, _option(_PROCESS, "Append each call, once it has ended, to this file as a JSON line.")
]
TokenCounts = Annotated[
    Path | None,
    _option(
        _PROCESS,
        "A JSON object of prompts' tokens as a tokenizer has counted them, by the first 16 hex digits of the prompt's"
        " sha256. Others count as four characters a token.",
    ),
]
LogSize = Annotated[int, _option(_PROCESS, f"Calls kept in memory. Default: {DEFAULT_SIZE}.", min=1)]

Latency = Annotated[
    str | None,
    _option(_PACE, "Median seconds until an answer; 0 answers at once. Default: 0.", metavar="SECONDS"),
]
LatencyP95 = Annotated[
    str | None,
    _option(
        _PACE, "Its 95th percentile (lognormal). Default: every call takes --latency-s.", metavar="SECONDS"
    ),
]
TokenTime = Annotated[
    str | None, _option(_PACE, "Seconds more for each output token. Default: 0.", metavar="SECONDS")
]
Tokens = Annotated[
    str | None, _option(_PACE, "Mean length of answers in tokens. Default: 40.", metavar="NUMBER")
]
Spread = Annotated[str | None, _option(_PACE, "Its standard deviation. Default: 10.", metavar="NUMBER")]

Rpm = Annotated[str | None, _option(_LIMITS, "Requests per minute; 429 above.", metavar="NUMBER")]
Tpm = Annotated[str | None, _option(_LIMITS, "Tokens per minute; 429 above.", metavar="NUMBER")]
Concurrency = Annotated[str | None, _option(_LIMITS, "Calls at once; 429 above.", metavar="NUMBER")]
Capacity = Annotated[
    str | None,
    _option(
        _LIMITS, "Calls at once at full speed; above, each takes longer in proportion.", metavar="NUMBER"
    ),
]
Models = Annotated[
    str | None,
    _option(_LIMITS, "Known models, joined by commas; others get 404. Default: any.", metavar="NAMES"),
]

ErrorRate = Annotated[
    str | None, _option(_FAULTS, "Share of calls that get an error status, 0 to 1.", metavar="RATE")
]
Statuses = Annotated[
    str | None, _option(_FAULTS, "Which ones, joined by commas. Default: 500,503.", metavar="STATUSES")
]
DropRate = Annotated[
    str | None, _option(_FAULTS, "Share of calls whose socket is closed without an answer.", metavar="RATE")
]
HangRate = Annotated[str | None, _option(_FAULTS, "Share of calls that are never answered.", metavar="RATE")]
MalformedRate = Annotated[
    str | None, _option(_FAULTS, "Share of calls answered 200 with a body that is no JSON.", metavar="RATE")
]
RetryAfter = Annotated[
    str | None,
    _option(
        _FAULTS,
        "Retry-After of drawn 429, 503 and 529 answers and of the outage 503, in seconds.",
        metavar="SECONDS",
    ),
]
Outage = Annotated[
    str | None,
    _option(_FAULTS, "All calls: none, 503, drop, hang, 401 or 429_quota. Default: none.", metavar="KIND"),
]
Rules = Annotated[
    list[str] | None,
    _option(
        _FAULTS,
        'A JSON object for prompts that a regex finds, such as {"match": "^slow", "latency_s": 30} or'
        ' {"match": "poison", "status": 500, "times": 2}; also drop, hang, malformed, retry_after_s. Repeatable; the'
        " first that matches counts.",
        metavar="JSON",
    ),
]

app = typer.Typer(add_completion=False)


@app.command()
def simulate(  # noqa: PLR0913, PLR0917  each is an option of the command line
    port: Port = 8090,
    host: Host = "127.0.0.1",
    persona: PersonaTexts = None,
    seed: Seed = 0,
    log: Log = None,
    log_size: LogSize = DEFAULT_SIZE,
    token_counts: TokenCounts = None,
    latency_s: Latency = None,
    latency_p95_s: LatencyP95 = None,
    time_per_output_token_s: TokenTime = None,
    completion_tokens: Tokens = None,
    completion_tokens_spread: Spread = None,
    rpm: Rpm = None,
    tpm: Tpm = None,
    concurrency: Concurrency = None,
    capacity: Capacity = None,
    models: Models = None,
    error_rate: ErrorRate = None,
    error_statuses: Statuses = None,
    drop_rate: DropRate = None,
    hang_rate: HangRate = None,
    malformed_rate: MalformedRate = None,
    retry_after_s: RetryAfter = None,
    outage: Outage = None,
    rule: Rules = None,
) -> None:
    """A provider that speaks OpenAI's API and makes every answer up, as fast, slow or broken as you want it.

    Prints `listening URL`; point an OpenAI SDK or a providers file at URL/v1, or at URL/p/NAME/v1 for a persona of its own.

    While it runs, `curl -X PATCH URL/simulator/behaviour -d '{"outage": "503"}'` begins an outage, "none" ends it.
    URL/simulator/stats and URL/simulator/calls tell what was received. See ops/docs/simulator.md.
    """
    given = {
        name: value
        for name, value in locals().items()
        if name in Behaviour.model_fields and value is not None
    }
    try:
        behaviours = read_behaviours(given, rule or [], persona or [])
        counts = {} if token_counts is None else read_counts(token_counts)
        listener = listen(host, port)
        with closing(Witness(log_size, log)) as witness:
            serve(App(behaviours, seed, witness, log_size, counts), listener)
    except ConfigError as exc:
        for fault in exc.faults:
            typer.echo(f"{PROGRAM}: {fault}", err=True)
        raise typer.Exit(2) from exc


if __name__ == "__main__":
    app(prog_name=PROGRAM)
