"""`llm-edge init`: a providers file from the keys that the environment holds."""

import os
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated
from urllib.parse import urlsplit

import typer
import yaml

from api.up.known_providers import KNOWN, Known, found_in
from shared.catalogue import DEFAULT_FILES, load_catalogue
from shared.errors import ConfigError

_HEAD = """\
# The providers of this fleet, written by `llm-edge init`. It holds no key, only the names of their variables.
# Worth adding, per provider: `models: {asked for: the provider's name}`; "*": "*" passes every model name on as it is.
# Cost is counted at list prices, until you give your own: `cost_per_1k_tokens` (US dollars), or `prices` per model.
# Check it with `llm-edge config check`.
"""
_SEVERAL = """\
# Failover asks the provider of the lowest priority number first. Name each one's models before you try round_robin:
# a provider that is asked for a model it does not have refuses, and the next one is asked.
"""


def init(
    force: Annotated[bool, typer.Option("--force", help="Overwrite ./providers.yaml.")] = False,
) -> None:
    """Write ./providers.yaml from the provider keys found in the environment (never the keys themselves)."""
    found = found_in(os.environ)
    if not found:
        names = ", ".join(known.key_variable for known in KNOWN)
        _refuse(
            f"no provider key in the environment, so nothing was written. Set one of {names}, and run this again."
        )
    _check_place(force=force)
    if urlsplit(os.environ.get("OPENAI_BASE_URL", "")).username is not None:
        _refuse("nothing was written: OPENAI_BASE_URL carries credentials, which do not belong into a file.")
    target = Path("providers.yaml")
    try:
        write_checked(target, providers_text(found, os.environ))
    except ConfigError as exc:
        _refuse(f"nothing was written: {exc.message}")
    except OSError as exc:
        _refuse(f"{target} could not be written: {exc.strerror}")
    for known in found:
        print(f"{known.id}: {endpoint_of(known, os.environ)}, key from {known.key_variable}")
    print(f"wrote {target.absolute()}")
    if os.environ.get("LLM_EDGE_CONFIG"):
        print(
            f"note: LLM_EDGE_CONFIG={os.environ['LLM_EDGE_CONFIG']} is set, and that file is used instead of this one"
        )
    print("next: `llm-edge config check`, then `llm-edge up`")


def _check_place(*, force: bool) -> None:
    """Exits where a providers file stands already; one in another format would hide, or be hidden by, the new one."""
    for name in DEFAULT_FILES:
        if not Path(name).exists() or (force and name == "providers.yaml"):
            continue
        if name == "providers.yaml":
            _refuse(f"{name} exists and was left alone. Use --force to overwrite it.")
        _refuse(f"{name} exists, and a new providers.yaml would take its place. Move it away first.")


def providers_text(found: list[Known], environ: Mapping[str, str]) -> str:
    """The file's text for these providers."""
    providers = [
        {
            "id": known.id,
            "name": known.name,
            "kind": "openai",
            "endpoint": endpoint_of(known, environ),
            "api_key_env": known.key_variable,
            "priority": number,
            "models": {"*": "*"},
        }
        for number, known in enumerate(found, start=1)
    ]
    text = _HEAD + yaml.safe_dump({"providers": providers}, sort_keys=False)
    if len(providers) > 1:
        text += _SEVERAL + yaml.safe_dump({"routing": {"strategy": "failover"}})
    return text


def endpoint_of(known: Known, environ: Mapping[str, str]) -> str:
    """The documented endpoint; for OpenAI the one in OPENAI_BASE_URL where that is set, as OpenAI's own clients do."""
    base = environ.get("OPENAI_BASE_URL", "").strip()
    return base if known.id == "openai" and urlsplit(base).scheme in {"http", "https"} else known.endpoint


def write_checked(target: Path, text: str) -> None:
    """Write the file only if it is a valid providers file. Raises ConfigError where it is not, OSError where it cannot."""
    fresh = target.with_name(f".{target.stem}.new{target.suffix}")
    try:
        fresh.write_text(text, encoding="utf-8")
        load_catalogue(fresh)
        fresh.replace(target)
    finally:
        fresh.unlink(missing_ok=True)


def _refuse(message: str) -> None:
    print(f"llm-edge init: {message}", file=sys.stderr, flush=True)
    raise typer.Exit(1)
