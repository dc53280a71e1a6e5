"""How figures and foreign text are written for people to read. Pure."""

import math
from decimal import Decimal

from shared.money import format_usd

_KIB = 1024
_MINUTE_S = 60
_HOUR_S = 3600


def count(number: int, noun: str) -> str:
    """`1 job`, `1,000 jobs`."""
    return f"{number:,} {noun}" if number == 1 else f"{number:,} {noun}s"


def size(number: int) -> str:
    """Bytes as `312 bytes`, `4.0 KiB`, `200.0 MiB`."""
    if number < _KIB:
        return count(number, "byte")
    unit = min(int(math.log(number, _KIB)), 3)
    return f"{number / _KIB**unit:.1f} {('KiB', 'MiB', 'GiB')[unit - 1]}"


def duration(seconds: float) -> str:
    """`0.31 s`, `5 s`, `42 s`, `3 min 5 s`, `2 h 4 min`."""
    if seconds < 10 and seconds != int(seconds):  # noqa: PLR2004  beyond, hundredths say nothing
        return f"{seconds:.2f} s"
    whole = round(seconds)
    if whole < _MINUTE_S:
        return f"{whole} s"
    if whole < _HOUR_S:
        return f"{whole // _MINUTE_S} min {whole % _MINUTE_S} s"
    return f"{whole // _HOUR_S} h {whole % _HOUR_S // _MINUTE_S} min"


def usd(amount: Decimal | None) -> str:
    """`$0.0312`; `unknown` where a price is missing. Beyond two decimals only as many as show four figures."""
    if amount is None:
        return "unknown"
    places = max(2, 3 - amount.adjusted()) if amount else 2
    text = format_usd(round(amount, places))
    whole, _, cents = text.partition(".")
    return f"${int(whole):,}.{cents.ljust(2, '0')}"


def printable(text: str, most: int = 1000) -> str:
    """Foreign text on one line, without control characters that a terminal would obey; at most `most` characters."""
    line = " ".join(text.split())
    safe = "".join(char if char.isprintable() else "\N{REPLACEMENT CHARACTER}" for char in line[: most + 1])
    return safe if len(safe) <= most else f"{safe[: most - 1]}…"
