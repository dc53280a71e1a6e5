"""The simulator as an ASGI app: OpenAI's endpoints, one persona per path prefix, and the control surface."""

import ipaddress
import time
from collections.abc import Mapping
from http import HTTPStatus
from types import MappingProxyType
from typing import Any

import msgspec

from shared.errors import ConfigError, EdgeError, NotFoundError, RequestError
from workers.simulator import answers
from workers.simulator.asgi import Receive, Scope, Send, connection_of, read_body, send_json
from workers.simulator.behaviour import Behaviour
from workers.simulator.control import Control, read_query, refused
from workers.simulator.counts import Counts
from workers.simulator.decide import Kind, in_outage
from workers.simulator.exchange import ENDPOINTS, Endpoint, Exchange, House, hang
from workers.simulator.personas import DEFAULT, Persona, Personas
from workers.simulator.refusals import ended_hang, of_error
from workers.simulator.witness import DEFAULT_SIZE, Witness

CONTROL = "/simulator/"
_MODELS = "/v1/models"
_SERVED = (
    "POST /v1/chat/completions, POST /v1/completions and GET /v1/models, each also under /p/NAME for a persona;"
    " GET /health; /simulator/…"
)


class WrongMethodError(RequestError):
    status = 405
    default_code = "method_not_allowed"


class NotLocalError(RequestError):
    status = 403
    default_code = "loopback_only"


class App:
    """`behaviours` by persona as at the start, among them `default`; `memory` bounds what is remembered of bodies."""

    def __init__(
        self,
        behaviours: Mapping[str, Behaviour],
        seed: int,
        witness: Witness,
        memory: int = DEFAULT_SIZE,
        counts: Counts = MappingProxyType({}),
    ) -> None:
        self._personas = Personas(behaviours, memory, time.monotonic())
        self._house = House(witness, seed, counts)
        self._control = Control(self._personas, witness)
        self._targets: dict[str, tuple[Persona, Endpoint]] = {}

    def close(self) -> None:
        """What ends from now on ends because the simulator does."""
        self._house.closing = True

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        now = time.monotonic()
        try:
            target = self._targets.get(scope["path"]) or self._target(scope["path"], now)
            if target is not None and scope["method"] == "POST":
                persona, endpoint = target
                body = await read_body(receive)
                if body is not None:
                    await Exchange(self._house, persona, endpoint, scope, body).run(receive, send, now)
            else:
                await self._other(scope, receive, send, now)
        except ConfigError as exc:
            await send_json(send, HTTPStatus.BAD_REQUEST, msgspec.json.encode(refused(exc)))
        except EdgeError as exc:
            refusal = of_error(exc)
            await send_json(send, refusal.status, refusal.body)

    def _target(self, path: str, now: float) -> tuple[Persona, Endpoint] | None:
        """Persona and endpoint of a path, remembered; None for paths that take no calls. Raises ConfigError."""
        name, rest = _split(path)
        endpoint = ENDPOINTS.get(rest)
        if endpoint is None:
            return None
        self._targets[path] = target = (self._personas.get(name, now), endpoint)
        return target

    async def _other(self, scope: Scope, receive: Receive, send: Send, now: float) -> None:
        """Whatever is no call. Raises EdgeError."""
        method, path = scope["method"], scope["path"]
        name, rest = _split(path)
        if method == "GET" and rest == _MODELS:
            await self._models(self._personas.get(name, now), scope, receive, send)
        elif path == "/health" and method == "GET":
            await send_json(send, HTTPStatus.OK, b'{"status":"ok","simulated":true}')
        elif path.startswith(CONTROL):
            await self._controlled(scope, receive, send, now)
        elif rest in ENDPOINTS or rest == _MODELS or path == "/health":
            raise WrongMethodError(f"{method} {path}: not served. There are {_SERVED}.")
        else:
            raise NotFoundError(f"{method} {path}: not served. There are {_SERVED}.")

    async def _models(self, persona: Persona, scope: Scope, receive: Receive, send: Send) -> None:
        down = in_outage(persona.behaviour)
        if down is None:
            await send_json(send, HTTPStatus.OK, answers.models(persona.behaviour.models))
        elif down.refusal is not None:
            await send_json(send, down.refusal.status, down.refusal.body, down.refusal.headers)
        elif down.kind is Kind.DROP:
            connection_of(scope).drop()
            await receive()
        elif await hang(persona, connection_of(scope), lambda: persona.behaviour.outage == "hang"):
            await send_json(send, ended_hang().status, ended_hang().body)

    async def _controlled(self, scope: Scope, receive: Receive, send: Send, now: float) -> None:
        if not _is_local(scope.get("client")):
            raise NotLocalError(f"{scope['path']} answers to this machine only: call it on 127.0.0.1.")
        action = self._control.actions.get((scope["method"], scope["path"]))
        if action is None:
            served = ", ".join(" ".join(key) for key in self._control.actions)
            raise NotFoundError(f"{scope['method']} {scope['path']}: not served. There are {served}.")
        body = await read_body(receive)
        if body is not None:
            await send_json(send, HTTPStatus.OK, action(read_query(scope["query_string"]), body, now))


def _split(path: str) -> tuple[str, str]:
    """`/p/NAME/v1/…` as the persona's name and `/v1/…`."""
    if path.startswith("/p/"):
        name, _, rest = path.removeprefix("/p/").partition("/")
        return name, f"/{rest}"
    return DEFAULT, path


def _is_local(client: Any) -> bool:
    """Whether the peer is this machine; `client` is ASGI's (host, port) or None."""
    if client is None:
        return False
    address = ipaddress.ip_address(client[0].partition("%")[0])
    if isinstance(address, ipaddress.IPv6Address) and address.ipv4_mapped is not None:
        address = address.ipv4_mapped
    return address.is_loopback
