"""The simulated providers: three characters of one simulator process, and the providers file that names them."""

import sys
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import yaml

_HEAD = """\
# Written by `llm-edge up` at each start: these providers are SIMULATED, every answer is made up.
# For real ones set a provider's key, for example OPENAI_API_KEY, and run `llm-edge init`.
"""


class Persona(NamedTuple):
    """One simulated provider: how dear, and in the simulator's own words how quick and how reliable."""

    name: str
    usd_per_1k_tokens: float
    settings: Mapping[str, float]


PERSONAS = (
    Persona("fast", 0.03, {"latency_s": 0.15, "latency_p95_s": 0.25}),
    Persona("steady", 0.01, {"latency_s": 0.3, "latency_p95_s": 0.35}),
    Persona("cheap", 0.002, {"latency_s": 0.6, "latency_p95_s": 1.2, "error_rate": 0.01}),
)


def simulator_argv(port: int, options: Sequence[str] = ()) -> tuple[str, ...]:
    """The simulator's command. What `options` say holds for all personas; a `--persona` of theirs replaces ours of that name."""
    said = {
        option.partition("=")[0].removeprefix("--").replace("-", "_")
        for option in options
        if option.startswith("--")
    }
    if "latency_s" in said:
        said.add("latency_p95_s")  # the percentile belongs to its median
    replaced = {word.partition(":")[0].removeprefix("--persona=") for word in options}
    ours = []
    for persona in PERSONAS:
        settings = ",".join(f"{name}={value}" for name, value in persona.settings.items() if name not in said)
        if persona.name not in replaced:
            ours += ["--persona", f"{persona.name}:{settings}"]
    return (sys.executable, "-m", "workers.simulator", "--port", str(port), *ours, *options)


def providers_text(port: int) -> str:
    """The providers file for a simulator on that port."""
    providers: list[dict[str, Any]] = [
        {
            "id": f"sim-{persona.name}",
            "name": f"Simulated ({persona.name})",
            "kind": "openai",
            "endpoint": f"http://127.0.0.1:{port}/p/{persona.name}/v1",
            "simulated": True,
            "cost_per_1k_tokens": persona.usd_per_1k_tokens,
            "models": {"*": "*"},
        }
        for persona in PERSONAS
    ]
    return _HEAD + yaml.safe_dump({"providers": providers}, sort_keys=False)
