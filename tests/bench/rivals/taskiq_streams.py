"""taskiq on Redis streams doing the bare call: coroutines, one aiohttp session a process, answers kept in Redis."""

import asyncio
import os

import aiohttp
from filling import bodies, report
from taskiq import TaskiqEvents, TaskiqState
from taskiq_redis import RedisAsyncResultBackend, RedisStreamBroker

AT_ONCE = 50
REDIS = os.environ["REDIS_URL"]

results = RedisAsyncResultBackend(redis_url=REDIS, result_ex_time=86_400)
broker = RedisStreamBroker(url=REDIS).with_result_backend(results)


@broker.on_event(TaskiqEvents.WORKER_STARTUP)
async def start(state: TaskiqState) -> None:
    state.session = aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=0))


@broker.on_event(TaskiqEvents.WORKER_SHUTDOWN)
async def stop(state: TaskiqState) -> None:
    await state.session.close()


@broker.task(task_name="complete")
async def complete(url: str, body: dict[str, object]) -> object:
    async with broker.state.session.post(url, json=body) as answer:
        answer.raise_for_status()
        return await answer.json()


async def fill() -> None:
    await broker.startup()
    url, found = bodies()
    with report():
        for start in range(0, len(found), AT_ONCE):
            await asyncio.gather(*[complete.kiq(url, body) for body in found[start : start + AT_ONCE]])
    await broker.shutdown()


if __name__ == "__main__":
    asyncio.run(fill())
