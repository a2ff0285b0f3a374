"""What if: the same call with something changed."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from typing import cast

from msgspec import Struct

from ..facts import UserError, unknown_name
from ..hwspecs import Clock
from ..kernels import programs
from ..simulator import Prediction
from ..simulator.baseline import fastest_dense
from .case import Case


class WhatIf(Struct, frozen=True, kw_only=True):
    """The same call with something changed; `change` is latency over that of the unchanged call."""

    name: str
    latency_ms: float
    dense_latency_ms: float
    speedup: float
    change: float


def _one_of(name: str, value: str, allowed: Sequence[str]) -> str:
    if value not in allowed:
        raise unknown_name(name, value, allowed)
    return value


def _mask(case: Case, value: str) -> Case:
    _one_of("mask policy", value, ("none", "partial", "all"))
    free = {"alu": [0.0]} if value == "none" else {}
    return case.with_kernel({"mask": {"policy": "all" if value == "all" else "partial", **free}})


def _tile(name: str, value: str) -> tuple[int, ...]:
    if not re.fullmatch(r"\d+(x\d+){0,2}", value):
        raise UserError(f"{name} takes one to three whole numbers such as 128 or 8x4x8, got {value!r}")
    return tuple(int(part) for part in value.split("x"))


def _whole(name: str, value: str) -> int:
    if not re.fullmatch(r"\d+", value):
        raise UserError(f"{name} takes a whole number, got {value!r}")
    return int(value)


def _scaled(name: str, value: str, now: float) -> float:
    if not re.fullmatch(r"\d+(\.\d+)?x", value):
        raise UserError(f"{name} takes a factor such as 2x, got {value!r}")
    return now * float(value[:-1])


def _sms(case: Case, value: str) -> Case:
    now = case.spec.chip.sm_count
    count = round(_scaled("sms", value, now)) if value.endswith("x") else _whole("sms", value)
    return case.with_gpu({"chip": {"sm_count": count}})


def _exp(case: Case, value: str) -> Case:
    return case.with_gpu({"units": {"ex2": _scaled("exp", value, case.spec.units.ex2)}})


def _bandwidth(case: Case, value: str) -> Case:
    return case.with_gpu({"mem": {"dram": {"gbps": _scaled("bandwidth", value, case.spec.mem.dram.gbps)}}})


def _l2(case: Case, value: str) -> Case:
    return case.with_gpu({"mem": {"l2": {"bytes_per_clk": _scaled("l2", value, case.spec.mem.l2.bytes_per_clk)}}})


def _clock(case: Case, value: str) -> Case:
    clock = cast(Clock, _one_of("clock", value, ("sustained", "burst", "boost")))
    return case._replace(setting=case.setting._replace(clock=clock))


def _order(case: Case, value: str) -> Case:
    return case.with_kernel({"launch": {"order": _one_of("order", value, ("ascending", "longest_first", "by_visits"))}})


def _persistent(case: Case, value: str) -> Case:
    return case.with_kernel({"launch": {"persistent": _one_of("persistent", value, ("yes", "no")) == "yes"}})


def _program(case: Case, value: str) -> Case:
    return case.with_kernel({"program": programs.load(value).name, "wide_program": "", "tiles": {"program": ""}})


def _q_stages(case: Case, value: str) -> Case:
    rows = programs.load(case.kernel.program).rows
    flat = case.q_tile is None or isinstance(case.q_tile, int) or len(case.q_tile) == 1
    if not rows or not flat or len(case.run().choice.tiling.q) > 1:
        raise UserError(f"kernel {case.kernel.name} has no stages of queries to count in: change its q-tile or program")
    return case._replace(q_tile=rows * max(1, _whole("q-stages", value)))


def _buffers(case: Case, value: str) -> Case:
    return case.with_kernel({"tiles": {"stages": _whole("buffers", value)}})


LEVERS: dict[str, Callable[[Case, str], Case]] = {
    "mask": _mask,
    "q-tile": lambda case, value: case._replace(q_tile=_tile("q-tile", value)),
    "kv-tile": lambda case, value: case._replace(kv_tile=_tile("kv-tile", value)),
    "q-stages": _q_stages,
    "buffers": _buffers,
    "program": _program,
    "order": _order,
    "persistent": _persistent,
    "exp": _exp,
    "bandwidth": _bandwidth,
    "l2": _l2,
    "sms": _sms,
    "clock": _clock,
}
"""What a what-if may change; `simattn explain --help` lists the values."""


def changed(case: Case, text: str) -> Case:
    """A call with one or more levers pulled: `mask=none`, or `mask=none,q-tile=128`."""
    for part in text.split(","):
        name, equals, value = part.partition("=")
        if not equals or not value:
            raise UserError(f"a what-if is NAME=VALUE, got {part!r}; names: {', '.join(LEVERS)}")
        if name not in LEVERS:
            raise unknown_name("what-if", name, LEVERS)
        case = LEVERS[name](case, value)
    return case


def compared(text: str, other: Case, case: Case, p: Prediction) -> WhatIf:
    """A changed call against the dense one, which is run again where the GPU or its clock changed."""
    latency, dense = other.latency_ms(), p.dense.latency_ms
    if (other.spec, other.setting) != (case.spec, case.setting):
        dense = fastest_dense(other.asked, other.spec, other.setting, only=other.baseline).seconds * 1e3
    return WhatIf(name=text, latency_ms=latency, dense_latency_ms=dense, speedup=dense / latency, change=latency / p.latency_ms)
