"""Predictions against measured runs, row by row and by group, with the naive estimators beside ours."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from math import inf
from typing import Any, NamedTuple

import msgspec
import numpy as np

from ..facts import UserError
from ..hwspecs import GpuSpec, load_labelled
from ..kernels.calibration import environment_of
from ..simulator import Question, Run, question, simulate
from ..workloads import Attention
from .measurement import Measurement
from .protocol import is_fitted
from .sources import Timed, kernel_for, pattern_for, timed_as


class Row(NamedTuple):
    """One measured run and what was predicted for it, in milliseconds."""

    id: str
    gpu: str
    kernel: str
    pattern: str
    measured_ms: float | None
    predicted_ms: float | None = None
    flop_bound_ms: float | None = None
    tile_bound_ms: float | None = None
    worst_tile_ms: float | None = None
    """Every owner tile as long as the longest one, at the peak tensor rate: what NATTENSim's bound stands for."""
    skipped: str | None = None
    """Why the run could not be simulated."""

    @property
    def error(self) -> float | None:
        """Relative error, positive where the prediction is too slow."""
        if self.predicted_ms is None or not self.measured_ms:
            return None
        return self.predicted_ms / self.measured_ms - 1


class Score(NamedTuple):
    """Errors of one estimator over a group of rows, as fractions."""

    mape: float
    median: float
    p90: float
    max: float
    bias: float


class GroupScore(NamedTuple):
    """One (GPU, kernel, pattern) group."""

    gpu: str
    kernel: str
    pattern: str
    n: int
    simulated: Score
    flop_bound: Score
    tile_bound: Score


def compare(runs: Iterable[Measurement], on_row: Callable[[], None] = lambda: None) -> list[Row]:
    """Simulate every run that can be simulated; no run is dropped, each skipped one says why."""
    rows = []
    for run in runs:
        rows.append(_row(run))
        on_row()
    return rows


def _row(run: Measurement) -> Row:
    bare = Row(run.id, run.gpu, run.kernel, run.pattern or run.phase, run.latency_ms)
    if is_fitted(run):
        return bare._replace(skipped="constants were fitted to this run")
    timed = timed_as(run.table)
    try:
        parts = [_simulated(msgspec.structs.replace(run, phase=phase), timed) for phase in PASSES.get(run.phase, (run.phase,))]
    except UserError as error:
        return bare._replace(skipped=str(error))
    return bare._replace(
        predicted_ms=sum(part.stages[timed.stage] for part in parts) * 1e3,
        flop_bound_ms=sum(part.stages["ideal"] for part in parts) * 1e3,
        tile_bound_ms=sum(part.stages["padding"] for part in parts) * 1e3,
        worst_tile_ms=sum(part.stages["padding"] * _worst_over_mean(part) for part in parts) * 1e3,
    )


def _simulated(run: Measurement, timed: Timed) -> Run:
    asked = asked_of(run)
    if timed.stage == "side":
        asked = asked._replace(spec=environment_of(run.table, asked.kernel, asked.spec))
    return simulate(asked.question, asked.spec, kernel=asked.kernel, **asked.tiles, setting=timed.setting)


def _worst_over_mean(simulated: Run) -> float:
    """Visits of the longest owner tile over those of the mean one, of the kernel that runs the pattern."""
    schedule = next(op.schedule for op in simulated.plan if isinstance(op, Attention))
    return schedule.max_visited * schedule.work_rows / max(schedule.visited, 1)


class Asked(NamedTuple):
    """A measured run as the simulator is asked for it."""

    question: Question
    spec: GpuSpec
    kernel: str
    tiles: dict[str, Any]


PHASES = {"prefill": "prefill", "diffusion": "diffusion", "decode": "decode", "train-bwd": "backward", "backward": "backward"}
"""Our phase for that of a measured run."""

DTYPES = {"fp16/bf16": "fp16", "int8/fp8": "fp8", "fp8 kv, bf16 mma": "fp8"}
"""Our type for what sources write; where keys are kept in another type than they are multiplied in, that of the keys."""

PASSES = {"train-fwd+bwd": ("prefill", "train-bwd")}
"""Phases that were timed as one, one call after the other."""


def asked_of(run: Measurement) -> Asked:
    """What a measured run asks of the simulator.

    Raises
    ------
    UserError
        It cannot be simulated; the message says why.
    """
    if not run.latency_ms or not 0 < run.latency_ms < inf:
        raise UserError("no measured time above zero")
    if run.suspect:
        raise UserError("contradicts every other source (marked suspect)")
    if run.phase not in PHASES:
        raise UserError(f"phase {run.phase} is not simulated yet")
    pattern = pattern_for(run.pattern or "")
    if pattern is None:
        raise UserError(f"pattern {run.pattern} is not simulated yet")
    needed = ("batch", "q_heads", "kv_heads", "seq_q", "seq_kv", "head_dim")
    missing = [n for n in needed if getattr(run, n) is None and not (n == "seq_kv" and "topk" in run.pattern_params)]
    if missing:
        raise UserError(f"the source does not give {', '.join(missing)}")
    spec = load_labelled(run.gpu)
    if run.host_bound:
        raise UserError("the GPU waited for the host, so the time is not the kernel's (host_bound)")
    if run.l2 == "warm":
        raise UserError("measured with its inputs in L2, which only served tables are simulated with")
    kernel = kernel_for(run.kernel, spec.arch)
    if kernel is None:
        raise UserError(f"no profile for kernel {run.kernel} on {spec.arch}")
    shapes, params, tiles = _pattern(run, pattern)
    asked = question(
        pattern,
        q_heads=run.q_heads,
        kv_heads=run.kv_heads,
        head_dim=run.head_dim,
        head_dim_v=run.pattern_params.get("head_dim_v"),
        dtype=DTYPES.get(run.dtype, run.dtype),
        phase=PHASES[run.phase],
        params=params,
        **({"batch": run.batch} | shapes),
    )
    return Asked(asked, spec, kernel, tiles)


def _pattern(run: Measurement, pattern: str) -> tuple[dict[str, Any], dict[str, Any], dict[str, Any]]:
    """Layout, parameters and tiles of a run."""
    given = run.pattern_params
    if "feature_map" in given and "window" in given:
        params = {name: tuple(given[name]) for name in ("window", "stride", "dilation") if given.get(name)}
        tiles = {name: tuple(given[name]) for name in ("q_tile", "kv_tile") if given.get(name)}
        return {"grid": tuple(given["feature_map"]), "text": 0}, {**params, "causal": given.get("is_causal", False)}, tiles
    if "topk" in given:
        # Every query has a list of its own: so many calls of one query, with as many keys as are on the list.
        return {"seq_q": 1, "seq_kv": given["topk"], "text": 0, "batch": (run.batch or 1) * (run.seq_q or 1)}, {}, {}
    if pattern == "sliding_window" and "window" not in given:
        raise UserError("the source does not give the window")
    shapes = {"seq_q": run.seq_q, "seq_kv": run.seq_kv, "text": 0}
    return shapes, {"window": given["window"]} if pattern == "sliding_window" else {}, {}


def score(errors: Iterable[float]) -> Score:
    """Summary of relative errors.

    >>> score([0.1, -0.1, 0.2]).mape.__round__(3)
    0.133
    """
    signed = np.array(list(errors))
    size = np.abs(signed)
    return Score(*(float(x) for x in (size.mean(), np.median(size), np.quantile(size, 0.9), size.max(), signed.mean())))


def group_scores(rows: Iterable[Row]) -> list[GroupScore]:
    """Scores by (GPU, kernel, pattern), and over all simulated rows first."""
    done = [row for row in rows if row.error is not None]
    groups: dict[tuple[str, str, str], list[Row]] = {}
    for row in done:
        groups.setdefault((row.gpu, row.kernel, row.pattern), []).append(row)
    named = [(("all", "all", "all"), done), *sorted(groups.items())] if done else []
    return [GroupScore(*key, len(members), *(_scores(members))) for key, members in named]


def _scores(rows: list[Row]) -> list[Score]:
    return [
        score([getattr(row, name) / row.measured_ms - 1 for row in rows if row.measured_ms])
        for name in ("predicted_ms", "flop_bound_ms", "tile_bound_ms")
    ]
