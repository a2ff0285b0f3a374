"""The scoreboard: every measured run that the protocol names, held against predictions, by class.

Class A: tables of a GPU on which nothing was fitted. B: tables whose kernel was fitted on a part of their dense rows. C:
published runs. D: tables that are only scored, of another framework, of encoders, of decode and of fp8.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import NamedTuple

from ..facts import UserError
from ..kernels import Calibration
from ..kernels.band import size_class
from ..kernels.calibration import all_calibrations
from .compare import Row, compare, is_dense
from .measurement import Measurement
from .noise import Floor, noise_floor
from .protocol import MOST_OF_CLASS, Subject, fit_rows, protocol, score_rows
from .roofline import Roofline, fitted_roofline
from .scores import FORWARD, Group, GroupScore, dense_rooflines, group_scores, kind_of
from .sources import published_runs, tables
from .sources.aiconfigurator import Table, read_table

PARTS = {"A": "unseen GPU", "B": "same table", "C": "published kernels", "D": "scored only"}


class Board(NamedTuple):
    """Everything that was compared.

    Attributes
    ----------
    rows : list of Row
        With the class in `part`.
    scores : list of (str, GroupScore)
        By class.
    floors : dict
        Noise floor, by table and kernel.
    """

    rows: list[Row]
    scores: list[tuple[str, GroupScore]]
    floors: dict[tuple[str, str], Floor]


def scoreboard(parts: Iterable[str] = PARTS, on_row: Callable[[], None] = lambda: None) -> Board:
    """Compare every run that the protocol names.

    Raises
    ------
    UserError
        The measured tables are not installed.
    """
    wanted, rules = set(parts), protocol()
    board = Board([], [], {})
    rooflines: dict[tuple[str, str], Roofline | None] = {}
    for part, subjects in (("A", rules.unseen), ("B", rules.calibrated), ("D", rules.scored)):
        for subject in subjects if part in wanted else ():
            runs = runs_of(subject)
            board.floors.setdefault((f"aiconfigurator/{subject.table}", subject.kernel), _floor(subject, runs))
            rows, scores = _table(part, subject, runs, rooflines, on_row)
            board.rows.extend(rows)
            board.scores.extend((part, s) for s in scores)
    if "C" in wanted:
        rows = [row._replace(part="C") for row in with_dense(compare(published_runs(), on_row))]
        board.rows.extend(rows)
        board.scores.extend(("C", s) for s in group_scores(rows, _published_groups))
    return board


def runs_of(subject: Subject) -> list[Measurement]:
    """All rows of a subject's table and kernel."""
    return [run for run in read_table(*Table.of(subject.table)) if run.kernel == subject.kernel]


def known_to(subject: Subject) -> list[Calibration] | None:
    """The calibrations that predictions of a subject may use; None for all.

    Raises
    ------
    UserError
        The protocol names one that there is not.
    """
    if not subject.knows:
        return None
    found = {f"{c.kernel}@{c.gpu}": c for c in all_calibrations()}
    missing = [name for name in subject.knows if name not in found]
    if missing:
        raise UserError(f"no calibration {', '.join(missing)}: simattn calibrate --all makes all that the protocol names")
    return [found[name] for name in subject.knows]


def unseen_rows(subject: Subject, on_row: Callable[[], None] = lambda: None) -> list[Row]:
    """Rows of a subject as predicted with what it may know."""
    return compare(score_rows(runs_of(subject), MOST_OF_CLASS["A"]), on_row, known=known_to(subject))


def _table(
    part: str,
    subject: Subject,
    runs: Sequence[Measurement],
    rooflines: dict[tuple[str, str], Roofline | None],
    on_row: Callable[[], None],
) -> tuple[list[Row], list[GroupScore]]:
    known, chosen = known_to(subject), score_rows(runs, MOST_OF_CLASS[part])
    # Of every window at the head dim that is fitted the dense call at its shape, for the speedup; it is not scored.
    beside = compare(_dense_twins(chosen, runs), on_row, known=known) if part != "D" else []
    rows = [row._replace(part=part) for row in with_dense(compare(chosen, on_row, known=known), beside)]
    # What rows to fit need of FLOPs and bytes is the same whatever is known.
    name = (subject.table, subject.kernel)
    if name not in rooflines:
        rooflines[name] = fitted_roofline(compare(fit_rows(runs), on_row, known=known))
    fitted = rooflines[name]
    # A table without rows to fit has a roofline that saw its dense rows.
    return rows, group_scores(rows, _table_groups, (lambda row: fitted) if fitted else dense_rooflines(rows))


def _dense_twins(chosen: Sequence[Measurement], runs: Sequence[Measurement]) -> list[Measurement]:
    have = {run.id for run in chosen}
    wanted = {_shape(run) for run in chosen if run.pattern == "sliding_window" and run.head_dim == 128}
    return [
        run
        for run in runs
        if run.pattern != "sliding_window" and run.id not in have and _shape(run) in wanted and not run.suspect
    ]


def _shape(run: Measurement) -> tuple[int | None, ...]:
    return (run.batch, run.q_heads, run.kv_heads, run.seq_q, run.seq_kv, run.head_dim)


def with_dense(rows: Sequence[Row], beside: Iterable[Row] = ()) -> list[Row]:
    """Rows with the times of the dense run at their shape, where they are sparse: of the same kernel, or else of another one."""
    dense: dict[str, list[Row]] = {}
    for row in (*rows, *beside):
        if row.error is not None and is_dense(row):
            dense.setdefault(row.shape, []).append(row)
    found = []
    for row in rows:
        twins = dense.get(row.shape, []) if row.error is not None and not is_dense(row) else []
        twin = next((t for t in twins if t.kernel == row.kernel), twins[0] if twins else None)
        if twin is not None and twin.measured_ms and twin.predicted_ms:
            row = row._replace(dense_ms=(twin.measured_ms, twin.predicted_ms))
        found.append(row)
    return found


def _table_groups(row: Row) -> list[Group]:
    """Groups of a table: by head dim, dense and windows, and the fitted head dim by size class."""
    kind = "window" if row.window else "dense"
    # What a table is of, beside its GPU, framework and version: /decode, /encoder, /fp8.
    of = "".join(f", {word}" for word in row.table.split("/")[4:])
    own = Group(row.gpu, row.kernel, f"{kind}, D{row.head_dim}{of}")
    return [own, *([own._replace(size=size_class(row.tokens))] if row.head_dim == 128 else [])]


def _published_groups(row: Row) -> list[Group]:
    kind = "all dense" if is_dense(row) else "all sparse"
    kind += "" if row.phase in FORWARD else f", {row.phase}"
    return [Group("all", "all", "all"), Group("all", "all", kind), Group(row.gpu, row.kernel, kind_of(row))]


def _floor(subject: Subject, runs: Sequence[Measurement]) -> Floor:
    """The noise floor, against the nearest table of the same GPU that has rows of the same kernel."""
    own = Table.of(subject.table)
    for other in tables(own.op):
        other = other._replace(dtype=own.dtype)
        if other.gpu == own.gpu and other.framework == own.framework and other != own:
            floor = noise_floor(runs, read_table(*other))
            if floor.sibling_n:
                return floor
    return noise_floor(runs)
