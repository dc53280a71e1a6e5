"""The demo's prompts: enough of them on this Python, each with its own id, read without importing anything."""

import itertools
import json
import sys
from pathlib import Path

import pytest
from support.offers import Serves

from api.cli import corpus
from api.cli.outcome import FileError
from shared.lines import Checked, check, split_lines

ENOUGH = 1_000


def test_there_are_enough_functions_each_once() -> None:
    before = set(sys.modules)
    found = list(itertools.islice(corpus.functions(), ENOUGH))
    assert set(sys.modules) - before == set()
    assert len({function.name for function in found}) == ENOUGH
    assert "json.dumps" in {function.name for function in found[:5]}
    assert all(40 <= len(function.docstring) <= 2500 for function in found)
    assert not any(part.startswith("_") for function in found for part in function.name.split("."))


def test_a_prompt_shows_name_parameters_and_docstring() -> None:
    dumps = next(function for function in corpus.functions() if function.name == "json.dumps")
    assert dumps.prompt.startswith(f"{corpus.QUESTION}\n\njson.dumps(obj, *, skipkeys=False,")
    assert "Serialize ``obj`` to a JSON formatted ``str``" in dumps.prompt


def test_the_file_is_a_batch_and_always_the_same(tmp_path: Path) -> None:
    first, second = tmp_path / "1.jsonl", tmp_path / "2.jsonl"
    written = corpus.write(first, 50, "some-model")
    corpus.write(second, 50, "some-model")
    assert first.read_bytes() == second.read_bytes()
    places = list(split_lines([first.read_bytes()]))
    checked = [check(place, corpus.ENDPOINT, Serves("some-model")) for place in places]
    assert all(isinstance(line, Checked) for line in checked)
    bodies = [json.loads(line)["body"] for line in first.read_text().splitlines()]
    assert {body["max_tokens"] for body in bodies} == {corpus.MAX_TOKENS}
    prompts = [body["messages"][0]["content"].encode() for body in bodies]
    assert written == (50, sum(map(len, prompts)))


def library(folder: Path, **modules: str) -> Path:
    """A small standard library."""
    (folder / "json").mkdir()
    (folder / "json" / "__init__.py").write_text("")
    for name, text in modules.items():
        (folder / f"{name}.py").write_text(text)
    return folder


DOC = '"""A docstring that is long enough to be worth a summary."""'


def test_what_counts_as_a_function(tmp_path: Path) -> None:
    lib = library(
        tmp_path,
        abc=f"def b(x, /, *y):\n  {DOC}\nasync def a():\n  {DOC}\nclass C:\n  def m(self):\n    {DOC}\n",
        ast=f"def b():\n  {DOC}\ndef b():\n  {DOC}\ndef _p():\n  {DOC}\ndef q():\n  '''short'''\nclass _D:\n  def m(self):\n    {DOC}\n",
        cgi="this is no Python",
        not_in_the_library=f"def f():\n  {DOC}\n",
    )
    found = [(function.name, function.parameters) for function in corpus.functions(lib)]
    assert found == [("abc.b", "x, /, *y"), ("abc.a", ""), ("abc.C.m", "self"), ("ast.b", "")]


def test_a_small_library_is_gone_through_again_under_new_ids(tmp_path: Path) -> None:
    lib = library(tmp_path, abc=f"def f():\n  {DOC}\n", ast=f"def g():\n  {DOC}\n")
    ids = [line["custom_id"] for line in corpus.requests(5, "m", lib)]
    assert ids == ["abc.f", "ast.g", "abc.f#2", "ast.g#2", "abc.f#3"]


def test_a_python_without_its_source_says_so(tmp_path: Path) -> None:
    with pytest.raises(FileError, match="source of Python's standard library is not in"):
        next(corpus.functions(tmp_path))
