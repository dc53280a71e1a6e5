"""Roll results up into the output and error files: segment by segment while a batch runs, and the rest in the chore `finalize`."""

from collections.abc import Callable
from typing import Literal

from shared.errors import NotFoundError
from shared.files import FileRecord, Files
from shared.ids import job_id
from shared.jobs import DONE, FAILED, PENDING, SEGMENT, Batch, BatchSpec, Chore, Segment
from shared.ledger import Ledger
from shared.lines import custom_id_of, unfinished_line


def roll_up(spec: BatchSpec, number: int, *, ledger: Ledger, files: Files) -> bool:
    """Move one segment's results into the files. False where it still has pending jobs.

    Safe to repeat, and for two at once: a whole segment's lines never change, so both write the same chunk.
    """
    segment = ledger.segment(spec.id, number)
    if segment.rolled_up:
        return True
    if not segment.states or PENDING in segment.states:
        return False
    output, errors = _compose(spec, segment, files)
    keep_s = spec.window_s + spec.retention_s
    files.put(spec.output_file_id, number, [b"".join(output)], unpublished_s=keep_s, promised=True)
    files.put(spec.error_file_id, number, [b"".join(errors)], unpublished_s=keep_s, promised=True)
    ledger.roll_up(spec.id, number, output=_size(output), errors=_size(errors))
    return True


def _size(lines: list[bytes]) -> tuple[int, int]:
    return len(lines), sum(map(len, lines))


def _compose(spec: BatchSpec, segment: Segment, files: Files) -> tuple[list[bytes], list[bytes]]:
    unfinished = [i for i, state in enumerate(segment.states) if state not in {DONE, FAILED}]
    names = _custom_ids(spec, segment, unfinished, files)
    output: list[bytes] = []
    errors: list[bytes] = []
    for i, state in enumerate(segment.states):
        job = segment.first + i
        if state == DONE:
            output.append(segment.results[job])
        elif state == FAILED:
            errors.append(segment.results[job])
        else:
            line_id = job_id(spec.id, job)
            errors.append(unfinished_line(line_id=line_id, custom_id=names[i], state=state))
    return output, errors


def _custom_ids(spec: BatchSpec, segment: Segment, wanted: list[int], files: Files) -> dict[int, str]:
    try:
        lines = files.slices(spec.input_file_id, [segment.slices[i] for i in wanted])
    except NotFoundError:  # a batch must end even when its input has been lost
        return dict.fromkeys(wanted, "")
    return {i: custom_id_of(line) for i, line in zip(wanted, lines, strict=True)}


def finalize(
    chore: Chore, batch: Batch, *, ledger: Ledger, files: Files, keep: Callable[[], bool]
) -> Batch | None:
    """Do the chore: every job into one of the two files, then the end. None where another has taken it over."""
    spec = batch.spec
    segments = -(-batch.total // SEGMENT)
    for number in range(segments):
        if not keep():
            return None
        if not roll_up(spec, number, ledger=ledger, files=files):
            if not ledger.seal(chore, number):
                return None
            roll_up(spec, number, ledger=ledger, files=files)
    whole = ledger.get(spec.id)
    if whole is None or not keep():
        return None
    _publish(whole, "output", spec.output_file_id, whole.output_lines, whole.output_bytes, files, segments)
    _publish(whole, "error", spec.error_file_id, whole.error_lines, whole.error_bytes, files, segments)
    ended = ledger.end(chore)
    if ended is not None:
        files.unpin(spec.input_file_id, spec.id)
    return ended


def _publish(
    batch: Batch,
    what: Literal["output", "error"],
    file_id: str,
    lines: int,
    size: int,
    files: Files,
    chunks: int,
) -> None:
    if not lines:
        return
    spec = batch.spec
    created_at = batch.at.finalizing_at or batch.at.cancelling_at or batch.at.created_at
    lifetime_s = spec.output_expires_after_s or int(spec.retention_s)
    files.publish(
        FileRecord(
            id=file_id,
            owner=spec.owner,
            filename=f"{spec.id}_{what}.jsonl",
            purpose="batch_output",
            bytes=size,
            created_at=created_at,
            expires_at=created_at + lifetime_s,
            chunks=chunks,
            chunk_bytes=0,
        )
    )
