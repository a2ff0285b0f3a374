"""Elementwise: instructions of PyTorch's elementwise kernels that compute the address of each value.

The table is data (`elementwise.toml`), counted in compiled code.
"""

from __future__ import annotations

import tomllib
from functools import cache
from pathlib import Path
from typing import Any

import msgspec
from msgspec import Struct

from ..facts import Provenance, UserError


class _Instructions(Struct, frozen=True, forbid_unknown_fields=True):
    fixed: float
    division: float = 0.0


_FILE = Path(__file__).with_name("elementwise.toml")


@cache
def _table() -> tuple[dict[str, dict[str, _Instructions]], dict[str, str]]:
    """Instructions of each form by architecture, and architectures that are counted as another one."""
    text: dict[str, Any] = tomllib.loads(_FILE.read_text(encoding="utf-8"))
    msgspec.convert(text.pop("meta"), dict[str, Provenance])
    same = msgspec.convert(text.pop("same"), dict[str, str])
    return msgspec.convert(text, dict[str, dict[str, _Instructions]]), same


def instructions_of_value(arch: str, form: str, divisions: int) -> float:
    """Instructions that a thread issues for one value.

    Parameters
    ----------
    form : str
        Form of the kernel, as `elementwise.toml` explains them.
    divisions : int
        Integer divisions that lead from the number of a value to its place.

    Raises
    ------
    UserError
        The kernels were not counted on this architecture.

    Examples
    --------
    >>> instructions_of_value("sm100", "broadcast", 2)
    54.0
    """
    counted, same = _table()
    forms = counted.get(same.get(arch, arch))
    if forms is None:
        known = ", ".join([*counted, *same])
        raise UserError(f"instructions of elementwise kernels were not counted on {arch}, only on {known}")
    return forms[form].fixed + divisions * forms[form].division
