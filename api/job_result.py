"""From a lone job's result line to the HTTP answer of the caller who waited for it. Pure."""

import math
from typing import Any

import msgspec

from shared.jobs import Waiting
from shared.lone import JobStatus
from shared.reasons import Reason, in_words

_OK = 200
_FINAL = range(400, 500)
_OURS = frozenset({401, 402, 403, 407, 408, 409, 425, 429})
"""A provider's answer to our key, or to us: never the caller's fault, whose own key and rate would seem meant."""


class _Response(msgspec.Struct):
    status_code: int
    request_id: str | None
    body: msgspec.Raw


class _Error(msgspec.Struct):
    code: str
    message: str


class _Routing(msgspec.Struct):
    provider: str | None = None
    attempts: int = 0
    cost_usd: str | None = None


class Line(msgspec.Struct):
    """A job's result, in the form of a batch's output line."""

    id: str
    response: _Response | None = None
    error: _Error | None = None
    routing: _Routing | None = None


_line = msgspec.json.Decoder(Line)


class Answer(msgspec.Struct, frozen=True):
    """What the caller gets: status, JSON body, headers."""

    status: int
    body: bytes
    headers: dict[str, str]


def answer(job_id: str, line: str | bytes) -> Answer:
    """The provider's own body with 200; what only the caller can mend with its status; all else as 502 or 504."""
    found = _line.decode(line)
    routing = found.routing or _Routing()
    headers = {
        "x-llm-edge-job": job_id,
        "x-llm-edge-provider": routing.provider or "none",
        "x-llm-edge-attempts": str(routing.attempts),
    }
    if routing.cost_usd is not None:
        headers["x-llm-edge-cost-usd"] = routing.cost_usd
    response = found.response
    if response is not None and response.status_code == _OK:
        return Answer(_OK, bytes(response.body), headers)
    headers["x-should-retry"] = "false"  # the attempts have been made here
    if response is None:
        error = found.error or _Error("provider_failed", "The job failed.")
        status = 504 if error.code == "request_timeout" else 502
        return Answer(status, envelope(error.message, code=error.code), headers)
    if response.status_code in _FINAL and response.status_code not in _OURS:
        return Answer(response.status_code, bytes(response.body), headers)
    who = routing.provider or "The provider"
    message = f"{who} answered {response.status_code}; GET /v1/jobs/{job_id} shows its answer."
    code = "provider_key_refused" if response.status_code in {401, 402, 403} else "provider_failed"
    return Answer(502, envelope(message, code=code), headers)


def unanswered(job_id: str, status: JobStatus) -> Answer:
    """For a job that ended without a call: cancelled by somebody, or its window over."""
    headers = {"x-llm-edge-job": job_id, "x-should-retry": "false"}
    if status is JobStatus.CANCELLED:
        body = envelope(f"The job {job_id} was cancelled before it was done.", code="job_cancelled")
        return Answer(409, body, headers)
    body = envelope(f"The job {job_id} could not be done before its window ended.", code="job_expired")
    return Answer(504, body, headers)


def too_slow(job_id: str, waited_s: float) -> Answer:
    """For a job that outlives the server's wait limit: it goes on, and its result is kept."""
    message = (
        f"The job {job_id} was not done within {waited_s:g} s. It goes on: poll GET /v1/jobs/{job_id},"
        " or send `Prefer: respond-async` with requests that take long."
    )
    headers = {"x-llm-edge-job": job_id, "x-should-retry": "false", "location": f"/v1/jobs/{job_id}"}
    body = {
        "error": {"message": message, "type": "server_error", "param": None, "code": "wait_limit_reached"},
        "job_id": job_id,
    }
    return Answer(504, msgspec.json.encode(body), headers)


def stopping(job_id: str) -> Answer:
    """For a job whose caller waits at a process that is being stopped: it goes on, and its repetition finds it."""
    message = (
        f"This server process is being stopped before the job {job_id} is done. It goes on: repeat the request as the"
        f" SDKs do (with its Idempotency-Key, or `x-stainless-retry-count`), or poll GET /v1/jobs/{job_id}."
    )
    headers = {"x-llm-edge-job": job_id, "retry-after": "1", "location": f"/v1/jobs/{job_id}"}
    body = {
        "error": {"message": message, "type": "server_error", "param": None, "code": "server_stopping"},
        "job_id": job_id,
    }
    return Answer(503, msgspec.json.encode(body), headers)


def no_provider(job_id: str, waiting: Waiting, lasts_s: float) -> Answer:
    """For a job that nobody can serve within the caller's wait."""
    if waiting.reason == Reason.BUDGET_SPENT:
        return _quota_spent(job_id)
    retry_s = max(1, math.ceil(lasts_s))
    why = in_words(waiting.reason, waiting.provider)
    message = (
        f"No provider can serve this now: {why} ({waiting.reason}). Try again in {retry_s} s, or send"
        " `Prefer: respond-async`: such a job waits until one can."
    )
    headers = {"x-llm-edge-job": job_id, "retry-after": str(retry_s)}
    return Answer(503, envelope(message, code="no_provider_available"), headers)


def _quota_spent(job_id: str) -> Answer:
    """OpenAI's answer for an account with nothing left to spend, which its SDK would repeat in vain."""
    message = (
        "What may be spent on your behalf is spent: this request could exceed it. Ask whoever runs this server for more,"
        " or send `Prefer: respond-async`: such a job waits for that, or for the next day or month."
    )
    headers = {"x-llm-edge-job": job_id, "x-should-retry": "false"}
    return Answer(429, envelope(message, code="insufficient_quota", kind="insufficient_quota"), headers)


def envelope(message: str, *, code: str, kind: str = "provider_error") -> bytes:
    body: dict[str, Any] = {"error": {"message": message, "type": kind, "param": None, "code": code}}
    return msgspec.json.encode(body)
