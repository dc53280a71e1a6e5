"""What it means when a call brings no answer: from the libraries' exceptions to ours, as one table.

Their texts are never passed on: they carry URLs, and proxies' URLs carry passwords.
"""

import http.client
import os
import socket
import ssl
from collections.abc import Iterator

import requests
from urllib3 import exceptions as urllib3

from shared.catalogue import Provider
from shared.errors import ProviderError, ProviderFailedError, ProviderTimeoutError, ProviderUnreachableError
from workers.deadline import Call

EXPECTED = (requests.RequestException, urllib3.HTTPError, http.client.HTTPException, OSError)
"""What a call may raise."""

Row = tuple[tuple[type[BaseException], ...], type[ProviderError], str]

_TIMEOUTS = (TimeoutError, urllib3.TimeoutError, requests.Timeout)

FAULTS: tuple[Row, ...] = (
    (
        (requests.exceptions.InvalidSchema,),
        ProviderUnreachableError,
        "its proxy is of a kind this process has no support for",
    ),
    (
        (urllib3.ProxyError,),
        ProviderUnreachableError,
        "the proxy on the way could not be reached, or refused",
    ),
    ((ssl.SSLCertVerificationError,), ProviderUnreachableError, "its TLS certificate is not trusted"),
    ((ssl.SSLError, urllib3.SSLError), ProviderUnreachableError, "the TLS connection failed"),
    (
        (socket.gaierror, urllib3.NameResolutionError),
        ProviderUnreachableError,
        "its name could not be resolved",
    ),
    ((ConnectionRefusedError,), ProviderUnreachableError, "connection refused"),
    (
        (http.client.RemoteDisconnected,),
        ProviderUnreachableError,
        "it closed the connection without an answer",
    ),
    ((ConnectionError,), ProviderUnreachableError, "connection reset"),
    (
        (http.client.IncompleteRead, urllib3.IncompleteRead),
        ProviderUnreachableError,
        "it closed the connection in mid-answer",
    ),
    ((http.client.HTTPException,), ProviderFailedError, "it answered something that is not HTTP"),
    ((urllib3.DecodeError,), ProviderFailedError, "its answer could not be decompressed"),
    (
        (requests.exceptions.InvalidURL, urllib3.LocationValueError),
        ProviderUnreachableError,
        "its endpoint is not a usable URL",
    ),
)
"""The first row that fits any exception of the chain counts."""


def fault_of(
    provider: Provider, exc: BaseException, call: Call, *, before: BaseException | None
) -> ProviderError:
    """The ProviderError that `exc`, raised by this call, amounts to. `before` was being handled when the call began."""
    limits = provider.timeouts
    if call.over or call.left_s() <= 0:
        return ProviderTimeoutError(f"{provider.id} did not finish its answer within {limits.total_s:g} s.")
    chain = tuple(_chain(exc, before))
    if any(isinstance(link, _TIMEOUTS) for link in chain) and not _refused(chain):
        if not call.connected:
            limit_s = min(limits.connect_s, limits.total_s)
            return ProviderTimeoutError(f"{provider.id} could not be connected to within {limit_s:g} s.")
        return ProviderTimeoutError(f"{provider.id} was silent for {call.silence_s:g} s.")
    for types, kind, words in FAULTS:
        if any(isinstance(link, types) for link in chain):
            return kind(f"{provider.id} could not be asked: {words}.")
    return ProviderUnreachableError(f"{provider.id} could not be asked: {_words(chain)}.")


def _refused(chain: tuple[BaseException, ...]) -> bool:
    """urllib3's NewConnectionError is a TimeoutError by inheritance only."""
    return any(isinstance(link, urllib3.NewConnectionError) for link in chain)


def _words(chain: tuple[BaseException, ...]) -> str:
    for link in chain:
        if isinstance(link, OSError) and link.errno:
            return os.strerror(link.errno).lower()
    return type(chain[0]).__name__


def _chain(exc: BaseException, before: BaseException | None) -> Iterator[BaseException]:
    """The exception and all it wraps, in whichever way: as cause, context, reason or argument."""
    seen = {id(before)}
    waiting = [exc]
    while waiting:
        link = waiting.pop(0)
        if id(link) in seen:
            continue
        seen.add(id(link))
        yield link
        inner = (link.__cause__, link.__context__, getattr(link, "reason", None), *link.args)
        waiting += [found for found in inner if isinstance(found, BaseException)]
