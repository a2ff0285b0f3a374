"""The waterfall: one attention kernel on a ladder of ever less ideal machines.

Each stage is the time of a machine that has every earlier limit and one more, so stage times never fall, the last one is the
prediction, and the difference of two stages is what that limit costs. The ladder is the model itself, not a report about it.
"""

from __future__ import annotations

from collections.abc import Sequence, Set
from math import ceil
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from ..facts import UserError
from ..hwspecs import GpuSpec
from ..kernels import KINDS, UNITS
from ..kernels.profile import SCANNING
from ..workloads import AttentionProblem, TileSchedule, kv_cache_write
from ..workloads.scan import scanned
from .choice import KernelChoice
from .clock import clock_hz
from .device import makespan
from .launch import Grid, MaskPlan, Section, every_cta, grid, kinds_of_rows, mask_plan
from .machine import TICKS, Outcome, run
from .memory import Traffic, dram_seconds, l2_seconds, traffic
from .pipeline import SHORT, SmPipeline, Steady, sm_pipeline
from .setting import Setting
from .split import captured_call, kv_parts, merge_kernel, merge_seconds, search_cycles

STAGES = ("ideal", "tiles", "padding", "pipeline", "memory", "schedule", "clock", "launch", "side")
"""Stages of a prediction, in order; `side` belongs to a whole plan, the others to each of its attention kernels."""

MOST_CTAS = 2**25
"""CTAs that are dispatched in a few seconds."""

PART_VISITS = 2**14
"""Visits that are simulated one by one where the two scales need a correction: some milliseconds."""

MOST_PART_VISITS = 8 * PART_VISITS
"""The same where fewer would say little: a tenth of a second."""

SHARED_WAVES = 16.0
"""Waves of CTAs that share an SM, from which on the correction of a part is within 1 % of that of the whole: how far they are
out of step, and how the last of them end, scatters it by 4 % at five waves."""

STEADY_VISITS = 40
"""Visits of a CTA from which on its start and end are small beside them."""

STEADY_WAVES = 2.0
"""Waves of CTAs from which on their start together weighs little."""

STEADY_L2, STEADY_DRAM = 0.95, 0.12
"""Shares of the SMs' time up to which what L2 and DRAM need is hidden behind it: bursts of DRAM reads are felt early."""

MOST_VISITS = 2**31
"""Visits that are simulated one by one in some twenty minutes."""

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]


class KernelTime(NamedTuple):
    """Time of one attention kernel.

    Attributes
    ----------
    stages : dict
        Seconds at each stage up to `launch`.
    busy : dict
        Seconds that each unit works, on the mean over SMs where it is one of an SM.
    correction : float
        Time of every visit of some heads simulated over that of the two scales, by which `fast` corrected itself; 1 where it
        had no need to.
    merge : float
        Seconds of the kernel behind it that merges the parts of rows whose keys were divided; 0 where there is none.
    moved : dict
        Bytes through L2 and from DRAM.
    """

    stages: dict[str, float]
    busy: dict[str, float]
    correction: float
    merge: float
    moved: dict[str, float]


def attention_time(
    spec: GpuSpec,
    choice: KernelChoice,
    schedule: TileSchedule,
    problem: AttentionProblem,
    setting: Setting,
    *,
    launches: int = 1,
) -> KernelTime:
    """Climb the ladder for one attention kernel.

    Parameters
    ----------
    schedule : TileSchedule
        Its work, over all heads and items.
    setting : Setting
        How it is run, and how closely it is simulated.
    launches : int
        Kernels like this one that follow each other in the same call: the clock falls with the time of all of them.
    """
    if schedule.work_rows > MOST_CTAS:
        raise UserError(f"the call has {schedule.work_rows:,} CTAs; at most {MOST_CTAS:,} are simulated")
    clock, fidelity, off = setting.clock, setting.fidelity, setting.off
    call = _call(spec, choice, schedule, problem, setting)
    sms, hz = spec.chip.sm_count, call.hz
    peak = sms * spec.tensor_flops_per_clk(problem.dtype) * hz
    ladder = _Ladder(off)
    ladder.climb("ideal", problem.flops(schedule.pairs) / peak)
    ladder.climb("tiles", problem.flops(schedule.live_area()) / peak)
    ladder.climb("padding", problem.flops(schedule.tile_area) / peak)
    on_sms = call.on_sms(off)
    ladder.climb("pipeline", on_sms)
    floors = call.floors()
    ladder.climb("memory", max(floors.values()))
    seconds, correction = ladder.now, 1.0
    if fidelity == "bound" or "schedule" in off or not sum(call.visits):
        ladder.climb("schedule", seconds)
    else:
        if fidelity == "cycle":
            seconds = call.every_visit(off)
        else:
            seconds = call.dispatched(off)
            part = call.unsteady_part() if not off else None
            if part is not None:
                correction = part.every_visit(off) / part.dispatched(off)
                seconds *= correction
        if fidelity == "cycle" or correction != 1.0:
            ladder.settle("schedule", seconds)
        else:
            ladder.climb("schedule", seconds)
    # SMs and L2 slow down with the clock, DRAM does not.
    waits = 1.0 if "memory" in off else max(1.0, floors["dram"] / max(on_sms, floors["l2"], 1e-12))
    share = call.unit_cycles("tensor") * _computed_share(schedule, off) / sms / hz / ladder.now if ladder.now else 0.0
    slow = 1.0 if "clock" in off else hz / clock_hz(spec, clock, ladder.now * launches, share, setting.repeats)
    ladder.climb("clock", seconds / waits * slow)
    ladder.climb("launch", ladder.now + spec.launch.kernel_us * 1e-6)
    busy = {unit: call.unit_cycles(unit) / sms / hz * slow for unit in UNITS}
    partial, merged, parts = call.launched.partial(schedule)
    merge = 0.0
    if "side" not in off:
        merging = merge_kernel(choice.profile, problem, partial, merged)
        how = {"replayed": setting.replayed, "captured": call.captured}
        merge = merge_seconds(spec, choice.profile, merging, parts, problem.batch, **how)
    moved = {"l2": call.moved.l2, "dram": call.moved.dram}
    return KernelTime(ladder.stages, busy | floors, correction, merge, moved)


class Recording(NamedTuple):
    """One attention kernel, simulated visit by visit, with its first ops; ticks are those of a clock of `hz`."""

    sm: SmPipeline
    outcome: Outcome
    hz: float


def record(
    spec: GpuSpec,
    choice: KernelChoice,
    schedule: TileSchedule,
    problem: AttentionProblem,
    setting: Setting,
    *,
    ops: int,
    sms: int,
) -> Recording:
    """Simulate one attention kernel as fidelity `cycle` does, and keep the first `ops` ops of the first `sms` SMs.

    Other parameters as in `attention_time`.
    """
    call = _call(spec, choice, schedule, problem, setting)
    return Recording(call.sm, call.machine(setting.off, ops, sms), call.hz)


def _call(spec: GpuSpec, choice: KernelChoice, schedule: TileSchedule, problem: AttentionProblem, setting: Setting) -> _Call:
    hz = spec.clock_hz("burst" if setting.clock == "sustained" else setting.clock)
    warm = None
    if setting.warm:
        warm = float(kv_cache_write(problem).bytes) if setting.writes_cache else 0.0
    if choice.profile.skip in SCANNING:
        schedule = scanned(schedule)
    axes = mask_plan(choice.profile, schedule).axes
    tile_shape = (schedule.q_tile, schedule.kv_tile)
    sm = sm_pipeline(spec, choice.profile, choice.tile, problem, *tile_shape, axes, schedule.segment, schedule.stored)
    return _Call.of(sm, choice, schedule, problem, warm, hz, captured_call(choice.profile, problem, setting.replayed))


class _Ladder:
    """Stage times that never fall, with some stages left out."""

    def __init__(self, off: Set[str]) -> None:
        self.off = off
        self.stages: dict[str, float] = {}
        self.now = 0.0

    def climb(self, stage: str, seconds: float) -> None:
        """Add a stage: the machine so far, and a limit that alone takes `seconds`."""
        if stage not in self.off:
            self.now = max(self.now, seconds)
        self.stages[stage] = self.now

    def settle(self, stage: str, seconds: float) -> None:
        """Add a stage whose time is known exactly: those before it were approximations of it, and cannot be above it."""
        self.now = seconds
        self.stages = {name: min(before, seconds) for name, before in self.stages.items()} | {stage: seconds}


class _Call(NamedTuple):
    """One kernel on one GPU: what both fidelities start from."""

    sm: SmPipeline
    choice: KernelChoice
    schedule: TileSchedule
    problem: AttentionProblem
    kinds: Ints
    """Visits of each row, by kind."""
    visits: list[int]
    """Visits of all heads and items, by kind."""
    launched: Grid
    masked: MaskPlan
    moved: Traffic
    heads_share: int
    warm: float | None
    """Bytes touched between this run of the call and the one before; None where there was none."""
    hz: float
    captured: bool
    """As `split.captured_call` has it."""
    search: float
    """Cycles in which a CTA finds out which item of the batch its tile belongs to."""

    @staticmethod
    def of(
        sm: SmPipeline,
        choice: KernelChoice,
        schedule: TileSchedule,
        problem: AttentionProblem,
        warm: float | None,
        hz: float,
        captured: bool,
    ) -> _Call:
        spec, profile = sm.spec, sm.profile
        heads_share = max(1, problem.gqa_group // choice.tiling.pack)
        moved = traffic(
            spec,
            schedule,
            row_bytes=sm.row_bytes,
            token_bytes=profile.token_bytes(problem) * schedule.stored,
            visit_bytes=[sm.program.load_bytes(kind) for kind in ("plain", "qk_only")],
            look_bytes=schedule.q_tile * schedule.kv_tile * profile.look.mask_bytes,
            resident=spec.chip.sm_count * sm.ctas,
            heads_share=heads_share,
            multicast=choice.tile.multicast,
            warm=warm,
        )
        masked = mask_plan(profile, schedule)
        section = Section.of(profile, schedule, problem, choice.tiling.pack)
        sms = spec.chip.sm_count
        pack = choice.tiling.pack
        parts = kv_parts(profile, schedule, sms, problem.q_heads // pack, packed=pack > 1, captured=captured)
        launched = grid(profile, schedule, parts, section, sms)
        kinds = kinds_of_rows(schedule, masked)
        visits = [schedule.total(kinds[:, kind]) for kind in range(len(KINDS))]
        search = search_cycles(spec, profile, problem.batch, launched.launched())
        return _Call(
            sm, choice, schedule, problem, kinds, visits, launched, masked, moved, heads_share, warm, hz, captured, search
        )

    def _with(self, schedule: TileSchedule) -> _Call:
        """The same kernel on part of its work, with the search of the whole call."""
        other = _Call.of(self.sm, self.choice, schedule, self.problem, self.warm, self.hz, self.captured)
        return other._replace(search=self.search)

    def floors(self) -> dict[str, float]:
        """Least seconds that L2 and DRAM need."""
        spec = self.sm.spec
        return {"l2": l2_seconds(spec, self.moved.l2, self.hz), "dram": dram_seconds(spec, self.moved.dram)}

    def unsteady_part(self) -> _Call | None:
        """The call with fewer heads, where start and end of CTAs or waiting for memory weigh so much that every visit counts.

        None where they do not, or where even one head has too many visits.
        """
        ctas, visits = self.launched.launched(), sum(self.visits)
        floors, busy = self.floors(), self.on_sms(frozenset())
        waiting = floors["l2"] > STEADY_L2 * busy or floors["dram"] > STEADY_DRAM * busy
        waves = ctas / (self.sm.spec.chip.sm_count * self.sm.ctas)
        # CTAs that share an SM speed each other up and down in ways that one speed for all does not describe.
        alone = self.sm.ctas == 1
        if alone and visits >= STEADY_VISITS * ctas and waves >= STEADY_WAVES and not waiting:
            return None
        # Where DRAM is all that counts, a part of a few waves says little about the whole.
        few = floors["dram"] > busy and visits <= MOST_PART_VISITS
        part = 1.0 if few else min(1.0, PART_VISITS / visits)
        if not alone:
            part = min(1.0, max(part, SHARED_WAVES / waves))
        call = self._of_heads([ceil(g.copies * part / self.heads_share) * self.heads_share for g in self.schedule.groups])
        if sum(call.visits) > MOST_PART_VISITS and not alone:
            # Where CTAs do not wait for memory, some of the heads that share keys say as much as all of them.
            together = self.heads_share if waiting else 1
            part = MOST_PART_VISITS / visits
            call = self._of_heads([max(int(g.copies * part) // together, 1) * together for g in self.schedule.groups])
        return call if sum(call.visits) <= MOST_PART_VISITS else None

    def _of_heads(self, copies: Sequence[int]) -> _Call:
        """The same kernel on so many heads of each group: one at least, and all at most."""
        kept = [min(max(n, 1), g.copies) for g, n in zip(self.schedule.groups, copies, strict=True)]
        fewer = self.schedule.with_copies_of_each(kept)
        return self if fewer.groups == self.schedule.groups else self._with(fewer)

    def unit_cycles(self, unit: str) -> float:
        """Cycles of work of a unit, over all SMs."""
        return sum(n * self.sm.units(kind)[unit] for n, kind in zip(self.visits, KINDS, strict=True))

    def on_sms(self, off: Set[str]) -> float:
        """Seconds of all visits on SMs that are always busy."""
        tensor_only = "pipeline" in off
        cycles = self.unit_cycles("tensor") if tensor_only else float(np.dot(self.visits, self.sm.steady().together))
        return cycles * _computed_share(self.schedule, off) / self.sm.spec.chip.sm_count / self.hz

    def dispatched(self, off: Set[str]) -> float:
        """Seconds until the last CTA is done, on the two scales."""
        steady, launched = self.sm.steady(), self.launched
        alone, speed = steady.alone, float(steady.alone[0] / steady.together[0])
        if "pipeline" in off:
            alone, speed = np.array([self.sm.units(kind)["tensor"] for kind in KINDS]), 1.0
        # On a machine that waits for memory every visit takes longer, so its waves and tails do too.
        stretch = 1.0 if "memory" in off else max(1.0, max(self.floors().values()) / self.on_sms(off))
        share = (launched.high - launched.low) / np.maximum(self.kinds.sum(axis=1), 1)[launched.row]
        own = self.kinds[launched.row] * share[:, None]
        loop = own @ alone
        fixed = _row_cycles(steady, own) - own @ steady.alone
        costs = fixed + self.search + loop * _computed_share(self.schedule, off) * stretch
        slots, sms = self.sm.ctas if speed > 1 else 1, self.sm.spec.chip.sm_count
        return (steady.first + makespan(costs, launched.first, launched.ctas, launched.rounds, sms, slots, speed)) / self.hz

    def every_visit(self, off: Set[str]) -> float:
        """Seconds of the kernel with every visit simulated on every SM."""
        return self.machine(off).end / TICKS / self.hz

    def machine(self, off: Set[str], record: int = 0, record_sms: int = 1) -> Outcome:
        """The kernel with every visit simulated on every SM, and its first `record` ops on the first `record_sms` of them."""
        known = sorted(off & {"tiles", "padding", "pipeline"})
        if known:
            raise UserError(f"fidelity cycle cannot leave out {', '.join(known)}; fast can")
        sm, spec, timing = self.sm, self.sm.spec, self.sm.profile.timing
        if sum(self.visits) > MOST_VISITS:
            raise UserError(f"the call has {sum(self.visits):,} visits; fidelity cycle simulates at most {MOST_VISITS:,}")
        work, tiles = every_cta(self.schedule, self.masked, self.launched, heads_share=self.heads_share, row_bytes=sm.row_bytes)
        memory = sm.memory(
            l2_bytes_per_clk=0.0 if "memory" in off else spec.mem.l2.bytes_per_clk * spec.eff.l2,
            dram_bytes_per_clk=0.0 if "memory" in off else spec.dram_bytes_per_s() / self.hz,
            clock_hz=self.hz,
            capacity_bytes=spec.mem.l2.mib * 2**20,
            streams=self.moved.missing > 0.5,
        )
        return run(
            sm.code,
            work,
            memory,
            sms=spec.chip.sm_count,
            slots=sm.ctas,
            prologue=timing.prologue_cycles + self.search,
            persistent=sm.profile.launch.persistent,
            tiles=tiles,
            warm=min(int(tiles * (1 - self.moved.missing)), memory.capacity),
            record=record,
            record_sms=record_sms,
        )


def _computed_share(schedule: TileSchedule, off: Set[str]) -> float:
    """Share of the visited tile area that is computed on a machine without some of the limits."""
    area = max(schedule.tile_area, 1)
    share = schedule.live_area() / area if "padding" in off else 1.0
    return share * (schedule.pairs / max(schedule.live_area(), 1) if "tiles" in off else 1.0)


def _row_cycles(steady: Steady, kinds: Floats) -> Floats:
    """Cycles of CTAs alone on an SM, with so many visits of each kind."""
    total = kinds.sum(axis=1)
    plain = np.interp(total, np.arange(SHORT + 1), steady.short) + np.maximum(total - SHORT, 0) * steady.alone[0]
    cycles: Floats = plain + kinds @ (steady.alone - steady.alone[0])
    return cycles
