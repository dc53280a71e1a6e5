"""Cells: how a value of a table stands in a prompt, in CSV and in JSON, and when it is missing. Pure."""

import base64
import json
import math
from datetime import date, datetime, time
from decimal import Decimal
from typing import Any


def is_null(value: Any) -> bool:
    """None, or a float that is no number: what dataframes write for a value that is not there."""
    return value is None or (isinstance(value, float) and math.isnan(value))


def is_blank(value: Any) -> bool:
    """Null, or text of nothing but white space."""
    return is_null(value) or (isinstance(value, str) and not value.strip())


def text(value: Any) -> str:
    """A value as text, for prompts and CSV: null is empty, lists and records are JSON, bytes are base64, dates ISO 8601."""
    if isinstance(value, str):
        return value
    if is_null(value):
        return ""
    plain = for_json(value)
    return plain if isinstance(plain, str) else json.dumps(plain, ensure_ascii=False)


def for_json(value: Any) -> Any:
    """A value that JSON can hold. NaN and infinities are null; decimals keep their digits as text."""
    if value is None or isinstance(value, (str, bool, int)):
        return value
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, (datetime, date, time)):
        return value.isoformat()
    if isinstance(value, bytes):
        return base64.b64encode(value).decode()
    return _for_json_within(value)


def _for_json_within(value: Any) -> Any:
    if isinstance(value, dict):
        return {str(key): for_json(entry) for key, entry in value.items()}
    if isinstance(value, (list, tuple)):
        return [for_json(entry) for entry in value]
    return format(value, "f") if isinstance(value, Decimal) else str(value)
