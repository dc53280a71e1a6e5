"""What becomes of one call: a pure function of behaviour, seed and the call's facts, whatever else is going on."""

import math
from enum import Enum
from hashlib import sha256
from statistics import NormalDist
from struct import Struct as Binary
from typing import NamedTuple

import msgspec

from workers.simulator.behaviour import LONGEST_S, MOST_TOKENS, OK, Behaviour, Rule
from workers.simulator.refusals import Refusal, of_status, quota, unknown_model

_NORMAL = NormalDist()
_Z95 = _NORMAL.inv_cdf(0.95)
_STEEPEST = 700.0
"""Beyond it exp() leaves the floats."""
_FOUR = Binary(">4Q")
_HINTED = frozenset({429, 503, 529})
"""Statuses that carry the behaviour's `retry_after_s`."""


class Kind(Enum):
    ANSWER = "answer"
    MALFORMED = "malformed"
    REFUSE = "refuse"
    DROP = "drop"
    HANG = "hang"


class Facts(msgspec.Struct, frozen=True, gc=False):
    """One call. `nth` counts the calls of this very body at this persona, from 1; `fault` is set where it cannot be read."""

    persona: str
    body_sha: bytes
    nth: int
    prompt: str = ""
    model: str = ""
    max_tokens: int | None = None
    fault: Refusal | None = None


class Decision(msgspec.Struct, frozen=True):
    """`limited` calls still have to pass the persona's limits. `cut`: max_tokens ends the text. `key` is random hex."""

    kind: Kind
    refusal: Refusal | None = None
    latency_s: float = 0.0
    completion_tokens: int = 0
    cut: bool = False
    limited: bool = False
    key: str = ""


class Draws(NamedTuple):
    """Four independent uniform numbers in (0, 1) and a random name."""

    outcome: float
    status: float
    latency: float
    tokens: float
    key: str


def decide(behaviour: Behaviour, seed: int, call: Facts) -> Decision:
    """In this order: outage, unreadable request, unknown model, the first rule that matches, the rates."""
    if (down := in_outage(behaviour)) is not None:
        return down
    if call.fault is not None:
        return Decision(Kind.REFUSE, call.fault)
    if behaviour.models is not None and call.model not in behaviour.models:
        return Decision(Kind.REFUSE, unknown_model(call.model))
    drawn = draw(seed, call)
    for rule in behaviour.rules:
        if (rule.times is None or call.nth <= rule.times) and rule.match.search(call.prompt):
            return _by_rule(rule, behaviour, call, drawn)
    return _by_rates(behaviour, call, drawn)


def draw(seed: int, call: Facts) -> Draws:
    digest = sha256(b"%d|%s|%d|%s" % (seed, call.persona.encode(), call.nth, call.body_sha)).digest()
    a, b, c, d = _FOUR.unpack(digest)
    return Draws(_unit(a), _unit(b), _unit(c), _unit(d), digest.hex())


def _unit(bits: int) -> float:
    """64 random bits as a number strictly between 0 and 1."""
    return ((bits >> 12) + 0.5) / 2**52


def in_outage(behaviour: Behaviour) -> Decision | None:
    """What every request gets while the persona is down; None while it is up."""
    match behaviour.outage:
        case "none":
            return None
        case "drop":
            return Decision(Kind.DROP)
        case "hang":
            return Decision(Kind.HANG)
        case "429_quota":
            return Decision(Kind.REFUSE, quota())
        case "401":
            return Decision(Kind.REFUSE, of_status(401))
        case _:
            return Decision(Kind.REFUSE, of_status(503, behaviour.retry_after_s))


def _by_rule(rule: Rule, behaviour: Behaviour, call: Facts, drawn: Draws) -> Decision:
    latency_s = latency(behaviour, drawn.latency) if rule.latency_s is None else rule.latency_s
    if rule.hang:
        return Decision(Kind.HANG)
    if rule.drop:
        return Decision(Kind.DROP, latency_s=latency_s)
    if rule.status is not None and rule.status != OK:
        return Decision(Kind.REFUSE, of_status(rule.status, rule.retry_after_s), latency_s)
    kind = Kind.MALFORMED if rule.malformed else Kind.ANSWER
    return _answer(behaviour, call, drawn, kind, rule.latency_s)


def _by_rates(behaviour: Behaviour, call: Facts, drawn: Draws) -> Decision:
    """The four rates share out one draw, so each holds exactly, whatever the others are."""
    left = drawn.outcome - behaviour.drop_rate
    if left < 0:
        return Decision(Kind.DROP, latency_s=latency(behaviour, drawn.latency), limited=True)
    left -= behaviour.hang_rate
    if left < 0:
        return Decision(Kind.HANG, limited=True)
    left -= behaviour.malformed_rate
    if left < 0:
        return _answer(behaviour, call, drawn, Kind.MALFORMED, None)
    left -= behaviour.error_rate
    if left >= 0:
        return _answer(behaviour, call, drawn, Kind.ANSWER, None)
    status = behaviour.error_statuses[int(drawn.status * len(behaviour.error_statuses))]
    refusal = of_status(status, behaviour.retry_after_s if status in _HINTED else None)
    return Decision(Kind.REFUSE, refusal, latency(behaviour, drawn.latency), limited=True)


def _answer(behaviour: Behaviour, call: Facts, drawn: Draws, kind: Kind, latency_s: float | None) -> Decision:
    """`latency_s` of a rule stands for the whole call, its tokens' time included."""
    tokens = length(behaviour, drawn.tokens)
    cut = call.max_tokens is not None and tokens > call.max_tokens
    if call.max_tokens is not None and cut:
        tokens = call.max_tokens
    if latency_s is None:
        latency_s = latency(behaviour, drawn.latency) + tokens * behaviour.time_per_output_token_s
    return Decision(kind, None, latency_s, tokens, cut, limited=True, key=drawn.key)


def slowed(decision: Decision, capacity: int | None, in_flight: int) -> Decision:
    """As one of `in_flight` calls, itself included: above `capacity` they share what it does in a second."""
    if capacity is None or in_flight <= capacity:
        return decision
    latency_s = min(decision.latency_s * in_flight / capacity, LONGEST_S)
    return msgspec.structs.replace(decision, latency_s=latency_s)


def latency(behaviour: Behaviour, u: float) -> float:
    """Seconds before the first token: lognormal through median and 95th percentile."""
    if behaviour.latency_p95_s is None:
        return behaviour.latency_s
    sigma = math.log(behaviour.latency_p95_s / behaviour.latency_s) / _Z95
    exponent = min(sigma * _NORMAL.inv_cdf(u), _STEEPEST)
    return min(behaviour.latency_s * math.exp(exponent), LONGEST_S)


def length(behaviour: Behaviour, u: float) -> int:
    """Completion tokens: normal, rounded, at least 1."""
    if behaviour.completion_tokens_spread == 0:
        return behaviour.completion_tokens
    z = _NORMAL.inv_cdf(u)
    return min(
        MOST_TOKENS, max(1, round(behaviour.completion_tokens + behaviour.completion_tokens_spread * z))
    )
