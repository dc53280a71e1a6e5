"""Every error this project raises on purpose, as one tree.

EdgeError
├── ConfigError              environment or providers file: every fault at once
├── RequestError             what the caller can mend (4xx)
│   ├── UnknownKeyError      401: no API key, or one that is not known
│   ├── NotAllowedError      403
│   ├── NotFoundError        404
│   ├── ConflictError        409
│   ├── GoneError            410
│   ├── KeyReusedError       422
│   └── TooLargeError        413
├── UnavailableError         503: not now; try again after retry_after_s
│   ├── StoppingError        this process is being stopped
│   ├── StoreUnavailableError    Redis did not answer, or refused to write
│   │   └── StoreRefusedError    Redis does not let us in: TLS, password, permissions; an operator must mend it
│   └── NewerRecordError         a record of a newer release, which this process does not understand
├── HintError                a Celery message of a version this process does not know
└── ProviderError            one call to one provider went wrong
    ├── ProviderTimeoutError     retryable, counts against the breaker
    ├── ProviderUnreachableError retryable, counts
    ├── ProviderFailedError      5xx, 529, an answer that is none: retryable, counts
    ├── RateLimitedError         429: retryable, a cool-down of its own, never charged to the job
    ├── ProviderBusyError        408, 409, 425: retryable, does not count
    ├── KeyRefusedError          401, 402, quota or spend limit: this provider cannot serve, another may; never charged
    ├── ModelRefusedError        403, 404 about the model: this provider does not serve it to us, another may; never charged
    ├── NotServedError           any other 404: not there for this job, another may; says nothing of the model; never charged
    ├── RequestRefusedError      400, 413, 422 and the rest: final, whoever is asked
    └── WorkerKilledError        its workers died of it, as far as can be told: final, nobody is asked any more
"""

from typing import Any, ClassVar


class EdgeError(Exception):
    """Root of the tree. Its message tells what happened, where, and what to do."""

    status: ClassVar[int] = 500
    type: ClassVar[str] = "server_error"
    default_code: ClassVar[str | None] = None

    def __init__(self, message: str, *, code: str | None = None, param: str | None = None) -> None:
        super().__init__(message)
        self.message = message
        self.code = code or self.default_code
        self.param = param

    def envelope(self) -> dict[str, Any]:
        """OpenAI's error body: `{"error": {message, type, param, code}}`."""
        return {"error": {"message": self.message, "type": self.type, "param": self.param, "code": self.code}}


class ConfigError(EdgeError):
    """Faults of the environment or the providers file, all of them, one a line."""

    default_code = "invalid_configuration"

    def __init__(self, faults: list[str]) -> None:
        super().__init__("\n".join(faults))
        self.faults = faults


class RequestError(EdgeError):
    """The request cannot be served as it stands; the message says what to change."""

    status = 400
    type = "invalid_request_error"


class UnknownKeyError(RequestError):
    status = 401
    default_code = "invalid_api_key"


class NotAllowedError(RequestError):
    status = 403
    default_code = "permission_denied"


class NotFoundError(RequestError):
    status = 404
    default_code = "not_found"


class ConflictError(RequestError):
    status = 409
    default_code = "conflict"


class GoneError(RequestError):
    """What the request's key has made before is not there any more."""

    status = 410
    default_code = "idempotent_result_gone"


class KeyReusedError(RequestError):
    """The request's idempotency key has made something before, from another request."""

    status = 422
    default_code = "idempotency_key_reused"

    def __init__(self) -> None:
        super().__init__(
            "This Idempotency-Key came with another request before (another path or another body); repeat that one as it"
            " was, or send a new key with this one."
        )


class TooLargeError(RequestError):
    status = 413
    default_code = "too_large"


class UnavailableError(EdgeError):
    """Not now; the same request may succeed after `retry_after_s` seconds."""

    status = 503
    default_code = "unavailable"

    def __init__(self, message: str, *, code: str | None = None, retry_after_s: float = 1.0) -> None:
        super().__init__(message, code=code)
        self.retry_after_s = retry_after_s


class StoppingError(UnavailableError):
    """The API process is being stopped, and its grace time ended before the answer was there."""

    default_code = "server_stopping"

    def __init__(self) -> None:
        super().__init__(
            "This server process is being stopped and could not finish the request in time; send it again."
        )


NO_ROOM = "insufficient_storage"
"""The code of a StoreUnavailableError that is about memory: nothing was written."""


class StoreUnavailableError(UnavailableError):
    """Redis did not answer in time, or refused the write."""

    default_code = "store_unavailable"


class StoreRefusedError(StoreUnavailableError):
    """Redis is there, and does not let this process in or do what it must: certificate, password or permissions."""

    default_code = "store_refused"

    def __init__(self, message: str) -> None:
        super().__init__(message, retry_after_s=5.0)


class NewerRecordError(UnavailableError):
    """A record whose version, `met`, is newer than this process reads: one of a newer release can serve it."""

    default_code = "newer_version"

    def __init__(self, met: int, reads: int) -> None:
        super().__init__(
            f"This was made by a newer release (its records are of version {met}; this process reads up to {reads}): a process"
            " of that release can serve it.",
            retry_after_s=5.0,
        )
        self.met = met
        self.reads = reads


class HintError(EdgeError):
    """A Celery message whose version or form this process does not know; the ledger will send another."""

    default_code = "unknown_hint"


class ProviderError(EdgeError):
    """One call to one provider went wrong.

    `message` may hold the provider's wording, and that a prompt: it is for the job's own result. `brief` is our own wording,
    for all that others see (logs, events, the gate), and what `str` and `repr` give.
    `http_status` and `body` are the provider's answer where there was one (body already parsed and bounded);
    `retry_after_s` is what its headers asked for; `rest_s`, for how long they say that its rate limit leaves nothing.
    """

    status = 502
    type = "provider_error"
    retryable: ClassVar[bool] = False
    counts_against_breaker: ClassVar[bool] = False
    charged: bool = True
    """Whether the failed call uses up one of the job's attempts; the breaker may let it off."""
    elsewhere: ClassVar[bool] = True
    """Whether another provider may still serve the job."""

    def __init__(  # noqa: PLR0913  each a thing that an answer tells
        self,
        message: str,
        *,
        brief: str | None = None,
        code: str | None = None,
        http_status: int | None = None,
        body: Any = None,
        request_id: str | None = None,
        retry_after_s: float | None = None,
        rest_s: float | None = None,
    ) -> None:
        super().__init__(message, code=code)
        self.brief = message if brief is None else brief
        self.args = (self.brief,)
        self.rest_s = rest_s
        self.http_status = http_status
        self.body = body
        self.request_id = request_id
        self.retry_after_s = retry_after_s


class ProviderTimeoutError(ProviderError):
    status = 504
    default_code = "request_timeout"
    retryable = True
    counts_against_breaker = True


class ProviderUnreachableError(ProviderError):
    default_code = "provider_unreachable"
    retryable = True
    counts_against_breaker = True


class ProviderFailedError(ProviderError):
    default_code = "provider_failed"
    retryable = True
    counts_against_breaker = True


class RateLimitedError(ProviderError):
    status = 429
    default_code = "rate_limited"
    retryable = True
    charged = False


class ProviderBusyError(ProviderError):
    default_code = "provider_busy"
    retryable = True


class KeyRefusedError(ProviderError):
    default_code = "provider_key_refused"
    charged = False


class ModelRefusedError(ProviderError):
    default_code = "model_not_found"
    charged = False


class NotServedError(ProviderError):
    """A path or thing that is not there: another provider may have it, and other requests may go well here."""

    default_code = "not_served"
    charged = False


class RequestRefusedError(ProviderError):
    status = 400
    type = "invalid_request_error"
    default_code = "request_refused"
    elsewhere = False


class WorkerKilledError(ProviderError):
    """The job's workers died while they ran it, again and again, with no other suspect there (`shared.suspects`)."""

    type = "server_error"
    default_code = "worker_killed"
    elsewhere = False
