"""Measurement: a run that someone timed, complete enough to be simulated again."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import msgspec
from msgspec import Struct

from ..facts import UserError


class Measurement(Struct, frozen=True, kw_only=True):
    """One measured run; fields that a source does not give are None. Unknown fields of a file are ignored.

    Attributes
    ----------
    phase : str
        prefill, diffusion, decode (`seq_kv` counts the new tokens too), train-bwd or train-fwd+bwd.
    id, table, source : str
        Name of the row, of the table it stands in, and where that is.
    gpu, kernel : str
        Labels, as the source names them.
    latency_ms : float or None
        Measured time; rows without one cannot be compared.
    pattern, pattern_params : str, dict
        What was computed.
    suspect : bool
        The row contradicts every other source.
    l2 : str
        `warm` where the inputs were in L2 when the call began.
    host_bound : bool
        The GPU had to wait for the host: the time is not the kernel's.
    suite : str
        Suite of `simattn measure`.
    """

    id: str
    table: str
    gpu: str
    kernel: str
    phase: str
    dtype: str
    source: str = ""
    latency_ms: float | None = None
    batch: int | None = None
    q_heads: int | None = None
    kv_heads: int | None = None
    seq_q: int | None = None
    seq_kv: int | None = None
    head_dim: int | None = None
    pattern: str | None = None
    pattern_params: dict[str, Any] = {}
    suspect: bool = False
    l2: str = ""
    host_bound: bool = False
    suite: str = ""


def read_measurements(path: Path) -> list[Measurement]:
    """The rows of a JSON-lines file.

    Raises
    ------
    UserError
        The file cannot be read, or a line of it is no measurement; the message names the line.
    """
    try:
        lines = path.read_bytes().splitlines()
    except OSError as error:
        raise UserError(f"cannot read {path}: {error.strerror}") from None
    rows = []
    for number, line in enumerate(lines, 1):
        if not line.strip():
            continue
        try:
            rows.append(msgspec.json.decode(line, type=Measurement))
        except msgspec.DecodeError as error:
            raise UserError(f"{path}, line {number}: {error}") from None
    return rows
