"""Query parameters of lists, checked by hand: OpenAI's envelope and limits rather than FastAPI's 422."""

from shared.errors import RequestError


def limit_of(raw: str | None, *, default: int, most: int) -> int:
    """A page's size between 1 and `most`. Raises RequestError."""
    return default if raw is None else whole(raw, "limit", most)


def whole(raw: str, name: str, most: int) -> int:
    """A number from 1 to `most`. Raises RequestError."""
    if not (raw.isascii() and raw.isdecimal()) or len(raw) > 9 or not 1 <= int(raw) <= most:  # noqa: PLR2004  int() of endless digits is slow
        raise RequestError(
            f"Invalid '{name}': must be a whole number from 1 to {most:,}.", param=name, code="invalid_value"
        )
    return int(raw)


def ascending_of(raw: str | None) -> bool:
    """`asc` or `desc` (the default). Raises RequestError."""
    if raw not in {None, "asc", "desc"}:
        raise RequestError("Invalid 'order': must be 'asc' or 'desc'.", param="order", code="invalid_value")
    return raw == "asc"
