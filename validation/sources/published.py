"""Published runs: numbers printed in papers, repositories and documentation, each with its source."""

from __future__ import annotations

import tomllib
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

from ...kernels import kernels
from ...simulator import Setting
from ..measurement import Measurement, read_measurements

SIMULATED = ("dense", "causal", "sliding_window", "gna")
"""Patterns whose parameters a measurement states in full."""


def published_runs() -> list[Measurement]:
    """Every row of the table of published runs that ships with the package."""
    return read_measurements(Path(__file__).parent.parent / "measured" / "published.jsonl")


@cache
def _labels() -> dict[str, Any]:
    return tomllib.loads((Path(__file__).parent / "labels.toml").read_text(encoding="utf-8"))


def kernel_for(label: str, arch: str) -> str | None:
    """The profile behind a kernel label, or a profile of that very name; None where no profile describes the kernel."""
    profile = _labels()["profiles"].get(label, {}).get(arch)
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


def timed_as(table: str) -> Timed:
    """How the times of a table were taken: of the kernel alone, with its launch, or of a serving framework's whole op."""
    timers = _labels()["timers"]
    if table in timers["kernel_only"] or table.startswith(tuple(timers["profiled"])):
        return Timed("clock", Setting())
    if table.startswith(tuple(timers["served"])):
        return Timed("side", Setting(warm=True, writes_cache=not table.endswith("/encoder"), replayed=True))
    return Timed("side", Setting())
