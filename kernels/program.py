"""Loop programs: what one kv tile makes a kernel do, op by op, on which unit and after what.

A program is a template (data, one TOML file a kind of kernel) of roles, the groups of warps that work side by side, and of the
ops that each role issues in order, for one tile after the other. `build` fills it with the numbers of a kernel, a tile and a GPU.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cached_property
from math import ceil
from pathlib import Path
from typing import Annotated, Literal, NamedTuple

from msgspec import Meta, Struct

from ..facts import Shelf, UserError
from ..hwspecs import GpuSpec
from .profile import KernelProfile
from .tensor_core import Operand, matmul

UNITS = ("tensor", "ex2", "fma", "alu", "smem", "tmem")
"""Units of an SM that ops compete for."""

Kind = Literal["plain", "masked", "qk_only", "skipped", "gather"]
KINDS: tuple[Kind, ...] = ("plain", "masked", "qk_only", "skipped", "gather")
"""What a visit can cost: a tile without and with an element mask, one of which only the scores are computed, one passed over, and
one whose keys lie scattered in memory."""

Work = Literal[
    "load_k", "load_v", "qk", "pv", "mask", "max", "scale", "exp", "sum", "convert", "rescale",
    "scores_read", "probabilities_write", "p_to_smem", "barrier",
    # By halves of the head width.
    "load_k_half", "load_v_half", "qk_half", "pv_half",
    # Half of the keys of a tile, kept in fewer bits: fetched, brought to the type of the product by eighths of its columns, and
    # had from the other CTA of a pair.
    "load_half", "dequantize_eighth", "receive_half",
    # Q fetched anew for every tile, and an output that is summed up in memory: read, added to by way of shared memory, stored.
    "load_rows_half", "load_sum_half", "sum_to_smem_half", "store_sum_half",
    # Linear attention in fp32: Q, K and V widened, scores of the chunk, a product with the state, decay, the chunk added to it.
    "widen", "wide_qk", "wide_pv", "state_read", "decay", "state_add",
    # Softmax on the array that multiplies.
    "array_softmax",
    # K and V of bitmaps and packed values.
    "unpack_k", "unpack_v",
    # V of 8 bits, which wgmma takes by columns only: turned in shared memory.
    "transpose_v",
    # CTAs that own keys and visit queries: `rows` are the keys that a share owns, `keys` the queries of a visit.
    "load_q", "load_do", "kq", "vp", "o_read", "store_o",
    "dp", "dv", "dk", "dq", "ds", "ds_to_smem", "dq_read", "dq_to_smem", "dq_reduce", "store_dq",
]  # fmt: skip


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
    """

    name: str
    roles: tuple[str, ...]
    ops: tuple[Op, ...]

    def unit_cycles(self, kind: Kind) -> dict[str, float]:
        """Cycles that a visit takes each unit."""
        return dict(self._unit_cycles[kind])

    @cached_property
    def _unit_cycles(self) -> dict[Kind, dict[str, float]]:
        return {kind: {unit: sum(op.units[kind].get(unit, 0.0) for op in self.ops) for unit in UNITS} for kind in KINDS}

    def load_bytes(self, kind: Kind) -> int:
        """Bytes that a visit moves between L2 and the SM."""
        return sum(op.load_bytes[kind] for op in self.ops)


class _Share(NamedTuple):
    """The numbers that the cost of a work item follows from: one share of a tile."""

    spec: GpuSpec
    profile: KernelProfile
    warps: int
    shares: int
    rows: int
    keys: int
    d: int
    d_v: int
    element_bytes: int
    rate: float
    mask_alu: float
    segment: int = 1
    score_rate: float = 0.0
    """Rate of QK, where it has one of its own."""
    stored: float = 1.0

    @property
    def scores(self) -> int:
        return self.rows * self.keys

    @property
    def family(self) -> str:
        """Tensor instruction that the kernel uses."""
        return "mma_sync" if self.profile.tensor_path == "mma_sync" else self.spec.mma.family

    @property
    def in_tmem(self) -> bool:
        """Products are accumulated in tensor memory; otherwise in registers."""
        return self.family == "tcgen05"


class _Cost(NamedTuple):
    units: dict[str, float]
    latency: float = 0.0
    load_bytes: int = 0


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
    share = _Share(
        spec,
        profile,
        warps,
        copies,
        q_rows // copies,
        kv_rows,
        head_dim,
        head_dim_v,
        element_bytes,
        tensor_rate,
        mask_alu,
        segment,
        stored,
    )
    share = share._replace(score_rate=score_rate)
    whole = share._replace(rows=q_rows, shares=1)
    placed = list(_placed(form, copies))
    index = {(p.op.name, p.copy): number for number, p in enumerate(placed)}
    # A single warpgroup leads nobody.
    lag_cycles = profile.timing.lag_cycles
    in_step = q_rows > spec.mma.m and any(p.op.leads for p in placed)
    ops = []
    looks = _look(whole)
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
        contention = profile.timing.contention if on_registers and not share.in_tmem and not in_step else 0.0
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
                loads=next((_LOADS[work] for work in p.op.work if work in _LOADS), ""),
                needs_q=not {"qk", "qk_half", "kq"}.isdisjoint(p.op.work),
            )
        )
    return LoopProgram(form.name, tuple(_role_names(form, copies)), tuple(ops))


def _look(tile: _Share) -> float:
    """Cycles in which the warps that compute find that a tile is passed over."""
    look = tile.profile.look
    read = tile.scores * look.mask_bytes
    # A mask tile comes through the SM's port, and its words are joined on the ALU.
    return look.cycles + read / tile.spec.mem.l2.sm_bytes_per_clk + read / 4 / tile.spec.units.alu_lanes


SECTOR = 32
"""Bytes that L2 hands out at least."""

CHUNK = 16
"""Bytes that a thread copies at a time where no tensor map describes the rows (cp.async)."""

ADDRESS_ALU = 4.0
"""ALU operations for the address of a chunk: row of the list, times the stride, plus column; a compare."""


def _gathered(share: _Share, cost: _Cost) -> _Cost:
    """A load whose rows are found in a list: whole sectors, an address for each chunk, and the list itself before it."""
    row = cost.load_bytes / share.keys
    piece = max(row * share.segment, 1.0)
    fetched = round(cost.load_bytes * -(-piece // SECTOR) * SECTOR / piece)
    alu = cost.load_bytes / CHUNK * ADDRESS_ALU / share.spec.units.alu_lanes
    return _Cost({"alu": alu}, (share.spec.mem.l2.latency_near or 250.0), fetched)


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


def _total(share: _Share, op: TemplateOp, kind: Kind) -> _Total:
    """Cost of all work of an op on one kind of visit."""
    units: dict[str, float] = {}
    latency, load_bytes = 0.0, 0

    def length(work: tuple[Work, ...]) -> float:
        """Cycles of a part of the work, whose units are counted on the way."""
        nonlocal latency, load_bytes
        own: dict[str, float] = {}
        one_by_one = 0.0
        for name in work:
            if _runs(name, kind):
                cost = _WORK[name](share)
                if kind == "gather" and name in _LOADS:
                    cost = _gathered(share, cost)
                latency, load_bytes = max(latency, cost.latency), load_bytes + cost.load_bytes
                one_by_one += max(cost.units.values(), default=0.0)
                for unit, cycles in cost.units.items():
                    own[unit] = own.get(unit, 0.0) + cycles
                    units[unit] = units.get(unit, 0.0) + cycles
        return max(own.values(), default=0.0) if op.parallel else one_by_one

    until_result, afterwards = length(op.work), length(op.then)
    return _Total(units, until_result + afterwards, latency - afterwards, load_bytes)


_LOADS: dict[str, Literal["k", "v"]] = {
    **dict.fromkeys(("load_k", "load_k_half", "load_half", "load_q"), "k"),
    **dict.fromkeys(("load_v", "load_v_half", "load_do"), "v"),
}
"""Which of the two tiles of a visit a work item fetches."""

_SCORES_ONLY = {"load_k", "load_k_half", "load_q", "load_half", "dequantize_eighth", "receive_half"}
_SCORES_ONLY |= {"load_rows_half", "qk", "qk_half", "kq", "mask", "max", "scores_read", "barrier"}


def _runs(work: str, kind: Kind) -> bool:
    if kind == "skipped":
        return False
    if work == "mask":
        return kind == "masked"
    return kind != "qk_only" or work in _SCORES_ONLY


def _product(share: _Share, columns: int, depth: int, left: Operand) -> _Cost:
    legacy = share.family == "mma_sync"
    product = matmul(
        share.spec,
        share.rows,
        columns,
        depth * share.element_bytes,
        "registers" if legacy else left,
        share.rate,
        depth,
        # Each warp holds some rows, sixteen at least; warps beyond that share the columns.
        readers=min(share.warps, max(1, share.rows // _WARP_ROWS)) if legacy else 1,
        legacy=legacy,
    )
    return _Cost({"tensor": product.tensor, "smem": product.smem}, product.latency)


_WARP_ROWS = 16
"""Rows of one mma.sync."""


def _gradient(share: _Share, rows: int, columns: int, depth: int, left: Operand) -> _Cost:
    """A product of a kernel whose CTAs own keys. Its mma.sync warps stand in the grid that makes them read the least."""
    cost = _product(share._replace(rows=rows), columns, depth, left)
    if share.family != "mma_sync":
        return cost
    split = [n for n in range(1, share.warps + 1) if share.warps % n == 0 and (n == 1 or rows // n >= _WARP_ROWS)]
    read = min(columns * n + rows * (share.warps // n) for n in split) * depth * share.element_bytes
    return _Cost({**cost.units, "smem": read / share.spec.units.smem_bytes}, cost.latency)


def _held(share: _Share) -> Operand:
    """Where P and dS lie as left factors: where the product before left them, but for mma.sync, whose warps share them."""
    return "tmem" if share.in_tmem else "registers" if share.family == "wgmma" else "smem"


def _smem(share: _Share, bytes_: float) -> _Cost:
    return _Cost({"smem": bytes_ / share.spec.units.smem_bytes})


def _fma(share: _Share, operations: float) -> _Cost:
    return _Cost({"fma": operations / share.spec.units.fma_lanes})


def _alu(share: _Share, operations: float) -> _Cost:
    return _Cost({"alu": operations / share.spec.units.alu_lanes})


def _exp(share: _Share) -> _Cost:
    softmax = share.profile.softmax
    on_fma = softmax.exp_on_fma.get(share.spec.arch, 0.0)
    units = {"ex2": share.scores * softmax.exp * (1 - on_fma) / share.spec.units.ex2}
    if on_fma:
        units["fma"] = share.scores * on_fma * softmax.polynomial_fma / share.spec.units.fma_lanes
    return _Cost(units)


def _tmem(share: _Share, bytes_: float) -> _Cost:
    """Bytes between tensor memory and registers; none where products are accumulated in registers."""
    if not share.in_tmem:
        return _Cost({})
    rate = share.spec.units.tmem_read_bytes
    if rate is None:
        raise UserError(f"GPU {share.spec.name} gives no rate of its tensor memory (units.tmem_read_bytes)")
    return _Cost({"tmem": bytes_ / rate})


def _rescale(share: _Share) -> _Cost:
    """The output is scaled; from tensor memory it goes to registers and back."""
    values = share.rows * share.d_v * share.profile.softmax.rescale
    return _Cost({**_tmem(share, 2 * 4 * values).units, **_fma(share, values).units})


def _latent_bytes(share: _Share) -> int:
    """A quantized key: d_v elements of a byte each, four bytes for every 128 of them, and the others as they were."""
    return share.d_v + share.d_v // 128 * 4 + (share.d - share.d_v) * share.element_bytes


def _array_softmax(share: _Share) -> _Cost:
    """Maximum, difference, exponential and sum of a score take a slot of the array each that a multiply-add would take."""
    softmax = share.profile.softmax
    slots = softmax.max + softmax.scale + softmax.exp + softmax.sum
    return _Cost({"tensor": 2 * share.scores * slots / share.rate})


_WIDE = 4
"""Bytes of an element in fp32."""


def _widen(share: _Share) -> _Cost:
    """Q, K and V to fp32, and into shared memory as factors of products; scores and state go there too."""
    loaded = share.rows * share.d + share.keys * (share.d + share.d_v)
    factors = loaded + share.scores + share.d * share.d_v
    return _Cost({**_alu(share, loaded).units, **_smem(share, _WIDE * factors).units})


def _unpack(share: _Share, width: int) -> _Cost:
    """Each element finds its place among the packed values, and goes into shared memory, zeros included."""
    elements = share.keys * width
    operations = _alu(share, elements * share.profile.softmax.dequantize).units
    return _Cost({**operations, **_smem(share, elements * share.element_bytes).units})


def _iteration(share: _Share) -> float:
    cycles = share.profile.timing.iteration_cycles
    return cycles.get(share.spec.arch, cycles.get("other", 0.0))


_WORK: dict[str, Callable[[_Share], _Cost]] = {
    "load_k": lambda s: _Cost({}, load_bytes=round(s.keys * s.d * s.element_bytes * s.stored)),
    "load_v": lambda s: _Cost({}, load_bytes=round(s.keys * s.d_v * s.element_bytes * s.stored)),
    "qk": lambda s: _product(s._replace(rate=s.score_rate or s.rate), s.keys, s.d, "smem"),
    "pv": lambda s: _product(s, s.d_v, s.keys, "tmem" if s.in_tmem else "registers"),
    "mask": lambda s: _alu(s, s.scores * s.mask_alu),
    "max": lambda s: _Cost({"alu": s.scores * s.profile.softmax.max / (s.spec.units.max_lanes or s.spec.units.alu_lanes)}),
    "scale": lambda s: _fma(s, s.scores * s.profile.softmax.scale),
    "exp": _exp,
    "sum": lambda s: _fma(s, s.scores * s.profile.softmax.sum),
    "convert": lambda s: _alu(s, s.scores * s.profile.softmax.convert),
    "rescale": _rescale,
    "scores_read": lambda s: _tmem(s, 4 * s.scores),
    "probabilities_write": lambda s: _tmem(s, s.element_bytes * s.scores),
    "p_to_smem": lambda s: _smem(s, s.element_bytes * s.scores),
    "barrier": lambda s: _Cost({}, latency=_iteration(s)),
    "load_k_half": lambda s: _Cost({}, load_bytes=s.keys * s.d * s.element_bytes // 2),
    "load_v_half": lambda s: _Cost({}, load_bytes=s.keys * s.d_v * s.element_bytes // 2),
    "qk_half": lambda s: _product(s, s.keys, s.d // 2, "smem"),
    "pv_half": lambda s: _product(s, s.d_v // 2, s.keys, "tmem" if s.in_tmem else "registers"),
    "load_rows_half": lambda s: _Cost({}, load_bytes=s.rows * s.d * s.element_bytes // 2),
    "load_sum_half": lambda s: _Cost({}, load_bytes=4 * s.rows * s.d_v // 2),
    "sum_to_smem_half": lambda s: _smem(s, 2 * 4 * s.rows * s.d_v / 2),
    "store_sum_half": lambda s: _Cost({}, load_bytes=4 * s.rows * s.d_v // 2),
    "load_half": lambda s: _Cost({}, load_bytes=s.keys // 2 * _latent_bytes(s)),
    "dequantize_eighth": lambda s: _Cost(
        {
            **_alu(s, s.keys * s.d_v / 16 * s.profile.softmax.dequantize).units,
            **_smem(s, s.keys * s.d / 16 * s.element_bytes).units,
        }
    ),
    "receive_half": lambda s: _smem(s, s.keys / 2 * s.d * s.element_bytes),
    "array_softmax": _array_softmax,
    "widen": _widen,
    "wide_qk": lambda s: _product(s._replace(element_bytes=_WIDE), s.keys, s.d, "smem"),
    "wide_pv": lambda s: _product(s._replace(element_bytes=_WIDE), s.d_v, s.keys, "smem"),
    "state_read": lambda s: _product(s._replace(element_bytes=_WIDE), s.d_v, s.d, "smem"),
    "state_add": lambda s: _product(s._replace(rows=s.d, element_bytes=_WIDE), s.d_v, s.keys, "smem"),
    # Of the scores, of what the state gives and its sum with what the scores gave, of the keys, and of the state.
    "decay": lambda s: _fma(s, s.scores + 2 * s.rows * s.d_v + s.keys * s.d + s.d * s.d_v),
    "unpack_k": lambda s: _unpack(s, s.d),
    "unpack_v": lambda s: _unpack(s, s.d_v),
    # Read and written once; bytes of four rows are sorted into words, two permutations a word.
    "transpose_v": lambda s: _Cost(
        {**_smem(s, 2 * s.keys * s.d_v * s.element_bytes).units, **_alu(s, s.keys * s.d_v / 2 * s.element_bytes).units}
    ),
    # K and V are owned; Q, dO and the gradient of Q belong to the visit. Shares divide the columns of dQ, not what is summed up.
    "load_q": lambda s: _Cost({}, load_bytes=s.keys * s.d * s.element_bytes),
    "load_do": lambda s: _Cost({}, load_bytes=s.keys * s.d_v * s.element_bytes),
    "kq": lambda s: _gradient(s, s.rows, s.keys, s.d, "smem"),
    "vp": lambda s: _gradient(s, s.keys, s.d_v, s.rows, _held(s)),
    "o_read": lambda s: _tmem(s, 4 * s.keys * s.d_v),
    "store_o": lambda s: _Cost({}, load_bytes=s.keys * s.d_v * s.element_bytes),
    "dp": lambda s: _gradient(s, s.rows, s.keys, s.d_v, "smem"),
    "dv": lambda s: _gradient(s, s.rows, s.d_v, s.keys, _held(s)),
    "dk": lambda s: _gradient(s, s.rows, s.d, s.keys, _held(s)),
    "dq": lambda s: _gradient(s, s.keys, ceil(s.d / s.shares), s.rows * s.shares, "smem"),
    "ds": lambda s: _fma(s, 2 * s.scores),
    "ds_to_smem": lambda s: _smem(s, s.element_bytes * s.scores),
    "dq_read": lambda s: _tmem(s, 4 * s.keys * s.d / s.shares),
    "dq_to_smem": lambda s: _smem(s, 4 * s.keys * s.d / s.shares),
    "dq_reduce": lambda s: _smem(s, 4 * s.keys * s.d / s.shares),
    "store_dq": lambda s: _Cost({}, load_bytes=4 * s.keys * s.d // s.shares),
}
