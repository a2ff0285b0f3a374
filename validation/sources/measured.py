"""Files of measurements: those of `simattn measure`, ours in `validation/measured`, and a user's."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import msgspec

from ...facts import UserError
from ..measurement import Measurement, read_measurements
from .profiler import is_profile, read_profile

MEASURED = Path(__file__).parent.parent / "measured"


def own_runs() -> list[Measurement]:
    """What `simattn measure` wrote on GPUs of ours: every file beside the published runs that holds times."""
    files = sorted(MEASURED.glob("*.jsonl"))
    return [
        run
        for path in files
        if path.name != "published.jsonl" and "predictions" not in path.name
        for run in read_measurements(path)
    ]


def read_runs(path: Path, given: dict[str, Any] | None = None) -> list[Measurement]:
    """The rows of a file of measurements, or of a profile.

    Parameters
    ----------
    given : dict, optional
        Fields of every row, in place of those of the file.

    Raises
    ------
    UserError
        The file cannot be read, or a field is none of a measurement.
    """
    try:
        if is_profile(path):
            return read_profile(path, given or {})
        rows = read_measurements(path)
        if not given:
            return rows
        return [msgspec.convert(msgspec.to_builtins(row) | given, Measurement) for row in rows]
    except msgspec.ValidationError as error:
        raise UserError(f"--set: {error}") from None
