"""Launch: which rows become CTAs, in which order, and which visits of them need a mask."""

from __future__ import annotations

from math import ceil
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from ..kernels import KINDS, KernelProfile
from ..workloads import TileSchedule
from ..workloads.visits import Visits, visits
from .machine import Work

Ints = NDArray[np.int64]


class MaskPlan(NamedTuple):
    """Which visits run an element mask, and on how many axes."""

    every: bool
    """All of them; otherwise the PARTIAL ones, unless `axes` is 0."""
    axes: int


def mask_plan(profile: KernelProfile, schedule: TileSchedule) -> MaskPlan:
    """What the kernel's mask policy makes of a schedule.

    A call that NATTEN finds free of masks but for padded keys pays a bounds check on one axis, on every tile.
    """
    policy, axes = profile.mask.policy, schedule.mask_axes
    if policy == "unless_mask_free":
        if not schedule.mask_free:
            return MaskPlan(True, axes)
        padded = bool((schedule.counts.visited != schedule.counts.full).any())
        return MaskPlan(padded, 1 if padded else 0)
    return MaskPlan(policy == "all", axes)


def kinds_of_rows(schedule: TileSchedule, plan: MaskPlan) -> Ints:
    """Visits of each row by kind of the SM pipeline: int64 array [rows, kinds]."""
    counts = schedule.counts
    if plan.every:
        masked = counts.visited
    elif plan.axes == 0:
        masked = np.zeros_like(counts.visited)
    else:
        masked = counts.visited - counts.full - counts.gather
    return np.stack([counts.visited - masked, masked, counts.qk_only, counts.skipped], axis=1)


def kv_parts(profile: KernelProfile, schedule: TileSchedule, sms: int) -> int:
    """CTAs into which the kernel splits the keys of each owner tile.

    The rule is FlashAttention's: only when the CTAs fill too little of the machine; then the smallest split whose last wave is
    filled to 85 % of the best, but none so fine that a part is shorter than an even share of all visits.
    """
    rule, ctas, most = profile.launch, schedule.work_rows, schedule.max_visited
    if rule.split_below == 0 or ctas >= rule.split_below * sms or most <= rule.split_min_tiles:
        return 1
    filled = {parts: ctas * parts / sms / ceil(ctas * parts / sms) for parts in range(1, min(most, sms) + 1)}
    best = max(filled.values())
    parts = next(parts for parts, share in filled.items() if share >= 0.85 * best)
    if rule.split_slack:
        parts = min(parts, ceil(most / ceil(rule.split_slack * schedule.visited / sms)))
    return max(parts, 1)


class Grid(NamedTuple):
    """The CTAs of a kernel, as groups of rows that are launched copy after copy.

    Attributes
    ----------
    row : int64 array
        Row of the schedule behind each CTA of one copy; `part` of `parts` of its keys.
    first, rows, copies : int64 arrays [groups]
    """

    row: Ints
    part: Ints
    parts: int
    first: Ints
    rows: Ints
    copies: Ints


def grid(profile: KernelProfile, schedule: TileSchedule, parts: int) -> Grid:
    """The CTAs in the kernel's launch order."""
    step = -1 if profile.launch.order == "longest_first" else 1
    rows = [np.repeat(np.arange(g.first_row, g.first_row + g.rows)[::step], parts) for g in schedule.groups]
    lengths = np.array([len(own) for own in rows], np.int64)
    part = np.concatenate([np.tile(np.arange(parts), g.rows) for g in schedule.groups])
    copies = np.array([g.copies for g in schedule.groups], np.int64)
    return Grid(np.concatenate(rows), part, parts, np.cumsum(lengths) - lengths, lengths, copies)


def every_cta(schedule: TileSchedule, plan: MaskPlan, launched: Grid, *, heads_share: int, row_bytes: float) -> tuple[Work, int]:
    """Every CTA with every visit, as the machine takes them, and the number of K and V tiles that exist.

    Parameters
    ----------
    heads_share : int
        Copies of a group, next to each other in launch order, that read the same K and V.
    row_bytes : float
        Bytes of one row of Q.
    """
    found = visits(schedule)
    kind = _pipeline_kinds(found, plan)
    tiles = int(found.tile.max(initial=0)) + 1
    rows, keys, base = [], [], 0
    for first, count, copies in zip(launched.first, launched.rows, launched.copies, strict=True):
        rows.append(np.tile(np.arange(first, first + count), copies))
        keys.append(np.repeat(base + np.arange(copies) // heads_share, count))
        base += ceil(copies / heads_share)
    # One row of the machine for each CTA of a copy: a part of a row's visits.
    begin, count = found.row_first[launched.row], np.diff(found.row_first)[launched.row]
    low, high = (begin + count * (launched.part + edge) // launched.parts for edge in (0, 1))
    own = high - low
    row_first = np.concatenate([[0], np.cumsum(own)])
    index = np.repeat(low - row_first[:-1], own) + np.arange(row_first[-1])
    work = Work(
        row_first,
        found.tile[index],
        kind[index],
        np.round(schedule.row_live[launched.row] * row_bytes).astype(np.int64),
        _key_ends(schedule)[launched.row],
        schedule.kv_tile,
        np.concatenate(rows),
        np.concatenate(keys) * 2 * tiles,
    )
    return work, 2 * tiles * base


def _key_ends(schedule: TileSchedule) -> Ints:
    """End of the keys that exist for each row: the last key that any row of its group reads."""
    runs, ends = schedule.runs, np.zeros(len(schedule.row_live), np.int64)
    for group in schedule.groups:
        own = slice(runs.indptr[group.first_row], runs.indptr[group.first_row + group.rows])
        ends[group.first_row : group.first_row + group.rows] = runs.stop[own].max(initial=0)
    return ends


def _pipeline_kinds(found: Visits, plan: MaskPlan) -> NDArray[np.int8]:
    """Kind of the SM pipeline of every visit, by `Kind` of the schedule: FULL, PARTIAL, GATHER, QK_ONLY, SKIPPED."""
    plain, masked = KINDS.index("plain"), KINDS.index("masked")
    partial = masked if plan.every or plan.axes else plain
    full = masked if plan.every else plain
    table = np.array([full, partial, full, KINDS.index("qk_only"), KINDS.index("skipped")], np.int8)
    return table[found.kind]
