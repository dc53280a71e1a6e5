"""Who answers the demo: the simulator, or, when asked for, the real providers that are configured or have a key here."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import yaml

from api.cli.init import endpoint_of
from api.cli.outcome import CommandError, UsageError
from api.up.folder import write_private
from api.up.known_providers import KNOWN
from shared.catalogue import Catalogue, Provider, find_file, load_catalogue
from shared.config import load_settings
from shared.errors import ConfigError

MODEL = "gpt-4o-mini"
"""Where a providers file names no models; the simulator takes any name."""

OPENAI = next(known for known in KNOWN if known.id == "openai")


@dataclass(frozen=True)
class Real:
    """The providers of a run that costs money."""

    file: Path
    catalogue: Catalogue

    def serving(self, model: str) -> list[Provider]:
        return [
            provider
            for provider in self.catalogue.providers
            if provider.enabled and provider.model_for(model) is not None
        ]


def choose_real(environ: Mapping[str, str], folder: Path) -> Real:
    """The providers file in use; else one made in `folder` from OPENAI_API_KEY.

    Raises ConfigError for a faulty file or a key that is missing, CommandError where there are no providers at all.
    """
    file = find_file(load_settings(environ))
    if file is None:
        file = _from_key(environ, folder)
    real = Real(file.absolute(), load_catalogue(file))
    faults = []
    for provider in real.catalogue.providers:
        if provider.enabled:
            try:
                provider.api_key(environ)
            except ConfigError as exc:
                faults.extend(exc.faults)
    if faults:
        raise ConfigError(faults)
    return real


def _from_key(environ: Mapping[str, str], folder: Path) -> Path:
    if not environ.get(OPENAI.key_variable, "").strip():
        raise CommandError(
            f"--real needs providers: set {OPENAI.key_variable}, or write ./providers.yaml (`llm-edge init` does it"
            " from the keys in the environment). Nothing was sent."
        )
    file = folder / "real-providers.yaml"
    provider = {
        "id": OPENAI.id,
        "name": OPENAI.name,
        "endpoint": endpoint_of(OPENAI, environ),
        "api_key_env": OPENAI.key_variable,
        "models": {"*": "*"},
    }
    write_private(file, yaml.safe_dump({"providers": [provider]}, sort_keys=False))
    return file


def model_of(real: Real, asked: str | None) -> str:
    """The model asked for; else the first that the providers file names. Raises UsageError where nobody serves it."""
    named = [
        name
        for provider in real.catalogue.providers
        if provider.enabled
        for name in provider.models
        if name != "*"
    ]
    model = asked or (named[0] if named else MODEL)
    if not real.serving(model):
        names = ", ".join(dict.fromkeys(named)) or "none by name"
        raise UsageError(f"no enabled provider of {real.file} serves the model {model!r}; it names: {names}.")
    return model
