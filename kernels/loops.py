"""What finding the values costs: instructions of PyTorch's elementwise kernels that are not vectorised.

The table is data (`loops.toml`), counted in compiled code.
"""

from __future__ import annotations

import tomllib
from functools import cache
from pathlib import Path
from typing import Any

import msgspec
from msgspec import Struct

from ..facts import Provenance, UserError


class _Loop(Struct, frozen=True, forbid_unknown_fields=True):
    fixed: float
    division: float = 0.0


_FILE = Path(__file__).with_name("loops.toml")


@cache
def _table() -> tuple[dict[str, dict[str, _Loop]], dict[str, str]]:
    """Loops by architecture, and architectures whose loops are those of another."""
    text: dict[str, Any] = tomllib.loads(_FILE.read_text(encoding="utf-8"))
    msgspec.convert(text.pop("meta"), dict[str, Provenance])
    same = msgspec.convert(text.pop("same"), dict[str, str])
    return msgspec.convert(text, dict[str, dict[str, _Loop]]), same


def loop_instructions(arch: str, loop: str, divisions: int) -> float:
    """Instructions that a thread issues for one value.

    Parameters
    ----------
    loop : str
        Form of the kernel, as `loops.toml` explains them.
    divisions : int
        Integer divisions that lead from the number of a value to its place.

    Raises
    ------
    UserError
        The kernels were not counted on this architecture.

    Examples
    --------
    >>> loop_instructions("sm100", "broadcast", 2)
    54.0
    """
    counted, same = _table()
    loops = counted.get(same.get(arch, arch))
    if loops is None:
        known = ", ".join([*counted, *same])
        raise UserError(f"instructions of elementwise kernels were not counted on {arch}, only on {known}")
    return loops[loop].fixed + divisions * loops[loop].division
