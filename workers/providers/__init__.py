"""The provider kinds by name."""

from workers.provider import Wire
from workers.providers.openai import OpenAIWire

WIRES: dict[str, Wire] = {"openai": OpenAIWire()}
