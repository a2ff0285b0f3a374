"""The dense call that a pattern stands in for, and the kernel that runs it fastest."""

from __future__ import annotations

from functools import lru_cache
from math import inf
from typing import NamedTuple

from ..facts import Same
from ..hwspecs import GpuSpec
from ..kernels import Calibration, candidates, kernels
from ..kernels.calibration import all_calibrations
from ..workloads import AttentionProblem, TileSchedule, Tiling, TokenLayout
from ..workloads.backward import backward_schedule
from ..workloads.families import Band, Ragged
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


class DenseCall(NamedTuple):
    """A call without its pattern: all that the dense time of a GPU depends on."""

    problem: AttentionProblem
    layout: TokenLayout
    family: Band | Ragged

    @staticmethod
    def of(asked: Question) -> DenseCall:
        """The dense call that a pattern stands in for."""
        layout = TokenLayout(grid=(asked.layout.tokens,), queries=asked.layout.queries)
        return DenseCall(asked.problem, layout, asked.pattern.family.without_pattern())

    def schedule(self, tiling: Tiling) -> TileSchedule:
        """Its work, over all heads and items."""
        schedule = self.family.schedule(self.layout, tiling)
        if self.problem.phase == "backward":
            return backward_schedule(schedule, self.problem)
        return schedule.with_copies(self.problem.batch * self.problem.q_heads // tiling.pack)


def dense_schedule(asked: Question, tiling: Tiling) -> TileSchedule:
    """The call without its pattern, over all heads and items."""
    return DenseCall.of(asked).schedule(tiling)


def fastest_dense(asked: Question, spec: GpuSpec, setting: Setting, only: str | None = None) -> DenseTime:
    """The dense call by the fastest profiled kernel, or by the one named in `only`.

    It is the same for all patterns on a problem, and found once for each GPU.
    """
    return _fastest_dense(DenseCall.of(asked), Same(spec), Same(all_calibrations()), setting, only)


@lru_cache(maxsize=4096)
def _fastest_dense(
    call: DenseCall, on: Same[GpuSpec], known: Same[tuple[Calibration, ...]], setting: Setting, only: str | None
) -> DenseTime:
    spec, problem, mask_class = on.value, call.problem, call.family.mask_class()
    width = max(problem.head_dim, problem.head_dim_v)
    names = [only] if only else [p.name for p in candidates(spec, mask_class, problem.dtype, width, problem.phase)]

    def seconds(name: str, setting: Setting) -> float:
        choice = choose_kernel(spec, problem, mask_class, kernel=name, known=known.value)
        time = attention_time(choice.spec, choice, call.schedule(choice.tiling), problem, setting)
        beside = backward_side(problem) if problem.phase == "backward" and "side" not in setting.off else ()
        return time.stages["launch"] + time.merge + sum(memory_op_seconds(choice.spec, op, None) for op in beside)

    # The bound is never above the time, so a kernel whose bound is above the best time found cannot be the best.
    best = DenseTime("", inf)
    for bound, name in sorted((seconds(name, setting._replace(fidelity="bound")), name) for name in names):
        if bound < best.seconds:
            best = min(best, DenseTime(name, seconds(name, setting)), key=lambda time: time.seconds)
    return best._replace(kernel=kernels.load(best.kernel).name)
