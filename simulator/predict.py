"""predict: pick the kernel and its tile, build the schedule, simulate, and put the answer together."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Collection, Sequence
from itertools import pairwise
from typing import Any, NamedTuple, get_args

import msgspec

from ..facts import Document, UserError, unknown_name
from ..hwspecs import Clock, GpuSpec, gpus
from ..kernels import Calibration, KernelProfile, kernels
from ..workloads import Attention, AttentionProblem, Pattern, Plan, System, Tiling, cleared_output
from .band import band_of
from .baseline import dense_schedule, fastest_dense
from .bounds import bounds
from .choice import KernelChoice, choose_kernel, with_tile
from .memory import cache_write_seconds, memory_op_seconds, missing_share
from .prediction import Blocks, DenseRun, Density, KernelRun, Prediction, Provenance, SideOp, Stage, Tiles, Traffic
from .question import Question, problem_fields, question
from .setting import Fidelity, Setting, mask_or_plan
from .side import side_op
from .split import packing_copies
from .waterfall import STAGES, KernelTime, attention_time


def predict(
    pattern: str = "radial",
    hw: str | GpuSpec = "b200",
    *,
    kernel: str | KernelProfile | None = None,
    baseline: str | None = None,
    q_tile: int | tuple[int, ...] | None = None,
    kv_tile: int | tuple[int, ...] | None = None,
    fidelity: Fidelity = "fast",
    clock: Clock = "sustained",
    warm: bool = False,
    without: Collection[str] = (),
    host_ms: float = 0.0,
    reuse: float = 1.0,
    seed: int = 0,
    params: Document | None = None,
    **problem: Any,
) -> Prediction:
    """Predict the run time of an attention call.

    Parameters
    ----------
    pattern : str
        Name of a pattern; it brings its published workload and setting, which everything below overrides.
    hw : str or GpuSpec
        Name, alias or TOML file of a GPU.
    kernel : str or KernelProfile, optional
        Kernel that runs the pattern: by name, or a profile with values of one's own. By default the usual one.
    baseline : str, optional
        Kernel of the dense call; by default the fastest.
    q_tile, kv_tile : int or tuple of int, optional
        Tile of the kernel, in place of its own.
    fidelity : str
        `bound` (closed form), `fast` (every CTA dispatched) or `cycle` (every visit on every SM). The answer names the one used.
    clock : str
        `sustained` (falls under load), `burst` (highest clock) or `boost` (clock of the data sheet).
    warm : bool
        L2 holds what it can of Q, K and V at the start, as after an earlier run of the same call.
    without : collection of str
        Stages of the waterfall to leave out: the machine without these limits.
    host_ms, reuse : float
        Time that building a mask or a plan takes while the GPU waits, in ms, and how many calls make use of it.
    seed : int
        Seed of patterns that draw at random; recorded in the answer.
    params : dict, optional
        Parameters of the pattern.
    **problem
        `model`, `shape`, `grid`, `text`, `frames`, `tokens_per_frame`, `seq_q`, `seq_kv`, `batch`, `q_heads`, `kv_heads`,
        `head_dim`, `head_dim_v`, `dtype`, `causal`, `phase`; any other name is taken as a parameter of the pattern.

    Returns
    -------
    Prediction

    Raises
    ------
    UserError
        A name or value is not usable; one line.

    Examples
    --------
    >>> radial = predict("radial", "b200")
    >>> radial.blocks.active, radial.blocks.total
    (226056, 813604)
    """
    for name, value, allowed in (("fidelity", fidelity, get_args(Fidelity)), ("clock", clock, get_args(Clock))):
        if value not in allowed:
            raise unknown_name(name, str(value), allowed)
    for name in without:
        if name not in STAGES[1:]:
            raise unknown_name("stage", name, STAGES[1:])
    spec = gpus.load(hw) if isinstance(hw, str) else hw
    shapes = {name: problem.pop(name) for name in list(problem) if name in _PROBLEM_FIELDS}
    asked = question(pattern, params={**(params or {}), **problem}, seed=seed, **shapes)
    setting = Setting(clock, fidelity, frozenset(without), warm, host=mask_or_plan(host_ms, reuse))
    fastest = fastest_dense(asked, spec, setting)
    if kernel is None and asked.pattern.system.kernel is None and asked.pattern.family.mask_class() == "dense":
        kernel = fastest.kernel
    run = simulate(asked, spec, kernel=kernel, q_tile=q_tile, kv_tile=kv_tile, setting=setting)
    baseline_run = fastest if baseline is None else fastest_dense(asked, spec, setting, only=baseline)
    main = run.choice
    attention = [op.schedule for op in run.plan if isinstance(op, Attention)]
    pairs = sum(s.pairs for s in attention)
    dense = dense_schedule(asked, Tiling(q=(main.tiling.q_rows,), kv=(main.tiling.kv_rows,), pack=main.tiling.pack))
    latency = run.stages["side"]
    band = band_of(main, asked)
    low, high = band.low, band.high
    spread = _seed_spread(asked, run, seed) if asked.pattern.random else None
    if spread is not None:
        share = run.stages["launch"] / latency
        low, high = low / (1 + share * (spread[1] - 1)), high / (1 - share * (1 - spread[0]))
    stages = tuple(Stage(stage=name, latency_ms=run.stages[name] * 1e3) for name in STAGES)
    utilization = {unit: seconds / latency for unit, seconds in run.busy.items()}
    return Prediction(
        gpu=spec.name,
        kernel=main.profile.name,
        q_tile=main.tiling.q,
        kv_tile=main.tiling.kv,
        fidelity=fidelity,
        correction=run.correction,
        clock=clock,
        warm=warm,
        problem=problem_fields(asked),
        pattern=asked.pattern.name,
        pattern_params=asked.pattern.params(),
        latency_ms=latency * 1e3,
        latency_ms_low=latency * 1e3 / high,
        latency_ms_high=latency * 1e3 / low,
        speedup=baseline_run.seconds / latency,
        dense=DenseRun(kernel=baseline_run.kernel, latency_ms=baseline_run.seconds * 1e3),
        tflops=asked.problem.flops(pairs) / latency / 1e12,
        bounds=bounds(attention, dense),
        density=Density(pairs=pairs / dense.pairs, tiles=sum(s.tile_area for s in attention) / dense.tile_area),
        blocks=_blocks(asked, run),
        tiles=Tiles(
            visited=sum(s.visited for s in attention),
            full=sum(s.full for s in attention),
            partial=sum(s.partial for s in attention),
            dense=dense.visited,
            q_tiles=sum(s.work_rows for s in attention),
        ),
        waterfall=stages,
        limiter=_limiter(stages, utilization),
        utilization=utilization,
        traffic=Traffic(l2_bytes=run.moved["l2"], dram_bytes=run.moved["dram"]),
        attention=tuple(run.kernels),
        side=tuple(run.side),
        provenance=Provenance(
            calibrated_on=main.calibration.data if main.calibration else None,
            borrowed_from=f"{main.borrowed.kernel} on {main.borrowed.gpu}" if main.borrowed else None,
            recalled=_recalled(spec, run.profiles, baseline_run.kernel, asked.pattern.system),
            validity=band.validity,
            why=band.why,
            spec_hash=spec.spec_hash(),
            seed=seed,
            seed_spread=spread,
            exactness=asked.pattern.system.why or asked.pattern.system.exactness,
        ),
    )


_PROBLEM_FIELDS = frozenset(inspect.signature(question).parameters) - {"pattern", "params", "seed"}


class Run(NamedTuple):
    """A simulated call, in seconds."""

    plan: Plan
    choice_of: Callable[[str, str | None], KernelChoice]
    """The kernel that ran a mask class, given the one that the system's own code uses."""
    choice: KernelChoice
    """The kernel that ran the pattern itself."""
    profiles: tuple[KernelProfile, ...]
    """Those of all kernels that ran, the main one first."""
    stages: dict[str, float]
    busy: dict[str, float]
    moved: dict[str, float]
    """Bytes of the attention kernels, by level of memory."""
    kernels: list[KernelRun]
    side: list[SideOp]
    correction: float


def simulate(
    asked: Question,
    spec: GpuSpec,
    *,
    kernel: str | KernelProfile | None = None,
    q_tile: int | tuple[int, ...] | None = None,
    kv_tile: int | tuple[int, ...] | None = None,
    setting: Setting = Setting(),  # noqa: B008 (immutable)
    known: Sequence[Calibration] | None = None,
) -> Run:
    """Simulate one call, without the dense call that it could be compared with; parameters as in `predict`.

    Constants are taken from the calibrations `known`, by default from all there are. The plan is priced op by op: the ladders of
    its attention kernels add up, and what only moves data is the last stage.
    """
    problem, mask_class = asked.problem, asked.pattern.family.mask_class()
    wanted = kernel or _usable(spec, problem, mask_class, asked.pattern.system.kernel)
    axes = len(asked.layout.grid)
    usual = choose_kernel(spec, problem, mask_class, axes, wanted, tile_class=asked.tile_class, known=known)
    main = with_tile(usual, problem, q_tile, kv_tile)
    chosen = {(mask_class, asked.pattern.system.kernel): main, (mask_class, None): main}

    def choice_of(needed: str, own: str | None) -> KernelChoice:
        if (needed, own) not in chosen:
            usable = _usable(spec, problem, needed, own)
            chosen[needed, own] = choose_kernel(spec, problem, needed, axes, usable, known=known)
        return chosen[needed, own]

    plan = asked.pattern.plan(problem, asked.layout, lambda needed, own: choice_of(needed, own).tiling)
    times: list[KernelTime] = []
    runs: list[KernelRun] = []
    side: list[SideOp] = []
    if setting.writes_cache:
        written = cache_write_seconds(main.spec, problem, warm=setting.warm)
        side.append(SideOp(op="KV-cache write", latency_ms=written * 1e3))
    if setting.clears_output:
        side.append(side_op(main.spec, cleared_output(problem), None, setting.clock))
    if setting.host:
        side.append(side_op(main.spec, setting.host, None, setting.clock))
    for op in plan:
        if isinstance(op, Attention):
            choice = choice_of(op.mask_class, op.kernel)
            time = _launched(op, choice, problem, setting)
            times.append(time)
            launches = min(op.launches, op.schedule.copies)
            latency_ms = time.stages["launch"] * 1e3
            width = (problem.head_dim, problem.head_dim_v, problem.element_bytes)
            ctas = choice.profile.ctas_per_sm(choice.spec, choice.tile, *width)
            name = choice.profile.name
            runs.append(KernelRun(op=op.name, kernel=name, launches=launches, latency_ms=latency_ms, ctas_per_sm=ctas))
            copies = packing_copies(choice.profile, problem, choice.tiling.pack)
            if copies is not None:
                # What they find in L2 is what the call and its copies leave there.
                missing = missing_share(choice.spec, time.moved["l2"] + copies.bytes)
                took = memory_op_seconds(choice.spec, copies, None, missing, replayed=setting.replayed)
                side.append(SideOp(op=copies.name, latency_ms=took * 1e3))
            if time.merge:
                side.append(SideOp(op="merge of split keys", latency_ms=time.merge * 1e3))
        else:
            side.append(side_op(main.spec, op, main.profile.permute_gbps, setting.clock))
    stages = {name: sum(t.stages[name] for t in times) for name in STAGES[:-1]}
    stages["side"] = stages["launch"] + (0.0 if "side" in setting.off else sum(op.latency_ms for op in side) * 1e-3)
    busy = {unit: sum(t.busy[unit] for t in times) for unit in times[0].busy}
    moved = {level: sum(t.moved[level] for t in times) for level in times[0].moved}
    ran = {choice.profile.name: choice.profile for choice in (main, *chosen.values())}
    return Run(plan, choice_of, main, tuple(ran.values()), stages, busy, moved, runs, side, times[0].correction)


def _usable(spec: GpuSpec, problem: AttentionProblem, mask_class: str, own: str | None) -> str | None:
    """The kernel of a system's own code where it runs on the GPU, or else None: the usual one."""
    width = max(problem.head_dim, problem.head_dim_v)
    if own is None:
        return None
    variant = kernels.load(own).variant(problem.phase, mask_class, problem.dtype)
    return own if variant.serves(spec, mask_class, problem.dtype, width, problem.phase) else None


def _launched(op: Attention, choice: KernelChoice, problem: AttentionProblem, setting: Setting) -> KernelTime:
    """An attention op in all its launches, one after the other: each has a tail of its own."""
    copies, launches = op.schedule.copies, min(op.launches, op.schedule.copies)
    if launches == 1:
        return attention_time(choice.spec, choice, op.schedule, problem, setting)
    each, odd = divmod(copies, launches)
    if odd or any(group.copies % each for group in op.schedule.groups):
        raise UserError(f"{op.name}: {copies} heads and items cannot be split evenly over {launches} launches")
    times: list[tuple[int, KernelTime]] = []
    for group in op.schedule.groups:
        repeats = group.copies // each
        one = op.schedule.of_group(group._replace(copies=each))
        times.append((repeats, attention_time(choice.spec, choice, one, problem, setting, launches=launches)))
    stages = {name: sum(n * time.stages[name] for n, time in times) for name in STAGES[:-1]}
    busy = {unit: sum(n * time.busy[unit] for n, time in times) for unit in times[0][1].busy}
    moved = {level: sum(n * time.moved[level] for n, time in times) for level in times[0][1].moved}
    return KernelTime(stages, busy, times[0][1].correction, sum(n * time.merge for n, time in times), moved)


def _seed_spread(asked: Question, run: Run, seed: int) -> tuple[float, float]:
    """Least and most tile area under a few other seeds, over that of this one, of some of the heads."""
    p = asked.problem
    kv_heads = min(p.kv_heads, max(1, SPREAD_HEADS // p.gqa_group))
    some = msgspec.structs.replace(p, batch=1, kv_heads=kv_heads, q_heads=kv_heads * p.gqa_group)

    def area(pattern: Pattern) -> int:
        plan = pattern.plan(some, asked.layout, lambda needed, own: run.choice_of(needed, own).tiling)
        return sum(op.schedule.tile_area for op in plan if isinstance(op, Attention))

    own = max(area(asked.pattern), 1)
    ratios = [area(asked.pattern.with_seed(seed + n)) / own for n in range(1, SPREAD_SEEDS + 1)]
    return min(1.0, *ratios), max(1.0, *ratios)


SPREAD_SEEDS, SPREAD_HEADS = 3, 4
"""Further seeds, and heads of each, that are drawn to see how much the work varies."""


def _blocks(asked: Question, run: Run) -> Blocks | None:
    """The pattern's own blocks, text included, of the mean head, where it has any."""
    main = next(op.schedule for op in run.plan if isinstance(op, Attention))
    if main.blocks is None:
        return None
    whole = (main.seq_q, main.seq_kv) == (asked.layout.query_tokens, asked.layout.tokens)
    own = main.blocks if whole else asked.pattern.schedule(asked.layout, run.choice.tiling).blocks
    return Blocks(**own._asdict()) if own else None


def _limiter(stages: tuple[Stage, ...], utilization: dict[str, float]) -> str:
    """The tensor cores where live work is most of the time, or else what costs most: a stage, or the memory behind it."""
    if stages[0].latency_ms >= stages[-1].latency_ms / 2:
        return "tensor"
    costs = {now.stage: now.latency_ms - before.latency_ms for before, now in pairwise(stages)}
    worst = max(costs, key=lambda name: costs[name])
    return max(("l2", "dram"), key=lambda unit: utilization[unit]) if worst == "memory" else worst


def _recalled(spec: GpuSpec, used: tuple[KernelProfile, ...], baseline: str, system: System) -> tuple[str, ...]:
    """Values of the GPU, the kernels and the system that are from memory; its published workload is the user's to choose."""
    # A profile may be of the user's own file, and its name one that no shelf knows.
    profiles = {profile.name: profile for profile in used}
    if baseline not in profiles:
        profiles[baseline] = kernels.load(baseline)
    tables = (
        "chip.",
        "sm.",
        "units.",
        "tensor.",
        "mma.legacy",
        "mem.l2.mib",
        "mem.l2.bytes",
        "mem.dram.gbps",
        "launch.kernel",
        "eff.",
    )
    of_spec = [f"{spec.name}: {path}" for path, p in spec.meta.items() if p.kind == "recalled" and path.startswith(tables)]
    of_kernels = [f"{name}: {path}" for name in profiles for path, p in profiles[name].meta.items() if p.kind == "recalled"]
    of_system = [
        f"{system.name}: {path}" for path, p in system.meta.items() if p.kind == "recalled" and not path.startswith("workload")
    ]
    return (*sorted(of_spec), *sorted(of_kernels), *sorted(of_system))
