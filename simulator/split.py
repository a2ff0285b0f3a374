"""Split: into which parts the keys of a row are divided, so that few rows fill the machine, and the kernel that merges them."""

from __future__ import annotations

from collections.abc import Sequence
from math import ceil
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from ..hwspecs import GpuSpec
from ..kernels import KernelProfile, Split
from ..workloads import AttentionProblem, Memory, TileSchedule
from .memory import l2_cycles, memory_op_seconds

Ints = NDArray[np.int64]


class Part(NamedTuple):
    """CTAs of a group of rows, each with a range of the visits of one row of one copy; arrays [CTAs] in launch order."""

    row: Ints
    copy: Ints
    low: Ints
    high: Ints


def kv_parts(
    profile: KernelProfile, schedule: TileSchedule, sms: int, heads: int = 0, *, packed: bool = True, captured: bool = False
) -> list[int]:
    """Parts of every row of each group, for kernels that divide all rows of a group alike.

    Parameters
    ----------
    heads : int
        Copies of a group in one item of the batch; 0 for all of them.
    packed : bool
        Whether heads share a tile.
    captured : bool
        As `captured_call` has it.

    Examples
    --------
    >>> from simattn.kernels import kernels
    >>> from simattn.workloads import schedule
    >>> one_query = schedule("dense", seq_q=1, seq_kv=65536).with_copies(8)
    >>> kv_parts(kernels.load("fa3"), one_query, sms=132)
    [15]
    """
    rule = profile.split
    if rule is None or (rule.packed_only and not packed):
        return [1] * len(schedule.groups)
    counts = schedule.counts.visited
    most = [int(counts[g.first_row : g.first_row + g.rows].max(initial=0)) for g in schedule.groups]
    ctas = schedule.work_rows
    if rule.rule == "floor":
        return [max(1, min(n // rule.part_tiles + (n % rule.part_tiles > 0), sms // ctas)) for n in most]
    if rule.per_item and heads:
        ctas = max(g.rows * min(g.copies, heads) for g in schedule.groups)
    shares = rule.captured_parts if captured else _fullest(rule, ctas, max(most), sms)
    even = max(1, ceil(rule.slack * schedule.visited / sms))
    return [max(1, min(shares, ceil(n / even) if rule.slack else shares)) for n in most]


def captured_call(profile: KernelProfile, problem: AttentionProblem, replayed: bool) -> bool:
    """Whether room for the parts of rows was set aside when the call was captured in a graph."""
    rule = profile.split
    return bool(replayed and rule and rule.captured_parts and problem.batch * problem.seq_q <= rule.captured_tokens)


def _fullest(rule: Split, ctas: int, most: int, sms: int) -> int:
    """The fewest parts whose last wave is filled to 85 % of the best."""
    slots = sms * rule.slots
    if ctas >= rule.below * slots or most <= rule.min_tiles:
        return 1
    able: Sequence[int] = range(1, min(most, slots, MOST_PARTS) + 1)
    if rule.only_shorter:
        able = [n for n in able if n == 1 or ceil(most / n) != ceil(most / (n - 1))]
    filled = {parts: ctas * parts / slots / ceil(ctas * parts / slots) for parts in able}
    return next(parts for parts, share in filled.items() if share >= 0.85 * max(filled.values()))


MOST_PARTS = 128
"""Most parts of a row in FlashAttention's kernels."""


def dealt(rule: Split, schedule: TileSchedule, group: int, sms: int, rows_together: int) -> Part:
    """The visits of a group dealt to the SMs in equal shares, item after item.

    Parameters
    ----------
    rows_together : int
        CTAs that go through the same keys side by side (tiles of one item); each of them has its own part of the machine.
    """
    own = schedule.groups[group]
    shares = max(1, sms // max(1, rows_together))
    counts = schedule.counts.visited[own.first_row : own.first_row + own.rows]
    # Rows of an item that end a tile earlier leave the last visit of their part to the others.
    longest = counts.reshape(-1, rows_together).max(axis=1)
    lengths = np.tile(longest, own.copies)
    payload = ceil(int((lengths + rule.overhead_tiles).sum()) / shares) + rule.overhead_tiles
    cuts: list[tuple[int, int, int, int]] = []
    item, begin = 0, 0
    for _ in range(shares):
        left = payload
        while item < len(lengths):
            rest = int(lengths[item]) - begin
            if left >= rest + rule.overhead_tiles:
                cuts.append((payload - left, item, begin, begin + rest))
                left -= rest + rule.overhead_tiles
                item, begin = item + 1, 0
                continue
            if left > rule.overhead_tiles:
                cuts.append((payload - left, item, begin, begin + left - rule.overhead_tiles))
                begin += left - rule.overhead_tiles
            break
    # A CTA goes through all pieces of its share. In the order in which they begin, the first SM to be free takes the piece that
    # its own CTA would go on to.
    cuts.sort(key=lambda cut: cut[0])
    _, items, low, high = (np.array(column, np.int64) for column in zip(*cuts, strict=True))
    first = np.repeat(items * rows_together, rows_together) + np.tile(np.arange(rows_together), len(items))
    row = first % own.rows
    low, high = (np.minimum(np.repeat(edge, rows_together), counts[row]) for edge in (low, high))
    return Part(own.first_row + row, first // own.rows, low, high)


def packing_copies(profile: KernelProfile, problem: AttentionProblem, pack: int) -> Memory | None:
    """The copies that bring the heads of a tile side by side; None where the kernel packs by itself, or nothing is packed.

    With one item, or one K/V head, Q is taken as it lies, and only the output is copied, in the same order.

    References
    ----------
    vllm-project/flash-attention @04325b6 csrc/flash_attn/flash_api.cpp, mha_varlen_fwd.

    >>> from simattn.kernels import kernels
    >>> step = AttentionProblem(batch=2, q_heads=32, kv_heads=8, seq_q=1, seq_kv=4096, head_dim=128, phase="decode")
    >>> packing_copies(kernels.load("fa2_decode"), step, 4).launches, packing_copies(kernels.load("fa3_decode"), step, 4)
    (2, None)
    """
    if not profile.launch.packs_by_copy or pack == 1:
        return None
    rows = problem.batch * problem.seq_q * problem.q_heads
    if problem.batch == 1 or problem.kv_heads == 1:
        return Memory("output to its place", 2 * rows * problem.head_dim_v * problem.element_bytes, launches=1)
    values = rows * (problem.head_dim + problem.head_dim_v)
    # A division each for the item, the K/V head, the head of the group, and the place within the head.
    return Memory("heads side by side", 2 * values * problem.element_bytes, launches=2, values=values, form="copy", divisions=4)


def merge_seconds(
    spec: GpuSpec, profile: KernelProfile, op: Memory | None, parts: int, items: int, *, replayed: bool, captured: bool
) -> float:
    """Time of the kernel that merges parts, launch included, in seconds; 0 where there is none.

    What it reads has just been written, so it comes from L2. A row waits for its log-sum-exps, then for its parts, as many at a
    time as the kernel asks for ahead, and is stored. Where nothing is divided in a captured call (`op` is None), its CTAs find
    that out and leave; it was launched while the last CTAs of the attention were at work.
    """
    rule = profile.split
    if rule is None or (op is None and not captured):
        return 0.0
    steps = ceil(items / rule.merge_search_items) if rule.merge_search_items else 0
    cycles = steps * search_step_cycles(spec, profile)
    if op is None:
        return cycles / spec.clock_hz("burst")
    waits = 2 + ceil(parts / rule.merge_ahead)
    cycles += waits * (l2_cycles(spec) + (spec.mem.smem.latency if spec.mem.smem else 0.0))
    return memory_op_seconds(spec, op, None, missing=0.0, replayed=replayed) + cycles / spec.clock_hz("burst")


def search_step_cycles(spec: GpuSpec, profile: KernelProfile) -> float:
    """Cycles to look at the next few items of a batch: to have their lengths from L2, and to sum them up."""
    return l2_cycles(spec) + profile.launch.search_cycles


def search_cycles(spec: GpuSpec, profile: KernelProfile, items: int, ctas: int) -> float:
    """Mean cycles in which a CTA finds the item of its tile, beyond the first look: the CTAs of an SM go through the batch once.

    >>> from simattn.hwspecs import gpus
    >>> from simattn.kernels import kernels
    >>> h100, fa3 = gpus.load("h100"), kernels.load("fa3_decode")
    >>> [round(search_cycles(h100, fa3, 1024, ctas)) for ctas in (1024, 8192)]
    [2280, 285]
    """
    if not profile.launch.search_items:
        return 0.0
    steps = (items - 1) // profile.launch.search_items
    return steps * search_step_cycles(spec, profile) * min(1.0, spec.chip.sm_count / max(ctas, 1))


def merge_kernel(profile: KernelProfile, problem: AttentionProblem, partial_rows: int, merged_rows: int) -> Memory | None:
    """The kernel that makes one result of the parts of each row; None where the CTAs do that themselves, or nothing is divided.

    Parameters
    ----------
    partial_rows, merged_rows : int
        Rows of partial output, in fp32 with their log-sum-exp, and rows that they become.

    Examples
    --------
    >>> from simattn.kernels import kernels
    >>> problem = AttentionProblem(q_heads=32, kv_heads=8, seq_q=1, seq_kv=32768, head_dim=128, phase="decode")
    >>> merge_kernel(kernels.load("fa3_decode"), problem, 15 * 32, 32).bytes
    255872
    """
    if profile.split is None or profile.split.merge != "kernel" or not partial_rows:
        return None
    read = partial_rows * (problem.head_dim_v + 1) * 4
    return Memory("merge", read + merged_rows * problem.head_dim_v * 2, launches=1)
