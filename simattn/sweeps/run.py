"""sweep: every point predicted, kept as it is done, and put into one table."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from hashlib import sha256
from itertools import chain
from pathlib import Path
from typing import Any

import msgspec
from msgspec import Struct

from ..facts import UserError
from ..hwspecs import gpus
from ..kernels import kernels
from .row import Column, Row, columns
from .search import Search
from .space import Sample, Space, chunks, points_of
from .spec import OBJECTIVES, SweepSpec
from .store import Identity, Store, read_rows
from .workers import Predict, Task, calibrations_hash, workers

Progress = Callable[[int, int, int], None]
"""Told of points done, points in all, and points that failed."""


class Sweep(Struct, frozen=True, kw_only=True):
    """The answer of a sweep.

    Attributes
    ----------
    columns : tuple of Column
        Names, types and units.
    rows : list of dict
        In the order of the points.
    identity : Identity
        What the rows depend on, and a hash of it.
    """

    spec: SweepSpec
    columns: tuple[Column, ...]
    rows: list[Row]
    identity: Identity

    @property
    def failed(self) -> int:
        """Points without an answer."""
        return sum(row["error"] is not None for row in self.rows)

    def best(self, n: int = 1) -> list[Row]:
        """The best rows of what was optimized, or else those with the shortest latency."""
        objective = self.spec.optimize or "latency_ms"
        sign = 1 if OBJECTIVES[objective] == "minimize" else -1
        return sorted((row for row in self.rows if row["error"] is None), key=lambda row: sign * row[objective])[:n]


def sweep(
    spec: SweepSpec | None = None,
    *,
    output: str | Path | None = None,
    jobs: int | None = None,
    scheduler: str | None = None,
    progress: Progress | None = None,
    **fields: Any,
) -> Sweep:
    """Predict every point of a grid, of a random sample, or of a search.

    Parameters
    ----------
    spec : SweepSpec, optional
        What is asked; or give its fields: `patterns`, `hw`, `vary`, `options`, `kernels`, `random`, `seed` ...
    output : path, optional
        `.parquet`, `.csv`, `.json` or `.html`. A sweep that was stopped at any moment goes on from there when it is called
        again; one that is complete is read.
    jobs : int, optional
        Processes; by default one for every few hundred points, at most one a core.
    scheduler : str, optional
        Address of a Dask scheduler, such as `tcp://10.0.0.1:8786`, whose workers predict in place of processes of this machine.
    progress : callable, optional
        Told of points done, points in all, and failed points, as they are done.

    Returns
    -------
    Sweep

    Raises
    ------
    UserError
        A name or value is not usable, or `output` is that of another sweep. A point that fails raises nothing: its row says why.

    Examples
    --------
    >>> found = sweep(patterns="sliding_window", hw="h100", vary={"window": [256, 512]}, options={"seq_q": 4096, "q_heads": 8})
    >>> [row["window"] for row in found.rows], found.best()[0]["window"]
    ([256, 512], 256)
    """
    if (spec is None) == (not fields):
        raise UserError("give either a spec or its fields")
    asked = spec if spec is not None else SweepSpec.read({name: _listed(name, value) for name, value in fields.items()})
    if jobs is not None and jobs < 1:
        raise UserError(f"jobs must be at least 1, got {jobs}")
    if jobs is not None and scheduler is not None:
        raise UserError("give either jobs or a scheduler")
    space = Space(asked)
    specs = {name: gpus.load(name) for name in asked.hw}
    for kernel in asked.kernels:
        kernels.load(kernel)
    from .. import __version__

    identity = _identity(asked, {name: found.spec_hash() for name, found in specs.items()}, __version__)
    task = Task(asked, {n: (s.spec_hash(), msgspec.json.encode(s)) for n, s in specs.items()}, __version__, identity.calibrations)
    table = columns(asked)

    def answer(rows: list[Row]) -> Sweep:
        return Sweep(spec=asked, columns=table, rows=rows, identity=identity)

    whole = Search(space) if asked.optimize else points_of(space)
    total = len(whole)
    tell = progress or (lambda done, total, failed: None)
    with workers(task, total, jobs=jobs, scheduler=scheduler) as predicted:
        if output is None:
            kept: dict[int, list[Row]] = {}
            for number, rows in _predicted(whole, kept, predicted, total, tell):
                kept[number] = rows
            return answer(_in_order(kept))
        store = Store(Path(output), identity)
        with store.opened() as complete:
            if complete:
                tell(total, total, 0)
                return answer(read_rows(store.path))
            kept = {number: store.read(number) for number in store.finished()}
            for number, rows in _predicted(whole, kept, predicted, total, tell):
                store.write(number, rows)
                kept[number] = rows
            rows = _in_order(kept)
            store.finish(rows, table)
            return answer(rows)


def _predicted(
    whole: Search | Space | Sample, kept: dict[int, list[Row]], predicted: Predict, total: int, tell: Progress
) -> Iterator[tuple[int, list[Row]]]:
    """Chunks that are not kept yet, as they are done."""
    done = sum(map(len, kept.values()))
    failed = sum(row["error"] is not None for row in chain.from_iterable(kept.values()))
    tell(done, total, failed)
    found = _searched(whole, dict(kept), predicted) if isinstance(whole, Search) else _laid_out(whole, set(kept), predicted)
    for number, rows in found:
        done, failed = done + len(rows), failed + sum(row["error"] is not None for row in rows)
        yield number, rows
        tell(done, total, failed)


def _laid_out(points: Space | Sample, kept: set[int], predicted: Predict) -> Iterator[tuple[int, list[Row]]]:
    """Chunks whose points are known from the start."""
    order = points.work_order()
    missing = [(i, order[places]) for i, places in enumerate(chunks(len(points))) if i not in kept]
    yield from predicted([(i, [points[int(n)] for n in numbers]) for i, numbers in missing])


def _searched(search: Search, kept: dict[int, list[Row]], predicted: Predict) -> Iterator[tuple[int, list[Row]]]:
    """Chunks whose points follow from the rows before."""
    for i, numbers in enumerate(search.chunks()):
        points = search.ask(numbers)
        rows = kept.get(i)
        if rows is None:
            rows = _in_order(dict(predicted([(point.number, [point]) for point in points])))
            yield i, rows
        search.tell(rows)


def _in_order(kept: dict[int, list[Row]]) -> list[Row]:
    return sorted(chain.from_iterable(kept.values()), key=lambda row: int(row["point"]))


def _listed(name: str, value: Any) -> Any:
    """A field as a TOML file would have it: one name is a list of one."""
    return [value] if name in ("patterns", "hw", "kernels") and isinstance(value, str) else value


def _identity(spec: SweepSpec, hashes: dict[str, str], version: str) -> Identity:
    plain = msgspec.json.decode(msgspec.json.encode(spec))
    parts = {
        "spec": plain,
        "version": version,
        "gpus": hashes,
        "files": {name: _hash(Path(name)) for name in _files(spec)},
        "calibrations": calibrations_hash(),
    }
    return Identity(hash=sha256(msgspec.json.encode(parts, order="sorted")).hexdigest()[:16], **parts)


def _files(spec: SweepSpec) -> list[str]:
    """Files that a spec names."""
    given = [(name, str(value)) for name, value in spec.values() if name in FILES]
    named = [value.rpartition(":")[0] if name == "function" else value for name, value in given]
    return sorted({*named, *(name for name in (*spec.patterns, *spec.kernels) if name.endswith(".toml"))})


FILES = ("file", "function", "qk")
"""Parameters whose values name files."""


def _hash(path: Path) -> str:
    try:
        return sha256(path.read_bytes()).hexdigest()[:12]
    except OSError as error:
        raise UserError(f"{path}: {error.strerror}") from None
