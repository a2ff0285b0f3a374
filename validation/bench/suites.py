"""Suites as lists of cases: the entries of `suites.toml`, crossed out."""

from __future__ import annotations

import re
import tomllib
from collections.abc import Iterator
from functools import cache
from itertools import product
from pathlib import Path
from typing import Any

import msgspec

from ...facts import UserError, unknown_name
from .case import SUITES, Case


@cache
def _document() -> dict[str, Any]:
    return tomllib.loads((Path(__file__).parent / "suites.toml").read_text(encoding="utf-8"))


def cases(suite: str, *, sm_count: int, tiny: bool = False) -> list[Case]:
    """The cases of a suite, in the order of the file.

    Parameters
    ----------
    suite : str
        One of `SUITES`, save `blind`, whose cases are drawn (`blind.draw`).
    sm_count : int
        SMs of the GPU: wave edges depend on it.
    tiny : bool
        Shapes that run under the Triton interpreter.

    Raises
    ------
    UserError
        There is no such suite.

    Examples
    --------
    >>> {c.q_heads for c in cases("micro", sm_count=132) if c.what == "wave"} >= {131, 132, 133}
    True
    """
    if suite not in SUITES or suite == "blind":
        raise unknown_name("suite", suite, [s for s in SUITES if s != "blind"])
    found = [case for entry in _document()[suite] for case in _entry(suite, entry, sm_count, tiny)]
    return list({case.key: case for case in found}.values())


def blind_ranges(tiny: bool = False) -> dict[str, Any]:
    """What the cases of the blind suite are drawn from."""
    ranges = dict(_document()["blind"])
    small = ranges.pop("tiny")
    return {**ranges, **small} if tiny else ranges


def _entry(suite: str, entry: dict[str, Any], sm_count: int, tiny: bool) -> Iterator[Case]:
    """The cases of one entry."""
    values = dict(entry)
    small = values.pop("tiny")
    if tiny:
        values.update(small)
    tflop_max, gib_max = values.pop("tflop_max", float("inf")), values.pop("gib_max", float("inf"))
    nested = {name: values.pop(name) for name in ("params", "how") if name in values}
    for fields in _crossed(values):
        for name, group in (("tokens", ("seq_q", "seq_kv")), ("heads", ("q_heads", "kv_heads"))):
            if name in fields:
                fields.update(dict.fromkeys(group, fields.pop(name)))
        for name in ("q_heads", "kv_heads"):
            if isinstance(fields.get(name), str):
                fields[name] = in_sms(fields[name], sm_count)
        for inner in product(*(list(_crossed(table)) for table in nested.values())):
            case = msgspec.convert({"suite": suite, **fields, **dict(zip(nested, inner, strict=True))}, Case)
            if case.tflop <= tflop_max and case.gib <= gib_max:
                yield case


def _crossed(table: dict[str, Any]) -> Iterator[dict[str, Any]]:
    """Every combination of the axes of a table; the first axis varies slowest."""
    axes = [value if isinstance(value, list) else [value] for value in table.values()]
    for chosen in product(*axes):
        yield dict(zip(table, chosen, strict=True))


def in_sms(text: str, sm_count: int) -> int:
    """A number of CTAs given in SMs.

    >>> [in_sms(text, 132) for text in ("1sm-1", "2sm", "3sm+1")]
    [131, 264, 397]
    """
    found = re.fullmatch(r"(\d+)sm([+-]\d+)?", text)
    if not found:
        raise UserError(f"a number of heads is a number or as in 2sm+1, got {text!r}")
    return int(found[1]) * sm_count + int(found[2] or 0)
