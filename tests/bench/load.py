"""The load generator: keep-alive HTTP callers over raw asyncio streams, in processes of their own, so that the client is not what is measured.

`python load.py` reads an Order from stdin and writes an Answer to stdout, both JSON; `load()` starts one for each URL.
"""

import asyncio
import subprocess
import sys
import time
from urllib.parse import urlsplit

import msgspec
import psutil
import uvloop

BODY = msgspec.json.encode({"model": "gpt-4o-mini", "messages": [{"role": "user", "content": "hi there"}]})
_LEAD_S = 1.0
_SPARE_S = 60.0


class Order(msgspec.Struct):
    """`url` is a base URL (with /v1); `begins` is in seconds since the epoch, so that several start together."""

    url: str
    callers: int
    seconds: float
    begins: float
    background: bool = False


class Answer(msgspec.Struct):
    """`latencies` in seconds, one for each request; `wall_s` from the first sent to the last answered; `cpu_s` of the generator."""

    latencies: list[float]
    wall_s: float
    cpu_s: float


class Load:
    """What all generators found together."""

    def __init__(self, answers: list[Answer]) -> None:
        self.latencies = sorted(latency for answer in answers for latency in answer.latencies)
        self.per_s = sum(len(answer.latencies) / answer.wall_s for answer in answers)
        self.client_ms = 1000 * sum(answer.cpu_s for answer in answers) / len(self.latencies)

    @property
    def count(self) -> int:
        return len(self.latencies)

    def ms(self, share: float) -> float:
        """The latency in milliseconds that this share of the requests does not exceed (nearest rank)."""
        return 1000 * self.latencies[min(int(self.count * share), self.count - 1)]


def load(urls: list[str], callers: int, seconds: float, *, background: bool = False) -> Load:
    """Ask each of these base URLs, `callers` in all, for so long; with `background`, requests only submit (202)."""
    begins = time.time() + _LEAD_S
    shares = [len(range(n, callers, len(urls))) for n in range(len(urls))]
    orders = [Order(url, share, seconds, begins, background) for url, share in zip(urls, shares, strict=True)]
    generators = [
        subprocess.Popen([sys.executable, __file__], stdin=subprocess.PIPE, stdout=subprocess.PIPE)
        for _ in orders
    ]
    try:
        for generator, order in zip(generators, orders, strict=True):
            assert generator.stdin is not None
            generator.stdin.write(msgspec.json.encode(order))
            generator.stdin.close()
            generator.stdin = None
        return Load([_answer(generator, seconds + _SPARE_S) for generator in generators])
    finally:
        for generator in generators:
            generator.kill()
            generator.wait()


def _answer(generator: "subprocess.Popen[bytes]", timeout_s: float) -> Answer:
    out, _ = generator.communicate(timeout=timeout_s)
    assert generator.returncode == 0, "the load generator failed; its traceback stands above"
    return msgspec.json.decode(out, type=Answer)


class Cpu:
    """CPU seconds of processes since this was made, by name."""

    def __init__(self, **pids: list[int]) -> None:
        self._processes = {name: [psutil.Process(pid) for pid in found] for name, found in pids.items()}
        self._before = self._now()

    def _now(self) -> dict[str, float]:
        return {name: sum(map(_seconds, found)) for name, found in self._processes.items()}

    def spent(self) -> dict[str, float]:
        return {name: after - self._before[name] for name, after in self._now().items()}


def _seconds(process: psutil.Process) -> float:
    times = process.cpu_times()
    return times.user + times.system


def request(order: Order) -> bytes:
    """The bytes of one request, the same each time."""
    url = urlsplit(order.url)
    head = [
        f"POST {url.path}/chat/completions HTTP/1.1",
        f"Host: {url.netloc}",
        "Content-Type: application/json",
        f"Content-Length: {len(BODY)}",
        *(["Prefer: respond-async"] if order.background else []),
    ]
    return "\r\n".join([*head, "", ""]).encode() + BODY


async def _once(
    streams: tuple[asyncio.StreamReader, asyncio.StreamWriter], asked: bytes, wanted: bytes
) -> float:
    reader, writer = streams
    sent = time.perf_counter()
    writer.write(asked)
    status, *headers = (await reader.readuntil(b"\r\n\r\n")).lower().split(b"\r\n")
    size = next(int(header.split(b":")[1]) for header in headers if header.startswith(b"content-length:"))
    answer = await reader.readexactly(size)
    if status.split()[1] != wanted:
        raise RuntimeError(f"asked for {wanted.decode()}, got {status.decode()}: {answer[:300]!r}")
    return time.perf_counter() - sent


async def _run(order: Order) -> Answer:
    asked, wanted = request(order), b"202" if order.background else b"200"
    url = urlsplit(order.url)
    open_ = [await asyncio.open_connection(url.hostname, url.port) for _ in range(order.callers)]
    await asyncio.sleep(max(0.0, order.begins - time.time()))
    latencies: list[float] = []
    cpu, begun = time.process_time(), time.perf_counter()
    end = begun + order.seconds

    async def caller(streams: tuple[asyncio.StreamReader, asyncio.StreamWriter]) -> None:
        while time.perf_counter() < end:
            latencies.append(await _once(streams, asked, wanted))

    await asyncio.gather(*map(caller, open_))
    answer = Answer(latencies, time.perf_counter() - begun, time.process_time() - cpu)
    for _, writer in open_:
        writer.close()
    return answer


def main() -> None:
    order = msgspec.json.decode(sys.stdin.buffer.read(), type=Order)
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        sys.stdout.buffer.write(msgspec.json.encode(runner.run(_run(order))))


if __name__ == "__main__":
    main()
