"""The verdict: which limit takes most of the speedup, and what would help."""

from __future__ import annotations

import re
from collections.abc import Sequence
from contextlib import suppress
from math import ceil, log

from ..facts import UserError
from ..kernels import candidates
from ..simulator import Prediction
from ..workloads import Host
from .case import Case
from .judge import HOST_MS
from .stages import Side, StageCause
from .what_if import changed

WORTH = 1.03
"""Gain from which on a change is worth a word."""

LITTLE = 1.1
"""Loss of speedup, as a factor, up to which it is called little."""


def verdict(case: Case, p: Prediction, stages: Sequence[StageCause], sparse: Side) -> str:
    """In words: what live FLOPs promise, what is predicted, where most of the loss is, and what would help."""
    host = f" {_HOST_BOUND}" if host_bound(p) else ""
    return _verdict(case, p, stages, sparse) + host


_HOST_BOUND = (
    f"The GPU is done in less time than the host needs for a call that is no CUDA graph ({HOST_MS[0]:g} to {HOST_MS[1]:g} ms): "
    "timed call by call, this measures the host."
)


def host_bound(p: Prediction) -> bool:
    """Whether the kernels take less time than a framework's call takes the host."""
    return p.latency_ms - sum(op.latency_ms for op in p.side if op.launches == 0) < HOST_MS[0]


def calls_to_share(p: Prediction, host: Host | None) -> int | None:
    """Calls that have to share a mask or plan for each to beat dense; None where none is built, or sharing is no help."""
    if host is None:
        return None
    spare = p.dense.latency_ms - (p.latency_ms - host.seconds / host.every * 1e3)
    return ceil(host.seconds * 1e3 / spare) if spare > 0 else None


def _verdict(case: Case, p: Prediction, stages: Sequence[StageCause], sparse: Side) -> str:
    promised = stages[0].speedup
    if p.density.pairs > 1 - 1e-3 and p.speedup > 1 / LITTLE:
        return f"Every pair of the dense call is live, so there is nothing to gain: {p.speedup:.2f} x."
    if p.speedup >= promised / LITTLE:
        lost = "Little" if p.speedup < promised / WORTH else "Nothing"
        return f"{lost} is lost: live FLOPs promise {promised:.2f} x, and {p.speedup:.2f} x is predicted."
    worst = min(stages[1:], key=lambda s: s.factor)
    share = log(worst.factor) / sum(log(s.factor) for s in stages[1:] if s.factor < 1)
    return (
        f"A limit: live FLOPs promise {promised:.2f} x, and {p.speedup:.2f} x is what this kernel on this GPU can make of it. "
        f"{'Most' if share > 0.5 else 'The largest part'} of the loss is at {worst.stage} (x {worst.factor:.2f}): "
        f"{re.sub(r' [(]dense: [^)]*[)]', '', worst.cause)}. {_advice(case, p, worst, sparse)}"
    )


def _advice(case: Case, p: Prediction, worst: StageCause, sparse: Side) -> str:
    """What would help, by simulation: without the worst stage, or the best of some changes and other kernels."""
    if worst.stage == "side":
        without = f"Without that it would be {p.dense.latency_ms / p.waterfall[-2].latency_ms:.2f} x."
        calls = calls_to_share(p, case.setting.host)
        return without if calls is None else f"{without} It beats dense if {calls} calls share a mask or plan."
    if worst.stage == "launch":
        return f"Without them it would be {p.dense.latency_ms / p.waterfall[-3].latency_ms:.2f} x: larger batches spread them."
    asked, problem = case.asked, case.asked.problem
    width = max(problem.head_dim, problem.head_dim_v)
    times: dict[str, float] = {}
    for text in _remedies(sparse):
        with suppress(UserError):  # no such kernel fits on the GPU
            times[f"a kernel with {text}"] = changed(case, text).latency_ms()
    for other in candidates(case.spec, asked.pattern.family.mask_class(), problem.dtype, width):
        if other.name != p.kernel:
            with suppress(UserError):
                times[f"kernel {other.name}"] = case._replace(kernel=other, q_tile=None, kv_tile=None).latency_ms()
    words, best = min(times.items(), key=lambda item: item[1], default=("", p.latency_ms))
    if p.latency_ms / best < WORTH:
        tried = "; ".join(text.removeprefix("a kernel with ") for text in times)
        return f"By simulation none of these helps: {tried}." if tried else "No other kernel is known for it."
    words = f"By simulation {words} would bring {p.dense.latency_ms / best:.2f} x"
    if "mask=" in words and case.kernel.mask.policy == "unless_mask_free":
        return f"{words}; this one runs no masks where window, stride and grid are multiples of its tiles."
    return f"{words}."


def _remedies(sparse: Side) -> list[str]:
    """Changes of a kernel that may be worth writing it."""
    choice = sparse.ops[0][0]
    q, kv = choice.tiling.q, choice.tiling.kv
    q_half, kv_half = f"q-tile={_scaled_tile(q, 0.5)}", f"kv-tile={_scaled_tile(kv, 0.5)}"
    other_order = "ascending" if choice.profile.launch.order == "longest_first" else "longest_first"
    return [
        *{"unless_mask_free": ["mask=none", "mask=partial"], "all": ["mask=partial"]}.get(choice.profile.mask.policy, []),
        q_half,
        kv_half,
        f"{q_half},{kv_half}",
        f"q-tile={_scaled_tile(q, 2)}",
        f"order={other_order}",
        f"buffers={choice.tile.stages + 1}",
    ]


def _scaled_tile(tile: tuple[int, ...], factor: float) -> str:
    """A tile with its longest (first of the longest) axis scaled."""
    axis = tile.index(max(tile))
    return "x".join(str(max(round(n * factor), 1) if i == axis else n) for i, n in enumerate(tile))
