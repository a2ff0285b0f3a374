"""Time and memory of schedules, and time of predictions, in one warm process.

The last table holds every system at 131,072 tokens and 32 heads: at most 2 s and 1 GB.
"""

from __future__ import annotations

import time
import tracemalloc
from collections.abc import Callable
from typing import Any

from simattn.facts import UserError
from simattn.hwspecs import gpus
from simattn.simulator import choose_kernel, question
from simattn.workloads import Attention, Pattern, Plan, Tiling, systems
from simattn.workloads.families.band import band_schedule

import simattn

SCHEDULES: dict[str, Callable[[], Any]] = {
    "radial, HunyuanVideo 509 frames, 3602 x 3602 blocks": lambda: simattn.schedule(
        "radial", grid=(128, 45, 80), text=256, decay=1.0
    ),
    "radial, HunyuanVideo 117 frames, 902 x 902 blocks": lambda: simattn.schedule("radial", grid=(30, 48, 80), text=256),
    "causal, 1,048,576 tokens, 32 heads": lambda: simattn.schedule("causal", seq_q=1 << 20).with_copies(32),
    "gna, HunyuanVideo, boxes": lambda: simattn.schedule(
        "gna", grid=(30, 48, 80), window=(18, 24, 24), q_tile=(8, 4, 8), kv_tile=(4, 4, 8)
    ),
    "gna, HunyuanVideo, flat tiles": lambda: simattn.schedule("gna", grid=(30, 48, 80), window=(18, 24, 24)),
}

PREDICTIONS: dict[str, Callable[[], Any]] = {
    "dense, HunyuanVideo, one kernel": lambda: simattn.predict("dense", "h100", kernel="fa3", baseline="fa3"),
    "radial, HunyuanVideo, B200": lambda: simattn.predict("radial", "b200"),
    "causal, 1,048,576 tokens, 32 heads, H100": lambda: simattn.predict("causal", "h100", seq_q=1 << 20, q_heads=32, kv_heads=32),
}


def seconds(call: Callable[[], Any]) -> float:
    """Best CPU time of three calls: what else the machine does is not counted."""
    times = []
    for _ in range(3):
        band_schedule.cache_clear()  # a kept schedule would be timed as none at all
        begin = time.process_time()
        call()
        times.append(time.process_time() - begin)
    return min(times)


def peak_mb(call: Callable[[], Any]) -> float:
    """Most memory that a call adds, in MB."""
    band_schedule.cache_clear()
    tracemalloc.start()
    call()
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    return peak / 1e6


LONG = {"q_heads": 32, "kv_heads": 8, "batch": 1}
"""Heads of a long call."""

GRIDS = {1: (131072,), 2: (256, 512), 3: (32, 64, 64)}
"""131,072 tokens by axes of the grid."""

OWN_GRIDS: dict[str, dict[str, Any]] = {
    "sta": {"grid": (36, 56, 64)},
    "cosmos_predict2": {"grid": (24, 64, 88)},
    "scale_dit": {"grid": (256, 512), "text": 512 + 128 * 64},
}
"""Of systems that take whole tiles, wide windows, or a small copy of the grid behind it."""

MOST_SECONDS, MOST_MB = 2.0, 1000.0


def long_plan(name: str) -> Callable[[], Plan]:
    """A function that makes the plan of a system's call with 131,072 tokens and 32 heads, in tiles of its kernel on an H100."""
    spec = gpus.load("h100")
    axes = len(Pattern(name, published=True).default_layout().grid)
    shape: dict[str, Any] = {"seq_q": GRIDS[1][0]} if axes == 1 else {"grid": GRIDS[axes]}
    shape = OWN_GRIDS.get(name, shape)
    phase = systems.load(name).workload.phase
    if phase == "decode":
        shape = {"seq_kv": GRIDS[1][0]}
    asked = question(name, **shape, **LONG)

    def tiling_of(mask_class: str, kernel: str | None) -> Tiling:
        return choose_kernel(spec, asked.problem, mask_class, len(asked.layout.grid)).tiling

    return lambda: question(name, **shape, **LONG).pattern.plan(asked.problem, asked.layout, tiling_of)


def print_systems() -> None:
    """Print time and memory of every system's plan, the most first."""
    rows = []
    for name in systems.names():
        if systems.load(name).family in ("listed", "mask_function", "documents", "ragged"):
            continue  # their size is what a user gives
        try:
            call = long_plan(name)
            plan = call()
        except UserError as error:
            print(f"{name}: {error}")
            continue
        visits = sum(op.schedule.visited for op in plan if isinstance(op, Attention))
        rows.append((seconds(call), peak_mb(call), visits, name, systems.load(name).family))
    for took, peak, visits, name, family in sorted(rows, reverse=True):
        within = "" if took <= MOST_SECONDS and peak <= MOST_MB else "  ABOVE"
        print(f"{1e3 * took:8.1f} ms {peak:7.1f} MB  {visits:>15,} visits  {name} ({family}){within}")


def main() -> None:
    """Print the tables."""
    for name, call in SCHEDULES.items():
        schedule = call()
        runs = len(schedule.runs.row)
        cost = f"{1e3 * seconds(call):8.1f} ms {peak_mb(call):7.1f} MB"
        print(f"{cost}  {schedule.visited:>15,} visits {runs:>9,} runs  schedule: {name}")
    for name, call in PREDICTIONS.items():
        prediction = call()
        print(f"{1e3 * seconds(call):8.1f} ms {'':>10}  {prediction.tiles.visited:>15,} visits {'':>14}  predict: {name}")
    print(f"131,072 tokens, 32 heads; at most {MOST_SECONDS:g} s and {MOST_MB:g} MB:")
    print_systems()


if __name__ == "__main__":
    main()
