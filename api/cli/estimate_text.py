"""An estimate as lines for people, and as a document. Pure."""

from collections.abc import Iterator
from typing import Any

from api.cli.estimate import Estimate, Load, Share
from api.cli.report import fault_rows, row
from api.cli.words import count, duration, printable, usd
from shared.fitness import Unfit
from shared.money import format_usd

_MOST_NAMES = 3


def lines(file: str, found: Estimate) -> list[str]:
    """What a batch will take; or, where it would fail validation, its faults."""
    if found.faults:
        return [
            f"{file}  is no batch",
            *fault_rows([_words(fault.line, fault.message) for fault in found.faults]),
        ]
    whole = found.whole
    return [
        f"{file}  {count(whole.requests, 'request')} for {_names(list(found.loads))}",
        row("tokens", _tokens(whole)),
        *(row("learned", each) for each in _learned(found)),
        *(row("provider", _provider(share, whole)) for share in found.shares),
        *(row("nobody", each) for each in _nobody(found)),
        row("time", _time(found)),
    ]


def _words(line: int | None, message: str) -> str:
    return printable(message) if line is None else f"line {line}: {printable(message)}"


def _names(models: list[str]) -> str:
    shown = ", ".join(printable(model, 60) for model in models[:_MOST_NAMES])
    return shown if len(models) <= _MOST_NAMES else f"{shown} and {len(models) - _MOST_NAMES} more"


def _tokens(load: Load) -> str:
    about = f"about {load.input_tokens:,} in and {load.output_tokens:,} out{_guess(load)}"
    if not load.unbounded:
        return f"{about}, at most {load.most_output_tokens:,} out"
    return f"{about}; {count(load.unbounded, 'request')} without max_tokens may take any number"


def _guess(load: Load) -> str:
    if not load.guessed:
        return ""
    return (
        " (a guess)" if load.guessed == load.requests else f" (a guess for {count(load.guessed, 'request')})"
    )


def _learned(found: Estimate) -> Iterator[str]:
    """What the figures rest on besides the text: a line for each model, or one for all that is not there."""
    known = {model: learned for model, learned in found.learned.items() if learned.calls}
    if not known:
        why = found.experience.why_none or f"{found.experience.server} has had no answers to go by"
        yield f"nothing yet: {why}"
    for model, learned in list(known.items())[:_MOST_NAMES]:
        from_ = f"from {count(learned.calls, 'answer')} at {found.experience.server}"
        so = f"input x {learned.ratio:.2f}, {learned.output_tokens:.0f} tokens an answer"
        yield f"{printable(model, 60)}: {so}, {from_}"
    if len(known) > _MOST_NAMES:
        yield f"and of {count(len(known) - _MOST_NAMES, 'more model')}; `--json` lists them all"


def _provider(share: Share, whole: Load) -> str:
    part = f"{share.load.requests:,} of {whole.requests:,} requests, "
    return f"{share.provider.id}: {part if share.load.requests < whole.requests else ''}{_cost(share)}, {_speed(share)}"


def _cost(share: Share) -> str:
    if share.cost is None:
        return f"cost unknown (no price for {_names(sorted(share.unpriced))})"
    most = "no bound" if share.most_cost is None else f"at most {usd(share.most_cost)}"
    whose = f" at the list price of {_names(sorted(share.listed))}" if share.listed else ""
    return f"about {usd(share.cost)}, {most}{whose}"


def _speed(share: Share) -> str:
    alone = share.time_s
    return "time unknown (no limits)" if alone is None else f"{duration(alone)} at its limits"


_UNFIT = {
    Unfit.CAPABILITY: "{} lacks a capability that {} need",
    Unfit.CONTEXT: "the context_tokens of {} are too few for {}",
    Unfit.MAX_TOKENS: "the max_tokens of {} are too few for {}",
    Unfit.NOT_ASKED_FOR: "{} is not among the routing.providers of {}",
}


def _nobody(found: Estimate) -> Iterator[str]:
    """What no provider can take, and what is in the way at each that serves its model."""
    if not found.nobodys:
        return
    yield f"{count(found.nobodys, 'request')} that no provider can take: in a batch they would wait until its window ends"
    for (provider, why), number in sorted(found.refused.items()):
        yield _UNFIT.get(why, "{} cannot take {}").format(provider, f"{number:,}")


def _time(found: Estimate) -> str:
    if not found.shares:
        return "none: no provider can take any of it"
    together = found.time_s
    if together is None:
        return f"unknown: no rpm or tpm in the limits of {_names(found.without_limits)}"
    return f"about {duration(together)} with every provider at its limits"


def document(file: str, found: Estimate) -> dict[str, Any]:
    """For `--json`. Null is what is not known, or not bounded."""
    if found.faults:
        data = [
            {"code": f.code, "line": f.line, "message": f.message, "param": f.param} for f in found.faults
        ]
        return {"file": file, "errors": {"object": "list", "data": data}}
    return {
        "file": file,
        **_load(found.whole),
        "models": {model: load.requests for model, load in found.loads.items()},
        "providers": [_share(share) for share in found.shares],
        "unserved_requests": found.nobodys,
        "unserved_because": [
            {"provider": provider, "reason": why, "requests": number}
            for (provider, why), number in sorted(found.refused.items())
        ],
        "time_s": _seconds(found.time_s),
        "learned": {
            "server": found.experience.server or None,
            "why_none": found.experience.why_none or None,
            "models": {
                model: {
                    "answers": learned.calls,
                    "ratio": round(learned.ratio, 4),
                    "output_tokens": round(learned.output_tokens, 1),
                }
                for model, learned in found.learned.items()
                if learned.calls
            },
        },
    }


def _load(load: Load) -> dict[str, Any]:
    return {
        "requests": load.requests,
        "input_tokens": load.input_tokens,
        "output_tokens": load.output_tokens,
        "most_output_tokens": None if load.unbounded else load.most_output_tokens,
        "guessed_requests": load.guessed,
    }


def _share(share: Share) -> dict[str, Any]:
    cost, most = share.cost, share.most_cost
    return {
        "id": share.provider.id,
        **_load(share.load),
        "cost_usd": None if cost is None else format_usd(cost),
        "most_cost_usd": None if most is None else format_usd(most),
        "list_prices": sorted(share.listed),
        "unpriced_models": sorted(share.unpriced),
        "time_s": _seconds(share.time_s),
    }


def _seconds(value: float | None) -> float | None:
    return None if value is None else round(value, 3)
