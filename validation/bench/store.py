"""One file a run: a JSON object a line, appended as soon as it is measured, so that a run may be stopped and taken up again."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import msgspec

from ...facts import UserError


class Store:
    """Rows of a file, and whether a row is in it.

    Every row says by itself where, when and how it was taken; a file holds the rows of one GPU, driver and version of torch and
    triton, or its rows could not be compared.

    Parameters
    ----------
    path : Path
        A `.jsonl` file; made with the first row. A last line that was cut off in the middle is dropped.

    Raises
    ------
    UserError
        The file is no such file.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.rows: list[dict[str, Any]] = []
        if path.exists():
            self._read()
        elif not path.absolute().parent.is_dir():
            raise UserError(f"no such folder: {path.parent}")
        self._ids = {row["id"] for row in self.rows}

    def _read(self) -> None:
        content = self.path.read_bytes()
        whole = content[: content.rfind(b"\n") + 1]
        for number, line in enumerate(whole.splitlines(), 1):
            try:
                row = msgspec.json.decode(line)
                row["id"]
            except (msgspec.DecodeError, KeyError, TypeError):
                raise UserError(f"{self.path}, line {number}: no measurement") from None
            self.rows.append(row)
        tail = content[len(whole) :]
        if not tail:
            return
        try:
            row = msgspec.json.decode(tail)
            row["id"]
        except (msgspec.DecodeError, KeyError, TypeError):
            # A line that was being written when the run was killed begins like one; anything else is not ours to cut.
            begin = b'{"id":'
            if not (tail.startswith(begin) or begin.startswith(tail)):
                raise UserError(f"{self.path}: its end is no measurement") from None
            with self.path.open("r+b") as file:
                file.truncate(len(whole))
        else:
            self.rows.append(row)
            with self.path.open("ab") as file:
                file.write(b"\n")

    def __contains__(self, row_id: str) -> bool:
        return row_id in self._ids

    def require_same(self, environment: dict[str, Any]) -> None:
        """Raise UserError where rows of the file were taken elsewhere."""
        for row in self.rows:
            for name in SAME:
                if row.get(name) != environment.get(name):
                    raise UserError(
                        f"{self.path} has rows of {name} {row.get(name)}, this is {environment.get(name)}: give another --out"
                    )

    def append(self, row: dict[str, Any]) -> None:
        """Write a row to the end of the file, and to disk."""
        if row["id"] in self._ids:
            raise ValueError(f"row {row['id']} is in {self.path} already")
        with self.path.open("ab") as file:
            file.write(msgspec.json.encode(row) + b"\n")
            file.flush()
            os.fsync(file.fileno())
        self.rows.append(row)
        self._ids.add(row["id"])


SAME = ("gpu_name", "driver", "torch", "triton")
"""What all rows of a file have in common."""
