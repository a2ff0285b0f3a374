"""Cycles of a tile: what a compiled loop costs, read without a GPU, beside what published runs of such loops took.

Long runs spend all but a little of their time in the loop over keys, so time, clock and visits give the cycles of a tile.
"""

from __future__ import annotations

import tomllib
from pathlib import Path
from typing import NamedTuple

from msgspec import Struct, convert

from ..facts import UserError
from ..hwspecs import gpus
from ..kernels import KINDS, KernelProfile, kernels
from ..kernels import counts as compiled_counts
from ..kernels.compiled import architecture
from ..kernels.compiled_profile import profile_of
from ..simulator.pipeline import sm_pipeline
from ..workloads import AttentionProblem
from .measurement import Measurement
from .sources import published_runs

EDGE = 128
"""Cycles are given for so many rows by so many keys."""


class LoopRow(NamedTuple):
    """A published run and the loop that stands for it; cycles of an SM for 128 x 128 scores.

    Attributes
    ----------
    measured : float
        Time times clock, over the scores of an SM.
    busiest : float
        Cycles of the busiest unit, as if all others hid behind it.
    serial : float
        Tensor, exponential, FMA and ALU cycles one after the other.
    simulated : float
        The interval of the simulated SM.
    """

    run: str
    hw: str
    head_dim: int
    measured: float
    busiest: float
    serial: float
    simulated: float

    def error(self, estimate: str) -> float:
        """An estimate (`busiest`, `serial` or `simulated`) over the measured cycles, less one."""
        return float(getattr(self, estimate)) / self.measured - 1


class _Clock(Struct, frozen=True, forbid_unknown_fields=True):
    mhz: float
    source: str


class _Loop(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    runs: tuple[str, ...]
    clock: str
    hw: str
    kernel: str = ""
    """A bundled kernel, whose shipped counts stand for the measured one; or"""
    profile: str = ""
    """the profile of the measured kernel itself, with what was counted in it:"""
    busiest: float = 0.0
    serial: float = 0.0


def loop_rows() -> list[LoopRow]:
    """Every run of `sources/triton_loops.toml`.

    >>> rows = loop_rows()
    >>> len(rows) > 10, all(row.busiest < row.serial for row in rows)
    (True, True)
    """
    table = tomllib.loads((Path(__file__).parent / "sources" / "triton_loops.toml").read_text(encoding="utf-8"))
    clocks = convert(table["clocks"], dict[str, _Clock])
    runs = {run.id: run for run in published_runs()}
    return [
        _row(loop, runs[name], clocks[loop.clock].mhz * 1e6) for loop in convert(table["loop"], list[_Loop]) for name in loop.runs
    ]


def _row(loop: _Loop, run: Measurement, hz: float) -> LoopRow:
    spec = gpus.load(loop.hw)
    if not (run.latency_ms and run.seq_q and run.q_heads and run.head_dim):
        raise UserError(f"run {run.id} has no time or no shape")
    tiles = run.seq_q / EDGE
    # Causal rows visit their diagonal tile whole.
    visits = (run.batch or 1) * run.q_heads * (tiles * (tiles + 1) / 2 if run.pattern == "causal" else tiles**2)
    measured = run.latency_ms * 1e-3 * hz * spec.chip.sm_count / visits
    if loop.profile:
        simulated = _interval(kernels.load(loop.profile), loop.hw, run.head_dim, "masked")
        return LoopRow(run.id, loop.hw, run.head_dim, measured, loop.busiest, loop.serial, simulated)
    arch = architecture(loop.hw)[0]
    rows = [
        row
        for row in compiled_counts.shipped()
        if (row.kernel, row.arch, row.config.head_dim, row.spills) == (loop.kernel, arch, run.head_dim, 0)
    ]
    if not rows:
        raise UserError(f"no shipped counts of {loop.kernel} for {arch} with head_dim {run.head_dim}")
    # The measured kernels were tuned by time over such configs; each estimate takes the best by its own reckoning.
    scale = [EDGE * EDGE / (row.config.block_m * row.config.block_n) for row in rows]
    return LoopRow(
        run.id,
        loop.hw,
        run.head_dim,
        measured,
        min(max(row.cycles.values()) * s for row, s in zip(rows, scale, strict=True)),
        min(row.serial_cycles * s for row, s in zip(rows, scale, strict=True)),
        min(_interval(profile_of(row), loop.hw, run.head_dim, "plain") for row in rows),
    )


def _interval(profile: KernelProfile, hw: str, head_dim: int, kind: str) -> float:
    """Simulated cycles of an SM for 128 x 128 scores."""
    spec = gpus.load(hw)
    tile = profile.tile_for(spec, head_dim, "dense")
    rows, keys = tile.q[0], tile.kv[0]
    problem = AttentionProblem(q_heads=1, seq_q=8192, head_dim=head_dim)
    steady = sm_pipeline(spec, profile, tile, problem, rows, keys, mask_axes=1).steady()
    return float(steady.together[[str(k) for k in KINDS].index(kind)]) * EDGE * EDGE / (rows * keys)
