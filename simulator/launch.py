"""Launch: which rows become CTAs, in which order, and which visits of them need a mask."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from math import ceil
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from ..kernels import KINDS, KernelProfile
from ..workloads import AttentionProblem, TileSchedule
from ..workloads.schedule import Kind
from ..workloads.visits import Visits, visits
from .machine import Work
from .split import dealt

Ints = NDArray[np.int64]


class MaskPlan(NamedTuple):
    """Which visits run an element mask, and on how many axes."""

    every: bool
    """All of them; otherwise the PARTIAL ones, unless `axes` is 0."""
    axes: int
    last_visit: bool = False
    """The last visit of each CTA as well, though it be FULL."""


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
    return MaskPlan(policy == "all", axes, profile.mask.last_visit and policy == "partial" and axes > 0)


def kinds_of_rows(schedule: TileSchedule, plan: MaskPlan) -> Ints:
    """Visits of each row by kind of the SM pipeline: int64 array [rows, kinds]."""
    counts = schedule.counts
    if plan.every:
        masked = counts.visited
    elif plan.axes == 0:
        masked = np.zeros_like(counts.visited)
    else:
        masked = counts.visited - counts.full - counts.gather + _ends_whole(schedule, plan)
    gathered = np.zeros_like(masked) if plan.every else counts.gather
    return np.stack([counts.visited - masked - gathered, masked, counts.qk_only, counts.skipped, gathered], axis=1)


def _ends_whole(schedule: TileSchedule, plan: MaskPlan) -> Ints:
    """1 for each row whose last visit is FULL and masked nonetheless, 0 for the others."""
    runs = schedule.runs
    whole = np.zeros(len(schedule.row_live), np.int64)
    if plan.last_visit:
        some = np.diff(runs.indptr) > 0
        last = runs.indptr[1:][some] - 1
        origin = 0 if schedule.aligned else runs.start[last]
        whole[some] = (runs.kind[last] == Kind.FULL) & ((runs.stop[last] - origin) % schedule.kv_tile == 0)
    return whole


class Section(NamedTuple):
    """Copies of a group that are launched side by side, tile by tile; anew after every `span` of them."""

    copies: int
    span: int

    @staticmethod
    def of(profile: KernelProfile, schedule: TileSchedule, problem: AttentionProblem, pack: int) -> Section:
        """The section of a kernel for a call whose tiles hold `pack` query heads each.

        Calls whose rows are all of a length are launched head by head.
        """
        rule, heads = profile.launch, problem.q_heads // pack
        even = schedule.visited == schedule.max_visited * schedule.work_rows
        if not rule.section_mib or even:
            return HEAD_BY_HEAD
        head_bytes = problem.seq_kv * (problem.head_dim + problem.head_dim_v) * problem.element_bytes
        fit = max(int(rule.section_mib * 2**20 // head_bytes), 1)
        # Query heads of one K/V head read the same K and V.
        side_by_side = 2 ** (fit.bit_length() - 1) * max(1, problem.gqa_group // pack)
        return Section(side_by_side, heads if rule.section_within == "item" else heads * problem.batch)


HEAD_BY_HEAD = Section(1, 1)


class Grid(NamedTuple):
    """The CTAs of a kernel, as sections that are launched round after round.

    Attributes
    ----------
    row, low, high : int64 arrays
        Row of the schedule behind each CTA of a section, and which of its visits are this CTA's; of the section's `copy`.
    first, ctas, rounds : int64 arrays [sections]
        First CTA, CTAs of one round, and rounds.
    copies : int64 array [sections]
        Copies of the schedule's group that one round holds.
    group : int64 array [sections]
    """

    row: Ints
    low: Ints
    high: Ints
    copy: Ints
    first: Ints
    ctas: Ints
    rounds: Ints
    copies: Ints
    group: Ints

    def launched(self) -> int:
        """CTAs of all rounds."""
        return int((self.ctas * self.rounds).sum())

    def partial(self, schedule: TileSchedule) -> tuple[int, int, int]:
        """Rows of output that parts of divided owner tiles leave, rows that they belong to, and most parts of one."""
        most = _visits(schedule)[self.row]
        divided = self.high - self.low < most
        rounds = np.repeat(self.rounds, self.ctas)
        live = schedule.row_live[self.row] * rounds
        begins = divided & (self.low == 0)
        parts = -(-most[begins] // np.maximum(self.high - self.low, 1)[begins])
        return int(live[divided & (self.high > self.low)].sum()), int(live[begins].sum()), int(parts.max(initial=0))


def _visits(schedule: TileSchedule) -> Ints:
    """Visits of each row, those of all kinds."""
    counts = schedule.counts
    found: Ints = counts.visited + counts.qk_only + counts.skipped
    return found


def grid(
    profile: KernelProfile, schedule: TileSchedule, parts: Sequence[int], section: Section = HEAD_BY_HEAD, sms: int = 1
) -> Grid:
    """The CTAs in the kernel's launch order.

    Parameters
    ----------
    parts : sequence of int
        Parts of every row of each group, for kernels that divide all rows of a group alike.
    sms : int
        SMs to which kernels that divide otherwise deal the visits.
    """
    # Causal: the last queries see most keys, but the first keys are seen by most queries.
    step = -1 if profile.launch.order == "longest_first" and schedule.major == "q" else 1
    ctas: list[Ints] = []
    launched: list[tuple[int, int, int, int]] = []
    visits_of = _visits(schedule)
    for number, group in enumerate(schedule.groups):
        if profile.split is not None and profile.split.rule == "even":
            share = dealt(profile.split, schedule, number, sms, group.rows)
            ctas.append(np.stack([share.row, share.copy, share.low, share.high]))
            launched.append((len(share.row), 1, group.copies, number))
            continue
        rows = np.arange(group.first_row, group.first_row + group.rows)[::step]
        side_by_side = section
        if profile.launch.order == "by_visits":
            rows = rows[np.argsort(-visits_of[rows], kind="stable")]
            side_by_side = Section(group.copies, group.copies)
        for rounds, copies in _sections(group.copies, side_by_side):
            # Tile by tile, of each tile copy by copy, of each copy part by part.
            row, copy, part = (x.ravel() for x in np.meshgrid(rows, np.arange(copies), np.arange(parts[number]), indexing="ij"))
            length = -(-visits_of[row] // parts[number])
            low, high = (np.minimum((part + edge) * length, visits_of[row]) for edge in (0, 1))
            ctas.append(np.stack([row, copy, low, high]))
            launched.append((row.size, rounds, copies, number))
    row, copy, low, high = np.concatenate(ctas, axis=1)
    size, rounds_of, copies_of, group_of = np.array(launched, np.int64).T
    return Grid(row, low, high, copy, np.cumsum(size) - size, size, rounds_of, copies_of, group_of)


def _sections(copies: int, section: Section) -> Iterator[tuple[int, int]]:
    """(rounds, copies of each) of a group."""
    span = section.span if copies % section.span == 0 else copies
    side_by_side = min(section.copies, span)
    whole, rest = divmod(span, side_by_side)
    if not rest:
        yield whole * (copies // span), side_by_side
        return
    for _ in range(copies // span):
        yield whole, side_by_side
        yield 1, rest


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
    rows, keys = [], []
    # Copies launched so far, of each group; K and V of a group lie behind those of the groups before.
    past = np.zeros(len(schedule.groups), np.int64)
    heads = np.array([ceil(group.copies / heads_share) for group in schedule.groups], np.int64)
    base = np.cumsum(heads) - heads
    for first, ctas, rounds, own, group in zip(*launched[4:], strict=True):
        rows.append(np.tile(np.arange(first, first + ctas), rounds))
        copy = past[group] + np.repeat(np.arange(rounds) * own, ctas) + np.tile(launched.copy[first : first + ctas], rounds)
        keys.append(base[group] + copy // heads_share)
        past[group] += rounds * own
    # One row of the machine for each CTA of a copy: a part of a row's visits.
    count = np.diff(found.row_first)[launched.row]
    low, high = (found.row_first[launched.row] + np.minimum(edge, count) for edge in (launched.low, launched.high))
    own = high - low
    row_first = np.concatenate([[0], np.cumsum(own)])
    index = np.repeat(low - row_first[:-1], own) + np.arange(row_first[-1])
    kind = kind[index]
    if plan.last_visit:
        last = row_first[1:][own > 0] - 1
        kind[last[kind[last] == KINDS.index("plain")]] = KINDS.index("masked")
    work = Work(
        row_first,
        found.tile[index],
        kind,
        np.round(schedule.row_live[launched.row] * row_bytes).astype(np.int64),
        _key_ends(schedule)[launched.row],
        schedule.kv_tile,
        np.concatenate(rows),
        np.concatenate(keys) * 2 * tiles,
    )
    return work, 2 * tiles * int(heads.sum())


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
    gathered = masked if plan.every else KINDS.index("gather")
    table = np.array([full, partial, gathered, KINDS.index("qk_only"), KINDS.index("skipped")], np.int8)
    return table[found.kind]
