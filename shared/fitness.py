"""Whether a provider can take a request at all, by the providers file alone, and why not. Pure."""

from collections.abc import Iterable
from enum import StrEnum
from typing import Protocol

import msgspec

from shared.catalogue import Provider
from shared.needs import needs_in
from shared.tokens import Measured


class Unfit(StrEnum):
    """Why a provider cannot serve a request, whatever its condition."""

    DISABLED = "disabled"
    NOT_ASKED_FOR = "not_asked_for"
    MODEL = "model"
    CAPABILITY = "capability"
    CONTEXT = "context"
    MAX_TOKENS = "max_tokens"


class Wants(Protocol):
    """What is to be known of a request: `max_output_tokens` is what it asks for, `input_tokens` the plain estimate.

    `needs` are capabilities (`shared.needs`), `allowed` the ids of the only providers that it may go to (None: any).
    """

    @property
    def input_tokens(self) -> int: ...
    @property
    def max_output_tokens(self) -> int | None: ...
    @property
    def needs(self) -> frozenset[str]: ...
    @property
    def allowed(self) -> frozenset[str] | None: ...


class Wanted(msgspec.Struct, frozen=True):
    """The same as a record, for whoever has nothing that looks like it."""

    input_tokens: int = 0
    max_output_tokens: int | None = None
    needs: frozenset[str] = frozenset()
    allowed: frozenset[str] | None = None


def wanted(body: bytes, measured: Measured, providers: Iterable[str] | None = None) -> Wanted:
    """Of a request's body and what `shared.tokens.measure` says of it. `providers`: those of its `routing`."""
    allowed = None if providers is None else frozenset(providers)
    return Wanted(measured.input_tokens, measured.max_tokens, needs_in(body), allowed)


def unfit(provider: Provider, model: str, wants: Wants) -> Unfit | None:
    """The first reason that speaks against asking that provider for that model; None where there is none."""
    if not provider.enabled:
        return Unfit.DISABLED
    if wants.allowed is not None and provider.id not in wants.allowed:
        return Unfit.NOT_ASKED_FOR
    if provider.model_for(model) is None:
        return Unfit.MODEL
    if provider.capabilities is not None and not wants.needs.issubset(provider.capabilities):
        return Unfit.CAPABILITY
    return _too_large(provider, wants)


def _too_large(provider: Provider, wants: Wants) -> Unfit | None:
    asked = wants.max_output_tokens or 0
    if provider.context_tokens is not None and wants.input_tokens + asked > provider.context_tokens:
        return Unfit.CONTEXT
    if provider.max_tokens is not None and asked > provider.max_tokens:
        return Unfit.MAX_TOKENS
    return None
