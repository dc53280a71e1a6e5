"""The chore `validate`: read a batch's input line by line; start the batch, or fail it with its first hundred faults."""

import struct
import time
from collections.abc import Callable, Iterator

from shared.catalogue import Catalogue
from shared.errors import NotFoundError
from shared.files import Files
from shared.jobs import BatchSpec, Chore, Fault
from shared.ledger import Ledger
from shared.lines import checked_lines
from shared.offer import CatalogueOffer
from shared.spending import purses_of

_PLACE = struct.Struct(">II")
_BREATHER_LINES = 200


class Found:
    """What a reading of the input has found so far."""

    def __init__(self) -> None:
        self.index = bytearray()
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
    chunks = files.read(spec.input_file_id, spec.input_chunks)
    purses = purses_of(spec.id, spec.max_cost_nanos, spec.owner, catalogue.owners, time.time())
    offer = CatalogueOffer(catalogue, spec.routing, purses)
    lines = checked_lines(chunks, spec.endpoint, offer, max_jobs)
    for count, (place, result) in enumerate(lines, 1):
        if count % _BREATHER_LINES == 0:
            yield
        if isinstance(result, Fault):
            found.faults.append(result)
        elif place.data is not None:
            found.models.add(result.model)
            found.index += _PLACE.pack(place.offset, len(place.data))
