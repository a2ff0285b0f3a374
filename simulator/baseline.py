"""The dense call that a pattern stands in for, and the kernel that runs it fastest."""

from __future__ import annotations

from math import inf
from typing import NamedTuple

from ..hwspecs import GpuSpec
from ..kernels import candidates, kernels
from ..workloads import TileSchedule, Tiling, TokenLayout
from ..workloads.backward import backward_schedule
from ..workloads.plan import backward_side
from .choice import choose_kernel
from .memory import memory_op_seconds
from .question import Question
from .setting import Setting
from .waterfall import attention_time


class DenseTime(NamedTuple):
    """The dense call of a problem: by which kernel, and how long."""

    kernel: str
    seconds: float


def dense_schedule(asked: Question, tiling: Tiling) -> TileSchedule:
    """The call without its pattern, over all heads and items."""
    layout = TokenLayout(grid=(asked.layout.tokens,), queries=asked.layout.queries)
    schedule = asked.pattern.family.without_pattern().schedule(layout, tiling)
    if asked.problem.phase == "backward":
        return backward_schedule(schedule, asked.problem)
    return schedule.with_copies(asked.problem.batch * asked.problem.q_heads // tiling.pack)


def fastest_dense(asked: Question, spec: GpuSpec, setting: Setting, only: str | None = None) -> DenseTime:
    """The dense call by the fastest profiled kernel, or by the one named in `only`."""
    problem, mask_class = asked.problem, asked.pattern.family.without_pattern().mask_class()
    width = max(problem.head_dim, problem.head_dim_v)
    names = [only] if only else [p.name for p in candidates(spec, mask_class, problem.dtype, width, problem.phase)]

    def seconds(name: str, setting: Setting) -> float:
        choice = choose_kernel(spec, problem, mask_class, kernel=name)
        time = attention_time(choice.spec, choice, dense_schedule(asked, choice.tiling), problem, setting)
        beside = backward_side(problem) if problem.phase == "backward" and "side" not in setting.off else ()
        return time.stages["launch"] + time.merge + sum(memory_op_seconds(choice.spec, op, None) for op in beside)

    # The bound is never above the time, so a kernel whose bound is above the best time found cannot be the best.
    best = DenseTime("", inf)
    for bound, name in sorted((seconds(name, setting._replace(fidelity="bound")), name) for name in names):
        if bound < best.seconds:
            best = min(best, DenseTime(name, seconds(name, setting)), key=lambda time: time.seconds)
    return best._replace(kernel=kernels.load(best.kernel).name)
