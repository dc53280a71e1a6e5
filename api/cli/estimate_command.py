"""`llm-edge batch estimate`: reads the file, the providers file and, where a server is there, what it has learned of tokens."""

import os
from collections.abc import Iterator, Mapping
from pathlib import Path

from api.cli.client import Client
from api.cli.estimate import Estimate, estimate
from api.cli.experience import Experience, experience_of
from api.cli.journey import endpoint_of
from api.cli.outcome import AwayError, CommandError, FaultyInputError, FileError, RefusedError, UsageError
from api.cli.words import printable, size
from shared.catalogue import Catalogue, find_file, load_catalogue
from shared.config import Settings, load_settings
from shared.errors import ConfigError
from shared.lines import ENDPOINTS

_PIECE_BYTES = 256 * 1024
_TIMEOUT_S = (2.0, 5.0)
"""Connecting, and silence: what would be nice to know is not waited for."""


def run(
    file: Path, endpoint: str | None, model: str | None, environ: Mapping[str, str], client: Client
) -> Estimate:
    """Raises CommandError where there is no providers file, FaultyInputError for a file that no server would take, UsageError."""
    try:
        settings = load_settings(environ)
        catalogue = _catalogue(settings)
    except ConfigError as exc:
        raise CommandError(exc.message, code=exc.code) from exc
    if model is not None and not catalogue.serves(model):
        names = ", ".join(catalogue.model_names) or "none by name"
        raise UsageError(
            f"--model {printable(model, 100)}: no enabled provider serves it; they name: {names}."
        )
    url = endpoint or endpoint_of(file)
    if url not in ENDPOINTS:
        raise FaultyInputError(f"the endpoint {printable(url, 100)!r} is none of {', '.join(ENDPOINTS)}.")
    try:
        found, most = file.stat().st_size, settings.max_file_bytes
        if found > most:
            raise FaultyInputError(
                f"{file} has {size(found)}; {size(most)} is the most that can be uploaded (LLM_EDGE_MAX_FILE_BYTES)."
            )
        return estimate(
            _pieces(file),
            url,
            catalogue,
            max_jobs=settings.max_batch_jobs,
            model=model,
            experience=_heard_from(client),
        )
    except OSError as exc:
        raise FileError(f"{file}: {os.strerror(exc.errno or 0)}") from exc


def _catalogue(settings: Settings) -> Catalogue:
    file = find_file(settings)
    if file is None:
        raise ConfigError(
            [
                (
                    "no providers file, so nothing is known of prices and limits: name it with LLM_EDGE_CONFIG, or write"
                    " ./providers.yaml (`llm-edge init` does it from the keys in the environment)."
                )
            ]
        )
    return load_catalogue(file)


def _heard_from(client: Client) -> Experience:
    """Whatever goes wrong, there is none: nobody needs a server for an estimate."""
    try:
        return experience_of(client.url, client.providers(patient=False, timeout_s=_TIMEOUT_S))
    except AwayError as exc:
        why = "cannot serve now" if exc.answered else "cannot be reached"
    except RefusedError as exc:
        why = f"does not say ({exc.http_status}; it takes an administrator's key)"
    return Experience(client.url, f"{client.url} {why}")


def _pieces(file: Path) -> Iterator[bytes]:
    with file.open("rb") as source:
        while piece := source.read(_PIECE_BYTES):
            yield piece
