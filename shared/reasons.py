"""Why a job waits: the one register of reasons, with their words."""

from enum import StrEnum


class Reason(StrEnum):
    """As batches, jobs and explanations show it."""

    BREAKER_OPEN = "breaker_open"
    BREAKER_PROBING = "breaker_half_open"
    RATE_LIMITED = "rate_limited"
    KEY_REFUSED = "key_refused"
    MODEL_REFUSED = "model_refused"
    DISABLED = "disabled"
    OUTAGE = "provider_failing"
    NO_PROVIDER = "no_provider_for_model"
    LIMIT_REACHED = "limit_reached"
    BUDGET_SPENT = "budget_spent"
    MAX_COST = "max_cost_reached"
    COST_NOT_BOUNDED = "cost_not_bounded"
    STORE_AWAY = "store_away"
    STORE_FULL = "store_full"
    NO_WORKER = "no_worker_alive"
    BROKER_AWAY = "broker_away"
    WORKER_SILENT = "worker_silent"
    NEWER = "newer_version"
    SUSPECT = "suspect"

    @property
    def takes_a_person(self) -> bool:
        """Whether somebody has to mend it: then nobody should wait for it in person."""
        return self in _MENDED_BY_HAND

    @property
    def idles_the_fleet(self) -> bool:
        """Whether it keeps every job that no worker has had yet from being begun."""
        return self in _IDLE


_MENDED_BY_HAND = frozenset(
    {
        Reason.KEY_REFUSED,
        Reason.MODEL_REFUSED,
        Reason.DISABLED,
        Reason.NO_PROVIDER,
        Reason.BUDGET_SPENT,
        Reason.MAX_COST,
        Reason.COST_NOT_BOUNDED,
    }
)
_IDLE = frozenset({Reason.NO_WORKER, Reason.BROKER_AWAY})
_WORDS = {
    Reason.BREAKER_OPEN: "{} fails, and its circuit breaker is open",
    Reason.BREAKER_PROBING: "{} failed, and its circuit breaker lets few calls through",
    Reason.RATE_LIMITED: "{} has answered 429, or that nothing is left for now, and cools down",
    Reason.KEY_REFUSED: "{} is out of service: it refuses our key, or the account has nothing left to spend",
    Reason.MODEL_REFUSED: "{} is out of service for this model: it refuses it to us",
    Reason.DISABLED: "{} has been disabled",
    Reason.OUTAGE: "{} fails",
    Reason.NO_PROVIDER: "no enabled provider serves this model with all that the request needs",
    Reason.LIMIT_REACHED: "{} is at its limit of requests, tokens or calls at a time, or all that may be spent is under way there",
    Reason.BUDGET_SPENT: "what its owner may spend is spent: a call to {} could exceed it",
    Reason.MAX_COST: "what the batch may cost is spent: a call to {} could exceed its max_cost",
    Reason.COST_NOT_BOUNDED: "what may be spent is limited, and no provider has a price and a bound for this request",
    Reason.STORE_AWAY: "Redis is away",
    Reason.STORE_FULL: "Redis is full: no call begins before there is room",
    Reason.NO_WORKER: "no worker is alive: start one with `llm-edge worker`",
    Reason.BROKER_AWAY: "the broker (BROKER_URL) cannot be reached, and workers hear of no job; they go on by themselves when it is back",
    Reason.WORKER_SILENT: "the worker that has them is not heard of; they go on elsewhere when its lease ends",
    Reason.NEWER: "made by a newer release, and no worker of that release has taken them",
    Reason.SUSPECT: "the worker died twice or more while it ran them: such jobs run few at a time in the whole fleet, then alone",
}
_KNOWN = {reason.value: reason for reason in Reason}


def takes_a_person(reason: str) -> bool:
    """The same of a reason that was read: one that is not known does not."""
    known = _KNOWN.get(reason)
    return known is not None and known.takes_a_person


def idles_the_fleet(reason: str) -> bool:
    known = _KNOWN.get(reason)
    return known is not None and known.idles_the_fleet


def in_words(reason: str, provider: str) -> str:
    """The reason as a clause; one that is not known stands for itself."""
    known = _KNOWN.get(reason)
    return reason if known is None else _WORDS[known].format(provider)
