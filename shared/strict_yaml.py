"""YAML in which no key stands twice in a mapping: of the two, plain YAML takes the last and says nothing. JSON is YAML, too."""

from typing import Any

import yaml
from yaml.nodes import MappingNode, ScalarNode

from shared.errors import ConfigError

_SHOWN_CHARS = 100


class _Loader(yaml.SafeLoader):
    """Looks before merges (`<<`) are resolved: what is merged in may be overruled."""

    def __init__(self, text: str) -> None:
        super().__init__(text)
        self.twice: list[tuple[int, str, int]] = []
        """The line, the key, and the line on which it stood first."""

    def compose_mapping_node(self, anchor: Any) -> MappingNode:
        node: MappingNode = super().compose_mapping_node(anchor)
        lines: dict[tuple[str, str], int] = {}
        for key, _ in node.value:
            if isinstance(key, ScalarNode):
                line, same = key.start_mark.line + 1, (key.tag, key.value)
                if same in lines:
                    self.twice.append((line, key.value, lines[same]))
                lines.setdefault(same, line)
        return node


def parse(text: str, name: str) -> Any:
    """What stands in the file of that name. Raises ConfigError for keys that stand twice, yaml.YAMLError and ValueError for the rest."""
    loader = _Loader(text)
    try:
        found = loader.get_single_data()
    finally:
        loader.dispose()
    if loader.twice:
        raise ConfigError(
            [
                f"{name}:{line}: '{key[:_SHOWN_CHARS]}' stands here again; it is on line {first} already"
                for line, key, first in sorted(loader.twice)
            ]
        )
    return found
