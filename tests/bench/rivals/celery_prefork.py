"""Celery as one writes it in an afternoon: one task a completion, prefork, `requests`, no routing.

`SESSION=1`: with a session kept per process, which `requests.post` does without.
"""

import os

import requests
from celery import Celery
from filling import fill

app = Celery("rival", broker=os.environ["REDIS_URL"], backend=os.environ["REDIS_URL"])
app.conf.update(worker_prefetch_multiplier=4, task_acks_late=True, broker_connection_retry_on_startup=True)
post = requests.Session().post if os.environ.get("SESSION") else requests.post


@app.task(name="complete")
def complete(url: str, body: dict[str, object]) -> object:
    answer = post(url, json=body, timeout=60)
    answer.raise_for_status()
    return answer.json()


if __name__ == "__main__":
    fill(lambda url, body: app.send_task("complete", args=[url, body]))
