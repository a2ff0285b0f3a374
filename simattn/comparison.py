"""compare: patterns on GPUs, ranked."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from msgspec import Struct, to_builtins

from .facts import UserError
from .hwspecs import gpus as shelf
from .simulator import Prediction, predict
from .workloads.related import system_of

Progress = Callable[[str, int, int], None]
"""Called before each row: what is being simulated, rows done, rows in all."""


class Row(Struct, frozen=True, kw_only=True):
    """One pattern on one GPU; `error` says in a line why there is no answer."""

    pattern: str
    gpu: str
    kernel: str | None = None
    latency_ms: float | None = None
    latency_ms_low: float | None = None
    latency_ms_high: float | None = None
    dense_ms: float | None = None
    speedup: float | None = None
    bound_flop: float | None = None
    bound_tiles: float | None = None
    density: float | None = None
    side_ms: float | None = None
    limiter: str | None = None
    calibrated: bool | None = None
    exactness: str | None = None
    error: str | None = None


class Comparison(Struct, frozen=True, kw_only=True):
    """Rows from the shortest latency to the longest; those without an answer come last."""

    rows: tuple[Row, ...]

    def to_dicts(self) -> list[dict[str, Any]]:
        """The rows as plain values."""
        return [dict(to_builtins(row)) for row in self.rows]


def compare(
    hw: str | Sequence[str], patterns: str | Sequence[str], *, progress: Progress | None = None, **options: Any
) -> Comparison:
    """Predict every pattern on every GPU, and rank the answers by latency.

    Parameters
    ----------
    hw, patterns : sequence of str
        Names, aliases or TOML files.
    progress : callable, optional
        Told of every row before it is simulated.
    **options
        As of `predict`: `model`, `shape`, `grid`, `seq_q`, `dtype`, `fidelity` ... for all rows.

    Raises
    ------
    UserError
        A name is unknown, or no row has an answer; where some have, the others say why not.

    Examples
    --------
    >>> ranked = compare(["h100", "b200"], ["causal", "sliding_window"], seq_q=8192)
    >>> fastest, slowest = ranked.rows[0], ranked.rows[-1]
    >>> (fastest.pattern, fastest.gpu), slowest.gpu
    (('sliding_window', 'b200_sxm'), 'h100_sxm')
    """
    gpus, names = ([value] if isinstance(value, str) else list(value) for value in (hw, patterns))
    if not gpus or not names:
        raise UserError("compare needs at least one GPU and one pattern")
    for gpu in gpus:
        shelf.load(gpu)
    for name in names:
        system_of(name)
    rows: list[Row] = []
    for gpu in gpus:
        for name in names:
            if progress is not None:
                progress(f"{name} on {gpu}", len(rows), len(gpus) * len(names))
            try:
                rows.append(_row(name, predict(name, gpu, **options)))
            except UserError as error:
                rows.append(Row(pattern=name, gpu=gpu, error=str(error)))
    if all(row.error for row in rows):
        raise UserError(rows[0].error or "")
    return Comparison(rows=tuple(sorted(rows, key=lambda row: (row.latency_ms is None, row.latency_ms or 0.0))))


def _row(name: str, p: Prediction) -> Row:
    return Row(
        pattern=name,
        gpu=p.gpu,
        kernel=p.kernel,
        latency_ms=p.latency_ms,
        latency_ms_low=p.latency_ms_low,
        latency_ms_high=p.latency_ms_high,
        dense_ms=p.dense.latency_ms,
        speedup=p.speedup,
        bound_flop=p.bounds.flop,
        bound_tiles=p.bounds.tile_mean,
        density=p.density.pairs,
        side_ms=sum(op.latency_ms for op in p.side),
        limiter=p.limiter,
        calibrated=p.provenance.calibrated_on is not None,
        exactness=p.provenance.exactness,
    )
