"""One SM: how fast visits follow each other on it, and what a CTA costs besides.

The loop program of the kernel is run on a single SM whose K and V all lie in L2, as in `machine`, until it is steady.
"""

from __future__ import annotations

from functools import lru_cache
from typing import NamedTuple

import msgspec
import numpy as np
from numpy.typing import NDArray

from ..facts import Same
from ..hwspecs import GpuSpec
from ..kernels import KINDS, KernelProfile, Kind, LoopProgram, Tile, build, programs
from ..workloads import AttentionProblem
from .machine import TICKS, Code, Memory, Work, encode, fixed, run
from .memory import l2_cycles
from .side import flops_per_clk

SHORT = 16
"""Visits from which on a CTA is taken to be steady."""

STEADY = 48
"""Visits over which the steady interval is measured."""

LAGS = 4
"""By how much CTAs on one SM may be out of step: so many cases, over which the interval is averaged."""

Floats = NDArray[np.float64]


class Steady(NamedTuple):
    """What one SM does with one loop program, in cycles.

    Attributes
    ----------
    short : float array [SHORT + 1]
        A CTA of so many plain visits, alone on the SM; of a persistent kernel, one among others.
    first : float
        Cycles that the first CTA of a persistent kernel takes more than the others.
    alone : float array [kinds]
        From one visit to the next, of a CTA alone.
    together : float array [kinds]
        The same with all slots taken, over the number of CTAs: the SM's cycles for a visit.
    """

    short: Floats
    first: float
    alone: Floats
    together: Floats


class SmPipeline(NamedTuple):
    """The kv loop of one kernel on one SM, for one tile shape and head width.

    Attributes
    ----------
    program : LoopProgram
        Its ops; `code` is the same as tables.
    ctas : int
        CTAs resident on an SM.
    row_bytes : float
        Bytes of Q, and of O, of one row of a tile.
    q_by_tma : bool
        Q comes as fast as K and V.
    """

    spec: GpuSpec
    profile: KernelProfile
    tile: Tile
    program: LoopProgram
    code: Code
    q_rows: int
    kv_rows: int
    ctas: int
    row_bytes: float
    q_by_tma: bool

    def units(self, kind: Kind) -> dict[str, float]:
        """Cycles that a visit takes each unit."""
        return self.program.unit_cycles(kind)

    def steady(self) -> Steady:
        """How it runs on one SM."""
        return _steady_of(Same(self))

    def memory(
        self, *, l2_bytes_per_clk: float, dram_bytes_per_clk: float, clock_hz: float, capacity_bytes: float, streams: bool
    ) -> Memory:
        """The shared memory system in terms of this kernel's tiles."""
        tile_bytes = max(int(op.load_bytes["plain"]) for op in self.program.ops)
        return _local_memory(self.spec, self.profile, self.q_by_tma)._replace(
            l2=fixed(l2_bytes_per_clk),
            dram=fixed(dram_bytes_per_clk),
            dram_latency=round((self.spec.mem.dram.latency_ns or 500.0) * 1e-9 * clock_hz * TICKS),
            capacity=max(int(capacity_bytes // tile_bytes), 2),
            multicast=self.tile.multicast,
            streams=int(streams),
        )


def sm_pipeline(
    spec: GpuSpec,
    profile: KernelProfile,
    tile: Tile,
    problem: AttentionProblem,
    q_rows: int,
    kv_rows: int,
    mask_axes: int = 1,
    segment: int = 1,
    stored: float = 1.0,
) -> SmPipeline:
    """The pipeline of a kernel on a GPU; `q_rows` and `kv_rows` may differ from the profile's tile.

    `segment` keys lie side by side in memory where they are gathered, and K and V take the share `stored` of their bytes.

    >>> from simattn.hwspecs import gpus
    >>> from simattn.kernels import kernels
    >>> h100, fa3 = gpus.load("h100"), kernels.load("fa3")
    >>> problem = AttentionProblem(q_heads=1, seq_q=8192, head_dim=128)
    >>> tile = fa3.tile_for(h100, 128, "dense", causal=True)
    >>> sm = sm_pipeline(h100, fa3, tile, problem, 128, 128)
    >>> sm.units("plain")["tensor"], bool(sm.steady().together[0] > 2048)
    (2048.0, True)
    """
    # What the loop follows from: neither the length of the call nor how often it occurs.
    one = msgspec.structs.replace(problem, batch=1, q_heads=problem.gqa_group, kv_heads=1, seq_q=1, seq_kv=1, causal=False)
    return _sm_pipeline(Same(spec), Same(profile), tile, one, q_rows, kv_rows, mask_axes, segment, stored)


@lru_cache(maxsize=1024)
def _sm_pipeline(
    on: Same[GpuSpec],
    of: Same[KernelProfile],
    tile: Tile,
    problem: AttentionProblem,
    q_rows: int,
    kv_rows: int,
    mask_axes: int,
    segment: int,
    stored: float,
) -> SmPipeline:
    spec, profile = on.value, of.value
    rate = spec.tensor_flops_per_clk(profile.products or problem.dtype) * spec.eff.tensor * profile.tensor_share
    element = profile.element_bytes(problem)
    if profile.tensor_path == "mma_sync":
        rate *= spec.mma.legacy_fraction
    program = build(
        profile,
        spec,
        q_rows=q_rows,
        kv_rows=kv_rows,
        head_dim=problem.head_dim,
        head_dim_v=tile.columns or problem.head_dim_v,
        element_bytes=element,
        stages=tile.stages,
        warps=tile.threads // 32,
        tensor_rate=rate,
        mask_alu=profile.mask.operations(mask_axes),
        segment=segment,
        score_rate=flops_per_clk(spec, profile.scores) * spec.eff.tensor if profile.scores else 0.0,
        stored=stored,
        template=programs.load(profile.program_of(tile, problem.head_dim_v)),
    )
    ctas = profile.ctas_per_sm(spec, tile, problem.head_dim, problem.head_dim_v, element)
    # CTAs of a backward pass own keys: of each row they read K and V, and write both gradients.
    row_bytes = (problem.head_dim * element + problem.head_dim_v * max(element, 2)) / (1 if problem.phase == "backward" else 2)
    q_by_tma = problem.gqa_group in profile.launch.tma_packs
    return SmPipeline(spec, profile, tile, program, encode(program), q_rows, kv_rows, ctas, row_bytes, q_by_tma)


def _local_memory(spec: GpuSpec, profile: KernelProfile, q_by_tma: bool) -> Memory:
    """What an SM sees of a memory system that it has for itself."""
    l2 = spec.mem.l2
    tma = spec.mem.tma.extra_latency if spec.mem.tma else None
    cycles = round((l2_cycles(spec) + (tma or 0.0)) * TICKS)
    rows = min(profile.timing.rows_bytes_per_clk or l2.sm_bytes_per_clk, l2.sm_bytes_per_clk)
    port, fills = fixed(l2.sm_bytes_per_clk), l2.sm_bytes_per_clk / spec.units.smem_bytes
    return Memory(port, port if q_by_tma else fixed(rows), fixed(rows), 0, 0, cycles, cycles, 2**40, 1, 1, fills)


@lru_cache(maxsize=1024)
def _steady_of(of: Same[SmPipeline]) -> Steady:
    sm = of.value
    return _steady(
        _Frozen(sm.code),
        _local_memory(sm.spec, sm.profile, sm.q_by_tma),
        sm.ctas,
        sm.profile.timing.prologue_cycles,
        round(sm.row_bytes * sm.q_rows),
        sm.profile.launch.persistent,
    )


class _Frozen:
    """A loop program's tables as a key of a cache."""

    def __init__(self, code: Code) -> None:
        self.code = code
        self.key = b"".join(np.asarray(table).tobytes() for table in code)

    def __hash__(self) -> int:
        return hash(self.key)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, _Frozen) and self.key == other.key


@lru_cache(maxsize=4096)
def _steady(program: _Frozen, memory: Memory, slots: int, prologue: float, q_bytes: int, persistent: bool) -> Steady:
    def cycles(visits: int, kind: int, ctas: int, rounds: int = 1, stagger: float = 0.0) -> float:
        work = Work(
            np.array([0, visits]),
            np.arange(visits, dtype=np.int32),
            np.full(visits, kind, np.int8),
            np.array([q_bytes]),
            np.array([visits]),
            1,
            np.zeros(ctas * rounds, np.int64),
            np.zeros(ctas * rounds, np.int64),
        )
        tiles = 2 * max(visits, 1)
        outcome = run(
            program.code,
            work,
            memory,
            sms=1,
            slots=ctas,
            prologue=prologue,
            tiles=tiles,
            warm=tiles,
            persistent=persistent,
            stagger=stagger,
        )
        return outcome.end / TICKS

    def slope(kind: int, ctas: int, stagger: float = 0.0) -> float:
        long, less = (cycles(visits, kind, ctas, stagger=stagger) for visits in (SHORT + STEADY, SHORT))
        return (long - less) / STEADY / ctas

    alone_in_all = np.array([cycles(visits, 0, 1) for visits in range(SHORT + 1)])
    short = alone_in_all
    if persistent:
        short = np.array([(cycles(v, 0, 1, 6) - cycles(v, 0, 1, 2)) / 4 for v in range(SHORT + 1)])
    first = float(alone_in_all[-1] - short[-1])
    alone = np.array([slope(kind, 1) for kind in range(len(KINDS))])
    # Long CTAs have come out of step by chance, by anything up to half a visit of one alone.
    lags = (np.arange(LAGS) + 0.5) / LAGS / slots
    together = (
        alone if slots == 1 else np.array([np.mean([slope(k, slots, a * lag) for lag in lags]) for k, a in enumerate(alone)])
    )
    return Steady(short, first, alone, together)
