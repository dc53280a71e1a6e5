"""The story of one call: received, decided, waited, answered. The witness knows of each step before the client does."""

from collections.abc import Callable
from hashlib import sha256
from typing import NamedTuple

from workers.simulator import answers, asked
from workers.simulator.asgi import Connection, Headers, Receive, Scope, Send, Woken, connection_of, send_json
from workers.simulator.asked import Asked
from workers.simulator.behaviour import OK
from workers.simulator.counts import Counts, counted
from workers.simulator.decide import Decision, Facts, Kind, decide, in_outage, slowed
from workers.simulator.personas import Counters, Persona
from workers.simulator.refusals import Refusal, ended_hang, of_status
from workers.simulator.witness import PROMPT_CHARS, Call, Witness, fingerprint, unix_now

DROPPED, HUNG, CLIENT_GONE = "dropped", "hung", "client_gone"


class Endpoint(NamedTuple):
    """One wire format: how to read its requests and write its answers."""

    read: Callable[[bytes], Asked | Refusal]
    write: Callable[[Asked, Decision, float], bytes]


ENDPOINTS = {
    "/v1/chat/completions": Endpoint(asked.read_chat, answers.chat),
    "/v1/completions": Endpoint(asked.read_completion, answers.completion),
}


class House:
    """What all exchanges share."""

    def __init__(self, witness: Witness, seed: int, counts: Counts) -> None:
        self.witness = witness
        self.seed = seed
        self.counts = counts
        self.closing = False


class Exchange:
    """One call with its body read, from its reception to its end."""

    __slots__ = ("_asked", "_call", "_connection", "_counters", "_facts", "_house", "_persona", "_write")

    def __init__(self, house: House, persona: Persona, endpoint: Endpoint, scope: Scope, body: bytes) -> None:
        """Enters the call with the witness."""
        found = endpoint.read(body)
        if house.counts and isinstance(found, Asked):
            found = counted(found, house.counts)
        fault = found if isinstance(found, Refusal) else None
        self._asked = _NOTHING if isinstance(found, Refusal) else found
        self._house = house
        self._persona = persona
        self._counters: Counters = persona.counters
        self._connection: Connection = connection_of(scope)
        self._write = endpoint.write
        sha = sha256(body)
        self._facts = Facts(
            persona.name,
            sha.digest(),
            persona.repeats.next(sha.digest()),
            self._asked.prompt,
            self._asked.model,
            self._asked.max_tokens,
            fault,
        )
        self._call = self._receive(scope, sha.hexdigest()[:16])

    def _receive(self, scope: Scope, body_sha256: str) -> Call:
        self._counters.calls += 1
        authorization = next((value for name, value in scope["headers"] if name == b"authorization"), None)
        return self._house.witness.receive(
            Call(
                n=0,
                persona=self._persona.name,
                received_at=unix_now(),
                body_sha256=body_sha256,
                prompt=self._asked.prompt[:PROMPT_CHARS],
                model=self._asked.model[:PROMPT_CHARS],
                prompt_tokens=self._asked.prompt_tokens,
                authorization_sha256=None if authorization is None else fingerprint(authorization),
            )
        )

    async def run(self, receive: Receive, send: Send, now: float) -> None:
        """`now` is monotonic seconds, for the limits."""
        decision = self._decide(now)
        if decision.kind is Kind.HANG or decision.latency_s > 0:
            self._counters.enter()
            try:
                waited = await self._wait(decision)
            finally:
                self._counters.leave()
            if waited is None:
                return
            decision = waited
        elif decision.kind is not Kind.REFUSE:
            self._counters.enter()
            self._counters.leave()
        if decision.kind is Kind.DROP:
            self._end(DROPPED)
            self._connection.drop()
            await receive()  # until the loss of the connection has come round: nothing may be sent any more
        else:
            await self._answer(decision, send, now)

    def _has_key(self, api_key: str) -> bool:
        return self._call.authorization_sha256 == fingerprint(f"Bearer {api_key}".encode())

    def _decide(self, now: float) -> Decision:
        behaviour = self._persona.behaviour
        if behaviour.api_key is not None and not self._has_key(behaviour.api_key):
            return in_outage(behaviour) or Decision(Kind.REFUSE, of_status(401))
        decision = decide(behaviour, self._house.seed, self._facts)
        if not decision.limited:
            return decision
        refusal = self._refusal(decision, now)
        if refusal is not None:
            return Decision(Kind.REFUSE, refusal)
        return slowed(decision, behaviour.capacity, self._counters.in_flight + 1)

    def _refusal(self, decision: Decision, now: float) -> Refusal | None:
        """What the limits say to a call that has to pass them."""
        limits = self._persona.limits
        if limits is None:
            return None
        asked = self._asked
        most = decision.completion_tokens if asked.max_tokens is None else asked.max_tokens
        tokens = asked.prompt_tokens + most * asked.choices
        return limits.refusal(asked.model, tokens, self._counters.in_flight, now)

    async def _wait(self, decision: Decision) -> Decision | None:
        """What to answer when the time has come; None where nobody is there any more to answer to."""
        if decision.kind is Kind.HANG:
            self._call.status = HUNG
            if await hang(self._persona, self._connection, self._still_hangs):
                return Decision(Kind.REFUSE, ended_hang())
            self._end(DROPPED if self._house.closing else HUNG)
            return None
        if await self._connection.wait(decision.latency_s) is Woken.TIME:
            return decision
        self._end(DROPPED if self._house.closing else CLIENT_GONE)
        return None

    def _still_hangs(self) -> bool:
        return decide(self._persona.behaviour, self._house.seed, self._facts).kind is Kind.HANG

    async def _answer(self, decision: Decision, send: Send, now: float) -> None:
        headers: Headers = ((b"x-request-id", b"req-sim-%d" % self._call.n),)
        if self._persona.limits is not None:
            headers += self._persona.limits.headers(now)
        if decision.refusal is not None:
            refusal = decision.refusal
            self._end(refusal.status)
            await send_json(send, refusal.status, refusal.body, headers + refusal.headers)
            return
        body = self._write(self._asked, decision, self._call.received_at)
        if decision.kind is Kind.MALFORMED:
            self._end(OK)
            body = answers.malformed(body)
        else:
            self._end(OK, decision.completion_tokens * self._asked.choices)
        await send_json(send, OK, body, headers)

    def _end(self, status: int | str, completion_tokens: int | None = None) -> None:
        """`completion_tokens` for answers sent whole."""
        counters = self._counters
        counters.ended(status)
        if completion_tokens is not None:
            counters.prompt_tokens += self._asked.prompt_tokens
            counters.completion_tokens += completion_tokens
        self._house.witness.end(self._call, status, completion_tokens or 0)


async def hang(persona: Persona, connection: Connection, still: Callable[[], bool]) -> bool:
    """True once `still()` no longer holds after a switch of behaviour; False where the client left before."""
    persona.on_switch.add(connection.wake)
    try:
        while await connection.wait() is Woken.CALLED:
            if not still():
                return True
        return False
    finally:
        persona.on_switch.discard(connection.wake)


_NOTHING = Asked(model="", prompt="", prompt_tokens=0, max_tokens=None, texts=())
"""Stands for a request that could not be read."""
