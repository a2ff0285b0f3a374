"""Trace: what each warp role and each unit of some SMs does and when, in the event format that Chrome and Perfetto draw.

The kernel is simulated as at fidelity `cycle`; recording its ops changes no result.
"""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

import msgspec
import numpy as np
from numpy.typing import NDArray

from ..hwspecs import GpuSpec
from ..kernels import KINDS, UNITS, KernelProfile
from ..workloads import Attention, TileSchedule
from ..workloads.schedule import Group
from .baseline import fastest_dense
from .choice import KernelChoice
from .machine import STEALS, TICKS, Code
from .pipeline import SmPipeline
from .predict import simulate
from .question import Question
from .setting import Setting
from .waterfall import Recording, record

MOST_VISITS = 2**20
"""Visits up to which a call is simulated whole, in about a second; of a larger one some heads."""

Ints = NDArray[np.int64]

TENSOR = UNITS.index("tensor")


class Track(NamedTuple):
    """A row of the picture; they sort in the order in which they are drawn.

    `group` 0 holds the units (`number`: which one), group s + 1 the roles of slot s. `lane` 0 is the role itself, and the others
    are ops of it in flight, as many as there are at the same time.
    """

    sm: int
    group: int
    number: int
    lane: int


class Span(NamedTuple):
    """An op on a track, in ticks."""

    track: Track
    name: str
    category: str
    """`op`, `load`, `unit` (an op at work on a unit) or `lost` (to ops of other roles)."""
    start: int
    length: int
    about: dict[str, Any]


@dataclass(frozen=True)
class Trace:
    """The first ops of a kernel on some SMs.

    Attributes
    ----------
    spans : tuple of Span
        In order of start on each track.
    hz : float
        Clock: `machine.TICKS` ticks are one cycle.
    roles : tuple of str
        Roles of the loop program, which `Track.number` counts.
    about : dict
        What was simulated, and how much of it the trace holds.
    """

    spans: tuple[Span, ...]
    hz: float
    roles: tuple[str, ...]
    about: dict[str, Any]

    def to_json(self) -> bytes:
        """The trace as a file that Perfetto and chrome://tracing open; one event a line."""
        lines = [msgspec.json.encode(event) for event in (*self._names(), *self._events())]
        about = msgspec.json.encode(self.about)
        return b'{"displayTimeUnit":"ns","otherData":' + about + b',"traceEvents":[\n' + b",\n".join(lines) + b"\n]}\n"

    def _tracks(self) -> dict[Track, int]:
        """Numbers of the tracks. Process 0 and thread 0 are no one's: viewers take them for the idle task."""
        return {track: number for number, track in enumerate(sorted({span.track for span in self.spans}), 1)}

    def _names(self) -> list[dict[str, Any]]:
        def named(what: str, sm: int, thread: int, name: str, place: int) -> list[dict[str, Any]]:
            base = {"ph": "M", "pid": sm + 1, "tid": thread}
            return [
                {**base, "name": f"{what}_name", "args": {"name": name}},
                {**base, "name": f"{what}_sort_index", "args": {"sort_index": place}},
            ]

        found = []
        for sm in range(self.about["sms_traced"]):
            found += named("process", sm, 0, f"SM {sm}", sm)
        for track, number in self._tracks().items():
            found += named("thread", track.sm, number, self._name(track), number)
        return found

    def _name(self, track: Track) -> str:
        if track.group == 0:
            return f"unit {UNITS[track.number]}"
        role = f"slot {track.group - 1} {self.roles[track.number]}"
        return f"{role}, in flight {track.lane}" if track.lane else role

    def _events(self) -> list[dict[str, Any]]:
        tracks, picoseconds = self._tracks(), 1e12 / TICKS / self.hz
        found = []
        for span in self.spans:
            # Both ends are rounded alike, so that what touches does not overlap: viewers drop what does.
            start, end = (round(at * picoseconds) for at in (span.start, span.start + span.length))
            event = {"ph": "X", "name": span.name, "cat": span.category, "pid": span.track.sm + 1, "tid": tracks[span.track]}
            found.append({**event, "ts": start / 1e6, "dur": (end - start) / 1e6, "args": span.about})
        return found


def trace(
    asked: Question,
    spec: GpuSpec,
    *,
    kernel: str | KernelProfile | None = None,
    q_tile: int | tuple[int, ...] | None = None,
    kv_tile: int | tuple[int, ...] | None = None,
    sms: int = 2,
    events: int = 100_000,
) -> Trace:
    """Trace the first attention kernel of a call, at the burst clock and with nothing in L2 at the start.

    Parameters
    ----------
    kernel, q_tile, kv_tile
        As in `predict`.
    sms : int
        SMs of which ops are kept: the first ones. All are simulated.
    events : int
        Events that the trace holds at most: the earliest.

    Returns
    -------
    Trace

    Examples
    --------
    >>> from simattn.hwspecs import gpus
    >>> from simattn.simulator import question
    >>> short = trace(question("causal", seq_q=1024, q_heads=4, kv_heads=4), gpus.load("h100"), sms=1)
    >>> short.about["events"] == len(short.spans), short.about["capped"], short.about["sms_traced"]
    (True, False, 1)
    """
    setting = Setting(clock="burst", fidelity="bound")
    own_class = asked.pattern.family.mask_class()
    if kernel is None and own_class == "dense":
        kernel = fastest_dense(asked, spec, Setting()).kernel
    called = simulate(asked, spec, kernel=kernel, q_tile=q_tile, kv_tile=kv_tile, setting=setting)
    op = next(op for op in called.plan if isinstance(op, Attention))
    choice = called.choice_of(op.mask_class, op.kernel)
    schedule = _fewer_heads(op.schedule, max(1, asked.problem.gqa_group // choice.tiling.pack))
    sms = min(sms, spec.chip.sm_count)
    recording = record(choice.spec, choice, schedule, asked.problem, setting, ops=events + 1, sms=sms)
    spans, ops = _spans(recording, events)
    us = 1e6 / TICKS / recording.hz
    about = {
        "schema": "simattn.trace/1",
        "gpu": spec.name,
        "gpu_title": spec.title,
        "spec_hash": spec.spec_hash(),
        "pattern": asked.pattern.name,
        "op": op.name,
        **_kernel_fields(choice, recording.sm),
        "clock_mhz": recording.hz / 1e6,
        "ticks_per_cycle": TICKS,
        "kernel_ticks": recording.outcome.end,
        "kernel_us": recording.outcome.end * us,
        "heads_simulated": schedule.copies,
        "heads": op.schedule.copies,
        "visits_simulated": _all_visits(schedule),
        "visits": _all_visits(op.schedule),
        "sms_traced": sms,
        "sms": spec.chip.sm_count,
        "events": len(spans),
        "events_most": events,
        "ops": ops,
        "capped": ops < len(recording.outcome.events),
        "traced_us": max((span.start + span.length for span in spans), default=0) * us,
    }
    return Trace(tuple(spans), recording.hz, recording.sm.program.roles, about)


def _kernel_fields(choice: KernelChoice, sm: SmPipeline) -> dict[str, Any]:
    return {
        "kernel": choice.profile.name,
        "program": sm.program.name,
        "q_tile": list(choice.tiling.q),
        "kv_tile": list(choice.tiling.kv),
        "ctas_per_sm": sm.ctas,
    }


def _visits(schedule: TileSchedule) -> Ints:
    """Visits of one copy of each group, those that are passed over included."""
    counts = schedule.counts
    of_rows = counts.visited + counts.qk_only + counts.skipped
    return np.array([int(of_rows[g.first_row : g.first_row + g.rows].sum()) for g in schedule.groups])


def _all_visits(schedule: TileSchedule) -> int:
    return int(_visits(schedule) @ [g.copies for g in schedule.groups])


def _fewer_heads(schedule: TileSchedule, heads_share: int) -> TileSchedule:
    """The schedule with as many heads and items as have `MOST_VISITS` visits, and at least one."""
    part, left = MOST_VISITS / max(_all_visits(schedule), 1), MOST_VISITS
    if part >= 1:
        return schedule
    groups: list[Group] = []
    for group, visits in zip(schedule.groups, _visits(schedule), strict=True):
        # Heads that share K and V stay together.
        copies = max(int(group.copies * part) // heads_share * heads_share, 1)
        left -= int(visits) * copies
        if left < 0 and groups:
            break
        groups.append(group._replace(copies=copies))
    return replace(schedule, groups=tuple(groups), pairs_per_copy=schedule.pairs_per_copy[: len(groups)])


class _Visit(NamedTuple):
    """Which visit an op belongs to: of the so-many-th CTA of a slot."""

    sm: int
    slot: int
    cta: int
    visit: int


def _spans(recording: Recording, most: int) -> tuple[list[Span], int]:
    """Spans of the recorded ops, `most` at most, and how many ops they are of."""
    program, code = recording.sm.program, recording.sm.code
    rows = recording.outcome.events.tolist()
    visits = _visits_of(rows)
    blocks = {op.role for op in program.ops if not (op.runs_on or op.loads)}
    lane_ends: defaultdict[Track, list[int]] = defaultdict(list)
    unit_free: defaultdict[tuple[int, int], int] = defaultdict(int)
    uses = [[_uses(code, kind, op) for op in range(len(program.ops))] for kind in range(len(KINDS))]
    spans: list[Span] = []
    for done, ((sm, slot, number, tile, start, length, kind), visit) in enumerate(zip(rows, visits, strict=True)):
        op = program.ops[number]
        about: dict[str, Any] = {"slot": slot, "cta": visit.cta, "visit": tile, "kind": KINDS[kind]}
        role = Track(sm, slot + 1, op.role, 0)
        if op.runs_on or op.loads:
            ends = lane_ends[role]
            lane = next((lane for lane, end in enumerate(ends) if end <= start), len(ends))
            ends[lane : lane + 1] = [start + length]
            role = role._replace(lane=lane + (op.role in blocks))
        name, category = (f"load {op.name}", "load") if op.loads else (op.name, "op")
        own = [Span(role, name, category, start, length, about)]
        units, lost = uses[kind][number]
        for unit, ticks in units:
            # What CTAs side by side share is shown as if it were done one after the other.
            begin = max(unit_free[sm, unit], start)
            unit_free[sm, unit] = begin + ticks
            own.append(Span(Track(sm, 0, unit, 0), op.name, "unit", begin, ticks, about))
        if lost:
            begin = max(unit_free[sm, TENSOR], start)
            unit_free[sm, TENSOR] = begin + lost
            own.append(Span(Track(sm, 0, TENSOR, 0), f"lost to {op.name}", "lost", begin, lost, about))
        if len(spans) + len(own) > most:
            return spans, done
        spans += own
    return spans, len(rows)


def _uses(code: Code, kind: int, op: int) -> tuple[list[tuple[int, int]], int]:
    """Units that an op works on with the ticks on each, and ticks that the tensor core loses to it."""
    units = [(unit, int(ticks)) for unit, ticks in enumerate(code.takes[kind, op]) if ticks]
    return units, int(code.cost[kind, op, STEALS])


def _visits_of(rows: list[list[int]]) -> list[_Visit]:
    """The visit of each recorded op. Every op of a CTA starts with the CTA's first visit."""
    ctas: defaultdict[tuple[int, int, int], int] = defaultdict(lambda: -1)
    found = []
    for sm, slot, op, tile, *_ in rows:
        ctas[sm, slot, op] += tile == 0
        found.append(_Visit(sm, slot, ctas[sm, slot, op], tile))
    return found
