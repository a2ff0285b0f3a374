"""Published runs: numbers printed in papers, repositories and documentation, each with its source."""

from __future__ import annotations

import tomllib
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

from ...kernels import kernels
from ...simulator import Repeats, Setting
from ..measurement import Measurement, read_measurements

SIMULATED = ("dense", "causal", "sliding_window", "gna")
"""Patterns whose parameters a measurement states in full."""


def published_runs() -> list[Measurement]:
    """Every row of the table of published runs that ships with the package."""
    return read_measurements(Path(__file__).parent.parent / "measured" / "published.jsonl")


@cache
def _labels() -> dict[str, Any]:
    return tomllib.loads((Path(__file__).parent / "labels.toml").read_text(encoding="utf-8"))


def kernel_for(label: str, arch: str, table: str = "") -> str | None:
    """The profile behind a table's kernel label, or a profile of that very name; None where none describes the kernel."""
    own: dict[str, Any] = next((v["profiles"] for v in _labels()["versions"] if table.startswith(tuple(v["tables"]))), {})
    profile = own.get(label, {}).get(arch) or _labels()["profiles"].get(label, {}).get(arch)
    if profile is None and label in kernels.names():
        return label
    return None if profile is None else str(profile)


def pattern_for(label: str) -> str | None:
    """Our name for the pattern label of a published run; None where it is no pattern that can be simulated yet."""
    name = str(_labels()["patterns"].get(label, label))
    return name if name in SIMULATED else None


class Timed(NamedTuple):
    """How the times of a table were taken."""

    stage: str
    """Last stage of the waterfall that is in them."""
    setting: Setting
    launched: bool = True
    """Whether launches are in them."""


def timed_as(table: str, kernel: str = "") -> Timed:
    """How the times of a table were taken, and what is in those of one of its kernels.

    Of the attention kernel alone, of all kernels of a call, of these with their launches, or of a serving framework's whole op.
    """
    timers, repeats = _labels()["timers"], _repeats(table)
    if table.startswith((*timers["kernel_only"], *timers["profiled"])):
        return Timed("clock", Setting(repeats=repeats), launched=False)
    if table.startswith(tuple(timers["kernels_only"])):
        return Timed("side", Setting(repeats=repeats), launched=False)
    if table.startswith(tuple(timers["served"])):
        return Timed("side", Setting(warm=True, writes_cache=not table.endswith("/encoder"), replayed=True, repeats=repeats))
    clears = any(table.startswith(tuple(own["tables"])) and kernel in own["kernels"] for own in _labels()["clears_output"])
    return Timed("side", Setting(clears_output=clears, repeats=repeats))


def _repeats(table: str) -> Repeats:
    """Calls that are made back to back around those that a table is of."""
    found: dict[str, Any] = next((own for own in _labels()["repeats"] if table.startswith(tuple(own["tables"]))), {})
    return Repeats(**{name: found[name] for name in Repeats._fields if name in found})
