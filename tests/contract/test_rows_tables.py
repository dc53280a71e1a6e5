"""Tables that come in, and tables that go out: dialects, damage, and what is kept of a value."""

import json
import sys
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

from api.cli.outcome import FaultyInputError, UsageError
from api.cli.rows.answer import Outcome
from api.cli.rows.columns import cells
from api.cli.rows.sink import check_format, open_sink, replaced
from api.cli.rows.source import Reading, Source, open_source

GOOD = Outcome("yes", None, "stop", "sim", 3, 4, "0.5")


def source(path: Path, data: bytes | str, **reading: Any) -> Source:
    path.write_bytes(data.encode() if isinstance(data, str) else data)
    return open_source(path, Reading(**reading))


def values(found: Source) -> list[dict[str, Any]]:
    return [dict(row.values) for row in found.rows()]


def joined(found: Source, target: Path) -> None:
    list(found.rows())  # the survey, after which the columns are known
    streamed(found, target)


def streamed(found: Source, target: Path) -> None:
    with replaced(target) as fresh, open_sink(fresh, target, found, "") as sink:
        for row in found.rows():
            sink.write(row, cells(GOOD, ""))
        sink.close()


@pytest.mark.parametrize(
    ("data", "reading"),
    [
        ('id,text\n1,"a, ""b""\r\nc"\n\n2,ä\n', {}),
        ('\ufeffid;text\r\n1;"a, ""b""\r\nc"\r\n2;ä\r\n', {}),
        ('id\ttext\n1\t"a, ""b""\r\nc"\n2\tä', {}),
        ('"id,"|text\n1|"a, ""b""\r\nc"\n2|ä', {}),
        ('id#text\n1#"a, ""b""\r\nc"\n2#ä', {"delimiter": "#"}),
        ('id,text\n1,"a, ""b""\r\nc"\n2,ä\n'.encode("cp1252"), {"encoding": "cp1252"}),
        ('id,text\n1,"a, ""b""\r\nc"\n2,ä\n'.encode("utf-16"), {}),
    ],
)
def test_csv_as_it_comes(tmp_path: Path, data: str | bytes, reading: dict[str, str]) -> None:
    found = source(tmp_path / "r.csv", data, **reading)
    assert [list(row.values()) for row in values(found)] == [["1", 'a, "b"\r\nc'], ["2", "ä"]]
    assert values(found) == values(found)  # as often as one likes


def test_a_tsv_has_tabs_and_an_odd_header_is_one_column(tmp_path: Path) -> None:
    assert source(tmp_path / "r.tsv", "a,b\tc\n1\t2\n").columns == ["a,b", "c"]
    assert source(tmp_path / "r.csv", "text\nhello; you\n").columns == ["text"]
    assert values(source(tmp_path / "big.csv", f"text\n{'x' * 500_000}\n"))[0]["text"] == "x" * 500_000


@pytest.mark.parametrize(
    ("name", "data", "message"),
    [
        ("r.csv", "id,text\n1,a\n2,b,c\n", "line 3: 3 fields where the header names 2"),
        (
            "r.csv",
            'id,text\n1,"a\nb"\n2,"b\n',
            "begins on line 4: unexpected end of data. Is a quote not closed",
        ),
        (
            "r.csv",
            b"id,text\n1,a\n2,\xe9t\xe9\n",
            r"line 3: byte 3 \(0xe9\) is no utf-8 text.*--encoding cp1252",
        ),
        ("r.csv", "", "is empty"),
        ("r.csv", "a,b,a\n", "two columns are named 'a'"),
        ("r.jsonl", '{"a": 1}\n\n{"a": \n', "line 3: no JSON"),
        ("r.jsonl", '{"a": 1}\n[1]\n', "line 2: a row must be a JSON object"),
        ("r.jsonl", b'{"a": "\xff"}\n', "line 1: byte 8"),
        ("r.jsonl", '{"a": "\\ud800"}\n', "line 1: text that is not Unicode"),
        ("r.jsonl", '{"a": ' + "[" * 600 + "]" * 600 + "}\n", "line 1: lists and objects"),
        ("r.parquet", "PAR1 no", "cannot be read as Parquet"),
    ],
)
def test_damage_is_named_with_its_place(tmp_path: Path, name: str, data: str | bytes, message: str) -> None:
    with pytest.raises(FaultyInputError, match=message):
        values(source(tmp_path / name, data))


def test_an_ending_that_we_do_not_know(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"its ending must be one of \.csv, \.tsv"):
        open_source(tmp_path / "r.csv.gz", Reading())


CELL = st.text(st.characters(codec="utf-8", exclude_characters="\0"), max_size=12)


@given(st.lists(st.tuples(CELL, CELL), max_size=8))
def test_csv_goes_through_unchanged(
    tmp_path_factory: pytest.TempPathFactory, rows: list[tuple[str, str]]
) -> None:
    folder = tmp_path_factory.mktemp("csv")
    lines = "".join(json.dumps({"a": a, "b": b}) + "\n" for a, b in rows)
    found = source(folder / "r.jsonl", lines or "\n")
    joined(found, folder / "one.csv")
    if rows:
        again = open_source(folder / "one.csv", Reading(delimiter=","))
        assert [(row["a"], row["b"]) for row in values(again)] == rows
        assert all(row["answer"] == "yes" and row["error"] == "" for row in values(again))


def test_json_lines_keep_their_types_and_csv_gets_all_columns(tmp_path: Path) -> None:
    rows: list[dict[str, Any]] = [{"a": 1, "b": None, "c": [1, {"x": "ä"}]}, {"a": float("nan"), "d": True}]
    found = source(tmp_path / "r.jsonl", "".join(json.dumps(row) + "\n" for row in rows))
    joined(found, tmp_path / "o.jsonl")
    out = [json.loads(line) for line in (tmp_path / "o.jsonl").read_text().splitlines()]
    assert out[0] == {**rows[0], **cells(GOOD, "")}
    assert out[1]["a"] is None
    joined(found, tmp_path / "o.csv")
    assert (tmp_path / "o.csv").read_text().splitlines()[1:] == [
        '1,,"[1, {""x"": ""ä""}]",,yes,,stop,sim,3,4,0.5',
        ",,,true,yes,,stop,sim,3,4,0.5",
    ]
    joined(found, tmp_path / "o.parquet")
    table = pq.read_table(tmp_path / "o.parquet")
    assert [str(table.schema.field(name).type) for name in "abcd"] == ["int64", "string", "string", "bool"]
    assert table.column("c").to_pylist() == ['[1, {"x": "ä"}]', None]


def test_parquet_goes_through_without_loss(tmp_path: Path) -> None:
    table = pa.table(
        {
            "id": pa.array(range(2500), pa.int32()),
            "ns": pa.array([1, None] * 1250, pa.timestamp("ns", "UTC")),
            "bytes": pa.array([b"\xff", None] * 1250),
            "nested": pa.array([[{"a": 1.5}], None] * 1250),
            "word": pa.array(["a", None] * 1250).dictionary_encode(),
        }
    ).replace_schema_metadata({"theirs": "kept"})
    pq.write_table(table, tmp_path / "r.parquet", row_group_size=900)
    found = open_source(tmp_path / "r.parquet", Reading())
    joined(found, tmp_path / "o.parquet")
    back = pq.read_table(tmp_path / "o.parquet")
    assert back.select(table.column_names).equals(table)
    assert back.schema.metadata[b"theirs"] == b"kept"
    assert back.column("answer").to_pylist() == ["yes"] * 2500
    joined(found, tmp_path / "o.jsonl")
    first = json.loads((tmp_path / "o.jsonl").read_text().splitlines()[0])
    assert (first["ns"], first["bytes"], first["nested"]) == (
        "1970-01-01 00:00:00.000000001Z",
        "/w==",
        [{"a": 1.5}],
    )


def test_parquet_without_its_extra_tells_how_to_get_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delitem(sys.modules, "api.cli.rows.parquet", raising=False)
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    with pytest.raises(UsageError, match=r"pip install 'llm-edge-agent\[parquet\]'"):
        open_source(tmp_path / "r.parquet", Reading())
    with pytest.raises(UsageError, match="Parquet needs pyarrow"):
        check_format(tmp_path / "o.parquet")
    check_format(tmp_path / "o.csv")


def test_an_output_appears_whole_or_not_at_all(tmp_path: Path) -> None:
    target = tmp_path / "o.csv"
    target.write_text("old")
    damaged = source(tmp_path / "r.csv", "a\n1\n2,3\n")
    with pytest.raises(FaultyInputError):
        streamed(damaged, target)
    assert target.read_text() == "old"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["o.csv", "r.csv"]
