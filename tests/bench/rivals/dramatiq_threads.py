"""dramatiq doing the bare call: threads, a session for each, answers kept in Redis as Celery's and taskiq's are."""

import os
import threading

import dramatiq
import requests
from dramatiq.brokers.redis import RedisBroker
from dramatiq.results import Results
from dramatiq.results.backends import RedisBackend
from filling import fill

broker = RedisBroker(url=os.environ["REDIS_URL"])
broker.add_middleware(Results(backend=RedisBackend(url=os.environ["REDIS_URL"])))
dramatiq.set_broker(broker)
here = threading.local()


@dramatiq.actor(store_results=True)
def complete(url: str, body: dict[str, object]) -> object:
    if not hasattr(here, "session"):
        here.session = requests.Session()
    answer = here.session.post(url, json=body, timeout=60)
    answer.raise_for_status()
    return answer.json()


if __name__ == "__main__":
    fill(complete.send)
