"""Batches for a ledger, by the thousand jobs: written straight into the stores, as upload and validation would write them.

One input of real text is made once and stored again under another name for each batch, so that millions of jobs take
minutes: Redis neither knows nor cares that files are alike. The index comes from the real validation of the first.
"""

import time
from collections.abc import Iterator

from bench.memory import texts
from scaling.scene import Scene
from support.batches import jsonl, line
from support.ledgers import spec

from shared.catalogue import Catalogue, Provider
from shared.files import CHUNK_BYTES, FileRecord
from shared.jobs import BatchSpec
from shared.validate import validate

LINE_BYTES = 500
MOST = 50_000
"""Jobs of one batch: the API's own limit."""

_TOGETHER = 16
_LEASE_S = 600.0
_ENVELOPE = 190
"""Bytes of a line around its prompt."""

CATALOGUE = Catalogue(providers=(Provider(id="p", endpoint="http://127.0.0.1:9/v1"),))


class Filler:
    """Makes batches of up to `MOST` jobs; the last may be smaller."""

    def __init__(self, scene: Scene, most: int = MOST) -> None:
        self._scene = scene
        self._most = most
        self._indexes: dict[int, bytes] = {}
        prompts = texts(LINE_BYTES - _ENVELOPE)
        self._lines = [jsonl([line(f"job-{n}", next(prompts))]) for n in range(most)]
        self.line_bytes = sum(map(len, self._lines)) / most

    def inputs(self, jobs: int) -> Iterator[tuple[BatchSpec, list[bytes]]]:
        """What is to be stored: specs, each with its file's chunks."""
        while jobs > 0:
            some = min(jobs, self._most)
            data = b"".join(self._lines[:some])
            chunks = [data[at : at + CHUNK_BYTES] for at in range(0, len(data), CHUNK_BYTES)]
            yield spec(input_chunks=len(chunks), lines=some), chunks
            jobs -= some

    def upload(self, made: BatchSpec, chunks: list[bytes]) -> None:
        files = self._scene.files
        for first in range(0, len(chunks), _TOGETHER):
            files.put(made.input_file_id, first, chunks[first : first + _TOGETHER])
        files.publish(
            FileRecord(
                id=made.input_file_id, owner=made.owner, filename="in.jsonl", purpose="batch", lines=made.lines,
                bytes=sum(map(len, chunks)), created_at=int(time.time()), expires_at=None, chunks=len(chunks),
                chunk_bytes=CHUNK_BYTES,
            )
        )  # fmt: skip

    def create(self, made: BatchSpec) -> None:
        self._scene.files.pin(made.input_file_id, made.id, time.time() + made.window_s)
        self._scene.ledger.create(made)

    def start(self, made: BatchSpec) -> None:
        """Validation: the file is read, and the index of its lines stored."""
        ledger, files = self._scene.ledger, self._scene.files
        chore = ledger.take_chore(_LEASE_S)
        assert chore is not None
        assert chore.batch_id == made.id
        index = self._indexes.get(made.lines)
        if index is None:
            validate(
                chore, made, ledger=ledger, files=files, catalogue=CATALOGUE, max_jobs=MOST, keep=lambda: True
            )
            found = ledger.get(made.id)
            assert found is not None
            assert found.total == made.lines, found.errors
            stored = self._scene.client.get(self._scene.keys.index(made.id))
            assert isinstance(stored, bytes)
            self._indexes[made.lines] = stored
            return
        for _ in files.read(made.input_file_id, made.input_chunks):
            pass
        assert ledger.start(chore, index=index, model="test-model")
