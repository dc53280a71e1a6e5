"""The control surface, /simulator/…: switch behaviours, read the witness. For this machine only."""

from collections.abc import Callable
from typing import Any
from urllib.parse import parse_qs

import msgspec

from shared.errors import ConfigError, RequestError
from workers.simulator.behaviour import read_json
from workers.simulator.personas import DEFAULT, Personas
from workers.simulator.witness import Witness

DEFAULT_PAGE = 1000
LARGEST_PAGE = 10_000
_DIGITS = 15

Query = dict[str, str]
Answer = Callable[[Query, bytes, float], bytes]

_encode = msgspec.json.Encoder().encode


class Control:
    """`actions` by method and path; each takes the query, the body and the monotonic time, and returns JSON."""

    def __init__(self, personas: Personas, witness: Witness) -> None:
        self._personas = personas
        self._witness = witness
        self.actions: dict[tuple[str, str], Answer] = {
            ("GET", "/simulator/behaviour"): self._behaviour,
            ("PATCH", "/simulator/behaviour"): self._patch,
            ("POST", "/simulator/reset"): self._reset,
            ("GET", "/simulator/calls"): self._calls,
            ("GET", "/simulator/stats"): self._stats,
        }

    def _behaviour(self, query: Query, _: bytes, now: float) -> bytes:
        return _encode(
            self._personas.get(query.get("persona", DEFAULT), now).behaviour.model_dump(mode="json")
        )

    def _patch(self, query: Query, body: bytes, now: float) -> bytes:
        settings = read_json(body, "PATCH /simulator/behaviour")
        behaviour = self._personas.patch(query.get("persona", DEFAULT), settings, now)
        return _encode(behaviour.model_dump(mode="json"))

    def _reset(self, _query: Query, _body: bytes, now: float) -> bytes:
        self._witness.clear()
        self._personas.reset(now)
        return b'{"status":"reset"}'

    def _calls(self, query: Query, _body: bytes, _now: float) -> bytes:
        after = _number(query, "after", 0, 0, None)
        limit = _number(query, "limit", DEFAULT_PAGE, 1, LARGEST_PAGE)
        calls = self._witness.after(after, limit)
        return _encode({"calls": calls, "last": calls[-1].n if calls else after})

    def _stats(self, _query: Query, _body: bytes, _now: float) -> bytes:
        return _encode(self._personas.counters())


def read_query(raw: bytes) -> Query:
    """The last value of each name. Raises RequestError."""
    try:
        return {name: values[-1] for name, values in parse_qs(raw.decode(), keep_blank_values=True).items()}
    except ValueError as exc:
        raise RequestError("The query is not valid: use names and values in percent-encoded UTF-8.") from exc


def _number(query: Query, name: str, default: int, least: int, most: int | None) -> int:
    """Raises RequestError."""
    text = query.get(name, str(default))
    if (
        not (text.isascii() and text.isdigit() and len(text) <= _DIGITS)
        or int(text) < least
        or (most and int(text) > most)
    ):
        wanted = f"a whole number from {least}" + (f" to {most}" if most else "")
        raise RequestError(f"{name} must be {wanted} (got {text[:40]!r}).", param=name)
    return int(text)


def refused(error: ConfigError) -> dict[str, Any]:
    """A faulty setting as a 400: the message has one fault a line."""
    return {
        "error": {
            "message": error.message,
            "type": "invalid_request_error",
            "param": None,
            "code": "invalid_behaviour",
            "faults": error.faults,
        }
    }
