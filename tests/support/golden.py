"""Golden files of what is kept in Redis: the form of each record, and examples that must stay readable.

`tests/golden/records/NAME-vN.json`: N is the version of the records (`shared.versions`) at which it is written.
"""

import json
from pathlib import Path
from typing import Any

from shared.versions import VERSION

FOLDER = Path(__file__).parents[1] / "golden" / "records"

RENEW = """
What is kept in Redis under '{name}' has changed. While a fleet is upgraded, processes of the last release still read it, and write theirs:
* a field that may be missing or ignored: renew the file by `pytest {test} --golden`, and commit it;
* one without which an older process would do something wrong: raise VERSION in shared/versions.py first, then do the same.
"""


def check(name: str, form: Any, *, renew: bool, test: str, example: Any = None) -> None:
    """That `form` is what its golden file says; with `renew` the file says so from now on, and has the example besides its earlier ones."""
    path = FOLDER / f"{name}-v{VERSION}.json"
    form = json.loads(json.dumps(form))  # lists for tuples
    kept: dict[str, Any] = json.loads(path.read_text("utf-8")) if path.exists() else {}
    if renew:
        examples = kept.get("examples", [])
        if example is not None and example not in examples:
            examples.append(example)
        new = {"form": form, **({"examples": examples} if examples else {})}
        FOLDER.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps(new, indent=1, sort_keys=True) + "\n", "utf-8")
        return
    assert kept.get("form") == form, RENEW.format(name=name, test=test)


def examples(name: str) -> list[Any]:
    """All that was ever written under this name, the oldest version first."""
    files = sorted(FOLDER.glob(f"{name}-v*.json"), key=lambda path: int(path.stem.rpartition("-v")[2]))
    return [example for path in files for example in json.loads(path.read_text("utf-8"))["examples"]]
