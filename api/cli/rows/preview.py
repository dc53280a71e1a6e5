"""What is about to be sent, shown before it is: the first request, and the figures."""

import json
from typing import TextIO

from api.cli.rows.asked import Asked
from api.cli.rows.price import estimate, in_words, output_bound
from api.cli.rows.survey import Survey
from api.cli.words import count

_MOST_CHARS = 1200


def figures(asked: Asked, found: Survey) -> list[str]:
    """Rows, tokens and cost, one line each."""
    model, bound = asked.recipe.model, output_bound(asked.recipe.parameters)
    asides = [
        (found.answered, "answered already"),
        (found.blank, "with nothing to ask"),
        (found.to_send - found.again, "to send"),
        (found.again, "to send again after a failure"),
    ]
    words = ", ".join(f"{number:,} {what}" for number, what in asides if number) or "none"
    lines = [f"rows     {found.rows:,}: {words}"]
    if found.to_send:
        if found.parts > 1:
            lines.append(f"batches  {found.parts:,}, one after the other")
        out = f", at most {found.to_send * bound:,} out" if bound else ""
        lines.append(f"tokens   about {found.tokens:,} in (estimated from the text){out}")
        lines.append(f"cost     {in_words(model, estimate(model, found.to_send, found.tokens, bound))}")
    return lines


def show(asked: Asked, found: Survey, stream: TextIO) -> None:
    """The first request in a panel, and the figures below it."""
    from rich.console import Console  # noqa: PLC0415  only people look at it
    from rich.panel import Panel  # noqa: PLC0415  as above
    from rich.text import Text  # noqa: PLC0415  as above

    console = Console(file=stream, highlight=False, width=None if stream.isatty() else 100)
    if found.first is not None:
        body = Text()
        for message in asked.recipe.messages(found.first.row):
            body.append(f"{message['role']}: ", style="bold")
            body.append(f"{_readable(message['content'])}\n")
        body.append(f"model: {asked.recipe.model}{_parameters(asked)}", style="dim")
        console.print(
            Panel(
                body, title=Text(f"{found.first.row.place}, the first of {count(found.to_send, 'request')}")
            )
        )
    for line in figures(asked, found):
        console.print(Text(line))


def _parameters(asked: Asked) -> str:
    shown = (f"{name}: {json.dumps(value)}" for name, value in asked.recipe.parameters.items())
    return "".join(f", {word}" for word in shown)


def _readable(text: str) -> str:
    """Without control characters that a terminal would obey, and not longer than a look."""
    cut = text if len(text) <= _MOST_CHARS else f"{text[: _MOST_CHARS - 1]}…"
    return "".join(
        char if char.isprintable() or char in "\n\t" else "\N{REPLACEMENT CHARACTER}" for char in cut
    )
