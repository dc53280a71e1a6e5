"""Lines of batch files, pure: what an input line must be, and how output and error lines look (OpenAI's wire)."""

from collections.abc import Iterable, Iterator, Sequence
from typing import Any, Protocol

import msgspec

from shared.errors import ProviderError
from shared.jobs import Fault, Try
from shared.routing_asked import RoutingAsked, RoutingWish, WrongRouting

ENDPOINTS = ("/v1/chat/completions", "/v1/completions")

MAX_LINE_BYTES = 16 * 1024 * 1024
"""A longer line is a fault: one line must fit in memory."""

MAX_FAULTS = 100
"""A file with more of them is not read to its end."""

_BOM = b"\xef\xbb\xbf"


class _Input(msgspec.Struct):
    custom_id: str
    method: str
    url: str
    body: msgspec.Raw


class _Body(msgspec.Struct):
    model: str
    stream: bool | None = None
    messages: list[msgspec.Raw] | None = None
    prompt: msgspec.Raw | msgspec.UnsetType = msgspec.UNSET
    routing: RoutingWish | msgspec.UnsetType | None = msgspec.UNSET


class Offer(Protocol):
    """What a body's names are checked against: `shared.offer`."""

    def serves(self, model: str) -> bool: ...

    def wrong(self, asked: RoutingAsked, model: str) -> WrongRouting | None: ...

    def beyond(self, body: bytes, model: str, asked: RoutingAsked | None) -> Fault | None:
        """What keeps it from running under a ceiling on what may be spent."""
        ...


_input = msgspec.json.Decoder(_Input)
_body = msgspec.json.Decoder(_Body)
_object = msgspec.json.Decoder(dict[str, msgspec.Raw])
_encode = msgspec.json.Encoder().encode


class Place(msgspec.Struct, frozen=True):
    """A line of a file: its number from 1 on, where it begins, and its bytes without the line end (None: too long)."""

    number: int
    offset: int
    data: bytes | None


class Checked(msgspec.Struct, frozen=True):
    """A line that can run."""

    custom_id: str
    model: str


class Request(msgspec.Struct, frozen=True):
    """What a worker needs of an input line. A lone job has no `custom_id`."""

    custom_id: str | None
    model: str
    body: bytes
    """As it is sent: without `routing`, which is ours."""
    routing: RoutingAsked | None = None


class TryShown(msgspec.Struct, frozen=True, kw_only=True):
    """A call that brought no answer, as an output line shows it."""

    provider: str
    status: int | None
    code: str
    duration_s: float
    charged: bool
    at: int


class Routing(msgspec.Struct, frozen=True, kw_only=True):
    """Our extension of an output line: who answered, on which attempt, in how many seconds, for how much.

    `tries`: the calls before it that brought no answer, where there were any.
    """

    provider: str | None
    attempts: int
    duration_s: float
    cost_usd: str | None = None
    tries: tuple[TryShown, ...] | msgspec.UnsetType = msgspec.UNSET


def shown(tries: Sequence[Try]) -> tuple[TryShown, ...] | msgspec.UnsetType:
    return tuple(shown_try(call) for call in tries) or msgspec.UNSET


def shown_try(call: Try) -> TryShown:
    return TryShown(
        provider=call.provider,
        status=call.status or None,
        code=call.code,
        duration_s=round(call.duration_s, 4),
        charged=call.charged,
        at=int(call.at),
    )


def split_lines(chunks: Iterable[bytes]) -> Iterator[Place]:
    """The non-blank lines of a file that comes in chunks; never holds more than one line and one chunk."""
    number, offset = 0, 0
    parts: list[bytes] = []
    held = 0
    for chunk in chunks:
        pieces = chunk.split(b"\n")
        for piece in pieces[:-1]:
            number += 1
            size = held + len(piece)
            if (place := _place(number, offset, parts, piece, size)) is not None:
                yield place
            offset += size + 1
            parts, held = [], 0
        held += len(pieces[-1])
        if held <= MAX_LINE_BYTES:
            parts.append(pieces[-1])
        else:
            parts = []
    if held and (place := _place(number + 1, offset, parts, b"", held)) is not None:
        yield place


def _place(number: int, offset: int, parts: list[bytes], last: bytes, size: int) -> Place | None:
    if size > MAX_LINE_BYTES:
        return Place(number, offset, None)
    data = b"".join([*parts, last]) if parts else last
    if number == 1 and data.startswith(_BOM):
        data, offset = data[len(_BOM) :], offset + len(_BOM)
    data = data.removesuffix(b"\r")
    return Place(number, offset, data) if data and not data.isspace() else None


def check(place: Place, endpoint: str, offer: Offer) -> Checked | Fault:
    """Whether a line can run: its custom_id and model, or what is wrong with it."""
    line = place.number
    if place.data is None:
        return Fault(
            code="line_too_long",
            line=line,
            message=f"The line is longer than {MAX_LINE_BYTES} bytes; shorten it.",
        )
    try:
        if not place.data.isascii():
            place.data.decode("utf-8")
        found = _input.decode(place.data)
    except UnicodeDecodeError as exc:
        return Fault(
            code="invalid_encoding",
            line=line,
            message=f"The line is not UTF-8 (byte {exc.start + 1} of the line); save the file as UTF-8.",
        )
    except msgspec.ValidationError as exc:
        return Fault(code="invalid_request", line=line, param=_param(exc), message=_missing(exc))
    except (msgspec.DecodeError, RecursionError) as exc:
        return Fault(
            code="invalid_json_line", line=line, message=f"The line is not a JSON object: {_reason(exc)}."
        )
    return _check_fields(found, line, endpoint) or _check_body(found, line, endpoint, offer)


def checked_lines(
    chunks: Iterable[bytes], endpoint: str, offer: Offer, max_jobs: int
) -> Iterator[tuple[Place, Checked | Fault]]:
    """A batch's input: every line with what `check` says of it, custom_ids being distinct; no more than MAX_FAULTS faults.

    Behind `max_jobs` lines there is one fault more, and the end.
    """
    seen: set[str] = set()
    faults = 0
    for count, place in enumerate(split_lines(chunks), 1):
        if count > max_jobs:
            yield place, _too_many(place.number, max_jobs)
            return
        result = _checked(place, endpoint, offer)
        if isinstance(result, Checked):
            result = _distinct(result, place.number, seen)
        yield place, result
        faults += isinstance(result, Fault)
        if faults >= MAX_FAULTS:
            return


def _checked(place: Place, endpoint: str, offer: Offer) -> Checked | Fault:
    try:
        return check(place, endpoint, offer)
    except Exception as exc:  # noqa: BLE001  an edge: no line may keep its batch from being validated
        message = f"The line cannot be checked ({type(exc).__name__}); mend its body."
        return Fault(code="invalid_request", line=place.number, param="body", message=message)


def _too_many(line: int, max_jobs: int) -> Fault:
    message = f"The file has more than {max_jobs:,} lines; split it into several batches."
    return Fault(code="too_many_tasks", line=line, message=message)


def _distinct(checked: Checked, line: int, seen: set[str]) -> Checked | Fault:
    if checked.custom_id in seen:
        return Fault(
            code="duplicate_custom_id",
            line=line,
            param="custom_id",
            message=f"custom_id '{checked.custom_id[:100]}' stands on an earlier line; each must be its own.",
        )
    seen.add(checked.custom_id)
    return checked


def _check_fields(found: _Input, line: int, endpoint: str) -> Fault | None:
    if not found.custom_id:
        return Fault(
            code="missing_custom_id",
            line=line,
            param="custom_id",
            message="custom_id is empty; give each line its own.",
        )
    if found.method != "POST":
        return Fault(code="invalid_method", line=line, param="method", message="method must be 'POST'.")
    if found.url != endpoint:
        return Fault(
            code="mismatched_endpoint",
            line=line,
            param="url",
            message=f"url is '{found.url[:100]}' but the batch's endpoint is '{endpoint}'; they must be the same.",
        )
    return None


def _check_body(found: _Input, line: int, endpoint: str, offer: Offer) -> Checked | Fault:
    model = check_body(found.body, endpoint, offer)
    if isinstance(model, str):
        return Checked(found.custom_id, model)
    param = f"body.{model.param}" if model.param else "body"
    return Fault(code=model.code, line=line, param=param, message=model.message)


def check_body(raw: bytes | msgspec.Raw, endpoint: str, offer: Offer) -> str | Fault:
    """Whether a request's body can run: the model it asks for, or what is wrong with it."""
    try:
        body = _body.decode(raw)
    except (msgspec.DecodeError, RecursionError, UnicodeDecodeError) as exc:
        return Fault(code="invalid_request", message=f"The body is not right: {_reason(exc)}.")
    if body.stream:
        message = "stream is true; streaming is not supported. Leave it out."
        return Fault(code="stream_not_supported", param="stream", message=message)
    if endpoint == ENDPOINTS[0] and not body.messages:
        return Fault(code="invalid_request", param="messages", message="messages must be a non-empty list.")
    if endpoint == ENDPOINTS[1] and body.prompt is msgspec.UNSET:
        return Fault(code="invalid_request", param="prompt", message="prompt is missing.")
    return _unserved(body, offer) or offer.beyond(bytes(raw), body.model, body.routing or None) or body.model


def _unserved(body: _Body, offer: Offer) -> Fault | None:
    if body.routing and (found := offer.wrong(body.routing, body.model)):
        return Fault(code="invalid_routing", param=found.param, message=found.message)
    if offer.serves(body.model) or (body.routing and body.routing.models):
        return None
    return Fault(
        code="model_not_found",
        param="model",
        message=f"No enabled provider serves the model '{body.model[:100]}'; see `models` in the providers file.",
    )


def _reason(exc: Exception) -> str:
    return "it is nested too deeply" if isinstance(exc, RecursionError) else str(exc)[:200].rstrip(".")


def _missing(exc: msgspec.ValidationError) -> str:
    return f"{_reason(exc)}; a line needs custom_id, method, url and body."


def _param(exc: msgspec.ValidationError) -> str | None:
    return next(
        (name for name in _Input.__struct_fields__ if f"`{name}`" in str(exc) or f"$.{name}" in str(exc)),
        None,
    )


def read_request(line: bytes) -> Request:
    """What to send, from a line that passed `check`. Raises msgspec.DecodeError where it is none."""
    found = _input.decode(line)
    return _request(found.custom_id, bytes(found.body))


def read_body(body: bytes) -> Request:
    """The same from a lone job's body that passed `check_body`."""
    return _request(None, body)


def _request(custom_id: str | None, raw: bytes) -> Request:
    body = _body.decode(raw)
    if body.routing is msgspec.UNSET:
        return Request(custom_id, body.model, raw)
    fields = _object.decode(raw)
    del fields["routing"]
    return Request(custom_id, body.model, _encode(fields), body.routing)


def with_model(body: bytes, model: str) -> bytes:
    """The body with another model name; every other value byte for byte."""
    fields: dict[str, Any] = dict(_object.decode(body))
    fields["model"] = model
    return _encode(fields)


def custom_id_of(line: bytes) -> str:
    return _input.decode(line).custom_id


def success_line(
    *, line_id: str, custom_id: str | None, request_id: str, body: bytes, routing: Routing
) -> bytes:
    """A line of the output file, newline included. `body` is the provider's JSON as it came."""
    compact = msgspec.json.format(body, indent=-1) if b"\n" in body else body
    return _line(line_id, custom_id, _response(200, request_id, msgspec.Raw(compact)), None, routing)


def failure_line(
    *, line_id: str, custom_id: str | None, request_id: str, error: ProviderError, routing: Routing
) -> bytes:
    """A line of the error file: an HTTP answer as `response`, anything else as `error`."""
    if error.http_status is None:
        return _line(line_id, custom_id, None, {"code": error.code, "message": error.message}, routing)
    body = error.body if isinstance(error.body, dict) else error.envelope()
    return _line(line_id, custom_id, _response(error.http_status, request_id, body), None, routing)


UNFINISHED = {
    "x": ("batch_expired", "This request could not be executed before the completion window expired."),
    "c": ("batch_cancelled", "This request was not executed because the batch was cancelled."),
    "m": (
        "max_cost_reached",
        "This request was not executed because it could have brought the batch's cost above its max_cost.",
    ),
}


def unfinished_line(*, line_id: str, custom_id: str, state: str) -> bytes:
    """A line of the error file for a job that never ended by itself."""
    code, message = UNFINISHED[state]
    return _line(line_id, custom_id, None, {"code": code, "message": message}, None)


def _response(status: int, request_id: str, body: Any) -> dict[str, Any]:
    return {"status_code": status, "request_id": request_id, "body": body}


def _line(line_id: str, custom_id: str | None, response: Any, error: Any, routing: Routing | None) -> bytes:
    line = {"id": line_id, "custom_id": custom_id, "response": response, "error": error}
    if routing is not None:
        line["routing"] = routing
    return _encode(line) + b"\n"
