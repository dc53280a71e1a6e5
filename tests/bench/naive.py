"""The comparison: what one writes in an afternoon. One Celery task a completion, prefork, `requests`, no routing."""

import os

import requests
from celery import Celery

app = Celery("naive", broker=os.environ["REDIS_URL"], backend=os.environ["REDIS_URL"])
app.conf.update(worker_prefetch_multiplier=4, task_acks_late=True, broker_connection_retry_on_startup=True)


@app.task(name="naive.complete")
def complete(url: str, body: dict[str, object]) -> object:
    answer = requests.post(url, json=body, timeout=60)
    answer.raise_for_status()
    return answer.json()
