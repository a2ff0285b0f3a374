"""A row of a file: a Measurement, and everything that was known about how it was taken."""

from __future__ import annotations

from typing import Any

from .case import Case
from .check import Checked
from .machine import Machine, now
from .timer import Timing
from .work import Work


def row_id(case: Case, table: str) -> str:
    """Id of the row of a case: table and shape, neither time nor position."""
    return f"{table}/{case.key}"


def described(case: Case, machine: Machine) -> dict[str, Any]:
    """The fields that are known before a case is run: a Measurement without its time, and where and when it is taken."""
    shape = {name: getattr(case, name) for name in ("batch", "q_heads", "kv_heads", "seq_q", "seq_kv", "head_dim")}
    return {
        "id": row_id(case, machine.table),
        "table": machine.table,
        "gpu": machine.gpu,
        "kernel": case.kernel,
        "phase": case.phase,
        "dtype": case.dtype,
        **{name: value for name, value in shape.items() if value is not None},
        "pattern": case.pattern,
        "pattern_params": case.params,
        "suite": case.suite,
        **({"what": case.what} if case.what else {}),
        **({"how": case.how} if case.how else {}),
        "source": "simattn measure",
        "date": now(),
        **machine.environment,
        **({"interpreted": True} if machine.interpreted else {}),
    }


def measured(
    row: dict[str, Any], case: Case, machine: Machine, work: Work, timing: Timing, checked: Checked | None
) -> dict[str, Any]:
    """A row with its time.

    `latency_ms` is the median of `repeats` calls, by `timer`, divided by what a call does several times; `spread` holds order
    statistics of the calls, in ms; `host_bound` marks times in which the GPU waited for the host.
    """
    return {
        **row,
        "latency_ms": timing.median_ms / work.per,
        "spread": {name: value / work.per for name, value in timing.spread.items()},
        "repeats": timing.repeats,
        "copies": len(work.calls),
        "timer": machine.timer.name,
        "l2": case.l2,
        "host_bound": timing.host_bound,
        "clock_mhz": timing.clock_mhz,
        "power_w": timing.power_w,
        **({"error_rms": checked.error, "rows_checked": checked.rows} if checked else {}),
        **work.fields,
    }


def failed(row: dict[str, Any], why: str) -> dict[str, Any]:
    """A row without a time, that says why; a comparison skips it."""
    return {**row, "latency_ms": None, "failed": why}
