"""Calibration: a few physical constants of one kernel on one GPU, fitted to the fit set of a measured table and to nothing else.

Which rows those are is decided in `protocol`; which constants, and within which bounds, in `parameters.toml`.
"""

from __future__ import annotations

import tomllib
from collections.abc import Callable, Iterable
from functools import cache
from hashlib import sha256
from importlib.metadata import version
from math import exp, log
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from ..facts import UserError
from ..hwspecs import GpuSpec, load_labelled
from ..kernels import Calibration, KernelProfile, Residuals
from ..kernels.calibration import constants, leaf, with_leaves
from ..simulator import KernelChoice, attention_time, choose_kernel, with_tile
from ..simulator.memory import cache_write_seconds
from ..workloads import AttentionProblem, TileSchedule
from .compare import asked_of
from .measurement import Measurement
from .protocol import role
from .sources import timed_as

Floats = NDArray[np.float64]

SHORTEST_MS = 0.03
"""Below it a call is all launch, and its noise is large."""

MOST_FITTED = 220
"""Rows that are fitted, of the fit set's thousands: a fixed random choice."""

MOST_SCORED = 200
"""Rows that are scored of each head dim and window: a fixed random choice."""


class Parameter(NamedTuple):
    """A constant that may be fitted: a leaf of the kernel's profile, of the GPU's spec, or of the framework's environment."""

    owner: str
    path: str
    low: float
    high: float


def parameters(profile: KernelProfile, spec: GpuSpec) -> list[Parameter]:
    """What may be fitted of a kernel on a GPU."""
    table = _table()
    found = []
    for owner, leaves in (
        ("kernel", table["program"].get(profile.program)),
        ("gpu", table["gpu"]),
        ("environment", table["environment"]),
    ):
        if leaves is None:
            raise UserError(f"kernel {profile.name}: nothing of loop program {profile.program} can be calibrated")
        for path, (low, high) in leaves.items():
            # What a profile gives by architecture is fitted for the one at hand.
            inner = f".{spec.arch}" if path == "timing.iteration_cycles" else ""
            scale = leaf(spec, path) if path.endswith("_mhz") else 1.0
            found.append(Parameter(owner, path + inner, low * scale, high * scale))
    return found


@cache
def _table() -> dict[str, Any]:
    return tomllib.loads((Path(__file__).parent / "parameters.toml").read_text(encoding="utf-8"))


class _Case(NamedTuple):
    """A measured call, ready to be simulated under other constants."""

    run: Measurement
    choice: KernelChoice
    schedule: TileSchedule
    problem: AttentionProblem

    @staticmethod
    def of(run: Measurement) -> _Case:
        asked = asked_of(run)
        question = asked.question
        choice = choose_kernel(
            asked.spec,
            question.problem,
            question.pattern.family.mask_class(),
            len(question.layout.grid),
            kernel=asked.kernel,
            calibrated=False,
        )
        choice = with_tile(choice, asked.tiles.get("q_tile"), asked.tiles.get("kv_tile"))
        heads = question.problem.batch * question.problem.q_heads // choice.tiling.pack
        schedule = question.pattern.family.schedule(question.layout, choice.tiling).with_copies(heads)
        return _Case(run, choice, schedule, question.problem)

    def log_ratio(self, profile: KernelProfile, spec: GpuSpec) -> float:
        """Logarithm of predicted over measured time."""
        choice = self.choice._replace(profile=profile, spec=spec)
        timed = timed_as(self.run.table)
        stages = attention_time(spec, choice, self.schedule, self.problem, timed.setting).stages
        seconds = stages["launch" if timed.stage == "side" else timed.stage]
        if timed.setting.writes_cache:
            seconds += cache_write_seconds(spec, self.problem, warm=timed.setting.warm)
        assert self.run.latency_ms is not None
        return log(seconds * 1e3 / self.run.latency_ms)


class _Model(NamedTuple):
    """The kernel and the GPU under a vector of constants, each scaled to 0..1 between its bounds."""

    profile: KernelProfile
    spec: GpuSpec
    free: list[Parameter]

    def at(self, unit: Floats) -> tuple[KernelProfile, GpuSpec]:
        values = self.values(unit)
        kernel = {p.path: v for p, v in zip(self.free, values, strict=True) if p.owner == "kernel"}
        rest = {p.path: v for p, v in zip(self.free, values, strict=True) if p.owner != "kernel"}
        return with_leaves(self.profile, kernel), with_leaves(self.spec, rest)

    def values(self, unit: Floats) -> list[float]:
        return [float(p.low + u * (p.high - p.low)) for p, u in zip(self.free, unit, strict=True)]

    def start(self) -> Floats:
        """The constants as shipped, inside their bounds."""
        owners = {"kernel": self.profile}
        shipped = [leaf(owners.get(p.owner, self.spec), p.path) or 0.0 for p in self.free]
        unit = [(value - p.low) / (p.high - p.low) for value, p in zip(shipped, self.free, strict=True)]
        inside: Floats = np.clip(np.array(unit), 0.02, 0.98)
        return inside


def calibrate(
    runs: Iterable[Measurement],
    *,
    most_fitted: int = MOST_FITTED,
    most_scored: int = MOST_SCORED,
    on_step: Callable[[str], None] = lambda what: None,
) -> Calibration:
    """Fit the constants of one kernel on one GPU, and score them on what was not fitted.

    Parameters
    ----------
    runs : iterable of Measurement
        Calls of one kernel on one GPU, as a serving framework times them.
    on_step : callable
        Told what is being done, each time that something is.

    Returns
    -------
    Calibration

    Raises
    ------
    UserError
        The rows are of several kernels or GPUs, or none of them may be fitted.
    """
    usable = sorted((run for run in runs if _is_usable(run)), key=_order)
    labels = {(run.gpu, run.kernel, run.table) for run in usable}
    if len(labels) != 1:
        raise UserError(f"a calibration needs rows of one GPU, kernel and table, got {len(labels)} kinds")
    fitted = [_Case.of(run) for run in usable if role(run) == "fit"][:most_fitted]
    if not fitted:
        raise UserError("no row may be fitted: dense causal rows of head_dim 128 are needed")
    choice, ((gpu, _, table),) = fitted[0].choice, labels
    # Few rows pin down few constants: the first ones of the kernel. The others are taken from its nearest relative.
    start = constants(choice.profile, load_labelled(gpu), own=False)
    free = parameters(choice.profile, choice.spec)
    model = _Model(start.profile, start.spec, free if len(fitted) > 2 * len(free) else free[: len(fitted)])
    unit, unidentified = _fit(model, fitted, on_step)
    values = dict(zip((p.path for p in model.free), model.values(unit), strict=True))

    def of(owner: str) -> dict[str, float]:
        return {p.path: float(f"{values[p.path]:.5g}") for p in model.free if p.owner == owner}

    profile, spec = model.at(unit)
    on_step("scoring")
    score, roofline = _scores(usable, fitted, profile, spec, most_scored)
    return Calibration(
        kernel=choice.profile.name,
        gpu=model.spec.name,
        kernel_parameters=of("kernel"),
        gpu_parameters=of("gpu"),
        environment=of("environment"),
        data=table,
        rows=len(fitted),
        version=version("simattn"),
        spec_hash=choice.spec.spec_hash(),
        fit=_residuals([case.log_ratio(profile, spec) for case in fitted]),
        score=score,
        roofline=roofline,
        unidentified=unidentified,
    )


def _is_usable(run: Measurement) -> bool:
    return not run.suspect and run.latency_ms is not None and run.latency_ms > SHORTEST_MS


def _order(run: Measurement) -> bytes:
    """A fixed random order; another hash than that which decides the role."""
    return sha256(b"order " + run.id.encode()).digest()


def _fit(model: _Model, cases: list[_Case], on_step: Callable[[str], None]) -> tuple[Floats, tuple[str, ...]]:
    """The constants, scaled, and the paths of those that the rows do not pin down."""
    try:
        from scipy.optimize import least_squares
    except ImportError:
        raise UserError("calibration needs scipy: pip install 'simattn[validation]'") from None

    def residuals(unit: Floats) -> Floats:
        profile, spec = model.at(unit)
        found = np.array([case.log_ratio(profile, spec) for case in cases])
        on_step(f"fitting: mean error {100 * np.abs(np.expm1(found)).mean():.1f} %")
        return found

    # Robust, since the tables have outliers; steps wide enough to see past the jumps that waves make.
    found = least_squares(
        residuals, model.start(), bounds=(0, 1), loss="soft_l1", f_scale=0.05, diff_step=0.01, x_scale=0.1, max_nfev=14
    )
    if len(cases) <= len(model.free):
        return found.x, ()
    spread = np.median(np.abs(found.fun)) / 0.6745
    covariance = np.linalg.pinv(found.jac.T @ found.jac) * spread**2
    loose = np.sqrt(np.diag(covariance)) > UNIDENTIFIED
    at_bound = (found.x < 1e-3) | (found.x > 1 - 1e-3)
    return found.x, tuple(p.path for p, is_loose in zip(model.free, loose | at_bound, strict=True) if is_loose)


UNIDENTIFIED = 0.15
"""Standard error of a constant, over the width of its bounds, from which on it is named as not identified."""


def _scores(
    usable: list[Measurement], fitted: list[_Case], profile: KernelProfile, spec: GpuSpec, most: int
) -> tuple[dict[str, Residuals], dict[str, Residuals]]:
    """Residuals on rows that were not fitted, by head dim and window, and those of a fitted roofline beside them."""
    groups: dict[tuple[int, int], list[Measurement]] = {}
    seen = {case.run.id for case in fitted}
    for run in usable:
        window = run.pattern_params.get("window", 0) if run.pattern == "sliding_window" else 0
        if run.id not in seen and role(run) == "score" and not (window and window >= (run.seq_q or 0)):
            groups.setdefault((run.head_dim or 0, window), []).append(run)
    roofline = _roofline(fitted, spec)
    ours: dict[str, list[float]] = {}
    naive: dict[str, list[float]] = {}
    for (head_dim, window), members in sorted(groups.items()):
        try:
            cases = [_Case.of(run) for run in members[:most]]
        except UserError:
            continue
        kind = "window" if window else "dense"
        names = [f"D{head_dim} {kind} {window}" if window else f"D{head_dim} {kind}", kind, "all"]
        for case in cases:
            for name in names if head_dim == 128 else (names[0], "all"):
                ours.setdefault(name, []).append(case.log_ratio(profile, spec))
                naive.setdefault(name, []).append(roofline(case))
    return {name: _residuals(found) for name, found in ours.items()}, {name: _residuals(found) for name, found in naive.items()}


def _roofline(cases: list[_Case], spec: GpuSpec) -> Callable[[_Case], float]:
    """The usual estimate with its three constants fitted to the same rows: max(FLOPs / rate, bytes / bandwidth) + overhead."""
    from scipy.optimize import least_squares

    peak = spec.chip.sm_count * spec.tensor_flops_per_clk("bf16") * spec.clock_hz("burst")

    def log_ratio(case: _Case, constants: Floats) -> float:
        rate, bandwidth, overhead = np.exp(constants)
        p, schedule = case.problem, case.schedule
        moved = schedule.total(schedule.row_live) * 4 * p.head_dim + p.batch * p.seq_kv * p.kv_heads * 4 * p.head_dim
        seconds = max(p.flops(schedule.pairs) / (rate * peak), moved / (bandwidth * spec.mem.dram.gbps * 1e9)) + overhead
        assert case.run.latency_ms is not None
        return log(seconds * 1e3 / case.run.latency_ms)

    start = np.log([0.5, 0.8, 1e-5])
    found = least_squares(lambda c: [log_ratio(case, c) for case in cases], start, loss="soft_l1", f_scale=0.1)
    return lambda case: log_ratio(case, found.x)


def _residuals(log_ratios: list[float]) -> Residuals:
    ratio = np.array([exp(x) for x in log_ratios])
    size = np.abs(ratio - 1)
    values = {
        "mape": size.mean(),
        "median": np.median(size),
        "p90": np.quantile(size, 0.9),
        "max": size.max(),
        "bias": (ratio - 1).mean(),
        "low": np.quantile(ratio, 0.05),
        "high": np.quantile(ratio, 0.95),
    }
    return Residuals(n=len(ratio), **{name: round(float(value), 5) for name, value in values.items()})
