"""The log of scorings: what was scored when, with which specs, and how well; one JSON object a line, never rewritten."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path

import msgspec

from ..hwspecs import gpus
from ..kernels import kernels
from ..kernels.calibration import all_calibrations
from .scoreboard import Board
from .scores import GroupScore


def log_scoring(board: Board, path: Path) -> None:
    """Append a line for a scoreboard. What was scored is named by hashes of its parts, which say whether anything changed."""
    line = {
        "date": datetime.now(UTC).strftime("%Y-%m-%d"),
        "version": version("simattn"),
        "specs": _digest(gpus.load(name).spec_hash() for name in gpus.names()),
        "profiles": _digest(msgspec.json.encode(kernels.load(name)).hex() for name in kernels.names()),
        "calibrations": _digest(msgspec.json.encode(c).hex() for c in all_calibrations()),
        "groups": [{"class": part, **_brief(score)} for part, score in board.scores],
    }
    with path.open("ab") as file:
        file.write(msgspec.json.encode(line) + b"\n")


def _brief(g: GroupScore) -> dict[str, object]:
    errors = {name: round(value, 4) for name, value in g.simulated._asdict().items()}
    return {**g.group._asdict(), "n": g.n, **errors}


def _digest(parts: Iterable[str]) -> str:
    return hashlib.sha256("\n".join(parts).encode()).hexdigest()[:12]
