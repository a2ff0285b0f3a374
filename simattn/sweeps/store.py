"""The files of a sweep: finished chunks on its way, and the table at its end.

Beside `out.parquet` lies the folder `out.parquet.parts` while the sweep is on its way: `sweep.json` says what it is, and each
finished chunk is a file that appears whole or not at all. The table appears the same way, and then the folder goes.
"""

from __future__ import annotations

import html
import io
import json
import os
import shutil
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import msgspec
from msgspec import Struct

from ..facts import UserError
from ..tables import as_csv, as_html
from .row import Column, Row

FORMATS = (".parquet", ".csv", ".json", ".html")

KEY = b"simattn.sweep"
"""Where the metadata of a Parquet file says which sweep it is."""


class Identity(Struct, frozen=True, kw_only=True):
    """What the rows of a sweep depend on: two sweeps of one hash have the same rows."""

    hash: str
    spec: dict[str, Any]
    version: str
    """Of simattn."""
    gpus: dict[str, str]
    """Hashes of the specs of the GPUs, by the names in the sweep."""
    files: dict[str, str]
    """Hashes of the files that it names: patterns, kernels, masks."""
    calibrations: str
    """Hash of the constants that calibrations have found."""

    def difference(self, other: Identity) -> str:
        """In words, what of two sweeps differs."""
        spec = sorted(k for k in self.spec.keys() | other.spec.keys() if self.spec.get(k) != other.spec.get(k))
        parts = [name for name in ("version", "gpus", "files", "calibrations") if getattr(self, name) != getattr(other, name)]
        return ", ".join((*spec, *parts))


class Store:
    """The files of one sweep that is written to `path`."""

    def __init__(self, path: Path, identity: Identity) -> None:
        if path.suffix not in FORMATS:
            raise UserError(f"--output must end in one of {', '.join(FORMATS)}, got {path}")
        if path.suffix == ".parquet":
            _pyarrow()
        self.path, self.identity = path, identity
        self.parts = path.with_name(f"{path.name}.parts")
        self.about = path.with_name(f"{path.name}.sweep.json")
        """What a CSV file is the result of, which it cannot say itself."""

    @contextmanager
    def opened(self) -> Iterator[bool]:
        """Begin, or go on; says whether the table is there already, and nothing is left to do.

        Raises
        ------
        UserError
            The file or the folder is that of another sweep, or one is at work on it.
        """
        import fcntl

        if not self.path.parent.is_dir():
            raise UserError(f"no such folder: {self.path.parent}")
        if self.path.exists() and not self.parts.exists():
            self._check(written(self.path), self.path)
            yield True
            return
        shutil.rmtree(self._gone, ignore_errors=True)
        self.parts.mkdir(exist_ok=True)
        with (self.parts / "lock").open("w") as lock:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except OSError:
                raise UserError(f"another sweep is at work on {self.path}") from None
            about = self.parts / "sweep.json"
            if about.exists():
                self._check(_identity(about.read_bytes()), self.parts)
            elif any(self.parts.glob("part-*")):
                raise UserError(f"{self.parts} is no folder of a sweep; remove it, or write elsewhere")
            else:
                if self.path.exists():
                    self._check(written(self.path), self.path)
                _replace(about, msgspec.json.encode(self.identity))
            yield False

    def _check(self, found: Identity | None, where: Path) -> None:
        if found is None:
            raise UserError(f"{where} is there, and not by a sweep; remove it, or write elsewhere")
        if found.hash != self.identity.hash:
            raise UserError(
                f"{where} is of another sweep (other {found.difference(self.identity)}); remove it, or write elsewhere"
            )

    def finished(self) -> set[int]:
        """Numbers of the chunks that are there."""
        return {int(path.stem.removeprefix("part-")) for path in self.parts.glob("part-*.json")}

    def read(self, chunk: int) -> list[Row]:
        """The rows of a finished chunk."""
        rows: list[Row] = msgspec.json.decode((self.parts / f"part-{chunk:06d}.json").read_bytes())
        return rows

    def write(self, chunk: int, rows: Sequence[Row]) -> None:
        """Keep the rows of a chunk."""
        _replace(self.parts / f"part-{chunk:06d}.json", msgspec.json.encode(rows))

    def finish(self, rows: Sequence[Row], table: Sequence[Column]) -> None:
        """Write the table, and remove what led to it."""
        if self.path.suffix == ".csv":
            _replace(self.about, msgspec.json.encode(self.identity))
        _replace(self.path, render(rows, table, self.identity, self.path.suffix))
        # The folder goes in one step, too: half of it would be a sweep half done.
        self.parts.rename(self._gone)
        shutil.rmtree(self._gone, ignore_errors=True)

    @property
    def _gone(self) -> Path:
        """The folder on its way out."""
        return self.parts.with_name(f".{self.parts.name}.done")


def render(rows: Sequence[Row], table: Sequence[Column], identity: Identity, form: str) -> bytes:
    """Rows as a file: `.parquet`, `.csv`, `.json` or `.html`."""
    if form == ".parquet":
        return _parquet(rows, table, identity)
    if form == ".csv":
        return as_csv([column.name for column in table], rows).encode()
    plain = msgspec.to_builtins(identity)
    units = {column.name: column.unit for column in table if column.unit}
    if form == ".json":
        return json.dumps({"schema": SCHEMA, "sweep": plain, "units": units, "rows": list(rows)}).encode()
    titles = [f"{column.name} [{column.unit}]" if column.unit not in ("", "1") else column.name for column in table]
    return as_html(titles, [list(row.values()) for row in rows], "simattn sweep", {KEY.decode(): json.dumps(plain)}).encode()


SCHEMA = "simattn.sweep/1"


def _parquet(rows: Sequence[Row], table: Sequence[Column], identity: Identity) -> bytes:
    pa, pq = _pyarrow()
    types = {"int": pa.int64(), "float": pa.float64(), "text": pa.string(), "bool": pa.bool_()}
    fields = [pa.field(c.name, types[c.type], metadata={"unit": c.unit} if c.unit else None) for c in table]
    schema = pa.schema(fields, metadata={KEY: msgspec.json.encode(identity)})
    arrays = [pa.array([row[c.name] for row in rows], types[c.type]) for c in table]
    written = io.BytesIO()
    pq.write_table(pa.Table.from_arrays(arrays, schema=schema), written)
    return written.getvalue()


def _pyarrow() -> tuple[Any, Any]:
    try:
        import pyarrow
        import pyarrow.parquet
    except ImportError:
        raise UserError("Parquet needs pyarrow: pip install 'simattn[sweep]'") from None
    return pyarrow, pyarrow.parquet


def read_rows(path: Path) -> list[Row]:
    """The rows of a table, as `finish` was given them."""
    if path.suffix == ".parquet":
        rows: list[Row] = _pyarrow()[1].read_table(path).to_pylist()
        return rows
    if path.suffix == ".json":
        return list(json.loads(path.read_bytes())["rows"])
    raise UserError(f"{path} is a finished table, which is not read again; only .parquet and .json are")


def written(path: Path) -> Identity | None:
    """Which sweep a table is the result of, where it says so."""
    try:
        if path.suffix == ".parquet":
            return _identity((_pyarrow()[1].read_schema(path).metadata or {}).get(KEY, b""))
        if path.suffix == ".json":
            return _identity(json.dumps(json.loads(path.read_bytes())["sweep"]).encode())
        if path.suffix == ".html":
            found = path.read_text(encoding="utf-8").split(f'<meta name="{KEY.decode()}" content="', 1)[1].split('"', 1)[0]
            return _identity(html.unescape(found).encode())
        return _identity(path.with_name(f"{path.name}.sweep.json").read_bytes())
    except (OSError, ValueError, LookupError, TypeError):
        return None


def _identity(content: bytes) -> Identity | None:
    try:
        return msgspec.json.decode(content, type=Identity)
    except msgspec.DecodeError:
        return None


def _replace(path: Path, content: bytes) -> None:
    """Put a file in place whole, or not at all."""
    beside = path.with_name(f".{path.name}.new")
    with beside.open("wb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())
    beside.replace(path)
