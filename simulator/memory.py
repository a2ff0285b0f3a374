"""L2 and DRAM: what an attention kernel has to move, and how fast it can."""

from __future__ import annotations

from collections.abc import Sequence
from math import ceil
from typing import Any, NamedTuple

import numpy as np
from numba import njit
from numpy.typing import NDArray

from ..hwspecs import GpuSpec
from ..kernels.elementwise import instructions_of_value
from ..workloads import AttentionProblem, Memory, TileSchedule, kv_cache_write
from ..workloads.schedule import Group, Kind

WARP = 32
"""Threads of a warp."""

Ints = NDArray[np.int64]


class Traffic(NamedTuple):
    """Bytes that a kernel moves."""

    l2: float
    """K and V of every visit, and Q and O once: all of it passes through L2."""
    dram: float
    """Q and O once, K and V as often as L2 does not hold them."""
    missing: float
    """Share of Q, K, V and O that L2 does not hold at the start."""


def traffic(
    spec: GpuSpec,
    schedule: TileSchedule,
    *,
    row_bytes: float,
    token_bytes: float,
    visit_bytes: Sequence[float],
    look_bytes: float = 0.0,
    resident: int,
    heads_share: int = 1,
    multicast: int = 1,
    warm: float | None = None,
) -> Traffic:
    """Bytes of one attention kernel over a schedule of all heads and items.

    Parameters
    ----------
    row_bytes : float
        Of Q, and of O, of one row of an owner tile.
    token_bytes : float
        Of K and V of one token, as they lie in DRAM.
    visit_bytes : sequence of float
        That pass through L2 for a tile computed whole, and for one of which only the scores are.
    look_bytes : float
        Of a mask, read for every tile that is looked at.
    resident : int
        CTAs that run at the same time on all SMs.
    heads_share : int
        Copies of a group, next to each other in launch order, that read the same K and V.
    multicast : int
        CTAs that share one read of K and V from L2.
    warm : float, optional
        The same call ran before, as in a benchmark, and so many other bytes were touched since.

    Notes
    -----
    CTAs that run together go through their keys in step, so a tile that several of them read comes from DRAM once. It comes again
    for the next CTAs of the head if the K and V read by CTAs that run together overflow L2, least recently used first.
    """
    token = token_bytes
    q_and_o = schedule.total(schedule.row_live) * 2 * row_bytes
    visits = schedule.visited * visit_bytes[0] + schedule.qk_only * visit_bytes[1]
    masks = (schedule.visited + schedule.total(schedule.counts.skipped)) * look_bytes
    capacity = spec.mem.l2.mib * 2**20
    keys = 0.0
    for group in (group for group in schedule.groups if group.rows):
        distinct = ceil(group.copies / heads_share)
        all_keys = min(_keys_of(schedule, group), schedule.seq_kv) * token
        together = min(ceil(ceil(resident / group.rows) / heads_share), distinct)
        if group.rows <= resident or all_keys <= capacity:
            reads = 1.0 if all_keys * together <= capacity else heads_share
            keys += all_keys * distinct * reads
        else:
            in_step = _tiles_in_step(schedule, group, resident) * schedule.kv_tile * token
            keys += all_keys * distinct if float(in_step.max(initial=0.0)) <= capacity else float(in_step.sum()) * group.copies
    dram = q_and_o + keys + masks
    missing = 1.0 if warm is None else missing_share(spec, dram + warm)
    return Traffic(visits / multicast + q_and_o + masks, dram * missing, missing)


def missing_share(spec: GpuSpec, footprint: float) -> float:
    """Share of the bytes of a loop that its next round does not find in L2.

    L2 of two partitions may keep data once in each, so it holds half of its size. What it holds is all there; of twice as much
    nothing is, since the oldest is always thrown out just before it is needed.

    >>> from simattn.hwspecs import gpus
    >>> h100 = gpus.load("h100")
    >>> [missing_share(h100, mib * 2**20) for mib in (20, 37.5, 60)]
    [0.0, 0.5, 1.0]
    """
    return min(max(footprint * spec.mem.l2.partitions / (spec.mem.l2.mib * 2**20) - 1, 0.0), 1.0)


def _keys_of(schedule: TileSchedule, group: Group) -> int:
    """Keys from the first to the last one that a group reads."""
    runs = schedule.runs
    own = slice(runs.indptr[group.first_row], runs.indptr[group.first_row + group.rows])
    return int(runs.stop[own].max(initial=0) - runs.start[own].min(initial=int(runs.stop[own].max(initial=0))))


def _tiles_in_step(schedule: TileSchedule, group: Group, resident: int) -> Ints:
    """Different tiles that each set of `resident` neighbouring rows of a group visits."""
    runs, tile = schedule.runs, schedule.kv_tile
    first, last = runs.indptr[[group.first_row, group.first_row + group.rows]]
    read = runs.kind[first:last] != Kind.SKIPPED
    sets = (runs.row[first:last][read] - group.first_row) // resident
    start, stop = runs.start[first:last][read] // tile, -(-runs.stop[first:last][read] // tile)
    tiles: Ints = _different(sets, start, stop, ceil(group.rows / resident), int(stop.max(initial=0)))
    return tiles


@njit(cache=True)
def _different(sets: Any, start: Any, stop: Any, count: int, end: int) -> Any:
    """Whole numbers in the intervals of each set, each counted once; intervals in the order of their sets."""
    found, edges = np.zeros(count, np.int64), np.zeros(end + 1, np.int64)
    at = 0
    for own in range(count):
        edges[:] = 0
        while at < len(sets) and sets[at] == own:
            edges[start[at]] += 1
            edges[stop[at]] -= 1
            at += 1
        open_ = 0
        for number in range(end):
            open_ += edges[number]
            found[own] += open_ > 0
    return found


def l2_seconds(spec: GpuSpec, bytes_: float, hz: float) -> float:
    """Least time for bytes through L2, in seconds, at an SM clock of `hz`."""
    return bytes_ / (spec.mem.l2.bytes_per_clk * spec.eff.l2 * hz)


def dram_seconds(spec: GpuSpec, bytes_: float) -> float:
    """Least time for bytes from DRAM, in seconds."""
    return bytes_ / spec.dram_bytes_per_s()


def memory_op_seconds(
    spec: GpuSpec, op: Memory, permute_gbps: float | None, missing: float = 1.0, *, replayed: bool = False
) -> float:
    """Time of a kernel that only moves data, launches included, in seconds.

    Parameters
    ----------
    permute_gbps : float or None
        Rate of the attention kernel's own permutation kernels, where its profile gives one.
    missing : float
        Share of the bytes that L2 does not hold.
    replayed : bool
        It follows another kernel in a graph that is replayed.

    Notes
    -----
    Kernels that compute the address of each value (`form`) have too few bytes in flight to hide that under the loads: the time of
    these instructions is added. PyTorch's own kernels on H100 (rotary embedding in fp32, pytorch issue 141265) and the copies of
    NATTEN's permutation on H100 and B200 say so, within 2 to 16 %; nothing is fitted.
    """
    launch = spec.launch.graph_node_us if replayed and spec.launch.graph_node_us is not None else spec.launch.kernel_us
    rate = spec.mem.dram.gbps * 1e9 * spec.eff.dram_copy
    if op.access == "permute" and permute_gbps is not None:
        rate = min(rate, permute_gbps * 1e9)
    moving = op.bytes * missing / rate + l2_seconds(spec, op.bytes * (1 - missing), spec.clock_hz("burst"))
    busy = _either(moving, _waiting_seconds(spec, op, missing)) + _addressing_seconds(spec, op, missing)
    return busy + op.launches * launch * 1e-6


DEPENDENT_CYCLES = 4
"""From an instruction to one that takes its result."""

VALUES_OF_THREAD = 4
"""Each of them is loaded when the one before is stored (PyTorch, CUDALoops.cuh)."""


def _addressing_seconds(spec: GpuSpec, op: Memory, missing: float) -> float:
    """Time to compute addresses: what all warps issue, one instruction a clock and scheduler, and what one thread waits."""
    if op.form == "vector":
        return 0.0
    instructions = instructions_of_value(spec.arch, op.form, op.divisions)
    issued = op.values / WARP * instructions / (spec.chip.sm_count * spec.sm.schedulers)
    wait = l2_cycles(spec) * (1 + missing * (_dram_over_l2(spec) - 1))
    alone = op.launches * VALUES_OF_THREAD * (instructions * DEPENDENT_CYCLES + wait)
    return (issued + alone) / spec.clock_hz("burst")


def cache_write_seconds(spec: GpuSpec, problem: AttentionProblem, *, warm: bool) -> float:
    """Time of the KV-cache write before a call; `warm` where write and call run over and over, so that L2 keeps what fits."""
    write = kv_cache_write(problem)
    q_and_o = problem.batch * problem.seq_q * problem.q_heads * (problem.head_dim + problem.head_dim_v) * problem.element_bytes
    missing = missing_share(spec, write.bytes + q_and_o) if warm else 1.0
    return memory_op_seconds(spec, write, None, missing)


def _waiting_seconds(spec: GpuSpec, op: Memory, missing: float) -> float:
    """Time of CTAs that each wait for a chain of accesses to memory, and that are launched one a clock.

    Half of it is the chain, however few threads a CTA has, and longer where DRAM has to answer and not L2; the rest is work that
    grows with the threads, to the whole at 512.
    """
    if not op.ctas:
        return 0.0
    resident = min(spec.sm.max_threads // max(op.threads, 32), spec.sm.max_ctas)
    chain = 1 + missing * (_dram_over_l2(spec) - 1)
    one = spec.launch.token_cta_us * 1e-6 * (0.5 * chain + 0.5 * op.threads / 512)
    launched = op.ctas / (CTAS_PER_CLK * spec.clock_hz("burst"))
    return _either(op.ctas * one / (spec.chip.sm_count * resident), launched)


CTAS_PER_CLK = 1
"""CTAs that a GPU launches a clock, over all its SMs. Not published: calls of vLLM on a B300 that differ in their query heads
only leave 0.51 ns a CTA of 64 threads and 0.61 of 128, where a clock is 0.49."""


def l2_cycles(spec: GpuSpec) -> float:
    """Latency of L2, on the mean over its partitions."""
    near = spec.mem.l2.latency_near or 250.0
    return (near + (spec.mem.l2.latency_far or near)) / 2


def _dram_over_l2(spec: GpuSpec) -> float:
    """Latency of an access that L2 misses over that of one that it holds, at the highest clock."""
    return max((spec.mem.dram.latency_ns or 500.0) * 1e-9 * spec.clock_hz("burst") / l2_cycles(spec), 1.0)


def _either(a: float, b: float) -> float:
    """Time of two limits that hide each other in part: a little more than the longer one."""
    return float((a**4 + b**4) ** 0.25)
