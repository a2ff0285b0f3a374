"""Predictions against measured runs, row by row, with the naive estimators beside ours."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Any, NamedTuple

from ..facts import UserError
from ..kernels import Calibration
from ..kernels.calibration import environment_of, with_leaves
from ..simulator import Run, simulate
from ..simulator.band import band_of
from ..workloads import Attention
from .asked import Asked, asked_of, passes_of
from .measurement import Measurement
from .protocol import is_fitted, window_of
from .sources import Timed, pattern_for, timed_as


class Row(NamedTuple):
    """One measured run and what was predicted for it, in milliseconds."""

    id: str
    gpu: str
    kernel: str
    pattern: str
    measured_ms: float | None
    predicted_ms: float | None = None
    low_ms: float | None = None
    high_ms: float | None = None
    """The band: nine in ten measured times are promised to lie within it."""
    flop_bound_ms: float | None = None
    tile_bound_ms: float | None = None
    worst_tile_ms: float | None = None
    """Every owner tile as long as the longest one, at the peak tensor rate: what NATTENSim's bound stands for."""
    skipped: str | None = None
    """Why the run could not be simulated."""
    table: str = ""
    phase: str = ""
    head_dim: int = 0
    tokens: int = 0
    """Keys of an item."""
    window: int = 0
    """Keys that a query sees, of a sliding window."""
    flops: float = 0.0
    bytes: float = 0.0
    """Of Q, K, V and O, once."""
    problem: str = ""
    """Everything but the pattern: rows that share it differ only in what is computed."""
    shape: str = ""
    """The same of any kernel."""
    validity: str = ""
    dense_ms: tuple[float, float] | None = None
    """Measured and predicted time of the dense run at the same shape, where this one is sparse."""
    part: str = ""
    """Class on the scoreboard."""

    @property
    def error(self) -> float | None:
        """Relative error, positive where the prediction is too slow."""
        if self.predicted_ms is None or not self.measured_ms:
            return None
        return self.predicted_ms / self.measured_ms - 1

    @property
    def speedup_error(self) -> float | None:
        """Relative error of the speedup over the dense run at the same shape."""
        if self.dense_ms is None or self.error is None:
            return None
        measured, predicted = self.dense_ms
        return predicted / measured / (1 + self.error) - 1

    @property
    def inside(self) -> bool:
        """Whether the measured time lies within the band."""
        return self.low_ms is not None and self.high_ms is not None and self.low_ms <= (self.measured_ms or 0.0) <= self.high_ms

    def plain(self) -> dict[str, Any]:
        """The row as `simattn validate --json` prints it."""
        return {**self._asdict(), "error": self.error}


def compare(
    runs: Iterable[Measurement],
    on_row: Callable[[], None] = lambda: None,
    *,
    known: Sequence[Calibration] | None = None,
    fitted_too: bool = False,
) -> list[Row]:
    """Simulate every run that can be simulated; no run is dropped, each skipped one says why.

    Parameters
    ----------
    known : sequence of Calibration, optional
        Calibrations that predictions may use; by default all that there are.
    fitted_too : bool
        Simulate published runs that constants were fitted to as well.
    """
    rows = []
    for run in runs:
        rows.append(_row(run, known, fitted_too))
        on_row()
    return rows


def _row(run: Measurement, known: Sequence[Calibration] | None, fitted_too: bool) -> Row:
    bare = Row(
        run.id,
        run.gpu,
        run.kernel,
        run.pattern or run.phase,
        run.latency_ms,
        table=run.table,
        phase=run.phase,
        head_dim=run.head_dim or 0,
        tokens=run.seq_kv or 0,
        window=window_of(run),
        problem=f"{run.kernel} {_shape(run)}",
        shape=_shape(run),
    )
    if is_fitted(run) and not fitted_too:
        return bare._replace(skipped="constants were fitted to this run")
    timed = timed_as(run.table, run.kernel)
    try:
        parts = [_simulated(part, timed, known) for part in passes_of(run)]
    except UserError as error:
        return bare._replace(skipped=str(error))
    # Of a run forward and backward, the band is that of the backward call, which is the longer one.
    *_, (asked, last) = parts
    band = band_of(last.choice, asked.question)
    predicted = sum(simulated.stages[timed.stage] for _, simulated in parts) * 1e3
    return bare._replace(
        predicted_ms=predicted,
        low_ms=predicted / band.high,
        high_ms=predicted / band.low,
        flop_bound_ms=sum(simulated.stages["ideal"] for _, simulated in parts) * 1e3,
        tile_bound_ms=sum(simulated.stages["padding"] for _, simulated in parts) * 1e3,
        worst_tile_ms=sum(simulated.stages["padding"] * _worst_over_mean(simulated) for _, simulated in parts) * 1e3,
        flops=sum(_flops(*part) for part in parts),
        bytes=sum(_moved(asked) for asked, _ in parts),
        validity=band.validity,
    )


def _simulated(run: Measurement, timed: Timed, known: Sequence[Calibration] | None) -> tuple[Asked, Run]:
    asked = asked_of(run)
    if timed.stage == "side":
        asked = asked._replace(spec=environment_of(run.table, asked.kernel, asked.spec, known))
    if not timed.launched:
        asked = asked._replace(spec=with_leaves(asked.spec, {"launch.kernel_us": 0.0}))
    done = simulate(asked.question, asked.spec, kernel=asked.kernel, **asked.tiles, setting=timed.setting, known=known)
    return asked, done


def _worst_over_mean(simulated: Run) -> float:
    """Visits of the longest owner tile over those of the mean one, of the kernel that runs the pattern."""
    schedule = next(op.schedule for op in simulated.plan if isinstance(op, Attention))
    return schedule.max_visited * schedule.work_rows / max(schedule.visited, 1)


def _flops(asked: Asked, simulated: Run) -> float:
    """Live operations."""
    pairs = sum(op.schedule.pairs for op in simulated.plan if isinstance(op, Attention))
    return float(asked.question.problem.flops(pairs))


def _moved(asked: Asked) -> float:
    """Bytes of Q and O, and of the K and V that are read."""
    p, window = asked.question.problem, asked.question.pattern.params().get("window")
    keys = min(p.seq_kv, p.seq_q + window - 1) if isinstance(window, int) else p.seq_kv
    tokens = p.seq_q * p.q_heads + keys * p.kv_heads
    return float(p.batch * tokens * (p.head_dim + p.head_dim_v) * p.element_bytes)


def _shape(run: Measurement) -> str:
    """What two runs share that differ only in kernel and pattern."""
    sizes = (run.batch, run.q_heads, run.kv_heads, run.seq_q, run.seq_kv, run.head_dim)
    return f"{run.table} {run.gpu} {run.phase} {run.dtype} {sizes}"


def pattern_class(row: Row) -> str:
    """Our name for the pattern of a row, or the table's where we have none."""
    return pattern_for(row.pattern) or row.pattern


def is_dense(row: Row) -> bool:
    """Whether a row computes all that can be attended to."""
    return pattern_class(row) in ("dense", "causal")
