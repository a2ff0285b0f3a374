"""What may be fitted and what must be predicted, decided before any constant is: `protocol.toml`, read."""

from __future__ import annotations

import tomllib
from collections.abc import Iterable
from fnmatch import fnmatchcase
from functools import cache
from hashlib import sha256
from pathlib import Path
from typing import Any, Literal

import msgspec
from msgspec import Struct

from .measurement import Measurement

Role = Literal["fit", "score"]

SHORTEST_MS = 0.03
"""Below it a call is all launch, and its noise is large."""

MOST_FITTED = 220
"""Rows that are fitted, of the fit set's thousands: a fixed random choice."""

MOST_SCORED = 200
"""Rows that are scored of each head dim and window of a table: a fixed random choice."""

MOST_OF_CLASS = {"A": 100, "B": MOST_SCORED, "D": 60}
"""The same by class of the scoreboard: the first so many of that choice."""


class _Rule(Struct, frozen=True, forbid_unknown_fields=True):
    """Rows of one role; a field that is not given holds for all."""

    role: Role
    table: str
    why: str
    pattern: tuple[str, ...] = ()
    phase: tuple[str, ...] = ()
    dtype: tuple[str, ...] = ()
    head_dim: int = 0
    suite: str = ""
    params: dict[str, Any] = {}
    half: bool = False

    def holds(self, row: Measurement) -> bool:
        return (
            fnmatchcase(row.table, self.table)
            and (not self.pattern or row.pattern in self.pattern)
            and (not self.phase or row.phase in self.phase)
            and (not self.dtype or row.dtype in self.dtype)
            and self.head_dim in (0, row.head_dim)
            and self.suite in ("", row.suite)
            and all(row.pattern_params.get(name) == value for name, value in self.params.items())
        )


class Subject(Struct, frozen=True, forbid_unknown_fields=True):
    """A kernel of a measured table that is held against predictions.

    Attributes
    ----------
    table, kernel : str
        As `aiconfigurator` names them.
    knows : tuple of str
        All calibrations that the predictions may use, `KERNEL@GPU`; none given: every one that there is.
    step : str
        How far the target is from the GPU that is known: another of its architecture, or of another generation.
    power_limited : bool
        The GPU throttles at once under load; reported apart.
    """

    table: str
    kernel: str
    knows: tuple[str, ...] = ()
    step: Literal["", "architecture", "generation"] = ""
    power_limited: bool = False


class Bar(Struct, frozen=True, forbid_unknown_fields=True):
    """What the rows of a table have to reach, in percent."""

    part: Literal["A", "B", "C", "D"]
    rows: Literal["dense", "window", "sparse", "decode"]
    limit: float
    statistic: Literal["mape", "median", "bias", "speedup"] = "mape"
    head_dims: Literal["128", "other"] = "128"
    size: str = ""
    step: Literal["", "architecture", "generation"] = ""
    power_limited: bool = False


class Protocol(Struct, frozen=True, forbid_unknown_fields=True):
    """The whole file."""

    meta: dict[str, str]
    rule: tuple[_Rule, ...]
    calibrated: tuple[Subject, ...]
    unseen: tuple[Subject, ...]
    scored: tuple[Subject, ...]
    bar: tuple[Bar, ...]


@cache
def protocol() -> Protocol:
    """Rules, and the tables that are held against predictions.

    >>> {subject.kernel for subject in protocol().unseen if subject.table.startswith("h200")}
    {'vllm/vllm_flash_attn_fa3'}
    """
    return msgspec.convert(tomllib.loads((Path(__file__).parent / "protocol.toml").read_text(encoding="utf-8")), Protocol)


def role(row: Measurement) -> Role:
    """Whether constants may be fitted to a row, or are only scored on it.

    Constants are fitted on a fixed random half of the dense causal rows of head dim 128, and scored on everything else. The other
    half says how well they hold at shapes in between; windows and other head dims say whether they are the cost of a tile, a CTA
    and a launch, or only a curve through dense rows. What is sold, the time of a sparse call, is thus never fitted.

    The half is a hash of the row's id, which holds the table and the shape but neither time nor position: no rerun, reordering or
    new row moves a row from one side to the other, and nobody can choose the side. Suspect rows are never fitted. Which tables
    are offered at all is up to the caller: of those that must stay blind, such as published runs, none.

    Examples
    --------
    >>> shape = {"gpu": "h100_sxm", "kernel": "fa3", "phase": "prefill", "dtype": "bf16", "head_dim": 128}
    >>> [role(Measurement(id=f"row {i}", table="t", pattern="causal", **shape)) for i in range(4)]
    ['score', 'fit', 'score', 'score']
    >>> {role(Measurement(id=f"row {i}", table="t", pattern="sliding_window", **shape)) for i in range(4)}
    {'score'}
    """
    rule = next((rule for rule in protocol().rule if rule.holds(row)), None)
    if rule is None or row.suspect:
        return "score"
    return "score" if rule.half and sha256(row.id.encode()).digest()[0] % 2 else rule.role


def makes_bands(id: str) -> bool:
    """Whether the residual of a scored row widens or narrows the bands; the coverage of the bands is counted on the others.

    Another bit of the hash than that which decides the role, so that both halves are of every kind.
    """
    return sha256(id.encode()).digest()[1] % 2 == 0


MASK_FREE_TABLE = "natten-docs-2d-flux"
"""The one table of published runs that has rows to fit."""


def is_fitted(run: Measurement) -> bool:
    """Whether a published run was fitted."""
    return run.table == MASK_FREE_TABLE and role(run) == "fit"


def fit_rows(runs: Iterable[Measurement], most: int = MOST_FITTED) -> list[Measurement]:
    """The rows of a table that are fitted: a fixed random choice of those that may be.

    Calls of one token are not among them: to a kernel they are no prefill.
    """
    return [run for run in in_order(runs) if role(run) == "fit" and run.seq_q != 1][:most]


def score_rows(runs: Iterable[Measurement], most: int = MOST_SCORED) -> list[Measurement]:
    """The rows of a table that are scored: a fixed random choice of each head dim and window. None of them may be fitted."""
    groups: dict[tuple[int, int], list[Measurement]] = {}
    for run in in_order(runs):
        window = window_of(run)
        # A window as long as the keys is none.
        if role(run) == "score" and not (window and window >= (run.seq_kv or 0)):
            groups.setdefault((run.head_dim or 0, window), []).append(run)
    return [run for _, members in sorted(groups.items()) for run in members[:most]]


def window_of(run: Measurement) -> int:
    """Keys that a query sees; 0 where it is no sliding window."""
    width = run.pattern_params.get("window", 0) if run.pattern == "sliding_window" else 0
    return width if isinstance(width, int) else 0


def in_order(runs: Iterable[Measurement]) -> list[Measurement]:
    """Rows that are long enough to be more than launch and noise, in a fixed random order."""
    usable = (run for run in runs if not run.suspect and run.latency_ms is not None and run.latency_ms > SHORTEST_MS)
    # Another hash than that which decides the role.
    return sorted(usable, key=lambda run: sha256(b"order " + run.id.encode()).digest())
