"""The demo's prompts: the documented functions of Python's standard library, read from its source without importing it."""

import ast
import itertools
import json
import sys
import sysconfig
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

from api.cli.outcome import FileError

QUESTION = "Summarise this function in one sentence."
MAX_TOKENS = 60
ENDPOINT = "/v1/chat/completions"

_SHORTEST, _LONGEST = 40, 2500
"""Characters of a docstring that is worth a summary and no burden."""
_FIRST = "json"
"""A module that everybody knows, so that the example shown is one that everybody can judge."""
_NO_MODULES = frozenset({"test", "tests", "idle_test", "__pycache__", "site-packages", "__phello__"})


class Function(NamedTuple):
    """A public function or method: `json.dumps`, its parameters, what it says about itself."""

    name: str
    parameters: str
    docstring: str

    @property
    def prompt(self) -> str:
        return f"{QUESTION}\n\n{self.name}({self.parameters})\n\n{self.docstring}"


def functions(lib: Path | None = None) -> Iterator[Function]:
    """Each once, lazily, since the whole library takes seconds: `json`, then the other modules by name, each in its own order.

    Raises FileError where the library's source is not on this machine.
    """
    folder = Path(sysconfig.get_path("stdlib")) if lib is None else lib
    if not (folder / "json" / "__init__.py").is_file():
        raise FileError(
            f"the source of Python's standard library is not in {folder}: use a Python that has it (python.org's do)."
        )
    seen = set()
    for name, path in _modules(folder):
        for function in _documented(_parsed(path).body, name):
            if function.name not in seen:
                seen.add(function.name)
                yield function


def _modules(folder: Path) -> Iterator[tuple[str, Path]]:
    """Name and source of every public module, sorted by name behind the first."""
    public = [name for name in sys.stdlib_module_names if not name.startswith("_")]
    for top in sorted(public, key=lambda name: (name != _FIRST, name)):
        if (single := folder / f"{top}.py").is_file():
            yield top, single
        package = folder / top
        if not package.is_dir():
            continue
        for path in sorted(package.rglob("*.py")):
            parts = path.relative_to(folder).with_suffix("").parts
            if parts[-1] == "__init__":
                parts = parts[:-1]
            if not _NO_MODULES.intersection(parts) and not any(part.startswith("_") for part in parts):
                yield ".".join(parts), path


def _parsed(path: Path) -> ast.Module:
    """The syntax tree; an empty one for a file that is no source of this Python."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # about the library's own old spellings
            return ast.parse(path.read_bytes())
    except (OSError, SyntaxError, ValueError):
        return ast.Module(body=[], type_ignores=[])


def _documented(body: list[ast.stmt], prefix: str) -> Iterator[Function]:
    for node in body:
        if isinstance(node, ast.ClassDef) and not node.name.startswith("_"):
            yield from _documented(node.body, f"{prefix}.{node.name}")
        if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef)) and not node.name.startswith("_"):
            docstring = (ast.get_docstring(node) or "").strip()
            if _SHORTEST <= len(docstring) <= _LONGEST:
                yield Function(f"{prefix}.{node.name}", ast.unparse(node.args), docstring)


def requests(count: int, model: str, lib: Path | None = None) -> Iterator[dict[str, Any]]:
    """`count` lines of a batch, each with its own custom_id.

    A library with fewer functions is gone through again, as `json.dumps#2` and so on.
    """
    made = 0
    for pass_number in itertools.count(1):
        for function in functions(lib):
            if made == count:
                return
            made += 1
            custom_id = function.name if pass_number == 1 else f"{function.name}#{pass_number}"
            yield _request(custom_id, function.prompt, model)
        if not made:
            return


def _request(custom_id: str, prompt: str, model: str) -> dict[str, Any]:
    body = {
        "model": model,
        "messages": [{"role": "user", "content": prompt}],
        "max_tokens": MAX_TOKENS,
    }
    return {"custom_id": custom_id, "method": "POST", "url": ENDPOINT, "body": body}


class Written(NamedTuple):
    """What an input file holds."""

    jobs: int
    prompt_bytes: int


def write(path: Path, count: int, model: str) -> Written:
    """Write the batch's input file."""
    jobs = prompt_bytes = 0
    with path.open("w", encoding="utf-8") as file:
        for line in requests(count, model):
            jobs += 1
            prompt_bytes += len(line["body"]["messages"][0]["content"].encode())
            file.write(json.dumps(line) + "\n")
    return Written(jobs, prompt_bytes)
