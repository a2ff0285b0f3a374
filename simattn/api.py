"""Python functions of the front door that belong to no single room."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from .hwspecs import GpuSpec, gpus

if TYPE_CHECKING:
    from .validation import GroupScore, Row


def load_gpu(name: str, **overrides: Any) -> GpuSpec:
    """A GPU by name, alias or path of a TOML file.

    Parameters
    ----------
    name : str
        `b200`, `b200_sxm`, `./my_gpu.toml`.
    **overrides
        Tables laid over the file, such as `chip={"sm_count": 160}`.

    Raises
    ------
    UserError
        The name is unknown, or a value is missing, unknown or out of range.

    Examples
    --------
    >>> load_gpu("h100", chip={"sm_count": 114}).chip.sm_count
    114
    """
    return gpus.load(name, overrides)


class Validation(NamedTuple):
    """Measured runs beside what was predicted for them."""

    rows: tuple[Row, ...]
    """Every run, in the order of the table; one that could not be simulated says why in `skipped`."""
    groups: tuple[GroupScore, ...]
    """Errors by GPU, kernel and pattern, ours and those of the naive estimators."""

    def to_dict(self) -> dict[str, Any]:
        """The JSON of `simattn validate`."""
        return {"rows": [row.plain() for row in self.rows], "groups": [group.plain() for group in self.groups]}


def validate(table: str | Path | None = None, *, on_row: Callable[[], None] = lambda: None, **fields: Any) -> Validation:
    """Hold predictions against measured runs.

    Parameters
    ----------
    table : path, optional
        JSON lines of measurements, or an export of a profiler; the published runs that are shipped if there is none.
    on_row : callable
        Called after every row.
    **fields
        Fields of every row that the table leaves out, such as `gpu="h100"`.

    Raises
    ------
    UserError
        The table cannot be read, or a row of it is wrong.

    Examples
    --------
    >>> import json, tempfile
    >>> run = {"id": "1", "table": "mine", "gpu": "h100", "kernel": "fa3", "phase": "prefill", "dtype": "bf16", "batch": 2,
    ...     "q_heads": 16, "kv_heads": 16, "head_dim": 128, "seq_q": 8192, "seq_kv": 8192, "pattern": "dense", "latency_ms": 1.75}
    >>> table = Path(tempfile.mkdtemp()) / "mine.jsonl"
    >>> _ = table.write_text(json.dumps(run))
    >>> abs(validate(table).rows[0].error) < 0.2
    True
    """
    from .validation import compare, group_scores, published_runs, read_runs

    runs = read_runs(Path(table), fields) if table else published_runs()
    rows = compare(runs, on_row)
    return Validation(tuple(rows), tuple(group_scores(rows)))
