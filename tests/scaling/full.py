"""When one Redis is full: reckoned from what the other sections have measured, each step shown. Pure."""

from collections.abc import Mapping
from typing import Any

from bench.report import Finding
from scaling.filling import LINE_BYTES

from shared.room import SUBMIT_SHARE

NEEDED = {"life", "queued", "lone", "crowd", "real"}
GB = 1e9
ANSWER_BYTES = (2048, 512)
"""What room is promised per answer: `LLM_EDGE_ANSWER_BYTES` as it comes, and set to what short answers take."""


def run(figures: Mapping[str, Mapping[str, Any]]) -> Finding:
    """`figures`: of the sections NEEDED, by name."""
    return Finding(
        title="When one Redis is full",
        columns=["", "how", "figure"],
        rows=[*_memory(figures), *_cpu(figures)],
    )


def _memory(figures: Mapping[str, Mapping[str, Any]]) -> list[list[str]]:
    rows = []
    for section, kind in (("queued", "batch"), ("lone", "lone")):
        held = figures[section]["bytes"][-1]
        what = f"{kind} jobs of {LINE_BYTES} bytes"
        rows.append([f"{what} that a GB holds", f"1 GB / {held:,.0f} bytes", f"{GB / held:,.0f}"])
        rows += [
            [
                f"{what} taken in per GB of `maxmemory`, answers promised at {promised:,} bytes",
                f"{SUBMIT_SHARE} x 1 GB / ({held:,.0f} + {promised:,}) bytes",
                f"{SUBMIT_SHARE * GB / (held + promised):,.0f}",
            ]
            for promised in ANSWER_BYTES
        ]
    return rows


def _cpu(figures: Mapping[str, Mapping[str, Any]]) -> list[list[str]]:
    batch_us, lone_us = figures["life"]["cpu_us"], figures["lone"]["cpu_us"][-1]
    gate_us, moved = figures["life"]["phases"]["gate"], figures["life"]["bytes"]
    hint_us = figures["real"]["a batch job: broker"]["cpu_us"]
    idle_us = figures["real"]["an idle worker, a second: broker"]["cpu_us"]
    rows = [
        ["batch jobs/s at one core, ledger alone", f"1 s / {batch_us:.0f} µs", f"{1e6 / batch_us:,.0f}"],
        [
            "the same, the broker on the same server",
            f"1 s / ({batch_us:.0f} + {hint_us:.0f}) µs",
            f"{1e6 / (batch_us + hint_us):,.0f}",
        ],
        [
            "network at the first of these",
            f"{1e6 / batch_us:,.0f} x {moved:,.0f} bytes",
            f"{moved / batch_us:,.0f} MB/s",
        ],
        [
            "lone jobs/s at one core, nobody waiting",
            f"1 s / ({lone_us:.0f} + gate {gate_us:.0f}) µs",
            f"{1e6 / (lone_us + gate_us):,.0f}",
        ],
        ["calls/s through the gate, were it all", f"1 s / {gate_us:.0f} µs", f"{1e6 / gate_us:,.0f}"],
    ]
    for count, found in figures["crowd"].items():
        asked_us = found["idle_us"] + int(count) * idle_us
        rows.append(
            [
                f"batch jobs/s beside what {int(count):,} workers ask anyway, all on one server",
                f"(1 s - {found['idle_us'] / 1e3:,.0f} ms - {int(count)} x {idle_us:.0f} µs) / ({batch_us:.0f} + {hint_us:.0f}) µs",
                f"{(1e6 - asked_us) / (batch_us + hint_us):,.0f}",
            ]
        )
    return rows
