"""When one Redis is full: reckoned from what the other sections have measured, each step shown. Pure."""

from collections.abc import Mapping
from typing import Any

from bench.report import Finding
from scaling.filling import LINE_BYTES

from shared.room import SUBMIT_SHARE

GB = 1e9
ANSWER_BYTES = (2048, 512)
"""What room is promised per answer: `LLM_EDGE_ANSWER_BYTES` as it comes, and set to what short answers take."""


def run(figures: Mapping[str, Mapping[str, Any]]) -> Finding:
    """`figures`: of the sections `life`, `queued`, `lone` and `crowd`, by name."""
    rows: list[list[str]] = []
    queued, lone = figures["queued"]["bytes"][-1], figures["lone"]["bytes"][-1]
    for kind, held in (("batch", queued), ("lone", lone)):
        rows.append(
            [
                f"{kind} jobs of {LINE_BYTES} bytes queued per GB of memory",
                f"1 GB / {held:,.0f} bytes",
                f"{GB / held:,.0f}",
            ]
        )
        rows += [
            [
                f"{kind} jobs accepted per GB of `maxmemory`, answers promised at {promised:,} bytes",
                f"{SUBMIT_SHARE} x 1 GB / ({held:,.0f} + {promised:,})",
                f"{SUBMIT_SHARE * GB / (held + promised):,.0f}",
            ]
            for promised in ANSWER_BYTES
        ]
    batch_us, lone_us = figures["life"]["cpu_us"], figures["lone"]["cpu_us"][-1]
    gate_us = figures["life"]["phases"]["gate"]
    rows += [
        ["batch jobs/s at one core", f"1 s / {batch_us:.0f} µs", f"{1e6 / batch_us:,.0f}"],
        [
            "lone jobs/s at one core",
            f"1 s / ({lone_us:.0f} + {gate_us:.0f}) µs",
            f"{1e6 / (lone_us + gate_us):,.0f}",
        ],
        ["calls/s through the gate alone", f"1 s / {gate_us:.0f} µs", f"{1e6 / gate_us:,.0f}"],
    ]
    for count, found in figures["crowd"].items():
        left = 1 - found["idle_us"] / 1e6
        rows.append(
            [
                f"batch jobs/s beside what {int(count):,} workers ask anyway",
                f"(1 s - {found['idle_us'] / 1e3:,.0f} ms) / {batch_us:.0f} µs",
                f"{left * 1e6 / batch_us:,.0f}",
            ]
        )
    return Finding(
        title="When one Redis is full",
        columns=["", "how", "figure"],
        rows=rows,
    )
