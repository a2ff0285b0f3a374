"""Both waterfalls side by side, and why each stage takes what it takes from the speedup."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import NamedTuple

from msgspec import Struct

from ..simulator import STAGES, KernelChoice, Prediction, attention_time, choose_kernel
from ..simulator.baseline import dense_schedule
from ..simulator.launch import kinds_of_rows, mask_plan
from ..simulator.pipeline import sm_pipeline
from ..simulator.split import kv_parts
from ..workloads import Attention, TileSchedule
from .case import Case, closed_form
from .words import ms, percent


class StageCause(Struct, frozen=True, kw_only=True):
    """What one limit does to the speedup.

    Attributes
    ----------
    latency_ms, dense_latency_ms : float
        Of the machine with this limit and all earlier ones.
    speedup : float
        Of that machine.
    factor : float
        Speedup over that of the stage before (of `ideal`: the speedup itself).
    cause : str
        Why, in numbers of this call.
    """

    stage: str
    latency_ms: float
    dense_latency_ms: float
    speedup: float
    factor: float
    cause: str


class Side(NamedTuple):
    """One of the two calls, as far as the causes need it.

    Attributes
    ----------
    stages : dict
        Seconds at each stage.
    loop, needs : float, dict
        Seconds of the kv loop on SMs that are always busy, and of work of each unit, both at the clock it starts with.
    slow : float
        That clock over the mean one.
    """

    ops: list[tuple[KernelChoice, TileSchedule]]
    stages: dict[str, float]
    loop: float
    needs: dict[str, float]
    slow: float

    def total(self, count: Callable[[TileSchedule], float]) -> float:
        return sum(count(schedule) for _, schedule in self.ops)

    def masked_away(self) -> float:
        """Share of the computed pairs (but padding) that a mask drops."""
        return 1 - self.total(lambda s: s.pairs) / max(self.total(TileSchedule.live_area), 1)

    def padded(self) -> float:
        """Share of the computed pairs that are padding."""
        return 1 - self.total(TileSchedule.live_area) / max(self.total(lambda s: s.tile_area), 1)

    def busiest(self) -> str:
        return max((unit for unit in self.needs if unit not in ("l2", "dram")), key=lambda unit: self.needs[unit])

    def masks(self) -> float:
        """Share of the visits that run an element mask."""
        masked = sum(s.total(kinds_of_rows(s, mask_plan(c.profile, s))[:, 1]) for c, s in self.ops)
        return masked / max(self.total(lambda s: s.visited), 1)


def sparse_side(case: Case, p: Prediction) -> Side:
    """The call itself."""
    closed = case.closed()
    attention = [op for op in closed.plan if isinstance(op, Attention)]
    ops = [(closed.choice_of(op.mask_class, op.kernel), op.schedule) for op in attention]
    stages = {stage.stage: stage.latency_ms / 1e3 for stage in p.waterfall}
    slow = p.utilization["tensor"] * p.latency_ms / 1e3 / (closed.busy["tensor"] or 1.0) or 1.0
    return Side(ops, stages, closed.stages["pipeline"], closed.busy, slow)


def dense_side(case: Case, p: Prediction) -> Side:
    """The dense call that it is compared with."""
    asked = case.asked
    choice = choose_kernel(case.spec, asked.problem, asked.pattern.family.without_pattern().mask_class(), kernel=p.dense.kernel)
    schedule = dense_schedule(asked, choice.tiling)
    time = attention_time(choice.spec, choice, schedule, asked.problem, case.setting)
    closed = attention_time(choice.spec, choice, schedule, asked.problem, closed_form(case.setting))
    stages, slow = {**time.stages, "side": time.stages["launch"] + time.merge}, time.busy["tensor"] / closed.busy["tensor"]
    return Side([(choice, schedule)], stages, closed.stages["pipeline"], closed.busy, slow)


def stage_causes(case: Case, p: Prediction, sparse: Side, dense: Side) -> Iterator[StageCause]:
    """What each stage does to the speedup, in the order of the waterfall."""
    before = 1.0
    for stage in STAGES:
        latency, reference = sparse.stages[stage], dense.stages[stage]
        speedup = p.speedup if stage == STAGES[-1] else reference / latency
        yield StageCause(
            stage=stage,
            latency_ms=latency * 1e3,
            dense_latency_ms=reference * 1e3,
            speedup=speedup,
            factor=speedup / before,
            cause=_CAUSES[stage](case, p, sparse, dense),
        )
        before = speedup


def _ideal(case: Case, p: Prediction, sparse: Side, dense: Side) -> str:
    return f"{percent(p.density.pairs)} of the pairs of the dense call are live"


def _tiles(case: Case, p: Prediction, sparse: Side, dense: Side) -> str:
    tiling = sparse.ops[0][0].tiling
    shape = " by ".join("x".join(map(str, side)) for side in (tiling.q, tiling.kv))
    away, reference = sparse.masked_away(), dense.masked_away()
    if away > 0.01 and p.tiles.visited >= p.tiles.dense:
        return f"no tile can be skipped: {percent(away)} of the pairs are masked away, and every tile of {shape} has a live one"
    return f"{percent(away)} of the pairs in tiles of {shape} are masked away (dense: {percent(reference)})"


def _padding(case: Case, p: Prediction, sparse: Side, dense: Side) -> str:
    padded, reference = sparse.padded(), dense.padded()
    if max(padded, reference) < 5e-4:
        return "no rows or keys are padding to speak of"
    return f"{percent(padded)} of the computed pairs are padding (dense: {percent(reference)})"


def _pipeline(case: Case, p: Prediction, sparse: Side, dense: Side) -> str:
    def busy(side: Side) -> tuple[str, str]:
        unit = side.busiest()
        return _UNITS.get(unit, unit), percent(side.needs[unit] / side.loop)

    (unit, share), (reference, its_share) = busy(sparse), busy(dense)
    masks, its_masks = percent(sparse.masks()), percent(dense.masks())
    return f"{unit} busy {share} of the loop, masks on {masks} of tiles (dense: {reference} {its_share}, masks {its_masks})"


_UNITS = {"tensor": "tensor cores", "ex2": "exponentials", "smem": "shared memory", "tmem": "tensor memory"}
"""Units in words; the others as they are."""


def _memory(case: Case, p: Prediction, sparse: Side, dense: Side) -> str:
    l2, dram = sparse.needs["l2"], sparse.needs["dram"]
    if max(l2, dram) <= sparse.loop:
        waits = len(sparse.ops) > 1 and sparse.stages["memory"] > 1.001 * sparse.stages["pipeline"]
        found = f"one of {len(sparse.ops)} kernels waits for it" if waits else "hidden"
        return f"{found}: L2 needs {percent(l2 / sparse.loop)} and DRAM {percent(dram / sparse.loop)} of the time of the loop"
    name, needed = ("L2", l2) if l2 > dram else ("DRAM", dram)
    reference = ", ".join(f"{word} {percent(dense.needs[unit] / dense.loop)}" for word, unit in (("L2", "l2"), ("DRAM", "dram")))
    return f"{name} needs {ms(needed * 1e3)}, {needed / sparse.loop:.2f} times the loop (dense: {reference} of the loop)"


def _schedule(case: Case, p: Prediction, sparse: Side, dense: Side) -> str:
    if case.setting.fidelity == "bound":
        return "not simulated by the closed form"

    def shape(side: Side) -> tuple[str, str]:
        """How many CTAs there are, and how long they are, in visits."""
        choice, schedule = max(side.ops, key=lambda op: op[1].visited)
        spec, problem, profile = choice.spec, case.asked.problem, choice.profile
        pack = choice.tiling.pack
        parts = kv_parts(profile, schedule, spec.chip.sm_count, problem.q_heads // pack, packed=pack > 1)
        ctas = sum(group.rows * group.copies * n for group, n in zip(schedule.groups, parts, strict=True))
        width = (problem.head_dim, problem.head_dim_v, problem.element_bytes)
        slots = spec.chip.sm_count * profile.ctas_per_sm(spec, choice.tile, *width)
        axes = mask_plan(profile, schedule).axes
        steady = sm_pipeline(spec, profile, choice.tile, problem, schedule.q_tile, schedule.kv_tile, axes).steady()
        ends = float(steady.short[-1] / steady.alone[0]) - (len(steady.short) - 1)
        mean, longest = schedule.visited / ctas, schedule.max_visited / max(parts)
        return f"{ctas:,} CTAs in {ctas / slots:.1f} waves", f"{mean:,.1f} visits, at most {longest:,.0f}, plus {ends:.1f}"

    (ctas, visits), (_, reference) = shape(sparse), shape(dense)
    return f"{ctas}; one has {visits} for its start and end (dense: {reference})"


def _clock(case: Case, p: Prediction, sparse: Side, dense: Side) -> str:
    top = case.start_mhz()
    if case.setting.clock != "sustained":
        return f"held at {top:,.0f} MHz"
    return f"from {top:,.0f} to {top / sparse.slow:,.0f} MHz on the mean (dense: to {top / dense.slow:,.0f} MHz)"


def _launch(case: Case, p: Prediction, sparse: Side, dense: Side) -> str:
    each = case.spec.launch.kernel_us
    count = round((sparse.stages["launch"] - sparse.stages["clock"]) / each * 1e6)
    return f"{count} launch{'' if count == 1 else 'es'} of {each:g} us"


def _side(case: Case, p: Prediction, sparse: Side, dense: Side) -> str:
    return ", ".join(f"{op.op} {ms(op.latency_ms)}" for op in p.side) or "no other kernels"


_CAUSES: dict[str, Callable[[Case, Prediction, Side, Side], str]] = {
    "ideal": _ideal,
    "tiles": _tiles,
    "padding": _padding,
    "pipeline": _pipeline,
    "memory": _memory,
    "schedule": _schedule,
    "clock": _clock,
    "launch": _launch,
    "side": _side,
}
