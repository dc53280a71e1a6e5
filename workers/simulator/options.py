"""From the command line's words to the behaviour of each persona."""

from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any

from shared.errors import ConfigError
from workers.simulator.behaviour import LISTS, NAME, Behaviour, changed, read_json
from workers.simulator.personas import DEFAULT

Step = tuple[str, dict[str, Any], str]
"""A persona's name, its settings, and how to name their place in a fault."""


def read_behaviours(
    given: Mapping[str, str], rules: Sequence[str], personas: Sequence[str]
) -> dict[str, Behaviour]:
    """The behaviour of each persona, `default` among them. Raises ConfigError with every fault.

    Each persona begins with the options' behaviour; one that is named twice adds to itself.
    """
    faults: list[str] = []
    found = {DEFAULT: Behaviour()}
    for read in (partial(_options, given, rules), *(partial(_persona, text) for text in personas)):
        try:
            name, settings, where = read()
            found[name] = changed(found.get(name, found[DEFAULT]), settings, where)
        except ConfigError as exc:
            faults += exc.faults
    if faults:
        raise ConfigError(faults)
    return found


def _options(given: Mapping[str, str], rules: Sequence[str]) -> Step:
    settings: dict[str, Any] = {k: v.split(",") if k in LISTS else v for k, v in given.items()}
    if rules:
        settings["rules"] = [read_json(text, f"--rule {text}") for text in rules]
    return DEFAULT, settings, "options"


def _persona(text: str) -> Step:
    """`NAME:latency_s=0.3,error_statuses=500+503` or `NAME:{JSON}`. Raises ConfigError."""
    name, _, rest = text.partition(":")
    where = f"--persona {name}"
    if not NAME.fullmatch(name):
        raise ConfigError(
            [f"--persona {text}: write NAME:setting=value,… with a NAME of letters, digits and . _ -"]
        )
    if rest.startswith("{"):
        return name, read_json(rest, where), where
    pairs = [pair.partition("=") for pair in rest.split(",") if pair.strip()]
    faults = [f"{where}: {key}: write setting=value" for key, sign, _ in pairs if not sign]
    if faults:
        raise ConfigError(faults)
    return name, {key.strip(): _value(key.strip(), value.strip()) for key, _, value in pairs}, where


def _value(name: str, text: str) -> Any:
    return text.split("+") if name in LISTS else text
