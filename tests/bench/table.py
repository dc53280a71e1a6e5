"""What one section of `make bench` gives: a table, printed or written elsewhere."""

import msgspec


class Table(msgspec.Struct):
    """`rows` are as wide as `head`; `notes` says under what conditions, and what the budget is."""

    name: str
    head: list[str]
    rows: list[list[str]]
    notes: str = ""
