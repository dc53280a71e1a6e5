"""One HTTP transport for all provider kinds: `requests`' adapter with real time-outs, a total deadline and bounded answers.

The adapter is used without a Session, which merges the environment's proxies, cookies and redirects into every call:
a quarter of a call's cost, and nothing a provider's API needs. Proxies and the CA bundle are looked up once.
"""

import os
import threading
import time
from typing import Any
from urllib.parse import urlsplit

import msgspec
import requests
from requests.adapters import HTTPAdapter
from requests.structures import CaseInsensitiveDict
from requests.utils import get_environ_proxies
from urllib3 import HTTPConnectionPool, HTTPSConnectionPool
from urllib3.connection import HTTPConnection, HTTPSConnection
from urllib3.exceptions import HTTPError
from urllib3.response import BaseHTTPResponse

from shared.catalogue import Provider, Timeouts
from shared.errors import (
    ConfigError,
    KeyRefusedError,
    ProviderError,
    ProviderFailedError,
    ProviderTimeoutError,
    ProviderUnreachableError,
)
from workers.classify import classify, redirected
from workers.deadline import Call, Watchdog
from workers.provider import Outgoing, TokenUsage
from workers.providers import WIRES

_KEY_TTL_S = 10.0
_READ_BYTES = 64 * 1024
_MAX_ERROR_BYTES = 64 * 1024
_OK = 200


class Answer(msgspec.Struct, frozen=True, kw_only=True):
    """A provider's 200: its body as it came, what it used, and how long it took."""

    body: bytes
    usage: TokenUsage
    request_id: str | None
    duration_s: float


_here = threading.local()


def _hand_over_socket(connection: HTTPConnection) -> None:
    call: Call | None = getattr(_here, "call", None)
    if call is not None:
        call.sock = connection.sock
        if call.over:
            call.cut()


class _Watched(HTTPConnection):
    def getresponse(self) -> Any:
        _hand_over_socket(self)
        return super().getresponse()


class _WatchedTLS(HTTPSConnection):
    def getresponse(self) -> Any:
        _hand_over_socket(self)
        return super().getresponse()


class _Pool(HTTPConnectionPool):
    ConnectionCls = _Watched


class _PoolTLS(HTTPSConnectionPool):
    ConnectionCls = _WatchedTLS


class _Adapter(HTTPAdapter):
    def init_poolmanager(self, *args: Any, **kwargs: Any) -> None:
        super().init_poolmanager(*args, **kwargs)
        self.poolmanager.pool_classes_by_scheme = {"http": _Pool, "https": _PoolTLS}


class Transport:
    """Makes calls; for all threads or greenlets of one worker process."""

    def __init__(self, *, concurrency: int) -> None:
        self._adapter = _Adapter(pool_connections=20, pool_maxsize=concurrency, max_retries=0)
        self._watchdog = Watchdog()
        self._verify = os.environ.get("REQUESTS_CA_BUNDLE") or os.environ.get("CURL_CA_BUNDLE") or True
        self._proxies: dict[str, dict[str, str]] = {}
        self._keys: dict[str, tuple[float, str | None]] = {}

    def close(self) -> None:
        self._watchdog.stop()
        self._adapter.close()

    def call(self, provider: Provider, endpoint: str, body: bytes) -> Answer:
        """One attempt. Raises a ProviderError of the kind that tells what to do next."""
        started = time.monotonic()
        wire = WIRES[provider.kind]
        outgoing = wire.encode(provider, endpoint, body, self._key(provider))
        status, headers, answer = self._post(provider, outgoing)
        if status != _OK:
            raise _refused(provider, status, headers, answer)
        return Answer(
            body=answer,
            usage=wire.decode(provider, answer),
            request_id=headers.get("x-request-id"),
            duration_s=time.monotonic() - started,
        )

    def _key(self, provider: Provider) -> str | None:
        """The provider's key, read anew every few seconds, so that a mended one is found."""
        known = self._keys.get(provider.id)
        if known is not None and known[0] > time.monotonic():
            return known[1]
        try:
            key = provider.api_key()
        except ConfigError as exc:
            raise KeyRefusedError(exc.message, code="api_key_missing") from exc
        if key is not None and not (key.isascii() and key.isprintable()):
            raise KeyRefusedError(
                f"provider {provider.id}: its API key has characters that no HTTP header may carry; check"
                f" {provider.api_key_env or provider.api_key_file}",
                code="api_key_malformed",
            )
        self._keys[provider.id] = (time.monotonic() + _KEY_TTL_S, key)
        return key

    def _post(self, provider: Provider, outgoing: Outgoing) -> tuple[int, dict[str, str], bytes]:
        limits = provider.timeouts
        request = requests.PreparedRequest()
        request.method, request.url, request.body = "POST", outgoing.url, outgoing.body
        headers = {
            **outgoing.headers,
            "Content-Length": str(len(outgoing.body)),
            "Accept-Encoding": "gzip, deflate",
        }
        request.headers = CaseInsensitiveDict(headers)
        call = _here.call = self._watchdog.watch(limits.total_s)
        response: requests.Response | None = None
        try:
            response = self._adapter.send(
                request,
                stream=True,
                timeout=(min(limits.connect_s, limits.total_s), min(limits.read_s, limits.total_s)),
                verify=self._verify,
                proxies=self._proxies_for(provider),
            )
            data = _read(provider, response, call)
            return response.status_code, {k.lower(): v for k, v in response.headers.items()}, data
        except (requests.RequestException, HTTPError, OSError) as exc:
            raise _broken(provider, exc, call, limits) from exc
        finally:
            call.done = True
            call.sock = _here.call = None
            if response is not None:
                response.close()

    def _proxies_for(self, provider: Provider) -> dict[str, str]:
        found = self._proxies.get(provider.endpoint)
        if found is None:
            found = self._proxies[provider.endpoint] = get_environ_proxies(provider.endpoint)
        return found


def _read(provider: Provider, response: requests.Response, call: Call) -> bytes:
    """The whole body, bounded in bytes and by the deadline; read to its end, so that the connection is used again."""
    raw: BaseHTTPResponse = response.raw
    bound = provider.max_response_bytes if response.status_code == _OK else _MAX_ERROR_BYTES
    parts: list[bytes] = []
    size = 0
    while part := raw.read(_READ_BYTES, decode_content=True):
        size += len(part)
        if size > bound:
            if response.status_code == _OK:
                raise ProviderFailedError(
                    f"{provider.id} answered with more than max_response_bytes ({bound:,}); raise it, or ask for less.",
                    code="response_too_large",
                )
            break
        parts.append(part)
    if call.over:  # a cut may look like the end of the body
        raise TimeoutError
    return b"".join(parts)


def _refused(provider: Provider, status: int, headers: dict[str, str], body: bytes) -> ProviderError:
    if 300 <= status < 400:  # noqa: PLR2004  HTTP's redirects
        return redirected(provider.id, status, urlsplit(headers.get("location", "")).hostname)
    return classify(provider.id, status, headers, body, now=time.time())


def _broken(provider: Provider, exc: Exception, call: Call, limits: Timeouts) -> ProviderError:
    """From what the libraries raise to what it means; never with their text, which carries URLs."""
    if call.over:
        return ProviderTimeoutError(f"{provider.id} did not finish its answer within {limits.total_s:g} s.")
    if isinstance(exc, requests.ConnectTimeout):
        return ProviderTimeoutError(f"{provider.id} could not be connected to within {limits.connect_s:g} s.")
    if isinstance(exc, requests.Timeout | TimeoutError) or "timed out" in str(exc).lower():
        return ProviderTimeoutError(f"{provider.id} was silent for {min(limits.read_s, limits.total_s):g} s.")
    if isinstance(exc, requests.exceptions.SSLError):
        return ProviderUnreachableError(f"{provider.id}: the TLS connection failed; check the certificate.")
    return ProviderUnreachableError(f"{provider.id} could not be reached: {_reason(exc)}.")


_REASONS = (
    ("refused", "connection refused"),
    ("reset", "connection reset"),
    ("resolve", "its name could not be resolved"),
    ("name or service", "its name could not be resolved"),
    ("remote end closed", "it closed the connection without an answer"),
    ("incompleteread", "it closed the connection in mid-answer"),
    ("broken", "it closed the connection in mid-answer"),
)


def _reason(exc: Exception) -> str:
    text = repr(exc).lower()
    return next((words for sign, words in _REASONS if sign in text), type(exc).__name__)
