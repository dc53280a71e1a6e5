"""A bare HTTP client, light enough not to be what is measured: `python caller.py PORT CALLERS SECONDS wait|async`.

Each caller keeps its connection and sends its next request when the last is answered. Prints JSON: wall and CPU seconds,
and every latency in seconds. A process of its own, so that it can be started once for each API process.
"""

import asyncio
import json
import sys
import time

import uvloop

BODY = json.dumps({"model": "gpt-4o-mini", "messages": [{"role": "user", "content": "hi there"}]}).encode()
_HEAD = (
    "POST /v1/chat/completions HTTP/1.1\r\nHost: 127.0.0.1:{port}\r\nContent-Type: application/json\r\n"
    "Content-Length: {length}\r\n{more}\r\n"
)


async def _caller(port: int, request: bytes, end: float, expected: bytes, latencies: list[float]) -> None:
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    while (started := time.perf_counter()) < end:
        writer.write(request)
        head = (await reader.readuntil(b"\r\n\r\n")).lower()
        if expected not in head[:20]:
            raise SystemExit(f"answered {head!r}")
        at = head.index(b"content-length:") + 15
        await reader.readexactly(int(head[at : head.index(b"\r", at)]))
        latencies.append(time.perf_counter() - started)
    writer.close()


async def main(port: int, callers: int, seconds: float, mode: str) -> None:
    waits = mode == "wait"
    head = _HEAD.format(port=port, length=len(BODY), more="" if waits else "Prefer: respond-async\r\n")
    request, expected = head.encode() + BODY, b" 200 " if waits else b" 202 "
    latencies: list[float] = []
    started, cpu = time.perf_counter(), time.process_time()
    every = [_caller(port, request, started + seconds, expected, latencies) for _ in range(callers)]
    await asyncio.gather(*every)
    found = {"wall_s": time.perf_counter() - started, "cpu_s": time.process_time() - cpu}
    sys.stdout.write(json.dumps({**found, "latencies": latencies}))


if __name__ == "__main__":
    uvloop.run(main(int(sys.argv[1]), int(sys.argv[2]), float(sys.argv[3]), sys.argv[4]))
