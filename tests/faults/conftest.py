"""The fault suite: cases F1 to F22 against a real stack, on both pools. `make faults` runs all, `make verify` the short forms."""

from pathlib import Path

import pytest

_HERE = Path(__file__).parent


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """What is not marked `faults` is a short form, for `make verify`."""
    for item in items:
        if item.path.is_relative_to(_HERE) and item.get_closest_marker("faults") is None:
            item.add_marker(pytest.mark.verify)
