"""Limits as OpenAI keeps them: requests and tokens per minute that refill all the time, and calls at once."""

from workers.simulator.behaviour import Behaviour
from workers.simulator.refusals import Headers, Refusal, refuse

_MINUTE_S = 60.0
_NEARLY = 1e-6


class Bucket:
    """`per_minute` units at most, full at first, refilled evenly. Every method takes `now` in seconds."""

    def __init__(self, per_minute: int, now: float) -> None:
        self.per_minute = per_minute
        self._level = float(per_minute)
        self._at = now

    def level(self, now: float) -> float:
        grown = self._level + max(0.0, now - self._at) * self.per_minute / _MINUTE_S
        return min(grown, float(self.per_minute))

    def wait_s(self, amount: float, now: float) -> float:
        """Seconds until `amount` is there; 0 where it is, give or take a float's error."""
        missing = amount - self.level(now)
        return 0.0 if missing < _NEARLY else missing * _MINUTE_S / self.per_minute

    def take(self, amount: float, now: float) -> None:
        self._level = self.level(now) - amount
        self._at = now


class Limits:
    """One persona's limits; what is None is not limited."""

    def __init__(self, behaviour: Behaviour, now: float) -> None:
        self._requests = None if behaviour.rpm is None else Bucket(behaviour.rpm, now)
        self._tokens = None if behaviour.tpm is None else Bucket(behaviour.tpm, now)
        self._concurrency = behaviour.concurrency

    @staticmethod
    def of(behaviour: Behaviour, now: float) -> "Limits | None":
        """None where the behaviour sets no limit."""
        if (behaviour.rpm, behaviour.tpm, behaviour.concurrency) == (None, None, None):
            return None
        return Limits(behaviour, now)

    def refusal(self, model: str, tokens: int, in_flight: int, now: float) -> Refusal | None:
        """None where the call may run: then, and only then, it has taken its share of every limit."""
        if self._concurrency is not None and in_flight >= self._concurrency:
            message = f"Too many concurrent requests for {model}: Limit {self._concurrency}."
            return refuse(429, message, kind="requests", code="rate_limit_exceeded")
        if self._requests is not None and (wait_s := self._requests.wait_s(1, now)):
            return _over(model, "requests", self._requests, 1, wait_s)
        if self._tokens is not None and (wait_s := self._tokens.wait_s(tokens, now)):
            return _over(model, "tokens", self._tokens, tokens, wait_s)
        if self._requests is not None:
            self._requests.take(1, now)
        if self._tokens is not None:
            self._tokens.take(tokens, now)
        return None

    def headers(self, now: float) -> Headers:
        """OpenAI's x-ratelimit headers for the limits per minute that are set."""
        found: list[tuple[bytes, bytes]] = []
        for name, bucket in ((b"requests", self._requests), (b"tokens", self._tokens)):
            if bucket is not None:
                reset = duration(bucket.wait_s(bucket.per_minute, now)).encode()
                found += [
                    (b"x-ratelimit-limit-" + name, b"%d" % bucket.per_minute),
                    (b"x-ratelimit-remaining-" + name, b"%d" % bucket.level(now)),
                    (b"x-ratelimit-reset-" + name, reset),
                ]
        return tuple(found)


def _over(model: str, kind: str, bucket: Bucket, amount: int, wait_s: float) -> Refusal:
    per = {"requests": "requests per min (RPM)", "tokens": "tokens per min (TPM)"}[kind]
    limit = f"on {per}: Limit {bucket.per_minute}, Requested {amount}."
    if amount > bucket.per_minute:
        message = f"Request too large for {model} {limit} It can never fit; make it smaller."
        return refuse(429, message, kind=kind, code="rate_limit_exceeded")
    message = f"Rate limit reached for {model} {limit} Please try again in {duration(wait_s)}."
    return refuse(429, message, kind=kind, code="rate_limit_exceeded", retry_after_s=wait_s)


def duration(seconds: float) -> str:
    """As OpenAI writes it: `20ms`, `1.5s`, `6m0s`."""
    if seconds < 1:
        return f"{round(seconds * 1000)}ms"
    minutes, rest = divmod(round(seconds, 3), _MINUTE_S)
    return f"{int(minutes)}m{rest:g}s" if minutes else f"{rest:g}s"
