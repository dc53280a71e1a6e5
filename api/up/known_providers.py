"""Servers that speak OpenAI's wire format, by the environment variable that customarily holds their key."""

from collections.abc import Mapping
from typing import NamedTuple


class Known(NamedTuple):
    """One well-known provider: what `llm-edge init` writes about it."""

    id: str
    name: str
    key_variable: str
    endpoint: str


KNOWN = (
    Known("openai", "OpenAI", "OPENAI_API_KEY", "https://api.openai.com/v1"),
    Known("mistral", "Mistral", "MISTRAL_API_KEY", "https://api.mistral.ai/v1"),
    Known("deepseek", "DeepSeek", "DEEPSEEK_API_KEY", "https://api.deepseek.com/v1"),
    Known("groq", "Groq", "GROQ_API_KEY", "https://api.groq.com/openai/v1"),
    Known("together", "Together AI", "TOGETHER_API_KEY", "https://api.together.xyz/v1"),
    Known("fireworks", "Fireworks AI", "FIREWORKS_API_KEY", "https://api.fireworks.ai/inference/v1"),
    Known("xai", "xAI", "XAI_API_KEY", "https://api.x.ai/v1"),
    Known("cerebras", "Cerebras", "CEREBRAS_API_KEY", "https://api.cerebras.ai/v1"),
    Known("openrouter", "OpenRouter", "OPENROUTER_API_KEY", "https://openrouter.ai/api/v1"),
)


def found_in(environ: Mapping[str, str]) -> list[Known]:
    """Those whose key is set."""
    return [known for known in KNOWN if environ.get(known.key_variable, "").strip()]
