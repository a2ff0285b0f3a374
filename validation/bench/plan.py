"""What a run will do and how long it will take, before any GPU is touched."""

from __future__ import annotations

from collections.abc import Iterable
from typing import NamedTuple

from ...facts import UserError
from ...hwspecs import GpuSpec
from .case import Case
from .masks import UNMASKED
from .predicted import predicted_ms
from .timer import FEWEST, MOST

BUDGET_S = 0.25
"""Time that the timed calls of a case may take together, unless `FEWEST` of them take longer."""
SETUP_S = 0.25
"""Inputs, check and copies of a case."""
COMPILE_S = {"flex": 12.0, "bundled": 3.0, "bundled_decode": 2.0, "bundled_gather": 2.0}
"""First call of a kernel at a head width, mask and block size; FlexAttention compiles for every shape anew."""
LINK_BYTES_PER_S = 40e9
"""Host link, for planning."""


class Planned(NamedTuple):
    """One case of a plan."""

    case: Case
    seconds: float
    """Time that it will take, start to end."""
    predicted_ms: float | None
    """Time of one call by the simulator; None where it knows no such kernel or phase."""


def plan(cases: Iterable[Case], spec: GpuSpec) -> list[Planned]:
    """Cases with the time that each will take: predicted calls, as often as the timer makes them, and fixed costs."""
    compiled: set[tuple[object, ...]] = set()
    planned = []
    for case in cases:
        try:
            call_ms: float | None = predicted_ms(case, spec)
        except UserError:
            call_ms = None
        fixed = SETUP_S
        mask = case.pattern if case.pattern in UNMASKED else "blocks"
        variant: tuple[object, ...] = (case.kernel, case.head_dim, mask, _block(case))
        if case.kernel == "flex":
            variant += (case.batch, case.q_heads, case.seq_q, case.seq_kv)
        if variant not in compiled:
            compiled.add(variant)
            fixed += COMPILE_S.get(case.kernel, 0.2)
        call_s = (call_ms if call_ms is not None else _rough_ms(case, spec)) / 1e3
        # Two calls to warm up, as many again as timed ones at most, and the check.
        timed = max(FEWEST, min(MOST, BUDGET_S / max(call_s, 1e-6)))
        planned.append(Planned(case, fixed + call_s * (timed + FEWEST + 3), call_ms))
    return planned


def _block(case: Case) -> object:
    return case.params.get("block", case.params.get("page"))


def _rough_ms(case: Case, spec: GpuSpec) -> float:
    """A call that the simulator does not know: by FLOP, bytes and host link at half their peaks."""
    flop = case.tflop * 1e12 if case.runner == "attention" else 2.0 * float(case.how.get("m", 0)) ** 3
    link = float(case.how.get("kib", 0)) * 2**10
    if "miss" in case.params:
        link += case.gib * 2**30 * float(case.params["miss"])
    moved = case.gib * 2**30 + float(case.how.get("mib", 0)) * 2**21
    seconds = flop / (spec.tensor_tflops("bf16") * 0.5e12) + moved / (0.5 * spec.dram_bytes_per_s()) + link / LINK_BYTES_PER_S
    return seconds * 1e3 + 0.01
