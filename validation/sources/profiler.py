"""A profile of one's own: a Chrome trace of torch.profiler (JSON), or what `ncu --csv` prints.

A profile names kernels and times and says nothing of shapes. So a row of it is a Measurement with a kernel and the median time of
its calls; the rest (gpu, batch, heads, lengths, pattern) has to be given beside it.
"""

from __future__ import annotations

import csv
import re
import tomllib
from collections.abc import Iterable, Iterator
from functools import cache
from pathlib import Path
from statistics import median
from typing import Any, NamedTuple

import msgspec
from msgspec import Struct

from ...facts import UserError
from ..measurement import Measurement

GIVE = (
    "a profile names kernel and time only: give the call with --set gpu=..., batch, q_heads, kv_heads, seq_q, seq_kv, head_dim "
    "and pattern"
)

_MS = {"ns": 1e-6, "nsecond": 1e-6, "us": 1e-3, "usecond": 1e-3, "ms": 1.0, "msecond": 1.0, "s": 1e3, "second": 1e3}
_DURATIONS = ("gpu__time_duration.sum", "Duration", "gpu__time_duration.avg")


class _Name(Struct, forbid_unknown_fields=True):
    """Which kernel a compiled name stands for."""

    holds: str
    kernel: str
    source: str


class _Event(Struct):
    """An event of a trace, as far as it is read."""

    name: str = ""
    cat: str = ""
    dur: float = 0.0


class _Trace(Struct):
    traceEvents: list[_Event]  # noqa: N815


class Call(NamedTuple):
    """One run of a kernel."""

    name: str
    ms: float


def is_profile(path: Path) -> bool:
    """Whether a file is a profile, by its name: rows of measurements are .jsonl."""
    return path.name.endswith((".json", ".json.gz", ".csv"))


def read_profile(path: Path, given: dict[str, Any]) -> list[Measurement]:
    """One measurement for each attention kernel of a profile.

    Parameters
    ----------
    given : dict
        Fields that a profile cannot know. Without them the rows are there, and say what they lack when they are compared.

    Raises
    ------
    UserError
        The file is no profile, or none of its kernels is known to be attention.
    """
    try:
        calls = list(_ncu(path) if path.name.endswith(".csv") else _trace(path))
    except OSError as error:
        raise UserError(f"cannot read {path}: {error.strerror}") from None
    times: dict[str, list[float]] = {}
    kinds: dict[str, str] = {}
    for call in calls:
        kernel = kernel_of(call.name)
        if kernel is not None:
            times.setdefault(call.name, []).append(call.ms)
            kinds[call.name] = kernel
    if not times:
        raise UserError(f"{path}: none of its {len({c.name for c in calls})} kernels is known to be attention")
    table = f"profile/{path.name}"
    rows = []
    for name, found in times.items():
        fields: dict[str, Any] = {
            "id": f"{table}/{name[:120]}",
            "table": table,
            "gpu": "not given",
            "kernel": kinds[name],
            "phase": "prefill",
            "dtype": "bf16",
            "source": GIVE,
            "latency_ms": median(found),
        }
        rows.append(msgspec.convert(fields | given, Measurement))
    return rows


def kernel_of(name: str) -> str | None:
    """Label of the attention kernel behind a compiled name; None where it is none that we know.

    >>> kernel_of("void flash::flash_fwd_kernel<Flash_fwd_kernel_traits<128, 128, 64, 4>>(flash::Flash_fwd_params)")
    'fa2'
    >>> kernel_of("ampere_bf16_s16816gemm_bf16_128x256") is None
    True
    """
    return next((entry.kernel for entry in _names() if re.search(entry.holds, name)), None)


@cache
def _names() -> tuple[_Name, ...]:
    text = (Path(__file__).parent / "profiler.toml").read_text(encoding="utf-8")
    return msgspec.convert(tomllib.loads(text)["name"], tuple[_Name, ...])


def _trace(path: Path) -> Iterator[Call]:
    """Kernels of a Chrome trace; times are in microseconds."""
    data = path.read_bytes()
    if path.name.endswith(".gz"):
        import gzip

        data = gzip.decompress(data)
    try:
        events = msgspec.json.decode(data, type=_Trace).traceEvents
    except msgspec.DecodeError as error:
        raise UserError(f"{path} is no Chrome trace of torch.profiler: {error}") from None
    return (Call(e.name, e.dur / 1e3) for e in events if e.cat == "kernel" and e.dur > 0)


def _ncu(path: Path) -> Iterator[Call]:
    """Kernels of `ncu --csv`: one metric a line, or (--page raw) one kernel a line with a line of units below the header."""
    lines = path.read_text(encoding="utf-8", errors="replace").splitlines()
    # ncu prints what it does before the table.
    start = next((i for i, line in enumerate(lines) if '"Kernel Name"' in line or line.startswith("ID,")), None)
    if start is None:
        raise UserError(f"{path} is not what ncu --csv prints: it has no column Kernel Name")
    rows = list(csv.DictReader(lines[start:]))
    if rows and "Metric Name" in rows[0]:
        yield from _long(rows)
        return
    column = next((name for name in _DURATIONS if rows and name in rows[0]), None)
    if column is None:
        raise UserError(f"{path} has no duration: run ncu with --metrics gpu__time_duration.sum")
    scale = _MS.get(rows[0][column], 1e-6)
    yield from (Call(row["Kernel Name"], _number(row[column]) * scale) for row in rows[1:])


def _long(rows: Iterable[dict[str, str]]) -> Iterator[Call]:
    for row in rows:
        if row["Metric Name"] in _DURATIONS:
            yield Call(row["Kernel Name"], _number(row["Metric Value"]) * _MS.get(row["Metric Unit"], 1e-6))


def _number(text: str) -> float:
    try:
        return float(text.replace(",", ""))
    except ValueError:
        raise UserError(f"expected a time, got {text!r}") from None
