"""Fitting: which constants of a kernel on a GPU may move, and the values at which measured calls are predicted best."""

from __future__ import annotations

import tomllib
from collections.abc import Callable
from functools import cache
from math import inf, log
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from ..facts import UserError
from ..hwspecs import GpuSpec
from ..kernels import KernelProfile
from ..kernels.calibration import leaf, with_leaves
from ..simulator import KernelChoice, attention_time, choose_kernel, with_tile
from ..simulator.memory import cache_write_seconds
from ..workloads import AttentionProblem, TileSchedule
from .asked import asked_of
from .measurement import Measurement
from .sources import timed_as

Floats = NDArray[np.float64]

UNIDENTIFIED = 0.15
"""Standard error of a constant, over the width of its bounds, from which on it is named as not identified."""

PRIOR = 0.5
"""How far a constant is expected from its shipped value, over the width of its bounds."""

NOISE = 0.03
"""Standard deviation of a measured call that the prior is weighed against."""

MOST_STEPS = 12
"""Jacobians at most; fits settle in six to ten."""


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
            scale, most = (leaf(spec, path), spec.chip.clock_max_mhz) if path.endswith("_mhz") else (1.0, inf)
            found.append(Parameter(owner, path + inner, low * scale, min(high * scale, most)))
    return found


@cache
def _table() -> dict[str, Any]:
    return tomllib.loads((Path(__file__).parent / "parameters.toml").read_text(encoding="utf-8"))


class Case(NamedTuple):
    """A measured call, ready to be simulated under other constants."""

    run: Measurement
    choice: KernelChoice
    schedule: TileSchedule
    problem: AttentionProblem
    mask_class: str

    @staticmethod
    def of(run: Measurement) -> Case:
        """The call behind a measured run; UserError where it cannot be simulated."""
        asked = asked_of(run)
        question = asked.question
        mask_class, axes = question.pattern.family.mask_class(), len(question.layout.grid)
        choice = choose_kernel(asked.spec, question.problem, mask_class, axes, kernel=asked.kernel, known=())
        choice = with_tile(choice, question.problem, asked.tiles.get("q_tile"), asked.tiles.get("kv_tile"))
        heads = question.problem.batch * question.problem.q_heads // choice.tiling.pack
        schedule = question.pattern.family.schedule(question.layout, choice.tiling).with_copies(heads)
        return Case(run, choice, schedule, question.problem, mask_class)

    def on_gpu(self, profile: KernelProfile, spec: GpuSpec) -> tuple[float, int]:
        """Seconds of the kernel, and launches that are not in them."""
        choice = self.choice._replace(profile=profile.under(self.mask_class), spec=spec)
        time = attention_time(spec, choice, self.schedule, self.problem, timed_as(self.run.table).setting)
        # The kernel that merges split keys is launched like the first one, unless it is a node of a graph.
        launched = int(time.merge > 0 and spec.launch.graph_node_us is None)
        return time.stages["clock"] + time.merge - launched * spec.launch.kernel_us * 1e-6, 1 + launched

    def seconds(self, spec: GpuSpec, on_gpu: tuple[float, int]) -> float:
        """Seconds as they were timed, with what the environment adds to the kernel."""
        timed = timed_as(self.run.table)
        kernel, launches = on_gpu
        if timed.stage == "clock":
            return kernel
        side = cache_write_seconds(spec, self.problem, warm=timed.setting.warm) if timed.setting.writes_cache else 0.0
        return kernel + launches * spec.launch.kernel_us * 1e-6 + side


class Model:
    """The kernel and the GPU under a vector of constants, each scaled to 0..1 between its bounds."""

    def __init__(self, cases: list[Case], profile: KernelProfile, spec: GpuSpec, free: list[Parameter]) -> None:
        self.cases, self.profile, self.spec, self.free = cases, profile, spec, free
        self._known: dict[bytes, list[tuple[float, int]]] = {}

    def at(self, unit: Floats) -> tuple[KernelProfile, GpuSpec]:
        """The kernel and the GPU with these constants."""
        values = self.values(unit)
        kernel = {p.path: v for p, v in zip(self.free, values, strict=True) if p.owner == "kernel"}
        rest = {p.path: v for p, v in zip(self.free, values, strict=True) if p.owner != "kernel"}
        return with_leaves(self.profile, kernel), with_leaves(self.spec, rest)

    def values(self, unit: Floats) -> list[float]:
        """The constants in their own units."""
        return [float(p.low + u * (p.high - p.low)) for p, u in zip(self.free, unit, strict=True)]

    def start(self) -> Floats:
        """The constants as shipped, inside their bounds."""
        owners = {"kernel": self.profile}
        shipped = [leaf(owners.get(p.owner, self.spec), p.path) or 0.0 for p in self.free]
        unit = [(value - p.low) / (p.high - p.low) for value, p in zip(shipped, self.free, strict=True)]
        inside: Floats = np.clip(np.array(unit), 0.02, 0.98)
        return inside

    def log_ratios(self, unit: Floats) -> Floats:
        """Logarithm of predicted over measured time of every call."""
        profile, spec = self.at(unit)
        # The environment adds to the time of the kernel, which is not simulated anew for it.
        own = np.array([u for p, u in zip(self.free, unit, strict=True) if p.owner != "environment"]).tobytes()
        if own not in self._known:
            if len(self._known) > len(self.free):
                self._known.pop(next(iter(self._known)))
            self._known[own] = [case.on_gpu(profile, spec) for case in self.cases]
        pairs = zip(self.cases, self._known[own], strict=True)
        return np.array([log(case.seconds(spec, on_gpu) * 1e3 / (case.run.latency_ms or 0.0)) for case, on_gpu in pairs])


class Fitted(NamedTuple):
    """Constants, scaled; the paths of those that the calls do not pin down; and log ratios of the fitted calls."""

    unit: Floats
    unidentified: tuple[str, ...]
    log_ratios: Floats


def fit(model: Model, on_step: Callable[[str], None] = lambda what: None) -> Fitted:
    """The constants at which the calls are predicted best; those that the calls say little of stay near their shipped values.

    Raises
    ------
    UserError
        scipy is not installed.
    """
    try:
        from scipy.optimize import least_squares
    except ImportError:
        raise UserError("calibration needs scipy: pip install 'simattn[validation]'") from None

    shipped = model.start()
    # As many calls as constants pin them down exactly, and nothing else is to be said.
    weight = NOISE / PRIOR if len(model.cases) > len(model.free) else 0.0

    def residuals(unit: Floats) -> Floats:
        found = model.log_ratios(unit)
        on_step(f"fitting: mean error {100 * np.abs(np.expm1(found)).mean():.1f} %")
        return np.concatenate([found, weight * (unit - shipped)])

    # Robust, since the tables have outliers; steps wide enough to see past the jumps that waves make. The noise of the tables
    # is some per cent, so a gain of a thousandth is none.
    found = least_squares(
        residuals,
        shipped,
        bounds=(0, 1),
        loss="soft_l1",
        f_scale=0.05,
        diff_step=0.01,
        x_scale=0.1,
        ftol=1e-3,
        max_nfev=MOST_STEPS,
    )
    calls = found.fun[: len(model.cases)]
    if len(model.cases) <= len(model.free):
        return Fitted(found.x, (), calls)
    # Calls that fit better than any table can are not to make a constant look certain that the prior has moved.
    spread = max(np.median(np.abs(calls)) / 0.6745, NOISE)
    own = found.jac[: len(model.cases)]
    covariance = np.linalg.pinv(own.T @ own) * spread**2
    variance = np.maximum(np.diag(covariance), 0.0)
    # What has no effect at all has no variance in the pseudo-inverse either.
    loose = (np.sqrt(variance) > UNIDENTIFIED) | (np.abs(own).max(axis=0) < 1e-9)
    at_bound = (found.x < 1e-3) | (found.x > 1 - 1e-3)
    named = zip(model.free, loose | at_bound, strict=True)
    return Fitted(found.x, tuple(p.path for p, is_loose in named if is_loose), calls)
