"""The chore `validate`: read a batch's input line by line; start the batch, or fail it with its first hundred faults."""

import struct
import time
from collections.abc import Callable, Iterator

from shared.catalogue import Catalogue
from shared.errors import NotFoundError
from shared.files import Files
from shared.jobs import BatchSpec, Chore, Fault
from shared.ledger import Ledger
from shared.lines import Checked, check, split_lines

MAX_FAULTS = 100
_PLACE = struct.Struct(">II")
_BREATHER_LINES = 200


class Found:
    """What a reading of the input has found so far."""

    def __init__(self) -> None:
        self.index = bytearray()
        self.seen: set[str] = set()
        self.models: set[str] = set()
        self.faults: list[Fault] = []

    @property
    def total(self) -> int:
        return len(self.index) // _PLACE.size


def validate(
    chore: Chore,
    spec: BatchSpec,
    *,
    ledger: Ledger,
    files: Files,
    catalogue: Catalogue,
    max_jobs: int,
    keep: Callable[[], bool],
) -> None:
    """Do the chore. `keep` renews its lease and says whether it is still ours; once it is not, all is left alone."""
    found = Found()
    try:
        for _ in _read(spec, files, catalogue, max_jobs, found):
            if not keep():
                return
            time.sleep(0)  # lets the process' other threads and greenlets run
    except NotFoundError as exc:
        found.faults = [Fault(code="file_not_found", message=exc.message, param="input_file_id")]
    if not found.faults and not found.total:
        found.faults = [
            Fault(code="empty_file", message="The input file has no lines; put one request on each line.")
        ]
    if found.faults:
        if ledger.reject(chore, found.faults):
            files.unpin(spec.input_file_id, spec.id)
        return
    model = next(iter(found.models)) if len(found.models) == 1 else None
    ledger.start(chore, index=bytes(found.index), model=model)


def _read(spec: BatchSpec, files: Files, catalogue: Catalogue, max_jobs: int, found: Found) -> Iterator[None]:
    serves = _remembered(catalogue.serves)
    chunks = files.read(spec.input_file_id, spec.input_chunks)
    for count, place in enumerate(split_lines(chunks), 1):
        if count % _BREATHER_LINES == 0:
            yield
        if count > max_jobs:
            found.faults.append(
                Fault(
                    code="too_many_tasks",
                    line=place.number,
                    message=f"The file has more than {max_jobs:,} lines; split it into several batches.",
                )
            )
            return
        result = check(place, spec.endpoint, serves)
        if isinstance(result, Checked):
            result = _distinct(result, place.number, found)
        if isinstance(result, Fault):
            found.faults.append(result)
            if len(found.faults) >= MAX_FAULTS:
                return
        elif place.data is not None:
            found.models.add(result.model)
            found.index += _PLACE.pack(place.offset, len(place.data))


def _distinct(checked: Checked, line: int, found: Found) -> Checked | Fault:
    if checked.custom_id in found.seen:
        return Fault(
            code="duplicate_custom_id",
            line=line,
            param="custom_id",
            message=f"custom_id '{checked.custom_id[:100]}' stands on an earlier line; each must be its own.",
        )
    found.seen.add(checked.custom_id)
    return checked


def _remembered(serves: Callable[[str], bool]) -> Callable[[str], bool]:
    known: dict[str, bool] = {}

    def ask(model: str) -> bool:
        if model not in known:
            if len(known) > 1000:  # noqa: PLR2004  names come from clients: bounded
                known.clear()
            known[model] = serves(model)
        return known[model]

    return ask
