"""The words of simulated answers: readable, always the same for the same prompt, and plainly not a model's."""

import re

MARK = "[simulated]"

_LOOKED_AT = 4000
"""Characters of the prompt that are searched."""
_QUOTED_WORDS = 12
_QUOTED_CHARS = 120
_GIST_WORDS = 24

_SUMMARY = re.compile(r"\bsummar(?:y|i[sz])", re.IGNORECASE)
_NAME = re.compile(r"\b(?:def|fn|func|function)\s+([A-Za-z_][\w.]*)\s*[(<]|`([A-Za-z_][\w.]*)(?:\(\))?`")
_DOCSTRING = re.compile(r"(?:\"\"\"|''')\s*(\S.*?)(?:\.\s|\.?\s*(?:\"\"\"|'''|\n\s*\n|$))", re.DOTALL)

_QUOTES = ('"""', "'''")

_FILLER_TEXT = """
No model has read the question: these words come from the simulator, so that routing, retries and counting can be
watched without a key and without a bill. A real provider would say something of use here. The length is drawn at
random, the same for the same request, and the usage counts these very words. Point the providers file at a real
endpoint, and its answers will stand where this text stands now.
"""
_FILLER = tuple(_FILLER_TEXT.split())
_STARTS = tuple(n for n, word in enumerate(_FILLER) if n == 0 or _FILLER[n - 1].endswith("."))


def answer(prompt: str, words: int, variant: int, *, cut: bool) -> str:
    """`words` words to a prompt, ending in a full stop unless `cut`. Other variants go on differently."""
    lead = (_summary(prompt) if _SUMMARY.search(prompt, 0, _LOOKED_AT) else _general(prompt)).split()
    missing = words - len(lead)
    if missing <= 0:
        text = " ".join(lead[:words])
    else:
        start = _STARTS[variant % len(_STARTS)]
        repeats = (start + missing) // len(_FILLER) + 1
        text = " ".join([*lead, *(_FILLER * repeats)[start : start + missing]])
    return text if cut or not words else text.rstrip(".,:;") + "."


def _general(prompt: str) -> str:
    words = prompt[:_LOOKED_AT].split(None, _QUOTED_WORDS)
    more = " …" if len(words) > _QUOTED_WORDS else ""
    quoted = " ".join(words[:_QUOTED_WORDS])[:_QUOTED_CHARS]
    return f"{MARK} A made-up answer to “{quoted}{more}”." if quoted else f"{MARK} A made-up answer."


def _summary(prompt: str) -> str:
    """Names the function and repeats the first sentence of its docstring, where it finds them."""
    named = _NAME.search(prompt, 0, _LOOKED_AT)
    name = f"`{named[1] or named[2]}`" if named else "This function"
    quoted = any(quotes in prompt for quotes in _QUOTES)  # spares the plain ones the slow search
    documented = _DOCSTRING.search(prompt, 0, _LOOKED_AT) if quoted else None
    if documented is None:
        return f"{MARK} {name} takes what it is given, does what its name says and returns the result."
    gist = " ".join(documented[1].split()[:_GIST_WORDS])
    return f"{MARK} {name}: {gist}."
