"""explain: why a sparse call is only so much faster than the dense one, and whether a measured time is a limit or a bug.

The waterfalls of the two calls stand side by side. At each stage the speedup is that of two machines with the same limits, so the
factor from one stage to the next is what that limit takes from the speedup, or gives to it; all factors multiply to the speedup.
"""

from __future__ import annotations

import inspect
import re
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from dataclasses import replace
from math import log, prod
from typing import Any, NamedTuple, cast

import msgspec
from msgspec import Struct

from .facts import Document, UserError, convert, merge, unknown_name
from .facts.shelf import layer
from .hwspecs import Clock, GpuSpec, gpus
from .kernels import KernelProfile, candidates, kernels
from .simulator import (
    STAGES,
    Fidelity,
    KernelChoice,
    Prediction,
    Question,
    Run,
    Setting,
    attention_time,
    choose_kernel,
    question,
    simulate,
)
from .simulator import predict as run_prediction
from .simulator.baseline import dense_schedule, fastest_dense
from .simulator.launch import kinds_of_rows, kv_parts, mask_plan
from .simulator.pipeline import sm_pipeline
from .simulator.prediction import Stage
from .workloads import Attention, AttentionProblem, TileSchedule, Tiling, TokenLayout
from .workloads.families import Ragged

SCHEMA = "simattn.explain/1"

CLOSE = 0.1
"""Relative distance from which on two times are called different."""

WORTH = 1.03
"""Gain from which on a change is worth a word."""

LITTLE = 1.1
"""Loss of speedup, as a factor, up to which it is called little."""

HOST_MS = (0.06, 0.16)
"""Time of a call that is too small to keep the GPU busy, in ms: FlashAttention-2 and FlexAttention on 64 tokens
(meta-pytorch/attention-gym issue 172)."""


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


class WhatIf(Struct, frozen=True, kw_only=True):
    """The same call with something changed; `change` is latency over that of the unchanged call."""

    name: str
    latency_ms: float
    dense_latency_ms: float
    speedup: float
    change: float


class Circumstance(Struct, frozen=True, kw_only=True):
    """A mistake or circumstance that may be behind a measured time, and the time it would take."""

    name: str
    words: str
    latency_ms: float
    latency_ms_high: float
    """Where it is a range; otherwise as `latency_ms`."""
    fits: bool
    """Within 10 % of the measured time."""


class Measured(Struct, frozen=True, kw_only=True):
    """A measured time, judged.

    Attributes
    ----------
    judgement : str
        `as_predicted`, `impossible`, `faster`, `explained` (slower, and a circumstance fits) or `likely_a_bug`.
    ratio : float
        Measured over predicted.
    """

    latency_ms: float
    ratio: float
    judgement: str
    words: str
    circumstances: tuple[Circumstance, ...]


class Explanation(Struct, frozen=True, kw_only=True):
    """The answer of `explain`; `to_dict` is the JSON of the command line."""

    prediction: Prediction
    dense_waterfall: tuple[Stage, ...]
    stages: tuple[StageCause, ...]
    verdict: str
    measured: Measured | None
    what_if: tuple[WhatIf, ...]

    def to_dict(self) -> dict[str, Any]:
        """Plain values; `measured` only where a time was given."""
        plain = cast(dict[str, Any], msgspec.to_builtins(self))
        answer = {"schema": SCHEMA, **plain, "prediction": self.prediction.to_dict()}
        return {name: value for name, value in answer.items() if name != "measured" or value is not None}

    def to_json(self) -> str:
        """The same as one line of JSON."""
        return msgspec.json.encode(self.to_dict()).decode()


def explain(
    pattern: str = "radial",
    hw: str | GpuSpec = "b200",
    *,
    measured_ms: float | None = None,
    what_if: Sequence[str] = (),
    kernel: str | KernelProfile | None = None,
    baseline: str | None = None,
    q_tile: int | tuple[int, ...] | None = None,
    kv_tile: int | tuple[int, ...] | None = None,
    fidelity: Fidelity = "fast",
    clock: Clock = "sustained",
    warm: bool = False,
    seed: int = 0,
    params: Document | None = None,
    **problem: Any,
) -> Explanation:
    """Say where the speedup of a pattern goes, judge a measured time, and answer what-ifs.

    Parameters
    ----------
    measured_ms : float, optional
        A run that someone timed, in ms.
    what_if : sequence of str
        Changes such as `mask=none` or `q-tile=128,order=longest_first` (`LEVERS`).
    pattern, hw, kernel, baseline, q_tile, kv_tile, fidelity, clock, warm, seed, params, **problem
        As of `predict`.

    Raises
    ------
    UserError
        A name or value is not usable; one line.

    Examples
    --------
    >>> why = explain("sliding_window", "h100", window=128, seq_q=16384, what_if=["sms=2x"])
    >>> [stage.stage for stage in why.stages][:3], round(why.stages[0].speedup, 2)
    (['ideal', 'tiles', 'padding'], 64.25)
    >>> why.what_if[0].latency_ms < why.prediction.latency_ms
    True
    """
    if measured_ms is not None and not 0 < measured_ms < float("inf"):
        raise UserError(f"the measured time must be above zero, got {measured_ms:g} ms")
    spec = gpus.load(hw) if isinstance(hw, str) else hw
    shapes = {name: value for name, value in problem.items() if name in inspect.signature(question).parameters}
    own = {**(params or {}), **{name: value for name, value in problem.items() if name not in shapes}}
    p = run_prediction(
        pattern,
        spec,
        kernel=kernel,
        baseline=baseline,
        q_tile=q_tile,
        kv_tile=kv_tile,
        fidelity=fidelity,
        clock=clock,
        warm=warm,
        seed=seed,
        params=own,
        **shapes,
    )
    profile = kernel if isinstance(kernel, KernelProfile) else kernels.load(kernel or p.kernel)
    case = Case(
        question(pattern, params=own, **shapes), spec, profile, q_tile, kv_tile, Setting(clock, fidelity, warm=warm), baseline
    )
    changed = [(text, case.changed(text)) for text in what_if]
    sparse, dense = _sparse_side(case, p), _dense_side(case, p)
    stages = tuple(_stages(case, p, sparse, dense))
    # Circumstances and advice are many simulations: none of them visit by visit.
    quick = case._replace(setting=case.setting._replace(fidelity="fast")) if fidelity == "cycle" else case
    return Explanation(
        prediction=p,
        dense_waterfall=tuple(Stage(stage=s.stage, latency_ms=s.dense_latency_ms) for s in stages),
        stages=stages,
        verdict=_verdict(quick, p, stages, sparse),
        measured=None if measured_ms is None else _judge(quick, p, measured_ms, sparse),
        what_if=tuple(_what_if(text, other, case, p) for text, other in changed),
    )


class Case(NamedTuple):
    """A call, with everything that can be changed about it."""

    asked: Question
    spec: GpuSpec
    kernel: KernelProfile
    q_tile: int | tuple[int, ...] | None
    kv_tile: int | tuple[int, ...] | None
    setting: Setting
    baseline: str | None

    def run(self) -> Run:
        """Simulate it."""
        return simulate(self.asked, self.spec, kernel=self.kernel, q_tile=self.q_tile, kv_tile=self.kv_tile, setting=self.setting)

    def closed(self) -> Run:
        """The same in closed form, at the clock that the call starts with."""
        return self._replace(setting=_start(self.setting)).run()

    def on(self, problem: AttentionProblem) -> Case:
        """On another problem over the same tokens."""
        return self._replace(asked=self.asked._replace(problem=problem))

    def latency_ms(self) -> float:
        """Its time."""
        return self.run().stages["side"] * 1e3

    def with_gpu(self, changes: Document) -> Case:
        """On a GPU with other values."""
        document = layer(msgspec.to_builtins(self.spec), changes)
        return self._replace(spec=convert(document, GpuSpec, f"GPU {self.spec.name}"))

    def with_kernel(self, changes: Document) -> Case:
        """By a kernel with other values; those of `tiles` go into each of its tiles."""
        return self._replace(kernel=changed_kernel(self.kernel.name, msgspec.to_builtins(self.kernel), changes))

    def start_mhz(self) -> float:
        """The clock that the call starts with."""
        return self.spec.clock_hz("boost" if self.setting.clock == "boost" else "burst") / 1e6

    def at_clock(self, mhz: float) -> Case:
        """With one clock throughout."""
        return self.with_gpu({"chip": {f"clock_{name}_mhz": mhz for name in ("boost", "max", "sustained")}})

    def changed(self, text: str) -> Case:
        """With one or more levers pulled: `mask=none`, or `mask=none,q-tile=128`."""
        case = self
        for part in text.split(","):
            name, equals, value = part.partition("=")
            if not equals or not value:
                raise UserError(f"a what-if is NAME=VALUE, got {part!r}; names: {', '.join(LEVERS)}")
            if name not in LEVERS:
                raise unknown_name("what-if", name, LEVERS)
            case = LEVERS[name](case, value)
        return case


def changed_kernel(name: str, document: Document, changes: Document) -> KernelProfile:
    """A kernel profile with other values; those of the table `tiles` go into each of its tiles.

    >>> changed_kernel("fa4", kernels.document("fa4"), {"tiles": {"stages": 3}}).tiles[0].stages
    3
    """
    if isinstance(changes.get("tiles"), dict):
        changes = {**changes, "tiles": [merge(tile, changes["tiles"]) for tile in document["tiles"]]}
    return convert(layer(document, changes), KernelProfile, f"kernel {name}")


# -- what if -----------------------------------------------------------------------------------------------------------


def _one_of(name: str, value: str, allowed: Sequence[str]) -> str:
    if value not in allowed:
        raise unknown_name(name, value, allowed)
    return value


def _mask(case: Case, value: str) -> Case:
    _one_of("mask policy", value, ("none", "partial", "all"))
    free = {"alu": [0.0]} if value == "none" else {}
    return case.with_kernel({"mask": {"policy": "all" if value == "all" else "partial", **free}})


def _tile(name: str, value: str) -> tuple[int, ...]:
    if not re.fullmatch(r"\d+(x\d+){0,2}", value):
        raise UserError(f"{name} takes one to three whole numbers such as 128 or 8x4x8, got {value!r}")
    return tuple(int(part) for part in value.split("x"))


def _whole(name: str, value: str) -> int:
    if not re.fullmatch(r"\d+", value):
        raise UserError(f"{name} takes a whole number, got {value!r}")
    return int(value)


def _scaled(name: str, value: str, now: float) -> float:
    if not re.fullmatch(r"\d+(\.\d+)?x", value):
        raise UserError(f"{name} takes a factor such as 2x, got {value!r}")
    return now * float(value[:-1])


def _sms(case: Case, value: str) -> Case:
    now = case.spec.chip.sm_count
    count = round(_scaled("sms", value, now)) if value.endswith("x") else _whole("sms", value)
    return case.with_gpu({"chip": {"sm_count": count}})


def _exp(case: Case, value: str) -> Case:
    return case.with_gpu({"units": {"ex2": _scaled("exp", value, case.spec.units.ex2)}})


def _bandwidth(case: Case, value: str) -> Case:
    return case.with_gpu({"mem": {"dram": {"gbps": _scaled("bandwidth", value, case.spec.mem.dram.gbps)}}})


def _l2(case: Case, value: str) -> Case:
    return case.with_gpu({"mem": {"l2": {"bytes_per_clk": _scaled("l2", value, case.spec.mem.l2.bytes_per_clk)}}})


def _clock(case: Case, value: str) -> Case:
    clock = cast(Clock, _one_of("clock", value, ("sustained", "burst", "boost")))
    return case._replace(setting=case.setting._replace(clock=clock))


def _order(case: Case, value: str) -> Case:
    return case.with_kernel({"launch": {"order": _one_of("order", value, ("ascending", "longest_first"))}})


def _buffers(case: Case, value: str) -> Case:
    return case.with_kernel({"tiles": {"stages": _whole("buffers", value)}})


LEVERS: dict[str, Callable[[Case, str], Case]] = {
    "mask": _mask,
    "q-tile": lambda case, value: case._replace(q_tile=_tile("q-tile", value)),
    "kv-tile": lambda case, value: case._replace(kv_tile=_tile("kv-tile", value)),
    "buffers": _buffers,
    "order": _order,
    "exp": _exp,
    "bandwidth": _bandwidth,
    "l2": _l2,
    "sms": _sms,
    "clock": _clock,
}
"""What a what-if may change; `simattn explain --help` lists the values."""


def _what_if(text: str, other: Case, case: Case, p: Prediction) -> WhatIf:
    latency, dense = other.latency_ms(), p.dense.latency_ms
    if (other.spec, other.setting) != (case.spec, case.setting):
        dense = fastest_dense(other.asked, other.spec, other.setting, only=other.baseline).seconds * 1e3
    return WhatIf(name=text, latency_ms=latency, dense_latency_ms=dense, speedup=dense / latency, change=latency / p.latency_ms)


# -- stages ------------------------------------------------------------------------------------------------------------


class _Side(NamedTuple):
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


def _start(setting: Setting) -> Setting:
    """Closed form, at the clock that the call starts with."""
    return setting._replace(clock="boost" if setting.clock == "boost" else "burst", fidelity="bound")


def _sparse_side(case: Case, p: Prediction) -> _Side:
    closed = case.closed()
    main = case.asked.pattern.family.mask_class()
    attention = [op for op in closed.plan if isinstance(op, Attention)]
    ops = [(closed.choice if op.mask_class == main else closed.helper, op.schedule) for op in attention]
    stages = {stage.stage: stage.latency_ms / 1e3 for stage in p.waterfall}
    slow = p.utilization["tensor"] * p.latency_ms / 1e3 / (closed.busy["tensor"] or 1.0) or 1.0
    return _Side(ops, stages, closed.stages["pipeline"], closed.busy, slow)


def _dense_side(case: Case, p: Prediction) -> _Side:
    asked = case.asked
    choice = choose_kernel(case.spec, asked.problem, asked.pattern.family.without_pattern().mask_class(), kernel=p.dense.kernel)
    schedule = dense_schedule(asked, choice.tiling)
    time = attention_time(choice.spec, choice, schedule, asked.problem, case.setting)
    closed = attention_time(choice.spec, choice, schedule, asked.problem, _start(case.setting))
    stages, slow = {**time.stages, "side": time.stages["launch"]}, time.busy["tensor"] / closed.busy["tensor"]
    return _Side([(choice, schedule)], stages, closed.stages["pipeline"], closed.busy, slow)


def _stages(case: Case, p: Prediction, sparse: _Side, dense: _Side) -> Iterator[StageCause]:
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


def _ideal(case: Case, p: Prediction, sparse: _Side, dense: _Side) -> str:
    return f"{_percent(p.density.pairs)} of the pairs of the dense call are live"


def _tiles(case: Case, p: Prediction, sparse: _Side, dense: _Side) -> str:
    tiling = sparse.ops[0][0].tiling
    shape = " by ".join("x".join(map(str, side)) for side in (tiling.q, tiling.kv))
    away, reference = sparse.masked_away(), dense.masked_away()
    return f"{_percent(away)} of the pairs in tiles of {shape} are masked away (dense: {_percent(reference)})"


def _padding(case: Case, p: Prediction, sparse: _Side, dense: _Side) -> str:
    padded, reference = sparse.padded(), dense.padded()
    if max(padded, reference) < 5e-4:
        return "no rows or keys are padding to speak of"
    return f"{_percent(padded)} of the computed pairs are padding (dense: {_percent(reference)})"


def _pipeline(case: Case, p: Prediction, sparse: _Side, dense: _Side) -> str:
    def busy(side: _Side) -> tuple[str, str]:
        unit = side.busiest()
        return _UNITS.get(unit, unit), _percent(side.needs[unit] / side.loop)

    (unit, share), (reference, its_share) = busy(sparse), busy(dense)
    masks, its_masks = _percent(sparse.masks()), _percent(dense.masks())
    return f"{unit} busy {share} of the loop, masks on {masks} of tiles (dense: {reference} {its_share}, masks {its_masks})"


_UNITS = {"tensor": "tensor cores", "ex2": "exponentials", "smem": "shared memory", "tmem": "tensor memory"}
"""Units in words; the others as they are."""


def _memory(case: Case, p: Prediction, sparse: _Side, dense: _Side) -> str:
    l2, dram = sparse.needs["l2"], sparse.needs["dram"]
    if max(l2, dram) <= sparse.loop:
        waits = len(sparse.ops) > 1 and sparse.stages["memory"] > 1.001 * sparse.stages["pipeline"]
        found = f"one of {len(sparse.ops)} kernels waits for it" if waits else "hidden"
        return f"{found}: L2 needs {_percent(l2 / sparse.loop)} and DRAM {_percent(dram / sparse.loop)} of the time of the loop"
    name, needed = ("L2", l2) if l2 > dram else ("DRAM", dram)
    reference = ", ".join(f"{word} {_percent(dense.needs[unit] / dense.loop)}" for word, unit in (("L2", "l2"), ("DRAM", "dram")))
    return f"{name} needs {_ms(needed * 1e3)}, {needed / sparse.loop:.2f} times the loop (dense: {reference} of the loop)"


def _schedule(case: Case, p: Prediction, sparse: _Side, dense: _Side) -> str:
    if case.setting.fidelity == "bound":
        return "not simulated by the closed form"

    def shape(side: _Side) -> tuple[str, str]:
        """How many CTAs there are, and how long they are, in visits."""
        choice, schedule = max(side.ops, key=lambda op: op[1].visited)
        spec, problem, profile = choice.spec, case.asked.problem, choice.profile
        parts = kv_parts(profile, schedule, spec.chip.sm_count)
        ctas = schedule.work_rows * parts
        width = (problem.head_dim, problem.head_dim_v, problem.element_bytes)
        slots = spec.chip.sm_count * profile.ctas_per_sm(spec, choice.tile, *width)
        axes = mask_plan(profile, schedule).axes
        steady = sm_pipeline(spec, profile, choice.tile, problem, schedule.q_tile, schedule.kv_tile, axes).steady()
        ends = float(steady.short[-1] / steady.alone[0]) - (len(steady.short) - 1)
        mean, longest = schedule.visited / ctas, schedule.max_visited / parts
        return f"{ctas:,} CTAs in {ctas / slots:.1f} waves", f"{mean:,.1f} visits, at most {longest:,.0f}, plus {ends:.1f}"

    (ctas, visits), (_, reference) = shape(sparse), shape(dense)
    return f"{ctas}; one has {visits} for its start and end (dense: {reference})"


def _clock_cause(case: Case, p: Prediction, sparse: _Side, dense: _Side) -> str:
    top = case.start_mhz()
    if case.setting.clock != "sustained":
        return f"held at {top:,.0f} MHz"
    return f"from {top:,.0f} to {top / sparse.slow:,.0f} MHz on the mean (dense: to {top / dense.slow:,.0f} MHz)"


def _launch(case: Case, p: Prediction, sparse: _Side, dense: _Side) -> str:
    each = case.spec.launch.kernel_us
    count = round((sparse.stages["launch"] - sparse.stages["clock"]) / each * 1e6)
    return f"{count} launch{'' if count == 1 else 'es'} of {each:g} us"


def _side(case: Case, p: Prediction, sparse: _Side, dense: _Side) -> str:
    return ", ".join(f"{op.op} {_ms(op.latency_ms)}" for op in p.side) or "no other kernels"


_CAUSES: dict[str, Callable[[Case, Prediction, _Side, _Side], str]] = {
    "ideal": _ideal,
    "tiles": _tiles,
    "padding": _padding,
    "pipeline": _pipeline,
    "memory": _memory,
    "schedule": _schedule,
    "clock": _clock_cause,
    "launch": _launch,
    "side": _side,
}


# -- verdict -----------------------------------------------------------------------------------------------------------


def _verdict(case: Case, p: Prediction, stages: Sequence[StageCause], sparse: _Side) -> str:
    promised = stages[0].speedup
    if p.density.pairs > 1 - 1e-3 and p.speedup > 1 / LITTLE:
        return f"Every pair of the dense call is live, so there is nothing to gain: {p.speedup:.2f} x."
    if p.speedup >= promised / LITTLE:
        lost = "Little" if p.speedup < promised / WORTH else "Nothing"
        return f"{lost} is lost: live FLOPs promise {promised:.2f} x, and {p.speedup:.2f} x is predicted."
    worst = min(stages[1:], key=lambda s: s.factor)
    share = log(worst.factor) / sum(log(s.factor) for s in stages[1:] if s.factor < 1)
    return (
        f"A limit: live FLOPs promise {promised:.2f} x, and {p.speedup:.2f} x is what this kernel on this GPU can make of it. "
        f"{'Most' if share > 0.5 else 'The largest part'} of the loss is at {worst.stage} (x {worst.factor:.2f}): "
        f"{re.sub(r' [(]dense: [^)]*[)]', '', worst.cause)}. {_advice(case, p, worst, sparse)}"
    )


def _advice(case: Case, p: Prediction, worst: StageCause, sparse: _Side) -> str:
    """What would help, by simulation: without the worst stage, or the best of some changes and other kernels."""
    if worst.stage == "side":
        return f"Without that it would be {p.dense.latency_ms / p.waterfall[-2].latency_ms:.2f} x."
    if worst.stage == "launch":
        return f"Without them it would be {p.dense.latency_ms / p.waterfall[-3].latency_ms:.2f} x: larger batches spread them."
    asked, problem = case.asked, case.asked.problem
    width = max(problem.head_dim, problem.head_dim_v)
    times: dict[str, float] = {}
    for text in _remedies(sparse):
        with suppress(UserError):  # no such kernel fits on the GPU
            times[f"a kernel with {text}"] = case.changed(text).latency_ms()
    for other in candidates(case.spec, asked.pattern.family.mask_class(), problem.dtype, width):
        if other.name != p.kernel:
            with suppress(UserError):
                times[f"kernel {other.name}"] = case._replace(kernel=other, q_tile=None, kv_tile=None).latency_ms()
    words, best = min(times.items(), key=lambda item: item[1], default=("", p.latency_ms))
    if p.latency_ms / best < WORTH:
        tried = "; ".join(text.removeprefix("a kernel with ") for text in times)
        return f"By simulation none of these helps: {tried}." if tried else "No other kernel is known for it."
    words = f"By simulation {words} would bring {p.dense.latency_ms / best:.2f} x"
    if "mask=" in words and case.kernel.mask.policy == "unless_mask_free":
        return f"{words}; this one runs no masks where window, stride and grid are multiples of its tiles."
    return f"{words}."


def _remedies(sparse: _Side) -> list[str]:
    """Changes of a kernel that may be worth writing it."""
    choice = sparse.ops[0][0]
    q, kv = choice.tiling.q, choice.tiling.kv
    q_half, kv_half = f"q-tile={_scaled_tile(q, 0.5)}", f"kv-tile={_scaled_tile(kv, 0.5)}"
    other_order = "ascending" if choice.profile.launch.order == "longest_first" else "longest_first"
    return [
        *{"unless_mask_free": ["mask=none", "mask=partial"], "all": ["mask=partial"]}.get(choice.profile.mask.policy, []),
        q_half,
        kv_half,
        f"{q_half},{kv_half}",
        f"q-tile={_scaled_tile(q, 2)}",
        f"order={other_order}",
        f"buffers={choice.tile.stages + 1}",
    ]


def _scaled_tile(tile: tuple[int, ...], factor: float) -> str:
    """A tile with its longest (first of the longest) axis scaled."""
    axis = tile.index(max(tile))
    return "x".join(str(max(round(n * factor), 1) if i == axis else n) for i, n in enumerate(tile))


# -- measured ----------------------------------------------------------------------------------------------------------


def _judge(case: Case, p: Prediction, measured: float, sparse: _Side) -> Measured:
    ratio, low, high = measured / p.latency_ms, p.latency_ms_low, p.latency_ms_high
    ideal = p.waterfall[0].latency_ms * case.start_mhz() * 1e6 / case.spec.clock_hz("burst")
    band = f"the band of {_ms(low)} to {_ms(high)}"
    if measured < ideal:
        words = (
            f"Impossible: the live pairs alone take {_ms(ideal)} at the peak of the tensor cores. Check what was timed: "
            "whether the GPU was waited for, the shape, the heads, and that the mask keeps what you think."
        )
        return Measured(latency_ms=measured, ratio=ratio, judgement="impossible", words=words, circumstances=())
    found: tuple[Circumstance, ...] = ()
    if abs(ratio - 1) > CLOSE:
        found = tuple(sorted(_circumstances(case, p, measured, sparse), key=lambda c: c.latency_ms))
    nearest = sorted((c for c in found if c.fits), key=lambda c: abs(log(measured / c.latency_ms)))
    fitting = "; or ".join(f"{c.words} ({_span(c)})" for c in nearest[:3])
    largest = max((c.latency_ms_high for c in found), default=p.latency_ms)
    if low <= measured <= high:
        judgement = "as_predicted"
        words = f"As predicted: inside {band}, {ratio:.2f} times the prediction."
        if fitting:
            words += f" The band is too wide to rule out: {fitting}."
    elif measured < low:
        judgement = "faster"
        words = f"Faster than {band}, but not impossible: the live pairs alone take {_ms(ideal)}."
        words += f" It would fit if {fitting}." if fitting else " No circumstance that is simulated makes it so fast."
    elif fitting:
        judgement = "explained"
        words = f"Slower than {band}: {ratio:.2f} times the prediction. It fits if {fitting}."
    else:
        judgement = "likely_a_bug"
        words = f"Likely a bug: slower than {band}, and no cause explains more than {_ms(largest)}."
        if measured < largest:
            words = f"Likely a bug: slower than {band}, and no cause comes within 10 %; the slowest takes {_ms(largest)}."
        words += " Not simulated: building masks or plans, and other work inside the timed part."
    return Measured(latency_ms=measured, ratio=ratio, judgement=judgement, words=words, circumstances=found)


def _circumstances(case: Case, p: Prediction, measured: float, sparse: _Side) -> Iterator[Circumstance]:
    """The closed list, each with the time that it would take."""
    for name, words, times in _closed_list(case, p, sparse):
        try:
            low, high = times()
        except UserError:
            continue  # the call cannot be run like that
        fits = low * (1 - CLOSE) <= measured <= high * (1 + CLOSE)
        yield Circumstance(name=name, words=words, latency_ms=low, latency_ms_high=high, fits=fits)


Times = Callable[[], tuple[float, float]]


def _closed_list(case: Case, p: Prediction, sparse: _Side) -> Iterator[tuple[str, str, Times]]:
    """What people really get wrong, or run into, and the time of each."""
    asked, spec, problem, setting = case.asked, case.spec, case.asked.problem, case.setting
    mask_class, main = asked.pattern.family.mask_class(), case.closed().choice

    def of(other: Case, calls: int = 1) -> Times:
        return lambda: (other.latency_ms() * calls,) * 2

    def whole(causal: bool) -> Times:
        def times() -> tuple[float, float]:
            """Every tile, by the kernel that should skip, with its mask on all of them."""
            closed = case.changed("mask=all").closed()
            choice, axes = closed.choice, next(op.schedule.mask_axes for op in closed.plan if isinstance(op, Attention))
            tiling = Tiling(q=(choice.tiling.q_rows,), kv=(choice.tiling.kv_rows,), pack=choice.tiling.pack)
            schedule = dense_schedule(asked, tiling)
            if not causal:
                band = msgspec.structs.replace(asked.pattern.family.without_pattern(), causal=False)
                flat = TokenLayout(grid=(asked.layout.tokens,), queries=asked.layout.queries)
                schedule = band.schedule(flat, tiling).with_copies(problem.batch * problem.q_heads // tiling.pack)
            schedule = replace(schedule, mask_axes=axes, mask_free=False)
            return (attention_time(choice.spec, choice, schedule, problem, setting).stages["launch"] * 1e3,) * 2

        return times

    if mask_class != "dense":
        yield "masks_everywhere", "the element mask runs on every tile", of(case.changed("mask=all"))
        yield "no_masks", "no element mask runs (is the result right?)", of(case.changed("mask=none"))
        yield "no_skipping", "masked tiles are computed too (a mask tensor, not a block mask)", whole(problem.causal)
        yield "pattern_ignored", f"the pattern is ignored: dense by {p.dense.kernel}", lambda: (p.dense.latency_ms,) * 2
    if problem.causal:
        yield "not_causal", "every tile is computed, those above the diagonal too", whole(False)
    for other in candidates(spec, mask_class, problem.dtype, max(problem.head_dim, problem.head_dim_v)):
        if other.name != p.kernel:
            by_other = case._replace(kernel=other, q_tile=None, kv_tile=None)
            yield f"kernel_{other.name}", f"kernel {other.name} ran it", of(by_other)
    if len(main.tiling.q) > 1:
        flat_tiles = case._replace(q_tile=prod(main.tiling.q), kv_tile=prod(main.tiling.kv))
        yield "token_order", "tokens stay in row-major order instead of tiles", of(flat_tiles)
    if problem.gqa_group > 1:
        repeated = msgspec.structs.replace(problem, kv_heads=problem.q_heads)
        yield "repeated_kv", "K and V are repeated for every query head", of(case.on(repeated))
    if problem.batch * problem.kv_heads > 1 and not isinstance(asked.pattern.family, Ragged):
        one = msgspec.structs.replace(problem, batch=1, q_heads=problem.gqa_group, kv_heads=1)
        calls = problem.batch * problem.kv_heads
        # Calls that follow each other share one clock: each alone would start at the highest.
        at_mean = case.at_clock(case.start_mhz() / sparse.slow)
        yield "launch_a_head", f"{calls} calls of one K/V head, one after the other", of(at_mean.on(one), calls)
    if setting.clock == "sustained" and main.spec.chip.clock_sustained_mhz:
        mhz = main.spec.chip.clock_sustained_mhz
        yield "low_clock", f"the clock is at {mhz:,.0f} MHz from the start", of(case.at_clock(mhz))
    if setting.clock != "burst":
        yield "high_clock", "the clock does not fall: a single call on a cool GPU", of(case.changed("clock=burst"))
    if not setting.warm:
        yield "warm_l2", "Q, K and V lie in L2 from an earlier run", of(case._replace(setting=setting._replace(warm=True)))
    low, high = (p.latency_ms + host for host in HOST_MS)
    yield "host", "the host's time of a call is inside (time many calls, or a CUDA graph)", lambda: (low, high)


def _span(c: Circumstance) -> str:
    return _ms(c.latency_ms) if c.latency_ms == c.latency_ms_high else f"{_ms(c.latency_ms)} to {_ms(c.latency_ms_high)}"


def _ms(value: float) -> str:
    return f"{value * 1e3:,.1f} us" if value < 1 else f"{value:,.2f} ms" if value < 100 else f"{value:,.1f} ms"


def _percent(share: float) -> str:
    return f"{100 * share:.1f} %" if 0.0005 <= share < 0.1 else f"{100 * share:.0f} %"
