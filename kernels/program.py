"""Loop programs: what one kv tile makes a kernel do, op by op, on which unit and after what.

A program is a template (data, one TOML file a kind of kernel) of roles, the groups of warps that work side by side, and of the
ops that each role issues in order, for one tile after the other. `build` fills it with the numbers of a kernel, a tile and a GPU.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Annotated, Literal, NamedTuple

from msgspec import Meta, Struct

from ..facts import Shelf, UserError
from ..hwspecs import GpuSpec
from .profile import KernelProfile
from .work import KINDS, LOADS, UNITS, Kind, Share, Work, look_cycles, work_cost


class _Table(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One table of a template."""


class TemplateOp(_Table, frozen=True, kw_only=True):
    """An op as the template has it."""

    name: str
    work: tuple[Work, ...]
    """What it does; on one unit after the other, or on all of them at once where `parallel`."""
    then: tuple[Work, ...] = ()
    """What the role still does once the result is there."""
    after: tuple[str, ...] = ()
    """Ops whose results it needs: `qk` of the same tile, `pv-1` of the tile before, `qk-stages` of the one `stages` before.

    Where several shares have such an op, the one of its own share; all of them after `ds*`.
    """
    ahead: Annotated[int, Meta(ge=0, le=8)] = 0
    """Tiles that it runs ahead of the others of its role."""
    ahead_stages: bool = False
    """It runs ahead by as many tiles as there are buffers, less one."""
    runs_on: bool = False
    """The role does not wait for its result."""
    parallel: bool = False
    leads: bool = False
    """Of several warpgroups in step the first is through with it before the others, by the `lag_cycles` of the kernel."""
    turn: str | None = None
    """It waits until the copy before its own has issued this op: warpgroups take turns at the tensor cores."""


class Role(_Table, frozen=True, kw_only=True):
    """Warps that run one instruction stream."""

    name: str
    copies: Literal["one", "roles", "ops"] = "one"
    """`roles`: one role for each share of the rows. `ops`: one role that issues every op once for each share."""
    ops: tuple[TemplateOp, ...]


class Template(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The form of a loop program. Read one with `programs.load`."""

    name: str
    title: str
    source: str
    rows: Annotated[int, Meta(ge=0, le=512)]
    """Query rows of a share; 0 for one share of all rows."""
    roles: tuple[Role, ...]


programs: Shelf[Template] = Shelf(Path(__file__).parent / "programs", "loop program", Template)
"""Every loop program that ships with the package."""


class After(NamedTuple):
    """A dependence on another op."""

    op: int
    distance: int
    """Tiles between the two."""
    on_issue: bool
    """It is enough that the other op has been issued."""
    wait: float
    """Cycles between the event and its being noticed."""


@dataclass(frozen=True)
class Op:
    """One op of a built program.

    Attributes
    ----------
    units : dict
        Cycles on each unit, by kind of visit.
    length, latency : dict
        Cycles that it keeps its role, and from then until its result can be used (negative: before), by kind of visit.
    steals : dict
        Cycles that the tensor core loses to it.
    load_bytes : dict
        Bytes that it moves between L2 and the SM, by kind of visit.
    loads : str
        Which tile it fetches, if any.
    needs_q : bool
        It reads Q, and so waits for it at the start of a CTA.
    """

    name: str
    role: int
    ahead: int
    runs_on: bool
    after: tuple[After, ...]
    units: dict[Kind, dict[str, float]]
    length: dict[Kind, float]
    latency: dict[Kind, float]
    steals: dict[Kind, float]
    load_bytes: dict[Kind, int]
    loads: Literal["", "k", "v"]
    needs_q: bool


@dataclass(frozen=True)
class LoopProgram:
    """A loop program in numbers.

    Attributes
    ----------
    roles : tuple of str
        Names, copies numbered.
    ops : tuple of Op
        In issue order within a role; roles follow each other.
    by_warps : bool
        CTAs side by side are served in turn, small product by small product (`Share.by_warps`), and stay in step; otherwise
        first come, first served.
    """

    name: str
    roles: tuple[str, ...]
    ops: tuple[Op, ...]
    by_warps: bool = False

    def unit_cycles(self, kind: Kind) -> dict[str, float]:
        """Cycles that a visit takes each unit."""
        return dict(self._unit_cycles[kind])

    @cached_property
    def _unit_cycles(self) -> dict[Kind, dict[str, float]]:
        return {kind: {unit: sum(op.units[kind].get(unit, 0.0) for op in self.ops) for unit in UNITS} for kind in KINDS}

    def load_bytes(self, kind: Kind) -> int:
        """Bytes that a visit moves between L2 and the SM."""
        return sum(op.load_bytes[kind] for op in self.ops)


def build(
    profile: KernelProfile,
    spec: GpuSpec,
    *,
    q_rows: int,
    kv_rows: int,
    head_dim: int,
    head_dim_v: int,
    element_bytes: int,
    stages: int,
    warps: int,
    tensor_rate: float,
    mask_alu: float,
    segment: int = 1,
    score_rate: float = 0.0,
    stored: float = 1.0,
    template: Template | None = None,
) -> LoopProgram:
    """The loop program of a kernel for one tile shape on a GPU.

    Parameters
    ----------
    q_rows, kv_rows : int
        Tile: rows that a CTA owns, and those of a visit. A program whose CTAs own keys takes its keys as the former.
    stages : int
        Buffers of K and of V.
    warps : int
        Warps of a CTA; with mma.sync each of them reads all of K and V from shared memory.
    tensor_rate : float
        FLOP per clock and SM.
    mask_alu : float
        ALU operations of the element mask, for each score.
    segment : int
        Keys that lie side by side in memory, of gathered tiles.
    score_rate : float
        FLOP per clock and SM of QK, where Q and K are of another type than P and V; 0 for `tensor_rate`.
    stored : float
        Bytes in which K and V lie in memory, over those of whole ones.
    template : Template, optional
        In place of the profile's.

    Examples
    --------
    >>> from simattn.hwspecs import gpus
    >>> from simattn.kernels import kernels
    >>> program = build(kernels.load("fa4"), gpus.load("b200"), q_rows=256, kv_rows=128, head_dim=128, head_dim_v=128,
    ...                 element_bytes=2, stages=2, warps=16, tensor_rate=8192, mask_alu=0)
    >>> program.roles, program.unit_cycles("plain")["tensor"]
    (('load', 'mma', 'softmax 0', 'softmax 1'), 2048.0)
    """
    form = template or programs.load(profile.program)
    copies = max(1, q_rows // form.rows) if form.rows else 1
    share = Share(
        spec=spec,
        profile=profile,
        warps=warps,
        shares=copies,
        rows=q_rows // copies,
        keys=kv_rows,
        d=head_dim,
        d_v=head_dim_v,
        element_bytes=element_bytes,
        rate=tensor_rate,
        mask_alu=mask_alu,
        segment=segment,
        score_rate=score_rate,
        stored=stored,
    )
    whole = share._replace(rows=q_rows, shares=1)
    placed = list(_placed(form, copies))
    index = {(p.op.name, p.copy): number for number, p in enumerate(placed)}
    # A single warpgroup leads nobody.
    lag_cycles = profile.timing.lag_cycles
    in_step = q_rows > spec.mma.m and any(p.op.leads for p in placed)
    ops = []
    looks = look_cycles(whole)
    looking: set[int] = set()
    for p in placed:
        own = whole if p.copy is None else share
        costs = {kind: _total(own, p.op, kind) for kind in KINDS}
        if not p.op.runs_on and p.role not in looking:
            # Warps that fetch run ahead of those that compute, and look early enough.
            looking.add(p.role)
            costs["skipped"] = costs["skipped"]._replace(length=looks)
        if "max" in p.op.work:
            # That nothing of a tile matters, the warps of a share find out together.
            agreed = costs["qk_only"].latency + profile.timing.handoff_cycles
            costs["qk_only"] = costs["qk_only"]._replace(latency=agreed)
        after = [edge for text in p.op.after for edge in _edges(form, index, placed, p, text, stages, profile)]
        if p.op.turn is not None and copies > 1:
            before, lag = (p.copy - 1, 0) if p.copy else (copies - 1, 1)
            other = index.get((p.op.turn, before), -1)
            if p.copy is None or other < 0:
                raise UserError(
                    f"loop program {form.name}: {p.op.name} waits its turn at {p.op.turn}, of which no share has its own"
                )
            skew = p.op.ahead - placed[other].op.ahead
            after.append(After(other, skew + lag, True, profile.timing.handoff_cycles))
        if p.op.leads and in_step:
            costs = {kind: cost._replace(latency=cost.latency - min(lag_cycles, cost.length)) for kind, cost in costs.items()}
        on_registers = any(not cost.units.keys().isdisjoint({"ex2", "fma", "alu"}) for cost in costs.values())
        # Accumulators in tensor memory leave the register file to softmax; in step, nobody multiplies meanwhile.
        contention = (
            profile.timing.contention * share.register_share if on_registers and not share.in_tmem and not in_step else 0.0
        )
        ops.append(
            Op(
                name=p.op.name if p.copy is None else f"{p.op.name} {p.copy}",
                role=p.role,
                ahead=stages - 1 if p.op.ahead_stages else p.op.ahead,
                runs_on=p.op.runs_on,
                after=tuple(after),
                units={kind: cost.units for kind, cost in costs.items()},
                length={kind: cost.length for kind, cost in costs.items()},
                latency={kind: cost.latency for kind, cost in costs.items()},
                steals={kind: contention * cost.length for kind, cost in costs.items()},
                load_bytes={kind: cost.load_bytes for kind, cost in costs.items()},
                loads=next((LOADS[work] for work in p.op.work if work in LOADS), ""),
                needs_q=not {"qk", "qk_half", "kq"}.isdisjoint(p.op.work),
            )
        )
    # Where every visit waits for its own loads, which never take the same time twice, no two CTAs stay in step.
    fetches_ahead = any(op.loads and op.ahead for op in ops)
    return LoopProgram(form.name, tuple(_role_names(form, copies)), tuple(ops), by_warps=share.by_warps and fetches_ahead)


class _Placed(NamedTuple):
    """An op of the template, in a role, for a share of the rows (None: for all of them)."""

    op: TemplateOp
    role: int
    copy: int | None


def _placed(form: Template, copies: int) -> Iterator[_Placed]:
    number = 0
    for role in form.roles:
        if role.copies == "roles":
            for copy in range(copies):
                yield from (_Placed(op, number + copy, copy) for op in role.ops)
            number += copies
        else:
            for share in range(copies) if role.copies == "ops" else [None]:
                yield from (_Placed(op, number, share) for op in role.ops)
            number += 1


def _role_names(form: Template, copies: int) -> Iterator[str]:
    for role in form.roles:
        if role.copies == "roles" and copies > 1:
            yield from (f"{role.name} {copy}" for copy in range(copies))
        else:
            yield role.name


def _edges(
    form: Template,
    index: dict[tuple[str, int | None], int],
    placed: list[_Placed],
    own: _Placed,
    text: str,
    stages: int,
    profile: KernelProfile,
) -> Iterator[After]:
    """The dependences that one entry of `after` stands for: on the same share, or on all shares."""
    match = re.fullmatch(r"(\w+?)(\*?)(?:-(\d+|stages))?", text)
    if not match:
        raise UserError(f"loop program {form.name}: {own.op.name} comes after {text!r}: not an op, and not an op and a distance")
    name, every, lag = match.groups()
    distance = 0 if lag is None else stages if lag == "stages" else int(lag)
    found = [number for (other, _), number in index.items() if other == name]
    if not found:
        raise UserError(f"loop program {form.name}: {own.op.name} comes after {name}, which is not there")
    for number in found:
        if every or own.copy is None or placed[number].copy in (None, own.copy):
            crosses = placed[number].role != own.role
            yield After(number, distance, False, profile.timing.handoff_cycles if crosses else 0.0)


class _Total(NamedTuple):
    units: dict[str, float]
    length: float
    latency: float
    load_bytes: int


def _total(share: Share, op: TemplateOp, kind: Kind) -> _Total:
    """Cost of all work of an op on one kind of visit."""
    units: dict[str, float] = {}
    latency, load_bytes = 0.0, 0

    def length(work: tuple[Work, ...]) -> float:
        """Cycles of a part of the work, whose units are counted on the way."""
        nonlocal latency, load_bytes
        own: dict[str, float] = {}
        one_by_one = 0.0
        for name in work:
            found = work_cost(name, share, kind)
            latency, load_bytes = max(latency, found.latency), load_bytes + found.load_bytes
            one_by_one += max(found.units.values(), default=0.0)
            for unit, cycles in found.units.items():
                own[unit] = own.get(unit, 0.0) + cycles
                units[unit] = units.get(unit, 0.0) + cycles
        return max(own.values(), default=0.0) if op.parallel else one_by_one

    until_result, afterwards = length(op.work), length(op.then)
    return _Total(units, until_result + afterwards, latency - afterwards, load_bytes)
