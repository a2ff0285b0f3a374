"""What the bundled kernels cost when compiled, as data: `compiled_counts.json`, by version of Triton, architecture and config.

Written by `simattn kernels compile --write`; read where no compiler is.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache
from pathlib import Path

import msgspec

from ..facts import UserError
from .compiled import Compiled

FILE = Path(__file__).with_name("compiled_counts.json")


@cache
def shipped() -> tuple[Compiled, ...]:
    """All counts that ship with the package.

    >>> all(abs(row.tensor_check - 1) < 0.01 for row in shipped())
    True
    """
    return read(FILE)


def read(path: Path) -> tuple[Compiled, ...]:
    """The rows of a file of counts; none where there is no file."""
    if not path.is_file():
        return ()
    try:
        return msgspec.json.decode(path.read_bytes(), type=tuple[Compiled, ...])
    except msgspec.MsgspecError as error:
        raise UserError(f"{path} is not a file of counts: {error}") from None


def write(path: Path, rows: Sequence[Compiled]) -> None:
    """Put rows into a file, one a line, in an order that does not depend on how they were made; like rows are replaced."""

    def key(row: Compiled) -> tuple[str | int, ...]:
        c = row.config
        return row.triton, int(row.arch[2:]), row.kernel, c.head_dim, c.block_m, c.block_n, c.warps, c.stages, row.gpu, c.dtype

    kept = {key(row): row for row in (*read(path), *rows)}
    lines = ",\n".join(msgspec.json.encode(_short(kept[name])).decode() for name in sorted(kept))
    path.write_text(f"[\n{lines}\n]\n", encoding="utf-8")


def _short(row: Compiled) -> Compiled:
    """Whole numbers without their `.0`, so that a difference of two files is one of the code."""
    loops = tuple(
        msgspec.structs.replace(loop, instructions={op: _whole(n) for op, n in loop.instructions.items()}) for loop in row.loops
    )
    plain = {unit: _whole(n) for unit, n in row.loop.items()}
    return msgspec.structs.replace(row, loops=loops, loop=plain)


def _whole(number: float) -> float:
    return int(number) if number == int(number) else round(number, 4)
