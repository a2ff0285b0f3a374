"""What a visit costs at least: the steady interval of an SM that is always busy."""

from __future__ import annotations

from typing import NamedTuple

from ..hwspecs import Clock
from ..kernels import KINDS
from ..workloads import AttentionProblem
from .choice import KernelChoice
from .pipeline import sm_pipeline


class VisitSeconds(NamedTuple):
    """Seconds that one visit takes of a GPU whose SMs are all busy, at the highest clock of a regime."""

    plain: float
    masked: float


def visit_seconds(choice: KernelChoice, problem: AttentionProblem, mask_axes: int, clock: Clock = "sustained") -> VisitSeconds:
    """Seconds that a visit adds to a call on a balanced machine: so many visits take at least so many times as long.

    Parameters
    ----------
    mask_axes : int
        Axes that an element mask tests.

    Examples
    --------
    >>> from simattn.hwspecs import gpus
    >>> from simattn.simulator import choose_kernel
    >>> problem = AttentionProblem(q_heads=24, seq_q=65536, head_dim=128)
    >>> visit = visit_seconds(choose_kernel(gpus.load("b200"), problem, "box", 2), problem, 2)
    >>> 1.2 < visit.masked / visit.plain < 1.7
    True
    """
    rows, keys = choice.tiling.q_rows, choice.tiling.kv_rows
    steady = sm_pipeline(choice.spec, choice.profile, choice.tile, problem, rows, keys, mask_axes).steady()
    rate = choice.spec.chip.sm_count * choice.spec.clock_hz("burst" if clock == "sustained" else clock)
    plain, masked = (float(steady.together[KINDS.index(kind)]) / rate for kind in ("plain", "masked"))
    return VisitSeconds(plain, masked)
