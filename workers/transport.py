"""One HTTP transport for all provider kinds: `requests`' adapter with real timeouts, a total deadline and bounded answers.

The adapter is used without a Session, which merges the environment's proxies, cookies and redirects into every call:
a quarter of a call's cost, and nothing a provider's API needs. Proxies and the CA bundle are looked up once.

A call is never repeated here. A kept connection that the provider closed while it was idle is noticed before anything is
written (urllib3 looks whether the socket is readable) and replaced; one that closes after that may have taken the
request, and a second call could be paid for twice: that is the retry's to decide, which counts its attempts.
"""

import os
import sys
import time
from collections.abc import Mapping
from urllib.parse import urlsplit

import msgspec
import requests
from requests.utils import get_environ_proxies
from urllib3.response import BaseHTTPResponse

from shared.catalogue import Provider
from shared.errors import ConfigError, KeyRefusedError, ProviderError, ProviderFailedError
from shared.gate import fingerprint
from workers.adapter import Adapter
from workers.classify import classify, redirected, request_id
from workers.deadline import Call, Watchdog
from workers.faults import EXPECTED, fault_of
from workers.headroom import rest_s
from workers.provider import Outgoing, TokenUsage
from workers.providers import WIRES

_KEY_TTL_S = 10.0
_READ_BYTES = 64 * 1024
_MAX_ERROR_BYTES = 64 * 1024
_OK = 200
_REDIRECTS = range(300, 400)


class Answer(msgspec.Struct, frozen=True, kw_only=True):
    """A provider's 200: its body as it came, what it used, and how long it took."""

    body: bytes
    usage: TokenUsage
    request_id: str | None
    duration_s: float
    model: str = ""
    """The provider's own name of the model it was asked for."""
    status: int = _OK
    rest_s: float | None = None
    """For how long its headers say that the provider's rate limit leaves nothing."""


class Transport:
    """Makes calls; for all threads or greenlets of one worker process."""

    def __init__(self, *, concurrency: int) -> None:
        """Raises ConfigError where the environment names a CA bundle that is not there."""
        self._verify = _ca_bundle()
        self._adapter = Adapter(concurrency=concurrency)
        self._watchdog = Watchdog()
        self._proxies: dict[str, dict[str, str]] = {}
        self._keys: dict[tuple[str, str, str], tuple[float, str | None]] = {}
        self._fingerprints: dict[tuple[str, str], str] = {}

    def close(self) -> None:
        """Calls under way end as they would have; their deadlines still hold."""
        self._watchdog.stop()
        self._adapter.close()

    def call(self, provider: Provider, endpoint: str, body: bytes) -> Answer:
        """One attempt. `endpoint` is ours (`/v1/chat/completions`), `body` the job's JSON.

        Raises a ProviderError of the kind that tells what to do next.
        """
        started = time.monotonic()
        wire = WIRES[provider.kind]
        key = self._key(provider)
        outgoing = wire.encode(provider, endpoint, body, key)
        status, headers, answer = self._post(provider, outgoing)
        if status != _OK:
            raise _refused(provider, status, headers, answer, key)
        return Answer(
            body=answer,
            usage=wire.decode(provider, answer, key),
            request_id=request_id(headers, key),
            duration_s=time.monotonic() - started,
            model=outgoing.model,
            rest_s=rest_s(headers, time.time()),
        )

    def fingerprint(self, provider: Provider) -> str:
        """Names the provider's endpoint and present key without telling them; one that cannot be used is as none."""
        try:
            key = self._key(provider) or ""
        except KeyRefusedError:
            key = ""
        slot = (provider.endpoint, key)
        found = self._fingerprints.get(slot)
        if found is None:
            found = self._fingerprints[slot] = fingerprint(*slot)
        return found

    def _key(self, provider: Provider) -> str | None:
        """The provider's key, read anew every few seconds, so that a mended one is found."""
        source = provider.api_key_env or str(provider.api_key_file or "")
        if not source:
            return None
        slot = (provider.id, provider.endpoint, source)
        known = self._keys.get(slot)
        if known is not None and known[0] > time.monotonic():
            return known[1]
        key = _checked(provider, source)
        self._keys[slot] = (time.monotonic() + _KEY_TTL_S, key)
        return key

    def _post(self, provider: Provider, outgoing: Outgoing) -> tuple[int, Mapping[str, str], bytes]:
        limits = provider.timeouts
        call = self._watchdog.watch(limits.total_s, min(limits.read_s, limits.total_s))
        raw: BaseHTTPResponse | None = None
        before = sys.exc_info()[1]
        try:
            response = self._adapter.send_under(
                call,
                _prepared(outgoing),
                timeout=(min(limits.connect_s, limits.total_s), call.silence_s),
                verify=self._verify,
                proxies=self._proxies_for(provider.endpoint),
            )
            raw = response.raw
            return raw.status, raw.headers, _read(provider, raw, call)
        except EXPECTED as exc:
            raise fault_of(provider, exc, call, before=before) from exc
        finally:
            if raw is not None:
                raw.close()
                raw.release_conn()
            self._adapter.done(call)

    def _proxies_for(self, endpoint: str) -> dict[str, str]:
        found = self._proxies.get(endpoint)
        if found is None:
            found = {} if _is_loopback(endpoint) else get_environ_proxies(endpoint)
            self._proxies[endpoint] = found
        return found


def _ca_bundle() -> str | bool:
    """As `requests` looks for it: a path from the environment, else True for the bundle that certifi brings."""
    for name in ("REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE"):
        if path := os.environ.get(name):
            if not os.path.exists(path):  # noqa: PTH110  a string, as requests wants it
                raise ConfigError([f"environment: {name}: there is no file or folder {path}"])
            return path
    return True


def _is_loopback(endpoint: str) -> bool:
    """A proxy cannot reach this machine's own servers."""
    host = urlsplit(endpoint).hostname or ""
    return host in {"localhost", "::1"} or host.startswith("127.")


def _checked(provider: Provider, source: str) -> str | None:
    try:
        key = provider.api_key()
    except ConfigError as exc:
        raise KeyRefusedError(exc.message, code="api_key_missing") from exc
    except ValueError as exc:  # a file that is no text
        raise _malformed(provider, source) from exc
    if not key:
        raise KeyRefusedError(
            f"provider {provider.id}: its API key is empty; check {source}", code="api_key_missing"
        )
    if not (key.isascii() and key.isprintable()):
        raise _malformed(provider, source)
    return key


def _malformed(provider: Provider, source: str) -> KeyRefusedError:
    return KeyRefusedError(
        f"provider {provider.id}: its API key has characters that no HTTP header may carry; check {source}",
        code="api_key_malformed",
    )


def _prepared(outgoing: Outgoing) -> requests.PreparedRequest:
    request = requests.PreparedRequest()
    request.method, request.url, request.body = "POST", outgoing.url, outgoing.body
    request.headers = {  # type: ignore[assignment]  # a plain dict does, at a tenth of the price
        **outgoing.headers,
        "Content-Length": str(len(outgoing.body)),
        "Accept-Encoding": "gzip, deflate",
    }
    return request


def _read(provider: Provider, raw: BaseHTTPResponse, call: Call) -> bytes:
    """The whole body, bounded in bytes and by the deadline; read to its end, so that the connection is used again.

    Of a refusal the first 64 KiB are enough, and less where no more comes: its status has told what matters.
    """
    answered = raw.status == _OK
    bound = provider.max_response_bytes if answered else _MAX_ERROR_BYTES
    parts: list[bytes] = []
    size = 0
    try:
        while size <= bound and (part := raw.read(_READ_BYTES, decode_content=True)):
            parts.append(part)
            size += len(part)
    except EXPECTED:
        if answered:
            raise
    in_time = call.end()  # a cut may look like the end of the body
    if answered and not in_time:
        raise TimeoutError
    if answered and size > bound:
        raise ProviderFailedError(
            f"{provider.id} answered with more than max_response_bytes ({bound:,}); raise it, or ask for less.",
            code="response_too_large",
        )
    return b"".join(parts)


def _refused(
    provider: Provider, status: int, headers: Mapping[str, str], body: bytes, key: str | None
) -> ProviderError:
    if status in _REDIRECTS:
        return redirected(provider.id, status, headers.get("location"))
    return classify(provider.id, status, headers, body, now=time.time(), key=key)
