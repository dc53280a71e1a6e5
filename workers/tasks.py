"""The fleet's one Celery task: a hint leads to a shard of the ledger."""

from typing import TYPE_CHECKING, Any

from celery import Celery, Task

from shared.broker import CANNOT_SEND, RUN_SHARD, pack_hint, read_hint, why_not_sent
from shared.errors import HintError, StoreUnavailableError
from shared.ids import new_id
from shared.logs import get_logger
from shared.lone import LONE
from workers.calls import Lane

if TYPE_CHECKING:
    from collections.abc import Callable

    from workers.runtime import Runtime

_log = get_logger(__name__)


def register(app: Celery, runtime: "Callable[[], Runtime]") -> None:
    """Declare the task on `app`. Attempts are counted in the ledger, so Celery's own count is unlimited."""

    @app.task(name=RUN_SHARD, bind=True, max_retries=None, acks_late=True, ignore_result=True)
    def run_shard(self: "Task[Any, Any]", raw: Any) -> str:
        try:
            hint = read_hint(raw)
        except HintError as exc:
            _log.warning("hint_unknown", error=exc.message)
            return "unknown"

        def retry(ref: str, delay_s: float, error: Exception) -> None:
            _retry(self, ref, delay_s, error)

        try:
            lane = Lane.RETRY if self.request.retries else Lane.FRESH
            ran = runtime().run_shard(hint, lane, retry)
        except StoreUnavailableError as exc:  # the reaper sends another hint
            _log.warning("store_away", shard=hint.ref, error=exc.message)
            return "away"
        return "ran" if ran else "declined"


def _retry(task: "Task[Any, Any]", ref: str, delay_s: float, error: Exception) -> None:
    """Celery's own retry carries the hint for the new shard, and its event shows it on the bus.

    The due time stands in the ledger already: a message that is lost here is sent by the reaper.
    """
    try:
        task_id = new_id("lone-") if ref == LONE else ref
        task.retry(
            args=(pack_hint(ref),), kwargs={}, task_id=task_id, countdown=delay_s, exc=error, throw=False
        )
        task.send_event("task-retried", exception=repr(error), retry=False)
    except CANNOT_SEND as exc:
        _log.warning("retry_not_sent", shard=ref, error=why_not_sent(exc))
